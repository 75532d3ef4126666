"""How does a Keras 3 model become a tf_keras one, for tools that know no other?"""

import inspect

import keras
import numpy as np

from tfprune.layers import ChannelMask
from tfprune.structure import roles
from tfprune.structure.replay import value_of
from tfprune.structure.samples import sample
from tfprune.structure.trace import substitute, trace

# What tf_keras calls by another name.
_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}
# Layers around others, and where they hold them.
_INNER = {"TimeDistributed": ("layer",), "Bidirectional": ("forward_layer", "backward_layer")}
# What a layer is built with, not what it computes.
_LEFT_OUT = ("build_config", "quantization_config", "lora_rank", "lora_alpha")


def to_tf_keras(model):
    """Returns a tf_keras model (Keras 2) with the same layers and weights, that computes the same.

    TensorFlow Model Optimization works on tf_keras models only. With this, its quantisation-aware training, weight
    clustering and unstructured pruning take up a ticket where structured pruning ends. Nested models are flattened,
    layers keep their names. The twin is not compiled, and its outputs are compared with the model's. TensorFlow Model
    Optimization changes the layers of the model it is given: make a twin for each of its tools.

    Args:
        model: A built functional or Sequential Keras model whose layers exist in tf_keras under the same names, for
            example a convolutional ticket. It is left as it is.

    Raises:
        ValueError: the model has masks, or a layer or an operation of it has no twin in tf_keras, or no such setting.
        RuntimeError: the twin does not compute what the model computes.

    Example:
        >>> twin = tfprune.to_tf_keras(ticket)
        >>> import tensorflow_model_optimization as tfmot
        >>> aware = tfmot.quantization.keras.quantize_model(twin)
        >>> aware.compile("adam", "sparse_categorical_crossentropy")
        >>> aware.fit(train, epochs=3)
    """
    import tf_keras

    if any(isinstance(layer, ChannelMask) for layer in getattr(model, "layers", ())):
        raise ValueError(f"Model '{model.name}' has masks, which tf_keras does not know. Call tfprune.shrink first.")
    traced = trace(model)
    twins = {id(op): _twin(tf_keras, op, traced.names[id(op)]) for op in traced.operations}
    tensors = {id(tensor): _input(tf_keras, tensor) for tensor in keras.tree.flatten(traced.inputs)}
    for call in traced.calls:
        args, kwargs = substitute((call.args, call.kwargs), tensors)
        given = {name: value for name, value in kwargs.items() if not _is_default(call.op, name, value)}
        outputs = keras.tree.flatten(twins[id(call.op)](*args, **given))
        tensors.update(zip(map(id, call.output_tensors), outputs, strict=True))
    inputs, outputs = substitute((traced.inputs, traced.outputs), tensors)
    twin = tf_keras.Model(inputs, outputs, name=traced.name)
    for op in traced.operations:
        _copy_weights(op, twins[id(op)])
    _check(model, traced, twin)
    return twin


def _input(tf_keras, tensor):
    return tf_keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)


def _twin(tf_keras, op, name):
    kind = type(op).__name__
    twin = getattr(tf_keras.layers, kind, None) if isinstance(op, keras.Layer) else None
    if twin is None or not type(op).__module__.startswith("keras."):
        raise ValueError(
            f"'{name}' ({kind}) has no twin in tf_keras. Expected layers that both Keras 3 and tf_keras have, and no "
            "keras.ops between them."
        )
    inner = {entry: getattr(op, entry) for entry in _INNER.get(kind, ())}
    inner = {entry.removeprefix("forward_"): _twin(tf_keras, one, one.name) for entry, one in inner.items()}
    return twin(**_settings(op, twin, name, {*_LEFT_OUT, *inner}), **inner)


def _settings(op, twin, name, left_out):
    """The layer's config in the words of tf_keras; weights are copied, so initializers are left out."""
    renamed = _RENAMED.get(type(op).__name__, {})
    taken = {parameter for cls in twin.__mro__ for parameter in inspect.signature(cls.__init__).parameters}
    taken |= {"name", "trainable", "dtype"}
    taken |= {"zero_output_for_mask"} if "unroll" in taken else set()  # tf_keras takes it from recurrent layers' kwargs
    settings = {}
    for entry, value in op.get_config().items():
        if entry.endswith("_initializer") or entry in left_out:
            continue
        if entry == "data_format" and value == "channels_last":
            continue  # the default of both
        if renamed.get(entry, entry) in taken:
            settings[renamed.get(entry, entry)] = value
        elif value != _default(type(op), entry):
            raise ValueError(f"Layer '{name}' ({type(op).__name__}): tf_keras has no {entry}. Received: {value!r}.")
    return {**settings, "name": name, "dtype": op.dtype_policy.name}


def _default(layer_class, entry):
    """What the layer's own `__init__` takes where nothing is given; False for what it only takes as a keyword."""
    takers = (inspect.signature(cls.__init__).parameters for cls in layer_class.__mro__)
    return next((parameters[entry].default for parameters in takers if entry in parameters), False)


def _is_default(op, name, value):
    """Whether an argument is None or what the layer takes anyway: layers that augment note training=True."""
    parameter = inspect.signature(op.call).parameters.get(name)
    return value is None or (parameter is not None and value is parameter.default)


def _copy_weights(op, twin):
    theirs = twin.weights
    ours = op.weights if len(op.weights) == len(theirs) else op.variables
    shapes = [tuple(weight.shape) for weight in ours], [tuple(weight.shape) for weight in theirs]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Layer '{op.name}' ({type(op).__name__}) has weights of shapes {shapes[0]}, its twin in tf_keras has "
            f"{shapes[1]}."
        )
    twin.set_weights([value_of(weight) for weight in ours])
    if roles.unwrap(op).__class__.__name__ == "Normalization":
        twin.finalize_state()


def _check(model, traced, twin):
    """Raises unless both compute the same of random inputs."""
    batch = sample(traced.inputs)
    expected = keras.tree.flatten(model(batch, training=False))
    found = keras.tree.flatten(twin(batch, training=False))
    for ours, theirs in zip(expected, found, strict=True):
        ours, theirs = (np.asarray(keras.ops.convert_to_tensor(value), "float64") for value in (ours, theirs))
        difference = float(np.abs(ours - theirs).max())
        if not difference <= 1e-3 * max(1.0, float(np.abs(ours).max())):
            raise RuntimeError(
                f"The twin in tf_keras does not compute what '{model.name}' computes: outputs differ by up to "
                f"{difference:.3g}. A layer has another meaning there."
            )
