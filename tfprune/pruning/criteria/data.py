"""How does a criterion look at data: batch after batch, in memory that does not grow with their number?"""

import functools
import itertools

import keras
import numpy as np
import tensorflow as tf

from tfprune.pruning.criteria.group import check_members, combine
from tfprune.pruning.criteria.network import Network
from tfprune.pruning.criteria.weights import alive_in
from tfprune.pruning.ratios import check_count


class Measured:
    """A criterion that runs the model on data. Each subclass says in `step` what it measures on a batch.

    What `step` gives is averaged over the samples; `finish` makes the score of a channel (or, in a list, of a weight
    that makes channels) of the average. The model runs as in inference and is not changed; its loss is the one it is
    compiled with.

    Args:
        data: What `fit` trains on: a `tf.data.Dataset` of `(x, y)` batches, or a pair of arrays `(x, y)`.
        members: How the layers that make the same channels (or read them) are combined: "sum" (default), "mean" or
            "max".
        batches: The most batches to look at. Default None: all.
    """

    comparable = True  # scores of different layers are in the same unit, that of the loss
    needs_loss = True

    def __init__(self, data, members="sum", batches=None):
        self.data, self.members = _dataset(data), check_members(members)
        self.batches = None if batches is None else check_count("batches", batches)
        if batches is None and self.data.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                f"{type(self).__name__} looks at all of its data, but this tf.data.Dataset never ends. Say how many "
                "batches to look at, for example batches=10."
            )
        self._known = None

    def measure(self, masked, keep):
        """Looks at the data with some channels gone, and returns a function `group -> scores`.

        Args:
            masked: A model from `tfprune.wrap`.
            keep: Bool array over the model's unit numbers, see `tfprune.structure.groups.ChannelGraph.kept`.
        """
        network = self._network(masked)
        found = self.finish(network, self.look(network, tf.constant(keep, "float32")))
        return lambda group: self.score(group, network, found)

    def look(self, network, gates):
        """The average of `step` over the samples; more than one pass where a criterion needs it."""
        return self.average(network, self.step, gates)

    def average(self, network, step, *given):
        """The average over all samples of what `step(network, batch, *given)` gives for a batch."""
        run, total, samples = self._compiled(network, step, given), None, 0
        for batch in itertools.islice(self.data, self.batches):
            size = int(tf.shape(tf.nest.flatten(batch)[0])[0])
            found = [tf.cast(part, "float64") * size for part in run(batch, *given)]
            total = found if total is None else [one + other for one, other in zip(total, found, strict=True)]
            samples += size
        if not samples:
            raise ValueError(f"{type(self).__name__} needs data, but the data set gave no batch.")
        return [part.numpy() / samples for part in total]

    def step(self, network, batch, gates):
        """List of tensors measured on a batch."""
        raise NotImplementedError

    def finish(self, network, found):
        """From the averages: one array over all units, or one for each of `network.makers`. Default: the first."""
        return found[0]

    def score(self, group, network, found):
        """One score a channel of a group; a channel that no weight flows into says nothing and scores 0."""
        if isinstance(found, np.ndarray):
            scores = found[group.units]
        else:
            scores = combine([row.sum(axis=1) for row in group.rows(network.lookup(found))], self.members)
        return np.where(alive_in(group), scores, 0.0)

    def _network(self, masked):
        """The model and what was compiled for it, kept for the next time."""
        if self._known is None or self._known.model is not masked:
            if self.needs_loss and not getattr(masked, "compiled", False):
                raise ValueError(
                    f"{type(self).__name__} derives the loss that the model is trained with. Call compile on "
                    f"'{masked.name}' first."
                )
            self._known = Network(masked)
            self.data = _batched(self.data, self._known.graph.trace.inputs)
        return self._known

    def _compiled(self, network, step, given):
        """`step` traced once for batches of any size, if the data set's last one is smaller than the others."""
        name = step.__name__
        if name not in network.compiled:
            specs = keras.tree.map_structure(lambda value: tf.TensorSpec(value.shape, value.dtype), list(given))
            traced = tf.function(functools.partial(step, network))
            try:
                network.compiled[name] = traced.get_concrete_function(self.data.element_spec, *specs)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(self._misfit(network.model)) from error
        return network.compiled[name]

    def _misfit(self, model):
        """What a model takes and gives, and what it got: TensorFlow tells where its code stopped instead."""
        x, y, _ = keras.utils.unpack_x_y_sample_weight(self.data.element_spec)
        labels = f" and y of shape {_shapes(y)}" if self.needs_loss else ""
        gives = f" and gives {_shapes(model.outputs)}" if self.needs_loss else ""
        return (
            f"{type(self).__name__} cannot run model '{model.name}' on its data. The model takes x of shape "
            f"{_shapes(model.inputs)}{gives}. Received: x of shape {_shapes(x)}{labels}. Pass the data that fit takes."
        )


def _dataset(data):
    if isinstance(data, tf.data.Dataset):
        return data
    if isinstance(data, tuple | list) and len(data) in (2, 3):
        parts = tuple(map(_arrays, data))
        if len({leaf.shape[:1] for leaf in keras.tree.flatten(parts)}) > 1:
            raise ValueError(f"x and y of data must hold as many samples. Received: arrays of shape {_shapes(parts)}.")
        return tf.data.Dataset.from_tensor_slices(parts).batch(32)
    raise TypeError(
        "data must be a tf.data.Dataset of (x, y) batches, or a pair of arrays (x, y). Received: "
        f"{type(data).__name__}."
    )


def _shapes(parts):
    return ", ".join(str(leaf.shape) for leaf in keras.tree.flatten(parts) if leaf is not None) or "none"


def _arrays(part):
    """One array, or a structure of them: tf.data takes a list of arrays for one array of them all."""
    if isinstance(part, dict):
        return {name: _arrays(value) for name, value in part.items()}
    if isinstance(part, tuple | list) and any(np.ndim(value) for value in part) and not _is_one(part):
        return tuple(map(_arrays, part))
    return np.asarray(part)


def _is_one(rows):
    """Whether these are rows written out, not an array for each input."""
    return all(isinstance(row, tuple | list) for row in rows)


def _batched(data, inputs):
    """The data set in batches, where its elements are single samples."""
    elements = keras.tree.flatten(keras.utils.unpack_x_y_sample_weight(data.element_spec)[0])
    shape, wanted = elements[0].shape, keras.tree.flatten(inputs)[0].shape[1:]
    if shape.rank != len(wanted) or any(want not in (None, size) for size, want in zip(shape, wanted, strict=True)):
        return data
    return data.batch(32)
