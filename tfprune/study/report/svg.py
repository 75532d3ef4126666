"""How do numbers become a picture that is text? Axes, lines, bands and marks of a figure, in the words of SVG.

Written by hand, not by a plotting package, for what the page needs: colours that follow light and dark, text that is
text, a word on every point under the pointer, the same bytes everywhere, and hundreds of panels in a second.

A colour is a class ("s0" ... for lines, "k0" ... for controls, "ink", "soft", "grid", "paper"): the page gives it a
value in light and in dark, `standalone` the value for a file.
"""

import dataclasses
import math
from html import escape

# name -> (in light, in dark). Against its paper every line has a contrast of 3 and every text of 4.5 (WCAG 2.2).
PALETTE = {
    "paper": ("#ffffff", "#12161d"),
    "ink": ("#17202c", "#e8ecf2"),
    "soft": ("#566273", "#9aa7b8"),
    "grid": ("#e4e8ed", "#2a323d"),
    "good": ("#0f8a63", "#35c493"),
    "open": ("#c9d1db", "#3d4856"),
    "bad": ("#d1503a", "#ff8064"),
    # Okabe and Ito's, moved until they are told from white, and from black: blue, green, vermilion, purple, ochre ...
    "s0": ("#0072b2", "#58b4f0"),
    "s1": ("#008a66", "#2ecb9b"),
    "s2": ("#b5478c", "#ea9acb"),
    "s3": ("#a86f00", "#f2b93b"),
    "s4": ("#5b4fc4", "#a79ffb"),
    "s5": ("#1f8b9c", "#62d2e2"),
    "s6": ("#8a5a3c", "#d3a283"),
    "s7": ("#64780d", "#b9cf55"),
    "k0": ("#c2410c", "#ff9166"),
    "k1": ("#5f6b7a", "#a3afbf"),
    "k2": ("#7a7f1c", "#c5ca5e"),
    "k3": ("#8b5563", "#d9a0ae"),
    "k4": ("#47748c", "#8dbbd3"),
}
DASHES = {False: ("", "7 3", "10 3 2 3", "12 4"), True: ("2 3", "1 3", "4 3", "6 3 1 3", "3 2")}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif'
# Marks of radius 1 around the origin.
_MARKS = (
    "M-1 0A1 1 0 1 0 1 0A1 1 0 1 0-1 0Z",
    "M-.88-.88H.88V.88H-.88Z",
    "M0-1.15L1.15 0L0 1.15L-1.15 0Z",
    "M0-1.1L1.05.8H-1.05Z",
    "M0 1.1L1.05-.8H-1.05Z",
    "M-.35-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z",
    "M0-1.1L1.05-.34L.65.9H-.65L-1.05-.34Z",
    "M-1-.6L0-1.15L1-.6V.6L0 1.15L-1 .6Z",
)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Args:
        name: Name of its file, without ending, unique in the report.
        title: What it shows, in a few words.
        text: How to read it.
        svg: The picture.
    """

    name: str
    title: str
    text: str
    svg: str

    @property
    def width(self):
        """Width of the picture."""
        return float(self.svg.split('viewBox="0 0 ', 1)[1].split(" ", 1)[0])


@dataclasses.dataclass(frozen=True)
class Scale:
    """Numbers along one axis.

    Args:
        low: Value at the start.
        high: Value at the end.
        logarithmic: Whether equal factors are equally far apart.
        ticks: Values that are written; None chooses them.
    """

    low: float
    high: float
    logarithmic: bool = False
    ticks: tuple | None = None

    def at(self, value):
        """Where a value stands, 0 at the start and 1 at the end; values beyond are held at a little outside."""
        low, high, value = (math.log(max(v, 1e-300)) if self.logarithmic else v for v in (self.low, self.high, value))
        return min(max((value - low) / (high - low), -0.02), 1.02)

    def marks(self):
        """The values that are written along the axis."""
        return self.ticks if self.ticks is not None else _ticks(self.low, self.high, self.logarithmic)


def around(values, low=-math.inf, high=math.inf, logarithmic=False, room=0.06):
    """Returns the `Scale` that holds the values with a little room, within what is possible at all.

    Args:
        values: Numbers to show; at least one.
        low: The least that can be.
        high: The most that can be.
        room: Share of the span that is left free at both ends.
        logarithmic: Whether equal factors are equally far apart; the values must be positive.
    """
    least, most = min(values), max(values)
    if logarithmic:
        return Scale(least / 1.15, most * 1.15, True)
    span = (most - least) or abs(most) * 0.1 or 1.0
    return Scale(max(least - room * span, min(low, least)), min(most + room * span, max(high, most)))


def _ticks(low, high, logarithmic):
    """Five or so round values between the ends."""
    if logarithmic and high / low > 4:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if high / low < 200 else (1,)
        return tuple(v for d in decades for s in steps if low <= (v := s * 10.0**d) <= high)
    step = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next((step * f for f in (1, 2, 2.5, 5, 10) if (high - low) / (step * f) <= 6), 10 * step)
    return tuple(round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1))


def number(value):
    """Returns a coordinate without needless digits."""
    return f"{value:.2f}".rstrip("0").rstrip(".").replace("-0.", "-.") if value else "0"


def label(value):
    """Returns a number as it stands beside an axis."""
    if value and (abs(value) >= 10000 or abs(value) < 0.0005):
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-") if abs(value) < 1 else f"{value:,.0f}"
    return f"{value:g}"


def file_name(words):
    """Returns words as the name of a file, or of a place on the page."""
    return "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in words).strip("-")


def colour(series):
    """Returns the colour class of a line."""
    return f"k{series.look % 5}" if series.control else f"s{series.look % 8}"


def mark(series):
    """Returns the path of a line's mark."""
    # One further with every round of the colours: no two lines look alike before the 64th.
    return _MARKS[(series.look + series.look // len(_MARKS) + 3 * series.control) % len(_MARKS)]


def dash(series):
    """Returns the dashes of a line: controls are dotted and short, others long or whole."""
    dashes = DASHES[series.control]
    return dashes[series.look % len(dashes)]


def text(x, y, words, anchor="start", name="soft", size=13, extra=""):
    """Returns a piece of text; `anchor` is the end of it that stands at x."""
    return (
        f'<text x="{number(x)}" y="{number(y)}" class="{name}" text-anchor="{anchor}" font-size="{size}"{extra}>'
        f"{escape(str(words))}</text>"
    )


def path(points):
    """Returns the path through points of the picture."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def stroke(course, name="", width=1, dashes="", **more):
    """Returns a line along a path, in a colour class; `more` are further attributes, with _ for -."""
    return _shape(
        "path", name, {"fill": "none", "stroke": "currentColor", "stroke-width": width, "d": course}, dashes, more
    )


def fill(course, name="", opacity=None):
    """Returns the filled inside of a path, in a colour class."""
    return _shape("path", name, {"fill": "currentColor", "d": course}, "", {"fill_opacity": opacity})


def block(x, y, width, height, opacity=None, **more):
    """Returns a filled rectangle with soft corners, in the colour of what it stands in."""
    place = {"x": number(x), "y": number(y), "width": number(width), "height": number(height), "rx": 2}
    return _shape("rect", "", {**place, "fill": "currentColor"}, "", {"fill_opacity": opacity, **more})


def mark_of(parts, words, name=""):
    """Returns parts of a picture that say something under the pointer, in a colour class."""
    return f'<g class="{f"{name} mark".strip()}">{parts}<title>{escape(words)}</title></g>'


def group(parts, name):
    """Returns parts of a picture in a colour class."""
    return f'<g class="{name}">{parts}</g>'


def _shape(tag, name, attributes, dashes, more):
    attributes = {"class": name or None, **attributes, "stroke-dasharray": dashes or None}
    attributes |= {key.replace("_", "-"): value for key, value in more.items()}
    written = "".join(f' {key}="{value}"' for key, value in attributes.items() if value is not None and value != "")
    return f"<{tag}{written}/>"


class Panel:
    """One pair of axes in a picture; what is drawn is kept as text.

    Args:
        left, top, width, height: Where the axes stand, in units of the picture.
        x, y: `Scale` of each axis.
    """

    def __init__(self, left, top, width, height, x, y):
        self.left, self.top, self.width, self.height, self.x, self.y = left, top, width, height, x, y
        self.parts = []

    def place(self, x, y):
        """Where a pair of values stands in the picture."""
        return self.left + self.width * self.x.at(x), self.top + self.height * (1 - self.y.at(y))

    def axes(self, x_title="", y_title="", y_labels=True, form=label):
        """Draws grid, ticks and titles."""
        bottom, right = self.top + self.height, self.left + self.width
        for value in self.y.marks():
            y = self.place(self.x.low, value)[1]
            self.parts.append(stroke(path([(self.left, y), (right, y)]), "grid"))
            if y_labels:
                self.parts.append(text(self.left - 7, y + 4, form(value), "end"))
        for value in self.x.marks():
            x = self.place(value, self.y.low)[0]
            self.parts.append(stroke(path([(x, bottom), (x, bottom + 4)]), "soft"))
            self.parts.append(text(x, bottom + 18, label(value), "middle"))
        self.parts.append(stroke(path([(self.left, bottom), (right, bottom)]), "soft"))
        if x_title:
            self.parts.append(text(self.left + self.width / 2, bottom + 36, x_title, "middle"))
        if y_title:
            self.parts.append(text(2, self.top - 16, y_title, name="ink"))

    def level(self, value, name, dashes=""):
        """Draws a horizontal line."""
        (left, y), right = self.place(self.x.low, value), self.left + self.width
        self.parts.append(stroke(path([(left, y), (right, y)]), name, 1.5, dashes))

    def word(self, value, words, name):
        """Writes above the right end of a horizontal line, readable over what was drawn before."""
        y = self.place(self.x.low, value)[1]
        self.parts.append(text(self.left + self.width, y - 5, words, "end", f"{name} halo", 11.5))

    def curve(self, series, points, tips, half_widths=None, band=True):
        """Draws a line with its marks: points are pairs of values, tips what is said of each.

        Args:
            series: The line, for its looks.
            points: Pairs of values, in order.
            tips: A text for each point.
            half_widths: Half the height of the band at each point; None draws no band.
            band: Whether the heights are joined to a band; else each is a bar, as is that of a lonely point.
        """
        places = [self.place(*point) for point in points]
        parts = self._spread(points, half_widths, band and len(points) > 1) if half_widths and any(half_widths) else ""
        parts += stroke(path(places), "", 1.4 if series.control else 2, dash(series), stroke_linejoin="round")
        for (x, y), tip in zip(places, tips, strict=True):
            parts += f'<g transform="translate({number(x)} {number(y)}) scale(3.8)">{mark_of(symbol(series), tip)}</g>'
        self.parts.append(f'<g class="{colour(series)}" data-series="{escape(series.name, True)}">{parts}</g>')

    def _spread(self, points, half_widths, band):
        upper = [self.place(x, y + w) for (x, y), w in zip(points, half_widths, strict=True)]
        lower = [self.place(x, y - w) for (x, y), w in zip(points, half_widths, strict=True)]
        if band:
            return fill(path(upper + lower[::-1]) + "Z", opacity=".12")
        bars = "".join(path(ends) for ends in zip(upper, lower, strict=True) if ends[0] != ends[1])
        return stroke(bars, stroke_opacity=".6")


def symbol(series):
    """Returns a line's mark around the origin, of radius 1; a control's is hollow."""
    if not series.control:
        return fill(mark(series))
    return fill(mark(series), "paper") + stroke(mark(series), "", ".4")


def picture(name, width, height, parts, title, description, legend=()):
    """Returns a figure as an `<svg>` element for the page.

    Its legend lies below what the page shows, which has one for all figures; a file shows both.

    Args:
        name: Name of the figure, unique on the page.
        width: Width in units of the picture, a pixel each where there is room.
        height: Height.
        parts: Texts of SVG elements.
        title: What it is, in a few words.
        description: What is to be seen, for those who do not see it.
        legend: Lines to tell apart.
    """
    entries, full = _legend(legend, width, height)
    return (
        f'<svg id="{name}" class="figure" viewBox="0 0 {number(width)} {number(height)}" '
        f'data-full="0 0 {number(width)} {number(full)}" role="img" aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(description)}</desc>'
        f"{''.join(parts)}{entries}</svg>"
    )


def _legend(series, width, height):
    """The legend below a picture, and the height with it."""
    if not series:
        return "", height
    # A sign takes less than 8 units in any font that a browser falls back to.
    columns = max(1, int(width // (50 + 8 * max(len(one.title) for one in series))))
    entries = ""
    for index, one in enumerate(series):
        x, y = 8 + index % columns * (width / columns), height + 14 + index // columns * 20
        entries += (
            f'<g transform="translate({number(x)} {number(y)})">{swatch(one)}{text(34, 4, one.title, name="ink")}</g>'
        )
    return f'<g class="legend">{entries}</g>', height + 14 + 20 * -(-len(series) // columns)


def swatch(series):
    """Returns a line's looks, 28 units wide, around its middle."""
    line = stroke("M0 0H28", "", 2, dash(series))
    return group(f'{line}<g transform="translate(14 0) scale(4)">{symbol(series)}</g>', colour(series))


def style():
    """Returns the style of a figure in a file of its own: the colours of light paper, as plain values."""
    colours = "".join(f".{name}{{color:{light}}}" for name, (light, _) in PALETTE.items())
    halo = f".halo{{paint-order:stroke;stroke:{PALETTE['paper'][0]};stroke-width:3px}}"
    return f"text{{fill:currentColor;font-family:{FONT.replace(chr(34), chr(39))}}}{colours}{halo}"


def standalone(svg):
    """Returns a figure of the page as the text of an SVG file, with its legend, on white paper.

    Args:
        svg: What `picture` returned.
    """
    full = svg.split('data-full="', 1)[1].split('"', 1)[0]
    _, _, width, height = full.split()
    start, rest = svg.split(">", 1)
    box = start.split('viewBox="', 1)[1].split('"', 1)[0]
    start = start.replace(f'viewBox="{box}"', f'viewBox="{full}" width="{width}" height="{height}"').replace(
        f' data-full="{full}"', ""
    )
    start = start.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    return f'{start}><style>{style()}</style><rect width="100%" height="100%" fill="#ffffff"/>{rest}\n'
