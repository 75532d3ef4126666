"""KL matching: does the softmax look like that of any class, as it usually does?"""

import numpy as np
from scipy.special import logsumexp

from tfprune.metrics.scores import log_softmax
from tfprune.uncertainty.detectors.base import Detector

# Stands for the logarithm of 0 in the template of a class that is never predicted.
_LOG_OF_ZERO = float(np.log(np.finfo(np.float64).tiny))


def fit_templates(logits):
    """Logarithms of the mean softmax of the samples that are predicted as each class, (classes, classes).

    The template of a class that is never predicted is one-hot.

    Args:
        logits: (samples, classes).
    """
    log_p = log_softmax(logits)
    predicted, num_classes = log_p.argmax(axis=1), log_p.shape[1]
    templates = np.where(np.eye(num_classes, dtype=bool), 0.0, _LOG_OF_ZERO)
    for k in np.unique(predicted):
        members = log_p[predicted == k]
        templates[k] = logsumexp(members, axis=0) - np.log(len(members))  # nothing underflows
    return templates


def score(logits, templates):
    """min_k KL(p | template k), (samples,).

    Args:
        logits: (samples, classes).
        templates: (classes, classes) logarithms.
    """
    log_p = log_softmax(logits)
    p = np.exp(log_p)
    return np.min(np.sum(p * log_p, axis=1, keepdims=True) - p @ templates.T, axis=1)


class KLMatching(Detector):
    """Divergence of the softmax from the typical one of a class.

    Learns from samples, best from validation data; it takes the predicted classes and no labels. A class that the model
    never predicts, as pruned models may have some, is expected to be predicted with certainty; `choices` names it.

    Args:
        kwargs: `name`.

    Example:
        >>> scores = KLMatching().fit(model, (x_val, y_val)).score(x)

    Source: Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", 2022.
    """

    name = "kl_matching"
    learns_from = "samples"

    def learn(self, seen):
        """The templates."""
        predicted = np.bincount(seen.logits.argmax(axis=1), minlength=seen.logits.shape[1])
        self.choices["one_hot_classes"] = np.flatnonzero(predicted == 0).tolist()
        return {"templates": fit_templates(seen.logits)}

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.logits, **self.statistics)
