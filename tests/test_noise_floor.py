"""Is the noise floor what a calibrated model scores, by definition, by formula and by published numbers?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_calibration_metrics import METRICS, of_each, softmax

from tfprune.metrics.calibration import (
    ClasswiseCalibrationError,
    ConfidenceGap,
    ExpectedCalibrationError,
    confidence_gap,
    ece,
)
from tfprune.metrics.entropy_calibration import UncertaintyCalibrationError
from tfprune.metrics.equal_mass import (
    DebiasedCalibrationError,
    EqualMassCalibrationError,
    KolmogorovSmirnovCalibrationError,
)
from tfprune.metrics.floor import draw_means, effective_count, mean_deviation, noise_floor

SETTINGS = settings(max_examples=60, deadline=None, database=None)
FLOORED = [case for case in METRICS if hasattr(case.cls, "floor")]
every_metric = of_each(FLOORED)


def calibrated(seed, num_samples, scale=2.0):
    """Logits, and labels drawn from their softmax."""
    r = np.random.RandomState(seed)
    z = scale * r.randn(num_samples, 10)
    return z, (r.rand(num_samples, 1) > np.cumsum(softmax(z), 1)).sum(1).clip(0, 9)


# --- the arithmetic ---------------------------------------------------------------------------------------------------


@SETTINGS
@given(st.integers(1, 400), st.floats(1e-9, 1))
def test_mean_deviation_is_that_of_scipys_binomial(count, probability):
    values = np.arange(count + 1)
    expected = np.sum(stats.binom.pmf(values, count, probability) * np.abs(values / count - probability))
    assert mean_deviation(count, probability) == pytest.approx(expected, abs=1e-12)


def test_mean_deviation_by_hand():
    # one draw at 0.25: 0.75 * 0.25 + 0.25 * 0.75; two at 0.5: half the time 0.5 off
    assert mean_deviation([1, 2, 0, 5, 5], [0.25, 0.5, 0.3, 0.0, 1.0]).tolist() == pytest.approx([0.375, 0.25, 0, 0, 0])
    # of many, that of a normal distribution
    assert mean_deviation(10**7, 0.3) == pytest.approx(np.sqrt(2 * 0.3 * 0.7 / (np.pi * 10**7)), rel=1e-6)


def test_effective_count_is_kishs():
    # four samples of weight 2 tell as much as four; weights 3, 1 as (3 + 1)**2 / (9 + 1) = 1.6, in whole samples 2
    assert effective_count([8.0, 4.0, 0.0, 1e-3], [16.0, 10.0, 0.0, 1e-6]).tolist() == [4, 2, 0, 1]


def test_draws_have_the_mean_and_spread_of_a_binomial():
    drawn = draw_means(np.random.default_rng(0), [50.0, 0.0], [0.3, 0.7], size=(20000, 2))
    assert drawn[:, 0].mean() == pytest.approx(0.3, abs=0.002)
    assert drawn[:, 0].std() == pytest.approx(np.sqrt(0.3 * 0.7 / 50), rel=0.02)
    assert not drawn[:, 1].any()


# --- the definition ---------------------------------------------------------------------------------------------------


def test_labels_are_drawn_from_the_predictions():
    seen = []
    p = np.tile([0.5, 0.0, 0.2, 0.3, 0.0], (2000, 1))
    noise_floor(lambda _, labels: seen.append(labels) or 0.0, p, num_draws=20)
    share = np.bincount(np.concatenate(seen), minlength=5) / 40000
    np.testing.assert_allclose(share, p[0], atol=0.01)
    assert share[1] == share[4] == 0  # never of a class that cannot be


def test_floor_of_one_bin_is_the_mean_deviation():
    p = np.full((40, 1), 0.6)
    expected = float(mean_deviation(40, 0.6))
    assert noise_floor(ece, p, num_draws=4000) == pytest.approx(expected, rel=0.05)
    metric = ExpectedCalibrationError()
    metric.update_state(np.zeros(40), p)
    assert metric.floor() == pytest.approx(expected, rel=1e-6)


def test_floor_of_the_signed_gap_is_0():
    z, _ = calibrated(0, 500)
    assert noise_floor(confidence_gap, softmax(z)) == pytest.approx(0.0, abs=0.005)
    assert not hasattr(ConfidenceGap(), "floor")


def test_settings_reach_the_metric():
    z, _ = calibrated(0, 500)
    coarse, fine = (noise_floor(ece, softmax(z), num_draws=50, num_bins=n) for n in (1, 100))
    assert coarse < 0.5 * fine


# ECE of 15 bins of perfectly calibrated models, mean of 300 draws, by accuracy and number of samples
PUBLISHED = {
    0.96: {10_000: 0.0030, 2_000: 0.0066, 500: 0.0128},
    0.80: {10_000: 0.0087, 2_000: 0.0200, 500: 0.0388},
    0.60: {10_000: 0.0117, 2_000: 0.0255, 500: 0.0527},
}


@pytest.mark.parametrize("accuracy", PUBLISHED)
def test_floor_of_ece_reproduces_the_published_table(accuracy):
    """How sure those models were of what is not recorded; here confidence - 0.1 is 0.9 times a Beta(a, 1) variable."""
    r = np.random.RandomState(0)
    mean = (accuracy - 0.1) / 0.9
    for num_samples, published in PUBLISHED[accuracy].items():
        confidence = 0.1 + 0.9 * r.beta(mean / (1 - mean), 1, num_samples)
        p = np.column_stack([confidence, np.repeat((1 - confidence[:, None]) / 9, 9, axis=1)])
        metric = ExpectedCalibrationError()
        metric.update_state(np.zeros(num_samples), p)
        assert metric.floor() == pytest.approx(published, rel=0.15)
        assert noise_floor(ece, p, num_draws=100) == pytest.approx(metric.floor(), rel=0.08)


def test_floor_rises_as_accuracy_falls():
    floors = []
    for scale in (20.0, 5.0, 2.0):
        metric = ExpectedCalibrationError(from_logits=True)
        z, y = calibrated(0, 2000, scale)
        metric.update_state(y, z)
        floors.append(metric.floor())
    assert floors[0] < 0.6 * floors[1] < 0.6 * floors[2]


# --- from the state ---------------------------------------------------------------------------------------------------


# Binomial draws per bin leave out how confidences differ within a bin. And both sides are means of 300 draws: their
# standard error is about 1.5 %, of the largest bin 3 %, and of the debiased error, which is 0 half the time, 7 %.
TOLERANCE = {DebiasedCalibrationError: 0.25, KolmogorovSmirnovCalibrationError: 0.08}


@every_metric
@pytest.mark.parametrize("scale", [2.0, 8.0])
def test_floor_from_the_state_agrees_with_the_definition(case, scale):
    z, y = calibrated(3, 600, scale)
    metric = case.metric(from_logits=True)
    metric.update_state(y[:250], z[:250])
    metric.update_state(y[250:], z[250:])
    by_definition = noise_floor(case.function, softmax(z), num_draws=300, seed=1)
    tolerance = 0.12 if case.settings.get("norm") == "max" else TOLERANCE.get(case.cls, 0.06)
    assert metric.floor(num_draws=300) == pytest.approx(by_definition, rel=tolerance)


@every_metric
def test_floor_needs_no_labels_and_excess_is_what_is_above_it(case):
    z, y = calibrated(3, 300)
    one, other = case.metric(from_logits=True), case.metric(from_logits=True)
    one.update_state(y, z)
    other.update_state((y + 1) % 10, z)
    assert one.floor(num_draws=20) == other.floor(num_draws=20) > 0
    assert one.excess(num_draws=20) == pytest.approx(float(one.result()) - one.floor(num_draws=20), abs=1e-12)
    assert other.excess(num_draws=20) > one.floor(num_draws=20)
    assert isinstance(one.floor(num_draws=20), float)


@every_metric
def test_excess_of_a_calibrated_model_is_0_on_average(case):
    excesses, floors = [], []
    for seed in range(20):
        z, y = calibrated(100 + seed, 400)
        metric = case.metric(from_logits=True)
        metric.update_state(y, z)
        excesses.append(metric.excess(num_draws=20))
        floors.append(metric.floor(num_draws=20))
    error = np.std(excesses) / np.sqrt(20)
    assert abs(np.mean(excesses)) < 3 * error + 0.06 * np.mean(floors)
    assert abs(np.mean(excesses)) < 0.6 * np.mean(floors)


@every_metric
def test_weights_count_by_kish(case):
    z, y = calibrated(3, 500)
    weight = np.where(np.arange(500) % 5 == 0, 8.0, 0.0)
    weighted, kept = case.metric(from_logits=True), case.metric(from_logits=True)
    weighted.update_state(y, z, sample_weight=weight)
    kept.update_state(y[weight > 0], z[weight > 0])
    # a hundred samples of weight 8 are a hundred samples; bins of equal mass and the debiased error count 800
    tolerance = 0.25 if case.cls in (EqualMassCalibrationError, DebiasedCalibrationError) else 0.01
    if case.cls is not DebiasedCalibrationError:
        assert weighted.floor(num_draws=50) == pytest.approx(kept.floor(num_draws=50), rel=tolerance)
    if case.cls is not UncertaintyCalibrationError and case.settings.get("norm") != "max":  # which is mostly bias
        assert weighted.floor(num_draws=50) > 1.5 * floor_of_all(case, z, y)


def floor_of_all(case, z, y):
    metric = case.metric(from_logits=True)
    metric.update_state(y, z)
    return metric.floor(num_draws=50)


def test_floor_under_uneven_weights_agrees_with_the_definition():
    z, y = calibrated(3, 2000)
    weight = np.random.RandomState(0).exponential(size=2000)
    metric = ExpectedCalibrationError(from_logits=True, dtype="float64")
    metric.update_state(y, z, sample_weight=weight)

    def weighted_ece(p, labels):
        one = ExpectedCalibrationError(dtype="float64")
        one.update_state(labels, p, sample_weight=weight)
        return float(one.result())

    by_definition = noise_floor(weighted_ece, softmax(z), num_draws=100)
    assert metric.floor() == pytest.approx(by_definition, rel=0.08)
    assert metric.floor() > 1.2 * floor_of_all(METRICS[0], z, y)


def test_floors_of_draws_repeat_by_seed():
    z, y = calibrated(3, 300)
    metric = EqualMassCalibrationError(from_logits=True)
    metric.update_state(y, z)
    assert metric.floor(num_draws=5) == metric.floor(num_draws=5) != metric.floor(num_draws=5, seed=1)
    assert noise_floor(ece, softmax(z), 5) == noise_floor(ece, softmax(z), 5) != noise_floor(ece, softmax(z), 5, seed=1)


def test_floor_of_the_uncertainty_error_is_its_reference_on_many_samples():
    z, y = calibrated(3, 200_000)
    metric = UncertaintyCalibrationError(from_logits=True)
    metric.update_state(y, z)
    assert metric.floor() == pytest.approx(metric.reference(), abs=5e-4)
    assert metric.reference() > 0.05


def test_floor_of_two_merged_halves_is_that_of_the_whole():
    z, y = calibrated(3, 300)
    whole, *halves = (ClasswiseCalibrationError(num_classes=10, from_logits=True) for _ in range(3))
    whole.update_state(y, z)
    halves[0].update_state(y[:100], z[:100])
    halves[1].update_state(y[100:], z[100:])
    halves[0].merge_state(halves[1:])
    assert halves[0].floor() == pytest.approx(whole.floor(), rel=1e-12)


# --- refusals ---------------------------------------------------------------------------------------------------------


def after_nan():
    metric = ExpectedCalibrationError()
    metric.update_state([0], [[np.nan, 0.5]])
    return metric


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_floor(ece, [[0.5, 0.5]], num_draws=0), "num_draws must be an integer of at least 1"),
        (lambda: noise_floor(ece, [[2.0, -1.0]]), r"must be in \[0, 1\]"),
        (lambda: noise_floor(ece, [[0.5, 0.5]], num_bins=0), "num_bins must be an integer of at least 1"),
        (lambda: ExpectedCalibrationError().floor(num_draws=1.5), "Received: num_draws=1.5"),
        (lambda: ExpectedCalibrationError().floor(), "needs at least one sample. Received: ece without any"),
        (lambda: EqualMassCalibrationError().excess(), "needs at least one sample. Received: equal_mass_ece"),
        (lambda: after_nan().floor(), "needs finite predictions. Received: ece of a batch with NaN"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
