"""ViM: how much of the features lies outside the directions that matter, against the evidence of the logits?"""

import numpy as np
from scipy.special import logsumexp

from tfprune.uncertainty.detectors.base import Detector, check_count
from tfprune.uncertainty.detectors.covariance import rank_of, second_moment, spectrum


def origin_of(weights, bias):
    """The point of feature space where all logits are least: -W^+ b, (features,).

    Args:
        weights: (features, classes).
        bias: (classes,).
    """
    return -np.linalg.pinv(weights.T) @ bias


def fit_residual(features, logits, origin, dim):
    """`{"residual": (features, features - dim), "origin": (features,), "alpha": ()}`.

    The residual space is orthogonal to the `dim` main directions around the origin. Alpha makes the residual as large
    as the largest logit, on average.

    Args:
        features: (samples, features).
        logits: (samples, classes).
        origin: (features,).
        dim: number of main directions.
    """
    centred = np.asarray(features, dtype=np.float64) - origin
    _, vectors = spectrum(second_moment(centred))
    residual = vectors[:, dim:]
    lengths = np.linalg.norm(centred @ residual, axis=1)
    return {"residual": residual, "origin": origin, "alpha": np.asarray(np.max(logits, axis=1).sum() / lengths.sum())}


def score(features, logits, residual, origin, alpha):
    """Virtual logit less energy: alpha |residual part| - logsumexp(z), (samples,).

    Args:
        features: (samples, features).
        logits: (samples, classes).
        residual: (features, r) orthonormal columns.
        origin: (features,).
        alpha: factor.
    """
    lengths = np.linalg.norm((np.asarray(features, dtype=np.float64) - origin) @ residual, axis=1)
    return alpha * lengths - logsumexp(np.asarray(logits, dtype=np.float64), axis=1)


class ViM(Detector):
    """Virtual-logit matching: the part of the features that the main directions do not explain acts as one more logit.

    Learns from samples.

    Args:
        dim: number of main directions, in (0, rank of the features). None takes half the rank, which `choices` says
            beside it; the paper takes about half of the features, of which a pruned model has fewer that vary.
        kwargs: `feature_layer`, `name`.

    Raises:
        ValueError: in `fit`, for a dim outside (0, rank), features of rank below 2, and where the largest logits are
            not positive on average (then the virtual logit would have the wrong sign).

    Example:
        >>> scores = ViM().fit(model, (x_train, y_train)).score(x)

    Source: Wang et al., "ViM: Out-Of-Distribution with Virtual-logit Matching", 2022.
    """

    name = "vim"
    needs = ("logits", "features", "head")
    learns_from = "samples"

    def __init__(self, dim=None, **kwargs):
        super().__init__(**kwargs)
        self.dim = check_count("dim", dim)

    def learn(self, seen):
        """Main directions and alpha."""
        origin = origin_of(self.head.weights, self.head.bias)
        values, _ = spectrum(second_moment(seen.features - origin))
        rank = rank_of(values)
        dim = self.dim or rank // 2
        if not 0 < dim < rank:
            raise ValueError(
                f"{self.name} needs 0 < dim < {rank}, the rank of the features. Received: dim={dim}. Choose a smaller "
                "dim or leave it out; features of rank below 2 leave nothing outside the main directions: use 'energy'."
            )
        self.choices.update(dim=dim, rank=rank)
        found = fit_residual(seen.features, seen.logits, origin, dim)
        if not found["alpha"] > 0:
            raise ValueError(
                f"{self.name} cannot be fitted: the largest logit is {np.max(seen.logits, axis=1).mean():.3g} on "
                "average, and must be positive for the virtual logit to match it. Use 'energy' or 'knn'."
            )
        return found

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.features, batch.logits, **self.statistics)
