"""Where does each node of a long, mostly straight graph go on a page?

The longest path runs straight along lane 0; branches and skips run in lanes of their own beside it, as on the map of
an underground line. What is too long for one line goes on in the next row, as text does.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Where nodes and edges lie.

    Args:
        columns: Column of each node: the length of the longest path that leads to it.
        lanes: Lane of each node: 0 for the longest path, positive above it.
        edge_lanes: `{(from, to): lane}` in which an edge runs where it passes whole columns.
        rows: `[(first column, last column)]` of each row of the page.
    """

    columns: list
    lanes: list
    edge_lanes: dict
    rows: list


def lay_out(num_nodes, edges, width=None):
    """Lays out a graph whose nodes are numbered in topological order.

    Args:
        num_nodes: Number of nodes.
        edges: Set of `(from, to)` with from < to.
        width: Number of columns that a row should have, more or less. Default None: 14, or as many as make the page of
            a long network wider than high.

    Returns:
        A `Layout`.

    Example:
        >>> lay_out(3, {(0, 1), (1, 2), (0, 2)}).lanes
        [0, 0, 0]
    """
    before, after = [[] for _ in range(num_nodes)], [[] for _ in range(num_nodes)]
    for i, j in sorted(edges):
        before[j].append(i)
        after[i].append(j)
    columns = _columns(before, after)
    page = _Page(columns)
    for chain in _chains(before):
        page.place_chain(chain, before, after)
    for i, j in sorted(edges, key=lambda edge: (columns[edge[1]] - columns[edge[0]], edge)):
        page.place_edge(i, j)
    if width is None:
        width = max(14, math.ceil(math.sqrt(3.2 * max(columns))))
    return Layout(columns, page.lanes, page.edge_lanes, _rows(columns, edges, width))


def _columns(before, after):
    """The longest path that leads to each node; a node that nothing leads to stands right before its first reader."""
    columns = []
    for sources in before:
        columns.append(1 + max((columns[source] for source in sources), default=-1))
    for node, sources in enumerate(before):
        if not sources and after[node]:
            columns[node] = min(columns[target] for target in after[node]) - 1
    return columns


def _chains(before):
    """Splits the nodes into paths: the longest, the longest of what is left, and so on."""
    left = set(range(len(before)))
    while left:
        length, source_of = {}, {}
        for node in sorted(left):
            source = max((s for s in before[node] if s in left), key=length.get, default=None)
            length[node], source_of[node] = 1 + length.get(source, 0), source
        node, chain = max(length, key=length.get), []
        while node is not None:
            chain.insert(0, node)
            node = source_of[node]
        left -= set(chain)
        yield chain


class _Page:
    """Which lane is taken where, and by whom."""

    def __init__(self, columns):
        self.columns = columns
        self.lanes = [None] * len(columns)
        self.edge_lanes = {}
        self._taken = {}  # lane -> [(first column, last column, owner)]
        self._nodes = set()  # (lane, column) of every node
        self._owner = {}  # node -> first node of its path

    def place_chain(self, chain, before, after):
        """Gives a path the nearest free lane between the nodes where it leaves and where it joins the others."""
        first = min((self.columns[node] + 1 for node in before[chain[0]]), default=self.columns[chain[0]])
        last = max((self.columns[node] - 1 for node in after[chain[-1]]), default=self.columns[chain[-1]])
        ends = [self.lanes[node] for node in (*before[chain[0]], *after[chain[-1]]) if self.lanes[node] is not None]
        anchor = sum(ends) / len(ends) if ends else 0
        # the nearest lane, below rather than above
        lane = self._free(first, last, chain[0], lambda lane: (abs(lane - anchor), lane)) if self._taken else 0
        self._taken.setdefault(lane, []).append((first, last, chain[0]))
        for node in chain:
            self.lanes[node] = lane
            self._nodes.add((lane, self.columns[node]))
            self._owner[node] = chain[0]

    def place_edge(self, i, j):
        """Gives an edge that passes columns a lane: its path's own where that is free there, else one outside."""
        first, last = self.columns[i] + 1, self.columns[j] - 1
        if first > last:
            return
        lane, owner = self._own_lane(i, j, first, last) or self._outer_lane(i, j, first, last)
        self._taken.setdefault(lane, []).append((first, last, owner))
        self.edge_lanes[i, j] = lane

    def _own_lane(self, i, j, first, last):
        for node in (i, j):
            lane, owner = self.lanes[node], self._owner[node]
            passes_nodes = any((lane, column) in self._nodes for column in range(first, last + 1))
            if not passes_nodes and self._is_free(lane, first, last, owner):
                return lane, owner
        return None

    def _outer_lane(self, i, j, first, last):
        """Above the longest path or, between nodes below it, below; lines from one node may share a lane."""
        side, owner = (1 if self.lanes[i] + self.lanes[j] >= 0 else -1), ("edge", i)
        return self._free(first, last, owner, lambda lane: (lane * side < 1, abs(lane))), owner

    def _free(self, first, last, owner, order):
        """The first lane in this order that is free between two columns."""
        lanes = sorted(range(min(self._taken) - 1, max(self._taken) + 2), key=order)  # the outermost are free
        return next(lane for lane in lanes if self._is_free(lane, first, last, owner))

    def _is_free(self, lane, first, last, owner):
        return not any(a <= last and first <= b and by != owner for a, b, by in self._taken.get(lane, []))


def _rows(columns, edges, width):
    """Breaks the columns into rows of about the width, where few edges cross."""
    count = max(columns) + 1
    sources = [set() for _ in range(count)]
    for i, j in edges:
        for column in range(columns[i], columns[j]):
            sources[column].add(i)
    best = {-1: (0.0, [])}  # last column of the rows so far -> (badness, rows)
    for last in range(count):
        options = []
        for first in range(max(0, last + 1 - int(1.3 * width)), last + 1):
            badness, rows = best[first - 1]
            shape = (1 + last - first) / width - 1
            if last == count - 1:
                shape = max(shape, 0.5 * shape)  # the last row may be short
            options.append((badness + shape**2 + 0.2 * max(0, len(sources[last]) - 1), [*rows, (first, last)]))
        best[last] = min(options)
    return best[count - 1][1]
