"""GradNorm: how large is the gradient that would make the prediction uniform?"""

import numpy as np

from tfprune.metrics.scores import softmax
from tfprune.uncertainty.detectors.base import Detector


def score(features, logits):
    """-|features|_1 sum_k |C p_k - 1|, (samples,).

    C times this is the L1 norm of the gradient, with respect to the head's weights, of the cross-entropy to the uniform
    distribution: it needs no backward pass.

    Args:
        features: (samples, features).
        logits: (samples, classes).
    """
    probabilities = softmax(logits)
    lengths = np.abs(np.asarray(features, dtype=np.float64)).sum(axis=1)
    return -lengths * np.abs(probabilities.shape[1] * probabilities - 1).sum(axis=1)


class GradNorm(Detector):
    """Norm of the gradient of the head's weights, negated, in closed form: large for known samples.

    Args:
        kwargs: `feature_layer`, `name`.

    Example:
        >>> scores = GradNorm().fit(model).score(x)

    Source: Huang, Geng and Li, "On the Importance of Gradients for Detecting Distributional Shifts in the Wild", 2021.
    """

    name = "gradnorm"
    needs = ("logits", "features", "head")

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.features, batch.logits)
