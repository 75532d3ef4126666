"""Does the accuracy follow the confidence, bin by bin?"""

import numpy as np

from tfprune.plots.canvas import KEPT, NEGATIVE, POSITIVE, axes_for


def draw_reliability(row, ax=None, title=None):
    """Draws the reliability diagram of what `tfprune.evaluate` returned: accuracy against confidence, bin by bin.

    Empty bins are left out; a bar's darkness says how many samples the bin holds.

    Args:
        row: The dict that `tfprune.evaluate` returned.
        ax: Matplotlib axes to draw on. Default None: new ones.
        title: Text above the axes. Default None: the ECE.

    Returns:
        The axes.

    Example:
        >>> tfprune.plots.draw_reliability(tfprune.evaluate(ticket, test))
    """
    ax = axes_for(ax, (4, 4))
    counts = np.array(row["reliability_count"], float)
    width = 1 / len(counts)
    for index, (count, accuracy) in enumerate(zip(counts, row["reliability_accuracy"], strict=True)):
        if accuracy is not None:
            shade = 0.25 + 0.75 * count / counts.max()
            ax.bar((index + 0.5) * width, accuracy, width * 0.94, color=POSITIVE, alpha=shade)
    points = zip(row["reliability_confidence"], row["reliability_accuracy"], strict=True)
    points = [(confidence, accuracy) for confidence, accuracy in points if confidence is not None]
    ax.plot(*zip(*points, strict=True), "o", color=KEPT, markersize=4, label="mean confidence, accuracy")
    ax.plot([0, 1], [0, 1], "--", color=NEGATIVE, label="calibrated")
    ax.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xlabel="confidence",
        ylabel="accuracy",
        title=title or f"ECE {row['ece']:.3f}",
    )
    ax.legend(loc="upper left", frameon=False, fontsize=8)
    return ax
