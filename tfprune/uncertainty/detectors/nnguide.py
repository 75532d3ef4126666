"""NNGuide: is the energy borne out by training samples whose features point the same way?"""

import numpy as np

from tfprune.uncertainty.detectors.base import Detector, check_at_most, check_count
from tfprune.uncertainty.detectors.energy import score as energy
from tfprune.uncertainty.detectors.knn import unit_rows


def fit_bank(features, logits):
    """Unit rows times logsumexp(z), (samples, features).

    Args:
        features: (samples, features).
        logits: (samples, classes).
    """
    return unit_rows(features) * -energy(logits)[:, None]


def score(features, logits, bank, num_neighbors):
    """-(mean of the K largest inner products of unit row and bank) logsumexp(z), (samples,).

    Args:
        features: (samples, features).
        logits: (samples, classes).
        bank: what `fit_bank` returned.
        num_neighbors: K.
    """
    similarities = unit_rows(features) @ bank.T
    guidance = np.partition(similarities, -num_neighbors, axis=1)[:, -num_neighbors:].mean(axis=1)
    return guidance * energy(logits)


class NNGuide(Detector):
    """Energy, guided by the similarity to training samples: it is trusted where they are close.

    Learns from samples, of which it keeps some, evenly spaced over the data (shuffle data that are ordered in a way
    that repeats).

    Args:
        bank_ratio: share of the training samples that are kept, 0.01 by default, but at least `num_neighbors`.
        num_neighbors: K. None takes 100, or all samples where there are fewer. `choices` says which, and the size of
            the bank.
        kwargs: `feature_layer`, `name`.

    Raises:
        ValueError: in `fit`, for more neighbours than samples.

    Example:
        >>> scores = NNGuide(num_neighbors=10).fit(model, (x_train, y_train)).score(x)

    Source: Park, Jung and Teoh, "Nearest Neighbor Guidance for Out-of-Distribution Detection", 2023.
    """

    name = "nnguide"
    needs = ("logits", "features")
    learns_from = "samples"

    def __init__(self, bank_ratio=0.01, num_neighbors=None, **kwargs):
        super().__init__(**kwargs)
        if isinstance(bank_ratio, bool) or not 0 < bank_ratio <= 1:
            raise ValueError(f"bank_ratio must be in (0, 1]. Received: bank_ratio={bank_ratio!r}.")
        self.bank_ratio, self.num_neighbors = bank_ratio, check_count("num_neighbors", num_neighbors)

    def learn(self, seen):
        """The bank."""
        num_samples = len(seen.logits)
        num_neighbors = self.num_neighbors or min(100, num_samples)
        check_at_most(self.name, "num_neighbors", num_neighbors, num_samples, "training samples")
        size = max(num_neighbors, round(self.bank_ratio * num_samples))
        rows = np.linspace(0, num_samples - 1, size).round().astype(np.int64)
        self.choices.update(num_neighbors=num_neighbors, bank_size=size)
        return {"bank": fit_bank(seen.features[rows], seen.logits[rows])}

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.features, batch.logits, self.statistics["bank"], self.choices["num_neighbors"])
