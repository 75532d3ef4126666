"""Which masks follow from how hard one prunes, and what would the small model cost, without building it?"""

import contextlib

import numpy as np

from tfprune.pruning import masks, surgery
from tfprune.structure.ledger import Ledger

_ALL_BUT_ONE = 1 - 1e-9  # the ratio that leaves one channel in every group


class Plan:
    """A one-parameter family of masks, from the whole model (strength 0) to the smallest (strength 1).

    Args:
        masked: A model from `tfprune.wrap` of which nothing is masked.
        ratios: Function `strength -> ratio`, as `compute_masks` takes it. Default None: the strength is the ratio.
        options: What else `compute_masks` takes.
    """

    def __init__(self, masked, ratios=None, options=None):
        self.masked, self._is_given = masked, ratios is not None
        self.ratios = ratios or (lambda strength: min(strength, _ALL_BUT_ONE))
        self.options = dict(options or {})
        self._graph = masks.graph_of(masked)
        self._ledger = Ledger(self._graph)
        self._found = {}

    def masks(self, strength, round_to=1):
        """The masks of this strength."""
        key = strength, round_to
        if key not in self._found:
            self._found[key] = masks.compute_masks(
                self.masked, self.ratios(strength), round_to=round_to, **self.options
            )
        return self._found[key]

    def costs(self, strength, round_to=1):
        """{"params": int, "multiply_adds": int or None, "bytes": int} of the small model."""
        return self._costs(self.kept(self.masks(strength, round_to)))

    @property
    def whole(self):
        """The same of the whole model."""
        return self._costs(np.ones(self._graph.num_units, bool))

    def why(self, round_to):
        """Why nothing smaller than strength 1 can be reached, to be put in brackets behind a number."""
        least = "the largest ratios that sensitivity measured" if self._is_given else "one channel a group"
        return f" ({least}{f', in multiples of {round_to}' if round_to > 1 else ''})"

    def kept(self, found):
        """Bool array over unit numbers: which of them these masks keep."""
        keep = np.ones(self._graph.num_units, bool)
        for name, mask in found.items():
            keep[self._graph.made(name)] = mask
        return keep

    def cut(self, strength, round_to=1):
        """The small model of this strength, not certified; for measuring."""
        with self.masked_at(strength, round_to):
            return surgery.cut(self.masked)[0]

    @contextlib.contextmanager
    def masked_at(self, strength, round_to=1):
        """The masked model has the masks of this strength inside, and none of its channels is masked after."""
        found = self.masks(strength, round_to)
        masks.set_masks(self.masked, found)
        try:
            yield self.masked
        finally:  # what is pruned stays pruned: `compute_masks` must find the whole model the next time
            masks.set_masks(self.masked, {name: np.ones_like(mask) for name, mask in found.items()})

    def _costs(self, keep):
        counts = self._ledger.counts(keep)
        work = self._ledger.multiply_adds(counts)
        return {
            "params": int(self._ledger.parameters(counts)),
            "multiply_adds": None if work is None else int(work),
            "bytes": int(self._ledger.bytes(counts)),
        }


def weakest(meets, low=0.0, high=1.0, steps=10):
    """The least strength found by bisection that meets what is asked; `high` must meet it.

    Args:
        meets: Function `strength -> bool`; whatever is stronger than what meets it meets it too.
        low: A strength that is tried first, and returned if it meets it.
        high: A strength that meets it.
        steps: How often the interval is halved.
    """
    if meets(low):
        return low
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high
