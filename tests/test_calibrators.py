"""Do calibrators find the best fit there is, survive saturation and saving, and become part of any model?"""

import subprocess
import sys

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import tfprune
from tfprune import metrics
from tfprune.metrics.scores import log_softmax, softmax
from tfprune.predictions import Predictor
from tfprune.structure.head import find_head
from tfprune.uncertainty.calibrators import (
    CalibratedPredictive,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
    scaling,
)
from tfprune.uncertainty.leak import Fingerprint, LeakError, check_leak, find_fingerprints
from tfprune.uncertainty.predictive import Predictive, uncertainty_of
from tfprune.verification.golden import classifier_a, classifier_b

CALIBRATORS = {
    "temperature": TemperatureScaling,
    "vector": VectorScaling,
    "matrix": lambda **kwargs: MatrixScaling(regularization=1.0, bias_regularization=0.5, **kwargs),
    "isotonic": IsotonicCalibration,
    "histogram": lambda **kwargs: HistogramBinning(num_bins=7, **kwargs),
}
every_calibrator = pytest.mark.parametrize("make", CALIBRATORS.values(), ids=CALIBRATORS)


def draw(num_samples, num_classes, factor=2.0, seed=0):
    """Logits that are `factor` times what they should be, and labels."""
    r = np.random.RandomState(seed)
    z = 1.5 * r.randn(num_samples, num_classes)
    y = np.array([r.choice(num_classes, p=p) for p in softmax(z)])
    return factor * z, y


def calibrated(calibrator, logits):
    return np.asarray(calibrator(np.asarray(logits)), dtype=np.float64)


# --- temperature ------------------------------------------------------------------------------------------------------


def test_temperature_of_golden_data():
    z, y = classifier_a()
    temperature = TemperatureScaling().fit_logits(z, y).temperature
    assert temperature == pytest.approx(1.992509264920, abs=1e-12)
    assert metrics.nll(z / temperature, y) == pytest.approx(1.325179820974, abs=1e-12)
    assert metrics.ece(softmax(z / temperature), y) == pytest.approx(0.0169881, abs=6e-8)
    z, y = classifier_b()
    temperature = TemperatureScaling().fit_logits(z, y).temperature
    assert temperature == pytest.approx(1.8426103, abs=6e-8)
    assert metrics.nll(z / temperature, y) == pytest.approx(1.5917566, abs=6e-8)
    assert metrics.ece(softmax(z / temperature), y) == pytest.approx(0.2172714, abs=6e-8)


@pytest.mark.parametrize("factor", [1e-3, 0.05, 0.25, 0.5, 1, 2, 5, 10, 20, 1e3])
def test_temperature_converges_wherever_it_lies(factor):
    z, y = classifier_a()
    expected = 1.992509264920 / 2 * factor
    assert TemperatureScaling().fit_logits(z / 2 * factor, y).temperature == pytest.approx(expected, rel=1e-11)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(2, 300), st.floats(-3, 3), st.integers(0, 100))
def test_temperature_is_the_one_scipy_finds(num_classes, num_samples, log_factor, seed):
    z, y = draw(num_samples, num_classes, np.exp(log_factor), seed)
    rows = np.arange(num_samples)

    def slope(b):  # written another way than the package does, on purpose
        p = scipy.special.softmax(b * z, axis=1)
        return np.mean((p * z).sum(1) - z[rows, y])

    try:
        found = 1 / TemperatureScaling().fit_logits(z, y).temperature
    except ValueError:
        everything_right = np.all(z[rows, y] == z.max(axis=1))
        assert len(np.unique(y)) == 1 or everything_right or slope(0.0) >= 0
        return
    loss = lambda b: scipy.special.logsumexp(b * z, axis=1).mean() - b * z[rows, y].mean()  # noqa: E731
    bounds = (0.1 * found, 10 * found)
    # A function is flat at its minimum: comparing values tells 8 digits of where it lies, its slope tells more.
    coarse = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9 * found}).x
    fine = scipy.optimize.brentq(slope, *bounds, xtol=1e-14 * found, rtol=1e-14)
    assert found == pytest.approx(coarse, rel=1e-5)
    assert found == pytest.approx(fine, rel=1e-9)


def test_temperature_derivatives_are_those_of_the_likelihood():
    z, y = draw(50, 4)
    first, second = scaling.temperature_derivatives(z, y, 0.7)
    loss = lambda b: metrics.nll(b * z, y)  # noqa: E731
    assert first == pytest.approx((loss(0.7 + 1e-5) - loss(0.7 - 1e-5)) / 2e-5, rel=1e-6)
    assert second == pytest.approx((loss(0.7 + 1e-3) - 2 * loss(0.7) + loss(0.7 - 1e-3)) / 1e-6, rel=1e-4)


def test_temperature_takes_few_passes_and_adds_up_blocks(monkeypatch):
    z, y = classifier_a()
    passes, derivatives = [], scaling.temperature_derivatives
    monkeypatch.setattr(scaling, "_BLOCK", 33)
    monkeypatch.setattr(scaling, "temperature_derivatives", lambda *args: passes.append(args[2]) or derivatives(*args))
    assert TemperatureScaling().fit_logits(z, y).temperature == pytest.approx(1.992509264920, abs=1e-12)
    assert len(passes) <= 12


@pytest.mark.parametrize("cls", [TemperatureScaling, VectorScaling, MatrixScaling])
def test_separable_samples_are_refused(cls):
    z = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="No scaling is best: all 4 validation samples"):
        cls().fit_logits(z, [0, 1, 2, 0])


def test_logits_worse_than_none_are_refused():
    z, y = draw(200, 3)
    with pytest.raises(ValueError, match=r"infinite temperature\. Do the labels belong"):
        TemperatureScaling().fit_logits(-z, y)


def test_temperature_keeps_the_predicted_class():
    z, y = draw(300, 5)
    assert np.array_equal(calibrated(TemperatureScaling().fit_logits(z, y), z).argmax(1), z.argmax(1))


# --- vector and matrix ------------------------------------------------------------------------------------------------


def test_vector_scaling_is_the_optimum_torch_finds():
    torch = pytest.importorskip("torch")
    z, y = draw(400, 4, factor=3.0)
    logits, labels = torch.tensor(z), torch.tensor(y)
    scale = torch.ones(4, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    loss = lambda: torch.nn.functional.cross_entropy(logits * scale + bias, labels)  # noqa: E731
    value = _torch_minimum(torch, [scale, bias], loss)
    found = VectorScaling().fit_logits(z, y)
    assert metrics.nll(calibrated(found, z), y) == pytest.approx(value, abs=1e-7)
    assert np.asarray(found.scale) == pytest.approx(scale.detach().numpy(), abs=1e-5)
    # a number added to all biases changes nothing
    biases = np.asarray(found.bias), bias.detach().numpy()
    assert biases[0] - biases[0].mean() == pytest.approx(biases[1] - biases[1].mean(), abs=1e-5)


@pytest.mark.parametrize(("off_diagonal", "on_bias"), [(0.01, 0.5), (10.0, 0.0), (0.0, 0.1)])
def test_matrix_scaling_is_the_optimum_torch_finds(off_diagonal, on_bias):
    torch = pytest.importorskip("torch")
    z, y = draw(400, 4, factor=3.0)
    logits, labels, others = torch.tensor(z), torch.tensor(y), torch.tensor(1 - np.eye(4))
    kernel = torch.eye(4, dtype=torch.float64).requires_grad_()
    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)

    def loss():
        penalty = off_diagonal * (others * kernel**2).sum() / 12 + on_bias * (bias**2).mean()
        return torch.nn.functional.cross_entropy(logits @ kernel + bias, labels) + penalty

    _torch_minimum(torch, [kernel, bias], loss)
    found = MatrixScaling(off_diagonal, on_bias).fit_logits(z, y)
    expected = softmax((logits @ kernel + bias).detach().numpy())
    assert softmax(calibrated(found, z)) == pytest.approx(expected, abs=1e-5)
    if off_diagonal:  # otherwise a column added to all columns changes nothing
        assert np.asarray(found.kernel) == pytest.approx(kernel.detach().numpy(), abs=1e-5)


def _torch_minimum(torch, parameters, loss):
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=2000, tolerance_grad=1e-10, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def step():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(step)
    assert max(parameter.grad.abs().max() for parameter in parameters) < 1e-7
    return float(loss().detach())


def test_matrix_scaling_without_penalty_is_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    z, y = draw(500, 3, factor=2.0)
    reference = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000).fit(z, y)
    found = MatrixScaling(regularization=0, bias_regularization=0).fit_logits(z, y)
    assert softmax(calibrated(found, z)) == pytest.approx(reference.predict_proba(z), abs=1e-5)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("make", [VectorScaling, lambda: MatrixScaling(0, 0)], ids=["vector", "matrix"])
def test_slope_is_zero_at_the_fit_whatever_the_size_of_the_logits(make, size):
    z, y = draw(600, 5)
    found = make().fit_logits(size * z, y)
    out = np.asarray(found.calibrate(tf.constant(size * z)))
    residual = softmax(out) - np.eye(5)[y]
    assert np.abs(z.T @ residual / 600).diagonal() == pytest.approx(0, abs=1e-6)
    assert residual.mean(axis=0) == pytest.approx(0, abs=1e-6)
    if isinstance(found, MatrixScaling):
        assert z.T @ residual / 600 == pytest.approx(0, abs=1e-6)


def test_more_parameters_fit_the_validation_set_better_and_strong_penalties_shrink_the_matrix():
    z, y = draw(400, 5, factor=2.5)
    z = z + 0.4 * np.arange(5)  # biased, too
    nll = [
        metrics.nll(calibrated(make().fit_logits(z, y), z), y)
        for make in (TemperatureScaling, VectorScaling, lambda: MatrixScaling(0, 0))
    ]
    assert metrics.nll(z, y) > nll[0] > nll[1] > nll[2]
    strong = MatrixScaling(1e9, 1e9).fit_logits(z, y)
    assert np.asarray(strong.bias) == pytest.approx(0, abs=1e-6)
    kernel = np.asarray(strong.kernel)
    assert kernel - np.diag(np.diag(kernel)) == pytest.approx(0, abs=1e-6)


def test_class_without_samples_is_refused_unless_penalised():
    z, y = draw(200, 4)
    y = np.where(y == 2, 0, y)
    for make in (VectorScaling, lambda: MatrixScaling(0, 0), lambda: MatrixScaling(1.0, 0)):
        with pytest.raises(ValueError, match=r"needs samples of every class.*Received: no label \[2\]"):
            make().fit_logits(z, y)
    for make in (MatrixScaling, TemperatureScaling, IsotonicCalibration, HistogramBinning):
        assert np.all(np.isfinite(calibrated(make().fit_logits(z, y), z)))


def test_samples_that_only_a_matrix_separates_are_refused_without_penalty():
    z = np.random.RandomState(0).randn(4, 5)
    y = [0, 1, 2, 3]
    z, y = np.vstack([z, 9 * np.eye(5)[[4]]]), [*y, 4]
    assert not np.array_equal(z.argmax(1), y)
    with pytest.raises(ValueError, match="No scaling is best"):
        MatrixScaling(0, 0).fit_logits(z, y)
    assert np.all(np.isfinite(calibrated(MatrixScaling(1.0, 1.0).fit_logits(z, y), z)))


@pytest.mark.parametrize("value", [-1, np.nan, np.inf, "strong", True])
def test_penalties_that_are_none_are_refused(value):
    with pytest.raises(ValueError, match=r"regularization must be a number of at least 0\. Received: regularization="):
        MatrixScaling(regularization=value)
    with pytest.raises(ValueError, match="bias_regularization must be"):
        MatrixScaling(bias_regularization=value)


# --- isotonic and histogram -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_isotonic_equals_scikit_learn_for_each_class(num_classes):
    from sklearn.isotonic import IsotonicRegression

    (z, y), (other, _) = draw(500, num_classes), draw(400, num_classes, seed=1)
    p, q = softmax(z), softmax(other)
    columns = [
        IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p[:, k], y == k).predict(q[:, k])
        for k in range(num_classes)
    ]
    expected = np.stack(columns, axis=1)
    expected = expected / expected.sum(axis=1, keepdims=True)
    got = softmax(calibrated(IsotonicCalibration(dtype="float64").fit_logits(z, y), other))
    assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_binning_equals_netcal(num_classes):
    binning = pytest.importorskip("netcal.binning")
    (z, y), (other, _) = draw(600, num_classes), draw(400, num_classes, seed=1)
    p, q = softmax(z), softmax(other)
    p, q = (p[:, 1], q[:, 1]) if num_classes == 2 else (p, q)
    references = {IsotonicCalibration: binning.IsotonicRegression(), HistogramBinning: binning.HistogramBinning(15)}
    for cls, reference in references.items():
        reference.fit(p, y)
        expected = reference.transform(q)
        got = softmax(calibrated(cls(dtype="float64").fit_logits(z, y), other))
        # netcal gives NaN where every class gets 0
        known = np.isfinite(expected).reshape(400, -1).all(axis=1)
        assert known.mean() > 0.9
        got = got[:, 1] if num_classes == 2 else got
        assert got[known] == pytest.approx(expected[known], abs=1e-7)


def test_histogram_by_hand():
    # Probabilities of class 1, in four bins: .1 .2 | .3 | (none) | .8 .9 1.0
    p = np.array([0.1, 0.2, 0.3, 0.8, 0.9, 1.0 - 1e-12])
    y = np.array([0, 1, 0, 1, 0, 1])
    logit = np.log(p / (1 - p))
    found = HistogramBinning(num_bins=4, dtype="float64").fit_logits(logit, y)
    assert np.asarray(found.frequencies).tolist() == [pytest.approx([0.5, 0.0, 0.625, 2 / 3])]
    asked = np.array([[0.05], [0.25], [0.6], [0.75]])
    got = 1 / (1 + np.exp(-calibrated(found, np.log(asked / (1 - asked)))))
    assert got[:, 0] == pytest.approx([0.5, 0.0, 0.625, 2 / 3])


def test_isotonic_by_hand():
    # 0 1 | 0 | 1: the second and third sample violate the order and share their mean.
    p = np.array([0.2, 0.4, 0.6, 0.8])
    found = IsotonicCalibration(dtype="float64").fit_logits(np.log(p / (1 - p)), [0, 1, 0, 1])
    asked = np.array([[0.1], [0.2], [0.3], [0.5], [0.7], [0.9]])
    got = 1 / (1 + np.exp(-calibrated(found, np.log(asked / (1 - asked)))))
    assert got[:, 0] == pytest.approx([0.0, 0.0, 0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize("cls", [IsotonicCalibration, HistogramBinning])
def test_sample_without_any_probability_keeps_the_one_it_had(cls):
    # Classes 0 to 2 occur at 0.94 only, never at 0.33 or below, and class 3 at 0.33 only, never at 0.02.
    sure, unsure = np.full((3, 4), 0.02) + 0.92 * np.eye(4)[:3], np.full((3, 4), 0.33) - 0.32 * np.eye(4)[:3]
    p = np.vstack([sure, unsure])
    found = (cls(num_bins=4) if cls is HistogramBinning else cls()).fit_logits(np.log(p), [0, 1, 2, 3, 3, 3])
    assert softmax(calibrated(found, np.log(p))) == pytest.approx(np.eye(4)[[0, 1, 2, 3, 3, 3]], abs=1e-6)
    asked = np.array([[0.328, 0.328, 0.328, 0.016]])
    assert softmax(calibrated(found, np.log(asked))) == pytest.approx(asked, abs=1e-6)


# --- what all have in common ------------------------------------------------------------------------------------------


@every_calibrator
@pytest.mark.parametrize("num_classes", [2, 3, 50])
def test_saturated_logits_give_finite_probabilities_that_sum_to_one(make, num_classes):
    y = np.tile(np.arange(num_classes), 4)
    predicted = np.where(np.arange(len(y)) < 3 * num_classes, y, (y + 1) % num_classes)
    z = 1e4 * (2 * np.eye(num_classes)[predicted] - 1)
    found = make().fit_logits(z, y)
    for asked in (z, -z, 0 * z, 1e-30 * z, np.eye(num_classes) * 1e4):
        out = calibrated(found, asked)
        assert np.all(np.isfinite(out))
        p = np.asarray(keras.ops.softmax(np.float32(out)))
        assert np.all(np.isfinite(p))
        assert p.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


@every_calibrator
def test_calibration_improves_the_likelihood_of_an_over_confident_model(make):
    (z, y), (other, labels) = draw(3000, 4, factor=3.0), draw(3000, 4, factor=3.0, seed=1)
    found = make().fit_logits(z, y)
    out = calibrated(found, other)
    assert metrics.nll(out, labels) < metrics.nll(other, labels)
    assert metrics.ece(softmax(out), labels) < 0.5 * metrics.ece(softmax(other), labels)


@every_calibrator
def test_unfitted_calibrator_is_refused(make):
    calibrator, model = make(), network(layers.Dense(3))
    for use in (lambda: calibrator(np.zeros((2, 3))), lambda: calibrator.attach(model), lambda: calibrator.copy()):
        with pytest.raises(ValueError, match=r"is not fitted. Call \w+\(\)\.fit\(model, validation\) first"):
            use()
    with pytest.raises(ValueError, match="is not fitted"):
        calibrator(keras.Input((3,)))


@every_calibrator
def test_other_numbers_of_classes_are_refused(make):
    found = make().fit_logits(*draw(300, 4))
    with pytest.raises(ValueError, match=r"was fitted on 4 classes .*Received: shape \(2, 3\)"):
        found(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="was fitted on 4 classes"):
        found.attach(network(layers.Dense(3)))
    with pytest.raises(ValueError, match="was fitted on 4 classes"):
        found.attach(Mean([network(layers.Dense(3, activation="softmax"))])).predict(np.zeros((2, 6), "float32"))


@every_calibrator
def test_data_that_nothing_can_be_learned_from_are_refused(make):
    z, y = draw(10, 3)
    with pytest.raises(ValueError, match=r"at least two classes. Received: 1 sample\(s\), all of class 1"):
        make().fit_logits(z[:1], [1])
    with pytest.raises(ValueError, match=r"Received: 10 sample\(s\), all of class 2"):
        make().fit_logits(z, np.full(10, 2))
    with pytest.raises(ValueError, match=r"Expected a label for each of the 10 logits\. Received: 9"):
        make().fit_logits(z, y[:9])
    with pytest.raises(ValueError, match="Logits must be finite"):
        make().fit_logits(np.where(z == z.max(), np.inf, z), y)
    with pytest.raises(ValueError, match=r"Labels must be in \[0, 3\)"):
        make().fit_logits(z, y + 2)
    with pytest.raises(ValueError, match="is fitted already"):
        make().fit_logits(*draw(300, 3)).fit_logits(*draw(300, 3))


@every_calibrator
def test_one_hot_labels_equal_integer_labels(make):
    z, y = draw(200, 3)
    assert np.array_equal(calibrated(make().fit_logits(z, y), z), calibrated(make().fit_logits(z, np.eye(3)[y]), z))


@every_calibrator
def test_one_column_gives_one_column_that_means_the_same(make):
    r = np.random.RandomState(0)
    z = 4 * r.randn(500, 1)
    y = (r.rand(500, 1) < 1 / (1 + np.exp(-z / 2 - 0.3))).astype(int)
    column, both = make().fit_logits(z, y), make().fit_logits(np.hstack([0 * z, z]), y)
    asked = 4 * r.randn(100, 1)
    out = calibrated(column, asked)
    assert out.shape == (100, 1)
    assert metrics.nll(out, r.randint(0, 2, 100)) > 0
    two = calibrated(both, np.hstack([0 * asked, asked]))
    assert softmax(out) == pytest.approx(softmax(two), abs=1e-5)


@every_calibrator
def test_config_round_trip(make):
    for layer in (make(name="mine"), make(name="mine", dtype="float64").fit_logits(*draw(300, 3))):
        config = layer.get_config()
        assert type(layer).from_config(config).get_config() == config
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(restored) is type(layer)
    assert restored.get_config() == config


@every_calibrator
def test_weights_are_not_trained(make):
    attached, x, _ = fitted_and_attached(make)
    calibrator = attached.layers[-2]
    before = [np.array(weight) for weight in calibrator.get_weights()]
    assert not calibrator.trainable_weights
    attached.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    attached.fit(x, np.zeros(len(x)), epochs=1, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, calibrator.get_weights(), strict=True))


# --- attached to a model ----------------------------------------------------------------------------------------------

X, Y = np.random.RandomState(0).randn(300, 6).astype("float32"), np.random.RandomState(1).randint(0, 3, 300)


def network(*tail, num_inputs=6):
    """A model that is right more often than not about X and TEACHER's labels, and too sure of itself."""
    return keras.Sequential([keras.Input((num_inputs,)), layers.Dense(8, activation="tanh", name="hidden"), *tail])


def labels_for(model, num_classes=3):
    """Labels that the model is over-confident about: drawn from half its logits."""
    z = Predictor(model)(X) / 2
    return np.array([np.random.RandomState(i).choice(z.shape[1], p=p) for i, p in enumerate(softmax(z))])


def large(units, **kwargs):
    return layers.Dense(units, kernel_initializer=keras.initializers.RandomNormal(stddev=1.5, seed=3), **kwargs)


def fitted_and_attached(make):
    model = network(large(3, activation="softmax"))
    y = labels_for(model)
    return make().fit(model, (X, y)).attach(model), X, y


@every_calibrator
def test_attached_model_is_evaluated_by_its_calibrated_logits(make):
    model = network(large(3, activation="softmax"))
    y = labels_for(model)
    calibrator = make().fit(model, (X[:150], y[:150]))
    attached = calibrator.attach(model)
    logits = calibrated(calibrator, Predictor(model)(X[150:]))
    row = tfprune.evaluate(attached, (X[150:], y[150:]))
    assert find_head(attached) == "softmax"
    assert row["nll_epsilon"] is None  # the logits were found
    assert row["nll"] == pytest.approx(metrics.nll(logits, y[150:]), rel=1e-5)
    assert row["ece"] == pytest.approx(metrics.ece(softmax(logits), y[150:]), abs=1e-5)
    assert row["multiply_adds"] == 6 * 8 + 8 * 3 + (9 if "matrix" in calibrator.name else 0)
    p = attached.predict(X[150:], verbose=0)
    assert p == pytest.approx(softmax(logits), abs=1e-5)


def activation_head():
    return network(large(3), layers.Softmax())


def nested_head():
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dropout(0.5)(activation_head()(inputs)))


def masked_head():
    model = tfprune.wrap(network(large(3, activation="softmax")))
    tfprune.set_masks(model, tfprune.compute_masks(model, 0.5))
    return model


def dictionary_head():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    return keras.Model({"a": a, "b": b}, large(3, activation="softmax")(layers.Concatenate()([a, b])))


HEADS = {
    "inside": lambda: network(large(3, activation="softmax")),
    "softmax layer": activation_head,
    "logits": lambda: network(large(3)),
    "log-softmax": lambda: network(large(3, activation="log_softmax")),
    "nested": nested_head,
    "masked": masked_head,
    "ticket": lambda: tfprune.shrink(masked_head()),
    "sigmoid": lambda: network(large(1, activation="sigmoid")),
    "one logit": lambda: network(large(1)),
    "reshaped": lambda: network(layers.Reshape((1, 8)), large(3, activation="softmax"), layers.Flatten()),
}


@pytest.mark.parametrize("head", HEADS)
def test_attached_model_saves_loads_and_leaves_the_model_alone(head, tmp_path):
    model = HEADS[head]()
    y = labels_for(model)
    before, weights = model.predict(X, verbose=0), [np.array(w) for w in model.get_weights()]
    calibrator = TemperatureScaling().fit(model, (X, y))
    attached = calibrator.attach(model)
    expected = softmax(Predictor(model)(X) / calibrator.temperature)
    expected = expected[:, 1:] if before.shape[1] == 1 else expected
    assert calibrator.temperature == pytest.approx(2.0, rel=0.4)
    assert attached.predict(X, verbose=0) == pytest.approx(expected, abs=1e-5)
    attached.save(tmp_path / "attached.keras")
    loaded = keras.saving.load_model(tmp_path / "attached.keras", safe_mode=True)
    assert np.array_equal(loaded.predict(X, verbose=0), attached.predict(X, verbose=0))
    assert find_fingerprints(loaded) == find_fingerprints(attached) == [Fingerprint.of(X)]
    # the new model has layers of its own
    for weight in attached.weights:
        weight.assign(keras.ops.zeros_like(weight))
    assert np.array_equal(model.predict(X, verbose=0), before)
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))


@every_calibrator
def test_saved_weights_are_kept_to_the_last_digit(make, tmp_path):
    attached, _, _ = fitted_and_attached(make)
    attached.save(tmp_path / "attached.keras")
    loaded = keras.saving.load_model(tmp_path / "attached.keras", safe_mode=True)
    for old, new in zip(attached.layers[-2].weights, loaded.layers[-2].weights, strict=True):
        assert keras.backend.standardize_dtype(new.dtype) == "float64"
        assert np.array_equal(np.asarray(old.value), np.asarray(new.value))
    assert loaded.layers[-2].get_config() == attached.layers[-2].get_config()


def test_model_of_several_inputs_is_calibrated():
    model = dictionary_head()
    x = {"a": X, "b": X[::-1].copy()}
    z = Predictor(model)(x)
    y = np.array([np.random.RandomState(i).choice(3, p=p) for i, p in enumerate(softmax(z / 2))])
    calibrator = TemperatureScaling().fit(model, (x, y))
    got = calibrator.attach(model).predict(x, verbose=0)
    assert got == pytest.approx(softmax(z / calibrator.temperature), abs=1e-5)


@every_calibrator
def test_attached_model_evaluates_in_keras_as_it_was_compiled(make):
    model = network(large(3, activation="softmax"))
    y = labels_for(model)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy", metrics.ExpectedCalibrationError()])
    calibrator = make().fit(model, (X, y))
    attached = calibrator.attach(model)
    p = attached.predict(X, verbose=0)
    loss, accuracy, ece = attached.evaluate(X, y, verbose=0)
    assert accuracy == pytest.approx(metrics.accuracy(p, y))
    assert ece == pytest.approx(metrics.ece(p, y), abs=1e-5)
    assert loss == pytest.approx(-np.mean(np.log(np.maximum(p[np.arange(300), y], 1e-7))), rel=1e-4)


def test_model_of_logits_is_not_compiled_like_it_for_it_gives_probabilities_now():
    model = network(large(3))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    attached = TemperatureScaling().fit(model, (X, labels_for(model))).attach(model)
    assert not attached.compiled


@every_calibrator
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_calibrator_computes_in_full_precision_under_a_mixed_policy(make, policy):
    keras.config.set_dtype_policy(policy)
    model = network(large(3, activation="softmax"))
    y = labels_for(model)
    calibrator = make().fit(model, (X, y))
    attached = calibrator.attach(model)
    got = attached(X)
    assert keras.backend.standardize_dtype(got.dtype) == "float32"
    assert np.asarray(got) == pytest.approx(softmax(calibrated(calibrator, Predictor(model)(X))), abs=1e-5)


@every_calibrator
def test_attached_model_runs_in_a_graph_and_compiled_by_xla(make):
    attached, x, _ = fitted_and_attached(make)
    expected = np.asarray(attached(x))
    # A steep step of an isotonic function enlarges the rounding of the logits before it.
    assert np.asarray(tf.function(attached)(x)) == pytest.approx(expected, abs=1e-4)
    assert np.asarray(tf.function(attached, jit_compile=True)(x)) == pytest.approx(expected, abs=1e-4)


@every_calibrator
def test_calibrator_is_carried_through_wrap_and_shrink(make):
    attached, x, _ = fitted_and_attached(make)
    wrapped = tfprune.wrap(attached)
    ticket = tfprune.shrink(wrapped)
    for model in (wrapped, ticket):
        assert model.predict(x, verbose=0) == pytest.approx(attached.predict(x, verbose=0), abs=1e-6)
        assert find_fingerprints(model) == find_fingerprints(attached)


def test_calibrated_model_can_be_calibrated_again():
    attached, x, y = fitted_and_attached(TemperatureScaling)
    again = TemperatureScaling(name=attached.layers[-2].name).fit(attached, (x, y))
    assert again.temperature == pytest.approx(1.0, abs=1e-5)
    assert again.attach(attached).predict(x, verbose=0) == pytest.approx(attached.predict(x, verbose=0), abs=1e-5)


def test_ticket_stays_compared_with_its_dense_model():
    ticket = HEADS["ticket"]()
    attached = TemperatureScaling().fit(ticket, (X[:200], labels_for(ticket)[:200])).attach(ticket)
    ratio = tfprune.evaluate(attached, (X[200:], Y[200:]))["compression_ratio"]
    assert ratio > 1
    assert ratio == pytest.approx(tfprune.evaluate(ticket, (X, Y))["compression_ratio"], rel=0.05)


def test_subclassed_model_is_refused_alone_and_taken_within_a_functional_one():
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = large(3)

        def call(self, inputs):
            return self.dense(inputs * 1.0)

    model = Mine()
    model(X[:1])
    y = np.asarray(softmax(np.asarray(model(X)) / 2)).argmax(axis=1)
    y[:60] = Y[:60]
    calibrator = TemperatureScaling().fit(model, (X, y), from_logits=True)
    with pytest.raises(ValueError, match="Cannot read the graph of the subclassed model"):
        calibrator.attach(model, from_logits=True)
    inputs = keras.Input((6,))
    attached = calibrator.attach(keras.Model(inputs, model(inputs)), from_logits=True)
    expected = softmax(np.asarray(model(X), "float64") / calibrator.temperature)
    assert attached.predict(X, verbose=0) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("units", [1, 3])
def test_probabilities_that_cannot_be_stepped_back_are_calibrated_by_their_logarithm(units):
    inputs = keras.Input((6,))
    z = large(units)(inputs)
    p = (
        1 / (1 + keras.ops.exp(-z))
        if units == 1
        else keras.ops.exp(z - keras.ops.logsumexp(z, axis=(-1,), keepdims=True))
    )
    model, twin = keras.Model(inputs, p), keras.Model(inputs, z)
    y = labels_for(twin)
    with pytest.raises(ValueError, match="Pass from_logits=True if it gives logits"):
        TemperatureScaling().fit(model, (X, y))
    calibrator = TemperatureScaling().fit(model, (X, y), from_logits=False)
    expected = TemperatureScaling().fit(twin, (X, y))
    assert calibrator.temperature == pytest.approx(expected.temperature, rel=1e-3)
    got = calibrator.attach(model, from_logits=False).predict(X, verbose=0)
    assert got == pytest.approx(expected.attach(twin).predict(X, verbose=0), abs=1e-3)


def test_multi_label_model_is_refused():
    calibrator = TemperatureScaling().fit_logits(*draw(100, 3))
    with pytest.raises(ValueError, match="a sigmoid over 3 outputs, which is a multi-label model"):
        calibrator.attach(network(large(3, activation="sigmoid")))


def test_saved_file_loads_in_a_fresh_process(tmp_path):
    attached, x, _ = fitted_and_attached(IsotonicCalibration)
    attached.save(tmp_path / "attached.keras")
    np.save(tmp_path / "x.npy", x)
    code = """if True:
        import sys, keras, numpy as np
        import tfprune.uncertainty
        model = keras.saving.load_model(sys.argv[1] + "/attached.keras", safe_mode=True)
        np.save(sys.argv[1] + "/p.npy", model.predict(np.load(sys.argv[1] + "/x.npy"), verbose=0))
    """
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert np.load(tmp_path / "p.npy") == pytest.approx(attached.predict(x, verbose=0), abs=1e-6)


# --- predictives ------------------------------------------------------------------------------------------------------


class Mean(Predictive):
    """An ensemble as small as can be."""

    def __init__(self, members):
        self.members = members

    def predict_uncertainty(self, x):
        return uncertainty_of([np.asarray(member(x)) for member in self.members])


def two_members():
    return [
        keras.Sequential([keras.Input((6,)), layers.Dense(3, kernel_initializer=initializer, activation="softmax")])
        for initializer in (keras.initializers.RandomNormal(stddev=2, seed=seed) for seed in (1, 2))
    ]


@every_calibrator
def test_predictive_is_pooled_then_calibrated(make):
    ensemble = Mean(two_members())
    pooled = np.log(ensemble.predict(X))
    y = pooled.argmax(axis=1)
    y[:120] = Y[:120]
    calibrator = make().fit(ensemble, (X[:200], y[:200]))
    by_hand = make().fit_logits(pooled[:200], y[:200])
    attached = calibrator.attach(ensemble)
    assert isinstance(attached, CalibratedPredictive)
    assert attached.from_logits is False
    expected = softmax(calibrated(by_hand, pooled))
    assert attached.predict(X) == pytest.approx(expected, abs=1e-6)
    known = attached.predict_uncertainty(X)
    assert known["entropy"] == pytest.approx(metrics.entropy(expected), abs=1e-5)
    assert np.array_equal(known["mutual_information"], ensemble.predict_uncertainty(X)["mutual_information"])
    row = tfprune.evaluate(attached, (X[200:], y[200:]))
    assert row["nll"] == pytest.approx(metrics.nll(np.log(expected[200:]), y[200:]), rel=1e-5)
    assert [found.num_samples for found in find_fingerprints(attached)] == [200]


def test_predictive_that_does_not_say_what_it_gives_is_refused():
    class Unsaid:
        def predict(self, x):
            return np.full((len(x), 3), 1 / 3)

    calibrator = TemperatureScaling().fit_logits(*draw(100, 3))
    with pytest.raises(ValueError, match="Cannot tell whether 'Unsaid' gives logits or probabilities"):
        calibrator.attach(Unsaid())
    assert calibrator.attach(Unsaid(), from_logits=False).predict(X[:2]) == pytest.approx(1 / 3)


# --- the leak guard ---------------------------------------------------------------------------------------------------


@every_calibrator
def test_fitted_calibrator_knows_the_samples_it_was_fitted_on(make):
    model = network(large(3, activation="softmax"))
    y = labels_for(model)
    data = tf.data.Dataset.from_tensor_slices((X[:200], y[:200])).shuffle(200, seed=0).batch(32)
    attached = make(name="mine").fit(model, data).attach(model)
    found = find_fingerprints(attached)
    assert found == [Fingerprint.of(X[:200])]
    with pytest.raises(LeakError, match=r"'mine' was fitted on 50 of the 150 samples to be evaluated \(33\.3%\)"):
        check_leak(found, Fingerprint.of(X[150:]))
    assert check_leak(found, Fingerprint.of(X[200:])) == 0.0


def test_fingerprint_may_be_given_beside_logits():
    z, y = draw(100, 3)
    assert TemperatureScaling().fit_logits(z, y).fingerprints == []
    given = Fingerprint.of(X[:100])
    found = TemperatureScaling(name="mine").fit_logits(z, y, given)
    assert found.fingerprints == [given]
    assert found.fingerprint.owner == "TemperatureScaling 'mine'"
    assert given.owner is None
    assert found.copy().fingerprints == [given]


def test_values_are_those_of_the_float64_log_softmax():
    z, y = draw(100, 3)
    found = HistogramBinning(num_bins=1, dtype="float64").fit_logits(z, y)
    frequencies = np.bincount(y, minlength=3) / 100
    assert calibrated(found, z) == pytest.approx(log_softmax(np.log(np.tile(frequencies, (100, 1)))), abs=1e-12)
