"""Which rows does each point of the report stand on? Lines, their ratios, their seeds, and the dense level."""

import dataclasses

import numpy as np

from tfprune.study.lines import varied

# The order in which strategies are told of, and what they are called in words.
TITLES = {
    "one_shot": "one-shot",
    "one_shot_reinit": "one-shot rewound",
    "one_shot_random": "one-shot with random weights",
    "iterative": "iterative",
    "iterative_finetune": "iterative fine-tuning",
    "lr_rewind": "learning-rate rewinding",
    "at_init": "pruned at initialization",
    "dense": "dense trained on",
    "random_channels": "random channels",
    "magnitude_channels": "magnitude channels",
    "scratch_epochs": "scratch with same epochs",
    "scratch_compute": "scratch with same compute",
}
# Paper's control: the structure of a ticket without its weights. Newer rows say themselves what is a control.
_ALSO_CONTROLS = frozenset({"one_shot_random"})


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of the figures: a strategy, or a strategy with one setting of what the study varies besides.

    Args:
        name: The strategy, with the settings that tell it from others of the same strategy.
        title: The same in words.
        control: Whether it is there to be compared with.
        look: Number of its colour, marker and dash; controls and others count on their own.
    """

    name: str
    title: str
    control: bool
    look: int


class Cells:
    """The finished rows of one model on one data set, by line and ratio.

    Args:
        rows: Rows of one data set and model, finished or not.

    Example:

    >>> cells = Cells(tfprune.study.read_rows("runs/moons"))
    >>> cells.curve(cells.series[0], "accuracy")[0]
    Point(ratio=0.0, mean=0.969, deviation=0.004, count=10)
    """

    def __init__(self, rows):
        placed = [row for row in rows if "strategy" in row and "ratio" in row]
        self.rows = [row for row in placed if row.get("status") == "done"]
        settings = varied(placed)
        self._cells, self._failed, self._settings, strategies = {}, {}, {}, {}
        for row in placed:
            done, own = row.get("status") == "done", {name: str(row.get(name)) for name in settings[row["strategy"]]}
            name = " ".join([row["strategy"], *(f"{field}={value}" for field, value in own.items())])
            (self._cells if done else self._failed).setdefault((name, row["ratio"]), []).append(row)
            if done:
                strategies[name], self._settings[name] = (row["strategy"], _is_control(row)), own
        self.series = _ordered(strategies)
        self.ratios = sorted({ratio for _, ratio in self._cells})
        self.seeds = sorted({row["seed"] for row in self.rows if row.get("seed") is not None})
        self.columns = sorted({name for row in self.rows for name, value in row.items() if value is not None})
        self._columns, self._dense = set(self.columns), {}
        self.is_regression = "rmse" in self._columns and "accuracy" not in self._columns

    @property
    def strategies(self):
        """The lines that are not controls; all of them where a study holds controls alone."""
        return [one for one in self.series if not one.control] or self.series

    @property
    def controls(self):
        """The lines that are there to be compared with."""
        return [one for one in self.series if one.control]

    @property
    def curves(self):
        """The lines with more than the dense ratio: what a figure draws against the ratio."""
        return [one for one in self.series if any(self.at(one, ratio) for ratio in self.ratios if ratio > 0)]

    def at(self, series, ratio):
        """The rows of one line at one ratio."""
        return self._cells.get((series.name, ratio), [])

    def failed(self, series, ratio):
        """The failed trials' rows of one line at one ratio."""
        return self._failed.get((series.name, ratio), [])

    def num_failed(self, pruned=False):
        """How many trials failed; only those that were to prune, or all."""
        return sum(len(rows) for (_, ratio), rows in self._failed.items() if ratio > 0 or not pruned)

    @property
    def failed_ratios(self):
        """Ratios of pruned networks at which trials failed, whatever their line."""
        return sorted({ratio for _, ratio in self._failed if ratio > 0})

    def column(self, series, ratio, name):
        """`{seed: value}` of one column at one line and ratio, without missing values."""
        return {row.get("seed"): row[name] for row in self.at(series, ratio) if row.get(name) is not None}

    def has(self, name):
        """Whether any row has a value in this column."""
        return name in self._columns

    def curve(self, series, name):
        """The `Point`s of one line, ratio by ratio, without those that have no value."""
        points = []
        for ratio in self.ratios:
            mean, deviation, count = mean_and_deviation([row.get(name) for row in self.at(series, ratio)])
            if count:
                points.append(Point(ratio, mean, deviation, count))
        return points

    def dense(self, name):
        """`{seed: value}` of the dense network: of the control where there is one, else what each row says of it."""
        if name not in self._dense:
            found = {row.get("seed"): row[f"dense_{name}"] for row in self.rows if row.get(f"dense_{name}") is not None}
            for one in self.series:
                if one.name == "dense":
                    found |= self.column(one, 0, name)
            self._dense[name] = found
        return self._dense[name]

    def base(self, series, name):
        """`{seed: value}` of what pruned networks are held against: the line's own ratio 0, else the dense network."""
        return self.column(series, 0, name) or self.dense_of(series, name)

    def dense_of(self, series, name):
        """`{seed: value}` of a line's dense network: where lines differ in their settings, the one of its setting."""
        if not any(self._settings.values()):
            return self.dense(name)
        if (series, name) not in self._dense:
            rows = [row for ratio in self.ratios for row in self.at(series, ratio)]
            found = {row.get("seed"): row[f"dense_{name}"] for row in rows if row.get(f"dense_{name}") is not None}
            for one in self.series:
                same = self._settings[one.name].items() <= self._settings[series.name].items()
                if same and one.name.split()[0] == "dense":
                    found |= self.column(one, 0, name)
            self._dense[series, name] = found
        return self._dense[series, name]


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a curve.

    Args:
        ratio: Share of channels removed.
        mean: Mean over seeds.
        deviation: Sample standard deviation over seeds; None of a single one.
        count: How many seeds.
    """

    ratio: float
    mean: float
    deviation: float | None
    count: int


def chapters(rows):
    """Returns `{(dataset, model): rows}`, in the order of their names: each is a report of its own.

    Rows come in one order however they were written: sums of floats depend on it.
    """
    found = {}
    for row in sorted(rows, key=_order):
        found.setdefault((str(row.get("dataset", "")), str(row.get("model", ""))), []).append(row)
    return dict(sorted(found.items()))


def _order(row):
    return str(row.get("strategy")), row.get("ratio") or 0, str(row.get("seed")), str(row.get("key"))


def mean_and_deviation(values):
    """Returns mean, sample standard deviation (None of fewer than two) and count of the values that are there."""
    values = [value for value in values if value is not None]
    if not values:
        return None, None, 0
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values)


def ood_columns(names):
    """Returns `{set: [detector]}` from the columns NAME/auroc_DETECTOR."""
    found = {}
    for name in sorted(names):
        stem, _, metric = name.partition("/")
        if metric.startswith("auroc_") and not name.startswith("dense_"):
            found.setdefault(stem, []).append(metric.removeprefix("auroc_"))
    return {stem: sorted(scores, key=lambda score: (score != "msp", score)) for stem, scores in found.items()}


def title_of(strategy):
    """Returns a strategy's name in words."""
    if strategy.startswith("rewind_epoch_"):
        return f"rewound to epoch {strategy.removeprefix('rewind_epoch_')}"
    return TITLES.get(strategy, strategy.replace("_", " "))


def _is_control(row):
    return bool(row.get("control")) or row["strategy"] in _ALSO_CONTROLS


def _ordered(strategies):
    """The lines, those that are no controls first, each kind with its own looks."""
    known = list(TITLES)

    def order(name):
        strategy = strategies[name][0]
        return (known.index(strategy) if strategy in known else len(known), name)

    found = []
    for control in (False, True):
        names = sorted((name for name, (_, is_control) in strategies.items() if is_control == control), key=order)
        for look, name in enumerate(names):
            strategy, _, settings = name.partition(" ")
            title = title_of(strategy) + (f" ({settings.replace(' ', ', ')})" if settings else "")
            found.append(Series(name, title, control, look))
    return found
