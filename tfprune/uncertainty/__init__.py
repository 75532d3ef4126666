"""How sure may a model be? Calibrators, models of uncertainty, and detectors of strangers.

    calibrators/        put the confidence right on validation data: temperature, vector, matrix, isotonic, histogram
    mc_dropout.py, ensemble.py, laplace.py
                        many answers in place of one, and how much they disagree
    detectors/          scores that tell out-of-distribution samples: one file each
    leak.py             which samples something was fitted on

What predicts (a calibrated model, `MCDropout`, `Ensemble`, `LastLayerLaplace`) goes into `tfprune.evaluate` like any
Keras model; detectors go into its argument `detectors`.
"""

from tfprune.uncertainty import detectors
from tfprune.uncertainty.calibrators import (
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from tfprune.uncertainty.ensemble import Ensemble
from tfprune.uncertainty.laplace import LastLayerLaplace
from tfprune.uncertainty.leak import Fingerprint, LeakError
from tfprune.uncertainty.mc_dropout import MCDropout
from tfprune.uncertainty.predictive import Predictive, uncertainty_of

__all__ = [
    "Ensemble",
    "Fingerprint",
    "HistogramBinning",
    "IsotonicCalibration",
    "LastLayerLaplace",
    "LeakError",
    "MCDropout",
    "MatrixScaling",
    "Predictive",
    "TemperatureScaling",
    "VectorScaling",
    "detectors",
    "uncertainty_of",
]
