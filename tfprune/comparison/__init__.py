"""What did pruning change, and is it more than chance? Dense and pruned models on the same samples, in one pass."""

from tfprune.comparison.paired import Comparison, compare
from tfprune.comparison.seeds import SeedComparison, compare_seeds

__all__ = ["Comparison", "SeedComparison", "compare", "compare_seeds"]
