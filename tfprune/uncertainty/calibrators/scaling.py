"""Which linear map of the logits makes their softmax most likely? Temperature, vector and matrix scaling.

All three minimise the negative log-likelihood of the validation labels, a convex problem, in float64.
"""

import keras
import numpy as np
import scipy.optimize
from keras import ops

from tfprune.metrics.scores import log_softmax
from tfprune.structure.cost import RULES
from tfprune.uncertainty.calibrators.base import Calibrator

_BLOCK = 4096  # samples at a time: 1000 classes need 32 MB for each temporary


@keras.saving.register_keras_serializable("tfprune")
class TemperatureScaling(Calibrator):
    """Divides the logits by one number, the temperature; the predicted class stays the same.

    A temperature above 1 means that the model was over-confident. It is found by Newton's method on its inverse, to the
    last digits of float64, wherever it lies.

    Args:
        name: name of the layer.
        dtype: dtype of the calibrated logits.

    Raises:
        ValueError: in `fit`, where no temperature is best: every sample is predicted right, so that the likelihood
            grows as the temperature falls to 0; or the logits are worse than none, so that it grows up to infinity.

    Example:
        >>> calibrator = TemperatureScaling().fit(model, (x_val, y_val))
        >>> calibrator.temperature
        1.83
        >>> calibrated = calibrator.attach(model)

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """

    def __init__(self, name=None, dtype="float32", **kwargs):
        super().__init__(name=name, dtype=dtype, **kwargs)

    @property
    def temperature(self):
        """The temperature, a float."""
        self._check_fitted()
        return 1.0 / float(ops.convert_to_numpy(self.inverse_temperature))

    def learn(self, logits, labels):
        """The inverse temperature of least negative log-likelihood."""
        return {"inverse_temperature": best_inverse_temperature(logits, labels)}

    def calibrate(self, logits):
        """Logits over temperature."""
        return logits * ops.convert_to_tensor(self.inverse_temperature)


@keras.saving.register_keras_serializable("tfprune")
class VectorScaling(Calibrator):
    """Gives each class a factor and a bias: `scale * logits + bias`.

    Args:
        name: name of the layer.
        dtype: dtype of the calibrated logits.

    Raises:
        ValueError: in `fit`, where a class has no sample among the labels, or where the samples can all be predicted
            right: then no best factors exist.

    Example:
        >>> calibrator = VectorScaling().fit(model, (x_val, y_val))
        >>> calibrated = calibrator.attach(model)

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """

    def __init__(self, name=None, dtype="float32", **kwargs):
        super().__init__(name=name, dtype=dtype, **kwargs)

    def learn(self, logits, labels):
        """Factors and biases of least negative log-likelihood."""
        _check_all_classes(labels, logits.shape[1], type(self).__name__)
        _check_mistakes(logits, labels)
        unit, num_classes = _unit(logits), logits.shape[1]

        def objective(parameters):
            scale, bias = np.split(parameters, 2)
            loss, residual = _loss_and_residual(scaled * scale + bias, labels)
            return loss, np.concatenate([np.sum(residual * scaled, axis=0), residual.sum(axis=0)])

        scaled = logits / unit
        scale, bias = np.split(_minimise(objective, np.ones(2 * num_classes)), 2)
        _check_mistakes(scaled * scale + bias, labels)
        return {"scale": scale / unit, "bias": bias}

    def calibrate(self, logits):
        """Factor times logit plus bias."""
        return logits * ops.convert_to_tensor(self.scale) + ops.convert_to_tensor(self.bias)


@keras.saving.register_keras_serializable("tfprune")
class MatrixScaling(Calibrator):
    """Multiplies the logits by a matrix and adds a bias: `logits @ kernel + bias`, with penalties.

    Without penalties it fits validation noise as soon as there are more than a few classes. The off-diagonal and
    intercept regularisation (ODIR) adds to the mean negative log-likelihood

        regularization * mean of squared off-diagonal entries + bias_regularization * mean of squared biases

    and leaves the diagonal free. Of a model that gives probabilities this is Dirichlet calibration, for then the logits
    are their logarithms.

    Args:
        regularization: penalty on the entries off the diagonal, at least 0. A mean over so many entries takes large
            numbers: the default keeps 100 classes from over-fitting 5000 samples, and is close to `VectorScaling` for
            few. Choose it by the likelihood on samples held out of the validation set.
        bias_regularization: penalty on the biases, at least 0.
        name: name of the layer.
        dtype: dtype of the calibrated logits.

    Raises:
        ValueError: for a negative penalty; in `fit`, where no best matrix exists: the samples can all be predicted
            right by what is not penalised, or a class has no sample and the penalties are 0.

    Example:
        >>> calibrator = MatrixScaling(regularization=100.0).fit(model, (x_val, y_val))
        >>> calibrated = calibrator.attach(model)

    Source: Kull et al., "Beyond temperature scaling: Obtaining well-calibrated multiclass probabilities with Dirichlet
    calibration", 2019.
    """

    def __init__(self, regularization=1e4, bias_regularization=0.01, name=None, dtype="float32", **kwargs):
        super().__init__(name=name, dtype=dtype, **kwargs)
        self.regularization = _checked_penalty("regularization", regularization)
        self.bias_regularization = _checked_penalty("bias_regularization", bias_regularization)

    def learn(self, logits, labels):
        """Matrix and bias of least penalised negative log-likelihood."""
        num_classes, unit = logits.shape[1], _unit(logits)
        is_penalised = min(self.regularization, self.bias_regularization) > 0
        if not is_penalised:
            _check_all_classes(labels, num_classes, type(self).__name__)
        _check_mistakes(logits, labels)
        scaled = logits / unit
        # Penalties on the matrix and the bias as they are, not on those of the scaled logits.
        off_diagonal = self.regularization / (num_classes * (num_classes - 1)) / unit**2 * (1 - np.eye(num_classes))
        on_bias = self.bias_regularization / num_classes

        def objective(parameters):
            kernel, bias = _kernel_and_bias(parameters, num_classes)
            loss, residual = _loss_and_residual(scaled @ kernel + bias, labels)
            loss += np.sum(off_diagonal * kernel**2) + on_bias * np.sum(bias**2)
            of_kernel = scaled.T @ residual + 2 * off_diagonal * kernel
            return loss, np.concatenate([of_kernel.ravel(), residual.sum(axis=0) + 2 * on_bias * bias])

        curvature = np.append(1 / num_classes + 2 * off_diagonal, np.full(num_classes, 1 / num_classes + 2 * on_bias))
        kernel, bias = _kernel_and_bias(_minimise(objective, curvature), num_classes)
        # What is not penalised could grow without end if it alone predicted every sample right.
        free = kernel if not self.regularization else np.diag(np.diag(kernel))
        _check_mistakes(scaled @ free + (0 if self.bias_regularization else bias), labels)
        return {"kernel": kernel / unit, "bias": bias}

    def calibrate(self, logits):
        """Logits times matrix plus bias."""
        return ops.matmul(logits, ops.convert_to_tensor(self.kernel)) + ops.convert_to_tensor(self.bias)

    def get_config(self):
        """What `__init__` takes, and what was learned but for the weights."""
        penalties = {"regularization": self.regularization, "bias_regularization": self.bias_regularization}
        return {**super().get_config(), **penalties}


# What it multiplies, for `tfprune.structure.cost`; the other calibrators hold no matrix.
RULES[MatrixScaling] = lambda layer, inputs, outputs: layer.num_classes**2


# --- temperature ------------------------------------------------------------------------------------------------------


def best_inverse_temperature(logits, labels):
    """The factor b > 0 for which softmax(b * logits) gives the labels the largest likelihood.

    Args:
        logits: float64 (n, classes).
        labels: integers (n,).

    Raises:
        ValueError: where there is none; see `TemperatureScaling`.
    """
    _check_mistakes(logits, labels)
    if temperature_derivatives(logits, labels, 0.0)[0] >= 0:
        raise ValueError(
            "No temperature is best: the logits of the true classes are no larger than the others on average, so the "
            "likelihood grows up to an infinite temperature. Do the labels belong to these samples?"
        )
    lower, upper, factor = 0.0, np.inf, 1.0 / _unit(logits)
    for _ in range(200):
        slope, curvature = temperature_derivatives(logits, labels, factor)
        if slope == 0:
            return factor
        # The loss is convex: the sign of its slope says on which side of the factor its minimum is.
        lower, upper = (factor, upper) if slope < 0 else (lower, factor)
        step = factor - slope / curvature if curvature > 0 else np.inf
        if abs(step - factor) <= 1e-10 * factor:
            return step  # each step squares the error: this one is below the last digit
        factor = step if lower < step < upper else _between(lower, upper)
    return factor


def _between(lower, upper):
    """A point in a bracket: far from Newton's reach, halve or double."""
    if np.isinf(upper):
        return 4.0 * lower
    return np.sqrt(lower * upper) if lower > 0 else upper / 4.0


def temperature_derivatives(logits, labels, factor):
    """First and second derivative of the mean negative log-likelihood of softmax(factor * logits), by the factor.

    They are the mean of E[z] - z_label and of Var[z] under the predicted probabilities: two sums over the samples.

    Args:
        logits: float64 (n, classes).
        labels: integers (n,).
        factor: the inverse temperature.
    """
    first, second = 0.0, 0.0
    for start in range(0, len(logits), _BLOCK):
        z, y = logits[start : start + _BLOCK], labels[start : start + _BLOCK, None]
        z = z - np.take_along_axis(z, y, axis=1)
        p = np.exp(log_softmax(factor * z))
        mean = np.sum(p * z, axis=1, keepdims=True)
        first += mean.sum()
        second += np.sum(p * (z - mean) ** 2)
    return first / len(logits), second / len(logits)


# --- vector and matrix ------------------------------------------------------------------------------------------------


def _minimise(objective, curvature):
    """The minimum of a smooth convex function that gives `(value, gradient)`.

    Starts from 0, where every class is as likely. `curvature` is about how much the slope in each parameter changes
    with it: the search is done in parameters of curvature 1, or a strong penalty on some would hold up the others.
    """
    step = 1.0 / np.sqrt(curvature)

    def rescaled(parameters):
        value, gradient = objective(parameters * step)
        return value, gradient * step

    options = {"maxiter": 20_000, "maxfun": 40_000, "maxcor": 20, "ftol": 0.0, "gtol": 1e-8}
    found = scipy.optimize.minimize(rescaled, np.zeros(len(curvature)), jac=True, method="L-BFGS-B", options=options)
    # The line search ends where rounding hides any further gain; a gradient that small is the minimum.
    if not np.abs(found.jac).max() < 1e-5:
        raise ValueError(
            f"No minimum found: after {found.nit} steps the gradient is still {np.abs(found.jac).max():.1e} "
            f"({found.message}). Are the logits of some classes all but constant? Try TemperatureScaling."
        )
    return found.x * step


def _loss_and_residual(logits, labels):
    """Mean negative log-likelihood, and its gradient by the logits."""
    log_probabilities = log_softmax(logits)
    rows = np.arange(len(labels))
    loss = -log_probabilities[rows, labels].mean()
    residual = np.exp(log_probabilities)
    residual[rows, labels] -= 1.0
    return loss, residual / len(labels)


def _kernel_and_bias(parameters, num_classes):
    return parameters[:-num_classes].reshape(num_classes, num_classes), parameters[-num_classes:]


def _unit(logits):
    """A typical size of the logits' differences; the optimisers work on logits of size 1."""
    return max(float(np.sqrt(np.mean((logits - logits.mean(axis=1, keepdims=True)) ** 2))), 1e-300)


def _check_mistakes(logits, labels):
    if np.all(logits.max(axis=1) <= logits[np.arange(len(labels)), labels]):
        raise ValueError(
            f"No scaling is best: all {len(labels)} validation samples are, or can be, predicted right, so the "
            "likelihood grows without end with the confidence. Use more validation samples, some of which the model "
            "gets wrong, or fewer parameters (TemperatureScaling)."
        )


def _check_all_classes(labels, num_classes, name):
    missing = np.setdiff1d(np.arange(num_classes), labels)
    if len(missing):
        raise ValueError(
            f"{name} without a penalty needs samples of every class: the bias of a class without any falls without "
            f"end. Received: no label {missing[:5].tolist()}. Use more validation samples, TemperatureScaling, or "
            "MatrixScaling with a regularization."
        )


def _checked_penalty(name, value):
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or not 0 <= value < np.inf:
        raise ValueError(f"{name} must be a number of at least 0. Received: {name}={value!r}.")
    return float(value)
