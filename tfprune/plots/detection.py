"""How far apart do a detector's scores of known data and of strangers lie?"""

from collections.abc import Mapping

import numpy as np

from tfprune.plots.canvas import GONE, KEPT, add_legend, axes_for, colour_of, hatch_of, limits_with_room, line_style
from tfprune.plots.inputs import numbers


def draw_roc(id_scores, ood_scores, ax=None, title=None):
    """Draws ROC curves of out-of-distribution detection; a marker shows where FPR95 is read.

    Out-of-distribution data is the positive class, and a larger score means stranger. FPR95 is the share of known
    samples that are flagged at the first threshold that detects 95 % of the strangers.

    Args:
        id_scores: (samples,) scores of in-distribution data, or `{name: scores}` with the names of `ood_scores` where
            each curve has its own, such as one per model.
        ood_scores: (samples,) scores of out-of-distribution data, or `{name: scores}`.
        ax: Matplotlib axes to draw on. Default None: new ones.
        title: Text above the axes. Default None: none.

    Returns:
        The axes.

    Raises:
        ValueError: Scores that are empty, NaN or infinite, or names that do not match.

    Example:
        >>> tfprune.plots.draw_roc(test_scores, {"cifar100": cifar100_scores, "svhn": svhn_scores})
    """
    ood = _by_name(ood_scores, "ood_scores", "")
    known = _known(id_scores, ood)
    ax = axes_for(ax, (4.4, 4.2))
    ax.plot([0, 1], [0, 1], color=GONE, linewidth=1, label="chance")
    ax.axhline(0.95, color=KEPT, linestyle=(0, (1, 3)), linewidth=0.9, label="95 % of strangers detected")
    for index, (name, scores) in enumerate(ood.items()):
        false_positive, true_positive, area = _roc(known[name], scores)
        at_95 = int(np.argmax(true_positive >= 0.95))
        label = f"AUROC {area:.3f}, FPR95 {false_positive[at_95]:.3f}"
        label = f"{name}: {label}" if name else label
        ax.plot(false_positive, true_positive, **{**line_style(index), "markersize": 7}, markevery=[at_95], label=label)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=title or "")
    ax.set(xlabel="false positive rate (known samples flagged)", ylabel="true positive rate (strangers detected)")
    add_legend(ax, "lower right")
    return ax


def draw_score_histograms(id_scores, ood_scores, ax=None, title=None, num_bins=40):
    """Draws how a detector's scores spread over known data (filled) and over strangers (hatched), in shared bins.

    Heights are shares of each set, so that sets of different size can be compared.

    Args:
        id_scores: (samples,) scores of in-distribution data.
        ood_scores: (samples,) scores of out-of-distribution data, or `{name: scores}`.
        ax: Matplotlib axes to draw on. Default None: new ones.
        title: Text above the axes. Default None: none.
        num_bins: Number of bins between the smallest and the largest of all scores.

    Returns:
        The axes.

    Raises:
        ValueError: Scores that are empty, NaN or infinite, or fewer than one bin.

    Example:
        >>> tfprune.plots.draw_score_histograms(test_scores, {"cifar100": cifar100_scores})
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1. Received: num_bins={num_bins}.")
    known = numbers(id_scores, "id_scores")
    ood = _by_name(ood_scores, "ood_scores", "out-of-distribution")
    edges = np.histogram_bin_edges(np.concatenate([known, *ood.values()]), num_bins)
    shares = [100 * np.histogram(scores, edges)[0] / len(scores) for scores in (known, *ood.values())]
    ax = axes_for(ax, (5, 3.4))
    ax.stairs(shares[0], edges, fill=True, facecolor=GONE, alpha=0.7, label=f"in-distribution ({len(known):,})")
    for index, (name, heights) in enumerate(zip(ood, shares[1:], strict=True)):
        line = line_style(index)["linestyle"]
        outline = {"facecolor": "none", "edgecolor": colour_of(index), "linestyle": line, "linewidth": 1.5}
        label = f"{name} ({len(ood[name]):,})"
        ax.stairs(heights, edges, fill=True, **outline, hatch=hatch_of(index), label=label)
    # Room above the tallest bin for the legend.
    highest = max(map(np.max, shares))
    ax.set_ylim(limits_with_room(0, 1.05 * highest, highest, len(shares)))
    ax.set(xlabel="score (larger = stranger)", ylabel="share of the set per bin (%)", title=title or "")
    add_legend(ax, "upper right")
    return ax


def _by_name(scores, what, alone):
    """`{name: checked scores}`; scores that come alone get the name `alone`."""
    if not isinstance(scores, Mapping):
        return {alone: numbers(scores, what)}
    if not scores:
        raise ValueError(f"{what} must hold at least one set of scores. Received: an empty dict.")
    return {str(name): numbers(values, f"{what}[{name!r}]") for name, values in scores.items()}


def _known(id_scores, ood):
    """The scores of known data that belong to each curve."""
    if not isinstance(id_scores, Mapping):
        return dict.fromkeys(ood, numbers(id_scores, "id_scores"))
    known = _by_name(id_scores, "id_scores", "")
    if set(known) != set(ood):
        raise ValueError(
            "id_scores and ood_scores must have the same names, or id_scores none. "
            f"Received: {sorted(known)} and {sorted(ood)}."
        )
    return known


def _roc(known, strangers):
    """False and true positive rates at every threshold, and the area under them."""
    from sklearn.metrics import auc, roc_curve

    is_ood = np.concatenate([np.zeros(len(known)), np.ones(len(strangers))])
    # Every threshold, also those on a straight line: FPR95 may be read at one of them.
    rates = roc_curve(is_ood, np.concatenate([known, strangers]), drop_intermediate=False)[:2]
    return *rates, auc(*rates)
