"""What does the structure of a real network look like: which layers are coupled, how wide are they before and after?"""

import keras
import numpy as np

from tfprune.plots.page import LINE, PINNED, Node, Page
from tfprune.structure.cost import cost
from tfprune.structure.groups import ChannelGraph
from tfprune.structure.ledger import Ledger
from tfprune.structure.roles import role_of, unwrap

# Okabe and Ito's colours, which colour-blind readers tell apart, and some more; for layers that share channels.
_COUPLED = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7b4fa3",
    "#8c564b",
    "#17807e",
    "#a89a00",
)
_PAIRED, _ALONE = ("#8fb996", "#b3a2d0", "#e0b08c", "#8db6cc"), "#7d8fa3"
_SYMBOLS = {"Add": "+", "Subtract": "−", "Multiply": "×", "Concatenate": "∥"}


def draw_structure(model, after=None, ax=None, approximate=False):
    """Draws a network's layers from left to right, as wide as they are, before and after pruning.

    A bar is a layer: its height is the square root of the number of its channels, its filled part the share that is
    kept. Layers in one colour share channels and are pruned together; blue-grey ones are pruned by themselves, hatched
    ones are pinned. Lines are the data's way, circles the places where it joins (+ adds, × multiplies, ∥ concatenates);
    layers without kernels are left out. A long network goes on in the next row.

    Args:
        model: A built Sequential or functional Keras model, with masks (`tfprune.wrap`) or without.
        after: What is left of it: masks (`{layer name: bool array}`, as `tfprune.compute_masks` returns them), or the
            ticket that `tfprune.shrink` returned. Default None: what the model's own masks keep, if it has any.
        ax: Matplotlib axes to draw on. Default None: new ones, large enough to read every name.
        approximate: Whether channels that a normalisation mixes count as prunable, as in `tfprune.wrap`. Default False.

    Returns:
        The axes; `ax.figure.savefig("structure.svg")` writes the picture.

    Raises:
        ValueError: the model is subclassed or not built, or `after` is no outcome of pruning it.

    Example:
        >>> tfprune.plots.draw_structure(model, after=ticket).figure.savefig("structure.svg")
    """
    graph = ChannelGraph(model, approximate=approximate)
    nodes, edges = _read(graph)
    parameters = _prune(nodes, graph, after)
    legend = _colour(nodes, graph)
    return Page(nodes, edges, legend, _title(graph.trace.name, parameters)).draw(ax)


def _title(name, parameters):
    before, after = parameters
    change = "" if after is None else f" → {after:,} ({100 * after / max(before, 1):.3g} %)"
    return f"{name}: {before:,}{change} parameters"


# What is drawn -----------------------------------------------------------------------------------------------------


def _read(graph):
    """`(nodes, {(from, to)})`: the calls of a model but those that have one input and no kernel."""
    nodes, edges, source_of = [], set(), {}
    inputs = keras.tree.flatten(graph.trace.inputs)
    for tensor in inputs:
        source_of[id(tensor)] = len(nodes)
        nodes.append(Node(tensor.name if len(inputs) > 1 else "input", _units(graph, tensor)))
    drawn = _drawn_layers(graph)
    for call in graph.trace.calls:
        name, cls = graph.trace.names[id(call.op)], type(unwrap(call.op)).__name__
        sources = dict.fromkeys(source_of[id(tensor)] for tensor in call.input_tensors)
        place = next(iter(sources), None)
        if name in drawn or len(sources) > 1:
            place = len(nodes)
            edges |= {(source, place) for source in sources}
            symbol = "" if name in drawn else _SYMBOLS.get(cls, "•")
            nodes.append(Node(name, _units(graph, call.output_tensors[0]), symbol, drawn.get(name, {})))
        source_of.update((id(tensor), place) for tensor in call.output_tensors)
    return nodes, edges


def _units(graph, tensor):
    """The unit number of each channel of a tensor: of each place along the axes on which it changes."""
    labels = graph.labels[id(tensor)]
    return graph.units(labels[tuple(slice(None) if stride else 0 for stride in labels.strides)]).ravel()


def _drawn_layers(graph):
    """The layers that hold a kernel, known to tfprune or not: `{name: {kind of unit but channels: unit numbers}}`."""
    drawn = {}
    for name, op in graph.layers.items():
        known = any(path.endswith("kernel") for path in graph.axes(name))
        unknown = role_of(op) is None and any(len(weight.shape) > 1 for weight in getattr(unwrap(op), "weights", ()))
        if known or unknown:
            drawn[name] = {}
    for maker, (name, axis) in graph.maker_axes.items():
        drawn.setdefault(name, {}).update({} if axis == "out" else {axis: graph.made(maker)})
    return drawn


def _prune(nodes, graph, after):
    """Tells every node what is left of it; returns the parameters `(before, after)`."""
    before = cost(graph.trace)["parameters"]
    if after is not None and not isinstance(after, dict):
        return before, _compare(nodes, ChannelGraph(after, verify=False))
    keep = graph.kept() if after is None else _kept_units(graph, after)
    if after is None and keep.all():
        return before, None
    for node in nodes:
        node.kept = {kind: int(keep[units].sum()) for kind, units in {"out": node.units, **node.kinds}.items()}
    ledger = Ledger(graph)
    return before, int(ledger.parameters(ledger.counts(keep)))


def _compare(nodes, small):
    """Tells every node what is left of it in a ticket; returns the ticket's parameters."""
    left = {node.name: node for node in _read(small)[0]}
    for node in nodes:
        twin = left.get(node.name)
        if twin is None or twin.channels > node.channels:
            found = "has no such layer" if twin is None else f"has {twin.channels} there"
            raise ValueError(
                f"after must be a ticket of this model. Expected at most {node.channels} channels in layer "
                f"'{node.name}'. Received: model '{small.trace.name}', which {found}."
            )
        node.kept = {"out": twin.channels, **{kind: len(units) for kind, units in twin.kinds.items()}}
    return cost(small.trace)["parameters"]


def _kept_units(graph, masks):
    """Bool array over unit numbers: what these masks keep."""
    keep = np.ones(graph.num_units, bool)
    for name, mask in masks.items():
        expected = len(graph.made(name)) if name in graph.maker_axes else "none: no such layer makes channels"
        if len(mask) != expected:
            raise ValueError(
                f"after must be masks, {{layer name: bool array over its channels}}. Expected for '{name}': "
                f"{expected}. Received: {len(mask)}."
            )
        np.logical_and.at(keep, graph.made(name), np.asarray(mask, bool))
    return keep


# Colours -----------------------------------------------------------------------------------------------------------


def _colour(nodes, graph):
    """Gives every node its group's colour; returns the legend as `[(colours, hatched, text)]`."""
    group_of, members = _groups_of_nodes(nodes, graph), {}
    for node, group in zip(nodes, group_of, strict=True):
        node.pinned = not node.symbol and (group is None or bool(group.reason))
        if not node.pinned and not node.symbol:
            members.setdefault(group, set()).add(node.name)
    coupled = [group for group, names in members.items() if len(names) > 1]  # as the network flows
    named = _widest_apart([group for group in coupled if len(group.makers) > 1], group_of, len(_COUPLED))
    others = [group for group in coupled if group not in named]
    colours = dict(zip(named, _COUPLED, strict=False))
    colours |= {group: _PAIRED[index % len(_PAIRED)] for index, group in enumerate(others)}
    for node, group in zip(nodes, group_of, strict=True):
        node.colour = PINNED if node.pinned else colours.get(group, LINE if node.symbol else _ALONE)
    legend = [((colours[group],), False, _describe(group, members[group])) for group in named]
    legend += [(_PAIRED, False, "coupled with their neighbours (colours recur)")] if others else []
    legend += [((_ALONE,), False, "pruned by itself")] if len(members) > len(coupled) else []
    note = "height: square root of the channels" + (", filled: kept" if nodes[0].kept else "")
    return [*legend, ((PINNED,), True, "pinned"), ((), False, note)]


def _widest_apart(groups, group_of, count):
    """At most `count` of these groups: those whose layers lie farthest apart, equals together as far as they fit."""
    places = {group: [place for place, other in enumerate(group_of) if other is group] for group in groups}
    reach = {group: places[group][-1] - places[group][0] for group in groups}
    ranked = sorted(groups, key=reach.get, reverse=True)
    best = [group for group in ranked[:count] if len(ranked) <= count or reach[group] > reach[ranked[count]]]
    return [group for group in groups if group in (best or ranked[:count])]


def _describe(group, names):
    names = sorted(names, key=list(group.layers).index)
    others = f" + {len(names) - 1} more" if len(names) > 2 else f" + {names[1]}"
    return f"{names[0]}{others}: {group.channels:,} channels"


def _groups_of_nodes(nodes, graph):
    """The group that most of each node's channels belong to, or None; for a join, the one that all belong to."""
    number = np.full(graph.num_units, len(graph.groups))
    for index, group in enumerate(graph.groups):
        number[group.units] = index
    groups = [*graph.groups, None]
    found = []
    for node in nodes:
        counts = np.bincount(number[node.units])
        mixed = node.symbol and np.count_nonzero(counts) > 1
        found.append(None if mixed else groups[counts.argmax()])
    return found
