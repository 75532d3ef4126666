"""Which figures does the report of one study hold? All of them, by the section of the page that they stand in."""

from tfprune.study import verdicts
from tfprune.study.report import against, curves, how_far, reliability, tables, widths


def draw(cells, potentials, prefix=""):
    """Draws everything there is to draw of one chapter.

    Args:
        cells: `Cells` of the chapter.
        potentials: What `verdicts.potentials` says of them.
        prefix: What the figures' names start with.

    Returns:
        Dict of lists of `Figure`s: "how_far", "controls", "curves", "reliability", "cost" and "widths"; and under
        "against" the list of `(what it is held against, figures)`.
    """
    return {
        "how_far": how_far.draw(cells, potentials, prefix),
        "controls": how_far.draw(cells, potentials, prefix, controls=True),
        "curves": curves.draw(cells, prefix),
        "against": list(_against(cells, prefix)),
        "reliability": reliability.draw(cells, prefix),
        "cost": curves.cost(cells, prefix),
        "widths": widths.draw(cells, prefix),
    }


def flat(figures):
    """Yields the figures of all sections that `draw` returned."""
    for section, found in figures.items():
        for one in found:
            yield from one[1] if section == "against" else [one]


def _against(cells, prefix):
    """`(control, figures)`, a figure for each of the first three measures."""
    for control, title in tables.controls(cells):
        found = [verdicts.differences(cells, control, measure) for measure in verdicts.measures(cells)[:3]]
        drawn = [against.draw(part, title, prefix) for part in found if part]
        if drawn:
            yield title, drawn
