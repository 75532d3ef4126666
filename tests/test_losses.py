"""Does the Gaussian loss give SciPy's likelihood, and do both heads learn the noise that is in the data?"""

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import stats

import tfprune
from tfprune import metrics
from tfprune.losses import ConstantVariance, GaussianNegativeLogLikelihood


def draw(shape=(40,), targets=1, seed=0):
    r = np.random.RandomState(seed)
    y = r.randn(*shape, targets)
    return y, np.concatenate([r.randn(*shape, targets), 2 * r.randn(*shape, targets)], axis=-1)


def reference(y, outputs):
    mean, log_variance = np.split(outputs, 2, axis=-1)
    return -stats.norm.logpdf(y, mean, np.exp(log_variance / 2))


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "targets"), [((40,), 1), ((40,), 3), ((5, 7), 2)])
def test_loss_is_the_negative_log_density_averaged_over_targets(shape, targets):
    y, outputs = draw(shape, targets)
    each = GaussianNegativeLogLikelihood(reduction=None, dtype="float64")(y, outputs)
    np.testing.assert_allclose(each, reference(y, outputs).mean(axis=-1), rtol=1e-12)
    mean = GaussianNegativeLogLikelihood()(y.astype("float32"), outputs.astype("float32"))
    assert float(mean) == pytest.approx(reference(y, outputs).mean(), rel=1e-5)


def test_loss_by_hand():
    # one and two standard deviations off, with variances 1 and 4
    losses = GaussianNegativeLogLikelihood(reduction=None)([[1.0], [4.0]], [[0.0, 0.0], [0.0, np.log(4.0)]])
    half = 0.5 * np.log(2 * np.pi)
    assert np.asarray(losses).tolist() == pytest.approx([half + 0.5, half + 0.5 * np.log(4) + 2.0])


def test_loss_reads_targets_without_a_last_axis_as_one_target():
    y, outputs = draw()
    loss = GaussianNegativeLogLikelihood(reduction=None)
    assert loss(y[:, 0], outputs).shape == (40,)
    np.testing.assert_array_equal(loss(y[:, 0], outputs), loss(y, outputs))


def test_loss_weights_samples():
    y, outputs = draw()
    weight = np.arange(40) % 3
    loss = float(GaussianNegativeLogLikelihood(reduction="sum", dtype="float64")(y, outputs, sample_weight=weight))
    assert loss == pytest.approx(np.sum(weight * reference(y, outputs)[:, 0]), rel=1e-12)


@pytest.mark.parametrize("raw", [-1e4, -200.0, -31.0, 31.0, 200.0, 1e4])
def test_loss_and_gradient_are_finite_and_lead_back_from_a_log_variance_out_of_range(raw):
    import tensorflow as tf

    y, outputs = tf.constant([[1.0]]), tf.Variable([[0.5, raw]])
    with tf.GradientTape() as tape:
        loss = GaussianNegativeLogLikelihood()(y, outputs)
    to_mean, to_log_variance = tape.gradient(loss, outputs).numpy()[0]
    assert np.isfinite([float(loss), to_mean]).all()
    # too small a variance for this error must rise (negative gradient), too large a one must fall
    assert np.isfinite(to_log_variance)
    assert np.sign(to_log_variance) == np.sign(raw)


def test_loss_and_metric_read_one_layout():
    y, outputs = draw(targets=2)
    outputs[:4, 2:] = [[-1e3, 1e3], [-30.0, 30.0], [-31.0, 31.0], [-29.0, 29.0]]
    metric = metrics.GaussianNegativeLogLikelihood(dtype="float64")
    metric.update_state(y, outputs)
    loss = float(GaussianNegativeLogLikelihood(dtype="float64")(y, outputs))
    assert float(metric.result()) == pytest.approx(loss, rel=1e-12)
    assert metrics.gaussian_nll(*metrics.mean_and_std(outputs), y) == pytest.approx(loss, rel=1e-12)


def test_loss_computes_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    y, outputs = draw()
    half = ops.cast(outputs, "bfloat16")
    loss = GaussianNegativeLogLikelihood()(y, half)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    expected = reference(y.astype("float32"), np.asarray(ops.cast(half, "float64"))).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_loss_config_round_trip():
    loss = GaussianNegativeLogLikelihood(reduction="sum", name="mine", dtype="float64")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is GaussianNegativeLogLikelihood
    assert again.get_config() == loss.get_config() == {"reduction": "sum", "name": "mine", "dtype": "float64"}


@pytest.mark.parametrize(
    ("y", "outputs", "message"),
    [
        (
            np.zeros((4, 1)),
            np.zeros((4, 3)),
            r"2k output columns.*Received: y_pred of shape \(4, 3\).*ConstantVariance",
        ),
        (np.zeros(4), np.zeros(4), r"2k output columns.*Received: y_pred of shape \(4,\)"),
        (np.zeros((4, 3)), np.zeros((4, 4)), r"shape of the means, \(4, 2\). Received: y_true of shape \(4, 3\)"),
        (np.zeros(4), np.zeros((4, 4)), r"Received: y_true of shape \(4,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(y, outputs, message):
    with pytest.raises(ValueError, match=message):
        GaussianNegativeLogLikelihood()(y, outputs)


# --- the heads --------------------------------------------------------------------------------------------------------


def noisy_line(noise, num_samples=512):
    r = np.random.RandomState(0)
    x = r.uniform(0, 1, (num_samples, 1)).astype("float32")
    return x, (2 * x + noise(x) * r.randn(num_samples, 1)).astype("float32")


def fit(model, x, y, steps=150):
    """Two epochs of full batches; many steps an epoch are faster than many epochs."""
    model.compile(keras.optimizers.Adam(0.05), GaussianNegativeLogLikelihood(), metrics=[metrics.CRPS()])
    x, y = (np.tile(array, (steps, 1)) for array in (x, y))
    return model.fit(x, y, batch_size=len(x) // steps, epochs=2, shuffle=False, verbose=0)


def test_homoskedastic_head_learns_the_variance_of_the_residuals():
    x, y = noisy_line(lambda x: 0.5)
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1), ConstantVariance()])
    fit(model, x, y)
    mean, std = metrics.mean_and_std(model.predict(x, verbose=0))
    assert np.unique(std).size == 1
    assert std[0, 0] == pytest.approx(np.std(y - mean), rel=0.01)
    assert std[0, 0] == pytest.approx(0.5, rel=0.1)


def test_heteroskedastic_head_learns_where_the_noise_is():
    x, y = noisy_line(lambda x: 0.1 + x)
    model = keras.Sequential([keras.Input((1,)), layers.Dense(2)])
    history = fit(model, x, y)
    _, std = metrics.mean_and_std(model.predict(np.array([[0.0], [1.0]]), verbose=0))
    assert std[1, 0] > 3 * std[0, 0]
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_given_variance_stays_as_it_was_given():
    x, y = noisy_line(lambda x: 0.5)
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1), ConstantVariance(0.04, trainable=False)])
    fit(model, x, y, steps=2)
    _, std = metrics.mean_and_std(model.predict(x, verbose=0))
    assert std.ravel().tolist() == pytest.approx([0.2] * len(x))


def test_constant_variance_has_one_per_target_and_keeps_the_means():
    head = ConstantVariance(4.0)
    outputs = np.asarray(head(np.arange(12.0, dtype="float32").reshape(2, 2, 3)))
    assert head.log_variance.shape == (3,)
    np.testing.assert_array_equal(outputs[..., :3].ravel(), np.arange(12.0))
    np.testing.assert_allclose(outputs[..., 3:], np.log(4.0), rtol=1e-6)
    assert head.compute_output_shape((None, 2, 3)) == (None, 2, 6)


def test_constant_variance_is_not_rounded_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1), ConstantVariance(3.0)])
    outputs = model(np.ones((2, 1), "float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert float(outputs[0, 1]) == pytest.approx(np.log(3.0), rel=1e-6)


@pytest.mark.parametrize("variance", [0.0, -1.0, np.inf, np.nan])
def test_a_variance_that_is_none_is_refused(variance):
    with pytest.raises(ValueError, match=r"initial_variance must be positive and finite. Received: initial_variance="):
        ConstantVariance(variance)


def test_model_with_head_loss_and_metric_saves_and_loads(tmp_path):
    x, y = noisy_line(lambda x: 0.5, num_samples=16)
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1), ConstantVariance(0.3, trainable=False, name="head")])
    fit(model, x, y, steps=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.loss) is GaussianNegativeLogLikelihood
    assert loaded.get_layer("head").get_config() == model.get_layer("head").get_config()
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))


@pytest.mark.parametrize("head", [lambda: [layers.Dense(4)], lambda: [layers.Dense(2), ConstantVariance()]])
def test_pruning_leaves_both_heads_whole(head):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(8, activation="relu", name="hidden"), *head()])
    masked = tfprune.wrap(model)
    masks = tfprune.compute_masks(masked, ratio=0.5)
    tfprune.set_masks(masked, masks)
    ticket = tfprune.shrink(masked)
    x = np.random.RandomState(0).randn(5, 3).astype("float32")
    assert list(masks) == ["hidden"]
    assert ticket.output_shape == (None, 4)
    np.testing.assert_allclose(ticket.predict(x, verbose=0), masked.predict(x, verbose=0), atol=1e-6)
