"""Are a model's features fit for a detector? Dead channels, lost rank, classes that are never predicted.

Pruning kills channels and classes, and a detector fitted on what is left may divide by zero. The detectors guard
against it; the report says what they had to guard against.
"""

import numpy as np

from tfprune.uncertainty.detectors.covariance import mean_square, rank_of, second_moment, spectrum


class Health(dict):
    """A plain dict of numbers and lists, ready for JSON, that prints as lines; "warnings" is a list of sentences."""

    def __str__(self):
        """One line an entry, then the warnings."""
        width = max(map(len, self), default=0)
        lines = [f"{key:<{width}}  {_short(value)}" for key, value in self.items() if key != "warnings"]
        return "\n".join(lines + [f"warning: {warning}" for warning in self.get("warnings", [])])


def health_report(features=None, logits=None, labels=None):
    """What may trouble a detector in these samples; returns a `Health`.

    Args:
        features: (samples, features), or None.
        logits: (samples, classes), or None.
        labels: (samples,) integers, or None. Needs logits.

    Returns:
        With features: "num_features", "num_dead" (zero in every sample), "num_constant" (the same in every sample but
        not zero), "rank" of their covariance, "effective_rank" (the exponential of the entropy of its singular values'
        shares), "condition_number" (largest / smallest eigenvalue within the rank, None where the rank is 0) and
        "zero_norm_share" (of samples whose features are all zero). With logits: "predicted_counts" for each class and
        "classes_never_predicted". With labels: "class_counts", "classes_without_samples" and
        "classes_without_correct_samples". And always "num_samples" and "warnings".

    Example:
        >>> print(health_report(features, logits, labels))

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality", 2007.
    """
    report = Health(num_samples=len(features if features is not None else logits))
    if features is not None:
        report |= _of_features(np.asarray(features, dtype=np.float64))
    if logits is not None:
        report |= _of_predictions(np.argmax(logits, axis=1), np.shape(logits)[1], labels)
    report["warnings"] = _warnings(report)
    return report


def _of_features(features):
    dead = np.all(features == 0, axis=0)
    constant = np.all(features == features[0], axis=0) & ~dead
    values, _ = spectrum(second_moment(features - features.mean(axis=0)))
    rank = rank_of(values, mean_square(features))
    shares = np.sqrt(values[:rank]) / max(np.sqrt(values[:rank]).sum(), np.finfo(float).tiny)
    return {
        "num_features": features.shape[1],
        "num_dead": int(dead.sum()),
        "num_constant": int(constant.sum()),
        "rank": rank,
        "effective_rank": float(np.exp(-np.sum(shares * np.log(shares)))) if rank else 0.0,
        "condition_number": float(values[0] / values[rank - 1]) if rank else None,
        "zero_norm_share": float(np.mean(np.all(features == 0, axis=1))),
    }


def _of_predictions(predicted, num_classes, labels):
    counts = np.bincount(predicted, minlength=num_classes)
    found = {"predicted_counts": counts.tolist(), "classes_never_predicted": np.flatnonzero(counts == 0).tolist()}
    if labels is not None:
        present = np.bincount(labels, minlength=num_classes)
        correct = np.bincount(labels[labels == predicted], minlength=num_classes)
        found["class_counts"] = present.tolist()
        found["classes_without_samples"] = np.flatnonzero(present == 0).tolist()
        found["classes_without_correct_samples"] = np.flatnonzero(correct == 0).tolist()
    return found


def _warnings(report):
    said = {
        "num_dead": "{value} of {num_features} channels are dead (zero in every sample)",
        "num_constant": "{value} of {num_features} channels are constant",
        "zero_norm_share": "{value:.1%} of the samples have no feature above zero: their direction is undefined",
        "classes_never_predicted": "classes {value} are never predicted",
        "classes_without_samples": "classes {value} have no samples",
        "classes_without_correct_samples": "classes {value} have no correctly classified samples",
    }
    found = [text.format(value=report[key], **report) for key, text in said.items() if report.get(key)]
    live = report.get("num_features", 0) - report.get("num_dead", 0) - report.get("num_constant", 0)
    if report.get("rank", live) < live:
        found.append(f"the features that vary span {report['rank']} directions only, of {live}")
    return found


def _short(value):
    if isinstance(value, list) and len(value) > 12:
        return f"[{', '.join(map(str, value[:10]))}, ... ({len(value)} in all)]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
