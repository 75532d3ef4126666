"""Which masks follow from how hard one prunes, and what would the small model cost, without building it?"""

import contextlib
import difflib
import functools
import inspect

import numpy as np

from tfprune.pruning import masks, selection, surgery
from tfprune.structure.ledger import Ledger

OPTIONS = ("criterion", "scope", "ignore", "only", "seed")  # of compute_masks, which a plan hands on
_ALL_BUT_ONE = 1 - 1e-9  # the ratio that leaves one channel in every group


class Plan:
    """A one-parameter family of masks, from the whole model (strength 0) to the smallest (strength 1).

    How many channels a strength leaves is known without looking at the weights again; which ones, `chosen` tells.

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
        # What is wrong with the options shows before any time is spent.
        masks.check_options(masked, self.ratios(0.0), **self.options)

    def kept(self, strength, round_to=1):
        """Bool array over unit numbers, with as many of each group as this strength leaves."""
        names = (self.options.get(name) for name in ("ignore", "only"))
        groups = masks.choose_groups(self._graph, self.ratios(strength), *names)
        keep = np.ones(self._graph.num_units, bool)
        if self.options.get("scope", "layer") == "global":
            return masks.keep_best_of_all(self._graph, groups, self._scores, round_to, keep)
        for group, ratio in groups:
            count = masks.num_kept(group.channels, ratio, group.in_steps(round_to))
            keep = masks.keep_best(self._graph, group, np.zeros(group.channels), count, keep)
        return keep

    @functools.cached_property
    def _scores(self):
        """`{group: scores}` of the whole model, by which a global ranking goes."""
        found = masks.compute_masks(self.masked, self.ratios(0.0), **self.options)
        scores = np.full(self._graph.num_units, np.nan)
        for name, values in selection.recall(self.masked, found).scores.items():
            scores[self._graph.made(name)] = values
        return {group: scores[group.units] for group in self._graph.prunable}

    def costs(self, strength, round_to=1):
        """{"params": int, "multiply_adds": int or None, "bytes": int} of the small model."""
        return self._costs(self.kept(strength, round_to))

    @property
    def whole(self):
        """The same of the whole model."""
        return self._costs(np.ones(self._graph.num_units, bool))

    def chosen(self, strength, round_to=1):
        """`(masks, costs)`: the channels that the criterion keeps at this strength, and what the small model costs."""
        found = masks.compute_masks(self.masked, self.ratios(strength), round_to=round_to, **self.options)
        keep = np.ones(self._graph.num_units, bool)
        for name, mask in found.items():
            keep[self._graph.made(name)] = mask
        return found, self._costs(keep)

    def cut(self, strength, round_to=1):
        """A small model of this size, of whichever channels; for timing."""
        keep = self.kept(strength, round_to)
        with self._only(lambda: surgery.set_units(self._graph, keep)):
            return surgery.cut(self.masked, self._graph)[0]

    def shrink(self, found, compensate=False):
        """The small model of these masks, certified."""
        with self._only(lambda: masks.set_masks(self.masked, found)):
            return surgery.shrink(self.masked, compensate)

    @contextlib.contextmanager
    def _only(self, set_masks):
        """Sets masks, and takes all of them off after: `compute_masks` keeps pruned what it finds pruned."""
        set_masks()
        try:
            yield
        finally:
            surgery.set_units(self._graph, np.ones(self._graph.num_units, bool))

    def why(self, round_to):
        """Why nothing smaller than strength 1 can be reached, to be put in brackets behind a number."""
        least = "the largest ratios that sensitivity measured" if self._is_given else "one channel a group"
        return f" ({least}{f', in multiples of {round_to}' if round_to > 1 else ''})"

    def _costs(self, keep):
        counts = self._ledger.counts(keep)
        work = self._ledger.multiply_adds(counts)
        return {
            "params": int(self._ledger.parameters(counts)),
            "multiply_adds": None if work is None else int(work),
            "bytes": int(self._ledger.bytes(counts)),
        }


def check_known(function, options):
    """Raises TypeError where a function got options that neither it nor `compute_masks` under it takes.

    Args:
        function: The function that was called, whose last argument takes all other options.
        options: `{name: value}` of these.
    """
    *own, _ = inspect.signature(function).parameters
    for name in options:
        if name not in OPTIONS:
            close = difflib.get_close_matches(name, [*own, *OPTIONS], n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise TypeError(
                f"{function.__name__} takes {', '.join(own)}, and of tfprune.compute_masks {', '.join(OPTIONS)}. "
                f"Received: {name}={options[name]!r}.{hint}"
            )


def weakest(meets, low=0.0, high=1.0, steps=12):
    """The least strength found by bisection that meets what is asked.

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
