"""Entropy: over how many classes is the softmax spread?"""

from tfprune.metrics.detection import entropy_score
from tfprune.uncertainty.detectors.base import Detector


def score(logits):
    """Entropy of the softmax in nats, (samples,).

    Args:
        logits: (samples, classes).
    """
    return entropy_score(logits)


class Entropy(Detector):
    """Entropy of the softmax, computed from logits, so that it keeps its order where the softmax saturates.

    Args:
        kwargs: `name`.

    Example:
        >>> scores = Entropy().fit(model).score(x)

    Source: Chan et al., "Entropy Maximization and Meta Classification for Out-of-Distribution Detection in Semantic
    Segmentation", 2021.
    """

    name = "entropy"

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.logits)
