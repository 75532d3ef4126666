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

from tfprune.metrics.regression.coverage import CoverageCalibrationError, coverage_calibration_error, coverage_table
from tfprune.metrics.regression.gaussians import mean_and_std
from tfprune.metrics.regression.scores import (
    CRPS,
    GaussianNegativeLogLikelihood,
    PredictionIntervalCoverage,
    PredictionIntervalWidth,
    Sharpness,
    StandardDeviationScale,
    gaussian_crps,
    gaussian_nll,
    mpiw,
    picp,
    sharpness,
    std_scale,
)
from tfprune.metrics.regression.variance import (
    ExpectedNormalizedCalibrationError,
    RegressionUncertaintyCalibrationError,
    ence,
    regression_uce,
    variance_table,
)

__all__ = [
    "CRPS",
    "CoverageCalibrationError",
    "ExpectedNormalizedCalibrationError",
    "GaussianNegativeLogLikelihood",
    "PredictionIntervalCoverage",
    "PredictionIntervalWidth",
    "RegressionUncertaintyCalibrationError",
    "Sharpness",
    "StandardDeviationScale",
    "coverage_calibration_error",
    "coverage_table",
    "ence",
    "gaussian_crps",
    "gaussian_nll",
    "mean_and_std",
    "mpiw",
    "picp",
    "regression_uce",
    "sharpness",
    "std_scale",
    "variance_table",
]
