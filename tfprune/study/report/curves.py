"""How do accuracy, calibration, detection and cost change with the ratio? A line per strategy, with its deviation."""

import itertools
import math

import numpy as np

from tfprune.study.report import svg
from tfprune.study.report.cells import mean_and_deviation, ood_columns

WIDTH, HEIGHT = 440, 320
RATIO = "ratio (share of channels removed)"
# column, unit, title, how to read it, options of `curve`
_CLASSIFICATION = (
    ("accuracy", "accuracy", "Accuracy", "Share of the test samples that are named right.", {"most": 1}),
    (
        "ece",
        "ECE",
        "Calibration error",
        "Expected calibration error: how far confidence is from accuracy. The floor (dotted) is what a network of the "
        "same confidences would show if they were right.",
        {"least": 0, "floor": "ece_floor"},
    ),
    ("nll", "NLL", "Negative log-likelihood", "Punishes a confident mistake hardest. Lower is better.", {"least": 0}),
)
_REGRESSION = (
    ("rmse", "RMSE", "Error", "Root mean squared error, in units of the target. Lower is better.", {"least": 0}),
    ("crps", "CRPS", "Predicted distribution", "Continuous ranked probability score. Lower is better.", {"least": 0}),
    (
        "interval_calibration_error",
        "calibration error",
        "Calibration of intervals",
        "Mean difference between nominal and observed coverage. Lower is better.",
        {"least": 0},
    ),
    (
        "picp_90",
        "coverage",
        "Coverage of 90 % intervals",
        "Share of the targets inside. 0.9 (dotted) is right.",
        {"most": 1, "levels": (0.9,)},
    ),
)
_EPOCHS = (
    "early_stop_epoch",
    "epochs",
    "Epochs to the early stop",
    "The epoch of the lowest validation loss in the last round: how long the pruned network learns.",
    {"least": 0, "dense": False, "logarithmic": True},
)


def draw(cells, prefix=""):
    """Draws every main measure against the ratio, a line per strategy, with the dense level; returns `Figure`s."""
    wanted = [*_CLASSIFICATION, *_REGRESSION, *_detection(cells), _EPOCHS]
    drawn = [curve(cells, prefix, *words, **options) for *words, options in wanted if cells.has(words[0])]
    return [figure for figure in drawn if figure]


def _detection(cells):
    for name, scores in ood_columns(cells.columns).items():
        words = (
            f"How well {scores[0].upper()} tells {name} from known data. 1 is perfect, 0.5 is chance; below it the "
            "network is surer of strange inputs than of known ones."
        )
        yield (
            f"{name}/auroc_{scores[0]}",
            "AUROC",
            f"Noticing what is strange: {name}",
            words,
            {"most": 1, "levels": (0.5,)},
        )


def curve(cells, prefix, column, unit, title, text, least=-math.inf, most=math.inf, levels=(), floor=None, dense=True,
          logarithmic=False):  # fmt: skip
    """Draws one column against the ratio, with one sample standard deviation; None without any value.

    Args:
        cells: `Cells` of the chapter.
        prefix: What the figure's name starts with.
        column: Column of the rows.
        unit: What stands at the axis.
        title: What it shows.
        text: How to read it.
        least, most: What the values cannot be below and above.
        levels: Values with a dotted line, where they are near.
        floor: Column of the least that can be told from chance.
        dense: Whether to draw the dense network's level.
        logarithmic: Whether values that span more than a factor of ten are drawn by their logarithm.
    """
    lines = [(series, points) for series in cells.curves if (points := cells.curve(series, column))]
    if not lines:
        return None
    means = [point.mean for _, points in lines for point in points]
    logarithmic = logarithmic and max(means) > 10 * min(means) > 0
    shown = means if logarithmic else [end for _, points in lines for point in points for end in _ends(point)]
    level = mean_and_deviation(list(cells.dense(column).values()))[0] if dense else None
    floors = _floor(cells, floor) if floor else []
    # A level that is far from all lines would only flatten them.
    levels = [value for value in levels if min(shown) - 0.1 < value < max(shown) + 0.1]
    besides = [*levels, *([] if level is None else [level]), *(y for _, y in floors)]
    panel = _panel(_ratio_scale(cells), svg.around([*shown, *besides], least, most, logarithmic))
    panel.axes(RATIO, unit)
    for value in levels:
        panel.level(value, "soft", "2 3")
    if floors:
        panel.parts.append(svg.stroke(svg.path([panel.place(*point) for point in floors]), "soft", 1.5, "2 3"))
    if level is not None:
        panel.level(level, "ink")
    for series, points in _controls_first(lines):
        tips = [f"{series.title} at {p.ratio:g}: {_told(p)}" for p in points]
        spread = None if logarithmic else [point.deviation or 0 for point in points]
        panel.curve(series, [(point.ratio, point.mean) for point in points], tips, spread)
    if level is not None:
        panel.word(level, "dense", "ink")
    name = prefix + svg.file_name(column)
    told = "; ".join(
        f"{one.title} {p[0].mean:.3g} at {p[0].ratio:g}, {p[-1].mean:.3g} at {p[-1].ratio:g}" for one, p in lines
    )
    drawn = svg.picture(
        name, WIDTH, HEIGHT, panel.parts, f"{title} against the pruning ratio", f"{told}.", [line for line, _ in lines]
    )
    return svg.Figure(name, title, text, drawn)


def trade_off(cells, prefix=""):
    """Draws quality against the compression ratio; None without either."""
    quality, unit = ("rmse", "RMSE") if cells.is_regression else ("accuracy", "accuracy")
    lines = [(series, pairs) for series in cells.curves if (pairs := _pairs(cells, series, quality))]
    if not lines:
        return None
    xs, ys = ([pair[axis] for _, pairs in lines for pair in pairs] for axis in (0, 1))
    panel = _panel(svg.around(xs, logarithmic=True), svg.around(ys))
    panel.axes("compression ratio (parameters, dense / pruned)", unit)
    for series, pairs in _controls_first(lines):
        tips = [f"{series.title} at {r:g}: {unit} {y:.3f}, {x:.2f} times smaller" for x, y, r in pairs]
        panel.curve(series, [pair[:2] for pair in pairs], tips)
    name, title = f"{prefix}trade-off", "What a smaller network costs"
    told = f"{unit} against the compression ratio, a line per strategy."
    drawn = svg.picture(name, WIDTH, HEIGHT, panel.parts, title, told, [line for line, _ in lines])
    better = "bottom" if cells.is_regression else "top"
    return svg.Figure(name, title, f"Means over seeds, a point per ratio. Towards the {better} right is better.", drawn)


def latency(cells, prefix=""):
    """Draws the measured time of one sample against the ratio; None where it was not measured."""
    text = "Median time of one sample on the device of the study: what the theoretical speed-up is worth there."
    if not cells.has("latency_ms"):
        return None
    return curve(cells, prefix, "latency_ms", "ms", "Measured latency", text, least=0)


def against(found, title, prefix=""):
    """Draws the paired differences to one control against the ratio, with their Student-t intervals.

    Args:
        found: `Difference`s of all lines to one control in one measure.
        title: What the control is called.
        prefix: What the figure's name starts with.
    """
    measure, control = found[0].measure, found[0].control
    lines = [(series, list(part)) for series, part in itertools.groupby(found, key=lambda one: one.series)]
    ratios = sorted({one.ratio for one in found})
    room = 0.06 * max(ratios) + 0.02
    x = svg.Scale(min(ratios) - room, max(ratios) + room, ticks=some(ratios, 10))
    ends = [end for one in found for end in (one.bounds or (one.mean, one.mean))]
    panel = _panel(x, svg.around([*ends, 0]))
    better = "higher is better" if measure.higher_is_better else "lower is better"
    panel.axes(RATIO, f"difference in {measure.title} ({better})", form=lambda v: f"{v:+g}" if v else "0")
    panel.level(0, "ink")
    # Beside each other, but nearer to their own ratio than to the next.
    nearest = min([room, *(b - a for a, b in itertools.pairwise(ratios))])
    aside = min(0.6 * nearest / len(lines), 0.015)
    for index, (series, part) in enumerate(lines):
        shift = (index - (len(lines) - 1) / 2) * aside
        tips = [f"{series.title} minus {title} at {one.ratio:g}: {difference_words(one)}" for one in part]
        reach = [(one.bounds[1] - one.bounds[0]) / 2 if one.bounds else 0 for one in part]
        panel.curve(series, [(one.ratio + shift, one.mean) for one in part], tips, reach, band=False)
    name = prefix + svg.file_name(f"against {control if isinstance(control, str) else control.name} {measure.column}")
    told = f"{len(lines)} lines, each minus {title}, with 95 % intervals of the paired differences."
    headline = f"{measure.title[0].upper()}{measure.title[1:]}, minus {title}"
    drawn = svg.picture(name, WIDTH, HEIGHT, panel.parts, headline, told, [line for line, _ in lines])
    return svg.Figure(name, headline, "", drawn)


def difference_words(one):
    """Returns a difference with its interval, in words."""
    if one.bounds is None:
        return f"{one.mean:+.3f} ({_seeds(len(one.values))})"
    return f"{one.mean:+.3f} ({one.bounds[0]:+.3f} to {one.bounds[1]:+.3f}, {_seeds(len(one.values))})"


def some(values, most):
    """At most so many of the values for an axis, evenly taken, the last one among them."""
    step = -(-len(values) // most)
    return tuple(values[::-1][::step][::-1])


def _panel(x, y):
    return svg.Panel(54, 34, WIDTH - 66, HEIGHT - 84, x, y)


def _controls_first(lines):
    """The lines in the order of drawing: strategies lie above controls."""
    return sorted(lines, key=lambda line: not line[0].control)


def _ends(point):
    return point.mean - (point.deviation or 0), point.mean + (point.deviation or 0)


def _floor(cells, column):
    """`(ratio, mean floor over all lines)`: what is below it cannot be told from chance."""
    values = {r: [v for one in cells.curves for v in cells.column(one, r, column).values()] for r in cells.ratios}
    return [(ratio, float(np.mean(found))) for ratio, found in values.items() if found]


def _pairs(cells, series, quality):
    """`(compression, quality, ratio)` of one line, means over seeds, the largest network first."""
    found = []
    for ratio in cells.ratios:
        x, y = (
            mean_and_deviation(list(cells.column(series, ratio, n).values()))[0] for n in ("compression_ratio", quality)
        )
        if x and y is not None:
            found.append((x, y, ratio))
    return sorted(found)


def _ratio_scale(cells):
    most = max(cells.ratios)
    return (
        svg.Scale(-0.03 * most, most * 1.03, ticks=some(cells.ratios, 10)) if most else svg.Scale(-0.1, 0.1, ticks=(0,))
    )


def _told(point):
    digits = 0 if abs(point.mean) >= 100 else 3
    spread = "" if point.deviation is None else f" ± {point.deviation:.{digits}f}"
    return f"{point.mean:.{digits}f}{spread} ({_seeds(point.count)})"


def _seeds(count):
    return f"{count} seed{'s' if count > 1 else ''}"
