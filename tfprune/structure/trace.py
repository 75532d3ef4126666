"""Which operations does a model call, in which order, on which tensors - and how is a model rebuilt from that list?

`trace` reads any Functional or Sequential model into a flat list of calls. Nested models are entered; so are layers
that hold other layers and have no role of their own, as the transformer blocks of KerasHub. `replay` builds a model
from such a list, with other layers in place of the old ones where asked. Both use Keras' public interface only
(`clone_model(call_function=...)` is an exact record of the graph) and leave the traced model's weights and graph alone.
"""

import contextlib
import inspect as python_inspect
import math
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.structure import roles


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or operation: `outputs = op(*args, **kwargs)`, tensors standing as KerasTensors."""

    op: Any
    args: tuple
    kwargs: dict
    outputs: Any

    @property
    def input_tensors(self):
        """The KerasTensors among the arguments, in order."""
        return _tensors((self.args, self.kwargs))

    @property
    def output_tensors(self):
        """The KerasTensors among the outputs, in order."""
        return _tensors(self.outputs)


@dataclass(frozen=True, eq=False)
class Trace:
    """A model as a flat list of calls.

    Args:
        model_class: The class to build again in `replay`.
        name: The model's name.
        inputs: Structure of KerasTensors that the model takes.
        calls: List of `Call`, in topological order.
        outputs: Structure of KerasTensors that the model gives.
        names: `{id(op): name}`, a name for every operation that is unique in the whole flattened model.
        opened: Names of the layers that were entered because they hold other layers.
    """

    model_class: type
    name: str
    inputs: Any
    calls: list
    outputs: Any
    names: dict = field(default_factory=dict)
    opened: tuple = ()

    @property
    def operations(self):
        """Every operation once, in the order of its first call."""
        return list({id(call.op): call.op for call in self.calls}.values())


def trace(model, closed=()):
    """Reads a model into its list of calls; nested models are flattened, shared layers stay shared.

    Args:
        model: A built `keras.Sequential` or functional `keras.Model`. It is left as it is.
        closed: Names of layers that are not entered, though they hold other layers.

    Returns:
        A `Trace`.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: the model is subclassed (its graph cannot be read) or not built yet.

    Example:
        >>> [call.op.name for call in trace(model).calls]
        ['hidden', 'logits']
    """
    _check_traceable(model)
    inputs, outputs = _ends(model)
    recorder = _Recorder(closed)
    new_inputs = keras.tree.map_structure(_new_input, inputs)
    graph = keras.Model(inputs, outputs, name=model.name)
    new_outputs = recorder.run(graph, new_inputs)
    names = _unique_names(recorder.calls, recorder.owners)
    opened = tuple(dict.fromkeys(recorder.opened))
    return Trace(type(model), model.name, new_inputs, recorder.calls, new_outputs, names, opened)


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
        tensors[id(tensor)] = _new_input(tensor)
    with contextlib.nullcontext() if draw else _zero_initializers(twins.values()):
        for call in traced.calls:
            args, kwargs = _substitute(arguments(call) if arguments else (call.args, call.kwargs), tensors)
            results = twins[id(call.op)](*args, **kwargs)
            for old, new in zip(call.output_tensors, _tensors(results), strict=True):
                tensors[id(old)] = new
    inputs, outputs = _substitute((traced.inputs, traced.outputs), tensors)
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
        understood = _understood(op, config)
        if understood != config:
            return op.__class__.from_config(understood)
        if isinstance(op, keras.Layer) and op.variables:
            raise ValueError(
                f"Layer '{op.name}' ({type(op).__name__}) cannot be built again from its get_config(): {error}\n"
                "Give the class a get_config() that returns what its __init__ takes."
            ) from error
        return op


def _understood(op, config):
    """The config without entries that the class writes but does not take (some layers of KerasHub do)."""
    takes = set(python_inspect.signature(op.__class__.__init__).parameters) | {"name", "trainable", "dtype"}
    return {entry: value for entry, value in config.items() if entry in takes}


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


def compile_like(model, reference):
    """Compiles `model` with the settings of `reference`, with an optimizer of its own that starts afresh."""
    if not getattr(reference, "compiled", False):
        return
    with keras.saving.custom_object_scope(_user_functions(reference)):
        model.compile_from_config(reference.get_compile_config())


def _user_functions(model):
    """The user's own losses and metrics by name: Keras stores a function by name only."""
    settings = getattr(getattr(model, "_compile_config", None), "config", {})
    parts = keras.tree.flatten([settings.get(key) for key in ("loss", "metrics", "weighted_metrics")])
    found = [part if hasattr(part, "__name__") else type(part) for part in parts if part is not None]
    return {part.__name__: part for part in found if not part.__module__.startswith(("keras.", "builtins"))}


def _check_traceable(model):
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a Keras model. Received: {model!r} of type {type(model).__name__}.")
    if isinstance(model, keras.Sequential):
        if not model.built or not model.layers:
            raise ValueError(
                f"Model '{model.name}' is not built, so its channels are not known. "
                "Start it with keras.Input(shape), or call model.build(input_shape) first."
            )
    elif not isinstance(model, keras.Function):
        raise ValueError(
            f"Cannot read the graph of the subclassed model '{model.name}' ({type(model).__name__}): its layers are "
            "called in Python code. Build it from keras.Input instead: inputs = keras.Input(shape); "
            "model = keras.Model(inputs, outputs), where outputs are made by calling the layers one after another."
        )


def _ends(model):
    if isinstance(model, keras.Sequential):
        return model.inputs[0], model.outputs[0]
    return model.input, model.output


def _new_input(tensor):
    history = getattr(tensor, "_keras_history", None)
    if history is not None and isinstance(history.operation, keras.layers.InputLayer):
        return keras.layers.InputLayer.from_config(history.operation.get_config()).output
    return keras.layers.InputLayer(batch_shape=tensor.shape, dtype=tensor.dtype).output


class _Echo(keras.Operation):
    """Stands for an operation while tracing, so that the user's own layers get no new connections."""

    def __init__(self, op):
        super().__init__()
        self.op = op

    def compute_output_spec(self, *args, **kwargs):
        return self.op.compute_output_spec(*args, **kwargs)


class _Recorder:
    """Runs a graph on symbolic tensors and keeps every call; nested models are entered, not called."""

    def __init__(self, closed=(), inside=()):
        self.calls = []
        self.owners = {}  # id(op) -> names of the nested models around it
        self.opened = []
        self.closed = closed
        self.inside = inside

    def run(self, graph, inputs):
        clone = keras.models.clone_model(
            graph, input_tensors=inputs, clone_function=lambda op: op, call_function=self.record
        )
        return clone.output

    def record(self, op, *args, **kwargs):
        if isinstance(op, keras.Sequential | keras.Function):
            return self.enter(op, args, kwargs)
        outputs = self.open(op, args, kwargs)
        return self.keep(op, args, kwargs, self.inside) if outputs is None else outputs

    def keep(self, op, args, kwargs, owners):
        op = _with_sizes(op, args)
        outputs = _Echo(op)(*args, **kwargs)
        self.owners.setdefault(id(op), owners)
        self.calls.append(Call(op, args, kwargs, outputs))
        return outputs

    def enter(self, model, args, kwargs):
        """Records the calls of a nested model on the tensors it is called with."""
        _check_traceable(model)
        inputs, outputs = _ends(model)
        given = args[0] if args else next(value for value in kwargs.values() if _tensors(value))
        inner, results, new_inputs = self._inner(model.name, inputs, outputs)
        return self._take(inner, results, _match(new_inputs, given, model.name), kwargs.get("training"))

    def open(self, layer, args, kwargs):
        """Records what a layer calls inside; None where its own code does more than calling layers and operations."""
        if layer.name in self.closed or not _holds_layers(layer) or not _may_open(layer):
            return None
        tensors = _tensors((args, kwargs))
        if any(getattr(tensor, "_keras_mask", None) is not None for tensor in tensors) or layer.activity_regularizer:
            return None
        found = self._look_inside(layer, args, kwargs, tensors)
        if found is None:
            return None
        inner, results, new_inputs = found
        self.opened.append(layer.name)
        matched = {id(new): old for new, old in zip(new_inputs, _unique(tensors), strict=True)}
        return self._take(inner, results, matched, kwargs.get("training"))

    def _look_inside(self, layer, args, kwargs, tensors):
        """What `_inner` gives for the graph that a layer's code makes; None where it cannot be read completely."""
        stand_ins = {id(tensor): _new_input(tensor) for tensor in tensors}
        try:
            with _Reads() as reads:
                inner_args, inner_kwargs = _substitute((args, kwargs), stand_ins)
                outputs = layer.call(*inner_args, **inner_kwargs)
            found = self._inner(layer.name, list(stand_ins.values()), outputs)
        except Exception:  # whatever stops it: the layer stays closed, and freezes what it touches
            return None
        return None if reads.seen or not _is_complete(layer, found[0].calls) else found

    def _inner(self, name, inputs, outputs):
        inner = _Recorder(self.closed, (*self.inside, name))
        new_inputs = keras.tree.map_structure(_new_input, inputs)
        return inner, inner.run(keras.Model(inputs, outputs, name=name), new_inputs), new_inputs

    def _take(self, inner, results, tensors, training):
        """Records the calls of an inner graph again, on the tensors of this one."""
        for call in inner.calls:
            args, kwargs = _substitute((call.args, call.kwargs), tensors)
            kwargs = _with_training(call.op, kwargs, training)
            outputs = self.open(call.op, args, kwargs)  # more sizes may be known here than inside
            if outputs is None:
                outputs = self.keep(call.op, args, kwargs, inner.owners[id(call.op)])
            for old, new in zip(call.output_tensors, _tensors(outputs), strict=True):
                tensors[id(old)] = new
        self.opened += inner.opened
        return _substitute(results, tensors)


class _Reads(keras.StatelessScope):
    """Notes which variables are read by the code that runs inside, other than by the layers it calls."""

    def __init__(self):
        super().__init__(initialize_variables=False)
        self.seen = []

    def get_current_value(self, variable):
        self.seen.append(variable)
        return super().get_current_value(variable)


def _holds_layers(op):
    """Whether an operation is a layer of the user's, or of a library beside Keras, that is made of other layers."""
    if not isinstance(op, keras.Layer) or type(op).__module__.startswith("keras.src.layers."):
        return False
    parts = [part for value in vars(op).values() for part in (value if isinstance(value, list | tuple) else [value])]
    return any(isinstance(part, keras.Layer) for part in parts)


def _may_open(layer):
    role = roles.role_of(layer)
    return role is None or role.opens


def _with_sizes(op, args):
    """An operation whose new shape was read off a tensor of unknown batch size, with -1 in that place."""
    if roles.public_name(type(op)) != "keras.ops.Reshape" or None not in op.newshape:
        return op
    read = args[0].shape[1:]
    if tuple(op.newshape).count(None) > 1 or op.newshape[0] is not None or None in read:
        return op
    known = math.prod(size for size in op.newshape[1:] if size != -1)
    return type(op)((-1, *(math.prod(read) // known if size == -1 else size for size in op.newshape[1:])))


def _is_complete(layer, calls):
    """Whether all weights of a layer belong to the layers it was seen to call, and only these use them."""
    inner = {id(variable) for call in calls if isinstance(call.op, keras.Layer) for variable in call.op.variables}
    given = [leaf for call in calls for leaf in keras.tree.flatten((call.args, call.kwargs))]
    used = any(isinstance(leaf, keras.Variable) for leaf in given)
    return not used and all(id(variable) in inner for variable in layer.weights)


def _unique(tensors):
    return list({id(tensor): tensor for tensor in tensors}.values())


def _with_training(op, kwargs, training):
    """The arguments of an inner call: training=True or False on a nested model means each of its layers."""
    takes_it = training is not None and "training" in python_inspect.signature(op.call).parameters
    return {**kwargs, "training": training} if takes_it and kwargs.get("training") is None else kwargs


def _match(inputs, given, name):
    """Pairs a nested model's own inputs with the tensors it is called on, as Keras does: by key, else in order."""
    if isinstance(given, dict) and not isinstance(inputs, dict):
        flat = keras.tree.flatten(inputs)
        given = [given[tensor.name] for tensor in flat]
    elif isinstance(inputs, dict) and isinstance(given, dict):
        given = {key: given[key] for key in inputs}
    ours, theirs = keras.tree.flatten(inputs), _tensors(given)
    if len(ours) != len(theirs) or any(len(a.shape) != len(b.shape) for a, b in zip(ours, theirs, strict=True)):
        raise ValueError(
            f"The nested model '{name}' is called on tensors that do not match its inputs. Expected shapes "
            f"{[tensor.shape for tensor in ours]}. Received: {[tensor.shape for tensor in theirs]}."
        )
    return {id(a): b for a, b in zip(ours, theirs, strict=True)}


def _tensors(structure):
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, keras.KerasTensor)]


def _substitute(structure, tensors):
    return keras.tree.map_structure(
        lambda leaf: tensors[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf, structure
    )


def _unique_names(calls, owners):
    """Plain layer names where they are unique, 'nested.layer' where two nested models use the same one."""
    ops = list({id(call.op): call.op for call in calls}.values())
    counts = Counter(op.name for op in ops)
    names, taken = {}, {op.name for op in ops if not owners[id(op)]}
    for op in ops:
        name = op.name
        if counts[name] > 1 and owners[id(op)]:
            name = ".".join((*owners[id(op)], op.name))
            while name in taken:
                name += "_"
            taken.add(name)
        names[id(op)] = name
    return names


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
