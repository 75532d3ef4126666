"""ASH: how much energy is left when all but the largest features are removed?"""

import numpy as np

from tfprune.uncertainty.detectors.base import Detector, check_percentile
from tfprune.uncertainty.detectors.energy import score as energy

VARIANTS = ("b", "p", "s")


def num_kept(num_features, percentile):
    """k = n - round(n p / 100), the number of features that stay."""
    return num_features - round(num_features * percentile / 100)


def largest(features, kept):
    """Bool array: the `kept` largest features of each row; of equal ones the first."""
    order = np.argsort(-features, axis=1, kind="stable")[:, :kept]
    mask = np.zeros(features.shape, bool)
    np.put_along_axis(mask, order, True, axis=1)
    return mask


def sharpening(features, mask):
    """exp(sum of all features / sum of those in the mask), (samples, 1); 1 where the latter is 0, as for dead rows."""
    whole, part = features.sum(axis=1, keepdims=True), np.where(mask, features, 0.0).sum(axis=1, keepdims=True)
    return np.where(part == 0, 1.0, np.exp(whole / np.where(part == 0, 1.0, part)))


def shape(features, kept, variant="b"):
    """Features with all but the largest set to zero, (samples, features).

    Args:
        features: (samples, features).
        kept: k, how many stay.
        variant: "p": these stay as they are. "b": each becomes the sum of all features / k. "s": they are multiplied by
            exp(sum of all features / sum of these).
    """
    features = np.asarray(features, dtype=np.float64)
    mask = largest(features, kept)
    if variant == "b":
        return np.where(mask, features.sum(axis=1, keepdims=True) / kept, 0.0)
    factor = sharpening(features, mask) if variant == "s" else 1.0
    return np.where(mask, features * factor, 0.0)


def score(features, weights, bias, kept, variant="b"):
    """Energy of the logits of shaped features, (samples,).

    Args:
        features: (samples, features).
        weights: (features, classes).
        bias: (classes,).
        kept: how many features of each sample stay.
        variant: "b", "p" or "s", as in `shape`.
    """
    return energy(shape(features, kept, variant) @ weights + bias)


def choose_kept(detector, num_features):
    """Records in a detector's choices how many features its percentile keeps, at least one."""
    kept = num_kept(num_features, detector.percentile)
    if kept < 1:
        raise ValueError(
            f"{detector.name} keeps none of {num_features} features with percentile={detector.percentile}. "
            f"Choose a percentile below {100 - 50 / num_features:.4g}."
        )
    detector.choices["num_kept"] = kept


class ASH(Detector):
    """Activation shaping: of each sample only the largest features reach the head. Made for features of a ReLU.

    Args:
        variant: "b" (binarize, default), "p" (prune) or "s" (scale), as in `shape`.
        percentile: share of the features that are removed, in [0, 100), 90 by default. At least one must stay.
        kwargs: `feature_layer`, `name`.

    Raises:
        ValueError: in `fit`, where no feature stays.

    Example:
        >>> scores = ASH("s", percentile=80, name="ash_s").fit(model).score(x)

    Source: Djurisic et al., "Extremely Simple Activation Shaping for Out-of-Distribution Detection", 2023.
    """

    name = "ash"
    needs = ("logits", "features", "head")

    def __init__(self, variant="b", percentile=90, **kwargs):
        super().__init__(**kwargs)
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {VARIANTS}. Received: variant={variant!r}.")
        self.variant, self.percentile = variant, check_percentile(percentile)

    def check_source(self, source):
        """At least one feature must stay."""
        super().check_source(source)
        choose_kept(self, len(source.linear.weights))

    def scores(self, batch):
        """Scores of a batch."""
        kept = self.choices["num_kept"]
        return score(batch.features, self.head.weights, self.head.bias, kept, self.variant)
