"""What does a small dense network look like, weight by weight?"""

import numpy as np

from tfprune.plots.canvas import GONE, KEPT, NEGATIVE, POSITIVE, axes_for


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
    ax = axes_for(ax, (7, 4))
    widths = [kernels[0].shape[0], *(kernel.shape[1] for kernel in kernels)]
    heights = [np.linspace(1, -1, width) * min(1, width / 12) for width in widths]
    largest = max(np.abs(kernel).max() for kernel in kernels) or 1.0
    for column, kernel in enumerate(kernels):
        for i, j in np.ndindex(*kernel.shape):
            if kept[column][i] and kept[column + 1][j]:
                size = abs(kernel[i, j]) / largest
                colour = POSITIVE if kernel[i, j] > 0 else NEGATIVE
                ends = (column, column + 1), (heights[column][i], heights[column + 1][j])
                ax.plot(*ends, color=colour, linewidth=0.2 + 2.5 * size, alpha=0.25 + 0.65 * size, zorder=1)
    for column, mask in enumerate(kept):
        colours = [KEPT if unit else "white" for unit in mask]
        edges = [KEPT if unit else GONE for unit in mask]
        ax.scatter([column] * len(mask), heights[column], s=45, c=colours, edgecolors=edges, zorder=2)
    ax.set_axis_off()
    return ax


def _read(model):
    """The kernels of a chain of Dense layers, and for each column of units which are kept."""
    import keras

    from tfprune.structure.replay import value_of
    from tfprune.structure.roles import unwrap
    from tfprune.structure.trace import trace

    wrapped = [op for op in trace(model).operations if getattr(op, "weights", None)]
    for op in wrapped:
        if not isinstance(unwrap(op), keras.layers.Dense):
            raise ValueError(
                f"draw_network draws chains of Dense layers. Received: layer '{op.name}' ({type(unwrap(op)).__name__}) "
                f"in model '{model.name}'."
            )
    kernels = [value_of(unwrap(op).kernel) for op in wrapped]
    masks = [getattr(op, "masks", {}).get("out") for op in wrapped]  # only a ChannelMask has some
    kept = [np.ones(kernels[0].shape[0], bool)]
    for kernel, mask in zip(kernels, masks, strict=True):
        kept.append(np.ones(kernel.shape[1], bool) if mask is None else value_of(mask) > 0.5)
    return kernels, kept
