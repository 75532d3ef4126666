"""How often is the model right when it gives a class this probability? Isotonic regression and histogram binning.

Both treat each class by itself, as "this class or another one" (with two classes only the second, the first gets the
rest), and then divide by the sum over classes. So the predicted class can change: report the accuracy after. A sample
that gets 0 for every class keeps the probabilities it had. The layers give log-probabilities, those of 0 being the
logarithm of the smallest normal float32, -87.3.
"""

import keras
import numpy as np
from keras import ops

from tfprune.metrics.calibration import bin_index, check_num_bins
from tfprune.metrics.scores import softmax
from tfprune.predictions import NLL_EPSILON
from tfprune.structure.cost import RULES
from tfprune.uncertainty.calibrators.base import Calibrator

# What classes get together, where it is 0 but for the rounding of an interpolation.
_NOTHING = 1e-12


class _OneVersusRest(Calibrator):
    """Maps the probability of each class through a table; a subclass says how a table is learned and looked up."""

    def learn_class(self, probabilities, is_class):
        """`{name: (k,) array}` for one class, from its probabilities (n,) and 0/1 of its samples (n,)."""
        raise NotImplementedError

    def look_up(self, probabilities):
        """Calibrated probabilities (classes, n) of probabilities (classes, n)."""
        raise NotImplementedError

    def learn(self, logits, labels):
        """The tables of all classes, (classes, k) each."""
        probabilities = softmax(logits)
        classes = _tabled(probabilities.shape[1])
        tables = [self.learn_class(probabilities[:, k], (labels == k).astype(np.float64)) for k in classes]
        return {name: _stacked([table[name] for table in tables]) for name in tables[0]}

    def calibrate(self, logits):
        """Logarithms of the calibrated probabilities."""
        probabilities = ops.softmax(logits, axis=-1)
        classes = _tabled(self.num_classes)
        found = ops.transpose(self.look_up(ops.transpose(probabilities[:, classes.start :])))
        if self.num_classes == 2:
            found = ops.concatenate([1.0 - found, found], axis=-1)
        total = ops.sum(found, axis=-1, keepdims=True)
        is_told = total > _NOTHING
        shared = found / ops.where(is_told, total, ops.ones_like(total))
        return ops.log(ops.maximum(ops.where(is_told, shared, probabilities), NLL_EPSILON))


@keras.saving.register_keras_serializable("tfprune")
class IsotonicCalibration(_OneVersusRest):
    """Maps the probability of each class through the non-decreasing function that fits best (least squares).

    Between the steps it interpolates; beyond the probabilities seen in fitting it stays at the end values. It can say 0
    or 1 where validation samples of one kind come last, which a likelihood then punishes hard.

    Args:
        name: name of the layer.
        dtype: dtype of the log-probabilities.

    Example:
        >>> calibrator = IsotonicCalibration().fit(model, (x_val, y_val))
        >>> calibrated = calibrator.attach(model)

    Source: Zadrozny and Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates", 2002.
    """

    def __init__(self, name=None, dtype="float32", **kwargs):
        super().__init__(name=name, dtype=dtype, **kwargs)

    def learn_class(self, probabilities, is_class):
        """Where the function bends, and its values there."""
        from sklearn.isotonic import IsotonicRegression

        found = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(probabilities, is_class)
        return {"bends": found.X_thresholds_, "values": found.y_thresholds_}

    def look_up(self, probabilities):
        """Linear interpolation between the bends."""
        from tensorflow import searchsorted  # keras.ops knows a single row only

        bends, values = ops.convert_to_tensor(self.bends), ops.convert_to_tensor(self.values)
        inside = ops.clip(probabilities, bends[:, :1], bends[:, -1:])
        after = ops.cast(searchsorted(bends, inside, side="right"), "int32")
        after = ops.clip(after, min(1, bends.shape[1] - 1), bends.shape[1] - 1)
        before = ops.maximum(after - 1, 0)
        left, right = (ops.take_along_axis(bends, index, axis=1) for index in (before, after))
        low, high = (ops.take_along_axis(values, index, axis=1) for index in (before, after))
        width = ops.where(right > left, right - left, ops.ones_like(left))
        return low + (high - low) * ops.clip((inside - left) / width, 0.0, 1.0)


@keras.saving.register_keras_serializable("tfprune")
class HistogramBinning(_OneVersusRest):
    """Maps the probability of each class to how often the class occurred among the validation samples of its bin.

    Bins are of equal width and closed on the left. An empty bin gives its centre.

    Args:
        num_bins: number of bins.
        name: name of the layer.
        dtype: dtype of the log-probabilities.

    Example:
        >>> calibrator = HistogramBinning(num_bins=10).fit(model, (x_val, y_val))
        >>> calibrated = calibrator.attach(model)

    Source: Zadrozny and Elkan, "Obtaining calibrated probability estimates from decision trees and naive Bayesian
    classifiers", 2001.
    """

    def __init__(self, num_bins=15, name=None, dtype="float32", **kwargs):
        super().__init__(name=name, dtype=dtype, **kwargs)
        check_num_bins(num_bins)
        self.num_bins = int(num_bins)

    def learn_class(self, probabilities, is_class):
        """Relative frequency of the class in each bin."""
        index = bin_index(probabilities, self.num_bins)
        count = np.bincount(index, minlength=self.num_bins)
        occurred = np.bincount(index, weights=is_class, minlength=self.num_bins)
        centre = (np.arange(self.num_bins) + 0.5) / self.num_bins
        return {"frequencies": np.where(count > 0, occurred / np.maximum(count, 1), centre)}

    def look_up(self, probabilities):
        """The frequency in the bin."""
        index = ops.minimum(ops.cast(ops.floor(probabilities * self.num_bins), "int32"), self.num_bins - 1)
        return ops.take_along_axis(ops.convert_to_tensor(self.frequencies), index, axis=1)

    def get_config(self):
        """What `__init__` takes, and what was learned but for the weights."""
        return {**super().get_config(), "num_bins": self.num_bins}


# Tables are looked up, not multiplied by, for `tfprune.structure.cost`.
RULES.update(dict.fromkeys((IsotonicCalibration, HistogramBinning), lambda layer, inputs, outputs: 0))


def _tabled(num_classes):
    """The classes that have a table: of two only the second."""
    return range(1 if num_classes == 2 else 0, num_classes)


def _stacked(rows):
    """Rows of one length: shorter ones repeat their last value, which changes no interpolation."""
    length = max(map(len, rows))
    return np.stack([np.pad(row, (0, length - len(row)), mode="edge") for row in rows])
