"""How sure is a model of its last layer? A Laplace approximation: a Gaussian over the last weights, after training.

The data fix some directions of the last layer's weights sharply and others hardly at all. A sample whose features point
where the data said little gets logits of large variance, and so probabilities nearer to even.
"""

import json
import math
import numbers
import zipfile
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

from tfprune.metrics.scores import entropy, log_softmax, softmax
from tfprune.structure.roles import unwrap
from tfprune.uncertainty.curvature import STRUCTURES
from tfprune.uncertainty.detectors.features import Features, weights_hash
from tfprune.uncertainty.detectors.linear_head import find_linear_head
from tfprune.uncertainty.leak import Fingerprint
from tfprune.uncertainty.passes import BATCH_SIZE, arrays_of, parts
from tfprune.uncertainty.predictive import Predictive, uncertainty_of
from tfprune.writing import replacing

KIND, FORMAT = "tfprune last-layer laplace", 1
# Where the system does not say what it has.
_MEMORY = 4 * 2**30
# Sampled probabilities held at a time.
_NUM_HELD = 2**22


class LastLayerLaplace(Predictive):
    """A Gaussian over the weights of the last layer, found in one pass over the training data.

    The logits are the model's, in float64, and their probabilities take the variance into account by the probit link,
    softmax(mean / sqrt(1 + pi / 8 variance)). The class with the largest probability may change.

    The parameters are those of the linear map from features to logits: weights and, where the layer has one, the bias;
    a temperature or BatchNormalization after it is folded in. A single sigmoid output counts as one logit. Of a masked
    model (see `tfprune.wrap`), features that are pruned are no parameters: it gives what its ticket gives.

    Fit it again where the model is trained or pruned further.

    Args:
        structure: what is kept of the curvature. "full" all of it, (classes * (features + 1)) ** 2 numbers; "kfac"
            Kronecker factors, features ** 2 + classes ** 2 numbers; "diag" the diagonal.
        prior_precision: precision (1 / variance) of the Gaussian prior on every parameter; "marginal_likelihood" takes
            the one under which the training data are likeliest. After `fit` it is the number used.
        num_samples: draws of the logits that the mutual information is computed from.
        seed: integer that they are drawn from; every sample gets the same draws, scaled and turned by its covariance,
            so that no result depends on the batch.
        memory_limit: bytes that may be used; None takes what the system has free.

    Example:
        >>> laplace = LastLayerLaplace().fit(model, (x_train, y_train))
        >>> laplace.prior_precision
        >>> tfprune.evaluate(laplace, (x_test, y_test))
        >>> laplace.predict_uncertainty(x)["mutual_information"]

    Source: Daxberger et al., "Laplace Redux - Effortless Bayesian Deep Learning", 2021; MacKay, "The Evidence Framework
    Applied to Classification Networks", 1992.
    """

    def __init__(
        self, structure="kfac", prior_precision="marginal_likelihood", num_samples=100, seed=0, memory_limit=None
    ):
        if structure not in STRUCTURES:
            raise ValueError(f"structure must be one of {sorted(STRUCTURES)}. Received: structure={structure!r}.")
        _check_prior(prior_precision)
        _check_whole("num_samples", num_samples, 2)
        _check_whole("seed", seed, 0)
        if memory_limit is not None:
            _check_whole("memory_limit", memory_limit, 1)
        self.structure, self.prior_precision = structure, prior_precision
        self.num_samples, self.seed, self.memory_limit = num_samples, seed, memory_limit
        self._asked, self._curvature, self._fingerprint = prior_precision, None, None

    # --- fitting ------------------------------------------------------------------------------------------------------

    def fit(self, model, train):
        """Fits the Gaussian in one pass over the data; returns itself.

        Args:
            model: a built Sequential or functional Keras model, trained, with one output (samples, classes) or one
                sigmoid column. It is left as it is.
            train: its training data, `(x, y)` arrays or a `tf.data.Dataset` of `(x, y)`, batched or not; without
                augmentation.

        Raises:
            ValueError: for a model whose logits are no linear map of features; a structure that does not fit in memory;
                data that do not fit the model; where no best prior precision exists.
        """
        self._start(model)
        size, has_bias = self._weights.shape, bool(self._bias.size)
        self._check_memory(*size)
        curvature, fingerprint = STRUCTURES[self.structure](*size, has_bias), Fingerprint("LastLayerLaplace")
        self._log_likelihood = 0.0
        for batch in self._features.stream(train, "train", labelled=True):
            features = batch.features.astype(np.float64)
            log_p = log_softmax(self._mean(features))
            self._log_likelihood += float(np.take_along_axis(log_p, batch.labels[:, None], axis=1).sum())
            curvature.add(features, *_chances(log_p, size[1]))
            fingerprint.add(batch.inputs)
        if not fingerprint.num_samples:
            raise ValueError("Expected at least one sample. Received: train without any.")
        curvature.decompose()
        by_likelihood = self._asked == "marginal_likelihood"
        prior_precision = self._best_prior(curvature.eigenvalues) if by_likelihood else float(self._asked)
        self._finish(curvature, prior_precision, fingerprint)
        return self

    def _start(self, model):
        """Takes a model, and of it the weights (features, outputs) and the bias (outputs,), empty where it has none."""
        self._curvature = self._fingerprint = None  # until it is fitted anew
        self.model, self._features = model, Features(model)
        if self._features.linear is None:
            raise ValueError(
                f"LastLayerLaplace needs a model whose logits are a linear map of features, but "
                f"{self._features.without_features}. Let it end in Dense, or use an Ensemble."
            )
        self._weights, self._bias = _parameters(self._features.linear, model)

    def _check_memory(self, num_features, num_outputs):
        """Refuses before the pass over the data what would end in the middle of it."""
        limit = _available_memory() if self.memory_limit is None else self.memory_limit
        structure = STRUCTURES[self.structure]
        needed = structure.memory(num_features, num_outputs)
        if needed > limit:
            instead = f'Use structure="{structure.smaller}", or pass a larger memory_limit.'
            raise ValueError(
                f'structure="{self.structure}" of {num_features} features and {num_outputs} logits needs '
                f"{_gigabytes(needed)}, and {_gigabytes(limit)} are free or allowed. "
                f"{instead if structure.smaller else 'Pass a larger memory_limit.'}"
            )

    def _best_prior(self, eigenvalues):
        """The prior precision of the largest marginal likelihood."""
        values, square = eigenvalues[eigenvalues > 0], self._square_norm
        if not square > 0 or not values.size:
            raise ValueError(
                "No best prior precision exists: the weights of the last layer are all 0, or every training sample is "
                'predicted with probability 1. Pass a number as prior_precision in place of "marginal_likelihood".'
            )

        # The derivative of the log marginal likelihood by log delta, times 2. It falls from the number of directions
        # that the data fix to minus infinity, so that it has exactly one root: the one maximum.
        def slope(log_delta):
            delta = math.exp(log_delta)
            return float(np.sum(values / (values + delta)) - delta * square)

        largest = math.log(len(values) / square) + 1.0
        smallest = largest - 2.0
        while slope(smallest) <= 0:
            smallest -= 2.0
        return math.exp(brentq(slope, smallest, largest, xtol=1e-13, rtol=1e-14))

    def _finish(self, curvature, prior_precision, fingerprint):
        """What makes it fitted, last of all."""
        self.prior_precision, self._fingerprint = prior_precision, fingerprint
        self._curvature = curvature.at(prior_precision)

    @property
    def _square_norm(self):
        return float(np.sum(self._weights**2) + np.sum(self._bias**2))

    # --- what is known after it ---------------------------------------------------------------------------------------

    @property
    def num_parameters(self):
        """How many weights the Gaussian is over; masked ones do not count."""
        self._check_fitted()
        return int(self._weights.size + self._bias.size)

    @property
    def inputs(self):
        """The model's inputs."""
        return self.model.inputs

    @property
    def fingerprints(self):
        """The `Fingerprint` of the training data, in a list."""
        return [self._fingerprint] if self._fingerprint else []

    def log_marginal_likelihood(self, prior_precision=None):
        """Logarithm of the probability of the training labels, approximately, a float: how well a prior fits.

        Args:
            prior_precision: the precision of the prior; None takes the one in use, which stays in use.
        """
        self._check_fitted()
        delta = self.prior_precision if prior_precision is None else prior_precision
        _check_prior(delta, is_number=True)
        # log |P| - log |P0|; as one logarithm of each ratio nothing cancels where the curvature is small.
        log_ratio = np.sum(np.log1p(self._curvature.eigenvalues / delta))
        return float(self._log_likelihood - (log_ratio + delta * self._square_norm) / 2)

    def posterior_precision(self):
        """Precision of the Gaussian over the parameters: weights (outputs, features) by rows, then the bias.

        Returns:
            (parameters, parameters), for "diag" its diagonal (parameters,).

        Raises:
            ValueError: where the matrix does not fit in memory.
        """
        self._check_fitted()
        if self.structure == "kfac" and self.num_parameters**2 * 24 > (self.memory_limit or _available_memory()):
            raise ValueError(f"The precision of {self.num_parameters} parameters does not fit in memory as a matrix.")
        return self._curvature.precision()

    def logits(self, x):
        """Mean (n, outputs) and covariance (n, outputs, outputs) of the logits, float64; one logit for a sigmoid.

        Args:
            x: array of inputs, samples first, or a structure of such.
        """
        found = [(self._mean(features), self._curvature.covariance(features)) for features in self._batches(x)]
        return tuple(np.concatenate(part) for part in zip(*found, strict=True))

    # --- predicting ---------------------------------------------------------------------------------------------------

    def predict(self, x):
        """Probabilities by the probit link, float64 (n, classes).

        Args:
            x: array of inputs, samples first, or a structure of such.
        """
        return np.concatenate([self._probabilities(features) for features in self._batches(x)])

    def predict_uncertainty(self, x):
        """Probabilities as `predict` gives them, their entropy, and the mutual information of prediction and weights.

        The mutual information is computed from `num_samples` draws of the logits.

        Args:
            x: array of inputs, samples first, or a structure of such.

        Returns:
            `{"probabilities": (n, classes), "entropy": (n,), "mutual_information": (n,)}`, float64, in nats.
        """
        found = [(self._probabilities(features), self._mutual_information(features)) for features in self._batches(x)]
        probabilities, information = (np.concatenate(part) for part in zip(*found, strict=True))
        return {"probabilities": probabilities, "entropy": entropy(probabilities), "mutual_information": information}

    def _batches(self, x):
        """Yields the features of the inputs, float64, some at a time."""
        self._check_fitted()
        weights, bias = _parameters(find_linear_head(self._features.traced), self.model)
        if not np.array_equal(weights, self._weights) or not np.array_equal(bias, self._bias):
            raise ValueError("The model's last layer has changed since fit. Fit the LastLayerLaplace again.")
        for part in parts(arrays_of(x, self.model), BATCH_SIZE):
            yield self._features.batch(part).features.astype(np.float64)

    def _mean(self, features):
        """Logits (n, outputs)."""
        return features @ self._weights + (self._bias if self._bias.size else 0.0)

    def _probabilities(self, features):
        return softmax(self._mean(features) / np.sqrt(1 + math.pi / 8 * self._curvature.variance(features)))

    def _mutual_information(self, features):
        size = self._weights.shape[1]
        normals = np.random.default_rng(self.seed).standard_normal((self.num_samples, size))
        step = max(1, _NUM_HELD // (self.num_samples * max(size, 2)))
        return np.concatenate(
            [self._information(features[start : start + step], normals) for start in range(0, len(features), step)]
        )

    def _information(self, features, normals):
        logits = self._mean(features) + self._curvature.deviations(features, normals)
        return uncertainty_of([softmax(drawn) for drawn in logits])["mutual_information"]

    def _check_fitted(self):
        if self._curvature is None:
            raise ValueError("LastLayerLaplace is not fitted. Call fit(model, train) first.")

    # --- the file -----------------------------------------------------------------------------------------------------

    def save(self, path):
        """Writes what was fitted, without the model, as one .npz file; a file there is replaced as a whole.

        Args:
            path: file to write.
        """
        self._check_fitted()
        header = {
            **{"kind": KIND, "format": FORMAT, "structure": self.structure, "prior_precision": self.prior_precision},
            **{"asked": self._asked, "num_samples": self.num_samples, "seed": self.seed},
            **{"log_likelihood": self._log_likelihood, "model": weights_hash(self.model)},
            "fingerprint": self._fingerprint.get_config(),
        }
        with replacing(path) as partial, open(partial, "wb") as file:
            np.savez(file, header=np.array(json.dumps(header)), **self._curvature.arrays())

    @classmethod
    def load(cls, path, model):
        """What `save` wrote, for the model that it was fitted on.

        Args:
            path: the file.
            model: a Keras model with the same weights.

        Raises:
            ValueError: for a file that is no such thing or of a newer format, or a model with other weights.
        """
        header, arrays = _read(path)
        if header["model"] != weights_hash(model):
            raise ValueError(
                f"'{path}' was fitted on a model with other weights than '{model.name}'. Load the model it was fitted "
                "on, or fit it again on this one."
            )
        made = cls(header["structure"], header["asked"], header["num_samples"], header["seed"])
        made._start(model)
        made._log_likelihood = header["log_likelihood"]
        shape = (made._weights.shape[1], bool(made._bias.size))
        curvature = STRUCTURES[made.structure].from_arrays(arrays, *shape)
        made._finish(curvature, header["prior_precision"], Fingerprint.from_config(header["fingerprint"]))
        return made


def _parameters(linear, model):
    """Weights (features, outputs) and bias (outputs,), empty where there is none; one logit stays one."""
    first = 1 if model.outputs[0].shape[-1] == 1 else 0  # `LinearHead` puts a logit of 0 for the other class before it
    has_bias = unwrap(linear.call.op).bias is not None or np.any(linear.bias != 0)
    return linear.weights[:, first:], linear.bias[first:] if has_bias else np.zeros(0)


def _chances(log_p, num_outputs):
    """Probabilities p and 1 - p (n, outputs), the latter exact where p is nearly 1."""
    p = np.exp(log_p)
    others, largest = 1.0 - p, p.argmax(axis=1)[:, None]
    rest = p.copy()
    np.put_along_axis(rest, largest, 0.0, axis=1)
    np.put_along_axis(others, largest, rest.sum(axis=1, keepdims=True), axis=1)
    return p[:, -num_outputs:], others[:, -num_outputs:]


def _check_prior(prior_precision, is_number=False):
    if prior_precision == "marginal_likelihood" and not is_number:
        return
    is_real = isinstance(prior_precision, numbers.Real) and not isinstance(prior_precision, bool)
    if not is_real or not 0 < prior_precision < math.inf:
        raise ValueError(
            'prior_precision must be a positive number, or "marginal_likelihood" for LastLayerLaplace to find it. '
            f"Received: prior_precision={prior_precision!r}."
        )


def _check_whole(name, value, smallest):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < smallest:
        raise ValueError(f"{name} must be an integer of at least {smallest}. Received: {name}={value!r}.")


def _available_memory():
    """Bytes that the system has free."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return _MEMORY


def _gigabytes(size):
    return f"{size / 2**30:.3g} GiB of memory"


def _read(path):
    """The header and the arrays of a saved file."""
    try:
        # Opened here: np.load leaves a damaged file open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        header = json.loads(str(arrays.pop("header")))
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"'{path}' is no LastLayerLaplace file, or is damaged: {error}") from error
    if header.get("kind") != KIND:
        raise ValueError(f"'{path}' is no LastLayerLaplace file.")
    if header["format"] > FORMAT:
        raise ValueError(f"'{path}' has format {header['format']}, this tfprune reads up to {FORMAT}. Update tfprune.")
    return header, arrays
