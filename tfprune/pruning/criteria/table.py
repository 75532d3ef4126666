"""Which criterion has which name, and are its scores what they must be?"""

import numpy as np

from tfprune.pruning.criteria.activations import ActivationMean, APoZ
from tfprune.pruning.criteria.gradients import SNIP, Fisher, Gradient, GraSP, Hessian, Taylor
from tfprune.pruning.criteria.synflow import SynFlow
from tfprune.pruning.criteria.weights import Random, batchnorm_scale, geometric_median, l1, l2, lamp, linf

# What needs neither data nor arguments has a name; the classes are made anew each time.
CRITERIA = {
    "l1": l1,
    "l2": l2,
    "linf": linf,
    "geometric_median": geometric_median,
    "lamp": lamp,
    "batchnorm_scale": batchnorm_scale,
    "synflow": SynFlow,
    "random": Random,
}
_NEED_DATA = {
    "taylor": Taylor, "gradient": Gradient, "fisher": Fisher, "hessian": Hessian, "snip": SNIP,
    "grasp": GraSP, "activation_mean": ActivationMean, "apoz": APoZ,
}  # fmt: skip


def get(criterion, seed=None, data=None):
    """The criterion of a name, or the criterion itself.

    Args:
        criterion: A name in `CRITERIA`, a function `group -> scores`, or an object whose `measure(masked, keep)` looks
            at the model (and data) and returns such a function.
        seed: For "random".
        data: For the criteria that need data, such as "taylor": what they look at. Default None: such a name is
            refused.

    Raises:
        ValueError: the name is unknown, or is that of a criterion that needs data and there are none.
    """
    if isinstance(criterion, str) and criterion in CRITERIA:
        found = CRITERIA[criterion]
        if criterion == "random":
            return found(seed)
        return found() if isinstance(found, type) else found
    if isinstance(criterion, type):
        raise TypeError(f"A criterion must be an object. Received: the class {criterion.__name__}. Make one of it.")
    if hasattr(criterion, "measure") or callable(criterion):
        return criterion
    names = ", ".join(repr(name) for name in CRITERIA)
    if needs_data(criterion):
        kind = _NEED_DATA[criterion]
        if data is None:
            raise ValueError(
                f"Criterion {criterion!r} needs data: pass tfprune.pruning.criteria.{kind.__name__}(data). "
                f"Criteria without data are {names}."
            )
        return kind(data)
    raise ValueError(
        f"Unknown criterion {criterion!r}. Expected one of {names}, an object of tfprune.pruning.criteria, or a "
        "callable group -> scores."
    )


def needs_data(criterion):
    """Whether a criterion is the name of one that looks at data.

    Args:
        criterion: A name, a function, or an object.
    """
    return isinstance(criterion, str) and criterion in _NEED_DATA


def needs_scales(criterion):
    """Whether a criterion scores only channels that pass a BatchNormalization with a gamma.

    Args:
        criterion: What `get` returned.
    """
    criterion = getattr(criterion, "func", criterion)  # functools.partial(batchnorm_scale, members="max")
    return getattr(criterion, "needs_scales", False)


def look(criterion, masked, keep):
    """The function `group -> scores` of a criterion for a model as it is now.

    Args:
        criterion: What `get` returned.
        masked: A model from `tfprune.wrap`.
        keep: Bool array over the model's unit numbers: the channels that are kept.
    """
    return criterion.measure(masked, keep) if hasattr(criterion, "measure") else criterion


def score(criterion, group):
    """The scores of a group, checked: one finite number a channel.

    Args:
        criterion: A function `group -> scores`.
        group: A `ChannelGroup`.

    Raises:
        ValueError: the scores have another length, or are not finite.
    """
    scores = np.asarray(criterion(group), dtype="float64")
    if scores.shape != (group.channels,):
        raise ValueError(
            f"The criterion must give one score a channel: shape ({group.channels},) for group '{group.name}'. "
            f"Received: shape {scores.shape}."
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            f"The criterion gave {int((~np.isfinite(scores)).sum())} scores of group '{group.name}' that are not "
            "finite. Check the model's weights for NaN (did the training diverge?), and the data that the criterion "
            "looks at."
        )
    return scores
