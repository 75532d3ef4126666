"""What is left of each layer? Its channels before and after pruning, ratio by ratio."""

import numpy as np

from tfprune.study.report import svg
from tfprune.study.report.reliability import few

_COLUMNS = ("layer_names", "layer_channels_before", "layer_channels_after")
_LEFT, _TOP, _LANE, _BAR, _NUMBERS = 118, 40, 20, 13, 58


def draw(cells, prefix=""):
    """Draws the channels of each layer at up to four ratios, for the first strategy that says; a list of `Figure`s."""
    ratios = few([ratio for ratio in cells.ratios if ratio > 0], 4)
    for series in cells.curves:
        rows = {ratio: [row for row in cells.at(series, ratio) if all(map(row.get, _COLUMNS))] for ratio in ratios}
        rows = {ratio: found for ratio, found in rows.items() if found}
        if rows:
            return [_figure(series, rows, prefix)]
    return []


def _figure(series, rows, prefix):
    names = next(iter(rows.values()))[0]["layer_names"]
    width = max(150, (700 - _LEFT) / len(rows))
    parts = [
        svg.text(_LEFT - 8, _TOP + _LANE * i + _BAR, _short(name), "end", "ink", 11.5) for i, name in enumerate(names)
    ]
    for index, (ratio, found) in enumerate(rows.items()):
        parts.append(svg.text(_LEFT + index * width, _TOP - 14, f"ratio {ratio:g}", name="ink"))
        same = [row for row in found if row["layer_names"] == names]
        parts += _column(series, names, same, _LEFT + index * width, width - _NUMBERS)
    name = f"{prefix}widths"
    told = (
        f"Channels kept of each of {len(names)} layers, {series.title}, at ratios {', '.join(f'{r:g}' for r in rows)}."
    )
    height = _TOP + _LANE * len(names) + 8
    drawn = svg.picture(name, _LEFT + len(rows) * width, height, parts, "Widths before and after", told)
    text = "Pale: the dense layer. Full: what is left, mean over seeds."
    return svg.Figure(name, f"Layer by layer: {series.title}", text, drawn)


def _column(series, names, rows, left, room):
    """The layers at one ratio, below each other; bars of all layers share one scale."""
    if not rows:
        return
    before = np.array(rows[0]["layer_channels_before"], float)
    after = np.array([row["layer_channels_after"] for row in rows], float).mean(axis=0)
    for index, name in enumerate(names):
        y, whole, kept = _TOP + _LANE * index + 3, *(room * value[index] / before.max() for value in (before, after))
        bars = svg.block(left, y, whole, _BAR, ".18") + svg.block(left, y, kept, _BAR)
        shown = f"{after[index]:.3g}/{before[index]:.0f}"
        yield svg.mark_of(bars, f"{name}: {shown} channels", svg.colour(series))
        yield svg.text(left + whole + 5, y + 10, shown, size=11)


def _short(name):
    return name if len(name) <= 18 else f"{name[:8]}…{name[-9:]}"
