"""Which channels of a model belong together, and which may be removed?

Every channel of every tensor gets a label, a plain number. Labels flow through the calls of a model as the roles say;
where two channels must live or die together their labels are tied, and where a channel may not go its label is
frozen with a reason. What is tied together is a *unit*; the units made by the same layers are a *group*.
"""

import functools
import math
from collections import Counter
from dataclasses import dataclass

import keras
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tfprune.layers import ChannelMask, NormalizationMask
from tfprune.structure import probe, roles
from tfprune.structure.replay import value_of
from tfprune.structure.samples import run, sample
from tfprune.structure.trace import trace


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that are pruned by one ranking: the units that one set of layers makes.

    Args:
        name: Name of the first layer that makes them; "attention:head", "attention:qk" or "attention:v" for other units
            of a layer than the channels of its output.
        units: Unit numbers, in the order of the first layer's channels; their count is the group's `channels`.
        makers: `{name: array of the unit number of each of its channels}` of the layers that make them.
        layers: Names of all layers that hold weights for these channels, makers first.
        reason: Why the group cannot be pruned; empty where it can.
        approximate: Whether a normalisation mixes the channels: removing some changes the statistics of the others.
    """

    name: str
    units: np.ndarray
    makers: dict
    layers: tuple
    reason: str = ""
    approximate: bool = False

    @property
    def channels(self):
        """Number of channels."""
        return len(self.units)

    def in_steps(self, multiple):
        """How many units to keep at a time, for every layer that makes them to keep a multiple of so many channels.

        A unit may count several channels of a layer: one in each group of a convolution, for example.

        Args:
            multiple: The multiple, in channels.
        """
        counts = [
            math.gcd(*np.unique(units[np.isin(units, self.units)], return_counts=True)[1].tolist())
            for units in self.makers.values()
        ]
        return math.lcm(*(multiple // math.gcd(multiple, count) for count in counts))


class ChannelGraph:
    """A model's calls with a label on every channel, and the groups that follow.

    Args:
        model: A built Sequential or functional Keras model, with or without masks.
        approximate: Whether channels that a normalisation mixes may be pruned. Default False; where a model has masks
            on such channels, they may.
        verify: Whether to confirm the groups by running the model on numbers (`tfprune.structure.probe`); channels on
            which the two disagree are frozen. Default None: where the model is small enough for that to cost little.
            A model that has masks was confirmed when it got them.

    Raises:
        ValueError: the model is subclassed or unbuilt.

    Example:
        >>> [group.name for group in ChannelGraph(model).prunable]
        ['hidden']
    """

    def __init__(self, model, approximate=False, verify=None):
        self.trace = _checked_trace(model)
        self.layers = {self.trace.names[id(op)]: op for op in self.trace.operations}
        self.masked = any(isinstance(op, ChannelMask) for op in self.trace.operations)
        suspects = {}
        self._label(approximate, suspects)
        if not self.masked and probe.is_wanted(self.trace, verify):
            while found := probe.disagreements(self, suspects):
                suspects.update(found)
                self._label(approximate, suspects)

    def _label(self, approximate, suspects):
        """Labels all channels anew, without those calls whose role was found to be wrong."""
        flow = Flow(approximate, suspects)
        flow.run(self.trace)
        if self.masked:
            flow.freeze_unmasked(self.layers)
        self.labels = flow.labels  # {id(tensor): labels}
        self.counts = flow.counts  # {layer name: {axis name: labels}}
        self.maker_axes = flow.maker_axes  # {maker name: (layer name, axis name)}
        self.refused = flow.refused  # {layer name: why it freezes all it touches}
        self._unit_of_label, reasons, mixed = flow.resolve()
        self.num_units = len(set(self._unit_of_label.tolist()))
        self._axes = {}
        self.groups = self._find_groups(flow.makers, reasons, mixed)

    @property
    def prunable(self):
        """The groups that can be pruned."""
        return [group for group in self.groups if not group.reason]

    def units(self, labels):
        """The unit number of each label."""
        return self._unit_of_label[labels]

    def made(self, maker):
        """The unit number of each channel that a layer makes ("dense"), or of its other units ("attention:head")."""
        name, axis = self.maker_axes[maker]
        return self.units(self.counts[name][axis])

    @functools.cached_property
    def needed(self):
        """`[unit numbers]`: of each of these sets a unit must stay, or a tensor would have no channel left.

        A slice or a part of a split may hold few units of a group. Sets that hold a whole group are left out, for
        every group keeps a unit.
        """
        group_of = {unit: index for index, group in enumerate(self.groups) for unit in group.units.tolist()}
        sizes = [group.channels for group in self.groups]
        found = {}
        for call in self.trace.calls:
            for tensor in call.output_tensors:
                units = np.unique(self.units(_compact(self.labels[id(tensor)])))
                found.setdefault(units.tobytes(), units)
        sets = []
        for units in found.values():
            counts = Counter(group_of.get(unit, -1) for unit in units.tolist())
            if -1 not in counts and all(count < sizes[index] for index, count in counts.items()):
                sets.append(units)
        return sets

    def kept(self):
        """Bool array over unit numbers: whether all masks of the model keep the unit."""
        keep = np.ones(self.num_units, bool)
        for maker, (name, axis) in self.maker_axes.items():
            masks = self.layers[name].masks if isinstance(self.layers[name], ChannelMask) else {}
            if axis in masks:
                np.logical_and.at(keep, self.made(maker), mask_of(masks[axis]))
        return keep

    def tensors(self, call):
        """`(inputs, outputs)`: the unit numbers at each place of the tensors of a call."""
        return tuple(
            [self.units(self.labels[id(tensor)]) for tensor in tensors]
            for tensors in (call.input_tensors, call.output_tensors)
        )

    def axis_names(self, name):
        """`{weight: [what each axis counts: "in", "out" ... or None]}` of a layer's weights."""
        layer, role = roles.unwrap(self.layers[name]), roles.role_of(self.layers[name])
        found = {}
        for path, names in (role.weights if role else {}).items():
            weight = roles.part(layer, path)
            if weight is not None:
                found[path] = [None] * (len(weight.shape) - len(names)) + list(names)
        return found

    def axes(self, name):
        """`{weight: [unit numbers or None, one entry an axis]}` of a layer's weights."""
        if name not in self._axes:
            counts = {axis: self.units(labels) for axis, labels in self.counts.get(name, {}).items()}
            self._axes[name] = {
                path: [counts.get(axis) for axis in names] for path, names in self.axis_names(name).items()
            }
        return self._axes[name]

    def _find_groups(self, makers, reasons, mixed):
        """Units with the same makers and the same reason form a group."""
        members = {}
        for name, labels in makers.items():
            for unit in dict.fromkeys(self.units(labels).tolist()):
                members.setdefault(unit, []).append(name)
        sorted_units = {}
        for unit, names in members.items():
            sorted_units.setdefault((tuple(names), reasons.get(unit, "")), []).append(unit)
        touched = self._touched()
        return [
            self._group(names, reason, np.array(units), makers, touched, mixed)
            for (names, reason), units in sorted_units.items()
        ]

    def _touched(self):
        """`{unit number: [layers that hold weights for it, but do not make it]}`, each in the order of the calls."""
        found = {}
        for name in self.layers:
            role = roles.role_of(self.layers[name])
            if name in self.counts and role and not role.reads:
                units = np.concatenate([self.units(labels) for labels in self.counts[name].values()])
                for unit in np.unique(units).tolist():
                    found.setdefault(unit, []).append(name)
        return found

    def _group(self, names, reason, units, makers, touched, mixed):
        own = {self.maker_axes[name][0]: None for name in names}
        others = {name for unit in units.tolist() for name in touched.get(unit, ())} - set(own)
        if not reason and len(units) == 1:
            reason = "it has only one channel (or all its channels are tied together)"
        by_name = {name: self.units(makers[name]) for name in names}
        ordered = (*own, *(name for name in self.layers if name in others))
        return Group(names[0], units, by_name, ordered, reason, bool(mixed & set(units.tolist())))


def _checked_trace(model):
    """The trace of a model; layers that were opened stay closed if the model computes something else then."""
    traced = trace(model)
    if not traced.opened:
        return traced
    batch = sample(traced.inputs)
    try:
        values = run(traced, batch)
        ours = [values[id(tensor)] for tensor in keras.tree.flatten(traced.outputs)]
        same = all(
            np.allclose(np.asarray(one), np.asarray(other), rtol=1e-4, atol=1e-5)
            for one, other in zip(ours, keras.tree.flatten(model(batch, training=False)), strict=True)
        )
    except Exception:  # what cannot be compared is not trusted
        same = False
    return traced if same else trace(model, closed=traced.opened)


class Flow:
    """Gives labels to channels, call after call; roles use it to create, tie, count and freeze them.

    Args:
        approximate: Whether channels that a normalisation mixes may be pruned.
        suspects: `{id(call): reason}` of calls that freeze whatever they touch.
    """

    def __init__(self, approximate=False, suspects=None):
        self.approximate = approximate
        self.suspects = suspects or {}
        self.size = 0
        self.ties = []
        self.frozen = []  # (labels, reason)
        self.mixed = []
        self.counts = {}
        self.makers = {}
        self.maker_axes = {}
        self.labels = {}
        self.refused = {}
        self.call = None
        self._name = ""

    def run(self, traced):
        """Labels every tensor of a model."""
        for tensor in keras.tree.flatten(traced.inputs):
            self.labels[id(tensor)] = self.new_frozen(tensor.shape[1:], "it is an input of the model")
        for call in traced.calls:
            self.call, self._name = call, traced.names[id(call.op)]
            inputs = [self.labels[id(tensor)] for tensor in call.input_tensors]
            shapes = [tensor.shape[1:] for tensor in call.output_tensors]
            outputs = [self.settle(made) for made in self._run_call(inputs, shapes)]
            self.labels.update(zip(map(id, call.output_tensors), outputs, strict=True))
        for tensor in keras.tree.flatten(traced.outputs):
            # first in the list: where a channel is frozen twice, this is what a user understands at once
            self.frozen.insert(0, (_compact(self.labels[id(tensor)]).ravel(), "it is an output of the model"))
        self._tie_shared_weights(traced)

    def _run_call(self, inputs, shapes):
        layer, role = roles.unwrap(self.call.op), roles.role_of(self.call.op)
        if id(self.call) in self.suspects:
            return self.refuse(inputs, shapes, self.suspects[id(self.call)])
        if role is None:
            return self.refuse(inputs, shapes, _unknown(layer))
        return role.flow(self, layer, inputs, shapes)

    def _tie_shared_weights(self, traced):
        """A weight that belongs to several layers cannot be cut in one of them."""
        owners = {}
        for op in traced.operations:
            for weight in op.weights if isinstance(op, keras.Layer) else ():
                owners.setdefault(id(weight), set()).add(traced.names[id(op)])
        for names in owners.values():
            if len(names) > 1:
                for name in names:
                    for labels in self.counts.get(name, {}).values():
                        self.freeze(labels, f"layers {', '.join(map(repr, sorted(names)))} share a weight")

    def freeze_unmasked(self, layers):
        """In a model with masks, what has no mask stays."""
        for maker, (name, axis) in self.maker_axes.items():
            if not isinstance(layers[name], ChannelMask) or axis not in layers[name].masks:
                self.freeze(self.makers[maker], "it was frozen when the model got its masks")

    def resolve(self):
        """`(unit number of each label, {unit number: why it is frozen}, {unit numbers that a normalisation mixes})`."""
        pairs = np.concatenate([np.zeros((2, 0), int), *self.ties], axis=1)
        graph = coo_matrix((np.ones(pairs.shape[1]), pairs), shape=(self.size, self.size))
        units = connected_components(graph, directed=False)[1]
        reasons = {}
        for labels, reason in self.frozen:
            for unit in np.unique(units[labels]).tolist():
                reasons.setdefault(unit, reason)
        return units, reasons, {unit for labels in self.mixed for unit in np.unique(units[labels]).tolist()}

    # What roles call -------------------------------------------------------------------------------------------

    def new(self, size):
        """`size` new labels."""
        self.size += size
        return np.arange(self.size - size, self.size)

    @property
    def shapes_read(self):
        """The shapes of the tensors that the call reads, without the batch axis; None where a size is not known."""
        return [tensor.shape[1:] for tensor in self.call.input_tensors]

    def arguments(self):
        """`{argument name: value}` of the call, label arrays standing for tensors."""
        return keras.tree.map_structure(
            lambda leaf: self.labels[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf, self.call.arguments
        )

    def make(self, axis, size):
        """The labels of the channels that the layer makes; the same at every call of a shared layer."""
        maker = self._name if axis == "out" else f"{self._name}:{axis}"
        if maker not in self.makers:
            self.makers[maker] = self.new(size)
            self.maker_axes[maker] = self._name, axis
        self.count(axis, self.makers[maker])
        return self.makers[maker]

    def mix(self, labels):
        """Says that the layer computes statistics over these channels."""
        # A normalisation that has a mask was meant to be pruned.
        if not self.approximate and not isinstance(self.call.op, NormalizationMask):
            self.freeze(
                labels, f"layer '{self._name}': its normalisation mixes the channels (approximate=True prunes them)"
            )
        self.mixed.append(np.unique(labels))

    def varying_axes(self, labels):
        """`[(axis, labels along it)]` of the axes that count channels: one, or none."""
        return [(axis, self.along(labels, axis)) for axis in range(labels.ndim) if self.varies(labels, axis)]

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
        self.refused.setdefault(self._name, reason)
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
        varies = any(self.varies(labels, axis) for labels in inputs for axis in range(labels.ndim))
        result = None
        for labels in inputs:
            if varies and self._stretches(labels, full):
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
        """Whether one channel meets many."""
        if any(self.varies(labels, axis) for axis in range(labels.ndim)):
            return False
        sizes = (1,) * (len(full) - labels.ndim) + labels.shape
        return any(size == 1 and whole > 1 for size, whole in zip(sizes, full, strict=True))

    def join(self, inputs, axis):
        """The labels of tensors put one after another along an axis."""
        compact = [np.moveaxis(_compact(labels, but=axis), axis, 0) for labels in inputs]
        rest = np.broadcast_shapes(*(part.shape[1:] for part in compact))
        joined = np.concatenate([np.broadcast_to(part, (part.shape[0], *rest)) for part in compact])
        full = list(inputs[0].shape)
        full[axis] = joined.shape[0]
        return np.broadcast_to(np.moveaxis(joined, 0, axis), full)


def mask_of(variable):
    """A mask variable as a bool array."""
    return value_of(variable) > 0.5


def _compact(labels, but=None):
    """The label array with size 1 along the axes on which it does not change (known by their stride)."""
    picks = tuple(slice(None) if stride or index == but else slice(0, 1) for index, stride in enumerate(labels.strides))
    return labels[picks]


def _unknown(layer):
    cls = type(layer).__name__
    if roles.is_quantised(layer):
        return "its kernel is quantised or has LoRA weights: prune first"
    return f"{cls} is unknown (if it is elementwise: roles.register({cls}, roles.elementwise))"
