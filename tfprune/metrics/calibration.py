"""Does the model's confidence match how often it is right? Binned calibration errors, as functions and Keras metrics.

Bins are of equal width and closed on the left: value v belongs to bin floor(v * num_bins), computed in float64, and the
last bin also holds 1. Empty bins contribute nothing. Everything streams: `bin_totals` of batches may be added up.

If the model is over-confident in every bin, its ECE is mean confidence - accuracy, however the bins are made: read the
signed `confidence_gap` beside it. And none of them is 0 for a calibrated model: see `tfprune.metrics.noise_floor`.

Example:
    >>> from tfprune import metrics
    >>> round(metrics.ece([[0.9, 0.1], [0.6, 0.4]], [0, 1]), 6)
    0.35
    >>> model.compile(loss="sparse_categorical_crossentropy", metrics=[metrics.ExpectedCalibrationError()])
"""

import keras
import numpy as np
from keras import ops

from tfprune.metrics.bins import (
    NORMS,
    BinnedMetric,
    bin_index,
    bin_totals,
    calibration_error,
    check_choice,
    check_num_bins,
    combine,
    confidence_and_correctness,
    ratio,
    table_of,
    tensor_bin_index,
    unit_interval,
)
from tfprune.metrics.entropy_calibration import UncertaintyCalibrationError, uce, uncertainty_and_error
from tfprune.metrics.floor import FlooredMetric, effective_count, mean_deviation
from tfprune.metrics.scores import at_labels, class_indices, probability_columns
from tfprune.metrics.streaming import ClassificationMetric

__all__ = [
    "AverageCalibrationError",
    "ClasswiseCalibrationError",
    "ConfidenceGap",
    "ExpectedCalibrationError",
    "UncertaintyCalibrationError",
    "average_calibration_error",
    "bin_index",
    "bin_totals",
    "calibration_error",
    "check_num_bins",
    "classwise_ece",
    "confidence_and_correctness",
    "confidence_gap",
    "ece",
    "reliability_table",
    "table_of",
    "uce",
    "uncertainty_and_error",
]

# --- NumPy ------------------------------------------------------------------------------------------------------------


def ece(probabilities, labels, num_bins=15, norm="l1", closed="left"):
    """Expected calibration error of the predicted class: mean over samples of |accuracy - confidence| of their bin.

    Args:
        probabilities: (samples, classes), or one column for a sigmoid.
        labels: integers (samples,) or one-hot (samples, classes).
        num_bins: number of equal-width bins.
        norm: "l1"; "l2", the root of the mean squared difference (RMSCE); or "max", the largest one of any bin (MCE),
            which a single sample in a bin of its own can decide.
        closed: "left" or "right": the bin that a confidence on an edge belongs to is the one above, or the one below.

    Raises:
        ValueError: for labels out of range, empty arrays, values outside [0, 1], or an unknown norm or side.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """
    check_choice("norm", norm, NORMS)
    confidence, correct = confidence_and_correctness(probabilities, labels)
    return calibration_error(bin_totals(confidence, correct, num_bins, closed), norm)


def average_calibration_error(probabilities, labels, num_bins=15):
    """Mean over the bins that hold samples, however few, of |accuracy - confidence|; not Nixon's *adaptive* error.

    Args and errors as for `ece`.

    Source: Neumann et al., "Relaxed Softmax: Efficient Confidence Auto-Calibration for Safe Pedestrian Detection",
    2018. (netcal calls it ACE.)
    """
    confidence, correct = confidence_and_correctness(probabilities, labels)
    return calibration_error(bin_totals(confidence, correct, num_bins), "mean")


def classwise_ece(probabilities, labels, num_bins=15):
    """Static calibration error: the ECE of each class' probability against its frequency, averaged over classes.

    Args and errors as for `ece`. Every class counts equally, and all samples count for every class.

    Source: Nixon et al., "Measuring Calibration in Deep Learning", 2019 (SCE); Kull et al., "Beyond temperature
    scaling: Obtaining well-calibrated multi-class probabilities with Dirichlet calibration", 2019 (classwise ECE).
    """
    probabilities = probability_columns(probabilities)
    labels = class_indices(labels, probabilities.shape[1])
    columns = ((column, labels == k) for k, column in enumerate(probabilities.T))
    return float(np.mean([calibration_error(bin_totals(*pair, num_bins)) for pair in columns]))


def confidence_gap(probabilities, labels):
    """Mean confidence - accuracy: positive where the model is over-confident, negative where it is under-confident.

    Its mean is 0 for a calibrated model, so it needs no noise floor.

    Args:
        probabilities: (samples, classes), or one column for a sigmoid.
        labels: integers (samples,) or one-hot (samples, classes).

    Raises:
        ValueError: for labels out of range, empty arrays, or values outside [0, 1].

    Example:
        >>> round(confidence_gap([[0.9, 0.1], [0.6, 0.4]], [0, 1]), 6)
        0.25
    """
    confidence, correct = confidence_and_correctness(probabilities, labels)
    return float(np.mean(confidence - correct))


def reliability_table(probabilities, labels, num_bins=15):
    """The numbers of a reliability diagram, one entry per bin.

    Args and errors as for `ece`.

    Returns:
        {"count": [int], "confidence": [mean], "accuracy": [mean]}, the means None where a bin is empty.
    """
    confidence, correct = confidence_and_correctness(probabilities, labels)
    return table_of(bin_totals(confidence, correct, num_bins))


# --- Keras ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tfprune")
class ExpectedCalibrationError(BinnedMetric):
    """Expected calibration error of the predicted class, usable in `model.compile(metrics=[...])`.

    The mean over samples of |accuracy - confidence| of their bin; see `tfprune.metrics.ece`. `.floor()` is what it
    would be if these predictions were calibrated, `.excess()` what it is above that.

    Args:
        num_bins: number of equal-width bins.
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.
        norm: "l1", "l2" (RMSCE) or "max" (MCE).
        closed: "left" or "right": whether a confidence on an edge belongs to the bin above or below.

    Example:
        >>> metric = ExpectedCalibrationError()
        >>> metric.update_state([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(float(metric.result()), 6)
        0.35

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """

    def __init__(self, num_bins=15, from_logits=False, name="ece", dtype=None, norm="l1", closed="left"):
        super().__init__(num_bins=num_bins, from_logits=from_logits, name=name, dtype=dtype)
        check_choice("norm", norm, NORMS)
        check_choice("closed", closed, ("left", "right"))
        self.norm, self.closed = norm, closed

    def columns(self, batch):
        """Confidence, against correctness."""
        confidence = unit_interval(batch.confidence)
        return confidence, (confidence, batch.correct)

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "norm": self.norm, "closed": self.closed}


@keras.saving.register_keras_serializable("tfprune")
class AverageCalibrationError(BinnedMetric):
    """Mean over bins that hold samples of |accuracy - confidence|, usable in `model.compile(metrics=[...])`.

    See `tfprune.metrics.average_calibration_error`.

    Args:
        num_bins: number of equal-width bins.
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Neumann et al., "Relaxed Softmax", 2018.
    """

    norm = "mean"

    def __init__(self, num_bins=15, from_logits=False, name="average_calibration_error", dtype=None):
        super().__init__(num_bins=num_bins, from_logits=from_logits, name=name, dtype=dtype)

    def columns(self, batch):
        """Confidence, against correctness."""
        confidence = unit_interval(batch.confidence)
        return confidence, (confidence, batch.correct)


@keras.saving.register_keras_serializable("tfprune")
class ClasswiseCalibrationError(FlooredMetric):
    """Static (classwise) calibration error, usable in `model.compile(metrics=[...])`.

    See `tfprune.metrics.classwise_ece`.

    Args:
        num_classes: number of classes; 2 for a sigmoid.
        num_bins: number of equal-width bins of each class' probability.
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Nixon et al., "Measuring Calibration in Deep Learning", 2019.
    """

    def __init__(self, num_classes, num_bins=15, from_logits=False, name="classwise_ece", dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        check_num_bins(num_bins)
        if isinstance(num_classes, bool) or not isinstance(num_classes, (int, np.integer)) or num_classes < 2:
            raise ValueError(f"num_classes must be an integer of at least 2. Received: num_classes={num_classes!r}.")
        self.num_classes, self.num_bins = num_classes, num_bins
        # rows: weight, its square, and the weighted sums of probability and of the class being the label
        self.totals = self.add_sums((4, num_classes, num_bins), "totals")

    def add_batch(self, batch):
        """Adds every class' probability to its bin, and every label to the bin of its own class' probability."""
        if batch.num_classes != self.num_classes:
            raise ValueError(
                f"Expected predictions of num_classes={self.num_classes} classes. Received: {batch.num_classes}."
            )
        probabilities, labels = unit_interval(batch.probabilities), batch.labels
        cell = tensor_bin_index(probabilities, self.num_bins) + ops.arange(self.num_classes) * self.num_bins
        weight = ops.broadcast_to(batch.weight[:, None], ops.shape(probabilities))

        def sums(values, cells):
            # By segments: as a product with one-hot rows this would take num_bins times the memory.
            size = self.num_classes * self.num_bins
            return ops.segment_sum(ops.reshape(values, (-1,)), ops.reshape(cells, (-1,)), num_segments=size)

        count = sums(weight, cell)
        squared = count if batch.sample_weight is None else sums(weight * weight, cell)
        hits = sums(batch.weight, at_labels(cell, labels))
        rows = ops.stack([count, squared, sums(weight * probabilities, cell), hits])
        self.totals.assign_add(ops.reshape(rows, self.totals.shape))

    def value(self):
        """The mean over classes of the calibration error."""
        count, _, value, target = ops.unstack(ops.convert_to_tensor(self.totals), 4)
        return ops.mean(combine(ops, count, target - value, "l1"))

    def null_values(self, num_draws, rng):
        """De Moivre's expectation in each bin of each class."""
        count, squared, value, _ = ops.convert_to_numpy(self.totals)
        deviation = mean_deviation(effective_count(count, squared), ratio(np, value, count))
        return combine(np, count, count * deviation, "l1")

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "num_classes": self.num_classes, "num_bins": self.num_bins}


@keras.saving.register_keras_serializable("tfprune")
class ConfidenceGap(ClassificationMetric):
    """Mean confidence - accuracy, positive for an over-confident model; usable in `model.compile(metrics=[...])`.

    See `tfprune.metrics.confidence_gap`.

    Args:
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.
    """

    def __init__(self, from_logits=False, name="confidence_gap", dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        self.totals = self.add_sums((2,), "totals")

    def add_batch(self, batch):
        """Adds the weights, and the weighted differences of confidence and correctness."""
        gap = unit_interval(batch.confidence) - batch.correct
        self.totals.assign_add(ops.stack([ops.sum(batch.weight), ops.sum(batch.weight * gap)]))

    def value(self):
        """The weighted mean difference."""
        weight, gap = ops.unstack(ops.convert_to_tensor(self.totals), 2)
        return ratio(ops, gap, weight)
