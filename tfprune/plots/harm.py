"""Which classes does pruning harm, and by how much?"""

from statistics import NormalDist

import numpy as np

from tfprune.plots.canvas import GONE, KEPT, NEGATIVE, POSITIVE, SMALL, add_legend, axes_for
from tfprune.plots.inputs import numbers, same_length, tables_by_name

# column of the change, column of its p-value, name, marker, its colour where significant, its place in the row
_QUANTITIES = (
    ("recall_change", "recall_p", "recall", "o", NEGATIVE, 0.0),
    ("confidence_change", "confidence_p", "mean confidence", "D", POSITIVE, 0.33),
)
_RECALL, _CONFIDENCE = (quantity[:2] for quantity in _QUANTITIES)
_COUNTS, _INTERVAL = ("num_samples", "lost", "gained"), ("recall_low", "recall_high")


def draw_harm(table, ax=None, title=None, level=0.95, most=30):
    """Draws the change of each class's recall, and of its mean confidence, the most harmed class on top.

    A filled point is a change that is significant after Holm's correction for the number of classes, a hollow one is
    not. The interval of the recall is for one class alone: it may leave out 0 where the point is hollow.

    Args:
        table: The `per_class` of `tfprune.compare`, or another DataFrame or dict of columns: "class" (numbers or
            names), "recall_change" (pruned - dense), "recall_p" (p-value after Holm); optionally "confidence_change"
            and "confidence_p"; and, for the intervals, either "recall_low" and "recall_high", or counts:
            "num_samples", "lost" (right before, wrong now) and "gained". Classes of 0 "num_samples" are left out.
        ax: Matplotlib axes to draw on. Default None: new ones, as high as the classes need.
        title: Text above the axes. Default None: how many classes are left out, if any.
        level: Probability of the intervals that are computed from counts; p-values up to 1 - level are significant.
        most: How many classes to draw at most, the most harmed ones.

    Returns:
        The axes.

    Raises:
        ValueError: A column is missing, of another length, not finite or out of range; an interval whose ends are
            swapped; `level` not in (0, 1) or `most` below 1.

    Example:
        >>> tfprune.plots.draw_harm(tfprune.compare(model, ticket, (x_test, y_test)).per_class)

    Source: Hooker et al., "What Do Compressed Deep Neural Networks Forget?", 2019; the interval of a difference of
    paired shares: Bonett and Price, "Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based
    on Paired Data", 2012.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1). Received: level={level!r}. For 95 % pass level=0.95.")
    if most < 1:
        raise ValueError(f"most must be at least 1. Received: most={most!r}.")
    columns = _checked(table, level)
    num_classes = len(columns["class"])
    order = np.argsort(columns["recall_change"], kind="stable")[:most]
    columns = {name: column[order] for name, column in columns.items()}
    ax = axes_for(ax, (5.4, 1.7 + 0.22 * len(order)))
    _draw(ax, columns, round(1 - level, 10))
    # Rows below the last class for the legend: the intervals may reach into any corner.
    num_entries = len(ax.get_legend_handles_labels()[0])
    ax.set_yticks(np.arange(len(order)), columns["class"], fontsize=9 if len(order) <= 20 else SMALL)
    ax.set(ylim=(len(order) + 0.9 * num_entries - 0.3, -0.7), ylabel="class")
    ax.set_xlabel("change by pruning (percentage points)")
    if title is None and num_classes > len(order):
        title = f"the {len(order)} most harmed of {num_classes} classes"
    ax.set_title(title or "")
    add_legend(ax, "lower left")
    return ax


def _draw(ax, columns, alpha):
    """Points and intervals, a class a row: hollow points of all, filled ones over those that are significant."""
    rows = np.arange(len(columns["class"]))
    ax.axvline(0, color=KEPT, linewidth=0.9)
    if "recall_low" in columns:
        ax.hlines(rows, *(100 * columns[name] for name in _INTERVAL), color=KEPT, linewidth=1.3)
    words = f"filled: p ≤ {alpha:g} after Holm's correction"
    for change, p_value, name, marker, colour, offset in _QUANTITIES:
        if change in columns:
            point = {"linestyle": "", "marker": marker, "markersize": 6 - 4 * offset, "markeredgecolor": KEPT}
            significant = columns[p_value] <= alpha
            places = 100 * columns[change], rows + offset
            ax.plot(*places, **point, markerfacecolor="white", label=name)
            filled = (place[significant] for place in places)
            ax.plot(*filled, **point, markerfacecolor=colour, label=words if name == "recall" else "_")
    ax.grid(axis="x", color=GONE, linewidth=0.5)
    ax.set_axisbelow(True)


def _checked(table, level):
    """The columns as arrays of one length, "class" as text, without classes that have no samples."""
    what = "the per_class table of tfprune.compare"
    table = tables_by_name({"": table}, ("class", *_RECALL), what)[""]
    names = [*_RECALL, *(name for name in (*_CONFIDENCE, *_INTERVAL, *_COUNTS) if name in table)]
    same_length(**{name: table[name] for name in ("class", *names)})
    seen = slice(None)
    if "num_samples" in table:
        seen = numbers(table["num_samples"], "num_samples", least=0) > 0
    columns = {"class": np.array([str(name) for name in table["class"]], dtype=object)[seen]}
    for name in names:
        least, most = (0, np.inf) if name in _COUNTS else (0, 1) if name.endswith("_p") else (-1, 1)
        # Classes without samples may hold NaN: they go before anything is checked.
        columns[name] = numbers(np.asarray(table[name], dtype=object)[seen], name, least, most)
    if "confidence_change" in columns and "confidence_p" not in columns:
        raise ValueError("A table with confidence_change needs confidence_p. Received: the former alone.")
    return _with_interval(columns, level)


def _with_interval(columns, level):
    """The columns with `recall_low` and `recall_high`, those given or, from counts, Bonett and Price's."""
    given = [name in columns for name in _INTERVAL]
    if not any(given) and all(name in columns for name in _COUNTS):
        # One sample lost and one gained are added, so that two models that agree do not have an interval of no width.
        total, lost, gained = columns["num_samples"] + 2, columns["lost"] + 1, columns["gained"] + 1
        middle = (gained - lost) / total
        reach = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt((lost + gained) / total - middle**2) / np.sqrt(total)
        return columns | {"recall_low": np.maximum(middle - reach, -1), "recall_high": np.minimum(middle + reach, 1)}
    if any(given) and not (all(given) and np.all(columns["recall_low"] <= columns["recall_high"])):
        raise ValueError("recall_low and recall_high must come together, the former never above the latter.")
    return columns
