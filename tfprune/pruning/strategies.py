"""Which strategies and controls can a study compare, and what do they do to channels, weights and epochs?"""

import re
from dataclasses import dataclass

REWINDS = ("init", "random", "learning_rate", None)
CHANNELS = ("criterion", "random", "l1")
BUDGETS = ("patience", "epochs", "compute")
RANKED_ON = ("trained", "init")


@dataclass(frozen=True)
class Strategy:
    """A way to find a ticket, or a control to hold one against.

    Args:
        name: How the strategy is called in tables.
        rounds: How many times the model is pruned and trained again. Default 1.
        rewind: What the weights become after each pruning: "init" (the values at the start of the training), "random"
            (fresh random values), None (default: they stay as trained), "learning_rate" (they stay as trained, while
            optimizer and learning-rate schedule start again), or an epoch number k (the values after k epochs).
        channels: Which channels go. "criterion" (default): those that the trial's criterion ranks lowest; "random" and
            "l1": chosen that way, as many of each layer as the trial's criterion and scope would take.
        budget: How long a round after the first trains. "patience" (default): to its early stop; "epochs": as many
            epochs as the dense network; "compute": as many multiply-adds as the dense network, so longer the smaller
            the ticket is.
        control: Whether it stands in the report as a control. Default False.
        ranked_on: The weights by which channels are chosen: "trained" (default), or "init", those before any training:
            pruning at initialization, for which `rewind` is "init" or "random".

    Raises:
        ValueError: A value that is not among these.

    Example:

    >>> Strategy("three_rounds", rounds=3, rewind="init")

    Source: Frankle & Carbin 2019 (rewinding), Renda, Frankle & Carbin 2020 (learning-rate rewinding), Liu et al. 2019
    (training the pruned network from scratch, with the epochs or the compute of the dense one), Lee, Ajanthan & Torr
    2019 (SNIP, pruning at initialization).
    """

    name: str
    rounds: int = 1
    rewind: str | int | None = None
    channels: str = "criterion"
    budget: str = "patience"
    control: bool = False
    ranked_on: str = "trained"

    def __post_init__(self):
        """Refuses what no trial could run."""
        _check("channels", self.channels, CHANNELS)
        _check("budget", self.budget, BUDGETS)
        _check("ranked_on", self.ranked_on, RANKED_ON)
        if isinstance(self.rewind, bool) or not isinstance(self.rewind, int):
            _check("rewind", self.rewind, REWINDS)
        elif self.rewind < 0:
            raise ValueError(f"rewind must be an epoch number of at least 0. Received: rewind={self.rewind}.")
        if self.ranked_on == "init" and self.rewind not in ("init", "random"):
            raise ValueError(
                "What is chosen before any training is trained from there: with ranked_on='init' expected "
                f"rewind='init' or 'random'. Received: rewind={self.rewind!r}."
            )
        if self.rounds < 0:
            raise ValueError(f"rounds must not be negative. Received: rounds={self.rounds}.")


def _check(name, value, known):
    if value not in known:
        raise ValueError(f"Unknown {name}. Received: {value!r}. Expected one of {', '.join(map(repr, known))}.")


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("one_shot", 1, None),
        Strategy("one_shot_reinit", 1, "init"),
        Strategy("one_shot_random", 1, "random"),
        Strategy("iterative", 5, "init"),
        Strategy("iterative_finetune", 5, None),
        Strategy("lr_rewind", 1, "learning_rate"),
        Strategy("at_init", 1, "init", ranked_on="init"),
        # The dense network trained on for as long as a ticket is, with nothing removed.
        Strategy("dense", 1, None, control=True),
        Strategy("random_channels", 1, None, channels="random", control=True),
        Strategy("magnitude_channels", 1, None, channels="l1", control=True),
        Strategy("scratch_epochs", 1, "random", budget="epochs", control=True),
        Strategy("scratch_compute", 1, "random", budget="compute", control=True),
    )
}


def get(strategy):
    """The strategy of a name, or the strategy itself.

    Args:
        strategy: A name in `STRATEGIES`, "rewind_epoch_K" for an epoch number K, or a `Strategy`.

    Raises:
        ValueError: The name is unknown.

    Example:

    >>> get("rewind_epoch_3").rewind
    3
    """
    if isinstance(strategy, Strategy):
        return strategy
    if strategy in STRATEGIES:
        return STRATEGIES[strategy]
    epoch = re.fullmatch(r"rewind_epoch_(\d+)", str(strategy))
    if epoch:
        return Strategy(strategy, 1, int(epoch.group(1)))
    names = ", ".join(repr(name) for name in STRATEGIES)
    raise ValueError(
        f"Unknown strategy. Received: {strategy!r}. Expected one of {names}, 'rewind_epoch_K' for an epoch K, or a "
        "Strategy(name, rounds, rewind)."
    )
