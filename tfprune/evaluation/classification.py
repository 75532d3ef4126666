"""How good is a model, how far may its confidence be trusted, does it notice strangers, and what does it cost?

`evaluate` answers in one pass over the data, with one flat row of plain numbers:

    accuracy, nll, brier                              is it right (metrics/scores.py)
    ece, uce, mean_confidence                         does its confidence match (metrics/calibration.py)
    num_samples, num_bins
    reliability_count, reliability_confidence,
    reliability_accuracy                              lists of num_bins, the latter two with None where a bin is empty
    nll_epsilon                                       None; the smallest probability told apart from 0 where the model
                                                      gives probabilities only, for their logarithm is taken
    parameters, multiply_adds, bytes                  what it costs (structure/cost.py)
    compression_ratio, theoretical_speedup            dense / this model; 1.0 where no dense model is known
    latency_ms                                        where asked for
    NAME/num_samples, NAME/mean_confidence            for each out-of-distribution set NAME
    NAME/auroc_SCORE, NAME/aupr_out_SCORE,
    NAME/aupr_in_SCORE, NAME/fpr95_SCORE              is it told from the data (metrics/detection.py), by SCORE:
                                                      msp (maximum softmax probability) or entropy

All numbers are computed in float64 from the logits before the model's softmax or sigmoid, so that nothing saturates.
Memory stays bounded, but for the scores of the out-of-distribution comparison: these are ranked exactly, and take 16
bytes a sample.
"""

import numpy as np

from tfprune.evaluation.expense import cost_row
from tfprune.metrics.calibration import (
    bin_totals,
    calibration_error,
    check_num_bins,
    confidence_and_correctness,
    table_of,
    uncertainty_and_error,
)
from tfprune.metrics.detection import SCORES, detection
from tfprune.metrics.scores import brier, nll, softmax
from tfprune.predictions import Predictor, batches, check_batch_size


def evaluate(model, data, ood=None, from_logits=None, dense=None, num_bins=15, batch_size=256, latency=False):
    """Measures accuracy, calibration, detection of strangers and cost of a classifier; returns one flat row.

    Args:
        model: a built Keras model with one output, (samples, classes), or one sigmoid column for two classes; or
            anything with `.predict(x)`.
        data: `(x, y)` arrays, or a `tf.data.Dataset` of `(x, y)`, batched or not. `y` holds integers or one-hot rows.
        ood: `{name: data}` of out-of-distribution sets: arrays `x`, `(x, y)`, or a `tf.data.Dataset` of either; `y` is
            not looked at.
        from_logits: whether the model's outputs are logits. None reads it off the model's last layer.
        dense: the dense model to compare the cost with, or what `cost` said of it. None takes the one that
            `tfprune.shrink` recorded on the ticket, if any.
        num_bins: bins of `ece`, `uce` and the reliability table.
        batch_size: samples at a time, for arrays and unbatched data sets.
        latency: whether to measure `latency_ms` (median, one sample).

    Returns:
        A flat dict of ints, floats, lists and None, ready for JSON. The module's text lists its keys.

    Raises:
        ValueError: where logits and probabilities cannot be told apart; for outputs that hold NaN or are not what was
            said; for empty data, labels out of range, shapes that do not match, several outputs, or an unbuilt model.
        TypeError: for data, `ood` or a model of a kind that is not listed above.

    Example:
        >>> row = tfprune.evaluate(ticket, (x_test, y_test), ood={"cifar100": cifar100})
        >>> row["ece"], row["cifar100/auroc_msp"]
    """
    check_num_bins(num_bins)
    check_batch_size(batch_size)
    ood = _checked_ood(ood)
    predict = Predictor(model, from_logits)
    known = _Totals(num_bins, keep_scores=bool(ood))
    for x, y in batches(data, model, batch_size, "data"):
        known.add(predict(x), y)
    row = {**known.row("data"), "nll_epsilon": predict.epsilon, **cost_row(model, predict.traced, dense, latency)}
    for name, strangers in ood.items():
        row |= _ood_row(name, strangers, model, predict, known, batch_size)
    return row


class _Totals:
    """What is kept of the samples seen so far."""

    def __init__(self, num_bins, keep_scores):
        self.num_bins, self.keep_scores = num_bins, keep_scores
        self.num_samples, self.nll, self.brier, self.confidence = 0, 0.0, 0.0, 0.0
        self.by_confidence = np.zeros((3, num_bins))
        self.by_uncertainty = np.zeros((3, num_bins))
        self.scores = {name: [] for name in SCORES}

    def add(self, logits, labels=None):
        """Adds a batch; without labels only what strangers are asked for."""
        probabilities, size = softmax(logits), len(logits)
        self.num_samples += size
        self.confidence += probabilities.max(axis=1).sum()
        if self.keep_scores:
            for name, score in SCORES.items():
                self.scores[name].append(score(logits))
        if labels is None:
            return
        self.nll += size * nll(logits, labels)
        self.brier += size * brier(probabilities, labels)
        self.by_confidence += bin_totals(*confidence_and_correctness(probabilities, labels), self.num_bins)
        self.by_uncertainty += bin_totals(*uncertainty_and_error(probabilities, labels), self.num_bins)

    def row(self, what):
        self.check(what)
        table = table_of(self.by_confidence)
        return {
            "accuracy": float(self.by_confidence[2].sum() / self.num_samples),
            "nll": float(self.nll / self.num_samples),
            "brier": float(self.brier / self.num_samples),
            "ece": calibration_error(self.by_confidence),
            "uce": calibration_error(self.by_uncertainty),
            "mean_confidence": self.mean_confidence,
            "num_samples": self.num_samples,
            "num_bins": int(self.num_bins),
            **{f"reliability_{column}": values for column, values in table.items()},
        }

    def check(self, what):
        if not self.num_samples:
            raise ValueError(f"evaluate needs at least one sample. Received: {what} without any.")

    @property
    def mean_confidence(self):
        return float(self.confidence / self.num_samples)


def _ood_row(name, strangers, model, predict, known, batch_size):
    what = f"ood[{name!r}]"
    seen = _Totals(known.num_bins, keep_scores=True)
    for x, _ in batches(strangers, model, batch_size, what, labelled=False, like=predict.sample_shape):
        seen.add(predict(x))
    seen.check(what)
    row = {f"{name}/num_samples": seen.num_samples, f"{name}/mean_confidence": seen.mean_confidence}
    for score in SCORES:
        measured = detection(np.concatenate(known.scores[score]), np.concatenate(seen.scores[score]))
        row |= {f"{name}/{metric}_{score}": value for metric, value in measured.items()}
    return row


def _checked_ood(ood):
    if ood is None:
        return {}
    if not isinstance(ood, dict) or not all(isinstance(name, str) and name for name in ood):
        raise TypeError(
            f"ood must be a dict of names and data sets. Received: {type(ood).__name__}. "
            'Pass ood={"cifar100": x}, for example.'
        )
    return ood
