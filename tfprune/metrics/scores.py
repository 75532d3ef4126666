"""How good are the predicted probabilities? Accuracy and the proper scoring rules, as functions and Keras metrics.

Shapes: `probabilities` and `logits` are (samples, classes); a single sigmoid output, (samples,) or (samples, 1), is
read as two classes. `labels` are integers (samples,) or (samples, 1), or one-hot (samples, classes). All logarithms
are natural. Every function computes in float64 and returns a plain float unless it says otherwise. The Keras metrics
keep float64 sums; a label that is no class makes them NaN, unless its weight is 0.

Example:
    >>> from tfprune import metrics
    >>> round(metrics.brier([[0.8, 0.2], [0.4, 0.6]], [0, 0]), 6)
    0.4
"""

import keras
import numpy as np
from keras import ops

from tfprune.metrics.streaming import Batch, ClassificationMetric

# --- NumPy ------------------------------------------------------------------------------------------------------------


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


def mutual_information(samples):
    """What the samples of an uncertain model disagree on, in nats, (samples of data,): entropy of their mean, less
    their mean entropy.

    It is 0 where all draws of the model predict the same, however unsure, and log(draws) at most.

    Args:
        samples: probabilities (draws, samples, classes), such as those of an ensemble or of MC dropout; (draws,
            samples, 1) for a sigmoid.

    Raises:
        ValueError: if `samples` has another number of axes, is empty, or holds values outside [0, 1].

    Example:
        >>> mutual_information([[[1.0, 0.0]], [[0.0, 1.0]]]).round(6).tolist()
        [0.693147]

    Source: Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning", 2011.
    """
    samples = np.asarray(samples, dtype=np.float64)
    if samples.ndim != 3 or not samples.size:
        raise ValueError(
            "samples must be a non-empty array of probabilities (draws, samples, classes). "
            f"Received: shape {samples.shape}."
        )
    num_draws, size, num_classes = samples.shape
    rows = probability_columns(samples.reshape(-1, num_classes)).reshape(num_draws, size, -1)
    expected = entropy(rows.reshape(num_draws * size, -1)).reshape(num_draws, size).mean(axis=0)
    return np.maximum(entropy(rows.mean(axis=0)) - expected, 0.0)  # rounding may leave -1e-17


def brier_decomposition(probabilities, labels):
    """Why the Brier score is what it is: its five parts, with samples grouped by their predicted class.

    brier = uncertainty - resolution + reliability + within_bin_variance - 2 * within_bin_covariance, exactly.

    Args:
        probabilities: (samples, classes), or one column for a sigmoid.
        labels: integers (samples,) or one-hot (samples, classes).

    Returns:
        A dict of floats: "uncertainty" of the labels alone, as if nothing were predicted; "resolution", how much the
        groups differ in their labels (larger is better); "reliability", the squared distance of mean prediction and
        mean label of each group (0 is calibrated); "within_bin_variance" of the predictions in a group, and their
        "within_bin_covariance" with the labels (larger is better).

    Raises:
        ValueError: for labels out of range, empty arrays, or values outside [0, 1].

    Source: Murphy, "A New Vector Partition of the Probability Score", 1973; Stephenson et al., "Two Extra Components
    in the Brier Score Decomposition", 2008. (`tfp.stats.brier_decomposition` is another quantity: its resolution
    compares entries of different classes, and its parts do not add up to the score.)

    Example:
        >>> parts = brier_decomposition([[0.8, 0.2], [0.4, 0.6]], [0, 0])
        >>> round(parts["reliability"], 6), round(parts["uncertainty"], 6)
        (0.4, 0.0)
    """
    probabilities = probability_columns(probabilities)
    num_classes = probabilities.shape[1]
    labels, predicted = class_indices(labels, num_classes), probabilities.argmax(axis=1)
    groups = np.zeros((num_classes, num_classes))
    np.add.at(groups, predicted, probabilities)
    confusion = np.bincount(predicted * num_classes + labels, minlength=num_classes**2).reshape(groups.shape)
    at_label = np.take_along_axis(probabilities, labels[:, None], axis=1)
    parts = brier_parts(np, groups, confusion.astype(np.float64), np.sum(probabilities**2), np.sum(at_label))
    return {name: float(value) for name, value in parts.items()}


def brier_parts(xp, groups, confusion, squares, at_label):
    """The parts from sums of samples; `xp` is numpy or keras.ops.

    Args:
        groups: (classes, classes), the probabilities of all samples of each predicted class added up.
        confusion: (classes, classes), how many of each predicted class have each label.
        squares: the sum over all samples and classes of p**2.
        at_label: the sum over all samples of p of the label.
    """
    count = xp.sum(confusion, axis=1, keepdims=True)
    size = xp.maximum(xp.sum(count), 1e-300)
    share, own = count / size, 1.0 / xp.maximum(count, 1e-300)
    predicted, seen, overall = groups * own, confusion * own, xp.sum(confusion, axis=0) / size

    def mean(values):
        return xp.sum(share * values)

    return {
        "uncertainty": mean(xp.ones_like(count)) - xp.sum(overall**2),
        "resolution": mean((seen - overall) ** 2),
        "reliability": mean((predicted - seen) ** 2),
        "within_bin_variance": squares / size - mean(predicted**2),
        "within_bin_covariance": at_label / size - mean(predicted * seen),
    }


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
    if not np.all(np.isfinite(z)):
        raise ValueError(
            f"Logits must be finite. Received: {int(np.sum(~np.isfinite(z)))} that are not. "
            "A class that is ruled out needs a large negative logit, such as -1e4."
        )
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


# --- Keras ------------------------------------------------------------------------------------------------------------


def at_labels(values, labels):
    """The entry of each row (samples, classes) that is at its label, (samples,)."""
    import tensorflow as tf

    labels = ops.clip(labels, 0, values.shape[-1] - 1)  # XLA would clip as well, other devices stop with an error
    return tf.gather(values, labels, batch_dims=1)  # ops.take_along_axis of Keras 3.6 is not for XLA


class _MeanMetric(ClassificationMetric):
    """The weighted mean of one number per sample."""

    def __init__(self, from_logits=False, name=None, dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        self.totals = self.add_sums((2,), "totals")

    def statistic(self, batch):
        """The number to average, (samples,)."""
        raise NotImplementedError

    def sample_weights(self, batch):
        """The weight of each sample, (samples,)."""
        return batch.weight

    def add_batch(self, batch):
        """Adds the weights, and the weighted numbers."""
        self.add_values(self.statistic(batch), self.sample_weights(batch))

    def add_values(self, values, weight):
        """Adds numbers (samples,) and their weights; what weighs 0 stays out, whatever it is."""
        weighted = ops.where(weight == 0, 0.0, weight * values)
        self.totals.assign_add(ops.stack([ops.sum(weight), ops.sum(weighted)]))

    def value(self):
        """The mean."""
        totals = ops.convert_to_tensor(self.totals)
        return ops.divide_no_nan(totals[1], totals[0])


@keras.saving.register_keras_serializable("tfprune")
class NegativeLogLikelihood(_MeanMetric):
    """Mean of -log p(label), usable in `model.compile(metrics=[...])`; see `tfprune.metrics.nll`.

    Args:
        from_logits: whether `y_pred` holds logits rather than probabilities. Prefer logits: a probability that float32
            holds as 0 is read as 1.2e-38, the smallest normal float32.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Example:
        >>> metric = NegativeLogLikelihood(from_logits=True)
        >>> metric.update_state([1], [[0.0, 0.0]])
        >>> round(float(metric.result()), 6)
        0.693147

    Source: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", 2007.
    """

    def __init__(self, from_logits=False, name="nll", dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)

    def statistic(self, batch):
        """-log p(label)."""
        return -at_labels(batch.log_probabilities, batch.labels)


@keras.saving.register_keras_serializable("tfprune")
class BrierScore(_MeanMetric):
    """Mean squared distance of the probabilities to the one-hot label, summed over classes: 0 is perfect, 2 is worst.

    Usable in `model.compile(metrics=[...])`; see `tfprune.metrics.brier`.

    Args:
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Example:
        >>> metric = BrierScore()
        >>> metric.update_state([0, 0], [[0.8, 0.2], [0.4, 0.6]])
        >>> round(float(metric.result()), 6)
        0.4

    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950.
    """

    def __init__(self, from_logits=False, name="brier", dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)

    def statistic(self, batch):
        """The squared distance."""
        p = batch.probabilities
        return ops.sum(ops.square(p), axis=-1) - 2.0 * at_labels(p, batch.labels) + 1.0


@keras.saving.register_keras_serializable("tfprune")
class PredictiveEntropy(_MeanMetric):
    """Mean entropy of the predictions in nats, whatever the labels; see `tfprune.metrics.entropy`.

    Args:
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Example:
        >>> metric = PredictiveEntropy()
        >>> metric.update_state([0], [[0.5, 0.5]])
        >>> round(float(metric.result()), 6)
        0.693147
    """

    def __init__(self, from_logits=False, name="entropy", dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)

    def sample_weights(self, batch):
        """The weights as given: labels have no part in it."""
        return batch.given_weight

    def statistic(self, batch):
        """The entropy."""
        return batch.entropy


@keras.saving.register_keras_serializable("tfprune")
class MutualInformation(_MeanMetric):
    """Mean of what the draws of an uncertain model disagree on, in nats; see `tfprune.metrics.mutual_information`.

    Args:
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Example:
        >>> metric = MutualInformation()
        >>> metric.update_state(None, [[[1.0, 0.0], [0.0, 1.0]]])  # one sample, two draws, two classes
        >>> round(float(metric.result()), 6)
        0.693147

    Source: Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning", 2011.
    """

    def __init__(self, from_logits=False, name="mutual_information", dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch.

        Args:
            y_true: not used, may be None.
            y_pred: probabilities or logits (..., draws, classes) of all draws, such as the members of an ensemble.
            sample_weight: optional, one weight per sample.
        """
        y_pred = ops.convert_to_tensor(y_pred)
        shape = ops.shape(y_pred)
        if len(shape) < 3:
            raise ValueError(
                "MutualInformation needs the predictions of every draw, (batch, draws, classes). "
                f"Received: y_pred of shape {tuple(y_pred.shape)}."
            )
        draws = Batch(ops.zeros(shape[:-1]), y_pred, None, self.from_logits)
        expected = ops.mean(ops.reshape(draws.entropy, (-1, shape[-2])), axis=-1)
        mean = ops.mean(ops.reshape(draws.probabilities, (*shape[:-1], draws.num_classes)), axis=-2)
        pooled = Batch(ops.zeros(shape[:-2]), mean, sample_weight, False)
        self.add_values(ops.maximum(pooled.entropy - expected, 0.0), pooled.given_weight)


@keras.saving.register_keras_serializable("tfprune")
class BrierDecomposition(ClassificationMetric):
    """The parts of the Brier score; the metric is the reliability, `decomposition()` gives all five.

    See `tfprune.metrics.brier_decomposition`. The state is two matrices (classes, classes).

    Args:
        num_classes: number of classes; 2 for a sigmoid.
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Example:
        >>> metric = BrierDecomposition(num_classes=2)
        >>> metric.update_state([0, 0], [[0.8, 0.2], [0.4, 0.6]])
        >>> round(float(metric.result()), 6)
        0.4

    Source: Murphy, "A New Vector Partition of the Probability Score", 1973; Stephenson et al., "Two Extra Components
    in the Brier Score Decomposition", 2008.
    """

    def __init__(self, num_classes, from_logits=False, name="brier_reliability", dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        if isinstance(num_classes, bool) or not isinstance(num_classes, (int, np.integer)) or num_classes < 2:
            raise ValueError(f"num_classes must be an integer of at least 2. Received: num_classes={num_classes!r}.")
        self.num_classes = int(num_classes)
        self.groups = self.add_sums((num_classes, num_classes), "groups")
        self.confusion = self.add_sums((num_classes, num_classes), "confusion")
        self.sums = self.add_sums((2,), "sums")

    def add_batch(self, batch):
        """Adds probabilities and labels to the group of each predicted class."""
        if batch.num_classes != self.num_classes:
            raise ValueError(
                f"Expected predictions of num_classes={self.num_classes} classes. Received: {batch.num_classes}."
            )
        p, weight = batch.probabilities, batch.weight
        weighted = ops.where(weight[:, None] == 0, 0.0, weight[:, None] * p)
        labels = ops.clip(batch.labels, 0, self.num_classes - 1)
        pair = ops.cast(batch.predicted * self.num_classes + labels, "int32")
        pairs = ops.segment_sum(weight, pair, num_segments=self.num_classes**2)
        group = ops.cast(batch.predicted, "int32")
        self.groups.assign_add(ops.segment_sum(weighted, group, num_segments=self.num_classes))
        self.confusion.assign_add(ops.reshape(pairs, self.confusion.shape))
        # Weighted first, so that a NaN which weighs 0 stays out here, too.
        squares = ops.where(weighted == 0, 0.0, weighted * p)
        self.sums.assign_add(ops.stack([ops.sum(squares), ops.sum(at_labels(weighted, labels))]))

    def value(self):
        """The reliability."""
        sums = ops.convert_to_tensor(self.sums)
        groups, confusion = ops.convert_to_tensor(self.groups), ops.convert_to_tensor(self.confusion)
        # A NaN of one class shows whichever classes it meets.
        return brier_parts(ops, groups, confusion, sums[0], sums[1])["reliability"] + 0.0 * sums[0]

    def decomposition(self):
        """All parts as a dict of floats, with the names of `tfprune.metrics.brier_decomposition`; all 0 at first."""
        groups, confusion, sums = (ops.convert_to_numpy(v) for v in (self.groups, self.confusion, self.sums))
        return {name: float(part) for name, part in brier_parts(np, groups, confusion, *sums).items()}

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "num_classes": self.num_classes}
