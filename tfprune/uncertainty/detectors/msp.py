"""MSP: how far is the largest softmax probability from one?"""

from tfprune.metrics.detection import msp_score
from tfprune.uncertainty.detectors.base import Detector


def score(logits):
    """log((1 - p) / p) of the largest softmax probability p, (samples,): ranks as -p, without ties where p is 1.0.

    Args:
        logits: (samples, classes).
    """
    return msp_score(logits)


class MSP(Detector):
    """Maximum softmax probability, in logit space: the baseline that every other detector is compared with.

    Args:
        kwargs: `name`.

    Example:
        >>> scores = MSP().fit(model).score(x)

    Source: Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples", 2017.
    """

    name = "msp"

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.logits)
