"""What do two tickets have in common, and what are they one after the other?"""

from dataclasses import replace

import numpy as np
from scipy.special import gammaln

from tfprune.pruning import fingerprint, units


def overlap(first, second):
    """A table of what two tickets of the same architecture have in common: see `Ticket.overlap`."""
    import pandas

    names = fingerprint.pair_names(first.masks, second.masks, "Layer", "this ticket", "the other one")
    counts = {}
    for name, positions in units.own(first.units).items():
        check_size(name, first.masks[name].size, second.masks[names[name]].size, "the other ticket")
        ours, theirs = first.masks[name][positions], second.masks[names[name]][positions]
        counts[name] = positions.size, ours.sum(), theirs.sum(), (ours & theirs).sum()
    table = pandas.DataFrame([{"group": name, **_compare([row])} for name, row in counts.items()])
    table.attrs.update(_compare(list(counts.values())))
    return table


def _compare(rows):
    """What two choices have in common over groups of (channels, kept, kept by the other, shared)."""
    channels, kept, other, shared = (int(sum(column)) for column in zip(*rows, strict=True))
    chances = np.ones(1)
    for total, ours, theirs, _ in rows:
        chances = np.convolve(chances, hypergeometric(total, ours, theirs))
    possible = np.arange(len(chances))
    return {
        "channels": channels,
        "kept": kept,
        "kept_by_other": other,
        "shared": shared,
        "shared_by_chance": float(chances @ possible),
        "jaccard": shared / (kept + other - shared),
        "jaccard_by_chance": float(chances @ (possible / (kept + other - possible))),
        "p_value": min(1.0, float(chances[shared:].sum())),
    }


def hypergeometric(total, first, second):
    """The probability of 0, 1, 2 ... shared channels when `first` and `second` of `total` are taken at random."""
    shared = np.arange(min(first, second) + 1)
    possible = second - shared <= total - first
    rest = np.where(possible, second - shared, 0)
    logs = _ways(first, shared) + _ways(total - first, rest) - _ways(total, second)
    return np.where(possible, np.exp(logs), 0.0)


def _ways(total, count):
    """The logarithm of the number of ways to choose `count` of `total`."""
    return gammaln(total + 1) - gammaln(count + 1) - gammaln(total - count + 1)


def compose(first, second):
    """A ticket and then one found on its small model, as one ticket: see `Ticket.compose`."""
    if second.approximate and not first.approximate:
        raise ValueError(
            "The other ticket was found with approximate=True, this one without. Wrap the original model with "
            "approximate=True too."
        )
    names = _counterparts(second, first)
    for theirs, ours in names.items():
        check_size(ours, int(first.masks[ours].sum()), second.masks[theirs].size, "the other ticket")
    own = [name for name in ("init", "rewind") if name in first.hashes]
    return replace(
        second,
        masks=_widen(first, names, second.masks),
        units=first.units,
        scores={ours: _place(first.masks[ours], second.scores[theirs]) for theirs, ours in names.items()}
        if second.scores
        else {},
        history=[*first.history, *_continued(first, second, names)],
        parent=first.id,
        hashes={name: first.hashes[name] for name in own},
        weights={name: first.weights[name] for name in own if name in first.weights},
        approximate=first.approximate,
        model=None,
        masked=None,
    )


def _counterparts(second, first):
    """`{layer of the second: layer of the first}`; a small model may have lost layers that can be pruned further."""
    if set(second.masks) <= set(first.masks):
        return {name: name for name in second.masks}
    return fingerprint.pair_names(second.masks, first.masks, "Layer", "the other ticket", "this one")


def _widen(first, names, masks):
    """Masks of the small model in the coordinates of the full-size one."""
    kept = units.kept(first.units, first.masks)
    inner = {ours: first.masks[ours].copy() for ours in names.values()}
    for theirs, ours in names.items():
        inner[ours][first.masks[ours]] = masks[theirs]
    return units.spread(first.units, units.gather(first.units, inner, kept), True)


def _place(mask, values):
    placed = np.full(mask.shape, np.nan)
    placed[mask] = values
    return placed


def _continued(first, second, names):
    """The second ticket's history, told of the full-size model; `round` counts the prunings of both."""
    done = max((row.get("round", 0) for row in first.history), default=0)
    for row in second.history:
        masks = _widen(first, names, row["masks"])
        number = {"round": done + row["round"]} if "round" in row else {}
        yield {**row, **number, "ratio": _asked(first, second, names, row["ratio"]), **tally(masks)}


def _asked(first, second, names, ratio):
    """A ratio that was asked of the small model, as a ratio of the full-size one."""
    if isinstance(ratio, dict):
        shares = {names[name]: share for name, share in ratio.items() if name in names}
        return {name: 1 - (1 - share) * float(first.masks[name].mean()) for name, share in shares.items()}
    if ratio is None:
        return None
    kept = units.kept(first.units, first.masks)
    return float((~kept).sum() + ratio * units.count(second.units)) / kept.size


def tally(masks):
    """The masks of a round, and how many channels they keep."""
    return {
        "masks": masks,
        "channels_kept": int(sum(mask.sum() for mask in masks.values())),
        "channels_total": int(sum(mask.size for mask in masks.values())),
    }


def check_size(name, ours, theirs, where):
    """Raises a ValueError where two masks of the same layer count different channels."""
    if ours != theirs:
        raise ValueError(f"Layer '{name}' has {ours} channels in this ticket, {theirs} in {where}.")
