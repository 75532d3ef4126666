"""What could pruning free in a model, group by group, and what is pinned and why, before any training is spent?"""

import math
import re

import numpy as np

from tfprune.structure.cost import cost
from tfprune.structure.groups import ChannelGraph
from tfprune.structure.ledger import Ledger


def inspect(model, show=True, approximate=False):
    """Says what of a model can be pruned and what that would free, and what is pinned, by which layer and why.

    What a group can free is counted with all its channels removed but one, and everything else left whole. A kernel
    between two groups is freed by either, so the shares of all groups may add up to more than one.

    Args:
        model: A built Sequential or functional Keras model. It is left as it is.
        show: Whether to print the table and the totals too. Default True.
        approximate: Whether channels count as prunable that a normalisation mixes, so that pruning them changes
            what the model computes for the others. Default False.

    Returns:
        A pandas DataFrame, one row a group, in the order of the network:

        * `group` (name), `layers` (names of all layers that hold weights for it), `kind` (what is pruned: "channels",
          or the kind of unit that an attention layer names, such as "head") and `channels` (how many).
        * `prunable` (bool), `reason` (why not; empty where it is) and `pinned_by` (the layer that pins it; "model"
          where its inputs or outputs do; empty where none does).
        * `parameters` and `multiply_adds` (per example) that the group can free by itself, as numbers and, as
          `parameters_share` and `multiply_adds_share`, as shares of the whole model. Multiply-adds are None where
          `tfprune.structure.cost` cannot tell those of the model.
        * `approximate` (bool): pruning it is not exact.

        Its `attrs` hold the totals: "parameters", "multiply_adds" and "bytes" of the model, "smallest_parameters" and
        "smallest_multiply_adds" with one channel left in every prunable group, and "prunable_share", the share of
        the parameters that belong to some prunable channel.

    Raises:
        ValueError: the model is subclassed or not built.

    Example:
        >>> table = tfprune.inspect(model, show=False)
        >>> table.attrs["smallest_parameters"]
        7
    """
    graph = ChannelGraph(model, approximate=approximate)
    table = _table(graph)
    if show:
        _print(table, graph.trace.name)
    return table


def _table(graph):
    import pandas as pd

    ledger, total = Ledger(graph), cost(graph.trace)
    freed, smallest = _what_goes(graph, ledger)
    rows = [_row(graph, group, freed, total) for group in graph.groups] + _rows_of_refused(graph, freed)
    table = pd.DataFrame(rows, columns=_COLUMNS)
    table.attrs = {**total, **smallest, "prunable_share": _prunable_share(graph, ledger, total["parameters"])}
    return table


def _what_goes(graph, ledger):
    """`({"parameters": {group: what it frees by itself}, ...}, {"smallest_parameters": all groups pruned, ...})`."""
    places = ledger.places(_cause(graph, spared=1), len(graph.prunable) + 1)
    whole, alone, least = places.sum(axis=1, keepdims=True), places[:, 1:], places[:, :1]
    freed, smallest = {}, {}
    for name, count in (("parameters", ledger.parameters), ("multiply_adds", ledger.multiply_adds)):
        before, after = count(whole), count(whole - alone)
        freed[name] = None if before is None else dict(zip(graph.prunable, (before - after).tolist(), strict=True))
        smallest[f"smallest_{name}"] = None if before is None else int(count(least)[0])
    return freed, smallest


def _prunable_share(graph, ledger, parameters):
    places = ledger.places(_cause(graph, spared=0), len(graph.prunable) + 1)
    return 1 - int(ledger.parameters(places[:, :1])[0]) / max(parameters, 1)


_COLUMNS = [
    *("group", "layers", "kind", "channels", "prunable", "reason", "pinned_by"),
    *("parameters", "parameters_share", "multiply_adds", "multiply_adds_share", "approximate"),
]


def _cause(graph, spared):
    """For every unit the number of the prunable group (1, 2 ...) that takes it away; 0 for the first ones, spared."""
    cause = np.zeros(graph.num_units, np.int64)
    for number, group in enumerate(graph.prunable, start=1):
        cause[group.units[spared:]] = number
    for units in graph.needed if spared else ():  # a part that is used alone keeps a channel too
        if cause[units].all():
            cause[units[0]] = 0
    return cause


def _row(graph, group, freed, total):
    axis = graph.maker_axes[group.name][1]
    row = {
        "group": group.name,
        "layers": list(group.layers),
        "kind": "channels" if axis == "out" else axis,
        "channels": group.channels,
        "prunable": not group.reason,
        "reason": group.reason,
        "pinned_by": _pinned_by(group),
        "approximate": not group.reason and group.approximate,
    }
    for name in ("parameters", "multiply_adds"):
        row[name] = None if freed[name] is None else freed[name].get(group, 0)
        row[f"{name}_share"] = None if freed[name] is None else row[name] / max(total[name], 1)
    return row


def _rows_of_refused(graph, freed):
    """Layers with weights that belong to no group, for nothing is known of the channels they make."""
    listed = {name for group in graph.groups for name in group.layers}
    zeros = {f"{name}{end}": None if freed[name] is None else 0 for name in freed for end in ("", "_share")}
    return [
        {
            **{"group": name, "layers": [name], "kind": "channels", "channels": 0, "prunable": False},
            **{"reason": reason, "pinned_by": name, "approximate": False, **zeros},
        }
        for name, reason in graph.refused.items()
        if name not in listed and getattr(graph.layers[name], "weights", None)
    ]


def _pinned_by(group):
    """The layer that a reason names, or the model's ends; a reason that names nothing is the group's own."""
    named = re.search(r"layers? '([^']+)'", group.reason)
    if named or not group.reason:
        return named[1] if named else ""
    return "model" if re.search(r"(in|out)put of the model", group.reason) else group.layers[0]


# What is printed ---------------------------------------------------------------------------------------------------


def _print(table, title):
    from rich.console import Console

    # Layer names are the user's: nothing in them is markup.
    console = Console(markup=False, emoji=False, highlight=False)
    free, pinned = table[table.prunable], table[~table.prunable]
    console.print(f"{title}: {len(free)} of {len(table)} groups can be pruned", style="bold")
    if len(free):
        freed = {"parameters freed": lambda row: f"{row.parameters:,} {100 * row.parameters_share:5.1f} %"}
        if table.attrs["smallest_multiply_adds"] is not None:
            freed["multiply-adds freed"] = lambda row: f"{row.multiply_adds:,} {100 * row.multiply_adds_share:5.1f} %"
        console.print(_grid(free, freed, "right"))
    if len(pinned):
        console.print(_grid(pinned, {"why it is pinned": lambda row: row.reason}, "left"), style="dim")
    for line in _totals(table):
        console.print(line)


def _grid(rows, cells, justify):
    from rich import box
    from rich.table import Table

    grid = Table("group", "coupled with", box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("units", justify="right")
    for title in cells:
        grid.add_column(title, justify=justify)
    for row in rows.itertuples():
        units = f"{'≈ ' if row.approximate else ''}{row.channels:,}"
        grid.add_row(row.group, _others(row.layers[1:]), units, *(cell(row) for cell in cells.values()))
    return grid


def _others(names, shown=2):
    """The first names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:shown]) + (f" … +{len(names) - shown}" if len(names) > shown else "")


def _totals(table):
    totals = table.attrs
    work = "unknown" if totals["multiply_adds"] is None else f"{totals['multiply_adds']:,}"
    yield f"{totals['parameters']:,} parameters, {work} multiply-adds per example, {totals['bytes']:,} bytes"
    yield f"{_percent(totals['prunable_share'])} of the parameters belong to channels that can be pruned"
    smallest = f"{totals['smallest_parameters']:,} parameters ({_share(totals, 'parameters')})"
    if totals["smallest_multiply_adds"] is not None:
        smallest += f", {totals['smallest_multiply_adds']:,} multiply-adds ({_share(totals, 'multiply_adds')})"
    yield f"Smallest reachable: {smallest}, one channel a group"
    if table.approximate.any():
        yield "≈ a normalisation mixes these channels: pruning them is not exact"


def _share(totals, name):
    return _percent(totals[f"smallest_{name}"] / max(totals[name], 1))


def _percent(share):
    return f"{math.floor(10_000 * share) / 100:.2f} %"  # never 100 where something stays
