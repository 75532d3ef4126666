"""How good are the predicted probabilities? Accuracy and the proper scoring rules, in float64 NumPy.

Shapes: `probabilities` and `logits` are (samples, classes); a single sigmoid output, (samples,) or (samples, 1), is
read as two classes. `labels` are integers (samples,) or (samples, 1), or one-hot (samples, classes). All logarithms
are natural. Every function returns a plain float unless it says otherwise.

Example:
    >>> from tfprune import metrics
    >>> metrics.brier([[0.8, 0.2], [0.4, 0.6]], [0, 0])
    0.4
"""

import numpy as np


def log_softmax(logits):
    """Logarithm of the softmax of each row, (samples, classes); exact even where the softmax saturates at 1."""
    logits = logit_columns(logits)
    shifted = logits - logits.max(axis=1, keepdims=True)
    others = np.exp(shifted)
    # The largest term is exactly 1. Left out of the sum, what remains may be as small as 1e-300 and still counts.
    np.put_along_axis(others, logits.argmax(axis=1)[:, None], 0.0, axis=1)
    return shifted - np.log1p(others.sum(axis=1, keepdims=True))


def softmax(logits):
    """Softmax of each row, (samples, classes)."""
    return np.exp(log_softmax(logits))


def accuracy(scores, labels):
    """Share of samples whose largest score (logit or probability; the first one on ties) is at the label.

    A single column is read as the *probability* of class 1: pass `logit_columns(logits)` for a single logit.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim == 1 or scores.shape[-1] == 1:
        scores = probability_columns(scores)
    return float(np.mean(scores.argmax(axis=1) == class_indices(labels, scores.shape[1])))


def mean_confidence(probabilities):
    """Mean of the largest probability of each sample."""
    return float(np.mean(probability_columns(probabilities).max(axis=1)))


def nll(logits, labels):
    """Negative log-likelihood, mean of -log p(label), from logits: never clipped, finite for finite logits.

    Source: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", 2007.

    Example:
        >>> round(nll([[0.0, 0.0]], [1]), 6)
        0.693147
    """
    log_probabilities = log_softmax(logits)
    labels = class_indices(labels, log_probabilities.shape[1])
    return float(-np.mean(np.take_along_axis(log_probabilities, labels[:, None], axis=1)))


def brier(probabilities, labels):
    """Brier score, mean of the squared distance to the one-hot label summed over classes: 0 is perfect, 2 is worst.

    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950.
    """
    probabilities = probability_columns(probabilities)
    labels = class_indices(labels, probabilities.shape[1])
    return float(np.mean(np.sum((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2, axis=1)))


def entropy(probabilities):
    """Entropy of each row in nats, (samples,), with 0 log 0 = 0."""
    p = probability_columns(probabilities)
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=1)


def probability_columns(probabilities):
    """Probabilities as float64 (samples, classes); one column p, the probability of class 1, becomes [1 - p, p]."""
    p = _matrix(probabilities, "probabilities")
    if not np.all((p >= -1e-6) & (p <= 1 + 1e-6)):  # written so that NaN fails too
        raise ValueError(f"Probabilities must be in [0, 1]. Received: values from {p.min()} to {p.max()}. Logits?")
    p = np.clip(p, 0.0, 1.0)  # a float32 softmax may exceed 1 by a rounding error
    return np.concatenate([1.0 - p, p], axis=1) if p.shape[1] == 1 else p


def logit_columns(logits):
    """Logits as float64 (samples, classes); one column z, the logit of class 1, becomes [0, z]."""
    z = _matrix(logits, "logits")
    return np.concatenate([np.zeros_like(z), z], axis=1) if z.shape[1] == 1 else z


def class_indices(labels, num_classes):
    """Labels as integers (samples,), from integers or one-hot rows.

    Args:
        labels: (samples,) or (samples, 1) integers (whole floats will do), or one-hot (samples, num_classes).
        num_classes: how many classes there are; every label must be in [0, num_classes).

    Raises:
        ValueError: if the labels are soft, not whole numbers, out of range or of another shape.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"Labels must be integers or one-hot rows. Received: labels of dtype {labels.dtype}.")
    if labels.ndim == 2 and labels.shape[1] == num_classes and num_classes > 1:
        return _from_one_hot(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            f"Labels must be integers of shape (samples,) or one-hot rows of shape (samples, {num_classes}). "
            f"Received: labels of shape {labels.shape}."
        )
    if labels.dtype.kind == "f" and not np.all(labels == np.floor(labels)):  # also refuses NaN
        raise ValueError(
            f"Class labels must be whole numbers. Received: {labels[labels != np.floor(labels)][0]}. "
            "Regression targets cannot be scored here."
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(
            f"Labels must be in [0, {num_classes}), the number of classes the model predicts. "
            f"Received: labels from {labels.min()} to {labels.max()}."
        )
    return labels.astype(np.int64)


def _from_one_hot(labels):
    is_one_hot = np.all((labels == 0) | (labels == 1)) and np.all(labels.sum(axis=1) == 1)
    if not is_one_hot:
        raise ValueError(
            "One-hot labels must hold a single 1 per row and 0 elsewhere. Received: rows that do not "
            "(soft or multi-label targets?). Pass labels.argmax(axis=1) if the largest entry is the class."
        )
    return labels.argmax(axis=1)


def _matrix(values, name):
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{name} must be a non-empty array (samples, classes). Received: shape {values.shape}.")
    return values
