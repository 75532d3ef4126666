"""How much is pruned when? A schedule maps a training step to `(due, ratio)`.

A schedule never falls, and ends at its ratio. The schedules of TensorFlow Model Optimization (`PolynomialDecay`,
`ConstantSparsity`) are such callables and are taken as they are; so is any function of one argument.
"""

import math
import numbers
from dataclasses import asdict, dataclass

import keras

from tfprune.pruning.ratios import check_positive, check_ratio


@dataclass(frozen=True)
class _Schedule:
    """When a schedule is due, and its config. Each says in `at` which ratio belongs to which part of the way."""

    ratio: float
    end: int
    begin: int = 0
    every: int = 100
    initial: float = 0.0

    def __post_init__(self):
        check_ratio(self.ratio)
        if not 0 <= check_ratio(self.initial) <= self.ratio:
            raise ValueError(
                f"initial must be in [0, ratio]. Received: initial={self.initial:g}, ratio={self.ratio:g}."
            )
        _check_steps(begin=self.begin, end=self.end, every=self.every)

    def __call__(self, step):
        """`(whether to prune at this step, ratio)`."""
        way = (step - self.begin) / (self.end - self.begin)
        due = 0 <= way <= 1 and ((step - self.begin) % self.every == 0 or step == self.end)
        # the ends are exact, whatever rounding says in between
        return due, self.ratio if way >= 1 else self.initial if way < 0 else max(self.initial, self.at(way))

    def at(self, way):
        """The ratio when a share `way` in [0, 1) of the steps from `begin` to `end` is done."""
        raise NotImplementedError

    def get_config(self):
        """What `__init__` takes."""
        return asdict(self)

    @classmethod
    def from_config(cls, config):
        """Builds the schedule again from its config."""
        return cls(**config)


@keras.saving.register_keras_serializable("tfprune")
@dataclass(frozen=True)
class Constant:
    """All at once at step `begin`; with `GradualPruning(regrow_until=...)` channels are chosen anew every few steps.

    Args:
        ratio: Share of channels removed, in [0, 1).
        begin: Training step at which pruning starts. Default 0.
        every: Steps between two prunings. Default 100.

    Example:
        >>> Constant(0.5, begin=100)(100)
        (True, 0.5)
    """

    ratio: float
    begin: int = 0
    every: int = 100

    def __post_init__(self):  # noqa: D105
        check_ratio(self.ratio)
        _check_steps(begin=self.begin, every=self.every)

    def __call__(self, step):
        """`(whether to prune at this step, ratio)`."""
        return step >= self.begin and (step - self.begin) % self.every == 0, self.ratio if step >= self.begin else 0.0

    def get_config(self):
        """What `__init__` takes."""
        return asdict(self)

    @classmethod
    def from_config(cls, config):
        """Builds the schedule again from its config."""
        return cls(**config)


@keras.saving.register_keras_serializable("tfprune")
@dataclass(frozen=True)
class Polynomial(_Schedule):
    """Fast at first, then slower: what is left to remove falls with a power of the time left (Zhu & Gupta 2017).

    The same as `PolynomialDecay` of TensorFlow Model Optimization, but due at `end` in any case.

    Args:
        ratio: Share of channels removed in the end, in [0, 1).
        end: Training step at which the ratio is reached.
        begin: Training step at which pruning starts. Default 0.
        every: Steps between two prunings. Default 100.
        initial: Share of channels removed at `begin`. Default 0.
        power: The power, above 0. Default 1: equal steps.

    Example:
        >>> Polynomial(0.8, end=1000, power=1)(500)
        (True, 0.4)
    """

    power: float = 1.0

    def __post_init__(self):  # noqa: D105
        super().__post_init__()
        check_positive("power", self.power)

    def at(self, way):
        """ratio + (initial - ratio) (1 - way)^power."""
        return self.ratio + (self.initial - self.ratio) * (1 - way) ** self.power


@keras.saving.register_keras_serializable("tfprune")
@dataclass(frozen=True)
class Cubic(_Schedule):
    """`Polynomial` with power 3, the usual schedule of gradual pruning (Zhu & Gupta 2017).

    Args:
        ratio: Share of channels removed in the end, in [0, 1).
        end: Training step at which the ratio is reached.
        begin: Training step at which pruning starts. Default 0.
        every: Steps between two prunings. Default 100.
        initial: Share of channels removed at `begin`. Default 0.

    Example:
        >>> Cubic(0.8, end=1000)(500)
        (True, 0.7)
    """

    def at(self, way):
        """ratio + (initial - ratio) (1 - way)^3."""
        return self.ratio + (self.initial - self.ratio) * (1 - way) ** 3


@keras.saving.register_keras_serializable("tfprune")
@dataclass(frozen=True)
class Exponential(_Schedule):
    """Each pruning removes the same share of what is left, as iterative magnitude pruning does (Frankle & Carbin 2019).

    Args:
        ratio: Share of channels removed in the end, in [0, 1).
        end: Training step at which the ratio is reached.
        begin: Training step at which pruning starts. Default 0.
        every: Steps between two prunings. Default 100.
        initial: Share of channels removed at `begin`. Default 0.

    Example:
        >>> Exponential(0.75, end=1000)(500)
        (True, 0.5)
    """

    def at(self, way):
        """1 - (1 - initial)^(1 - way) (1 - ratio)^way."""
        return 1 - (1 - self.initial) ** (1 - way) * (1 - self.ratio) ** way


@keras.saving.register_keras_serializable("tfprune")
@dataclass(frozen=True)
class OneCycle(_Schedule):
    """Slow, fast in the middle of the training, slow again, along a logistic curve (Hubens et al. 2021).

    Args:
        ratio: Share of channels removed in the end, in [0, 1).
        end: Training step at which the ratio is reached: the end of the training.
        begin: Training step at which pruning starts. Default 0.
        every: Steps between two prunings. Default 100.
        initial: Share of channels removed at `begin`. Default 0.
        steepness: The curve's alpha. Default 14.
        offset: The curve's beta: the steepest place is where offset / steepness of the way is done. Default 5.

    Example:
        >>> due, ratio = OneCycle(0.8, end=1400)(500)   # the steepest place
        >>> round(ratio, 3)
        0.4
    """

    steepness: float = 14.0
    offset: float = 5.0

    def at(self, way):
        """initial + (ratio - initial) (1 + e^(offset - steepness)) / (1 + e^(offset - steepness way))."""
        rise = (1 + math.exp(self.offset - self.steepness)) / (1 + math.exp(self.offset - self.steepness * way))
        return self.initial + (self.ratio - self.initial) * rise


def _check_steps(**steps):
    for name, step in steps.items():
        # 500.0 is a step, too: a share of a number of steps comes as a float
        if isinstance(step, bool) or not isinstance(step, numbers.Real) or step % 1 != 0:
            raise ValueError(f"{name} must be a whole number of steps. Received: {name}={step!r}.")
    begin, end, every = steps["begin"], steps.get("end", steps["begin"] + 1), steps["every"]
    if not 0 <= begin < end or every < 1:
        raise ValueError(
            "A schedule needs steps 0 <= begin < end, and every >= 1. Received: "
            f"begin={begin}, end={end}, every={every}."
        )


def ratio_of_round(ratio, done, rounds):
    """Share of channels removed after `done` of `rounds` equal prunings: 1 - (1 - ratio)^(done / rounds).

    Each round removes the same share of what is left (Frankle & Carbin 2019).

    Args:
        ratio: Share removed after the last round, in [0, 1), or `{layer name: ratio}`.
        done: How many rounds have been pruned, 0 to `rounds`.
        rounds: How many rounds there are.
    """
    if isinstance(ratio, dict):
        return {name: ratio_of_round(share, done, rounds) for name, share in ratio.items()}
    return ratio if done == rounds else 1 - (1 - ratio) ** (done / rounds)


def read(schedule, step):
    """Asks a schedule, and checks its answer: `(whether to prune now, ratio)`.

    Args:
        schedule: A callable `step -> (due, ratio)`.
        step: Training step, counted from 0.

    Raises:
        ValueError: the answer is not a pair, or the ratio is outside [0, 1).
    """
    try:
        due, ratio = schedule(step)
    except (TypeError, ValueError) as error:
        raise ValueError(f"A schedule must give (due, ratio) for a step. Received: {schedule!r} ({error}).") from error
    return bool(due), check_ratio(float(ratio))
