"""Which multiple of channels runs fastest on this device?

Convolutions compute channels in blocks (16 numbers are one AVX-512 register), so that 33 channels may take as long as
48. Rounded up, a layer computes with channels that it would have paid for anyway.
"""

import numbers
from collections.abc import Iterable

from tfprune.budgets import clock
from tfprune.budgets.plan import Plan, check_known, weakest
from tfprune.pruning import surgery
from tfprune.pruning.ratios import check_count

MULTIPLES = (1, 8, 16, 32)
_WORTH_IT = 0.97  # a larger multiple must be three percent faster: what is less is noise, and costs choice


def choose_round_to(model, ratio=0.5, batch_size=1, multiples=MULTIPLES, repeats=15, approximate=False, **options):
    """Returns the multiple of channels with which the pruned model runs fastest on this device.

    All candidates may spend the multiply-adds that `ratio` leaves without rounding: where a multiple keeps more
    channels in some layers, others lose more. They are built and timed in turns, and compared by their time for a
    multiply-add; where a smaller multiple is as fast to three percent, it is chosen, for it leaves more choice to the
    criterion.

    Args:
        model: A built Keras model without masks, its input sizes known but for the batch. It is left as it is.
        ratio: Share of channels to remove, in (0, 1). Default 0.5.
        batch_size: Samples per prediction. Default 1.
        multiples: The candidates. Default (1, 8, 16, 32).
        repeats: How often each is timed. Default 15.
        approximate: As in `tfprune.wrap`. Default False.
        **options: What else `tfprune.compute_masks` takes: criterion, scope, ignore, only, seed.

    Returns:
        One of `multiples`, for `round_to` of `tfprune.prune_to`. At a ratio (`tfprune.compute_masks`) a larger multiple
        keeps more channels, and with them more multiply-adds than were compared here.

    Raises:
        TypeError: an option that neither this function nor `tfprune.compute_masks` takes.
        ValueError: a ratio outside (0, 1), no multiples or such below 1, an input size that is not known, multiply-adds
            of the model that cannot be told, or nothing that can be pruned.

    Example:
        >>> round_to = tfprune.choose_round_to(model, ratio=0.6, batch_size=8)
        >>> small = tfprune.prune_to(model, multiply_adds=0.2, round_to=round_to)
    """
    check_known(choose_round_to, options)
    multiples, repeats = _checked(multiples), check_count("repeats", repeats)
    if isinstance(ratio, bool) or not isinstance(ratio, numbers.Real) or not 0 < ratio < 1:
        raise ValueError(f"ratio must be a number in (0, 1). Received: ratio={ratio!r}.")
    plan = Plan(surgery.wrap(model, approximate), options=options)
    return fastest(plan, plan.costs(ratio)["multiply_adds"], batch_size, multiples, repeats)


def _checked(multiples):
    """The candidates as a list."""
    if not isinstance(multiples, Iterable) or not (found := list(multiples)):
        raise ValueError(f"multiples must list the candidates, such as (1, 8, 16). Received: multiples={multiples!r}.")
    return [check_count(f"multiples[{index}]", multiple) for index, multiple in enumerate(found)]


def fastest(plan, multiply_adds, batch_size, multiples=MULTIPLES, repeats=15):
    """The multiple with which a plan is fastest at so many multiply-adds.

    Args:
        plan: A `Plan`; its masks change.
        multiply_adds: What each candidate may spend.
        batch_size: Samples per prediction.
        multiples: The candidates.
        repeats: How often each is timed.
    """
    if multiply_adds is None:
        raise ValueError(
            "round_to can only be chosen for a model whose multiply-adds are known (tfprune.inspect shows None). "
            "Pass round_to=16, or what is known of the device."
        )
    candidates, kept = {}, []
    for multiple in sorted(multiples):
        strength = _strength(plan, multiply_adds, multiple)
        keep = None if strength is None else plan.kept(strength, multiple)
        if keep is not None and not any((keep == other).all() for other in kept):  # the same channels: nothing to time
            kept.append(keep)
            candidates[multiple] = plan.cut(strength, multiple), plan.costs(strength, multiple)["multiply_adds"]
    if len(candidates) < 2:
        return next(iter(candidates), 1)
    times = clock.in_turns([small for small, _ in candidates.values()], batch_size, repeats)
    # Coarse steps leave some of the multiply-adds unspent, which must not count as speed.
    paces = [time / work for time, (_, work) in zip(times, candidates.values(), strict=True)]
    chosen = 0
    for index in range(1, len(paces)):
        if clock.ratio(paces[index], paces[chosen]) < _WORTH_IT:
            chosen = index
    return list(candidates)[chosen]


def _strength(plan, multiply_adds, multiple):
    """How hard to prune for so many multiply-adds; None where the multiple keeps more at any strength."""

    def meets(strength):
        return plan.costs(strength, multiple)["multiply_adds"] <= multiply_adds

    return weakest(meets) if meets(1.0) else None
