"""Which channels of a model live or die together? Kept apart from the model, as `{layer name: int array}`.

Each channel has a number; channels with the same number live or die together, and -1 cannot go. Numbers count from 0 in
the order in which the layers make them.
"""

import numpy as np


def number(graph, names):
    """The numbers of the channels that layers make.

    Args:
        graph: A `tfprune.structure.groups.ChannelGraph`.
        names: Names of layers, as in masks.
    """
    numbers = np.full(graph.num_units, -1)
    prunable = {unit for group in graph.prunable for unit in group.units.tolist()}
    made = {name: graph.made(name) for name in names}
    in_order = dict.fromkeys(unit for units in made.values() for unit in units.tolist() if unit in prunable)
    numbers[list(in_order)] = np.arange(len(in_order))
    return {name: numbers[units] for name, units in made.items()}


def count(units):
    """How many numbers there are."""
    return 1 + max((int(numbers.max(initial=-1)) for numbers in units.values()), default=-1)


def own(units):
    """`{group name: positions of its channels in its first layer}`: a group goes by the first layer that makes it."""
    seen, found = np.zeros(count(units), bool), {}
    for name, numbers in units.items():
        fresh, first = np.unique(numbers, return_index=True)
        is_new = (fresh >= 0) & ~seen[fresh]  # -1 reads the last entry, and is left out by the first condition
        seen[fresh[is_new]] = True
        if is_new.any():
            found[name] = np.sort(first[is_new])
    return found


def gather(units, values, start):
    """One value a number, from values by channel; what no layer has a value for keeps that of `start`.

    Args:
        units: `{layer name: int array}`.
        values: `{layer name: array}`, for some or all of the layers.
        start: Array, one value a number; it is changed and returned.
    """
    for name, found in values.items():
        free = units[name] >= 0
        start[units[name][free]] = found[free]
    return start


def kept(units, masks):
    """One bool a number, from masks by channel; what no mask speaks of is kept."""
    return gather(units, masks, np.ones(count(units), bool))


def spread(units, values, other):
    """Values by channel, from one value a number; channels that cannot go have the value `other`."""
    padded = np.append(values, other)  # the last entry is the one that -1 reads
    return {name: padded[numbers] for name, numbers in units.items()}
