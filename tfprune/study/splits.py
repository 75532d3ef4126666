"""Are the splits of a data set what a study can train on? If not, it is said before anything is trained."""

import dataclasses

import numpy as np

from tfprune.metrics.scores import class_indices

_SPLITS = ("train", "validation", "test")


def checked(data):
    """Returns the data set with arrays as splits, and classes as integers.

    Args:
        data: A `tfprune.datasets.Dataset`. It is returned itself where nothing has to change.

    Raises:
        ValueError: A split is no pair of an input and as many labels, is empty, or does not fit `input_shape` or
            `num_classes`.

    Example:

    >>> checked(tfprune.datasets.moons()).num_classes
    2
    """
    if _KNOWN[0] is not data:
        found = {name: _split(data, name, getattr(data, name)) for name in _SPLITS}
        changed = {name: pair for name, pair in found.items() if pair is not getattr(data, name)}
        _KNOWN[:] = [data, dataclasses.replace(data, **changed) if changed else data]
    return _KNOWN[1]


_KNOWN = [None, None]  # the last one: every trial asks


def _split(data, name, pair):
    what = f"The {name} split of the data set {data.name!r}"
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        received = f"{len(pair)} parts" if isinstance(pair, tuple | list) else type(pair).__name__
        raise ValueError(f"{what} must be a pair (x, y): a study uses no sample weights. Received: {received}.")
    x, y = (_array(what, part) for part in pair)
    if not len(x) or len(x) != len(y):
        raise ValueError(f"{what} must hold at least one example, and a label for each. Received: {len(x)} examples, "
                         f"{len(y)} labels.")  # fmt: skip
    if tuple(x.shape[1:]) != tuple(data.input_shape):
        raise ValueError(
            f"{what} has examples of shape {x.shape[1:]}. Expected: {tuple(data.input_shape)}, the input_shape that "
            "the data set names."
        )
    if data.num_classes is not None:
        y = _classes(what, y, data.num_classes)
    elif y.dtype.kind not in "iuf" or y.ndim > 2 or not np.isfinite(y).all():
        raise ValueError(
            f"{what} must hold finite numbers to predict, (samples,) or (samples, targets). Received: {y.dtype} of "
            f"shape {y.shape}. Name num_classes where these are classes."
        )
    return pair if x is pair[0] and y is pair[1] else (x, y)


def _array(what, part):
    if isinstance(part, dict):
        raise ValueError(f"{what} must hold one array of inputs. Received: a dict of {', '.join(map(str, part))}.")
    try:
        array = np.asarray(part)
    except ValueError as error:
        raise ValueError(f"{what} must hold arrays. Received: rows of different lengths.") from error
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise ValueError(f"{what} must hold arrays of numbers. Received: {array.dtype} of shape {array.shape}.")
    return array


def _classes(what, y, num_classes):
    try:
        classes = class_indices(y, num_classes)
    except ValueError as error:
        raise ValueError(f"{what}, of {num_classes} classes: {error}") from error
    return y if y.ndim == 1 and y.dtype.kind in "iu" else classes.astype("int32")
