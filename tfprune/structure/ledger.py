"""How many parameters, bytes and multiply-adds does a model keep, for any choice of units, without building it?

A weight's size is the product of its axes, and the graph says which units each axis counts: what is left of it is a
product of smaller numbers. A kernel is multiplied with so often per example, whatever is pruned; so the multiply-adds
are a sum of such products too. `tfprune.structure.cost` has the rules. What is found here must add up to what they
say of the whole model; where it does not, the multiply-adds are not known.
"""

import math

import keras
import numpy as np

from tfprune.structure.cost import cost_table
from tfprune.structure.roles import part, role_of, unwrap


class Ledger:
    """Counts a model's parameters, bytes and multiply-adds for any choice of units, in closed form.

    Args:
        graph: A `tfprune.structure.groups.ChannelGraph`.

    Example:
        >>> ledger = Ledger(graph)
        >>> ledger.parameters(ledger.counts(keep))      # keep: bool array over unit numbers
    """

    def __init__(self, graph):
        self._axes = []  # of all products, one after another: unit numbers, or a size that never changes
        self._starts = []  # where the axes of each product start
        self._once = []  # 1 where a product is the size of a variable that is met for the first time, else 0
        self._times = []  # how many multiply-adds each unit of a product stands for
        self._bytes = []  # how many bytes each unit of a product takes up; 0 where it was met before
        self._known = True
        calls, met = {}, set()
        for call in graph.trace.calls:
            calls.setdefault(graph.trace.names[id(call.op)], []).append(call)
        for row in cost_table(graph.trace):
            self._add_layer(graph, calls[row["name"]], row, met)

    def counts(self, keep):
        """Places that each axis keeps, given a bool array over unit numbers."""
        return np.array([axis if isinstance(axis, int) else np.count_nonzero(keep[axis]) for axis in self._axes])

    def places(self, cause, size):
        """Places of each axis by cause: `cause` has a number below `size` for every unit; fixed sizes have cause 0."""
        found = np.zeros((len(self._axes), size), np.int64)
        for row, axis in zip(found, self._axes, strict=True):
            if isinstance(axis, int):
                row[0] = axis
            else:
                row += np.bincount(cause[axis], minlength=size)
        return found

    def parameters(self, counts):
        """Number of parameters, given the places that each axis keeps (one column a case)."""
        return np.array(self._once) @ self._products(counts)

    def bytes(self, counts):
        """Bytes of the parameters, given the places that each axis keeps (one column a case)."""
        return np.array(self._bytes) @ self._products(counts)

    def multiply_adds(self, counts):
        """Multiply-adds per example, given the places that each axis keeps; None where they are not known."""
        return np.array(self._times) @ self._products(counts) if self._known else None

    def _products(self, counts):
        return np.multiply.reduceat(counts, self._starts, axis=0)

    def _add_layer(self, graph, calls, row, met):
        layer, name = unwrap(calls[0].op), row["name"]
        weights = layer.weights if isinstance(layer, keras.Layer) else []
        axes = {id(part(layer, path)): units for path, units in graph.axes(name).items()}
        times, others = _work(graph, name, layer, calls, row["multiply_adds"])
        for weight in weights:
            units = axes.get(id(weight), [None] * len(weight.shape))
            self._add(weight.shape, units, int(id(weight) not in met), times.get(id(weight), 0), weight.dtype)
            met.add(id(weight))
        for count, shape, units in others:
            self._add(shape, units, 0, count)
        found = sum(times.get(id(weight), 0) * math.prod(weight.shape) for weight in weights)
        found += sum(count * math.prod(shape) for count, shape, _ in others)
        self._known = self._known and found == row["multiply_adds"]

    def _add(self, shape, units, once, times, dtype="float32"):
        import tensorflow as tf

        fixed = math.prod(size for size, counted in zip(shape, units, strict=True) if counted is None)
        self._starts.append(len(self._axes))
        self._axes += [fixed, *(counted for counted in units if counted is not None)]
        self._once.append(once)
        self._times.append(times)
        self._bytes.append(once * tf.as_dtype(dtype).size)


def _work(graph, name, layer, calls, multiply_adds):
    """`({id(kernel): how often it is multiplied with}, [(how often, shape, units of each axis)])` of a layer."""
    axes = graph.axes(name)
    if not multiply_adds:
        return {}, []
    if role_of(layer) is None:  # all that it touches is frozen
        return {}, [(multiply_adds, (), [])]
    if "_query_dense.kernel" in axes:
        return _attention_work(axes, layer, calls)
    kernels = [part(layer, path) for path in axes if path.endswith(("kernel", "embeddings"))]
    work = sum(math.prod(kernel.shape) for kernel in kernels)
    return {id(kernel): multiply_adds // work for kernel in kernels}, []


def _attention_work(axes, layer, calls):
    """Four projections, then queries times keys and weights times values: these lie on the axes of the kernels."""
    steps, others, pairs = 0, 0, 0
    for call in calls:
        queries, values = (math.prod(call.arguments[name].shape[1:-1]) for name in ("query", "value"))
        steps, others, pairs = steps + queries, others + values, pairs + queries * values
    names = {"query": steps, "key": others, "value": others, "output": steps}
    times = {id(part(layer, f"_{name}_dense.kernel")): count for name, count in names.items()}
    head, size = axes["_query_dense.kernel"][1:]
    shape = layer._query_dense.kernel.shape[1:]
    value_size, value_shape = axes["_value_dense.kernel"][2], layer._value_dense.kernel.shape[2]
    return times, [(pairs, shape, [head, size]), (pairs, (shape[0], value_shape), [head, value_size])]
