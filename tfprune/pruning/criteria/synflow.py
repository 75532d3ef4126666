"""Which channels carry the flow through a network that has not been trained, without any data?"""

import keras
import numpy as np
import tensorflow as tf

from tfprune.pruning import surgery
from tfprune.pruning.criteria.group import check_members, combine
from tfprune.pruning.criteria.network import Network
from tfprune.pruning.criteria.weights import alive_in
from tfprune.structure import roles
from tfprune.structure.replay import config_of, rebuild_operation, replay, value_of

_SQUASHING = (keras.layers.Softmax,)


class SynFlow:
    """Synaptic flow: weights times the derivative of what ones at the input become (Tanaka et al. 2020).

    The network is made linear (absolute weights, activations left out, float64), so that a channel's score is the flow
    from input to output that passes it, and every layer passes the same flow. Pruning in `rounds`, after each of which
    the flow is found anew, keeps it from drying up in one layer. Needs no data, and no compiled model.

    Args:
        rounds: In how many steps `compute_masks` gets to its ratio, each removing the same share of what is left.
            Default 100.
        members: How the layers that make the same channels are combined: "sum" (default), "mean" or "max".

    Example:
        >>> masks = tfprune.compute_masks(masked, 0.9, criterion="synflow", scope="global")
    """

    comparable = True

    def __init__(self, rounds=100, members="sum"):
        if rounds < 1:
            raise ValueError(f"rounds must be a positive integer. Received: rounds={rounds!r}.")
        self.rounds, self.members = rounds, check_members(members)
        self._known = None

    def measure(self, masked, keep):
        """Finds the flow with some channels gone, and returns a function `group -> scores`.

        Args:
            masked: A model from `tfprune.wrap`.
            keep: Bool array over the model's unit numbers, see `tfprune.structure.groups.ChannelGraph.kept`.
        """
        if self._known is None or self._known[0].model is not masked:
            self._known = Network(masked), _linear(masked)
        network, flow = self._known
        passed = flow.through(network.makers, surgery.kept_entries(network.graph, keep))

        def scores(group):
            members = [row.sum(axis=1) for row in group.rows(network.lookup(passed))]
            return np.where(alive_in(group), combine(members, self.members), 0.0)

        return scores


class _Flow:
    """A linear twin of a model, and the flow through it.

    Args:
        graph: The `ChannelGraph` of the masked model.
        dtype: What the twin computes in.
    """

    def __init__(self, graph, dtype):
        gates = _gates(graph.trace)
        self._linear, twins = replay(
            graph.trace, lambda op, _: _linear_twin(graph, gates, dtype, op), _linear_arguments, draw=False
        )
        layers = [(roles.unwrap(op), twins[id(op)]) for op in graph.trace.operations]
        self._pairs = [
            pair
            for old, new in layers
            if isinstance(new, keras.Layer) and new.variables
            for pair in zip(old.variables, new.variables, strict=True)
        ]
        self._weights = [new for _, new in self._pairs if new.trainable]
        self._ones = keras.tree.map_structure(lambda tensor: _ones(tensor, dtype), graph.trace.inputs)
        self._derive = tf.function(self._derivatives)

    def through(self, weights, entries):
        """Weight times derivative of each of these weights of the model, with the pruned `entries` left out."""
        for old, new in self._pairs:
            values = np.abs(value_of(old)) if "float" in old.dtype else value_of(old)
            new.assign(values * entries[id(old)][1] if id(old) in entries else values)
        slopes = {id(weight): slope for weight, slope in zip(self._weights, self._derive(), strict=True)}
        twins = {id(old): new for old, new in self._pairs}
        return [value_of(twins[id(weight)]) * np.asarray(slopes[id(twins[id(weight)])]) for weight in weights]

    def _derivatives(self):
        values = [weight.value for weight in self._weights]
        with tf.GradientTape() as tape:
            tape.watch(values)
            outputs = keras.tree.flatten(self._linear(self._ones))
            total = tf.add_n([tf.reduce_sum(tf.cast(output, "float64")) for output in outputs])
        found = tape.gradient(total, values, unconnected_gradients="zero")
        return [tf.convert_to_tensor(slope) for slope in found]


def _linear(masked):
    """The linear twin, in float64 where TensorFlow can: the flow through deep networks is huge."""
    graph = surgery.masked_graph(masked, "SynFlow")
    flow = _Flow(graph, "float64")
    try:
        flow.through([], {})
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError):
        return _Flow(graph, "float32")
    return flow


def _linear_twin(graph, gates, dtype, op):
    """The layer without its mask and its activation."""
    layer, name = roles.unwrap(op), graph.trace.names[id(op)]
    if isinstance(layer, _SQUASHING):
        return keras.layers.Identity(name=name, dtype=dtype)
    if not isinstance(layer, keras.Layer):
        return layer
    config = _in_dtype(config_of(layer, name), dtype)
    if "activation" in config and id(op) not in gates:
        config["activation"] = "linear"
    return rebuild_operation(layer, config)


def _in_dtype(config, dtype):
    """The config with another dtype, in the configs of inner layers too."""
    if not isinstance(config, dict):
        return config
    return {key: dtype if key == "dtype" else _in_dtype(value, dtype) for key, value in config.items()}


def _linear_arguments(call):
    return (call.args[:1], {}) if isinstance(call.op, _SQUASHING) else (call.args, call.kwargs)  # no mask


def _gates(traced):
    """Layers that another is multiplied by: without its sigmoid, a gate would square what flows."""
    multiplied = {id(t) for call in traced.calls if type(call.op).__name__ == "Multiply" for t in call.input_tensors}
    return {id(call.op) for call in traced.calls if multiplied & {id(tensor) for tensor in call.output_tensors}}


def _ones(tensor, dtype):
    return tf.ones([1, *(size or 16 for size in tensor.shape[1:])], dtype if "float" in tensor.dtype else "int32")
