"""Do 90 % of the targets fall where 90 % should?"""

import math

import keras
import numpy as np
from keras import ops
from scipy import special

from tfprune.metrics.regression.gaussians import GaussianMetric, check_choice, check_whole, std_and_z, totals_by

KINDS = ("interval", "quantile")
NORMS = ("l1", "l2", "max", "area")


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
    _, z = std_and_z(mean, std, targets)
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


def _check_coverage(kind, norm, num_levels):
    check_choice("kind", kind, KINDS)
    check_choice("norm", norm, NORMS)
    check_whole("num_levels", num_levels, 2)


@keras.saving.register_keras_serializable("tfprune")
class CoverageCalibrationError(GaussianMetric):
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
        return totals_by(_level_index(ops, rank, self.kind, self.num_levels), weight, self.num_levels)

    def value(self, totals):
        """The distance of the coverage curve from the diagonal."""
        running = ops.cumsum(totals)
        observed = running / ops.where(running[-1] == 0, 1.0, running[-1])
        distance = _distance(ops, observed - np.arange(self.num_levels) / (self.num_levels - 1), self.norm)
        return ops.where(running[-1] == 0, ops.zeros_like(distance), distance)

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "kind": self.kind, "norm": self.norm, "num_levels": self.num_levels}
