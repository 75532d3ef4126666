"""In which parts is a model run, and which probabilities does it give?"""

import keras
import numpy as np

from tfprune.metrics.scores import probability_columns, softmax

BATCH_SIZE = 256


def arrays_of(x, model):
    """The inputs as NumPy arrays: one array, or a structure of such where the model takes several."""
    is_list = isinstance(x, list | tuple) and len(getattr(model, "inputs", None) or [0]) == 1
    return np.asarray(x) if is_list else keras.tree.map_structure(np.asarray, x)


def parts(x, size=BATCH_SIZE):
    """Yields the inputs in parts of `size` samples.

    Raises:
        ValueError: for arrays without samples, or of different lengths.
    """
    lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in keras.tree.flatten(x)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"Expected arrays of at least one sample and equal length. Received: lengths {sorted(lengths)}."
        )
    for start in range(0, lengths.pop(), size):
        yield keras.tree.map_structure(lambda leaf, start=start: leaf[start : start + size], x)


def probabilities_of(outputs, is_logits, what):
    """What a model gave as float64 probabilities (..., classes); one column is class 1 of two.

    Args:
        outputs: (..., columns), logits or probabilities.
        is_logits: which of the two.
        what: what to call the model in an error.

    Raises:
        ValueError: for NaN or infinity, or probabilities that do not sum to 1.
    """
    outputs = np.asarray(outputs)
    rows = outputs.astype(np.float64).reshape(-1, outputs.shape[-1])
    if not np.all(np.isfinite(rows)):
        raise ValueError(f"The outputs of {what} hold NaN or infinity. Did its training diverge? Is its input scaled?")
    if is_logits:
        columns = softmax(rows)
    else:
        columns = probability_columns(rows)
        sums = columns.sum(axis=1, keepdims=True)
        if np.abs(sums - 1).max() > 2e-2:  # half precision holds two to three digits
            raise ValueError(
                f"{what} must give probabilities whose rows sum to 1. Received: sums from {sums.min():.4g} to "
                f"{sums.max():.4g}. If these are logits, pass from_logits=True."
            )
        columns = columns / sums
    return columns.reshape(*outputs.shape[:-1], columns.shape[1])
