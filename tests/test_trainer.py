"""Does the compiled trainer give the ticket that `model.fit` gives?"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfprune
from tfprune.callbacks import LotteryTicket
from tfprune.pruning.strategies import STRATEGIES
from tfprune.study.trainer import train_full_batch

PAPER = ("one_shot", "one_shot_reinit", "one_shot_random", "iterative", "iterative_finetune")


def data(seed):
    random = np.random.default_rng(seed)
    x = random.normal(size=(60, 3)).astype("float32")
    return x, (x[:, 0] > x[:, 1] * x[:, 2]).astype("int32")


def masked_model(optimizer):
    keras.utils.set_random_seed(2)
    hidden = layers.Dense(10, kernel_regularizer=keras.regularizers.L2(0.01), name="hidden")
    model = keras.Sequential(
        [keras.Input((3,)), hidden, layers.BatchNormalization(), layers.ReLU(), layers.Dense(2, name="logits")]
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return tfprune.wrap(model)


def ticket(strategy, **options):
    options = {"patience": 4, "epochs_per_round": 15, "seed": 1, **options}
    return LotteryTicket(0.6, rounds=STRATEGIES[strategy].rounds, rewind=STRATEGIES[strategy].rewind, **options)


@pytest.mark.parametrize("strategy", PAPER)
def test_compiled_loop_agrees_with_fit(strategy):
    fitted, compiled = masked_model(keras.optimizers.Adam(0.05)), masked_model(keras.optimizers.Adam(0.05))
    in_fit, in_loop = ticket(strategy), ticket(strategy)
    train, validation = (tf.data.Dataset.from_tensors(data(seed)) for seed in (0, 1))
    epochs = 15 * (in_fit.rounds + 1)
    fitted.fit(train, validation_data=validation, epochs=epochs, callbacks=[in_fit], verbose=0, shuffle=False)
    train_full_batch(compiled, data(0), data(1), in_loop)
    assert in_loop.finished
    for a, b in zip(in_fit.history, in_loop.history, strict=True):
        assert {name: a[name] for name in ("round", "epochs", "early_stop_epoch", "channels_kept")} == {
            name: b[name] for name in ("round", "epochs", "early_stop_epoch", "channels_kept")
        }
        assert a["best"] == pytest.approx(b["best"], rel=1e-4)
    for a, b in zip(fitted.get_weights(), compiled.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_round_ends_by_patience_and_restores_its_best_weights():
    masked, callback = masked_model(keras.optimizers.Adam(0.5)), ticket("one_shot", epochs_per_round=200, patience=3)
    train_full_batch(masked, data(0), data(1), callback)
    last = callback.history[-1]
    assert last["epochs"] == last["early_stop_epoch"] + 3 < 200
    assert masked.evaluate(*data(1), verbose=0, batch_size=60) == pytest.approx(last["best"], rel=1e-4)


def test_after_round_sees_the_best_weights_of_each_round():
    masked, callback, seen = masked_model("adam"), ticket("iterative"), []
    train_full_batch(
        masked,
        data(0),
        data(1),
        callback,
        lambda number: seen.append(masked.evaluate(*data(1), verbose=0, batch_size=60)),
    )
    np.testing.assert_allclose(seen, [row["best"] for row in callback.history], rtol=1e-4)


def test_loss_that_is_not_finite_is_an_error():
    x, y = data(0)
    with pytest.raises(FloatingPointError, match="val_loss became nan in epoch 1"):
        train_full_batch(masked_model("adam"), (x * np.nan, y), data(1), ticket("one_shot"))


@pytest.mark.parametrize("change", [{"monitor": "loss"}, {"rewind": 3}, {"epochs_per_round": None}], ids=str)
def test_tickets_it_cannot_run_are_refused(change):
    callback = LotteryTicket(**{"ratio": 0.5, "epochs_per_round": 9, **change})
    with pytest.raises(ValueError, match=r"train_full_batch needs a ticket.*Use masked.fit"):
        train_full_batch(masked_model("adam"), data(0), data(1), callback)
