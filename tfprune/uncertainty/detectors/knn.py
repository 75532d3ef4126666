"""KNN: how far is the direction of the features from its k-th neighbour among the training samples?"""

import numpy as np

from tfprune.uncertainty.detectors.base import Detector, check_at_most, check_count


def unit_rows(features):
    """Rows divided by their length, float64; a row of zeros stays one."""
    features = np.asarray(features, dtype=np.float64)
    return features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-10)


def score(features, bank, num_neighbors):
    """Distance of the unit rows to their k-th nearest row of the bank, (samples,).

    Args:
        features: (samples, features).
        bank: (training samples, features) unit rows.
        num_neighbors: k.
    """
    rows = unit_rows(features)
    squared = np.sum(bank**2, axis=1) - 2 * rows @ bank.T  # but for the length of the row itself
    neighbors = np.argpartition(squared, num_neighbors - 1, axis=1)[:, num_neighbors - 1]
    # Taken anew from the rows: the difference of squares above loses the digits of small distances.
    return np.linalg.norm(rows - bank[neighbors], axis=1)


class KNN(Detector):
    """Distance to the k-th nearest training sample on the unit sphere of features; assumes no shape of the classes.

    Learns from samples; keeps them all. A sample without any feature above zero has no direction: it counts as the
    centre of the sphere (`health["zero_norm_share"]` says how many there are).

    Args:
        num_neighbors: k. None takes 50, or half the mean size of a class where that is less: beyond the size of a class
            the k-th neighbour is in another one. `choices` says which.
        kwargs: `feature_layer`, `name`.

    Raises:
        ValueError: in `fit`, for more neighbours than samples.

    Example:
        >>> scores = KNN(num_neighbors=10).fit(model, (x_train, y_train)).score(x)

    Source: Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", 2022.
    """

    name = "knn"
    needs = ("features",)
    learns_from = "samples"

    def __init__(self, num_neighbors=None, **kwargs):
        super().__init__(**kwargs)
        self.num_neighbors = check_count("num_neighbors", num_neighbors)

    def learn(self, seen):
        """All training samples on the unit sphere."""
        num_samples, num_classes = seen.logits.shape
        chosen = self.num_neighbors or max(1, min(50, num_samples // (2 * num_classes)))
        check_at_most(self.name, "num_neighbors", chosen, num_samples, "training samples")
        self.choices["num_neighbors"] = chosen
        return {"bank": unit_rows(seen.features)}

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.features, self.statistics["bank"], self.choices["num_neighbors"])
