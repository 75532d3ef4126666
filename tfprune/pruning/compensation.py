"""What would the removed channels have said on average, and who takes over saying it?

A channel that is removed leaves its readers without what it gave them: in the mean, a constant. That constant goes
into the readers' bias, or into the mean of the BatchNormalization behind them.
"""

from dataclasses import dataclass, field, replace

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
    shifts = {at: _shift(graph, *at, readers[at[0]][at[1]], mean) for at, mean in _means(graph, readers, data).items()}
    behind = _normalisations_behind(graph, readers)
    own = {name: uptakes for name, uptakes in readers.items() if name not in behind}
    model, twins = replay(graph.trace, lambda op, config: _twin(graph, own, op, config), draw=False)
    for op in graph.trace.operations:
        _copy(op, twins[id(op)])
    for (name, kernel), shift in shifts.items():
        if name in behind:  # a smaller mean to subtract is as good as a larger input
            _add(twins[id(behind[name])], "moving_mean", -shift)
        else:
            _add(twins[id(graph.layers[name])], readers[name][kernel].bias, shift)
    compile_like(model, masked)
    _remember_selection(masked, model, graph)
    return Compensated(model, list(readers), others)


def _add(op, path, shift):
    variable = roles.part(roles.unwrap(op), path)
    value = value_of(variable)
    value[(0,) * (value.ndim - shift.ndim)] += shift
    variable.assign(value)


def _remember_selection(masked, model, graph):
    keep = graph.kept()
    chosen = selection.recall(
        masked, {maker: keep[graph.made(maker)] for group in graph.prunable for maker in group.makers}
    )
    if chosen:
        selection.remember(model, chosen)


# Who has lost what -------------------------------------------------------------------------------------------------


def _readers(graph):
    """`({name: {kernel: Uptake}}, [names])`: layers that have lost inputs, those that can be compensated and others."""
    keep, able, others = graph.kept(), {}, []
    for name, op in graph.layers.items():
        role, counts = roles.role_of(op), graph.counts.get(name, {})
        read = {axis for axes in role.reads.values() for axis in axes} if role else set()
        lost = {axis for axis in read & counts.keys() if not keep[graph.units(counts[axis])].all()}
        uptakes = {kernel: found for kernel, found in role.absorbs.items() if found.axis in lost} if role else {}
        layer = roles.unwrap(op)
        if uptakes and all(found.switch or roles.part(layer, found.bias) is not None for found in uptakes.values()):
            able[name] = uptakes
        elif lost:
            others.append(name)
    return able, others


def _normalisations_behind(graph, readers):
    """`{name: BatchNormalization}` of those layers that one stands behind which can stand in for their bias."""
    found = {
        name: normalisation_behind(graph.trace, graph.layers[name])
        for name, uptakes in readers.items()
        if all(uptake.ends for uptake in uptakes.values())
    }
    return {name: norm for name, norm in found.items() if norm is not None}


def _means(graph, readers, data):
    """`{(name, kernel): mean of each channel that the kernel reads}` of these layers in the model without masks."""
    import tensorflow as tf

    names = graph.trace.names

    @tf.function(autograph=False, reduce_retracing=True)
    def of_batch(batch):
        found = {}

        def layer(call, args, kwargs):
            op, name = roles.unwrap(call.op), names[id(call.op)]
            for kernel, uptake in readers.get(name, {}).items():
                x = _read_by(uptake, replace(call, args=args, kwargs=kwargs).arguments)
                mean = _channel_means(x, _channels_along(op, kernel, uptake))
                found.setdefault((name, kernel), []).append(mean)
            mode = {"training": False} if has_mode(op) else {}
            if data is True and is_batchnorm(op):
                args = (_as_trained(op, args[0]), *args[1:])
            return op(*args, **{**kwargs, **mode})

        run(graph.trace, batch, layer)
        # a shared layer has one bias: it gets the mean of its calls
        return {at: sum(means) / len(means) for at, means in found.items()}

    totals, count = dict.fromkeys(((name, kernel) for name in readers for kernel in readers[name]), 0.0), 0
    for batch in _batches(graph.trace.inputs, data) if readers else ():
        size = len(keras.tree.flatten(batch)[0])
        count += size
        for at, mean in of_batch(keras.tree.map_structure(tf.convert_to_tensor, batch)).items():
            totals[at] = totals[at] + size * np.asarray(mean, "float64")
    return {at: total / count for at, total in totals.items()}


def _batches(inputs, data):
    if data is True:
        return [sample(inputs, batch_size=_SAMPLES)]
    as_declared = keras.tree.map_structure(lambda tensor: tensor.dtype, inputs)
    return (
        keras.tree.map_structure(lambda leaf, dtype: keras.ops.cast(leaf, dtype), batch, as_declared)
        for batch in feed(data, inputs, "compensate")
    )


def _read_by(uptake, given):
    """The argument of a call whose channels a kernel reads."""
    return next(given[name] for name in uptake.arguments or given if given.get(name) is not None)


def _channels_along(layer, kernel, uptake):
    """Which axis of what it reads counts the channels, from the last one back: others may stand in front."""
    if uptake.along is not None:
        return uptake.along
    is_first = getattr(roles.owner(layer, kernel), "data_format", None) == "channels_first"
    return 1 - len(roles.part(layer, kernel).shape) if is_first else -1


def _channel_means(x, axis):
    rank = len(x.shape)
    return keras.ops.mean(keras.ops.cast(x, "float32"), [index for index in range(rank) if index != axis % rank])


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


def _shift(graph, name, path, uptake, mean):
    """What the removed inputs add to each place of a bias, where none of the kernel lies beyond a border."""
    layer, role = roles.unwrap(graph.layers[name]), roles.role_of(graph.layers[name])
    gone = ~graph.kept()[graph.units(graph.counts[name][uptake.axis])]
    kernel, names = value_of(roles.part(layer, path)).astype("float64"), graph.axis_names(name)[path]
    owner = roles.owner(layer, path)
    groups = getattr(owner, "groups", 1)
    lost = _filtered(layer, uptake, mean).reshape(groups, -1) * gone
    made = [names.index(axis) for axis in role.weights[uptake.bias]]
    shifts = [np.einsum(kernel, [*range(kernel.ndim)], row, [names.index(uptake.axis)], made) for row in lost]
    # each group makes its own part of the outputs
    shift = shifts[0] if groups == 1 else np.concatenate([np.split(s, groups)[g] for g, s in enumerate(shifts)])
    return shift / (np.prod(owner.strides) if uptake.spreads else 1)


def _filtered(layer, uptake, mean):
    """The means of the channels behind the depthwise kernel that they go through first."""
    if uptake.through is None:
        return mean
    taps = value_of(roles.part(layer, uptake.through)).astype("float64")
    return (mean[:, None] * taps.sum(axis=tuple(range(taps.ndim - 2)))).reshape(-1)


# The new model -----------------------------------------------------------------------------------------------------


def _twin(graph, own, op, config):
    """The layer again, with its mask, and with the biases that it needs (`own`: uptakes by layer names)."""
    layer, name = roles.unwrap(op), graph.trace.names[id(op)]
    if layer is not op:
        config = config_of(layer, name)
    for uptake in own.get(name, {}).values():
        if roles.part(layer, uptake.bias) is None:
            _switch_on(config, uptake.switch.split("."))
    twin = rebuild_operation(layer, config)
    if layer is op:
        return twin
    build_like(twin, layer)
    sizes = {axis: int(mask.shape[0]) for axis, mask in op.masks.items()}
    return type(op)(twin, sizes, {**op.reads, **_reads_of_new(layer, twin, sizes)})


def _switch_on(config, path):
    for entry in path[:-1]:
        config = config[entry]
    config[path[-1]] = True


def _new_weights(layer, twin):
    """Names of the weights, all of them biases, that a layer did not have."""
    role = roles.role_of(layer)
    return [
        path
        for path in (role.weights if role else ())
        if roles.part(layer, path) is None and roles.part(twin, path) is not None
    ]


def _reads_of_new(layer, twin, masks):
    """`ChannelMask.reads` of the weights that a layer did not have."""
    role, found = roles.role_of(layer), {}
    for path in _new_weights(layer, twin):
        names = role.weights[path]
        axes = {axis: names.index(axis) - len(names) for axis in role.reads.get(path, ()) if axis in masks}
        if axes:
            found[path] = axes
    return found


def _copy(op, twin):
    """All variables of a layer and its masks; a bias that the layer did not have becomes zero."""
    if not isinstance(op, keras.Layer):
        return
    layer, new = roles.unwrap(op), roles.unwrap(twin)
    added = [roles.part(new, path) for path in _new_weights(layer, new)]
    for variable in added:
        variable.assign(np.zeros(variable.shape))  # an LSTM would start with ones
    variables = [variable for variable in new.variables if not any(variable is one for one in added)]
    for source, target in zip(layer.variables, variables, strict=True):
        target.assign(source)
    for axis, mask in op.masks.items() if isinstance(op, ChannelMask) else ():
        twin.masks[axis].assign(mask)
    finish_weights(new)
