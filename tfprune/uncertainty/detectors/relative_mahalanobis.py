"""Relative Mahalanobis: how much farther is the nearest class than the data as a whole?"""

import numpy as np

from tfprune.uncertainty.detectors.base import Detector
from tfprune.uncertainty.detectors.covariance import mean_square, whitening
from tfprune.uncertainty.detectors.mahalanobis import check_spread, class_distances, fit_classes


def fit_classes_and_whole(features, labels):
    """What `fit_classes` gives, and the same of all samples as one class: "whole_whitening" and "whole_mean".

    Args:
        features: (samples, features).
        labels: (samples,) integers.
    """
    features = np.asarray(features, dtype=np.float64)
    mean = features.mean(axis=0)
    found = whitening(features - mean, mean_square(features))
    return {**fit_classes(features, labels), "whole_whitening": found, "whole_mean": mean @ found}


def score(features, whitening, means, whole_whitening, whole_mean):
    """min_k [d_k - d_0], (samples,): squared distances to class k and to the data as a whole.

    Args:
        features: (samples, features).
        whitening: (features, rank), a root of the inverse covariance within classes.
        means: (classes, rank) whitened class means.
        whole_whitening: (features, rank), a root of the inverse covariance of all samples.
        whole_mean: (rank,) whitened mean of all samples.
    """
    whole = class_distances(features, whole_whitening, whole_mean[None])[:, 0]
    return class_distances(features, whitening, means).min(axis=1) - whole


class RelativeMahalanobis(Detector):
    """Mahalanobis distance to the nearest class, less that to all data, which most features' spread is common to.

    Learns from labels. Better than `Mahalanobis` for strangers that are close to the data. Both covariances are divided
    by the number of samples.

    Args:
        kwargs: `feature_layer`, `name`.

    Raises:
        ValueError: in `fit`, where the features do not vary within classes, or there is only one class.

    Example:
        >>> scores = RelativeMahalanobis().fit(model, (x_train, y_train)).score(x)

    Source: Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection", 2021.
    """

    name = "relative_mahalanobis"
    needs = ("features",)
    learns_from = "labels"

    def learn(self, seen):
        """Class means and both covariances."""
        if len(np.unique(seen.labels)) < 2:
            raise ValueError(
                f"{self.name} cannot be fitted: all samples are of class {seen.labels[0]}, so the nearest class is the "
                "data as a whole. Fit it on samples of all classes."
            )
        found = fit_classes_and_whole(seen.features, seen.labels)
        check_spread(self.name, found["whitening"])
        self.choices["rank"], self.choices["whole_rank"] = (
            found[key].shape[1] for key in ("whitening", "whole_whitening")
        )
        return found

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.features, **self.statistics)
