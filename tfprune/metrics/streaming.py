"""How does a Keras metric read predictions, labels and weights, and what may its state be?

Every metric of tfprune keeps sums in float64, in fixed memory. So batches can come in any order, the states of two
metrics can be added (`merge_state`), and the replicas of a distribution strategy add up by themselves.
"""

import functools

import keras
import numpy as np
from keras import ops


class SummedMetric(keras.metrics.Metric):
    """A metric whose state is sums, so that two states merge by adding."""

    def add_sums(self, shape, name):
        """A new state variable of zeros; float64 whatever the dtype policy: a float32 sum stops growing at 2**24."""
        return self.add_variable(shape=shape, initializer="zeros", dtype="float64", name=name)

    def merge_state(self, metrics):
        """Adds the states of other metrics of the same class and settings.

        Args:
            metrics: a list of metrics.

        Raises:
            ValueError: if one of them is of another class or has other settings.
        """
        own = _settings(self)
        for metric in metrics:
            if type(metric) is not type(self) or _settings(metric) != own:
                raise ValueError(
                    f"merge_state needs metrics of the same class and settings as {type(self).__name__} {own}. "
                    f"Received: {type(metric).__name__} {_settings(metric)}."
                )
        for metric in metrics:
            for variable, other in zip(self.variables, metric.variables, strict=True):
                variable.assign_add(other)


def _settings(metric):
    return {key: value for key, value in metric.get_config().items() if key not in ("name", "dtype")}


class ClassificationMetric(SummedMetric):
    """Reads a classifier's predictions; a subclass says what to add to its sums and what they result in.

    Args:
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.
    """

    def __init__(self, from_logits=False, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.from_logits = from_logits

    def add_batch(self, batch):
        """Adds a `Batch` to the sums."""
        raise NotImplementedError

    def value(self):
        """The result as a float64 tensor, from the sums."""
        raise NotImplementedError

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch.

        Args:
            y_true: integer labels, or one-hot rows of the shape of `y_pred`.
            y_pred: probabilities or logits (..., classes); one column is a sigmoid's probability of class 1, or its
                logit.
            sample_weight: optional, one weight per label.
        """
        self.add_batch(Batch(y_true, y_pred, sample_weight, self.from_logits))

    def result(self):
        """The metric over all batches since the last reset; 0 before the first."""
        return ops.cast(self.value(), self.dtype)

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "from_logits": self.from_logits}


class Batch:
    """What there is to know of a batch of predictions; computed where asked, in float64, leading axes flattened."""

    def __init__(self, y_true, y_pred, sample_weight, from_logits):
        self.y_true, self.sample_weight, self.from_logits = ops.convert_to_tensor(y_true), sample_weight, from_logits
        self.y_pred = ops.convert_to_tensor(y_pred)

    @functools.cached_property
    def outputs(self):
        """Logits or probabilities (samples, classes), one column made two."""
        # float64 first: a bfloat16 confidence times 15 would land in the wrong bin.
        y_pred = ops.cast(self.y_pred, "float64")
        num_classes = y_pred.shape[-1] if len(y_pred.shape) > 1 else 1
        y_pred = ops.reshape(y_pred, (-1, num_classes))
        if num_classes > 1:
            return y_pred
        first = ops.zeros_like(y_pred) if self.from_logits else 1.0 - y_pred
        return ops.concatenate([first, y_pred], axis=-1)

    @property
    def num_classes(self):
        """Number of classes, an int."""
        return self.outputs.shape[-1]

    @functools.cached_property
    def probabilities(self):
        """(samples, classes)."""
        return ops.softmax(self.outputs, axis=-1) if self.from_logits else self.outputs

    @functools.cached_property
    def log_probabilities(self):
        """(samples, classes); the logarithm of a probability of 0 is that of the smallest normal float32."""
        if self.from_logits:
            return ops.log_softmax(self.outputs, axis=-1)
        return ops.log(ops.maximum(self.outputs, np.finfo(np.float32).tiny))

    @functools.cached_property
    def predicted(self):
        """Class of the largest output (the first on ties), int64 (samples,)."""
        return ops.cast(ops.argmax(self.outputs, axis=-1), "int64")

    @functools.cached_property
    def confidence(self):
        """Largest probability, (samples,)."""
        return ops.max(self.probabilities, axis=-1)

    @functools.cached_property
    def entropy(self):
        """Entropy in nats, (samples,)."""
        p = self.probabilities
        return -ops.sum(p * ops.log(ops.where(p > 0, p, ops.ones_like(p))), axis=-1)

    @functools.cached_property
    def odds(self):
        """log((1 - p) / p) of the predicted class, (samples,): ranks as 1 - confidence, with no ties at 1.0."""
        logs = self.outputs if self.from_logits else self.log_probabilities
        others = ops.where(ops.one_hot(self.predicted, self.num_classes, dtype="bool"), -np.inf, logs)
        return ops.logsumexp(others, axis=-1) - ops.max(logs, axis=-1)

    @functools.cached_property
    def labels(self):
        """int64 (samples,), from integers or one-hot rows; only the latter have a column for each class."""
        labels = ops.argmax(self.y_true, axis=-1) if self._is_one_hot else self.y_true
        return ops.cast(ops.reshape(labels, (-1,)), "int64")

    @functools.cached_property
    def correct(self):
        """1.0 where the predicted class is the label, else 0.0, (samples,)."""
        return ops.cast(ops.equal(self.predicted, self.labels), "float64")

    @functools.cached_property
    def weight(self):
        """`given_weight`, but NaN where the label is no class; what weighs 0 stays out, whatever its label."""
        known = ops.logical_and(self.labels >= 0, self.labels < self.num_classes)
        return ops.where(ops.logical_or(known, self.given_weight == 0), self.given_weight, np.nan)

    @functools.cached_property
    def given_weight(self):
        """(samples,) float64, 1 where none is given; (batch,) weights are stretched over each sample's positions."""
        if self.sample_weight is None:
            return ops.ones_like(self.outputs[:, 0])
        shape = ops.shape(self.y_true)[:-1] if self._is_one_hot else ops.shape(self.y_true)
        weight = ops.cast(self.sample_weight, "float64")
        if len(weight.shape) < len(shape):
            weight = ops.reshape(weight, (*ops.shape(weight), *(1,) * (len(shape) - len(weight.shape))))
        return ops.reshape(ops.broadcast_to(weight, shape), (-1,))

    @property
    def _is_one_hot(self):
        true, predicted = self.y_true.shape, self.y_pred.shape
        return len(true) == len(predicted) > 1 and predicted[-1] > 1 and true[-1] != 1
