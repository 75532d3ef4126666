"""How good is a model of numbers, and does it know how wrong it is?

`evaluate_regression` reads a Gaussian head (see `tfprune.losses`) in one pass and gives one flat row:

    gaussian_nll, crps, rmse                          proper scores, and the plain error (units of the targets)
    interval_calibration_error,
    quantile_calibration_error                        nominal against observed coverage, mean difference
    picp_90, mpiw_90, sharpness                       coverage and mean width of 90 % intervals; root mean variance
    ence, regression_uce                              predicted against observed noise, in 15 bins of equal mass
    std_scale                                         the factor the standard deviations should be multiplied by
    homoskedastic                                     whether all predicted noise is equal: ence and regression_uce
                                                      then have one bin, and only compare its mean size
    coverage_nominal, coverage_observed               lists: the reliability diagram of central intervals
    num_samples, num_targets
    parameters, multiply_adds, bytes, compression_ratio, theoretical_speedup, latency_ms    as from `evaluate`
"""

import warnings

import keras
import numpy as np

from tfprune.evaluation.expense import cost_row
from tfprune.metrics import regression
from tfprune.predictions import Forward, batches, check_batch_size, checked_trace


def evaluate_regression(model, data, dense=None, batch_size=256, latency=False):
    """Measures the errors and the calibration of a regression model with a Gaussian head; returns one flat row.

    Args:
        model: a built Keras model with one output (samples, 2k): k means, then k raw log-variances.
        data: `(x, y)` arrays, or a `tf.data.Dataset` of `(x, y)`, batched or not. `y` is (samples, k), or (samples,)
            where k is 1.
        dense: the dense model to compare the cost with, or what `cost` said of it. None takes the one that
            `tfprune.shrink` recorded on the ticket, if any.
        batch_size: samples at a time, for arrays and unbatched data sets.
        latency: whether to measure `latency_ms` (median, one sample).

    Returns:
        A flat dict of ints, floats, lists and None, ready for JSON. The module's text lists its keys.

    Raises:
        ValueError: for an output that is not 2k columns, targets of another shape, empty data, or NaN in either.
        TypeError: for a model that is no Keras model.

    Example:
        >>> row = tfprune.evaluate_regression(ticket, (x_test, y_test))
        >>> row["crps"], row["picp_90"]

    Source: Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression", 2018.
    """
    check_batch_size(batch_size)
    if not isinstance(model, keras.Model):
        raise TypeError(f"evaluate_regression needs a Keras model. Received: {type(model).__name__}.")
    traced, forward = checked_trace(model), Forward(model)
    outputs, targets = [], []
    for x, y in batches(data, model, batch_size, "data"):
        outputs.append(keras.ops.convert_to_numpy(keras.ops.cast(forward(x), "float64")))
        targets.append(np.asarray(y, dtype=np.float64))
    if not outputs:
        raise ValueError("evaluate_regression needs at least one sample. Received: data without any.")
    mean, std = regression.mean_and_std(np.concatenate(outputs))
    row = _row(mean, std, _like(np.concatenate(targets), mean))
    return {**row, **cost_row(model, traced, dense, latency)}


def _row(mean, std, targets):
    given, table = (mean, std, targets), regression.coverage_table(mean, std, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of homoskedastic models, which the row says
        ence, uce = regression.ence(*given), regression.regression_uce(*given)
    return {
        "gaussian_nll": regression.gaussian_nll(*given),
        "crps": regression.gaussian_crps(*given),
        "rmse": float(np.sqrt(np.mean((targets - mean) ** 2))),
        "interval_calibration_error": regression.coverage_calibration_error(*given, kind="interval"),
        "quantile_calibration_error": regression.coverage_calibration_error(*given, kind="quantile"),
        "picp_90": regression.picp(*given, level=0.9),
        "mpiw_90": regression.mpiw(std, level=0.9),
        "sharpness": regression.sharpness(std),
        "ence": ence,
        "regression_uce": uce,
        "std_scale": regression.std_scale(*given),
        "homoskedastic": bool(std.min() == std.max()),
        "num_samples": len(mean),
        "num_targets": mean.shape[1],
        "coverage_nominal": table["nominal"],
        "coverage_observed": table["observed"],
    }


def _like(targets, mean):
    """Targets in the shape of the means."""
    targets = targets[:, None] if targets.ndim == 1 else targets
    if targets.shape != mean.shape:
        raise ValueError(
            f"The targets must be of shape (samples, {mean.shape[-1]}), one for each mean of the head. "
            f"Received: {targets.shape}."
        )
    return targets
