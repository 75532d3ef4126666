"""Does a comparison measure what changed, pair by pair, and call nothing a change that chance explains?"""

import itertools
import json
import math

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import tensorflow as tf
from keras import layers
from scipy.spatial.distance import jensenshannon

import tfprune
from tfprune import metrics, significance
from tfprune.comparison import compare, compare_seeds, exemplars, verdict
from tfprune.comparison.paired import MEASURES, _interval_rows
from tfprune.comparison.tallies import JointTally
from tfprune.comparison.tempering import fit_temperature
from tfprune.uncertainty.leak import LeakError


class Logits:
    """A model whose inputs are places in a table of logits; counts how often it is asked about which."""

    from_logits = True

    def __init__(self, table):
        self.table, self.asked = np.asarray(table, dtype=np.float64), []

    def predict(self, x):
        places = np.asarray(x)[:, 0].astype(int)
        self.asked += places.tolist()
        return self.table[places]


def places(table, start=0):
    """Inputs for `Logits`."""
    return np.arange(start, len(table), dtype=np.float32)[:, None]


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def drawn(num_samples=600, num_classes=4, scale=2.0, seed=0):
    """Logits, and labels drawn from their softmax."""
    random = np.random.RandomState(seed)
    z = scale * random.randn(num_samples, num_classes)
    return z, (random.rand(num_samples, 1) > softmax(z).cumsum(axis=1)).sum(axis=1).clip(0, num_classes - 1)


@pytest.fixture(scope="module")
def pair():
    """A dense model, a pruned one that is noisier and surer, their data and strangers (which follow in the tables)."""
    random = np.random.RandomState(5)
    z, y = drawn()
    strange = 0.8 * random.randn(150, 4)
    dense, pruned = np.concatenate([z, strange]), np.concatenate([1.5 * z + random.randn(*z.shape), 1.2 * strange])
    return dense, pruned, y, places(dense)[:600], places(dense)[600:]


@pytest.fixture(scope="module")
def found(pair):
    dense, pruned, y, x, strange = pair
    return compare(Logits(dense), Logits(pruned), (x, y), ood={"far": strange}, num_bootstraps=200)


# --- the right numbers ------------------------------------------------------------------------------------------------


def test_flip_matrix_of_six_samples():
    # label 0 throughout; class 0 wins where the first logit is larger
    dense = [[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1]]
    pruned = [[2, 0], [0, 2], [0, 3], [2, 0], [0, 1], [0, 2]]
    found = compare(Logits(dense), Logits(pruned), (places(dense), np.zeros(6, int)), num_bootstraps=40)
    flips = {name: found.row[name] for name in ("both_right", "lost", "gained", "both_wrong")}
    assert flips == {"both_right": 1, "lost": 2, "gained": 1, "both_wrong": 2}
    assert found.row["mcnemar_p"] == 1.0
    assert found.row["agreement"] == pytest.approx(0.5)
    assert found.row["accuracy_difference"] == pytest.approx(-1 / 6)
    # of the three agreed samples the confidence grows twice, by sigmoid(2) - sigmoid(1)
    sure, surer = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
    assert found.row["confidence_change_agreed"] == pytest.approx(2 * (surer - sure) / 3)
    # the largest divergence first: 1 against 3 the other way round
    assert found.flips["id"].tolist() == [2, 1, 3]
    assert found.flips["kind"].tolist() == ["lost", "lost", "gained"]
    assert found.flips["pruned_class"].tolist() == [1, 1, 0]


def test_measures_are_those_of_the_metrics(pair, found):
    dense, pruned, y, _, _ = pair
    for name, z in (("dense", dense[:600]), ("pruned", pruned[:600])):
        p, row = softmax(z), {key.removeprefix(f"{name}_"): value for key, value in found.row.items()}
        metric = metrics.ExpectedCalibrationError()
        metric.update_state(y, p)
        assert row["accuracy"] == pytest.approx(metrics.accuracy(p, y))
        assert row["nll"] == pytest.approx(metrics.nll(z, y))
        assert row["brier"] == pytest.approx(metrics.brier(p, y))
        assert row["mean_confidence"] == pytest.approx(metrics.mean_confidence(p))
        assert row["ece"] == pytest.approx(metrics.ece(p, y))
        assert row["ece_floor"] == pytest.approx(metric.floor())
        assert row["ece_excess"] == pytest.approx(row["ece"] - row["ece_floor"])
    for name in MEASURES:
        expected = found.row[f"pruned_{name}"] - found.row[f"dense_{name}"]
        assert found.row[f"{name}_difference"] == pytest.approx(expected, abs=1e-15)


def test_divergences_are_those_of_scipy(pair, found):
    p, q = softmax(pair[0][:600]), softmax(pair[1][:600])
    assert found.row["kl_divergence"] == pytest.approx(scipy.stats.entropy(p, q, axis=1).mean())
    assert found.row["js_divergence"] == pytest.approx((jensenshannon(p, q, axis=1) ** 2).mean())
    entropies = scipy.stats.entropy(p, axis=1), scipy.stats.entropy(q, axis=1)
    assert found.row["entropy_change"] == pytest.approx(np.abs(entropies[1] - entropies[0]).mean())


def test_intervals_are_paired_basic_bootstrap_of_the_same_resamples(pair, found):
    dense, pruned, y, _, _ = pair
    weights = significance.PoissonWeights(200, seed=0).draw(600)
    resampled = {name: [] for name in ("accuracy", "ece")}
    for w in weights.astype(int):
        accuracy, ece = [], []
        for z in (dense[:600], pruned[:600]):
            p, labels = np.repeat(softmax(z), w, axis=0), np.repeat(y, w)
            accuracy.append(metrics.accuracy(p, labels))
            ece.append(metrics.ece(p, labels))
        resampled["accuracy"].append(accuracy[1] - accuracy[0])
        resampled["ece"].append(ece[1] - ece[0])
    for name, unbiased in (("accuracy", False), ("ece", False), ("ece_excess", True)):
        replicates = resampled[name.removesuffix("_excess")]
        difference = found.row[f"{name}_difference"]
        interval = significance.basic_bootstrap(difference, replicates, unbiased=unbiased)
        assert (found.row[f"{name}_difference_low"], found.row[f"{name}_difference_high"]) == pytest.approx(interval)


def test_detection_is_delong_on_the_exact_scores(pair, found):
    dense, pruned, _, _, _ = pair
    scores = [metrics.msp_score(z) for z in (dense, pruned)]
    expected = significance.delong(scores[0][:600], scores[0][600:], scores[1][:600], scores[1][600:])
    key = "far/auroc_msp_difference"
    assert found.row[key] == pytest.approx(expected.value)
    for end in ("low", "high", "standard_error", "p"):
        assert found.row[f"{key}_{end}"] == pytest.approx(getattr(expected, end))
    assert found.row["far/pruned_auroc_msp"] == pytest.approx(metrics.auroc(scores[1][:600], scores[1][600:]))
    assert {"far/num_samples", "far/dense_auroc_entropy", "far/auroc_entropy_difference_p"} <= found.row.keys()


def test_models_own_uncertainty_is_compared_where_both_have_it(pair):
    class Knows(Logits):
        from_logits = False

        def predict(self, x):
            return softmax(super().predict(x))

        def predict_uncertainty(self, x):
            p = self.predict(x)
            return {"probabilities": p, "mutual_information": 1 - p.max(axis=1) ** 2}

    dense, pruned, y, x, strange = pair
    both = compare(Knows(dense), Knows(pruned), (x, y), ood={"far": strange}, num_bootstraps=40)
    assert both.row["far/auroc_mutual_information_difference"] == pytest.approx(both.row["far/auroc_msp_difference"])
    one = compare(Knows(dense), Logits(pruned), (x, y), ood={"far": strange}, num_bootstraps=40)
    assert not [key for key in one.row if "mutual_information" in key]


# --- classes ----------------------------------------------------------------------------------------------------------


def test_classes_have_exact_tests_corrected_by_holm(pair, found):
    dense, pruned, y, _, _ = pair
    right = [z[:600].argmax(axis=1) == y for z in (dense, pruned)]
    change = softmax(pruned[:600]).max(axis=1) - softmax(dense[:600]).max(axis=1)
    table = found.per_class
    np.testing.assert_allclose(table["dense_recall"], [right[0][y == k].mean() for k in range(4)])
    np.testing.assert_allclose(
        table["recall_change"], [right[1][y == k].mean() - right[0][y == k].mean() for k in range(4)]
    )
    p = [
        significance.mcnemar(int((right[0] & ~right[1])[y == k].sum()), int((right[1] & ~right[0])[y == k].sum()))
        for k in range(4)
    ]
    np.testing.assert_allclose(table["recall_p"], significance.holm(p))
    p = [scipy.stats.ttest_1samp(change[y == k], 0).pvalue for k in range(4)]
    np.testing.assert_allclose(table["confidence_p"], significance.holm(p), rtol=1e-6)
    assert found.row["worst_class"] == table["recall_change"].idxmin()


def test_strangers_taken_for_a_class_are_counted(pair, found):
    dense, pruned, _, _, _ = pair
    for name, z in (("dense", dense), ("pruned", pruned)):
        shares = np.bincount(z[600:].argmax(axis=1), minlength=4) / 150
        np.testing.assert_allclose(found.per_class[f"far/{name}_share"], shares)
    assert (found.per_class["far/share_p"] == 1).all()  # pruned strangers are dense ones, scaled


def test_class_whose_strangers_moved_is_found():
    # all 30 strangers go from class 0 to class 1
    known, y = drawn(50, 3)
    strange = np.tile([3.0, 0, 0], (30, 1))
    dense, pruned = np.concatenate([known, strange]), np.concatenate([known, np.roll(strange, 1, axis=1)])
    data = places(dense)[:50], y
    found = compare(Logits(dense), Logits(pruned), data, ood={"s": places(dense)[50:]}, num_bootstraps=40)
    assert found.per_class["s/share_p"].tolist() == pytest.approx([3 * 2**-29, 3 * 2**-29, 1.0])
    assert found.per_class["s/pruned_share"].tolist() == [0, 1, 0]


def test_class_without_samples_is_left_out_of_the_correction():
    z, y = drawn(80, 3)
    y = np.minimum(y, 1)
    table = compare(Logits(z), Logits(z[:, ::-1]), (places(z), y), num_bootstraps=40).per_class
    assert table["num_samples"].tolist()[2] == 0
    assert table[["dense_recall", "recall_p", "confidence_change"]].isna().all(axis=1).tolist() == [False, False, True]
    p = [significance.mcnemar(*table.loc[k, ["lost", "gained"]]) for k in range(2)]
    assert table["recall_p"].tolist()[:2] == pytest.approx(significance.holm(p).tolist())


# --- nothing where there is nothing -----------------------------------------------------------------------------------


def test_model_compared_with_itself_differs_by_exactly_nothing(pair):
    dense, _, y, x, strange = pair
    found = compare(Logits(dense), Logits(dense), (x, y), ood={"far": strange}, temperature_data=None)
    differences = {key: value for key, value in found.row.items() if "difference" in key and not key.endswith("_p")}
    assert len(differences) > 20
    assert set(differences.values()) == {0.0}
    p_values = [value for key, value in found.row.items() if key.endswith("_p")]
    assert set(p_values) == {1.0}
    assert found.row["kl_divergence"] == found.row["js_divergence"] == found.row["entropy_change"] == 0.0
    assert (found.row["agreement"], found.row["confidence_change_agreed"], len(found.flips)) == (1.0, 0.0, 0)
    assert (found.per_class[["recall_p", "confidence_p", "far/share_p"]] == 1).all(axis=None)
    assert found.verdict == "not distinguishable"
    assert {found.row[f"verdict_{name}"] for name in ("accuracy", "calibration", "ood")} == {"not distinguishable"}


def test_keras_model_and_its_copy_differ_by_exactly_nothing():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(32, "relu"), layers.Dense(5), layers.Softmax()])
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    x, y = np.random.randn(900, 6).astype("float32"), np.random.randint(0, 5, 900)
    found = compare(model, copy, (x, y), ood={"noise": 3 * x[:100]}, batch_size=64, num_bootstraps=40)
    assert {value for key, value in found.row.items() if key.endswith(("_difference", "_low", "_high"))} == {0.0}
    assert found.verdict == "not distinguishable"


def test_rounding_is_no_difference(pair):
    dense, _, y, x, strange = pair
    nearly = dense * (1 + 1e-7)  # surer by a rounding error, and everywhere
    found = compare(Logits(dense), Logits(nearly), (x, y), ood={"far": strange}, num_bootstraps=100)
    assert found.row["nll_difference"] != 0
    assert found.verdict == "not distinguishable"


def test_calibrated_models_of_unequal_accuracy_are_not_told_apart_by_their_floor():
    # The second model knows less and is as calibrated: its raw error is larger by chance alone.
    random, verdicts, raw = np.random.default_rng(0), [], []
    for trial in range(80):
        y = random.integers(6, size=800)
        views = [np.eye(6)[y] + s * random.normal(size=(800, 6)) for s in (0.4, 0.8)]
        tally = JointTally(2, 15, 100, trial)
        tally.add([views[0] / 0.4**2 + views[1] / 0.8**2, views[1] / 0.8**2], y)
        row = _interval_rows(tally, 0.95)
        verdicts.append(verdict.of_calibration(row))
        raw.append(row["ece_difference"])
    assert np.mean(raw) > 0.01
    assert verdicts.count("not distinguishable") >= 0.93 * 80


def test_interval_of_the_calibration_error_covers_as_it_says():
    # two over-confident models, the second more so; the truth from a large sample
    random, covered = np.random.default_rng(0), 0

    def draw(size):
        z = 2 * random.normal(size=(size, 5))
        return z, (random.random((size, 1)) > softmax(z).cumsum(axis=1)).sum(axis=1).clip(0, 4)

    z, y = draw(100_000)
    truth = metrics.ece(softmax(2.5 * z), y) - metrics.ece(softmax(1.8 * z), y)
    for trial in range(100):
        z, y = draw(600)
        tally = JointTally(2, 15, 100, trial)
        tally.add([1.8 * z, 2.5 * z], y)
        row = _interval_rows(tally, 0.95)
        covered += row["ece_difference_low"] <= truth <= row["ece_difference_high"]
    assert 0.88 < covered / 100 <= 0.99


# --- temperature ------------------------------------------------------------------------------------------------------


def test_parts_of_the_calibration_difference_add_up(found):
    row = found.row
    parts = row["ece_difference_temperature"] + row["ece_difference_residual"] + row["ece_difference_floor"]
    assert parts == pytest.approx(row["ece_difference"], abs=1e-15)
    assert row["temperature_source"] == "halves"


def test_halves_are_judged_at_the_temperature_of_the_other_half(pair, found):
    z, y = pair[1][:600], pair[2]
    p = np.empty_like(z)
    for half, other in ((0, 1), (1, 0)):
        p[half::2] = softmax(z[half::2] / fit_temperature(z[other::2].astype(np.float32), y[other::2]))
    assert found.row["pruned_ece_at_temperature"] == pytest.approx(metrics.ece(p, y), abs=1e-6)
    metric = metrics.ExpectedCalibrationError()
    metric.update_state(y, p)
    assert found.row["pruned_floor_at_temperature"] == pytest.approx(metric.floor(), abs=1e-6)


def test_a_change_of_temperature_alone_is_put_down_to_temperature():
    z, y = drawn(4000)
    rest = places(z)[2000:], y[2000:]
    found = compare(Logits(z), Logits(3 * z), (places(z)[:2000], y[:2000]), temperature_data=rest, num_bootstraps=40)
    row = found.row
    assert row["pruned_temperature"] == pytest.approx(3 * row["dense_temperature"])
    assert row["ece_difference"] > 0.1
    # both are one model at their temperatures, so that nothing is left but what they had in common
    assert (row["ece_difference_residual"], row["ece_difference_floor"]) == pytest.approx((0, 0), abs=1e-9)
    assert row["temperature_source"] == "given"
    assert row["verdict_calibration"] == "worse"


def test_temperature_is_the_golden_one_and_bounded_where_there_is_none():
    random = np.random.RandomState(0)  # golden data A
    z = 2 * random.randn(2000, 10)
    y = (random.rand(2000, 1) > softmax(z).cumsum(axis=1)).sum(axis=1).clip(0, 9)
    assert fit_temperature(2 * z, y) == pytest.approx(1.992509264920, abs=1e-11)
    assert fit_temperature(z, z.argmax(axis=1)) == 1e-3  # always right
    assert fit_temperature(z, z.argmin(axis=1)) == 1e3  # always wrong
    found = compare(Logits(z), Logits(-z), (places(z), z.argmax(axis=1)), num_bootstraps=40)
    assert (found.row["dense_temperature"], found.row["pruned_temperature"]) == pytest.approx((1e-3, 1e3))


def test_temperature_fitted_on_what_is_judged_is_refused(pair):
    dense, pruned, y, x, _ = pair
    models = Logits(dense), Logits(pruned)
    with pytest.raises(LeakError, match="The temperature was fitted on 600 of the 600 samples"):
        compare(*models, (x, y), temperature_data=(x, y), num_bootstraps=40)
    found = compare(*models, (x, y), temperature_data=(x, y), num_bootstraps=40, allow_leak=True)
    assert found.row["leaked_share"] == 1.0


# --- one pass, any data -----------------------------------------------------------------------------------------------


def test_each_sample_is_read_once_by_each_model(pair):
    dense, pruned, y, x, strange = pair
    models = Logits(dense), Logits(pruned)
    reads = []

    def read():
        for i in range(0, 600, 100):
            reads.append(i)
            yield x[i : i + 100], y[i : i + 100]

    spec = tf.TensorSpec((None, 1), tf.float32), tf.TensorSpec((None,), tf.int64)
    compare(*models, tf.data.Dataset.from_generator(read, output_signature=spec), ood={"far": strange})
    assert reads == [0, 100, 200, 300, 400, 500]
    assert models[0].asked == models[1].asked == list(range(750))


@pytest.mark.parametrize("batch_size", [7, 600])
def test_batches_do_not_change_the_result(pair, found, batch_size):
    dense, pruned, y, x, strange = pair
    again = compare(
        *(Logits(dense), Logits(pruned), (x, y)), ood={"far": strange}, num_bootstraps=200, batch_size=batch_size
    )
    assert again.row.keys() == found.row.keys()
    for key, value in found.row.items():
        assert again.row[key] == (pytest.approx(value, abs=1e-12) if isinstance(value, float) else value), key
    pd.testing.assert_frame_equal(again.per_class, found.per_class, atol=1e-12)
    pd.testing.assert_frame_equal(again.flips, found.flips)


def test_batches_above_the_largest_are_taken_apart():
    z, y = drawn(2500)
    results = [
        compare(Logits(z), Logits(1.3 * z), (places(z), y), num_bootstraps=40, batch_size=size).row
        for size in (100, 2500)
    ]
    assert results[0]["ece_difference_low"] == pytest.approx(results[1]["ece_difference_low"], abs=1e-12)


def test_keras_models_with_other_heads_and_widths_are_compared():
    keras.utils.set_random_seed(1)
    dense = keras.Sequential([keras.Input((6,)), layers.Dense(32, "relu"), layers.Dense(3), layers.Softmax()])
    pruned = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3)])
    x, y = np.random.randn(300, 6).astype("float32"), np.random.randint(0, 3, 300)
    data = tf.data.Dataset.from_tensor_slices((x, tf.one_hot(y, 3))).batch(64)
    found = compare(dense, pruned, data, ood={"far": tf.data.Dataset.from_tensor_slices(5 * x)}, num_bootstraps=40)
    for name, model in (("dense", dense), ("pruned", pruned)):
        expected = tfprune.evaluate(model, (x, y), ood={"far": 5 * x})
        for key in ("accuracy", "nll", "brier", "ece", "mean_confidence"):
            assert found.row[f"{name}_{key}"] == pytest.approx(expected[key], rel=1e-5), key
        assert found.row[f"far/{name}_auroc_msp"] == pytest.approx(expected["far/auroc_msp"], rel=1e-5)


def test_row_is_ready_for_json_and_the_page_shows_it(found):
    assert json.loads(json.dumps(found.row, allow_nan=False)) == found.row
    page = str(found)
    for words in ("McNemar p", "far/auroc_msp", "ece_excess", "noise floor", f"verdict      {found.verdict}"):
        assert words in page
    assert max(map(len, page.splitlines())) <= 120


def test_columns_of_the_page_stay_in_line_under_long_names(pair):
    dense, pruned, y, x, strange = pair
    given = {"data": (x, y), "ood": {"strangers_with_a_rather_long_name": strange}, "num_bootstraps": 40}
    one = compare(Logits(dense), Logits(pruned), **given)
    several = compare_seeds([Logits(dense)] * 2, [Logits(pruned)] * 2, **given)
    for page in (str(one), str(several)):
        assert len({line.index("[") for line in page.splitlines() if "  [" in line}) == 1


def test_at_most_a_hundred_flips_are_kept_the_largest_of_all_batches():
    z, y = drawn(900)
    other = np.roll(z, 1, axis=1)
    found = compare(Logits(z), Logits(other), (places(z), y), num_bootstraps=40, batch_size=100)
    p, q = softmax(z), softmax(other)
    kl = np.where(z.argmax(axis=1) != other.argmax(axis=1), scipy.stats.entropy(p, q, axis=1), -1)
    assert found.flips["id"].tolist() == np.argsort(-kl)[:100].tolist()
    np.testing.assert_array_equal(found.flips["label"], y[found.flips["id"]])


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "larger_is_better", "expected"),
    [
        (0.01, 0.02, True, "better"),
        (0.01, 0.02, False, "worse"),
        (-0.02, -0.01, True, "worse"),
        (-0.02, -0.01, False, "better"),
        (-0.01, 0.02, True, "not distinguishable"),
        (0.0, 0.02, True, "not distinguishable"),
        (1e-9, 1e-8, True, "not distinguishable"),
    ],
)
def test_verdict_follows_the_interval(low, high, larger_is_better, expected):
    assert verdict.of_interval(low, high, larger_is_better) == expected


def calibration_row(raw, excess):
    names = ("ece_difference_low", "ece_difference_high", "ece_excess_difference_low", "ece_excess_difference_high")
    return dict(zip(names, (*raw, *excess), strict=True))


def test_calibration_needs_the_raw_error_and_its_excess_to_agree():
    up, down, unclear = (0.01, 0.03), (-0.03, -0.01), (-0.01, 0.01)
    assert verdict.of_calibration(calibration_row(up, up)) == "worse"
    assert verdict.of_calibration(calibration_row(down, down)) == "better"
    for raw, excess in ((up, unclear), (unclear, up), (up, down)):
        assert verdict.of_calibration(calibration_row(raw, excess)) == "not distinguishable"


def test_detection_is_corrected_for_the_number_of_scores():
    def difference(value, p):
        return significance.Difference(value, 0.1, -1, 1, p)

    assert verdict.of_detection([], 0.95) is None
    assert verdict.of_detection([difference(0.1, 0.03)], 0.95) == "better"
    assert verdict.of_detection([difference(-0.1, 0.03)], 0.95) == "worse"
    assert verdict.of_detection([difference(0.1, 0.03), difference(0.1, 0.9)], 0.95) == "not distinguishable"
    assert verdict.of_detection([difference(0.1, 0.001), difference(-0.1, 0.001)], 0.95) == "mixed"


def test_a_plainly_worse_model_is_called_worse(pair):
    dense, _, y, x, strange = pair
    random = np.random.RandomState(1)
    poor = np.concatenate([random.randn(600, 4), 5 * random.randn(150, 4)])
    found = compare(Logits(dense), Logits(poor), (x, y), ood={"far": strange}, num_bootstraps=100)
    assert found.verdict == "accuracy worse, calibration worse, OOD worse"
    assert compare(Logits(poor), Logits(dense), (x, y), num_bootstraps=100).verdict == (
        "accuracy better, calibration better"
    )


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused(pair):
    dense, _, y, x, _ = pair
    model = Logits(dense)
    with pytest.raises(ValueError, match=r"same classes\. Received: \[3, 4\] classes"):
        compare(model, Logits(dense[:, :3]), (x, y))
    small, large = (keras.Sequential([keras.Input((size,)), keras.layers.Dense(4)]) for size in (5, 7))
    with pytest.raises(ValueError, match=r"same inputs.* samples of shape \(5,\) and of shape \(7,\)"):
        compare(small, large, (x, y))
    with pytest.raises(ValueError, match="at least two samples"):
        compare(model, model, (x[:1], y[:1]), num_bootstraps=40)
    with pytest.raises(ValueError, match="data without any"):
        compare(model, model, (x[:0], y[:0]))
    with pytest.raises(ValueError, match=r"ood\['none'\] without any"):
        compare(model, model, (x, y), ood={"none": x[:0]})
    with pytest.raises(TypeError, match="ood must be a dict"):
        compare(model, model, (x, y), ood=x)
    with pytest.raises(ValueError, match="needs at least 40 bootstraps"):
        compare(model, model, (x, y), num_bootstraps=10)
    with pytest.raises(ValueError, match="num_bins must be an integer"):
        compare(model, model, (x, y), num_bins=0)
    with pytest.raises(ValueError, match=r"Labels must be in \[0, 4\)"):
        compare(model, model, (x, y + 4))


# --- several seeds ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def populations():
    """Four dense and four pruned models, which share a weakness on the first 30 samples; labels and inputs."""
    random = np.random.RandomState(7)
    z, y = drawn(400)
    strange = 0.8 * random.randn(100, 4)
    table = np.concatenate([z, strange])
    dense = [table + 0.4 * random.randn(500, 4) for _ in range(4)]
    pruned = [1.4 * table + 0.4 * random.randn(500, 4) for _ in range(4)]
    for logits in pruned:
        logits[:30] = np.roll(logits[:30], 1, axis=1)
    return dense, pruned, y, places(table)[:400], places(table)[400:]


@pytest.fixture(scope="module")
def over_seeds(populations):
    dense, pruned, y, x, strange = populations
    return compare_seeds(
        [Logits(z) for z in dense], [Logits(z) for z in pruned], (x, y), ood={"far": strange}, num_bootstraps=200
    )


def test_votes_are_counted_and_ties_go_to_the_smallest_class():
    # three models, four samples
    counts = exemplars.votes(np.array([[2, 1, 0, 2], [2, 0, 1, 1], [0, 2, 1, 0]]), 3)
    assert counts.tolist() == [[1, 0, 2], [1, 1, 1], [1, 2, 0], [1, 1, 1]]
    assert exemplars.modal_class(counts).tolist() == [2, 0, 1, 0]


def p_by_all_deals(dense, pruned):
    """Permutation p-value by dealing every vote out, from lists of votes."""
    pool, size = dense + pruned, len(dense)

    def distance(first, second):
        return sum(abs(first.count(k) / len(first) - second.count(k) / len(second)) for k in set(pool))

    observed, deals = distance(dense, pruned), list(itertools.combinations(range(len(pool)), size))
    extreme = 0
    for chosen in deals:
        rest = [pool[i] for i in range(len(pool)) if i not in chosen]
        extreme += distance([pool[i] for i in chosen], rest) >= observed - 1e-12
    return extreme / len(deals)


@pytest.mark.parametrize(
    ("dense", "pruned"),
    [([0, 0, 0], [1, 1, 1]), ([0, 0, 1, 2], [1, 1, 1, 2]), ([0, 1, 2, 3, 3], [3, 3, 4, 4, 0]), ([0, 0, 0, 0], [1, 1])],
)
def test_exemplar_p_is_that_of_all_deals(dense, pruned):
    counts = [exemplars.votes(np.array(votes)[:, None], 5) for votes in (dense, pruned)]
    assert exemplars.permutation_p_values(*counts)[0] == pytest.approx(p_by_all_deals(dense, pruned), abs=1e-15)


@pytest.mark.parametrize("num_dense", range(6))
@pytest.mark.parametrize("num_pruned", range(6))
def test_exemplar_p_of_two_classes_is_fishers(num_dense, num_pruned):
    dense, pruned = np.array([[num_dense, 5 - num_dense]]), np.array([[num_pruned, 5 - num_pruned]])
    expected = scipy.stats.fisher_exact([dense[0], pruned[0]]).pvalue
    assert exemplars.permutation_p_values(dense, pruned)[0] == pytest.approx(expected, abs=1e-12)


def test_exemplars_are_the_samples_that_pruning_changed(populations, over_seeds):
    dense, pruned, y, _, _ = populations
    modal = [
        exemplars.modal_class(exemplars.votes(np.stack([z[:400].argmax(axis=1) for z in tables]), 4))
        for tables in (dense, pruned)
    ]
    expected = np.flatnonzero(modal[0] != modal[1])
    table = over_seeds.exemplars
    assert sorted(table["id"]) == expected.tolist()
    assert len(set(table["id"]) & set(range(30))) > 25
    np.testing.assert_array_equal(table["label"], y[table["id"]])
    np.testing.assert_array_equal(table["dense_class"], modal[0][table["id"]])
    assert table["p"].is_monotonic_increasing
    assert table["p"].min() == pytest.approx(2 / math.comb(8, 4))
    # the adjusted ones come from all 400 samples
    first = table.iloc[0]
    assert first["p_adjusted"] == pytest.approx(first["p"] * 400 / (table["p"] <= first["p"]).sum())


def test_models_are_scored_on_exemplars_and_on_the_rest(populations, over_seeds):
    dense, pruned, y, _, _ = populations
    on = np.isin(np.arange(400), over_seeds.exemplars["id"])
    row = over_seeds.row
    for name, tables in (("dense", dense), ("pruned", pruned)):
        for group, members in (("exemplars", on), ("rest", ~on)):
            p = [softmax(z[:400])[members] for z in tables]
            accuracy = np.mean([metrics.accuracy(q, y[members]) for q in p])
            assert row[f"{group}_{name}_accuracy"] == pytest.approx(accuracy)
            assert row[f"{group}_{name}_ece"] == pytest.approx(np.mean([metrics.ece(q, y[members]) for q in p]))
    assert row["exemplars_num_samples"] + row["rest_num_samples"] == 400
    assert row["exemplars_pruned_accuracy"] < row["exemplars_dense_accuracy"]


def test_intervals_over_seeds_are_hierarchical(populations, over_seeds):
    dense, pruned, y, _, _ = populations
    correct = [np.stack([z[:400].argmax(axis=1) == y for z in tables]).astype(float) for tables in (dense, pruned)]
    by_sample = correct[1] - correct[0]
    weights = significance.PoissonWeights(200, seed=0).draw(400)
    replicates = by_sample @ weights.T / weights.sum(axis=1)
    expected = significance.hierarchical_interval(by_sample.mean(axis=1), np.cov(replicates))
    assert over_seeds.row["accuracy_difference"] == pytest.approx(expected.value)
    assert over_seeds.row["accuracy_difference_low"] == pytest.approx(expected.low)
    assert over_seeds.row["accuracy_difference_p"] == pytest.approx(expected.p)


def test_interval_over_seeds_of_the_calibration_error_is_freed_of_the_resamples_bias(populations, over_seeds):
    dense, pruned, y, _, _ = populations
    weights, replicates = significance.PoissonWeights(200, seed=0).draw(400), []
    for before, after in zip(dense, pruned, strict=True):
        errors = []
        for z in (before[:400], after[:400]):
            p = softmax(z)
            bins = np.minimum((p.max(axis=1) * 15).astype(int), 14)
            gaps = weights * (p.argmax(axis=1) == y) - weights * p.max(axis=1)
            errors.append(sum(np.abs(gaps[:, bins == b].sum(axis=1)) for b in range(15)) / weights.sum(axis=1))
        replicates.append(errors[1] - errors[0])
    values = over_seeds.pairs["ece_difference"].to_numpy()
    bias = np.mean(replicates) - values.mean()
    expected = significance.hierarchical_interval(values, np.cov(replicates), bias=bias)
    assert abs(bias) > 1e-4
    assert over_seeds.row["ece_difference_low"] == pytest.approx(expected.low)
    # the excess is freed of it by the noise floor
    expected = significance.hierarchical_interval(over_seeds.pairs["ece_excess_difference"], np.cov(replicates))
    assert over_seeds.row["ece_excess_difference_low"] == pytest.approx(expected.low)


def test_detection_over_seeds_has_delongs_covariance(populations, over_seeds):
    dense, pruned, _, _, _ = populations
    placed = [
        [significance.placements(metrics.msp_score(z[:400]), metrics.msp_score(z[400:])) for z in tables]
        for tables in (dense, pruned)
    ]
    by_id, by_ood = (np.stack([b[i] - a[i] for a, b in zip(*placed, strict=True)]) for i in (0, 1))
    expected = significance.hierarchical_interval(by_ood.mean(axis=1), np.cov(by_id) / 400 + np.cov(by_ood) / 100)
    row = over_seeds.row
    assert row["far/auroc_msp_difference"] == pytest.approx(expected.value)
    assert row["far/auroc_msp_difference_standard_error"] == pytest.approx(expected.standard_error)


def test_pairs_hold_what_compare_finds_for_each_seed(populations, over_seeds):
    dense, pruned, y, x, strange = populations
    one = compare(Logits(dense[2]), Logits(pruned[2]), (x, y), ood={"far": strange}, num_bootstraps=40).row
    line = over_seeds.pairs.iloc[2]
    assert len(over_seeds.pairs) == 4
    for key in ("lost", "agreement", "kl_divergence", "ece_difference", "pruned_nll", "far/auroc_msp_difference"):
        assert line[key] == pytest.approx(one[key]), key


def test_agreement_is_that_of_all_pairs_of_models(populations, over_seeds):
    predicted = [[z[:400].argmax(axis=1) for z in tables] for tables in populations[:2]]
    between = np.mean([a == b for a, b in itertools.product(*predicted)])
    within = np.mean([a == b for a, b in itertools.combinations(predicted[0], 2)])
    row = over_seeds.row
    assert (row["agreement_cross"], row["agreement_dense"]) == pytest.approx((between, within))
    assert row["agreement_pairs"] == pytest.approx(np.mean([np.mean(a == b) for a, b in zip(*predicted, strict=True)]))


def test_seeds_of_equal_models_differ_by_exactly_nothing(populations):
    dense, _, y, x, strange = populations
    models = [Logits(z) for z in dense]
    found = compare_seeds(models, models, (x, y), ood={"far": strange}, num_bootstraps=100)
    differences = {v for k, v in found.row.items() if "_difference" in k and not k.endswith("_p")}
    assert differences == {0.0}
    assert {v for k, v in found.row.items() if k.endswith("_p")} == {1.0}
    assert (len(found.exemplars), found.verdict) == (0, "not distinguishable")
    assert found.row["exemplars_dense_accuracy"] is None
    assert json.loads(json.dumps(found.row, allow_nan=False)) == found.row


def test_verdict_over_seeds_and_its_page(over_seeds):
    assert over_seeds.row["verdict_accuracy"] == "worse"
    page = str(over_seeds)
    for words in ("4 seeds", "far/auroc_msp", "exemplars", "of two dense seeds", over_seeds.verdict):
        assert words in page
    assert max(map(len, page.splitlines())) <= 120


def test_seeds_that_do_not_pair_are_refused(populations):
    dense, pruned, y, x, _ = populations
    with pytest.raises(ValueError, match=r"2 dense and 1 pruned models\. For one pair use tfprune\.compare"):
        compare_seeds([Logits(dense[0]), Logits(dense[1])], [Logits(pruned[0])], (x, y))
    with pytest.raises(ValueError, match="two or more seeds"):
        compare_seeds([Logits(dense[0])], [Logits(pruned[0])], (x, y))
