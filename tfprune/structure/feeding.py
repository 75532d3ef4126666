"""Which batches of inputs does a model read from arrays or from a data set? Labels are left aside."""

import keras
import numpy as np


def feed(data, inputs, what, batch_size=64):
    """Yields batches of inputs, as NumPy arrays or tensors in the structure of the model's inputs.

    Args:
        data: Arrays of inputs, `(inputs, labels)`, or a `tf.data.Dataset` of either, batched or not.
        inputs: Structure of KerasTensors that says what the model takes, as `Trace.inputs`.
        what: What to call the data in an error.
        batch_size: Samples at a time, where the data are not batched. Default 64.

    Raises:
        TypeError: The data are neither arrays nor a data set.
        ValueError: They do not fit the model, never end, or hold no sample.
    """
    import tensorflow as tf

    batches = _of_dataset(data, inputs, what, batch_size) if isinstance(data, tf.data.Dataset) else None
    empty = True
    for x in batches or _of_arrays(data, inputs, what, batch_size):
        empty = False
        yield keras.tree.pack_sequence_as(inputs, x)
    if empty:
        raise ValueError(f"{what} must hold at least one sample. Received: data without any.")


def _of_dataset(data, inputs, what, batch_size):
    if data.cardinality() == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError(f"{what} never ends (repeat without a count?). Pass it without repeat(), or take(n) of it.")
    expected = keras.tree.flatten(inputs)
    leaves = _leaves(data.element_spec, inputs, what)
    if leaves[0].shape.rank == len(expected[0].shape) - 1:
        data = data.batch(batch_size)
    for element in data:
        x = _leaves(element, inputs, what)
        _check(x, expected, what)
        yield x


def _of_arrays(data, inputs, what, batch_size):
    expected = keras.tree.flatten(inputs)
    x = [np.asarray(leaf) for leaf in _leaves(data, inputs, what)]
    if any(leaf.dtype == object for leaf in x):
        raise TypeError(f"{what} must be arrays of numbers or a tf.data.Dataset. Received: {type(data).__name__}.")
    _check(x, expected, what)
    for start in range(0, len(x[0]), batch_size):
        yield [leaf[start : start + batch_size] for leaf in x]


def _leaves(data, inputs, what):
    """The model's inputs of an element, in order; labels behind them are left out."""
    expected = keras.tree.flatten(inputs)
    for x in (data, data[0] if isinstance(data, tuple | list) and len(data) else None):
        if isinstance(x, dict) and not isinstance(inputs, dict) and {tensor.name for tensor in expected} <= set(x):
            return [x[tensor.name] for tensor in expected]
        leaves = keras.tree.flatten(x)
        if len(leaves) == len(expected):
            return leaves
    raise ValueError(
        f"{what} must give the {len(expected)} inputs of the model. Received: {len(keras.tree.flatten(data))} parts."
    )


def _check(x, expected, what):
    for leaf, tensor in zip(x, expected, strict=True):
        given = tuple(leaf.shape)
        fits = len(given) == len(tensor.shape) and all(
            want in (None, have) for have, want in zip(given[1:], tensor.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(f"{what} must have the shape {tensor.shape} that the model takes. Received: {given}.")
