"""What would the removed channels have said on average, and who takes over saying it?

A channel that is removed leaves its readers without what it gave them: in the mean, a constant. That constant goes
into the readers' bias, or into the mean of the BatchNormalization behind them.
"""

from dataclasses import dataclass, field

import keras
import numpy as np

from tfprune.layers import ChannelMask
from tfprune.pruning import selection
from tfprune.pruning.batchnorm import is_batchnorm, normalisation_behind
from tfprune.structure import roles
from tfprune.structure.compiling import compile_like
from tfprune.structure.feeding import feed
from tfprune.structure.replay import (
    build_like,
    config_of,
    finish_weights,
    rebuild_operation,
    replay,
    value_of,
)
from tfprune.structure.running import has_mode
from tfprune.structure.samples import run, sample

_SAMPLES = 16  # random ones, where no data are given


@dataclass(frozen=True, eq=False)
class Compensated:
    """A masked model whose layers stand in for what its masks take away.

    Args:
        model: The new masked model: the same masks; shifted biases and BatchNormalization means.
        layers: Names of the layers that lost inputs and had the mean of these made good.
        others: Names of the layers that lost inputs of which nothing was made good.
    """

    model: keras.Model
    layers: list = field(default_factory=list)
    others: list = field(default_factory=list)


def compensate(masked, graph, data):
    """Returns a `Compensated`: a new masked model that keeps the mean of what its masks take away.

    Args:
        masked: A model from `tfprune.wrap`, its masks set. It is left as it is.
        graph: Its `ChannelGraph`.
        data: True, or inputs, as `tfprune.shrink` takes them.
    """
    readers, others = _readers(graph)
    shifts = {name: _shift(graph, name, mean) for name, mean in _means(graph, readers, data).items()}
    behind = {
        name: norm for name in readers if (norm := normalisation_behind(graph.trace, graph.layers[name])) is not None
    }
    new_bias = {name for name in readers if name not in behind and roles.unwrap(graph.layers[name]).bias is None}
    model, twins = replay(graph.trace, lambda op, config: _twin(graph, new_bias, op, config), draw=False)
    for op in graph.trace.operations:
        _copy(op, twins[id(op)], graph.trace.names[id(op)] in new_bias)
    for name, shift in shifts.items():
        # A smaller mean to subtract is as good as a larger input.
        op, weight, sign = (behind[name], "moving_mean", -1) if name in behind else (graph.layers[name], "bias", 1)
        variable = getattr(roles.unwrap(twins[id(op)]), weight)
        variable.assign(value_of(variable) + sign * shift)
    compile_like(model, masked)
    _remember_selection(masked, model, graph)
    return Compensated(model, readers, others)


def _remember_selection(masked, model, graph):
    keep = graph.kept()
    chosen = selection.recall(
        masked, {maker: keep[graph.made(maker)] for group in graph.prunable for maker in group.makers}
    )
    if chosen:
        selection.remember(model, chosen)


# Who has lost what -------------------------------------------------------------------------------------------------


def _readers(graph):
    """Names of the layers that have lost inputs: those that can be compensated, and others."""
    keep, able, others = graph.kept(), [], []
    for name, op in graph.layers.items():
        role = roles.role_of(op)
        read = {axis for axes in role.reads.values() for axis in axes} if role else set()
        counts = graph.counts.get(name, {})
        if any(not keep[graph.units(counts[axis])].all() for axis in read & counts.keys()):
            (able if role in roles.LINEAR else others).append(name)
    return able, others


def _means(graph, readers, data):
    """`{name: mean of each input channel}` of these layers in the model without masks."""
    import tensorflow as tf

    names = graph.trace.names

    @tf.function(autograph=False, reduce_retracing=True)
    def of_batch(batch):
        found = {}

        def layer(call, args, kwargs):
            op, name = roles.unwrap(call.op), names[id(call.op)]
            if name in readers:
                found.setdefault(name, []).append(_channel_means(op, args[0]))
            mode = {"training": False} if has_mode(op) else {}
            if data is True and is_batchnorm(op):
                args = (_as_trained(op, args[0]), *args[1:])
            return op(*args, **{**kwargs, **mode})

        run(graph.trace, batch, layer)
        # a shared layer has one bias: it gets the mean of its calls
        return {name: sum(means) / len(means) for name, means in found.items()}

    totals, count = dict.fromkeys(readers, 0.0), 0
    for batch in _batches(graph.trace.inputs, data) if readers else ():
        size = len(keras.tree.flatten(batch)[0])
        count += size
        for name, mean in of_batch(keras.tree.map_structure(tf.convert_to_tensor, batch)).items():
            totals[name] = totals[name] + size * np.asarray(mean, "float64")
    return {name: total / count for name, total in totals.items()}


def _batches(inputs, data):
    if data is True:
        return [sample(inputs, batch_size=_SAMPLES)]
    as_declared = keras.tree.map_structure(lambda tensor: tensor.dtype, inputs)
    return (
        keras.tree.map_structure(lambda leaf, dtype: keras.ops.cast(leaf, dtype), batch, as_declared)
        for batch in feed(data, inputs, "compensate")
    )


def _channel_means(layer, x):
    axis = len(x.shape) - 1 if getattr(layer, "data_format", None) != "channels_first" else 1
    return keras.ops.mean(keras.ops.cast(x, "float32"), [index for index in range(len(x.shape)) if index != axis])


def _as_trained(layer, x):
    """Noise with the mean and variance that the layer has seen in training; channels that are constant stay so."""
    axis = layer.axis % len(x.shape)
    axes = [index for index in range(len(x.shape)) if index != axis]
    shape = [-1 if index == axis else 1 for index in range(len(x.shape))]
    mean, variance = keras.ops.moments(keras.ops.cast(x, "float32"), axes, keepdims=True)
    old_mean, old_variance = (
        keras.ops.reshape(keras.ops.cast(weight, "float32"), shape)
        for weight in (layer.moving_mean, layer.moving_variance)
    )
    noise = (keras.ops.cast(x, "float32") - mean) * keras.ops.rsqrt(variance + 1e-12)
    is_constant = variance <= 1e-10 * (1.0 + keras.ops.square(mean))
    return keras.ops.where(is_constant, x, keras.ops.cast(old_mean + keras.ops.sqrt(old_variance) * noise, x.dtype))


def _shift(graph, name, mean):
    """What the removed inputs add to each output of a layer where none of its kernel lies beyond a border."""
    layer = roles.unwrap(graph.layers[name])
    kernel = value_of(layer.kernel).astype("float64")
    gone = ~graph.kept()[graph.axes(name)["kernel"][-2]]
    groups = getattr(layer, "groups", 1)
    taps = kernel.sum(axis=tuple(range(kernel.ndim - 2))) if kernel.ndim > 2 else kernel  # (inputs, outputs) a group
    lost = mean.reshape(groups, -1) * gone
    return np.einsum("gi,igo->go", lost, taps.reshape(len(taps), groups, -1)).reshape(-1)


# The new model -----------------------------------------------------------------------------------------------------


def _twin(graph, new_bias, op, config):
    """The layer again, with its mask, and with a bias where it needs one."""
    layer, name = roles.unwrap(op), graph.trace.names[id(op)]
    if layer is not op:
        config = config_of(layer, name)
    if name in new_bias:
        config["use_bias"] = True
    twin = rebuild_operation(layer, config)
    if layer is op:
        return twin
    build_like(twin, layer)
    return type(op)(twin, {axis: int(mask.shape[0]) for axis, mask in op.masks.items()}, op.reads)


def _copy(op, twin, has_new_bias):
    """All variables of a layer and its masks; a bias that the layer did not have stays zero."""
    if not isinstance(op, keras.Layer):
        return
    layer, new = roles.unwrap(op), roles.unwrap(twin)
    variables = [variable for variable in new.variables if not (has_new_bias and variable is new.bias)]
    for source, target in zip(layer.variables, variables, strict=True):
        target.assign(source)
    for axis, mask in op.masks.items() if isinstance(op, ChannelMask) else ():
        twin.masks[axis].assign(mask)
    finish_weights(new)
