"""On which numbers were the metrics agreed? Data that anyone can draw again, and what other packages say of them.

The data need nothing but `numpy.random.RandomState`. The values were computed by netcal 1.4.0, torchmetrics 1.9.0,
tensorflow-probability 0.25, relplot 1.0.3, uncertainty-calibration 0.1.4, uncertainty-toolbox 0.1.1, pytorch-ood 0.4.0
and scikit-learn 1.9.1, by all that have the metric. Where none has it right (see the comments), by NumPy from the
formula.
"""

import numpy as np


def classifier_a():
    """Logits (2000, 10) and labels of a model that is over-confident everywhere: blind to mistakes of binning."""
    logits, _, labels = _draw(0, 2000)
    return 2 * logits, labels


def classifier_b():
    """Logits (4000, 10) and labels, over-confident here and under-confident there: mistakes of binning show."""
    logits, probabilities, labels = _draw(3, 4000)
    return np.where(probabilities.max(axis=1, keepdims=True) > 0.6, 0.4 * logits, 2.5 * logits), labels


def detector(tied=False):
    """Scores of 1,000 known samples and of 500 strangers; `tied` rounds them to one decimal."""
    random = np.random.RandomState(1)
    known, strange = random.randn(1000), random.randn(500) + 1
    return (np.round(known, 1), np.round(strange, 1)) if tied else (known, strange)


def regressor():
    """Means, standard deviations (0.7 of the true ones) and targets, (1000,) each."""
    random = np.random.RandomState(2)
    x = random.uniform(0, 6, 1000)
    mean, std = np.sin(x), 0.1 + 0.1 * x
    return mean, 0.7 * std, mean + std * random.randn(1000)


def _draw(seed, num_samples):
    random = np.random.RandomState(seed)
    logits = 2 * random.randn(num_samples, 10)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    labels = (random.rand(num_samples, 1) > np.cumsum(probabilities, axis=1)).sum(axis=1).clip(0, 9)
    return logits, probabilities, labels


# name -> (of classifier_a, of classifier_b), to the digits that were published: they agree to half of the last one
CLASSIFIERS = {
    "accuracy": (".541500", ".534000"),
    "mean_confidence": (".742732", ".583849"),
    "ece": (".2012319886", ".2527485780"),
    "ece of 10 bins": (".2012319", ".2503545"),
    "ece, l2": (".2112175", ".2696988"),
    "ece, max": (".2956659", ".3884198"),
    "average_calibration_error": (".1758011", ".2484401"),
    "equal_mass_ece": (".2012320", ".2546367954674"),
    "debiased_calibration_error": (".2100461", ".2694940"),
    "smooth_ece": (".2022703", ".1828055"),
    "smooth_ece, sigma 0.05": (".2019430", ".2435377"),
    "classwise_ece": (".0449187459", ".0381036498"),
    "adaptive_calibration_error": (".0433396", ".0400909"),  # by NumPy
    "thresholded_adaptive_calibration_error": (".1013743", ".0587048"),  # by NumPy
    "uce": (".1535318974", ".3324869882"),
    "ks_calibration_error": (".2012329", ".1028497"),  # by NumPy
    "nll": ("1.6147733798", "1.7502355044"),  # the last digit of the second as scikit-learn 1.9.1 has it
    "brier": (".6604139284", ".7281692665"),
    "entropy": (".7033139", "1.1671220"),
    # The five parts by NumPy: tensorflow-probability broadcasts the class frequencies along the wrong axis.
    "brier uncertainty": (".8997335", ".8997990"),
    "brier resolution": (".2187451", ".2104748"),
    "brier reliability": (".0482011", ".0041130"),
    "brier within_bin_variance": (".0843639", ".0935517"),
    "brier within_bin_covariance": (".0765697", ".0294098"),
    "aurc": (".2867539", ".4784892"),
    "optimal_aurc": (".1264519", ".1310483"),
    "eaurc": (".1603020", ".3474409"),
    "augrc": (".1768047", ".2449630"),
    "temperature": ("1.9925093", "1.8426103"),
    "nll at the temperature": ("1.3251798", "1.5917566"),
    "ece at the temperature": (".0169881", ".2172714"),
}
# name -> (of the scores as they are, of the tied ones)
DETECTORS = {
    "auroc": (".770796", ".771293"),
    "aupr_out": (".640306", ".640786"),
    "aupr_in": (".854236", ".854782"),
    "average_precision_out": (".641851", ".635180"),
    "average_precision_in": (".854412", ".851736"),
    "fpr95": (".735", ".736"),
    "fpr95, positive id": (".716", ".724"),
    "detection_accuracy": (".7070", ".7025"),
}
REGRESSORS = {
    "gaussian_nll": (".4796777",),
    "gaussian_crps": (".2223685",),
    "sharpness": (".2994613",),
    "interval coverage error": (".09798",),
    "quantile coverage error": (".0489542",),
    "interval coverage error, l2": (".1063699",),
    "quantile coverage error, l2": (".0533719",),
    "interval coverage error, area": (".0989697",),
    "quantile coverage error, area": (".0494384",),
    "picp": (".771",),
    "mpiw": (".9037181",),
    "ence, width": (".3811163",),
    "regression_uce, width": (".0906926",),
    "std_scale": ("1.3894447",),
}

# published by a package that computes in float32, so the seventh digit is its own
SINGLE_PRECISION = ("ece of 10 bins", "ece, l2", "ece, max")


def deviation(name, value, published):
    """How far a value is from a published one, and how far it may be: half of the last digit, or of float32's."""
    rounding = 0.5 * 10.0 ** -len(published.partition(".")[2])
    return abs(value - float(published)), max(1.2 * rounding, 2e-7 * (name in SINGLE_PRECISION))
