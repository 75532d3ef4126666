"""How sharply do the data fix the weights of a softmax layer? Its curvature in float64, in one of three structures.

The layer's logits are features @ weights + bias. The generalised Gauss-Newton matrix of its negative log-likelihood, H
= sum over samples of J' (diag p - p p') J with J the derivative of the logits by the parameters, is kept whole
(`Full`), as its diagonal (`Diagonal`), or as Kronecker factors (`Kronecker`). With a prior of precision delta on all
parameters, their posterior has precision H + delta I, and the logits the covariance J (H + delta I)^-1 J'.

A single logit z, of class 1 of two, is the same with p the probability of class 1.

A structure is fed batches, then `decompose`d once; after that `at(delta)` sets the prior.
"""

import numpy as np
import scipy.linalg

_FLOAT = 8


class Full:
    """The whole matrix; exact, for layers of some thousand parameters.

    Args:
        num_features: inputs of the layer.
        num_outputs: its logits.
        has_bias: whether it has a bias.
    """

    name, smaller = "full", "kfac"

    def __init__(self, num_features, num_outputs, has_bias):
        self.num_outputs, self.has_bias, self.num_rows = num_outputs, has_bias, num_features + has_bias
        self.sums = np.zeros((num_outputs, self.num_rows, num_outputs, self.num_rows))

    @staticmethod
    def memory(num_features, num_outputs):
        """Bytes needed: the matrix, its eigenvectors, and twice as much to find them."""
        return 4 * _FLOAT * (num_outputs * (num_features + 1)) ** 2

    def add(self, features, p, others):
        """Adds a batch: features (n, features), probabilities p and 1 - p (n, outputs)."""
        rows = self._rows(features)
        for one in range(self.num_outputs):
            for other in range(one, self.num_outputs):
                weight = p[:, one] * (others[:, one] if one == other else -p[:, other])
                block = rows.T @ (weight[:, None] * rows)
                self.sums[one, :, other, :] += block
                if one != other:
                    self.sums[other, :, one, :] += block

    def decompose(self):
        """Finds what `at` needs; the sums are gone then."""
        size = self.num_outputs * self.num_rows
        self.eigenvalues, self.vectors = _eigen(self.sums.reshape(size, size))
        del self.sums
        return self

    def at(self, delta):
        """Sets the precision of the prior."""
        self.delta = delta
        posterior = (self.vectors / (self.eigenvalues + delta)) @ self.vectors.T
        self.posterior = posterior.reshape(self.num_outputs, self.num_rows, self.num_outputs, self.num_rows)
        return self

    def precision(self):
        """Precision of the posterior (parameters, parameters): weights (outputs, features) by rows, then the bias."""
        matrix = (self.vectors * (self.eigenvalues + self.delta)) @ self.vectors.T
        places = np.arange(len(matrix)).reshape(self.num_outputs, self.num_rows)
        order = np.concatenate([places[:, : self.num_rows - self.has_bias].ravel(), places[:, -1]][: 1 + self.has_bias])
        return matrix[np.ix_(order, order)]

    def variance(self, features):
        """Variance of each logit (n, outputs)."""
        rows = self._rows(features)
        blocks = [self.posterior[one, :, one, :] for one in range(self.num_outputs)]
        return np.stack([np.sum((rows @ block) * rows, axis=1) for block in blocks], axis=1)

    def covariance(self, features):
        """Covariance of the logits (n, outputs, outputs)."""
        rows, size = self._rows(features), self.num_outputs
        found = np.empty((len(rows), size, size))
        for one in range(size):
            for other in range(one, size):
                found[:, one, other] = np.sum((rows @ self.posterior[one, :, other, :]) * rows, axis=1)
                found[:, other, one] = found[:, one, other]
        return found

    def deviations(self, features, normals):
        """Draws of the logits less their mean (draws, n, outputs), from standard normals (draws, outputs)."""
        values, vectors = np.linalg.eigh(self.covariance(features))
        roots = (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ vectors.transpose(0, 2, 1)
        return np.einsum("so,nop->snp", normals, roots)

    def arrays(self):
        """What `from_arrays` needs."""
        return {"eigenvalues": self.eigenvalues, "vectors": self.vectors}

    @classmethod
    def from_arrays(cls, arrays, num_outputs, has_bias):
        """The decomposed structure that `arrays` was called on."""
        made = cls.__new__(cls)
        made.num_outputs, made.has_bias = num_outputs, has_bias
        made.eigenvalues, made.vectors = arrays["eigenvalues"], arrays["vectors"]
        made.num_rows = len(made.eigenvalues) // num_outputs
        return made

    def _rows(self, features):
        return np.pad(features, ((0, 0), (0, 1)), constant_values=1.0) if self.has_bias else features


class Diagonal:
    """The diagonal alone: the parameters are taken for independent; for any size.

    Args:
        num_features: inputs of the layer.
        num_outputs: its logits.
        has_bias: whether it has a bias.
    """

    name, smaller = "diag", None

    def __init__(self, num_features, num_outputs, has_bias):
        self.weights, self.bias = np.zeros((num_outputs, num_features)), np.zeros(num_outputs if has_bias else 0)

    @staticmethod
    def memory(num_features, num_outputs):
        """Bytes needed."""
        return 4 * _FLOAT * num_outputs * (num_features + 1)

    def add(self, features, p, others):
        """Adds a batch: features (n, features), probabilities p and 1 - p (n, outputs)."""
        self.weights += (p * others).T @ features**2
        if len(self.bias):
            self.bias += np.sum(p * others, axis=0)

    def decompose(self):
        """Nothing to find: the diagonal is decomposed."""
        return self

    @property
    def eigenvalues(self):
        """Of the curvature, one for each parameter."""
        return np.concatenate([self.weights.ravel(), self.bias])

    def at(self, delta):
        """Sets the precision of the prior."""
        self.delta = delta
        return self

    def precision(self):
        """Precision of the posterior (parameters,): weights (outputs, features) by rows, then the bias."""
        return self.eigenvalues + self.delta

    def variance(self, features):
        """Variance of each logit (n, outputs)."""
        bias = 1 / (self.bias + self.delta) if len(self.bias) else 0.0
        return features**2 @ (1 / (self.weights + self.delta)).T + bias

    def covariance(self, features):
        """Covariance of the logits (n, outputs, outputs), which is diagonal."""
        variance = self.variance(features)
        return variance[:, :, None] * np.eye(variance.shape[1])

    def deviations(self, features, normals):
        """Draws of the logits less their mean (draws, n, outputs), from standard normals (draws, outputs)."""
        return normals[:, None, :] * np.sqrt(self.variance(features))

    def arrays(self):
        """What `from_arrays` needs."""
        return {"weights": self.weights, "bias": self.bias}

    @classmethod
    def from_arrays(cls, arrays, num_outputs, has_bias):
        """The structure that `arrays` was called on."""
        made = cls(arrays["weights"].shape[1], num_outputs, has_bias)
        made.weights, made.bias = arrays["weights"], arrays["bias"]
        return made


class Kronecker:
    """Kronecker factors: H is taken for G x A for the weights, and G for the bias, independent of these.

    G = sum of diag p - p p' and A = mean of the features' outer products. In the eigenbases of G and A all is diagonal,
    so that a matrix over all parameters is never built.

    Args:
        num_features: inputs of the layer.
        num_outputs: its logits.
        has_bias: whether it has a bias.

    Source: Ritter, Botev and Barber, "A Scalable Laplace Approximation for Neural Networks", 2018.
    """

    name, smaller = "kfac", "diag"

    def __init__(self, num_features, num_outputs, has_bias):
        self.has_bias, self.num_samples = has_bias, 0
        self.of_logits, self.of_features = np.zeros((num_outputs,) * 2), np.zeros((num_features,) * 2)

    @staticmethod
    def memory(num_features, num_outputs):
        """Bytes needed: two matrices, their eigenvectors and twice as much to find them, and their eigenvalues."""
        return 4 * _FLOAT * (num_features**2 + num_outputs**2 + num_features * num_outputs)

    def add(self, features, p, others):
        """Adds a batch: features (n, features), probabilities p and 1 - p (n, outputs)."""
        products = -p.T @ p
        np.fill_diagonal(products, np.sum(p * others, axis=0))  # p - p**2 would lose what is left of a p near 1
        self.of_logits += products
        self.of_features += features.T @ features
        self.num_samples += len(features)

    def decompose(self):
        """Finds the eigenbases that `at` needs."""
        self.output_values, self.output_vectors = _eigen(self.of_logits)
        self.feature_values, self.feature_vectors = _eigen(self.of_features / self.num_samples)
        return self

    @property
    def eigenvalues(self):
        """Of the curvature, one for each parameter."""
        values = np.outer(self.output_values, self.feature_values).ravel()
        return np.concatenate([values, self.output_values]) if self.has_bias else values

    def at(self, delta):
        """Sets the precision of the prior."""
        self.delta = delta
        self.inverse = 1 / (np.outer(self.feature_values, self.output_values) + delta)
        return self

    def precision(self):
        """Precision of the posterior (parameters, parameters): weights (outputs, features) by rows, then the bias."""
        of_logits, of_features = (
            (vectors * values) @ vectors.T
            for values, vectors in (
                (self.output_values, self.output_vectors),
                (self.feature_values, self.feature_vectors),
            )
        )
        weights = np.kron(of_logits, of_features)
        size, bias = len(weights), len(of_logits) if self.has_bias else 0
        found = self.delta * np.eye(size + bias)
        found[:size, :size] += weights
        found[size:, size:] += of_logits[:bias, :bias]
        return found

    def variance(self, features):
        """Variance of each logit (n, outputs)."""
        return self._spread(features) @ (self.output_vectors**2).T

    def covariance(self, features):
        """Covariance of the logits (n, outputs, outputs)."""
        return (self.output_vectors * self._spread(features)[:, None, :]) @ self.output_vectors.T

    def deviations(self, features, normals):
        """Draws of the logits less their mean (draws, n, outputs), from standard normals (draws, outputs)."""
        turned = normals @ self.output_vectors
        return (turned[:, None, :] * np.sqrt(self._spread(features))) @ self.output_vectors.T

    def _spread(self, features):
        """Variance along the eigenvectors of G (n, outputs)."""
        bias = 1 / (self.output_values + self.delta) if self.has_bias else 0.0
        return (features @ self.feature_vectors) ** 2 @ self.inverse + bias

    def arrays(self):
        """What `from_arrays` needs."""
        names = ("output_values", "output_vectors", "feature_values", "feature_vectors")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_arrays(cls, arrays, num_outputs, has_bias):
        """The decomposed structure that `arrays` was called on."""
        made = cls(0, num_outputs, has_bias)
        for name, value in arrays.items():
            setattr(made, name, value)
        return made


STRUCTURES = {structure.name: structure for structure in (Full, Diagonal, Kronecker)}


def _eigen(matrix):
    """Eigenvalues, never negative as those of a curvature are not, and eigenvectors as columns."""
    # A symmetric matrix is its own transpose, which is in the order that LAPACK works in without a copy.
    values, vectors = scipy.linalg.eigh(matrix.T, overwrite_a=True, driver="evd")
    return np.maximum(values, 0.0), vectors
