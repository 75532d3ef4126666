"""Where does a picture go, and which colours mean what in all of them?"""

KEPT, GONE, POSITIVE, NEGATIVE = "#1b1b1b", "#bbbbbb", "#0072b2", "#d55e00"


def axes_for(ax, size):
    """The axes given, or new ones of this size in inches."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=size, layout="constrained")[1]
