"""What does a criterion see of channels that are pruned together?"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfprune.structure import roles


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
        kept: Bool array of shape (n,): which channels are not pruned yet. Default None: all.
        units: Int array of shape (n,): the number of each channel in the whole model. Default None.
        rows: Function that lays out other values than the weights as `incoming` is: it takes a function `variable ->
            array of its shape` and gives a list of arrays of shape (n, weights). Default None.
    """

    name: str
    layers: tuple
    channels: int
    incoming: list
    scales: list
    kept: np.ndarray | None = None
    units: np.ndarray | None = None
    rows: Callable | None = None


_MEMBERS = {"sum": np.sum, "mean": np.mean, "max": np.max}


def combine(scores, members):
    """One score a channel, from a score a channel of each member.

    Args:
        scores: List of arrays of shape (n,), one a member of the group.
        members: "sum", "mean" or "max".

    Raises:
        ValueError: `members` is something else.
    """
    return _MEMBERS[check_members(members)](scores, axis=0)


def check_members(members):
    """Returns the name, or says what is wrong with it."""
    if members not in _MEMBERS:
        raise ValueError(f"members must be 'sum', 'mean' or 'max'. Received: members={members!r}.")
    return members


def making(graph, group):
    """The weights that flow into a group's channels, as `[(layer name, weight's name, axis name, units, variable)]`.

    Args:
        graph: A `tfprune.structure.groups.ChannelGraph`.
        group: One of its groups.
    """
    found = []
    for maker, units in group.makers.items():
        name, axis = graph.maker_axes[maker]
        for path, counted in roles.role_of(graph.layers[name]).makes.get(axis, {}).items():
            if path in graph.axes(name):
                variable = roles.part(roles.unwrap(graph.layers[name]), path)
                found.append((name, path, counted, units, variable))
    return found
