"""What does each layer class, and each keras operation, do to channels?

This is the one table that knows layer classes. A `Role` says how channel labels flow through a layer, which axis of
each of its weights counts which channels, and which entries of its config hold a number of channels. What has no role
freezes the channels it touches. `register` teaches a new class in one line:

    roles.register(MyScale, roles.elementwise)
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import keras
import numpy as np
from keras import layers

from tfprune.layers import ChannelMask


@dataclass(frozen=True, eq=False)
class Role:
    """What a layer does to channels.

    Args:
        flow: Function `(channels, layer, inputs, shapes) -> outputs`. `inputs` are the label arrays of the tensors that
            the layer reads, `shapes` the shapes of the tensors it makes (both without the batch axis), `channels` the
            `tfprune.structure.groups.Flow` that creates, ties and freezes labels.
        weights: `{weight attribute: names of its axes}`, counted from the last axis: `("in", "out")` for a kernel whose
            last axis counts the channels made and whose second last counts the channels read; None where an axis counts
            no channels.
        reads: `{weight attribute: axis name}`, the weights that mix the channels they read; masks are put there.
        width: Config entry with the number of channels made ("units", "filters"), or None.
        shape: Config entry with the output's shape ("target_shape"), or None.
    """

    flow: Callable
    weights: dict = field(default_factory=dict)
    reads: dict = field(default_factory=dict)
    width: str | None = None
    shape: str | None = None


def register(cls, role):
    """Teaches tfprune what a layer class, an operation class or an activation function does to channels.

    Args:
        cls: A `keras.Layer` or `keras.Operation` class, or an activation function.
        role: A `Role`; `roles.elementwise` for whatever works on each number by itself.

    Raises:
        TypeError: `role` is not a `Role`, or `cls` neither a class nor a function.

    Example:
        >>> roles.register(Swish, roles.elementwise)
    """
    if not isinstance(role, Role):
        raise TypeError(f"Expected a Role, for example roles.elementwise. Received: {role!r}.")
    if not callable(cls):
        raise TypeError(f"Expected a layer class or a function. Received: {cls!r}.")
    ROLES[cls] = role


def role_of(op):
    """The role of a layer or operation, or None where there is none; subclasses do not inherit roles."""
    layer = unwrap(op)
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return None  # their kernels are not what the role says any more
    return ROLES.get(type(layer))


def unwrap(op):
    """The layer inside a `ChannelMask`, or `op` itself."""
    return op.layer if isinstance(op, ChannelMask) else op


def channel_axis(layer, rank):
    """Which axis of a tensor without its batch axis holds the channels, for a layer with a data_format."""
    return 0 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def keeps_apart(activation):
    """Whether an activation (function or layer) works on each channel by itself."""
    if activation is None:
        return True
    if isinstance(activation, keras.Layer):
        role = ROLES.get(type(activation))
        return role is elementwise and not activation.weights
    return activation in ELEMENTWISE or ROLES.get(activation) is elementwise


# How labels flow -------------------------------------------------------------------------------------------------


def _same(channels, layer, inputs, shapes):
    """Every number of the output comes from the number at the same place of the inputs."""
    return [channels.combine(inputs, shape) for shape in shapes]


def _activation(channels, layer, inputs, shapes):
    if keeps_apart(layer.activation):
        return _same(channels, layer, inputs, shapes)
    return channels.refuse(inputs, shapes, _mixing_activation(layer))


def _softmax(channels, layer, inputs, shapes):
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if any(channels.varies(inputs[0], _axis(axis, len(shapes[0]))) for axis in axes):
        return channels.refuse(inputs, shapes, "its softmax mixes the channels")
    return [channels.combine(inputs[:1], shapes[0])]


def _mixing_activation(layer):
    name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
    if layer.activation in MIXING:
        return f"its {name} mixes the channels"
    return f"its activation '{name}' is unknown (if it is elementwise: roles.register({name}, roles.elementwise))"


def _mix(channels, layer, inputs, shapes):
    """Reads every channel, makes new ones: dense layers and convolutions."""
    if getattr(layer, "groups", 1) != 1:
        return channels.refuse(inputs, shapes, f"it is a convolution in {layer.groups} groups")
    axis = channel_axis(layer, len(shapes[0]))
    channels.count("in", channels.along(inputs[0], axis))
    return _write(channels, layer, shapes[0], axis)


def _write(channels, layer, shape, axis):
    made = channels.make("out", shape[axis])
    if not keeps_apart(layer.activation):
        channels.freeze(made, _mixing_activation(layer))
    return [channels.spread(made, shape, axis)]


def _depthwise(channels, layer, inputs, shapes):
    """Filters each channel by itself into `depth_multiplier` channels that lie side by side."""
    axis = channel_axis(layer, len(shapes[0]))
    read = channels.along(inputs[0], axis)
    made = np.repeat(read, layer.depth_multiplier)
    channels.count("in", read)
    channels.count("out", made)
    if not keeps_apart(layer.activation):
        channels.freeze(made, _mixing_activation(layer))
    return [channels.spread(made, shapes[0], axis)]


def _separable(channels, layer, inputs, shapes):
    axis = channel_axis(layer, len(shapes[0]))
    read = channels.along(inputs[0], axis)
    channels.count("in", read)
    channels.count("middle", np.repeat(read, layer.depth_multiplier))
    return _write(channels, layer, shapes[0], axis)


def _batchnorm(channels, layer, inputs, shapes):
    axis = _axis(layer.axis, len(shapes[0]))
    read = channels.along(inputs[0], axis)
    channels.count("in", read)
    return [channels.spread(read, shapes[0], axis)]


def _prelu(channels, layer, inputs, shapes):
    axis = len(shapes[0]) - 1
    read = channels.along(inputs[0], axis)
    shared = layer.shared_axes or []
    if axis + 1 not in shared:
        channels.count("in", read)
    return [channels.spread(read, shapes[0], axis)]


def _fixed_statistics(channels, layer, inputs, shapes):
    channels.freeze(inputs[0], "it keeps statistics of its inputs")
    return [channels.combine(inputs, shapes[0])]


def _spatial(channels, layer, inputs, shapes):
    """Moves or pools numbers within each channel: pooling, padding, cropping, upsampling."""
    axis = channel_axis(layer, inputs[0].ndim)
    return [channels.spread(channels.along(inputs[0], axis), shapes[0], axis)]


def _global_pool(channels, layer, inputs, shapes):
    axis = channel_axis(layer, inputs[0].ndim)
    read = channels.along(inputs[0], axis)
    return [channels.spread(read, shapes[0], axis if layer.keepdims else 0)]


def _flatten(channels, layer, inputs, shapes):
    labels = inputs[0]
    if layer.data_format == "channels_first" and labels.ndim > 1:
        labels = np.moveaxis(labels, 0, -1)  # Keras flattens as if the channels were last
    return _reshape(channels, layer, [labels], shapes)


def _reshape(channels, layer, inputs, shapes):
    if None in shapes[0] or inputs[0].size != np.prod(shapes[0], dtype=int):
        return channels.refuse(inputs, shapes, "it reshapes a tensor whose size is not known beforehand")
    return [inputs[0].reshape(shapes[0])]


def _permute(channels, layer, inputs, shapes):
    return [np.transpose(inputs[0], [dim - 1 for dim in layer.dims])]


def _repeat_vector(channels, layer, inputs, shapes):
    return [channels.spread(inputs[0], shapes[0], 1)]


def _concatenate(channels, layer, inputs, shapes):
    return [channels.join(inputs, _axis(layer.axis, len(shapes[0])))]


def _rescaling(channels, layer, inputs, shapes):
    if np.size(layer.scale) > 1 or np.size(layer.offset) > 1:
        return channels.refuse(inputs, shapes, "it scales each channel by a constant of its own")
    return _same(channels, layer, inputs, shapes)


def _dropout(channels, layer, inputs, shapes):
    if any(size not in (None, 1) for size in (getattr(layer, "noise_shape", None) or ())[1:]):
        return channels.refuse(inputs, shapes, "its noise_shape counts channels")
    return _same(channels, layer, inputs, shapes)


def _axis(axis, rank):
    """The axis without the batch axis that a Keras layer means by `axis` (which counts the batch axis)."""
    axis = axis[0] if isinstance(axis, list | tuple) else axis
    return axis + rank if axis < 0 else axis - 1


# The table -------------------------------------------------------------------------------------------------------

elementwise = Role(_same)
_KERNEL = {"kernel": ("in", "out"), "bias": ("out",)}
_dense = Role(_mix, _KERNEL, reads={"kernel": "in"}, width="units")
_convolution = replace(_dense, width="filters")
_transposed = replace(_convolution, weights={"kernel": ("out", "in"), "bias": ("out",)})
_depthwise_role = Role(_depthwise, {"kernel": ("in", None), "bias": ("out",)})
_separable_role = Role(
    _separable,
    {"depthwise_kernel": ("in", None), "pointwise_kernel": ("middle", "out"), "bias": ("out",)},
    reads={"pointwise_kernel": "middle"},
    width="filters",
)
_NORM = {name: ("in",) for name in ("gamma", "beta", "moving_mean", "moving_variance")}

ROLES = {
    layers.InputLayer: elementwise,
    layers.Dense: _dense,
    layers.Conv1D: _convolution,
    layers.Conv2D: _convolution,
    layers.Conv3D: _convolution,
    layers.Conv1DTranspose: _transposed,
    layers.Conv2DTranspose: _transposed,
    layers.Conv3DTranspose: _transposed,
    layers.DepthwiseConv1D: _depthwise_role,
    layers.DepthwiseConv2D: _depthwise_role,
    layers.SeparableConv1D: _separable_role,
    layers.SeparableConv2D: _separable_role,
    layers.BatchNormalization: Role(_batchnorm, _NORM),
    layers.Normalization: Role(_fixed_statistics),
    layers.Activation: Role(_activation),
    layers.Softmax: Role(_softmax),
    layers.PReLU: Role(_prelu, {"alpha": ("in",)}),
    layers.Flatten: Role(_flatten),
    layers.Reshape: Role(_reshape, shape="target_shape"),
    layers.Permute: Role(_permute),
    layers.RepeatVector: Role(_repeat_vector),
    layers.Concatenate: Role(_concatenate),
}
_DIMENSIONS = ("1D", "2D", "3D")
_FAMILIES = {
    elementwise: [
        *("Identity", "ReLU", "LeakyReLU", "ELU", "GaussianDropout", "GaussianNoise", "ActivityRegularization"),
        *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
        *(f"SpatialDropout{dimensions}" for dimensions in _DIMENSIONS),
    ],
    Role(_spatial): [
        f"{family}{dimensions}"
        for family in ("MaxPooling", "AveragePooling", "ZeroPadding", "Cropping", "UpSampling")
        for dimensions in _DIMENSIONS
    ],
    Role(_global_pool): [
        f"{family}{dimensions}" for family in ("GlobalMaxPooling", "GlobalAveragePooling") for dimensions in _DIMENSIONS
    ],
    Role(_dropout): ["Dropout", "AlphaDropout"],
    Role(_rescaling): ["Rescaling"],
}
for _role, _names in _FAMILIES.items():
    ROLES.update({getattr(layers, name): _role for name in _names if hasattr(layers, name)})

_activations = keras.activations
MIXING = {
    getattr(_activations, name)
    for name in ("softmax", "log_softmax", "sparsemax", "glu")
    if hasattr(_activations, name)
}
# Named one by one: an activation that a later Keras brings may mix channels, and then must not slip in here.
_ELEMENTWISE = (
    *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu"),
    *("linear", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softplus"),
    *("softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "tanh", "tanh_shrink", "threshold"),
)
ELEMENTWISE = {getattr(_activations, name) for name in _ELEMENTWISE if hasattr(_activations, name)}
