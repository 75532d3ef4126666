"""How is a network drawn, once it is known which layers it has, how wide they are and in which colours?"""

import math
import re
from dataclasses import dataclass, field

import numpy as np

from tfprune.plots.canvas import axes_for
from tfprune.plots.layout import lay_out

PINNED, LINE = "#bdbdbd", "#b3b9c0"
_INK, _SOFT = "#303840", "#667080"
# In columns: a bar's width, the widest layer's height and the least of any, a join's radius, the height of a line of
# text, and how far lines that go on in the next row reach beyond the last layer.
_BAR, _TALLEST, _LEAST, _JOIN, _TEXT, _MARGIN = 0.36, 1.15, 0.06, 0.13, 0.13, 0.62


@dataclass(eq=False)
class Node:
    """A call of a layer with a kernel, an input, or (with a symbol) a place where data joins."""

    name: str
    units: np.ndarray  # the unit number of each channel
    symbol: str = ""
    kinds: dict = field(default_factory=dict)  # other units of an attention layer: kind -> unit numbers
    kept: dict = field(default_factory=dict)  # kind ("out" for channels) -> how many stay
    colour: str = ""
    pinned: bool = False

    @property
    def channels(self):
        """Number of channels."""
        return len(self.units)

    def label(self):
        """How many channels there are, and how many stay."""
        return self._change(self.channels, "out")

    def lines(self):
        """The name, and what else than channels the layer has, in lines as short as a column is wide."""
        return [
            *_broken(self.name),
            *(f"{self._change(len(units), kind)} {kind}" for kind, units in self.kinds.items()),
        ]

    def _change(self, before, kind):
        after = self.kept.get(kind, before)
        return f"{before}" if after == before else f"{before}→{after}"


class Page:
    """Everything's place, in columns: x to the right, y upwards."""

    def __init__(self, nodes, edges, legend, title):
        self.nodes, self.edges, self.legend, self.title = nodes, edges, legend, title
        self.layout = lay_out(len(nodes), edges)
        self.width = max(last - first + 1 for first, last in self.layout.rows)
        self.pitch = min(1.3, max(0.8, 13 / self.width))  # inches a column: small networks are drawn large
        self.tallest = max(node.channels for node in nodes)
        self.row_of = {
            column: row for row, (first, last) in enumerate(self.layout.rows) for column in range(first, last + 1)
        }
        self._place_rows()

    @property
    def font(self):
        """Size of the numbers, in points."""
        return 8 * self.pitch

    def draw(self, ax=None):
        """Draws lines first, bars on them, names on top; returns the axes."""
        ax = self._axes(ax)
        ax.set_title(self.title, fontsize=1.5 * self.font, loc="left", color=_INK)
        for path, colour in dict.fromkeys(self._lines()):
            ax.plot(*np.transpose(path), color=colour, linewidth=0.2 * self.font, zorder=1, solid_capstyle="round")
        for index, node in enumerate(self.nodes):
            (self._draw_join if node.symbol else self._draw_bar)(ax, node, *self.place(index))
        self._draw_legend(ax)
        return ax

    def _axes(self, ax):
        """The axes, with limits that hold the page; in the user's own everything is as large as they allow."""
        legend_lines = 1 + max(line for line, *_ in self._legend_places())
        left, right, top, bottom = -0.75, self.width - 0.25, 0.1, self.bottom - 0.25 - 0.24 * legend_lines
        if ax is not None:
            room = ax.get_position().size * ax.figure.get_size_inches()
            self.pitch = min(room / (right - left, top - bottom))
        ax = axes_for(ax, (self.pitch * (right - left), self.pitch * (top - bottom) + 0.4))
        ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
        ax.set_axis_off()
        return ax

    def height_of(self, node):
        """A bar's height."""
        return max(_LEAST, _TALLEST * math.sqrt(node.channels / self.tallest))

    def place(self, index):
        """Where the middle of a node lies."""
        column, lane = self.layout.columns[index], self.layout.lanes[index]
        row = self.row_of[column]
        return column - self.layout.rows[row][0], self.lane_y[row][lane]

    # rows and lanes

    def _place_rows(self):
        extents = [{} for _ in self.layout.rows]  # row -> {lane: [above, below]}
        for node, column, lane in zip(self.nodes, self.layout.columns, self.layout.lanes, strict=True):
            self._widen(extents[self.row_of[column]], lane, *self._extent(node))
        for (i, j), lane in self.layout.edge_lanes.items():
            for row in range(self.row_of[self.layout.columns[i]], self.row_of[self.layout.columns[j]] + 1):
                self._widen(extents[row], lane, 0.1, 0.1)
        self.lane_y, top = [], 0.0
        for lanes in extents:
            places, y = {}, top
            for lane in sorted(lanes, reverse=True):
                above, below = lanes[lane]
                places[lane], y = y - above, y - above - below
            self.lane_y.append(places)
            top = y - 0.3
        self.bottom = top + 0.3

    def _widen(self, lanes, lane, above, below):
        old = lanes.get(lane, (0, 0))
        lanes[lane] = max(old[0], above), max(old[1], below)

    def _extent(self, node):
        if node.symbol:
            return _JOIN + 0.05, _JOIN + 0.05
        half = self.height_of(node) / 2
        return half + _TEXT + 0.1, half + 0.1 + _TEXT * len(node.lines())

    # lines

    def _lines(self):
        """The path of every edge, in one piece a row, with its colour."""
        for i, j in sorted(self.edges):
            rows = range(self.row_of[self.layout.columns[i]], self.row_of[self.layout.columns[j]] + 1)
            for row in rows:
                yield tuple(self._piece(i, j, row, row == rows[0], row == rows[-1])), _pale(self.nodes[i].colour)

    def _piece(self, i, j, row, leaves, arrives):
        columns, lanes, (first, last) = self.layout.columns, self.layout.lanes, self.layout.rows[row]
        (x0, y0), (x1, y1) = self.place(i), self.place(j)
        here, there = (x0 + self._half(i), y0), (x1 - self._half(j), y1)
        if leaves and arrives and (i, j) not in self.layout.edge_lanes:
            return _bend(*here, *there)
        end = last - first + _MARGIN
        if leaves and columns[i] == last:  # all lines of a row's last node go on as one, and part in the next row
            return [here, (end, y0)]
        y = self.lane_y[row][self.layout.edge_lanes.get((i, j), lanes[j])]
        if not leaves:
            here = (-_MARGIN, self.lane_y[row].get(lanes[i], y) if columns[i] == first - 1 else y)
        if not arrives:
            there = (end, y)
        elif columns[j] == first:
            return _bend(*here, *there)
        return [*_bend(*here, min(here[0] + 0.7, end), y), *_bend(max(there[0] - 0.7, -_MARGIN), y, *there)]

    def _half(self, index):
        return _JOIN if self.nodes[index].symbol else _BAR / 2

    # nodes

    def _draw_join(self, ax, node, x, y):
        from matplotlib.patches import Circle

        ax.add_patch(
            Circle((x, y), _JOIN, facecolor="white", edgecolor=node.colour, linewidth=0.17 * self.font, zorder=2)
        )
        ax.text(x, y, node.symbol, color=_INK, fontsize=self.font, ha="center", va="center_baseline", zorder=3)

    def _draw_bar(self, ax, node, x, y):
        from matplotlib.patches import Rectangle

        height = self.height_of(node)
        share = node.kept.get("out", node.channels) / node.channels
        corner, style = (x - _BAR / 2, y - height / 2), {"edgecolor": node.colour, "linewidth": 0.1 * self.font}
        fill = {"facecolor": _pale(PINNED), "hatch": "////"} if node.pinned else {"facecolor": node.colour}
        ax.add_patch(Rectangle(corner, _BAR, height, facecolor="white", zorder=2, **style))
        ax.add_patch(Rectangle(corner, _BAR, height * share, zorder=2, **fill, **style))
        # a white ground, for lines that pass behind
        text = {"ha": "center", "zorder": 3, "bbox": {"color": "white", "alpha": 0.8, "pad": 0.3, "linewidth": 0}}
        ax.text(x, y + height / 2 + 0.05, node.label(), fontsize=self.font, va="bottom", color=_INK, **text)
        name = "\n".join(node.lines())
        size = {"fontsize": 0.85 * self.font, "linespacing": 1.15}
        ax.text(x, y - height / 2 - 0.06, name, va="top", color=_SOFT, **size, **text)

    # legend

    def _legend_places(self):
        """`(line, x, entry)` of each entry of the legend, set like words of a text."""
        line, x = 0, -0.5
        for entry in self.legend:
            swatches, _, text = entry
            length = 0.22 * len(swatches) + 0.35 + 0.06 * len(text)  # a letter takes about half its height
            if x + length > self.width - 0.3 and x > -0.5:
                line, x = line + 1, -0.5
            yield line, x, entry
            x += length

    def _draw_legend(self, ax):
        from matplotlib.patches import Rectangle

        for line, x, (colours, hatched, text) in self._legend_places():
            y = self.bottom - 0.35 - 0.24 * line
            for colour in colours:
                style = {"facecolor": _pale(colour), "hatch": "////"} if hatched else {"facecolor": colour}
                ax.add_patch(Rectangle((x, y - 0.08), 0.16, 0.16, edgecolor=colour, linewidth=0.5, **style))
                x += 0.2
            ax.text(x + 0.04, y, text, fontsize=self.font, va="center_baseline", color=_INK)


def _bend(x0, y0, x1, y1):
    """A smooth curve from left to right that starts and ends level."""
    if y0 == y1:
        return [(x0, y0), (x1, y1)]
    t = np.linspace(0, 1, 17)
    rise = t * t * (3 - 2 * t)
    return list(zip((x0 + (x1 - x0) * t).tolist(), (y0 + (y1 - y0) * rise).tolist(), strict=True))


def _pale(colour):
    """A colour halfway to white."""
    return "#" + "".join(f"{(int(colour[i : i + 2], 16) + 255) // 2:02x}" for i in (1, 3, 5))


def _broken(name, width=14):
    """A name broken after its separators, so that no line is wider than a column."""
    parts = re.findall(r"[^_./:\-]*[_./:\-]?", name)
    pieces = [part[i : i + width] for part in parts for i in range(0, len(part), width)]
    lines = [""]
    for piece in pieces:
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return lines
