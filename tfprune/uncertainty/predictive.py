"""What does a model of uncertainty give? Mean probabilities, and scores of how sure it is of them.

Whatever has `.predict(x) -> (samples, classes) probabilities` and `from_logits = False` is a predictive: ensembles,
Monte Carlo dropout, a Laplace approximation. `Predictive` is the base class of those in tfprune; `tfprune.evaluate` and
the calibrators take them wherever they take a Keras model.
"""

import numpy as np

from tfprune.metrics.scores import entropy


class Predictive:
    """Base class of what predicts probabilities with uncertainty; a subclass writes `predict_uncertainty`.

    Example:
        >>> class Ensemble(Predictive):
        ...     def __init__(self, models):
        ...         self.models = models
        ...
        ...     def predict_uncertainty(self, x):
        ...         return uncertainty_of([model.predict(x, verbose=0) for model in self.models])
    """

    from_logits = False

    def predict_uncertainty(self, x):
        """What is known of a batch: `{"probabilities": (n, classes), score: (n,)}`.

        Args:
            x: array of inputs, samples first.

        Returns:
            A dict of float64 arrays. "probabilities" are mean probabilities; every other entry, such as "entropy" and
            "mutual_information", is a score that is larger for stranger samples.
        """
        raise NotImplementedError(f"{type(self).__name__} must define predict_uncertainty(x).")

    def predict(self, x):
        """Mean probabilities, float64 (n, classes).

        Args:
            x: array of inputs, samples first.
        """
        return np.asarray(self.predict_uncertainty(x)["probabilities"], dtype=np.float64)

    @property
    def fingerprints(self):
        """`Fingerprint`s of the data that this was fitted on, a list; see `tfprune.uncertainty.leak`.

        Those of models and predictives held as attributes are found without it.
        """
        return []


def uncertainty_of(samples):
    """Mean probabilities, their entropy, and the mutual information, of sampled probabilities.

    The entropy of the mean is the whole uncertainty. What of it is not the mean entropy of the samples is the mutual
    information between prediction and model: how much the samples disagree.

    Args:
        samples: (draws, n, classes) probabilities, such as those of an ensemble's members.

    Returns:
        `{"probabilities": (n, classes), "entropy": (n,), "mutual_information": (n,)}`, float64, in nats.

    Raises:
        ValueError: for another shape, or values outside [0, 1].

    Example:
        >>> known = uncertainty_of([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> known["probabilities"].tolist(), round(float(known["mutual_information"][0]), 6)
        ([[0.5, 0.5]], 0.693147)

    Source: Depeweg et al., "Decomposition of Uncertainty in Bayesian Deep Learning", 2018.
    """
    samples = np.asarray(samples, dtype=np.float64)
    if samples.ndim != 3 or not samples.size or samples.shape[2] < 2:
        raise ValueError(
            "samples must be probabilities of shape (draws, n, classes) with at least two classes. "
            f"Received: shape {samples.shape}."
        )
    mean = samples.mean(axis=0)
    whole = entropy(mean)
    within = np.mean([entropy(draw) for draw in samples], axis=0)
    # Never negative but for rounding, by Jensen's inequality.
    return {"probabilities": mean, "entropy": whole, "mutual_information": np.maximum(whole - within, 0.0)}
