"""Does evaluate_shift damage the images as said, the same for every model, and give a row for each damage?"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune

R = np.random.RandomState(0)
X, Y = R.uniform(0, 1, (60, 16, 16, 3)).astype("float32"), R.randint(0, 3, 60)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(3)])


def cells(rows):
    return [(row["corruption"], row["severity"]) for row in rows]


def test_rows_are_the_clean_images_and_each_damage(model):
    rows = tfprune.evaluate_shift(model, (X, Y), corruptions=["fog", "contrast"], severities=[1, 5], ood={"far": X[:9]})
    assert cells(rows) == [("none", 0), ("fog", 1), ("fog", 5), ("contrast", 1), ("contrast", 5)]
    clean = tfprune.evaluate(model, (X, Y), ood={"far": X[:9]})
    assert {**rows[0], "corruption": None, "severity": None} == {**clean, "corruption": None, "severity": None}
    fog = tfprune.corruptions.corrupt((X, Y), "fog", 5)
    assert rows[2]["nll"] == pytest.approx(tfprune.evaluate(model, fog)["nll"], rel=1e-5)
    assert rows[2]["nll"] != pytest.approx(rows[0]["nll"], rel=1e-4)


def test_kind_of_data_and_batching_change_nothing(model):
    options = {"corruptions": ["gaussian_noise"], "severities": [3], "seed": 4}
    whole = tfprune.evaluate_shift(model, (X, Y), **options)
    for size in (7, 60):
        batched = tf.data.Dataset.from_tensor_slices((X, Y)).batch(size)
        assert tfprune.evaluate_shift(model, batched, **options)[1]["nll"] == pytest.approx(whole[1]["nll"], rel=1e-5)


def test_all_ten_corruptions_by_default_and_progress_is_told(model):
    seen = []
    rows = tfprune.evaluate_shift(model, (X[:4], Y[:4]), severities=[1], progress=seen.append)
    assert [row["corruption"] for row in rows[1:]] == list(tfprune.corruptions.CORRUPTIONS)
    assert seen == rows


def test_value_range_is_that_of_the_model(model):
    scaled = 2 * X - 1
    rows = tfprune.evaluate_shift(model, (scaled, Y), ["brightness"], [5], value_range=(-1, 1))
    damaged = 2 * tfprune.corruptions.corrupt(X, "brightness", 5) - 1
    assert rows[1]["nll"] == pytest.approx(tfprune.evaluate(model, (damaged, Y))["nll"], rel=1e-4)


def test_misspelt_corruption_is_refused_before_anything_runs(model):
    seen = []
    with pytest.raises(ValueError, match="Unknown corruption"):
        tfprune.evaluate_shift(model, (X, Y), ["fog", "smoke"], progress=seen.append)
    assert not seen


def test_severity_zero_is_refused(model):
    with pytest.raises(ValueError, match="Severity 0 is the clean images"):
        tfprune.evaluate_shift(model, (X, Y), severities=[0, 1])
