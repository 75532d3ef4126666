"""Which weights does a model hold, by name, and are they those of another model?

Keras numbers layers without a name as they come ("dense", "dense_1" ...), so that the same network gets other names in
another process, or when it is built a second time. Where names differ in these numbers only, they mean the same layers,
in the order of their numbers.
"""

import hashlib
import re
from collections import Counter

import keras
import numpy as np

from tfprune.structure import roles
from tfprune.structure.replay import finish_weights, value_of
from tfprune.structure.trace import trace


def layers_of(model):
    """`{name: layer}` of a model, nested models flattened."""
    traced = trace(model)
    return {traced.names[id(op)]: op for op in traced.operations}


def named_weights(layers):
    """`{"layer/index": variable}` of layers by name, without masks and without the state of random generators."""
    return {
        f"{name}/{index}": weight
        for name, layer in layers.items()
        if isinstance(layer, keras.Layer)
        for index, weight in enumerate(roles.unwrap(layer).weights)
    }


def read_weights(layers, snapshot=None):
    """`{"layer/index": array}`: the weights as they are now, or as a `rewind.Snapshot` remembers them."""
    known = {id(variable): value for variable, value in snapshot.values} if snapshot else {}
    return {
        name: _plain(known[id(weight)] if id(weight) in known else value_of(weight))
        for name, weight in named_weights(layers).items()
    }


def write_weights(layers, values, source, target):
    """Gives layers the values that `read_weights` took from layers of the same names and shapes.

    Args:
        layers: `{name: layer}`.
        values: `{"layer/index": array}`.
        source: Where the values come from, for the error; as is
        target: whose layers they are.

    Raises:
        ValueError: names or shapes differ; it says the first that does.
    """
    weights = named_weights(layers)
    names = pair_names(values, weights, "Weight", source, target)
    for name, value in values.items():
        shape = tuple(weights[names[name]].shape)
        if shape != value.shape:
            raise ValueError(f"Weight '{names[name]}' has shape {shape} in {target}, {value.shape} in {source}.")
    for name, value in values.items():
        weights[names[name]].assign(value)
    for layer in layers.values():
        finish_weights(roles.unwrap(layer))


def fingerprint(values):
    """SHA-256 over names (without the numbers that Keras gives), dtypes, shapes and bytes of `read_weights`."""
    found = hashlib.sha256()
    for name in sorted(values, key=_order):
        value = np.ascontiguousarray(values[name])
        found.update(f"{_unnumbered(name)} {value.dtype.name} {value.shape}\n".encode())
        found.update(value.astype(value.dtype.newbyteorder("<"), copy=False).data)
    return found.hexdigest()


def pair_names(ours, theirs, what, at_home, abroad):
    """`{name of ours: name of theirs}` of the layers or weights that mean the same.

    Args:
        ours: Names.
        theirs: Names.
        what: What they are the names of, for the error; as are
        at_home: whose names ours are, and
        abroad: whose names theirs are.

    Raises:
        ValueError: a name has no counterpart; it says the first that has none.
    """
    if set(ours) == set(theirs):
        return {name: name for name in ours}
    first, second = sorted(ours, key=_order), sorted(theirs, key=_order)
    if list(map(_unnumbered, first)) == list(map(_unnumbered, second)):
        return dict(zip(first, second, strict=True))
    if alone := _without_counterpart(ours, theirs):
        raise ValueError(f"{what} '{alone}' of {at_home} is missing in {abroad}.")
    raise ValueError(f"{what} '{_without_counterpart(theirs, ours)}' of {abroad} is missing in {at_home}.")


def _without_counterpart(names, others):
    left = Counter(map(_unnumbered, others))
    for name in names:
        left[_unnumbered(name)] -= 1
        if left[_unnumbered(name)] < 0:
            return name
    return None


def _order(name):
    return _unnumbered(name), [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _unnumbered(name):
    return re.sub(r"_\d+(?=[./:]|$)", "", name)


def _plain(value):
    """A value in a dtype that every NumPy knows; float32 holds all that the smaller floats can."""
    return value if value.dtype.kind in "biuf" else value.astype("float32")
