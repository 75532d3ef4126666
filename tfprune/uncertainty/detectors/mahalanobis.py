"""Mahalanobis: how far are the features from the nearest class, measured by the spread within classes?"""

import numpy as np

from tfprune.uncertainty.detectors.base import Detector
from tfprune.uncertainty.detectors.covariance import mean_square, whitening


def fit_classes(features, labels):
    """`{"whitening": (features, rank), "means": (classes, rank)}` of the classes that have samples.

    The covariance is that around the class means, divided by the number of samples, and inverted (pseudo-inverse) on
    the directions that vary.

    Args:
        features: (samples, features).
        labels: (samples,) integers.
    """
    features = np.asarray(features, dtype=np.float64)
    _, labels = np.unique(labels, return_inverse=True)
    means = np.stack([features[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
    found = whitening(features - means[labels], mean_square(features))
    return {"whitening": found, "means": means @ found}


def class_distances(features, whitening, means):
    """Squared distances (samples, classes) to the class means, in units of the covariance."""
    white = np.asarray(features, dtype=np.float64) @ whitening
    return np.stack([np.sum((white - mean) ** 2, axis=1) for mean in means], axis=1)


def score(features, whitening, means):
    """Squared distance to the nearest class mean, (samples,).

    Args:
        features: (samples, features).
        whitening: (features, rank), a root of the inverse covariance.
        means: (classes, rank) whitened class means.
    """
    return class_distances(features, whitening, means).min(axis=1)


def check_spread(detector, whitening):
    """Raises ValueError where no direction varies."""
    if not whitening.shape[1]:
        raise ValueError(
            f"{detector} cannot be fitted: within the classes all features are constant, so there is no spread to "
            "measure distances by. Fit it on more samples, or use 'knn'."
        )


class Mahalanobis(Detector):
    """Distance to the nearest class mean in feature space, with one covariance for all classes.

    Learns from labels. Classes without samples are left out. The covariance is inverted where the features vary; what
    lies in directions that no training sample took, such as a channel that was dead, does not count.

    Args:
        kwargs: `feature_layer`, `name`.

    Raises:
        ValueError: in `fit`, where the features do not vary within classes.

    Example:
        >>> scores = Mahalanobis().fit(model, (x_train, y_train)).score(x)

    Source: Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks",
    2018.
    """

    name = "mahalanobis"
    needs = ("features",)
    learns_from = "labels"

    def learn(self, seen):
        """Class means and covariance."""
        found = fit_classes(seen.features, seen.labels)
        check_spread(self.name, found["whitening"])
        self.choices["rank"] = found["whitening"].shape[1]
        return found

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.features, **self.statistics)
