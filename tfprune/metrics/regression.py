"""Does a regression model know how wrong it is? Scores and calibration of predicted Gaussians.

Functions (NumPy, float64) take `mean`, `std` and `targets` of one shape; several targets per sample count as that many
samples. `mean_and_std` makes the first two from the output of a Gaussian head. Beside each stands a Keras metric for
`model.compile`, which reads the head's output (..., 2k), k means and then k raw log-variances: see `tfprune.losses`.

    gaussian_nll, gaussian_crps                  proper scores: smaller is better, and sharpness pays
    coverage_calibration_error, coverage_table   do 90 % of the targets fall where 90 % should?
    picp, mpiw, sharpness                        one interval's coverage; how wide the intervals are
    ence, regression_uce, variance_table         where the model says it is unsure, is it as wrong as it says?
    std_scale                                    the one number the standard deviations should be multiplied by

Example:
    >>> from tfprune import metrics
    >>> round(metrics.gaussian_nll([0.0, 0.0], [1.0, 1.0], [1.0, -1.0]), 6)
    1.418939
"""

import math
import warnings
from statistics import NormalDist

import keras
import numpy as np
from keras import ops
from scipy import special

from tfprune.losses import LOG_VARIANCE_LIMIT, aligned_targets

KINDS = ("interval", "quantile")
NORMS = ("l1", "l2", "max", "area")
BINNINGS = ("mass", "width")

# --- NumPy ------------------------------------------------------------------------------------------------------------


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


def gaussian_nll(mean, std, targets):
    """Negative log-likelihood, mean of log(2 pi std^2) / 2 + ((target - mean) / std)^2 / 2; may be negative.

    Args:
        mean: predicted means, any shape.
        std: predicted standard deviations of the same shape, or one number for all.
        targets: what was observed, same shape.

    Raises:
        ValueError: if the shapes differ, or values are missing, not finite, or `std` not positive.

    Source: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", 2007.
    """
    std, z = _std_and_z(mean, std, targets)
    return float(np.mean(0.5 * math.log(2 * math.pi) + np.log(std) + 0.5 * z**2))


def gaussian_crps(mean, std, targets):
    """Continuous ranked probability score in units of the targets: the absolute error, made fair to a distribution.

    Closed form for the Gaussian: std (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z the standardised error.
    Args and errors as for `gaussian_nll`. Unlike the NLL it grows only linearly with an outlier's error.

    Source: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", 2007.
    """
    std, z = _std_and_z(mean, std, targets)
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return float(np.mean(std * (z * special.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))))


def coverage_table(mean, std, targets, kind="interval", num_levels=100):
    """The numbers of a regression reliability diagram: nominal levels, and the share of targets found inside.

    Args:
        mean: predicted means, any shape.
        std: predicted standard deviations of the same shape, or one number for all.
        targets: what was observed, same shape.
        kind: "interval" asks whether the central interval of probability q holds the target, "quantile" whether the
            target is below the quantile q. Intervals do not see a bias that the width makes up for; quantiles do.
        num_levels: how many levels, evenly from 0 to 1 inclusive.

    Returns:
        {"nominal": [level], "observed": [share of targets]}.

    Raises:
        ValueError: as `gaussian_nll` does, and for an unknown `kind` or fewer than 2 levels.

    Source: Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression", 2018.
    """
    _check_coverage(kind, "l1", num_levels)
    _, z = _std_and_z(mean, std, targets)
    rank = special.erf(np.abs(z) / math.sqrt(2)) if kind == "interval" else special.ndtr(z)
    counts = np.bincount(_level_index(np, rank, kind, num_levels).astype(np.int64).ravel(), minlength=num_levels)
    nominal = np.arange(num_levels) / (num_levels - 1)
    return {"nominal": nominal.tolist(), "observed": (np.cumsum(counts) / z.size).tolist()}


def coverage_calibration_error(mean, std, targets, kind="interval", norm="l1", num_levels=100):
    """How far observed coverage is from nominal coverage, over evenly spaced levels; 0 is calibrated.

    On the same predictions the two kinds differ (by a factor of about 2 where only the width is wrong): name the kind
    with the number.

    Args:
        mean: predicted means, any shape.
        std: predicted standard deviations of the same shape, or one number for all.
        targets: what was observed, same shape.
        kind: "interval" or "quantile", see `coverage_table`.
        norm: "l1" (mean absolute difference), "l2" (root mean square), "max", or "area" between curve and diagonal.
        num_levels: how many levels, evenly from 0 to 1 inclusive.

    Raises:
        ValueError: as `coverage_table` does, and for an unknown `norm`.

    Source: Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression", 2018.
    """
    _check_coverage(kind, norm, num_levels)
    table = coverage_table(mean, std, targets, kind, num_levels)
    return float(_distance(np, np.subtract(table["observed"], table["nominal"]), norm))


def picp(mean, std, targets, level=0.9):
    """Prediction interval coverage probability: share of targets in the central interval of probability `level`.

    Args:
        mean: predicted means, any shape.
        std: predicted standard deviations of the same shape, or one number for all.
        targets: what was observed, same shape.
        level: nominal probability of the interval, in (0, 1). A calibrated model's PICP equals it.

    Raises:
        ValueError: as `gaussian_nll` does, and for a `level` outside (0, 1).
    """
    _, z = _std_and_z(mean, std, targets)
    return float(np.mean(np.abs(z) <= _half_width(level)))


def mpiw(std, level=0.9):
    """Mean prediction interval width, in units of the targets, of the central interval of probability `level`.

    Args:
        std: predicted standard deviations, any shape.
        level: nominal probability of the interval, in (0, 1).

    Raises:
        ValueError: if `std` is empty or not positive, or `level` outside (0, 1).
    """
    return float(2 * _half_width(level) * np.mean(_positive(std)))


def sharpness(std):
    """Root mean predicted variance, in units of the targets: how narrow the predictions are, right or wrong.

    Args:
        std: predicted standard deviations, any shape.

    Raises:
        ValueError: if `std` is empty or not positive.

    Source: Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression", 2018.
    """
    return float(np.sqrt(np.mean(_positive(std) ** 2)))


def std_scale(mean, std, targets):
    """Variance scaling: the factor for all standard deviations that makes the data most likely; 1 is calibrated.

    It is sqrt(mean z^2), z the standardised errors, the maximum-likelihood solution in closed form. Above 1 the model
    was too sure; the variances scale by its square. Args and errors as for `gaussian_nll`.

    Source: Laves et al., "Well-Calibrated Regression Uncertainty in Medical Imaging with Deep Learning", 2020.
    """
    _, z = _std_and_z(mean, std, targets)
    return float(np.sqrt(np.mean(z**2)))


def ence(mean, std, targets, num_bins=15, binning="mass"):
    """Expected normalised calibration error: mean over bins of `std` of |RMV - RMSE| / RMV; 0 is calibrated.

    RMV is the root mean predicted variance of a bin, RMSE its root mean squared error. Every bin that holds samples
    counts the same. It sees what coverage over all samples hides: too wide here that makes up for too narrow there.

    Args:
        mean: predicted means, any shape.
        std: predicted standard deviations of the same shape, or one number for all.
        targets: what was observed, same shape.
        num_bins: number of bins.
        binning: "mass", equally many samples in each (Levi et al.; equal standard deviations stay together), or
            "width", equally wide from the smallest `std` to the largest, where one outlier leaves most bins empty.

    Raises:
        ValueError: as `gaussian_nll` does, and for a bad `num_bins` or `binning`.

    Warns:
        UserWarning: if every `std` is the same (a homoskedastic model): there is one bin, and the number is only the
            difference of predicted and observed noise over all samples.

    Source: Levi et al., "Evaluating and Calibrating Uncertainty Prediction in Regression Tasks", 2022.
    """
    _, variance, error = _binned(mean, std, targets, num_bins, binning, np.sqrt)
    return float(np.mean(np.abs(np.sqrt(variance) - np.sqrt(error)) / np.sqrt(variance)))


def regression_uce(mean, std, targets, num_bins=15, binning="mass"):
    """Uncertainty calibration error of variances: mean over samples of |MSE - mean variance| of their bin.

    In squared units of the targets. With binning="width" the bins are equally wide in the *variance*. Args, errors and
    warning as for `ence`. (`uce` is another quantity, for classifiers.)

    Source: Laves et al., "Well-Calibrated Regression Uncertainty in Medical Imaging with Deep Learning", 2020.
    """
    count, variance, error = _binned(mean, std, targets, num_bins, binning, lambda variances: variances)
    return float(np.sum(count * np.abs(error - variance)) / np.sum(count))


def variance_table(mean, std, targets, num_bins=15, binning="mass"):
    """Predicted against observed noise, one entry per bin of `std` that holds samples, in rising order.

    Args, errors and warning as for `ence`.

    Returns:
        {"count": [int], "rmv": [root mean predicted variance], "rmse": [root mean squared error]}.
    """
    count, variance, error = _binned(mean, std, targets, num_bins, binning, np.sqrt)
    return {"count": count.tolist(), "rmv": np.sqrt(variance).tolist(), "rmse": np.sqrt(error).tolist()}


def _binned(mean, std, targets, num_bins, binning, scale):
    """Count, mean variance and mean squared error of each bin that holds samples."""
    _check_bins(num_bins, binning)
    std, z = _std_and_z(mean, std, targets)
    variance, error = std.ravel() ** 2, ((z * std) ** 2).ravel()
    if variance.min() == variance.max():
        warnings.warn(
            "All standard deviations are equal (a homoskedastic model?), so there is one bin: the result compares "
            "predicted and observed noise over all samples and says nothing about where the model is unsure.",
            UserWarning,
            stacklevel=3,
        )
    values, group, counts = np.unique(variance, return_inverse=True, return_counts=True)
    index = _bin_of_groups(np, scale(values), counts, num_bins, binning).astype(np.int64)[group]
    count, variance, error = (
        np.bincount(index, weights=weights, minlength=num_bins) for weights in (np.ones_like(error), variance, error)
    )
    held = count > 0
    return count[held].astype(np.int64), variance[held] / count[held], error[held] / count[held]


def _std_and_z(mean, std, targets):
    """Standard deviations and standardised errors, float64 of one shape; refuses what cannot be scored."""
    mean, targets = np.asarray(mean, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    std = _positive(std)
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


def _positive(std):
    std = np.asarray(std, dtype=np.float64)
    if not (std.size and np.all((std > 0) & np.isfinite(std))):  # written so that NaN fails too
        raise ValueError(
            "std must hold standard deviations: positive, finite and at least one. Received: "
            + (f"values from {std.min()} to {std.max()}." if std.size else "none.")
        )
    return std


# --- shared: `xp` is numpy or keras.ops -------------------------------------------------------------------------------


def _level_index(xp, rank, kind, num_levels):
    """Index of the first level that covers a target, from its `rank`: the probability predicted up to there.

    Counts of these indices, summed up, are the coverage at every level, in fixed memory.
    """
    index = xp.ceil(rank * (num_levels - 1))
    # A target below the quantile 0 does not exist, but Phi(-40) rounds to 0.
    return xp.maximum(index, 1.0) if kind == "quantile" else index


def _distance(xp, difference, norm):
    """Distance of a coverage curve from the diagonal."""
    size = xp.abs(difference)
    if norm == "l1":
        return xp.mean(size)
    if norm == "l2":
        return xp.sqrt(xp.mean(xp.square(difference)))
    if norm == "max":
        return xp.max(size)
    # Between two levels the difference runs straight: a trapezium, or two triangles where it changes its sign.
    left, right = difference[:-1], difference[1:]
    total = xp.abs(left) + xp.abs(right)
    triangles = (xp.square(left) + xp.square(right)) / xp.where(total > 0, total, xp.ones_like(total))
    return xp.mean(0.5 * xp.where(left * right < 0, triangles, total))


def _bin_of_groups(xp, values, counts, num_bins, binning):
    """Bin of each group of samples of one value, from values that rise and from how many samples (or weight) have each.

    Groups of no samples may be anywhere, with any value. By "mass" a group goes where the middle of its ranks falls, so
    that the bins depend neither on the order of samples nor on whether a weight of 2 or two samples are given.
    """
    if binning == "mass":
        # The total is taken from the running sum, so that the two agree to the last bit.
        running = xp.cumsum(counts)
        position = (running - 0.5 * counts) / xp.maximum(running[-1], 1e-300)
    else:
        smallest = xp.min(xp.where(counts > 0, values, np.inf))
        largest = xp.max(xp.where(counts > 0, values, -np.inf))
        span = largest - smallest
        position = (values - smallest) / xp.where(span > 0, span, xp.ones_like(span))
    return xp.clip(xp.floor(position * num_bins), 0, num_bins - 1)


def _half_width(level):
    """Half the width, in standard deviations, of the central interval of probability `level`."""
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1). Received: level={level}. For 90 % pass level=0.9.")
    return NormalDist().inv_cdf(0.5 + 0.5 * level)


def _check_coverage(kind, norm, num_levels):
    _check_choice("kind", kind, KINDS)
    _check_choice("norm", norm, NORMS)
    _check_whole("num_levels", num_levels, 2)


def _check_bins(num_bins, binning):
    _check_whole("num_bins", num_bins, 1)
    _check_choice("binning", binning, BINNINGS)


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}.")


def _check_whole(name, value, least):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}. Received: {name}={value!r}.")


def _check_columns(shape):
    if len(shape) < 2 or not shape[-1] or shape[-1] % 2:
        raise ValueError(
            "The output of a Gaussian head has 2k columns for k targets: k means, then k log-variances (see "
            f"tfprune.losses). Received: shape {tuple(shape)}."
        )


# --- Keras ------------------------------------------------------------------------------------------------------------


class _GaussianMetric(keras.metrics.Metric):
    """Adds up, in float64 and fixed memory, numbers of each target; a subclass says which and what becomes of them."""

    def __init__(self, shape, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        # float64 whatever the dtype policy: a float32 sum stops growing at 2**24.
        self.totals = self.add_variable(shape=shape, initializer="zeros", dtype="float64", name="totals")

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


class _GaussianMean(_GaussianMetric):
    """The weighted mean of one number per target."""

    def __init__(self, name=None, dtype=None):
        super().__init__((2,), name=name, dtype=dtype)

    def statistic(self, z, std):
        """The number to average, (targets,)."""
        raise NotImplementedError

    def batch_totals(self, z, std, weight):
        return ops.stack([ops.sum(weight), ops.sum(weight * self.statistic(z, std))])

    def value(self, totals):
        return ops.divide_no_nan(totals[1], totals[0])


@keras.saving.register_keras_serializable("tfprune.metrics")  # the loss of the same name is registered in "tfprune"
class GaussianNegativeLogLikelihood(_GaussianMean):
    """Mean negative log-likelihood of the targets; see `tfprune.metrics.gaussian_nll`.

    Args:
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Example:
        >>> metric = GaussianNegativeLogLikelihood()
        >>> metric.update_state([[1.0]], [[0.0, 0.0]])
        >>> round(float(metric.result()), 6)
        1.418939

    Source: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", 2007.
    """

    def __init__(self, name="gaussian_nll", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def statistic(self, z, std):
        """The negative log-likelihood."""
        return 0.5 * math.log(2 * math.pi) + ops.log(std) + 0.5 * ops.square(z)


@keras.saving.register_keras_serializable("tfprune")
class CRPS(_GaussianMean):
    """Mean continuous ranked probability score, in units of the targets; see `tfprune.metrics.gaussian_crps`.

    Args:
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", 2007.
    """

    def __init__(self, name="crps", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def statistic(self, z, std):
        """The score in closed form."""
        density = ops.exp(-0.5 * ops.square(z)) / math.sqrt(2 * math.pi)
        return std * (z * ops.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


@keras.saving.register_keras_serializable("tfprune")
class PredictionIntervalCoverage(_GaussianMean):
    """Share of targets in the central interval of probability `level` (PICP); see `tfprune.metrics.picp`.

    Args:
        level: nominal probability of the interval, in (0, 1).
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.
    """

    def __init__(self, level=0.9, name="picp", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.level, self.half_width = level, _half_width(level)

    def statistic(self, z, std):
        """1 inside the interval, 0 outside, NaN for NaN."""
        return ops.where(ops.isnan(z), z, ops.cast(ops.abs(z) <= self.half_width, z.dtype))

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "level": self.level}


@keras.saving.register_keras_serializable("tfprune")
class PredictionIntervalWidth(_GaussianMean):
    """Mean width of the central interval of probability `level` (MPIW); see `tfprune.metrics.mpiw`.

    Args:
        level: nominal probability of the interval, in (0, 1).
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.
    """

    def __init__(self, level=0.9, name="mpiw", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.level, self.half_width = level, _half_width(level)

    def statistic(self, z, std):
        """The width of the interval."""
        return 2 * self.half_width * std

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "level": self.level}


@keras.saving.register_keras_serializable("tfprune")
class Sharpness(_GaussianMean):
    """Root mean predicted variance; see `tfprune.metrics.sharpness`.

    Args:
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression", 2018.
    """

    def __init__(self, name="sharpness", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def statistic(self, z, std):
        """The predicted variance."""
        return ops.square(std)

    def value(self, totals):
        """The root of the mean."""
        return ops.sqrt(super().value(totals))


@keras.saving.register_keras_serializable("tfprune")
class StandardDeviationScale(_GaussianMean):
    """The factor all standard deviations should be multiplied by; see `tfprune.metrics.std_scale`.

    Args:
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Laves et al., "Well-Calibrated Regression Uncertainty in Medical Imaging with Deep Learning", 2020.
    """

    def __init__(self, name="std_scale", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def statistic(self, z, std):
        """The squared standardised error."""
        return ops.square(z)

    def value(self, totals):
        """The root of the mean."""
        return ops.sqrt(super().value(totals))


@keras.saving.register_keras_serializable("tfprune")
class CoverageCalibrationError(_GaussianMetric):
    """Observed against nominal coverage over evenly spaced levels; see `tfprune.metrics.coverage_calibration_error`.

    Args:
        kind: "interval" (central intervals) or "quantile".
        norm: "l1", "l2", "max" or "area".
        num_levels: how many levels, evenly from 0 to 1 inclusive; also the size of the state.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression", 2018.
    """

    def __init__(self, kind="interval", norm="l1", num_levels=100, name="coverage_calibration_error", dtype=None):
        _check_coverage(kind, norm, num_levels)
        super().__init__((num_levels,), name=name, dtype=dtype)
        self.kind, self.norm, self.num_levels = kind, norm, num_levels

    def batch_totals(self, z, std, weight):
        """The weight of the targets whose first covering level is each."""
        is_interval = self.kind == "interval"
        rank = ops.erf((ops.abs(z) if is_interval else z) / math.sqrt(2))
        rank = rank if is_interval else 0.5 + 0.5 * rank
        return _totals_by(_level_index(ops, rank, self.kind, self.num_levels), weight, self.num_levels)

    def value(self, totals):
        """The distance of the coverage curve from the diagonal."""
        running = ops.cumsum(totals)
        observed = running / ops.where(running[-1] == 0, 1.0, running[-1])
        distance = _distance(ops, observed - np.arange(self.num_levels) / (self.num_levels - 1), self.norm)
        return ops.where(running[-1] == 0, ops.zeros_like(distance), distance)

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "kind": self.kind, "norm": self.norm, "num_levels": self.num_levels}


class _BinnedVariance(_GaussianMetric):
    """Adds up counts, variances and squared errors in fine cells of the log-variance, which `result` makes bins of.

    Bins of equal mass or width are known only when all data are, so cells are kept instead: `NUM_CELLS` over the range
    of the log-variance, each 0.7 % of a standard deviation wide. A cell goes into one bin whole: the edges of the bins
    are those of the functions moved by less than that, and no sample is left out.
    """

    NUM_CELLS = 4096

    def __init__(self, num_bins=15, binning="mass", name=None, dtype=None):
        _check_bins(num_bins, binning)
        super().__init__((3, self.NUM_CELLS), name=name, dtype=dtype)
        self.num_bins, self.binning = num_bins, binning

    def batch_totals(self, z, std, weight):
        """Weight, variance and squared error of each cell."""
        cell = (2 * ops.log(std) / LOG_VARIANCE_LIMIT + 1) * (self.NUM_CELLS / 2)
        cell = ops.clip(ops.floor(cell), 0, self.NUM_CELLS - 1)
        variance, error = ops.square(std), ops.square(z * std)
        return ops.stack([_totals_by(cell, weight * x, self.NUM_CELLS) for x in (1.0, variance, error)])

    def bins(self, totals):
        """Count, mean variance and mean squared error of each bin, 0 where a bin is empty."""
        count, variance, _ = ops.unstack(totals, 3)
        index = _bin_of_groups(ops, self.scale(ops.divide_no_nan(variance, count)), count, self.num_bins, self.binning)
        count, variance, error = (_totals_by(index, row, self.num_bins) for row in ops.unstack(totals, 3))
        return count, ops.divide_no_nan(variance, count), ops.divide_no_nan(error, count)

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "num_bins": self.num_bins, "binning": self.binning}


@keras.saving.register_keras_serializable("tfprune")
class ExpectedNormalizedCalibrationError(_BinnedVariance):
    """Predicted against observed noise over bins of the standard deviation (ENCE); see `tfprune.metrics.ence`.

    For a homoskedastic model there is one bin: the result is then |RMV - RMSE| / RMV over all samples. The edges of the
    bins are rounded to 0.7 % of a standard deviation, so that the state is small whatever the number of samples.

    Args:
        num_bins: number of bins.
        binning: "mass" (equally many samples in each) or "width" (equally wide in the standard deviation).
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Levi et al., "Evaluating and Calibrating Uncertainty Prediction in Regression Tasks", 2022.
    """

    def __init__(self, num_bins=15, binning="mass", name="ence", dtype=None):
        super().__init__(num_bins=num_bins, binning=binning, name=name, dtype=dtype)

    def scale(self, variance):
        """Bins are equally wide in the standard deviation."""
        return ops.sqrt(variance)

    def value(self, totals):
        """Mean over the bins that hold samples."""
        count, variance, error = self.bins(totals)
        gap = ops.divide_no_nan(ops.abs(ops.sqrt(variance) - ops.sqrt(error)), ops.sqrt(variance))
        return ops.divide_no_nan(ops.sum(gap), ops.sum(ops.cast(count != 0, gap.dtype)))


@keras.saving.register_keras_serializable("tfprune")
class RegressionUncertaintyCalibrationError(_BinnedVariance):
    """Variance against squared error over bins of the variance (UCE); see `tfprune.metrics.regression_uce`.

    For a homoskedastic model there is one bin: the result is then |MSE - variance| over all samples. The edges of the
    bins are rounded as those of `ExpectedNormalizedCalibrationError`.

    Args:
        num_bins: number of bins.
        binning: "mass" (equally many samples in each) or "width" (equally wide in the variance).
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Laves et al., "Well-Calibrated Regression Uncertainty in Medical Imaging with Deep Learning", 2020.
    """

    def __init__(self, num_bins=15, binning="mass", name="regression_uce", dtype=None):
        super().__init__(num_bins=num_bins, binning=binning, name=name, dtype=dtype)

    def scale(self, variance):
        """Bins are equally wide in the variance."""
        return variance

    def value(self, totals):
        """Mean over samples."""
        count, variance, error = self.bins(totals)
        return ops.divide_no_nan(ops.sum(count * ops.abs(error - variance)), ops.sum(count))


def _totals_by(index, values, num_groups):
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
