"""Do the detection metrics agree with other packages under any ties, and are the streamed ones within their bounds?"""

import warnings

import keras
import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tfprune.metrics import ranks
from tfprune.metrics.detection import (
    DETECTION_METRICS,
    DetectionAccuracy,
    DetectionAUPR,
    DetectionAUROC,
    DetectionAveragePrecision,
    DetectionFPR95,
    StreamingDetection,
    average_precision_in,
    average_precision_out,
    detection,
    detection_accuracy,
    entropy_score,
    fpr95,
    msp_score,
)

SEEDS = st.integers(0, 2**32 - 1)
NAMES = tuple(DETECTION_METRICS)

GOLDEN = {
    "continuous": {
        "auroc": 0.770796,
        "aupr_out": 0.640306,
        "aupr_in": 0.854236,
        "ap_out": 0.641851,
        "ap_in": 0.854412,
        "fpr95": 0.735,
        "fpr95_id": 0.716,
        "detection_accuracy": 0.7070,
    },
    "tied": {
        "auroc": 0.771293,
        "aupr_out": 0.640786,
        "aupr_in": 0.854782,
        "ap_out": 0.635180,
        "ap_in": 0.851736,
        "fpr95": 0.736,
        "fpr95_id": 0.724,
        "detection_accuracy": 0.7025,
    },
}


def golden(kind):
    r = np.random.RandomState(1)
    known, strange = r.randn(1000), r.randn(500) + 1
    return (known.round(1), strange.round(1)) if kind == "tied" else (known, strange)


@pytest.mark.parametrize("kind", GOLDEN)
def test_all_metrics_agree_with_golden_values(kind):
    assert detection(*golden(kind)) == pytest.approx(GOLDEN[kind], abs=5.1e-7)


def test_metrics_by_hand():
    # From the strangest down: strange 5; known 4; known and strange 3, tied; known 2; known 1.
    known, strange = [1, 2, 3, 4], [3, 5]
    assert detection(known, strange) == pytest.approx(
        {
            "auroc": 6.5 / 8,
            # recall 0, 1/2, 1/2, 1 with precision 1, 1, 1/2, 1/2; what follows has recall 1 already
            "aupr_out": 0.5 * 1 + 0.5 * 0.5,
            "ap_out": 0.5 * 1 + 0.5 * 0.5,
            # known first: 1, 2, then 3 tied, then 4: recall 1/4, 2/4, 3/4, 1 with precision 1, 1, 3/4, 4/5
            "aupr_in": 0.25 * (1 + 1 + (1 + 3 / 4) / 2 + (3 / 4 + 4 / 5) / 2),
            "ap_in": 0.25 * (1 + 1 + 3 / 4 + 4 / 5),
            "fpr95": 0.5,  # both strangers are caught from 3 on, with the known 3 and 4
            "fpr95_id": 0.5,  # all four known are let in up to 4, with the strange 3
            "detection_accuracy": 1 - 0.5 * (0 + 0.5),  # at 5 with half the strangers missed, or at 3
        }
    )


def test_constant_scores_and_single_samples():
    constant = detection([7.0] * 3, [7.0])
    assert constant == {
        "auroc": 0.5,
        "aupr_out": 0.625,  # the trapezoid flatters ties: the mean of 1 and the base rate
        "aupr_in": 0.875,
        "ap_out": 0.25,
        "ap_in": 0.75,
        "fpr95": 1.0,
        "fpr95_id": 1.0,
        "detection_accuracy": 0.5,
    }
    assert detection([0.0], [1.0]) == {name: 0.0 if name.startswith("fpr95") else 1.0 for name in NAMES}
    reversed_order = detection([1.0], [0.0])
    expected = {"auroc": 0.0, "fpr95": 1.0, "fpr95_id": 1.0, "detection_accuracy": 0.5}
    assert {name: reversed_order[name] for name in expected} == expected


def test_the_two_conventions_of_fpr95_are_each_others_mirror():
    known, strange = golden("tied")
    assert fpr95(known, strange, positive="id") == fpr95(-strange, -known, positive="ood") == 0.724
    assert fpr95(known, strange) == fpr95(known, strange, positive="ood") == 0.736


def test_detection_gives_all_metrics():
    assert list(detection([0.0], [1.0])) == list(NAMES)


# --- other packages ---------------------------------------------------------------------------------------------------


def scores(seed, kind=None, largest=300):
    """Scores of known data and strangers of a kind, often tied, sometimes one sample only."""
    r = np.random.default_rng(seed)
    num_id, num_ood = (int(r.choice([1, 2, r.integers(3, largest)])) for _ in range(2))
    known, strange = r.normal(size=num_id), r.normal(size=num_ood) + r.choice([0.0, 1.0, 3.0])
    kind = kind or r.choice(["plain", "tied", "constant", "msp", "energy", "mahalanobis"])
    change = {
        "plain": lambda s: s,
        "tied": lambda s: s.round(),
        "constant": np.zeros_like,
        "msp": lambda s: 1 - np.float32(1 / (1 + np.exp(5 * s - 17))),  # of which many are 0
        "energy": lambda s: -300 + 5 * s,
        "mahalanobis": lambda s: np.exp(12 + 3 * s),  # huge
    }[kind]
    return change(known).astype(np.float64), change(strange).astype(np.float64)


@settings(max_examples=60, deadline=None, database=None)
@given(SEEDS)
def test_metrics_are_those_of_scikit_learn(seed):
    known, strange = scores(seed)
    y, s = np.repeat([0, 1], [len(known), len(strange)]), np.concatenate([known, strange])
    expected = {"auroc": sk.roc_auc_score(y, s)}
    for side, labels, values in (("out", y, s), ("in", 1 - y, -s)):
        precision, recall, _ = sk.precision_recall_curve(labels, values)
        expected[f"aupr_{side}"] = sk.auc(recall, precision)
        expected[f"ap_{side}"] = sk.average_precision_score(labels, values)
        false, true, _ = sk.roc_curve(labels, values, drop_intermediate=False)
        expected["fpr95" if side == "out" else "fpr95_id"] = false[true >= 0.95].min()
    expected["detection_accuracy"] = max(
        0.5 * np.mean(strange >= t) + 0.5 * np.mean(known < t) for t in [*np.unique(s), np.inf]
    )
    assert detection(known, strange) == pytest.approx(expected, abs=1e-14)


@settings(max_examples=40, deadline=None, database=None)
@given(SEEDS)
def test_metrics_are_those_of_pytorch_ood(seed):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("pytorch_ood.metrics")
    known, strange = scores(seed)
    labels = torch.tensor(np.repeat([1, -1], [len(known), len(strange)]))
    values = torch.tensor(np.concatenate([known, strange]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of another number of theirs, which constant scores do not have
        row = theirs.OODMetrics().update(values, labels).compute()
    got = detection(known, strange)
    for ours, key in (("auroc", "AUROC"), ("aupr_out", "AUPR-OUT"), ("aupr_in", "AUPR-IN"), ("fpr95", "FPR95TPR")):
        assert got[ours] == pytest.approx(row[key], abs=1e-12), ours


@settings(max_examples=40, deadline=None, database=None)
@given(SEEDS)
def test_metrics_are_those_of_torchmetrics(seed):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    known, strange = scores(seed, kind=np.random.default_rng(seed).choice(["plain", "tied"]))
    target = torch.tensor(np.repeat([0, 1], [len(known), len(strange)]))
    # in [0, 1], or else they take a sigmoid of their own
    preds = torch.tensor((np.concatenate([known, strange]) + 20) / 40)
    got = detection(known, strange)
    assert got["auroc"] == pytest.approx(float(functional.binary_auroc(preds, target)), abs=2e-6)
    assert got["ap_out"] == pytest.approx(float(functional.binary_average_precision(preds, target)), abs=2e-6)


# --- scores of logits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [msp_score, entropy_score])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_scores_are_finite_and_without_ties_for_logits_of_any_size(score, num_classes):
    sure = np.array([1e4, 3e3, 1001.0, 1000.0, 800.0, 700.0, 690.0, 400.0, 40.0, 20.0, 5.0, 1.0, 0.0])
    z = np.random.RandomState(0).uniform(-1e-3, 0, size=(1, num_classes)).repeat(len(sure), axis=0)
    z[:, 0] = sure
    for logits in (z, z - 1e4, np.concatenate([z[:, :1] - 1e4, np.full_like(z[:, 1:], -1e4)], axis=1)):
        got = score(logits)
        assert np.all(np.isfinite(got))
        assert np.all(np.diff(got) > 0)


def test_entropy_score_agrees_with_scipy_down_to_the_smallest_numbers():
    import scipy.stats

    z = np.random.RandomState(0).randn(50, 20) * np.geomspace(0.1, 100, 50)[:, None]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    assert entropy_score(z) == pytest.approx(scipy.stats.entropy(p, axis=1), rel=1e-6, abs=1e-14)
    gap = np.array([30.0, 300.0, 600.0])
    exact = np.exp(-gap) * (1 + gap)  # of two classes, but for the square of exp(-gap)
    assert entropy_score(np.stack([gap, 0 * gap], axis=1)) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("score", [msp_score, entropy_score])
@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan])
def test_logits_that_are_not_finite_are_refused(score, value):
    with pytest.raises(ValueError, match=r"Logits must be finite. Received: 1 that are not"):
        score([[0.0, 1.0], [value, 1.0]])


# --- streamed ---------------------------------------------------------------------------------------------------------

KINDS = ["plain", "tied", "constant", "msp", "energy", "mahalanobis"]


def assert_within(row, known, strange):
    for name, exact in detection(known, strange).items():
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        assert low - 1e-12 <= exact <= high + 1e-12, name
        assert low - 1e-12 <= row[name] <= high + 1e-12, name
        assert 0 <= low <= high <= 1 + 1e-12, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_streamed_interval_holds_the_exact_number(kind, bits):
    @settings(max_examples=15, deadline=None, database=None)
    @given(SEEDS)
    def holds(seed):
        known, strange = scores(seed, kind)
        stream = StreamingDetection(bits)
        stream.update(known, strange)
        assert_within(stream.result(), known, strange)

    holds()


@settings(max_examples=300, deadline=None, database=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.booleans()), min_size=2, max_size=9).filter(
        lambda samples: len({strange for _, _, strange in samples}) == 2
    )
)
def test_interval_holds_whatever_is_ordered_or_tied_within_a_cell(samples):
    # Two cells, and in each of them three places that its scores may share.
    values = np.array([(1.0, 2.0)[cell] + 1e-3 * place for cell, place, _ in samples])
    strange = np.array([strange for *_, strange in samples])
    stream = StreamingDetection(bits=10)
    stream.update(values[~strange], values[strange])
    assert len(np.flatnonzero(stream.counts.any(axis=0))) <= 2
    assert_within(stream.result(), values[~strange], values[strange])


def test_interval_by_hand():
    # One cell with a known sample and two strangers: 0 of the pairs are right, or all.
    stream = StreamingDetection(bits=10)
    stream.update(id_scores=[1.001], ood_scores=[1.0, 1.002])
    row = stream.result()
    assert (row["num_id"], row["num_ood"]) == (1, 2)
    expected = {
        "auroc": (0.0, 0.5, 1.0),
        "aupr_out": ((0 + 2 / 3) / 2, (1 + 2 / 3) / 2, 1.0),
        "ap_out": (1 - np.log(3) / 2, 2 / 3, 1.0),  # the integral of t / (t + 1) is below 7 / 12, the sum of steps
        "aupr_in": ((0 + 1 / 3) / 2, (1 + 1 / 3) / 2, 1.0),
        "ap_in": (1 - 2 * np.log(3 / 2), 1 / 3, 1.0),
        "fpr95": (0.0, 1.0, 1.0),
        "fpr95_id": (0.0, 1.0, 1.0),
        "detection_accuracy": (0.5, 0.5, 1.0),
    }
    for name, interval in expected.items():
        assert (row[f"{name}_low"], row[name], row[f"{name}_high"]) == pytest.approx(interval, abs=1e-12), name


@pytest.mark.parametrize("kind", GOLDEN)
def test_streamed_numbers_are_those_of_cells_as_ties(kind):
    known, strange = golden(kind)
    stream = StreamingDetection(bits=12)
    stream.update(known, strange)
    row, expected = stream.result(), detection(ranks.cells(known, 12), ranks.cells(strange, 12))
    assert {name: row[name] for name in NAMES} == pytest.approx(expected, abs=1e-12)
    # The bound of the AUROC is the pairs that share a cell, half of them.
    counts = [np.bincount(ranks.cells(s, 12), minlength=2**12) for s in (known, strange)]
    bound = np.sum(counts[0] * counts[1]) / (2 * len(known) * len(strange))
    assert (row["auroc_high"] - row["auroc"], row["auroc"] - row["auroc_low"]) == pytest.approx((bound, bound))


@pytest.mark.parametrize("kind", ["plain", "msp logits", "energy", "mahalanobis"])
def test_twenty_bits_are_within_five_in_a_million_and_sixteen_within_two_in_ten_thousand(kind):
    r = np.random.RandomState(0)
    known, strange = r.randn(20_000), r.randn(10_000) + 1
    change = {
        "plain": lambda s: s,
        "msp logits": lambda s: msp_score(np.stack([60 - 15 * s, 0 * s], axis=1)),
        "energy": lambda s: -12 + 3 * s,
        "mahalanobis": lambda s: 1e6 * np.exp(s / 2),
    }[kind]
    known, strange = change(known), change(strange)
    exact = detection(known, strange)
    for bits, error, bound in ((20, 5e-6, 5.5e-4), (16, 2e-4, 1e-2)):
        stream = StreamingDetection(bits)
        stream.update(known, strange)
        row = stream.result()
        assert row["auroc"] == pytest.approx(exact["auroc"], abs=error)
        assert row["auroc_high"] - row["auroc"] < bound
        assert row["fpr95_high"] - row["fpr95_low"] < 5 * bound
        assert_within(row, known, strange)


def test_batches_and_merged_halves_are_the_whole():
    known, strange = golden("continuous")
    whole, batches, half = StreamingDetection(), StreamingDetection(), StreamingDetection()
    whole.update(known, strange)
    batches.update(id_scores=known[:7])
    batches.update(ood_scores=strange[:333])
    batches.update(known[7:600], strange[333:334])
    half.update(known[600:], strange[334:])
    batches.merge(half)
    assert batches.result() == whole.result()
    assert batches.counts.dtype == np.int64
    assert half.num_id == 400, "merge leaves the other one as it was"


# --- Keras ------------------------------------------------------------------------------------------------------------

# name in `detection` -> (class, options)
METRICS = {
    "auroc": (DetectionAUROC, {}),
    "aupr_out": (DetectionAUPR, {}),
    "aupr_in": (DetectionAUPR, {"positive": "id"}),
    "ap_out": (DetectionAveragePrecision, {}),
    "ap_in": (DetectionAveragePrecision, {"positive": "id"}),
    "fpr95": (DetectionFPR95, {}),
    "fpr95_id": (DetectionFPR95, {"positive": "id"}),
    "detection_accuracy": (DetectionAccuracy, {}),
}


@pytest.fixture(params=METRICS)
def case(request):
    """The name in `detection`, and a function that makes the metric in float64."""
    cls, options = METRICS[request.param]
    return request.param, lambda **more: cls(**options, **{"dtype": "float64", "bits": 12, **more})


def labelled(known, strange, seed=0):
    y, s = np.repeat([0, 1], [len(known), len(strange)]), np.concatenate([known, strange])
    order = np.random.RandomState(seed).permutation(len(y))
    return y[order], s[order]


def test_there_is_a_keras_metric_for_every_name():
    assert set(METRICS) == set(DETECTION_METRICS)


def test_metric_is_the_streamed_number_and_its_interval_in_uneven_batches(case):
    name, make = case
    metric = make()

    @settings(max_examples=15, deadline=None, database=None)
    @given(SEEDS, st.integers(0, 300))
    def equal(seed, cut):
        known, strange = scores(seed)
        y, s = labelled(known, strange)
        stream = StreamingDetection(bits=12)
        stream.update(known, strange)
        row = stream.result()
        metric.reset_state()
        assert np.isnan(float(metric.result()))
        for part in (slice(None, cut), slice(cut, None)):
            if len(y[part]):
                metric.update_state(y[part], s[part])
        assert float(metric.result()) == pytest.approx(row[name], abs=1e-12)
        assert metric.interval() == pytest.approx((row[f"{name}_low"], row[f"{name}_high"]), abs=1e-12)
        exact = detection(known, strange)[name]
        assert abs(float(metric.result()) - exact) <= metric.error_bound() + 1e-12

    equal()


def test_metrics_of_two_workers_add_up_to_the_whole(case):
    _, make = case
    y, s = labelled(*golden("continuous"))
    whole, first, second = make(), make(), make()
    whole.update_state(y, s)
    first.update_state(y[:300], s[:300])
    second.update_state(y[300:], s[300:])
    first.merge_state([second])
    assert float(first.result()) == float(whole.result())
    with pytest.raises(ValueError, match="merge_state needs metrics of the same class and settings"):
        first.merge_state([make(bits=11)])


def test_metric_weights_count_like_repeated_samples(case):
    _, make = case
    y, s = labelled(*golden("tied"))
    weight = np.arange(len(y)) % 3
    weighted, repeated = make(), make()
    weighted.update_state(y, s, sample_weight=weight)
    repeated.update_state(np.repeat(y, weight), np.repeat(s, weight))
    assert float(weighted.result()) == pytest.approx(float(repeated.result()), abs=1e-12)


@pytest.mark.parametrize("side", [0, 1])
def test_metric_is_nan_where_only_one_kind_was_seen(case, side):
    _, make = case
    metric = make()
    metric.update_state([side, side], [1.0, 2.0])
    assert np.isnan(float(metric.result()))
    assert np.isnan(metric.interval()).all()


@pytest.mark.parametrize("label", [0, 1])
def test_metric_shows_a_nan_score_or_a_bad_label_unless_it_weighs_nothing(case, label):
    _, make = case
    for bad_label, score in ((label, np.nan), (label, -np.nan), (2, 0.0), (-1, 0.0), (np.nan, 0.0)):
        metric = make()
        metric.update_state([0.0, 1.0], [1.0, 2.0])
        before = float(metric.result())
        metric.update_state([bad_label], [score], sample_weight=[0.0])
        assert float(metric.result()) == before
        metric.update_state([bad_label], [score])
        assert np.isnan(float(metric.result()))


def test_metric_counts_beyond_float32():
    metric = DetectionAUROC(bits=10, dtype="float64")
    metric.update_state([0, 1], [0.0, 1.0], sample_weight=[2.0**24, 1.0])
    for _ in range(2):
        metric.update_state([0], [0.0])
    assert np.asarray(metric.counts).sum(axis=0).tolist() == [2**24 + 2, 1]


def test_metric_config_round_trip(case):
    name, make = case
    metric = make(name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(again) is type(metric)
    assert again.get_config() == metric.get_config() == {**again.get_config(), "bits": 12, "name": "mine"}
    assert METRICS[name][0](**METRICS[name][1]).name == name


def small_model(jit_compile=False, policy=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, dtype=policy)])
    metrics = [cls(**options, bits=10) for cls, options in METRICS.values()]
    model.compile("sgd", "mse", metrics=metrics, jit_compile=jit_compile)
    return model


@pytest.mark.parametrize(("jit_compile", "policy"), [(False, None), (True, None), (False, "mixed_bfloat16")])
def test_metrics_work_in_compile_and_evaluate_to_the_functions(jit_compile, policy):
    x, y = np.random.RandomState(0).randn(50, 4).astype("float32"), np.arange(50) % 2
    model = small_model(jit_compile, policy)
    got = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    s = ranks.cells(keras.ops.convert_to_numpy(keras.ops.cast(model(x), "float64"))[:, 0], 10)
    expected = detection(s[y == 0], s[y == 1])
    assert {name: got[name] for name in NAMES} == pytest.approx(expected, abs=1e-5)
    if not jit_compile:  # compiling the training step as well takes long and shows nothing new
        history = model.fit(x, y, epochs=1, batch_size=16, verbose=0).history
        assert all(np.isfinite(history[name]).all() for name in NAMES)


# --- refusals ---------------------------------------------------------------------------------------------------------


def stream_with(**scores_by_kind):
    stream = StreamingDetection(bits=10)
    stream.update(**scores_by_kind)
    return stream


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fpr95([1.0], [2.0], positive="OOD"), "positive must be 'ood' or 'id'. Received: positive='OOD'"),
        (lambda: DetectionFPR95(positive="in"), "positive must be 'ood' or 'id'"),
        (lambda: average_precision_out([], [1.0]), "in-distribution scores must be a non-empty"),
        (lambda: average_precision_in([1.0], [np.nan]), "OOD scores must be finite. Received: 1 that are not"),
        (lambda: detection_accuracy([1.0], [np.inf]), "OOD scores must be finite"),
        (lambda: StreamingDetection(bits=8), "bits must be an integer from 10 to 24"),
        (lambda: DetectionAUROC(bits=25), "bits must be an integer from 10 to 24"),
        (lambda: stream_with(id_scores=[np.nan]), "in-distribution scores must be finite"),
        (lambda: stream_with(ood_scores=[[1.0]]), "OOD scores must be a non-empty 1-D array"),
        (lambda: stream_with(id_scores=[1.0]).result(), "both in-distribution and OOD data. Received: 1 and 0"),
        (lambda: StreamingDetection(10).merge(StreamingDetection(11)), "with bits=10. Received: bits=11"),
        (lambda: StreamingDetection(10).merge(np.zeros(3)), "with bits=10. Received: ndarray"),
        (lambda: DetectionAUROC().update_state([0, 1], np.zeros((2, 3))), "one score per sample.*y_pred of shape"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_refused_update_adds_nothing():
    stream = StreamingDetection(bits=10)
    with pytest.raises(ValueError, match="OOD scores must be finite"):
        stream.update(id_scores=[1.0], ood_scores=[np.nan])
    assert not stream.counts.any()
