"""Which groups of layers can be pruned, and how far, before the metric moves?"""

import numpy as np

from tfprune.plots.canvas import KEPT, SMALL, axes_for
from tfprune.plots.inputs import numbers

_MOST_LABELLED = 400  # cells; above that the numbers in them cannot be read
_NAMES = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "brier": "Brier score"}


def draw_sensitivity(rows, metric="accuracy", ax=None, title=None):
    """Draws a heat map: a row a group of layers, a column a ratio, coloured by how much the metric changes.

    Orange is worse than the whole model, purple better, white the same; the number in a cell is the metric itself.
    Equally dark colours mean equally large changes.

    Args:
        rows: What `tfprune.sensitivity` returned: dicts with "group", "ratio" and the metric.
        metric: A column of the rows: "accuracy" (default), "ece", "nll", "brier" or "NAME/auroc_msp". Of "ece", "nll"
            and "brier", more is worse.
        ax: Matplotlib axes to draw on. Default None: new ones, as high as the groups need.
        title: Text above the axes. Default None: the metric, and its value for the whole model.

    Returns:
        The axes.

    Raises:
        ValueError: No rows, a metric that they do not have, cells that are missing or not finite.

    Example:
        >>> tfprune.plots.draw_sensitivity(rows, metric="ece")
    """
    groups, ratios, table = _table(rows, metric)
    whole = table[:, ratios.index(0.0)] if 0.0 in ratios else None
    if whole is None:
        raise ValueError("draw_sensitivity needs the rows of ratio 0 to compare with. Received: rows without them.")
    worse = -1 if metric in ("ece", "nll", "brier") else 1  # the sign of a change for the better
    change = worse * (table - whole[:, None])
    shown = [index for index, ratio in enumerate(ratios) if ratio > 0]
    ax = axes_for(ax, (max(5.4, 2.6 + 0.62 * len(shown)), 1.4 + 0.26 * len(groups)))
    _draw(ax, change[:, shown], table[:, shown], len(groups) * len(shown) <= _MOST_LABELLED)
    ax.set_xticks(range(len(shown)), [f"{ratios[index]:g}" for index in shown])
    ax.set_yticks(range(len(groups)), groups, fontsize=SMALL if len(groups) > 12 else 9)
    ax.set(xlabel="share of the group's channels removed")
    ax.set_title(title or f"{_name(metric)}, each group pruned alone (whole model {whole[0]:.3f})", fontsize=10)
    return ax


def _draw(ax, change, values, with_numbers):
    from matplotlib import colormaps

    reach = max(np.abs(change).max(), 1e-9)
    image = ax.imshow(change, cmap=colormaps["PuOr"], vmin=-reach, vmax=reach, aspect="auto")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.9)
    bar.set_label("gain over the whole model", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    for row, column in np.ndindex(*values.shape) if with_numbers else ():
        dark = abs(change[row, column]) > 0.6 * reach
        ax.text(
            *(column, row, f"{values[row, column]:.3f}"),
            **{"ha": "center", "va": "center", "fontsize": 7, "color": "white" if dark else KEPT},
        )


def _table(rows, metric):
    """`(groups, ratios, array of groups x ratios)`."""
    rows = list(rows)
    missing = [name for name in ("group", "ratio", metric) if not rows or name not in rows[0]]
    if missing:
        known = ", ".join(map(repr, rows[0])) if rows else "none"
        raise ValueError(
            f"Expected rows of tfprune.sensitivity with {', '.join(map(repr, missing))}. Received columns: {known}."
        )
    found = {(row["group"], float(row["ratio"])): row[metric] for row in rows}
    groups = list(dict.fromkeys(group for group, _ in found))
    ratios = sorted({ratio for _, ratio in found})
    absent = [(group, ratio) for group in groups for ratio in ratios if (group, ratio) not in found]
    if absent:
        raise ValueError(f"Expected a row for each group at each ratio. Received: none for {absent[0]}.")
    values = numbers([found[group, ratio] for group in groups for ratio in ratios], metric)
    return groups, ratios, values.reshape(len(groups), len(ratios))


def _name(metric):
    strangers, _, score = metric.rpartition("/")
    return f"AUROC of {strangers} ({score.removeprefix('auroc_')})" if strangers else _NAMES.get(metric, metric)
