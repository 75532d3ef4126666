"""Which linear map makes a model's logits, and of which features?

The features are the input of the last Dense, EinsumDense or convolution before the logits, one row a sample. What lies
between that layer and the logits (Dropout, Flatten, global average pooling, BatchNormalization, a temperature) is part
of the map where the whole stays linear. Channels that a `ChannelMask` leaves out are left out of the features, so that
a masked model has the features of its ticket.
"""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import layers

from tfprune.layers import ChannelMask
from tfprune.structure.head import IDENTICAL, find_head
from tfprune.structure.replay import value_of
from tfprune.structure.roles import is_quantised, unwrap
from tfprune.structure.trace import Call
from tfprune.uncertainty.calibrators import MatrixScaling, TemperatureScaling, VectorScaling

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_LINEAR = (layers.Dense, layers.EinsumDense, *_CONVOLUTIONS)
_POOLING = (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D)
_CALIBRATION = (TemperatureScaling, VectorScaling, MatrixScaling)
_SCALING = (layers.Rescaling, layers.BatchNormalization, *_CALIBRATION)
_PASSED = (*_POOLING, *_SCALING, layers.Flatten, layers.Reshape, *IDENTICAL)


class NoLinearHead(Exception):
    """Says why a model's logits are not found to be a linear map of features."""


@dataclasses.dataclass(frozen=True, eq=False)
class LinearHead:
    """Logits = features @ weights + bias.

    Args:
        weights: (features, classes) float64.
        bias: (classes,) float64.
        call: the traced call of the linear layer.
        tail: the calls after it, up to the logits.
        kept: bool array: which entries of the layer's input are features; the others are masked.
        pooled: whether the features are means over the positions of the layer's input.
        tolerance: how much rounding the layer's precision explains, as a share of |features| @ |weights|.
    """

    weights: np.ndarray
    bias: np.ndarray
    call: Any
    tail: list
    kept: np.ndarray
    pooled: bool
    tolerance: float

    def logits(self, features):
        """Logits (samples, classes) of features (samples, features), float64; one column z becomes [0, z]."""
        return np.asarray(features, dtype=np.float64) @ self.weights + self.bias

    def rounding(self, features):
        """How far off logits of these features may be by rounding, (samples, classes)."""
        return self.tolerance * (np.abs(features) @ np.abs(self.weights) + np.abs(self.bias))


def find_linear_head(traced):
    """The `LinearHead` of a traced model with one output.

    Args:
        traced: a `tfprune.structure.trace.Trace`.

    Raises:
        NoLinearHead: where the logits are no linear map of features, or none that is known here.
    """
    call, tail = _last_linear(traced)
    layer, kernel_mask = unwrap(call.op), _kernel_mask(call.op)
    pooled = any(isinstance(unwrap(step.op), _POOLING) for step in tail)
    kernel, bias = _as_matrix(layer, call, pooled)
    weights, kept = kernel, kernel_mask.reshape(kernel.shape).any(axis=1)
    for step in tail:
        weights, bias = _scaled(unwrap(step.op), weights, bias)
    if weights.shape[1] == 1:  # the logit of class 1 of two
        weights, bias = np.pad(weights, ((0, 0), (1, 0))), np.pad(bias, (1, 0))
    return LinearHead(weights[kept], bias, call, tail, kept, pooled, _tolerance(layer))


def _last_linear(traced):
    """The call of the last linear layer, and the calls from it to the logits; what squashes these is an identity."""
    producers = {id(tensor): call for call in traced.calls for tensor in call.output_tensors}
    tensor, tail, kinds = keras.tree.flatten(traced.outputs)[0], [], []
    while id(tensor) in producers:
        call = producers[id(tensor)]
        layer = unwrap(call.op)
        if isinstance(layer, _LINEAR) and layer.activation in (None, keras.activations.linear):
            return call, tail
        if isinstance(layer, _PASSED) or _is_linear_activation(layer):
            tail.insert(0, call)
        else:
            kinds.append(find_head(dataclasses.replace(traced, outputs=tensor)))
            _check_squashing(layer, kinds, tail)
            if isinstance(layer, _LINEAR):
                return call, tail
            tail.insert(0, Call(layers.Identity(), (call.input_tensors[0],), {}, call.outputs))
        tensor = call.input_tensors[0]
    raise NoLinearHead("no Dense, EinsumDense or convolution makes its logits")


def _is_linear_activation(layer):
    return isinstance(layer, layers.Activation) and layer.activation is keras.activations.linear


def _check_squashing(layer, kinds, tail):
    """An activation must make (log-)probabilities of logits, once, and nothing may be computed of these."""
    computed = kinds[-1] != "linear" and any(isinstance(unwrap(call.op), _POOLING + _SCALING) for call in tail)
    if kinds[-1] is None or computed or len([kind for kind in kinds if kind != "linear"]) > 1:
        raise NoLinearHead(f"'{layer.name}' ({type(layer).__name__}) stands between its logits and the layer before")


def _kernel_mask(op):
    """1 where an entry of the kernel is read, 0 where a mask leaves it out; of the kernel's shape."""
    mask = np.ones(unwrap(op).kernel.shape)
    for name, axis in (op.reads.get("kernel", {}) if isinstance(op, ChannelMask) else {}).items():
        shape = [-1 if index == axis % mask.ndim else 1 for index in range(mask.ndim)]
        mask = mask * value_of(op.masks[name]).reshape(shape)
    return mask


def _as_matrix(layer, call, pooled):
    """Kernel (features, classes) and bias (classes,) of a linear layer, in float64."""
    if is_quantised(layer):
        raise NoLinearHead(f"the kernel of its last layer '{layer.name}' is quantised")
    read, made = call.input_tensors[0].shape[1:], call.output_tensors[0].shape[1:]
    if isinstance(layer, layers.EinsumDense) and not _is_dense(layer):
        raise NoLinearHead(f"the equation of its last layer '{layer.name}' is not that of a Dense")
    if isinstance(layer, _CONVOLUTIONS):
        _check_convolution(layer, read, pooled)
    if not pooled and (None in made or math.prod(made) != made[-1]):
        raise NoLinearHead(f"its last layer '{layer.name}' makes logits at several positions")
    kernel = value_of(layer.kernel).astype(np.float64)
    bias = np.zeros(kernel.shape[-1]) if layer.bias is None else value_of(layer.bias).astype(np.float64)
    return kernel.reshape(-1, kernel.shape[-1]), bias.reshape(-1)


def _is_dense(layer):
    """Whether an einsum equation is "...a,ab->...b"."""
    read, kernel, made = layer.equation.replace("->", ",").split(",")
    return len(kernel) == 2 and made == read[:-1] + kernel[1] and read[-1] == kernel[0] and kernel[1] not in read


def _check_convolution(layer, read, pooled):
    """Each logit must see all of its sample, or each position of it alike."""
    covers = tuple(layer.kernel_size) == tuple(read[:-1])
    pointwise = set(layer.kernel_size) == {1} and set(layer.strides) == {1}
    if layer.groups > 1 or layer.data_format == "channels_first" or not (pointwise if pooled else covers):
        raise NoLinearHead(f"its last convolution '{layer.name}' is neither 1x1 nor as large as what it reads")


def _scaled(layer, weights, bias):
    """Weights and bias with a layer after them folded in."""
    if isinstance(layer, layers.Rescaling):
        scale, shift = (np.asarray(value, dtype=np.float64) for value in (layer.scale, layer.offset))
    elif isinstance(layer, layers.BatchNormalization):
        mean, variance = (value_of(v).astype(np.float64) for v in (layer.moving_mean, layer.moving_variance))
        gamma = 1.0 if layer.gamma is None else value_of(layer.gamma).astype(np.float64)
        beta = 0.0 if layer.beta is None else value_of(layer.beta).astype(np.float64)
        scale = gamma / np.sqrt(variance + layer.epsilon)
        shift = beta - mean * scale
    elif isinstance(layer, _CALIBRATION):
        matrix, shift = _affine_map(layer, len(bias))
        return weights @ matrix, bias @ matrix + shift
    else:
        return weights, bias
    return weights * scale, bias * scale + shift


def _affine_map(layer, size):
    """Matrix and shift of a layer that maps logits (samples, size) linearly, from what it does to the unit vectors."""
    made = np.asarray(layer(np.eye(size + 1, size, -1, dtype="float32")), dtype=np.float64)
    return made[1:] - made[0], made[0]


def _tolerance(layer):
    """Some devices round products of float32 to ten bits of mantissa; half precision holds two to three digits."""
    return {"float64": 1e-9, "float32": 2e-3}.get(layer.compute_dtype, 5e-2)
