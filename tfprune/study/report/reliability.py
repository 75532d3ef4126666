"""Is a confidence, or an interval, worth what it says? Reliability diagrams by ratio, all seeds pooled."""

import math

import numpy as np

from tfprune.study.report import svg

_CLASSIFICATION = ("reliability_count", "reliability_confidence", "reliability_accuracy")
_REGRESSION = ("coverage_nominal", "coverage_observed")
_SIDE, _LEFT, _TOP, _GAP = 128, 46, 30, 16


def draw(cells, prefix=""):
    """Draws reliability diagrams, a figure per line and a panel per ratio, at most five; returns `Figure`s."""
    columns = _REGRESSION if cells.is_regression else _CLASSIFICATION

    def is_there(series, ratio):
        return any(all(map(row.get, columns)) for row in cells.at(series, ratio))

    having = [one for one in cells.curves if any(is_there(one, ratio) for ratio in cells.ratios)]
    ratios = few([ratio for ratio in cells.ratios if any(is_there(one, ratio) for one in having)])
    return [_figure(cells, series, ratios, columns, prefix) for series in having]


def _figure(cells, series, ratios, columns, prefix):
    x_title, y_title = ("nominal coverage", "observed coverage") if cells.is_regression else ("confidence", "accuracy")
    unit, parts = svg.Scale(0, 1, ticks=(0, 0.5, 1)), []
    for index, ratio in enumerate(ratios):
        panel = svg.Panel(_LEFT + index * (_SIDE + _GAP), _TOP, _SIDE, _SIDE, unit, unit)
        panel.axes(x_title, y_labels=not index)
        panel.parts.append(svg.text(panel.left + _SIDE / 2, 20, f"ratio {ratio:g}", "middle", "ink"))
        panel.parts.append(svg.stroke(svg.path([panel.place(0, 0), panel.place(1, 1)]), "soft", 1, "3 3"))
        rows = [row for row in cells.at(series, ratio) if all(map(row.get, columns))]
        if rows:
            (_coverage if cells.is_regression else _diagram)(panel, series, rows)
        else:
            panel.parts.append(svg.text(panel.left + _SIDE / 2, _TOP + _SIDE / 2, "no data", "middle"))
        parts += panel.parts
    turned = f'<g transform="translate(11 {_TOP + _SIDE / 2}) rotate(-90)">'
    parts.append(f"{turned}{svg.text(0, 0, y_title, 'middle')}</g>")
    name = prefix + svg.file_name(f"reliability {series.name}")
    told = f"{y_title} against {x_title} at ratios {', '.join(f'{r:g}' for r in ratios)}. On the diagonal they agree."
    width, height = _LEFT + len(ratios) * (_SIDE + _GAP), _TOP + _SIDE + 42
    drawn = svg.picture(name, width, height, parts, f"Reliability, {series.title}", told)
    return svg.Figure(name, series.title + (" (control)" if series.control else ""), "", drawn)


def _diagram(panel, series, rows):
    """Bars: where the samples are. Dots: the bins that hold any, larger where they hold more."""
    count, confidence, accuracy = pool(rows)
    share, width = count / max(count.sum(), 1), panel.width / len(count)
    bars = "".join(_bar(panel, index * width, width, height) for index, height in enumerate(share) if height)
    panel.parts.append(svg.fill(bars, "grid"))
    full = np.flatnonzero(count)
    if not len(full):
        return
    places = [panel.place(confidence[i], accuracy[i]) for i in full]
    parts = svg.stroke(svg.path(places), stroke_opacity=".6")
    for i, (x, y) in zip(full, places, strict=True):
        radius = svg.number(1.8 + 4.2 * math.sqrt(share[i]))
        dot = f'<circle cx="{svg.number(x)}" cy="{svg.number(y)}" r="{radius}" fill="currentColor"/>'
        words = f"confidence {confidence[i]:.3f}, accuracy {accuracy[i]:.3f}, {count[i]:,.0f} samples"
        parts += svg.mark_of(dot, words)
    panel.parts.append(svg.group(parts, svg.colour(series)))


def _bar(panel, start, width, share):
    left, right, bottom = panel.left + start + 1, panel.left + start + width - 1, panel.top + panel.height
    top = bottom - panel.height * share
    return svg.path([(left, bottom), (left, top), (right, top), (right, bottom)]) + "Z"


def _coverage(panel, series, rows):
    """Nominal against observed coverage of central intervals: the mean over seeds, and one sample deviation."""
    nominal = rows[0]["coverage_nominal"]
    observed = np.array([row["coverage_observed"] for row in rows if row["coverage_nominal"] == nominal], float)
    means = observed.mean(axis=0)
    spread = observed.std(axis=0, ddof=1) if len(observed) > 1 else np.zeros(len(nominal))
    upper, lower, line = (
        [panel.place(x, y) for x, y in zip(nominal, values, strict=True)]
        for values in (means + spread, means - spread, means)
    )
    band = svg.fill(svg.path(upper + lower[::-1]) + "Z", opacity=".18")
    panel.parts.append(svg.group(band + svg.stroke(svg.path(line), "", 2), svg.colour(series)))


def pool(rows):
    """Returns the reliability table of several rows as if their samples were one set.

    Bins are pooled by their counts, so that a bin that is empty for one seed weighs nothing there; a bin that is empty
    for all is NaN, never an accuracy of 0. Rows with another number of bins than the first are left out.

    Args:
        rows: Finished rows with reliability_count, reliability_confidence and reliability_accuracy.

    Returns:
        Arrays (count, confidence, accuracy), one value per bin.

    Example:

    >>> count, confidence, accuracy = pool(rows)
    """
    rows = [row for row in rows if len(row["reliability_count"]) == len(rows[0]["reliability_count"])]
    counts = np.array([row["reliability_count"] for row in rows], float)

    def pooled(name):
        values = np.array([[math.nan if v is None else v for v in row[name]] for row in rows], float)
        with np.errstate(invalid="ignore"):
            return np.where(counts > 0, values * counts, 0).sum(axis=0) / counts.sum(axis=0)

    return counts.sum(axis=0), pooled("reliability_confidence"), pooled("reliability_accuracy")


def few(values, most=5):
    """Returns at most so many of the values, first and last among them, evenly apart."""
    if len(values) <= most:
        return list(values)
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]
