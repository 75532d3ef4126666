"""How much is pruned when? A schedule maps a training step to `(due, ratio)`.

The schedules of TensorFlow Model Optimization (`PolynomialDecay`, `ConstantSparsity`) are such callables and are taken
as they are; so is any function of one argument.
"""

from tfprune.pruning.ratios import check_ratio


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
