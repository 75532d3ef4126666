"""Which operations does a model call, in which order, on which tensors?

`trace` reads any Functional or Sequential model into a flat list of calls. Nested models are entered; so are layers
that hold other layers and have no role of their own, as the transformer blocks of KerasHub. Only Keras' public
interface is used (`clone_model(call_function=...)` is an exact record of the graph); the traced model's weights and
graph are left alone. `tfprune.structure.replay` builds a model from such a list again.
"""

import inspect as python_inspect
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import keras

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
        return tensors_in((self.args, self.kwargs))

    @property
    def arguments(self):
        """`{argument name: value}`, as the layer's own `call` names them."""
        return python_inspect.signature(roles.unwrap(self.op).call).bind(*self.args, **self.kwargs).arguments

    @property
    def output_tensors(self):
        """The KerasTensors among the outputs, in order."""
        return tensors_in(self.outputs)


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
    new_inputs = keras.tree.map_structure(new_input, inputs)
    graph = keras.Model(inputs, outputs, name=model.name)
    new_outputs = recorder.run(graph, new_inputs)
    names = _unique_names(recorder.calls, recorder.owners)
    opened = tuple(dict.fromkeys(recorder.opened))
    return Trace(type(model), model.name, new_inputs, recorder.calls, new_outputs, names, opened)


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


def new_input(tensor):
    """A KerasTensor of the same shape and dtype that stands at the beginning of a graph."""
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
        given = args[0] if args else next(value for value in kwargs.values() if tensors_in(value))
        inner, results, new_inputs = self._inner(model.name, inputs, outputs)
        return self._take(inner, results, _match(new_inputs, given, model.name), kwargs.get("training"))

    def open(self, layer, args, kwargs):
        """Records what a layer calls inside; None where its own code does more than calling layers and operations."""
        if layer.name in self.closed or not _holds_layers(layer) or not _may_open(layer):
            return None
        tensors = tensors_in((args, kwargs))
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
        stand_ins = {id(tensor): new_input(tensor) for tensor in tensors}
        try:
            with _Reads() as reads:
                inner_args, inner_kwargs = substitute((args, kwargs), stand_ins)
                outputs = layer.call(*inner_args, **inner_kwargs)
            found = self._inner(layer.name, list(stand_ins.values()), outputs)
        except Exception:  # whatever stops it: the layer stays closed, and freezes what it touches
            return None
        return None if reads.seen or not _is_complete(layer, found[0].calls) else found

    def _inner(self, name, inputs, outputs):
        inner = _Recorder(self.closed, (*self.inside, name))
        new_inputs = keras.tree.map_structure(new_input, inputs)
        return inner, inner.run(keras.Model(inputs, outputs, name=name), new_inputs), new_inputs

    def _take(self, inner, results, tensors, training):
        """Records the calls of an inner graph again, on the tensors of this one."""
        for call in inner.calls:
            args, kwargs = substitute((call.args, call.kwargs), tensors)
            kwargs = _with_training(call.op, kwargs, training)
            shapes = [[tensor.shape for tensor in found] for found in (call.input_tensors, tensors_in((args, kwargs)))]
            # what stayed closed is tried again where more sizes are known than inside
            outputs = self.open(call.op, args, kwargs) if shapes[0] != shapes[1] else None
            if outputs is None:
                outputs = self.keep(call.op, args, kwargs, inner.owners[id(call.op)])
            for old, new in zip(call.output_tensors, tensors_in(outputs), strict=True):
                tensors[id(old)] = new
        self.opened += inner.opened
        return substitute(results, tensors)


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
    ours, theirs = keras.tree.flatten(inputs), tensors_in(given)
    if len(ours) != len(theirs) or any(len(a.shape) != len(b.shape) for a, b in zip(ours, theirs, strict=True)):
        raise ValueError(
            f"The nested model '{name}' is called on tensors that do not match its inputs. Expected shapes "
            f"{[tensor.shape for tensor in ours]}. Received: {[tensor.shape for tensor in theirs]}."
        )
    return {id(a): b for a, b in zip(ours, theirs, strict=True)}


def tensors_in(structure):
    """The KerasTensors in a structure, in order."""
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, keras.KerasTensor)]


def substitute(structure, tensors):
    """The structure with each KerasTensor replaced by what `{id(tensor): value}` says."""
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
