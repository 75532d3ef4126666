"""What does pruning change over several training seeds? `compare_seeds`, and the `SeedComparison` that it returns."""

import dataclasses

import numpy as np

from tfprune.comparison import verdict
from tfprune.comparison.exemplars import ExemplarTally
from tfprune.comparison.joint import Joint
from tfprune.comparison.paired import MEASURES, difference_lines
from tfprune.comparison.strangers import Scores, StrangersSeen
from tfprune.comparison.tallies import ChangeTally, JointTally
from tfprune.metrics.bins import check_num_bins
from tfprune.predictions import checked_ood
from tfprune.significance import check_num_bootstraps, hierarchical_interval, placements
from tfprune.uncertainty.leak import Fingerprint, check_leak, find_fingerprints


@dataclasses.dataclass(frozen=True, eq=False)
class SeedComparison:
    """What `compare_seeds` found. All differences are pruned - dense. `print` it for the whole on one page.

    Args:
        row: flat dict of plain numbers, ready for JSON; `compare_seeds` lists its keys.
        pairs: one line per seed: the measures of its dense and its pruned model, and what changed between them.
        exemplars: the samples whose most frequent class differs between the dense and the pruned models (the smallest
            of equally frequent classes), smallest p-value first. `id` is the sample's place in the data; `dense_votes`
            and `pruned_votes` are how many models predict that class, `dense_right` and `pruned_right` how many the
            label; `p` is of an exact permutation test, `p_adjusted` for the false discovery rate (Benjamini-Hochberg).
        verdict: "not distinguishable", or what is better or worse in accuracy, calibration and OOD detection.
    """

    row: dict
    pairs: object
    exemplars: object
    verdict: str

    def __str__(self):
        """The comparison on one page."""
        return "\n".join(_lines(self.row))


def compare_seeds(
    dense_models,
    pruned_models,
    data,
    ood=None,
    num_bins=15,
    num_bootstraps=1000,
    confidence=0.95,
    seed=0,
    batch_size=256,
    from_logits=None,
    allow_leak=False,
):
    """Compares pruned models with their dense ones over several training seeds, in one joint pass over the data.

    The intervals hold the chance of training and that of the test samples (see
    `tfprune.significance.hierarchical_interval`), so they are about what pruning does to the next seed, too.

    Args:
        dense_models: the dense model of each seed, two seeds or more; as `tfprune.compare` takes it.
        pruned_models: the pruned model of each seed, in the same order.
        data: `(x, y)` arrays, or a `tf.data.Dataset` of `(x, y)`, batched or not.
        ood: `{name: data}` of out-of-distribution sets, whose labels are not looked at.
        num_bins: bins of the calibration error.
        num_bootstraps: resamples of the test samples.
        confidence: level of the two-sided intervals; the tests of the verdicts are at 1 - confidence.
        seed: fixes the resamples.
        batch_size: samples at a time, for arrays and unbatched data sets.
        from_logits: whether the models' outputs are logits. None reads it off their last layers.
        allow_leak: whether `data` may hold samples that a part of a model was fitted on.

    Returns:
        A `SeedComparison`. Its `row` holds

        * for `accuracy`, `nll`, `brier`, `mean_confidence`, `ece`, `ece_excess` and each `NAME/auroc_SCORE`: means over
          seeds `dense_...` and `pruned_...`, and `..._difference` with `_low`, `_high`, `_standard_error` and `_p`;
        * `agreement_pairs` of the predicted classes of a dense model and the pruned one of its seed, `agreement_cross`
          of any dense with any pruned model, `agreement_dense` and `agreement_pruned` of two seeds: pruning that moves
          fewer predictions than another seed does moves little;
        * `exemplars_num_samples`, `exemplars_num_distinct` (false discovery rate at most 1 - confidence), and for the
          exemplars and the rest `exemplars_dense_accuracy`, `..._ece`, `..._ece_excess`, `rest_pruned_accuracy` and so
          on, means over seeds; None where there are no such samples. With few seeds no p-value can be small: the
          least of all is 2 / C(2 seeds, seeds), 0.1 for three and 0.008 for five;
        * `verdict_accuracy`, `verdict_calibration`, `verdict_ood` and `verdict`, as `tfprune.compare` gives them.

    Raises:
        ValueError: for fewer than two seeds, unequal numbers of dense and pruned models, and what `tfprune.compare`
            refuses.
        LeakError: for `data` that hold samples which a part of a model was fitted on, unless `allow_leak`.

    Example:
        >>> found = compare_seeds(dense_models, tickets, (x_test, y_test), ood={"svhn": svhn})
        >>> found.row["ece_difference"], found.exemplars["id"].head()
    """
    import pandas as pd

    check_num_bins(num_bins)
    check_num_bootstraps(num_bootstraps, confidence)
    ood, models = checked_ood(ood), _checked_pairs(dense_models, pruned_models)
    joint, fitted, num_seeds = Joint(models, from_logits, batch_size), find_fingerprints(models), len(models) // 2
    tally, known, exemplars = JointTally(len(models), num_bins, num_bootstraps, seed), Scores(len(models)), None
    seen = Fingerprint() if fitted else None
    for logits, scores, labels in joint.labelled(data, "data", seen):
        if exemplars is None:
            exemplars = ExemplarTally(num_seeds, joint.num_classes, num_bins)
            changes = [ChangeTally(joint.num_classes) for _ in range(num_seeds)]
        batch = tally.add(logits, labels)
        exemplars.add(batch)
        for change, dense, pruned in zip(changes, batch[:num_seeds], batch[num_seeds:], strict=True):
            change.add(dense, pruned)
        if ood:
            known.add(scores)
    row = {
        "num_seeds": num_seeds,
        "num_samples": exemplars.count,
        "num_classes": joint.num_classes,
        "num_bins": int(num_bins),
        "num_bootstraps": int(num_bootstraps),
        "confidence_level": float(confidence),
        "leaked_share": check_leak(fitted, seen, allow_leak),
    }
    pairs, differences = [change.row() for change in changes], []
    row["agreement_pairs"] = float(np.mean([pair["agreement"] for pair in pairs]))
    measured = _measures(tally, num_seeds)
    for name, strangers in ood.items():
        strange = StrangersSeen(joint, strangers, f"ood[{name!r}]")
        row[f"{name}/num_samples"] = strange.count
        measured |= _aurocs(name, known, strange, num_seeds)
    for name, (dense, pruned, covariance, bias) in measured.items():
        difference = hierarchical_interval(pruned - dense, covariance, confidence, bias)
        row |= _interval_row(name, dense.mean(), pruned.mean(), difference)
        for pair, before, after in zip(pairs, dense, pruned, strict=True):
            pair |= {_key("dense", name): float(before), _key("pruned", name): float(after)}
            pair[f"{name}_difference"] = float(after - before)
        if "/" in name:
            differences.append(difference)
    table = exemplars.table()
    row |= exemplars.row()
    row["exemplars_num_distinct"] = int((table["p_adjusted"] <= 1 - confidence).sum())
    row |= verdict.rows_of(row, differences, confidence)
    return SeedComparison(row, pd.DataFrame(pairs), table, row["verdict"])


def _checked_pairs(dense_models, pruned_models):
    dense_models, pruned_models = list(dense_models), list(pruned_models)
    if len(dense_models) != len(pruned_models) or len(dense_models) < 2:
        raise ValueError(
            "compare_seeds needs a dense and a pruned model of each of two or more seeds. Received: "
            f"{len(dense_models)} dense and {len(pruned_models)} pruned models. For one pair use tfprune.compare."
        )
    return dense_models + pruned_models


def _measures(tally, num_seeds):
    """`{name: (dense (seeds,), pruned (seeds,), covariance of the differences over samples, bias)}`."""
    values, replicates = [model.values() for model in tally.models], tally.replicates()
    measured = {}
    for name in MEASURES:
        dense, pruned = np.split(np.array([model[name] for model in values]), 2)
        before, after = np.split(np.stack([model[name] for model in replicates]), 2)
        resampled = after - before
        # Resamples exaggerate an error that is never negative as the sample does; the excess is corrected already.
        bias = float(np.mean(resampled) - np.mean(pruned - dense)) if name == "ece" else 0.0
        measured[name] = dense, pruned, np.cov(resampled), bias
    return measured


def _aurocs(name, known, strange, num_seeds):
    """As `_measures`, for each score; the covariance is DeLong's."""
    measured = {}
    for score in strange.scores.names:
        by_id, by_ood = zip(
            *(placements(known.of(model, score), strange.scores.of(model, score)) for model in range(2 * num_seeds)),
            strict=True,
        )
        (id_dense, id_pruned), (ood_dense, ood_pruned) = np.split(np.stack(by_id), 2), np.split(np.stack(by_ood), 2)
        covariance = np.cov(id_pruned - id_dense) / id_dense.shape[1]
        covariance = covariance + np.cov(ood_pruned - ood_dense) / ood_dense.shape[1]
        measured[f"{name}/auroc_{score}"] = ood_dense.mean(axis=1), ood_pruned.mean(axis=1), covariance, 0.0
    return measured


def _interval_row(name, dense, pruned, difference):
    key = f"{name}_difference"
    return {
        _key("dense", name): float(dense),
        _key("pruned", name): float(pruned),
        key: difference.value,
        f"{key}_low": difference.low,
        f"{key}_high": difference.high,
        f"{key}_standard_error": difference.standard_error,
        f"{key}_p": difference.p,
    }


def _key(population, name):
    """dense_accuracy, but svhn/dense_auroc_msp."""
    ood, slash, measure = name.rpartition("/")
    return f"{ood}{slash}{population}_{measure}"


def _lines(row):
    """The page that `print` shows."""
    percent = f"{100 * row['confidence_level']:g} %"
    yield f"{row['num_seeds']} seeds, {row['num_samples']} samples of {row['num_classes']} classes; means over seeds,"
    yield f"pruned - dense with {percent} intervals over seeds and samples"
    yield ""
    names = [key.removesuffix("_difference") for key in row if key.endswith("_difference")]
    yield from difference_lines(row, [(name, _key("dense", name), _key("pruned", name)) for name in names])
    yield ""
    agreement = ", ".join(f"{100 * row[f'agreement_{name}']:.1f} % {words}" for name, words in _AGREEMENTS.items())
    yield f"predictions  agree in {agreement}"
    yield f"exemplars    {row['exemplars_num_samples']} samples, {row['exemplars_num_distinct']} of them beyond chance"
    for group in ("exemplars", "rest"):
        if row[f"{group}_num_samples"]:
            before, after = (row[f"{group}_{population}_accuracy"] for population in ("dense", "pruned"))
            errors = (row[f"{group}_{population}_ece"] for population in ("dense", "pruned"))
            yield f"  {group:<11}accuracy {before:.4f} -> {after:.4f}, ECE {' -> '.join(f'{e:.4f}' for e in errors)}"
    yield f"verdict      {row['verdict']}"


_AGREEMENTS = {"pairs": "of dense and pruned", "dense": "of two dense seeds", "pruned": "of two pruned seeds"}
