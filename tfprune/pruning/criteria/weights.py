"""How much does each channel matter, judged by its weights alone?"""

import zlib
from dataclasses import dataclass

import numpy as np

from tfprune.pruning.criteria.group import combine
from tfprune.pruning.ratios import check_count


def l1(group, members="sum"):
    """Sum of the absolute incoming weights of each channel (Li et al. 2017, Pruning Filters for Efficient ConvNets).

    Args:
        group: A `ChannelGroup`.
        members: How the layers that make the channels are combined: "sum" (default), "mean" or "max".
    """
    return combine([np.abs(weights).sum(axis=1) for weights in group.incoming], members)


def l2(group, members="sum"):
    """Euclidean norm of the incoming weights of each channel.

    Args:
        group: A `ChannelGroup`.
        members: How the squared norms of the layers that make the channels are combined: "sum" (default: the norm of
            all weights together), "mean" or "max".
    """
    return np.sqrt(combine([np.square(weights).sum(axis=1) for weights in group.incoming], members))


def linf(group, members="max"):
    """Largest absolute incoming weight of each channel.

    Args:
        group: A `ChannelGroup`.
        members: How the layers that make the channels are combined: "max" (default), "sum" or "mean".
    """
    return combine([np.abs(weights).max(axis=1, initial=0) for weights in group.incoming], members)


def geometric_median(group, members="sum"):
    """Sum of a channel's distances to the others: what others can stand for goes first (He et al. 2019, FPGM).

    Channels that are pruned or all zero stand for nothing: no distance to them counts, and they score 0.

    Args:
        group: A `ChannelGroup`.
        members: How the layers that make the channels are combined: "sum" (default), "mean" or "max".
    """
    alive = alive_in(group)
    distances = [_distances(weights, weights[alive]).sum(axis=1) for weights in group.incoming]
    # where one channel is left, or all are alike, being there still counts for more than being zero
    return np.where(alive, combine(distances, members) + np.finfo("float64").tiny, 0.0)


def _distances(rows, others):
    """The Euclidean distance of each row to each of the others, by one product of matrices."""
    squares = np.square(rows).sum(axis=1)[:, None] + np.square(others).sum(axis=1) - 2 * rows @ others.T
    return np.sqrt(np.maximum(squares, 0.0))


def lamp(group, members="sum"):
    """Squared norm divided by that of all channels at least as large (Lee et al. 2021, LAMP).

    The largest channel of every group scores 1, so that scores can be compared across groups without dividing them.

    Args:
        group: A `ChannelGroup`.
        members: How the squared norms of the layers that make the channels are combined: "sum" (default), "mean" or
            "max".
    """
    squares = combine([np.square(weights).sum(axis=1) for weights in group.incoming], members)
    counted = np.where(alive_in(group), squares, 0.0)
    order = np.sort(counted)
    larger = np.cumsum(order[::-1])[::-1][np.searchsorted(order, counted)]  # equal channels score alike
    return np.divide(counted, larger, out=np.zeros_like(counted), where=larger > 0)


lamp.comparable = True


def batchnorm_scale(group, members="sum"):
    """Absolute gamma of the channel's BatchNormalization (Liu et al. 2017, Network Slimming).

    Args:
        group: A `ChannelGroup`.
        members: How the BatchNormalizations that the channels pass are combined: "sum" (default), "mean" or "max".

    Raises:
        ValueError: the channels pass no BatchNormalization with a gamma.
    """
    check_scales([] if group.scales else [group.name])
    return combine([np.abs(scale) for scale in group.scales], members)


batchnorm_scale.needs_scales = True


def check_scales(without, ignore=None, some_have=True):
    """Raises ValueError where groups of channels pass no BatchNormalization with a gamma.

    Args:
        without: Names of these groups.
        ignore: Names of layers that are left out already. Default None.
        some_have: Whether there are other groups, which do. Default True.
    """
    if without:
        # Whoever leaves out what has no scale must go on leaving out what was left out before.
        leave_out = (
            f"Leave out what has none with ignore={[*(ignore or ()), *without]!r}, or use" if some_have else "Use"
        )
        raise ValueError(
            "criterion='batchnorm_scale' needs a BatchNormalization with scale=True behind every pruned layer. "
            f"Received: {', '.join(map(repr, without))} without one. {leave_out} criterion='l1'."
        )


def alive_in(group):
    """Which channels of a group are kept and have an incoming weight that is not zero."""
    nonzero = np.any([weights.any(axis=1) for weights in group.incoming], axis=0)
    return nonzero if group.kept is None else nonzero & group.kept


@dataclass(frozen=True)
class Random:
    """Scores drawn uniformly, the control that every criterion must beat.

    Args:
        seed: Integer; the same seed gives the same scores. Default None draws anew each time.
    """

    seed: int | None = None

    def __post_init__(self):  # noqa: D105
        if self.seed is not None:
            check_count("seed", self.seed, 0)

    def __call__(self, group):
        """One random score a channel; groups of different names get different ones."""
        seed = None if self.seed is None else [self.seed, zlib.crc32(group.name.encode())]
        return np.random.default_rng(seed).random(group.channels)
