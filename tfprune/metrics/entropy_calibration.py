"""Does the model's entropy match how often it is wrong? The uncertainty calibration error, and what to read beside it.

A calibrated model's error rate is not its normalised entropy. So UCE is not 0 for a calibrated model, and an
over-confident one can have a lower UCE. `uce_reference` is the UCE that these predictions would have if they were
calibrated; `entropy_confidence_gap` keeps the bins of entropy and compares the error rate with what the model itself
expects it to be: it is 0 for a calibrated model, up to noise.
"""

import keras
import numpy as np
from keras import ops

from tfprune.metrics.bins import (
    BinnedMetric,
    bin_totals,
    binned_totals,
    calibration_error,
    combine,
    confidence_and_correctness,
    unit_interval,
)
from tfprune.metrics.scores import entropy, probability_columns

# --- NumPy ------------------------------------------------------------------------------------------------------------


def uce(probabilities, labels, num_bins=15):
    """Uncertainty calibration error: mean over samples of |error rate - normalised entropy| of their bin.

    The entropy is divided by log(classes). Read it beside `uce_reference` and `entropy_confidence_gap`: a calibrated
    model's error rate is not its normalised entropy, so this number is not 0 for a perfectly calibrated model and can
    favour an over-confident one.

    Args:
        probabilities: (samples, classes), or one column for a sigmoid.
        labels: integers (samples,) or one-hot (samples, classes).
        num_bins: number of equal-width bins of the entropy.

    Raises:
        ValueError: for labels out of range, empty arrays, or values outside [0, 1].

    Source: Laves et al., "Well-calibrated Model Uncertainty with Temperature Scaling for Dropout Variational
    Inference", 2019. (Their code drops samples of entropy exactly 0; here they are in the first bin.)
    """
    uncertainty, wrong = uncertainty_and_error(probabilities, labels)
    return calibration_error(bin_totals(uncertainty, wrong, num_bins))


def uce_reference(probabilities, num_bins=15):
    """The UCE that these predictions would have, with unlimited samples, if they were calibrated.

    The mean over samples of |1 - mean confidence - mean normalised entropy| of their bin. Needs no labels.

    Args:
        probabilities: (samples, classes), or one column for a sigmoid.
        num_bins: number of equal-width bins of the entropy.

    Raises:
        ValueError: for empty arrays, or values outside [0, 1].
    """
    probabilities = probability_columns(probabilities)
    expected_error = 1.0 - probabilities.max(axis=1)
    return calibration_error(bin_totals(normalized_entropy(probabilities)[0], expected_error, num_bins))


def entropy_confidence_gap(probabilities, labels, num_bins=15):
    """Mean over samples of |error rate - (1 - mean confidence)| of their bin of entropy: 0 for a calibrated model.

    Args and errors as for `uce`.
    """
    confidence, correct = confidence_and_correctness(probabilities, labels)
    uncertainty, _ = normalized_entropy(probabilities)
    return calibration_error(binned_totals(uncertainty, 1.0 - confidence, 1.0 - correct, num_bins))


def uncertainty_table(probabilities, labels, num_bins=15):
    """The numbers of an uncertainty diagram, one entry per bin of the normalised entropy.

    Args and errors as for `uce`.

    Returns:
        {"count": [int], "uncertainty": [mean], "error": [mean], "expected_error": [mean], "num_clipped": int}: the
        normalised entropy, the error rate, 1 - confidence (the means None where a bin is empty), and how many samples
        had a normalised entropy outside [0, 1], because of rounding or of rows that do not sum to 1.
    """
    confidence, correct = confidence_and_correctness(probabilities, labels)
    uncertainty, num_clipped = normalized_entropy(probabilities)
    count, expected, wrong = binned_totals(uncertainty, 1.0 - confidence, 1.0 - correct, num_bins)
    sums = {"uncertainty": bin_totals(uncertainty, correct, num_bins)[1], "error": wrong, "expected_error": expected}
    means = {name: [float(s / n) if n else None for s, n in zip(row, count, strict=True)] for name, row in sums.items()}
    return {"count": [int(n) for n in count], **means, "num_clipped": num_clipped}


def uncertainty_and_error(probabilities, labels):
    """Entropy of each sample over log(classes), clipped to [0, 1], and 1.0 where the predicted class is wrong."""
    return normalized_entropy(probabilities)[0], 1.0 - confidence_and_correctness(probabilities, labels)[1]


def normalized_entropy(probabilities):
    """Entropy of each row over log(classes), clipped to [0, 1], and how many had to be clipped."""
    probabilities = probability_columns(probabilities)
    uncertainty = entropy(probabilities) / np.log(probabilities.shape[1])
    clipped = np.clip(uncertainty, 0.0, 1.0)
    return clipped, int(np.sum(clipped != uncertainty))


# --- Keras ------------------------------------------------------------------------------------------------------------


def _entropy_of(batch):
    uncertainty = batch.entropy / np.log(batch.num_classes)
    return ops.clip(uncertainty, 0.0, 1.0)


@keras.saving.register_keras_serializable("tfprune")
class UncertaintyCalibrationError(BinnedMetric):
    """Uncertainty calibration error (entropy against error rate), usable in `model.compile(metrics=[...])`.

    See `tfprune.metrics.uce` for what it is and for its caveat: it is not 0 for a calibrated model, but `.reference()`.

    Args:
        num_bins: number of equal-width bins.
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Laves et al., "Well-calibrated Model Uncertainty with Temperature Scaling for Dropout Variational
    Inference", 2019.
    """

    num_columns = 3

    def __init__(self, num_bins=15, from_logits=False, name="uce", dtype=None):
        super().__init__(num_bins=num_bins, from_logits=from_logits, name=name, dtype=dtype)

    def columns(self, batch):
        """Normalised entropy, against error; a calibrated model expects an error of 1 - confidence."""
        uncertainty = _entropy_of(batch)
        return uncertainty, (uncertainty, 1.0 - batch.correct, 1.0 - unit_interval(batch.confidence))

    def reference(self):
        """The UCE of these predictions if they were calibrated, a float; see `tfprune.metrics.uce_reference`."""
        totals = ops.convert_to_numpy(self.totals)
        return float(combine(np, totals[0], totals[4] - totals[2], "l1"))


@keras.saving.register_keras_serializable("tfprune")
class EntropyConfidenceGap(BinnedMetric):
    """Error rate against 1 - confidence in bins of entropy, usable in `model.compile(metrics=[...])`.

    See `tfprune.metrics.entropy_confidence_gap`.

    Args:
        num_bins: number of equal-width bins of the normalised entropy.
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.
    """

    def __init__(self, num_bins=15, from_logits=False, name="entropy_confidence_gap", dtype=None):
        super().__init__(num_bins=num_bins, from_logits=from_logits, name=name, dtype=dtype)

    def columns(self, batch):
        """1 - confidence, against error, in bins of normalised entropy."""
        return _entropy_of(batch), (1.0 - unit_interval(batch.confidence), 1.0 - batch.correct)
