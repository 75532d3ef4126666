"""Which of the paper's claims do a study's rows bear out? Each is a test on pairs of the same seed."""

import dataclasses
import math

import numpy as np

from tfprune.study.lines import one_setting

YES, NO, OPEN, FEW = "reproduced", "not reproduced", "not distinguishable", "not enough seeds"
CONFIDENCE = 0.95
MIN_SEEDS = 3
ACCURACY_MARGIN = 0.02
ECE_MARGIN = 0.01
_INTERVALS = {"column": "interval_calibration_error", "title": "interval calibration error"}

# What the paper printed, or what its own notebook gave when it was run again (one-shot, mean over seeds).
PAPER = {
    "moons": {
        "model": "mlp",
        "base": 0.96,
        "accuracy": {**{i / 10: 0.970 for i in range(9)}, 0.9: 0.925},
        "source": "re-measured with the original notebook",
        "strategies": True,
        "recipe": {"optimizer": "adam", "learning_rate": 0.01, "batch_size": 0, "epochs": 2000, "patience": 20},
    },
    "cifar10": {
        "model": "lenet",
        "base": 0.62,
        "accuracy": {0.0: 0.622, 0.2: 0.622, 0.4: 0.630, 0.6: 0.631, 0.8: 0.634},
        "source": "Figure 7",
        "strategies": False,
        "recipe": {"optimizer": "sgd", "learning_rate": 0.001, "batch_size": 4, "epochs": 20, "patience": 3},
    },
}


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, what was measured, and the verdict on it.

    Args:
        text: What is claimed.
        measured: What the rows say, in words and numbers.
        verdict: "reproduced", "not reproduced", "not distinguishable" or "not enough seeds".
    """

    text: str
    measured: str
    verdict: str


def judge(rows):
    """Returns the paper's claims that these rows can be held against, each with its verdict.

    An interval is a two-sided 95 % Student-t interval of the mean over seeds, taken on differences of the same seed
    wherever two networks are compared. A claim is reproduced where the interval lies wholly on its side, not reproduced
    where it lies wholly on the other, and not distinguishable in between. Of a study that varies more than strategy,
    ratio and seed only the rows of one setting are judged, that of `setting`.

    Args:
        rows: Rows of one study, as `tfprune.study.read_rows` returns them.

    Returns:
        List of `Claim`.

    Example:

    >>> for claim in judge(read_rows("runs/moons")):
    ...     print(claim.verdict, claim.text)
    """
    cells = _Cells(rows)
    if not cells.ratios:
        return []
    if not cells.classifies:
        rise = [_epochs_rise(cells, strategy) for strategy in cells.strategies]
        return [claim for claim in [*rise, _calibration_holds(cells, **_INTERVALS)] if claim]
    paper = PAPER.get(rows[0].get("dataset"))
    found = []
    if paper:
        found += [_base_accuracy(cells, paper), *_one_shot_figures(cells, paper)]
    found += [_accuracy_flat(cells)]
    found += [_epochs_rise(cells, strategy) for strategy in cells.strategies]
    if paper and paper["strategies"]:
        found += [_iterative_beats_random(cells), _random_falls_first(cells), _winning_ticket(cells)]
    found += [_calibration_holds(cells), _calibration_improves(cells)]
    found += [_ood_confidence(cells, name) for name in cells.ood]
    return [claim for claim in found if claim]


def setting(rows):
    """Returns `{name: value}` of the one setting that is judged, of what the study varies besides; mostly empty.

    It is the paper's value where the study has it, else the default of a `Trial`, else the first.

    Args:
        rows: Rows of one study.
    """
    return one_setting(_judged(rows), _usual(rows))[1]


def _judged(rows):
    # The controls of a study beyond the paper's are no claims of the paper.
    return [row for row in rows if row.get("status") == "done" and not row.get("control")]


def _usual(rows):
    """`{setting: value}` of what a study has unless it says otherwise."""
    from tfprune.study.trial import Evaluation, Recipe, Trial

    fields = [field for kind in (Trial, Recipe, Evaluation) for field in dataclasses.fields(kind)]
    usual = {one.name: " ".join(map(str, d)) if isinstance(d := one.default, tuple) else d for one in fields}
    return usual | PAPER.get(rows[0].get("dataset") if rows else None, {}).get("recipe", {})


def recipe_changes(rows):
    """Returns what was trained otherwise than in the paper on the same data and network, as words; nothing elsewhere.

    Args:
        rows: Rows of one study.
    """
    paper = PAPER.get(rows[0].get("dataset")) if rows else None
    if not paper or rows[0].get("model") not in (None, paper["model"]):
        return []
    found = []
    for name, usual in paper["recipe"].items():
        values = sorted({row[name] for row in rows if row.get(name) is not None})
        if values and values != [usual]:
            shown = ", ".join(f"{value:g}" if isinstance(value, (int, float)) else str(value) for value in values)
            found.append(f"{name.replace('_', ' ')} {shown}, not {usual}")
    return found


class _Cells:
    """The finished rows of one setting by strategy, ratio and seed."""

    def __init__(self, rows):
        done, _ = one_setting(_judged(rows), _usual(rows))
        self.rows = {(row["strategy"], row["ratio"], row["seed"]): row for row in done}
        self._by_cell = {}
        for (strategy, ratio, seed), row in self.rows.items():
            self._by_cell.setdefault((strategy, ratio), {})[seed] = row
        self.strategies = sorted({row["strategy"] for row in done})
        self.ratios = sorted({row["ratio"] for row in done})
        self.pruned_ratios = [ratio for ratio in self.ratios if ratio > 0]
        self.ood = sorted(
            {key.split("/")[0] for row in done for key in row if "/auroc_" in key and key[:6] != "dense_"}
        )
        self.classifies = any(row.get("accuracy") is not None for row in done)

    def column(self, strategy, ratio, name):
        """Returns {seed: value} of one column, without missing values."""
        found = {seed: row.get(name) for seed, row in self._by_cell.get((strategy, ratio), {}).items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def against_dense(self, strategy, ratio, name):
        """Returns ticket - dense of the same seed, one value per seed."""
        return _paired(self.column(strategy, ratio, name), self.column(strategy, ratio, f"dense_{name}"))


def _paired(first, second):
    return [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]


def interval(values, confidence=CONFIDENCE):
    """Returns (low, high), the two-sided Student-t interval of the mean, or None for fewer than three values."""
    from scipy import stats

    if len(values) < MIN_SEEDS:
        return None
    values = np.asarray(values, float)
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def _verdict(bounds, low=-math.inf, high=math.inf):
    """Compares an interval with the range that the claim names."""
    if bounds is None:
        return FEW
    if low <= bounds[0] and bounds[1] <= high:
        return YES
    return NO if bounds[1] < low or high < bounds[0] else OPEN


def _all_of(verdicts):
    """A claim about several cells holds where it holds in each, and falls where it falls in any."""
    return next((verdict for verdict in (NO, FEW, OPEN) if verdict in verdicts), YES)


def _shared_out(confidence, tests):
    # Bonferroni: many tests, of which one may refute, share one risk
    return 1 - (1 - confidence) / max(tests, 1)


def _show(values, digits=3, signed=False):
    """Returns "mean (low to high, n seeds)" for people."""
    form = f"{{:{'+' if signed else ''}.{digits}f}}".format
    if not len(values):
        return "no data"
    bounds, count = interval(values), f"{len(values)} seed{'s' if len(values) > 1 else ''}"
    if bounds is None:
        return f"{form(np.mean(values))} ({count})"
    return f"{form(np.mean(values))} ({form(bounds[0])} to {form(bounds[1])}, {count})"


def _at(ratios):
    return ", ".join(f"{ratio:g}" for ratio in ratios)


def _base_accuracy(cells, paper):
    by_seed = {seed: row.get("dense_accuracy") for (_, _, seed), row in cells.rows.items()}
    values = [value for value in by_seed.values() if value is not None]
    return Claim(
        f"The dense network reaches an accuracy of {paper['base']:g}.",
        f"accuracy {_show(values)}",
        _verdict(interval(values), low=paper["base"]),
    )


def _one_shot_figures(cells, paper):
    ratios = [ratio for ratio in cells.ratios if ratio in paper["accuracy"]]
    if "one_shot" not in cells.strategies or not ratios:
        return []
    verdicts, apart, outside = [], [], []
    for ratio in ratios:
        figure = paper["accuracy"][ratio]
        apart_here = [value - figure for value in cells.column("one_shot", ratio, "accuracy").values()]
        # Two one-sided tests at 5 % are one 90 % interval; refuting any one ratio of many takes a stricter one.
        verdict = _verdict(interval(apart_here, 0.90), -ACCURACY_MARGIN, ACCURACY_MARGIN)
        if verdict == NO:
            strict = interval(apart_here, _shared_out(CONFIDENCE, len(ratios)))
            verdict = NO if _verdict(strict, -ACCURACY_MARGIN, ACCURACY_MARGIN) == NO else OPEN
        verdicts.append(verdict)
        apart.append(abs(np.mean(apart_here)) if apart_here else 0)
        if verdict != YES:
            outside.append(f"{ratio:g}: {np.mean(apart_here):+.3f}" if apart_here else f"{ratio:g}: no data")
    worst = int(np.argmax(apart))
    measured = f"largest difference of the means {apart[worst]:.3f}, at ratio {ratios[worst]:g}"
    if outside:
        measured += f"; not shown to be within {ACCURACY_MARGIN:g} at ratio {'; '.join(outside)}"
    text = f"One-shot accuracy is within {ACCURACY_MARGIN:g} of the paper's at every ratio ({paper['source']})."
    return [Claim(text, measured, _all_of(verdicts))]


def _accuracy_flat(cells):
    ratios = [ratio for ratio in cells.pruned_ratios if ratio <= 0.6]
    if not ratios:
        return None
    verdicts, worst = [], (math.inf, None)
    tests = len(ratios) * len(cells.strategies)
    for strategy in cells.strategies:
        for ratio in ratios:
            drop = cells.against_dense(strategy, ratio, "accuracy")
            verdict = _verdict(interval(drop, 0.90), low=-ACCURACY_MARGIN)
            if verdict == NO and _verdict(interval(drop, _shared_out(CONFIDENCE, tests)), low=-ACCURACY_MARGIN) != NO:
                verdict = OPEN
            verdicts.append(verdict)
            if drop:
                worst = min(worst, (float(np.mean(drop)), f"{strategy} at {ratio:g}: {_show(drop, signed=True)}"))
    return Claim(
        f"Up to ratio 0.6 no strategy loses more than {ACCURACY_MARGIN:g} of accuracy against its dense network.",
        f"largest loss, {worst[1]}",
        _all_of(verdicts),
    )


def _epochs_rise(cells, strategy):
    """Fits a straight line to each seed's epochs; the claim is that its slope is above zero."""
    if len(cells.ratios) < 3:
        return None
    slopes = []
    for seed in sorted({seed for (name, _, seed) in cells.rows if name == strategy}):
        points = [(ratio, cells.column(strategy, ratio, "early_stop_epoch").get(seed)) for ratio in cells.ratios]
        points = [(ratio, epochs) for ratio, epochs in points if epochs is not None]
        if len(points) == len(cells.ratios):
            slopes.append(float(np.polyfit(*zip(*points, strict=True), 1)[0]))
    first, last = (
        np.mean(list(cells.column(strategy, ratio, "early_stop_epoch").values()) or [math.nan])
        for ratio in (cells.ratios[0], cells.ratios[-1])
    )
    return Claim(
        f"Epochs to the early stop rise with the ratio ({strategy}).",
        f"{first:.0f} at ratio {cells.ratios[0]:g}, {last:.0f} at {cells.ratios[-1]:g}; slope per unit of ratio "
        f"{_show(slopes, 0, signed=True)}",
        _verdict(interval(slopes), low=0),
    )


def _iterative_beats_random(cells):
    if not {"iterative", "one_shot_random"} <= set(cells.strategies) or 0.9 not in cells.ratios:
        return None
    apart = _paired(cells.column("iterative", 0.9, "accuracy"), cells.column("one_shot_random", 0.9, "accuracy"))
    return Claim(
        "At ratio 0.9 iterative pruning is at least as accurate as random re-initialisation.",
        f"iterative minus random {_show(apart, signed=True)}",
        _verdict(interval(apart), low=0),
    )


def _random_falls_first(cells):
    if "one_shot_random" not in cells.strategies or len(cells.strategies) < 2 or len(cells.pruned_ratios) < 3:
        return None
    falls = {strategy: _falls_from(cells, strategy) for strategy in cells.strategies}
    if None in falls.values():
        verdict, shown = FEW, "nothing is sure without three seeds in every cell"
    else:
        shown = ", ".join(f"{name} {'nowhere' if at == math.inf else f'from {at:g}'}" for name, at in falls.items())
        first_other = min(at for name, at in falls.items() if name != "one_shot_random")
        random = falls["one_shot_random"]
        verdict = OPEN if random == first_other else YES if random < first_other else NO
    return Claim(
        "Random re-initialisation loses accuracy first (the paper: from ratio 0.6).",
        f"accuracy surely below the dense network's: {shown}",
        verdict,
    )


def _falls_from(cells, strategy):
    """Returns the lowest ratio from which on every ratio is surely below dense; infinity where there is none."""
    bounds = [interval(cells.against_dense(strategy, ratio, "accuracy")) for ratio in cells.pruned_ratios]
    if None in bounds:
        return None
    falls = math.inf
    for ratio, (_, high) in zip(reversed(cells.pruned_ratios), reversed(bounds), strict=True):
        if high >= 0:
            break
        falls = ratio
    return falls


def _winning_ticket(cells):
    if "one_shot_reinit" not in cells.strategies or 0.6 not in cells.ratios:
        return None
    apart = cells.against_dense("one_shot_reinit", 0.6, "accuracy")
    return Claim(
        "There is a winning ticket at ratio 0.6: rewound to its first weights it loses no more than 0.01 of accuracy.",
        f"ticket minus dense {_show(apart, signed=True)}",
        _verdict(interval(apart), low=-0.01),
    )


def _calibration_holds(cells, column="ece", title="ECE"):
    """The point up to which calibration holds: every ratio below it is shown not to be worse by the margin."""
    strategy = _main_strategy(cells)
    if not cells.pruned_ratios:
        return None
    changes = {ratio: cells.against_dense(strategy, ratio, column) for ratio in cells.pruned_ratios}
    verdicts = {ratio: _verdict(interval(change, 0.90), high=ECE_MARGIN) for ratio, change in changes.items()}
    first = next((ratio for ratio, verdict in verdicts.items() if verdict != YES), None)
    point = max([r for r in verdicts if first is None or r < first], default=None)
    measured = "shown at no ratio" if point is None else f"shown up to ratio {point:g}"
    if first is not None:
        measured += f"; at {first:g} {title} changes by {_show(changes[first], signed=True)}"
    verdict = verdicts[first] if point is None else YES
    return Claim(
        f"Calibration is not worse than the dense network's up to a point ({strategy}: {title} up by {ECE_MARGIN:g} "
        "at most).",
        measured,
        verdict,
    )


def _calibration_improves(cells):
    strategy = _main_strategy(cells)
    if not cells.pruned_ratios:
        return None
    confidence = _shared_out(CONFIDENCE, len(cells.pruned_ratios))
    changes = {ratio: cells.against_dense(strategy, ratio, "ece") for ratio in cells.pruned_ratios}
    bounds = {ratio: interval(change, confidence) for ratio, change in changes.items()}
    better = [ratio for ratio, pair in bounds.items() if pair and pair[1] < 0]
    best = min(changes, key=lambda ratio: np.mean(changes[ratio]) if changes[ratio] else math.inf)
    if None in bounds.values():
        verdict = FEW
    else:
        verdict = YES if better else NO if all(pair[0] > 0 for pair in bounds.values()) else OPEN
    return Claim(
        f"Pruning improves calibration at some ratio ({strategy}).",
        f"best at ratio {best:g}: ECE changes by {_show(changes[best], signed=True)}"
        + (f"; surely lower at {_at(better)}" if better else ""),
        verdict,
    )


def _ood_confidence(cells, name):
    strategy, column = _main_strategy(cells), f"{name}/mean_confidence"
    if not cells.pruned_ratios:
        return None
    confidence = _shared_out(CONFIDENCE, len(cells.pruned_ratios))
    changes = {ratio: cells.against_dense(strategy, ratio, column) for ratio in cells.pruned_ratios}
    bounds = {ratio: interval(change, confidence) for ratio, change in changes.items()}
    if None in bounds.values():
        verdict = FEW
    else:
        lower, higher = (any(p[1] < 0 for p in bounds.values()), any(p[0] > 0 for p in bounds.values()))
        verdict = OPEN if lower == higher else YES if lower else NO
    first, last = cells.pruned_ratios[0], cells.pruned_ratios[-1]
    measured = f"mean confidence changes by {_show(changes[first], signed=True)} at ratio {first:g}"
    if last != first:
        measured += f", by {_show(changes[last], signed=True)} at {last:g}"
    return Claim(
        f"Pruned networks are less sure of themselves on out-of-distribution data ({name}, {strategy}).",
        measured,
        verdict,
    )


def _main_strategy(cells):
    """The paper's figures on calibration are one-shot's; a study without it is judged by its first strategy."""
    return "one_shot" if "one_shot" in cells.strategies else cells.strategies[0]
