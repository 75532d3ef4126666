"""Do the calibration errors give the numbers that other libraries give, and does each metric give its function's?"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tfprune.metrics import bins, calibration, entropy_calibration, equal_mass
from tfprune.metrics.calibration import (
    AverageCalibrationError,
    ClasswiseCalibrationError,
    ConfidenceGap,
    ExpectedCalibrationError,
    average_calibration_error,
    classwise_ece,
    confidence_gap,
    ece,
)
from tfprune.metrics.entropy_calibration import (
    EntropyConfidenceGap,
    UncertaintyCalibrationError,
    entropy_confidence_gap,
    uce,
    uce_reference,
    uncertainty_table,
)
from tfprune.metrics.equal_mass import (
    DebiasedCalibrationError,
    EqualMassCalibrationError,
    KolmogorovSmirnovCalibrationError,
    adaptive_calibration_error,
    debiased_calibration_error,
    equal_mass_ece,
    ks_calibration_error,
    thresholded_adaptive_calibration_error,
)
from tfprune.metrics.smooth import SmoothCalibrationError, smooth_ece
from tfprune.verification.golden import classifier_a, classifier_b
from tfprune.verification.references import tensorflow_probability


class Case(NamedTuple):
    """A Keras metric, its settings (num_classes is filled in), and the function it should give the value of."""

    cls: type
    settings: dict
    function: Callable

    def metric(self, num_classes=10, **more):
        options = {"num_classes": num_classes} if self.cls is ClasswiseCalibrationError else {}
        return self.cls(**{"dtype": "float64", **options, **self.settings, **more})


# Every metric in this table keeps every promise below: a new one is one line.
METRICS = [
    Case(ExpectedCalibrationError, {}, ece),
    Case(ExpectedCalibrationError, {"num_bins": 10, "closed": "right"}, lambda p, y: ece(p, y, 10, closed="right")),
    Case(ExpectedCalibrationError, {"norm": "l2", "name": "rmsce"}, lambda p, y: ece(p, y, norm="l2")),
    Case(ExpectedCalibrationError, {"norm": "max", "name": "mce"}, lambda p, y: ece(p, y, norm="max")),
    Case(AverageCalibrationError, {}, average_calibration_error),
    Case(ClasswiseCalibrationError, {}, classwise_ece),
    Case(EqualMassCalibrationError, {}, equal_mass_ece),
    Case(EqualMassCalibrationError, {"norm": "l2", "bits": 18}, lambda p, y: equal_mass_ece(p, y, norm="l2")),
    Case(EqualMassCalibrationError, {"norm": "max", "num_bins": 7}, lambda p, y: equal_mass_ece(p, y, 7, norm="max")),
    Case(DebiasedCalibrationError, {}, debiased_calibration_error),
    Case(KolmogorovSmirnovCalibrationError, {}, ks_calibration_error),
    Case(SmoothCalibrationError, {}, smooth_ece),
    Case(UncertaintyCalibrationError, {}, uce),
    Case(EntropyConfidenceGap, {}, entropy_confidence_gap),
    Case(ConfidenceGap, {}, confidence_gap),
]


def of_each(cases):
    """A test of each of these cases, by name."""
    names = ["-".join(map(str, [case.cls.__name__, *case.settings.values()])) for case in cases]
    return pytest.mark.parametrize("case", cases, ids=names)


every_metric = of_each(METRICS)
ONE_OF_EACH_CLASS = [case for case in METRICS if case.settings == {}]

SETTINGS = settings(max_examples=30, deadline=None, database=None)
SEEDS = st.integers(0, 2**32 - 1)
CLASSES = st.sampled_from([2, 3, 10, 100])


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def draw(seed, num_samples, num_classes=10):
    """Logits, and labels drawn from their softmax."""
    r = np.random.RandomState(seed)
    z = 2 * r.randn(num_samples, num_classes)
    y = (r.rand(num_samples, 1) > np.cumsum(softmax(z), 1)).sum(1).clip(0, num_classes - 1)
    return z, y


def any_predictions(seed, num_classes=10, kind="any", num_samples=None):
    """Probabilities and labels of any size and quality; some saturated, tied, or with a class that never occurs."""
    r = np.random.default_rng(seed)
    n = num_samples or int(10 ** r.uniform(0.5, 3))
    z = 10 ** r.uniform(-0.5, 0.8) * r.normal(size=(n, num_classes))
    p = softmax(z)
    labels = (r.random((n, 1)) > np.cumsum(p, 1)).sum(1).clip(0, num_classes - 1)
    labels[labels == num_classes - 1] = 0 if seed % 3 == 0 else num_classes - 1
    p = softmax(10 ** r.uniform(-0.5, 0.5) * z)
    kind = r.choice(["smooth", "tied", "saturated"]) if kind == "any" else kind
    if kind == "tied":
        p = np.round(p, 1) + 1e-3
        p /= p.sum(axis=1, keepdims=True)
    if kind == "saturated":
        sure = r.random(n) < 0.7
        p[sure] = np.eye(num_classes)[p[sure].argmax(1)]
    return p, labels


# --- golden values ----------------------------------------------------------------------------------------------------

# as published, each to the digits given there: from netcal, torchmetrics, uncertainty-calibration and relplot
GOLDEN = {
    "rmsce": (lambda p, y: ece(p, y, norm="l2"), 0.2112175, 0.2696988),
    "mce": (lambda p, y: ece(p, y, norm="max"), 0.2956659, 0.3884198),
    "average": (average_calibration_error, 0.1758011, 0.2484401),
    "equal mass": (equal_mass_ece, 0.2012320, 0.2546367954674),
    "debiased": (debiased_calibration_error, 0.2100461, 0.2694940),
    "plug-in L2": (lambda p, y: equal_mass_ece(p, y, norm="l2"), 0.2138474, 0.2711758),
    "smooth": (smooth_ece, 0.2022703, 0.1828055),
    "smooth, sigma .05": (lambda p, y: smooth_ece(p, y, sigma=0.05), 0.2019430, 0.2435377),
    "classwise": (classwise_ece, 0.0449187459, 0.0381036498),
    "adaptive": (adaptive_calibration_error, 0.0433396, 0.0400909),
    "thresholded adaptive": (thresholded_adaptive_calibration_error, 0.1013743, 0.0587048),
    "uce": (uce, 0.1535318974, 0.3324869882),
    "ks": (ks_calibration_error, 0.2012329, 0.1028497),
    "ece": (ece, 0.2012319886, 0.2527485780),
    "ece of 10 bins": (lambda p, y: ece(p, y, num_bins=10), 0.2012319, 0.2503545),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_function_agrees_with_the_golden_values(name):
    function, *expected = GOLDEN[name]
    float32 = {"rmsce": 2e-7, "mce": 2e-7, "ece of 10 bins": 2e-7}  # torchmetrics computes in it
    for (z, y), value in zip((classifier_a(), classifier_b()), expected, strict=True):
        # half a unit of the last digit
        tolerance = float32.get(name, 0.51 * 10.0 ** -len(str(value).split(".")[1].ljust(7, "0")))
        assert function(softmax(z), y) == pytest.approx(value, abs=tolerance)


def test_confidence_gap_is_the_difference_of_the_classifier_averages():
    for (z, y), mean_confidence, accuracy in [(classifier_a(), 0.742732, 0.5415), (classifier_b(), 0.583849, 0.534)]:
        assert confidence_gap(softmax(z), y) == pytest.approx(mean_confidence - accuracy, abs=6e-7)


def test_confidence_on_an_edge_belongs_to_the_side_that_is_closed():
    # Ten samples at 0.9, five of them right, and ten at 0.8, all right. Left-closed each has a bin of its own; with
    # 0.95 instead of 0.8, 0.9 joins it, but right-closed it does not.
    p = np.repeat([0.9, 0.95], 10)
    y = np.repeat([1, 0, 1], [5, 5, 10])
    assert ece(p, y, num_bins=10) == pytest.approx(abs(15 / 20 - 0.925))
    assert ece(p, y, num_bins=10, closed="right") == pytest.approx((10 * 0.4 + 10 * 0.05) / 20)


@pytest.mark.parametrize(
    ("value", "num_bins", "left", "right"),
    [(0.0, 15, 0, 0), (1.0, 15, 14, 14), (0.9, 10, 9, 8), (0.5, 2, 1, 0), (0.2, 15, 3, 2), (0.55, 10, 5, 5)],
)
def test_bin_index_of_both_sides(value, num_bins, left, right):
    assert bins.bin_index([value], num_bins).tolist() == [left]
    assert bins.bin_index([value], num_bins, closed="right").tolist() == [right]
    for closed, index in [("left", left), ("right", right)]:
        assert np.asarray(bins.tensor_bin_index(np.array([value]), num_bins, closed)).tolist() == [index]


def test_norms_by_hand():
    # bins of 0.9 (one sample, right) and of 0.6 (three samples, one right): gaps 0.1 and 0.6 - 1/3
    p, y = [[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4]], [0, 0, 1, 1]
    low, high = 0.6 - 1 / 3, 0.1
    assert ece(p, y) == pytest.approx((3 * low + high) / 4)
    assert ece(p, y, norm="l2") == pytest.approx(np.sqrt((3 * low**2 + high**2) / 4))
    assert ece(p, y, norm="max") == pytest.approx(low)
    assert average_calibration_error(p, y) == pytest.approx((low + high) / 2)
    assert confidence_gap(p, y) == pytest.approx((0.9 + 3 * 0.6) / 4 - 0.5)
    assert ks_calibration_error(p, y) == pytest.approx(3 * low / 4)


def test_equal_mass_by_hand():
    # two bins: (0.6 wrong, 0.7 right, 0.8 right) and (0.9 wrong, 1.0 right)
    p, y = [0.9, 0.6, 1.0, 0.8, 0.7], [0, 0, 1, 1, 1]
    low, high = abs(2 - 2.1), abs(1 - 1.9)
    assert equal_mass_ece(p, y, num_bins=2) == pytest.approx((low + high) / 5)
    assert equal_mass_ece(p, y, num_bins=2, norm="max") == pytest.approx(high / 2)
    assert equal_mass_ece(p, y, num_bins=50) == pytest.approx(np.mean([0.9, 0.6, 0.0, 0.2, 0.3]))
    squares = [3 * ((low / 3) ** 2 - 2 / 9 / 2), 2 * ((high / 2) ** 2 - 1 / 4 / 1)]
    assert debiased_calibration_error(p, y, num_bins=2) == pytest.approx(np.sqrt(max(0, sum(squares)) / 5))
    # 0.6, 0.6, 0.9: the tied two are not parted
    assert debiased_calibration_error([0.6, 0.9, 0.6], [0, 1, 0], num_bins=3) == pytest.approx(np.sqrt(2 / 3 * 0.36))


def test_ks_does_not_depend_on_the_order_of_ties():
    p, y = np.full(6, 0.75), np.array([0, 0, 1, 1, 1, 1])
    expected = abs(4 / 6 - 0.75)
    for order in ([0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 0, 1]):
        assert ks_calibration_error(p[order], y[order]) == pytest.approx(expected)


def test_classwise_by_hand():
    # class 0 by bins: (0.6: no), (0.8, 0.9: yes, yes); class 1: (0.4: yes), (0.2: no), (0.1: no)
    p, y = [[0.8, 0.2], [0.9, 0.1], [0.6, 0.4]], [0, 0, 1]
    first = (0.6 + abs(2 - 1.7)) / 3
    second = (0.6 + 0.2 + 0.1) / 3
    assert classwise_ece(p, y, num_bins=4) == pytest.approx((first + (0.3 + 0.6) / 3) / 2)
    assert classwise_ece(p, y, num_bins=10) == pytest.approx(((0.6 + 0.2 + 0.1) / 3 + second) / 2)


def test_thresholded_error_counts_only_what_reaches_the_threshold():
    p, y = np.array([[0.995, 0.005], [0.9, 0.1], [0.2, 0.8]]), [0, 1, 1]
    assert thresholded_adaptive_calibration_error(p, y, num_bins=1, threshold=0.01) == pytest.approx(
        (abs(1 - 2.095) / 3 + abs(2 - 0.9) / 2) / 2
    )
    assert adaptive_calibration_error(p, y, num_bins=1) == pytest.approx((1.095 / 3 + abs(2 - 0.905) / 3) / 2)
    # nothing of class 1 is left: class 0 alone is averaged
    assert thresholded_adaptive_calibration_error(
        [[0.9, 0.1], [0.8, 0.2]], [0, 0], num_bins=1, threshold=0.5
    ) == pytest.approx(0.15)


def test_uce_family_by_hand():
    # entropies 0 (first bin, wrong though sure) and 1 (last bin, right)
    p, y = [[1.0, 0.0], [0.5, 0.5]], [1, 0]
    assert uce(p, y) == pytest.approx(1.0)
    assert uce_reference(p) == pytest.approx((0.0 + 0.5) / 2)
    assert entropy_confidence_gap(p, y) == pytest.approx((1.0 + 0.5) / 2)
    table = uncertainty_table(p, y, num_bins=2)
    assert table == {
        "count": [1, 1],
        "uncertainty": [0.0, 1.0],
        "error": [1.0, 0.0],
        "expected_error": [0.0, 0.5],
        "num_clipped": 0,
    }
    assert uncertainty_table(p, y, num_bins=3)["error"] == [1.0, None, 0.0]


def test_uncertainty_table_counts_the_entropies_it_clips():
    rows = [[0.4, 0.4, 0.4], [0.5, 0.3, 0.2], [0.9, 0.05, 0.05]]  # the first does not sum to 1
    assert uncertainty_table(rows, [0, 0, 0])["num_clipped"] == 1


def test_entropy_confidence_gap_picks_the_true_temperature_where_uce_does_not():
    z, y = draw(0, 20000)
    inverse_temperatures = [0.7, 1.0, 1.3, 2.0]
    errors = [[f(softmax(b * z), y) for b in inverse_temperatures] for f in (uce, entropy_confidence_gap)]
    assert inverse_temperatures[np.argmin(errors[0])] == 1.3
    assert inverse_temperatures[np.argmin(errors[1])] == 1.0
    # and calibrated, the UCE is its reference
    assert errors[0][1] == pytest.approx(uce_reference(softmax(z)), abs=0.005)


@SETTINGS
@given(SEEDS, CLASSES)
def test_errors_stand_in_the_order_they_must(seed, num_classes):
    p, y = any_predictions(seed, num_classes)
    gap, mean, root, largest = abs(confidence_gap(p, y)), ece(p, y), ece(p, y, norm="l2"), ece(p, y, norm="max")
    assert gap <= mean + 1e-12
    assert mean <= root + 1e-12
    assert root <= largest + 1e-12
    assert largest <= 1 + 1e-12
    assert gap <= ks_calibration_error(p, y) + 1e-12
    assert debiased_calibration_error(p, y) <= equal_mass_ece(p, y, num_bins=len(y), norm="l2") + 1


# --- against other packages -------------------------------------------------------------------------------------------


@SETTINGS
@given(SEEDS, st.sampled_from([3, 10, 100]))
def test_binned_errors_agree_with_netcal(seed, num_classes):
    netcal = pytest.importorskip("netcal.metrics")
    p, y = any_predictions(seed, num_classes)
    assume(len(np.unique(y)) > 2)  # with fewer it takes the task for a binary one
    # netcal finds bins by their edges: one ulp from an edge, as ties are, it may choose another
    c = p.max(1)
    assume(np.all((c == 1.0) | (np.abs(c * 15 - np.round(c * 15)) > 1e-9)))
    assert ece(p, y) == pytest.approx(netcal.ECE(15).measure(p, y), abs=1e-7)
    assert ece(p, y, norm="max") == pytest.approx(netcal.MCE(15).measure(p, y), abs=1e-7)
    assert average_calibration_error(p, y) == pytest.approx(netcal.ACE(15).measure(p, y), abs=1e-7)


@SETTINGS
@given(SEEDS, CLASSES, st.sampled_from([5, 15]))
def test_binned_errors_agree_with_torchmetrics(seed, num_classes, num_bins):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    p, y = any_predictions(seed, num_classes, kind="smooth")
    c = p.max(1)
    assume(np.all(np.abs(c * num_bins - np.round(c * num_bins)) > 1e-5))  # it sorts into bins in float32
    options = {"n_bins": num_bins}
    for norm in ("l1", "l2", "max"):
        theirs = functional.multiclass_calibration_error(
            torch.tensor(p), torch.tensor(y), num_classes=num_classes, norm=norm, **options
        )
        assert ece(p, y, num_bins, norm) == pytest.approx(float(theirs), abs=3e-6)


@SETTINGS
@given(SEEDS, st.sampled_from([2, 3, 10]))
def test_classwise_and_uncertainty_errors_agree_with_torchmetrics(seed, num_classes):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    p, y = any_predictions(seed, num_classes, kind="smooth")
    u, wrong = entropy_calibration.uncertainty_and_error(p, y)
    values = np.append(p.ravel(), u)
    assume(np.all(np.abs(values * 15 - np.round(values * 15)) > 1e-5))

    def theirs(value, target):
        target = torch.tensor(np.asarray(target)).long()
        return float(functional.binary_calibration_error(torch.tensor(value), target, n_bins=15))

    assert classwise_ece(p, y) == pytest.approx(
        np.mean([theirs(p[:, k], y == k) for k in range(num_classes)]), abs=1e-6
    )
    assert uce(p, y) == pytest.approx(theirs(u, wrong), abs=1e-6)


@settings(SETTINGS, max_examples=8)
@given(SEEDS)
def test_ece_agrees_with_tensorflow_probability(seed):
    stats = tensorflow_probability().stats
    p, y = any_predictions(seed, kind="smooth")
    logits = np.log(np.maximum(p, 1e-30)).astype("float32")
    theirs = stats.expected_calibration_error(15, logits=logits, labels_true=y, labels_predicted=p.argmax(1))
    assert ece(p, y) == pytest.approx(float(theirs), abs=1e-6)


@SETTINGS
@given(SEEDS, CLASSES, st.integers(1, 40))
def test_right_closed_and_equal_mass_errors_agree_with_uncertainty_calibration(seed, num_classes, num_bins):
    theirs = pytest.importorskip("calibration")
    p, y = any_predictions(seed, num_classes, kind="smooth")
    assume(len(np.unique(p.max(1))) == len(y))
    assert ece(p, y, num_bins, closed="right") == pytest.approx(theirs.get_ece(p, y, num_bins=num_bins), abs=1e-12)
    assert equal_mass_ece(p, y, num_bins) == pytest.approx(theirs.get_ece_em(p, y, num_bins=num_bins), abs=1e-12)


@SETTINGS
@given(SEEDS, CLASSES, st.integers(1, 40))
def test_debiased_error_agrees_with_uncertainty_calibration_on_ties_too(seed, num_classes, num_bins):
    theirs = pytest.importorskip("calibration.utils")
    p, y = any_predictions(seed, num_classes)
    # the bins hold ties whole; which side a bin is chosen for neighbours of one ulp is not the question
    p = np.round(p, 12)
    expected = theirs.lower_bound_scaling_ce(p, y, p=2, debias=True, num_bins=num_bins, mode="top-label")
    # the square is a sum near 0, and its root shows all of its rounding
    assert debiased_calibration_error(p, y, num_bins) ** 2 == pytest.approx(expected**2, abs=1e-12)


@settings(SETTINGS, max_examples=60)
@given(SEEDS, CLASSES, st.sampled_from(["any", "tied", "saturated"]), st.sampled_from([None, 1, 2, 7]))
def test_smooth_error_agrees_with_relplot(seed, num_classes, kind, num_samples):
    relplot = pytest.importorskip("relplot")
    p, y = any_predictions(seed, num_classes, kind, num_samples)
    confidence, correct = bins.confidence_and_correctness(p, y)
    assert smooth_ece(p, y) == pytest.approx(relplot.smECE(confidence, correct), abs=1e-12)
    for sigma in (0.003, 0.05, 0.7):  # the first has an even grid
        theirs = relplot.smECE_sigma(confidence, correct, sigma)
        assert smooth_ece(p, y, sigma) == pytest.approx(theirs, abs=1e-12)


@settings(SETTINGS, max_examples=12)
@given(SEEDS, CLASSES, st.floats(0, 2))
def test_streamed_smooth_error_agrees_with_relplot(seed, num_classes, quality):
    relplot = pytest.importorskip("relplot")
    r = np.random.default_rng(seed)
    # from very good, where the kernel is narrow and its grid is not a divisor of the metric's, to bad
    confidence = r.beta(8, 1, size=20000)
    correct = r.random(20000) < confidence ** (1 + quality)
    p = np.stack([1 - confidence, confidence], axis=1)
    keep = confidence > 0.5
    metric = SmoothCalibrationError(dtype="float64")
    metric.update_state(correct[keep], p[keep])
    assert float(metric.result()) == pytest.approx(relplot.smECE(confidence[keep], correct[keep] * 1.0), abs=5e-6)


@SETTINGS
@given(SEEDS, st.sampled_from([1, 5, 15]), st.floats(0, 0.3))
def test_adaptive_errors_are_those_of_numpy_one_bin_at_a_time(seed, num_bins, threshold):
    p, y = any_predictions(seed, 4)
    errors = []
    for k in range(4):
        kept = np.flatnonzero(p[:, k] >= threshold)
        order = kept[np.argsort(p[kept, k], kind="stable")]
        parts = [part for part in np.array_split(order, num_bins) if len(part)]
        if len(kept):
            errors.append(sum(abs(sum(y[part] == k) - p[part, k].sum()) for part in parts) / len(kept))
    got = thresholded_adaptive_calibration_error(p, y, num_bins, threshold)
    assert got == pytest.approx(np.mean(errors), abs=1e-12)


@SETTINGS
@given(SEEDS, CLASSES)
def test_ks_is_that_of_numpy_one_confidence_at_a_time(seed, num_classes):
    p, y = any_predictions(seed, num_classes)
    confidence, correct = bins.confidence_and_correctness(p, y)
    difference = [np.sum((correct - confidence)[confidence <= c]) for c in np.unique(confidence)]
    assert ks_calibration_error(p, y) == pytest.approx(np.abs(difference).max() / len(y), abs=1e-12)


def test_a_thousand_classes():
    p, y = any_predictions(1, 1000, kind="smooth", num_samples=200)
    for case in ONE_OF_EACH_CLASS:
        metric = case.metric(num_classes=1000)
        metric.update_state(y, p)
        assert float(metric.result()) == pytest.approx(case.function(p, y), abs=1e-9)


# --- every metric gives its function's value --------------------------------------------------------------------------


def sample(seed=5, num_samples=300, num_classes=10):
    """Predictions of mixed quality; few enough for each to have a cell of a fine histogram to itself."""
    z, y = draw(seed, num_samples, num_classes)
    return np.where(np.arange(num_samples)[:, None] % 2, 2.5, 0.5) * z, y


@every_metric
def test_uneven_batches_of_any_form_give_the_functions_value(case):
    z, y = sample()
    expected = case.function(softmax(z), y)
    by_probability, by_logits = case.metric(), case.metric(from_logits=True)
    for metric, values in [(by_probability, softmax(z)), (by_logits, z)]:
        metric.update_state(y[:7], -values[:7] if metric is by_logits else 1 - values[:7])
        metric.reset_state()
        assert float(metric.result()) == 0.0
        metric.update_state(y[:1], values[:1])
        metric.update_state(y[1:200, None], values[1:200])
        metric.update_state(np.eye(10)[y[200:]], values[200:])
        assert float(metric.result()) == pytest.approx(expected, abs=1e-9)


@every_metric
def test_states_of_two_halves_merge_to_the_whole(case):
    z, y = sample()
    halves = [case.metric(from_logits=True) for _ in range(2)]
    halves[0].update_state(y[:99], z[:99])
    halves[1].update_state(y[99:], z[99:])
    halves[0].merge_state(halves[1:])
    assert float(halves[0].result()) == pytest.approx(case.function(softmax(z), y), abs=1e-9)


@every_metric
def test_metrics_of_other_settings_do_not_merge(case):
    with pytest.raises(ValueError, match=r"same class and settings"):
        case.metric().merge_state([case.metric(from_logits=True)])


@every_metric
def test_weights_count_like_repeated_samples(case):
    z, y = sample()
    weight = np.arange(len(y)) % 4
    weighted, repeated = case.metric(from_logits=True), case.metric(from_logits=True)
    weighted.update_state(y, z, sample_weight=weight)
    repeated.update_state(np.repeat(y, weight), np.repeat(z, weight, axis=0))
    assert float(weighted.result()) == pytest.approx(float(repeated.result()), abs=1e-12)


@of_each([c for c in METRICS if c.cls is not DebiasedCalibrationError])
def test_a_common_factor_of_the_weights_is_no_matter(case):
    z, y = sample()
    small, plain = case.metric(from_logits=True), case.metric(from_logits=True)
    small.update_state(y, z, sample_weight=np.full(len(y), 1 / len(y)))
    plain.update_state(y, z)
    # equal-mass bins of shares of weight need not hold whole samples; SmoothECE adds 0.0001 to the density
    tolerance = {EqualMassCalibrationError: 0.02, SmoothCalibrationError: 1e-4}.get(case.cls, 1e-12)
    assert float(small.result()) == pytest.approx(float(plain.result()), abs=tolerance)


@every_metric
def test_a_sigmoid_is_read_as_two_classes(case):
    p, y = np.array([0.9, 0.2, 0.6, 0.55]), np.array([1, 0, 0, 1])
    expected = case.function(p, y)
    assert case.function(np.stack([1 - p, p], axis=1), y) == pytest.approx(expected, abs=1e-12)
    for labels, values, from_logits in [
        (y, p[:, None], False),
        (y[:, None], p[:, None], False),
        (y, p, False),
        (y, np.log(p / (1 - p)), True),
    ]:
        metric = case.metric(num_classes=2, from_logits=from_logits)
        metric.update_state(labels, values)
        assert float(metric.result()) == pytest.approx(expected, abs=1e-9)


@every_metric
def test_samples_of_several_positions_share_a_weight(case):
    z, y = sample()
    metric = case.metric(from_logits=True)
    metric.update_state(y.reshape(100, 3), z.reshape(100, 3, 10), sample_weight=np.arange(100) % 2)
    kept = np.repeat(np.arange(100) % 2 == 1, 3)
    assert float(metric.result()) == pytest.approx(case.function(softmax(z[kept]), y[kept]), abs=1e-9)


@every_metric
def test_config_round_trip_keeps_the_settings(case):
    metric = case.metric(from_logits=True, name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(again) is type(metric)
    assert again.get_config() == metric.get_config()
    z, y = sample()
    again.update_state(y, z)
    assert float(again.result()) == pytest.approx(case.function(softmax(z), y), abs=1e-9)
    assert again.name == "mine"


@every_metric
@pytest.mark.parametrize("bad", ["nan", "logits for probabilities"])
def test_bad_predictions_show_as_nan(case, bad):
    z, y = sample(num_samples=50)
    p = softmax(z)
    p[17] = np.nan if bad == "nan" else 5 * z[17]
    if bad != "nan" and case.cls is UncertaintyCalibrationError:
        p[17] = 3.0  # its bins are of the entropy; what it expects of a calibrated model shows
    metric = case.metric()
    metric.update_state(y, p)
    assert np.isnan(float(metric.result())) or np.isnan(metric.reference())


@of_each([c for c in METRICS if c.settings.get("norm") == "max" or c.cls is KolmogorovSmirnovCalibrationError])
def test_nan_shows_under_xla_too_where_a_maximum_passes_over_it(case):
    tf = pytest.importorskip("tensorflow")
    z, y = sample(num_samples=50)
    z[17] = np.nan
    metric = case.metric(from_logits=True)
    metric.update_state(y, z)
    assert np.isnan(float(tf.function(metric.value, jit_compile=True)()))


def reads_like_its_function(model, x, y, batch_size):
    got = model.evaluate(x, y, batch_size=batch_size, verbose=0, return_dict=True)
    p = np.asarray(keras.ops.cast(model(x), "float64"))
    for case in ONE_OF_EACH_CLASS:
        expected = case.function(p, y)
        assert got[case.metric().name] == pytest.approx(expected, abs=2e-6), case.cls.__name__


def small_model(jit_compile=False, policy=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", dtype=policy)])
    every = [case.metric(num_classes=3) for case in ONE_OF_EACH_CLASS]
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=every, jit_compile=jit_compile)
    return model


def small_data():
    return 3 * np.random.RandomState(0).randn(50, 4).astype("float32"), np.arange(50) % 3


@pytest.mark.parametrize("jit_compile", [False, True])
def test_metrics_work_in_compile_and_evaluate(jit_compile):
    reads_like_its_function(small_model(jit_compile), *small_data(), batch_size=25)


def test_metrics_are_right_under_mixed_bfloat16_whose_confidences_are_tied():
    keras.config.set_dtype_policy("mixed_bfloat16")
    x, y = small_data()
    model = small_model()
    assert keras.backend.standardize_dtype(model(x).dtype) == "bfloat16"
    p = np.asarray(keras.ops.cast(model(x), "float64"))
    assert len(np.unique(p.max(1))) < len(p)
    got = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    for case in ONE_OF_EACH_CLASS:
        metric = case.metric(num_classes=3)
        metric.update_state(y, p)
        assert got[metric.name] == pytest.approx(float(metric.result()), abs=1e-6)
        # bfloat16 rows do not sum to 1: the histogram's order is that of the odds, not of these confidences
        tolerance = 0.03 if issubclass(case.cls, equal_mass.ConfidenceHistogram) else 1e-5
        assert got[metric.name] == pytest.approx(case.function(p, y), abs=tolerance)


def test_model_with_metrics_saves_and_loads(tmp_path):
    x, y = small_data()
    model = small_model()
    mine = [ExpectedCalibrationError(norm="max", closed="right"), EqualMassCalibrationError(num_bins=4, bits=12)]
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=mine)
    model.fit(x, y, verbose=0)
    before = model.evaluate(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").evaluate(x, y, verbose=0) == pytest.approx(before)


ON_TWO_DEVICES = """if True:
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras
    import test_calibration_metrics as tests

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        metrics = [case.metric(from_logits=True) for case in tests.ONE_OF_EACH_CLASS]
        of_keras = keras.metrics.Sum()
    z, y = tests.sample()

    @tf.function
    def update(labels, logits):
        for metric in metrics:
            metric.update_state(labels, logits)
        of_keras.update_state(labels)

    halves = [slice(0, 101), slice(101, None)]  # of uneven size
    parts = [
        strategy.experimental_distribute_values_from_function(
            lambda replica: tf.constant(values[halves[replica.replica_id_in_sync_group]])
        )
        for values in (y, z)
    ]
    strategy.run(update, args=parts)
    print("keras", float(of_keras.result()) == y.sum())
    for case, metric in zip(tests.ONE_OF_EACH_CLASS, metrics, strict=True):
        difference = abs(float(metric.result()) - case.function(tests.softmax(z), y))
        floor = metric.floor(num_draws=2) if hasattr(metric, "floor") else 1.0
        print(metric.name, difference < 1e-9 and floor > 0)
"""


def test_metrics_add_up_over_the_replicas_of_a_mirrored_strategy():
    process = subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert process.returncode == 0, process.stderr[-2000:]
    right = dict(line.split() for line in process.stdout.splitlines())
    if right.pop("keras") == "False":
        pytest.skip("this version of Keras does not add up its own metrics over replicas")
    assert right == {case.metric().name: "True" for case in ONE_OF_EACH_CLASS}


def test_counts_beyond_float32_are_kept():
    metric = ExpectedCalibrationError(dtype="float64")
    p = np.array([[0.9, 0.1]])
    metric.update_state([0], p, sample_weight=[2.0**24])
    for _ in range(2):
        metric.update_state([1], p, sample_weight=[1.0])
    assert float(metric.result()) == pytest.approx(abs(2**24 / (2**24 + 2) - 0.9), abs=1e-12)


# --- the histogram of odds --------------------------------------------------------------------------------------------


@SETTINGS
@given(
    SEEDS, st.sampled_from(["smooth", "tied", "saturated"]), st.integers(1, 30), st.sampled_from(["l1", "l2", "max"])
)
def test_equal_mass_error_is_within_its_bound(seed, kind, num_bins, norm):
    # ties come in any order, and a histogram of 2**10 cells makes many
    p, y = any_predictions(seed, 10, kind)
    p /= p.sum(axis=1, keepdims=True)
    metric = EqualMassCalibrationError(num_bins=num_bins, norm=norm, bits=10, dtype="float64")
    metric.update_state(y, p)
    difference = abs(float(metric.result()) - equal_mass_ece(p, y, num_bins, norm))
    assert difference <= metric.error_bound() + 1e-9


@SETTINGS
@given(SEEDS, st.sampled_from(["smooth", "tied", "saturated"]))
def test_ks_error_is_below_the_exact_one_by_its_bound_at_most(seed, kind):
    p, y = any_predictions(seed, 10, kind)
    p /= p.sum(axis=1, keepdims=True)
    metric = KolmogorovSmirnovCalibrationError(bits=10, dtype="float64")
    metric.update_state(y, p)
    missing = ks_calibration_error(p, y) - float(metric.result())
    assert -1e-9 <= missing <= metric.error_bound() + 1e-9


def test_bounds_are_tight_where_nothing_is_shared_and_open_where_everything_is():
    z, y = classifier_b()
    metric = EqualMassCalibrationError(from_logits=True)
    metric.update_state(y, z)
    assert metric.error_bound() < 5e-4
    ks = KolmogorovSmirnovCalibrationError(from_logits=True)
    ks.update_state(y, z)
    assert 0 < ks.error_bound() < 1e-6
    tied = EqualMassCalibrationError(num_bins=2)
    tied.update_state([1, 1, 0, 0], np.full(4, 0.75))
    # two bins of two: in the worst order of one, 2 right and 2 wrong: (2 * 0.25 + 2 * 0.75) / 4 against 0.25
    assert tied.error_bound() == pytest.approx(0.5, abs=1e-3)
    assert EqualMassCalibrationError().error_bound() == KolmogorovSmirnovCalibrationError().error_bound() == 0.0


def test_confidences_that_float64_rounds_to_1_keep_their_order():
    # a thousand samples at logit differences 40 to 60: the surest half is wrong
    z = np.stack([np.linspace(40, 60, 1000), np.zeros(1000)], axis=1)
    y = (np.arange(1000) >= 500).astype(int)
    assert np.all(softmax(z).max(1) == 1.0)
    metric = EqualMassCalibrationError(num_bins=2, norm="max", from_logits=True, dtype="float64")
    metric.update_state(y, z)
    assert float(metric.result()) == pytest.approx(1.0, abs=0.01)


def test_more_bits_tighten_the_bound():
    z, y = classifier_b()
    bounds = []
    for bits in (10, 13, 16):
        metric = EqualMassCalibrationError(bits=bits, from_logits=True)
        metric.update_state(y, z)
        bounds.append(metric.error_bound())
    assert bounds[0] > 4 * bounds[1] > 16 * bounds[2]
    assert bounds[0] < 0.1


@SETTINGS
@given(SEEDS)
def test_debiased_metric_is_its_function_where_equal_confidences_share_a_cell(seed):
    p, y = any_predictions(seed, 2, kind="tied")
    metric = DebiasedCalibrationError(dtype="float64")
    metric.update_state(y, p)
    assert float(metric.result()) == pytest.approx(debiased_calibration_error(np.round(p, 9), y), abs=1e-6)


def test_debiased_metric_is_close_to_its_function_on_many_samples():
    for z, y in (classifier_a(), classifier_b()):
        metric = DebiasedCalibrationError(from_logits=True, dtype="float64")
        metric.update_state(y, z)
        assert float(metric.result()) == pytest.approx(debiased_calibration_error(softmax(z), y), abs=1e-5)


def test_reference_of_the_metric_is_that_of_the_function():
    z, y = classifier_b()
    metric = UncertaintyCalibrationError(from_logits=True)
    metric.update_state(y, z)
    assert metric.reference() == pytest.approx(uce_reference(softmax(z)), abs=1e-12)


# --- refusals ---------------------------------------------------------------------------------------------------------

P, Y = [[0.5, 0.5]], [0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ece(P, Y, norm="L1"), "norm must be one of 'l1', 'l2', 'max'. Received: norm='L1'"),
        (lambda: ece(P, Y, closed="both"), "closed must be one of 'left', 'right'. Received: closed='both'"),
        (lambda: ece(P, [0, 1]), "Expected one label per row. Received: 2 for 1 rows"),
        (lambda: classwise_ece(P, [0, 1]), "1-D of one length"),
        (lambda: adaptive_calibration_error(P, [0, 1]), "Expected one label per row"),
        (lambda: classwise_ece([[np.nan, 0.5]], Y), r"must be in \[0, 1\]"),
        (lambda: equal_mass_ece([[2.0, -1.0]], Y), r"must be in \[0, 1\].*Logits\?"),
        (lambda: equal_mass_ece(P, Y, norm="mean"), "norm must be one of"),
        (lambda: equal_mass_ece(P, Y, num_bins=0), "num_bins must be an integer of at least 1"),
        (lambda: debiased_calibration_error(P, Y, num_bins=1.5), "num_bins must be an integer of at least 1"),
        (lambda: thresholded_adaptive_calibration_error(P, Y, threshold=0.9), "Received: threshold=0.9 above all"),
        (lambda: smooth_ece(P, Y, sigma=0), r"sigma must be in \(0, 1\]. Received: sigma=0"),
        (lambda: smooth_ece(P, [2]), r"Labels must be in \[0, 2\)"),
        (lambda: ExpectedCalibrationError(norm="linf"), "norm must be one of"),
        (lambda: ExpectedCalibrationError(closed=None), "closed must be one of"),
        (lambda: EqualMassCalibrationError(bits=9), "bits must be an integer from 10 to 24. Received: bits=9"),
        (lambda: EqualMassCalibrationError(norm="mean"), "norm must be one of"),
        (lambda: DebiasedCalibrationError(num_bins=0), "num_bins must be an integer"),
        (lambda: SmoothCalibrationError(num_points=1), "num_points must be an integer of at least 2"),
        (lambda: ClasswiseCalibrationError(num_classes=1), "num_classes must be an integer of at least 2"),
        (
            lambda: ClasswiseCalibrationError(num_classes=3).update_state(Y, P),
            "predictions of num_classes=3 classes. Received: 2",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_calibration_module_still_has_the_names_it_had():
    for name in ("ece", "uce", "reliability_table", "bin_index", "bin_totals", "calibration_error", "table_of"):
        assert callable(getattr(calibration, name))
    assert calibration.UncertaintyCalibrationError is UncertaintyCalibrationError
