"""Where does a picture go, and which colours, markers and lines mean what in all of them?"""

KEPT, GONE, POSITIVE, NEGATIVE = "#1b1b1b", "#bbbbbb", "#0072b2", "#d55e00"

# What sets one model or data set apart from the next. The colours are those of Okabe and Ito, which the colour-blind
# can tell apart; the first four also lie ten steps of lightness (CIE L*) apart, so that grey print keeps them. Their
# yellow is left out, too light for a line on white. The lengths share no divisor: the combinations repeat late.
COLOURS = (POSITIVE, "#e69f00", KEPT, "#009e73", NEGATIVE, "#56b4e9", "#cc79a7")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
HATCHES = ("////", "....", "xxxx", "\\\\\\\\", "++++", "oooo", "||||", "----")

SMALL = 8  # points: legends and whatever else stands inside a picture


def axes_for(ax, size):
    """The axes given, or new ones of this size in inches."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=size, layout="constrained")[1]


def colour_of(index):
    """The colour of the index-th model."""
    return COLOURS[index % len(COLOURS)]


def hatch_of(index):
    """The hatch of the index-th model."""
    return HATCHES[index % len(HATCHES)]


def line_style(index):
    """How the line of the index-th model is drawn: colour, marker with a dark edge, line, for `ax.plot`."""
    return {
        "color": colour_of(index),
        "linestyle": LINES[index % len(LINES)],
        "linewidth": 1.8,
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 5,
        "markeredgecolor": KEPT,
        "markeredgewidth": 0.6,
    }


def add_legend(ax, place, corner=None):
    """A legend inside the axes, on a ground that hides what runs behind it; `corner` is where the place lies."""
    # Never "best": it searches every point, which takes long for the scores of a whole test set.
    ax.legend(loc=place, bbox_to_anchor=corner, fontsize=SMALL, frameon=True, framealpha=0.85, edgecolor="none")


def limits_with_room(low, high, in_the_way, num_entries):
    """Ends of an axis from low to high, further if a legend of so many entries would not fit above what is in its way.

    One entry takes 6.5 % of axes three inches high.
    """
    return low, max(high, low + (in_the_way - low) / max(0.3, 0.94 - 0.065 * num_entries))
