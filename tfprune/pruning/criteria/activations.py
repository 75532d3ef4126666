"""How much does each channel matter, judged by what its readers see of it?"""

import keras
import numpy as np
import tensorflow as tf

from tfprune.layers import ChannelMask
from tfprune.pruning.criteria.data import Measured
from tfprune.structure.running import given, run


class _Seen(Measured):
    """Measures the tensors that readers read: a channel behind its BatchNormalization and activation."""

    comparable = False
    needs_loss = False

    def step(self, network, batch, gates):
        """For each tensor: the mean over the batch and all places of a channel."""
        traced = network.graph.trace
        inputs, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        network.seen = list(_seen(network.graph))
        with network.scope(gates):
            values = run(traced.calls, given(traced, inputs))
        return [
            tf.reduce_mean(self._counted(values[key]), axis=[0, *(axis + 1 for axis in others)])
            for key, others, _ in network.seen
        ]

    def _counted(self, activations):
        """What is averaged; NaN where an activation is not finite, which would count as one that is not zero."""
        activations = tf.cast(activations, "float32")
        return tf.where(tf.math.is_finite(activations), tf.cast(self.count(activations), "float32"), np.nan)

    def finish(self, network, found):
        """The members combined: one array over units."""
        if not all(np.isfinite(value).all() for value in found):
            raise ValueError(
                f"{type(self).__name__} met activations that are not finite in model '{network.model.name}'. Check its "
                "data and the model's weights for NaN and infinite values (did the training diverge?)."
            )
        members = []
        for value, (_, _, units) in zip(found, network.seen, strict=True):
            sums, counts = (
                np.bincount(units, part, network.num_units) for part in (value.ravel(), np.ones(units.size))
            )
            members.append(np.divide(sums, counts, out=np.full(network.num_units, np.nan), where=counts > 0))
        with np.errstate(invalid="ignore"):
            return _COMBINE[self.members](members)

    def score(self, group, network, found):
        """As for all, but a channel may be seen by nobody."""
        if np.isnan(found[group.units]).any():
            raise ValueError(
                f"{type(self).__name__} looks at the tensors between layers, but the channels of '{group.name}' are "
                f"inside a layer. Leave them out with ignore=[{group.layers[0]!r}], or use criterion='l1'."
            )
        return super().score(group, network, found)


class ActivationMean(_Seen):
    """Mean absolute activation of the channel, as the layers that read it see it (Molchanov et al. 2017).

    Args:
        data: A `tf.data.Dataset` of `(x, y)` batches, or a pair of arrays.
        members: How the tensors that carry the same channels are combined: "sum" (default), "mean" or "max".
        batches: The most batches to look at. Default None: all.

    Example:
        >>> masks = tfprune.compute_masks(masked, 0.5, criterion=criteria.ActivationMean(train, batches=10))
    """

    def count(self, activations):
        """What is averaged."""
        return tf.abs(activations)


class APoZ(_Seen):
    """Share of activations that are not zero: 1 - the average percentage of zeros (Hu et al. 2016, Network Trimming).

    It needs an activation that gives zeros, as ReLU.

    Args:
        data: A `tf.data.Dataset` of `(x, y)` batches, or a pair of arrays.
        members: How the tensors that carry the same channels are combined: "sum" (default), "mean" or "max".
        batches: The most batches to look at. Default None: all.

    Example:
        >>> masks = tfprune.compute_masks(masked, 0.5, criterion=criteria.APoZ(train, batches=10))
    """

    def count(self, activations):
        """What is averaged."""
        return activations != 0


def _sum(members):
    total = np.nansum(members, axis=0)
    return np.where(np.isnan(members).all(axis=0), np.nan, total)


def _mean(members):
    return _sum(members) / np.sum(~np.isnan(members), axis=0)


def _max(members):
    return np.fmax.reduce(members)  # NaN where nobody sees the channel


_COMBINE = {"sum": _sum, "mean": _mean, "max": _max}


def _seen(graph):
    """Yields `(id of a tensor, axes that count no channels, units along the others)` of what readers read."""
    prunable, known = {unit for group in graph.prunable for unit in group.units.tolist()}, set()
    for call in graph.trace.calls:
        if not isinstance(call.op, ChannelMask):
            continue
        for tensor, units in zip(call.input_tensors, graph.tensors(call)[0], strict=True):
            if id(tensor) in known or prunable.isdisjoint(np.unique(units).tolist()):
                continue
            known.add(id(tensor))
            others = [axis for axis in range(units.ndim) if (units == units.take([0], axis)).all()]
            picked = units[tuple(0 if axis in others else slice(None) for axis in range(units.ndim))]
            yield id(tensor), others, picked.ravel()
