"""How many errors are left when the model answers only where it is most confident?"""

import numpy as np

from tfprune.plots.canvas import add_legend, axes_for, limits_with_room, line_style
from tfprune.plots.inputs import numbers, same_length, tables_by_name


def draw_risk_coverage(curves, ax=None, title=None, optimal=False):
    """Draws risk-coverage curves: the error rate of the answers given, against the share of samples answered.

    Args:
        curves: `{"coverage": [...], "risk": [...]}`, coverage rising within [0, 1], as
            `tfprune.metrics.risk_coverage_table` returns it, or several as `{name: curve}`. A curve that also
            has "aurc", the area under it, has that in the legend.
        ax: Matplotlib axes to draw on. Default None: new ones.
        title: Text above the axes. Default None: none.
        optimal: Whether to add, thin and in the same colour, the curve of a confidence that ranks every error last. It
            takes the risk to be an error rate, and is read off the risk at coverage 1, which must be there.

    Returns:
        The axes.

    Raises:
        ValueError: A curve lacks a column, its columns differ in length, hold values that are missing or out of range,
            or coverage does not rise; or it does not reach coverage 1 and `optimal` asks for it.

    Example:
        >>> tfprune.plots.draw_risk_coverage({"dense": dense_curve, "pruned": pruned_curve}, optimal=True)

    Source: Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", 2017.
    """
    tables = tables_by_name(curves, ("coverage", "risk"), "a risk-coverage curve")
    checked = {name: _curve(table, name) for name, table in tables.items()}
    best = {name: _optimal(*curve, name) for name, curve in checked.items()} if optimal else {}
    ax = axes_for(ax, (4.8, 3.6))
    for index, (name, (coverage, risk)) in enumerate(checked.items()):
        style = line_style(index)
        area = f"AURC {float(tables[name]['aurc']):.4f}" if "aurc" in tables[name] else ""
        label = ": ".join(filter(None, (str(name), area))) or "model"
        ax.plot(coverage, risk, **style, markevery=_marked(coverage, index), label=label)
        if name in best:
            label = "_" if index else "thin: were errors ranked last"
            ax.plot(*best[name], color=style["color"], linestyle=style["linestyle"], linewidth=0.8, label=label)
    ax.set(xlim=(-0.02, 1.02), ylim=_limits(checked.values(), len(checked) + bool(optimal)), title=title or "")
    ax.set(xlabel="coverage (share of samples answered)", ylabel="risk (error rate of the answered)")
    add_legend(ax, "upper left")
    return ax


def _curve(table, name):
    of_curve = f" of {name!r}" if name else ""
    coverage = numbers(table["coverage"], f"coverage{of_curve}", 0, 1)
    risk = numbers(table["risk"], f"risk{of_curve}", least=0)
    same_length(coverage=coverage, risk=risk)
    if np.any(np.diff(coverage) <= 0):
        raise ValueError(f"coverage{of_curve} must rise from point to point. Received: {coverage.tolist()!r:.80}.")
    return coverage, risk


def _marked(coverage, index):
    """Positions of the markers, a tenth of coverage apart; each model begins elsewhere, so that none hides another."""
    wanted = np.arange(0.05 + 0.02 * (index % 5), 1, 0.1)
    return np.unique(np.minimum(np.searchsorted(coverage, wanted), len(coverage) - 1)).tolist()


def _limits(curves, num_entries):
    """Ends of the axis of risk, with room for the legend on the left, where curves are low.

    The first 3 % of coverage do not count where there is more: a single error among the first answers is a risk of 1.
    """
    highest, on_the_left = 0.0, 0.0
    for coverage, risk in curves:
        seen = coverage >= min(0.03, coverage[-1])
        highest = max(highest, risk[seen].max())
        on_the_left = max(on_the_left, risk[seen & (coverage <= 0.6)].max(initial=0))
    highest = highest or 1.0
    return limits_with_room(-0.03 * highest, 1.08 * highest, on_the_left, num_entries)


def _optimal(coverage, risk, name):
    """The curve of the same error rate whose errors come last: 0 up to the accuracy, then only errors are added."""
    error = risk[-1]
    if not np.isclose(coverage[-1], 1) or error > 1:
        raise ValueError(
            "The optimal curve needs the error rate at coverage 1. "
            f"Received{f' for {name!r}' if name else ''}: coverage {coverage[-1]:g}, risk {error:g}."
        )
    covered = np.unique([*np.linspace(0, 1, 201)[1:], *([1 - error] if error < 1 else [])])
    return covered, np.clip((covered - (1 - error)) / covered, 0, None)
