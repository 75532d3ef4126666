"""How is a traced model, or a part of it, run on numbers?

What is run are the layers of the model itself, so later changes of their weights are seen.
"""

import inspect as python_inspect

import keras


def given(traced, x):
    """`{id of a KerasTensor: value}` of a model's inputs, in the dtype and rank that the model declares.

    Args:
        traced: the model's `Trace`.
        x: its inputs, tensors or arrays, in the structure the model takes or as a dict by input name.
    """
    expected = keras.tree.flatten(traced.inputs)
    if isinstance(x, dict) and not isinstance(traced.inputs, dict):
        leaves = [x[tensor.name] for tensor in expected]
    else:
        leaves = keras.tree.flatten(x)
    if len(leaves) != len(expected):
        raise ValueError(f"Model '{traced.name}' takes {len(expected)} inputs. Received: {len(leaves)}.")
    return {id(tensor): _as_declared(leaf, tensor) for tensor, leaf in zip(expected, leaves, strict=True)}


def _as_declared(value, tensor):
    value = keras.ops.convert_to_tensor(value, dtype=tensor.dtype)
    # Keras itself reads (samples,) as (samples, 1).
    missing_axis = len(value.shape) == len(tensor.shape) - 1 and tensor.shape[-1] == 1
    return keras.ops.expand_dims(value, -1) if missing_axis else value


def run(calls, tensors, training=False):
    """Runs calls in their order and adds what they give to `tensors`; returns `tensors`.

    Args:
        calls: list of `Call`.
        tensors: `{id of a KerasTensor: value}`, changed in place.
        training: the mode of layers that have one. As in `model.predict`, it goes before a mode that the model was
            built with: Keras notes defaults there, which for random augmentation say True.
    """
    for call in calls:
        args, kwargs = keras.tree.map_structure(lambda leaf: tensors.get(id(leaf), leaf), (call.args, call.kwargs))
        if has_mode(call.op):
            kwargs = {**kwargs, "training": training}
        results = [leaf for leaf in keras.tree.flatten(call.op(*args, **kwargs)) if leaf is not None]
        tensors.update(zip(map(id, call.output_tensors), results, strict=True))
    return tensors


def has_mode(op):
    """Whether an operation may be told if it is training."""
    return isinstance(op, keras.Layer) and "training" in python_inspect.signature(op.call).parameters
