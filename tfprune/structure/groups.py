"""Which channels of a model belong together, and which may be removed?

Every channel of every tensor gets a label, a plain number. Labels flow through the calls of a model as the roles say;
where two channels must live or die together their labels are tied, and where a channel may not go its label is
frozen with a reason. What is tied together is a *unit*; the units made by the same layers are a *group*.
"""

from dataclasses import dataclass

import keras
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tfprune.structure import roles
from tfprune.structure.trace import trace


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that are pruned by one ranking: the units that one set of layers makes.

    Args:
        name: Name of the first layer that makes them.
        units: Unit numbers, in the order of the first layer's channels; their count is the group's `channels`.
        makers: `{layer name: array of the unit number of each of its channels}` of the layers that make them.
        layers: Names of all layers that hold weights for these channels, makers first.
        reason: Why the group cannot be pruned; empty where it can.
    """

    name: str
    units: np.ndarray
    makers: dict
    layers: tuple
    reason: str = ""

    @property
    def channels(self):
        """Number of channels."""
        return len(self.units)


class ChannelGraph:
    """A model's calls with a label on every channel, and the groups that follow.

    Args:
        model: A built Sequential or functional Keras model, with or without masks.

    Raises:
        ValueError: the model is subclassed or unbuilt.

    Example:
        >>> [group.name for group in ChannelGraph(model).prunable]
        ['hidden']
    """

    def __init__(self, model):
        self.trace = trace(model)
        flow = Flow()
        self.shape_labels = flow.run(self.trace)
        self.counts = flow.counts  # {layer name: {axis name: labels}}
        self.layers = {self.trace.names[id(op)]: op for op in self.trace.operations}
        self._unit_of_label, reasons = flow.resolve()
        self.num_units = len(set(self._unit_of_label.tolist()))
        self.groups = self._find_groups(flow.makers, reasons)

    @property
    def prunable(self):
        """The groups that can be pruned."""
        return [group for group in self.groups if not group.reason]

    def units(self, labels):
        """The unit number of each label."""
        return self._unit_of_label[labels]

    def made(self, name):
        """The unit number of each channel that a layer makes."""
        return self.units(self.counts[name]["out"])

    def axis_names(self, name):
        """`{weight attribute: [what each axis counts: "in", "out" ... or None]}` of a layer's weights."""
        layer, role = roles.unwrap(self.layers[name]), roles.role_of(self.layers[name])
        found = {}
        for attribute, names in (role.weights if role else {}).items():
            weight = getattr(layer, attribute, None)
            if weight is not None:
                found[attribute] = [None] * (len(weight.shape) - len(names)) + list(names)
        return found

    def axes(self, name):
        """`{weight attribute: [unit numbers or None, one entry an axis]}` of a layer's weights."""
        counts = self.counts.get(name, {})
        return {
            attribute: [self.units(counts[axis]) if axis in counts else None for axis in names]
            for attribute, names in self.axis_names(name).items()
        }

    def _find_groups(self, makers, reasons):
        """Units with the same makers and the same reason form a group."""
        members = {}
        for name, labels in makers.items():
            for unit in dict.fromkeys(self.units(labels).tolist()):
                members.setdefault(unit, []).append(name)
        sorted_units = {}
        for unit, names in members.items():
            sorted_units.setdefault((tuple(names), reasons.get(unit, "")), []).append(unit)
        readers = self._readers()
        return [
            self._group(names, reason, np.array(units), makers, readers)
            for (names, reason), units in sorted_units.items()
        ]

    def _group(self, names, reason, units, makers, readers):
        touched = {
            name
            for name, counts in self.counts.items()
            if any(np.isin(self.units(c), units).any() for c in counts.values())
        }
        others = [name for name in self.layers if name in touched and name not in names and name not in readers]
        if not reason and len(units) == 1:
            reason = "it has only one channel (or all its channels are tied together)"
        by_name = {name: self.units(makers[name]) for name in names}
        return Group(names[0], units, by_name, (*names, *others), reason)

    def _readers(self):
        """Layers that read channels and make others: they follow a group, but are not part of it."""
        return {name for name, op in self.layers.items() if (role := roles.role_of(op)) and role.reads}


class Flow:
    """Gives labels to channels, call after call; roles use it to create, tie, count and freeze them."""

    def __init__(self):
        self.size = 0
        self.ties = []
        self.frozen = []  # (labels, reason)
        self.counts = {}
        self.makers = {}
        self._name = ""

    def run(self, traced):
        """Labels every tensor; returns the labels of those tensors whose shape stands in a config, by layer name."""
        labels, shape_labels = {}, {}
        for tensor in keras.tree.flatten(traced.inputs):
            labels[id(tensor)] = self.new_frozen(tensor.shape[1:], "it is an input of the model")
        for call in traced.calls:
            inputs = [labels[id(tensor)] for tensor in call.input_tensors]
            shapes = [tensor.shape[1:] for tensor in call.output_tensors]
            outputs = [self.settle(made) for made in self._call(call, traced.names[id(call.op)], inputs, shapes)]
            labels.update(zip(map(id, call.output_tensors), outputs, strict=True))
            role = roles.role_of(call.op)
            if role and role.shape:
                shape_labels.setdefault(self._name, outputs[0])
        for tensor in keras.tree.flatten(traced.outputs):
            # first in the list: where a channel is frozen twice, this is what a user understands at once
            self.frozen.insert(0, (_compact(labels[id(tensor)]).ravel(), "it is an output of the model"))
        return shape_labels

    def _call(self, call, name, inputs, shapes):
        self._name = name
        layer, role = roles.unwrap(call.op), roles.role_of(call.op)
        if role is None:
            return self.refuse(inputs, shapes, _unknown(layer))
        return role.flow(self, layer, inputs, shapes)

    def resolve(self):
        """`(unit number of each label, {unit number: why it is frozen})`."""
        pairs = np.concatenate([np.zeros((2, 0), int), *self.ties], axis=1)
        graph = coo_matrix((np.ones(pairs.shape[1]), pairs), shape=(self.size, self.size))
        units = connected_components(graph, directed=False)[1]
        reasons = {}
        for labels, reason in self.frozen:
            for unit in np.unique(units[labels]).tolist():
                reasons.setdefault(unit, reason)
        return units, reasons

    # What roles call -------------------------------------------------------------------------------------------

    def new(self, size):
        """`size` new labels."""
        self.size += size
        return np.arange(self.size - size, self.size)

    def make(self, axis, size):
        """The labels of the channels that the layer makes; the same at every call of a shared layer."""
        if self._name not in self.makers:
            self.makers[self._name] = self.new(size)
        self.count(axis, self.makers[self._name])
        return self.makers[self._name]

    def count(self, axis, labels):
        """Says that an axis of the layer's weights counts these channels; calls of a shared layer are tied."""
        known = self.counts.setdefault(self._name, {}).setdefault(axis, labels)
        self.tie(known, labels)

    def tie(self, first, second):
        """These channels live or die together, pair by pair."""
        first, second = np.broadcast_arrays(first, second)
        if first is not second:
            self.ties.append(np.stack([first.ravel(), second.ravel()]))

    def freeze(self, labels, reason):
        """These channels may not be removed."""
        self.frozen.append((_compact(labels).ravel(), reason))

    def new_frozen(self, shape, reason):
        """Labels of a tensor whose channels (its last axis) may not be removed."""
        labels = self.new(1) if not shape else self.new(shape[-1] or 1)
        self.freeze(labels, reason)
        return self.spread(labels, shape, len(shape) - 1) if shape else labels.reshape(())

    def refuse(self, inputs, shapes, reason):
        """Freezes everything that the layer reads and makes."""
        reason = f"layer '{self._name}': {reason}"
        for labels in inputs:
            self.freeze(labels, reason)
        return [self.new_frozen(shape, reason) for shape in shapes]

    def spread(self, labels, shape, axis):
        """A label array of the given shape whose `axis` counts `labels`; unknown sizes stand as 1."""
        column = [1] * len(shape)
        column[axis] = len(labels)
        full = [len(labels) if index == axis else size or 1 for index, size in enumerate(shape)]
        return np.broadcast_to(labels.reshape(column), full)

    def varies(self, labels, axis):
        """Whether different places along an axis belong to different channels."""
        return labels.shape[axis] > 1 and labels.strides[axis] != 0 and bool((labels != labels.take([0], axis)).any())

    def along(self, labels, axis):
        """The labels that an axis counts, one a place. Where channels lie along another axis, these are frozen."""
        others = [index for index in range(labels.ndim) if index != axis and self.varies(labels, index)]
        if others and not self.varies(labels, axis):
            self.freeze(labels, f"layer '{self._name}' reads another axis than the one that counts the channels")
        picked = np.moveaxis(_compact(labels), axis, -1)
        rows = picked.reshape(-1, picked.shape[-1])
        for row in rows[1:]:
            self.tie(rows[0], row)
        return np.broadcast_to(rows[0], (labels.shape[axis],))

    def settle(self, labels):
        """Ties channels until a tensor keeps a rectangular shape whatever is pruned: only one axis counts channels."""
        varying = [axis for axis in range(labels.ndim) if self.varies(labels, axis)]
        if len(varying) < 2:
            return labels
        return self.spread(self.along(labels, varying[-1]), labels.shape, varying[-1])

    def combine(self, inputs, shape):
        """The labels of an elementwise result; channels that meet in it are tied."""
        full = [size or 1 for size in shape]
        result = None
        for labels in inputs:
            if self._stretches(labels, full):
                # one number for all channels: it can only stay, and it does not tie what it meets
                self.freeze(labels, f"layer '{self._name}' spreads it over all channels")
                continue
            labels = np.broadcast_to(labels, full)
            if result is None:
                result = labels
            else:
                self.tie(*map(_compact, np.broadcast_arrays(_compact(result), _compact(labels))))
        return self.new_frozen(shape, "nothing is known of its channels") if result is None else result

    def _stretches(self, labels, full):
        offset = len(full) - labels.ndim
        last = labels.ndim - 1
        return labels.ndim == 0 or (labels.shape[last] == 1 and full[last + offset] > 1)

    def join(self, inputs, axis):
        """The labels of tensors put one after another along an axis."""
        compact = [np.moveaxis(_compact(labels, but=axis), axis, 0) for labels in inputs]
        rest = np.broadcast_shapes(*(part.shape[1:] for part in compact))
        joined = np.concatenate([np.broadcast_to(part, (part.shape[0], *rest)) for part in compact])
        full = list(inputs[0].shape)
        full[axis] = joined.shape[0]
        return np.broadcast_to(np.moveaxis(joined, 0, axis), full)


def _compact(labels, but=None):
    """The label array with size 1 along the axes on which it does not change (known by their stride)."""
    picks = tuple(slice(None) if stride or index == but else slice(0, 1) for index, stride in enumerate(labels.strides))
    return labels[picks]


def _unknown(layer):
    cls = type(layer).__name__
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return "its kernel is quantised or has LoRA weights: prune first"
    return f"{cls} is unknown (if it is elementwise: roles.register({cls}, roles.elementwise))"


def inspect(model, show=True):
    """Says which channels of a model can be pruned, which cannot, and why not.

    Args:
        model: A built Sequential or functional Keras model. It is left as it is.
        show: Whether to print the table too. Default True.

    Returns:
        A pandas DataFrame, one row a group: `group` (name), `layers` (names), `channels` (count), `prunable` (bool),
        `reason` (why not; empty where it is).

    Raises:
        ValueError: the model is subclassed or not built.

    Example:
        >>> tfprune.inspect(model)
    """
    import pandas as pd

    rows = [
        {
            "group": group.name,
            "layers": list(group.layers),
            "channels": group.channels,
            "prunable": not group.reason,
            "reason": group.reason,
        }
        for group in ChannelGraph(model).groups
    ]
    table = pd.DataFrame(rows, columns=["group", "layers", "channels", "prunable", "reason"])
    if show:
        _print(table, model.name)
    return table


def _print(table, title):
    from rich.console import Console
    from rich.table import Table

    printed = Table("group", "layers", "channels", "prunable", title=f"Channels of {title}", show_lines=False)
    for row in table.itertuples():
        printed.add_row(
            row.group, ", ".join(row.layers), str(row.channels), "yes" if row.prunable else f"no: {row.reason}"
        )
    Console().print(printed)
