"""Does the accuracy follow the confidence, bin by bin?"""

from dataclasses import dataclass

import numpy as np

from tfprune.plots.canvas import (
    GONE,
    KEPT,
    NEGATIVE,
    POSITIVE,
    SMALL,
    add_legend,
    axes_for,
    colour_of,
    line_style,
)
from tfprune.plots.inputs import numbers, same_length, tables_by_name

_COLUMNS = ("reliability_count", "reliability_confidence", "reliability_accuracy")
_STRIP = -0.25  # where the strip of counts below accuracy 0 begins


def draw_reliability(row, ax=None, title=None, level=0.95):
    """Draws the reliability diagram of what `tfprune.evaluate` returned: accuracy against confidence, bin by bin.

    One row gives bars, their darkness saying how many samples a bin holds; several rows give one line each. Points lie
    at a bin's mean confidence. Empty bins are left out. The strip below shows how the samples spread over the bins.

    The intervals say where the accuracy may lie with so many samples in the bin: Jeffreys' interval of a binomial
    share. A bootstrap would have no width where every sample is right: for ten samples and an accuracy of 0.95, its
    basic interval of 95 % holds the accuracy in 40 % of the cases, Jeffreys' in 99 %.

    Args:
        row: The dict that `tfprune.evaluate` returned, or several as `{name: row}`.
        ax: Matplotlib axes to draw on. Default None: new ones.
        title: Text above the axes. Default None: the ECE of a single row.
        level: Probability of the intervals of the accuracy, in (0, 1). None draws none.

    Returns:
        The axes.

    Raises:
        ValueError: A row lacks a column, its columns differ in length, it holds no samples or a bin with samples but
            without a mean; or `level` is no probability.

    Example:
        >>> tfprune.plots.draw_reliability(tfprune.evaluate(ticket, test))
        >>> tfprune.plots.draw_reliability({"dense": dense_row, "pruned": pruned_row})

    Source: Niculescu-Mizil and Caruana, "Predicting Good Probabilities with Supervised Learning", ICML 2005; Brown, Cai
    and DasGupta, "Interval Estimation for a Binomial Proportion", 2001.
    """
    if level is not None and not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), or None. Received: level={level!r}. For 95 % pass level=0.95.")
    rows = tables_by_name(row, ("ece", *_COLUMNS), "the row that tfprune.evaluate returned")
    bins = {name: _Bins.of(table, name) for name, table in rows.items()}
    ax = axes_for(ax, (4.2, 4.6))
    if "" in rows:
        _draw_bars(ax, bins[""], level)
        title = f"ECE {rows['']['ece']:.3f}" if title is None else title
    else:
        for index, name in enumerate(rows):
            _draw_line(ax, bins[name], level, index, f"{name}: ECE {rows[name]['ece']:.3f}")
    ax.plot([0, 1], [0, 1], "--", color=NEGATIVE if "" in rows else KEPT, linewidth=1.2, zorder=1.5, label="calibrated")
    ticks = np.linspace(0, 1, 6)
    ax.set(xlim=(-0.02, 1.02), ylim=(_STRIP, 1.02), xticks=ticks, yticks=ticks, xlabel="confidence", ylabel="accuracy")
    ax.set_title(title or "")
    _add_legend(ax, list(bins.values()))
    _draw_counts(ax, list(bins.values()))
    return ax


@dataclass(frozen=True)
class _Bins:
    """The bins of one row: `counts` of all, the rest of those that hold samples (`held`)."""

    counts: np.ndarray
    held: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @classmethod
    def of(cls, row, model):
        of_row = f" of {model!r}" if model else ""
        same_length(**{column: row[column] for column in _COLUMNS})
        counts = numbers(row["reliability_count"], f"reliability_count{of_row}", least=0)
        held = np.flatnonzero(counts)
        if not held.size:
            raise ValueError(f"reliability_count{of_row} must hold samples. Received: {len(counts)} empty bins.")
        means = []
        for column in _COLUMNS[1:]:
            what = f"{column}{of_row} where a bin holds samples"
            # float32 probabilities may sum to a little more than 1.
            means.append(numbers([row[column][index] for index in held], what, 0, 1 + 1e-6).clip(0, 1))
        return cls(counts, held, *means)

    def interval(self, level):
        """Jeffreys' interval of each bin's accuracy: its lower and its upper ends."""
        from scipy.stats import beta

        counts = self.counts[self.held]
        right = self.accuracy * counts
        wrong = counts - right
        low, high = (beta.ppf(tail, right + 0.5, wrong + 0.5) for tail in ((1 - level) / 2, (1 + level) / 2))
        # The interval of a share of 0 or 1, and any narrow one (level 0.1), may leave out the share itself.
        return np.minimum(low, self.accuracy), np.maximum(high, self.accuracy)


def _draw_bars(ax, bins, level):
    """A bar for each bin, with the mean confidence as a point."""
    width = 1 / len(bins.counts)
    shades = 0.25 + 0.75 * bins.counts[bins.held] / bins.counts.max()
    for index, accuracy, shade in zip(bins.held, bins.accuracy, shades, strict=True):
        ax.bar((index + 0.5) * width, accuracy, width * 0.94, color=POSITIVE, alpha=shade)
    reach, label = None, "accuracy"
    if level is not None:
        low, high = bins.interval(level)
        reach, label = (bins.accuracy - low, high - bins.accuracy), f"accuracy, {100 * level:g} % interval"
    ax.errorbar(
        bins.confidence, bins.accuracy, reach, fmt="o", color=KEPT, markersize=4, elinewidth=1.2, zorder=3, label=label
    )


def _draw_line(ax, bins, level, index, label):
    """A line through the bins of one of several rows, with a band around it."""
    ax.plot(bins.confidence, bins.accuracy, **line_style(index), label=label)
    if level is not None:
        ax.fill_between(bins.confidence, *bins.interval(level), color=colour_of(index), alpha=0.18, linewidth=0)


def _add_legend(ax, all_bins):
    """The legend above the diagonal, or below it where only an under-confident model's bins are in its way."""
    confidence, accuracy = (np.concatenate([getattr(b, name) for b in all_bins]) for name in ("confidence", "accuracy"))
    in_the_way = np.any((confidence < 0.5) & (accuracy > 0.75))
    free_below = not np.any((confidence > 0.5) & ((accuracy < 0.4) | (len(all_bins) == 1)))
    if in_the_way and free_below:
        add_legend(ax, "lower right", (1, _STRIP / (_STRIP - 1.02)))
    else:
        add_legend(ax, "upper left")


def _draw_counts(ax, all_bins):
    """The strip below: counts of one row, shares of several."""
    strip = ax.inset_axes([-0.02, _STRIP, 1.04, -0.04 - _STRIP], transform=ax.transData)
    largest = 0.0
    for index, bins in enumerate(all_bins):
        shares = bins.counts / bins.counts.sum()
        edges = np.linspace(0, 1, len(shares) + 1)
        if len(all_bins) == 1:
            strip.stairs(shares, edges, fill=True, color=GONE)
            strip.stairs(shares, edges, color=KEPT, linewidth=0.8)
        else:
            line = line_style(index)
            strip.stairs(shares, edges, edgecolor=line["color"], linestyle=line["linestyle"], linewidth=1.4)
        largest = max(largest, shares.max())
    total = all_bins[0].counts.sum()
    of_total = f" of {total:,.0f}" if all(bins.counts.sum() == total for bins in all_bins) else ""
    strip.text(
        0.02,
        0.96,
        f"samples per bin, at most {100 * largest:.0f} %{of_total}",
        va="top",
        fontsize=SMALL,
        transform=strip.transAxes,
    )
    # The upper part of the strip stays free for its text.
    strip.set(xlim=(-0.02, 1.02), ylim=(0, 1.6 * largest), xticks=[], yticks=[])
    strip.spines[["right", "left", "bottom"]].set_visible(False)
    strip.spines["top"].set_color(GONE)
    strip.set_facecolor("none")
