"""Where the model says that it is unsure, is it as wrong as it says?"""

import warnings

import keras
import numpy as np
from keras import ops

from tfprune.losses import LOG_VARIANCE_LIMIT
from tfprune.metrics.regression.gaussians import GaussianMetric, check_choice, check_whole, std_and_z, totals_by

BINNINGS = ("mass", "width")


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
    std, z = std_and_z(mean, std, targets)
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


def _check_bins(num_bins, binning):
    check_whole("num_bins", num_bins, 1)
    check_choice("binning", binning, BINNINGS)


class _BinnedVariance(GaussianMetric):
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
        return ops.stack([totals_by(cell, weight * x, self.NUM_CELLS) for x in (1.0, variance, error)])

    def bins(self, totals):
        """Count, mean variance and mean squared error of each bin, 0 where a bin is empty."""
        count, variance, _ = ops.unstack(totals, 3)
        index = _bin_of_groups(ops, self.scale(ops.divide_no_nan(variance, count)), count, self.num_bins, self.binning)
        count, variance, error = (totals_by(index, row, self.num_bins) for row in ops.unstack(totals, 3))
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
