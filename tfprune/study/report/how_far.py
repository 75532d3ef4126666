"""Up to which ratio does each measure hold? The figure of the first screen: a bar per line, measure and ratio."""

import textwrap

from tfprune.study import verdicts
from tfprune.study.report import svg
from tfprune.study.report.curves import RATIO, WIDTH, some

_WORDS = {verdicts.HOLDS: "shown to hold", verdicts.OPEN: "not shown either way", verdicts.FAILS: "shown to suffer"}
_SHADES = {verdicts.HOLDS: "good", verdicts.OPEN: "open", verdicts.FAILS: "bad"}
_KEY = {verdicts.HOLDS: "holds", verdicts.OPEN: "not shown", verdicts.FAILS: "suffers"}
_LEFT, _RIGHT, _LANE, _TITLE, _MOST = 128, WIDTH - 12, 15, 17, 8
# A bold sign takes less than 8 units in any font that a browser falls back to; the number stands at the right.
_TITLE_SIGNS = (_RIGHT - 50) // 8


def draw(cells, potentials, prefix="", controls=False):
    """Draws, line by line and measure by measure, up to which ratio it is shown to hold.

    Args:
        cells: `Cells` of the chapter.
        potentials: What `verdicts.potentials` says of them.
        prefix: What the figure's name starts with.
        controls: Whether to draw the controls, or the strategies.

    Returns:
        List of one `Figure`, or of none where there is nothing to draw.
    """
    every = [one for one in potentials if one.series.control == controls and any(one.steps.values())]
    found = every[:_MOST]
    if not found:
        return []
    measures = [m for m in verdicts.measures(cells) if any(one.steps.get(m.column) for one in found)]
    scale, parts, top = svg.Scale(0, max(cells.ratios)), [_key()], 30
    for one in found:
        parts.append(_lanes(one, measures, scale, top))
        top += 15 + _TITLE * len(_title(one)) + _LANE * len(measures)
    for value in (0, *some(cells.ratios, 8)):
        parts.append(svg.text(_at(scale, value), top + 6, svg.label(value), "middle"))
    parts.append(svg.text((_LEFT + _RIGHT) / 2, top + 24, RATIO, "middle"))
    name, who = (f"{prefix}how-far-controls", "control") if controls else (f"{prefix}how-far", "strategy")
    words = "; ".join(f"{one.series.title} {one.ratio:g}" for one in found)
    drawn = svg.picture(name, WIDTH, top + 32, parts, f"How far each {who} goes", f"Prune potential: {words}.")
    return [svg.Figure(name, f"How far each {who} goes", _caption(found, every), drawn)]


def _caption(found, every):
    text = (
        "A bar ends at the ratio that was tried. The upright line, and the number, is the prune potential: the last "
        "ratio up to which every measure is shown to hold."
    )
    if not all(one.has_intervals for one in found):
        text += " Pale: one seed, without an interval."
    if any(one.failures for one in found):
        text += " A ratio at which a seed failed is not shown to hold, whatever its bars say."
    if len(found) < len(every):
        text += f" {len(found)} of {len(every)} lines are drawn: those that go farthest, of equal ones the first."
        text += " The table of numbers has all."
    return text


def _at(scale, ratio):
    return _LEFT + (_RIGHT - _LEFT) * scale.at(ratio)


def _key():
    entries, x = "", _LEFT
    for verdict, words in _KEY.items():
        entries += _bar(verdict, x, 4, 16) + svg.text(x + 21, 14, words)
        x += 34 + 7 * len(words)
    return entries


def _bar(verdict, x, y, width, opacity=None):
    """A bar that is told from others without colour too: full, grey, or struck through."""
    height = _LANE - 4
    if verdict == verdicts.FAILS:
        middle = svg.path([(x, y + height / 2), (x + width, y + height / 2)])
        bar = svg.block(x, y, width, height, ".2", stroke="currentColor") + svg.stroke(middle)
    else:
        bar = svg.block(x, y, width, height, opacity)
    return svg.group(bar, _SHADES[verdict])


def _bar_of(measure, step, x, width, y):
    """The bar of one step; of a single seed, which shows nothing, a pale one of what its numbers are."""
    if step.high is not None:
        return _bar(step.verdict, x, y, width)
    return _bar(verdicts.HOLDS if step.harm <= measure.limit else verdicts.OPEN, x, y, width, ".4")


def _lanes(one, measures, scale, top):
    parts = svg.text(_RIGHT, top + 13, f"{one.ratio:g}", "end", "ink", 14, ' font-weight="700"')
    for line in _title(one):
        parts += svg.text(2, top + 12, line, name="ink", extra=' font-weight="600"')
        top += _TITLE
    top += 3
    for index, measure in enumerate(measures):
        y, start = top + _LANE * index, 0.0
        parts += svg.text(_LEFT - 8, y + 10, measure.short, "end", size=11.5)
        for step in one.steps.get(measure.column, ()):
            x, end = _at(scale, start), _at(scale, step.ratio)
            bar = _bar_of(measure, step, x + 1, max(end - x - 2, 1), y + 1)
            parts += svg.mark_of(bar, step_words(measure, step))
            start = step.ratio
    x = _at(scale, one.ratio)
    flag = svg.path([(x, top - 2), (x, top + _LANE * len(measures))])
    return parts + svg.stroke(flag, "ink", 2.5)


def _title(one):
    """The name of a line, in as many lines as it takes."""
    return textwrap.wrap(one.series.title + (" (control)" if one.series.control else ""), _TITLE_SIGNS)


def step_words(measure, step):
    """Returns what is known of a measure at a ratio, in words."""
    where = f"{measure.title} at {step.ratio:g}: worse by {step.harm:+.3f}"
    if step.high is None:
        return f"{where}, one seed, no interval"
    ends = f"95 % sure above {step.low:+.3f} and below {step.high:+.3f}"
    return f"{where}, {ends}, {measure.limit:g} allowed: {_WORDS[step.verdict]}"
