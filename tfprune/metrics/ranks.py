"""How can any scores be ranked in fixed memory? By the leading bits of their float32 numbers.

The bits of a float, read as an integer (negative ones turned round), order as the floats do. The first `bits` of them
name a cell; a histogram over the 2**bits cells keeps the order of all scores but those that share a cell, whatever
their range. The relative width of a cell is 2**(9 - bits): 16 bits tell scores apart that differ by 1 %, 20 bits by
0.05 %. Scores that share a cell count as ties, so what is computed from the histogram has a known largest error.
"""

import numpy as np
from keras import ops

DEFAULT_BITS = 16
# Smaller numbers are 0: -0 is none other than 0, and some devices flush what is below the normal numbers.
_TINY = np.finfo(np.float32).tiny
_DIGAMMA_SERIES = (1 / 24, -7 / 960, 31 / 8064, -127 / 30720, 2555 / 337920, -1414477 / 67092480)


def cells(scores, bits=DEFAULT_BITS):
    """Cell of each score, int64 in [0, 2**bits): a larger score never has a smaller cell.

    Args:
        scores: NumPy array of any shape. NaN is refused, infinities have their place.
        bits: how many leading bits of the float32 to keep, from 10 to 32.

    Raises:
        ValueError: for NaN.
    """
    scores = np.asarray(scores)
    if np.isnan(scores).any():
        raise ValueError(f"Scores must be numbers. Received: {int(np.isnan(scores).sum())} NaN.")
    with np.errstate(over="ignore"):  # beyond float32 is infinity, which has its place
        single = scores.astype(np.float32)
    words = np.where(np.abs(single) < _TINY, np.float32(0), single).view(np.uint32).astype(np.int64)
    return np.where(words >= 2**31, 2**32 - 1 - words, words + 2**31) >> (32 - bits)


def tensor_cells(scores, bits=DEFAULT_BITS):
    """`cells` of a tensor, int32; safe in graphs and under XLA, where NaN lands in a border cell."""
    import tensorflow as tf

    single = ops.cast(scores, "float32")
    words = tf.bitcast(tf.where(ops.abs(single) < _TINY, tf.zeros_like(single), single), tf.int32)
    # Signed integers order as floats do once the negative ones have all other bits turned round.
    ordered = tf.where(words < 0, tf.bitwise.bitwise_xor(words, 2**31 - 1), words)
    return tf.bitwise.right_shift(ordered, 32 - bits) + 2 ** (bits - 1)


def reciprocal_ranks(xp, start, count):
    """Sum of 1 / rank over the `count` ranks after `start`: 1 / (start + 1) + ... + 1 / (start + count), elementwise.

    Exact to about 1e-14 of itself for any size, also where `start` is in the millions and `count` is 1: a difference of
    two harmonic numbers would lose those digits. Between whole numbers it goes on smoothly.

    Args:
        xp: `numpy` or `keras.ops`.
        start: float64 array or tensor, not negative.
        count: the same, of the same shape.
    """
    # digamma(x + 1/2) = log x + sum of coefficient / x**(2 k), good from x = 8 on: the ranks before are added by hand.
    total = sum(count / ((start + rank) * (start + rank + count)) for rank in range(1, 9))
    low, high = start + 8.5, start + 8.5 + count

    def series(x):
        square, terms = 1.0 / (x * x), 0.0
        for coefficient in reversed(_DIGAMMA_SERIES):
            terms = square * (coefficient + terms)
        return terms

    return total + xp.log1p(count / low) + series(high) - series(low)


def check_bits(bits):
    """Raises ValueError unless `bits` is a whole number from 10 to 24."""
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not 10 <= bits <= 24:
        raise ValueError(f"bits must be an integer from 10 to 24. Received: bits={bits!r}.")
