"""Does the model's confidence match how often it is right? Binned calibration errors, as functions and Keras metrics.

Bins are of equal width and closed on the left: value v belongs to bin floor(v * num_bins), computed in float64, and the
last bin also holds 1. Empty bins contribute nothing. Everything streams: `bin_totals` of batches may be added up.

Example:
    >>> from tfprune import metrics
    >>> round(metrics.ece([[0.9, 0.1], [0.6, 0.4]], [0, 1]), 6)
    0.35
    >>> model.compile(loss="sparse_categorical_crossentropy", metrics=[metrics.ExpectedCalibrationError()])
"""

import keras
import numpy as np
from keras import ops

from tfprune.metrics.scores import class_indices, entropy, probability_columns
from tfprune.metrics.streaming import ClassificationMetric

# --- NumPy ------------------------------------------------------------------------------------------------------------


def ece(probabilities, labels, num_bins=15):
    """Expected calibration error of the predicted class: mean over samples of |accuracy - confidence| of their bin.

    Args:
        probabilities: (samples, classes), or one column for a sigmoid.
        labels: integers (samples,) or one-hot (samples, classes).
        num_bins: number of equal-width bins.

    Raises:
        ValueError: for labels out of range, empty arrays, or values outside [0, 1].

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """
    confidence, correct = confidence_and_correctness(probabilities, labels)
    return calibration_error(bin_totals(confidence, correct, num_bins))


def uce(probabilities, labels, num_bins=15):
    """Uncertainty calibration error: mean over samples of |error rate - normalised entropy| of their bin.

    The entropy is divided by log(classes). Read it beside `ece`: a calibrated model's error rate is not its normalised
    entropy, so this number is not 0 for a perfectly calibrated model and can favour an over-confident one.

    Args and errors as for `ece`.

    Source: Laves et al., "Well-calibrated Model Uncertainty with Temperature Scaling for Dropout Variational
    Inference", 2019. (Their code drops samples of entropy exactly 0; here they are in the first bin.)
    """
    uncertainty, wrong = uncertainty_and_error(probabilities, labels)
    return calibration_error(bin_totals(uncertainty, wrong, num_bins))


def reliability_table(probabilities, labels, num_bins=15):
    """The numbers of a reliability diagram, one entry per bin.

    Args and errors as for `ece`.

    Returns:
        {"count": [int], "confidence": [mean], "accuracy": [mean]}, the means None where a bin is empty.
    """
    confidence, correct = confidence_and_correctness(probabilities, labels)
    return table_of(bin_totals(confidence, correct, num_bins))


def bin_index(values, num_bins):
    """Bin of each value in [0, 1], int64: floor(value * num_bins), with 1.0 in the last bin."""
    # In float64, and never by searching a float32 list of edges: the edge 0.9 of ten bins would round the other way.
    index = np.floor(np.asarray(values, dtype=np.float64) * num_bins).astype(np.int64)
    return np.minimum(index, num_bins - 1)


def bin_totals(values, targets, num_bins=15):
    """Per bin of `values`: how many, their sum, and the sum of `targets`; shape (3, num_bins). Add them over batches.

    Args:
        values: (samples,) in [0, 1], such as confidences.
        targets: (samples,) what they should equal on average, such as 0/1 correctness.
        num_bins: number of equal-width bins, at least 1.
    """
    values, targets = np.asarray(values, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    check_num_bins(num_bins)
    if values.shape != targets.shape or values.ndim != 1:
        raise ValueError(f"values and targets must be 1-D of one length. Received: {values.shape}, {targets.shape}.")
    if not np.all((values >= 0) & (values <= 1)):  # written so that NaN fails too
        raise ValueError(f"Binned values must be in [0, 1]. Received: values from {values.min()} to {values.max()}.")
    index = bin_index(values, num_bins)
    return np.stack(
        [np.bincount(index, weights=w, minlength=num_bins) for w in (np.ones_like(values), values, targets)]
    )


def calibration_error(totals):
    """Sum over bins of (count / samples) * |mean target - mean value|, from `bin_totals`."""
    count, value, target = totals
    if not count.sum():
        raise ValueError("A calibration error needs at least one sample. Received: none.")
    return float(np.abs(target - value).sum() / count.sum())


def table_of(totals):
    """`reliability_table` from `bin_totals`."""
    count, value, target = (row.tolist() for row in totals)

    def mean(sums):
        return [s / n if n else None for s, n in zip(sums, count, strict=True)]

    return {"count": [int(n) for n in count], "confidence": mean(value), "accuracy": mean(target)}


def confidence_and_correctness(probabilities, labels):
    """Largest probability of each sample, and 1.0 where its class (the first on ties) is the label, else 0.0."""
    probabilities = probability_columns(probabilities)
    correct = probabilities.argmax(axis=1) == class_indices(labels, probabilities.shape[1])
    return probabilities.max(axis=1), correct.astype(np.float64)


def uncertainty_and_error(probabilities, labels):
    """Entropy of each sample over log(classes), clipped to [0, 1], and 1.0 where the predicted class is wrong."""
    probabilities = probability_columns(probabilities)
    uncertainty = np.clip(entropy(probabilities) / np.log(probabilities.shape[1]), 0.0, 1.0)
    return uncertainty, 1.0 - confidence_and_correctness(probabilities, labels)[1]


def check_num_bins(num_bins):
    """Raises ValueError unless `num_bins` is a whole number of at least 1."""
    if isinstance(num_bins, bool) or not isinstance(num_bins, (int, np.integer)) or num_bins < 1:
        raise ValueError(f"num_bins must be an integer of at least 1. Received: num_bins={num_bins!r}.")


# --- Keras ------------------------------------------------------------------------------------------------------------


class _BinnedError(ClassificationMetric):
    """Streams `bin_totals`; a subclass says what is binned against what."""

    def __init__(self, num_bins=15, from_logits=False, name=None, dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        check_num_bins(num_bins)
        self.num_bins = num_bins
        self.totals = self.add_sums((3, num_bins), "totals")

    def values_and_targets(self, batch):
        raise NotImplementedError

    def add_batch(self, batch):
        """Adds to each bin: the weights, and the weighted sums of values and targets."""
        values, targets = self.values_and_targets(batch)
        index = ops.minimum(ops.cast(ops.floor(values * self.num_bins), "int32"), self.num_bins - 1)
        members = ops.one_hot(index, self.num_bins, dtype="float64")
        weight = batch.weight
        self.totals.assign_add(ops.matmul(ops.stack([weight, weight * values, weight * targets]), members))

    def value(self):
        """The calibration error."""
        count, value, target = ops.unstack(ops.convert_to_tensor(self.totals), 3)
        return ops.divide_no_nan(ops.sum(ops.absolute(target - value)), ops.sum(count))

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "num_bins": self.num_bins}


@keras.saving.register_keras_serializable("tfprune")
class ExpectedCalibrationError(_BinnedError):
    """Expected calibration error of the predicted class, usable in `model.compile(metrics=[...])`.

    The mean over samples of |accuracy - confidence| of their bin; see `tfprune.metrics.ece`.

    Args:
        num_bins: number of equal-width bins.
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Example:
        >>> metric = ExpectedCalibrationError()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 6)
        0.35

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """

    def __init__(self, num_bins=15, from_logits=False, name="ece", dtype=None):
        super().__init__(num_bins=num_bins, from_logits=from_logits, name=name, dtype=dtype)

    def values_and_targets(self, batch):
        """Confidence and correctness."""
        return batch.confidence, batch.correct


@keras.saving.register_keras_serializable("tfprune")
class UncertaintyCalibrationError(_BinnedError):
    """Uncertainty calibration error (entropy against error rate), usable in `model.compile(metrics=[...])`.

    See `tfprune.metrics.uce` for what it is and for its caveat: it is not 0 for a calibrated model.

    Args:
        num_bins: number of equal-width bins.
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Laves et al., "Well-calibrated Model Uncertainty with Temperature Scaling for Dropout Variational
    Inference", 2019.
    """

    def __init__(self, num_bins=15, from_logits=False, name="uce", dtype=None):
        super().__init__(num_bins=num_bins, from_logits=from_logits, name=name, dtype=dtype)

    def values_and_targets(self, batch):
        """Normalised entropy and error."""
        return ops.clip(batch.entropy / np.log(batch.num_classes), 0.0, 1.0), 1.0 - batch.correct
