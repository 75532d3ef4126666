"""When is a model pruned, rewound and stopped inside `model.fit`? (`tfprune.pruning` knows how.)"""

from tfprune.callbacks.compaction import Compaction
from tfprune.callbacks.early_bird import EarlyBird
from tfprune.callbacks.gradual import GradualPruning
from tfprune.callbacks.lottery import LotteryTicket, share_epochs
from tfprune.callbacks.sparse import GroupLasso, GrowingRegularization, NetworkSlimming

__all__ = [
    "Compaction",
    "EarlyBird",
    "GradualPruning",
    "GroupLasso",
    "GrowingRegularization",
    "LotteryTicket",
    "NetworkSlimming",
    "share_epochs",
]
