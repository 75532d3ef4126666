"""At which size is a pruned network trained in a slot, and how does it get there and back?

What is pruned is zero and stays zero, so a network may be trained without it. To compile few programs, networks are
trained at one of a few sizes: a few pruned channels then come along, as zeros that get no gradient.
"""

import math

import keras
import numpy as np

from tfprune.pruning import rewind, surgery
from tfprune.structure.replay import value_of

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7)  # of each group's channels; the dense size is always there

# Optimizers that do the same to every entry of a weight, wherever it stands. A norm does not notice zeros that are
# left out; means do (Adafactor), and so do products of whole matrices (Muon).
_ENTRYWISE = {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Lion", "Lamb"}
_SUMS = keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2
_DRAWS = keras.layers.Dropout, keras.layers.GaussianNoise, keras.layers.GaussianDropout, keras.layers.AlphaDropout


def counts_of(graph, keep, may_shrink=True):
    """The size at which a network is trained: how many channels of each group, the smallest that holds it.

    Args:
        graph: The `ChannelGraph` of its masked model.
        keep: Bool array over its units.
        may_shrink: Whether pruned channels may be left out at all.
    """
    kept = [(int(keep[group.units].sum()), group.channels) for group in graph.prunable]
    for share in SHARES if may_shrink else ():
        counts = tuple(math.ceil(share * channels - 1e-9) for _, channels in kept)
        if all(count >= own for count, (own, _) in zip(counts, kept, strict=True)):
            return counts
    return tuple(channels for _, channels in kept)


def is_noisy(model):
    """Whether a layer draws random numbers in training."""
    return any(isinstance(layer, _DRAWS) for layer in model.layers)


def may_shrink(masked):
    """Whether training without what is pruned gives exactly what training with it gives.

    Args:
        masked: A compiled model from `tfprune.wrap`.
    """
    noisy = is_noisy(masked)  # noise is drawn for all channels at once
    regularizers = (getattr(weight, "regularizer", None) for weight in masked.trainable_variables)
    plain = all(
        r is None or type(r) in (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
        for r in regularizers
    )
    return type(masked.optimizer).__name__ in _ENTRYWISE and not noisy and plain


class Size:
    """One size of a network: its plain Keras model, and how the values of a masked model become its values and back.

    Args:
        masked: A compiled model from `tfprune.wrap`; it is left as it is.
        counts: Channels of each prunable group, as `counts_of` says.

    Example:
        >>> size = Size(masked, counts_of(graph, keep))
        >>> values, allow = size.take(keep)
        >>> size.give(values, keep)
    """

    def __init__(self, masked, counts):
        self.masked, self.counts = masked, counts
        self.graph = surgery.masked_graph(masked, "Size")
        before = self.graph.kept()
        surgery.set_units(self.graph, self._pad(np.zeros(len(before), bool)))
        try:
            self.model, pairs = surgery.cut(masked, self.graph)
        finally:
            surgery.set_units(self.graph, before)
        rewind.optimizer_variables(self.model)
        owners = {id(new): old for old, new, _, _ in pairs}
        weights = [owners[id(new)] for new in (*self.model.trainable_variables, *self.model.non_trainable_variables)]
        slots = {id(slot): weight for weight, slot in rewind.slots(masked.optimizer)}
        state = rewind.optimizer_variables(masked)
        self.variables = [*weights, *state]
        self.owners = [*weights, *(slots.get(id(variable)) for variable in state)]
        self.num_trainable = len(self.model.trainable_variables)

    def _pad(self, keep):
        """What is trained of a network: the channels that are kept and, in order, as many others as there are seats."""
        keep = keep.copy()
        keep[self._not_prunable] = True
        for group, count in zip(self.graph.prunable, self.counts, strict=True):
            others = group.units[~keep[group.units]]
            keep[others[: count - int(keep[group.units].sum())]] = True
        return keep

    @property
    def _not_prunable(self):
        free = np.zeros(self.graph.num_units, bool)
        for group in self.graph.prunable:
            free[group.units] = True
        return ~free

    def take(self, keep):
        """`(values, allow)` of the masked model as it is now, at this size.

        Args:
            keep: Bool array over its units: what is not kept must be zero already.
        """
        entries, kept = self._entries(keep), surgery.kept_entries(self.graph, keep)
        values = [_cut(value_of(v), entries.get(id(owner))) for v, owner in self._pairs()]
        allow = []
        for variable in self.variables[: self.num_trainable]:
            may = kept[id(variable)][1] if id(variable) in kept else np.ones(variable.shape, bool)
            allow.append(_cut(may, entries.get(id(variable))).astype("float32"))
        return values, allow

    def fill(self, keep):
        """Gives the small model the weights of the masked model as it is now.

        Args:
            keep: Bool array over its units.
        """
        entries = self._entries(keep)
        weights = [*self.model.trainable_variables, *self.model.non_trainable_variables]
        for weight, (variable, owner) in zip(weights, self._pairs(), strict=False):  # those of the optimizer follow
            weight.assign(_cut(value_of(variable), entries.get(id(owner))))

    def give(self, values, keep):
        """Gives the masked model values of this size; what was left out stays as it is.

        Args:
            values: As from `take`.
            keep: The same as for it.
        """
        entries = self._entries(keep)
        for (variable, owner), value in zip(self._pairs(), values, strict=True):
            entry = entries.get(id(owner))
            if entry is not None:
                whole = value_of(variable)
                whole[entry] = value.reshape(-1)
                value = whole
            variable.assign(value)

    def _pairs(self):
        return zip(self.variables, self.owners, strict=True)

    def _entries(self, keep):
        found = surgery.kept_entries(self.graph, self._pad(keep))
        return {key: kept for key, (_, kept) in found.items()}


def _cut(value, entries):
    """The entries of an array, which lie on a grid, as a smaller array."""
    if entries is None:
        return value
    sizes = [
        int(entries.any(axis=tuple(i for i in range(entries.ndim) if i != axis)).sum()) for axis in range(entries.ndim)
    ]
    return value[entries].reshape(sizes)
