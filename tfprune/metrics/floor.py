"""What would a calibration error be if the model were calibrated? The noise floor, which is not 0.

A binned error is a mean of absolute values, so chance alone makes it positive: 500 predictions of a perfectly
calibrated model that is right 60 % of the time have an ECE of 0.05. The floor grows as accuracy falls, and pruning
lowers accuracy: compare the excess over the floor, never the errors themselves.

Source: Vaicenavicius et al., "Evaluating model calibration in classification", 2019 (consistency resampling).
"""

import numpy as np
from keras import ops
from scipy.special import gammaln

from tfprune.metrics.scores import probability_columns
from tfprune.metrics.streaming import ClassificationMetric


def noise_floor(metric, probabilities, num_draws=200, seed=0, **settings):
    """Mean of a calibration error over labels drawn from the predictions themselves.

    It is the definition, at the cost of `num_draws` evaluations; the metrics' own `.floor()` needs only their state.

    Args:
        metric: a function of probabilities and labels, such as `tfprune.metrics.ece`.
        probabilities: (samples, classes), or one column for a sigmoid.
        num_draws: how many sets of labels to draw.
        seed: seed of the draws.
        settings: further arguments of `metric`, such as `num_bins`.

    Raises:
        ValueError: for a `num_draws` below 1, and what `metric` refuses.

    Example:
        >>> p = np.full((500, 1), 0.6)
        >>> round(noise_floor(metrics.ece, p), 2)  # all in one bin: sqrt(2 * 0.6 * 0.4 / (500 * pi))
        0.02
    """
    _check_num_draws(num_draws)
    probabilities, rng = probability_columns(probabilities), np.random.default_rng(seed)
    cumulative = np.cumsum(probabilities, axis=1)
    draws = [metric(probabilities, _draw_labels(cumulative, rng), **settings) for _ in range(num_draws)]
    return float(np.mean(draws))


def mean_deviation(count, probability):
    """E|B / count - probability| of B ~ Binomial(count, probability), elementwise; 0 where the count is 0.

    De Moivre's formula: E|B - np| = 2 k C(n, k) p**k (1 - p)**(n - k + 1), where k = floor(n p) + 1.

    Source: Diaconis and Zabell, "Closed form summation for classical distributions", 1991.
    """
    count, probability = np.broadcast_arrays(np.asarray(count, np.float64), np.asarray(probability, np.float64))
    random = (count > 0) & (probability > 0) & (probability < 1)
    n, p = np.where(random, count, 1.0), np.where(random, probability, 0.5)
    k = np.minimum(np.floor(n * p) + 1, n)  # n * p may round up to n
    log_choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    deviation = 2 * k * np.exp(log_choose + k * np.log(p) + (n - k + 1) * np.log1p(-p))
    return np.where(random, deviation / n, 0.0)


def effective_count(weight, squared_weight):
    """How many equally weighted samples tell as much (Kish): (sum of w)**2 / sum of w**2, in whole samples."""
    weight, squared_weight = np.asarray(weight, np.float64), np.asarray(squared_weight, np.float64)
    present = squared_weight > 0
    count = weight**2 / np.where(present, squared_weight, 1.0)
    return np.where(present, np.maximum(np.rint(count), 1.0), 0.0)


def draw_means(rng, count, probability, size=None):
    """Means of `count` draws of 0 and 1, one binomial each; 0 where the count is 0."""
    count = np.asarray(count).astype(np.int64)
    return rng.binomial(count, np.clip(probability, 0.0, 1.0), size=size) / np.maximum(count, 1)


class FlooredMetric(ClassificationMetric):
    """A calibration error that knows, from its state, what it would be if the predictions were calibrated."""

    def null_values(self, num_draws, rng):
        """The metric under `num_draws` draws of calibrated labels, or its expectation where there is a formula."""
        raise NotImplementedError

    def floor(self, num_draws=200, seed=0):
        """The noise floor: the mean of this metric if the labels were drawn from the predictions; a float.

        Weighted samples count as Kish's effective number of them in each bin.

        Args:
            num_draws: how many draws to average; not used where the expectation has a formula.
            seed: seed of the draws.

        Raises:
            ValueError: before the first batch, or after one with NaN.
        """
        _check_num_draws(num_draws)
        state = [ops.convert_to_numpy(variable) for variable in self.variables]
        if not any(sums.any() for sums in state):
            raise ValueError(f"A noise floor needs at least one sample. Received: {self.name} without any.")
        if not all(np.isfinite(sums).all() for sums in state):
            raise ValueError(f"A noise floor needs finite predictions. Received: {self.name} of a batch with NaN.")
        return float(np.mean(self.null_values(num_draws, np.random.default_rng(seed))))

    def excess(self, num_draws=200, seed=0):
        """What the metric is above its noise floor, a float; about 0 for a calibrated model. Args as for `floor`."""
        return float(ops.convert_to_numpy(self.value())) - self.floor(num_draws, seed)


def _draw_labels(cumulative, rng):
    # Rows may not sum to 1 exactly. A class of probability 0 adds no step, so it is never drawn.
    drawn = rng.random((len(cumulative), 1)) * cumulative[:, -1:]
    return np.minimum((cumulative <= drawn).sum(axis=1), cumulative.shape[1] - 1)


def _check_num_draws(num_draws):
    if isinstance(num_draws, bool) or not isinstance(num_draws, (int, np.integer)) or num_draws < 1:
        raise ValueError(f"num_draws must be an integer of at least 1. Received: num_draws={num_draws!r}.")
