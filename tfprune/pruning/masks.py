"""Which channels are kept? Scores and a ratio make masks; masks are read from and written to a model here.

Masks are the currency: `{layer name: bool array over its output channels}`, True = kept.
"""

import difflib
import numbers
import weakref

import numpy as np

from tfprune.pruning import criteria, surgery
from tfprune.structure import roles
from tfprune.structure.groups import ChannelGraph
from tfprune.structure.trace import value_of


def compute_masks(masked, ratio, criterion="l1", scope="layer", ignore=None, only=None, round_to=1, seed=None):
    """Chooses the channels to keep; what is pruned already stays pruned. The model is not changed.

    With scope "layer" the layers are taken in order, and each is scored after the inputs that it just lost have been
    left out (Algorithm 1 of the paper). Ties go to the channel that comes first.

    Args:
        masked: A model from `tfprune.wrap`.
        ratio: Share of channels to remove in all, in [0, 1), or `{layer name: ratio}` for some layers (the others stay
            whole). The number removed is the nearest to ratio x channels; at least one channel of each layer is kept.
        criterion: "l1" (default), "l2", "batchnorm_scale", "random", or a function `group -> one score a channel`,
            larger = keep.
        scope: "layer" (default): the ratio holds in each layer. "global": one ranking over all layers, each layer's
            scores divided by their mean.
        ignore: List of names of layers that stay whole. Default None.
        only: List of names of layers that are pruned, all others stay whole. Default None: all that can be.
        round_to: Number of channels kept is rounded up to a multiple of this. Default 1.
        seed: Integer for criterion "random". Default None.

    Returns:
        `{layer name: bool array over its output channels}` of every layer that can be pruned.

    Raises:
        ValueError: a ratio outside [0, 1), an unknown name, a layer that cannot be pruned, a model without masks.

    Example:
        >>> masks = tfprune.compute_masks(masked, ratio=0.5)
        >>> tfprune.set_masks(masked, masks)
    """
    surgery.check_masked(masked, "compute_masks")
    graph = graph_of(masked)
    criterion = criteria.get(criterion, seed)
    chosen = _choose_groups(graph, ratio, ignore, only)
    _check_round_to(round_to)
    keep = surgery.kept_units(graph)
    if scope == "layer":
        for group, share in chosen:
            keep = _prune_layer(graph, group, share, criterion, round_to, keep)
    elif scope == "global":
        if isinstance(ratio, dict):
            raise ValueError("scope='global' takes one ratio for all layers. Received: a dict. Use scope='layer'.")
        keep = _prune_globally(graph, chosen, criterion, round_to, keep)
    else:
        raise ValueError(f"Unknown scope {scope!r}. Expected 'layer' or 'global'.")
    return _masks(graph, keep)


def get_masks(masked):
    """The masks of a model, as `{layer name: bool array over its output channels}`.

    Args:
        masked: A model from `tfprune.wrap`.

    Raises:
        ValueError: the model has no masks.

    Example:
        >>> {name: int(mask.sum()) for name, mask in tfprune.get_masks(masked).items()}
    """
    surgery.check_masked(masked, "get_masks")
    graph = graph_of(masked)
    return _masks(graph, surgery.kept_units(graph))


def set_masks(masked, masks):
    """Sets masks; weights are not touched, so that other masks can be set later.

    Args:
        masked: A model from `tfprune.wrap`; its masks change.
        masks: `{layer name: bool array over its output channels}`. Layers that are left out keep their masks; layers
            that share channels with a named one follow it.

    Raises:
        ValueError: an unknown name, a wrong length, no channel kept, or layers that share channels but disagree.

    Example:
        >>> tfprune.set_masks(masked, {"hidden": numpy.arange(30) < 15})
    """
    surgery.check_masked(masked, "set_masks")
    graph = graph_of(masked)
    keep, said_by = surgery.kept_units(graph), {}
    makers = {name: graph.made(name) for name in _masks(graph, keep)}
    for name, mask in masks.items():
        if name not in makers:
            raise ValueError(_unknown_layer(graph, name, "masks"))
        mask = _check_mask(name, mask, len(makers[name]))
        for unit, kept in zip(makers[name].tolist(), mask.tolist(), strict=True):
            if said_by.setdefault(unit, (name, kept))[1] != kept:
                raise ValueError(
                    f"Layers '{said_by[unit][0]}' and '{name}' share channels, but their masks disagree. "
                    "Give both the same mask, or only one of them."
                )
            keep[unit] = kept
    _check_keeps(graph, keep)
    surgery.set_units(graph, keep)


def graph_of(model):
    """The model's channel graph, remembered as long as the model lives (its layers cannot change unnoticed)."""
    layers = [id(layer) for layer in model.layers]
    known = _GRAPHS.get(model)
    if known is None or known[0] != layers:
        _GRAPHS[model] = known = (layers, ChannelGraph(model))
    return known[1]


_GRAPHS = weakref.WeakKeyDictionary()


def _masks(graph, keep):
    names = dict.fromkeys(name for group in graph.prunable for name in group.makers)
    return {name: keep[graph.made(name)] for name in graph.layers if name in names}


def _prune_layer(graph, group, ratio, criterion, round_to, keep):
    scores = criteria.score(criterion, describe(graph, group, keep))
    count = _num_kept(group.channels, ratio, round_to)
    return _keep_best(group, scores, count, keep)


def _prune_globally(graph, chosen, criterion, round_to, keep):
    """One ranking over all groups; every group keeps its best channel whatever its score."""
    scores = {group: _normalised(criterion, graph, group, keep) for group, _ in chosen}
    ranking = []
    for position, (group, _) in enumerate(chosen):
        alive = np.flatnonzero(keep[group.units])
        best = alive[np.argmax(scores[group][alive])]
        ranking += [(scores[group][index], position, -index) for index in alive if index != best]
    total = sum(group.channels for group, _ in chosen)
    removed = total - sum(int(keep[group.units].sum()) for group, _ in chosen)
    ratio = chosen[0][1]
    losers = sorted(ranking)[: max(0, total - _num_kept(total, ratio, 1) - removed)]
    for position, (group, _) in enumerate(chosen):
        lost = sum(1 for loser in losers if loser[1] == position)
        count = _round_up(int(keep[group.units].sum()) - lost, round_to)
        keep = _keep_best(group, scores[group], count, keep)
    return keep


def _normalised(criterion, graph, group, keep):
    """Scores divided by the mean of the channels that are left, so that groups of different size can be compared."""
    scores = criteria.score(criterion, describe(graph, group, keep))
    mean = scores[keep[group.units]].mean()
    return scores / mean if mean > 0 else scores


def _keep_best(group, scores, count, keep):
    scores = np.where(keep[group.units], scores, -np.inf)  # pruned stays pruned
    count = min(count, int(keep[group.units].sum()))
    best = np.argsort(-scores, kind="stable")[:count]  # stable: ties go to the channel that comes first
    keep = keep.copy()
    keep[group.units] = False
    keep[group.units[best]] = True
    return keep


def _num_kept(channels, ratio, round_to):
    removed = int(np.floor(ratio * channels + 0.5 + 1e-6))  # nearest; 1e-6 forgives float32 ratios
    return min(channels, _round_up(max(1, channels - removed), round_to))


def _round_up(count, multiple):
    return -(-count // multiple) * multiple


def describe(graph, group, keep):
    """What a criterion sees of a group: weights as they are now, without the inputs that are pruned."""
    incoming, scales = [], []
    for name in group.layers:
        layer, axes = roles.unwrap(graph.layers[name]), graph.axes(name)
        if name in group.makers:
            for attribute, read in roles.role_of(layer).reads.items():
                names = graph.axis_names(name)[attribute]
                kernel = _without_pruned(
                    getattr(layer, attribute), axes[attribute][names.index(read)], names.index(read), keep
                )
                incoming.append(_rows(kernel, names.index("out"), group, group.makers[name]))
        elif "gamma" in axes:
            scales.append(_rows(np.abs(value_of(layer.gamma)), 0, group, axes["gamma"][0]).sum(axis=1))
    return criteria.ChannelGroup(group.name, group.layers, group.channels, incoming, scales)


def _without_pruned(weight, units, axis, keep):
    """The weight with zeros where it reads a channel that is pruned."""
    shape = [1] * len(weight.shape)
    shape[axis] = -1
    return value_of(weight).astype("float64") * keep[units].reshape(shape)


def _rows(weight, axis, group, units):
    """The entries of each unit, one row a unit; a unit that counts several channels of the layer has a longer row."""
    entries = np.moveaxis(np.asarray(weight, dtype="float64"), axis, 0).reshape(len(units), -1)
    places = [np.flatnonzero(units == unit) for unit in group.units]
    rows = np.zeros((len(places), max(map(len, places)) * entries.shape[1]))
    for row, place in zip(rows, places, strict=True):
        row[: len(place) * entries.shape[1]] = entries[place].ravel()
    return rows


def _choose_groups(graph, ratio, ignore, only):
    """`[(group, ratio)]` of the groups to prune."""
    ignored, wanted = _groups_of(graph, ignore, "ignore"), _groups_of(graph, only, "only")
    if isinstance(ratio, dict):
        shares = _ratios_by_group(graph, ratio)
    else:
        shares = {group: check_ratio(ratio) for group in graph.prunable}
    chosen = [
        (group, shares[group])
        for group in graph.prunable
        if group in shares and group not in ignored and (only is None or group in wanted)
    ]
    if not chosen:
        raise ValueError(
            f"Nothing is left to prune. Received: ratio={ratio}, ignore={ignore}, only={only}. "
            f"Layers that can be pruned: {_names(graph)}."
        )
    return chosen


def check_ratio(ratio):
    """Returns the ratio, or says what is wrong with it."""
    if isinstance(ratio, bool) or not isinstance(ratio, numbers.Real):
        raise TypeError(f"ratio must be a number in [0, 1) or {{layer name: number}}. Received: ratio={ratio!r}.")
    if not 0 <= ratio < 1:
        hint = f" For {ratio:g} % of the channels pass ratio={ratio / 100:g}." if 1 < ratio < 100 else ""
        raise ValueError(f"ratio must be in [0, 1). Received: ratio={ratio:g}.{hint}")
    return float(ratio)


def _ratios_by_group(graph, ratio):
    shares, said_by = {}, {}
    for name, share in ratio.items():
        for group in _groups_of(graph, [name], "ratio", must_prune=True):
            if shares.setdefault(group, check_ratio(share)) != share:
                raise ValueError(
                    f"Layers '{said_by[group]}' and '{name}' share channels, but got different ratios: "
                    f"{shares[group]:g} and {share:g}. Give both the same one."
                )
            said_by.setdefault(group, name)
    return shares


def _groups_of(graph, names, argument, must_prune=None):
    """The prunable groups that hold one of the named layers."""
    if isinstance(names, str):
        raise TypeError(f"{argument} must be a list of layer names. Received: {names!r}. Pass [{names!r}].")
    must_prune = argument == "only" if must_prune is None else must_prune
    found = []
    for name in names or ():
        if name not in graph.layers:
            raise ValueError(_unknown_layer(graph, name, argument))
        groups = [group for group in graph.prunable if name in group.layers]
        if must_prune and not groups:
            reasons = [group.reason for group in graph.groups if name in group.makers] or ["it makes no channels"]
            raise ValueError(f"Layer '{name}' in {argument} cannot be pruned: {reasons[0]}.")
        found += groups
    return found


def _unknown_layer(graph, name, argument):
    if name in graph.layers:
        return f"Layer '{name}' in {argument} has no mask. Layers that can be pruned: {_names(graph)}."
    close = difflib.get_close_matches(str(name), graph.layers, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"Unknown layer name {name!r} in {argument}.{hint} Layers that can be pruned: {_names(graph)}."


def _names(graph):
    return ", ".join(repr(name) for name in _masks(graph, np.ones(graph.num_units, bool)))


def _check_round_to(round_to):
    if isinstance(round_to, bool) or not isinstance(round_to, numbers.Integral) or round_to < 1:
        raise ValueError(f"round_to must be a positive integer, for example 8. Received: round_to={round_to!r}.")


def _check_mask(name, mask, size):
    mask = np.asarray(mask)
    if mask.shape != (size,):
        raise ValueError(f"The mask of layer '{name}' must have shape ({size},). Received: shape {mask.shape}.")
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise ValueError(f"The mask of layer '{name}' must hold True (keep) and False (prune). Received: {mask!r}.")
    return mask.astype(bool)


def _check_keeps(graph, keep):
    for group in graph.groups:
        kept = keep[group.units]
        if group.reason and not kept.all():
            raise ValueError(f"Channels of layer '{group.name}' cannot be pruned: {group.reason}.")
        if not kept.any():
            raise ValueError(
                f"At least one channel of layer '{group.name}' must be kept. Received: a mask of False only."
            )
