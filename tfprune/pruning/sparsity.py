"""How are channels driven towards zero between the steps of a training, without touching its loss?

A penalty on weights is minimised together with the loss by proximal gradient steps: a step of the optimizer on the
loss alone, then the step that the penalty takes in closed form (Parikh & Boyd 2014, Proximal Algorithms). Unlike a
penalty in the loss, it makes weights exactly zero, leaves the logged loss the task's, and adds nothing to the model.
"""

import contextlib

import numpy as np
import tensorflow as tf

from tfprune.layers import ChannelMask
from tfprune.pruning import surgery
from tfprune.structure import roles
from tfprune.structure.groups import ChannelGraph


class Channels:
    """The trainable weights of a model's prunable channels, entry by entry.

    Args:
        model: A Keras model, with or without masks.
    """

    def __init__(self, model):
        is_masked = any(isinstance(layer, ChannelMask) for layer in model.layers)
        self.graph = surgery.masked_graph(model, "Sparse training") if is_masked else ChannelGraph(model)
        self.model, self.num_units = model, self.graph.num_units
        self.free = np.zeros(self.num_units, bool)
        for group in self.graph.prunable:
            self.free[group.units] = True
        self.weights = [found for found in self._weights() if found[0].trainable]

    def _weights(self):
        """Yields `(variable, [(axis, unit of each place along it)])`."""
        seen = set()
        for name, layer in self.graph.layers.items():
            for path, axes in self.graph.axes(name).items():
                counted = [
                    (axis, units) for axis, units in enumerate(axes) if units is not None and self.free[units].any()
                ]
                variable = roles.part(roles.unwrap(layer), path)
                if counted and id(variable) not in seen:
                    seen.add(id(variable))
                    yield variable, counted

    def scaling(self, factors):
        """Returns a function of one number that multiplies all that belongs to each channel by a factor.

        An entry that belongs to two channels (it reads one and makes the other) gets both factors.

        Args:
            factors: Function `(squared norm of each channel, number) -> factor of each channel`, of tensors.
        """
        return self.writing(lambda given: self._scale(factors, given))

    def writing(self, change):
        """Returns a function of one number that changes the model's weights, compiled once.

        Args:
            change: Function of one float32 tensor.
        """
        compiled = tf.function(change)

        def write(given):
            if self.graph.masked:
                surgery.masked_graph(self.model, "Sparse training")  # brings the model up to date, see Compaction
            with self._scope():
                compiled(tf.constant(given, "float32"))

        return write

    def _scope(self):
        """Variables of a distributed model are written under its strategy."""
        strategy = getattr(self.model, "distribute_strategy", None)
        return strategy.scope() if strategy is not None else contextlib.nullcontext()

    def _scale(self, factors, given):
        found = tf.where(self.free, factors(self.squared_norms(), given), 1.0)
        for variable, counted in self.weights:
            value = tf.convert_to_tensor(variable.value)
            for axis, units in counted:
                shape = [-1 if index == axis else 1 for index in range(len(variable.shape))]
                value *= tf.cast(tf.reshape(tf.gather(found, units), shape), value.dtype)
            variable.assign(value)

    def squared_norms(self):
        """The sum of the squares of all that belongs to each channel: what makes it, scales it, and reads it."""
        total = tf.zeros(self.num_units)
        for variable, counted in self.weights:
            squares = tf.square(tf.cast(tf.convert_to_tensor(variable.value), "float32"))
            for axis, units in counted:
                others = [index for index in range(len(variable.shape)) if index != axis]
                total += tf.math.unsorted_segment_sum(tf.reduce_sum(squares, others), units, self.num_units)
        return total


def soft(values, threshold):
    """Values moved towards zero by a threshold; what is smaller becomes zero."""
    return tf.sign(values) * tf.maximum(tf.abs(values) - threshold, 0.0)


def group_lasso(squares, given):
    """The factors by which the penalty `strength x norm of each channel` shrinks the channels; given: its step."""
    norms = tf.sqrt(squares)
    return tf.maximum(1 - tf.math.divide_no_nan(given, norms), 0.0)
