"""How is the confidence of a trained model put right afterwards? Calibrators: layers fitted on validation data.

A calibrator maps logits to logits. It is fitted on samples that the model was not trained on, with the model left as it
is, and `attach` gives a new model that ends in it:

    TemperatureScaling      one number; never changes which class is predicted
    VectorScaling           a factor and a bias for each class
    MatrixScaling           a matrix and a bias, with penalties on what is not on the diagonal
    IsotonicCalibration     a monotone step function for each class
    HistogramBinning        a table of bins for each class

The first is the one to start with. All others may change the predicted class: report the accuracy after.

A saved model that holds a calibrator loads after `import keras, tfprune`: Keras knows the classes that it has seen.

Example:
    >>> calibrator = TemperatureScaling().fit(model, (x_val, y_val))
    >>> calibrated = calibrator.attach(model)
    >>> calibrated.save("calibrated.keras")
"""

from tfprune.uncertainty.calibrators.base import CalibratedPredictive, Calibrator
from tfprune.uncertainty.calibrators.binning import HistogramBinning, IsotonicCalibration
from tfprune.uncertainty.calibrators.scaling import MatrixScaling, TemperatureScaling, VectorScaling

__all__ = [
    "CalibratedPredictive",
    "Calibrator",
    "HistogramBinning",
    "IsotonicCalibration",
    "MatrixScaling",
    "TemperatureScaling",
    "VectorScaling",
]
