"""How well does a score tell strangers (out-of-distribution samples) from known data?

One convention everywhere: out-of-distribution (OOD) is the positive class, and a larger score is a stranger.

    auroc, aupr_out, aupr_in, average_precision_out, average_precision_in, fpr95, detection_accuracy
                            the scores ranked as they are, exactly, by scikit-learn; `detection` gives several at once
    StreamingDetection      all of them in fixed memory, each with the interval that certainly holds the exact number
    DetectionAUROC, ...     the same as Keras metrics, of labels (1 = OOD) and scores

(`keras.metrics.AUC` uses 200 thresholds in [0, 1] and is wrong for such scores.)

Example:
    >>> from tfprune import metrics
    >>> metrics.auroc([0.1, 0.2, 0.3], [0.25, 0.9])
    0.8333333333333334
"""

import functools

import keras
import numpy as np
from keras import ops

from tfprune.metrics.ranks import DEFAULT_BITS, cells, check_bits, tensor_cells
from tfprune.metrics.scores import log_softmax, logit_columns
from tfprune.metrics.streaming import SummedMetric

STREAMING_BITS = 20
# Below this, entropies run out of float64 numbers.
_LEAST_ENTROPY = 1e-300

# --- scores of logits -------------------------------------------------------------------------------------------------


def msp_score(logits):
    """Maximum softmax probability as a stranger score, (samples,): log((1 - p) / p) of the predicted class.

    It ranks as 1 - max softmax does, but in logit space, so a softmax that saturates at 1.0 makes no ties.

    Args:
        logits: (samples, classes), or one column for a sigmoid.

    Raises:
        ValueError: for logits that are not finite.

    Source: Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples", 2017.
    """
    logits = logit_columns(logits)
    predicted = logits.argmax(axis=1)[:, None]
    others = logits.copy()
    np.put_along_axis(others, predicted, -np.inf, axis=1)
    return _log_sum_exp(others) - np.take_along_axis(logits, predicted, axis=1)[:, 0]


def entropy_score(logits):
    """Entropy of the softmax as a stranger score, (samples,), from logits; keeps its order where the softmax saturates.

    It is the entropy in nats. Entropies too small for float64 (of logits 700 apart) become numbers just below 0 in the
    same order, so they make no ties, either.

    Args:
        logits: (samples, classes), or one column for a sigmoid.

    Raises:
        ValueError: for logits that are not finite.
    """
    log_probabilities = log_softmax(logits)
    scores = -np.sum(np.exp(log_probabilities) * log_probabilities, axis=1)
    tiny = scores < _LEAST_ENTROPY
    if tiny.any():
        # All but the predicted class have log p = -gap there, so the entropy is the sum of exp(-gap) (1 + gap).
        gaps = -np.sort(log_probabilities[tiny], axis=1)[:, :-1]
        scores[tiny] = 1e-6 * _LEAST_ENTROPY * _log_sum_exp(np.log1p(gaps) - gaps)
    return scores


def _log_sum_exp(values):
    largest = values.max(axis=1, keepdims=True)
    return largest[:, 0] + np.log(np.exp(values - largest).sum(axis=1))


# name in the result row -> logits -> one score per sample, larger = stranger
SCORES = {"msp": msp_score, "entropy": entropy_score}


# --- exact ------------------------------------------------------------------------------------------------------------


def auroc(id_scores, ood_scores):
    """Area under the ROC curve: the chance that a stranger scores above a known sample, ties counting half.

    Args:
        id_scores: (samples,) scores of in-distribution data.
        ood_scores: (samples,) scores of out-of-distribution data, larger = stranger.

    Raises:
        ValueError: if either set is empty or holds NaN or infinity.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_ranked(id_scores, ood_scores)))


def aupr_out(id_scores, ood_scores):
    """Area under the precision-recall curve with OOD positive (trapezoid); depends on how many of each there are.

    Args and errors as for `auroc`. With many tied scores the trapezoid is optimistic.
    """
    return _area_under_precision_recall(*_ranked(id_scores, ood_scores))


def aupr_in(id_scores, ood_scores):
    """Area under the precision-recall curve with in-distribution data positive (trapezoid), scores negated.

    Args and errors as for `auroc`.
    """
    is_ood, scores = _ranked(id_scores, ood_scores)
    return _area_under_precision_recall(1 - is_ood, -scores)


def average_precision_out(id_scores, ood_scores):
    """Average precision with OOD positive: the step-wise area, which many ties do not flatter as they do `aupr_out`.

    Args and errors as for `auroc`.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_ranked(id_scores, ood_scores)))


def average_precision_in(id_scores, ood_scores):
    """Average precision with in-distribution data positive, scores negated; beside `aupr_in`.

    Args and errors as for `auroc`.
    """
    from sklearn.metrics import average_precision_score

    is_ood, scores = _ranked(id_scores, ood_scores)
    return float(average_precision_score(1 - is_ood, -scores))


def fpr95(id_scores, ood_scores, positive="ood"):
    """False positive rate at the first threshold with a true positive rate of at least 95 %.

    The literature means two things by it, and they differ much on the same data: name yours.

    Args:
        id_scores: (samples,) scores of in-distribution data.
        ood_scores: (samples,) scores of out-of-distribution data, larger = stranger.
        positive: "ood": the share of known samples flagged where 95 % of the strangers are caught (OpenOOD). "id": the
            share of strangers let in where 95 % of the known samples are (the ODIN paper).

    Raises:
        ValueError: if either set is empty or holds NaN or infinity, and for another `positive`.
    """
    from sklearn.metrics import roc_curve

    _check_positive(positive)
    is_ood, scores = _ranked(id_scores, ood_scores)
    if positive == "id":
        is_ood, scores = 1 - is_ood, -scores
    # drop_intermediate=True would drop the very threshold that is looked for.
    false_rate, true_rate, _ = roc_curve(is_ood, scores, drop_intermediate=False)
    return float(false_rate[np.argmax(true_rate >= 0.95)])


def detection_accuracy(id_scores, ood_scores):
    """Accuracy of the best threshold if known data and strangers were equally many: 1 - min (FPR + FNR) / 2.

    Chosen on the data it is measured on, so it is optimistic. Args and errors as for `auroc`.

    Source: Liang et al., "Enhancing The Reliability of Out-of-distribution Image Detection in Neural Networks", 2018.
    """
    from sklearn.metrics import roc_curve

    false_rate, true_rate, _ = roc_curve(*_ranked(id_scores, ood_scores), drop_intermediate=False)
    return float(0.5 * (1.0 + np.max(true_rate - false_rate)))


# name in a result -> (id_scores, ood_scores) -> number
DETECTION_METRICS = {
    "auroc": auroc,
    "aupr_out": aupr_out,
    "aupr_in": aupr_in,
    "ap_out": average_precision_out,
    "ap_in": average_precision_in,
    "fpr95": fpr95,
    "fpr95_id": functools.partial(fpr95, positive="id"),
    "detection_accuracy": detection_accuracy,
}


def detection(id_scores, ood_scores):
    """All detection metrics of one score: {"auroc": ..., "aupr_out": ..., ...}, the names of `DETECTION_METRICS`.

    The scores are ranked once for all of them. Args and errors as for `auroc`.
    """
    is_ood, scores = _ranked(id_scores, ood_scores)
    # A cell for each score that occurs: what a histogram of these says is exact.
    different, cell = np.unique(scores, return_inverse=True)
    known, strange = (np.bincount(cell[is_ood == kind], minlength=len(different)).astype(float) for kind in (0, 1))
    return {name: float(_from_histogram(np, known, strange, name, "tied")) for name in DETECTION_METRICS}


def _area_under_precision_recall(is_positive, scores):
    from sklearn.metrics import auc, precision_recall_curve

    precision, recall, _ = precision_recall_curve(is_positive, scores)
    return float(auc(recall, precision))


def _ranked(id_scores, ood_scores):
    """0/1 labels (1 = OOD) and scores of both sets together."""
    id_scores, ood_scores = _checked(id_scores, "in-distribution"), _checked(ood_scores, "OOD")
    is_ood = np.repeat([0, 1], [len(id_scores), len(ood_scores)])
    return is_ood, np.concatenate([id_scores, ood_scores])


def _checked(scores, name):
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or not scores.size:
        raise ValueError(f"The {name} scores must be a non-empty 1-D array. Received: shape {scores.shape}.")
    if not np.all(np.isfinite(scores)):
        raise ValueError(f"The {name} scores must be finite. Received: {np.sum(~np.isfinite(scores))} that are not.")
    return scores


def _check_positive(positive):
    if positive not in ("ood", "id"):
        raise ValueError(f"positive must be 'ood' or 'id'. Received: positive={positive!r}.")


# --- from a histogram: `xp` is numpy or keras.ops ---------------------------------------------------------------------
#
# A histogram says how many positive and negative samples are in each cell, those most like positive ones first. Scores
# of one cell count as "tied"; the "low" and "high" case are the least and the greatest value that any order of them
# could give, ties among them included. So what the exact scores give is in between.


def _auroc(xp, positive, negative, case):
    beaten = {"low": 0.0, "tied": 0.5, "high": 1.0}[case]
    below = xp.sum(negative) - xp.cumsum(negative)
    return xp.sum(positive * (below + beaten * negative)) / (xp.sum(positive) * xp.sum(negative))


def _aupr(xp, positive, negative, case):
    """Trapezoid: positive samples are weighed with the mean of the precisions before and after their tie group.

    Precision t / (t + f), f fixed, is concave in t. So least is: the negative ones first, then the positive ones tied,
    which makes one chord; and greatest: the positive ones first, one by one, which comes near the integral below it.
    """
    true, false = xp.cumsum(positive), xp.cumsum(negative)
    true_before, false_before = true - positive, false - negative
    if case == "high":
        area = _integral(xp, true_before, false_before, positive)
    else:
        start = _precision(xp, true_before, false if case == "low" else false_before)
        area = positive * (start + _precision(xp, true, false)) / 2.0
    return xp.sum(area) / xp.sum(positive)


def _average_precision(xp, positive, negative, case):
    """Steps: positive samples are weighed with the precision after their tie group, which rises from one to the next.

    So least is: the negative ones first, then the positive ones one by one, above the integral; and greatest: the
    positive ones first and tied.
    """
    true, false = xp.cumsum(positive), xp.cumsum(negative)
    if case == "low":
        area = _integral(xp, true - positive, false, positive)
    else:
        area = positive * _precision(xp, true, false - negative if case == "high" else false)
    return xp.sum(area) / xp.sum(positive)


def _precision(xp, true, false):
    """t / (t + f), 1 where nothing is flagged."""
    flagged = true + false
    return xp.where(flagged > 0, true / xp.maximum(flagged, 1e-300), 1.0)


def _integral(xp, true, false, more):
    """Integral of the precision t / (t + false) for t from `true` to `true + more`."""
    return more - false * xp.log1p(more / xp.maximum(true + false, 1e-300))


def _fpr95(xp, positive, negative, case):
    true, false = xp.cumsum(positive), xp.cumsum(negative)
    if case == "low":
        false = false - negative
    # Up to the cell that reaches 95 %. Whole numbers are compared, which rounding cannot touch.
    needed = 20.0 * (true - positive) < 19.0 * xp.sum(positive)
    return xp.max(xp.where(needed, false, 0.0)) / xp.sum(negative)


def _detection_accuracy(xp, positive, negative, case):
    true, false = xp.cumsum(positive), xp.cumsum(negative)
    if case == "high":
        false = false - negative
    gain = xp.max(true / xp.sum(positive) - false / xp.sum(negative))
    return 0.5 * (1.0 + xp.maximum(gain, 0.0))


# name in a result -> which are positive, and the function of the histogram
_FROM_HISTOGRAM = {
    "auroc": ("ood", _auroc),
    "aupr_out": ("ood", _aupr),
    "aupr_in": ("id", _aupr),
    "ap_out": ("ood", _average_precision),
    "ap_in": ("id", _average_precision),
    "fpr95": ("ood", _fpr95),
    "fpr95_id": ("id", _fpr95),
    "detection_accuracy": ("ood", _detection_accuracy),
}


def _from_histogram(xp, known, strange, name, case):
    """A metric from how many known and strange samples are in each cell, rising in score."""
    positive, function = _FROM_HISTOGRAM[name]
    if positive == "id":
        return function(xp, known, strange, case)
    return function(xp, xp.flip(strange), xp.flip(known), case)


class StreamingDetection:
    """All detection metrics in fixed memory: add scores batch by batch, of known data and strangers in any order.

    The leading bits of a score's float32 number are its cell (ranks.py), whatever the range of the scores; the state is
    two counts per cell. Scores of one cell count as ties. Besides each number there is the interval that certainly
    holds what `detection` would give for the same scores.

    Args:
        bits: how many leading bits, from 10 to 24. 20 tell scores apart that differ by 0.05 %, in 16 MiB.

    Example:
        >>> stream = StreamingDetection()
        >>> stream.update(id_scores=[0.1, 0.2, 0.3], ood_scores=[0.25])
        >>> stream.update(ood_scores=[0.9])
        >>> row = stream.result()
        >>> round(row["auroc"], 6), round(row["auroc_low"], 6), round(row["auroc_high"], 6)
        (0.833333, 0.833333, 0.833333)
    """

    def __init__(self, bits=STREAMING_BITS):
        check_bits(bits)
        self.bits = int(bits)
        self.counts = np.zeros((2, 2**self.bits), dtype=np.int64)

    @property
    def num_id(self):
        """How many scores of in-distribution data were added."""
        return int(self.counts[0].sum())

    @property
    def num_ood(self):
        """How many scores of out-of-distribution data were added."""
        return int(self.counts[1].sum())

    def update(self, id_scores=None, ood_scores=None):
        """Adds scores.

        Args:
            id_scores: (samples,) scores of in-distribution data, or None.
            ood_scores: (samples,) scores of out-of-distribution data, larger = stranger, or None.

        Raises:
            ValueError: if either is empty or holds NaN or infinity; nothing is added then.
        """
        named = ((0, id_scores, "in-distribution"), (1, ood_scores, "OOD"))
        new = [(row, cells(_checked(scores, name), self.bits)) for row, scores, name in named if scores is not None]
        for row, cell in new:
            np.add.at(self.counts[row], cell, 1)

    def merge(self, other):
        """Adds what another one of the same `bits` has seen.

        Raises:
            ValueError: if `other` is something else.
        """
        if not isinstance(other, StreamingDetection) or other.bits != self.bits:
            what = f"bits={other.bits}" if isinstance(other, StreamingDetection) else type(other).__name__
            raise ValueError(f"merge needs a StreamingDetection with bits={self.bits}. Received: {what}.")
        self.counts += other.counts

    def result(self):
        """The metrics of all scores so far.

        Returns:
            A flat dict: for each name of `DETECTION_METRICS` the number with the scores of one cell tied, under
            "NAME_low" and "NAME_high" the interval that holds the exact number; "num_id" and "num_ood".

        Raises:
            ValueError: if there are no scores of known data, or none of strangers.
        """
        if not (self.num_id and self.num_ood):
            raise ValueError(
                "Detection needs scores of both in-distribution and OOD data. "
                f"Received: {self.num_id} and {self.num_ood}."
            )
        known, strange = self.counts[:, self.counts.any(axis=0)].astype(np.float64)
        row = {}
        for name in DETECTION_METRICS:
            for key, case in ((name, "tied"), (f"{name}_low", "low"), (f"{name}_high", "high")):
                row[key] = float(_from_histogram(np, known, strange, name, case))
        return {**row, "num_id": self.num_id, "num_ood": self.num_ood}


# --- Keras ------------------------------------------------------------------------------------------------------------


class _DetectionMetric(SummedMetric):
    """Streams a histogram of scores; `quantity` is the metric's name in `DETECTION_METRICS`."""

    quantity = None

    def __init__(self, bits=DEFAULT_BITS, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        check_bits(bits)
        self.bits = int(bits)
        self.counts = self.add_sums((2**self.bits, 2), "counts")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch.

        Args:
            y_true: 1 for OOD, 0 for in-distribution, (samples,) or (samples, 1).
            y_pred: scores of the same shape or (samples, 1), larger = stranger. NaN makes the result NaN.
            sample_weight: optional, one weight per sample.
        """
        scores, is_ood = ops.cast(y_pred, "float32"), ops.cast(y_true, "float64")
        _check_one_score(scores, is_ood)
        scores, is_ood = ops.reshape(scores, (-1,)), ops.reshape(is_ood, (-1,))
        weight = ops.ones_like(is_ood)
        if sample_weight is not None:
            weight = ops.reshape(ops.cast(sample_weight, "float64"), (-1,)) * weight
        told = ops.logical_and(ops.logical_not(ops.isnan(scores)), is_ood * (1.0 - is_ood) == 0)
        weight = ops.where(ops.logical_or(told, weight == 0), weight, np.nan)
        rows = ops.stack([ops.where(is_ood == 1, 0.0, weight), ops.where(is_ood == 0, 0.0, weight)], axis=-1)
        cell = tensor_cells(scores, self.bits)
        self.counts.assign_add(ops.segment_sum(rows, cell, num_segments=2**self.bits))

    def result(self):
        """The metric over all batches since the last reset; NaN until both known data and strangers were seen."""
        counts = ops.convert_to_tensor(self.counts)
        value = _from_histogram(ops, counts[:, 0], counts[:, 1], self.quantity, "tied")
        both = ops.prod(ops.sum(counts, axis=0))  # 0 where one is missing, NaN where one is NaN
        return ops.cast(ops.where(both > 0, value, np.nan), self.dtype)

    def interval(self):
        """(least, greatest) value that the scores seen could have, whatever their order within a cell; NaN at first."""
        counts = np.asarray(ops.convert_to_numpy(self.counts))
        counts = counts[counts.any(axis=1)]
        if not counts.sum(axis=0).all():
            return float("nan"), float("nan")
        return tuple(float(_from_histogram(np, *counts.T, self.quantity, case)) for case in ("low", "high"))

    def error_bound(self):
        """How far the result can be from the number of the exact ranking, a float."""
        low, high = self.interval()
        value = float(ops.convert_to_numpy(self.result()))
        return max(value - low, high - value)

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "bits": self.bits}


def _check_one_score(scores, is_ood):
    """Raises ValueError unless there is one score per label, as far as the shapes are known."""
    mine, theirs = (
        shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape for shape in (scores.shape, is_ood.shape)
    )
    if len(mine) != len(theirs) or any(None not in (a, b) and a != b for a, b in zip(mine, theirs, strict=True)):
        raise ValueError(
            "Detection metrics take one score per sample, and y_true, 1 for OOD and 0 for in-distribution. "
            f"Received: y_pred of shape {tuple(scores.shape)}, y_true of shape {tuple(is_ood.shape)}."
        )


@keras.saving.register_keras_serializable("tfprune")
class DetectionAUROC(_DetectionMetric):
    """Area under the ROC curve of scores, usable in `model.compile(metrics=[...])`; see `tfprune.metrics.auroc`.

    Args:
        bits: leading bits of the float32 scores to keep, from 10 to 24; the state is 16 * 2**bits bytes.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Example:
        >>> metric = DetectionAUROC()
        >>> metric.update_state([0, 0, 1], [-3.0, 2.0, 70.0])
        >>> float(metric.result()), metric.error_bound()
        (1.0, 0.0)
    """

    quantity = "auroc"

    def __init__(self, bits=DEFAULT_BITS, name="auroc", dtype=None):
        super().__init__(bits=bits, name=name, dtype=dtype)


class _OneSidedMetric(_DetectionMetric):
    """A metric that differs with which data are positive: `sides` has its name for "ood", and for "id"."""

    sides = ()

    def __init__(self, positive="ood", bits=DEFAULT_BITS, name=None, dtype=None):
        _check_positive(positive)
        quantity = self.sides[positive == "id"]
        super().__init__(bits=bits, name=name or quantity, dtype=dtype)
        self.positive, self.quantity = positive, quantity

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "positive": self.positive}


@keras.saving.register_keras_serializable("tfprune")
class DetectionFPR95(_OneSidedMetric):
    """False positive rate at a true positive rate of 95 %; see `tfprune.metrics.fpr95`.

    Args:
        positive: "ood" or "id", two conventions whose numbers differ much.
        bits: leading bits of the float32 scores to keep, from 10 to 24; the state is 16 * 2**bits bytes.
        name: name of the metric; "fpr95" or "fpr95_id" where None.
        dtype: dtype of the result; the state is always float64.
    """

    sides = ("fpr95", "fpr95_id")


@keras.saving.register_keras_serializable("tfprune")
class DetectionAUPR(_OneSidedMetric):
    """Area under the precision-recall curve, trapezoid; see `tfprune.metrics.aupr_out` and `aupr_in`.

    Args:
        positive: "ood" or "id".
        bits: leading bits of the float32 scores to keep, from 10 to 24; the state is 16 * 2**bits bytes.
        name: name of the metric; "aupr_out" or "aupr_in" where None.
        dtype: dtype of the result; the state is always float64.
    """

    sides = ("aupr_out", "aupr_in")


@keras.saving.register_keras_serializable("tfprune")
class DetectionAveragePrecision(_OneSidedMetric):
    """Average precision; see `tfprune.metrics.average_precision_out` and `average_precision_in`.

    Args:
        positive: "ood" or "id".
        bits: leading bits of the float32 scores to keep, from 10 to 24; the state is 16 * 2**bits bytes.
        name: name of the metric; "ap_out" or "ap_in" where None.
        dtype: dtype of the result; the state is always float64.
    """

    sides = ("ap_out", "ap_in")


@keras.saving.register_keras_serializable("tfprune")
class DetectionAccuracy(_DetectionMetric):
    """Accuracy of the best threshold on equally many known and strange samples; see `detection_accuracy`.

    Args:
        bits: leading bits of the float32 scores to keep, from 10 to 24; the state is 16 * 2**bits bytes.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.
    """

    quantity = "detection_accuracy"

    def __init__(self, bits=DEFAULT_BITS, name="detection_accuracy", dtype=None):
        super().__init__(bits=bits, name=name, dtype=dtype)
