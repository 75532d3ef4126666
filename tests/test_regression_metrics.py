"""Do the metrics of predicted Gaussians give what SciPy, hand calculation and other libraries give?"""

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import layers, ops
from scipy import integrate, stats

from tfprune import metrics
from tfprune.losses import GaussianNegativeLogLikelihood
from tfprune.metrics.regression import coverage

SETTINGS = settings(max_examples=40, deadline=None, database=None)
SEEDS = st.integers(0, 2**32 - 1)


def golden_a():
    """Over-confident everywhere: blind to how the bins are made."""
    r = np.random.RandomState(2)
    x = r.uniform(0, 6, 1000)
    mean, noise = np.sin(x), 0.1 + 0.1 * x
    return mean, 0.7 * noise, mean + noise * r.randn(1000)


def golden_b():
    """Biased, under-confident here and over-confident there: mistakes in binning and in the kind of coverage show."""
    r = np.random.RandomState(4)
    x = r.uniform(0, 6, 2000)
    mean, noise = np.sin(x), 0.1 + 0.1 * x
    targets = mean + noise * r.randn(2000)
    return mean + 0.05, np.where(x > 3, 0.6, 1.7) * noise, targets


# uncertainty-toolbox 0.1.1 (nll to area) and netcal 1.4.0 (picp to regression_uce, bins of equal width)
GOLDEN = {
    "a": {
        "nll": 0.47967766401836,
        "crps": 0.22236848398822,
        "sharpness": 0.29946131414167,
        "interval_l1": 0.09798,
        "interval_l2": 0.10636992657448,
        "interval_area": 0.09896969696970,
        "quantile_l1": 0.04895424242424,
        "quantile_l2": 0.05337186455358,
        "quantile_area": 0.04943839876599,
        "picp": 0.771,
        "mpiw": 0.90371805622649,
        "ence": 0.38111629037979,
        "regression_uce": 0.09069258728956,
        "std_scale": 1.38944471258333,  # NumPy
    },
    "b": {
        "nll": 0.67851270664293,
        "crps": 0.24100215234879,
        "sharpness": 0.39373468163709,
        "interval_l1": 0.02597166666667,
        "interval_l2": 0.03267537363348,
        "interval_area": 0.02622851941576,
        "quantile_l1": 0.04642888888889,
        "quantile_l2": 0.05088487765939,
        "quantile_area": 0.04689331644257,
        "picp": 0.835,
        "mpiw": 1.23499240141515,
        "ence": 0.43111659328585,
        "regression_uce": 0.13734313803416,
        "std_scale": 1.25430934039310,
    },
}


def scores(mean, std, targets):
    """Every number of GOLDEN, by the functions."""
    got = {
        "nll": metrics.gaussian_nll(mean, std, targets),
        "crps": metrics.gaussian_crps(mean, std, targets),
        "sharpness": metrics.sharpness(std),
        "picp": metrics.picp(mean, std, targets),
        "mpiw": metrics.mpiw(std),
        "ence": metrics.ence(mean, std, targets, binning="width"),
        "regression_uce": metrics.regression_uce(mean, std, targets, binning="width"),
        "std_scale": metrics.std_scale(mean, std, targets),
    }
    for kind in ("interval", "quantile"):
        for norm in ("l1", "l2", "area"):
            got[f"{kind}_{norm}"] = metrics.coverage_calibration_error(mean, std, targets, kind=kind, norm=norm)
    return got


@pytest.fixture(params=["a", "b"])
def golden(request):
    return {"a": golden_a, "b": golden_b}[request.param](), GOLDEN[request.param]


def draw(seed, num_samples=None):
    """Predictions of any quality, biased and with standard deviations over several orders of magnitude."""
    r = np.random.default_rng(seed)
    n = num_samples or int(r.integers(2, 300))
    mean, std = 3 * r.normal(size=n), np.exp(r.normal(size=n) * r.uniform(0.1, 2))
    return mean, std, mean + r.normal() + std * r.uniform(0.2, 4) * r.normal(size=n)


def test_functions_agree_with_golden_values(golden):
    predictions, expected = golden
    assert scores(*predictions) == pytest.approx(expected, abs=2e-14, rel=1e-12)


# --- against SciPy and NumPy ------------------------------------------------------------------------------------------


@SETTINGS
@given(SEEDS)
def test_nll_is_scipys_log_density(seed):
    mean, std, targets = draw(seed)
    assert metrics.gaussian_nll(mean, std, targets) == pytest.approx(
        -stats.norm.logpdf(targets, mean, std).mean(), rel=1e-10, abs=1e-10
    )


@pytest.mark.parametrize(("mean", "std", "target"), [(0.0, 1.0, 0.0), (1.0, 0.5, 2.5), (-2.0, 3.0, 4.0)])
def test_crps_is_the_integral_that_defines_it(mean, std, target):
    def squared_distance(x):
        return (stats.norm.cdf(x, mean, std) - (x >= target)) ** 2

    low, high = mean - 12 * std, mean + 12 * std
    expected = integrate.quad(squared_distance, low, target)[0] + integrate.quad(squared_distance, target, high)[0]
    assert metrics.gaussian_crps([mean], [std], [target]) == pytest.approx(expected, abs=1e-8)


def test_crps_of_a_sure_prediction_is_the_absolute_error():
    assert metrics.gaussian_crps([0.0, 1.0], 1e-9, [3.0, -1.0]) == pytest.approx(2.5, abs=1e-8)


@SETTINGS
@given(SEEDS, st.integers(2, 120))
def test_coverage_is_the_share_inside_scipys_intervals_and_below_its_quantiles(seed, num_levels):
    mean, std, targets = draw(seed)
    nominal = np.linspace(0, 1, num_levels)[:, None]
    low, high = stats.norm.interval(nominal, mean, std)
    inside = ((targets >= low) & (targets <= high)).mean(axis=1)
    below = (targets <= stats.norm.ppf(nominal, mean, std)).mean(axis=1)
    for kind, expected in [("interval", inside), ("quantile", below)]:
        table = metrics.coverage_table(mean, std, targets, kind=kind, num_levels=num_levels)
        np.testing.assert_allclose(table["nominal"], nominal[:, 0], atol=1e-15)
        np.testing.assert_allclose(table["observed"], expected, atol=1e-12)
        difference = np.abs(expected - nominal[:, 0])
        for norm, value in [
            ("l1", difference.mean()),
            ("l2", np.sqrt(np.mean(difference**2))),
            ("max", difference.max()),
        ]:
            error = metrics.coverage_calibration_error(mean, std, targets, kind, norm, num_levels)
            assert error == pytest.approx(value, abs=1e-12)


@SETTINGS
@given(SEEDS, st.floats(0.01, 0.99))
def test_picp_and_mpiw_are_those_of_scipys_interval(seed, level):
    mean, std, targets = draw(seed)
    low, high = stats.norm.interval(level, mean, std)
    assert metrics.picp(mean, std, targets, level) == np.mean((targets >= low) & (targets <= high))
    assert metrics.mpiw(std, level) == pytest.approx(np.mean(high - low), rel=1e-9)


def binned_by_hand(values, num_bins, variance, error):
    """(count, mean variance, mean squared error) of the bins of `values` that hold samples, one sample at a time."""
    edges = np.linspace(values.min(), values.max(), num_bins + 1)
    bins = {}
    for value, *row in zip(values, variance, error, strict=True):
        index = min(np.searchsorted(edges, value, side="right") - 1, num_bins - 1)
        bins.setdefault(index, []).append(row)
    return [(len(rows), *np.mean(rows, axis=0)) for _, rows in sorted(bins.items())]


@SETTINGS
@given(SEEDS, st.integers(1, 30))
def test_binned_errors_of_equal_width_are_those_of_numpy(seed, num_bins):
    mean, std, targets = draw(seed)
    of_std = binned_by_hand(std, num_bins, std**2, (targets - mean) ** 2)
    of_variance = binned_by_hand(std**2, num_bins, std**2, (targets - mean) ** 2)
    ence = np.mean([abs(np.sqrt(v) - np.sqrt(e)) / np.sqrt(v) for _, v, e in of_std])
    uce = sum(n * abs(v - e) for n, v, e in of_variance) / len(std)
    assert metrics.ence(mean, std, targets, num_bins, "width") == pytest.approx(ence, rel=1e-9)
    assert metrics.regression_uce(mean, std, targets, num_bins, "width") == pytest.approx(uce, rel=1e-9)


@SETTINGS
@given(SEEDS, st.integers(1, 12), st.integers(1, 20))
def test_bins_of_equal_mass_hold_equally_many(seed, num_bins, size):
    assume(num_bins * size > 1)
    mean, std, targets = draw(seed, num_bins * size)
    order = np.argsort(std).reshape(num_bins, size)
    variance, error = (std**2)[order].mean(axis=1), ((targets - mean) ** 2)[order].mean(axis=1)
    table = metrics.variance_table(mean, std, targets, num_bins)
    assert table["count"] == [size] * num_bins
    np.testing.assert_allclose(table["rmv"], np.sqrt(variance), rtol=1e-12)
    np.testing.assert_allclose(table["rmse"], np.sqrt(error), rtol=1e-9)
    expected = np.mean(np.abs(np.sqrt(variance) - np.sqrt(error)) / np.sqrt(variance))
    assert metrics.ence(mean, std, targets, num_bins) == pytest.approx(expected, rel=1e-9)
    uce = metrics.regression_uce(mean, std, targets, num_bins)
    assert uce == pytest.approx(np.mean(np.abs(variance - error)), rel=1e-9)


def test_equal_standard_deviations_share_a_bin_in_any_order():
    mean, std = np.zeros(8), np.repeat([1.0, 2.0], [3, 5])
    targets = np.arange(8.0)
    table = metrics.variance_table(mean, std, targets, num_bins=4)
    assert table["count"] == [3, 5]
    order = np.random.RandomState(0).permutation(8)
    shuffled = metrics.variance_table(mean, std[order], targets[order], num_bins=4)
    assert shuffled["count"] == [3, 5]
    assert shuffled["rmse"] == pytest.approx(table["rmse"])
    # the five go where their middle is: in the upper half
    assert metrics.variance_table(mean, np.repeat([1.0, 2.0, 3.0], [2, 5, 1]), targets, num_bins=2)["count"] == [2, 6]


@SETTINGS
@given(SEEDS)
def test_std_scale_makes_the_data_most_likely(seed):
    mean, std, targets = draw(seed)
    scale = metrics.std_scale(mean, std, targets)
    best = metrics.gaussian_nll(mean, scale * std, targets)
    assert best <= min(metrics.gaussian_nll(mean, scale * factor * std, targets) for factor in (0.99, 1.01))
    assert metrics.std_scale(mean, scale * std, targets) == pytest.approx(1.0)


def test_binned_errors_by_hand():
    # bin 1: variance 1, squared errors 4 and 4; bin 2: variance 4, squared errors 1 and 1
    mean, std, targets = np.zeros(4), [1.0, 1.0, 2.0, 2.0], [2.0, -2.0, 1.0, -1.0]
    assert metrics.ence(mean, std, targets, num_bins=2) == pytest.approx((abs(1 - 2) / 1 + abs(2 - 1) / 2) / 2)
    assert metrics.regression_uce(mean, std, targets, num_bins=2) == pytest.approx(3.0)
    # coverage and the overall scale are blind to it, being right on average
    assert metrics.std_scale(mean, std, targets) == pytest.approx(np.sqrt((4 + 0.25) / 2))
    assert metrics.sharpness(std) == pytest.approx(np.sqrt(2.5))


def test_area_follows_the_curve_where_it_crosses_the_diagonal():
    # from +0.1 to -0.3 over a quarter: the crossing is at a quarter of it, two triangles
    area = coverage._distance(np, np.array([0.1, -0.3]), "area")
    assert area == pytest.approx(0.5 * 0.1 * 0.25 + 0.5 * 0.3 * 0.75)


def test_interval_coverage_is_blind_to_a_bias_that_quantile_coverage_sees():
    r = np.random.RandomState(0)
    targets = r.randn(20000)
    mean, std = np.full(20000, 0.5), np.full(20000, 1.14)
    interval, quantile = (
        metrics.coverage_calibration_error(mean, std, targets, kind=kind) for kind in ("interval", "quantile")
    )
    assert interval < 0.01
    assert quantile > 0.1


def test_calibrated_predictions_score_near_zero_and_one():
    r = np.random.RandomState(0)
    std = np.exp(r.randn(50000))
    mean = r.randn(50000)
    targets = mean + std * r.randn(50000)
    for kind in ("interval", "quantile"):
        assert metrics.coverage_calibration_error(mean, std, targets, kind=kind, norm="max") < 0.01
    assert metrics.std_scale(mean, std, targets) == pytest.approx(1.0, abs=0.01)
    assert metrics.ence(mean, std, targets) < 0.03
    assert metrics.picp(mean, std, targets, level=0.5) == pytest.approx(0.5, abs=0.01)


def test_homoskedastic_predictions_have_one_bin_and_say_so():
    mean, targets = np.zeros(4), np.array([2.0, -2.0, 2.0, -2.0])
    for binning in ("mass", "width"):
        with pytest.warns(UserWarning, match="All standard deviations are equal .*one bin"):
            assert metrics.ence(mean, 1.0, targets, binning=binning) == pytest.approx(1.0)
        with pytest.warns(UserWarning, match="says nothing about where"):
            assert metrics.regression_uce(mean, np.ones(4), targets, binning=binning) == pytest.approx(3.0)


def test_mean_and_std_split_the_head_and_clip_the_log_variance():
    mean, std = metrics.mean_and_std([[1.0, 2.0, 0.0, np.log(9.0)], [3.0, 4.0, -1e6, 1e6]])
    assert mean.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert std.ravel().tolist() == pytest.approx([1.0, 3.0, np.exp(-15), np.exp(15)])


@pytest.mark.parametrize("seed", range(3))
def test_functions_agree_with_uncertainty_toolbox(seed):
    uct = pytest.importorskip("uncertainty_toolbox")
    mean, std, targets = draw(seed, 500)
    ours = scores(mean, std, targets)
    theirs = {
        "nll": uct.nll_gaussian(mean, std, targets),
        "crps": uct.crps_gaussian(mean, std, targets),
        "sharpness": uct.sharpness(std),
    }
    for kind in ("interval", "quantile"):
        theirs[f"{kind}_l1"] = uct.mean_absolute_calibration_error(mean, std, targets, prop_type=kind)
        theirs[f"{kind}_l2"] = uct.root_mean_squared_calibration_error(mean, std, targets, prop_type=kind)
        theirs[f"{kind}_area"] = uct.miscalibration_area(mean, std, targets, prop_type=kind)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_functions_agree_with_netcal(seed):
    netcal = pytest.importorskip("netcal.metrics.regression")
    mean, std, targets = draw(seed, 500)
    ours = scores(mean, std, targets)
    assert ours["ence"] == pytest.approx(float(netcal.ENCE(15).measure((mean, std), targets)), rel=1e-10)
    assert ours["regression_uce"] == pytest.approx(float(netcal.UCE(15).measure((mean, std), targets)), rel=1e-10)
    theirs = netcal.PICP(15).measure((mean, std), targets, 0.9)
    assert [ours["picp"], ours["mpiw"]] == pytest.approx([float(theirs.picp[0]), float(theirs.mpiw[0])], rel=1e-10)


ONE = ([0.0], [1.0], [0.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.gaussian_nll([0.0], [0.0], [0.0]), r"positive, finite.*Received: values from 0.0 to 0.0"),
        (lambda: metrics.gaussian_nll([0.0], [np.nan], [0.0]), "positive, finite"),
        (lambda: metrics.gaussian_crps([0.0], [1.0], [np.nan]), "mean and targets must be finite"),
        (lambda: metrics.picp([np.inf], [1.0], [0.0]), "mean and targets must be finite"),
        (lambda: metrics.std_scale(np.zeros((4, 1)), np.ones((4, 1)), np.zeros(4)), r"one shape.*targets \(4,\)"),
        (lambda: metrics.std_scale(np.zeros(4), np.ones(3), np.zeros(4)), r"one shape.*std \(3,\)"),
        (lambda: metrics.ence([], 1.0, []), "must not be empty"),
        (lambda: metrics.sharpness([]), "Received: none"),
        (lambda: metrics.mpiw([1.0], level=90), r"level must be in \(0, 1\). Received: level=90. For 90 %"),
        (lambda: metrics.picp(*ONE, level=1.0), "level must be in"),
        (lambda: metrics.ence(*ONE, num_bins=0), "num_bins must be an integer of at least 1. Received: num_bins=0"),
        (
            lambda: metrics.ence(*ONE, binning="size"),
            "binning must be one of 'mass', 'width'. Received: binning='size'",
        ),
        (lambda: metrics.coverage_table(*ONE, kind="tail"), "kind must be one of 'interval', 'quantile'"),
        (lambda: metrics.coverage_table(*ONE, num_levels=1), "num_levels must be an integer of at least 2"),
        (lambda: metrics.coverage_calibration_error(*ONE, norm=1), "norm must be one of 'l1', 'l2', 'max', 'area'"),
        (lambda: metrics.mean_and_std(np.zeros((2, 3))), r"2k columns for k targets.*Received: shape \(2, 3\)"),
        (lambda: metrics.CoverageCalibrationError(kind="tail"), "kind must be one of"),
        (lambda: metrics.PredictionIntervalCoverage(level=95), "level must be in"),
        (lambda: metrics.PredictionIntervalWidth(level=0), "level must be in"),
        (lambda: metrics.ExpectedNormalizedCalibrationError(num_bins=1.5), "num_bins must be an integer"),
        (lambda: metrics.RegressionUncertaintyCalibrationError(binning="tail"), "binning must be one of"),
        (lambda: metrics.CRPS().update_state(np.zeros((2, 1)), np.zeros((2, 3))), r"Received: shape \(2, 3\)"),
        (lambda: metrics.CRPS().update_state(np.zeros(2), np.zeros((2, 4))), r"y_true of shape \(2,\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- Keras metrics ----------------------------------------------------------------------------------------------------

# metric -> the function beside it
KERAS_METRICS = {
    "nll": (metrics.GaussianNegativeLogLikelihood, {}, metrics.gaussian_nll),
    "crps": (metrics.CRPS, {}, metrics.gaussian_crps),
    "picp": (metrics.PredictionIntervalCoverage, {"level": 0.8}, metrics.picp),
    "mpiw": (metrics.PredictionIntervalWidth, {"level": 0.8}, lambda mean, std, y, level: metrics.mpiw(std, level)),
    "sharpness": (metrics.Sharpness, {}, lambda mean, std, y: metrics.sharpness(std)),
    "std_scale": (metrics.StandardDeviationScale, {}, metrics.std_scale),
    **{
        f"{kind}_{norm}": (
            metrics.CoverageCalibrationError,
            {"kind": kind, "norm": norm, "num_levels": 21},
            metrics.coverage_calibration_error,
        )
        for kind, norm in [("interval", "l1"), ("interval", "max"), ("quantile", "l2"), ("quantile", "area")]
    },
    **{
        f"{name}_{binning}": (cls, {"num_bins": 6, "binning": binning}, function)
        for name, cls, function in [
            ("ence", metrics.ExpectedNormalizedCalibrationError, metrics.ence),
            ("regression_uce", metrics.RegressionUncertaintyCalibrationError, metrics.regression_uce),
        ]
        for binning in ("mass", "width")
    },
}


@pytest.fixture(params=KERAS_METRICS)
def case(request):
    """A new metric in float64, and the number that the function beside it gives for the same head output."""
    cls, options, function = KERAS_METRICS[request.param]

    def expected(targets, outputs):
        mean, std = metrics.mean_and_std(outputs)
        return function(mean, std, np.reshape(targets, mean.shape), **options)

    return lambda **more: cls(**options, **{"dtype": "float64", **more}), expected


def head(seed, num_samples=None, targets=1):
    """Targets and head outputs; of the log-variances no two that differ share a cell of the binned metrics."""
    r = np.random.default_rng(seed)
    n = num_samples or int(r.integers(2, 200))
    levels = np.linspace(-3, 3, 40) + 0.02 * r.uniform(size=40)
    log_variance = r.choice(levels, size=(n, targets))
    log_variance[0, 0], log_variance[-1, -1] = levels[0], levels[-1]  # never homoskedastic
    mean = r.normal(size=(n, targets))
    y = mean + 0.3 + np.exp(log_variance / 2) * r.uniform(0.3, 3) * r.normal(size=(n, targets))
    return y, np.concatenate([mean, log_variance], axis=1)


def measured(metric, *args, **kwargs):
    metric.reset_state()
    metric.update_state(*args, **kwargs)
    return float(metric.result())


def test_metric_equals_the_function(case):
    make, expected = case
    metric = make()

    @settings(max_examples=25, deadline=None, database=None)
    @given(SEEDS, st.integers(1, 3))
    def equal(seed, targets):
        y, outputs = head(seed, targets=targets)
        assert measured(metric, y, outputs) == pytest.approx(expected(y, outputs), rel=1e-9, abs=1e-9)

    equal()


def test_metric_streams_two_halves_equal_whole_and_resets(case):
    make, expected = case
    y, outputs = head(0, 150)
    metric = make()
    metric.update_state(y[:5] + 9, outputs[:5])
    metric.reset_state()
    assert float(metric.result()) == 0.0
    metric.update_state(y[:31], outputs[:31])
    metric.update_state(y[31:], outputs[31:])
    assert float(metric.result()) == pytest.approx(expected(y, outputs), rel=1e-12)


def test_metrics_of_two_workers_add_up_to_the_whole(case):
    make, expected = case
    y, outputs = head(1, 150)
    one, two, whole = make(), make(), make()
    one.update_state(y[:60], outputs[:60])
    two.update_state(y[60:], outputs[60:])
    for variable, first, second in zip(whole.variables, one.variables, two.variables, strict=True):
        variable.assign(first + second)
    assert float(whole.result()) == pytest.approx(expected(y, outputs), rel=1e-12)


def test_metric_weights_count_like_repeated_samples(case):
    make, expected = case
    y, outputs = head(2, 90, targets=2)
    weight = np.arange(90) % 3
    repeated = expected(np.repeat(y, weight, axis=0), np.repeat(outputs, weight, axis=0))
    for given_as in (weight, weight[:, None], np.stack([weight, weight], axis=1)):
        assert measured(make(), y, outputs, sample_weight=given_as) == pytest.approx(repeated, rel=1e-9)


def test_metric_weights_targets_one_by_one(case):
    make, expected = case
    y, outputs = head(3, 40, targets=2)
    only_second = measured(make(), y, outputs, sample_weight=np.tile([0.0, 1.0], (40, 1)))
    assert only_second == pytest.approx(expected(y[:, 1:], outputs[:, [1, 3]]), rel=1e-9)


def test_metric_reads_sequences_and_targets_without_a_last_axis(case):
    make, expected = case
    y, outputs = head(4, 40)
    value = pytest.approx(expected(y, outputs), rel=1e-9)
    assert measured(make(), y[:, 0], outputs) == value
    sequences = outputs.reshape(8, 5, 2)
    assert measured(make(), y.reshape(8, 5), sequences) == value
    weight = np.arange(8) % 2
    kept = np.repeat(weight, 5) == 1
    weighted = measured(make(), y.reshape(8, 5, 1), sequences, sample_weight=weight)
    assert weighted == pytest.approx(expected(y[kept], outputs[kept]), rel=1e-9)


@pytest.mark.parametrize("place", ["target", "mean", "log_variance"])
def test_metric_shows_nan_where_a_prediction_was_nan(case, place):
    make, _ = case
    y, outputs = head(5, 20)
    {"target": y, "mean": outputs, "log_variance": outputs}[place][3, 1 if place == "log_variance" else 0] = np.nan
    value = measured(make(), y, outputs)
    blind = place != "log_variance" and make().name in ("mpiw", "sharpness")
    assert np.isfinite(value) if blind else np.isnan(value)


def test_metric_counts_beyond_float32():
    metric = metrics.PredictionIntervalCoverage(dtype="float64")
    metric.update_state([[0.0]], [[0.0, 0.0]], sample_weight=[2.0**24])
    for _ in range(2):
        metric.update_state([[9.0]], [[0.0, 0.0]], sample_weight=[1.0])
    assert np.asarray(metric.totals).tolist() == [2**24 + 2, 2**24]


def test_metric_config_round_trip(case):
    make, _ = case
    metric = make(name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(again) is type(metric)
    assert again.get_config() == metric.get_config()
    assert again.name == "mine"
    y, outputs = head(6, 50)
    assert measured(again, y, outputs) == measured(metric, y, outputs)


@pytest.mark.parametrize("binning", ["mass", "width"])
def test_streamed_bins_are_those_of_the_function_to_the_width_of_a_cell(binning, golden):
    (mean, std, targets), _ = golden
    outputs = np.stack([mean, 2 * np.log(std)], axis=1)
    for cls, function in [
        (metrics.ExpectedNormalizedCalibrationError, metrics.ence),
        (metrics.RegressionUncertaintyCalibrationError, metrics.regression_uce),
    ]:
        streamed = measured(cls(binning=binning, dtype="float64"), targets, outputs)
        assert streamed == pytest.approx(function(mean, std, targets, binning=binning), rel=0.01)


def test_far_out_standard_deviations_are_binned_like_any_other():
    outputs = [[0.0, -1e6], [0.0, -30.0], [0.0, 30.0], [0.0, 1e6]]
    y = [[0.0], [0.0], [0.0], [0.0]]
    assert measured(metrics.ExpectedNormalizedCalibrationError(num_bins=2), y, outputs) == pytest.approx(1.0)


def test_homoskedastic_metric_compares_the_noise_of_all_samples():
    y, outputs = [[2.0], [-2.0]], [[0.0, 0.0], [0.0, 0.0]]
    for binning in ("mass", "width"):
        assert measured(metrics.ExpectedNormalizedCalibrationError(binning=binning), y, outputs) == pytest.approx(1.0)
        assert measured(metrics.RegressionUncertaintyCalibrationError(binning=binning), y, outputs) == pytest.approx(
            3.0
        )


def all_metrics():
    return [cls(**options, name=name) for name, (cls, options, _) in KERAS_METRICS.items()]


def small_model(jit_compile=False, policy=None, targets=1):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2 * targets, dtype=policy)])
    model.compile(
        keras.optimizers.SGD(0.01), GaussianNegativeLogLikelihood(), metrics=all_metrics(), jit_compile=jit_compile
    )
    return model


def expected_of(model, x, y):
    outputs = np.asarray(ops.cast(model(x), "float64"))
    mean, std = metrics.mean_and_std(outputs)
    return {name: function(mean, std, y, **options) for name, (_, options, function) in KERAS_METRICS.items()}


def assert_evaluates_to_the_functions(model, x, y):
    got = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    for name, value in expected_of(model, x, y).items():
        # a binned metric rounds the edges of its bins, and 50 samples are few
        tolerance = 0.1 if name.startswith(("ence", "regression_uce")) else 1e-4
        assert got[name] == pytest.approx(value, rel=tolerance, abs=1e-6), name


@pytest.mark.parametrize("jit_compile", [False, True])
def test_metrics_work_in_compile_and_evaluate_to_the_functions(jit_compile):
    r = np.random.RandomState(0)
    x, y = r.randn(50, 4).astype("float32"), r.randn(50, 2).astype("float32")
    model = small_model(jit_compile, targets=2)
    history = model.fit(x, y, sample_weight=np.ones(50), epochs=1, batch_size=16, verbose=0).history
    assert all(np.isfinite(history[name]).all() for name in KERAS_METRICS)
    assert_evaluates_to_the_functions(model, x, y)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_metrics_are_right_under_mixed_precision(policy):
    r = np.random.RandomState(0)
    x, y = r.randn(50, 4).astype("float32"), r.randn(50, 1).astype("float32")
    model = small_model(policy=policy)
    assert keras.backend.standardize_dtype(model(x).dtype) == policy.removeprefix("mixed_")
    assert_evaluates_to_the_functions(model, x, y)


def test_model_with_metrics_saves_and_loads(tmp_path):
    r = np.random.RandomState(0)
    x, y = r.randn(50, 4).astype("float32"), r.randn(50, 1).astype("float32")
    model = small_model()
    before = model.evaluate(x, y, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(before)
