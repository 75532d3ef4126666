"""How sure is the model, and how right is it to be? Calibration, scoring rules, and detection of strangers.

NumPy functions, computed in float64:
    accuracy, mean_confidence, nll, brier, entropy      (scores.py)
    ece, uce, reliability_table                         (calibration.py)
    auroc, aupr_out, aupr_in, fpr95, detection,
    msp_score, entropy_score                            (detection.py)
    mean_and_std, gaussian_nll, gaussian_crps, picp, mpiw, sharpness, std_scale, ence, regression_uce, variance_table,
    coverage_calibration_error, coverage_table          (regression.py)
Keras metrics for `model.compile`: ExpectedCalibrationError, UncertaintyCalibrationError; for the Gaussian heads of
`tfprune.losses`: GaussianNegativeLogLikelihood, CRPS, CoverageCalibrationError, PredictionIntervalCoverage,
PredictionIntervalWidth, ExpectedNormalizedCalibrationError, RegressionUncertaintyCalibrationError, Sharpness,
StandardDeviationScale.

`tfprune.evaluate` computes those of classifiers in one pass over a data set.
"""

from tfprune.metrics.calibration import (
    ExpectedCalibrationError,
    UncertaintyCalibrationError,
    ece,
    reliability_table,
    uce,
)
from tfprune.metrics.detection import aupr_in, aupr_out, auroc, detection, entropy_score, fpr95, msp_score
from tfprune.metrics.regression import (
    CRPS,
    CoverageCalibrationError,
    ExpectedNormalizedCalibrationError,
    GaussianNegativeLogLikelihood,
    PredictionIntervalCoverage,
    PredictionIntervalWidth,
    RegressionUncertaintyCalibrationError,
    Sharpness,
    StandardDeviationScale,
    coverage_calibration_error,
    coverage_table,
    ence,
    gaussian_crps,
    gaussian_nll,
    mean_and_std,
    mpiw,
    picp,
    regression_uce,
    sharpness,
    std_scale,
    variance_table,
)
from tfprune.metrics.scores import accuracy, brier, entropy, mean_confidence, nll, softmax

__all__ = [
    "CRPS",
    "CoverageCalibrationError",
    "ExpectedCalibrationError",
    "ExpectedNormalizedCalibrationError",
    "GaussianNegativeLogLikelihood",
    "PredictionIntervalCoverage",
    "PredictionIntervalWidth",
    "RegressionUncertaintyCalibrationError",
    "Sharpness",
    "StandardDeviationScale",
    "UncertaintyCalibrationError",
    "accuracy",
    "aupr_in",
    "aupr_out",
    "auroc",
    "brier",
    "coverage_calibration_error",
    "coverage_table",
    "detection",
    "ece",
    "ence",
    "entropy",
    "entropy_score",
    "fpr95",
    "gaussian_crps",
    "gaussian_nll",
    "mean_and_std",
    "mean_confidence",
    "mpiw",
    "msp_score",
    "nll",
    "picp",
    "regression_uce",
    "reliability_table",
    "sharpness",
    "softmax",
    "std_scale",
    "uce",
    "variance_table",
]
