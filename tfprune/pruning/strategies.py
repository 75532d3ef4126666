"""Which strategies does the paper compare, as numbers: how many rounds, and what happens to the weights?"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Strategy:
    """A way to find a ticket.

    Args:
        name: How the strategy is called in tables.
        rounds: How many times the model is pruned and trained again.
        rewind: What the weights become after each pruning: "init" (the values at the start of the fit), "random"
            (fresh random values), None (they stay as trained), or an epoch number k (the values after k epochs).
    """

    name: str
    rounds: int
    rewind: str | int | None


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("one_shot", 1, None),
        Strategy("one_shot_reinit", 1, "init"),
        Strategy("one_shot_random", 1, "random"),
        Strategy("iterative", 5, "init"),
        Strategy("iterative_finetune", 5, None),
    )
}


def get(strategy):
    """The strategy of a name, or the strategy itself.

    Args:
        strategy: "one_shot", "one_shot_reinit", "one_shot_random", "iterative", "iterative_finetune", or a `Strategy`.

    Raises:
        ValueError: the name is unknown.
    """
    if isinstance(strategy, Strategy):
        return strategy
    if strategy in STRATEGIES:
        return STRATEGIES[strategy]
    names = ", ".join(repr(name) for name in STRATEGIES)
    raise ValueError(f"Unknown strategy {strategy!r}. Expected one of {names}, or a Strategy(name, rounds, rewind).")
