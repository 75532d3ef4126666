"""Do schedules reach their ratio and never fall, and may channels grow back as long as they should?"""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfprune
from tfprune.callbacks import GradualPruning
from tfprune.pruning import schedules
from tfprune.structure.replay import value_of

SCHEDULES = {
    "constant": schedules.Constant(0.8, begin=20, every=7),
    "polynomial": schedules.Polynomial(0.8, end=117, begin=20, every=10, initial=0.1, power=2),
    "cubic": schedules.Cubic(0.8, end=117, begin=20, every=10, initial=0.1),
    "exponential": schedules.Exponential(0.8, end=117, begin=20, every=10),
    "one cycle": schedules.OneCycle(0.8, end=117, begin=20, every=10),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_never_falls_and_ends_at_its_ratio(name):
    answers = [schedules.read(SCHEDULES[name], step) for step in range(200)]
    ratios = [ratio for _, ratio in answers]
    assert all(before <= after for before, after in itertools.pairwise(ratios))
    assert ratios[-1] == 0.8
    assert not any(due for due, _ in answers[:20])
    assert [ratio for due, ratio in answers if due][-1] == 0.8
    assert answers[117] == (True, 0.8) or name == "constant"


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_survives_its_config(name):
    config = keras.saving.serialize_keras_object(SCHEDULES[name])
    assert keras.saving.deserialize_keras_object(config) == SCHEDULES[name]


def test_step_that_was_computed_may_be_a_float():
    assert schedules.Polynomial(0.8, end=0.5 * 2000, every=250.0)(500) == (True, pytest.approx(0.4))


def test_curves_are_what_their_papers_say():
    assert schedules.Polynomial(0.8, end=1000)(250) == (False, pytest.approx(0.2))
    assert schedules.Cubic(0.8, end=1000)(500) == (True, pytest.approx(0.8 - 0.8 / 8))
    assert schedules.Exponential(0.75, end=1000)(500) == (True, pytest.approx(0.5))
    assert schedules.Exponential(0.75, end=1000, initial=0.5)(500)[1] == pytest.approx(1 - math.sqrt(0.5 * 0.25))
    rise = lambda t: (1 + math.exp(-14 + 5)) / (1 + math.exp(-14 * t + 5))  # noqa: E731
    assert schedules.OneCycle(0.8, end=1000)(300)[1] == pytest.approx(0.8 * rise(0.3))
    assert schedules.Constant(0.5, begin=10, every=5)(15) == (True, 0.5)
    assert schedules.Constant(0.5, begin=10, every=5)(9) == (False, 0.0)


def test_polynomial_is_that_of_tensorflow_model_optimization(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "")  # importing TFMOT sets it for all child processes
    assert tf.keras.__name__  # touched first, so that TFMOT's import cannot change what it means
    tfmot = pytest.importorskip("tensorflow_model_optimization")
    theirs = tfmot.sparsity.keras.PolynomialDecay(0.1, 0.8, begin_step=20, end_step=120, power=3, frequency=10)
    for ours in (
        schedules.Cubic(0.8, end=120, begin=20, every=10, initial=0.1),
        schedules.Polynomial(0.8, end=120, begin=20, every=10, initial=0.1, power=3),
    ):
        for step in (0, 19, 20, 25, 30, 77, 110, 120, 130):
            due, ratio = theirs(step)
            assert ours(step) == (bool(due), pytest.approx(float(ratio), abs=1e-6)), step


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.Cubic(1.5, end=10), r"ratio must be in \[0, 1\)"),
        (lambda: schedules.Cubic(0.5, end=10, initial=0.6), r"initial must be in \[0, ratio\]. Received: initial=0.6"),
        (lambda: schedules.OneCycle(0.5, end=10, begin=10), "0 <= begin < end.*Received: begin=10, end=10"),
        (lambda: schedules.Constant(0.5, every=0), "every >= 1. Received: begin=0, end=1, every=0"),
        (lambda: schedules.Polynomial(0.5, end="ten"), "end must be a whole number of steps. Received: end='ten'"),
        (lambda: schedules.Cubic(0.5, end=10.5), "end must be a whole number of steps. Received: end=10.5"),
        (lambda: schedules.Constant(0.5, begin=None), "begin must be a whole number of steps. Received: begin=None"),
        (lambda: schedules.Polynomial(0.5, end=10, power=0), "power must be a positive number. Received: power=0"),
        (lambda: schedules.Polynomial(0.5, end=10, power=-1), "power must be a positive number. Received: power=-1"),
    ],
)
def test_schedule_that_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Growing back -------------------------------------------------------------------------------------------------------


def masked_model():
    """Four hidden channels of L1 norm 1 to 4, and a BatchNormalization."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(4, use_bias=False, name="hidden"),
            layers.BatchNormalization(momentum=0.5, name="norm"),
            layers.Dense(2, name="out"),
        ]
    )
    model.get_layer("hidden").set_weights([np.array([[1.0, 2, 3, 4], [0, 0, 0, 0]])])
    # the weights stay where they are, so that a test can say what the criterion sees
    model.compile(keras.optimizers.SGD(1e-12, momentum=0.9), "mse")
    return tfprune.wrap(model)


class Meddler(keras.callbacks.Callback):
    """Sets kernel columns at the end of given steps, and notes what the model holds."""

    def __init__(self, changes):
        super().__init__()
        self.changes, self.kernels, self.means, self.seen = changes, [], [], 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        layer, norm = self.model.get_layer("hidden"), self.model.get_layer("norm")
        kernel = value_of(getattr(layer, "layer", layer).kernel)
        for column, value in self.changes.get(self.seen, {}).items():
            kernel[0, column] = value
        getattr(layer, "layer", layer).kernel.assign(kernel)
        self.kernels.append(kernel)
        self.means.append(value_of(getattr(norm, "layer", norm).moving_mean))


def run(gradual, changes, steps=8):
    masked, meddler = masked_model(), Meddler(changes)
    x = np.ones((4 * steps, 2), "float32")
    masked.fit(x, x, batch_size=4, callbacks=[meddler, gradual], verbose=0)
    return [row["masks"]["hidden"].tolist() for row in gradual.history], meddler


EVERY_SECOND = schedules.Constant(0.5, every=2)  # due at steps 0, 2, 4, 6: after 1, 3, 5, 7 steps


def test_channel_comes_back_with_its_weights_where_it_ranks_above_one_that_stayed():
    found, meddler = run(GradualPruning(EVERY_SECOND, regrow_until=8), {3: {2: 0.5}, 5: {3: 0.1}})
    assert found == [
        [False, False, True, True],
        [False, True, False, True],  # channel 2 became small: channel 1, of size 2, is the better one
        [True, True, False, False],  # channel 3 became small: channel 0, of size 1, before channel 2, of 0.5
        [True, True, False, False],
    ]
    np.testing.assert_allclose(meddler.kernels[-1][0], [1, 2, 0, 0], atol=1e-6)  # what is pruned is zero all the while
    np.testing.assert_allclose(meddler.kernels[1][0], [0, 0, 3, 4], atol=1e-6)


def test_statistics_come_back_too():
    found, meddler = run(GradualPruning(EVERY_SECOND, regrow_until=8), {7: {2: 0.1, 3: 0.1}})
    assert found[-1] == [True, True, False, False]
    # all inputs are 1, so channel 1 has a mean of 2 in each batch, and of 0 while it is pruned; momentum is a half.
    # It is looked at again (and what it held is put back) after steps 3, 5 and 7, and stays after the last one.
    means = [float(mean[1]) for mean in meddler.means]
    assert means == pytest.approx([1, 0.5, 0.25, 0.5, 0.25, 0.5, 0.25, 0.5 * 1 + 0.5 * 2], rel=1e-5)


def test_after_the_stated_step_what_is_pruned_stays_so():
    found, _ = run(GradualPruning(EVERY_SECOND, regrow_until=4), {3: {2: 0.5}, 5: {3: 0.1}})
    assert found == [[False, False, True, True], [False, True, False, True]]
    found, _ = run(GradualPruning(EVERY_SECOND), {3: {2: 0.5}})
    assert found == [[False, False, True, True]]


def test_what_was_pruned_before_the_fit_does_not_grow_back_and_a_second_fit_starts_afresh():
    masked, x = masked_model(), np.ones((16, 2), "float32")
    tfprune.set_masks(masked, {"hidden": [True, True, True, False]})
    gradual = GradualPruning(EVERY_SECOND, regrow_until=8)
    for _ in range(2):
        masked.fit(x, x, batch_size=4, callbacks=[gradual], verbose=0)
        assert [row["masks"]["hidden"].tolist() for row in gradual.history][:1] == [[False, True, True, False]]
    assert gradual.history[0]["step"] == 5


def test_gradual_pruning_ends_at_the_ratio_of_each_schedule():
    x = np.ones((40, 2), "float32")
    for make in (schedules.Polynomial, schedules.Cubic, schedules.Exponential, schedules.OneCycle):
        masked = masked_model()
        masked.fit(x, x, batch_size=4, callbacks=[GradualPruning(make(0.75, end=7, every=3))], verbose=0)
        assert int(tfprune.get_masks(masked)["hidden"].sum()) == 1
