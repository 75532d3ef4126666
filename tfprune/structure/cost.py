"""What does a model cost? Parameters, multiply-adds and bytes, per layer and in all, and measured latency.

Conventions:
    parameters      all weights of the layers, moving averages of BatchNormalization included, each counted once; the
                    masks of a masked model are not parameters of the network and do not count.
    multiply_adds   per sample, of dense layers, convolutions, recurrent layers and attention; a layer that is called
                    twice counts twice. Biases,
                    activations, normalisation and pooling count as nothing, as in the literature. Padding is counted
                    as if it were data. None where it cannot be told: an unknown image size, or a layer class with no
                    rule here that holds a kernel. A number that leaves something out would be worse than none.
    bytes           of the parameters, in the dtype they are stored in.
"""

import math
import time
import weakref

import keras
import numpy as np
from keras import layers

from tfprune.structure.roles import public_name, unwrap
from tfprune.structure.trace import Trace, trace


def cost(model):
    """Returns {"parameters": int, "multiply_adds": int or None, "bytes": int} of a model, per sample.

    See the module's text for what counts. A masked model costs what the dense one does: call it on the ticket that
    `tfprune.shrink` returns.

    Args:
        model: a built Keras model, or its `Trace`. For a subclassed model, whose graph cannot be read, multiply_adds
            is None.

    Raises:
        ValueError: for a model that is not built.
        TypeError: for anything but a Keras model.

    Example:
        >>> cost(keras.Sequential([keras.Input((2,)), keras.layers.Dense(30), keras.layers.Dense(2)]))
        {'parameters': 152, 'multiply_adds': 120, 'bytes': 608}
    """
    if _is_subclassed(model):
        return {**_sizes(_built(model).weights), "multiply_adds": None}
    traced = _traced(model)
    weights = [weight for op in traced.operations for weight in _weights(op)]
    return {**_sizes(weights), "multiply_adds": _total(_multiply_adds(call) for call in traced.calls)}


def cost_table(model):
    """The cost of every layer, in the order of their first calls.

    Args:
        model: a built Sequential or functional Keras model, or its `Trace`.

    Returns:
        A list of {"name", "class", "calls", "parameters", "multiply_adds", "bytes"}; multiply-adds of all calls of the
        layer together.

    Example:
        >>> [(row["name"], row["multiply_adds"]) for row in cost_table(model)]
        [('hidden', 60), ('logits', 60)]
    """
    traced = _traced(model)
    return [
        _row(op, [call for call in traced.calls if call.op is op], traced.names[id(op)]) for op in traced.operations
    ]


def latency(model, batch_size=1, repeats=30):
    """Returns the median time of one prediction in seconds, after warm-up, on a compiled function.

    Args:
        model: a built Sequential or functional Keras model whose input sizes are known but for the batch.
        batch_size: samples per prediction.
        repeats: how many predictions are timed.

    Raises:
        ValueError: where an input size is not known, the model is subclassed, or an argument is below 1.

    Example:
        >>> print(f"{1000 * latency(model):.2f} ms")
    """
    _check_counts(batch_size=batch_size, repeats=repeats)
    predict = prediction(model, batch_size)
    times = [_seconds(predict) for _ in range(repeats + 3)]
    return float(np.median(times[3:]))  # the first few allocate and choose algorithms


def prediction(model, batch_size=1):
    """Returns a function without arguments that makes one compiled prediction and waits for its end.

    Args:
        model: a built Sequential or functional Keras model whose input sizes are known but for the batch.
        batch_size: samples per prediction.

    Raises:
        ValueError: where an input size is not known, or the model is subclassed.
    """
    import tensorflow as tf

    _check_counts(batch_size=batch_size)
    inputs = keras.tree.map_structure(lambda tensor: _noise(tensor, batch_size, model), _inputs(model))
    # A concrete function: no look-up of the signature, and no retracing, inside the clock.
    predict = tf.function(lambda: model(inputs, training=False), autograph=False).get_concrete_function()
    # To NumPy: an accelerator has finished then.
    return lambda: keras.tree.map_structure(keras.ops.convert_to_numpy, predict())


# --- which dense model a ticket came from -----------------------------------------------------------------------------

_REFERENCES = weakref.WeakKeyDictionary()


def record_reference(model, reference):
    """Remembers the cost of the dense model that `model` came from, as long as `model` lives; it is not saved.

    Args:
        model: the ticket.
        reference: what `cost` said of the dense model.
    """
    _REFERENCES[model] = dict(reference)


def reference_of(model):
    """The cost that `record_reference` was given for `model`, or None."""
    try:
        return _REFERENCES.get(model)
    except TypeError:  # an object that cannot be weakly referenced was never recorded
        return None


# --- multiply-adds by layer class: (layer, input shape, output shape) -> int, shapes without the batch ----------------


def _dense(layer, inputs, outputs):
    return math.prod(outputs) * inputs[-1]


def _convolution(layer, inputs, outputs):
    # The kernel is (*size, channels / groups, filters): the product of its shape is the work at one output position.
    return _positions(layer, outputs) * math.prod(layer.kernel.shape)


def _transposed(layer, inputs, outputs):
    return _positions(layer, inputs) * math.prod(layer.kernel.shape)  # every input position is spread by the kernel


def _separable(layer, inputs, outputs):
    work = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    return _positions(layer, outputs) * work


def _einsum(layer, inputs, outputs):
    read, kernel = layer.equation.replace(" ", "").split("->")[0].split(",")
    if "." in layer.equation:
        return None
    sizes = {**dict(zip(read[1:], inputs, strict=True)), **dict(zip(kernel, layer.kernel.shape, strict=True))}
    return math.prod(size for letter, size in sizes.items() if letter != read[0])


def _nothing(layer, inputs, outputs):
    return 0


def _unknown(layer, inputs, outputs):
    return None


RULES = {
    layers.Dense: _dense,
    layers.EinsumDense: _einsum,
    **dict.fromkeys((layers.Conv1D, layers.Conv2D, layers.Conv3D), _convolution),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _convolution),
    **dict.fromkeys((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), _transposed),
    **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), _separable),
    # they hold matrices but do not multiply by them
    **dict.fromkeys((layers.Embedding, layers.PReLU, layers.LayerNormalization), _nothing),
    **dict.fromkeys((layers.Dot, layers.Attention, layers.AdditiveAttention), _unknown),  # the other way round
}
_MULTIPLYING_OPERATIONS = {"Einsum", "Dot", "Tensordot", "Inner", "Outer", "Vdot", "DotProductAttention"}
_MULTIPLYING_OPERATIONS |= {"Conv", "DepthwiseConv", "SeparableConv", "ConvTranspose"}
_NAMED = {"keras_hub.PositionEmbedding": _nothing}

# --- the same for what reads several tensors: (layer, arguments, output shapes) -> int --------------------------------


def _attention(layer, given, outputs):
    """Four projections, queries times keys, and weights times values."""
    query, value = given["query"], given["value"]
    steps, others = math.prod(query[:-1]), math.prod(value[:-1])
    kernels = [getattr(layer, f"_{name}_dense").kernel.shape for name in ("query", "key", "value", "output")]
    projections = [n * math.prod(kernel) for n, kernel in zip((steps, others, others, steps), kernels, strict=True)]
    heads, size_of_keys = kernels[0][-2:]
    return sum(projections) + steps * others * heads * (size_of_keys + kernels[2][-1])


def _recurrent(layer, given, outputs):
    cells = [layer.cell] if hasattr(layer, "cell") else [layer.forward_layer.cell, layer.backward_layer.cell]
    steps = next(iter(given.values()))[0]
    return steps * sum(math.prod(cell.kernel.shape) + math.prod(cell.recurrent_kernel.shape) for cell in cells)


def _reversible(layer, given, outputs):
    return math.prod(outputs[0]) * layer.output_dim if given.get("reverse") else 0


def _product(op, given, outputs):
    return math.prod(outputs[0]) * next(iter(given.values()))[-1]


_CALL_RULES = {
    "keras.layers.MultiHeadAttention": _attention,
    "keras.layers.GroupedQueryAttention": _attention,
    "keras_hub.CachedMultiHeadAttention": _attention,
    **{f"keras.layers.{name}": _recurrent for name in ("SimpleRNN", "GRU", "LSTM", "Bidirectional")},
    "keras.layers.ReversibleEmbedding": _reversible,
    "keras_hub.ReversibleEmbedding": _reversible,
    "keras.ops.Matmul": _product,
}


def _rule(op):
    """The rule of a layer's very class. Without one: nothing to multiply, unless it holds a kernel."""
    found = RULES.get(type(op)) or _NAMED.get(public_name(type(op)))
    if found:
        return found
    if not isinstance(op, keras.Layer):
        return _unknown if type(op).__name__ in _MULTIPLYING_OPERATIONS else _nothing
    has_kernel = any(len(weight.shape) > 1 for weight in op.weights)
    return _unknown if has_kernel else _nothing


def _multiply_adds(call):
    layer = unwrap(call.op)
    outputs = [tensor.shape[1:] for tensor in call.output_tensors]
    rule = _CALL_RULES.get(public_name(type(layer)))
    if rule:
        given = _arguments(call)
        known = [size for size in given.values() if isinstance(size, tuple)] + outputs
        return None if any(None in shape for shape in known) else int(rule(layer, given, outputs))
    return _of_shapes(layer, call.input_tensors[0].shape[1:] if call.input_tensors else (), outputs[0])


def _of_shapes(layer, inputs, outputs):
    if isinstance(layer, layers.SpectralNormalization):
        return _of_shapes(layer.layer, inputs, outputs)
    if isinstance(layer, layers.TimeDistributed):
        inner = _of_shapes(layer.layer, inputs[1:], outputs[1:])
        return 0 if inner == 0 else None if None in (inner, inputs[0]) else inputs[0] * inner
    rule = _rule(layer)
    if rule is _nothing or rule is _unknown:
        return rule(layer, None, None)
    # An einsum layer may not say how long its output is; its input does.
    shapes = (inputs,) if rule is _einsum else (inputs, outputs)
    found = None if any(None in shape for shape in shapes) else rule(layer, inputs, outputs)
    return None if found is None else int(found)


def _arguments(call):
    """`{argument: value}` of a call, the shape without the batch axis standing for a tensor."""
    return {
        name: tuple(value.shape[1:]) if isinstance(value, keras.KerasTensor) else value
        for name, value in call.arguments.items()
    }


def _positions(layer, shape):
    """In how many places a convolution is computed."""
    return math.prod(shape[1:] if layer.data_format == "channels_first" else shape[:-1])


def _total(numbers):
    numbers = list(numbers)
    return None if None in numbers else sum(numbers)


def _row(op, calls, name):
    layer = unwrap(op)
    total = _total(_multiply_adds(call) for call in calls)
    row = {"name": name, "class": type(layer).__name__, "calls": len(calls), **_sizes(_weights(op))}
    return {**row, "multiply_adds": total}


def _weights(op):
    return unwrap(op).weights if isinstance(op, keras.Layer) else []


def _sizes(weights):
    import tensorflow as tf

    unique = {id(weight): weight for weight in weights}.values()  # layers may share a weight
    counts = [(math.prod(weight.shape), tf.as_dtype(weight.dtype).size) for weight in unique]
    return {"parameters": sum(n for n, _ in counts), "bytes": sum(n * size for n, size in counts)}


def _traced(model):
    return model if isinstance(model, Trace) else trace(model)


def _is_subclassed(model):
    return isinstance(model, keras.Model) and not isinstance(model, keras.Sequential | keras.Function)


def _built(model):
    if not model.built:
        raise ValueError(f"Model '{model.name}' is not built. Call it on data, or model.build(input_shape), first.")
    return model


def _inputs(model):
    if _is_subclassed(_built(model)):
        raise ValueError(f"latency needs a Sequential or functional model. Received: subclassed model '{model.name}'.")
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _noise(tensor, batch_size, model):
    """A batch for one input: noise, but zeros where integers are read, for they are indices into something."""
    shape = tensor.shape[1:]
    if None in shape:
        raise ValueError(
            f"latency needs fixed input sizes. Received: model '{model.name}' with an input of shape {tensor.shape}. "
            "Build the model with the size you will use."
        )
    values = np.random.default_rng(0).normal(size=(batch_size, *shape)) if "float" in tensor.dtype else 0
    return keras.ops.cast(np.broadcast_to(values, (batch_size, *shape)), tensor.dtype)


def _seconds(predict):
    start = time.perf_counter()
    predict()
    return time.perf_counter() - start


def _check_counts(**counts):
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1. Received: {name}={value!r}.")
