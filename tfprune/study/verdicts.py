"""How far can this model be pruned, and farther than its controls? Intervals over seeds, and a line of words each."""

import dataclasses
import itertools

import numpy as np

from tfprune.significance import one_sided_bound
from tfprune.study.claims import CONFIDENCE, interval

HOLDS, OPEN, FAILS = "holds", "open", "fails"


@dataclasses.dataclass(frozen=True)
class Measure:
    """Something that pruning may harm, and how much of it is no harm.

    Args:
        column: Column of the rows.
        title: What it is called.
        suffers: What is harmed where it gets worse.
        limit: Largest harmless change, in units of the column; as a share of the dense value where `relative`.
        higher_is_better: Which way is worse.
        relative: Whether changes are shares of the dense network's value.
    """

    column: str
    title: str
    suffers: str
    limit: float
    higher_is_better: bool = True
    relative: bool = False

    @property
    def short(self):
        """Its name where there is little room."""
        return self.title.removesuffix(" above its floor").replace("AUROC on ", "OOD ")


@dataclasses.dataclass(frozen=True)
class Step:
    """What is known of one measure at one ratio.

    Args:
        ratio: Share of channels removed.
        harm: Mean harm over seeds, positive is worse.
        low: Lower end of the one-sided 95 % intervals; None of a single seed.
        high: Upper end.
        verdict: "holds" where the upper end is within the limit, "fails" where the lower end is beyond it, else "open".
        count: How many seeds.
    """

    ratio: float
    harm: float
    low: float | None
    high: float | None
    verdict: str
    count: int


@dataclasses.dataclass(frozen=True)
class Potential:
    """How far one line of a study can be pruned before something suffers.

    Args:
        series: The line.
        ratio: Largest ratio up to which no measure is harmed beyond its limit, with 95 % confidence, and no seed failed
            that has a dense network; `prune_potential`.
        by_mean: The same for the means alone, without any confidence.
        failed_ratio: The next ratio, at which something is no longer shown to hold; None where all hold.
        limited_by: Measures that are not shown to hold there, worst first; none where only failed trials end it.
        num_seeds: The fewest seeds at a ratio up to it, or at the first ratio where that fails.
        steps: `{column: [Step]}` of every measure.
        failures: `{ratio: how many seeds failed there that have a dense network}`, where there are any.
    """

    series: object
    ratio: float
    by_mean: float
    failed_ratio: float | None
    limited_by: list
    num_seeds: int
    steps: dict
    failures: dict = dataclasses.field(default_factory=dict)

    @property
    def has_intervals(self):
        """Whether any ratio has two seeds or more."""
        return any(step.high is not None for found in self.steps.values() for step in found)

    @property
    def is_sure(self):
        """Whether the failure at the next ratio is more than too few seeds."""
        return any(self.verdict(one) == FAILS for one in self.limited_by)

    def alone(self, measure):
        """How far the line goes if only this measure counts."""
        steps = self.steps.get(measure.column, [])
        return _reached(
            [step.ratio for step in steps], lambda r: any(s.ratio == r and s.verdict == HOLDS for s in steps)
        )

    def verdict(self, measure):
        """What is known of a measure at the ratio that failed."""
        return next((s.verdict for s in self.steps[measure.column] if s.ratio == self.failed_ratio), OPEN)


@dataclasses.dataclass(frozen=True)
class Difference:
    """A line against a control on the same seeds, at one ratio.

    Args:
        series: The line.
        control: What it is held against.
        measure: What is compared.
        ratio: Share of channels removed.
        values: One difference per seed, line minus control.
        bounds: Two-sided 95 % Student-t interval of their mean; None of fewer than three seeds.
        limit: Largest difference that is none, in units of the measure.
    """

    series: object
    control: object
    measure: Measure
    ratio: float
    values: tuple
    bounds: tuple | None
    limit: float

    @property
    def mean(self):
        """Mean over seeds."""
        return float(np.mean(self.values))


def measures(cells):
    """Returns what pruning may harm in this study: accuracy, calibration, and detection on each OOD set.

    Calibration is the part of the ECE above its floor where all rows have it: few samples alone give an ECE above 0.
    """
    if cells.is_regression:
        every = [
            Measure("rmse", "RMSE", "accuracy", 0.05, False, True),
            Measure("crps", "CRPS", "the predicted distribution", 0.05, False, True),
            Measure("interval_calibration_error", "calibration error", "calibration", 0.02, False),
        ]
    else:
        excess = bool(cells.rows) and all(row.get("ece_excess") is not None for row in cells.rows)
        excess = excess and all(cells.base(one, "ece_excess") for one in cells.series)
        every = [
            Measure("accuracy", "accuracy", "accuracy", 0.01),
            Measure(
                "ece_excess" if excess else "ece",
                "ECE above its floor" if excess else "ECE",
                "calibration",
                0.02,
                False,
            ),
            *_ood_measures(cells),
        ]
    return [one for one in every if cells.has(one.column)]


def potentials(cells, confidence=CONFIDENCE):
    """Returns the `Potential` of each line of the study, those that prune farthest first; controls last.

    Every measure is held against the same seed's network of ratio 0 (of the same strategy where there is one, else the
    dense network). Limits and rule are those of `tfprune.prune_potential`; a ratio with a single seed shows nothing,
    and one at which a seed failed that has such a network is not shown to hold, nor is it by the means.

    Args:
        cells: `Cells` of one model on one data set.
        confidence: Level of the one-sided intervals.
    """
    every = measures(cells)
    found = [one for series in cells.curves if (one := _potential(cells, series, every, confidence))]
    return sorted(found, key=lambda one: (one.series.control, -one.ratio, -one.by_mean))


def shared_potential(cells):
    """Returns the farthest potential of all strategies if they share one risk of 5 % (Bonferroni).

    The farthest of many is easily too far: of each the chance of that is 5 %.

    Args:
        cells: `Cells` of one model on one data set.
    """
    every, count = measures(cells), max(len([one for one in cells.curves if not one.control]), 1)
    confidence = 1 - (1 - CONFIDENCE) / count
    found = [_potential(cells, one, every, confidence) for one in cells.curves if not one.control]
    return max((one.ratio for one in found if one), default=0.0)


def differences(cells, control, measure):
    """Returns the `Difference`s of every strategy to a control at each ratio, on the seeds that both have.

    Args:
        cells: `Cells` of one model on one data set.
        control: A control's line, or "dense", the dense network of the same seed.
        measure: What to compare.
    """
    found = []
    for series in cells.curves:
        for ratio in cells.ratios:
            if series.control or not ratio:
                continue
            own = cells.column(series, ratio, measure.column)
            other = _column_of_control(cells, series, control, ratio, measure.column)
            values = tuple(own[seed] - other[seed] for seed in sorted(own.keys() & other.keys(), key=str))
            if values:
                scale = abs(float(np.mean(list(other.values())))) if measure.relative else 1.0
                limit = measure.limit * scale
                found.append(Difference(series, control, measure, ratio, values, interval(values), limit))
    return found


def sentence(found):
    """Returns the verdict on the differences of one line to one control, as a word and half a sentence for people.

    The intervals share one risk of 5 % among the ratios (Bonferroni): one ratio of many is easily ahead by chance.
    The word is "better", "worse", "mixed", "same" (all intervals lie within the measure's limit) or "open".

    Args:
        found: `Difference`s of one line, one control and one measure.
    """
    confidence = 1 - (1 - CONFIDENCE) / max(len(found), 1)
    decided = [(one, interval(one.values, confidence)) for one in found]
    few = [one for one, bounds in decided if bounds is None]
    if len(few) == len(found):
        return "open", _seeds(few)
    better, worse = [], []
    for one, bounds in decided:
        if bounds and not bounds[0] <= 0 <= bounds[1]:
            (better if (bounds[0] > 0) == one.measure.higher_is_better else worse).append(one)
    if not better and not worse:
        widest = max(max(abs(end) for end in bounds) for _, bounds in decided if bounds)
        alike = all(max(abs(end) for end in bounds) <= one.limit for one, bounds in decided if bounds)
        if alike and few:  # what leaves it open are the seeds, not how wide the other intervals are
            return "open", f"{_seeds(few)} at {_runs(few, [one.ratio for one in found])}"
        # An interval of many times what is harmless says nothing that a number could add to.
        far = widest > 10 * max(one.limit for one in found)
        return ("same" if alike else "open"), "seeds too far apart" if far else f"within ±{widest:.3f}"
    kind = "mixed" if better and worse else "better" if better else "worse"
    parts = [(word, part) for word, part in (("better", better), ("worse", worse)) if part]
    tried = [one.ratio for one in found]
    return kind, "; ".join((f"{word} " if kind == "mixed" else "") + _at_ratios(part, tried) for word, part in parts)


def _seeds(found):
    seeds = max(len(one.values) for one in found)
    return f"{seeds} seed{'s' if seeds > 1 else ''}"


def _at_ratios(found, tried):
    """Where the differences lie and how large they are: "at 0.2–0.4, 0.9, up to 0.012"."""
    largest = max(found, key=lambda one: abs(one.mean))
    return f"at {_runs(found, tried)}, {'up to' if len(found) > 1 else 'by'} {abs(largest.mean):.3f}"


def _runs(found, tried):
    """The ratios of differences, neighbours among those that were tried as one: "0.2–0.4, 0.9"."""
    places = [tried.index(one.ratio) for one in found]
    runs = [[*run] for _, run in itertools.groupby(enumerate(places), key=lambda pair: pair[1] - pair[0])]
    ends = [(tried[run[0][1]], tried[run[-1][1]]) for run in runs]
    return ", ".join(f"{first:g}–{last:g}" if first != last else f"{first:g}" for first, last in ends)


def _ood_measures(cells):
    names = sorted(name for name in cells.columns if "/auroc_" in name and not name.startswith("dense_"))
    stems = dict.fromkeys(name.split("/")[0] for name in names)
    chosen = [
        next((n for n in names if n == f"{stem}/auroc_msp"), None) or next(n for n in names if n.startswith(f"{stem}/"))
        for stem in stems
    ]
    return [Measure(name, f"AUROC on {name.split('/')[0]}", "OOD detection", 0.02) for name in chosen]


def _column_of_control(cells, series, control, ratio, column):
    return cells.dense_of(series, column) if control == "dense" else cells.column(control, ratio, column)


def _potential(cells, series, every, confidence):
    """The potential of one line; None where no ratio has anything to be held against."""
    steps = {one: _steps(cells, series, one, confidence) for one in every}
    tried = {step.ratio for found in steps.values() for step in found}
    if not tried:
        return None
    failures = _failures(cells, series, every)
    ratios = sorted(tried | failures.keys())
    every = [one for one in every if steps[one]]
    at = {ratio: [(one, step) for one in every for step in steps[one] if step.ratio == ratio] for ratio in ratios}

    def all_hold(ratio):
        # A measure without a value there, such as a NaN, is not shown to hold; nor is any where a seed failed.
        complete = len(at[ratio]) == len(every) and ratio not in failures
        return complete and all(step.verdict == HOLDS for _, step in at[ratio])

    ratio = _reached(ratios, all_hold)
    failed = next((r for r in ratios if r > ratio), None)
    missed = [(one, step) for one, step in at.get(failed, ()) if step.verdict != HOLDS]
    missed.sort(key=lambda pair: pair[0].limit - (pair[1].harm if pair[1].high is None else pair[1].high))
    return Potential(
        series=series,
        ratio=ratio,
        by_mean=_reached(ratios, lambda r: r not in failures and all(s.harm <= one.limit for one, s in at[r])),
        failed_ratio=failed,
        limited_by=[one for one, _ in missed],
        num_seeds=min(s.count for found in steps.values() for s in found if s.ratio <= max(ratio, min(tried))),
        steps={one.column: found for one, found in steps.items()},
        failures=failures,
    )


def _failures(cells, series, every):
    """`{ratio: how many seeds failed}`; a seed without a dense network says nothing of the pruning."""
    dense = {seed for one in every for seed in cells.base(series, one.column)}
    found = {}
    for ratio in cells.failed_ratios:
        done = {row.get("seed") for row in cells.at(series, ratio)}
        if failed := {row.get("seed") for row in cells.failed(series, ratio)} & dense - done:
            found[ratio] = len(failed)
    return found


def _reached(ratios, holds):
    """The last ratio before the first that does not hold, however many hold again after it; 0 where the first fails."""
    passed = list(itertools.takewhile(holds, ratios))
    return passed[-1] if passed else 0.0


def _steps(cells, series, measure, confidence):
    """The steps of one measure; a ratio without a seed to compare with has none."""
    base = cells.base(series, measure.column)
    found = []
    for ratio in cells.ratios:
        values = cells.column(series, ratio, measure.column) if ratio else {}
        harms = [_harm(measure, values[seed], base[seed]) for seed in values if seed in base]
        if harms:
            found.append(_step(ratio, harms, measure.limit, confidence))
    return found


def _step(ratio, harms, limit, confidence):
    harm, low, high = float(np.mean(harms)), None, None
    if len(harms) > 1:
        low = -one_sided_bound([-value for value in harms], confidence)
        high = one_sided_bound(harms, confidence)
    verdict = OPEN if high is None else HOLDS if high <= limit else FAILS if low > limit else OPEN
    return Step(ratio, harm, low, high, verdict, len(harms))


def _harm(measure, value, base):
    change = base - value if measure.higher_is_better else value - base
    return change / abs(base) if measure.relative and base else change
