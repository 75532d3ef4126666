"""SCALE: how much energy is there when features are scaled up by how concentrated they are?"""

import numpy as np

from tfprune.uncertainty.detectors.ash import choose_kept, largest, sharpening
from tfprune.uncertainty.detectors.base import Detector, check_percentile
from tfprune.uncertainty.detectors.energy import score as energy


def score(features, weights, bias, kept):
    """Energy of the logits of all features times exp(their sum / sum of the largest), (samples,).

    Args:
        features: (samples, features).
        weights: (features, classes).
        bias: (classes,).
        kept: how many features of each sample count as the largest.
    """
    features = np.asarray(features, dtype=np.float64)
    return energy(features * sharpening(features, largest(features, kept)) @ weights + bias)


class SCALE(Detector):
    """The scaling of ASH-S without its pruning: all features are kept. Made for features of a ReLU.

    Args:
        percentile: share of the features that do not count as the largest, in [0, 100), 85 by default.
        kwargs: `feature_layer`, `name`.

    Raises:
        ValueError: in `fit`, where no feature counts.

    Example:
        >>> scores = SCALE().fit(model).score(x)

    Source: Xu et al., "Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement", 2024.
    """

    name = "scale"
    needs = ("logits", "features", "head")

    def __init__(self, percentile=85, **kwargs):
        super().__init__(**kwargs)
        self.percentile = check_percentile(percentile)

    def check_source(self, source):
        """At least one feature must count."""
        super().check_source(source)
        choose_kept(self, len(source.linear.weights))

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.features, self.head.weights, self.head.bias, self.choices["num_kept"])
