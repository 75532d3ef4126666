"""How far is the model from calibrated, whatever the range of its confidences? Errors that fix no edges beforehand.

Bins of equal mass hold equally many samples (the first ones one more, where it does not come out even), sorted by
confidence: they stay filled where most confidences are near 1. The Kolmogorov-Smirnov error needs no bins at all.

The Keras metrics sort in fixed memory: a histogram of log((1 - p) / p), which tells confidences near 1 apart, where p
itself is rounded to 1. What sharing a cell of it can hide is bounded: see `error_bound`.
"""

import keras
import numpy as np
from keras import ops
from scipy.special import expit

from tfprune.metrics.bins import (
    NORMS,
    check_choice,
    check_num_bins,
    combine,
    confidence_and_correctness,
    largest,
    ratio,
    unit_interval,
)
from tfprune.metrics.floor import FlooredMetric, draw_means, effective_count, mean_deviation
from tfprune.metrics.ranks import DEFAULT_BITS, check_bits
from tfprune.metrics.scores import class_indices, probability_columns

# --- NumPy ------------------------------------------------------------------------------------------------------------


def equal_mass_ece(probabilities, labels, num_bins=15, norm="l1"):
    """Calibration error of the predicted class in bins that hold equally many samples.

    Samples of equal confidence are taken in the order in which they come, as `np.array_split` does; where many are
    tied, `debiased_calibration_error` and `ks_calibration_error` do not depend on that order.

    Args:
        probabilities: (samples, classes), or one column for a sigmoid.
        labels: integers (samples,) or one-hot (samples, classes).
        num_bins: number of bins.
        norm: "l1", "l2" or "max", as for `tfprune.metrics.ece`.

    Raises:
        ValueError: for labels out of range, empty arrays, values outside [0, 1], or an unknown norm.

    Source: Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language processing
    models", 2015.
    """
    check_num_bins(num_bins)
    check_choice("norm", norm, NORMS)
    return equal_mass_error(*confidence_and_correctness(probabilities, labels), num_bins, norm)


def equal_mass_error(confidence, correct, num_bins=15, norm="l1"):
    """`equal_mass_ece` of confidences and of 1.0 where the prediction is right, (samples,) each."""
    count, gap = _sorted_bins(confidence, correct, num_bins)
    return float(combine(np, count, gap, norm))


def equal_mass_floor(confidence, num_bins=15):
    """What `equal_mass_error` would be on average if the model were calibrated, a float."""
    count, total = _sorted_bins(confidence, np.zeros_like(confidence), num_bins)
    return float(np.sum(count * mean_deviation(count, -ratio(np, total, count))) / len(confidence))


def adaptive_calibration_error(probabilities, labels, num_bins=15):
    """Nixon's ACE: as `classwise_ece`, in bins that hold equally many samples of each class' probability.

    Args and errors as for `equal_mass_ece`.

    Source: Nixon et al., "Measuring Calibration in Deep Learning", 2019.
    """
    return thresholded_adaptive_calibration_error(probabilities, labels, num_bins, threshold=0.0)


def thresholded_adaptive_calibration_error(probabilities, labels, num_bins=15, threshold=0.01):
    """TACE: `adaptive_calibration_error` of the probabilities that reach a threshold.

    Args:
        probabilities: (samples, classes), or one column for a sigmoid.
        labels: integers (samples,) or one-hot (samples, classes).
        num_bins: number of bins of each class.
        threshold: probabilities below it are left out; each class' error is the mean over those that are left, and a
            class without any is left out of the mean over classes.

    Raises:
        ValueError: as for `equal_mass_ece`, and if no probability reaches the threshold.

    Source: Nixon et al., "Measuring Calibration in Deep Learning", 2019.
    """
    check_num_bins(num_bins)
    probabilities = probability_columns(probabilities)
    labels = class_indices(labels, probabilities.shape[1])
    if len(labels) != len(probabilities):
        raise ValueError(f"Expected one label per row. Received: {len(labels)} for {len(probabilities)} rows.")
    kept = probabilities >= threshold
    if not kept.any():
        raise ValueError(f"threshold must leave a probability. Received: threshold={threshold} above all of them.")
    errors = [
        combine(np, *_sorted_bins(column[keep], (labels == k)[keep], num_bins), "l1")
        for k, (column, keep) in enumerate(zip(probabilities.T, kept.T, strict=True))
        if keep.any()
    ]
    return float(np.mean(errors))


def debiased_calibration_error(probabilities, labels, num_bins=15):
    """Root mean squared calibration error of the predicted class, less the part of it that is sampling noise.

    In bins of equal mass; samples of equal confidence share a bin. From each bin's squared difference the variance of
    its accuracy is taken off, accuracy * (1 - accuracy) / (count - 1); bins of one sample count as 0, and so does a
    negative sum.

    Args:
        probabilities: (samples, classes), or one column for a sigmoid.
        labels: integers (samples,) or one-hot (samples, classes).
        num_bins: number of bins.

    Raises:
        ValueError: for labels out of range, empty arrays, or values outside [0, 1].

    Source: Kumar et al., "Verified Uncertainty Calibration", 2019.
    """
    check_num_bins(num_bins)
    return debiased_error(*confidence_and_correctness(probabilities, labels), num_bins)


def debiased_error(confidence, correct, num_bins=15):
    """`debiased_calibration_error` of confidences and of 1.0 where the prediction is right, (samples,) each."""
    ordered, size = np.sort(confidence), len(confidence)
    first_of_its_ties = np.searchsorted(ordered, confidence, side="left")
    index = np.searchsorted(_edges(np, size, size, num_bins), first_of_its_ties, side="right")
    sums = (np.bincount(index, weights=w, minlength=num_bins) for w in (None, confidence, correct))
    return float(_debiased(np, *sums))


def ks_calibration_error(probabilities, labels):
    """Kolmogorov-Smirnov calibration error: the largest difference, over all confidences c, of two cumulative shares.

    They are the share of samples that are right at a confidence of at most c, and the share that their confidences
    promise: max over c of |sum of (correct - confidence) up to c| / samples. No bins; the order of ties is no matter.

    Args:
        probabilities: (samples, classes), or one column for a sigmoid.
        labels: integers (samples,) or one-hot (samples, classes).

    Raises:
        ValueError: for labels out of range, empty arrays, or values outside [0, 1].

    Source: Gupta et al., "Calibration of Neural Networks using Splines", 2021.
    """
    return ks_error(*confidence_and_correctness(probabilities, labels))


def ks_error(confidence, correct):
    """`ks_calibration_error` of confidences and of 1.0 where the prediction is right, (samples,) each."""
    order = np.argsort(confidence, kind="stable")
    last_of_its_ties = np.append(np.diff(confidence[order]) > 0, True)
    difference = np.cumsum((correct - confidence)[order])[last_of_its_ties]
    return float(np.abs(difference).max() / len(confidence))


def _sorted_bins(values, targets, num_bins):
    """Count, and sum of target - value, of bins of equal mass; some are empty where there are too few samples."""
    gap = (targets - values)[np.argsort(values, kind="stable")]
    bounds = np.concatenate([[0], _edges(np, len(gap), len(gap), num_bins), [len(gap)]]).astype(np.int64)
    return np.diff(bounds).astype(np.float64), np.diff(np.append(0.0, np.cumsum(gap))[bounds])


def _edges(xp, weight, squared_weight, num_bins):
    """After how much weight each bin but the last one ends, (num_bins - 1,)."""
    step = xp.arange(1, num_bins, dtype="float64")
    size = xp.floor(weight / num_bins)
    whole = step * size + xp.minimum(step, weight - num_bins * size)  # as np.array_split does
    # Weights of at least 1 count samples, which stay whole. Smaller ones, such as 1 / samples, are shares.
    return xp.where(squared_weight >= weight, whole, step * weight / num_bins)


def _debiased(xp, count, confidence, correct):
    accuracy, mean_gap = ratio(xp, correct, count), ratio(xp, correct - confidence, count)
    noise = accuracy * (1.0 - accuracy) / xp.maximum(count - 1.0, 1.0)
    # not a product with (count >= 2), which would turn NaN into 0
    squares = xp.where(count < 2.0, xp.zeros_like(count), count * (mean_gap**2 - noise))
    return xp.sqrt(xp.maximum(ratio(xp, xp.sum(squares), xp.sum(count)), 0.0))


# --- Keras ------------------------------------------------------------------------------------------------------------


class ConfidenceHistogram(FlooredMetric):
    """Streams how many samples, how sure and how right, in 2**bits cells sorted by confidence.

    With o = log((1 - p) / p), the cells are of equal width in o / (1 + |o|): fine where most confidences are, and
    coarser, but never at an end, however sure the model is. With 16 bits a cell at a confidence of 0.5 is 0.00001
    wide, at 0.9 0.00003, and at 0.999 0.000002.
    """

    def __init__(self, bits=DEFAULT_BITS, from_logits=False, name=None, dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        check_bits(bits)
        self.bits = bits
        # columns: weight, its square, and the weighted sums of confidence and correctness
        self.cells = self.add_sums((2**bits, 4), "cells")

    def add_batch(self, batch):
        """Adds each sample to its cell."""
        odds = ops.clip(batch.odds, -1e9, 1e9)  # -inf / inf would be NaN
        place = 0.5 - 0.5 * odds / (1.0 + ops.absolute(odds))
        # Rounded, not floored: many ties are at 0.5, which must not be the edge of a cell.
        cell = ops.clip(ops.cast(ops.round(place * 2.0**self.bits), "int32"), 0, 2**self.bits - 1)
        weight, confidence = batch.weight, unit_interval(batch.confidence)
        rows = [weight, weight * weight, weight * confidence, weight * batch.correct]
        self.cells.assign_add(ops.segment_sum(ops.stack(rows, axis=-1), cell, num_segments=2**self.bits))

    def error(self, xp, cells):
        """The metric, of (cells, 4) sums."""
        raise NotImplementedError

    def value(self):
        """The metric, of the cells as they are."""
        return self.error(ops, ops.convert_to_tensor(self.cells))

    def null_values(self, num_draws, rng):
        """The metric of binomial draws in each cell."""
        cells = self.filled_cells()[0]
        weight, squared, confidence, _ = cells.T
        count, probability = effective_count(weight, squared), confidence / weight
        values = []
        for _ in range(num_draws):
            correct = weight * draw_means(rng, count, probability)
            values.append(self.error(np, np.column_stack([cells[:, :3], correct])))
        return values

    def filled_cells(self):
        """The cells that hold samples, (filled, 4), and the lowest and highest confidence that belongs in each."""
        cells = ops.convert_to_numpy(self.cells)
        filled = np.flatnonzero(cells[:, 0])
        return cells[filled], self._confidence_at(filled), self._confidence_at(filled + 1)

    def _confidence_at(self, edge):
        """Confidence at the lower edge of a cell; the outermost edges are at 0 and 1."""
        place = np.where(edge == 2**self.bits, 1.0, np.maximum(2.0 * (edge - 0.5) / 2**self.bits - 1.0, -1.0))
        with np.errstate(divide="ignore"):
            return expit(place / (1.0 - np.abs(place)))

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "bits": self.bits}


def _bins_of(xp, cells, columns, num_bins, whole_cells):
    """Sums of `columns` (cells, k), the first of which is the weight, in bins of equal mass, (num_bins, k)."""
    cumulative = xp.cumsum(columns, axis=0)
    edges = _edges(xp, cumulative[-1, 0], xp.sum(cells[:, 1]), num_bins)
    # The cell in which each bin ends; for an edge between two cells, the one before it. Counted, because keras.ops of
    # old cannot search in a graph.
    last = xp.minimum(xp.sum(cumulative[:, 0] < edges[:, None], axis=1), cells.shape[0] - 1)
    ends = xp.take(cumulative, last, axis=0)
    if not whole_cells:
        inside = xp.take(columns, last, axis=0)
        ends = ends - ratio(xp, ends[:, 0] - edges, inside[:, 0])[:, None] * inside
    total = cumulative[-1:]
    bounds = xp.concatenate([xp.zeros_like(total), ends, total], axis=0)
    return bounds[1:] - bounds[:-1]


@keras.saving.register_keras_serializable("tfprune")
class EqualMassCalibrationError(ConfidenceHistogram):
    """Calibration error in bins of equal mass, usable in `model.compile(metrics=[...])`.

    See `tfprune.metrics.equal_mass_ece`. Sorts by a histogram in fixed memory; a cell that two bins share is split in
    proportion, and `.error_bound()` is what that may cost.

    Args:
        num_bins: number of bins.
        norm: "l1", "l2" or "max".
        bits: the histogram has 2**bits cells of 32 bytes; 16 bits take 2 MiB.
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Nguyen and O'Connor, "Posterior calibration and exploratory analysis", 2015.
    """

    def __init__(self, num_bins=15, norm="l1", bits=DEFAULT_BITS, from_logits=False, name="equal_mass_ece", dtype=None):
        super().__init__(bits=bits, from_logits=from_logits, name=name, dtype=dtype)
        check_num_bins(num_bins)
        check_choice("norm", norm, NORMS)
        self.num_bins, self.norm = num_bins, norm

    def error(self, xp, cells):
        """The calibration error of the bins."""
        columns = xp.stack([cells[:, 0], cells[:, 3] - cells[:, 2]], axis=-1)
        bins = _bins_of(xp, cells, columns, self.num_bins, whole_cells=False)
        return combine(xp, bins[:, 0], bins[:, 1], self.norm)

    def error_bound(self):
        """How far the result can be from `equal_mass_ece` of the same samples, at the most; a float.

        It holds for any order of the samples within a cell, so for any order of tied ones, and for probabilities that
        sum to 1: rounding may order them otherwise than their odds.
        """
        cells, lowest, highest = self.filled_cells()
        if not len(cells):
            return 0.0
        weight, correct = cells[:, 0], cells[:, 3]
        cumulative = np.cumsum(weight)
        edges = _edges(np, cumulative[-1], cells[:, 1].sum(), self.num_bins)
        last = np.minimum(np.searchsorted(cumulative, edges), cells.shape[0] - 1)
        inside, right = weight[last], correct[last]
        below = np.clip(edges - (cumulative[last] - inside), 0.0, inside)
        # Of the samples in the cell, those below the edge may be the right ones, or the wrong ones.
        most, least, guess = np.minimum(below, right), np.maximum(right - (inside - below), 0.0), below * right / inside
        spread = below * (inside - below) / inside * (highest - lowest)[last]
        doubt = np.concatenate([[0.0], np.maximum(most - guess, guess - least) + spread, [0.0]])
        counts = np.diff(np.concatenate([[0.0], edges, cumulative[-1:]]))
        return float(combine(np, counts, doubt[1:] + doubt[:-1], self.norm))

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "num_bins": self.num_bins, "norm": self.norm}


@keras.saving.register_keras_serializable("tfprune")
class DebiasedCalibrationError(ConfidenceHistogram):
    """Debiased root mean squared calibration error, usable in `model.compile(metrics=[...])`.

    See `tfprune.metrics.debiased_calibration_error`: this is its value with confidences that share a cell of a fine
    histogram taken as equal. Weights count as so many samples.

    Args:
        num_bins: number of bins of equal mass.
        bits: the histogram has 2**bits cells of 32 bytes; 16 bits take 2 MiB.
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Kumar et al., "Verified Uncertainty Calibration", 2019.
    """

    def __init__(
        self, num_bins=15, bits=DEFAULT_BITS, from_logits=False, name="debiased_calibration_error", dtype=None
    ):
        super().__init__(bits=bits, from_logits=from_logits, name=name, dtype=dtype)
        check_num_bins(num_bins)
        self.num_bins = num_bins

    def error(self, xp, cells):
        """The debiased error of the bins, each of which takes the cell that it ends in whole."""
        columns = xp.stack([cells[:, 0], cells[:, 2], cells[:, 3]], axis=-1)
        bins = _bins_of(xp, cells, columns, self.num_bins, whole_cells=True)
        return _debiased(xp, bins[:, 0], bins[:, 1], bins[:, 2])

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "num_bins": self.num_bins}


@keras.saving.register_keras_serializable("tfprune")
class KolmogorovSmirnovCalibrationError(ConfidenceHistogram):
    """Kolmogorov-Smirnov calibration error, usable in `model.compile(metrics=[...])`.

    See `tfprune.metrics.ks_calibration_error`. The result looks between the cells of a fine histogram only, so it is
    never too large, and too small by `.error_bound()` at the most.

    Args:
        bits: the histogram has 2**bits cells of 32 bytes; 16 bits take 2 MiB.
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Gupta et al., "Calibration of Neural Networks using Splines", 2021.
    """

    def __init__(self, bits=DEFAULT_BITS, from_logits=False, name="ks_calibration_error", dtype=None):
        super().__init__(bits=bits, from_logits=from_logits, name=name, dtype=dtype)

    def error(self, xp, cells):
        """The largest cumulative difference at the end of a cell."""
        difference = xp.cumsum(cells[:, 3] - cells[:, 2])
        return ratio(xp, largest(xp, xp.absolute(difference)), xp.sum(cells[:, 0]))

    def error_bound(self):
        """How much larger `ks_calibration_error` of the same samples can be, at the most; a float.

        It holds for probabilities that sum to 1.
        """
        cells, lowest, highest = self.filled_cells()
        if not len(cells):
            return 0.0
        weight, correct, gap = cells[:, 0], cells[:, 3], cells[:, 3] - cells[:, 2]
        before = np.cumsum(gap) - gap
        # Within a cell the difference is largest after all that are right, or all that are wrong, have come first.
        largest = np.maximum(before + correct * (1.0 - lowest), (weight - correct) * highest - before).max()
        return float(max(0.0, largest / weight.sum() - self.error(np, cells)))
