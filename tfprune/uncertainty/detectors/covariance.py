"""Which directions do features span, and which of them are only rounding?

Pruned models have dead channels and features of low rank. A covariance is therefore inverted on the directions that
vary, never as a whole: float64 sums, eigenvalues, and a threshold below which a direction is rounding of float32.
"""

import numpy as np

_ROUNDING = float(np.finfo(np.float32).eps)


def second_moment(rows):
    """Mean of the outer products of rows, (features, features) float64."""
    rows = np.asarray(rows, dtype=np.float64)
    return rows.T @ rows / len(rows)


def spectrum(matrix):
    """Eigenvalues, largest first and never negative, and eigenvectors as columns, of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def rank_of(values, scale=0.0):
    """Number of eigenvalues (largest first) that rounding of float32 features does not explain.

    Args:
        values: eigenvalues of a second moment, largest first.
        scale: mean squared length of the features themselves, where their mean was taken off.
    """
    return int(np.sum(values > len(values) * _ROUNDING**2 * max(values[0], scale)))


def whitening(centred, scale=0.0):
    """(features, rank) matrix that gives rows unit covariance: its square is the pseudo-inverse of their covariance.

    Args:
        centred: (samples, features), with their means taken off.
        scale: as in `rank_of`.
    """
    values, vectors = spectrum(second_moment(centred))
    rank = rank_of(values, scale)
    return vectors[:, :rank] / np.sqrt(values[:rank])


def mean_square(features):
    """Mean squared length of the rows."""
    return float(np.mean(np.sum(np.asarray(features, dtype=np.float64) ** 2, axis=1)))
