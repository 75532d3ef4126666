"""How is a model rebuilt from its list of calls, and what is carried over: weights and configs?

`replay` builds a model from a `tfprune.structure.trace.Trace`, with other layers in place of the old ones where asked.
"""

import contextlib
import inspect as python_inspect
import re
import warnings

import keras
import numpy as np

from tfprune.structure.compiling import compile_like
from tfprune.structure.trace import new_input, substitute, tensors_in, trace


def replay(traced, rebuild=None, arguments=None, draw=True):
    """Builds a new model from a trace; weights are fresh, and the same layers are shared as before.

    Args:
        traced: A `Trace`.
        rebuild: Function `(op, config) -> new op` called once for every operation, where `config` is what the
            operation's `get_config()` says, already with its unique name. Default None builds the same class again.
        arguments: Function `(call) -> (args, kwargs)` where a call needs other arguments. Default None: the same.
        draw: Whether initializers draw the fresh weights. Default True. False leaves them zero, which is faster where
            they are overwritten anyway; the layers keep their initializers.

    Raises:
        ValueError: two layers share a weight, or a layer cannot be built again from its config.

    Returns:
        `(model, twins)`: the new model and `{id(old operation): new operation}`.
    """
    _refuse_shared_weights(traced)
    rebuild = rebuild or rebuild_operation
    twins = {id(op): rebuild(op, config_of(op, traced.names[id(op)])) for op in traced.operations}
    tensors = {}
    for tensor in keras.tree.flatten(traced.inputs):
        tensors[id(tensor)] = new_input(tensor)
    with contextlib.nullcontext() if draw else _zero_initializers(twins.values()):
        for call in traced.calls:
            args, kwargs = substitute(arguments(call) if arguments else (call.args, call.kwargs), tensors)
            results = twins[id(call.op)](*args, **kwargs)
            for old, new in zip(call.output_tensors, tensors_in(results), strict=True):
                tensors[id(old)] = new
    inputs, outputs = substitute((traced.inputs, traced.outputs), tensors)
    return _model(traced, inputs, outputs, twins), twins


def _refuse_shared_weights(traced):
    """A new model would hold each layer's weights apart: training it would tear them asunder."""
    owners = {}
    for op in traced.operations:
        for weight in op.weights if isinstance(op, keras.Layer) else ():
            first = owners.setdefault(id(weight), op)
            if first is not op:
                raise ValueError(
                    f"Layers '{first.name}' and '{op.name}' of model '{traced.name}' share the weight '{weight.path}'. "
                    "Weights are shared by calling one layer several times; a variable in two layers cannot be kept "
                    "shared in the new model."
                )


def build_like(twin, layer):
    """Builds a layer for the shapes that its original was built for; its weights are zero."""
    config = layer.get_build_config()
    if not twin.built and config:
        with _zero_initializers([twin]):
            twin.build_from_config(config)


@contextlib.contextmanager
def _zero_initializers(ops):
    """Lets unbuilt layers start with zeros, and gives them their own initializers back."""
    waiting, swapped = [op for op in ops if isinstance(op, keras.Layer)], []
    while waiting:
        layer = waiting.pop()
        for name, value in vars(layer).items():
            if isinstance(value, keras.Layer):
                waiting.append(value)
            elif isinstance(value, keras.initializers.Initializer):
                swapped.append((layer, name, value))
    for layer, name, _ in swapped:
        setattr(layer, name, keras.initializers.Zeros())
    try:
        yield
    finally:
        for layer, name, value in swapped:
            setattr(layer, name, value)


def clone(model):
    """Returns a new model with the same layers, weights and compile settings; nested models are flattened.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`. It is left as it is.
    """
    traced = trace(model)
    twin, twins = replay(traced)
    for op in traced.operations:
        copy_weights(op, twins[id(op)])
    compile_like(twin, model)
    return twin


def rebuild_operation(op, config):
    """Builds an operation of the same class as `op` from `config`; what has no weights and no config is used again."""
    inner = [value for value in vars(op).values() if isinstance(value, keras.Layer)]
    try:
        with keras.saving.custom_object_scope({type(layer).__name__: type(layer) for layer in inner}):
            return op.__class__.from_config(dict(config))
    except Exception as error:
        refused = _refused(error, config)
        if refused:
            return rebuild_operation(op, {entry: value for entry, value in config.items() if entry not in refused})
        if isinstance(op, keras.Layer) and op.variables:
            raise ValueError(
                f"Layer '{op.name}' ({type(op).__name__}) cannot be built again from its get_config(): {error}\n"
                "Give the class a get_config() that returns what its __init__ takes."
            ) from error
        return op


def _refused(error, config):
    """The entries that a class writes into its config but does not take (some of KerasHub do), as the error says."""
    named = str(error).partition("Unrecognized keyword arguments")[2]
    unexpected = re.findall(r"unexpected keyword argument '(\w+)'", str(error))
    # A layer that refuses what every layer takes cannot be given its name and precision again.
    entries = set(config) - {"name", "trainable", "dtype"}
    return {entry for entry in entries if f"'{entry}':" in named or entry in unexpected}


def copy_weights(source, target):
    """Copies all variables of one layer to its twin, the state of random generators included."""
    if not isinstance(source, keras.Layer):
        return
    for old, new in zip(source.variables, target.variables, strict=True):
        new.assign(old)
    finish_weights(target)


def value_of(variable):
    """A variable's value as a NumPy array of its own (`ops.convert_to_numpy` makes NumPy 2 warn)."""
    return np.asarray(keras.ops.convert_to_tensor(variable)).copy()


def finish_weights(layer):
    """Lets a layer derive what it derives from its weights (Normalization keeps mean and variance beside them)."""
    if isinstance(layer, keras.layers.Normalization) and layer.built:
        layer.finalize_state()


def config_of(op, name):
    """The config to build `op` again; the user's own functions stand as themselves, not as names to look up."""
    try:
        with warnings.catch_warnings():
            # Keras warns that a lambda in a config cannot be loaded safely; here it is never saved or loaded.
            warnings.filterwarnings("ignore", message=".*includes a `lambda`")
            config = op.get_config()
    except Exception as error:
        if isinstance(op, keras.Layer) and op.variables:
            raise ValueError(f"Layer '{op.name}' ({type(op).__name__}) has no usable get_config(): {error}") from error
        return {}
    for key, value in config.items():
        own = getattr(op, key, None)
        is_users_function = not isinstance(own, keras.Layer) and callable(own) and _is_users(value)
        if isinstance(value, dict) and (is_users_function or _is_plain_activation(key, own)):
            config[key] = own
    if "name" in config:
        config["name"] = name
    return _unbuilt(config)


def _unbuilt(config):
    """The config without the shapes that inner layers were built for: they may read other tensors now."""
    if isinstance(config, dict):
        return {key: _unbuilt(value) for key, value in config.items() if key != "build_config"}
    return config


def _is_users(serialized):
    return isinstance(serialized, dict) and not str(serialized.get("module", "")).startswith("keras.")


def _is_plain_activation(key, value):
    """A layer without weights that stands as another layer's activation; Keras 3.6 cannot read its config back."""
    return key == "activation" and isinstance(value, keras.Layer) and not value.weights


def _model(traced, inputs, outputs, twins):
    if issubclass(traced.model_class, keras.Sequential) and _is_chain(traced):
        source = keras.tree.flatten(inputs)[0]._keras_history.operation
        return keras.Sequential([source, *twins.values()], name=traced.name)
    model_class = traced.model_class if _takes_a_graph(traced.model_class) else keras.Model
    return model_class(inputs=inputs, outputs=outputs, name=traced.name)


def _is_chain(traced):
    """Whether the calls form one line of different layers, so that a Sequential model can hold them."""
    tensor = traced.inputs
    for call in traced.calls:
        if call.input_tensors != [tensor] or not isinstance(call.op, keras.Layer) or len(call.output_tensors) != 1:
            return False
        tensor = call.output_tensors[0]
    return len(traced.operations) == len(traced.calls)


def _takes_a_graph(model_class):
    """Whether a user's own model class (say, with a train_step) is built from inputs and outputs as keras.Model is."""
    if issubclass(model_class, keras.Sequential):
        return False
    parameters = python_inspect.signature(model_class.__init__).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    variadic = {python_inspect.Parameter.VAR_POSITIONAL, python_inspect.Parameter.VAR_KEYWORD} <= kinds
    return variadic or {"inputs", "outputs", "name"} <= set(parameters)
