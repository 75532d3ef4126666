"""Are the features and the linear head those of the model, and is what troubles a detector reported and refused?"""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from zoo import ZOO, inputs_of, randomise

import tfprune
from tfprune.layers import ChannelMask
from tfprune.predictions import Predictor
from tfprune.uncertainty import detectors as ood
from tfprune.uncertainty.calibrators import MatrixScaling, TemperatureScaling, VectorScaling
from tfprune.uncertainty.detectors import Features, covariance, health_report, weights_hash
from tfprune.uncertainty.leak import Fingerprint, LeakError, check_leak, find_fingerprints

X = np.random.RandomState(0).randn(60, 6).astype("float32")
Y = np.random.RandomState(1).randint(0, 3, 60)


def sequential(*tail, shape=(6,), seed=0):
    keras.utils.set_random_seed(seed)
    return randomise(keras.Sequential([keras.Input(shape), *tail]))


def body(*tail):
    return sequential(layers.Dense(10, activation="relu", name="hidden"), *tail)


def maps(*tail):
    return sequential(layers.Conv2D(7, 3, activation="relu", name="maps"), *tail, shape=(6, 6, 2))


def nested():
    inner = body(layers.Dense(3), layers.Softmax())
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dropout(0.5)(inner(inputs)))


def masked_head():
    head = layers.Dense(3, activation="softmax")
    model = body(ChannelMask(head, {"in": 10}, {"kernel": {"in": 0}}))
    model.layers[-1].masks["in"].assign(np.arange(10) % 2)
    return model


def masked_convolution_head():
    head = layers.Conv2D(3, 4)
    model = maps(ChannelMask(head, {"in": 7}, {"kernel": {"in": 2}}), layers.Flatten())
    model.layers[-2].masks["in"].assign(np.arange(7) < 4)
    return model


# model -> number of features, number of classes
HEADS = {
    "linear": (lambda: body(layers.Dense(3)), 10, 3),
    "without bias": (lambda: body(layers.Dense(3, use_bias=False)), 10, 3),
    "softmax inside": (lambda: body(layers.Dense(3, activation="softmax")), 10, 3),
    "softmax after": (lambda: body(layers.Dropout(0.5), layers.Dense(3), layers.Softmax()), 10, 3),
    "log-softmax": (lambda: body(layers.Dense(3, activation="log_softmax")), 10, 3),
    "dropout at the end": (lambda: body(layers.Dense(3), layers.Softmax(), layers.Dropout(0.5)), 10, 3),
    "linear activation at the end": (
        lambda: body(layers.Dense(3), layers.Softmax(), layers.Activation("linear")),
        10,
        3,
    ),
    "one sigmoid": (lambda: body(layers.Dense(1, activation="sigmoid")), 10, 2),
    "sigmoid after": (lambda: body(layers.Dense(1), layers.Activation("sigmoid")), 10, 2),
    "rescaled": (lambda: body(layers.Dense(3), layers.Rescaling(0.5, offset=1.0), layers.Softmax()), 10, 3),
    "normalised": (lambda: body(layers.Dense(3), layers.BatchNormalization()), 10, 3),
    "normalised without centre": (lambda: body(layers.Dense(3), layers.BatchNormalization(center=False)), 10, 3),
    "flatten before": (lambda: maps(layers.Flatten(), layers.Dense(3)), 4 * 4 * 7, 3),
    "pooled before": (lambda: maps(layers.GlobalAveragePooling2D(), layers.Dense(3)), 7, 3),
    "pooled after": (lambda: maps(layers.Conv2D(3, 1), layers.GlobalAveragePooling2D(), layers.Softmax()), 7, 3),
    "dense pooled after": (lambda: maps(layers.Dense(3), layers.GlobalAveragePooling2D()), 7, 3),
    "normalised and pooled": (
        lambda: maps(layers.Conv2D(3, 1), layers.BatchNormalization(), layers.GlobalAveragePooling2D()),
        7,
        3,
    ),
    "convolution over all": (lambda: maps(layers.Conv2D(3, 4), layers.Flatten(), layers.Softmax()), 4 * 4 * 7, 3),
    "einsum": (lambda: body(layers.EinsumDense("ab,bc->ac", 3, bias_axes="c")), 10, 3),
    "einsum with dots": (lambda: body(layers.EinsumDense("...x,xy->...y", 3)), 10, 3),
    "nested": (nested, 10, 3),
    "masked": (masked_head, 5, 3),
    "masked convolution": (masked_convolution_head, 4 * 4 * 4, 3),
}


@pytest.mark.parametrize("name", HEADS)
def test_features_times_weights_are_the_logits_of_the_model(name):
    make, num_features, num_classes = HEADS[name]
    model = make()
    x = inputs_of(model, 9)
    source = Features(model)
    batch, said = source.batch(x), Predictor(model)(x)
    assert batch.features.shape == (9, num_features)
    assert source.linear.weights.shape == (num_features, num_classes)
    assert source.linear.bias.shape == (num_classes,)
    np.testing.assert_allclose(source.linear.logits(batch.features), batch.logits, rtol=1e-5, atol=1e-5)
    if name != "log-softmax":  # takes its normaliser off each row
        np.testing.assert_array_equal(batch.logits, said)
    np.testing.assert_allclose(batch.logits - batch.logits[:, :1], said - said[:, :1], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(source(x), batch.logits)


# What one sees of these is no single distribution over classes, or no linear map.
NOT_LINEAR = {"any_size"}
REFUSED = {"several_outputs", "squeeze_and_excite", "tied"}  # by Predictor, with or without features


@pytest.mark.parametrize("name", [name for name in ZOO if name not in NOT_LINEAR | REFUSED])
def test_features_of_every_architecture(name):
    keras.utils.set_random_seed(0)
    model = randomise(ZOO[name]())
    x = inputs_of(model, 9)
    source = Features(model)
    batch = source.batch(x)
    np.testing.assert_allclose(source.linear.logits(batch.features), batch.logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(batch.logits, Predictor(model)(x))


def test_reading_features_leaves_the_model_alone():
    model = HEADS["softmax inside"][0]()
    config, before = model.get_config(), np.asarray(model(X))
    Features(model).batch(X)
    np.testing.assert_array_equal(model(X), before)
    assert model.get_config() == config
    assert [len(layer._inbound_nodes) for layer in model.layers] == [1] * len(model.layers)


def test_many_batches_are_compiled_to_the_same():
    model = HEADS["softmax inside"][0]()
    source = Features(model)
    batches = list(source.stream((X, Y), "data", labelled=True, batch_size=8))
    whole = Features(model).batch(X, Y)
    for field in ("features", "logits"):
        joined = np.concatenate([getattr(batch, field) for batch in batches])
        np.testing.assert_allclose(joined, getattr(whole, field), rtol=1e-5, atol=1e-6)
    assert np.concatenate([batch.labels for batch in batches]).tolist() == Y.tolist()


@pytest.mark.parametrize("calibrator", [TemperatureScaling, VectorScaling, MatrixScaling])
def test_linear_calibrators_are_part_of_the_head(calibrator):
    model = body(layers.Dense(3), layers.Softmax())
    calibrated = calibrator().fit(model, (X, Y)).attach(model)
    source = Features(calibrated)
    batch = source.batch(X)
    np.testing.assert_allclose(source.linear.logits(batch.features), batch.logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(batch.features, Features(model).batch(X).features, rtol=1e-6)
    assert not np.allclose(batch.logits, Features(model).batch(X).logits, atol=0.01)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_other_precisions(policy):
    keras.config.set_dtype_policy(policy)
    model = body(layers.Dense(3, activation="softmax"))
    x, fitted = X.astype("float64" if policy == "float64" else "float32"), None
    fitted = ood.fit_all([name for name in ood.DETECTORS if name != "relative_mahalanobis"], model, (x, Y))
    scores = ood.score_all(fitted, 2 * x)
    assert all(np.isfinite(score).all() and score.dtype == np.float64 for score in scores.values())
    assert fitted[0].source.batch(x).features.dtype == ("float64" if policy == "float64" else "float32")
    assert all(array.dtype in (np.float64, bool) for detector in fitted for array in detector.statistics.values())


def test_a_single_sigmoid_is_scored_as_two_classes():
    model = body(layers.Dense(1, activation="sigmoid"))
    two = body(layers.Dense(2, activation="softmax"))
    two.layers[0].set_weights(model.layers[0].get_weights())
    kernel, bias = model.layers[1].get_weights()
    two.layers[1].set_weights([np.pad(kernel, ((0, 0), (1, 0))), np.pad(bias, (1, 0))])
    names = list(ood.DETECTORS)
    first, second = (ood.score_all(ood.fit_all(names, m, (X, Y % 2)), 2 * X) for m in (model, two))
    for name in names:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-4, atol=1e-5, err_msg=name)


# --- where there is no head -------------------------------------------------------------------------------------------


def pooled_3x3():
    return maps(layers.Conv2D(3, 3), layers.GlobalAveragePooling2D())


def grouped():
    return maps(layers.Conv2D(8, 1), layers.Conv2D(4, 1, groups=2), layers.GlobalAveragePooling2D())


NO_HEAD = {
    "relu between": (
        lambda: body(layers.Dense(3), layers.ReLU(), layers.Softmax()),
        r"'re_lu\w*' \(ReLU\) stands between",
    ),
    "relu inside": (lambda: body(layers.Dense(3, activation="relu"), layers.Softmax()), "stands between its logits"),
    "softmax twice": (lambda: body(layers.Dense(3, activation="softmax"), layers.Softmax()), "stands between"),
    "3x3 pooled": (pooled_3x3, "neither 1x1 nor as large as what it reads"),
    "in groups": (grouped, "neither 1x1 nor as large"),
    "several positions": (
        lambda: sequential(layers.Conv1D(1, 3), layers.Flatten(), shape=(6, 2)),
        "neither 1x1 nor as large as what it reads",
    ),
    "odd equation": (
        lambda: sequential(layers.EinsumDense("abc,bcd->ad", 3, bias_axes="d"), shape=(4, 2)),
        "not that of a Dense",
    ),
    "no linear layer": (lambda: sequential(layers.Softmax()), "no Dense, EinsumDense or convolution makes its logits"),
}


@pytest.mark.parametrize("name", NO_HEAD)
def test_reason_is_given_where_there_is_no_linear_head(name):
    make, reason = NO_HEAD[name]
    model = make()
    x = inputs_of(model, 5)
    source = Features(model)
    assert source.linear is None
    assert not source.has_features
    assert source.batch(x).features is None
    with pytest.raises(ValueError, match=f"knn needs features, but .*{reason}.*feature_layer"):
        ood.KNN().fit(model, x)
    assert ood.MSP().fit(model).score(x).shape == (5,)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


class Predictive:
    """Knows probabilities, and an uncertainty of its own."""

    from_logits = False

    def __init__(self, model):
        self.model = model

    def predict_uncertainty(self, x):
        p = np.asarray(self.model(x), dtype=np.float64)
        return {"probabilities": p, "mutual_information": p.min(1)}

    def predict(self, x):
        return self.predict_uncertainty(x)["probabilities"]


def test_subclassed_models_have_logits_only():
    model = Subclassed()
    model(X)
    fitted = ood.fit_all(["msp", "energy", "odin", "kl_matching"], model, X, from_logits=True)
    assert all(np.isfinite(score).all() for score in ood.score_all(fitted, X).values())
    with pytest.raises(ValueError, match="is a subclassed model, whose layers cannot be read"):
        ood.ViM().fit(model, X, from_logits=True)
    with pytest.raises(ValueError, match=r"feature_layer must name a layer.*layers: unknown"):
        ood.KNN(feature_layer="dense").fit(model, X, from_logits=True)


def test_predictives_have_probabilities_only():
    predictive = Predictive(body(layers.Dense(3, activation="softmax")))
    names = ["msp", "entropy", "gen", "kl_matching"]
    fitted = ood.fit_all(names, predictive, X)
    assert list(ood.score_all(fitted, X)) == names
    np.testing.assert_allclose(fitted[0].score(X), ood.MSP().fit(predictive.model).score(X), rtol=1e-3, atol=1e-3)
    for name in ("energy", "max_logit", "vim"):
        with pytest.raises(ValueError, match=f"{name} needs logits, and this model gives probabilities only"):
            ood.get(name).fit(predictive, X)
    with pytest.raises(ValueError, match="mahalanobis needs features, but Predictive is no Keras model"):
        ood.Mahalanobis().fit(predictive, (X, Y))
    _, scores = ood.Panel(fitted).with_scores(X)
    assert list(scores) == ["mutual_information", *names]
    predictive.model.layers[0].bias.assign(np.ones(10))
    with pytest.raises(ValueError, match="kl_matching was fitted on other weights than 'Predictive' has now"):
        fitted[3].score(X)


def test_head_that_is_not_the_models_is_refused():
    class Odd(layers.Dense):
        def call(self, x, training=None):
            return super().call(x) + keras.ops.sum(x**2, axis=-1, keepdims=True) * keras.ops.arange(3, dtype="float32")

    model = body(Odd(3))
    with pytest.raises(ValueError, match=r"times its weights, should be the logits of .*, but differs by"):
        ood.Energy().fit(model).score(X)


def test_features_that_are_not_finite_are_refused():
    model = body(layers.Dense(3))
    x = X.copy()
    model.layers[-1].kernel.assign(np.where(np.arange(10)[:, None] == 0, 0.0, model.layers[-1].kernel))
    model.layers[0].kernel.assign(np.where(np.arange(10) == 0, 3e38, model.layers[0].kernel))
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        ood.KNN().fit(model, x)


# --- feature_layer ----------------------------------------------------------------------------------------------------


def conv_model():
    return sequential(
        layers.Conv2D(8, 3, name="first"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="relu"),
        layers.Conv2D(7, 3, activation="relu", name="second"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(9, activation="relu", name="hidden"),
        layers.Dense(3, name="logits"),
        layers.Softmax(name="probabilities"),
        shape=(8, 8, 2),
    )


IMAGES = np.random.RandomState(2).randn(50, 8, 8, 2).astype("float32")


def test_named_layer_gives_the_features_averaged_over_positions():
    model = conv_model()
    batch = Features(model, "relu").batch(IMAGES)
    expected = np.asarray(keras.Model(model.inputs[0], model.get_layer("relu").output)(IMAGES)).mean((1, 2))
    np.testing.assert_allclose(batch.features, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(batch.logits, Predictor(model)(IMAGES))
    assert Features(model, "relu").linear is None
    assert Features(model, "hidden").linear.weights.shape == (9, 3)  # what the head reads


def test_named_layer_works_where_there_is_no_linear_head():
    model = NO_HEAD["relu between"][0]()
    assert np.isfinite(ood.KNN(feature_layer="hidden").fit(model, X).score(X)).all()
    np.testing.assert_array_equal(Features(model, "hidden").batch(X).logits, Predictor(model)(X))


def test_detectors_that_need_the_head_refuse_other_layers():
    model, y = conv_model(), np.arange(50) % 3
    for name, cls in ood.DETECTORS.items():
        if "head" in cls.needs:
            with pytest.raises(ValueError, match=f"{name} needs features that the model's last linear layer.*'relu'"):
                cls(feature_layer="relu").fit(model, (IMAGES, y))
        elif "features" in cls.needs:
            assert cls(feature_layer="relu").fit(model, (IMAGES, y)).score(IMAGES).shape == (50,)


def test_unknown_feature_layer_is_refused():
    with pytest.raises(
        ValueError, match=r"Received: 'rule', called 0 times. The model's layers: 'first', 'norm', 'relu'"
    ):
        Features(conv_model(), "rule")


@pytest.mark.parametrize("layer", [None, "relu", "pool", "second"])
def test_masked_model_and_its_ticket_have_the_same_features(layer):
    masked = tfprune.wrap(conv_model())
    tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio=0.5))
    features = [Features(model, layer).batch(IMAGES).features for model in (masked, tfprune.shrink(masked))]
    assert features[0].shape == (50, {"relu": 4, None: 4}.get(layer, 3))
    np.testing.assert_allclose(*features, rtol=1e-4, atol=1e-5)
    data = (IMAGES, np.arange(50) % 3)
    for detector in (ood.Mahalanobis, ood.KNN):
        scores = [detector(feature_layer=layer).fit(m, data).score(IMAGES) for m in (masked, tfprune.shrink(masked))]
        np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-4)


def test_detectors_of_several_layers_score_together():
    model = conv_model()
    detectors = [ood.KNN(feature_layer="relu", name="knn_relu"), ood.KNN(), ood.Energy()]
    fitted = ood.fit_all(detectors, model, IMAGES)
    scores = ood.score_all(fitted, IMAGES)
    for name, detector in zip(scores, fitted, strict=True):
        np.testing.assert_allclose(scores[name], detector.score(IMAGES), rtol=1e-5, atol=1e-6)
    assert not np.allclose(scores["knn"], scores["knn_relu"])


def test_several_inputs():
    a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b")
    model = keras.Model([a, b], layers.Dense(3, activation="softmax")(layers.Concatenate()([a, b])))
    x = [X, X[:, :2]]
    detectors = ood.fit_all(["knn", "odin", "energy"], model, (x, Y))
    first = ood.score_all(detectors, (x, Y))
    data = tf.data.Dataset.from_tensor_slices(({"a": X, "b": X[:, :2]}, Y)).batch(60)
    second = ood.score_all(detectors, data)
    for name, scores in first.items():
        np.testing.assert_allclose(scores, second[name], rtol=1e-5, atol=1e-6)


# --- health -----------------------------------------------------------------------------------------------------------


def test_health_by_hand():
    features = np.array([[0, 1, 2, 3.0], [0, 1, 0, 0], [0, 1, 4, 6], [0, 1, 6, 9]])
    logits = np.eye(3)[[0, 0, 0, 1]]
    report = health_report(features, logits, np.array([0, 0, 1, 0]))
    assert report == {
        "num_samples": 4,
        "num_features": 4,
        "num_dead": 1,
        "num_constant": 1,
        "rank": 1,
        "effective_rank": pytest.approx(1.0),
        "condition_number": pytest.approx(1.0),
        "zero_norm_share": 0.0,
        "predicted_counts": [3, 1, 0],
        "classes_never_predicted": [2],
        "class_counts": [3, 1, 0],
        "classes_without_samples": [2],
        "classes_without_correct_samples": [1, 2],
        "warnings": [
            "1 of 4 channels are dead (zero in every sample)",
            "1 of 4 channels are constant",
            "classes [2] are never predicted",
            "classes [2] have no samples",
            "classes [1, 2] have no correctly classified samples",
            "the features that vary span 1 directions only, of 2",
        ],
    }
    lines = str(report).splitlines()
    assert lines[1].split() == ["num_features", "4"]
    assert lines[-1] == "warning: the features that vary span 1 directions only, of 2"
    assert json.loads(json.dumps(report))["rank"] == 1


def test_health_of_good_features_warns_of_nothing():
    r = np.random.RandomState(0)
    report = health_report(r.randn(500, 4) * [1, 1, 1, 2], r.randn(500, 3), r.randint(0, 3, 500))
    assert report["warnings"] == []
    assert report["rank"] == 4
    assert report["condition_number"] == pytest.approx(4, rel=0.3)
    assert 3.5 < report["effective_rank"] < 4
    dead = health_report(np.zeros((3, 2)))
    assert (dead["rank"], dead["effective_rank"], dead["condition_number"]) == (0, 0.0, None)
    assert dead["zero_norm_share"] == 1.0
    assert "100.0% of the samples have no feature above zero" in str(dead)


def test_rank_does_not_count_rounding():
    r = np.random.RandomState(0)
    features = (r.randn(400, 3) @ r.randn(3, 30) + 5).astype("float32")
    assert health_report(features)["rank"] == 3
    constant = (5 + 1e-7 * r.randn(400, 30)).astype("float32")
    assert health_report(constant)["rank"] == 0
    small = 1e-12 * r.randn(400, 3)
    assert health_report(small)["rank"] == 3  # small is not constant
    assert covariance.whitening(features - features.mean(0), 1e3).shape == (30, 3)


def test_detectors_report_the_health_of_their_data():
    model = body(layers.Dense(3))
    kernel, bias = model.layers[0].get_weights()
    model.layers[0].set_weights([kernel, np.where(np.arange(10) < 4, -100.0, bias)])
    detector = ood.Mahalanobis().fit(model, (X, np.where(Y == 2, 1, Y)))
    assert detector.health["num_dead"] == 4
    assert detector.health["classes_without_samples"] == [2]
    assert "4 of 10 channels are dead" in detector.health["warnings"][0]
    assert ood.KNN().fit(model, (X, Y)).health.get("class_counts") is None  # labels are not looked at


# --- files, hashes and leaks ------------------------------------------------------------------------------------------


def test_files_hold_no_pickle_and_are_checked(tmp_path):
    model = body(layers.Dense(3))
    detector = ood.KNN().fit(model, X)
    detector.save(tmp_path / "a.1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.1.json", "a.1.npz"]
    with np.load(tmp_path / "a.1.npz", allow_pickle=False) as stored:
        assert stored.files == ["bank"]
    about = json.loads((tmp_path / "a.1.json").read_text())
    assert about["detector"] == "knn"
    assert about["choices"] == {"num_neighbors": 10}
    with pytest.raises(ValueError, match="path must have no suffix"):
        detector.save(tmp_path / "a.npz")
    ood.KNN().fit(model, X[:30]).save(tmp_path / "b")
    (tmp_path / "b.npz").rename(tmp_path / "a.1.npz")
    with pytest.raises(ValueError, match="were not written together"):
        ood.load(tmp_path / "a.1", model)
    with pytest.raises(FileNotFoundError):
        ood.load(tmp_path / "b", model)
    (tmp_path / "a.1.json").write_text(json.dumps({**about, "format": 7}))
    with pytest.raises(ValueError, match=r"must be of format 1. Received: 7"):
        ood.load(tmp_path / "a.1", model)
    with pytest.raises(ValueError, match="knn is not fitted"):
        ood.KNN().save(tmp_path / "c")
    assert not (tmp_path / "c.npz").exists()


def test_crash_while_writing_leaves_the_old_files(tmp_path, monkeypatch):
    model = body(layers.Dense(3))
    detector = ood.KNN().fit(model, X)
    detector.save(tmp_path / "a")
    expected = detector.score(X)

    def crash(*_):
        raise OSError("no space left")

    monkeypatch.setattr("tfprune.writing.os.replace", crash)
    with pytest.raises(OSError, match="no space left"):
        ood.KNN(num_neighbors=3).fit(model, X).save(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.npz"]
    np.testing.assert_array_equal(ood.load(tmp_path / "a", model).score(X), expected)


class Length(ood.Detector):
    """A detector of one's own."""

    name, needs = "length", ("features",)

    def scores(self, batch):
        return np.linalg.norm(batch.features, axis=1)


def test_detectors_of_ones_own_work_beside_others(tmp_path):
    model = body(layers.Dense(3))
    fitted = ood.fit_all([Length(), "energy"], model)
    scores = ood.score_all(fitted, X)
    expected = np.linalg.norm(Features(model).batch(X).features, axis=1)
    np.testing.assert_allclose(scores["length"], expected, rtol=1e-6)
    fitted[0].save(tmp_path / "length")
    with pytest.raises(ValueError, match=r"'length', which tfprune does not know. Make one.*restore"):
        ood.load(tmp_path / "length", model)
    again = Length()
    ood.restore(again, *ood.read(tmp_path / "length"))
    np.testing.assert_array_equal(again.bind(model).score(X), fitted[0].score(X))


def test_weights_hash_knows_weights_and_not_names():
    model = body(layers.Dropout(0.5), layers.Dense(3))
    same = keras.models.clone_model(model)
    same.set_weights(model.get_weights())
    assert weights_hash(same) == weights_hash(model)
    model(X, training=True)  # the state of dropout is no weight
    assert weights_hash(same) == weights_hash(model)
    model.layers[-1].bias.assign_add([0.0, 0.0, 1e-3])
    assert weights_hash(same) != weights_hash(model)
    assert weights_hash(object()) is None


def test_leak_guard_finds_the_data_of_detectors():
    model = body(layers.Dense(3))
    fitted = ood.fit_all(["knn", "msp", "vim"], model, X[:40])
    fingerprints = [found for detector in fitted for found in find_fingerprints(detector)]
    assert {found.owner for found in fingerprints} <= {"KNN detector", "ViM detector"}
    assert fingerprints
    assert check_leak(fingerprints, Fingerprint.of(X[40:])) == 0.0
    with pytest.raises(LeakError):
        check_leak(fingerprints, Fingerprint.of(X[30:]))
