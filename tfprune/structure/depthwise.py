"""How is a convolution in as many groups as channels built so that it runs fast?

Keras runs `Conv2D(groups=channels)` on the CPU through XLA, many times slower than the `DepthwiseConv2D` that computes
the same; ConvNeXt is made of them.
"""

import keras
import numpy as np

from tfprune.structure.replay import rebuild_operation

_TWINS = {
    keras.layers.Conv1D: keras.layers.DepthwiseConv1D,
    keras.layers.Conv2D: keras.layers.DepthwiseConv2D,
}
_NAMES = {"kernel_initializer": "depthwise_initializer", "kernel_regularizer": "depthwise_regularizer"}
_EACH_ALONE = (type(None), keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


def rebuild(layer, config):
    """Builds a layer from its config; a convolution that is depthwise as the depthwise layer, where Keras has one.

    Args:
        layer: A Keras layer or operation.
        config: Its config, changed or not.
    """
    if not _has_twin(layer):
        return rebuild_operation(layer, config)
    filters, groups = config["filters"], config["groups"]
    left_out = ("filters", "groups", "kernel_constraint")
    kept = {_NAMES.get(entry, entry): value for entry, value in config.items() if entry not in left_out}
    return _TWINS[type(layer)].from_config({**kept, "depth_multiplier": filters // groups})


def kernel_index(kernel, twin, kept):
    """The index of a kernel `(..., 1, filters)` that gives that of a depthwise layer, `(..., channels, multiplier)`.

    Args:
        kernel: The convolution's kernel.
        twin: The depthwise layer.
        kept: Numbers of the filters that are left, in order.
    """
    *sizes, _, _ = kernel.shape
    axes = np.ix_(*(np.arange(size) for size in sizes), [0], [0])
    return (*axes[:-1], np.reshape(kept, (*(1 for _ in sizes), -1, twin.depth_multiplier)))


def _has_twin(layer):
    """Whether a depthwise layer does all that this convolution does."""
    if type(layer) not in _TWINS or not layer.built or layer.groups == 1 or layer.kernel.shape[-2] != 1:
        return False
    # constraints and other regularizers look at the kernel's axes, which lie differently
    plain = layer.kernel_constraint is None and type(layer.kernel_regularizer) in _EACH_ALONE
    strides, dilations = (set(numbers) for numbers in (layer.strides, layer.dilation_rate))
    runs = len(strides) == 1 and (strides == {1} or dilations == {1}) and layer.padding != "causal"
    return plain and runs and not getattr(layer, "lora_enabled", False) and layer.quantization_mode is None
