"""Which samples does pruning change the answer to, over many seeds? Pruning-identified exemplars.

A sample is one where the dense models' most frequent class is not the pruned models'. Of classes that are equally
frequent the smallest counts. That alone is no evidence: two populations of unsteady models differ somewhere. So each
sample has a permutation p-value, exact over all ways to deal the votes out to the two populations again.

Source: Hooker et al., "What Do Compressed Deep Neural Networks Forget?", 2019.
"""

import functools
import math

import numpy as np

from tfprune.comparison.tallies import ece_floor
from tfprune.metrics.bins import bin_totals, calibration_error
from tfprune.significance import benjamini_hochberg


def votes(predicted, num_classes):
    """How many models predict each class, (samples, classes).

    Args:
        predicted: (models, samples) classes.
        num_classes: how many classes there are.
    """
    counts = np.zeros((predicted.shape[1], num_classes), dtype=np.int64)
    for classes in predicted:
        counts[np.arange(len(classes)), classes] += 1
    return counts


def modal_class(counts):
    """Most frequent class of each sample, the smallest of several; (samples,) from (samples, classes)."""
    return counts.argmax(axis=1)


def permutation_p_values(dense, pruned):
    """Chance that votes dealt out at random differ as much between two populations as these do, (samples,).

    The difference is the total variation of the two shares of votes. All models of both populations are taken to be
    exchangeable if pruning changes nothing. (Where a pruned model resembles the dense one of its own seed, the p-values
    are too large rather than too small.)

    Args:
        dense: (samples, classes) votes of the dense models.
        pruned: (samples, classes) votes of the pruned models.
    """
    p_values = np.ones(len(dense))
    # where all models agree there is nothing to deal out
    for i in np.flatnonzero((dense + pruned).max(axis=1) < (dense + pruned).sum(axis=1)):
        classes = np.flatnonzero(dense[i] + pruned[i])
        pairs = sorted(zip(dense[i, classes].tolist(), pruned[i, classes].tolist(), strict=True))
        p_values[i] = _permutation_p(tuple(pairs))
    return p_values


@functools.lru_cache(maxsize=65_536)
def _permutation_p(pairs):
    """p-value of one sample from the `(dense, pruned)` votes of each class that has any."""
    num_dense, num_pruned = map(sum, zip(*pairs, strict=True))
    # (votes dealt to the dense models so far, distance so far in whole numbers) -> in how many ways
    ways = {(0, 0): 1}
    for votes_of_class in map(sum, pairs):
        ways = _deal(ways, votes_of_class, num_dense, num_pruned)
    observed = sum(abs(a * num_pruned - b * num_dense) for a, b in pairs)
    extreme = sum(n for (dealt, distance), n in ways.items() if dealt == num_dense and distance >= observed)
    return extreme / math.comb(num_dense + num_pruned, num_dense)


def _deal(ways, votes_of_class, num_dense, num_pruned):
    """Deals the votes of one more class out."""
    after = {}
    for (dealt, distance), n in ways.items():
        for a in range(min(votes_of_class, num_dense - dealt) + 1):
            key = dealt + a, distance + abs(a * num_pruned - (votes_of_class - a) * num_dense)
            after[key] = after.get(key, 0) + n * math.comb(votes_of_class, a)
    return after


class ExemplarTally:
    """Finds exemplars as the samples come, and keeps how good the models are on them and on the rest.

    Args:
        num_seeds: how many dense models; there are as many pruned ones.
        num_classes: how many classes there are.
        num_bins: bins of the calibration error.
    """

    def __init__(self, num_seeds, num_classes, num_bins):
        self.num_seeds, self.num_classes, self.count = num_seeds, num_classes, 0
        self.found, self.p_values = [], []
        # rest or exemplars, dense or pruned, seed
        self.totals = np.zeros((2, 2, num_seeds, 3, num_bins))
        self.agreeing = dict.fromkeys(("dense", "pruned", "cross"), 0.0)

    def add(self, batch):
        """Adds what all models have `Seen`: first the dense ones, then the pruned ones in the same order."""
        predicted, labels = np.stack([seen.predicted for seen in batch]), batch[0].labels
        dense, pruned = (votes(part, self.num_classes) for part in np.split(predicted, 2))
        modal = modal_class(dense), modal_class(pruned)
        is_exemplar = modal[0] != modal[1]
        self._add_totals(batch, is_exemplar)
        self._add_agreement(dense, pruned)
        self.p_values.append(permutation_p_values(dense, pruned))
        where = np.flatnonzero(is_exemplar)
        self.found.append(
            {
                "id": self.count + where,
                "label": labels[where],
                "dense_class": modal[0][where],
                "pruned_class": modal[1][where],
                "dense_votes": dense.max(axis=1)[where],
                "pruned_votes": pruned.max(axis=1)[where],
                "dense_right": dense[where, labels[where]],
                "pruned_right": pruned[where, labels[where]],
            }
        )
        self.count += len(labels)

    def _add_totals(self, batch, is_exemplar):
        for index, seen in enumerate(batch):
            population, seed = divmod(index, self.num_seeds)
            for group in (0, 1):
                members = is_exemplar == group
                totals = self.totals[group, population, seed]
                totals += bin_totals(seen.confidence[members], seen.correct[members], totals.shape[1])

    def _add_agreement(self, dense, pruned):
        pairs = self.num_seeds * (self.num_seeds - 1)
        self.agreeing["dense"] += np.sum(dense * (dense - 1)) / pairs
        self.agreeing["pruned"] += np.sum(pruned * (pruned - 1)) / pairs
        self.agreeing["cross"] += np.sum(dense * pruned) / self.num_seeds**2

    def table(self):
        """The exemplars, smallest p-value first; `p_adjusted` is for the false discovery rate among all samples."""
        import pandas as pd

        columns = {name: np.concatenate([part[name] for part in self.found]) for name in self.found[0]}
        p_values = np.concatenate(self.p_values)
        columns["p"], columns["p_adjusted"] = (p[columns["id"]] for p in (p_values, benjamini_hochberg(p_values)))
        return pd.DataFrame(columns).sort_values("p", kind="stable", ignore_index=True)

    def row(self):
        """Flat: how often two models agree, and means over seeds on the exemplars and on the rest."""
        row = {f"agreement_{name}": float(total / self.count) for name, total in self.agreeing.items()}
        for group, by_population in zip(("rest", "exemplars"), self.totals, strict=True):
            row[f"{group}_num_samples"] = int(by_population[0, 0, 0].sum())
            for population, totals in zip(("dense", "pruned"), by_population, strict=True):
                row |= {f"{group}_{population}_{name}": value for name, value in _means(totals).items()}
        return row


def _means(by_seed):
    """Accuracy, calibration error and its excess over the noise floor, means over seeds; None without samples."""
    if not by_seed[0, 0].sum():
        return dict.fromkeys(("accuracy", "ece", "ece_excess"))
    errors = [calibration_error(totals) for totals in by_seed]
    return {
        "accuracy": float(np.mean([totals[2].sum() / totals[0].sum() for totals in by_seed])),
        "ece": float(np.mean(errors)),
        "ece_excess": float(np.mean(errors) - np.mean([ece_floor(totals) for totals in by_seed])),
    }
