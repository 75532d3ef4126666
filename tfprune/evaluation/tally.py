"""What has to be kept of a classifier's samples so that every metric can be told at the end?

Four numbers a sample (for ranks, and for bins that hold equally many), and sums whose size does not depend on how many
samples there are. So all metrics are exact, and the memory grows by 32 bytes a sample.
"""

import numpy as np

from tfprune.metrics.bins import bin_index, bin_totals, binned_totals, calibration_error, ratio, table_of
from tfprune.metrics.detection import msp_score
from tfprune.metrics.equal_mass import debiased_error, equal_mass_error, equal_mass_floor, ks_error
from tfprune.metrics.floor import mean_deviation
from tfprune.metrics.scores import brier, brier_parts, class_indices, entropy, nll, softmax
from tfprune.metrics.selective import augrc, aurc, coverage_at_risk, eaurc
from tfprune.metrics.smooth import smooth_error


class Tally:
    """Adds up batches of logits and labels, and gives the metrics of all of them as a flat row.

    Args:
        num_bins: number of bins of every binned error.
    """

    def __init__(self, num_bins):
        self.num_bins, self.num_samples, self.nll, self.brier = num_bins, 0, 0.0, 0.0
        self.columns = {"confidence": [], "correct": [], "entropy": [], "odds": []}
        self.classwise = self.groups = self.confusion = self.squares = self.at_label = 0

    def add(self, logits, labels):
        """Adds a batch: logits (samples, classes), and labels as the metrics take them."""
        p = softmax(logits)
        labels = class_indices(labels, p.shape[1])
        predicted, size = p.argmax(axis=1), len(p)
        self.num_samples += size
        self.nll += size * nll(logits, labels)
        self.brier += size * brier(p, labels)
        self.columns["confidence"].append(p.max(axis=1))
        self.columns["correct"].append((predicted == labels).astype(np.float64))
        self.columns["entropy"].append(entropy(p))
        self.columns["odds"].append(msp_score(logits))
        self.classwise = self.classwise + _classwise_totals(p, labels, self.num_bins)
        self._add_groups(p, labels, predicted)

    def _add_groups(self, p, labels, predicted):
        num_classes = p.shape[1]
        groups, confusion = np.zeros((num_classes, num_classes)), np.zeros((num_classes, num_classes))
        np.add.at(groups, predicted, p)
        np.add.at(confusion, (predicted, labels), 1.0)
        self.groups, self.confusion = self.groups + groups, self.confusion + confusion
        self.squares += np.sum(p**2)
        self.at_label += np.take_along_axis(p, labels[:, None], axis=1).sum()

    def row(self):
        """`{metric: number}`, and the lists of the reliability table."""
        confidence, correct, nats, odds = (np.concatenate(column) for column in self.columns.values())
        totals = bin_totals(confidence, correct, self.num_bins)
        parts = brier_parts(np, self.groups, self.confusion, self.squares, self.at_label)
        return {
            "accuracy": float(correct.mean()),
            "nll": float(self.nll / self.num_samples),
            "brier": float(self.brier / self.num_samples),
            **{f"brier_{name}": float(value) for name, value in parts.items()},
            **_with_floor("ece", calibration_error(totals), _floor(*totals[:2])),
            "ece_l2": calibration_error(totals, "l2"),
            "ece_max": calibration_error(totals, "max"),
            "average_calibration_error": calibration_error(totals, "mean"),
            **_with_floor("equal_mass_ece", *self._equal_mass(confidence, correct)),
            **_with_floor("classwise_ece", *self._by_class()),
            "debiased_calibration_error": debiased_error(confidence, correct, self.num_bins),
            "smooth_ece": smooth_error(confidence, correct),
            "ks_calibration_error": ks_error(confidence, correct),
            **self._by_entropy(confidence, correct, nats / np.log(len(self.groups))),
            "confidence_gap": float(confidence.mean() - correct.mean()),
            "mean_confidence": float(confidence.mean()),
            "mean_entropy": float(nats.mean()),
            **_selective(-odds, correct),
            "num_samples": self.num_samples,
            "num_bins": int(self.num_bins),
            **{f"reliability_{column}": values for column, values in table_of(totals).items()},
        }

    def _equal_mass(self, confidence, correct):
        return equal_mass_error(confidence, correct, self.num_bins), equal_mass_floor(confidence, self.num_bins)

    def _by_class(self):
        errors = [calibration_error(totals) for totals in self.classwise]
        return float(np.mean(errors)), float(np.mean([_floor(*totals[:2]) for totals in self.classwise]))

    def _by_entropy(self, confidence, correct, uncertainty):
        uncertainty = np.clip(uncertainty, 0.0, 1.0)
        given = (1.0 - confidence, 1.0 - correct, self.num_bins)
        return {
            "uce": calibration_error(bin_totals(uncertainty, 1.0 - correct, self.num_bins)),
            "uce_reference": calibration_error(bin_totals(uncertainty, 1.0 - confidence, self.num_bins)),
            "entropy_confidence_gap": calibration_error(binned_totals(uncertainty, *given)),
        }


def _selective(confidence, correct):
    return {
        "aurc": aurc(confidence, correct),
        "eaurc": eaurc(confidence, correct),
        "augrc": augrc(confidence, correct),
        "coverage_at_5_risk": coverage_at_risk(confidence, correct, risk=0.05),
    }


def _with_floor(name, error, floor):
    return {name: error, f"{name}_floor": floor, f"{name}_excess": error - floor}


def _floor(count, value):
    """What a binned error would be on average if the predictions were calibrated, from counts and sums of a bin."""
    return float(np.sum(count * mean_deviation(count, ratio(np, value, count))) / count.sum())


def _classwise_totals(p, labels, num_bins):
    """`bin_totals` of each class' probability against whether it is the label, (classes, 3, num_bins)."""
    num_classes = p.shape[1]
    cell = bin_index(p, num_bins) + num_bins * np.arange(num_classes)
    hits = cell[np.arange(len(p)), labels]
    rows = ((cell.ravel(), None), (cell.ravel(), p.ravel()), (hits, None))
    totals = [np.bincount(cells, weights, minlength=num_classes * num_bins) for cells, weights in rows]
    return np.stack(totals).reshape(3, num_classes, num_bins).transpose(1, 0, 2).astype(np.float64)
