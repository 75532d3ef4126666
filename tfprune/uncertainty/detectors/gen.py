"""GEN: how far are the largest probabilities from zero and one, in an entropy that looks closest at the ends?"""

import numpy as np

from tfprune.metrics.detection import msp_score
from tfprune.metrics.scores import log_softmax
from tfprune.uncertainty.detectors.base import Detector, check_at_most, check_count, check_positive


def score(logits, gamma=0.1, num_largest=None):
    """Sum of p^gamma (1 - p)^gamma over the largest probabilities, (samples,).

    In logarithms throughout: 1 - p is not lost where p rounds to 1.

    Args:
        logits: (samples, classes).
        gamma: exponent.
        num_largest: how many of the largest probabilities; None takes all.
    """
    log_p = log_softmax(logits)
    log_q = np.log1p(-np.exp(np.minimum(log_p, np.log(0.5))))  # of all classes but the predicted one, p <= 1/2
    predicted = log_p.argmax(axis=1)[:, None]
    # log((1 - p) / p) + log p, which is exact for the predicted class
    largest = msp_score(logits)[:, None] + np.take_along_axis(log_p, predicted, axis=1)
    np.put_along_axis(log_q, predicted, largest, axis=1)
    terms = np.exp(gamma * (log_p + log_q))
    order = np.argsort(-log_p, axis=1, kind="stable")[:, :num_largest]
    return np.take_along_axis(terms, order, axis=1).sum(axis=1)


class GEN(Detector):
    """Generalised entropy of the largest probabilities; for many classes it leaves out the noisy tail.

    Args:
        gamma: exponent, 0.1 by default.
        num_largest: how many of the largest probabilities are summed. None takes 100, or all where there are fewer
            classes; `choices` says which.
        kwargs: `name`.

    Raises:
        ValueError: in `fit` or `score`, for more probabilities than there are classes.

    Example:
        >>> scores = GEN().fit(model).score(x)

    Source: Liu, Lochman and Zach, "GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection", 2023.
    """

    name = "gen"

    def __init__(self, gamma=0.1, num_largest=None, **kwargs):
        super().__init__(**kwargs)
        self.gamma, self.num_largest = check_positive("gamma", gamma), check_count("num_largest", num_largest)

    def scores(self, batch):
        """Scores of a batch."""
        num_classes = batch.logits.shape[1]
        num_largest = self.num_largest or min(100, num_classes)
        check_at_most(self.name, "num_largest", num_largest, num_classes, "classes")
        self.choices["num_largest"] = num_largest
        return score(batch.logits, self.gamma, num_largest)
