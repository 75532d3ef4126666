"""Do 90 % of the targets fall where a regression model says that 90 % will?"""

import numpy as np

from tfprune.plots.canvas import GONE, KEPT, NEGATIVE, POSITIVE, add_legend, axes_for, line_style
from tfprune.plots.inputs import numbers, same_length, tables_by_name

# kind -> axis labels, and what it means that more, or fewer, targets were found than predicted
_WORDS = {
    "interval": (
        "nominal coverage of the central interval",
        "observed coverage (share of targets inside)",
        "too wide: under-confident",
        "too narrow: over-confident",
    ),
    "quantile": (
        "nominal level of the quantile",
        "observed level (share of targets below)",
        "quantile too high",
        "quantile too low",
    ),
}


def draw_regression_reliability(table, ax=None, title=None, kind="interval"):
    """Draws the reliability diagram of a regression model: observed against nominal coverage, the diagonal calibrated.

    The legend gives the mean gap to the diagonal, which is `tfprune.metrics.coverage_calibration_error`. Of a
    single model the area between curve and diagonal is filled.

    Args:
        table: `{"nominal": [level], "observed": [share]}`, as `tfprune.metrics.coverage_table` returns it, or the row
            of `tfprune.evaluate_regression`; or several as `{name: table}`.
        ax: Matplotlib axes to draw on. Default None: new ones.
        title: Text above the axes. Default None: none.
        kind: The `kind` that `coverage_table` was called with, "interval" or "quantile"; it names the axes.

    Returns:
        The axes.

    Raises:
        ValueError: A table lacks a column, its columns differ in length, or hold values outside [0, 1] or levels that
            do not rise; or `kind` is unknown.

    Example:
        >>> table = tfprune.metrics.coverage_table(mean, std, y_test)
        >>> tfprune.plots.draw_regression_reliability(table)

    Source: Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression", 2018.
    """
    if kind not in _WORDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, _WORDS))}. Received: kind={kind!r}.")
    what = "the table that tfprune.metrics.coverage_table returned"
    curves = {name: _curve(columns, name, what) for name, columns in tables_by_name(table, (), what).items()}
    ax = axes_for(ax, (4.2, 4.2))
    x_label, y_label, more, fewer = _WORDS[kind]
    ax.plot([0, 1], [0, 1], "--", color=KEPT, linewidth=1.2, label="calibrated")
    for index, (name, (nominal, observed)) in enumerate(curves.items()):
        if len(curves) == 1:
            _fill(ax, nominal, observed)
        gap = f"mean gap {np.abs(observed - nominal).mean():.3f}"
        ax.plot(nominal, observed, **line_style(index), markevery=0.12, label=f"{name}: {gap}" if name else gap)
    ax.text(0.01, 0.99, more, fontsize=9, color=KEPT, va="top")
    ax.text(0.99, 0.01, fewer, fontsize=9, color=KEPT, ha="right")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x_label, ylabel=y_label, title=title or "")
    # On the side of the diagonal that has fewer of the curves.
    above = np.mean([np.mean(observed - nominal) for nominal, observed in curves.values()]) > 0
    add_legend(ax, "lower right", (1, 0.06)) if above else add_legend(ax, "upper left", (0, 0.94))
    return ax


def _curve(table, name, what):
    """Nominal and observed coverage, checked; a row of evaluate_regression has them with a prefix."""
    columns = ("nominal", "observed")
    if "coverage_nominal" in table:
        columns = tuple(f"coverage_{column}" for column in columns)
    tables_by_name({name: table}, columns, what)
    of_table = f" of {name!r}" if name else ""
    nominal, observed = (numbers(table[column], f"{column}{of_table}", 0, 1) for column in columns)
    same_length(nominal=nominal, observed=observed)
    if np.any(np.diff(nominal) <= 0):
        raise ValueError(f"nominal{of_table} must rise from level to level. Received: {nominal.tolist()!r:.80}.")
    return nominal, observed


def _fill(ax, nominal, observed):
    """Fills what lies between curve and diagonal: dotted above it, striped below."""
    for where, colour, hatch in ((observed > nominal, POSITIVE, "...."), (observed < nominal, NEGATIVE, "////")):
        if where.any():
            ax.fill_between(
                nominal, nominal, observed, where, interpolate=True, facecolor=colour, alpha=0.25, linewidth=0
            )
            ax.fill_between(
                nominal,
                nominal,
                observed,
                where,
                interpolate=True,
                facecolor="none",
                edgecolor=GONE,
                hatch=hatch,
                linewidth=0,
            )
