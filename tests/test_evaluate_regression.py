"""Does evaluate_regression give, in one pass over any data, what the metrics give on all predictions at once?"""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune import losses, metrics

R = np.random.RandomState(0)
X = R.uniform(-2, 2, (300, 3)).astype("float32")
Y = R.randn(300, 2).astype("float32")


def model_of(*layers, seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(16, "relu"), *layers])
    return model


@pytest.fixture(scope="module")
def model():
    return model_of(keras.layers.Dense(4))


def test_row_holds_what_the_metrics_give(model):
    mean, std = metrics.mean_and_std(model.predict(X, verbose=0))
    row = tfprune.evaluate_regression(model, (X, Y))
    expected = {
        "gaussian_nll": metrics.gaussian_nll(mean, std, Y),
        "crps": metrics.gaussian_crps(mean, std, Y),
        "rmse": np.sqrt(np.mean((Y - mean) ** 2)),
        "interval_calibration_error": metrics.coverage_calibration_error(mean, std, Y, kind="interval"),
        "quantile_calibration_error": metrics.coverage_calibration_error(mean, std, Y, kind="quantile"),
        "picp_90": metrics.picp(mean, std, Y),
        "mpiw_90": metrics.mpiw(std),
        "sharpness": metrics.sharpness(std),
        "ence": metrics.ence(mean, std, Y),
        "regression_uce": metrics.regression_uce(mean, std, Y),
        "std_scale": metrics.std_scale(mean, std, Y),
    }
    assert {key: row[key] for key in expected} == {key: pytest.approx(value) for key, value in expected.items()}
    assert (row["num_samples"], row["num_targets"], row["homoskedastic"]) == (300, 2, False)
    assert row["coverage_observed"] == pytest.approx(metrics.coverage_table(mean, std, Y)["observed"])
    assert row["parameters"] == model.count_params()
    json.dumps(row)


def test_arrays_and_data_sets_of_any_batching_agree(model):
    whole = tfprune.evaluate_regression(model, (X, Y))
    unbatched = tf.data.Dataset.from_tensor_slices((X, Y))
    for data in (unbatched, unbatched.batch(7)):
        row = tfprune.evaluate_regression(model, data)
        assert row["crps"] == pytest.approx(whole["crps"], rel=1e-6)


def test_one_target_may_come_without_its_axis():
    model = model_of(keras.layers.Dense(2))
    rows = [tfprune.evaluate_regression(model, (X, y)) for y in (Y[:, 0], Y[:, :1])]
    assert rows[0] == rows[1]


def test_homoskedastic_head_is_said_to_be_one():
    model = model_of(keras.layers.Dense(2), losses.ConstantVariance(0.25))
    row = tfprune.evaluate_regression(model, (X, Y))
    assert row["homoskedastic"]
    assert row["sharpness"] == pytest.approx(0.5)


def test_ticket_knows_what_it_saved(model):
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio=0.5))
    row = tfprune.evaluate_regression(tfprune.shrink(masked), (X, Y), latency=True)
    assert row["compression_ratio"] == pytest.approx((3 * 16 + 16 + 16 * 4 + 4) / (3 * 8 + 8 + 8 * 4 + 4))
    assert row["latency_ms"] > 0


def test_what_is_no_gaussian_head_is_refused():
    with pytest.raises(ValueError, match=r"2k columns.*Received: shape \(300, 3\)"):
        tfprune.evaluate_regression(model_of(keras.layers.Dense(3)), (X, Y))


def test_targets_of_another_shape_are_refused(model):
    with pytest.raises(ValueError, match=r"\(samples, 2\), one for each mean.*Received: \(300, 1\)"):
        tfprune.evaluate_regression(model, (X, Y[:, 0]))


def test_what_is_no_keras_model_is_refused():
    with pytest.raises(TypeError, match="Received: dict"):
        tfprune.evaluate_regression({}, (X, Y))


def test_empty_data_is_refused(model):
    with pytest.raises(ValueError, match="at least one sample"):
        tfprune.evaluate_regression(model, (X[:0], Y[:0]))
