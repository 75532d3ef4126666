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
        ValueError: A split is no pair of an input and as many labels, is empty, does not fit `input_shape` or
            `num_classes`, or holds NaN or infinite numbers, as may an OOD set.

    Example:

    >>> checked(tfprune.datasets.moons()).num_classes
    2
    """
    if _KNOWN[0] is not data:
        found = {name: _split(data, name, getattr(data, name)) for name in _SPLITS}
        for name, strangers in data.ood.items():
            if isinstance(strangers, np.ndarray):
                _check_finite(f"The OOD set {name!r} of the data set {data.name!r}", strangers)
        changed = {name: pair for name, pair in found.items() if pair is not getattr(data, name)}
        _KNOWN[:] = [data, dataclasses.replace(data, **changed) if changed else data]
    return _KNOWN[1]


_KNOWN = [None, None]  # the last one: every trial asks


def _split(data, name, pair):
    what = f"The {name} split of the data set {data.name!r}"
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        received = f"{len(pair)} parts" if isinstance(pair, tuple | list) else type(pair).__name__
        raise ValueError(f"{what} must be a pair (x, y): a study uses no sample weights. Received: {received}.")
    x, y = _array(what, pair[0]), _array(what, pair[1], "" if data.num_classes is None else _ENCODE)
    if not len(x) or len(x) != len(y):
        raise ValueError(f"{what} must hold at least one example, and a label for each. Received: {len(x)} examples, "
                         f"{len(y)} labels.")  # fmt: skip
    if tuple(x.shape[1:]) != tuple(data.input_shape):
        raise ValueError(
            f"{what} has examples of shape {x.shape[1:]}. Expected: {tuple(data.input_shape)}, the input_shape that "
            "the data set names."
        )
    _check_finite(what, x)
    if data.num_classes is not None:
        y = _classes(what, y, data.num_classes)
    elif y.dtype.kind not in "iuf" or y.ndim > 2 or not np.isfinite(y).all():
        raise ValueError(
            f"{what} must hold finite numbers to predict, (samples,) or (samples, targets). Received: {y.dtype} of "
            f"shape {y.shape}. Name num_classes where these are classes."
        )
    return pair if x is pair[0] and y is pair[1] else (x, y)


# Encoded split by split, a class that one of them lacks would shift the numbers of those after it.
_ENCODE = " Encode class labels as integers, those of all splits at once: np.unique(y, return_inverse=True)[1]."


def _check_finite(what, x):
    """One such number makes the training's loss NaN, or ends a trial after its training where it is measured on."""
    odd = np.count_nonzero(~np.isfinite(x)) if x.dtype.kind == "f" else 0
    if odd:
        raise ValueError(
            f"{what} must hold finite inputs. Received: {odd:,} of {x.size:,} values that are NaN or infinite. Leave "
            "these examples out, or fill in what is missing."
        )


def _array(what, part, hint=""):
    if isinstance(part, dict):
        raise ValueError(f"{what} must hold one array of inputs. Received: a dict of {', '.join(map(str, part))}.")
    try:
        array = np.asarray(part)
    except ValueError as error:
        raise ValueError(f"{what} must hold arrays. Received: rows of different lengths.") from error
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise ValueError(f"{what} must hold arrays of numbers. Received: {array.dtype} of shape {array.shape}.{hint}")
    return array


def _classes(what, y, num_classes):
    try:
        classes = class_indices(y, num_classes)
    except ValueError as error:
        raise ValueError(f"{what}, of {num_classes} classes: {error}") from error
    return y if y.ndim == 1 and y.dtype.kind in "iu" else classes.astype("int32")
