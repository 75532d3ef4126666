"""What do dense layers, convolutions, pooling and reshaping layers do to channels?"""

from dataclasses import replace

import numpy as np
from keras import layers

from tfprune.structure.roles.base import (
    NAMED,
    ROLES,
    Role,
    Uptake,
    axis_without_batch,
    elementwise,
    keeps_apart,
    nest,
    refusing,
    role_of,
    same,
    why_mixing,
)


def channel_axis(layer, rank):
    """Which axis of a tensor without its batch axis holds the channels, for a layer with a data_format."""
    return 0 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def write(channels, layer, shape, axis):
    """The labels of a tensor whose channels a layer makes, and its activation works on."""
    made = channels.make("out", shape[axis])
    if not keeps_apart(layer.activation):
        channels.freeze(made, why_mixing(layer.activation))
    return [channels.spread(made, shape, axis)]


# Layers with kernels ---------------------------------------------------------------------------------------------


def _mix(channels, layer, inputs, shapes):
    """Reads every channel, makes new ones: dense layers and convolutions."""
    axis = channel_axis(layer, len(shapes[0]))
    channels.count("in", channels.along(inputs[0], axis))
    return write(channels, layer, shapes[0], axis)


def _grouped(channels, layer, inputs, shapes):
    """A convolution in groups: all groups lose channels at the same places, so that they stay equally large."""
    axis = channel_axis(layer, len(shapes[0]))
    read = channels.along(inputs[0], axis).reshape(layer.groups, -1)
    made = channels.make("out", shapes[0][axis]).reshape(layer.groups, -1)
    for rows in (read, made):
        for row in rows[1:]:
            channels.tie(rows[0], row)
    channels.count("in", read[0])
    return write(channels, layer, shapes[0], axis)


def _each_apart(channels, layer, inputs, shapes):
    """Filters each channel by itself, into one or several channels that lie side by side."""
    axis = channel_axis(layer, len(shapes[0]))
    read = channels.along(inputs[0], axis)
    made = np.repeat(read, shapes[0][axis] // len(read))
    channels.count("in", read)
    channels.count("out", made)
    if not keeps_apart(layer.activation):
        channels.freeze(made, why_mixing(layer.activation))
    return [channels.spread(made, shapes[0], axis)]


def _separable(channels, layer, inputs, shapes):
    axis = channel_axis(layer, len(shapes[0]))
    read = channels.along(inputs[0], axis)
    channels.count("in", read)
    channels.count("middle", np.repeat(read, layer.depth_multiplier))
    return write(channels, layer, shapes[0], axis)


def _prelu(channels, layer, inputs, shapes):
    """A slope for each place that is not shared: any axis but the batch may count the channels."""
    for axis, labels in channels.varying_axes(inputs[0]):
        if axis + 1 not in (layer.shared_axes or []):
            channels.count(f"axis_{axis}", labels)
    return same(channels, layer, inputs, shapes)


_MAKES = {"out": {"kernel": "out"}}
_KERNEL = {"kernel": ("in", "out"), "bias": ("out",)}
_ABSORBS = {"kernel": Uptake("bias", ends=True)}
_dense = Role(_mix, _KERNEL, {"kernel": ("in",)}, _MAKES, {"units": "out"}, absorbs=_ABSORBS)
_full = Role(_mix, _KERNEL, {"kernel": ("in",)}, _MAKES, {"filters": "out"}, absorbs=_ABSORBS)
_in_groups = Role(_grouped, _KERNEL, {"kernel": ("in",)}, _MAKES, {"filters": "out"}, absorbs=_ABSORBS)
_one_each = Role(_each_apart, {"kernel": (None, "out"), "bias": ("out",)}, sizes={"filters": "out", "groups": "in"})
_transposed = Role(
    _mix,
    {"kernel": ("out", "in"), "bias": ("out",)},
    {"kernel": ("in",)},
    _MAKES,
    {"filters": "out"},
    absorbs={"kernel": Uptake("bias", ends=True, spreads=True)},
)
_depthwise = Role(_each_apart, {"kernel": ("in", None), "bias": ("out",)})
_separated = Role(
    _separable,
    {"depthwise_kernel": ("in", None), "pointwise_kernel": ("middle", "out"), "bias": ("out",)},
    {"pointwise_kernel": ("middle",)},
    {"out": {"pointwise_kernel": "out"}},
    {"filters": "out"},
    absorbs={"pointwise_kernel": Uptake("bias", axis="middle", through="depthwise_kernel", ends=True)},
)


def _convolution(layer):
    if layer.groups == 1:
        return _full
    reads_one = layer.built and layer.kernel.shape[-2] == 1  # one channel a group: a depthwise convolution
    return _one_each if reads_one else _in_groups


def _prelu_role(layer):
    rank = len(layer.alpha.shape) if layer.built else 1
    return Role(_prelu, {"alpha": tuple(f"axis_{axis}" for axis in range(rank))})


# Layers that move numbers ----------------------------------------------------------------------------------------


def _activation(channels, layer, inputs, shapes):
    if keeps_apart(layer.activation):
        return same(channels, layer, inputs, shapes)
    if getattr(layer.activation, "__name__", "") in ("softmax", "log_softmax") and not channels.varies(inputs[0], -1):
        return same(channels, layer, inputs, shapes)  # they work along the last axis
    return channels.refuse(inputs, shapes, why_mixing(layer.activation))


def softmax(channels, layer, inputs, shapes):
    """Mixes whatever lies along its axes."""
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    rank = len(shapes[0])
    if None in axes or any(channels.varies(inputs[0], axis_without_batch(axis, rank)) for axis in axes):
        return channels.refuse(inputs, shapes, "its softmax mixes the channels")
    return [channels.combine(inputs[:1], shapes[0])]


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
    return reshape(channels, layer, [labels], shapes)


def reshape(channels, layer, inputs, shapes):
    """The same numbers in the same order, in another shape."""
    after = [size or 1 for size in shapes[0]]
    if not sizes_are_known(channels.shapes_read[0], shapes[0]) or inputs[0].size != np.prod(after, dtype=int):
        return channels.refuse(inputs, shapes, UNKNOWN_SIZE)
    return [inputs[0].reshape(after)]


UNKNOWN_SIZE = "it reshapes a tensor whose size is not known beforehand"


def sizes_are_known(before, after):
    """Whether all sizes that are not known stay in front, as they are, when a tensor is reshaped."""
    fixed = max((index for index, size in enumerate(before) if size is None), default=-1) + 1
    return before[:fixed] == after[:fixed] and None not in after[fixed:]


def kept_along(kept, axis):
    """Bool array: at which places along an axis something of a tensor is kept."""
    return kept.any(axis=tuple(index for index in range(kept.ndim) if index != axis))


def kept_shape(entry, leading=0):
    """A role's `settings` for a config entry that holds the output's shape, after `leading` other axes."""

    def settings(config, inputs, outputs):
        kept = outputs[0]
        sizes = [int(kept_along(kept, axis).sum()) for axis in range(kept.ndim)]
        asked = tuple(config[entry]) if isinstance(config[entry], list | tuple) else (config[entry],)
        # what Keras fills in by itself (-1, None) stays; sizes change only where channels were removed
        new = [
            old if old in (-1, None) or size == full else size
            for old, size, full in zip(asked[leading:], sizes, kept.shape, strict=True)
        ]
        return {**config, entry: (*asked[:leading], *new)}

    return settings


def _permute(channels, layer, inputs, shapes):
    return [np.transpose(inputs[0], [dim - 1 for dim in layer.dims])]


def _repeat_vector(channels, layer, inputs, shapes):
    return [channels.spread(inputs[0], shapes[0], 1)]


def _concatenate(channels, layer, inputs, shapes):
    return [channels.join(inputs, axis_without_batch(layer.axis, len(shapes[0])))]


def _rescaling(channels, layer, inputs, shapes):
    if np.size(layer.scale) > 1 or np.size(layer.offset) > 1:
        return channels.refuse(inputs, shapes, "it scales each channel by a constant of its own")
    return same(channels, layer, inputs, shapes)


def _dropout(channels, layer, inputs, shapes):
    varying = {axis for axis, _ in channels.varying_axes(inputs[0])}
    sizes = (getattr(layer, "noise_shape", None) or ())[1:]
    if any(size not in (None, 1) and axis in varying for axis, size in enumerate(sizes)):
        return channels.refuse(inputs, shapes, "its noise_shape counts channels")
    return same(channels, layer, inputs, shapes)


def _masking(channels, layer, inputs, shapes):
    if channels.varies(inputs[0], -1):
        return channels.refuse(inputs, shapes, "it looks at all channels of a step to see whether the step counts")
    return same(channels, layer, inputs, shapes)


def _fixed_statistics(channels, layer, inputs, shapes):
    channels.freeze(inputs[0], "it keeps statistics of its inputs")
    return [channels.combine(inputs, shapes[0])]


# Layers around other layers --------------------------------------------------------------------------------------


def _time_distributed(layer):
    """The inner layer at every step: labels must not change along the first axis."""
    inner = role_of(layer.layer)
    if inner is None or inner.settings or inner.mixes or isinstance(layer.layer, layers.RNN):
        return refusing(f"the {type(layer.layer).__name__} inside is not understood")

    def flow(channels, outer, inputs, shapes):
        if any(channels.varies(labels, 0) for labels in inputs):
            return channels.refuse(inputs, shapes, "its steps belong to different channels")
        made = inner.flow(channels, layer.layer, [labels[0] for labels in inputs], [shape[1:] for shape in shapes])
        return [
            np.broadcast_to(labels, (shape[0] or 1, *labels.shape)) for labels, shape in zip(made, shapes, strict=True)
        ]

    return nest(inner, "layer", flow)


def _spectral_normalization(layer):
    """The inner layer, and a vector with a place for each place of the kernel's last axis."""
    inner = role_of(layer.layer)
    if inner is None or "kernel" not in inner.weights:
        return refusing(f"the {type(layer.layer).__name__} inside is not understood")
    role = nest(inner, "layer", lambda channels, outer, *tensors: inner.flow(channels, outer.layer, *tensors))
    role.weights["vector_u"] = (None, inner.weights["kernel"][-1])
    # While training, the whole kernel counts for its norm: what is pruned must not.
    reads = {**role.reads, "layer.kernel": tuple(name for name in inner.weights["kernel"] if name)}
    return replace(role, reads=reads)


ROLES.update(
    {
        layers.InputLayer: elementwise,
        layers.Dense: _dense,
        **dict.fromkeys((layers.Conv1D, layers.Conv2D, layers.Conv3D), _convolution),
        **dict.fromkeys((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), _transposed),
        **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _depthwise),
        **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), _separated),
        layers.Normalization: Role(_fixed_statistics),
        layers.Activation: Role(_activation),
        layers.Softmax: Role(softmax),
        layers.PReLU: _prelu_role,
        layers.Flatten: Role(_flatten),
        layers.Reshape: Role(reshape, settings=kept_shape("target_shape")),
        layers.Permute: Role(_permute),
        layers.RepeatVector: Role(_repeat_vector),
        layers.Concatenate: Role(_concatenate),
        layers.Rescaling: Role(_rescaling),
        layers.Masking: Role(_masking),
        layers.TimeDistributed: _time_distributed,
        layers.SpectralNormalization: _spectral_normalization,
    }
)
_DIMENSIONS = ("1D", "2D", "3D")
_FAMILIES = {
    elementwise: [
        *("Identity", "ReLU", "LeakyReLU", "ELU", "GaussianDropout", "GaussianNoise", "ActivityRegularization"),
        *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
        *(f"SpatialDropout{dimensions}" for dimensions in _DIMENSIONS),
    ],
    Role(_spatial): [
        "Resizing",
        *(
            f"{family}{dimensions}"
            for family in ("MaxPooling", "AveragePooling", "ZeroPadding", "Cropping", "UpSampling")
            for dimensions in _DIMENSIONS
        ),
        *(f"Adaptive{kind}Pooling{dimensions}" for kind in ("Max", "Average") for dimensions in _DIMENSIONS),
    ],
    Role(_global_pool): [
        f"{family}{dimensions}" for family in ("GlobalMaxPooling", "GlobalAveragePooling") for dimensions in _DIMENSIONS
    ],
    Role(_dropout): ["Dropout", "AlphaDropout"],
}
for _role, _names in _FAMILIES.items():
    ROLES.update({getattr(layers, name): _role for name in _names if hasattr(layers, name)})

NAMED.update(
    {
        "keras.applications.CustomScaleLayer": elementwise,  # first input + scale x second input
        "keras.applications.StochasticDepth": elementwise,
        "keras_hub.DropPath": elementwise,
        "keras_hub.gelu_approximate": elementwise,
        "keras_hub.quick_gelu": elementwise,
    }
)
