"""DICE: how much energy comes from the weights that contribute most on known data?"""

import numpy as np

from tfprune.uncertainty.detectors.base import Detector, check_percentile
from tfprune.uncertainty.detectors.energy import score as energy


def fit_mask(features, weights, percentile=90):
    """Bool array (features, classes): weights whose mean contribution is above the percentile of all contributions.

    Args:
        features: (samples, features).
        weights: (features, classes).
        percentile: in [0, 100).
    """
    contributions = np.mean(np.asarray(features, dtype=np.float64), axis=0)[:, None] * weights
    return contributions > np.percentile(contributions, percentile)


def score(features, weights, bias, mask):
    """Energy of the logits of the weights in the mask, (samples,).

    Args:
        features: (samples, features).
        weights: (features, classes).
        bias: (classes,).
        mask: bool array (features, classes).
    """
    return energy(np.asarray(features, dtype=np.float64) @ np.where(mask, weights, 0.0) + bias)


class DICE(Detector):
    """Energy of a sparse head: only weights with the largest mean contribution to a logit are used.

    Learns from samples. The percentile is one over all weights of the head to features that are kept.

    Args:
        percentile: share of weights that are left out, in [0, 100), 90 by default.
        kwargs: `feature_layer`, `name`.

    Raises:
        ValueError: in `fit`, where no weight is left.

    Example:
        >>> scores = DICE(percentile=70).fit(model, (x_train, y_train)).score(x)

    Source: Sun and Li, "DICE: Leveraging Sparsification for Out-of-Distribution Detection", 2022.
    """

    name = "dice"
    needs = ("logits", "features", "head")
    learns_from = "samples"

    def __init__(self, percentile=90, **kwargs):
        super().__init__(**kwargs)
        self.percentile = check_percentile(percentile)

    def learn(self, seen):
        """The mask of the head."""
        mask = fit_mask(seen.features, self.head.weights, self.percentile)
        if not mask.any():
            raise ValueError(
                f"{self.name} cannot be fitted: no weight contributes more than the {self.percentile}th percentile of "
                "all. Choose a smaller percentile."
            )
        self.choices["num_weights"] = int(mask.sum())
        return {"mask": mask}

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.features, self.head.weights, self.head.bias, **self.statistics)
