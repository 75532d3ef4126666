"""Does a cell keep the order of every score, in NumPy and in graphs, and is the sum of reciprocal ranks exact?"""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tfprune.metrics import ranks

FLOATS = st.floats(allow_nan=False, width=64)
EDGES = [0.0, -0.0, 1e-45, -1e-45, 1.2e-38, -1.2e-38, 1.0, -1.0, 3.4e38, -3.4e38, 1e300, -1e300, np.inf, -np.inf]


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(FLOATS, min_size=1, max_size=30), st.integers(10, 24))
def test_a_larger_score_never_has_a_smaller_cell(scores, bits):
    order = np.sort(np.array(scores + EDGES))
    cell = ranks.cells(order, bits)
    assert np.all(np.diff(cell) >= 0)
    assert cell.min() >= 0
    assert cell.max() < 2**bits


@settings(max_examples=50, deadline=None, database=None)
@given(st.lists(FLOATS, min_size=1, max_size=30), st.integers(10, 24))
def test_tensor_cells_are_those_of_numpy(scores, bits):
    scores = np.array(scores + EDGES)
    np.testing.assert_array_equal(ops.convert_to_numpy(ranks.tensor_cells(scores, bits)), ranks.cells(scores, bits))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_cells_are_the_same_in_graphs_and_under_xla(jit_compile, dtype):
    import tensorflow as tf

    scores = ops.cast(np.concatenate([EDGES, np.random.randn(200), 1e4 * np.random.randn(200)]), dtype)
    run = tf.function(lambda x: ranks.tensor_cells(x, 20), jit_compile=jit_compile)
    expected = ranks.cells(ops.convert_to_numpy(ops.cast(scores, "float64")), 20)
    np.testing.assert_array_equal(ops.convert_to_numpy(run(scores)), expected)


@pytest.mark.parametrize(("bits", "percent"), [(16, 1.0), (20, 0.05)])
def test_scores_a_cell_apart_are_told_apart(bits, percent):
    scores = np.concatenate([10.0 ** np.arange(-30, 30), [7.3]])
    for sign in (1, -1):
        assert np.all(ranks.cells(sign * scores * (1 + percent / 100), bits) != ranks.cells(sign * scores, bits))


def test_zero_is_one_cell_between_the_signs():
    below, zero, also_zero, above = ranks.cells([-1e-30, -0.0, 1e-40, 1e-30])
    assert below < zero == also_zero < above


def test_nan_is_refused_by_numpy_and_stays_in_range_in_tensors():
    with pytest.raises(ValueError, match=r"Scores must be numbers. Received: 2 NaN"):
        ranks.cells([np.nan, 1.0, np.nan])
    cell = ops.convert_to_numpy(ranks.tensor_cells(np.array([np.nan, -np.nan]), 12))
    assert np.all((cell >= 0) & (cell < 2**12))


@pytest.mark.parametrize("bits", [9, 25, 16.0, True, "16"])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match="bits must be an integer from 10 to 24"):
        ranks.check_bits(bits)


@pytest.mark.parametrize(
    ("start", "count", "expected"),
    [(0, 1, 1.0), (0, 4, 25 / 12), (1, 2, 1 / 2 + 1 / 3), (9, 1, 1 / 10), (5, 0, 0.0), (10_000_000, 1, 1 / 10_000_001)],
)
def test_reciprocal_ranks_by_hand(start, count, expected):
    for xp in (np, ops):
        got = ranks.reciprocal_ranks(xp, *(ops.cast(n, "float64") if xp is ops else float(n) for n in (start, count)))
        assert float(got) == pytest.approx(expected, rel=2e-14, abs=0)


@settings(max_examples=50, deadline=None, database=None)
@given(st.integers(0, 10**8), st.integers(0, 3000))
def test_reciprocal_ranks_are_the_sum(start, count):
    expected = math.fsum(1 / (start + j) for j in range(1, count + 1))
    assert ranks.reciprocal_ranks(np, float(start), float(count)) == pytest.approx(expected, rel=5e-14)


def test_reciprocal_ranks_keep_float64_in_keras():
    got = ranks.reciprocal_ranks(ops, ops.cast([1.0], "float64"), ops.cast([2.0], "float64"))
    assert keras.backend.standardize_dtype(got.dtype) == "float64"
