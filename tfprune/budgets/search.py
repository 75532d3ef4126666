"""How hard must a model be pruned to meet a budget? `prune_to` finds out, prunes, and says what was reached."""

import math
import weakref

from tfprune.budgets import clock, limits
from tfprune.budgets.plan import Plan, check_known, weakest
from tfprune.budgets.rounding import fastest
from tfprune.budgets.sensitivity import path_of
from tfprune.pruning import masks, surgery

_REPEATS = 15
_TRIALS = 7  # halvings of the strength where each costs building a model and timing it


def prune_to(
    model,
    params=None,
    multiply_adds=None,
    latency=None,
    bytes=None,
    sensitivity=None,
    round_to=None,
    batch_size=1,
    approximate=False,
    compensate=False,
    show=True,
    **options,
):
    """Returns a new small model that meets a budget and is pruned no harder than that takes; without training.

    A budget is a share of what the model costs (0.5 or "50 %"), or a number with or without a unit (100000, "1.5M",
    "2 MB"; latency as "12 ms"). Of several, all are met. Parameters, multiply-adds and bytes are counted; latency is
    measured: candidates are built, compiled and timed in turns with the whole model.

    Args:
        model: A built Sequential or functional Keras model without masks. It is left as it is.
        params: Parameters at most. Default None: any number, as for the other budgets.
        multiply_adds: Multiply-adds of one sample at most.
        latency: Seconds of one prediction at most: the median of 15, on this device.
        bytes: Bytes of the weights at most, in the dtype they are stored in.
        sensitivity: Rows of `tfprune.sensitivity`: every group then loses as many channels as cost the same accuracy.
            Default None: the same ratio everywhere, or what scope="global" makes of it.
        round_to: Number of channels kept is rounded up to a multiple of this. Default None: chosen by timing where
            latency is a budget (see `tfprune.choose_round_to`), else 1.
        batch_size: Samples of the prediction that is timed. Default 1.
        approximate: As in `tfprune.wrap`. Default False.
        compensate: As in `tfprune.shrink`. Default False.
        show: Whether to print what was reached. Default True.
        **options: What else `tfprune.compute_masks` takes: criterion, scope, ignore, only, seed.

    Returns:
        A plain Keras model, as from `tfprune.shrink`. `tfprune.budget_report` has what was reached, as numbers.

    Raises:
        TypeError: an option that neither this function nor `tfprune.compute_masks` takes.
        ValueError: no budget, one that is neither share nor number, or one that cannot be met; the error says what can.

    Example:
        >>> small = tfprune.prune_to(model, params=0.5, latency="12 ms", batch_size=8)
        params: 12,480 of 25,000 (49.9 %), at most 12,500
        latency: 11.3 ms of 20.1 ms (56.2 %), at most 12 ms
    """
    check_known(prune_to, options)
    if round_to is not None:
        masks.check_round_to(round_to)
    asked = {"params": params, "multiply_adds": multiply_adds, "latency": latency, "bytes": bytes}
    budget = [limits.read(name, value) for name, value in asked.items() if value is not None]
    if not budget:
        raise ValueError("prune_to needs a budget: params, multiply_adds, latency or bytes. Received: none.")
    plan = Plan(surgery.wrap(model, approximate), path_of(sensitivity) if sensitivity else None, options)
    counted = _Counted(plan, [limit for limit in budget if limit.name != "latency"])
    timed = next((_Timed(plan, limit, model, batch_size) for limit in budget if limit.name == "latency"), None)
    if round_to is None:
        round_to = timed.round_to(counted) if timed else 1
    strength = counted.weakest(round_to)
    measured = {}
    if timed:
        strength = timed.weakest(strength, round_to)
        measured = timed.reached(strength)
    strength, found, costs = counted.choose(strength, round_to)
    small = plan.shrink(found, compensate)
    rows = counted.reached(costs) | measured
    _REPORTS[small] = {"ratio": plan.ratios(strength), "round_to": round_to, **rows}
    if show:
        print("\n".join(lines(rows)))
    return small


def budget_report(small):
    """What was asked of a model and what was reached, as `prune_to` found it.

    Args:
        small: A model from `tfprune.prune_to`. One that was saved and loaded has no report any more.

    Returns:
        A dict: `ratio` (a number, or `{group: ratio}` with sensitivity), `round_to`, and for every budget
        `{"limit", "before", "reached"}` as numbers (latency in seconds).

    Raises:
        ValueError: the model does not come from `prune_to`.

    Example:
        >>> tfprune.budget_report(small)["params"]
        {'limit': 12500, 'before': 25000, 'reached': 12480}
    """
    try:
        found = _REPORTS.get(small)
    except TypeError:  # what cannot be referenced weakly is no model
        found = None
    if found is None:
        raise ValueError(f"budget_report needs a model as tfprune.prune_to returned it. Received: {small!r}.")
    return dict(found)


_REPORTS = weakref.WeakKeyDictionary()


class _Counted:
    """Budgets that are counted without building a model."""

    def __init__(self, plan, budget):
        self.plan, self.whole = plan, plan.whole
        unknown = [limit.name for limit in budget if self.whole[limit.name] is None]
        if unknown:
            raise ValueError(
                f"The {unknown[0]} of model '{plan.masked.name}' cannot be told: an input size is unknown, or a layer "
                "has no rule. Give a budget in params, bytes or latency."
            )
        self.limits = {limit.name: math.floor(limit.of(self.whole[limit.name]) + 1e-6) for limit in budget}

    def weakest(self, round_to):
        """The least strength that meets all of them."""
        least = self.plan.costs(1.0, round_to)
        for name, limit in self.limits.items():
            if least[name] > limit:
                raise ValueError(
                    f"A budget of {name}={limit:,} cannot be met: model '{self.plan.masked.name}' has "
                    f"{self.whole[name]:,}, and the smallest that can be reached is {least[name]:,}"
                    f"{self.plan.why(round_to)}. tfprune.inspect(model) shows what is pinned, and why."
                )
        return weakest(lambda strength: self.meets(self.plan.costs(strength, round_to)))

    def meets(self, costs):
        """Whether all budgets are met."""
        return all(costs[name] <= limit for name, limit in self.limits.items())

    def choose(self, strength, round_to):
        """`(strength, masks, costs)` at this strength or a little above it."""
        step = 2**-10
        while True:
            found, costs = self.plan.chosen(strength, round_to)
            if self.meets(costs) or strength == 1.0:
                return strength, found, costs
            # Which channels go may change the costs where groups overlap in a layer.
            strength, step = min(1.0, strength + step), 2 * step

    def reached(self, costs):
        """`{name: {"limit", "before", "reached"}}`."""
        return {
            name: {"limit": limit, "before": self.whole[name], "reached": costs[name]}
            for name, limit in self.limits.items()
        }


class _Timed:
    """A budget that is measured."""

    def __init__(self, plan, limit, model, batch_size):
        self.plan, self.limit, self.model, self.batch_size = plan, limit, model, batch_size
        self.found = {}  # strength -> (seconds of the whole model, seconds of the small one)

    def round_to(self, counted):
        """The multiple that is fastest at about the multiply-adds that the budget will leave."""
        whole = self.plan.whole["multiply_adds"]
        if whole is None:
            return 1
        seconds = clock.median(clock.in_turns([self.model], self.batch_size, _REPEATS)[0])
        share = min(1.0, self.limit.of(seconds) / seconds)
        # As if time went with the multiply-adds: near enough to compare multiples.
        least = counted.weakest(1)
        work = min(share * whole, self.plan.costs(least)["multiply_adds"])
        smallest = self.plan.costs(1.0)["multiply_adds"]
        return fastest(self.plan, max(work, smallest), self.batch_size, repeats=_REPEATS)

    def weakest(self, low, round_to):
        """The least strength above `low` that meets it."""
        if self.meets(low, round_to):
            return low
        if not self.meets(1.0, round_to):
            whole, small = self.found[1.0]
            raise ValueError(
                f"A latency of {limits.show('latency', self.limit.of(whole))} cannot be met: model "
                f"'{self.plan.masked.name}' takes {limits.show('latency', whole)}, and the smallest that can be "
                f"reached {limits.show('latency', small)}{self.plan.why(round_to)}, at batch_size={self.batch_size}."
            )
        return self._confirmed(weakest(lambda strength: self.meets(strength, round_to), low, 1.0, _TRIALS), round_to)

    def _confirmed(self, strength, round_to):
        """Times what was found once more: of many candidates near the limit, one will have been lucky."""
        while strength < 1.0:
            del self.found[strength]
            if self.meets(strength, round_to):
                break
            strength = min(other for other in self.found if other > strength and self.meets(other, round_to))
        return strength

    def meets(self, strength, round_to):
        """Whether the small model of this strength is fast enough; measured once."""
        if strength not in self.found:
            small = self.plan.cut(strength, round_to)
            whole, own = clock.in_turns([self.model, small], self.batch_size, _REPEATS)
            self.found[strength] = clock.median(whole), clock.ratio(own, whole) * clock.median(whole)
        whole, own = self.found[strength]
        return own <= self.limit.of(whole)

    def reached(self, strength):
        """`{"latency": {"limit", "before", "reached"}}`, in seconds."""
        whole, own = self.found[strength]
        return {"latency": {"limit": self.limit.of(whole), "before": whole, "reached": own}}


def lines(rows):
    """What was reached of each budget, a line each; `rows` as in `budget_report`."""
    for name, row in rows.items():
        reached, before, limit = (limits.show(name, row[key]) for key in ("reached", "before", "limit"))
        share = 100 * row["reached"] / row["before"]
        yield f"{name}: {reached} of {before} ({share:.1f} %), at most {limit}"
