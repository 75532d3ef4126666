"""Does Monte Carlo dropout switch on dropout and nothing else, draw the same from the same seed, and leave no trace?"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfprune
from tfprune.evaluation import evaluate
from tfprune.predictions import Predictor
from tfprune.structure.replay import value_of
from tfprune.uncertainty.mc_dropout import MCDropout

R = np.random.RandomState(0)
X = R.randn(40, 4).astype("float32")


def sequential(*parts, shape=(4,)):
    return keras.Sequential([keras.Input(shape), *parts])


def classifier(rate=0.5, *tail):
    return sequential(layers.Dense(16, activation="relu"), layers.Dropout(rate), layers.Dense(3), *tail)


def functional(shape, body):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.Dense(3)(body(inputs)))


def two_units(*before, after=()):
    """Logits [a, b] of two inputs, with dropout of one half in between: four different passes are possible."""
    return sequential(*before, layers.Dropout(0.5), *after, layers.Softmax(), shape=(2,))


def softmax(z):
    e = np.exp(np.asarray(z) - np.max(z))
    return e / e.sum()


def assert_one_of(rows, expected, atol=1e-6):
    """Every row is one of those expected, and each of these comes up."""
    distance = np.abs(rows[:, None, :] - np.asarray(expected)[None]).max(axis=2)
    assert distance.min(axis=1).max() < atol
    assert set(distance.argmin(axis=1)) == set(range(len(expected)))


# --- right numbers ----------------------------------------------------------------------------------------------------


def test_a_unit_is_dropped_or_doubled():
    model = sequential(
        layers.Dropout(0.5), layers.Dense(1, activation="sigmoid", kernel_initializer="ones"), shape=(1,)
    )
    mc = MCDropout(model, num_samples=400)
    samples = mc.sample(np.ones((1, 1)))[:, 0]
    assert_one_of(samples, [[0.5, 0.5], [0.119203, 0.880797]])  # sigmoid(0) and sigmoid(1 / (1 - 0.5))
    share = np.mean(samples[:, 1] > 0.6)
    assert share == pytest.approx(0.5, abs=0.1)
    known = mc.predict_uncertainty(np.ones((1, 1)))
    mean = 0.5 + share * 0.380797
    entropy = -mean * np.log(mean) - (1 - mean) * np.log(1 - mean)
    assert known["probabilities"][0] == pytest.approx([1 - mean, mean], abs=1e-6)
    assert known["entropy"][0] == pytest.approx(entropy, abs=1e-6)
    # entropies of 0.5 and of 0.880797, in nats
    within = (1 - share) * 0.693147 + share * 0.365334
    assert known["mutual_information"][0] == pytest.approx(entropy - within, abs=1e-5)


def norm_of_two():
    """2 (x - [1, -1]) / [2, 1] + [0, 1] per its moving statistics; a batch of equal rows gives [0, 1] by its own."""
    norm = layers.BatchNormalization(epsilon=0.0)
    norm.build((None, 2))
    norm.set_weights([np.array([2.0, 2.0]), np.array([0.0, 1.0]), np.array([1.0, -1.0]), np.array([4.0, 1.0])])
    return norm


def test_batchnorm_before_dropout_keeps_its_moving_statistics():
    x = np.tile(np.array([[3.0, 0.0]], "float32"), (30, 1))  # becomes [2, 3], and dropout doubles what it keeps
    passes = MCDropout(two_units(norm_of_two()), num_samples=30).sample(x).reshape(-1, 2)
    assert_one_of(passes, [softmax([0, 0]), softmax([4, 0]), softmax([0, 6]), softmax([4, 6])])


def test_batchnorm_after_dropout_keeps_its_moving_statistics():
    model = two_units(after=[norm_of_two()])
    passes = MCDropout(model, num_samples=30).sample(np.ones((30, 2))).reshape(-1, 2)
    # [0 or 2, 0 or 2] become [-1 or 1, 3 or 7]
    assert_one_of(passes, [softmax([-1, 3]), softmax([-1, 7]), softmax([1, 3]), softmax([1, 7])])


@pytest.mark.parametrize("other", [layers.GaussianNoise(0.9), layers.RandomFlip(), layers.RandomContrast(0.9)])
def test_noise_and_augmentation_stay_off(other):
    is_image = not isinstance(other, layers.GaussianNoise)
    before = [layers.Reshape((1, 2, 1)), other, layers.Flatten()] if is_image else [other]
    passes = MCDropout(two_units(*before), num_samples=60).sample(np.array([[1.0, 2.0]]))[:, 0]
    assert_one_of(passes, [softmax([0, 0]), softmax([2, 0]), softmax([0, 4]), softmax([2, 4])])


def test_mean_is_that_of_passes_in_training_mode():
    """Where there is nothing but dropout, `training=True` may serve as a reference."""
    model = classifier(0.3, layers.Softmax())
    reference = model(np.tile(X, (400, 1)), training=True).numpy().reshape(400, 40, 3).mean(axis=0)
    assert MCDropout(model, num_samples=400).predict(X) == pytest.approx(reference, abs=0.04)


def test_logits_become_probabilities_pass_by_pass():
    with_softmax = classifier(0.5, layers.Softmax())
    logits = keras.Sequential([keras.Input((4,)), *with_softmax.layers[:-1]])
    assert MCDropout(logits).predict(X) == pytest.approx(MCDropout(with_softmax).predict(X), abs=1e-6)


# --- every kind of dropout --------------------------------------------------------------------------------------------


class Opaque(layers.Layer):
    """Holds dropout beside a weight of its own, so that its inside cannot be read."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")
        self.inner.build(shape)

    def call(self, x, training=None):
        return self.inner(x, training=training) * self.scale


class Deaf(Opaque):
    def call(self, x):
        return self.inner(x) * self.scale


class AlwaysOn(layers.Dropout):
    def call(self, inputs):
        return super().call(inputs, training=True)


def attention(**options):
    return lambda x: layers.Flatten()(layers.MultiHeadAttention(2, 3, **options)(x, x))


def masked(model):
    return tfprune.wrap(model)


def sub_model(*parts):
    return sequential(*parts, shape=(5,))


KINDS = {
    "Dropout": lambda: classifier(),
    "AlphaDropout": lambda: sequential(layers.Dense(8), layers.AlphaDropout(0.4), layers.Dense(3)),
    "GaussianDropout": lambda: sequential(layers.Dense(8), layers.GaussianDropout(0.4), layers.Dense(3)),
    "SpatialDropout1D": lambda: functional((6, 5), lambda x: layers.Flatten()(layers.SpatialDropout1D(0.4)(x))),
    "SpatialDropout2D": lambda: functional((3, 3, 5), lambda x: layers.Flatten()(layers.SpatialDropout2D(0.4)(x))),
    "SpatialDropout3D": lambda: functional((2, 2, 2, 5), lambda x: layers.Flatten()(layers.SpatialDropout3D(0.4)(x))),
    "subclass": lambda: sequential(layers.Dense(8), AlwaysOn(0.5), layers.Dense(3)),
    "LSTM": lambda: functional((6, 5), layers.LSTM(7, dropout=0.4)),
    "GRU": lambda: functional((6, 5), layers.GRU(7, recurrent_dropout=0.4)),
    "Bidirectional": lambda: functional((None, 5), layers.Bidirectional(layers.LSTM(7, dropout=0.4))),
    "stacked cells": lambda: functional(
        (6, 5), layers.RNN([layers.GRUCell(4), layers.GRUCell(4, recurrent_dropout=0.4)])
    ),
    "attention": lambda: functional((6, 5), attention(dropout=0.4)),
    "TimeDistributed": lambda: functional(
        (6, 5), lambda x: layers.Flatten()(layers.TimeDistributed(layers.Dropout(0.4))(x))
    ),
    "TimeDistributed over any length": lambda: functional(
        (None, 5), lambda x: layers.GlobalAveragePooling1D()(layers.TimeDistributed(layers.Dropout(0.4))(x))
    ),
    "in a nested model beside batchnorm": lambda: sequential(
        layers.Dense(5), sub_model(layers.BatchNormalization(), sub_model(layers.Dropout(0.4))), layers.Dense(3)
    ),
    "in a layer of its own": lambda: sequential(Opaque(layers.Dropout(0.4)), layers.Dense(3)),
    "masked": lambda: masked(classifier()),
    "masked LSTM": lambda: masked(functional((6, 5), lambda x: layers.LSTM(7, dropout=0.4)(layers.Dense(8)(x)))),
    "masked attention": lambda: masked(functional((6, 5), lambda x: attention(dropout=0.4)(layers.Dense(8)(x)))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_pass_differs_and_the_model_is_left_alone(kind):
    model = KINDS[kind]()
    x = R.randn(5, *(size or 6 for size in model.input_shape[1:])).astype("float32")
    before = [value_of(variable) for variable in model.variables]
    mc = MCDropout(model, num_samples=6, seed=3)
    samples = mc.sample(x)
    assert samples.shape == (6, 5, 3)
    assert len(np.unique(samples[:, 0], axis=0)) > 3
    assert np.array_equal(samples, MCDropout(model, num_samples=6, seed=3).sample(x))
    # the random generators' states are among the variables
    assert all(np.array_equal(a, value_of(b)) for a, b in zip(before, model.variables, strict=True))


def test_words_of_different_lengths_keep_their_mask():
    """The last word is padding: with the mask it makes no difference, whatever it is made of."""
    embed = layers.Embedding(9, 4, mask_zero=True)
    model = functional((3,), lambda x: layers.LSTM(5, dropout=0.4)(embed(x)))
    x = np.array([[1, 2, 0], [3, 4, 0]])
    first = MCDropout(model).predict(x)
    embed.embeddings.assign(np.concatenate([np.full((1, 4), 50.0), value_of(embed.embeddings)[1:]]))
    assert MCDropout(model).predict(x) == pytest.approx(first, abs=1e-6)


def test_a_frozen_batchnorm_may_stand_beside_dropout_in_a_wrapper():
    inner = sub_model(layers.BatchNormalization(), layers.Dropout(0.5))
    model = functional((6, 5), lambda x: layers.Flatten()(layers.TimeDistributed(inner)(x)))
    with pytest.raises(ValueError, match=r"holds dropout beside 'batch_normalization.*trainable = False"):
        MCDropout(model)
    inner.layers[0].trainable = False
    before = [value_of(weight) for weight in model.weights]
    MCDropout(model).predict(R.randn(5, 6, 5))
    assert all(np.array_equal(a, value_of(b)) for a, b in zip(before, model.weights, strict=True))


# --- seeds, batches, changes ------------------------------------------------------------------------------------------


def test_same_seed_same_numbers_bit_for_bit_whatever_was_predicted_before():
    model = classifier()
    mc = MCDropout(model, seed=1)
    first = mc.predict_uncertainty(X)
    mc.predict(X[:7])
    model(X, training=True)  # moves the model's own random generators
    again = mc.predict_uncertainty(X)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["probabilities"], MCDropout(model, seed=2).predict(X))


def test_two_dropouts_made_from_one_seed_draw_different_masks():
    model = sequential(layers.Dropout(0.5, seed=1), layers.Dropout(0.5, seed=1), layers.Softmax(), shape=(2,))
    # with the same masks in both, what is left is always four times the input; kept by one alone it is 0
    kept = np.mean(MCDropout(model, num_samples=400).sample(np.ones((1, 2))) != 0.5)
    assert kept == pytest.approx(2 * 0.25 * 0.75, abs=0.06)


def test_predicting_does_not_change_what_training_draws():
    model = classifier()
    state = model.layers[1].seed_generator.state
    before = value_of(state)
    MCDropout(model).predict(X)
    assert np.array_equal(value_of(state), before)


def test_long_inputs_are_predicted_in_parts_of_256():
    mc, x = MCDropout(classifier(), num_samples=4), R.randn(600, 4).astype("float32")
    parts = [mc.predict(x[start : start + 256]) for start in (0, 256, 512)]
    assert np.array_equal(mc.predict(x), np.concatenate(parts))
    assert mc.sample(x).mean(axis=0) == pytest.approx(mc.predict(x), abs=1e-12)


def test_later_changes_of_the_weights_count():
    model = sequential(layers.Dropout(0.5), layers.Dense(3, activation="softmax"))
    mc = MCDropout(model)
    mc.predict(X)
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    assert mc.predict(X) == pytest.approx(np.full((40, 3), 1 / 3))


class Counter(layers.Layer):
    """Counts how often it is run."""

    def __init__(self):
        super().__init__()
        self.count = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False)

    def call(self, x):
        self.count.assign_add(1)
        return x


def test_what_comes_before_the_first_dropout_runs_once():
    before, after = Counter(), Counter()
    mc = MCDropout(sequential(before, layers.Dropout(0.5), after, layers.Dense(3)), num_samples=7)
    mc.predict(X)
    assert (int(value_of(before.count)), int(value_of(after.count))) == (1, 7)


def test_several_inputs_are_taken_as_a_list_or_by_name():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    model = keras.Model([a, b], layers.Dense(3)(layers.Dropout(0.5)(layers.Concatenate()([a, b]))))
    mc, x = MCDropout(model), [R.randn(9, 3), R.randn(9, 2)]
    expected = mc.predict(x)
    assert np.array_equal(mc.predict({"b": x[1], "a": x[0]}), expected)
    assert evaluate(mc, (x, R.randint(0, 3, 9)))["num_samples"] == 9
    with pytest.raises(ValueError, match="takes 2 inputs"):
        mc.predict({"a": x[0], "b": x[1]}["a"])


# --- as a predictive --------------------------------------------------------------------------------------------------


def test_evaluate_and_predictor_take_it():
    mc, y = MCDropout(classifier()), R.randint(0, 3, len(X))
    p = mc.predict(X)
    assert p.dtype == np.float64
    assert p.sum(axis=1) == pytest.approx(np.ones(40), abs=1e-12)
    logits, scores = Predictor(mc).with_scores(X)
    assert np.exp(logits) == pytest.approx(p, rel=1e-9)
    assert sorted(scores) == ["entropy", "mutual_information"]
    row = evaluate(mc, tf.data.Dataset.from_tensor_slices((X, y)))
    assert row["nll"] == pytest.approx(-np.mean(np.log(p[np.arange(40), y])))


def test_mutual_information_is_between_zero_and_entropy():
    known = MCDropout(classifier(), num_samples=9).predict_uncertainty(X)
    assert np.all(known["mutual_information"] > 0)
    assert np.all(known["mutual_information"] < known["entropy"])
    assert np.all(MCDropout(classifier(), num_samples=1).predict_uncertainty(X)["mutual_information"] == 0)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_gives_probabilities_that_sum_to_one(policy):
    keras.config.set_dtype_policy(policy)
    p = MCDropout(classifier(0.5, layers.Softmax())).predict(X)
    assert p.sum(axis=1) == pytest.approx(np.ones(40), abs=1e-12)


# --- refusals ---------------------------------------------------------------------------------------------------------


def without_effect():
    inputs = keras.Input((4,))
    layers.Dropout(0.5)(inputs)
    return keras.Model(inputs, layers.Dense(3)(inputs))


@pytest.mark.parametrize(
    "make", [lambda: sequential(layers.Dense(3)), lambda: classifier(0.0), without_effect], ids=["none", "0", "aside"]
)
def test_a_model_without_dropout_is_refused(make):
    with pytest.raises(ValueError, match="MCDropout needs a model with dropout"):
        MCDropout(make())


def test_dropout_that_training_mode_does_not_reach_is_refused():
    with pytest.raises(ValueError, match="has no argument `training`"):
        MCDropout(sequential(Deaf(layers.Dropout(0.5)), layers.Dense(3)))


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    model = Own()
    model(X)
    with pytest.raises(ValueError, match="Cannot read the graph of the subclassed model"):
        MCDropout(model, from_logits=True)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        MCDropout(sequential(layers.Dropout(0.5), layers.Dense(3))).predict(np.full((2, 4), np.nan))


@pytest.mark.parametrize("options", [{"num_samples": 0}, {"num_samples": 2.5}, {"num_samples": True}, {"seed": -1}])
def test_settings_that_are_no_whole_numbers_are_refused(options):
    with pytest.raises(ValueError, match="must be an integer of at least"):
        MCDropout(classifier(), **options)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        MCDropout(classifier()).predict(X[:0])
