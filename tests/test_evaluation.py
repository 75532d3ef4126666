"""Does evaluate give, in one pass over any data, what the metrics give on all predictions at once?"""

import json

import keras
import numpy as np
import pytest
import sklearn.linear_model
import sklearn.metrics as sk
import tensorflow as tf
from keras import layers

import tfprune
from tfprune import metrics, models, uncertainty
from tfprune.evaluation import evaluate
from tfprune.structure.cost import cost, record_reference
from tfprune.uncertainty import detectors

R = np.random.RandomState(0)
X, Y = R.randn(530, 4).astype("float32"), R.randint(0, 3, 530)
STRANGE = (3 * R.randn(120, 4) + 2).astype("float32")


def classifier(*tail, num_classes=3, shape=(4,)):
    keras.utils.set_random_seed(1)
    hidden = layers.Dense(16, activation="relu")
    return keras.Sequential([keras.Input(shape), hidden, layers.Dense(num_classes), *tail])


@pytest.fixture(scope="module")
def model():
    return classifier(layers.Softmax())


def logits_of(model, x):
    return np.asarray(keras.Model(model.inputs[0], model.layers[1].output)(x), dtype=np.float64)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def assert_same(got, expected, rel=1e-6):
    """Two rows are the same; floats nearly."""
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, list):
            assert_same(dict(enumerate(got[key])), dict(enumerate(value)), rel)
        else:
            is_plain = isinstance(value, int | float | np.number)
            assert got[key] == (pytest.approx(value, rel=rel) if is_plain else value), key


# --- right numbers ----------------------------------------------------------------------------------------------------


CALIBRATION = (
    *("average_calibration_error", "equal_mass_ece", "classwise_ece", "debiased_calibration_error", "smooth_ece"),
    *("ks_calibration_error", "uce", "entropy_confidence_gap", "confidence_gap"),
)


def metric_floors(z, y):
    """Floor and excess as the streaming metrics compute them from their state."""
    made = {
        "ece": metrics.ExpectedCalibrationError(from_logits=True),
        "classwise_ece": metrics.ClasswiseCalibrationError(z.shape[1], from_logits=True),
    }
    for metric in made.values():
        metric.update_state(y, z)
    p = softmax(z)
    drawn = metrics.noise_floor(metrics.equal_mass_ece, p, num_draws=2000)
    found = {f"{name}_floor": pytest.approx(metric.floor(), rel=1e-6) for name, metric in made.items()}
    found |= {f"{name}_excess": pytest.approx(metric.excess(), rel=1e-5) for name, metric in made.items()}
    return found | {
        "equal_mass_ece_floor": pytest.approx(drawn, rel=0.03),
        "equal_mass_ece_excess": pytest.approx(metrics.equal_mass_ece(p, y) - drawn, abs=0.03 * drawn),
    }


def selective(z, y):
    found = metrics.selective_prediction(z, y, from_logits=True)
    return {name: found[name] for name in ("aurc", "eaurc", "augrc")} | {
        "coverage_at_5_risk": found["coverage_at_risk"]
    }


def test_row_holds_what_the_references_give(model):
    z, strange = logits_of(model, X), logits_of(model, STRANGE)
    p = softmax(z)
    row = evaluate(model, (X, Y), ood={"far": STRANGE})
    table = metrics.reliability_table(p, Y)
    expected = {
        "accuracy": sk.accuracy_score(Y, p.argmax(1)),
        "nll": sk.log_loss(Y, p),
        "brier": np.mean(np.sum((p - np.eye(3)[Y]) ** 2, axis=1)),
        **{f"brier_{part}": value for part, value in metrics.brier_decomposition(p, Y).items()},
        "ece": metrics.ece(p, Y),
        "ece_l2": metrics.ece(p, Y, norm="l2"),
        "ece_max": metrics.ece(p, Y, norm="max"),
        **{name: getattr(metrics, name)(p, Y) for name in CALIBRATION},
        "uce_reference": metrics.uce_reference(p),
        **metric_floors(z, Y),
        "mean_confidence": p.max(1).mean(),
        "mean_entropy": metrics.entropy(p).mean(),
        **selective(z, Y),
        "leak": None,
        "num_samples": 530,
        "num_bins": 15,
        "nll_epsilon": None,
        "parameters": 131,
        "multiply_adds": 112,
        "bytes": 524,
        "compression_ratio": 1.0,
        "theoretical_speedup": 1.0,
        "far/num_samples": 120,
        "far/mean_confidence": softmax(strange).max(1).mean(),
    }
    is_ood = np.repeat([0, 1], [530, 120])
    both = softmax(np.concatenate([z, strange]))
    for name, score in {"msp": -both.max(1), "entropy": metrics.entropy(both)}.items():
        false_rate, true_rate, _ = sk.roc_curve(is_ood, score, drop_intermediate=False)
        precision, recall, _ = sk.precision_recall_curve(is_ood, score)
        expected[f"far/auroc_{name}"] = sk.roc_auc_score(is_ood, score)
        expected[f"far/fpr95_{name}"] = false_rate[true_rate >= 0.95][0]
        expected[f"far/aupr_out_{name}"] = sk.auc(recall, precision)
        expected[f"far/ap_out_{name}"] = sk.average_precision_score(is_ood, score)
        expected[f"far/detection_accuracy_{name}"] = 1 - 0.5 * np.min(false_rate + 1 - true_rate)
        precision, recall, _ = sk.precision_recall_curve(1 - is_ood, -score)
        expected[f"far/aupr_in_{name}"] = sk.auc(recall, precision)
        expected[f"far/ap_in_{name}"] = sk.average_precision_score(1 - is_ood, -score)
        false_rate, true_rate, _ = sk.roc_curve(1 - is_ood, -score, drop_intermediate=False)
        expected[f"far/fpr95_id_{name}"] = false_rate[true_rate >= 0.95][0]
    expected |= {f"reliability_{column}": values for column, values in table.items()}
    assert_same(row, expected)


def test_row_is_plain_json(model):
    row = evaluate(model, (X, Y), ood={"far": STRANGE}, num_bins=4, latency=True)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert {type(value) for value in row.values()} <= {int, float, list, type(None)}
    assert row["latency_ms"] > 0
    assert "latency_ms" not in evaluate(model, (X, Y))


def test_public_name():
    assert tfprune.evaluate is evaluate


class Predictive:
    """Anything with .predict."""

    def __init__(self, function):
        self.predict = function


def test_golden_values_through_evaluate():
    r = np.random.RandomState(3)
    z = 2 * r.randn(4000, 10)
    p = softmax(z)
    y = (r.rand(4000, 1) > np.cumsum(p, 1)).sum(1).clip(0, 9)
    reported = np.where(p.max(1, keepdims=True) > 0.6, 0.4 * z, 2.5 * z)
    row = evaluate(Predictive(lambda x: x), (reported, y), from_logits=True)
    expected = {"accuracy": 0.534, "ece": 0.2527485780, "uce": 0.3324869882, "brier": 0.7281692665}
    assert {key: row[key] for key in expected} == pytest.approx(expected, abs=6e-11)
    assert row["nll"] == pytest.approx(1.7502355044, abs=6e-11)


# --- the same row, however it is asked for ----------------------------------------------------------------------------


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0])


def shapeless():
    """A data set that tells nothing of its shapes."""
    kinds = tf.TensorSpec(None, tf.float32), tf.TensorSpec(None, tf.int64)
    return tf.data.Dataset.from_generator(lambda: [(X[:300], Y[:300]), (X[300:], Y[300:])], output_signature=kinds)


SAME_DATA = {
    "list": lambda: [X, Y],
    "tensors": lambda: (tf.constant(X), tf.constant(Y)),
    "float64 inputs": lambda: (X.astype("float64"), Y),
    "nested lists": lambda: (X.tolist(), Y.tolist()),
    "column labels": lambda: (X, Y[:, None]),
    "float labels": lambda: (X, Y.astype("float32")),
    "one-hot labels": lambda: (X, np.eye(3)[Y]),
    "batched": lambda: dataset(X, Y).batch(100),
    "one batch": lambda: tf.data.Dataset.from_tensors((X, Y)),
    "many batches": lambda: dataset(X, Y).batch(32),
    "unbatched": lambda: dataset(X, Y),
    "unbatched one-hot": lambda: dataset(X, np.eye(3)[Y]),
    "batched one-hot": lambda: dataset(X, np.eye(3)[Y]).batch(64),
    "shapeless": shapeless,
}


@pytest.mark.parametrize("kind", SAME_DATA)
def test_kind_of_data_makes_no_difference(kind, model):
    assert_same(evaluate(model, SAME_DATA[kind]()), evaluate(model, (X, Y)))


SAME_STRANGERS = {
    "pair": lambda: (STRANGE, np.zeros(120)),
    "single": lambda: (STRANGE,),
    "nonsense labels": lambda: (STRANGE, np.full(120, 99)),
    "unlabelled data set": lambda: dataset(STRANGE).batch(50),
    "unlabelled unbatched data set": lambda: dataset(STRANGE),
    "labelled data set": lambda: dataset(STRANGE, np.zeros(120)).batch(50),
    "labelled unbatched data set": lambda: dataset(STRANGE, np.zeros(120)),
}


@pytest.mark.parametrize("kind", SAME_STRANGERS)
def test_kind_of_ood_data_makes_no_difference(kind, model):
    got = evaluate(model, (X, Y), ood={"far": SAME_STRANGERS[kind]()})
    assert_same(got, evaluate(model, (X, Y), ood={"far": STRANGE}))


@pytest.mark.parametrize("batch_size", [7, 100, 10_000])
def test_batch_size_makes_no_difference(batch_size, model):
    got = evaluate(model, (X, Y), ood={"far": STRANGE}, batch_size=batch_size)
    assert_same(got, evaluate(model, (X, Y), ood={"far": STRANGE}))


@pytest.mark.parametrize(
    ("make", "from_logits"),
    [
        (lambda: classifier(), None),
        (lambda: classifier(), True),
        (lambda: classifier(layers.Softmax()), False),
        (lambda: classifier(layers.Activation("softmax")), None),
        (lambda: Predictive(classifier().call), True),
        (lambda: Predictive(classifier(layers.Softmax()).call), False),
        (lambda: Predictive(lambda x: np.asarray(classifier()(x)).tolist()), True),
        (lambda: Subclassed(classifier()), True),
    ],
)
def test_logits_and_probabilities_give_the_same_row(make, from_logits, model):
    got = evaluate(make(), (X, Y), ood={"far": STRANGE}, from_logits=from_logits)
    expected = evaluate(model, (X, Y), ood={"far": STRANGE})
    of_the_model = ("parameters", "multiply_adds", "bytes", "compression_ratio", "theoretical_speedup", "nll_epsilon")
    assert_same(got, expected | {key: got[key] for key in of_the_model}, rel=1e-5)


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self(X[:1])

    def call(self, x):
        return self.inner(x)


def test_cost_of_what_has_no_graph_is_partly_or_wholly_unknown():
    row = evaluate(Subclassed(classifier()), (X, Y), from_logits=True)
    assert (row["parameters"], row["multiply_adds"], row["compression_ratio"]) == (131, None, 1.0)
    row = evaluate(Predictive(classifier().call), (X, Y), from_logits=True)
    assert (row["parameters"], row["multiply_adds"], row["compression_ratio"]) == (None, None, None)


@pytest.mark.parametrize("labels", [Y % 2, (Y % 2)[:, None], np.eye(2)[Y % 2], (Y % 2).astype(bool)])
def test_single_output_is_two_classes(labels):
    logits = classifier(num_classes=1)
    probabilities = classifier(layers.Activation("sigmoid"), num_classes=1)
    p = np.asarray(probabilities(X), dtype=np.float64)[:, 0]
    row = evaluate(probabilities, (X, labels))
    assert row["nll"] == pytest.approx(sk.log_loss(Y % 2, p), rel=1e-6)
    assert row["accuracy"] == sk.accuracy_score(Y % 2, p > 0.5)
    assert row["brier"] == pytest.approx(2 * sk.brier_score_loss(Y % 2, p), rel=1e-6)
    for other in (
        evaluate(logits, (X, labels)),
        evaluate(Predictive(probabilities.call), (X, labels), from_logits=False),
    ):
        assert (other["nll"], other["ece"]) == pytest.approx((row["nll"], row["ece"]), rel=1e-5)


def test_saturated_softmax_keeps_nll_finite_and_ranks_without_ties():
    model = classifier(layers.Softmax())
    sure = model.layers[1]
    sure.kernel.assign(sure.kernel * 300.0)
    assert np.mean(np.asarray(model(X)).max(1) == 1.0) > 0.7
    row = evaluate(model, (X, Y), ood={"far": STRANGE})
    z, is_ood = logits_of(model, np.concatenate([X, STRANGE])), np.repeat([0, 1], [530, 120])
    expected = np.logaddexp.reduce(z[:530], axis=1) - z[np.arange(530), Y]
    assert row["nll"] == pytest.approx(expected.mean(), rel=1e-6)
    ranked = np.sort(z, axis=1)
    untied = sk.roc_auc_score(is_ood, np.logaddexp.reduce(ranked[:, :-1], axis=1) - ranked[:, -1])
    assert row["far/auroc_msp"] == pytest.approx(untied, abs=1e-6)
    assert abs(untied - sk.roc_auc_score(is_ood, -np.asarray(model(np.concatenate([X, STRANGE]))).max(1))) > 0.01


def test_probabilities_of_zero_give_a_recorded_finite_nll():
    row = evaluate(Predictive(lambda x: np.eye(3, dtype="float32")[[0] * len(x)]), (X, Y * 0 + 1), from_logits=False)
    assert row["nll_epsilon"] == np.finfo("float32").tiny
    assert row["nll"] == pytest.approx(-np.log(row["nll_epsilon"]))


def test_mixed_bfloat16_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax", dtype="mixed_bfloat16")])
    p = np.asarray(keras.ops.cast(model(X), "float64"))
    row = evaluate(model, (X, Y))
    assert row["nll"] == pytest.approx(sk.log_loss(Y, p / p.sum(1, keepdims=True)), rel=1e-2)
    told = evaluate(Predictive(lambda x: keras.ops.convert_to_numpy(model(x))), (X, Y), from_logits=False)
    assert told["nll"] == pytest.approx(row["nll"], rel=1e-2)


def test_images_as_integers_and_of_any_size():
    model = keras.Sequential(
        [keras.Input((None, None, 1)), layers.Rescaling(1 / 255), layers.Conv2D(2, 3), layers.GlobalMaxPooling2D()]
    )
    images = np.random.RandomState(0).randint(0, 256, (20, 8, 9, 1)).astype("uint8")
    row = evaluate(model, (images, np.zeros(20)), ood={"larger": images.repeat(2, axis=1)}, from_logits=True)
    assert row["multiply_adds"] is None
    assert row["theoretical_speedup"] == 1.0


def two_inputs(activation):
    keras.utils.set_random_seed(0)
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    return keras.Model([a, b], layers.Dense(3, activation=activation)(layers.Concatenate()([a, b])))


def test_input_in_a_list():
    model = keras.Model([inputs := keras.Input((4,))], layers.Dense(3)(inputs))
    assert evaluate(model, (X, Y), batch_size=50)["num_samples"] == 530


@pytest.mark.parametrize("activation", ["softmax", None])
def test_several_inputs(activation):
    model, b = two_inputs(activation), X[:, :2] ** 2
    p = np.asarray(model([X, b]), dtype=np.float64)
    expected = sk.log_loss(Y, p / p.sum(1, keepdims=True) if activation else softmax(p))
    as_dict = {"a": X, "b": b}
    for data in (((X, b), Y), ([X, b], Y), (as_dict, Y), dataset(as_dict, Y), dataset((X, b), Y).batch(60)):
        row = evaluate(model, data, ood={"same": [X, b], "dict": as_dict, "pair": ((X, b), Y)}, batch_size=60)
        assert row["nll"] == pytest.approx(expected, rel=1e-5)
        assert row["same/auroc_msp"] == row["dict/auroc_msp"] == row["pair/auroc_msp"] == pytest.approx(0.5)


class Counting(layers.Layer):
    """Counts how often Python calls it."""

    calls = 0

    def call(self, x):
        self.calls += 1
        return x


def test_many_batches_run_through_a_compiled_function_once_traced():
    model = keras.Sequential([keras.Input((4,)), counting := Counting(), layers.Dense(3)])
    counting.calls = 0
    evaluate(model, (X, Y), ood={"far": STRANGE}, batch_size=7)
    assert counting.calls < 10


def test_model_is_left_as_it_is(model):
    before = [weight.copy() for weight in model.get_weights()]
    evaluate(model, (X, Y), ood={"far": STRANGE}, batch_size=50)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert [len(layer._inbound_nodes) for layer in model.layers] == [1, 1, 1]


def test_dropout_and_batchnorm_are_in_inference_mode():
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)])
    first, second = (evaluate(model, (X, Y), batch_size=size) for size in (50, 530))
    assert first["nll"] == pytest.approx(second["nll"], rel=1e-6)
    assert np.all(np.asarray(model.layers[0].moving_mean) == 0)


# --- cost -------------------------------------------------------------------------------------------------------------


def test_ratios_compare_with_the_dense_model():
    dense, small = models.mlp((4,), hidden=(30,), num_classes=3), models.mlp((4,), hidden=(6,), num_classes=3)
    for reference in (dense, cost(dense)):
        row = evaluate(small, (X, Y), dense=reference)
        assert row["compression_ratio"] == pytest.approx(243 / 51)
        assert row["theoretical_speedup"] == pytest.approx(5.0)
    assert evaluate(small, (X, Y))["compression_ratio"] == 1.0
    record_reference(small, cost(dense))
    assert evaluate(small, (X, Y))["theoretical_speedup"] == pytest.approx(5.0)


# --- refusals ---------------------------------------------------------------------------------------------------------


def unknown_head():
    return classifier(layers.ReLU())


IMAGES = np.zeros((5, 8, 8, 1), "float32")
REFUSALS = {
    "cannot tell": (lambda m: evaluate(unknown_head(), (X, Y)), "Pass from_logits=True if it gives logits"),
    "cannot tell predict": (lambda m: evaluate(Predictive(m.call), (X, Y)), "Cannot tell whether 'Predictive' gives"),
    "cannot tell subclassed": (lambda m: evaluate(Subclassed(m), (X, Y)), "Cannot tell whether 'subclassed"),
    "told wrong": (lambda m: evaluate(m, (X, Y), from_logits=True), "ends in a softmax.*Received: from_logits=True"),
    "told nonsense": (lambda m: evaluate(m, (X, Y), from_logits="yes"), "from_logits must be True, False or None"),
    "not probabilities": (
        lambda m: evaluate(classifier(), (X, Y), from_logits=False),
        "rows sum to 1.*If these are logits, pass from_logits=True",
    ),
    "rows do not sum to 1": (
        lambda m: evaluate(Predictive(lambda x: np.full((len(x), 3), 0.5)), (X, Y), from_logits=False),
        "row sums from 1.5 to 1.5",
    ),
    "sigmoid above 1": (
        lambda m: evaluate(Predictive(lambda x: np.full((len(x), 1), 1.5)), (X, Y % 2), from_logits=False),
        "Received: values from 1.5 to 1.5",
    ),
    "multi-label": (lambda m: evaluate(classifier(layers.Activation("sigmoid")), (X, Y)), "a sigmoid over 3 outputs"),
    "empty arrays": (lambda m: evaluate(m, (X[:0], Y[:0])), "at least one sample. Received: data without any"),
    "empty data set": (lambda m: evaluate(m, dataset(X, Y).batch(5).take(0)), "at least one sample"),
    "empty ood": (lambda m: evaluate(m, (X, Y), ood={"none": X[:0]}), r"Received: ood\['none'\] without any"),
    "NaN": (
        lambda m: evaluate(m, (np.where(np.arange(530)[:, None] == 3, np.nan, X), Y)),
        "NaN or infinity, in 1 of the 256 samples",
    ),
    "label too large": (lambda m: evaluate(m, (X, Y + 1)), r"in \[0, 3\).*labels from 1 to 3"),
    "label negative": (lambda m: evaluate(m, (X, Y - 1)), r"labels from -1 to 1"),
    "regression target": (lambda m: evaluate(m, (X, X[:, 0])), "must be whole numbers"),
    "soft labels": (lambda m: evaluate(m, (X, np.full((530, 3), 1 / 3))), "single 1 per row"),
    "too many one-hot columns": (lambda m: evaluate(m, (X, np.eye(4)[Y])), r"labels of shape \(256, 4\)"),
    "lengths": (lambda m: evaluate(m, (X, Y[:5])), "arrays of equal length. Received: lengths"),
    "wrong shape": (
        lambda m: evaluate(m, (X[:, :3], Y)),
        r"data has samples of shape \(3,\), but the model takes \(4,\)",
    ),
    "wrong ood shape": (
        lambda m: evaluate(m, (X, Y), ood={"images": IMAGES}),
        r"ood\['images'\] has samples of shape \(8, 8, 1\), but the model takes \(4,\)",
    ),
    "wrong ood shape for predict": (
        lambda m: evaluate(Predictive(m.call), (X, Y), ood={"images": IMAGES}, from_logits=False),
        r"ood\['images'\] has samples of shape \(8, 8, 1\), but the model takes \(4,\)",
    ),
    "sample weights": (lambda m: evaluate(m, dataset(X, Y, Y).batch(9)), "a tuple of 3 parts. Map it to"),
    "no labels": (lambda m: evaluate(m, dataset(X).batch(9)), r"must give pairs \(x, y\)"),
    "endless": (lambda m: evaluate(m, dataset(X, Y).batch(9).repeat()), "never ends"),
    "several outputs": (
        lambda m: evaluate(keras.Model(m.inputs, [m.outputs[0], m.layers[0].output]), (X, Y)),
        "one output. Received: .* with 2",
    ),
    "several outputs of predict": (
        lambda m: evaluate(Predictive(lambda x: (x, x)), (X, Y), from_logits=True),
        "one output. Received: 2 outputs",
    ),
    "output of another shape": (
        lambda m: evaluate(Predictive(lambda x: np.zeros((len(x), 2, 2))), (X, Y), from_logits=True),
        r"Received: shape \(256, 2, 2\)",
    ),
    "unbuilt": (lambda m: evaluate(keras.Sequential([layers.Dense(3)]), (X, Y)), "is not built"),
    "num_bins": (lambda m: evaluate(m, (X, Y), num_bins=0), "num_bins must be an integer of at least 1"),
    "batch_size": (lambda m: evaluate(m, (X, Y), batch_size=0), "batch_size must be an integer of at least 1"),
}
WRONG_TYPES = {
    "ood not a dict": (lambda m: evaluate(m, (X, Y), ood=STRANGE), "ood must be a dict .* Received: ndarray"),
    "ood list": (lambda m: evaluate(m, (X, Y), ood=[("far", STRANGE)]), "ood must be a dict .* Received: list"),
    "ood triple": (lambda m: evaluate(m, (X, Y), ood={"far": (X, X, X)}), "Received: a tuple of 3 parts"),
    "only x": (lambda m: evaluate(m, X), r"must be a pair \(x, y\) .* Received: ndarray"),
    "triple": (lambda m: evaluate(m, (X, Y, Y)), "Received: a tuple of 3 parts"),
    "ragged": (lambda m: evaluate(m, (np.array([X[0], X[:2]], dtype=object), [0, 1])), "arrays of numbers"),
    "no predict": (lambda m: evaluate("model.keras", (X, Y)), r"have .predict\(x\). Received: str"),
    "labels from predict": (
        lambda m: evaluate(sklearn.linear_model.LogisticRegression().fit(X, Y), (X, Y), from_logits=False),
        "gives class labels, not probabilities",
    ),
    "latency of predict": (
        lambda m: evaluate(Predictive(m.call), (X, Y), from_logits=False, latency=True),
        "latency=True needs a Keras model",
    ),
    "dense": (lambda m: evaluate(m, (X, Y), dense="dense.keras"), "Expected a Keras model"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_value_is_refused(name, model):
    call, message = REFUSALS[name]
    with pytest.raises(ValueError, match=message):
        call(model)


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_wrong_type_is_refused(name, model):
    call, message = WRONG_TYPES[name]
    with pytest.raises(TypeError, match=message):
        call(model)


# --- detectors, predictives, leaks ------------------------------------------------------------------------------------


def trained_like(num_hidden=24):
    """A model, and data that its features tell apart."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    hidden = layers.Dense(num_hidden, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Dropout(0.3)(hidden)))


def test_every_detector_is_told_in_the_row_as_it_scores_by_itself():
    model = trained_like()
    row = evaluate(model, (X, Y), ood={"far": STRANGE}, detectors="all", train=(X[:300], Y[:300]), allow_leak=True)
    fitted = detectors.fit_all(list(detectors.DETECTORS), model, (X[:300], Y[:300]))
    known, strange = detectors.score_all(fitted, X), detectors.score_all(fitted, STRANGE)
    for name in detectors.DETECTORS:
        expected = sk.roc_auc_score(np.repeat([0, 1], [len(X), len(STRANGE)]), np.append(known[name], strange[name]))
        assert row[f"far/auroc_{name}"] == pytest.approx(expected), name
    assert (row["num_features"], row["feature_rank"] > 0, row["num_dead_features"] >= 0) == (24, True, True)
    json.dumps(row)


def test_fitted_detector_is_taken_as_it_is_and_refused_for_another_model():
    model, other = trained_like(), trained_like(num_hidden=12)
    knn = detectors.KNN(num_neighbors=3).fit(model, (X[:300], Y[:300]))
    row = evaluate(model, (X[300:], Y[300:]), ood={"far": STRANGE}, detectors=[knn])
    assert "far/auroc_knn" in row
    with pytest.raises(ValueError, match="fitted on other weights"):
        evaluate(other, (X[300:], Y[300:]), ood={"far": STRANGE}, detectors=[knn])


def test_detector_without_data_to_learn_from_is_refused():
    with pytest.raises(ValueError, match=r"learn from data: knn.*Pass train="):
        evaluate(trained_like(), (X, Y), ood={"far": STRANGE}, detectors=["energy", "knn"])


def test_logit_detectors_are_refused_where_there_are_probabilities_only():
    class Uniform:
        def predict(self, x):
            return np.full((len(x), 3), 1 / 3)

    with pytest.raises(ValueError, match="energy needs logits"):
        evaluate(Uniform(), (X, Y), ood={"far": STRANGE}, detectors=["energy"], from_logits=False)


def test_evaluating_on_what_a_detector_learnt_from_is_refused_unless_told_otherwise():
    given = {"ood": {"far": STRANGE}, "detectors": ["mahalanobis"], "train": (X, Y)}
    with pytest.raises(uncertainty.LeakError, match="Mahalanobis detector was fitted on 100 of the 100 samples"):
        evaluate(trained_like(), (X[:100], Y[:100]), **given)
    assert evaluate(trained_like(), (X[:100], Y[:100]), **given, allow_leak=True)["leak"] == 1.0
    clean = evaluate(trained_like(), (X[300:], Y[300:]), **{**given, "train": (X[:300], Y[:300])})
    assert clean["leak"] == 0.0


def test_calibrated_model_gives_calibrated_numbers_and_guards_its_validation_data():
    model = trained_like()
    calibrator = uncertainty.TemperatureScaling().fit(model, (X[:250], Y[:250]))
    calibrated, test = calibrator.attach(model), (X[250:], Y[250:])
    tempered = logits_of_any(model, X[250:]) / calibrator.temperature
    row = evaluate(calibrated, test)
    assert row["nll"] == pytest.approx(metrics.nll(tempered, Y[250:]), rel=1e-5)
    assert row["leak"] == 0.0
    with pytest.raises(uncertainty.LeakError, match=r"TemperatureScaling.*250 of the 530"):
        evaluate(calibrated, (X, Y))


def logits_of_any(model, x):
    return np.log(model.predict(x, verbose=0).astype("float64"))


def test_predictives_add_their_mutual_information():
    model = trained_like()
    ensemble = uncertainty.Ensemble([model, trained_like(12)])
    for predictive in (uncertainty.MCDropout(model, num_samples=5), ensemble):
        row = evaluate(predictive, (X, Y), ood={"far": STRANGE})
        known = predictive.predict_uncertainty(X[:256])["mutual_information"]
        assert row["mean_mutual_information"] > 0
        assert "far/auroc_mutual_information" in row
        assert len(known) == 256
    p = 0.5 * sum(member.predict(X, verbose=0).astype("float64") for member in (model, trained_like(12)))
    assert row["nll"] == pytest.approx(-np.mean(np.log(p[np.arange(len(p)), Y])), rel=1e-5)


def test_laplace_is_evaluated_and_guards_its_training_data():
    laplace = uncertainty.LastLayerLaplace().fit(trained_like(), (X[:300], Y[:300]))
    row = evaluate(laplace, (X[300:], Y[300:]), ood={"far": STRANGE})
    assert 0 <= row["far/auroc_mutual_information"] <= 1
    with pytest.raises(uncertainty.LeakError):
        evaluate(laplace, (X, Y))


def test_named_inputs_that_the_model_does_not_know_are_refused():
    x, y = np.zeros((6, 3), "float32"), np.zeros(6, int)
    entry = keras.Input((3,), name="values")
    model = keras.Model(entry, layers.Dense(2)(entry))
    assert evaluate(model, ({"values": x}, y))["num_samples"] == 6
    with pytest.raises(ValueError, match="data has inputs named pixels, but the model takes values"):
        evaluate(model, ({"pixels": x}, y))
