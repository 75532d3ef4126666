"""How sure is the model, and how right is it to be? Calibration, scoring rules, and detection of strangers.

NumPy functions, computed in float64:
    accuracy, mean_confidence, nll, brier, entropy      (scores.py)
    ece, uce, reliability_table                         (calibration.py)
    auroc, aupr_out, aupr_in, fpr95, detection,
    msp_score, entropy_score                            (detection.py)
Keras metrics for `model.compile`: ExpectedCalibrationError, UncertaintyCalibrationError.

`tfprune.evaluate` computes all of them in one pass over a data set.
"""

from tfprune.metrics.calibration import (
    ExpectedCalibrationError,
    UncertaintyCalibrationError,
    ece,
    reliability_table,
    uce,
)
from tfprune.metrics.detection import aupr_in, aupr_out, auroc, detection, entropy_score, fpr95, msp_score
from tfprune.metrics.scores import accuracy, brier, entropy, mean_confidence, nll, softmax

__all__ = [
    "ExpectedCalibrationError",
    "UncertaintyCalibrationError",
    "accuracy",
    "aupr_in",
    "aupr_out",
    "auroc",
    "brier",
    "detection",
    "ece",
    "entropy",
    "entropy_score",
    "fpr95",
    "mean_confidence",
    "msp_score",
    "nll",
    "reliability_table",
    "softmax",
    "uce",
]
