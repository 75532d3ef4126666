"""What is kept of models that see the same samples? Sums: of each model, of what changed, and of its resamples."""

import numpy as np

from tfprune.metrics.bins import bin_index, bin_totals
from tfprune.metrics.floor import mean_deviation
from tfprune.metrics.scores import log_softmax
from tfprune.significance import PoissonWeights

# How many of the samples whose predicted class changed are listed.
NUM_FLIPS = 100
# means over samples, in the order of the columns that are summed
SUMMED = ("accuracy", "nll", "brier", "mean_confidence")


class Seen:
    """What one model says of a batch, in float64.

    Args:
        logits: (samples, classes).
        labels: (samples,) integers.
    """

    def __init__(self, logits, labels):
        self.labels = labels
        self.log_probabilities = log_softmax(logits)
        self.probabilities = np.exp(self.log_probabilities)
        self.predicted = self.probabilities.argmax(axis=1)
        self.confidence = self.probabilities.max(axis=1)
        self.correct = (self.predicted == labels).astype(np.float64)
        self.entropy = -np.sum(self.probabilities * self.log_probabilities, axis=1)

    def columns(self, num_bins):
        """What is summed, (samples, 4 + num_bins): the `SUMMED`, and accuracy - confidence in the sample's bin."""
        row = np.arange(len(self.labels))
        nll = -self.log_probabilities[row, self.labels]
        # |p - onehot|**2 = |p|**2 - 2 p_label + 1
        brier = np.sum(self.probabilities**2, axis=1) - 2 * self.probabilities[row, self.labels] + 1
        gaps = np.zeros((len(row), num_bins))
        gaps[row, bin_index(self.confidence, num_bins)] = self.correct - self.confidence
        return np.column_stack([self.correct, nll, brier, self.confidence, gaps])


def measures(sums, count):
    """The `SUMMED` and the calibration error from sums of `Seen.columns`, (..., 4 + num_bins)."""
    values = {name: sums[..., i] / count for i, name in enumerate(SUMMED)}
    return {**values, "ece": np.abs(sums[..., len(SUMMED) :]).sum(axis=-1) / count}


class ModelTally:
    """Sums of one model over the samples, and over their resamples.

    Args:
        num_bins: bins of the calibration error.
        num_bootstraps: how many resamples.
    """

    def __init__(self, num_bins, num_bootstraps):
        self.num_bins, self.totals = num_bins, np.zeros((3, num_bins))
        width = len(SUMMED) + num_bins
        self.sums, self.resampled = np.zeros(width), np.zeros((num_bootstraps, width))

    def add(self, seen, weights):
        """Adds a batch with its (num_bootstraps, samples) weights."""
        columns = seen.columns(self.num_bins)
        self.totals += bin_totals(seen.confidence, seen.correct, self.num_bins)
        self.sums += columns.sum(axis=0)
        # One product per model, all of one shape: two equal models then differ by exactly nothing.
        self.resampled += weights @ columns

    def values(self):
        """Measures on the samples; `ece_excess` is what the noise floor leaves of the calibration error."""
        values = {name: float(value) for name, value in measures(self.sums, self.totals[0].sum()).items()}
        floor = ece_floor(self.totals)
        return {**values, "ece_floor": floor, "ece_excess": values["ece"] - floor}

    def replicates(self, some, count):
        """Measures on some of the resamples, of so many samples. The floor varies too little to be drawn again."""
        replicates = measures(self.resampled[some], count)
        return {**replicates, "ece_excess": replicates["ece"]}


def ece_floor(totals):
    """Calibration error that chance alone gives if each bin's mean confidence is right, from `bin_totals`; never 0."""
    count, confidence, _ = totals
    return float(np.sum(count * mean_deviation(count, confidence / np.maximum(count, 1))) / count.sum())


class JointTally:
    """Sums of several models over the same samples and the same resamples of them.

    Args:
        num_models: how many models.
        num_bins: bins of the calibration error.
        num_bootstraps: how many resamples.
        seed: fixes the resamples.
    """

    def __init__(self, num_models, num_bins, num_bootstraps, seed):
        self.models = [ModelTally(num_bins, num_bootstraps) for _ in range(num_models)]
        self.weights, self.resampled_count = PoissonWeights(num_bootstraps, seed), np.zeros(num_bootstraps)

    def add(self, logits, labels):
        """Adds a batch, the logits of each model and the labels; returns what each model has `Seen`."""
        weights = self.weights.draw(len(labels))
        self.resampled_count += weights.sum(axis=1)
        batch = [Seen(z, labels) for z in logits]
        for tally, seen in zip(self.models, batch, strict=True):
            tally.add(seen, weights)
        return batch

    def replicates(self):
        """Measures of each model on the resamples that hold any sample: [{name: (resamples,)}]."""
        some = self.resampled_count > 0
        return [tally.replicates(some, self.resampled_count[some]) for tally in self.models]


class ChangeTally:
    """What becomes of each sample between a dense model and a pruned one.

    Args:
        num_classes: how many classes there are.
    """

    def __init__(self, num_classes):
        self.count = 0
        self.sums = dict.fromkeys(("agreed", "kl", "js", "confidence_agreed", "entropy"), 0.0)
        # per class of the label: samples, both right, lost, gained, change of confidence and its square
        self.by_class = np.zeros((6, num_classes))
        self.flips = {}

    def add(self, dense, pruned):
        """Adds what two models have `Seen` of a batch."""
        agreed, change = dense.predicted == pruned.predicted, pruned.confidence - dense.confidence
        kl, js = divergences(dense, pruned)
        for name, values in {
            "agreed": agreed,
            "kl": kl,
            "js": js,
            "confidence_agreed": change * agreed,
            "entropy": np.abs(pruned.entropy - dense.entropy),
        }.items():
            self.sums[name] += float(values.sum())
        right, lost = dense.correct * pruned.correct, dense.correct * (1 - pruned.correct)
        gained = pruned.correct * (1 - dense.correct)
        for total, values in zip(
            self.by_class, (np.ones_like(change), right, lost, gained, change, change**2), strict=True
        ):
            total += np.bincount(dense.labels, values, minlength=len(total))
        self._keep_flips(dense, pruned, kl, np.flatnonzero(~agreed))
        self.count += len(change)

    def _keep_flips(self, dense, pruned, kl, where):
        """Keeps the samples whose predicted class changed, the largest divergences only."""
        kind = np.where(dense.correct > 0, "lost", np.where(pruned.correct > 0, "gained", "both_wrong"))
        flips = {
            "id": self.count + where,
            "label": dense.labels[where],
            "kind": kind[where],
            "dense_class": dense.predicted[where],
            "pruned_class": pruned.predicted[where],
            "dense_confidence": dense.confidence[where],
            "pruned_confidence": pruned.confidence[where],
            "kl": kl[where],
        }
        both = {name: np.concatenate([self.flips.get(name, values[:0]), values]) for name, values in flips.items()}
        largest = np.argsort(-both["kl"], kind="stable")[:NUM_FLIPS]
        self.flips = {name: values[largest] for name, values in both.items()}

    def row(self):
        """Flat: counts of the flip matrix, and means over samples."""
        both_right, lost, gained = (int(n) for n in self.by_class[1:4].sum(axis=1))
        n, agreed = self.count, self.sums["agreed"]
        return {
            "both_right": both_right,
            "lost": lost,
            "gained": gained,
            "both_wrong": n - both_right - lost - gained,
            "agreement": agreed / n,
            "kl_divergence": self.sums["kl"] / n,
            "js_divergence": self.sums["js"] / n,
            "confidence_change_agreed": self.sums["confidence_agreed"] / agreed if agreed else None,
            "entropy_change": self.sums["entropy"] / n,
        }


def divergences(dense, pruned):
    """KL(dense || pruned) and Jensen-Shannon divergence of each sample, in nats; exactly 0 where both say the same."""
    ahead = dense.log_probabilities - pruned.log_probabilities
    kl = np.sum(dense.probabilities * ahead, axis=1)
    # log of the mixture over p is log((1 + q / p) / 2), and 0 where q = p
    to_mixture = -dense.probabilities * (np.logaddexp(0, -ahead) - np.log(2))
    to_mixture -= pruned.probabilities * (np.logaddexp(0, ahead) - np.log(2))
    return np.maximum(kl, 0.0), np.maximum(to_mixture.sum(axis=1) / 2, 0.0)
