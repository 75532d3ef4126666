"""When is a model pruned, rewound and stopped inside `model.fit`? (`tfprune.pruning` knows how.)"""

from tfprune.callbacks.compaction import Compaction
from tfprune.callbacks.gradual import GradualPruning
from tfprune.callbacks.lottery import LotteryTicket, share_epochs

__all__ = ["Compaction", "GradualPruning", "LotteryTicket", "share_epochs"]
