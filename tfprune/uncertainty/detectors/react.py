"""ReAct: how much energy is left when unusually large features are cut down?"""

import numpy as np

from tfprune.uncertainty.detectors.base import Detector, check_percentile
from tfprune.uncertainty.detectors.energy import score as energy


def score(features, weights, bias, threshold):
    """Energy of the logits of features clipped at the threshold, (samples,).

    Args:
        features: (samples, features).
        weights: (features, classes).
        bias: (classes,).
        threshold: largest value that is kept.
    """
    return energy(np.minimum(np.asarray(features, dtype=np.float64), threshold) @ weights + bias)


class ReAct(Detector):
    """Energy of rectified activations: features above a percentile of the training features are clipped to it.

    Learns from samples. The percentile is taken over all features of all samples of this very model.

    Args:
        percentile: in [0, 100), 90 by default.
        kwargs: `feature_layer`, `name`.

    Raises:
        ValueError: in `fit`, where clipping leaves all samples alike, as with more zeros than the percentile.

    Example:
        >>> scores = ReAct(percentile=95).fit(model, (x_train, y_train)).score(x)

    Source: Sun, Guo and Li, "ReAct: Out-of-distribution Detection With Rectified Activations", 2021.
    """

    name = "react"
    needs = ("logits", "features", "head")
    learns_from = "samples"

    def __init__(self, percentile=90, **kwargs):
        super().__init__(**kwargs)
        self.percentile = check_percentile(percentile)

    def learn(self, seen):
        """The threshold."""
        features = np.asarray(seen.features, dtype=np.float64)
        threshold = np.percentile(features, self.percentile)
        if np.all(np.minimum(features, threshold) == np.minimum(features[0], threshold)):
            raise ValueError(
                f"{self.name} cannot be fitted: clipped at {threshold:.3g}, the {self.percentile}th percentile, all "
                "samples have the same features. Choose a larger percentile."
            )
        self.choices["threshold"] = float(threshold)
        return {"threshold": threshold}

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.features, self.head.weights, self.head.bias, **self.statistics)
