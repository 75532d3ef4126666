"""Does a model end in probabilities or in logits, and how does one get at its logits?

Probabilities saturate: a float32 softmax says exactly 1.0 from a margin of 17 on, and then everything ties. Scores
are therefore computed on logits, which `logits_model` reads just before the last softmax or sigmoid.
"""

import math

import keras
from keras import layers

from tfprune.structure.replay import config_of, copy_weights, rebuild_operation
from tfprune.structure.roles import unwrap
from tfprune.structure.running import given, run
from tfprune.structure.trace import Call, Trace, trace

# Layers whose output is activation(linear map of the input). (A recurrent layer has an activation too, but more after.)
_ACTIVATED = (
    layers.Dense,
    layers.EinsumDense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
# These hand on what they get, at most in another shape: the head is what comes before them.
_RESHAPING = (layers.Flatten, layers.Reshape)
IDENTICAL = (
    layers.Identity,
    layers.ActivityRegularization,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
)
# Logits stay logits under these (a temperature, say); probabilities would not stay probabilities.
_AFFINE = (
    layers.Rescaling,
    layers.BatchNormalization,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
)


def find_head(model):
    """What the model's single output is: "softmax", "sigmoid", "linear" (logits), or None where it cannot be told.

    Looks through Dropout, Flatten, Reshape and `ChannelMask`. "linear" includes log-softmax, whose values serve as
    logits. Subclassed models, several outputs, and anything unknown give None.

    Args:
        model: a built Keras model, or its `Trace`.

    Raises:
        ValueError: for a model that is not built yet.

    Example:
        >>> find_head(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")]))
        'softmax'
    """
    traced = _traced(model)
    return None if traced is None else kind_and_chain(traced)[0]


def logits_model(model):
    """Returns a model that stops before the softmax or sigmoid of `model`; the model itself where its head is linear.

    It runs the layers of `model`, so it sees later changes of their weights. Only where the activation is inside the
    last layer (`Dense(10, activation="softmax")`) are that layer's weights copied, as they are now.

    Args:
        model: a built Sequential or functional Keras model with one output.

    Raises:
        ValueError: where the head is not a softmax, a sigmoid or linear.

    Example:
        >>> logits = logits_model(model).predict(x)
    """
    return logits_model_of(model, _traced(model))


def logits_model_of(model, traced):
    """`logits_model` for a model whose graph has been read already."""
    kind, chain = kind_and_chain(traced) if traced else (None, [])
    if kind is None:
        raise ValueError(
            f"Cannot find the logits of model '{model.name}'. Expected a Sequential or functional model with one "
            "output that ends in a softmax, a sigmoid or a linear layer. Build it without its last activation."
        )
    return model if kind == "linear" else _LogitsModel(model, traced, chain)


class _LogitsModel(keras.Model):
    """Runs the calls of a trace, but its head without the activation."""

    def __init__(self, model, traced, chain):
        # autocast=False: the layers cast for themselves, as they do inside a functional model.
        super().__init__(name=f"{model.name}_logits", autocast=False)
        head, *tail = chain
        replaced = {id(call) for call in chain}
        before = [call for call in traced.calls if id(call) not in replaced]
        self._traced = traced
        self._calls = [*before, without_activation(head), *tail]
        self._wanted = chain[-1].output_tensors[0]
        self._shared = [call.op for call in self._calls if isinstance(call.op, keras.Layer)]  # so that Keras sees them

    def call(self, inputs):
        """Logits of a batch."""
        tensors = run(self._calls, given(self._traced, inputs))
        return tensors[id(self._wanted)]


def _traced(model):
    """The model's trace, or None for a subclassed model, whose graph cannot be read."""
    if isinstance(model, Trace):
        return model
    return trace(model) if isinstance(model, keras.Sequential | keras.Function) else None


def kind_and_chain(traced):
    """What the output is, and the calls from its head (which may hold the activation) on."""
    outputs = keras.tree.flatten(traced.outputs)
    producers = {id(tensor): call for call in traced.calls for tensor in call.output_tensors}
    call = producers.get(id(outputs[0])) if len(outputs) == 1 else None
    chain, reshaped = [], False
    while call is not None:
        chain.insert(0, call)
        if not _hands_on(call.op):
            break
        reshaped = reshaped or isinstance(call.op, _RESHAPING)
        call = producers.get(id(call.input_tensors[0]))
    if call is None:
        return None, []
    kind = _kind(call, producers)
    if kind == "softmax" and reshaped and not _is_one_position(call):
        return None, []  # softmaxes of several positions in one row: not one distribution
    return kind, chain


def _hands_on(op):
    is_linear = isinstance(op, layers.Activation) and op.activation is keras.activations.linear
    return is_linear or isinstance(op, _RESHAPING + IDENTICAL)


def _is_one_position(call):
    shape = call.output_tensors[0].shape[1:]
    return None not in shape and math.prod(shape) == shape[-1]


def _kind(call, producers):
    """Kind of what one call gives."""
    layer = unwrap(call.op)
    if isinstance(layer, _ACTIVATED):
        return _kind_of_function(layer.activation)
    if isinstance(layer, layers.Activation):
        return _kind_of_function(layer.activation)
    if isinstance(layer, _AFFINE):
        return "linear" if _is_linear(call.input_tensors[0], producers) else None
    return _kind_of_softmax(layer, call)


def _is_linear(tensor, producers):
    call = producers.get(id(tensor))
    while call is not None and _hands_on(call.op):
        call = producers.get(id(call.input_tensors[0]))
    return call is not None and _kind(call, producers) == "linear"


def _kind_of_softmax(op, call):
    """Softmax, sigmoid and log-softmax as layers or `keras.ops`; over the last axis, of one tensor, with no mask."""
    is_keras = type(op).__module__.startswith("keras.")
    kind = {"Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "linear"}.get(type(op).__name__)
    rank = len(call.output_tensors[0].shape)
    if not is_keras or len(call.input_tensors) != 1 or getattr(op, "axis", -1) not in (-1, rank - 1):
        return None
    return kind


def _kind_of_function(activation):
    if isinstance(activation, layers.Softmax):
        return "softmax" if activation.axis == -1 else None
    from tensorflow import nn

    kinds = {
        "softmax": (keras.activations.softmax, keras.ops.softmax, nn.softmax),
        "sigmoid": (keras.activations.sigmoid, keras.ops.sigmoid, nn.sigmoid),
        # log-softmax differs from the logits by a number per row only, which no score depends on
        "linear": (
            None,
            keras.activations.linear,
            keras.activations.log_softmax,
            keras.ops.log_softmax,
            nn.log_softmax,
        ),
    }
    return next((kind for kind, functions in kinds.items() if any(activation is f for f in functions)), None)


def without_activation(call):
    """The head's call, giving logits in place of what it gave; its weights are copied where it has an activation."""
    layer = unwrap(call.op)
    if not isinstance(layer, _ACTIVATED):
        return Call(layers.Identity(name=call.op.name), (call.input_tensors[0],), {}, call.outputs)
    if layer.activation in (None, keras.activations.linear):
        return call
    twin = rebuild_operation(call.op, config_of(call.op, call.op.name))
    twin(*call.args, **call.kwargs)  # builds it
    copy_weights(call.op, twin)
    unwrap(twin).activation = keras.activations.linear
    return Call(twin, call.args, call.kwargs, call.outputs)
