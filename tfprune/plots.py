"""What does a network look like, and how reliable are its confidences, as a picture?"""

import numpy as np

_KEPT, _GONE, _POSITIVE, _NEGATIVE = "#1b1b1b", "#bbbbbb", "#0072b2", "#d55e00"


def draw_network(model, ax=None):
    """Draws a small dense network as a graph: one column a layer, one line a weight; pruned units stay hollow.

    A line's width is the weight's size and its colour the sign (blue positive, orange negative).

    Args:
        model: A Sequential or functional chain of Dense layers, with masks (`tfprune.wrap`) or without.
        ax: Matplotlib axes to draw on. Default None: new ones.

    Returns:
        The axes.

    Raises:
        ValueError: the model has a layer with weights that is not Dense.

    Example:
        >>> tfprune.plots.draw_network(masked)
    """
    kernels, kept = _read(model)
    ax = _axes(ax, (7, 4))
    widths = [kernels[0].shape[0], *(kernel.shape[1] for kernel in kernels)]
    heights = [np.linspace(1, -1, width) * min(1, width / 12) for width in widths]
    largest = max(np.abs(kernel).max() for kernel in kernels) or 1.0
    for column, kernel in enumerate(kernels):
        for i, j in np.ndindex(*kernel.shape):
            if kept[column][i] and kept[column + 1][j]:
                size = abs(kernel[i, j]) / largest
                colour = _POSITIVE if kernel[i, j] > 0 else _NEGATIVE
                ends = (column, column + 1), (heights[column][i], heights[column + 1][j])
                ax.plot(*ends, color=colour, linewidth=0.2 + 2.5 * size, alpha=0.25 + 0.65 * size, zorder=1)
    for column, mask in enumerate(kept):
        colours = [_KEPT if unit else "white" for unit in mask]
        edges = [_KEPT if unit else _GONE for unit in mask]
        ax.scatter([column] * len(mask), heights[column], s=45, c=colours, edgecolors=edges, zorder=2)
    ax.set_axis_off()
    return ax


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
    ax = _axes(ax, (4, 4))
    counts = np.array(row["reliability_count"], float)
    width = 1 / len(counts)
    for index, (count, accuracy) in enumerate(zip(counts, row["reliability_accuracy"], strict=True)):
        if accuracy is not None:
            shade = 0.25 + 0.75 * count / counts.max()
            ax.bar((index + 0.5) * width, accuracy, width * 0.94, color=_POSITIVE, alpha=shade)
    points = zip(row["reliability_confidence"], row["reliability_accuracy"], strict=True)
    points = [(confidence, accuracy) for confidence, accuracy in points if confidence is not None]
    ax.plot(*zip(*points, strict=True), "o", color=_KEPT, markersize=4, label="mean confidence, accuracy")
    ax.plot([0, 1], [0, 1], "--", color=_NEGATIVE, label="calibrated")
    ax.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xlabel="confidence",
        ylabel="accuracy",
        title=title or f"ECE {row['ece']:.3f}",
    )
    ax.legend(loc="upper left", frameon=False, fontsize=8)
    return ax


def _axes(ax, size):
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=size, layout="constrained")[1]


def _read(model):
    """The kernels of a chain of Dense layers, and for each column of units which are kept."""
    import keras

    from tfprune.structure.roles import unwrap
    from tfprune.structure.trace import trace, value_of

    wrapped = [op for op in trace(model).operations if getattr(op, "weights", None)]
    for op in wrapped:
        if not isinstance(unwrap(op), keras.layers.Dense):
            raise ValueError(
                f"draw_network draws chains of Dense layers. Received: layer '{op.name}' ({type(unwrap(op)).__name__}) "
                f"in model '{model.name}'."
            )
    kernels = [value_of(unwrap(op).kernel) for op in wrapped]
    masks = [getattr(op, "channel_mask", None) for op in wrapped]
    kept = [np.ones(kernels[0].shape[0], bool)]
    for kernel, mask in zip(kernels, masks, strict=True):
        kept.append(np.ones(kernel.shape[1], bool) if mask is None else value_of(mask) > 0.5)
    return kernels, kept
