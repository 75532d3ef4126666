"""Are the numbers of selective prediction right under ties, and are the streamed ones within their bounds?"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.metrics import ranks
from tfprune.metrics.detection import msp_score
from tfprune.metrics.selective import (
    AUGRC,
    AURC,
    EAURC,
    CoverageAtRisk,
    augrc,
    aurc,
    confidence_and_correct,
    coverage_at_risk,
    eaurc,
    optimal_aurc,
    risk_coverage_table,
    selective_prediction,
)
from tfprune.verification.golden import classifier_a, classifier_b

SEEDS = st.integers(0, 2**32 - 1)
STREAMED = [
    (AURC, aurc),
    (EAURC, eaurc),
    (AUGRC, augrc),
    (CoverageAtRisk, coverage_at_risk),
    (lambda **options: CoverageAtRisk(risk=0.3, **options), lambda *pair: coverage_at_risk(*pair, risk=0.3)),
]


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def draw(seed, num_samples, num_classes=10, spread=2.0):
    r = np.random.RandomState(seed)
    z = spread * r.randn(num_samples, num_classes)
    p = softmax(z)
    y = (r.rand(num_samples, 1) > np.cumsum(p, 1)).sum(1).clip(0, num_classes - 1)
    return z, p, y


# from pytorch-ood's aurra (AURC) and NumPy
GOLDEN = {
    "a": (classifier_a, {"aurc": 0.2867539, "optimal_aurc": 0.1264519, "eaurc": 0.1603020, "augrc": 0.1768047}),
    "b": (classifier_b, {"aurc": 0.4784892, "optimal_aurc": 0.1310483, "eaurc": 0.3474409, "augrc": 0.2449630}),
}


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("from_logits", [False, True])
def test_functions_agree_with_golden_values(name, from_logits):
    make, expected = GOLDEN[name]
    z, y = make()
    got = selective_prediction(z if from_logits else softmax(z), y, from_logits)
    assert got.pop("coverage_at_risk") > 0
    assert got == pytest.approx(expected, abs=5.1e-8)


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_numbers_by_hand():
    # Errors among the first 1, 2, 3, 4: 0 0 1 1; risks 0 0 1/3 1/4.
    confidence, correct = [0.6, 0.9, 0.7, 0.8], [1, 1, 0, 1]
    assert aurc(confidence, correct) == pytest.approx((1 / 3 + 1 / 4) / 4)
    assert optimal_aurc(correct) == pytest.approx((1 / 4) / 4)
    assert eaurc(confidence, correct) == pytest.approx((1 / 3) / 4)
    assert augrc(confidence, correct) == pytest.approx((1 + 1) / 16)
    assert coverage_at_risk(confidence, correct) == 0.5
    assert coverage_at_risk(confidence, correct, risk=0.25) == 1.0
    assert coverage_at_risk(confidence, correct, risk=0.0) == 0.5


def test_ties_by_hand():
    # Three equals with one error: 1/3, 2/3, 1 errors are expected, so each risk is 1/3. Then one right: 1/4.
    confidence, correct = [0.9, 0.9, 0.9, 0.5], [1, 0, 1, 1]
    assert aurc(confidence, correct) == pytest.approx((1 + 1 / 4) / 4)
    assert augrc(confidence, correct) == pytest.approx((1 / 3 + 2 / 3 + 1 + 1) / 16)
    assert coverage_at_risk(confidence, correct, risk=0.3) == 1.0
    assert coverage_at_risk(confidence, correct, risk=0.2) == 0.0


def test_coverage_may_end_within_a_tie_group():
    # The first two are right. Of the next four equals two are wrong: 1/2 error comes with each.
    confidence, correct = [0.9, 0.9, 0.8, 0.8, 0.8, 0.8], [1, 1, 0, 1, 0, 1]
    assert coverage_at_risk(confidence, correct, risk=0.25) == pytest.approx(4 / 6)


def test_a_risk_that_is_met_exactly_is_met():
    for errors in range(1, 30):
        correct = np.repeat([1, 0], [19 * errors, errors])
        assert coverage_at_risk(-np.arange(len(correct)), correct) == 1.0
        assert coverage_at_risk(np.zeros(len(correct)), correct) == 1.0


def test_all_right_and_all_wrong():
    assert selective_prediction([[0.9, 0.1], [0.8, 0.2]], [0, 0]) == {
        "aurc": 0.0,
        "optimal_aurc": 0.0,
        "eaurc": 0.0,
        "augrc": 0.0,
        "coverage_at_risk": 1.0,
    }
    wrong = selective_prediction([[0.9, 0.1], [0.8, 0.2]], [1, 1])
    assert wrong == {"aurc": 1.0, "optimal_aurc": 1.0, "eaurc": 0.0, "augrc": 0.75, "coverage_at_risk": 0.0}


def test_table_by_hand():
    confidence, correct = [0.6, 0.9, 0.7, 0.8], [1, 1, 0, 1]
    assert risk_coverage_table(confidence, correct) == {
        "coverage": [0.25, 0.5, 0.75, 1.0],
        "risk": [0.0, 0.0, 1 / 3, 0.25],
        "generalized_risk": [0.0, 0.0, 0.25, 0.25],
        "confidence": [0.9, 0.8, 0.7, 0.6],
    }
    thinned = risk_coverage_table(confidence, correct, num_points=2)
    assert thinned["coverage"] == [0.5, 1.0]
    assert thinned["risk"] == [0.0, 0.25]


@settings(max_examples=50, deadline=None, database=None)
@given(st.integers(1, 400), st.integers(1, 120))
def test_table_has_rising_coverages_that_end_at_one(size, num_points):
    table = risk_coverage_table(np.arange(size), np.arange(size) % 2, num_points)
    assert len(table["coverage"]) == min(size, num_points)
    assert np.all(np.diff([0.0, *table["coverage"]]) > 0)
    assert table["coverage"][-1] == 1.0
    assert table["risk"][-1] == pytest.approx(np.mean(np.arange(size) % 2 == 0))


# --- ties, and other packages -----------------------------------------------------------------------------------------


def errors_of_every_order(confidence, correct):
    """Running errors, one row for each order of the samples that their confidence allows."""
    groups = [np.flatnonzero(confidence == value) for value in np.unique(confidence)[::-1]]
    orders = itertools.product(*(itertools.permutations(group) for group in groups))
    return np.cumsum([1 - correct[np.concatenate(order)] for order in orders], axis=1)


@settings(max_examples=50, deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=7), st.floats(0, 1))
def test_ties_are_averaged_over_all_orders(samples, risk):
    confidence, correct = np.array([c for c, _ in samples]), np.array([float(right) for _, right in samples])
    errors = errors_of_every_order(confidence, correct)
    place = np.arange(1, len(samples) + 1)
    assert aurc(confidence, correct) == pytest.approx((errors / place).mean(), abs=1e-12)
    assert augrc(confidence, correct) == pytest.approx((errors / len(samples)).mean(), abs=1e-12)
    within = place[errors.mean(axis=0) / place <= risk + 1e-11]
    assert coverage_at_risk(confidence, correct, risk) == pytest.approx(max(within, default=0) / len(samples), abs=0)


@settings(max_examples=30, deadline=None, database=None)
@given(SEEDS, st.integers(1, 300))
def test_aurc_agrees_with_pytorch_ood_where_nothing_is_tied(seed, size):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("pytorch_ood.metrics.functional")
    r = np.random.default_rng(seed)
    confidence, correct = r.permutation(size) + 0.5, (r.uniform(size=size) < r.uniform()).astype(float)
    theirs = functional.aurra(torch.tensor(confidence), torch.tensor(correct))
    assert aurc(confidence, correct) == pytest.approx(1 - theirs, abs=1e-12)


@pytest.mark.parametrize("function", [aurc, eaurc, augrc, coverage_at_risk])
def test_order_of_samples_and_any_rising_transform_change_nothing(function):
    r = np.random.RandomState(0)
    confidence, correct = r.randn(80).round(1), r.rand(80) < 0.8
    order = r.permutation(80)
    assert function(confidence[order], correct[order]) == pytest.approx(function(confidence, correct), abs=1e-15)
    assert function(np.exp(confidence), correct) == function(confidence, correct)


def test_logits_rank_what_a_saturated_softmax_ties():
    r = np.random.RandomState(0)
    sure = r.uniform(100, 200, 500)
    z = np.stack([sure, np.zeros(500)], axis=1)
    y = (r.rand(500) < (200 - sure) / 100).astype(int)  # the surer the righter
    assert np.all(softmax(z).max(axis=1) == 1.0)
    assert eaurc(*confidence_and_correct(softmax(z), y)) > 2 * eaurc(*confidence_and_correct(z, y, from_logits=True))


def test_confidence_of_a_sigmoid_is_that_of_two_classes():
    z, y = np.array([[2.0], [-3.0], [0.5]]), [1, 1, 0]
    two = np.concatenate([np.zeros_like(z), z], axis=1)
    for single, double, from_logits in ((z, two, True), (softmax(two)[:, 1:], softmax(two), False)):
        got, expected = (confidence_and_correct(outputs, y, from_logits) for outputs in (single, double))
        np.testing.assert_allclose(got, expected, atol=1e-15)
        assert got[1].tolist() == [1.0, 0.0, 0.0]


# --- streamed ---------------------------------------------------------------------------------------------------------


def outputs_of_kind(kind, seed):
    r = np.random.default_rng(seed)
    size, num_classes = int(r.integers(1, 400)), int(r.choice([2, 3, 10, 1000] if kind == "plain" else [2, 3, 10]))
    z, _, y = draw(int(r.integers(2**31)), size, num_classes)
    if kind == "saturated":
        z = 300 * z
    elif kind == "tied":
        z = z.round() + 0.0  # NumPy finds 0.0 larger than -0.0 in argmax
    elif kind == "constant":
        z = np.zeros_like(z)
    elif kind == "one class":
        y = np.zeros_like(y)
    elif kind == "close":
        z = 1.0 + 1e-6 * z
    return z, y


@pytest.mark.parametrize("kind", ["plain", "saturated", "tied", "constant", "one class", "close"])
@pytest.mark.parametrize(("make", "function"), STREAMED)
@pytest.mark.parametrize("bits", [10, 14])
def test_streamed_interval_holds_the_exact_number(kind, make, function, bits):
    metric = make(bits=bits, from_logits=True, dtype="float64")

    @settings(max_examples=5, deadline=None, database=None)
    @given(SEEDS)
    def holds(seed):
        z, y = outputs_of_kind(kind, seed)
        metric.reset_state()
        metric.update_state(y, z)
        exact, (low, high) = function(*confidence_and_correct(z, y, from_logits=True)), metric.interval()
        value = float(metric.result())
        assert low - 1e-12 <= exact <= high + 1e-12
        assert low - 1e-12 <= value <= high + 1e-12
        assert abs(exact - value) <= metric.error_bound() + 1e-12

    holds()


@pytest.mark.parametrize(("make", "function"), STREAMED)
def test_streamed_number_is_that_of_cells_as_ties(make, function):
    z, y = classifier_b()
    metric = make(from_logits=True, dtype="float64")
    metric.update_state(y, z)
    _, correct = confidence_and_correct(z, y, from_logits=True)
    assert float(metric.result()) == pytest.approx(function(-ranks.cells(msp_score(z)), correct), abs=1e-12)


@pytest.mark.parametrize(("make", "function"), STREAMED[:3])
def test_sixteen_bits_are_within_a_thousandth_and_twenty_within_a_tenth_of_that(make, function):
    z, y = classifier_b()
    exact = function(*confidence_and_correct(z, y, from_logits=True))
    for bits, error, bound in ((16, 2e-4, 1e-3), (20, 2e-5, 1e-4)):
        metric = make(bits=bits, from_logits=True, dtype="float64")
        metric.update_state(y, z)
        assert float(metric.result()) == pytest.approx(exact, abs=error)
        assert 0 < metric.error_bound() < bound


@pytest.mark.parametrize(("make", "function"), STREAMED)
def test_probabilities_of_exactly_one_and_ties_at_even_odds(make, function):
    p = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.3, 0.2], [0.5, 0.25, 0.25], [0.5, 0.1, 0.4]])
    y = [0, 1, 0, 1, 2]
    metric = make(dtype="float64")
    metric.update_state(y, p)
    assert float(metric.result()) == pytest.approx(function(*confidence_and_correct(p, y)), abs=1e-12)


def test_interval_by_hand():
    # Two of one cell, one of them wrong: first or last.
    metric = AURC(bits=10, from_logits=True)
    metric.update_state([0, 1], [[3.0, 0.0], [3.001, 0.0]])
    assert float(metric.result()) == pytest.approx(0.5)
    assert metric.interval() == pytest.approx((0.25, 0.75))
    assert metric.error_bound() == pytest.approx(0.25)


def test_before_the_first_batch_all_is_zero():
    for make, _ in STREAMED:
        metric = make()
        assert float(metric.result()) == 0.0
        assert metric.interval() == (0.0, 0.0)
        assert metric.error_bound() == 0.0


def test_millions_of_samples_stay_exact():
    # 2**24 + 1 right ones, then as many wrong: the risk is 0 up to the half.
    metric = AURC(from_logits=True, dtype="float64")
    for label, logits in ((0, [9.0, 0.0]), (1, [2.0, 0.0])):
        metric.update_state([label], [logits], sample_weight=[2.0**24 + 1])
    n = 2**24 + 1
    expected = np.sum(np.arange(1, n + 1) / np.arange(n + 1, 2 * n + 1)) / (2 * n)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-12)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: aurc([], []), "correct must be a non-empty 1-D array"),
        (lambda: aurc([0.5], [1, 0]), r"one length. Received: shapes \(1,\), \(2,\)"),
        (lambda: augrc([np.nan, 0.5], [1, 0]), "confidence must be finite. Received: 1 that are not"),
        (lambda: aurc([np.inf], [1]), "confidence must be finite"),
        (lambda: optimal_aurc([0.5, 1]), "correct must hold 1 for a right answer"),
        (lambda: optimal_aurc([np.nan]), "correct must hold 1 for a right answer"),
        (lambda: coverage_at_risk([0.5], [1], risk=5), r"risk must be in \[0, 1\]. Received: risk=5. For 5 %"),
        (lambda: CoverageAtRisk(risk=-0.1), r"risk must be in \[0, 1\]"),
        (lambda: risk_coverage_table([0.5], [1], num_points=0), "num_points must be an integer of at least 1"),
        (lambda: confidence_and_correct([[2.0, -1.0]], [0]), r"must be in \[0, 1\].*Logits\?"),
        (lambda: confidence_and_correct([[2.0, -np.inf]], [0], from_logits=True), "Logits must be finite"),
        (lambda: confidence_and_correct([[0.5, 0.5]], [2]), r"Labels must be in \[0, 2\)"),
        (
            lambda: confidence_and_correct([[0.5, 0.5]], [0, 1]),
            "Expected one label per sample. Received: 2 labels, 1 samples",
        ),
        (lambda: AURC(bits=30), "bits must be an integer from 10 to 24"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
