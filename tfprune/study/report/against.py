"""Is a strategy better than a control? Their paired differences against the ratio, with intervals."""

import itertools

from tfprune.study.report import svg
from tfprune.study.report.curves import HEIGHT, RATIO, WIDTH, panel_of, seeds_of, some


def draw(found, title, prefix=""):
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
    panel = panel_of(x, svg.around([*ends, 0]))
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
        return f"{one.mean:+.3f} ({seeds_of(len(one.values))})"
    return f"{one.mean:+.3f} ({one.bounds[0]:+.3f} to {one.bounds[1]:+.3f}, {seeds_of(len(one.values))})"
