"""ODIN: how confident is the model after the input has taken a small step towards confidence?"""

import keras
import numpy as np

from tfprune.metrics.detection import msp_score
from tfprune.predictions import Forward
from tfprune.uncertainty.detectors.base import Detector, check_positive


def score(logits, temperature=1000.0):
    """MSP of z / T in logit space, (samples,): ranks as -max softmax(z / T).

    Args:
        logits: (samples, classes) logits of the perturbed inputs.
        temperature: T.
    """
    return msp_score(np.asarray(logits, dtype=np.float64) / temperature)


def perturb(inputs, gradient, epsilon=0.0014, input_std=None):
    """Inputs a small step down the gradient of the loss: x - epsilon sign(gradient) / std.

    sign(0) is 0: an input that nothing depends on any more (that pruning cut off) stays as it is.

    Args:
        inputs: array or tensor.
        gradient: of the loss of the predicted class, of the same shape.
        epsilon: size of the step.
        input_std: the number, or one number a channel (last axis), by which the inputs were divided to normalise them;
            None for 1.
    """
    step = epsilon * keras.ops.sign(gradient)
    if input_std is not None:
        step = step / keras.ops.cast(input_std, gradient.dtype)
    return inputs - step


class ODIN(Detector):
    """Temperature scaling and a small perturbation of the input, which helps known samples more than strangers.

    The step goes down the gradient of the cross-entropy of the predicted class, that is towards more confidence. It
    takes a forward and a backward pass of its own, and a forward pass for the score. The inputs must be numbers, not
    tokens. `epsilon` is in the units of the raw input: where inputs were divided by their standard deviation before
    they reach the model, pass it as `input_std`, or the step is larger than meant. Integer pixels count as floats.

    Args:
        temperature: T, 1000.0 by default.
        epsilon: size of the step, 0.0014 by default, for inputs in [0, 1].
        input_std: a number or a list of one number a channel (last axis). Default None: 1.
        kwargs: `name`.

    Example:
        >>> scores = ODIN(input_std=[0.247, 0.243, 0.262]).fit(model).score(x)

    Source: Liang, Li and Srikant, "Enhancing The Reliability of Out-of-distribution Image Detection in Neural
    Networks", 2018.
    """

    name = "odin"
    needs = ("logits",)

    def __init__(self, temperature=1000.0, epsilon=0.0014, input_std=None, **kwargs):
        super().__init__(**kwargs)
        self.temperature = check_positive("temperature", temperature)
        if isinstance(epsilon, bool) or not np.isscalar(epsilon) or not 0 <= epsilon < np.inf:
            raise ValueError(f"epsilon must be a number of at least 0. Received: epsilon={epsilon!r}.")
        self.epsilon = epsilon
        if input_std is not None and not np.all(np.asarray(input_std, dtype=np.float64) > 0):
            raise ValueError(f"input_std must hold numbers above 0. Received: input_std={input_std!r}.")
        self.input_std = input_std.tolist() if isinstance(input_std, np.ndarray) else input_std
        self._stepped = None

    def check_source(self, source):
        """Gradients need a Keras model whose inputs are floats."""
        super().check_source(source)
        model = source.model
        if not isinstance(model, keras.Model):
            raise ValueError(f"{self.name} needs gradients. Received: {type(model).__name__}, which is no Keras model.")
        dtypes = [keras.backend.standardize_dtype(tensor.dtype) for tensor in getattr(model, "inputs", None) or ()]
        if not all("float" in dtype for dtype in dtypes):
            raise ValueError(
                f"{self.name} changes inputs by small numbers, so they must be floats. Received: a model of {dtypes}. "
                "Use a detector without gradients, such as 'energy'."
            )
        self._stepped = Forward(_Stepped(source.run.model, dtypes, self))

    def scores(self, batch):
        """Scores of a batch."""
        logits = np.asarray(keras.ops.convert_to_numpy(self._stepped(batch.inputs)), dtype=np.float64)
        return score(logits, self.temperature)

    def perturbed(self, x):
        """The inputs after the step, as a tensor."""
        return self._stepped.model.step(keras.tree.map_structure(keras.ops.convert_to_tensor, x))


class _Stepped:
    """Logits of a model after a step of its inputs."""

    def __init__(self, model, dtypes, detector):
        self.model, self.dtypes, self.detector = model, dtypes, detector

    def __call__(self, x, training=False):
        """Logits (samples, classes) of the perturbed inputs."""
        return self._logits(self.step(x))

    def step(self, x):
        """Perturbed inputs."""
        import tensorflow as tf

        dtypes = iter(self.dtypes or ["float32"] * len(keras.tree.flatten(x)))
        x = keras.tree.map_structure(lambda leaf: keras.ops.cast(leaf, next(dtypes)), x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = self._logits(x)
            # Found before the division, after which float32 may see ties.
            predicted = keras.ops.one_hot(keras.ops.argmax(logits, axis=-1), logits.shape[-1])
            log_p = keras.ops.log_softmax(logits / self.detector.temperature, axis=-1)
            # T times the loss: the sign is the same, and a gradient over T would underflow in half precision.
            loss = -self.detector.temperature * keras.ops.sum(predicted * log_p)
        gradients = tape.gradient(loss, x, unconnected_gradients="zero")
        return keras.tree.map_structure(
            lambda leaf, gradient: perturb(leaf, gradient, self.detector.epsilon, self.detector.input_std), x, gradients
        )

    def _logits(self, x):
        logits = keras.ops.cast(self.model(x, training=False), "float32")
        logits = keras.ops.reshape(logits, (-1, logits.shape[-1] if len(logits.shape) > 1 else 1))
        if logits.shape[-1] > 1:
            return logits
        return keras.ops.concatenate([keras.ops.zeros_like(logits), logits], axis=-1)
