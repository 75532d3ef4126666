"""How does a number change as the images are damaged more and more?"""

import numpy as np

from tfprune.plots.canvas import GONE, add_legend, axes_for, colour_of, limits_with_room, line_style

_CLEAN = "clean"
_WORDS = {
    "ece": "ECE",
    "uce": "UCE",
    "nll": "NLL (nats)",
    "brier": "Brier score",
    "mean_confidence": "mean confidence",
    "aurc": "AURC",
}


def draw_shift(rows, metric="ece", ax=None, title=None, spread="band"):
    """Draws a metric against the severity of corruptions: the mean over the corruptions, one line a model.

    Seeds are averaged first, within each corruption. Rows of severity 0 are of unharmed data, whatever their
    corruption says: they are where all corruptions begin. The mean of a metric over corruptions is not the metric of
    the pooled data (for ECE above all); this draws the former.

    Args:
        rows: List of dicts, or pandas DataFrame, with "corruption", "severity", the metric, and optionally "model" and
            "seed"; the rows of `tfprune.evaluate_shift` do for one model.
        metric: Which column to draw.
        ax: Matplotlib axes to draw on. Default None: new ones.
        title: Text above the axes. Default None: none.
        spread: "band", the middle half of the corruptions (between their quartiles), "lines", a thin line for each
            corruption, or None.

    Returns:
        The axes.

    Raises:
        ValueError: No rows, rows without one of these columns, values that are missing or not finite, a corruption that
            is not measured at every severity of its model, or an unknown `spread`.

    Example:
        >>> models = {"dense": dense, "pruned": ticket}
        >>> rows = [{"model": name, **row} for name, m in models.items() for row in tfprune.evaluate_shift(m, test)]
        >>> tfprune.plots.draw_shift(rows, "accuracy")

    Source: Ovadia et al., "Can You Trust Your Model's Uncertainty? Evaluating Predictive Uncertainty Under Dataset
    Shift", 2019.
    """
    if spread not in ("band", "lines", None):
        raise ValueError(f'spread must be "band", "lines" or None. Received: spread={spread!r}.')
    table = _checked(rows, metric)
    curves = {model: _curves(part, metric, model) for model, part in table.groupby("model", sort=False)}
    ax = axes_for(ax, (5, 3.6))
    drawn = [_draw_model(ax, curve, model, spread, index) for index, (model, curve) in enumerate(curves.items())]
    counts = sorted({curve.shape[1] for curve in curves.values()})
    if spread and counts[-1] > 1:
        # An empty line, for the legend only.
        width, words = (0.7, "each corruption") if spread == "lines" else (7, "middle half of the corruptions")
        ax.plot([], [], color=GONE, linewidth=width, label=words)
    over = f", mean over {' or '.join(map(str, counts))} corruptions" if counts[-1] > 1 else ""
    ax.set(xlabel="severity of the corruption (0: unharmed)", ylabel=_WORDS.get(metric, metric) + over)
    ax.set_xticks(sorted({severity for curve in curves.values() for severity in curve.index}))
    ax.set_title(title or "")
    _make_room(ax, drawn)
    return ax


def _checked(rows, metric):
    """The columns that are drawn, as a DataFrame; every value there."""
    import pandas as pd

    table = pd.DataFrame(rows)
    if table.empty:
        raise ValueError("rows must hold at least one row. Received: none.")
    if "model" not in table:
        table = table.assign(model="")
    missing = [column for column in ("corruption", "severity", metric) if column not in table]
    if missing:
        raise ValueError(
            f"rows must have the columns 'corruption', 'severity' and {metric!r}. Received: no {', '.join(missing)} "
            f"among {sorted(map(str, table.columns))}."
        )
    table = table[list(dict.fromkeys(("model", "corruption", "severity", metric)))].copy()
    values = table[["severity", metric]].apply(pd.to_numeric, errors="coerce").astype(float)
    # The unharmed data has one name, whatever it is called in the rows.
    table["corruption"] = table["corruption"].mask(values["severity"] == 0, _CLEAN)
    bad = ~np.isfinite(values).all(axis="columns") | table[["model", "corruption"]].isna().any(axis="columns")
    if bad.any():
        row = table.iloc[int(bad.to_numpy().argmax())].to_dict()
        raise ValueError(f"rows must be complete, with finite numbers. Received: {row}.")
    return table[["model", "corruption"]].join(values)


def _curves(part, metric, model):
    """A model's metric by severity (rows) and corruption (columns), the unharmed data in each column."""
    means = part.groupby(["severity", "corruption"])[metric].mean().unstack()
    if _CLEAN in means and means.shape[1] > 1:
        clean = means.pop(_CLEAN)
        means = means.apply(lambda column: column.fillna(clean))
    if means.isna().any(axis=None):
        row, column = np.argwhere(means.isna().to_numpy())[0]
        of_model = f" for model {model!r}" if model else ""
        raise ValueError(
            "Every corruption must be measured at every severity, or means cannot be compared. Received"
            f"{of_model}: no {means.columns[column]!r} at severity {means.index[row]:g}."
        )
    return means


def _draw_model(ax, curve, model, spread, index):
    """The mean of one model with its spread; returns all that is drawn, a DataFrame by severity."""
    severity, colour = curve.index.to_numpy(), colour_of(index)
    mean = curve.mean(axis="columns").rename("mean")
    ax.plot(severity, mean.to_numpy(), **line_style(index), label=model or "mean", zorder=3)
    if spread is None or curve.shape[1] == 1:
        return mean.to_frame()
    if spread == "lines":
        for corruption in curve:
            ax.plot(severity, curve[corruption].to_numpy(), color=colour, linewidth=0.7, alpha=0.6, zorder=2)
        return curve
    quartiles = curve.quantile([0.25, 0.75], axis="columns")
    ax.fill_between(severity, *quartiles.to_numpy(), color=colour, alpha=0.18, linewidth=0, zorder=1)
    return quartiles.T.join(mean)


def _make_room(ax, drawn):
    """Puts the legend on the left, above curves that rise and below those that fall, and makes room for it there."""
    low, high = min(part.min(axis=None) for part in drawn), max(part.max(axis=None) for part in drawn)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    middle = np.mean([part.index[[0, -1]] for part in drawn])
    left = [part[part.index <= middle] for part in drawn]
    left = [part for part in left if len(part)]
    num_entries = len(ax.get_legend_handles_labels()[0])
    if np.mean([part.iloc[-1].mean() - part.iloc[0].mean() for part in drawn]) > 0:
        in_the_way = max(part.max(axis=None) for part in left)
        ax.set_ylim(limits_with_room(low - margin, high + margin, in_the_way, num_entries))
        add_legend(ax, "upper left")
    else:
        in_the_way = min(part.min(axis=None) for part in left)
        bottom = limits_with_room(-high - margin, margin - low, -in_the_way, num_entries)[1]
        ax.set_ylim(-bottom, high + margin)
        add_legend(ax, "lower left")
