"""Is data that something was fitted on known again, in any order and form, and refused?"""

import hashlib
import json
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.uncertainty import leak
from tfprune.uncertainty.leak import Fingerprint, LeakError, check_leak, find_fingerprints
from tfprune.uncertainty.predictive import Predictive, uncertainty_of


def images(num_samples, seed=0, dtype="uint8"):
    return np.random.RandomState(seed).randint(0, 256, (num_samples, 8, 8, 3)).astype(dtype)


# --- what a fingerprint is --------------------------------------------------------------------------------------------


def dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y))


FORMS = {
    "arrays": lambda x, y: (x, y),
    "x alone": lambda x, y: x,
    "shuffled": lambda x, y: (x[::-1], y[::-1]),
    "floats": lambda x, y: (x.astype("float32"), y),
    "doubles": lambda x, y: (x.astype("float64"), y),
    "flat": lambda x, y: (x.reshape(len(x), -1), y),
    "batched": lambda x, y: dataset(x, y).batch(7),
    "one by one": lambda x, y: dataset(x, y),
    "shuffled data set": lambda x, y: dataset(x, y).shuffle(100, seed=1).batch(32),
    "data set without labels": lambda x, y: dataset(x, y).map(lambda x, y: x).batch(9),
}


@pytest.mark.parametrize("form", FORMS)
def test_same_samples_give_the_same_fingerprint(form):
    x, y = images(50), np.arange(50) % 3
    assert Fingerprint.of(FORMS[form](x, y)) == Fingerprint.of((x, y))


def test_model_tells_that_a_data_set_without_labels_is_not_batched():
    x = images(20)
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    assert Fingerprint.of(tf.data.Dataset.from_tensor_slices(x), model) == Fingerprint.of(x)


def test_one_changed_value_makes_another_sample():
    x = images(50)
    other = x.copy()
    other[7, 0, 0, 0] ^= 1
    assert Fingerprint.of(other) != Fingerprint.of(x)
    assert Fingerprint.of(x).overlap(Fingerprint.of(other)) == 49 / 50


def test_labels_do_not_count():
    x = images(10)
    assert Fingerprint.of((x, np.zeros(10))) == Fingerprint.of((x, np.ones(10)))


def test_minus_zero_is_zero():
    assert Fingerprint.of(np.array([[0.0, 1.0]])) == Fingerprint.of(np.array([[-0.0, 1.0]]))


def test_half_precision_equals_the_same_numbers():
    x = images(5)
    assert Fingerprint().add(tf.cast(x, "bfloat16")) == Fingerprint().add(x)


def test_hash_is_blake2b_of_the_float32_bytes():
    digest = hashlib.blake2b(np.array([1.0, 2.0], "<f4").tobytes(), digest_size=8).digest()
    assert Fingerprint().add(np.array([[1, 2]])).hashes.tolist() == [int.from_bytes(digest, "little")]


def test_text_and_several_inputs_are_told_apart():
    text = np.array(["good", "bad", "ugly"])
    assert Fingerprint.of(text).overlap(Fingerprint().add(tf.constant(["bad", "new"]))) == 0.5
    a, b = images(4), np.arange(8.0).reshape(4, 2)
    both = Fingerprint().add({"image": a, "more": b})
    assert both.overlap(Fingerprint().add([a, b])) == 1.0
    assert both.overlap(Fingerprint().add([a, b + 1])) == 0.0


def test_what_is_no_sample_is_refused():
    with pytest.raises(TypeError, match=r"must be numbers or text\. Received: NoneType"):
        Fingerprint().add(np.array([None, None]))
    with pytest.raises(TypeError, match="a single number"):
        Fingerprint().add(3.0)
    with pytest.raises(ValueError, match=r"max_hashes must be .* Received: max_hashes=0"):
        Fingerprint(max_hashes=0)


# --- overlaps ---------------------------------------------------------------------------------------------------------


def test_overlap_is_the_share_of_the_others_samples():
    x = images(100)
    fitted, whole, apart = Fingerprint.of(x[:20]), Fingerprint.of(x), Fingerprint.of(images(30, seed=1))
    assert fitted.overlap(whole) == 0.2
    assert whole.overlap(fitted) == 1.0
    assert fitted.overlap(apart) == apart.overlap(fitted) == 0.0
    assert fitted.overlap(Fingerprint()) == Fingerprint().overlap(fitted) == 0.0


def test_added_batch_by_batch_equals_all_at_once():
    x = np.random.RandomState(0).randn(1000, 3)
    for max_hashes in (65_536, 64):
        found = Fingerprint(max_hashes=max_hashes)
        for start in range(0, 1000, 33):
            found.add(x[start : start + 33])
        assert found == Fingerprint.of(x, max_hashes=max_hashes)
        assert found.num_samples == 1000
        assert len(found.hashes) == min(max_hashes, 1000)


@pytest.mark.parametrize(
    ("sizes", "share"), [((30_000, 100_000), 0.3), ((100_000, 30_000), 1.0), ((100, 50_000), 0.002)]
)
def test_overlap_of_full_sketches_is_estimated_within_its_error(sizes, share):
    x = np.arange(100_000.0)[:, None]
    fitted, other = (Fingerprint.of(x[:size], max_hashes=4096) for size in sizes)
    assert not (fitted.is_exact and other.is_exact)
    assert fitted.overlap(other) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 1200) + 1e-12)


def test_up_to_the_limit_overlaps_are_exact():
    x = np.arange(128.0)[:, None]
    assert Fingerprint.of(x, max_hashes=128).is_exact
    assert not Fingerprint.of(x, max_hashes=127).is_exact
    # the same sample many times over is one sample
    assert Fingerprint.of(np.repeat(x, 10, axis=0), max_hashes=128).is_exact


def test_config_is_json_and_restores_the_fingerprint():
    x = images(200)
    for max_hashes in (65_536, 50):
        found = Fingerprint.of(x, owner="detector 'knn'", max_hashes=max_hashes)
        text = json.dumps(found.get_config())
        assert len(text) < 12 * len(found.hashes) + 200
        restored = Fingerprint.from_config(json.loads(text))
        assert restored == found
        assert restored.owner == "detector 'knn'"
        assert restored.get_config() == found.get_config()
        # one that was restored takes more samples
        assert restored.add(x[:5]).overlap(Fingerprint.of(x)) == found.overlap(Fingerprint.of(x))


def test_ten_thousand_cifar_images_take_less_than_two_seconds():
    x = np.random.RandomState(0).randint(0, 256, (10_000, 32, 32, 3)).astype("uint8")
    start = time.process_time()  # 0.3 s alone on one core; the gate's cores are shared
    Fingerprint.of(x)
    assert time.process_time() - start < 2


# --- the fingerprints of a model --------------------------------------------------------------------------------------


class Fitted(keras.layers.Layer):
    """A layer that was fitted on something."""

    def __init__(self, x=None, owner=None, **kwargs):
        super().__init__(**kwargs)
        self.fingerprint = Fingerprint.of(x, owner=owner)

    def call(self, inputs):
        return inputs


class Detector:
    """An artefact that is no Keras layer."""

    def __init__(self, x, model=None):
        self.model, self.fingerprints = model, [Fingerprint.of(x, owner="detector")]


class Ensemble(Predictive):
    def __init__(self, members):
        self.members = members

    def predict_uncertainty(self, x):
        return uncertainty_of([member(x) for member in self.members])


def owners(artefact):
    return sorted(found.owner for found in find_fingerprints(artefact))


def test_fingerprints_are_found_at_any_depth():
    x = images(5)
    inner = keras.Sequential([keras.Input((4,)), Fitted(x, "inner")])
    wrapped = keras.layers.TimeDistributed(Fitted(x, "wrapped"))
    model = keras.Sequential([keras.Input((4,)), inner, Fitted(x, "outer")])
    sequence = keras.Sequential([keras.Input((3, 4)), wrapped])
    assert owners(model) == ["inner", "outer"]
    assert owners(sequence) == ["wrapped"]
    assert owners(Detector(x, model)) == ["detector", "inner", "outer"]
    assert owners(Ensemble([model, sequence])) == ["inner", "outer", "wrapped"]
    assert owners([Detector(x), {"a": Ensemble([inner])}]) == ["detector", "inner"]


def test_model_that_nothing_was_fitted_in_has_no_fingerprint():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    assert find_fingerprints(model) == find_fingerprints(Ensemble([model])) == find_fingerprints(object()) == []


def test_equal_fingerprints_are_found_once():
    x = images(5)
    assert owners(Ensemble([Fitted(x, "t"), Fitted(x, "t"), Fitted(images(5, seed=1), "t")])) == ["t", "t"]


# --- the guard --------------------------------------------------------------------------------------------------------


def test_evaluation_on_fitted_samples_is_refused():
    x = images(100)
    fitted = [Fingerprint.of(images(9, seed=1), owner="a"), Fingerprint.of(x[:40], owner="TemperatureScaling 'b'")]
    message = r"TemperatureScaling 'b' was fitted on 40 of the 100 samples to be evaluated \(40\.0%\).*allow_leak=True"
    with pytest.raises(LeakError, match=message):
        check_leak(fitted, Fingerprint.of(x))
    assert issubclass(LeakError, ValueError)
    assert check_leak(fitted, Fingerprint.of(x), allow_leak=True) == 0.4


def test_estimate_says_that_it_is_one():
    x = np.arange(1000.0)[:, None]
    with pytest.raises(LeakError, match="fitted on about "):
        check_leak([Fingerprint.of(x, max_hashes=100)], Fingerprint.of(x))


def test_other_samples_are_let_pass():
    fitted, seen = [Fingerprint.of(images(100))], Fingerprint.of(images(100, seed=1))
    assert check_leak(fitted, seen) == 0.0
    assert check_leak([], None) == 0.0


def test_a_few_duplicates_between_public_sets_are_let_pass_but_a_small_fit_on_the_test_set_is_not():
    x = images(2000)
    test, train = x[:1000], np.concatenate([x[1000:], x[:3]])
    assert check_leak([Fingerprint.of(train)], Fingerprint.of(test)) == 0.003
    assert leak.TOLERANCE == 0.01
    with pytest.raises(LeakError, match=r"fitted on 3 of the 1000 samples to be evaluated \(0\.3%\)"):
        check_leak([Fingerprint.of(x[:3])], Fingerprint.of(test))


# --- predictives ------------------------------------------------------------------------------------------------------


def test_uncertainty_of_samples_by_hand():
    known = uncertainty_of([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])
    assert known["probabilities"].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert known["entropy"].tolist() == pytest.approx([np.log(2), np.log(2)])
    assert known["mutual_information"].tolist() == pytest.approx([np.log(2), 0.0])
    with pytest.raises(ValueError, match=r"\(draws, n, classes\).*Received: shape \(1, 2\)"):
        uncertainty_of([[0.5, 0.5]])


def test_predictive_predicts_its_mean_probabilities_in_float64():
    predictive = Ensemble([lambda x: np.float32([[0.2, 0.8]]), lambda x: np.float32([[0.4, 0.6]])])
    assert predictive.from_logits is False
    assert predictive.predict(None).dtype == np.float64
    assert predictive.predict(None).tolist() == [pytest.approx([0.3, 0.7])]
    assert predictive.fingerprints == []
    with pytest.raises(NotImplementedError, match="Predictive must define predict_uncertainty"):
        Predictive().predict(None)
