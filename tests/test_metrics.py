"""Do the metrics give the numbers that other libraries and hand calculation give?"""

import keras
import numpy as np
import pytest
import sklearn.metrics as sk

from tfprune import metrics
from tfprune.metrics import calibration, scores
from tfprune.verification.golden import classifier_a, classifier_b


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def draw(seed, num_samples):
    r = np.random.RandomState(seed)
    z = 2 * r.randn(num_samples, 10)
    p = softmax(z)
    y = (r.rand(num_samples, 1) > np.cumsum(p, 1)).sum(1).clip(0, 9)
    return z, p, y


# from netcal, torchmetrics, tensorflow-probability, relplot and scikit-learn (all equal where several have it)
GOLDEN = {
    "a": {
        "accuracy": 0.5415,
        "mean_confidence": 0.742732,
        "ece": 0.2012319886,
        "ece10": 0.2012319,
        "uce": 0.1535318974,
        "nll": 1.6147733798,
        "brier": 0.6604139284,
        "entropy": 0.7033139,
    },
    "b": {
        "accuracy": 0.534,
        "mean_confidence": 0.583849,
        "ece": 0.2527485780,
        "ece10": 0.2503545,
        "uce": 0.3324869882,
        "nll": 1.7502355045,
        "brier": 0.7281692665,
        "entropy": 1.1671220,
    },
}
# Some were published to fewer digits, or from float32 (ece10). The nll of b was published as 1.7502355045, where
# scikit-learn gives 1.75023550443; hence 1e-10 there, and a comparison with scikit-learn to 1e-12 below.
DIGITS = {"accuracy": 1e-12, "mean_confidence": 6e-7, "ece10": 5e-7, "nll": 1e-10, "entropy": 6e-8}


@pytest.fixture(params=["a", "b"])
def golden(request):
    z, y = {"a": classifier_a, "b": classifier_b}[request.param]()
    return z, softmax(z), y, GOLDEN[request.param]


def test_functions_agree_with_golden_values(golden):
    z, p, y, expected = golden
    got = {
        "accuracy": metrics.accuracy(p, y),
        "mean_confidence": metrics.mean_confidence(p),
        "ece": metrics.ece(p, y),
        "ece10": metrics.ece(p, y, num_bins=10),
        "uce": metrics.uce(p, y),
        "nll": metrics.nll(z, y),
        "brier": metrics.brier(p, y),
        "entropy": metrics.entropy(p).mean(),
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=DIGITS.get(name, 6e-11)), name


def test_scores_agree_with_scikit_learn(golden):
    z, p, y, _ = golden
    assert metrics.nll(z, y) == pytest.approx(sk.log_loss(y, p), rel=1e-12)
    assert metrics.accuracy(z, y) == sk.accuracy_score(y, p.argmax(1))
    binary = p[:, :2] / p[:, :2].sum(1, keepdims=True)
    assert metrics.brier(binary, y % 2) == pytest.approx(2 * sk.brier_score_loss(y % 2, binary[:, 1]), rel=1e-12)


def test_one_hot_labels_equal_integer_labels(golden):
    z, p, y, _ = golden
    one_hot = np.eye(10)[y]
    for metric, values in [(metrics.nll, z), (metrics.brier, p), (metrics.ece, p), (metrics.uce, p)]:
        assert metric(values, one_hot) == metric(values, y) == metric(values, y[:, None])


def test_single_sigmoid_column_equals_two_classes():
    p, y = np.array([0.9, 0.2, 0.6, 0.5]), np.array([1, 0, 0, 1])
    two = np.stack([1 - p, p], axis=1)
    for metric in (metrics.accuracy, metrics.ece, metrics.uce, metrics.brier):
        assert metric(p, y) == metric(p[:, None], y[:, None]) == metric(two, y)
    assert metrics.nll(np.log(p / (1 - p)), y) == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.4, 0.5])))


def test_scores_by_hand():
    p, y = [[0.8, 0.2], [0.4, 0.6]], [0, 0]
    assert metrics.brier(p, y) == pytest.approx((0.08 + 0.72) / 2)
    assert metrics.accuracy(p, y) == 0.5
    assert metrics.mean_confidence(p) == pytest.approx(0.7)
    assert metrics.entropy([[0.5, 0.5], [1.0, 0.0]]).tolist() == pytest.approx([np.log(2), 0.0])


def test_nll_is_exact_where_the_softmax_saturates():
    assert metrics.nll([[1000.0, 0.0]], [1]) == 1000.0
    assert metrics.nll([[50.0, 0.0]], [0]) == pytest.approx(np.exp(-50), rel=1e-12, abs=0)


# --- binning ----------------------------------------------------------------------------------------------------------


def test_confidence_on_an_edge_belongs_to_the_bin_above():
    # Ten samples at 0.9, five of them right, and ten at 0.95, all right. Left-closed they share the last of ten bins;
    # right-closed 0.9 would sit one lower, and give (10 * 0.4 + 10 * 0.05) / 20 = 0.225 instead.
    p = np.repeat([0.9, 0.95], 10)
    y = np.repeat([1, 0, 1], [5, 5, 10])
    assert metrics.reliability_table(p, y, num_bins=10)["count"] == [0] * 9 + [20]
    assert metrics.ece(p, y, num_bins=10) == pytest.approx(abs(15 / 20 - 0.925))


@pytest.mark.parametrize(
    ("value", "num_bins", "index"), [(0.0, 15, 0), (1.0, 15, 14), (0.9, 10, 9), (0.7, 10, 7), (0.2, 15, 3)]
)
def test_bin_index_is_left_closed_with_the_last_bin_closed(value, num_bins, index):
    assert calibration.bin_index([value], num_bins).tolist() == [index]


def test_empty_bins_contribute_nothing_and_read_none():
    table = metrics.reliability_table([[0.9, 0.1], [0.6, 0.4]], [0, 1], num_bins=4)
    assert table == {
        "count": [0, 0, 1, 1],
        "confidence": [None, None, 0.6, 0.9],
        "accuracy": [None, None, 0.0, 1.0],
    }
    assert metrics.ece([[0.9, 0.1], [0.6, 0.4]], [0, 1], num_bins=4) == pytest.approx((0.1 + 0.6) / 2)


def test_uce_keeps_samples_of_no_entropy_and_of_full_entropy():
    # entropies 0 (first bin, wrong) and 1 (last bin, right)
    assert metrics.uce([[1.0, 0.0], [0.5, 0.5]], [1, 0]) == pytest.approx(1.0)


def test_bin_totals_of_two_halves_add_up_to_the_whole(golden):
    _, p, y, expected = golden
    value, target = calibration.confidence_and_correctness(p, y)
    halves = calibration.bin_totals(value[:777], target[:777]) + calibration.bin_totals(value[777:], target[777:])
    assert calibration.calibration_error(halves) == pytest.approx(expected["ece"], abs=6e-11)


@pytest.mark.parametrize("seed", range(3))
def test_ece_agrees_with_torchmetrics(seed):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    z, _, y = draw(seed, 500)
    p = torch.tensor(softmax(z))
    theirs = functional.multiclass_calibration_error(p, torch.tensor(y), num_classes=10, n_bins=15)
    assert metrics.ece(p.numpy(), y) == pytest.approx(float(theirs), abs=2e-6)
    uncertainty, wrong = calibration.uncertainty_and_error(p.numpy(), y)
    theirs = functional.binary_calibration_error(torch.tensor(uncertainty), torch.tensor(wrong).long(), n_bins=15)
    assert metrics.uce(p.numpy(), y) == pytest.approx(float(theirs), abs=2e-6)


def test_ece_agrees_with_netcal(golden):
    netcal = pytest.importorskip("netcal.metrics")
    _, p, y, _ = golden
    assert metrics.ece(p, y) == pytest.approx(netcal.ECE(15).measure(p, y), abs=1e-7)


# --- detection --------------------------------------------------------------------------------------------------------

DETECTION = {
    "continuous": {"auroc": 0.770796, "aupr_out": 0.640306, "aupr_in": 0.854236, "fpr95": 0.735},
    "tied": {"auroc": 0.771293, "aupr_out": 0.640786, "aupr_in": 0.854782, "fpr95": 0.736},
}


@pytest.mark.parametrize("kind", DETECTION)
def test_detection_agrees_with_golden_values(kind):
    r = np.random.RandomState(1)
    known, strange = r.randn(1000), r.randn(500) + 1
    if kind == "tied":
        known, strange = known.round(1), strange.round(1)
    found = metrics.detection(known, strange)
    assert {name: found[name] for name in DETECTION[kind]} == pytest.approx(DETECTION[kind], abs=6e-7)


def test_detection_by_hand():
    known, strange = [1, 2, 3, 4], [3, 5]  # of 8 pairs strange wins 6, ties 1
    assert metrics.auroc(known, strange) == 6.5 / 8
    assert metrics.fpr95(known, strange) == 0.5  # both strangers are caught from score 3 on, with the known 3 and 4
    found = metrics.detection([0, 0], [1, 1])
    assert (found["auroc"], found["aupr_out"], found["aupr_in"], found["fpr95"]) == (1.0, 1.0, 1.0, 0.0)


def test_fpr95_finds_a_threshold_on_a_straight_piece_of_the_curve():
    # At score 2, 19 of 20 strangers are caught with 2 of 4 known. That point lies between its neighbours on a line, and
    # scikit-learn drops such points by default; the next one has 3 of 4.
    assert metrics.fpr95([3, 2, 1, 0], [3] * 18 + [2, 1]) == 0.5


@pytest.mark.parametrize("name", ["auroc", "aupr_out", "aupr_in", "fpr95", "detection_accuracy"])
def test_detection_ignores_the_order_of_samples_and_any_rising_transform(name):
    r = np.random.RandomState(0)
    known, strange = r.randn(60).round(1), (r.randn(40) + 1).round(1)
    metric = getattr(metrics, name)
    assert metric(r.permutation(known), r.permutation(strange)) == metric(known, strange)
    assert metric(np.exp(known), np.exp(strange)) == metric(known, strange)


@pytest.mark.parametrize("score", [metrics.msp_score, metrics.entropy_score])
def test_larger_score_is_stranger(score):
    sure, unsure, lost = [9.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    assert np.all(np.diff(score([sure, unsure, lost])) > 0)
    assert np.all(np.diff(score([[9.0], [-2.0], [0.0]])) > 0)


def test_msp_score_ranks_as_the_softmax_does(golden):
    z, p, _, _ = golden
    score = metrics.msp_score(z)
    assert score == pytest.approx(np.log((1 - p.max(1)) / p.max(1)), abs=1e-6)


@pytest.mark.parametrize("score", [metrics.msp_score, metrics.entropy_score])
def test_scores_keep_their_order_where_the_softmax_is_exactly_one(score):
    z = np.array([[40.0, 0.0, 0.0], [60.0, 0.0, 0.0], [300.0, 0.0, 0.0]])
    assert np.all(softmax(z).max(1) == 1.0)
    assert np.all(np.diff(score(z)) < 0)


def test_entropy_score_is_the_entropy(golden):
    z, p, _, _ = golden
    assert metrics.entropy_score(z) == pytest.approx(metrics.entropy(p), abs=1e-12)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.ece([[0.5, 0.5]], [2]), r"Labels must be in \[0, 2\).*Received: labels from 2 to 2"),
        (lambda: metrics.ece([[0.5, 0.5]], [-1]), r"Labels must be in \[0, 2\)"),
        (lambda: metrics.nll([[0.5, 0.5]], [0.5]), "must be whole numbers. Received: 0.5"),
        (lambda: metrics.nll([[0.5, 0.5]], [np.nan]), "must be whole numbers"),
        (lambda: metrics.brier([[0.5, 0.5]], [[0.3, 0.7]]), "single 1 per row"),
        (lambda: metrics.brier([[0.5, 0.5]], [["a"]]), "integers or one-hot"),
        (lambda: metrics.ece([[0.5, 0.5]], [[0, 1, 0]]), r"Received: labels of shape \(1, 3\)"),
        (lambda: metrics.ece([[2.0, -1.0]], [0]), r"must be in \[0, 1\].*Logits\?"),
        (lambda: metrics.uce([[np.nan, 0.5]], [0]), r"must be in \[0, 1\]"),
        (lambda: metrics.ece(np.zeros((0, 3)), []), "non-empty"),
        (lambda: metrics.ece([[0.5, 0.5]], [0], num_bins=0), "num_bins must be an integer of at least 1"),
        (lambda: metrics.ExpectedCalibrationError(num_bins=1.5), "num_bins must be an integer of at least 1"),
        (lambda: metrics.auroc([], [1.0]), "in-distribution scores must be a non-empty"),
        (lambda: metrics.fpr95([1.0], [np.nan]), "OOD scores must be finite"),
        (lambda: calibration.bin_totals([0.5], [1.0, 0.0]), "1-D of one length"),
        (lambda: calibration.calibration_error(np.zeros((3, 5))), "at least one sample"),
        (lambda: scores.nll(np.zeros((2, 2, 2)), [0, 0]), r"shape \(2, 2, 2\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- Keras metrics ----------------------------------------------------------------------------------------------------

KERAS_METRICS = [metrics.ExpectedCalibrationError, metrics.UncertaintyCalibrationError]


def reference(metric):
    return {"ece": metrics.ece, "uce": metrics.uce}[metric.name]


@pytest.mark.parametrize("cls", KERAS_METRICS)
@pytest.mark.parametrize("num_bins", [10, 15])
def test_metric_equals_the_function(cls, num_bins, golden):
    _, p, y, _ = golden
    metric = cls(num_bins=num_bins, dtype="float64")
    metric.update_state(y, p)
    assert float(metric.result()) == pytest.approx(reference(metric)(p, y, num_bins), abs=1e-12)


@pytest.mark.parametrize("cls", KERAS_METRICS)
def test_metric_streams_two_halves_equal_whole_and_resets(cls, golden):
    z, p, y, _ = golden
    metric = cls(from_logits=True, dtype="float64")
    metric.update_state(y[:5], -z[:5])
    metric.reset_state()
    assert float(metric.result()) == 0.0
    metric.update_state(y[:777], z[:777])
    metric.update_state(np.eye(10)[y[777:]], z[777:])
    assert float(metric.result()) == pytest.approx(reference(metric)(p, y), abs=1e-12)


@pytest.mark.parametrize("cls", KERAS_METRICS)
def test_metric_reads_a_sigmoid_as_two_classes(cls):
    p, y = np.array([[0.9], [0.2], [0.6], [0.5]]), np.array([1, 0, 0, 1])
    expected = reference(cls())(p, y)
    for labels, values, from_logits in [
        (y, p, False),
        (y[:, None], p, False),
        (y, p[:, 0], False),
        (y, np.log(p / (1 - p)), True),
    ]:
        metric = cls(from_logits=from_logits, dtype="float64")
        metric.update_state(labels, values)
        assert float(metric.result()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("cls", KERAS_METRICS)
def test_metric_weights_count_like_repeated_samples(cls, golden):
    _, p, y, _ = golden
    weight = np.arange(len(y)) % 3
    weighted, repeated = cls(dtype="float64"), cls(dtype="float64")
    weighted.update_state(y, p, sample_weight=weight)
    repeated.update_state(np.repeat(y, weight), np.repeat(p, weight, axis=0))
    assert float(weighted.result()) == pytest.approx(float(repeated.result()), abs=1e-12)


def test_metric_weights_samples_of_several_positions():
    p, y = np.array([[[0.9, 0.1], [0.8, 0.2]], [[0.7, 0.3], [0.6, 0.4]]]), np.array([[0, 1], [0, 1]])
    metric = metrics.ExpectedCalibrationError(dtype="float64")
    metric.update_state(y, p, sample_weight=[1.0, 0.0])
    assert float(metric.result()) == pytest.approx(metrics.ece(p[0], y[0]), abs=1e-12)


def test_metric_counts_beyond_float32():
    metric = metrics.ExpectedCalibrationError(dtype="float64")
    metric.update_state([0], [[0.9, 0.1]], sample_weight=[2.0**24])
    for _ in range(2):
        metric.update_state([1], [[0.9, 0.1]], sample_weight=[1.0])
    assert np.asarray(metric.totals)[0].sum() == 2**24 + 2


@pytest.mark.parametrize("cls", KERAS_METRICS)
def test_metric_config_round_trip(cls):
    metric = cls(num_bins=7, from_logits=True, name="mine", dtype="float64")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(again) is cls
    assert again.get_config() == metric.get_config()
    given = {"num_bins": 7, "from_logits": True, "name": "mine", "dtype": "float64"}
    assert given.items() <= again.get_config().items()


def small_model(metric, jit_compile=False, policy=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", dtype=policy)])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[metric], jit_compile=jit_compile)
    return model


@pytest.mark.parametrize("cls", KERAS_METRICS)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_metric_works_in_compile_and_evaluates_to_the_function(cls, jit_compile):
    x, y = np.random.RandomState(0).randn(50, 4).astype("float32"), np.arange(50) % 3
    model = small_model(cls(), jit_compile)
    history = model.fit(x, y, epochs=1, batch_size=16, verbose=0)
    assert np.isfinite(history.history[cls().name][0])
    expected = reference(cls())(model.predict(x, verbose=0), y)
    assert model.evaluate(x, y, batch_size=16, verbose=0)[1] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("cls", KERAS_METRICS)
def test_metric_is_right_under_mixed_bfloat16(cls):
    x, y = np.random.RandomState(0).randn(50, 4).astype("float32"), np.arange(50) % 3
    model = small_model(cls(), policy="mixed_bfloat16")
    p = model(x)
    assert keras.backend.standardize_dtype(p.dtype) == "bfloat16"
    expected = reference(cls())(np.asarray(keras.ops.cast(p, "float64")), y)
    assert model.evaluate(x, y, batch_size=16, verbose=0)[1] == pytest.approx(expected, abs=1e-6)


def test_model_with_metric_saves_and_loads(tmp_path):
    model = small_model(metrics.ExpectedCalibrationError(num_bins=5))
    model.save(tmp_path / "model.keras")
    x, y = np.ones((3, 4), "float32"), np.array([0, 1, 2])
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))
