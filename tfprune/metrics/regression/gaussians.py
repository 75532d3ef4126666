"""What does a Gaussian head say of each target, and how does a metric add it up?"""

from statistics import NormalDist

import numpy as np
from keras import ops

from tfprune.losses import LOG_VARIANCE_LIMIT, aligned_targets
from tfprune.metrics.streaming import SummedMetric


def mean_and_std(outputs):
    """Means and standard deviations, (..., k) each and float64, from the output (..., 2k) of a Gaussian head.

    Args:
        outputs: k means, then k raw log-variances, such as `model.predict(x)`.

    Raises:
        ValueError: if the number of columns is odd.

    Example:
        >>> mean, std = mean_and_std([[3.0, 0.0]])
        >>> mean.tolist(), std.tolist()
        ([[3.0]], [[1.0]])
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    _check_columns(outputs.shape)
    mean, log_variance = np.split(outputs, 2, axis=-1)
    return mean, np.exp(0.5 * np.clip(log_variance, -LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT))


def std_and_z(mean, std, targets):
    """Standard deviations and standardised errors, float64 of one shape; refuses what cannot be scored."""
    mean, targets = np.asarray(mean, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    std = positive(std)
    if mean.shape != targets.shape or std.shape not in ((), mean.shape):
        raise ValueError(
            "mean, std and targets must have one shape (std may be a single number). "
            f"Received: mean {mean.shape}, std {std.shape}, targets {targets.shape}."
        )
    if not mean.size:
        raise ValueError("mean and targets must not be empty. Received: no values.")
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(targets))):
        raise ValueError("mean and targets must be finite. Received: values that are NaN or infinite.")
    std = np.broadcast_to(std, mean.shape)
    return std, (targets - mean) / std


def positive(std):
    """Standard deviations as float64; raises ValueError unless there are any and all are positive and finite."""
    std = np.asarray(std, dtype=np.float64)
    if not (std.size and np.all((std > 0) & np.isfinite(std))):  # written so that NaN fails too
        raise ValueError(
            "std must hold standard deviations: positive, finite and at least one. Received: "
            + (f"values from {std.min()} to {std.max()}." if std.size else "none.")
        )
    return std


def half_width(level):
    """Half the width, in standard deviations, of the central interval of probability `level`."""
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1). Received: level={level}. For 90 % pass level=0.9.")
    return NormalDist().inv_cdf(0.5 + 0.5 * level)


def check_choice(name, value, choices):
    """Raises ValueError unless the value is among the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}.")


def check_whole(name, value, least):
    """Raises ValueError unless the value is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}. Received: {name}={value!r}.")


def _check_columns(shape):
    if len(shape) < 2 or not shape[-1] or shape[-1] % 2:
        raise ValueError(
            "The output of a Gaussian head has 2k columns for k targets: k means, then k log-variances (see "
            f"tfprune.losses). Received: shape {tuple(shape)}."
        )


class GaussianMetric(SummedMetric):
    """Adds up, in float64 and fixed memory, numbers of each target; a subclass says which and what becomes of them."""

    def __init__(self, shape, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.totals = self.add_sums(shape, "totals")

    def batch_totals(self, z, std, weight):
        """What the batch adds to `totals`; standardised errors, standard deviations and weights, (targets,) each."""
        raise NotImplementedError

    def value(self, totals):
        """The result from `totals`."""
        raise NotImplementedError

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch.

        Args:
            y_true: targets (..., k), or (...) where k is 1.
            y_pred: the output of a Gaussian head, (..., 2k): k means, then k raw log-variances.
            sample_weight: optional, one weight per sample or per target.
        """
        # float64 first: the square of a bfloat16 error keeps two digits.
        mean, std = _head_mean_and_std(ops.cast(y_pred, "float64"))
        targets = aligned_targets(ops.cast(y_true, "float64"), mean)
        weight = _head_weights(sample_weight, targets)
        flat = (ops.reshape(tensor, (-1,)) for tensor in ((targets - mean) / std, std, weight))
        self.totals.assign_add(self.batch_totals(*flat))

    def result(self):
        """The metric over all batches since the last reset; 0 before the first."""
        return ops.cast(self.value(ops.convert_to_tensor(self.totals)), self.dtype)


class GaussianMean(GaussianMetric):
    """The weighted mean of one number per target."""

    def __init__(self, name=None, dtype=None):
        super().__init__((2,), name=name, dtype=dtype)

    def statistic(self, z, std):
        """The number to average, (targets,)."""
        raise NotImplementedError

    def batch_totals(self, z, std, weight):
        """The weight, and the weighted sum."""
        return ops.stack([ops.sum(weight), ops.sum(weight * self.statistic(z, std))])

    def value(self, totals):
        """The mean."""
        return ops.divide_no_nan(totals[1], totals[0])


def totals_by(index, values, num_groups):
    """Sums of `values` by whole-numbered `index`, (num_groups,); a NaN index makes the first sum NaN, not nothing."""
    lost = ops.isnan(index)
    values = ops.where(lost, index, values)
    index = ops.cast(ops.where(lost, ops.zeros_like(index), index), "int32")
    return ops.segment_sum(values, index, num_segments=num_groups)


def _head_mean_and_std(y_pred):
    """`mean_and_std` of a tensor."""
    _check_columns(y_pred.shape)
    mean, log_variance = ops.split(y_pred, 2, axis=-1)
    return mean, ops.exp(0.5 * ops.clip(log_variance, -LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT))


def _head_weights(sample_weight, targets):
    """One float64 weight per target; (batch,) weights are stretched over the targets of each sample."""
    if sample_weight is None:
        return ops.ones_like(targets)
    weight = ops.cast(sample_weight, "float64")
    missing = len(targets.shape) - len(weight.shape)
    weight = ops.reshape(weight, (*ops.shape(weight), *(1,) * missing))
    return ops.broadcast_to(weight, ops.shape(targets))
