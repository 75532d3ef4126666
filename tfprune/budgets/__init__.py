"""How small must a model become to meet a budget, and which layers can afford it?

prune_to                   a budget in parameters, multiply-adds, bytes or latency -> a small model that meets it
budget_report              what was asked, and what was reached
choose_round_to            the multiple of channels that runs fastest on this device
sensitivity, ratios_within what pruning each group of layers alone costs, and the ratios that cost little
"""

from tfprune.budgets.rounding import choose_round_to
from tfprune.budgets.search import budget_report, prune_to
from tfprune.budgets.sensitivity import ratios_within, sensitivity

__all__ = ["budget_report", "choose_round_to", "prune_to", "ratios_within", "sensitivity"]
