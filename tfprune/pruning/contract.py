"""Is it still a lottery ticket? What pruning and rewinding promise is checked while they run, and named when broken.

Implementations of the lottery ticket have rewound kernels but not statistics, let pruned weights grow back, or compared
with "random" weights that were the initial ones, and nothing told. Here such a fit stops with a `ContractError`.
"""

import math
import zlib

import keras
import numpy as np

from tfprune.layers import ChannelMask
from tfprune.pruning import rewind, surgery
from tfprune.structure import roles
from tfprune.structure.replay import config_of, value_of


class ContractError(RuntimeError):
    """The training broke a promise that its result depends on."""


def terms(rewind_to):
    """What is promised of a ticket, one line a promise: how it is enforced, or why it is not.

    Args:
        rewind_to: As `LotteryTicket(rewind=...)`: "init", "random", "learning_rate", None or an epoch number.
    """
    start = f"after epoch {rewind_to}" if isinstance(rewind_to, int) else "at the start of the fit"
    weights, statistics, optimizer, schedule = {
        "random": (
            "drawn anew at the dense size, enforced: in each layer drawn at random they differ from the start",
            "as in a new model",
            f"rewound, enforced: iterations and learning rate bit-equal to those {start}; slots start afresh",
            "rewound with the optimizer's iterations",
        ),
        "learning_rate": (
            "kept, enforced: bit-equal to the best epoch of the round",
            "kept, enforced as the weights",
            f"rewound, enforced: iterations and learning rate bit-equal to those {start}; slots start afresh",
            "rewound with the optimizer's iterations",
        ),
        None: (
            "kept, enforced: bit-equal to the best epoch of the round",
            "kept, enforced as the weights",
            "kept, enforced as the weights",
            "not rewound: training goes on",
        ),
    }.get(
        rewind_to,
        (
            f"rewound, enforced: bit-equal to those {start}",
            "rewound, enforced as the weights",
            "rewound, enforced as the weights: slots, iterations and learning rate",
            "rewound with the optimizer's iterations",
        ),
    )
    return {
        "masks": "enforced: nested, as many channels as asked, at least one a layer, unchanged while a round trains",
        "pruned channels": "enforced: their weights and optimizer slots are cleared, and their weights stay exactly 0 "
        "(checked after pruning, once between the first steps of a round, at the end of each epoch)",
        "best weights": "enforced: a round ends with the weights of its best epoch, bit by bit",
        "kept weights": weights,
        "BatchNormalization statistics": statistics,
        "optimizer": optimizer,
        "learning-rate schedule": schedule,
        "data order": "not rewound: it belongs to fit. Data that is not shuffled anew each epoch (shuffle=False) comes "
        "in the same order in all rounds",
        "random generators": "not rewound: dropout and augmentation go on with new noise",
        "metrics": "not rewound: Keras starts them anew with each epoch",
    }


# Masks --------------------------------------------------------------------------------------------------------------


def check_masks(graph, before, ratio, when, scope="layer", ignore=None, only=None, round_to=1, **_):
    """Raises unless the masks of a model are nested in earlier ones and keep exactly as many channels as asked.

    Args:
        graph: The `ChannelGraph` of the masked model.
        before: `graph.kept()` before pruning.
        ratio, scope, ignore, only, round_to: As `compute_masks` was asked.
        when: For the error, as "in round 2".
    """
    after = graph.kept()
    for group in graph.prunable:
        back = int((after[group.units] & ~before[group.units]).sum())
        if back:
            raise ContractError(f"{back} channels of layer '{group.name}' that were pruned came back {when}.")
    asked = {group: _share(group, ratio, ignore, only) for group in graph.prunable}
    chosen = [group for group in graph.prunable if scope == "global" and asked[group] is not None]
    for group in graph.prunable:
        if group not in chosen:
            least = _asked_count(group.channels, asked[group] or 0, group.in_steps(round_to))
            slack = max(0, 1 + _parts(graph, group) - least)
            _check_count(f"layer '{group.name}'", [group], before, after, least, slack, when)
    if chosen:
        least = max(len(chosen), _asked_count(sum(group.channels for group in chosen), asked[chosen[0]], 1))
        slack = sum(round_to - 1 + _parts(graph, group) for group in chosen)
        _check_count("all layers", chosen, before, after, least, slack, when)


def _share(group, ratio, ignore, only):
    """The ratio that a group was to be pruned to, None where it was to be left as it is."""
    names = {*group.layers, *group.makers}
    if names & set(ignore or ()) or not (only is None or names & set(only)):
        return None
    if not isinstance(ratio, dict):
        return ratio
    return next((share for name, share in ratio.items() if name in names), None)


def _asked_count(channels, ratio, round_to):
    left = max(1, channels - math.floor(ratio * channels + 0.5 + 1e-6))
    return min(channels, -(-left // round_to) * round_to)


def _parts(graph, group):
    """How many channels more may have to stay: where a slice of a tensor is used alone, one of it stays."""
    return sum(bool(np.isin(group.units, units).any()) for units in graph.needed)


def _check_count(what, groups, before, after, least, slack, when):
    """`slack` channels more may stay: in a common ranking each group is rounded up."""
    alive, found = (sum(int(keep[group.units].sum()) for group in groups) for keep in (before, after))
    asked = min(alive, least)
    if not asked <= found <= min(alive, least + slack):
        raise ContractError(f"{found} channels of {what} are kept {when}, but {asked} were asked for.")


# Rewinding ----------------------------------------------------------------------------------------------------------


class Seal:
    """Checksums of a model's variables at one moment, to see later whether a copy brought all of them back.

    It is taken of the variables, not of the copy: a copy that left some out, or that was none, does not match it.

    Args:
        model: A Keras model; its masks are left out.
        optimizer: Whether the optimizer's variables count too. Default True.
    """

    def __init__(self, model, optimizer=True):
        masks = {id(mask) for _, _, mask in _masks(model)}
        variables = [weight for weight in model.weights if id(weight) not in masks]
        if optimizer and getattr(model, "optimizer", None) is not None:
            variables += model.optimizer.variables
        self._sums = [(variable, _checksum(variable)) for variable in variables]

    def check(self, what, but=()):
        """Raises unless all variables hold what they held; `what` says for the error which values these were.

        Variables in `but` may hold anything.
        """
        free = set(map(id, but))
        sums = [(variable, known) for variable, known in self._sums if id(variable) not in free]
        broken = [variable for variable, known in sums if _checksum(variable) != known]
        if broken:
            raise ContractError(
                f"{what} were not put back as they were: {len(broken)} of {len(sums)} variables differ, among "
                f"them {_named(broken)}. Whatever was trained from here would not be what it is taken for."
            )


def check_kept(masked, start, when, fresh=False):
    """Raises unless all that belongs to kept channels, weights and optimizer, is bit-equal to a snapshot.

    Args:
        masked: The model, just pruned and rewound.
        start: The `rewind.Snapshot` that it went back to.
        when: For the error.
        fresh: Whether weights were drawn anew: then they must not be equal, in every layer that is drawn at random.
    """
    entries, owners = _entries(masked), {id(slot): variable for variable, slot in rewind.slots(masked.optimizer)}
    drawn = {id(weight) for layer in _drawn_layers(masked) for weight in layer.weights} | owners.keys()
    for variable, value in start.values:
        owner = owners.get(id(variable), variable)
        keep = entries[id(owner)][1] if id(owner) in entries else ...
        changed = int(_differ(value_of(variable)[keep], value[keep]).sum())
        if changed and not (fresh and id(variable) in drawn):
            raise ContractError(
                f"{changed} entries of kept channels in '{variable.path}' are not what they were to go back to {when}."
            )
    if fresh:
        _check_drawn(masked, {id(variable): value for variable, value in start.values}, entries, when)


def _check_drawn(masked, start, entries, when):
    for layer in _drawn_layers(masked):
        keeps = [(weight, entries[id(weight)][1] if id(weight) in entries else ...) for weight in layer.weights]
        differ = [_differ(value_of(weight)[keep], start[id(weight)][keep]) for weight, keep in keeps]
        if differ and _is_drawn(config_of(layer, layer.name)) and not any(part.any() for part in differ):
            raise ContractError(
                f"All {sum(part.size for part in differ)} kept entries of layer '{layer.name}' are those of the start "
                f"{when}: rewind='random' drew nothing, so it is no control."
            )


def _drawn_layers(masked):
    """The layers that get fresh weights: not those that are frozen, nor what was learnt of the data beforehand."""
    layers = map(roles.unwrap, masked.layers)
    return [layer for layer in layers if layer.trainable and not isinstance(layer, keras.layers.Normalization)]


def _is_drawn(config):
    """Whether a layer's config, or that of a layer inside, has an initializer that draws at random."""
    if isinstance(config, list | tuple):
        return any(map(_is_drawn, config))
    if not isinstance(config, dict):
        return False
    return any(
        _is_drawn(value) or (key.endswith("initializer") and "seed" in ((value or {}).get("config") or {}))
        for key, value in config.items()
        if isinstance(value, dict | list | tuple)
    )


# Pruned channels ----------------------------------------------------------------------------------------------------


class Watch:
    """What must stay as it is while a round trains: the masks, and the zeros in the place of what was pruned.

    Args:
        masked: The model, just pruned and cleared.
        when: For the errors, as "in round 2".
        starts: What `rewind.clear_pruned` says that each of the optimizer's slots holds at the start.
    """

    def __init__(self, masked, when, starts):
        entries = _entries(masked)
        self.when, self.waits = when, True
        self._masks = [(layer, axis, mask, value_of(mask)) for layer, axis, mask in _masks(masked)]
        self._pruned = [(weight, ~keep) for weight, keep in entries.values() if weight.trainable]
        self.check("after pruning")
        _check_slots(entries, rewind.slots(masked.optimizer), starts, when)

    def check(self, moment):
        """Raises where the masks changed, or a pruned weight is not zero; `moment` says when it was looked at."""
        for layer, axis, mask, known in self._masks:
            changed = int((value_of(mask) != known).sum())
            if changed:
                raise ContractError(
                    f"{changed} entries of the mask '{axis}' of layer '{layer}' changed {self.when}, {moment}. Another "
                    "callback must not set masks, nor put back weights from before the last pruning."
                )
        for weight, pruned in self._pruned:
            values = value_of(weight)[pruned]
            moved = int(np.count_nonzero(values[values == values]))  # a loss that diverged gives NaN even here
            if moved:
                raise ContractError(
                    f"{moved} of {int(pruned.sum())} pruned entries of '{weight.path}' are not 0 {self.when}, "
                    f"{moment}. No gradient reaches them: an optimizer, a constraint or a callback moves them."
                )

    def look_once(self, moment):
        """The first time that it is called: the same."""
        if self.waits:
            self.waits = False
            self.check(moment)


def _check_slots(entries, slots, starts, when):
    pruned = {id(slot): ~entries[id(weight)][1] for weight, slot in slots if id(weight) in entries}
    if pruned and len(starts) != len(slots):
        raise ContractError(f"The optimizer's slots of pruned channels were not cleared {when}.")
    for (_, slot), start in zip(slots, starts, strict=bool(pruned)):
        stale = int(_differ(value_of(slot), start)[pruned.get(id(slot), False)].sum())
        if stale:
            raise ContractError(
                f"{stale} entries of the optimizer's '{slot.path}' still remember pruned channels {when}."
            )


def _masks(model):
    """`[(layer name, axis name, mask)]`."""
    masked = [layer for layer in model.layers if isinstance(layer, ChannelMask)]
    return [(layer.name, axis, mask) for layer in masked for axis, mask in layer.masks.items()]


def _entries(masked):
    graph = surgery.masked_graph(masked, "LotteryTicket")
    return surgery.kept_entries(graph, graph.kept())


def _differ(first, second):
    """Where two arrays differ; NaN is equal to NaN."""
    return (first != second) & ~((first != first) & (second != second))


def _checksum(variable):
    values = np.ascontiguousarray(keras.ops.convert_to_tensor(variable))
    return zlib.crc32(values.reshape(-1).view("uint8"))


def _named(variables, most=4):
    return ", ".join([f"'{v.path}'" for v in variables[:most]] + ["..."] * (len(variables) > most))
