"""How much does each channel of a group matter? A criterion gives one score a channel, larger = keep."""

import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """What a criterion sees of a group of channels that are pruned together.

    Args:
        name: The group's name: the first layer that makes its channels.
        layers: Names of all layers that hold weights for these channels.
        channels: Number of channels, n.
        incoming: List of arrays of shape (n, weights), one a layer that makes the channels: row i holds the weights
            that flow into channel i. Weights that come from inputs pruned already are zero.
        scales: List of arrays of shape (n,): the gamma of each BatchNormalization that the channels pass.
    """

    name: str
    layers: tuple
    channels: int
    incoming: list
    scales: list


def l1(group):
    """Sum of the absolute incoming weights of each channel (Li et al. 2017, Pruning Filters for Efficient ConvNets)."""
    return sum(np.abs(weights).sum(axis=1) for weights in group.incoming)


def l2(group):
    """Euclidean norm of the incoming weights of each channel."""
    return np.sqrt(sum(np.square(weights).sum(axis=1) for weights in group.incoming))


def batchnorm_scale(group):
    """Absolute gamma of the channel's BatchNormalization (Liu et al. 2017, Network Slimming).

    Raises:
        ValueError: the channels pass no BatchNormalization with a gamma.
    """
    if not group.scales:
        raise ValueError(
            f"criterion='batchnorm_scale' needs a BatchNormalization with scale=True behind every pruned layer. "
            f"'{group.name}' has none. Leave it out with ignore=['{group.name}'], or use criterion='l1'."
        )
    return sum(np.abs(scale) for scale in group.scales)


@dataclass(frozen=True)
class Random:
    """Scores drawn uniformly, the control that every criterion must beat.

    Args:
        seed: Integer; the same seed gives the same scores. Default None draws anew each time.
    """

    seed: int | None = None

    def __call__(self, group):
        """One random score a channel; groups of different names get different ones."""
        seed = None if self.seed is None else [self.seed, zlib.crc32(group.name.encode())]
        return np.random.default_rng(seed).random(group.channels)


CRITERIA = {"l1": l1, "l2": l2, "batchnorm_scale": batchnorm_scale, "random": Random}


def get(criterion, seed=None):
    """The criterion of a name, or the callable itself.

    Args:
        criterion: "l1", "l2", "batchnorm_scale", "random", or a function `group -> scores`.
        seed: For "random".

    Raises:
        ValueError: the name is unknown.
    """
    if isinstance(criterion, str) and criterion in CRITERIA:
        return Random(seed) if criterion == "random" else CRITERIA[criterion]
    if callable(criterion):
        return criterion
    names = ", ".join(repr(name) for name in CRITERIA)
    raise ValueError(f"Unknown criterion {criterion!r}. Expected one of {names}, or a callable group -> scores.")


def score(criterion, group):
    """The scores of a group, checked: one finite number a channel.

    Args:
        criterion: A function `group -> scores`.
        group: A `ChannelGroup`.

    Raises:
        ValueError: the scores have another length, or are not finite.
    """
    scores = np.asarray(criterion(group), dtype="float64")
    if scores.shape != (group.channels,):
        raise ValueError(
            f"The criterion must give one score a channel: shape ({group.channels},) for group '{group.name}'. "
            f"Received: shape {scores.shape}."
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            f"The criterion gave {int((~np.isfinite(scores)).sum())} scores of group '{group.name}' that are not "
            "finite. Check the model's weights for NaN (did the training diverge?)."
        )
    return scores
