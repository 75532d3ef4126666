"""How do accuracy, calibration, detection and cost change with the ratio? A line per strategy, with its deviation."""

import dataclasses
import math

import numpy as np

from tfprune.study.report import svg
from tfprune.study.report.cells import mean_and_deviation, ood_columns

WIDTH, HEIGHT = 440, 320
RATIO = "ratio (share of channels removed)"


@dataclasses.dataclass(frozen=True)
class Curve:
    """What is drawn against the ratio.

    Args:
        column: Column of the rows.
        unit: What stands at the axis.
        title: What it shows.
        text: How to read it.
        least: What the values cannot be below.
        most: What they cannot be above.
        level: A value with a dotted line, where it is near.
        floor: Column of the least that can be told from chance.
        dense: Whether to draw the dense network's level.
        logarithmic: Whether values that span more than a factor of ten are drawn by their logarithm.
    """

    column: str
    unit: str
    title: str
    text: str
    least: float = -math.inf
    most: float = math.inf
    level: float | None = None
    floor: str | None = None
    dense: bool = True
    logarithmic: bool = False


_CURVES = (
    Curve("accuracy", "accuracy", "Accuracy", "Share of the test samples that are named right.", most=1),
    Curve(
        "ece",
        "ECE",
        "Calibration error",
        "Expected calibration error: how far confidence is from accuracy. The floor (dotted) is what a network of the "
        "same confidences would show if they were right.",
        least=0,
        floor="ece_floor",
    ),
    Curve("nll", "NLL", "Negative log-likelihood", "Punishes a confident mistake hardest. Lower is better.", least=0),
    Curve("rmse", "RMSE", "Error", "Root mean squared error, in units of the target. Lower is better.", least=0),
    Curve("crps", "CRPS", "Predicted distribution", "Continuous ranked probability score. Lower is better.", least=0),
    Curve(
        "interval_calibration_error",
        "calibration error",
        "Calibration of intervals",
        "Mean difference between nominal and observed coverage. Lower is better.",
        least=0,
    ),
    Curve(
        "picp_90",
        "coverage",
        "Coverage of 90 % intervals",
        "Share of the targets inside. 0.9 (dotted) is right.",
        most=1,
        level=0.9,
    ),
)
_EPOCHS = Curve(
    "early_stop_epoch",
    "epochs",
    "Epochs to the early stop",
    "The epoch of the lowest validation loss in the last round: how long the pruned network learns.",
    least=0,
    dense=False,
    logarithmic=True,
)
_LATENCY = Curve(
    "latency_ms",
    "ms",
    "Measured latency",
    "Median time of one sample on the device of the study: what the theoretical speed-up is worth there.",
    least=0,
)


def draw(cells, prefix=""):
    """Draws every main measure against the ratio, a line per strategy, with the dense level; returns `Figure`s."""
    return _drawn(cells, [*_CURVES, *_detection(cells), _EPOCHS], prefix)


def cost(cells, prefix=""):
    """Draws quality against the compression ratio, and the measured latency; returns those `Figure`s there are."""
    return [*trade_off(cells, prefix), *_drawn(cells, [_LATENCY], prefix)]


def _drawn(cells, wanted, prefix):
    return [curve(cells, one, prefix) for one in wanted if any(cells.curve(s, one.column) for s in cells.curves)]


def _detection(cells):
    for name, scores in ood_columns(cells.columns).items():
        text = (
            f"How well {scores[0].upper()} tells {name} from known data. 1 is perfect, 0.5 is chance; below it the "
            "network is surer of strange inputs than of known ones."
        )
        yield Curve(f"{name}/auroc_{scores[0]}", "AUROC", f"Noticing what is strange: {name}", text, most=1, level=0.5)


def curve(cells, wanted, prefix=""):
    """Draws one column against the ratio, with one sample standard deviation.

    Args:
        cells: `Cells` of the chapter, some of which have the column.
        wanted: The `Curve`.
        prefix: What the figure's name starts with.
    """
    lines = [(series, points) for series in cells.curves if (points := cells.curve(series, wanted.column))]
    means = [point.mean for _, points in lines for point in points]
    logarithmic = wanted.logarithmic and max(means) > 10 * min(means) > 0
    shown = means if logarithmic else [end for _, points in lines for point in points for end in _ends(point)]
    # A level that is far from all lines would only flatten them.
    near = wanted.level is not None and min(shown) - 0.1 < wanted.level < max(shown) + 0.1
    levels = [wanted.level] if near else []
    dense = [mean_and_deviation(list(cells.dense(wanted.column).values()))[0]] if wanted.dense else []
    dense = [value for value in dense if value is not None]
    floor = _floor(cells, wanted.floor) if wanted.floor else []
    scale = svg.around([*shown, *levels, *dense, *(y for _, y in floor)], wanted.least, wanted.most, logarithmic)
    panel = panel_of(_ratio_scale(cells), scale)
    panel.axes(RATIO, wanted.unit)
    for value in levels:
        panel.level(value, "soft", "2 3")
    for value in dense:
        panel.level(value, "ink")
    if floor:
        panel.parts.append(svg.stroke(svg.path([panel.place(*point) for point in floor]), "soft", 1.5, "2 3"))
    _draw_lines(panel, lines, spread=not logarithmic)
    for value in dense:
        panel.word(value, "dense", "ink")
    name = prefix + svg.file_name(wanted.column)
    title = f"{wanted.title} against the pruning ratio"
    drawn = svg.picture(name, WIDTH, HEIGHT, panel.parts, title, _told_of(lines), [line for line, _ in lines])
    return svg.Figure(name, wanted.title, wanted.text, drawn)


def _draw_lines(panel, lines, spread):
    for series, points in _controls_first(lines):
        tips = [f"{series.title} at {point.ratio:g}: {_told(point)}" for point in points]
        reach = [point.deviation or 0 for point in points] if spread else None
        panel.curve(series, [(point.ratio, point.mean) for point in points], tips, reach)


def _told_of(lines):
    """The lines in words: where each starts and where it ends."""
    ends = [(series.title, points[0], points[-1]) for series, points in lines]
    return "; ".join(f"{title} {a.mean:.3g} at {a.ratio:g}, {b.mean:.3g} at {b.ratio:g}" for title, a, b in ends) + "."


def trade_off(cells, prefix=""):
    """Draws quality against the compression ratio; a list of one `Figure`, or of none without either."""
    quality, unit = ("rmse", "RMSE") if cells.is_regression else ("accuracy", "accuracy")
    lines = [(series, pairs) for series in cells.curves if (pairs := _pairs(cells, series, quality))]
    if not lines:
        return []
    xs, ys = ([pair[axis] for _, pairs in lines for pair in pairs] for axis in (0, 1))
    panel = panel_of(svg.around(xs, logarithmic=True), svg.around(ys))
    panel.axes("compression ratio (parameters, dense / pruned)", unit)
    for series, pairs in _controls_first(lines):
        tips = [f"{series.title} at {r:g}: {unit} {y:.3f}, {x:.2f} times smaller" for x, y, r in pairs]
        panel.curve(series, [pair[:2] for pair in pairs], tips)
    name, title = f"{prefix}trade-off", "What a smaller network costs"
    told = f"{unit} against the compression ratio, a line per strategy."
    drawn = svg.picture(name, WIDTH, HEIGHT, panel.parts, title, told, [line for line, _ in lines])
    better = "bottom" if cells.is_regression else "top"
    text = f"Means over seeds, a point per ratio. Towards the {better} right is better."
    return [svg.Figure(name, title, text, drawn)]


def some(values, most):
    """At most so many of the values for an axis, evenly taken, the last one among them."""
    step = -(-len(values) // most)
    return tuple(values[::-1][::step][::-1])


def panel_of(x, y):
    """Returns the axes of a figure, with room for what stands beside them."""
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
    return f"{point.mean:.{digits}f}{spread} ({seeds_of(point.count)})"


def seeds_of(count):
    """Returns how many seeds, in words."""
    return f"{count} seed{'s' if count > 1 else ''}"
