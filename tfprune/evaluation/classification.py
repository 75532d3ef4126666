"""How good is a classifier, how far may its confidence be trusted, does it notice strangers, and what does it cost?

`evaluate` answers in one pass over the data, with one flat row of plain numbers:

    accuracy, nll, brier                              is it right (metrics/scores.py)
    brier_uncertainty, brier_resolution,
    brier_reliability, brier_within_bin_variance,
    brier_within_bin_covariance                       why the Brier score is what it is
    ece, equal_mass_ece, classwise_ece                does its confidence match (metrics/calibration.py, equal_mass.py)
    ece_floor, ece_excess ...                         of these three: what it would be if the model were calibrated, and
                                                      what it is above that
    ece_l2, ece_max, average_calibration_error,
    debiased_calibration_error, smooth_ece,
    ks_calibration_error                              the same question, measured otherwise
    uce, uce_reference, entropy_confidence_gap        by entropy (metrics/entropy_calibration.py)
    confidence_gap, mean_confidence, mean_entropy     confidence_gap is mean confidence - accuracy
    aurc, eaurc, augrc, coverage_at_5_risk            does it know which answers are wrong (metrics/selective.py)
    num_samples, num_bins
    reliability_count, reliability_confidence,
    reliability_accuracy                              lists of num_bins, the latter two with None where a bin is empty
    nll_epsilon                                       None; the smallest probability told apart from 0 where the model
                                                      gives probabilities only, for their logarithm is taken
    leak                                              None; the share of samples that something was fitted on, where
                                                      the model or a detector remembers its data
    parameters, multiply_adds, bytes                  what it costs (structure/cost.py)
    compression_ratio, theoretical_speedup            dense / this model; 1.0 where no dense model is known
    latency_ms                                        where asked for
    NAME/num_samples, NAME/mean_confidence            for each out-of-distribution set NAME
    NAME/METRIC_SCORE                                 is it told from the data: auroc, aupr_out, aupr_in, ap_out, ap_in,
                                                      fpr95, fpr95_id, detection_accuracy (metrics/detection.py) by the
                                                      score of each detector (uncertainty/detectors), and by those that
                                                      the model itself gives, such as mutual_information
    num_features, num_dead_features, feature_rank     where a detector was fitted on features

All numbers are computed in float64 from the logits before the model's softmax or sigmoid, so that nothing saturates,
and are exact: 32 bytes a sample are kept, and 8 for every score.
"""

import numpy as np

from tfprune.evaluation.expense import cost_row
from tfprune.evaluation.tally import Tally
from tfprune.metrics.bins import check_num_bins
from tfprune.metrics.detection import detection
from tfprune.metrics.scores import softmax
from tfprune.predictions import Predictor, batches, check_batch_size, checked_ood
from tfprune.uncertainty import detectors as ood_detectors
from tfprune.uncertainty.leak import Fingerprint, check_leak, find_fingerprints


def evaluate(
    model,
    data,
    ood=None,
    detectors=("msp", "entropy"),
    train=None,
    from_logits=None,
    dense=None,
    num_bins=15,
    batch_size=256,
    latency=False,
    allow_leak=False,
):
    """Measures accuracy, calibration, detection of strangers and cost of a classifier; returns one flat row.

    Args:
        model: a built Keras model with one output, (samples, classes), or one sigmoid column for two classes; or
            anything with `.predict(x)`, such as an ensemble.
        data: `(x, y)` arrays, or a `tf.data.Dataset` of `(x, y)`, batched or not. `y` holds integers or one-hot rows.
        ood: `{name: data}` of out-of-distribution sets: arrays `x`, `(x, y)`, or a `tf.data.Dataset` of either; `y` is
            not looked at.
        detectors: names from `tfprune.uncertainty.detectors.DETECTORS`, or detectors; "all" stands for all of them.
            Those that are not fitted are fitted on this model.
        train: in-distribution data of the same kind as `data`, for detectors that have to be fitted.
        from_logits: whether the model's outputs are logits. None reads it off the model's last layer.
        dense: the dense model to compare the cost with, or what `cost` said of it. None takes the one that
            `tfprune.shrink` recorded on the ticket, if any.
        num_bins: bins of the binned errors and of the reliability table.
        batch_size: samples at a time, for arrays and unbatched data sets.
        latency: whether to measure `latency_ms` (median, one sample).
        allow_leak: whether to evaluate on samples that a calibrator or a detector was fitted on.

    Returns:
        A flat dict of ints, floats, lists and None, ready for JSON. The module's text lists its keys.

    Raises:
        ValueError: where logits and probabilities cannot be told apart; for outputs that hold NaN or are not what was
            said; for empty data, labels out of range, shapes that do not match, several outputs, or an unbuilt model;
            for detectors that need what this model or `train` does not give, or were fitted on other weights.
        TypeError: for data, `ood` or a model of a kind that is not listed above.
        LeakError: where something was fitted on samples of `data` (a ValueError).

    Example:
        >>> row = tfprune.evaluate(ticket, (x_test, y_test), ood={"cifar100": cifar100})
        >>> row["ece"], row["ece_floor"], row["cifar100/auroc_msp"]
    """
    check_num_bins(num_bins)
    check_batch_size(batch_size)
    ood = checked_ood(ood)
    scorer = _Scorer(model, detectors if ood else (), train, from_logits, batch_size)
    tally, scores, seen = Tally(num_bins), {}, Fingerprint() if scorer.fingerprints else None
    for x, y in batches(data, model, batch_size, "data"):
        logits, found = scorer(x)
        tally.add(logits, y)
        _append(scores, found)
        if seen is not None:
            seen.add(x)
    if not tally.num_samples:
        raise ValueError("evaluate needs at least one sample. Received: data without any.")
    leak = None if seen is None else check_leak(scorer.fingerprints, seen, allow_leak)
    known = {name: np.concatenate(parts) for name, parts in scores.items()}
    row = {**tally.row(), **{f"mean_{name}": float(known[name].mean()) for name in scorer.own}}
    row |= {"nll_epsilon": scorer.predict.epsilon, "leak": leak, **scorer.health}
    row |= cost_row(model, scorer.predict.traced, dense, latency)
    for name, strangers in ood.items():
        row |= _ood_row(name, strangers, model, scorer, known, batch_size)
    return row


class _Scorer:
    """Batch -> (logits, {score: values}), in one forward pass; of a model, with detectors or without."""

    def __init__(self, model, detectors, train, from_logits, batch_size):
        detectors = list(ood_detectors.DETECTORS) if isinstance(detectors, str) and detectors == "all" else detectors
        self.detectors = [ood_detectors.get(detector) for detector in detectors]
        self.own = ()
        if any(_needs_panel(detector) for detector in self.detectors):
            self._fit(model, train, from_logits, batch_size)
            panel = ood_detectors.Panel(self.detectors)
            self.predict, self.run = panel.source, panel.with_scores
        else:
            # Building the features of a model costs more than evaluating a small one.
            self.predict = Predictor(model, from_logits)
            self.run = self._of_logits
            for detector in self.detectors:
                detector.check_source(self.predict)
        self.fingerprints = find_fingerprints([model, *self.detectors])

    def __call__(self, x):
        logits, found = self.run(x)
        self.own = tuple(name for name in found if name not in {detector.name for detector in self.detectors})
        return logits, found

    def _of_logits(self, x):
        logits, known = self.predict.with_scores(x)
        batch = ood_detectors.FeaturesBatch(x, logits)
        return logits, {**known, **{detector.name: detector.scores_of(batch) for detector in self.detectors}}

    def _fit(self, model, train, from_logits, batch_size):
        unfitted = [detector for detector in self.detectors if detector.source is None]
        learners = [detector.name for detector in unfitted if detector.learns_from]
        if learners and train is None:
            raise ValueError(
                f"These detectors learn from data: {', '.join(learners)}. Pass train=(x_train, y_train) to have them "
                "fitted on this model, or pass detectors that are. Received: train=None."
            )
        for detector in self.detectors:
            if detector.source is not None and detector.source.model is not model:
                detector.bind(model)
        if unfitted:
            ood_detectors.fit_all(unfitted, model, train if learners else None, from_logits, batch_size)

    @property
    def health(self):
        """What is known of the features that detectors were fitted on."""
        found = [detector.health for detector in self.detectors if detector.health and "rank" in detector.health]
        keys = {"num_features": "num_features", "num_dead_features": "num_dead", "feature_rank": "rank"}
        return {ours: found[0][theirs] for ours, theirs in keys.items()} if found else {}


def _needs_panel(detector):
    return not set(detector.needs) <= {"logits"} or detector.learns_from or detector.source is not None


def _append(scores, found):
    for name, values in found.items():
        scores.setdefault(name, []).append(values)


def _ood_row(name, strangers, model, scorer, known, batch_size):
    what, scores, confidences = f"ood[{name!r}]", {}, []
    for x, _ in batches(strangers, model, batch_size, what, labelled=False, like=scorer.predict.sample_shape):
        logits, found = scorer(x)
        confidences.append(softmax(logits).max(axis=1))
        _append(scores, found)
    if not confidences:
        raise ValueError(f"evaluate needs at least one sample. Received: {what} without any.")
    confidence = np.concatenate(confidences)
    row = {f"{name}/num_samples": len(confidence), f"{name}/mean_confidence": float(confidence.mean())}
    for score, parts in scores.items():
        measured = detection(known[score], np.concatenate(parts))
        row |= {f"{name}/{metric}_{score}": value for metric, value in measured.items()}
    return row
