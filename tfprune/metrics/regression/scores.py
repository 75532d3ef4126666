"""How likely are the targets under the predicted Gaussians, how far off, and how wide are these?"""

import math

import keras
import numpy as np
from keras import ops
from scipy import special

from tfprune.metrics.regression.gaussians import GaussianMean, half_width, positive, std_and_z


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
    std, z = std_and_z(mean, std, targets)
    return float(np.mean(0.5 * math.log(2 * math.pi) + np.log(std) + 0.5 * z**2))


def gaussian_crps(mean, std, targets):
    """Continuous ranked probability score in units of the targets: the absolute error, made fair to a distribution.

    Closed form for the Gaussian: std (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z the standardised error.
    Args and errors as for `gaussian_nll`. Unlike the NLL it grows only linearly with an outlier's error.

    Source: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", 2007.
    """
    std, z = std_and_z(mean, std, targets)
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return float(np.mean(std * (z * special.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))))


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
    _, z = std_and_z(mean, std, targets)
    return float(np.mean(np.abs(z) <= half_width(level)))


def mpiw(std, level=0.9):
    """Mean prediction interval width, in units of the targets, of the central interval of probability `level`.

    Args:
        std: predicted standard deviations, any shape.
        level: nominal probability of the interval, in (0, 1).

    Raises:
        ValueError: if `std` is empty or not positive, or `level` outside (0, 1).
    """
    return float(2 * half_width(level) * np.mean(positive(std)))


def sharpness(std):
    """Root mean predicted variance, in units of the targets: how narrow the predictions are, right or wrong.

    Args:
        std: predicted standard deviations, any shape.

    Raises:
        ValueError: if `std` is empty or not positive.

    Source: Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression", 2018.
    """
    return float(np.sqrt(np.mean(positive(std) ** 2)))


def std_scale(mean, std, targets):
    """Variance scaling: the factor for all standard deviations that makes the data most likely; 1 is calibrated.

    It is sqrt(mean z^2), z the standardised errors, the maximum-likelihood solution in closed form. Above 1 the model
    was too sure; the variances scale by its square. Args and errors as for `gaussian_nll`.

    Source: Laves et al., "Well-Calibrated Regression Uncertainty in Medical Imaging with Deep Learning", 2020.
    """
    _, z = std_and_z(mean, std, targets)
    return float(np.sqrt(np.mean(z**2)))


@keras.saving.register_keras_serializable("tfprune.metrics")  # the loss of the same name is registered in "tfprune"
class GaussianNegativeLogLikelihood(GaussianMean):
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
class CRPS(GaussianMean):
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
class PredictionIntervalCoverage(GaussianMean):
    """Share of targets in the central interval of probability `level` (PICP); see `tfprune.metrics.picp`.

    Args:
        level: nominal probability of the interval, in (0, 1).
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.
    """

    def __init__(self, level=0.9, name="picp", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.level, self.half_width = level, half_width(level)

    def statistic(self, z, std):
        """1 inside the interval, 0 outside, NaN for NaN."""
        return ops.where(ops.isnan(z), z, ops.cast(ops.abs(z) <= self.half_width, z.dtype))

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "level": self.level}


@keras.saving.register_keras_serializable("tfprune")
class PredictionIntervalWidth(GaussianMean):
    """Mean width of the central interval of probability `level` (MPIW); see `tfprune.metrics.mpiw`.

    Args:
        level: nominal probability of the interval, in (0, 1).
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.
    """

    def __init__(self, level=0.9, name="mpiw", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.level, self.half_width = level, half_width(level)

    def statistic(self, z, std):
        """The width of the interval."""
        return 2 * self.half_width * std

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "level": self.level}


class _RootOfMean(GaussianMean):
    def value(self, totals):
        """The root of the mean."""
        return ops.sqrt(super().value(totals))


@keras.saving.register_keras_serializable("tfprune")
class Sharpness(_RootOfMean):
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


@keras.saving.register_keras_serializable("tfprune")
class StandardDeviationScale(_RootOfMean):
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
