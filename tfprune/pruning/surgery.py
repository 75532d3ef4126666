"""How do masks get into a model (`wrap`), and how do the masked channels get out of it (`shrink`)?"""

import contextlib

import keras
import numpy as np

from tfprune.layers import ChannelMask
from tfprune.structure import roles
from tfprune.structure.cost import cost, record_reference
from tfprune.structure.groups import ChannelGraph
from tfprune.structure.trace import (
    compile_like,
    config_of,
    copy_weights,
    finish_weights,
    rebuild_operation,
    replay,
    value_of,
)


def wrap(model):
    """Returns a masked model: the same weights, outputs and compile settings, and a mask on every prunable channel.

    The masks are all ones at first, so nothing changes until `set_masks` or a pruning callback changes them. Nested
    models are flattened; layers keep their names. The optimizer starts afresh.

    Args:
        model: A built Sequential or functional Keras model. It is left as it is.

    Raises:
        ValueError: the model is subclassed, not built, has masks already, or has no channel that can be pruned.

    Example:
        >>> masked = tfprune.wrap(model)
        >>> masked.fit(train, validation_data=validation, epochs=100,
        ...            callbacks=[tfprune.callbacks.LotteryTicket(ratio=0.8)])
        >>> ticket = tfprune.shrink(masked)
    """
    graph = ChannelGraph(model)
    if any(isinstance(op, ChannelMask) for op in graph.trace.operations):
        raise ValueError(f"Model '{model.name}' has masks already. Pass it to fit, compute_masks or shrink as it is.")
    if not graph.prunable:
        raise ValueError(
            f"Model '{model.name}' has no channel that can be pruned. tfprune.inspect(model) says why:\n"
            + "\n".join(f"  {group.name}: {group.reason}" for group in graph.groups)
        )
    prunable = np.concatenate([group.units for group in graph.prunable])
    with _scope(model):
        masked, twins = replay(graph.trace, lambda op, config: _masked_twin(graph, prunable, op, config))
        for op in graph.trace.operations:
            copy_weights(op, roles.unwrap(twins[id(op)]))
        compile_like(masked, model)
    return masked


def shrink(masked):
    """Returns a plain, physically smaller Keras model that computes what the masked one computes.

    The new model holds no layer of tfprune: it can be saved, loaded and served without it. It is compiled as the
    masked model is, with an optimizer that starts afresh.

    Args:
        masked: A model from `tfprune.wrap`, its masks set. It is left as it is.

    Raises:
        ValueError: the model has no masks, or masks that contradict each other.

    Example:
        >>> ticket = tfprune.shrink(masked)
        >>> ticket.save("ticket.keras")
    """
    return shrink_with_map(masked)[0]


def shrink_with_map(masked):
    """`shrink`, and how the small model's variables lie in the masked one's.

    Returns:
        `(ticket, pairs)` with pairs `[(masked variable, small variable, index)]`: `masked[index]` is what the small
        variable holds.
    """
    check_masked(masked, "shrink")
    graph = ChannelGraph(masked)
    keep = kept_units(graph)
    _check_readers(graph, keep)
    with _scope(masked):
        ticket, twins = replay(graph.trace, lambda op, config: _small_twin(graph, keep, op, config))
        pairs = [pair for op in graph.trace.operations for pair in _pairs(graph, keep, op, twins[id(op)])]
        for old, new, index in pairs:
            new.assign(value_of(old)[index])
        for twin in twins.values():
            finish_weights(twin)
        compile_like(ticket, masked)
    record_reference(ticket, cost(graph.trace))
    return ticket, pairs


def expand(pairs):
    """Writes the small model's variables back to their places in the masked model; other entries stay."""
    for old, new, index in pairs:
        value = value_of(old)
        value[index] = value_of(new)
        old.assign(value)


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


def kept_units(graph):
    """Bool array over unit numbers: whether all masks of the model keep the unit."""
    keep = np.ones(graph.num_units, bool)
    for name, layer in graph.layers.items():
        if isinstance(layer, ChannelMask) and layer.channel_mask is not None:
            np.logical_and.at(keep, graph.made(name), mask_of(layer.channel_mask))
    return keep


def mask_of(variable):
    """A mask variable as a bool array."""
    return value_of(variable) > 0.5


def set_units(graph, keep):
    """Writes the masks of all layers: what a layer makes, and what it reads."""
    for name, layer in graph.layers.items():
        if not isinstance(layer, ChannelMask):
            continue
        if layer.channel_mask is not None:
            layer.channel_mask.assign(keep[graph.made(name)].astype("float32"))
        if layer.input_mask is not None:
            layer.input_mask.assign(keep[_read_units(graph, name)].astype("float32"))


def kept_entries(graph, keep):
    """`{id(variable): (variable, bool array)}`: which entries of each weight belong to channels that are kept."""
    entries = {}
    for name, layer in graph.layers.items():
        for attribute, axes in graph.axes(name).items():
            weight = getattr(roles.unwrap(layer), attribute)
            kept = np.zeros(weight.shape, bool)
            kept[_index(weight.shape, axes, keep)] = True
            if not kept.all():
                entries[id(weight)] = (weight, kept)
    return entries


def _scope(model):
    """Variables of a distributed model must be created under its strategy."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def _read_units(graph, name):
    role = roles.role_of(graph.layers[name])
    axis_name = next(iter(role.reads.values()))
    return graph.units(graph.counts[name][axis_name])


def _masked_twin(graph, prunable, op, config):
    """The layer again, wrapped where it reads or makes channels that can be pruned."""
    twin, name, role = rebuild_operation(op, config), graph.trace.names[id(op)], roles.role_of(op)
    counts = graph.counts.get(name, {})
    reads, inputs, channels = {}, None, None
    if role and role.reads and any(axis in counts for axis in role.reads.values()):
        units = _read_units(graph, name)
        if np.isin(units, prunable).any():
            inputs, reads = len(units), _read_axes(role)
    if name in {maker for group in graph.prunable for maker in group.makers}:
        channels = len(counts["out"])
    return ChannelMask(twin, reads, inputs, channels) if reads or channels else twin


def _read_axes(role):
    return {
        attribute: role.weights[attribute].index(axis) - len(role.weights[attribute])
        for attribute, axis in role.reads.items()
    }


def _small_twin(graph, keep, op, config):
    """The layer again without its mask, its config saying the number of channels that are left."""
    layer, name, role = roles.unwrap(op), graph.trace.names[id(op)], roles.role_of(op)
    if layer is not op:
        config = config_of(layer, name)
    if role and role.width:
        counts = graph.counts.get(name, {})
        if "out" in counts:
            config[role.width] = int(keep[graph.units(counts["out"])].sum())
    if role and role.shape and name in graph.shape_labels:
        config[role.shape] = _kept_shape(config[role.shape], keep[graph.units(graph.shape_labels[name])])
    return rebuild_operation(layer, config)


def _kept_shape(asked, kept):
    """The config's shape with the sizes that are left; -1 stays, for Keras fills it in."""
    sizes = [int(kept.any(axis=tuple(i for i in range(kept.ndim) if i != axis)).sum()) for axis in range(kept.ndim)]
    return [size if old != -1 else -1 for old, size in zip(asked, sizes, strict=True)]


def _pairs(graph, keep, op, twin):
    """`[(variable, small variable, index of the small one in the other)]` of one layer."""
    layer = roles.unwrap(op)
    if not isinstance(layer, keras.Layer):
        return []
    axes = {id(getattr(layer, attribute)): units for attribute, units in graph.axes(graph.trace.names[id(op)]).items()}
    return [
        (old, new, _index(old.shape, axes[id(old)], keep) if id(old) in axes else ...)
        for old, new in zip(layer.variables, twin.variables, strict=True)
    ]


def _index(shape, axes, keep):
    kept = [
        np.arange(size) if units is None else np.flatnonzero(keep[units])
        for size, units in zip(shape, axes, strict=True)
    ]
    return np.ix_(*kept)


def _check_readers(graph, keep):
    for name, layer in graph.layers.items():
        if isinstance(layer, ChannelMask) and layer.input_mask is not None:
            mask = mask_of(layer.input_mask)
            if not np.array_equal(mask, keep[_read_units(graph, name)]):
                raise ValueError(
                    f"The masks contradict each other: layer '{name}' reads {int(mask.sum())} channels, the layers "
                    f"before it keep {int(keep[_read_units(graph, name)].sum())}. Set masks with tfprune.set_masks, "
                    "which keeps them in step."
                )
