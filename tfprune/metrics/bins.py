"""Which bin is a prediction in, and how far is each bin from calibrated? The sums all binned errors are made of.

Bins are of equal width and closed on the left: value v belongs to bin floor(v * num_bins), computed in float64, and the
last bin also holds 1. Empty bins contribute nothing. Everything streams: `bin_totals` of batches may be added up.

Functions that take `xp` are one formula for arrays (`xp=numpy`) and for tensors (`xp=keras.ops`).
"""

import numpy as np
from keras import ops

from tfprune.metrics.floor import FlooredMetric, draw_means, effective_count, mean_deviation
from tfprune.metrics.scores import class_indices, probability_columns

NORMS = ("l1", "l2", "max")

# --- NumPy ------------------------------------------------------------------------------------------------------------


def bin_index(values, num_bins, closed="left"):
    """Bin of each value in [0, 1], int64: floor(value * num_bins), with 1.0 in the last bin.

    With `closed="right"` a value on an edge belongs to the bin below: ceil(value * num_bins) - 1, with 0.0 in the
    first bin.
    """
    # In float64, and never by searching a float32 list of edges: the edge 0.9 of ten bins would round the other way.
    scaled = np.asarray(values, dtype=np.float64) * num_bins
    return _index(np, scaled, closed).clip(0, num_bins - 1).astype(np.int64)


def bin_totals(values, targets, num_bins=15, closed="left"):
    """Per bin of `values`: how many, their sum, and the sum of `targets`; shape (3, num_bins). Add them over batches.

    Args:
        values: (samples,) in [0, 1], such as confidences.
        targets: (samples,) what they should equal on average, such as 0/1 correctness.
        num_bins: number of equal-width bins, at least 1.
        closed: "left" or "right", the side on which a bin holds its edge.
    """
    return binned_totals(values, values, targets, num_bins, closed)


def binned_totals(keys, values, targets, num_bins=15, closed="left"):
    """`bin_totals` where `keys` in [0, 1], not `values`, decide the bin."""
    keys, values, targets = (np.asarray(array, dtype=np.float64) for array in (keys, values, targets))
    check_num_bins(num_bins)
    check_choice("closed", closed, ("left", "right"))
    if values.shape != targets.shape or values.ndim != 1:
        raise ValueError(f"values and targets must be 1-D of one length. Received: {values.shape}, {targets.shape}.")
    if not np.all((keys >= 0) & (keys <= 1)):  # written so that NaN fails too
        raise ValueError(f"Binned values must be in [0, 1]. Received: values from {keys.min()} to {keys.max()}.")
    index = bin_index(keys, num_bins, closed)
    return np.stack([np.bincount(index, weights=w, minlength=num_bins) for w in (np.ones_like(keys), values, targets)])


def calibration_error(totals, norm="l1"):
    """The distance of mean target and mean value over bins, from `bin_totals`.

    Args:
        totals: (3, num_bins) counts, sums of values and sums of targets.
        norm: "l1", the mean over samples of their bin's distance; "l2", the root of the mean square; "max", the
            largest of a bin; "mean", the mean over the bins that hold samples.
    """
    count, value, target = totals
    if not count.sum():
        raise ValueError("A calibration error needs at least one sample. Received: none.")
    return float(combine(np, count, target - value, norm))


def table_of(totals):
    """`reliability_table` from `bin_totals`."""
    count, value, target = (row.tolist() for row in totals)

    def mean(sums):
        return [s / n if n else None for s, n in zip(sums, count, strict=True)]

    return {"count": [int(n) for n in count], "confidence": mean(value), "accuracy": mean(target)}


def confidence_and_correctness(probabilities, labels):
    """Largest probability of each sample, and 1.0 where its class (the first on ties) is the label, else 0.0."""
    probabilities = probability_columns(probabilities)
    labels = class_indices(labels, probabilities.shape[1])
    if len(labels) != len(probabilities):
        raise ValueError(f"Expected one label per row. Received: {len(labels)} for {len(probabilities)} rows.")
    return probabilities.max(axis=1), (probabilities.argmax(axis=1) == labels).astype(np.float64)


def check_num_bins(num_bins):
    """Raises ValueError unless `num_bins` is a whole number of at least 1."""
    if isinstance(num_bins, bool) or not isinstance(num_bins, (int, np.integer)) or num_bins < 1:
        raise ValueError(f"num_bins must be an integer of at least 1. Received: num_bins={num_bins!r}.")


def check_choice(name, value, choices):
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}.")


# --- arrays and tensors -----------------------------------------------------------------------------------------------


def combine(xp, count, gap, norm):
    """Bins' gaps made one number along the last axis; 0 without samples.

    Args:
        xp: `numpy` or `keras.ops`.
        count: (..., bins) weight of each bin.
        gap: (..., bins) sum over each bin's samples of target - value.
        norm: as `calibration_error` takes it.
    """
    gap = xp.absolute(gap)
    if norm == "l1":
        return ratio(xp, xp.sum(gap, axis=-1), xp.sum(count, axis=-1))
    mean_gap = ratio(xp, gap, count)
    if norm == "l2":
        return xp.sqrt(ratio(xp, xp.sum(gap * mean_gap, axis=-1), xp.sum(count, axis=-1)))
    if norm == "max":
        return largest(xp, mean_gap)
    return ratio(xp, xp.sum(mean_gap, axis=-1), xp.sum(xp.where(count > 0, 1.0, 0.0 * count), axis=-1))


def ratio(xp, numerator, denominator):
    """numerator / denominator, where a denominator of 0 (an empty bin, whose numerator is 0) counts as 1."""
    return numerator / xp.where(denominator > 0, denominator, xp.ones_like(denominator))


def largest(xp, values):
    """Maximum along the last axis, NaN if any is NaN: under XLA the maximum alone may pass over it."""
    total = xp.sum(values, axis=-1)
    return xp.where(xp.isnan(total), total, xp.max(values, axis=-1))


def unit_interval(values):
    """Tensor with rounding errors beyond [0, 1] clipped, and NaN for what was never a probability: logits, say."""
    in_range = ops.absolute(values - 0.5) <= 0.5 + 1e-6
    return ops.where(in_range, ops.clip(values, 0.0, 1.0), ops.full_like(values, np.nan))


def tensor_bin_index(values, num_bins, closed="left"):
    """`bin_index` of a tensor, int32; NaN lands in some bin, so that its sums show it."""
    index = _index(ops, values * num_bins, closed)
    return ops.clip(ops.cast(index, "int32"), 0, num_bins - 1)


def _index(xp, scaled, closed):
    return xp.floor(scaled) if closed == "left" else xp.ceil(scaled) - 1.0


# --- Keras ------------------------------------------------------------------------------------------------------------


class BinnedMetric(FlooredMetric):
    """Streams sums per bin of equal width; a subclass says what is summed.

    The rows of `totals` are the weight, its square, and the weighted sums of a value, of what it should equal, and
    (where `num_columns` is 3) of what that would be on average if the model were calibrated.
    """

    norm = "l1"
    closed = "left"
    num_columns = 2

    def __init__(self, num_bins=15, from_logits=False, name=None, dtype=None):
        super().__init__(from_logits=from_logits, name=name, dtype=dtype)
        check_num_bins(num_bins)
        self.num_bins = num_bins
        self.totals = self.add_sums((2 + self.num_columns, num_bins), "totals")

    def columns(self, batch):
        """What decides a sample's bin, and the tuple of what is summed there; all (samples,)."""
        raise NotImplementedError

    def add_batch(self, batch):
        """Adds to each bin: the weights, their squares, and the weighted sums of the columns."""
        keys, columns = self.columns(batch)
        members = ops.one_hot(tensor_bin_index(keys, self.num_bins, self.closed), self.num_bins, dtype="float64")
        weight = batch.weight
        rows = ops.stack([weight, weight * weight, *(weight * column for column in columns)])
        self.totals.assign_add(ops.matmul(rows, members))

    def value(self):
        """The calibration error."""
        totals = ops.convert_to_tensor(self.totals)
        return combine(ops, totals[0], totals[3] - totals[2], self.norm)

    def null_values(self, num_draws, rng):
        """De Moivre's expectation where that is all it takes, else the errors of binomial draws in each bin."""
        totals = ops.convert_to_numpy(self.totals)
        weight, value, expected = totals[0], totals[2], totals[4 if self.num_columns == 3 else 2]
        count, probability = effective_count(weight, totals[1]), ratio(np, expected, weight)
        if self.num_columns == 2 and self.norm in ("l1", "mean"):  # linear in each bin's distance from its own mean
            return combine(np, weight, weight * mean_deviation(count, probability), self.norm)
        drawn = draw_means(rng, count, probability, size=(num_draws, self.num_bins))
        return combine(np, weight, weight * drawn - value, self.norm)

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "num_bins": self.num_bins}
