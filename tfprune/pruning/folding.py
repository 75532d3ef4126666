"""How does a model predict without computing its BatchNormalizations?"""

import dataclasses

import keras
import numpy as np

from tfprune.layers import ChannelMask
from tfprune.pruning import certificate
from tfprune.pruning.batchnorm import normalisation_behind
from tfprune.structure import roles
from tfprune.structure.compiling import compile_like
from tfprune.structure.cost import record_reference, reference_of
from tfprune.structure.replay import copy_weights, rebuild_operation, replay, value_of
from tfprune.structure.trace import substitute, trace

_LAST = [keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D]
_SEPARABLE = [keras.layers.SeparableConv1D, keras.layers.SeparableConv2D]
_DEPTHWISE = [keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D]
_TRANSPOSED = [keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose]
_KERNELS = {
    **dict.fromkeys(_LAST, ("kernel", lambda kernel, scale: kernel * scale)),
    **dict.fromkeys(_SEPARABLE, ("pointwise_kernel", lambda kernel, scale: kernel * scale)),
    **dict.fromkeys(_DEPTHWISE, ("kernel", lambda kernel, scale: kernel * scale.reshape(kernel.shape[-2:]))),
    **dict.fromkeys(_TRANSPOSED, ("kernel", lambda kernel, scale: kernel * scale[:, None])),
}


def fold_batch_norm(model):
    """Returns a model for prediction that computes the same with fewer BatchNormalizations, and so runs faster.

    In prediction a BatchNormalization multiplies each channel by a number and adds one. Behind a dense layer or a
    convolution (depthwise, separable and transposed ones too) without an activation both go into that layer's kernel
    and bias. Keras does not do this by itself; converters to LiteRT and ONNX do. BatchNormalizations in other places,
    behind shared layers, or called with `training=True`, stay.

    Args:
        model: A built Sequential or functional Keras model without masks. It is left as it is; nested models are
            flattened in the new one.

    Returns:
        A new model, compiled as the old one is. To train on, take the old one: what was folded normalises no more.

    Raises:
        ValueError: the model has masks.
        RuntimeError: the new model does not compute what the old one computes. It is not returned.

    Example:
        >>> fast = tfprune.fold_batch_norm(tfprune.shrink(masked))
        >>> fast.save("ticket.keras")

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 3.2.
    """
    if any(isinstance(layer, ChannelMask) for layer in getattr(model, "layers", ())):
        raise ValueError(f"Model '{model.name}' has masks that may still change. Call tfprune.shrink first.")
    traced = trace(model)
    norms = {id(op): norm for op in traced.operations if (norm := _foldable(traced, op)) is not None}
    folded, twins = replay(_without(traced, norms.values()), lambda op, config: _twin(op, config, norms), draw=False)
    for op in traced.operations:
        if id(op) in norms:
            _assign(op, norms[id(op)], twins[id(op)])
        elif id(op) in twins:
            copy_weights(op, twins[id(op)])
    compile_like(folded, model)
    if reference_of(model):
        record_reference(folded, reference_of(model))
    certificate.check(certificate.compare(model, folded, traced.inputs), "fold_batch_norm", model, folded)
    return folded


def _foldable(traced, op):
    """The BatchNormalization that can go into a layer's weights, or None."""
    if type(op) not in _KERNELS or roles.is_quantised(op):
        return None
    norm = normalisation_behind(traced, op)
    if type(norm) is not keras.layers.BatchNormalization:
        return None
    call = next(call for call in traced.calls if call.op is norm)
    return None if call.arguments.get("training") else norm


def _without(traced, norms):
    """The trace with what these layers read in place of what they make."""
    gone = {id(norm) for norm in norms}
    tensors = {id(tensor): tensor for tensor in keras.tree.flatten(traced.inputs)}
    calls = []
    for call in traced.calls:
        args, kwargs = substitute((call.args, call.kwargs), tensors)
        if id(call.op) in gone:
            tensors[id(call.output_tensors[0])] = tensors[id(call.input_tensors[0])]
            continue
        tensors.update((id(tensor), tensor) for tensor in call.output_tensors)
        calls.append(dataclasses.replace(call, args=args, kwargs=kwargs))
    return dataclasses.replace(traced, calls=calls, outputs=substitute(traced.outputs, tensors))


def _twin(op, config, norms):
    """The layer again, with a bias where a BatchNormalization goes into it."""
    return rebuild_operation(op, {**config, "use_bias": True} if id(op) in norms else config)


def _assign(layer, norm, twin):
    """Gives the twin the weights of the layer and of the BatchNormalization behind it."""
    name, multiplied = _KERNELS[type(layer)]
    mean, variance = (value_of(weight).astype("float64") for weight in (norm.moving_mean, norm.moving_variance))
    scale = (value_of(norm.gamma) if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    shift = value_of(norm.beta) if norm.center else 0.0
    bias = value_of(layer.bias) if layer.use_bias else 0.0
    if name == "pointwise_kernel":
        twin.depthwise_kernel.assign(layer.depthwise_kernel)
    kernel = value_of(getattr(layer, name)).astype("float64")
    getattr(twin, name).assign(multiplied(kernel, scale))
    twin.bias.assign((bias - mean) * scale + shift)
