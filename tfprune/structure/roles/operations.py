"""What do the operations of keras.ops do to channels? They are known by name: their classes are not public."""

import keras
import numpy as np

from tfprune.structure.roles.base import NAMED, Role, axis_without_batch, elementwise, refusing, same
from tfprune.structure.roles.feedforward import UNKNOWN_SIZE, kept_along, kept_shape, sizes_are_known, softmax

# One number in, one number out, at the same place; several inputs meet place by place.
_ELEMENTWISE = (
    *("Absolute", "Add", "Arccos", "Arccosh", "Arcsin", "Arcsinh", "Arctan", "Arctan2", "Arctanh", "Cast", "Cbrt"),
    *("Ceil", "Celu", "Clip", "Copy", "Cos", "Cosh", "Divide", "DivideNoNan", "Elu", "Equal", "Erf", "Erfc"),
    *("Erfinv", "Exp", "Exp2", "Expm1", "Floor", "FloorDivide", "Gelu", "Greater", "GreaterEqual", "HardShrink"),
    *("HardSigmoid", "HardSilu", "HardTanh", "Heaviside", "Hypot", "IsClose", "Isclose", "Isfinite", "Isinf"),
    *("Isnan", "LeakyRelu", "Less", "LessEqual", "Log", "Log10", "Log1p", "Log2", "LogSigmoid", "Logaddexp"),
    *("Logaddexp2", "LogicalAnd", "LogicalNot", "LogicalOr", "LogicalXor", "Maximum", "Minimum", "Mod"),
    *("Multiply", "NanToNum", "Negative", "NotEqual", "OnesLike", "Power", "Reciprocal", "Relu", "Relu6", "Round"),
    *("Rsqrt", "SaturateCast", "Selu", "Sigmoid", "Sign", "Signbit", "Silu", "Sin", "Sinc", "Sinh", "SoftShrink"),
    *("Softplus", "Softsign", "SparsePlus", "SparseSigmoid", "Sqrt", "Square", "Squareplus", "StopGradient"),
    *("Subtract", "Tan", "Tanh", "TanhShrink", "Threshold", "TrueDivide", "Trunc", "Where", "ZerosLike"),
)
# They only move numbers: which number goes where is found by running them on the labels.
_MOVING = (
    *("BroadcastTo", "ExpandDims", "Flip", "Moveaxis", "Ravel", "Repeat", "Squeeze", "Stack", "Swapaxes", "Tile"),
    "Transpose",
)
_REDUCING = (
    *("All", "Amax", "Amin", "Any", "Argmax", "Argmin", "CountNonzero", "Logsumexp", "Max", "Mean", "Median"),
    *("Min", "Prod", "Std", "Sum", "Var"),
)


def _elementwise(channels, op, inputs, shapes):
    varying = {axis - labels.ndim for labels in inputs for axis, _ in channels.varying_axes(labels)}
    for constant in (*channels.call.args, *channels.call.kwargs.values()):
        if isinstance(constant, keras.Variable):
            return channels.refuse(inputs, shapes, "it uses a weight that belongs to no layer")
        size = _constant_shape(constant)
        if any(len(size) >= -axis and size[axis] != 1 for axis in varying):
            return channels.refuse(inputs, shapes, "it combines the channels with a constant for each of them")
    return same(channels, op, inputs, shapes)


def _constant_shape(argument):
    """The shape of an argument that is an array or a list of numbers; () for anything else."""
    if isinstance(argument, list | tuple) and not any(isinstance(a, keras.KerasTensor) for a in argument):
        argument = np.asarray(argument)
    return () if isinstance(argument, keras.KerasTensor) else tuple(getattr(argument, "shape", ()))


def _moving(channels, op, inputs, shapes):
    moved = move(channels, op, inputs, shapes)
    return (
        channels.refuse(inputs, shapes, "it moves numbers in a way that is not understood") if moved is None else moved
    )


def move(channels, op, inputs, shapes):
    """The labels after an operation that only moves numbers, or None where it touches the batch axis too."""
    # Two samples with different labels show whether every number stays in its sample.
    arrays = iter([np.stack([labels, ~labels]) for labels in inputs])
    args, kwargs = keras.tree.map_structure(
        lambda leaf: next(arrays) if isinstance(leaf, keras.KerasTensor) else leaf,
        (channels.call.args, channels.call.kwargs),
    )
    try:
        results = [np.asarray(result) for result in keras.tree.flatten(op(*args, **kwargs))]
    except Exception:  # constants that do not fit where a size is not known: nothing can be said
        return None
    for result, shape in zip(results, shapes, strict=True):
        if result.shape != (2, *(size or 1 for size in shape)) or (result[1] != ~result[0]).any():
            return None
    return [result[0] for result in results]


def _moving_in_space(channels, op, inputs, shapes):
    """Moves numbers along one axis, to places that are constants: this axis must not count channels."""
    axes = op.axis if isinstance(op.axis, list | tuple) else [op.axis]
    rank = inputs[0].ndim
    if len(inputs) > 1 or None in axes:
        return channels.refuse(inputs, shapes, "it moves numbers in a way that is not understood")
    if any(axis_without_batch(axis, rank) in dict(channels.varying_axes(inputs[0])) for axis in axes):
        return channels.refuse(inputs, shapes, f"its {type(op).__name__.lower()} moves channels to fixed places")
    return _moving(channels, op, inputs, shapes)


def _reshape(channels, op, inputs, shapes):
    if not sizes_are_known(channels.shapes_read[0], shapes[0]):
        return channels.refuse(inputs, shapes, UNKNOWN_SIZE)
    return _moving(channels, op, inputs, shapes)


def _reducing(channels, op, inputs, shapes):
    """Takes one number from many: what is reduced must not be channels."""
    axes = op.axis if isinstance(op.axis, list | tuple) else [op.axis]
    rank = inputs[0].ndim
    if None in axes or any(axis_without_batch(axis, rank) < 0 for axis in axes):
        return channels.refuse(inputs, shapes, "it reduces over the batch")
    axes = [axis_without_batch(axis, rank) for axis in axes]
    if any(channels.varies(inputs[0], axis) for axis in axes):
        return channels.refuse(inputs, shapes, f"its {type(op).__name__.lower()} mixes the channels")
    labels = inputs[0][tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(rank))]
    return [labels.reshape([size or 1 for size in shapes[0]])]


def _concatenate(channels, op, inputs, shapes):
    axis = axis_without_batch(op.axis, len(shapes[0])) if op.axis is not None else -1
    if axis < 0 or len(inputs) != len(keras.tree.flatten((channels.call.args, channels.call.kwargs))):
        return channels.refuse(inputs, shapes, "it joins samples or constants")
    return [channels.join(inputs, axis)]


def _pad(channels, op, inputs, shapes):
    widths = np.broadcast_to(np.array(op.pad_width), (len(shapes[0]) + 1, 2))
    if widths[0].any() or any(widths[axis + 1].any() for axis, _ in channels.varying_axes(inputs[0])):
        return channels.refuse(inputs, shapes, "it pads the channels")
    axes = channels.varying_axes(inputs[0])
    if not axes:
        return [np.broadcast_to(inputs[0][(slice(0, 1),) * inputs[0].ndim], [size or 1 for size in shapes[0]])]
    axis, labels = axes[-1]
    return [channels.spread(labels, shapes[0], axis)]


# Slices of channels ----------------------------------------------------------------------------------------------


def _getitem(channels, op, inputs, shapes):
    places = _places_of(channels.call.args[1], inputs[0].ndim)
    for axis, _ in channels.varying_axes(inputs[0]):
        key = _key_at(channels.call.args[1], places, axis) if places else None
        if not isinstance(key, slice) or key.step not in (None, 1):
            return channels.refuse(inputs, shapes, "it picks single channels")
    return _moving(channels, op, inputs, shapes)


def _as_list(keys):
    return list(keys) if isinstance(keys, tuple | list) else [keys]  # a list once the model was saved


def _places_of(keys, rank):
    """For every axis of a tensor (the batch axis too) the place in its index that speaks of it, or None for a whole
    axis; nothing where the index holds more than slices, numbers, new axes and an ellipsis."""
    keys = _as_list(keys)
    if any(not (key is None or isinstance(key, slice | int | type(...))) for key in keys):
        return []
    missing = rank + 1 - sum(key is not None and key is not ... for key in keys)
    places = []
    for place, key in enumerate(keys):
        places += [None] * missing if key is ... else [] if key is None else [place]
    return places + [None] * (rank + 1 - len(places))


def _key_at(keys, places, axis):
    """What an index says about an axis, counted without the batch axis."""
    place = places[axis + 1]
    return slice(None) if place is None else _as_list(keys)[place]


def _kept_slice(args, kwargs, inputs, outputs):
    """The same slice in a tensor that has lost channels."""
    tensor, keys, *rest = args
    kept, new = inputs[0], _as_list(keys)
    places = _places_of(keys, kept.ndim)
    for axis in range(kept.ndim):
        along = kept_along(kept, axis)
        if along.all() or places[axis + 1] is None:
            continue
        start, stop, _ = _key_at(keys, places, axis).indices(len(along))
        new[places[axis + 1]] = slice(int(along[:start].sum()), int(along[:stop].sum()))
    return (tensor, tuple(new), *rest), kwargs


def _kept_sections(config, inputs, outputs):
    """Where to split a tensor that has lost channels: at the sizes that its parts have left."""
    kept = inputs[0]
    axis = axis_without_batch(config["axis"], kept.ndim)
    if kept.all():
        return config
    sizes = [int(kept_along(part, axis).sum()) for part in outputs]
    return {**config, "indices_or_sections": np.cumsum(sizes)[:-1].tolist()}


NAMED.update({f"keras.ops.{name}": Role(_elementwise) for name in _ELEMENTWISE})
NAMED.update({f"keras.ops.{name}": Role(_moving) for name in _MOVING})
NAMED.update({f"keras.ops.{name}": Role(_moving_in_space) for name in ("Roll", "Take")})
NAMED.update({f"keras.ops.{name}": Role(_reducing) for name in _REDUCING})
# Channels meet channels without a weight between them that a mask could be laid on.
_PRODUCTS = ("Matmul", "Einsum", "Dot", "Tensordot", "Inner", "Outer", "Vdot", "Cross", "DotProductAttention")
NAMED.update({f"keras.ops.{name}": refusing("it multiplies tensors with each other") for name in _PRODUCTS})
NAMED.update(
    {
        "keras.ops.BroadcastTo": Role(_moving, settings=kept_shape("shape", leading=1)),
        "keras.ops.Reshape": Role(_reshape, settings=kept_shape("newshape", leading=1)),
        "keras.ops.Concatenate": Role(_concatenate),
        "keras.ops.GetItem": Role(_getitem, arguments=_kept_slice),
        "keras.ops.Split": Role(_moving, settings=_kept_sections),
        "keras.ops.Pad": Role(_pad),
        "keras.ops.Softmax": Role(softmax),
        "keras.ops.LogSoftmax": Role(softmax),
        "keras.ops.StopGradient": elementwise,
    }
)
