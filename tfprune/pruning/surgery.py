"""How do masks get into a model (`wrap`), and how do the masked channels get out of it (`shrink`)?"""

import contextlib
import weakref

import keras
import numpy as np

from tfprune.layers import ChannelMask, NormalizationMask
from tfprune.pruning import certificate, compensation
from tfprune.structure import depthwise, roles
from tfprune.structure.compiling import compile_like
from tfprune.structure.cost import cost, record_reference
from tfprune.structure.groups import ChannelGraph, mask_of
from tfprune.structure.replay import (
    build_like,
    config_of,
    copy_weights,
    finish_weights,
    rebuild_operation,
    replay,
    value_of,
)


def wrap(model, approximate=False, verify=None):
    """Returns a masked model: the same weights, outputs and compile settings, and a mask on every prunable channel.

    The masks are all ones at first, so nothing changes until `set_masks` or a pruning callback changes them. Nested
    models are flattened; layers keep their names. The optimizer starts afresh.

    Args:
        model: A built Sequential or functional Keras model. It is left as it is.
        approximate: Whether to prune channels that a normalisation mixes too (LayerNormalization, RMSNormalization,
            GroupNormalization, UnitNormalization). Removing such a channel changes the statistics that all others are
            normalised with: the masked model normalises over the kept channels, as the ticket does, but neither is the
            dense model with some channels set to zero. Default False: they stay.
        verify: Whether to confirm the groups of channels by running the model on numbers. Default None: where the
            model is small enough for that to cost little.

    Raises:
        ValueError: the model is subclassed, not built, has masks already, or has no channel that can be pruned.

    Example:
        >>> masked = tfprune.wrap(model)
        >>> masked.fit(train, validation_data=validation, epochs=100,
        ...            callbacks=[tfprune.callbacks.LotteryTicket(ratio=0.8)])
        >>> ticket = tfprune.shrink(masked)
    """
    graph = ChannelGraph(model, approximate, verify)
    if graph.masked:
        raise ValueError(f"Model '{model.name}' has masks already. Pass it to fit, compute_masks or shrink as it is.")
    if not graph.prunable:
        raise ValueError(
            f"Model '{model.name}' has no channel that can be pruned. tfprune.inspect(model) says why:\n"
            + "\n".join(f"  {group.name}: {group.reason}" for group in graph.groups)
        )
    with _scope(model):
        prunable = np.zeros(graph.num_units, bool)
        prunable[np.concatenate([group.units for group in graph.prunable])] = True
        masked, twins = replay(graph.trace, lambda op, config: _masked_twin(graph, prunable, op, config), draw=False)
        for op in graph.trace.operations:
            copy_weights(op, roles.unwrap(twins[id(op)]))
        compile_like(masked, model)
    return masked


def shrink(masked, compensate=False):
    """Returns a plain, physically smaller Keras model that computes what the masked one computes.

    The new model holds no layer of tfprune: it can be saved, loaded and served without it. It is compiled as the
    masked model is, with an optimizer that starts afresh: what the old one remembers has the old shapes. Both models
    are run on random, constant and scaled inputs before the small one is returned; `tfprune.ticket_report` tells what
    was found.

    With `compensate`, what the removed channels would have emitted in the mean goes into the bias of the layers that
    read them, or into the mean of a BatchNormalization behind these; a layer with neither gets a bias. This is for
    masks set on a trained model: a model that was trained with its masks does without these channels already. Readers
    are dense layers and convolutions (in groups, separable or transposed too), recurrent layers in one or both
    directions, attention (queries, keys and values) and EinsumDense, also inside TimeDistributed or
    SpectralNormalization. It is exact for channels that are constant, but

    - where a convolution pads with zeros (`same`): there the channel would have added less, for a part of the kernel
      lies beyond the border; the outputs within half a kernel of the border are off by what these parts of the kernel
      weigh. The same holds near the border of transposed convolutions, whatever their padding. A channel that a
      ZeroPadding layer has padded is not constant: its mean counts the zeros.
    - behind transposed convolutions with strides: neighbouring outputs read different parts of the kernel, of which
      the mean is made good.
    - where a normalisation mixes channels.

    Nothing is made good of what a layer loses of its own (heads and their dimensions in attention, the hidden units
    that a recurrent layer reads again), nor in an EinsumDense whose bias does not span all that its kernel makes, a
    ReversibleEmbedding read backwards, and a TransformerDecoder of KerasHub. Layers of which nothing was made good are
    `not_compensated` in the report. The small model is compared with a masked one that was compensated too.

    Args:
        masked: A model from `tfprune.wrap`, its masks set. It is left as it is.
        compensate: False (default), or inputs by which the means are measured: arrays, `(inputs, labels)`, or a
            `tf.data.Dataset` of either; a few hundred samples do. True measures them on noise that every
            BatchNormalization scales to what it saw in training, for models whose data are not at hand.

    Raises:
        ValueError: the model has no masks, or masks that contradict each other; data that do not fit it.
        RuntimeError: the small model does not compute what the masked one computes. It is not returned.

    Example:
        >>> ticket = tfprune.shrink(masked)
        >>> ticket.save("ticket.keras")

    Source of the compensation: bias absorption of Nagel et al. 2019, "Data-Free Quantization Through Weight
    Equalization and Bias Correction", and mean replacement of Evci et al. 2018, "Mean Replacement Pruning".
    """
    graph = masked_graph(masked, "shrink")
    if compensate is False or compensate is None:
        ticket, _ = cut(masked, graph)
        certificate.certify(masked, ticket, graph)
        return ticket
    found = compensation.compensate(masked, graph, compensate)
    graph = masked_graph(found.model, "shrink")
    ticket, _ = cut(found.model, graph)
    certificate.certify(found.model, ticket, graph, found)
    return ticket


def cut(masked, graph=None, trains_alike=False):
    """`shrink` without its certificate, and how the small model's variables lie in the masked one's.

    Args:
        masked: A model from `tfprune.wrap`.
        graph: Its `ChannelGraph`, where it is known.
        trains_alike: Whether the small model's layers divide by the number that they divided by in the masked one, in
            place of growing weights: a step then changes both alike. Its config does not say so: for a model that is
            not saved.

    Returns:
        `(ticket, pairs)` with pairs `[(masked variable, small variable, index, factor)]`: `masked[index] * factor` is
        what the small variable holds.
    """
    graph = graph or masked_graph(masked, "shrink")
    keep = graph.kept()
    _check_readers(graph, keep)
    with _scope(masked):
        ticket, twins = replay(
            graph.trace,
            lambda op, config: _small_twin(graph, keep, op, config),
            lambda call: _small_arguments(graph, keep, call),
            draw=False,
        )
        pairs = [pair for op in graph.trace.operations for pair in _pairs(graph, keep, op, twins[id(op)], trains_alike)]
        for old, new, index, factor in pairs:
            value = value_of(old)[index]
            new.assign(value if factor == 1 else value * factor)
        for twin in twins.values():
            finish_weights(twin)
        compile_like(ticket, masked)
    record_reference(ticket, cost(graph.trace))
    return ticket, pairs


def expand(pairs):
    """Writes the small model's variables back to their places in the masked model; other entries stay."""
    for old, new, index, factor in pairs:
        value = value_of(old)
        value[index] = value_of(new) / factor
        old.assign(value)


def masked_graph(model, needed_by):
    """The channel graph of a model with masks, remembered as long as the model lives: its layers do not change.

    Args:
        model: A model from `tfprune.wrap`.
        needed_by: Who asks, for the error where it has no masks.
    """
    check_masked(model, needed_by)
    if model in _BEFORE_READING:
        _BEFORE_READING[model]()()
    layers = [id(layer) for layer in model.layers]
    known = _GRAPHS.get(model)
    if known is None or known[0] != layers:
        _GRAPHS[model] = known = (layers, ChannelGraph(model))
    return known[1]


_GRAPHS = weakref.WeakKeyDictionary()


def call_before_reading(masked, method):
    """Has a method called before anything of tfprune reads a masked model, whose weights another model may be training.

    Args:
        masked: A model from `tfprune.wrap`.
        method: A `weakref.WeakMethod` whose object lives as long as the model, or None: there is nothing to call.
    """
    _BEFORE_READING.pop(masked, None)
    if method is not None:
        _BEFORE_READING[masked] = method


_BEFORE_READING = weakref.WeakKeyDictionary()


def check_masked(model, needed_by):
    """Raises a ValueError that says what to do where a model has no masks."""
    layers = getattr(model, "layers", None)
    if layers is None or not isinstance(model, keras.Model):
        raise TypeError(f"{needed_by} needs a Keras model with channel masks. Received: {model!r}.")
    if not any(isinstance(layer, ChannelMask) for layer in layers):
        raise ValueError(
            f"{needed_by} needs a model with channel masks. Received: {type(model).__name__} '{model.name}' without "
            "ChannelMask layers. Call tfprune.wrap(model) first."
        )


def set_units(graph, keep):
    """Writes the masks of all layers: what a layer makes, and what it reads."""
    for name, axis, mask in _masks(graph):
        mask.assign(keep[graph.units(graph.counts[name][axis])].astype("float32"))


def kept_entries(graph, keep):
    """`{id(variable): (variable, bool array)}`: which entries of each weight belong to channels that are kept."""
    entries = {}
    for name, layer in graph.layers.items():
        for path, axes in graph.axes(name).items():
            weight = roles.part(roles.unwrap(layer), path)
            if all(units is None or keep[units].all() for units in axes):
                continue
            kept = np.zeros(weight.shape, bool)
            kept[_index(weight.shape, axes, keep)] = True
            entries[id(weight)] = (weight, kept)
    return entries


def _masks(graph):
    """`[(layer name, axis name, mask variable)]` of a model with masks."""
    return [
        (name, axis, mask)
        for name, layer in graph.layers.items()
        if isinstance(layer, ChannelMask)
        for axis, mask in layer.masks.items()
    ]


def _scope(model):
    """Variables of a distributed model must be created under its strategy."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def _masked_twin(graph, prunable, op, config):
    """The layer again, wrapped where it reads or makes channels that can be pruned."""
    twin, name, role = rebuild_operation(op, config), graph.trace.names[id(op)], roles.role_of(op)
    if role is None or not isinstance(op, keras.Layer):
        return twin
    free = {
        axis: len(labels) for axis, labels in graph.counts.get(name, {}).items() if prunable[graph.units(labels)].any()
    }
    made = {axis for layer, axis in graph.maker_axes.values() if layer == name}
    reads = {
        path: {axis: names.index(axis) - len(names) for axis in role.reads[path] if axis in free and axis in names}
        for path, names in graph.axis_names(name).items()
        if path in role.reads
    }
    read = {axis for axes in reads.values() for axis in axes} | ({"in"} & free.keys() if role.mixes else set())
    masks = {axis: size for axis, size in free.items() if axis in made or axis in read}
    if not masks:
        return twin
    build_like(twin, op)
    wrapper = NormalizationMask if role.mixes else ChannelMask
    return wrapper(twin, masks, {path: axes for path, axes in reads.items() if axes})


def _small_twin(graph, keep, op, config):
    """The layer again without its mask, its config saying the number of channels that are left."""
    layer, name, role = roles.unwrap(op), graph.trace.names[id(op)], roles.role_of(op)
    if layer is not op:
        config = config_of(layer, name)
    counts = graph.counts.get(name, {})
    for entry, axis in role.sizes.items() if role else ():
        if axis in counts:
            _set(config, entry.split("."), int(keep[graph.units(counts[axis])].sum()))
    if role and role.settings:
        first = next(call for call in graph.trace.calls if call.op is op)
        config = role.settings(config, *_kept_places(graph, keep, first))
    return depthwise.rebuild(layer, config)


def _set(config, path, value):
    for entry in path[:-1]:
        config = config[entry]
    config[path[-1]] = value


def _small_arguments(graph, keep, call):
    """The arguments of a call on tensors that have lost channels."""
    role = roles.role_of(call.op)
    if role is None or role.arguments is None:
        return call.args, call.kwargs
    return role.arguments(call.args, call.kwargs, *_kept_places(graph, keep, call))


def _kept_places(graph, keep, call):
    """`(inputs, outputs)`: bool arrays, True where a place of the tensors of a call is kept."""
    return tuple([keep[units] for units in tensors] for tensors in graph.tensors(call))


def _pairs(graph, keep, op, twin, trains_alike):
    """`[(variable, small variable, index of the small one in the other, factor)]` of one layer."""
    layer, name, role = roles.unwrap(op), graph.trace.names[id(op)], roles.role_of(op)
    if not isinstance(layer, keras.Layer):
        return []
    axes = {id(roles.part(layer, path)): (path, units) for path, units in graph.axes(name).items()}
    scales = {} if trains_alike and _divides_alike(role, layer, twin) else getattr(role, "scales", {})
    pairs = [
        (old, new, *_cut_of(old, *axes.get(id(old), ("", None)), keep, scales, graph, name))
        for old, new in zip(layer.variables, twin.variables, strict=True)
    ]
    if type(twin) is type(layer):
        return pairs
    _, (*_, units) = axes.get(id(layer.kernel), ("", (None,)))
    kept = np.arange(layer.filters) if units is None else np.flatnonzero(keep[units])
    index = depthwise.kernel_index(layer.kernel, twin, kept)
    return [(old, new, index if old is layer.kernel else cut, factor) for old, new, cut, factor in pairs]


def _divides_alike(role, layer, twin):
    """Whether the twin could be made to divide by what the layer divides by."""
    path = role.divisor if role else ""
    if not path or None in (roles.part(layer, path), roles.part(twin, path)):
        return False
    setattr(roles.owner(twin, path), path.rpartition(".")[2], roles.part(layer, path))
    return True


def _cut_of(variable, path, axes, keep, scales, graph, name):
    """`(index, factor)`: what is left of a variable, and by what it grows."""
    if axes is None or all(units is None or keep[units].all() for units in axes):
        return ..., 1
    factor = 1
    if path in scales:
        kept = keep[graph.units(graph.counts[name][scales[path]])]
        factor = float(np.sqrt(kept.mean()))
    return _index(variable.shape, axes, keep), factor


def _index(shape, axes, keep):
    kept = [
        np.arange(size) if units is None else np.flatnonzero(keep[units])
        for size, units in zip(shape, axes, strict=True)
    ]
    return np.ix_(*kept)


def _check_readers(graph, keep):
    for name, axis, variable in _masks(graph):
        mask, wanted = mask_of(variable), keep[graph.units(graph.counts[name][axis])]
        if not np.array_equal(mask, wanted):
            raise ValueError(
                f"The masks contradict each other: layer '{name}' keeps {int(mask.sum())} of the channels that its "
                f"mask '{axis}' counts, the other layers keep {int(wanted.sum())} of them. Set masks with "
                "tfprune.set_masks, which keeps them in step."
            )
