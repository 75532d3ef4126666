"""Which channels are kept? Scores and a ratio make masks; masks are read from and written to a model here.

Masks are the currency: `{layer name: bool array over its output channels}`, True = kept.
"""

import difflib
import numbers

import numpy as np

from tfprune.pruning import criteria, schedules, selection, surgery
from tfprune.pruning.ratios import check_ratio
from tfprune.pruning.selection import Selection
from tfprune.structure import roles
from tfprune.structure.replay import value_of


def compute_masks(masked, ratio, criterion="l1", scope="layer", ignore=None, only=None, round_to=1, seed=None):
    """Chooses the channels to keep; what is pruned already stays pruned. The model is not changed.

    With scope "layer" the layers are taken in order, and each is scored after the inputs that it just lost have been
    left out (Algorithm 1 of the paper). Ties go to the channel that comes first.

    Args:
        masked: A model from `tfprune.wrap`.
        ratio: Share of channels to remove in all, in [0, 1), or `{layer name: ratio}` for some layers (the others stay
            whole). The number removed is the nearest to ratio x channels; at least one channel of each layer is kept.
        criterion: "l1" (default), "l2", "linf", "geometric_median", "lamp", "batchnorm_scale", "synflow", "random", an
            object of `tfprune.pruning.criteria` that looks at data, as `criteria.Taylor(data)`, or a function `group ->
            one score a channel`, larger = keep.
        scope: "layer" (default): the ratio holds in each layer. "global": one ranking over all layers, each layer's
            scores divided by their mean unless the criterion's scores can be compared as they are.
        ignore: List of names of layers that stay whole. Default None.
        only: List of names of layers that are pruned, all others stay whole. Default None: all that can be.
        round_to: Number of channels that a layer keeps is rounded up to a multiple of this. Default 1.
        seed: Integer for criterion "random". Default None.

    Returns:
        `{layer name: bool array over its output channels}` of every layer that can be pruned.

    Raises:
        ValueError: a ratio outside [0, 1), an unknown name, a layer that cannot be pruned, a model without masks.

    Example:
        >>> masks = tfprune.compute_masks(masked, ratio=0.5)
        >>> tfprune.set_masks(masked, masks)
    """
    graph, criterion, chosen = check_options(masked, ratio, criterion, scope, ignore, only, round_to, seed)
    keep, scores = graph.kept(), np.full(graph.num_units, np.nan)
    rounds = getattr(criterion, "rounds", 1)  # some look again after each of many small steps
    for done in range(1, rounds + 1):
        now = [(group, schedules.ratio_of_round(share, done, rounds)) for group, share in chosen]
        scorer = criteria.look(criterion, masked, keep)
        if scope == "layer":
            for group, share in now:
                keep = _prune_layer(graph, group, share, scorer, round_to, keep, scores)
        else:
            comparable = getattr(criterion, "comparable", False)
            keep = _prune_globally(graph, now, scorer, comparable, round_to, keep, scores)
    masks = _masks(graph, keep)
    chosen = Selection(_masks(graph, keep), _masks(graph, scores), ratio, _name_of(criterion), seed)
    selection.remember(masked, chosen)
    return masks


def check_options(masked, ratio, criterion="l1", scope="layer", ignore=None, only=None, round_to=1, seed=None):
    """Raises where `compute_masks` would refuse these options, without a look at weights or data.

    For those who choose channels later, say in the middle of a fit: what is wrong shows at its start.

    Args:
        masked, ratio, criterion, scope, ignore, only, round_to, seed: As `compute_masks` takes them.

    Returns:
        `(ChannelGraph, criterion, [(group, ratio)])`: what the options mean for this model.
    """
    graph = surgery.masked_graph(masked, "compute_masks")
    criterion = criteria.get(criterion, seed)
    chosen = choose_groups(graph, ratio, ignore, only)
    check_round_to(round_to)
    if scope not in ("layer", "global"):
        raise ValueError(f"Unknown scope {scope!r}. Expected 'layer' or 'global'.")
    if scope == "global" and isinstance(ratio, dict):
        raise ValueError("scope='global' takes one ratio for all layers. Received: a dict. Use scope='layer'.")
    if criteria.needs_scales(criterion):
        without = [group.name for group, _ in chosen if not _scales(graph, group)]
        criteria.check_scales(without, ignore, some_have=len(without) < len(chosen))
    return graph, criterion, chosen


def _name_of(criterion):
    criterion = getattr(criterion, "func", criterion)  # functools.partial(criteria.l1, members="max")
    return getattr(criterion, "__name__", type(criterion).__name__.lower())


def get_masks(masked):
    """The masks of a model, as `{layer name: bool array over its output channels}`.

    Args:
        masked: A model from `tfprune.wrap`.

    Raises:
        ValueError: the model has no masks.

    Example:
        >>> {name: int(mask.sum()) for name, mask in tfprune.get_masks(masked).items()}
    """
    graph = surgery.masked_graph(masked, "get_masks")
    return _masks(graph, graph.kept())


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
    graph = surgery.masked_graph(masked, "set_masks")
    keep, said_by = graph.kept(), {}
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
    """The channel graph of a model with masks, remembered as long as the model lives."""
    return surgery.masked_graph(model, "pruning")


def _masks(graph, keep):
    makers = {maker for group in graph.prunable for maker in group.makers}
    return {maker: keep[graph.made(maker)] for maker in graph.maker_axes if maker in makers}


def _prune_layer(graph, group, ratio, criterion, round_to, keep, found):
    """The units kept without those that a group loses; its scores are written into `found`."""
    scores = found[group.units] = criteria.score(criterion, describe(graph, group, keep))
    count = num_kept(group.channels, ratio, group.in_steps(round_to))
    return keep_best(graph, group, scores, count, keep)


def _prune_globally(graph, chosen, criterion, comparable, round_to, keep, found):
    """One ranking over all groups; the scores are written into `found`."""
    scores = {group: _ranked(criterion, comparable, describe(graph, group, keep)) for group, _ in chosen}
    for group, _ in chosen:
        found[group.units] = scores[group]
    return keep_best_of_all(graph, chosen, scores, round_to, keep)


def keep_best_of_all(graph, chosen, scores, round_to, keep):
    """The units kept when one ranking over all groups decides; what `_needed` names stays whatever its score.

    Args:
        graph: The model's `ChannelGraph`.
        chosen: `[(group, ratio)]`, the same ratio for all.
        scores: `{group: one score a channel}`.
        round_to: What the channels kept of a group are rounded up to.
        keep: Bool array over unit numbers: what is kept so far.
    """
    ranking = []
    for position, (group, _) in enumerate(chosen):
        alive = np.flatnonzero(keep[group.units])
        stays = _needed(graph, group, scores[group], keep)
        ranking += [(scores[group][index], position, -index) for index in alive if index not in stays]
    total = sum(group.channels for group, _ in chosen)
    removed = total - sum(int(keep[group.units].sum()) for group, _ in chosen)
    ratio = chosen[0][1]
    losers = sorted(ranking)[: max(0, total - num_kept(total, ratio, 1) - removed)]
    for position, (group, _) in enumerate(chosen):
        lost = sum(1 for loser in losers if loser[1] == position)
        count = _round_up(int(keep[group.units].sum()) - lost, group.in_steps(round_to))
        keep = keep_best(graph, group, scores[group], count, keep)
    return keep


def _ranked(criterion, comparable, group):
    """Scores that can be compared between groups of different size and weights."""
    scores = criteria.score(criterion, group)
    return scores if comparable else criteria.relative(scores, group)


def keep_best(graph, group, scores, count, keep):
    """The units kept when a group keeps its best so many: bool array over unit numbers, as `keep`."""
    stays = _needed(graph, group, scores, keep)
    scores = np.where(keep[group.units], scores, -np.inf)  # pruned stays pruned
    scores[list(stays)] = np.inf
    count = min(max(count, len(stays)), int(keep[group.units].sum()))
    best = np.argsort(-scores, kind="stable")[:count]  # stable: ties go to the channel that comes first
    keep = keep.copy()
    keep[group.units] = False
    keep[group.units[best]] = True
    return keep


def _needed(graph, group, scores, keep):
    """Indices of channels that stay whatever their rank: the best of the group, and of a part that is used alone."""
    alive = keep[group.units]
    stays = {int(np.argmax(np.where(alive, scores, -np.inf)))}
    others = keep.copy()
    others[group.units] = False
    for units in graph.needed:
        part = np.flatnonzero(alive & np.isin(group.units, units))
        if len(part) and not others[units].any() and not stays & set(part.tolist()):
            stays.add(int(part[np.argmax(scores[part])]))
    return stays


def num_kept(channels, ratio, round_to):
    """How many of the channels a ratio leaves: at least one, rounded up to a multiple."""
    removed = int(np.floor(ratio * channels + 0.5 + 1e-6))  # nearest; 1e-6 forgives float32 ratios
    return min(channels, _round_up(max(1, channels - removed), round_to))


def _round_up(count, multiple):
    return -(-count // multiple) * multiple


def describe(graph, group, keep):
    """What a criterion sees of a group: weights as they are now, without the inputs that are pruned."""
    made = criteria.making(graph, group)

    def rows(value):
        return [_incoming(graph, *place, value(variable), group, units, keep) for *place, units, variable in made]

    kept, scales = keep[group.units], _scales(graph, group)
    return criteria.ChannelGroup(
        group.name, group.layers, group.channels, rows(value_of), scales, kept, group.units, rows
    )


def _scales(graph, group):
    """The gamma of each BatchNormalization that a group's channels pass."""
    scales = []
    makers = {graph.maker_axes[maker][0] for maker in group.makers}
    for name in group.layers:
        if name not in makers and "gamma" in graph.axes(name):
            gamma, axes = roles.unwrap(graph.layers[name]).gamma, graph.axes(name)["gamma"]
            if axes[-1] is not None:
                scales.append(_rows(np.abs(value_of(gamma)), len(axes) - 1, group, axes[-1]).sum(axis=1))
    return scales


def _incoming(graph, name, path, counted, value, group, units, keep):
    """The weights that flow into each unit, zeros where they read a channel that is pruned."""
    axes, axis = graph.axes(name)[path], graph.axis_names(name)[path].index(counted)
    for other, read in enumerate(axes):
        if other != axis and read is not None and not keep[read].all():
            # an infinite weight times zero is NaN: what is not finite shows in the scores, which are checked
            with np.errstate(invalid="ignore"):
                value = value * keep[read].reshape([-1 if index == other else 1 for index in range(value.ndim)])
    return _rows(value, axis, group, axes[axis])


def _rows(weight, axis, group, units):
    """The entries of each unit, one row a unit; a unit that counts several channels of the layer has a longer row."""
    entries = np.moveaxis(weight, axis, 0).reshape(len(units), -1)
    if np.array_equal(units, group.units):
        return entries.astype("float64")
    order = np.argsort(units, kind="stable")
    first = np.searchsorted(units[order], group.units)
    counts = np.searchsorted(units[order], group.units, side="right") - first
    rows = np.zeros((len(group.units), counts.max(initial=1), entries.shape[1]))
    for nth in range(rows.shape[1]):
        has = counts > nth
        rows[has, nth] = entries[order[first[has] + nth]]
    return rows.reshape(len(group.units), -1)


def choose_groups(graph, ratio, ignore, only):
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
        if name not in graph.layers and name not in graph.maker_axes:
            raise ValueError(_unknown_layer(graph, name, argument))
        groups = [group for group in graph.prunable if name in (*group.layers, *group.makers)]
        if must_prune and not groups:
            reasons = [group.reason for group in graph.groups if name in group.makers] or ["it makes no channels"]
            raise ValueError(f"Layer '{name}' in {argument} cannot be pruned: {reasons[0]}.")
        found += groups
    return found


def _unknown_layer(graph, name, argument):
    if name in graph.layers or name in graph.maker_axes:
        return f"Layer '{name}' in {argument} has no mask. Layers that can be pruned: {_names(graph)}."
    close = difflib.get_close_matches(str(name), graph.layers, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"Unknown layer name {name!r} in {argument}.{hint} Layers that can be pruned: {_names(graph)}."


def _names(graph):
    return ", ".join(repr(name) for name in _masks(graph, np.ones(graph.num_units, bool)))


def check_round_to(round_to):
    """Raises ValueError unless `round_to` is a multiple that channels can be rounded up to."""
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
    for units in graph.needed:
        if not keep[units].any():
            names = sorted({group.name for group in graph.groups if np.isin(group.units, units).any()})
            part = np.flatnonzero(np.isin(graph.made(names[0]), units)).tolist()
            raise ValueError(
                f"A part of the channels of {', '.join(map(repr, names))} is used alone, and the masks keep none of "
                f"it. Keep at least one of the channels {part} of '{names[0]}'."
            )
