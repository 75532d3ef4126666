"""What changed between one dense model and one pruned model? `compare`, and the `Comparison` that it returns."""

import dataclasses

import numpy as np

from tfprune.comparison import verdict
from tfprune.comparison.joint import Joint
from tfprune.comparison.strangers import Scores, StrangersSeen, auroc_rows, class_columns
from tfprune.comparison.tallies import ChangeTally, JointTally
from tfprune.comparison.tempering import Tempering, fit_temperature, split
from tfprune.metrics.bins import check_num_bins
from tfprune.predictions import checked_ood
from tfprune.significance import basic_bootstrap, check_num_bootstraps, holm, mcnemar, paired_t
from tfprune.uncertainty.leak import Fingerprint, check_leak, find_fingerprints

# measured on the samples of `data`, each with a paired interval of its difference
MEASURES = ("accuracy", "nll", "brier", "mean_confidence", "ece", "ece_excess")


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found. All differences are pruned - dense. `print` it for the whole on one page.

    Args:
        row: flat dict of plain numbers, ready for JSON; `compare` lists its keys.
        per_class: one line per class: recall, change of confidence and how strangers are taken for it, with p-values
            corrected for the number of classes (Holm). Classes without samples hold NaN.
        flips: up to 100 samples whose predicted class changed, largest KL divergence first; `id` is the sample's place
            in the data, `kind` is "lost", "gained" or "both_wrong".
        verdict: "not distinguishable", or what is better or worse in accuracy, calibration and OOD detection.
    """

    row: dict
    per_class: object
    flips: object
    verdict: str

    def __str__(self):
        """The comparison on one page."""
        return "\n".join(_lines(self.row))


def compare(
    dense,
    pruned,
    data,
    ood=None,
    num_bins=15,
    num_bootstraps=1000,
    confidence=0.95,
    seed=0,
    temperature_data=None,
    batch_size=256,
    from_logits=None,
    allow_leak=False,
):
    """Compares a pruned model with its dense one on the same samples, in one joint pass, with intervals and verdicts.

    Both models see each batch, so that all differences are paired: per sample, not of two averages.

    Args:
        dense: a built Keras model, or anything with `.predict(x)`, as `tfprune.evaluate` takes it.
        pruned: the same; it may have fewer channels, but must predict the same classes.
        data: `(x, y)` arrays, or a `tf.data.Dataset` of `(x, y)`, batched or not: two samples or more.
        ood: `{name: data}` of out-of-distribution sets, whose labels are not looked at.
        num_bins: bins of the calibration error.
        num_bootstraps: resamples of the intervals.
        confidence: level of the two-sided intervals; the tests of the verdicts are at 1 - confidence.
        seed: fixes the resamples.
        temperature_data: labelled data, such as the validation set, to fit each model's temperature on. Without it,
            each half of `data` (even and odd places) is judged at the temperature fitted on the other, so that none is
            fitted on what it is judged on; all logits are then kept until the end.
        batch_size: samples at a time, for arrays and unbatched data sets.
        from_logits: whether the models' outputs are logits. None reads it off their last layers.
        allow_leak: whether `data` may hold samples that temperatures, or a part of a model, were fitted on.

    Returns:
        A `Comparison`. Its `row` holds

        * `both_right`, `lost`, `gained`, `both_wrong`: counts of samples, and `mcnemar_p` (exact);
        * `agreement` of the predicted classes; `kl_divergence` (dense || pruned) and `js_divergence`, means in nats;
          `confidence_change_agreed`, signed mean where the class is the same; `entropy_change`, mean of the absolute
          change;
        * for `accuracy`, `nll`, `brier`, `mean_confidence`, `ece` and `ece_excess` (over the noise floor, `ece_floor`):
          `dense_NAME`, `pruned_NAME`, `NAME_difference`, `NAME_difference_low` and `NAME_difference_high` (paired basic
          bootstrap; for the excess the floor takes the place of the bootstrap's correction). The interval of `ece`
          covers less than it says where only one model is close to calibrated: its error is then mostly floor;
        * `dense_temperature`, `pruned_temperature` (the geometric mean of two halves), `temperature_source`, and
          the parts `ece_difference_temperature` + `ece_difference_residual` + `ece_difference_floor` =
          `ece_difference`: what new temperatures would undo, what they would leave, and what the noise floor changed;
        * for each set NAME and SCORE, `NAME/auroc_SCORE_difference` with `_low`, `_high`, `_standard_error`, `_p`
          (DeLong), `NAME/dense_auroc_SCORE`, `NAME/pruned_auroc_SCORE`;
        * `verdict_accuracy`, `verdict_calibration`, `verdict_ood` and `verdict`: "better", "worse" or
          "not distinguishable". Calibration needs both `ece` and `ece_excess` to agree; OOD is corrected for the number
          of sets and scores (Holm) and may be "mixed". The three questions are not corrected for one another.

    Raises:
        ValueError: for models that predict different numbers of classes, too few samples or bootstraps, and whatever
            `tfprune.evaluate` refuses.
        LeakError: for `data` that hold samples which something was fitted on, unless `allow_leak`.

    Example:
        >>> found = tfprune.compare(model, ticket, (x_test, y_test), ood={"svhn": svhn}, temperature_data=validation)
        >>> print(found)
        >>> found.row["verdict_calibration"], found.per_class.sort_values("recall_change").head()
    """
    import pandas as pd

    check_num_bins(num_bins)
    check_num_bootstraps(num_bootstraps, confidence)
    ood = checked_ood(ood)
    joint, fitted = Joint([dense, pruned], from_logits, batch_size), find_fingerprints([dense, pruned])
    tempering = Tempering(2, num_bins, _temperatures(joint, temperature_data, fitted))
    tally, known, changes = JointTally(2, num_bins, num_bootstraps, seed), Scores(2), None
    seen = Fingerprint() if fitted else None
    for logits, scores, labels in joint.labelled(data, "data", seen):
        changes = changes or ChangeTally(joint.num_classes)
        changes.add(*tally.add(logits, labels))
        tempering.add(logits, labels)
        if ood:
            known.add(scores)
    if changes.count < 2:
        raise ValueError("A comparison needs at least two samples. Received: data with one.")
    row = {
        "num_samples": changes.count,
        "num_classes": joint.num_classes,
        "num_bins": int(num_bins),
        "num_bootstraps": int(num_bootstraps),
        "confidence_level": float(confidence),
        "leaked_share": check_leak(fitted, seen, allow_leak),
        **changes.row(),
        **_interval_rows(tally, confidence),
    }
    row["mcnemar_p"] = mcnemar(row["lost"], row["gained"])
    row |= _temperature_row(tempering, row["ece_difference"], "halves" if temperature_data is None else "given")
    table, differences = _class_table(changes.by_class), []
    for name, strangers in ood.items():
        seen = StrangersSeen(joint, strangers, f"ood[{name!r}]")
        row[f"{name}/num_samples"] = seen.count
        for measured, difference in auroc_rows(name, known, seen, confidence).values():
            row |= measured
            differences.append(difference)
        table = table.assign(**class_columns(name, seen))
    row |= _worst_class(table, confidence)
    row |= verdict.rows_of(row, differences, confidence)
    return Comparison(row, table, pd.DataFrame(changes.flips), row["verdict"])


def _temperatures(joint, data, fitted):
    """Temperature of each model, fitted on other data, whose fingerprint joins those `fitted`; None without."""
    if data is None:
        return None
    logits, labels, fingerprint = [], [], Fingerprint(owner="The temperature")
    for parts, _, y in joint.labelled(data, "temperature_data", fingerprint):
        logits.append(parts)
        labels.append(y)
    fitted.append(fingerprint)
    labels = np.concatenate(labels)
    return [fit_temperature(np.concatenate(parts), labels) for parts in zip(*logits, strict=True)]


def _interval_rows(tally, confidence):
    """Both models' measures, and the differences with their paired intervals."""
    (dense, pruned), (dense_replicates, pruned_replicates) = (
        [model.values() for model in tally.models],
        tally.replicates(),
    )
    row = {"dense_ece_floor": dense["ece_floor"], "pruned_ece_floor": pruned["ece_floor"]}
    for name in MEASURES:
        difference = pruned[name] - dense[name]
        low, high = basic_bootstrap(
            difference,
            pruned_replicates[name] - dense_replicates[name],
            confidence,
            unbiased=name == "ece_excess",
        )
        row |= {
            f"dense_{name}": dense[name],
            f"pruned_{name}": pruned[name],
            f"{name}_difference": difference,
            f"{name}_difference_low": float(low),
            f"{name}_difference_high": float(high),
        }
    return row


def _temperature_row(tempering, difference, source):
    dense, pruned = tempering.rows()
    return {
        "temperature_source": source,
        **{
            f"{name}_{key}": value for name, row in (("dense", dense), ("pruned", pruned)) for key, value in row.items()
        },
        **split(difference, dense, pruned),
    }


def _class_table(by_class):
    """`Comparison.per_class` without strangers, from `ChangeTally.by_class`."""
    import pandas as pd

    count, right, lost, gained, change, squares = by_class
    seen = count > 0

    def mean(total):
        return np.divide(total, count, out=np.full(len(count), np.nan), where=seen)

    def adjusted(p_values):
        filled = np.full(len(count), np.nan)
        filled[seen] = holm(np.asarray(p_values)[seen])
        return filled

    return pd.DataFrame(
        {
            "class": np.arange(len(count)),
            "num_samples": count.astype(int),
            "dense_recall": mean(right + lost),
            "pruned_recall": mean(right + gained),
            "recall_change": mean(gained - lost),
            "lost": lost.astype(int),
            "gained": gained.astype(int),
            "recall_p": adjusted([mcnemar(*pair) for pair in zip(lost, gained, strict=True)]),
            "confidence_change": mean(change),
            "confidence_p": adjusted(paired_t(count, change, squares)),
        }
    )


def _worst_class(table, confidence):
    """The class whose recall fell most, and how many classes lost or gained recall beyond chance."""
    worst = table.loc[table["recall_change"].idxmin()]
    distinct = table["recall_p"] <= 1 - confidence
    return {
        "worst_class": int(worst["class"]),
        "worst_class_recall_change": float(worst["recall_change"]),
        "worst_class_p": float(worst["recall_p"]),
        "num_classes_worse": int((distinct & (table["recall_change"] < 0)).sum()),
        "num_classes_better": int((distinct & (table["recall_change"] > 0)).sum()),
    }


def _lines(row):
    """The page that `print` shows."""
    percent = f"{100 * row['confidence_level']:g} %"
    yield f"{row['num_samples']} samples of {row['num_classes']} classes, pruned - dense with {percent} intervals"
    yield ""
    shown = [(name, f"dense_{name}", f"pruned_{name}") for name in MEASURES]
    for key in row:
        if key.endswith("_difference") and "/" in key:
            ood, measure = key.removesuffix("_difference").rsplit("/", 1)
            shown.append((f"{ood}/{measure}", f"{ood}/dense_{measure}", f"{ood}/pruned_{measure}"))
    yield from difference_lines(row, shown)
    yield ""
    flips = (
        f"{row['both_right']} both right, {row['lost']} lost, {row['gained']} gained, {row['both_wrong']} both wrong"
    )
    yield f"flips        {flips} (McNemar p = {row['mcnemar_p']:.3g})"
    yield (
        f"predictions  {100 * row['agreement']:.1f} % agree, KL {row['kl_divergence']:.4f}, "
        f"JS {row['js_divergence']:.4f}, entropy moves by {row['entropy_change']:.4f}"
    )
    yield (
        f"ECE          {row['ece_difference']:+.4f} = temperature {row['ece_difference_temperature']:+.4f}, residual "
        f"{row['ece_difference_residual']:+.4f}, noise floor {row['ece_difference_floor']:+.4f}"
    )
    yield (
        f"classes      {row['num_classes_worse']} worse, {row['num_classes_better']} better; worst recall "
        f"{row['worst_class_recall_change']:+.4f} in class {row['worst_class']} (p = {row['worst_class_p']:.3g})"
    )
    yield f"verdict      {row['verdict']}"


def difference_lines(row, shown):
    """A small table: for each (name, dense key, pruned key) two values, their difference and its interval."""
    width = max(24, *(len(name) + 2 for name, _, _ in shown))
    yield f"{'':<{width}}{'dense':>9}{'pruned':>9}{'difference':>12}"
    for name, dense, pruned in shown:
        key = f"{name}_difference"
        yield (
            f"{name:<{width}}{row[dense]:>9.4f}{row[pruned]:>9.4f}{row[key]:>+12.4f}"
            f"  [{row[f'{key}_low']:+.4f}, {row[f'{key}_high']:+.4f}]"
        )
