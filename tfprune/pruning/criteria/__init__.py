"""How much does each channel of a group matter? A criterion gives one score a channel, larger = keep."""

from tfprune.pruning.criteria.activations import ActivationMean, APoZ
from tfprune.pruning.criteria.ensemble import Ensemble, relative
from tfprune.pruning.criteria.gradients import SNIP, Fisher, Gradient, GraSP, Hessian, Taylor
from tfprune.pruning.criteria.group import ChannelGroup, combine, making
from tfprune.pruning.criteria.synflow import SynFlow
from tfprune.pruning.criteria.table import CRITERIA, get, look, needs_data, needs_scales, score
from tfprune.pruning.criteria.weights import Random, batchnorm_scale, check_scales, geometric_median, l1, l2, lamp, linf

__all__ = [
    "CRITERIA",
    "SNIP",
    "APoZ",
    "ActivationMean",
    "ChannelGroup",
    "Ensemble",
    "Fisher",
    "GraSP",
    "Gradient",
    "Hessian",
    "Random",
    "SynFlow",
    "Taylor",
    "batchnorm_scale",
    "check_scales",
    "combine",
    "geometric_median",
    "get",
    "l1",
    "l2",
    "lamp",
    "linf",
    "look",
    "making",
    "needs_data",
    "needs_scales",
    "relative",
    "score",
]
