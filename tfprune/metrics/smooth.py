"""How far is the model from calibrated, without bins? SmoothECE, with a kernel whose width follows from the data.

The differences of correctness and confidence are smoothed over the confidence by a Gaussian that is reflected at 0 and
1, and their absolute values averaged: the wider the kernel, the smaller the mean. SmoothECE is the mean at the width
that equals it.

The numbers are those of the authors' package relplot, and so are the grids: widths are multiples of 1/1024, samples are
split between the two neighbours on a grid of a tenth of the width or 0.001, and the smoothed curve is read at a tenth
of the width or 200 points.

Source: Błasiok and Nakkiran, "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing", 2024.
"""

import keras
import numpy as np
from keras import ops
from scipy.signal import fftconvolve
from scipy.sparse import csr_matrix

from tfprune.metrics.bins import confidence_and_correctness, unit_interval
from tfprune.metrics.floor import FlooredMetric, draw_means, effective_count

_STEPS = 1024  # of the kernel's width in (0, 1]
_SMALLEST_WIDTH = 0.001
# Added to the density of samples at each point, so that it is positive. It costs 0.0001 / samples of the result.
_DENSITY = 1e-4
# From this width on, in steps, the samples' grid is the coarsest one.
_COARSE_FROM = 11

# --- NumPy ------------------------------------------------------------------------------------------------------------


def smooth_ece(probabilities, labels, sigma=None):
    """SmoothECE of the predicted class.

    Args:
        probabilities: (samples, classes), or one column for a sigmoid.
        labels: integers (samples,) or one-hot (samples, classes).
        sigma: width of the kernel in (0, 1]; None finds the one that equals the result.

    Raises:
        ValueError: for labels out of range, empty arrays, values outside [0, 1], or a `sigma` outside (0, 1].

    Example:
        >>> round(smooth_ece([[0.9, 0.1], [0.6, 0.4]], [0, 1]), 3)
        0.164

    Source: Błasiok and Nakkiran, "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing", 2024.
    """
    if sigma is not None and not 0 < sigma <= 1:
        raise ValueError(f"sigma must be in (0, 1]. Received: sigma={sigma}.")
    return smooth_error(*confidence_and_correctness(probabilities, labels), sigma)


def smooth_error(confidence, correct, sigma=None):
    """`smooth_ece` of confidences and of 1.0 where the prediction is right, (samples,) each."""
    gap, weight = (correct - confidence)[None], np.ones_like(confidence)
    if sigma is None:
        return float(_fixed_point(confidence, gap, weight)[0])
    return float(_smoothed(confidence, gap, weight, sigma)[0])


def _fixed_point(confidence, gaps, weight):
    """The smoothed error of each row of gaps at the smallest width that is no smaller than it, found by bisection."""

    def errors(steps):
        found = np.empty(len(gaps))
        for each in np.unique(steps):
            found[steps == each] = _smoothed(confidence, gaps[steps == each], weight, each / _STEPS)
        return found

    too_wide, too_narrow = np.full(len(gaps), _STEPS), np.zeros(len(gaps), np.int64)
    for _ in range(int(np.log2(_STEPS))):
        steps = (too_wide + too_narrow) // 2
        is_too_narrow = (steps / _STEPS < _SMALLEST_WIDTH) | (steps / _STEPS < errors(steps))
        too_wide, too_narrow = np.where(is_too_narrow, too_wide, steps), np.where(is_too_narrow, steps, too_narrow)
    return errors(too_wide)


def _smoothed(confidence, gaps, weight, sigma):
    """Mean of |smoothed gap| of each row of `gaps` (rows, samples), of samples of that confidence and weight."""
    size = _grid_size(sigma)
    grid = (_split(confidence, size) @ np.vstack([gaps, weight]).T).T
    reflected = np.concatenate([grid[:, :0:-1], grid, grid[:, -2::-1]], axis=1)
    distance = np.linspace(-0.5, 0.5, size)
    kernel = np.exp(-(distance**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    smooth = fftconvolve(reflected, kernel[None], mode="valid", axes=1)[:, size // 2 : size // 2 + size]
    cell, share = _neighbours(np.linspace(0, 1, _num_points(sigma)), size)
    read = (1 - share) * smooth[:, cell] + share * smooth[:, cell + 1]
    return np.abs(read[:-1]).sum(axis=1) / (read[-1] + _DENSITY).sum()


def _split(confidence, size):
    """Sparse matrix (size, samples) that shares each sample out between its two neighbours on the grid."""
    cell, share = _neighbours(confidence, size)
    samples = np.arange(len(confidence))
    entries = np.concatenate([1 - share, share]), (np.concatenate([cell, cell + 1]), np.concatenate([samples, samples]))
    return csr_matrix(entries, shape=(size, len(confidence)))


def _grid_size(sigma):
    return max(2000, round(20 / sigma)) // 2 + 1


def _num_points(sigma):
    return max(200, round(10 / sigma))


def _neighbours(confidence, size):
    """The grid point below each confidence, and how much of the way to the next one it is."""
    place = confidence * (size - 1)
    cell = np.clip(place.astype(np.int64), 0, size - 2)
    return cell, place - cell


# --- Keras ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tfprune")
class SmoothCalibrationError(FlooredMetric):
    """SmoothECE in fixed memory, usable in `model.compile(metrics=[...])`.

    See `tfprune.metrics.smooth_ece`. With 4001 points it agrees with it but for rounding where the result is above
    0.011, because the grid of 1001 points that is used there is a part of its own; below that it is within 0.000005.

    Args:
        num_points: number of points on the grid of confidences on which differences are summed: a multiple of 1000,
            and 1.
        from_logits: whether `y_pred` holds logits rather than probabilities.
        name: name of the metric.
        dtype: dtype of the result; the state is always float64.

    Source: Błasiok and Nakkiran, "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing", 2024.
    """

    def __init__(self, num_points=4001, from_logits=False, name="smooth_ece", dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        if isinstance(num_points, bool) or not isinstance(num_points, (int, np.integer)) or num_points < 2:
            raise ValueError(f"num_points must be an integer of at least 2. Received: num_points={num_points!r}.")
        self.num_points = num_points
        # Between two grid points: the weight, its square, the summed difference of correctness and confidence, and how
        # much of the weight and of the difference belongs to the upper point.
        self.sums = self.add_sums((num_points - 1, 5), "sums")

    def add_batch(self, batch):
        """Splits each sample between its neighbours on the grid."""
        size = self.num_points - 1
        confidence, weight = unit_interval(batch.confidence), batch.weight
        place = confidence * size
        cell = ops.clip(ops.cast(ops.floor(place), "int32"), 0, size - 1)
        share = place - ops.cast(cell, "float64")
        gap = weight * (batch.correct - confidence)
        rows = ops.stack([weight, weight * weight, gap, weight * share, gap * share], axis=-1)
        self.sums.assign_add(ops.segment_sum(rows, cell, num_segments=size))

    def value(self):
        """SmoothECE of the differences on the grid."""
        sums = ops.convert_to_tensor(self.sums)
        lower, upper = (
            ops.stack([sums[:, 2] - sums[:, 4], sums[:, 0] - sums[:, 3]]),
            ops.stack([sums[:, 4], sums[:, 3]]),
        )
        nothing = ops.zeros_like(lower[:, :1])
        grid = ops.concatenate([lower, nothing], axis=1) + ops.concatenate([nothing, upper], axis=1)
        return _tensor_fixed_point(grid)

    def null_values(self, num_draws, rng):
        """SmoothECE of binomial draws in each interval of the grid."""
        sums = ops.convert_to_numpy(self.sums)
        filled = np.flatnonzero(sums[:, 0])
        weight, squared, _, share, _ = sums[filled].T
        confidence, count = (filled + share / weight) / (self.num_points - 1), effective_count(weight, squared)
        drawn = draw_means(rng, count, confidence, size=(num_draws, len(filled)))
        return _fixed_point(confidence, weight * (drawn - confidence), weight)

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "num_points": self.num_points}


def _tensor_fixed_point(grid):
    """`_fixed_point` of gaps and weights (2, points) on a grid of confidences, with the shapes of every step fixed."""
    coarse = _spectrum(grid, _grid_size(1.0))
    # Each narrow kernel has a finer grid of its own. The narrowest is below _SMALLEST_WIDTH: its error is not needed.
    narrow = [lambda k=k: _tensor_smoothed(_spectrum(grid, _grid_size(k / _STEPS)), k) for k in range(2, _COARSE_FROM)]

    def error(steps):
        return ops.switch(steps - 2, [*narrow, lambda: _tensor_smoothed(coarse, steps)])  # an index beyond is the last

    def halve(_, bracket):
        too_wide, too_narrow, best = bracket
        steps = (too_wide + too_narrow) // 2
        sigma, candidate = ops.cast(steps, "float64") / _STEPS, error(steps)
        is_too_narrow = ops.logical_or(sigma < _SMALLEST_WIDTH, sigma < candidate)
        return tuple(
            ops.where(is_too_narrow, *pair) for pair in [(too_wide, steps), (steps, too_narrow), (best, candidate)]
        )

    widest, none = ops.convert_to_tensor(_STEPS, "int32"), ops.convert_to_tensor(0, "int32")
    bracket = widest, none, _tensor_smoothed(coarse, widest)
    return ops.fori_loop(0, int(np.log2(_STEPS)), halve, bracket)[2]


def _spectrum(grid, size):
    """Fourier transform of the grid, split onto `size` points and reflected: real, because it is even."""
    cell, share = _neighbours(np.linspace(0, 1, grid.shape[1]), size)
    below, above = (
        ops.segment_sum(ops.transpose(grid * part), cells, num_segments=size)
        for part, cells in ((1 - share, cell), (share, cell + 1))
    )
    points = ops.transpose(below + above)
    return ops.rfft(ops.concatenate([points, ops.flip(points[:, 1:-1], axis=1)], axis=1))[0]


def _tensor_smoothed(spectrum, steps):
    """`_smoothed` at a width of `steps`, an int or a tensor of at least _COARSE_FROM."""
    size = spectrum.shape[1]
    sigma = ops.cast(steps, "float64") / _STEPS
    kernel = ops.exp(-(_distances(size) ** 2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    real, imaginary = ops.rfft(kernel)
    smooth = ops.irfft((spectrum * real, -spectrum * imaginary), fft_length=2 * size - 2)[:, :size]

    most = _num_points((_COARSE_FROM if ops.is_tensor(steps) else steps) / _STEPS)
    num_points = ops.maximum(ops.round(10.0 / sigma), 200.0)
    place = np.arange(most) / (num_points - 1.0) * (size - 1)
    cell = ops.clip(ops.cast(ops.floor(place), "int32"), 0, size - 2)
    share = place - ops.cast(cell, "float64")
    read = (1.0 - share) * ops.take(smooth, cell, axis=1) + share * ops.take(smooth, cell + 1, axis=1)
    is_point = np.arange(most) < num_points
    gap, density = ops.absolute(read[0]), read[1] + _DENSITY
    return ops.sum(ops.where(is_point, gap, 0.0 * gap)) / ops.sum(ops.where(is_point, density, 0.0 * density))


def _distances(size):
    """How far each point on the reflected grid is from the first one; infinite where the kernel does not reach."""
    distance = np.full(2 * size - 2, np.inf)
    # The kernel has as many points as the grid. If that is an even number, its middle lies between two of them.
    distance[np.arange(size) - (size - 1 - size // 2)] = np.linspace(-0.5, 0.5, size)
    return distance
