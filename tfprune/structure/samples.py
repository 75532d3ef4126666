"""On which numbers can a model be tried that nobody has given data for?"""

import keras
import numpy as np

KINDS = ("random", "constant", "scaled")


def sample(inputs, kind="random", batch_size=2, seed=0):
    """A batch for each input of a model.

    Args:
        inputs: Structure of KerasTensors, as `Trace.inputs`. Sizes that are not known become 64 for images and 16
            otherwise. Integers become 0 and 1, which index any table.
        kind: "random" (default, standard normal), "constant" (all ones) or "scaled" (normal, 30 times as large).
        batch_size: Samples in the batch. Default 2.
        seed: Integer; the same seed gives the same batch. Default 0.

    Returns:
        The same structure with NumPy arrays.

    Example:
        >>> sample(trace(model).inputs, "constant").shape
        (2, 32, 32, 3)
    """
    random = np.random.default_rng(seed)
    return keras.tree.map_structure(lambda tensor: _values(tensor, kind, batch_size, random), inputs)


def _values(tensor, kind, batch_size, random):
    unknown = 64 if len(tensor.shape) > 3 else 16
    shape = (batch_size, *(size or unknown for size in tensor.shape[1:]))
    if "float" not in tensor.dtype:
        values = np.ones(shape) if kind == "constant" else random.integers(0, 2, shape)
    elif kind == "constant":
        values = np.ones(shape)
    else:
        values = random.normal(size=shape) * (30.0 if kind == "scaled" else 1.0)
    return values.astype("float32" if "float" in tensor.dtype else tensor.dtype)


def run(traced, batch, layer=None):
    """Runs a traced model on numbers, call by call, without building a graph.

    Args:
        traced: A `Trace`.
        batch: Structure of arrays for `traced.inputs`.
        layer: Function `(call, args, kwargs) -> outputs` in place of the call. Default None: just run it.

    Returns:
        `{id(KerasTensor): value}` of all tensors.
    """
    values = dict(zip(map(id, keras.tree.flatten(traced.inputs)), keras.tree.flatten(batch), strict=True))
    values = {key: keras.ops.convert_to_tensor(value) for key, value in values.items()}
    for call in traced.calls:
        args, kwargs = keras.tree.map_structure(
            lambda leaf: values[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf, (call.args, call.kwargs)
        )
        outputs = layer(call, args, kwargs) if layer else call.op(*args, **kwargs)
        found = [leaf for leaf in keras.tree.flatten(outputs) if leaf is not None]
        values.update(zip(map(id, call.output_tensors), found, strict=True))
    return values
