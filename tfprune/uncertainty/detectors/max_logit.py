"""MaxLogit: is there a class with much evidence for it?"""

import numpy as np

from tfprune.uncertainty.detectors.base import Detector


def score(logits):
    """-max z, (samples,).

    Args:
        logits: (samples, classes).
    """
    return -np.asarray(logits, dtype=np.float64).max(axis=1)


class MaxLogit(Detector):
    """The largest logit, negated; unlike the softmax it sees how much evidence there is in all.

    Args:
        kwargs: `name`.

    Example:
        >>> scores = MaxLogit().fit(model).score(x)

    Source: Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", 2022.
    """

    name = "max_logit"
    needs = ("logits",)

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.logits)
