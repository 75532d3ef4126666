"""How does a Keras model learn to predict a number together with its uncertainty? A Gaussian head and its loss.

**The layout.** For k targets the model's output is (..., 2k): the k means, then the k raw log-variances, any real
numbers. The variance is exp(log-variance), clipped to [exp(-30), exp(30)]: standard deviations from 3e-7 to 3e6 (scale
the targets if yours are outside). The metrics in `tfprune.metrics.regression` read the same layout.

* heteroskedastic (the noise depends on x): `keras.layers.Dense(2 * k)`, nothing else.
* homoskedastic (one noise for all x): `ConstantVariance()(keras.layers.Dense(k)(x))`, which learns it; with
  `ConstantVariance(0.04, trainable=False)` it is given.

Under mixed precision give the head `dtype="float32"`, as Keras advises for outputs: bfloat16 keeps 8 bits of a mean.

Example:
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(2)])
    >>> model.compile("adam", tfprune.losses.GaussianNegativeLogLikelihood(), metrics=[tfprune.metrics.CRPS()])
"""

import math

import keras
from keras import ops

# A guard for float32, wide enough never to be met by targets of a usual scale; the metrics clip at the same place.
LOG_VARIANCE_LIMIT = 30.0


@keras.saving.register_keras_serializable("tfprune")
class GaussianNegativeLogLikelihood(keras.losses.Loss):
    """Negative log-likelihood of the targets under the Gaussians a model predicts, averaged over the k targets.

    Per target: (log(2 pi) + log-variance + (target - mean)^2 / variance) / 2. It can be negative, and unlike the mean
    squared error it lets the model say where it is unsure.

    Args:
        reduction: how the samples' losses are reduced, as for every Keras loss.
        name: name of the loss.
        dtype: dtype of the computation; float32 by default, also where the model computes in bfloat16 or float16.

    Call arguments:
        y_true: targets (..., k), or (...) where k is 1.
        y_pred: the head's output (..., 2k): k means, then k raw log-variances.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> loss = GaussianNegativeLogLikelihood()
        >>> round(float(loss([[1.0]], [[0.0, 0.0]])), 6)  # one standard deviation off: log(2 pi) / 2 + 1 / 2
        1.418939

    Source: Nix and Weigend, "Estimating the mean and variance of the target probability distribution", 1994.
    """

    def __init__(self, reduction="sum_over_batch_size", name="gaussian_negative_log_likelihood", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true, y_pred):
        """One loss per sample, (...)."""
        mean, raw = _split(ops.convert_to_tensor(y_pred))
        # The value is that of the clipped log-variance, the gradient passes the clip: a head that has left the range is
        # led back into it, where a plain clip would leave it without a gradient for good.
        log_variance = raw + ops.stop_gradient(ops.clip(raw, -LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT) - raw)
        error = aligned_targets(ops.convert_to_tensor(y_true), mean) - mean
        nll = 0.5 * (math.log(2 * math.pi) + log_variance + ops.square(error) * ops.exp(-log_variance))
        return ops.mean(nll, axis=-1)

    def get_config(self):
        """What `__init__` takes."""
        return {"reduction": self.reduction, "name": self.name, "dtype": self.dtype}


@keras.saving.register_keras_serializable("tfprune")
class ConstantVariance(keras.layers.Layer):
    """Makes a homoskedastic head: appends to k means one log-variance per target, the same for every sample.

    `GaussianNegativeLogLikelihood` learns it with the rest of the model; `trainable=False` keeps the given one.

    Args:
        initial_variance: the variance to start from, a positive number in squared units of the targets.
        dtype: dtype of the layer; float32 by default, so that mixed precision does not round the learned variance.
        **kwargs: those of every Keras layer, such as `trainable` and `name`.

    Raises:
        ValueError: if `initial_variance` is not positive and finite.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1), ConstantVariance(0.25)])
        >>> model.output_shape
        (None, 2)
    """

    def __init__(self, initial_variance=1.0, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        if not (initial_variance > 0 and math.isfinite(initial_variance)):
            raise ValueError(
                f"initial_variance must be positive and finite. Received: initial_variance={initial_variance}."
            )
        self.initial_variance = initial_variance

    def build(self, input_shape):
        """One log-variance for each of the k means."""
        start = keras.initializers.Constant(math.log(self.initial_variance))
        self.log_variance = self.add_weight(shape=(input_shape[-1],), initializer=start, name="log_variance")

    def call(self, mean):
        """Means (..., k) to the head's layout (..., 2k)."""
        return ops.concatenate([mean, ops.broadcast_to(self.log_variance, ops.shape(mean))], axis=-1)

    def compute_output_shape(self, input_shape):
        """Twice as many columns."""
        return (*input_shape[:-1], 2 * input_shape[-1])

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "initial_variance": self.initial_variance}


def _split(y_pred):
    """Means and raw log-variances, (..., k) each."""
    columns = y_pred.shape[-1] if len(y_pred.shape) > 1 else None
    if not columns or columns % 2:
        raise ValueError(
            "A Gaussian head has 2k output columns for k targets: k means, then k log-variances. "
            f"Received: y_pred of shape {tuple(y_pred.shape)}. End the model in Dense(2 * k), or in Dense(k) and "
            "ConstantVariance()."
        )
    return ops.split(y_pred, 2, axis=-1)


def aligned_targets(y_true, mean):
    """Targets in the shape of the means; without this (n,) against (n, 1) would broadcast to (n, n)."""
    if len(y_true.shape) == len(mean.shape) - 1 and mean.shape[-1] == 1:
        y_true = ops.expand_dims(y_true, axis=-1)
    if len(y_true.shape) != len(mean.shape) or y_true.shape[-1] != mean.shape[-1]:
        raise ValueError(
            f"Targets must have the shape of the means, {tuple(mean.shape)}. "
            f"Received: y_true of shape {tuple(y_true.shape)}."
        )
    return y_true
