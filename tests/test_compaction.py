"""Does Compaction train the same model as without it, at its small size?"""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.callbacks import Compaction, GradualPruning, LotteryTicket
from tfprune.pruning import compaction
from tfprune.structure.replay import value_of


def data(seed):
    random = np.random.default_rng(seed)
    x = random.normal(size=(48, 6, 6, 2)).astype("float32")
    return x, (x[:, :3].mean(axis=(1, 2, 3)) > x[:, 3:].mean(axis=(1, 2, 3))).astype("int32")


def masked_model(optimizer="adam"):
    keras.utils.set_random_seed(7)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 3, name="first")(inputs)
    skip = x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(8, 3, padding="same", activation="sigmoid", kernel_regularizer="l2", name="second")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, skip]))
    outputs = layers.Dense(2, name="out")(layers.Dense(6, activation="relu", name="third")(x))
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return tfprune.wrap(model)


def falling(step):
    """Due in the middle of an epoch (3 steps each), and at its end."""
    return step in (1, 5, 7), {1: 0.3, 5: 0.5, 7: 0.7}.get(step, 0.7)


def fit(pruning, *before, optimizer="adam", epochs=6, masked=None):
    masked = masked_model(optimizer) if masked is None else masked
    history = masked.fit(
        *data(0), validation_data=data(1), batch_size=16, epochs=epochs, shuffle=False, verbose=0,
        callbacks=[*before, pruning],
    )  # fmt: skip
    return masked, history.history


def momentum():
    decay = keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.9)
    return keras.optimizers.SGD(decay, momentum=0.9, nesterov=True)


def averaging():
    return keras.optimizers.AdamW(0.01, use_ema=True, ema_overwrite_frequency=4, clipnorm=0.5)


CASES = {
    "gradual, momentum and decay": (lambda: GradualPruning(falling), momentum),
    "gradual, averaged weights": (lambda: GradualPruning(falling), averaging),
    "rewinding": (lambda: LotteryTicket(0.6, rounds=2, seed=0), momentum),
    "fine-tuning": (lambda: LotteryTicket(0.6, rounds=2, rewind=None, seed=0), lambda: "adam"),
}


@pytest.mark.parametrize("case", CASES)
def test_trajectory_and_ticket_are_those_of_the_masked_fit(case):
    pruning, optimizer = CASES[case]
    expected, history = fit(pruning(), optimizer=optimizer())
    found, compact_history = fit(pruning(), Compaction(), optimizer=optimizer())
    assert history.keys() == compact_history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(compact_history[name], values, rtol=2e-4, atol=1e-5, err_msg=name)
    masks = tfprune.get_masks(expected)
    assert sum(int(mask.sum()) for mask in masks.values()) < sum(mask.size for mask in masks.values())
    for name, mask in tfprune.get_masks(found).items():
        np.testing.assert_array_equal(mask, masks[name], err_msg=name)
    assert int(found.optimizer.iterations) == int(expected.optimizer.iterations)
    ours, theirs = tfprune.shrink(found), tfprune.shrink(expected)
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(value_of(one), value_of(other), rtol=1e-2, atol=2e-4, err_msg=one.path)
    for one, other in zip(found.optimizer.variables, expected.optimizer.variables, strict=True):
        np.testing.assert_allclose(value_of(one), value_of(other), rtol=1e-2, atol=2e-4, err_msg=one.path)


ATTENTION = {
    "multi-head": lambda: layers.MultiHeadAttention(4, 6, name="attention"),
    "grouped": lambda: layers.GroupQueryAttention(6, 4, 2, name="attention"),
}


@pytest.mark.parametrize("kind", ["multi-head", "grouped"])
def test_queries_that_get_shorter_are_trained_as_in_the_masked_fit(kind):
    """Attention divides by the root of their length: the small one must divide as the masked one does."""

    def attentive():
        keras.utils.set_random_seed(7)
        inputs = keras.Input((6, 6, 2))
        x = layers.Dense(8, name="first")(layers.Reshape((36, 2))(inputs))
        x = layers.GlobalAveragePooling1D()(ATTENTION[kind]()(x, x))
        model = keras.Model(inputs, layers.Dense(2, name="out")(x))
        model.compile(keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return tfprune.wrap(model)

    def pruning():
        return GradualPruning(falling, only=["attention:qk"])

    expected, history = fit(pruning(), masked=attentive())
    found, compact_history = fit(pruning(), Compaction(), masked=attentive())
    np.testing.assert_allclose(compact_history["loss"], history["loss"], rtol=2e-4)
    assert 1 <= tfprune.get_masks(found)["attention:qk"].sum() < 4
    for one, other in zip(tfprune.shrink(found).weights, tfprune.shrink(expected).weights, strict=True):
        np.testing.assert_allclose(value_of(one), value_of(other), rtol=1e-2, atol=2e-4, err_msg=one.path)


class Sizes(keras.callbacks.Callback):
    """How many parameters the model has that the steps of each epoch ran on."""

    def __init__(self, compacting):
        super().__init__()
        self.compacting, self.found = compacting, []

    def on_epoch_end(self, epoch, logs=None):
        stand_in = self.compacting._relay._stand_in
        self.found.append((stand_in.small if stand_in else self.model).count_params())


def test_steps_run_on_a_model_that_gets_smaller_and_fit_leaves_no_trace():
    compacting = Compaction()
    sizes = Sizes(compacting)
    masked = masked_model()
    masked.fit(*data(0), batch_size=16, epochs=4, verbose=0, callbacks=[compacting, sizes, GradualPruning(falling)])
    first, second, third, last = sizes.found  # the second pruning comes after the last step of an epoch
    assert masked_model().count_params() > first == second > third == last == tfprune.shrink(masked).count_params()
    before = [value_of(weight) for weight in masked.weights]
    small = tfprune.shrink(masked)
    assert masked.evaluate(*data(1), verbose=0) == pytest.approx(small.evaluate(*data(1), verbose=0), rel=1e-4)
    masked.fit(*data(0), epochs=1, verbose=0)
    assert any(np.any(value_of(now) != then) for now, then in zip(masked.weights, before, strict=True))


class Interrupt(keras.callbacks.Callback):
    """Stops a fit in the middle of its third epoch, and keeps what the small model held then."""

    def __init__(self, compacting):
        super().__init__()
        self.compacting, self.epoch = compacting, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2 and batch == 0:
            self.weights = [value_of(weight) for weight in self.compacting._relay._stand_in.small.weights]
            raise KeyboardInterrupt


def test_a_fit_that_is_stopped_in_an_epoch_loses_no_step_and_can_be_taken_up():
    compacting, masked = Compaction(), masked_model()
    stop = Interrupt(compacting)
    with pytest.raises(KeyboardInterrupt):
        masked.fit(*data(0), batch_size=16, epochs=4, verbose=0, callbacks=[compacting, GradualPruning(falling), stop])
    for weight, expected in zip(tfprune.shrink(masked).weights, stop.weights, strict=True):
        np.testing.assert_array_equal(value_of(weight), expected)
    fit(GradualPruning(lambda step: (step > 20, 0.8)), compacting, masked=masked, epochs=5)
    assert {int(mask.sum()) for mask in tfprune.get_masks(masked).values()} == {1, 2}


def test_learning_rate_that_another_callback_sets_reaches_the_small_model():
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: 0.0 if epoch >= 3 else 0.01)
    _, history = fit(GradualPruning(falling), Compaction(), rate)
    assert len(set(history["val_loss"][:3])) == 3
    assert history["loss"][4] == pytest.approx(history["loss"][5], abs=1e-6)


def test_compaction_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"must be the first .* Received: GradualPruning before it"):
        masked_model().fit(*data(0), verbose=0, callbacks=[GradualPruning(falling), Compaction()])
    plain = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    plain.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Compaction needs a model with channel masks"):
        plain.fit(np.zeros((2, 2)), np.zeros((2, 1)), verbose=0, callbacks=[Compaction()])


def test_counters_are_those_of_the_masked_model():
    masked = masked_model(momentum())
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    small = compaction.StandIn(masked).small
    small.train_on_batch(*data(0))
    assert int(masked.optimizer.iterations) == 1
    assert float(masked.optimizer.learning_rate) == pytest.approx(0.05 * 0.9**0.5)
    assert [metric.name for metric in small.metrics] == [metric.name for metric in masked.metrics]
    assert all(one is other for one, other in zip(small.metrics, masked.metrics, strict=True))


@keras.saving.register_keras_serializable("test_compaction")
class Counting(keras.Model):
    """A model with a training step and a metric of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.counted = keras.metrics.Sum("counted")

    def train_step(self, data):
        logs = super().train_step(data)
        self.counted.update_state(1.0)
        return {**logs, "counted": self.counted.result()}


def test_metric_of_a_models_own_step_goes_on():
    plain = masked_model()
    inputs = keras.Input((6, 6, 2))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, name="first")(inputs))
    model = Counting(inputs, layers.Dense(2, name="out")(hidden))
    model.compile("sgd", plain.loss)
    masked = tfprune.wrap(model)
    pruning = GradualPruning(lambda step: (step == 1, 0.5))
    _, history = fit(pruning, Compaction(), masked=masked, epochs=2)
    assert history["counted"] == [3.0, 3.0]
