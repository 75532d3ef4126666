"""What would a masked model lose, with other values in its masks and weights? It is never changed to find out."""

import keras
import numpy as np
import tensorflow as tf

from tfprune.layers import ChannelMask
from tfprune.pruning import surgery
from tfprune.pruning.criteria.group import making

_HALF_SCALE = 1024.0  # float16 rounds small gradients to zero: they are computed larger, and divided again


class Network:
    """A masked model whose channels have gates, and whose weights can be exchanged for one computation.

    A gate is a number for each channel of the model: wherever the channel is read, it is multiplied by it. A mask is
    such a gate, 1 or 0; between them the loss can be derived.

    Args:
        masked: A model from `tfprune.wrap`.
    """

    def __init__(self, masked):
        self.model, self.graph = masked, surgery.masked_graph(masked, "A criterion")
        self.num_units, self.compiled = self.graph.num_units, {}
        self.masks = [
            (mask, self.graph.units(self.graph.counts[name][axis]))
            for name, layer in self.graph.layers.items()
            if isinstance(layer, ChannelMask)
            for axis, mask in layer.masks.items()
        ]
        makers = [place[-1] for group in self.graph.prunable for place in making(self.graph, group)]
        self.makers = list({id(variable): variable for variable in makers}.values())
        self.scale = _HALF_SCALE if any(layer.compute_dtype == "float16" for layer in masked.layers) else 1.0

    def weights(self):
        """The weights that make channels, as tensors that can be derived by."""
        return [tf.cast(keras.ops.convert_to_tensor(variable), "float32") for variable in self.makers]

    def lookup(self, values):
        """A function `variable -> value`, from one value for each of `self.makers`."""
        known = {id(variable): value for variable, value in zip(self.makers, values, strict=True)}
        return lambda variable: known[id(variable)]

    def channel_sums(self, values):
        """The sum over all weights that flow into each channel, one number a unit, from a value a weight."""
        value_of, totals = self.lookup(values), np.zeros(self.num_units)
        for group in self.graph.prunable:
            for name, path, counted, _, variable in making(self.graph, group):
                axis = self.graph.axis_names(name)[path].index(counted)
                rows = np.moveaxis(value_of(variable), axis, 0).reshape(variable.shape[axis], -1)
                np.add.at(totals, self.graph.axes(name)[path][axis], rows.sum(axis=1))
        return totals

    def scope(self, gates, weights=None):
        """A scope in which the model has these gates, and these values of `self.makers`; nothing in it is kept.

        Args:
            gates: Tensor of shape (num_units,).
            weights: List of tensors. Default None: as they are.
        """
        values = [(mask, tf.gather(gates, units)) for mask, units in self.masks]
        values += zip(self.makers, weights or (), strict=bool(weights))
        return keras.StatelessScope(values)

    def loss(self, batch, gates, weights=None):
        """The loss that `fit` would minimise on a batch, in the mode of inference, times `self.scale`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        with self.scope(gates, weights):
            predicted = self.model(x, training=False)
            loss = self.model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=sample_weight, training=False)
        return tf.cast(loss, "float32") * self.scale

    def gate_gradient(self, batch, gates):
        """The derivative of the loss by the gate of each channel."""
        with tf.GradientTape() as tape:
            tape.watch(gates)
            loss = self.loss(batch, gates)
        return _dense(tape.gradient(loss, gates, unconnected_gradients="zero")) / self.scale

    def weight_gradients(self, batch, gates, weights):
        """The derivative of the loss by the weights that make channels."""
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = self.loss(batch, gates, weights)
        return [_dense(part) / self.scale for part in tape.gradient(loss, weights, unconnected_gradients="zero")]

    def curvature(self, batch, gates, weights, directions):
        """The Hessian of the loss times a direction in the space of the weights that make channels."""
        with tf.GradientTape() as tape:
            tape.watch(weights)
            slopes = self.weight_gradients(batch, gates, weights)
            along = tf.add_n([tf.reduce_sum(one * other) for one, other in zip(slopes, directions, strict=True)])
        return [_dense(part) for part in tape.gradient(along, weights, unconnected_gradients="zero")]


def _dense(gradient):
    """A gradient as a tensor: that of what is gathered comes in pieces."""
    return tf.convert_to_tensor(gradient)
