"""What did `compute_masks` last choose for a model, and by what?"""

import weakref
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Selection:
    """What `compute_masks` chose for a model, and by what.

    Args:
        masks: `{layer name: bool array over its output channels}`.
        scores: `{layer name: array of a score a channel}`, as they were ranked (with scope "global" divided by their
            group's mean); NaN where a channel was not scored.
        ratio: The share of channels that was asked to go, or `{layer name: share}`.
        criterion: The criterion's name.
        seed: What was passed to `compute_masks`.
    """

    masks: dict
    scores: dict
    ratio: float | dict
    criterion: str
    seed: int | None


_SELECTIONS = weakref.WeakKeyDictionary()


def remember(masked, selection):
    """Keeps a selection as long as the model lives; the next one replaces it."""
    _SELECTIONS[masked] = selection


def recall(masked, masks):
    """The model's `Selection`, or None where these masks are not the ones that it chose.

    Args:
        masked: A model from `tfprune.wrap`.
        masks: `{layer name: bool array}`, as the model has them now.
    """
    found = _SELECTIONS.get(masked)
    same = found is not None and all(np.array_equal(found.masks[name], mask) for name, mask in masks.items())
    return found if same else None
