"""SHE: are the features like the stored pattern of the predicted class?"""

import numpy as np

from tfprune.uncertainty.detectors.base import Detector


def fit_patterns(features, predicted, labels, num_classes):
    """Mean features of the correctly classified samples of each class, (classes, features).

    A class without correctly classified samples takes the mean of all its samples; one without samples takes the mean
    of all correctly classified ones.

    Args:
        features: (samples, features).
        predicted: (samples,) integers.
        labels: (samples,) integers.
        num_classes: number of classes.
    """
    features, correct = np.asarray(features, dtype=np.float64), predicted == labels
    candidates = lambda k: (correct & (labels == k), labels == k, correct)  # noqa: E731
    chosen = [next(rows for rows in candidates(k) if rows.any()) for k in range(num_classes)]
    return np.stack([features[rows].mean(axis=0) for rows in chosen])


def score(features, predicted, patterns):
    """Inner product of the features and the pattern of the predicted class, negated, (samples,).

    Args:
        features: (samples, features).
        predicted: (samples,) integers.
        patterns: (classes, features).
    """
    return -np.sum(np.asarray(features, dtype=np.float64) * patterns[predicted], axis=1)


class SHE(Detector):
    """Simplified Hopfield energy: inner product with the mean features of the predicted class.

    Learns from labels. For classes without correctly classified samples see `fit_patterns`; `choices` names them.

    Args:
        kwargs: `feature_layer`, `name`.

    Raises:
        ValueError: in `fit`, where no sample at all is classified correctly.

    Example:
        >>> scores = SHE().fit(model, (x_train, y_train)).score(x)

    Source: Zhang et al., "Out-of-Distribution Detection based on In-Distribution Data Patterns Memorization with Modern
    Hopfield Energy", 2023.
    """

    name = "she"
    needs = ("features",)
    learns_from = "labels"

    def learn(self, seen):
        """The patterns."""
        predicted, num_classes = seen.logits.argmax(axis=1), seen.logits.shape[1]
        correct = np.bincount(seen.labels[predicted == seen.labels], minlength=num_classes)
        if not correct.any():
            raise ValueError(
                f"{self.name} cannot be fitted: none of the {len(predicted)} samples is classified correctly. "
                "Are the labels those of the data, in the order of the model's classes?"
            )
        self.choices["classes_without_correct_samples"] = np.flatnonzero(correct == 0).tolist()
        return {"patterns": fit_patterns(seen.features, predicted, seen.labels, num_classes)}

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.features, batch.logits.argmax(axis=1), **self.statistics)
