"""Does the model know which of its answers are wrong? Selective prediction: answer where sure, abstain where not.

The samples are ranked by confidence; the selective risk at coverage i / n is the share of errors among the i most
confident of n. The functions take `confidence`, larger = surer, on any scale, and `correct`, 1 where the answer is
right; `confidence_and_correct` makes both from predictions and labels.

    aurc                    mean selective risk over all coverages: smaller is better
    optimal_aurc, eaurc     the least AURC with this many errors, and what is left above it
    augrc                   mean share of all samples that are answered and wrong
    coverage_at_risk        how many can be answered at a risk of 5 %?
    risk_coverage_table     the curve, for plots

Samples of equal confidence have no order. Every number here is what random orders of them give on average: the errors
of such a group count as spread evenly over it. A softmax that saturates at 1.0 makes large groups; logits do not.

The Keras metrics keep a histogram of the log-odds of being wrong (ranks.py) in fixed memory. Samples of one cell count
as equally confident, and `interval()` holds what any order of them could give, so also what the functions give.

Example:
    >>> from tfprune import metrics
    >>> metrics.aurc([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1])
    0.14583333333333331
"""

import keras
import numpy as np
from keras import ops

from tfprune.metrics.detection import msp_score
from tfprune.metrics.ranks import DEFAULT_BITS, check_bits, reciprocal_ranks, tensor_cells
from tfprune.metrics.scores import class_indices, logit_columns, probability_columns
from tfprune.metrics.streaming import ClassificationMetric

# Shares of whole numbers differ by far more, so a risk that is met exactly is met in spite of rounding.
RISK_TOLERANCE = 1e-12

# --- NumPy ------------------------------------------------------------------------------------------------------------


def confidence_and_correct(outputs, labels, from_logits=False):
    """Confidence of each sample, and 1.0 where its predicted class (the first on ties) is the label, else 0.0.

    Args:
        outputs: probabilities or logits (samples, classes), or one column for a sigmoid.
        labels: integers (samples,) or one-hot (samples, classes).
        from_logits: whether `outputs` are logits. Then the confidence is the log-odds of the predicted class, which
            ranks as its probability does but keeps its order where that is exactly 1.0.

    Raises:
        ValueError: for labels out of range, empty arrays, or values that are not what was said.

    Example:
        >>> confidence, correct = confidence_and_correct([[0.9, 0.1], [0.4, 0.6]], [0, 0])
        >>> confidence.tolist(), correct.tolist()
        ([0.9, 0.6], [1.0, 0.0])
    """
    outputs = logit_columns(outputs) if from_logits else probability_columns(outputs)
    confidence = -msp_score(outputs) if from_logits else outputs.max(axis=1)
    labels = class_indices(labels, outputs.shape[1])
    if len(labels) != len(outputs):
        raise ValueError(f"Expected one label per sample. Received: {len(labels)} labels, {len(outputs)} samples.")
    return confidence, (outputs.argmax(axis=1) == labels).astype(np.float64)


def selective_prediction(outputs, labels, from_logits=False, risk=0.05):
    """All numbers of selective prediction: {"aurc", "optimal_aurc", "eaurc", "augrc", "coverage_at_risk"}.

    Args:
        outputs: probabilities or logits (samples, classes), or one column for a sigmoid.
        labels: integers (samples,) or one-hot (samples, classes).
        from_logits: whether `outputs` are logits; prefer them.
        risk: the selective risk that `coverage_at_risk` allows.

    Raises:
        ValueError: as `confidence_and_correct` does, and for a `risk` outside [0, 1].
    """
    pair = confidence_and_correct(outputs, labels, from_logits)
    return {
        "aurc": aurc(*pair),
        "optimal_aurc": optimal_aurc(pair[1]),
        "eaurc": eaurc(*pair),
        "augrc": augrc(*pair),
        "coverage_at_risk": coverage_at_risk(*pair, risk=risk),
    }


def aurc(confidence, correct):
    """Area under the risk-coverage curve: the mean of the selective risk over the coverages 1/n, 2/n, ..., 1.

    Args:
        confidence: (samples,) finite numbers, larger = surer.
        correct: (samples,) 1 (or True) where the answer is right, else 0.

    Raises:
        ValueError: for empty arrays, different lengths, confidences that are not finite, or `correct` not of 0 and 1.

    Source: Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", 2017. (Some packages take the
    trapezium rule instead, or break ties by the order of samples.)
    """
    errors = _expected_errors(confidence, correct)
    return float(np.mean(errors / np.arange(1, len(errors) + 1)))


def optimal_aurc(correct):
    """The AURC of a model that is surer of every right answer than of any wrong one.

    Args:
        correct: (samples,) 1 (or True) where the answer is right, else 0.

    Raises:
        ValueError: for an empty array, or one that is not of 0 and 1.

    Example:
        >>> optimal_aurc([1, 1, 0, 1])
        0.0625

    Source: Geifman et al., "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", 2019, who approximate
    it; this is the sum itself.
    """
    wrong = _checked_wrong(correct)
    size, num_wrong = len(wrong), int(wrong.sum())
    last = np.arange(1, num_wrong + 1)
    return float(np.sum(last / (size - num_wrong + last)) / size)


def eaurc(confidence, correct):
    """Excess AURC: `aurc` less `optimal_aurc`; 0 is perfect ranking, whatever the accuracy.

    Args and errors as for `aurc`.

    Source: Geifman et al., "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", 2019.
    """
    return aurc(confidence, correct) - optimal_aurc(correct)


def augrc(confidence, correct):
    """Area under the generalised risk-coverage curve: mean over coverages of the share answered and wrong.

    The errors are counted among all samples, not among those answered, so that the first few samples do not decide.
    Args and errors as for `aurc`.

    Source: Traub et al., "Overcoming Common Flaws in the Evaluation of Selective Classification Systems", 2024.
    """
    errors = _expected_errors(confidence, correct)
    return float(np.mean(errors) / len(errors))


def coverage_at_risk(confidence, correct, risk=0.05):
    """The largest coverage whose selective risk is at most `risk`; 0.0 where there is none.

    Args:
        confidence: (samples,) finite numbers, larger = surer.
        correct: (samples,) 1 (or True) where the answer is right, else 0.
        risk: the share of errors allowed among the answered, in [0, 1].

    Raises:
        ValueError: as `aurc` does, and for a `risk` outside [0, 1].

    Example:
        >>> coverage_at_risk([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1], risk=0.25)
        1.0
    """
    _check_risk(risk)
    errors = _expected_errors(confidence, correct)
    allowed = np.flatnonzero(errors / np.arange(1, len(errors) + 1) <= risk + RISK_TOLERANCE)
    return float((allowed[-1] + 1) / len(errors)) if allowed.size else 0.0


def risk_coverage_table(confidence, correct, num_points=100):
    """The numbers of a risk-coverage plot, at evenly spaced coverages up to 1.

    Args:
        confidence: (samples,) finite numbers, larger = surer.
        correct: (samples,) 1 (or True) where the answer is right, else 0.
        num_points: how many coverages; all of them where there are no more samples than that.

    Returns:
        {"coverage": [share answered], "risk": [selective risk], "generalized_risk": [share answered and wrong],
        "confidence": [of the least sure that is answered]}.

    Raises:
        ValueError: as `aurc` does, and for fewer than 1 point.
    """
    if isinstance(num_points, bool) or not isinstance(num_points, (int, np.integer)) or num_points < 1:
        raise ValueError(f"num_points must be an integer of at least 1. Received: num_points={num_points!r}.")
    errors = _expected_errors(confidence, correct)
    size = len(errors)
    answered = np.ceil(np.linspace(0.0, size, min(num_points, size) + 1)[1:] - 1e-9).astype(np.int64)
    errors = errors[answered - 1]
    return {
        "coverage": (answered / size).tolist(),
        "risk": (errors / answered).tolist(),
        "generalized_risk": (errors / size).tolist(),
        "confidence": np.sort(np.asarray(confidence, dtype=np.float64))[::-1][answered - 1].tolist(),
    }


def _expected_errors(confidence, correct):
    """How many errors the 1, 2, ..., n most confident samples hold, on average over the orders of equal ones."""
    confidence, wrong = np.asarray(confidence, dtype=np.float64), _checked_wrong(correct)
    if confidence.shape != wrong.shape:
        raise ValueError(
            f"confidence and correct must be of one length. Received: shapes {confidence.shape}, {wrong.shape}."
        )
    if not np.all(np.isfinite(confidence)):
        raise ValueError(f"confidence must be finite. Received: {np.sum(~np.isfinite(confidence))} that are not.")
    _, group, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    errors = np.bincount(group, weights=wrong)
    # The j-th of a group of s with k errors is expected to bring the group's errors to j k / s.
    within = np.arange(1, len(wrong) + 1) - np.repeat(np.cumsum(size) - size, size)
    return np.repeat(np.cumsum(errors) - errors, size) + within * np.repeat(errors, size) / np.repeat(size, size)


def _checked_wrong(correct):
    correct = np.asarray(correct, dtype=np.float64)
    if correct.ndim != 1 or not correct.size:
        raise ValueError(f"correct must be a non-empty 1-D array. Received: shape {correct.shape}.")
    if not np.all((correct == 0) | (correct == 1)):  # written so that NaN fails too
        raise ValueError("correct must hold 1 for a right answer and 0 for a wrong one. Received: other values.")
    return 1.0 - correct


def _check_risk(risk):
    if not 0 <= risk <= 1:
        raise ValueError(f"risk must be in [0, 1]. Received: risk={risk}. For 5 % pass risk=0.05.")


# --- from a histogram: `xp` is numpy or keras.ops ---------------------------------------------------------------------
#
# A histogram says how many samples, and how many errors, are in each cell, the surest cell first. Within a cell the
# errors may come last ("best"), first ("worst"), or be spread "evenly", as they are on average among equals.


def _runs(xp, counts, order):
    """Runs of samples with one rate of errors: (samples before, errors before, samples, errors), a tensor each."""
    size, wrong = counts[:, 0], counts[:, 1]
    before, wrong_before = xp.cumsum(size) - size, xp.cumsum(wrong) - wrong
    right, none = size - wrong, xp.zeros_like(wrong)
    pieces = {
        "best": [(right, none), (wrong, wrong)],
        "evenly": [(size, wrong)],
        "worst": [(wrong, wrong), (right, none)],
    }[order]
    for run, errors in pieces:
        yield before, wrong_before, run, errors
        before, wrong_before = before + run, wrong_before + errors


def _risk_sum(xp, before, wrong_before, size, wrong):
    """The selective risk summed over the samples of a run.

    The j-th of s samples brings it to (e + j k / s) / (m + j), with e errors among the m before and k in the run. That
    is k / s + (e - m k / s) / (m + j), and of this only 1 / (m + j) is left to sum.
    """
    rate = wrong / xp.maximum(size, 1e-300)
    return wrong + (wrong_before - rate * before) * reciprocal_ranks(xp, before, size)


def _aurc(xp, counts, order):
    total = sum(xp.sum(_risk_sum(xp, *run)) for run in _runs(xp, counts, order))
    return total / xp.maximum(xp.sum(counts[:, 0]), 1e-300)


def _optimal_aurc(xp, counts):
    size, wrong = xp.sum(counts[:, 0]), xp.sum(counts[:, 1])
    return _risk_sum(xp, size - wrong, 0.0, wrong, wrong) / xp.maximum(size, 1e-300)


def _eaurc(xp, counts, order):
    return _aurc(xp, counts, order) - _optimal_aurc(xp, counts)


def _augrc(xp, counts, order):
    total = sum(
        xp.sum(size * wrong_before + wrong * (size + 1.0) / 2.0)
        for _, wrong_before, size, wrong in _runs(xp, counts, order)
    )
    samples = xp.maximum(xp.sum(counts[:, 0]), 1e-300)
    return total / samples / samples  # the square of 1e-300 would be 0


def _coverage_at_risk(xp, counts, order, risk):
    limit, largest = risk + RISK_TOLERANCE, 0.0
    for before, wrong_before, size, wrong in _runs(xp, counts, order):
        room = limit * before - wrong_before  # for errors beyond those that the risk pays for
        surplus = wrong / xp.maximum(size, 1e-300) - limit
        part = xp.where(surplus > 0, room / xp.maximum(surplus, 1e-300), 0.0)
        part = xp.minimum(part if order == "best" else xp.floor(part), size)
        # Where the run's end is within the risk the whole run is; else, from its start on, what there is room for.
        whole = wrong_before + wrong <= limit * (before + size)
        reached = xp.where(whole, before + size, xp.where(room >= 0, before + part, 0.0))
        largest = xp.maximum(largest, xp.max(reached))
    return largest / xp.maximum(xp.sum(counts[:, 0]), 1e-300)


# --- Keras ------------------------------------------------------------------------------------------------------------


class _SelectiveMetric(ClassificationMetric):
    """Streams a histogram of the odds of being wrong, and of the errors; a subclass says what to compute from it."""

    def __init__(self, bits=DEFAULT_BITS, from_logits=False, name=None, dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        check_bits(bits)
        self.bits = int(bits)
        self.counts = self.add_sums((2**self.bits, 2), "counts")

    def compute(self, xp, counts, order):
        """The number in float64, from counts (cells, 2) of samples and errors; `xp` is numpy or keras.ops."""
        raise NotImplementedError

    def add_batch(self, batch):
        """Adds weights, and weights of errors, to the cells of the odds."""
        odds, weight = batch.odds, batch.weight
        weight = ops.where(ops.logical_and(ops.isnan(odds), weight != 0), np.nan, weight)
        # At even odds rounding leaves +-1e-17, whose leading bits say nothing.
        cell = tensor_cells(ops.where(ops.absolute(odds) < 1e-9, 0.0, odds), self.bits)
        rows = ops.stack([weight, weight * (1.0 - batch.correct)], axis=-1)
        self.counts.assign_add(ops.segment_sum(rows, cell, num_segments=2**self.bits))

    def value(self):
        """The number with the errors of each cell spread evenly over it; NaN if any prediction was NaN."""
        counts = ops.convert_to_tensor(self.counts)
        return self.compute(ops, counts, "evenly") + 0.0 * ops.sum(counts)

    def interval(self):
        """(least, greatest) value that the samples seen could have, whatever their order within a cell."""
        counts = np.asarray(ops.convert_to_numpy(self.counts))
        counts = counts[counts[:, 0] != 0]
        if not len(counts):
            return 0.0, 0.0
        return tuple(sorted(float(self.compute(np, counts, order)) for order in ("best", "worst")))

    def error_bound(self):
        """How far the result can be from the number of the exact ranking, a float."""
        least, greatest = self.interval()
        value = float(ops.convert_to_numpy(self.value()))
        return max(value - least, greatest - value)

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "bits": self.bits}


@keras.saving.register_keras_serializable("tfprune")
class AURC(_SelectiveMetric):
    """Area under the risk-coverage curve, usable in `model.compile(metrics=[...])`; see `tfprune.metrics.aurc`.

    Ranked by the log-odds of the predicted class, which is the order of the confidences with fewer ties.

    Args:
        bits: leading bits of the float32 log-odds to keep, from 10 to 24; the state is 16 * 2**bits bytes.
        from_logits: whether `y_pred` holds logits rather than probabilities; prefer logits.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Example:
        >>> metric = AURC()
        >>> metric.update_state([0, 0], [[0.9, 0.1], [0.4, 0.6]])
        >>> float(metric.result()), metric.error_bound()
        (0.25, 0.0)

    Source: Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", 2017.
    """

    def __init__(self, bits=DEFAULT_BITS, from_logits=False, name="aurc", dtype=None):
        super().__init__(bits=bits, from_logits=from_logits, name=name, dtype=dtype)

    def compute(self, xp, counts, order):
        """The AURC."""
        return _aurc(xp, counts, order)


@keras.saving.register_keras_serializable("tfprune")
class EAURC(_SelectiveMetric):
    """Excess area under the risk-coverage curve, 0 for perfect ranking; see `tfprune.metrics.eaurc`.

    Args:
        bits: leading bits of the float32 log-odds to keep, from 10 to 24; the state is 16 * 2**bits bytes.
        from_logits: whether `y_pred` holds logits rather than probabilities; prefer logits.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Geifman et al., "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", 2019.
    """

    def __init__(self, bits=DEFAULT_BITS, from_logits=False, name="eaurc", dtype=None):
        super().__init__(bits=bits, from_logits=from_logits, name=name, dtype=dtype)

    def compute(self, xp, counts, order):
        """The AURC less the least there can be with as many errors."""
        return _eaurc(xp, counts, order)


@keras.saving.register_keras_serializable("tfprune")
class AUGRC(_SelectiveMetric):
    """Area under the generalised risk-coverage curve; see `tfprune.metrics.augrc`.

    Args:
        bits: leading bits of the float32 log-odds to keep, from 10 to 24; the state is 16 * 2**bits bytes.
        from_logits: whether `y_pred` holds logits rather than probabilities; prefer logits.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Traub et al., "Overcoming Common Flaws in the Evaluation of Selective Classification Systems", 2024.
    """

    def __init__(self, bits=DEFAULT_BITS, from_logits=False, name="augrc", dtype=None):
        super().__init__(bits=bits, from_logits=from_logits, name=name, dtype=dtype)

    def compute(self, xp, counts, order):
        """The AUGRC."""
        return _augrc(xp, counts, order)


@keras.saving.register_keras_serializable("tfprune")
class CoverageAtRisk(_SelectiveMetric):
    """The largest share of samples that can be answered at a selective risk; see `tfprune.metrics.coverage_at_risk`.

    Args:
        risk: the share of errors allowed among the answered, in [0, 1].
        bits: leading bits of the float32 log-odds to keep, from 10 to 24; the state is 16 * 2**bits bytes.
        from_logits: whether `y_pred` holds logits rather than probabilities; prefer logits.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.
    """

    def __init__(self, risk=0.05, bits=DEFAULT_BITS, from_logits=False, name="coverage_at_risk", dtype=None):
        super().__init__(bits=bits, from_logits=from_logits, name=name, dtype=dtype)
        _check_risk(risk)
        self.risk = float(risk)

    def compute(self, xp, counts, order):
        """The coverage."""
        return _coverage_at_risk(xp, counts, order, self.risk)

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "risk": self.risk}
