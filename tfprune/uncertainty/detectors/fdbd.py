"""fDBD: how close are the features to a decision boundary, for their distance from the centre?"""

import numpy as np

from tfprune.uncertainty.detectors.base import Detector


def boundary_norms(weights):
    """|w_k - w_j| for all pairs of classes, (classes, classes); 0 where both have the same weights.

    Args:
        weights: (features, classes).
    """
    return np.stack([np.linalg.norm(weights - column[:, None], axis=0) for column in weights.T])


def score(features, logits, norms, mean):
    """-(mean distance to the boundaries of the predicted class) / |features - mean|, (samples,).

    The distance to the boundary with class k is |z_k - z_j| / |w_k - w_j|, j being the predicted class. Classes whose
    weights are those of the predicted one have no boundary with it and are left out.

    Args:
        features: (samples, features).
        logits: (samples, classes).
        norms: what `boundary_norms` returned.
        mean: (features,) mean of the training features.
    """
    predicted = np.argmax(logits, axis=1)
    gaps = logits[np.arange(len(logits)), predicted][:, None] - logits
    norms = norms[predicted]
    distances = np.where(norms > 0, gaps / np.where(norms > 0, norms, 1.0), 0.0).sum(axis=1)
    boundaries = np.maximum((norms > 0).sum(axis=1), 1)
    # A sample at the very mean would divide by zero.
    return -distances / boundaries / np.maximum(np.linalg.norm(features - mean, axis=1), 1e-8)


class FDBD(Detector):
    """Fast decision-boundary detector: known samples lie farther from the boundaries, relative to the centre.

    Learns from samples.

    Args:
        kwargs: `feature_layer`, `name`.

    Raises:
        ValueError: in `fit`, where all classes have the same weights.

    Example:
        >>> scores = FDBD().fit(model, (x_train, y_train)).score(x)

    Source: Liu and Qin, "Fast Decision Boundary based Out-of-Distribution Detector", 2024.
    """

    name = "fdbd"
    needs = ("logits", "features", "head")
    learns_from = "samples"

    def learn(self, seen):
        """Distances between the classes' weights, and the mean of the features."""
        norms = boundary_norms(self.head.weights)
        if not norms.any():
            raise ValueError(
                f"{self.name} cannot be fitted: all classes have the same weights, so there are no boundaries. "
                "Train the model, or use 'knn'."
            )
        return {"norms": norms, "mean": np.mean(np.asarray(seen.features, dtype=np.float64), axis=0)}

    def scores(self, batch):
        """Scores of a batch."""
        return score(np.asarray(batch.features, dtype=np.float64), batch.logits, **self.statistics)
