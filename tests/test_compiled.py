"""Do the compiled loop and the slots give what `model.fit` gives?"""

import dataclasses
import types

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.callbacks.change import clear
from tfprune.pruning import surgery
from tfprune.study import compiled, kept, sizes, slots
from tfprune.study.order import batch_order
from tfprune.study.trial import Recipe


def split(seed, size):
    random = np.random.default_rng(seed)
    x = random.normal(size=(size, 3)).astype("float32")
    return x, (x[:, 0] > x[:, 1] * x[:, 2]).astype("int32")


DATA = types.SimpleNamespace(train=split(0, 60), validation=split(1, 43))
RECIPE = Recipe(epochs=15, patience=4)


def network(kind="plain"):
    hidden = layers.Dense(10, kernel_regularizer=keras.regularizers.L2(0.01), name="hidden")
    # no bias before the normalisation: its gradient is nothing but rounding, which Adam makes as large as any other
    hidden.use_bias = kind != "norm"
    middle = {"plain": [], "norm": [layers.BatchNormalization()], "dropout": [layers.Dropout(0.3, seed=5)]}[kind]
    return keras.Sequential([keras.Input((3,)), hidden, *middle, layers.ReLU(), layers.Dense(2, name="logits")])


def masked_model(kind="plain", optimizer=None, ratio=0.0):
    keras.utils.set_random_seed(2)
    model = network(kind)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(0.05), loss)
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio))
    return masked


def batches(seed, number, batch_size, epochs):
    """The batches that all trainers take, for `fit`: those of all epochs after one another."""
    x, y = DATA.train
    size = batch_size or len(y)
    orders = [batch_order(seed, number, epoch, len(y)) if batch_size else np.arange(len(y)) for epoch in range(epochs)]
    return ((x[order[at : at + size]], y[order[at : at + size]]) for order in orders for at in range(0, len(y), size))


def fit(model, recipe, seed, number):
    """Keras' own early stopping as the reference; returns what a `Trained` says."""
    stop = keras.callbacks.EarlyStopping("val_loss", patience=recipe.patience, restore_best_weights=True)
    size = recipe.batch_size or len(DATA.train[1])
    history = model.fit(
        batches(seed, number, recipe.batch_size, recipe.epochs), steps_per_epoch=-(-len(DATA.train[1]) // size),
        validation_data=DATA.validation, validation_batch_size=size, epochs=recipe.epochs, callbacks=[stop], verbose=0,
    ).history  # fmt: skip
    best = int(np.argmin(history["val_loss"]))
    return len(history["loss"]), best + 1, history["val_loss"][best], history["loss"], history["val_loss"]


SETTINGS = {
    "full_batch": ("plain", "adam", 0),
    "mini_batches": ("plain", "adam", 16),
    "momentum_and_schedule": ("plain", "sgd", 16),
    "batch_normalization": ("norm", "adam", 16),
    "dropout": ("dropout", "adam", 16),
}


def optimizer(name):
    if name == "adam":
        return keras.optimizers.Adam(0.05)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 8, 0.8, staircase=True)
    return keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=0.001)


@pytest.mark.parametrize("setting", SETTINGS)
def test_compiled_round_agrees_with_fit(setting):
    kind, name, batch_size = SETTINGS[setting]
    recipe = dataclasses.replace(RECIPE, batch_size=batch_size)
    fitted, trained = (masked_model(kind, optimizer(name), ratio=0.4) for _ in range(2))
    epochs, best_epoch, best, loss, val_loss = fit(fitted, recipe, 3, 1)
    found = compiled.train_round(trained, DATA, recipe, 3, 1)
    assert (found.epochs, found.best_epoch) == (epochs, best_epoch)
    assert found.best == pytest.approx(best, rel=1e-4)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-4)
    np.testing.assert_allclose(found.val_loss, val_loss, rtol=1e-4)
    for ours, theirs in zip(trained.weights, fitted.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=ours.path)


def test_round_ends_by_patience_and_gives_the_best_weights_back():
    masked = masked_model(optimizer=keras.optimizers.Adam(0.5))
    found = compiled.train_round(masked, DATA, dataclasses.replace(RECIPE, epochs=200), 0, 0)
    assert found.epochs == found.best_epoch + 4 < 200
    assert found.best == min(found.val_loss) == found.val_loss[found.best_epoch - 1]
    assert masked.evaluate(*DATA.validation, batch_size=43, verbose=0) == pytest.approx(found.best, rel=1e-4)
    assert int(masked.optimizer.iterations) == found.epochs, "only the weights went back"


def test_round_without_early_stop_trains_all_its_epochs():
    masked = masked_model(optimizer=keras.optimizers.Adam(0.5))
    found = compiled.train_round(masked, DATA, dataclasses.replace(RECIPE, epochs=20), 0, 0, early_stop=False)
    assert found.epochs == len(found.loss) == 20 > found.best_epoch + RECIPE.patience
    assert masked.evaluate(*DATA.validation, batch_size=43, verbose=0) == pytest.approx(min(found.val_loss), rel=1e-4)


def test_optimizer_goes_back_with_the_weights_where_the_next_round_goes_on_from_it():
    masked = masked_model(optimizer=keras.optimizers.Adam(0.5))
    found = compiled.train_round(masked, DATA, RECIPE, 0, 0, keep_optimizer=True)
    assert int(masked.optimizer.iterations) == found.best_epoch < found.epochs


def test_weights_after_an_epoch_can_be_seen_and_change_nothing():
    paused, straight, seen = masked_model(), masked_model(), []
    calls = {3: lambda: seen.append(paused.get_weights()), 99: lambda: seen.append(None)}
    found = compiled.train_round(paused, DATA, RECIPE, 0, 0, after_epoch=calls)
    assert found == compiled.train_round(straight, DATA, RECIPE, 0, 0)
    shorter = masked_model()
    compiled.train_round(shorter, DATA, dataclasses.replace(RECIPE, epochs=3), 0, 0)
    assert len(seen) == 1
    for ours, theirs in zip(seen[0], shorter.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Killed(Exception):
    pass


def test_round_goes_on_from_its_checkpoint_as_if_nothing_had_happened(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "_FIRST_EPOCHS", 3)
    recipe = dataclasses.replace(RECIPE, batch_size=16, patience=15)
    straight, killed, resumed = (masked_model("dropout") for _ in range(3))
    found = compiled.train_round(straight, DATA, recipe, 0, 1, keep_optimizer=True)

    def kill():
        raise Killed

    checkpoints = [kept.Checkpoint(tmp_path / "progress.npz", {}, seconds=0) for _ in range(2)]
    with pytest.raises(Killed):
        compiled.train_round(killed, DATA, recipe, 0, 1, True, after_epoch={8: kill}, checkpoint=checkpoints[0])
    assert checkpoints[1].load()[0]["progress"][0] in (3, 6)
    assert found == compiled.train_round(resumed, DATA, recipe, 0, 1, True, checkpoint=checkpoints[1])
    for ours, theirs in zip(resumed.weights, straight.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_loss_that_is_not_finite_is_an_error():
    x, y = DATA.train
    broken = types.SimpleNamespace(train=(x * np.nan, y), validation=DATA.validation)
    with pytest.raises(FloatingPointError, match="val_loss became nan in epoch 1"):
        compiled.train_round(masked_model(), broken, RECIPE, 0, 0)


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


def test_compiled_says_what_only_fit_can_train(monkeypatch):
    masked = masked_model()
    assert compiled.why_not(masked, DATA) is None
    own = OwnStep(network().layers)
    own.compile("adam", "mse")
    assert compiled.why_not(own, DATA) == "the model has a train_step of its own"
    assert "use_ema" in compiled.why_not(masked_model(optimizer=keras.optimizers.SGD(0.1, use_ema=True)), DATA)
    monkeypatch.setattr(compiled, "MOST_BYTES", 1000)
    assert "the data take" in compiled.why_not(masked, DATA)


# Slots --------------------------------------------------------------------------------------------------------------


def seated(masked, recipe, seed, number):
    """The masked model as a member of a slot of its size: `(size, kept units, member)`."""
    clear(masked, "here")
    graph = surgery.masked_graph(masked, "test")
    keep = graph.kept()
    size = sizes.Size(masked, sizes.counts_of(graph, keep, sizes.may_shrink(masked)))
    return size, keep, slots.Member(*size.take(keep), seed, number, recipe.epochs, recipe.patience)


@pytest.mark.parametrize("setting", SETTINGS)
def test_network_in_a_slot_agrees_with_the_compiled_round(setting):
    kind, name, batch_size = SETTINGS[setting]
    recipe = dataclasses.replace(RECIPE, batch_size=batch_size)
    alone, masked = (masked_model(kind, optimizer(name), ratio=0.4) for _ in range(2))
    clear(alone, "here")
    expected = compiled.train_round(alone, DATA, recipe, 3, 1, keep_optimizer=True)
    size, keep, member = seated(masked, recipe, 3, 1)
    assert size.counts == ((10,) if kind == "dropout" else (7,))  # of 10 channels, 6 of them kept
    slot = slots.Slot(size.model, DATA, batch_size)
    slot.waiting.append(member)
    assert slot.run() == [member]
    assert not slot.is_busy
    size.give(member.best_values, keep)
    found = member.trained
    assert (found.epochs, found.best_epoch) == (expected.epochs, expected.best_epoch)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-4)
    np.testing.assert_allclose(found.val_loss, expected.val_loss, rtol=1e-4)
    ours_and_theirs = ([*m.trainable_weights, *m.optimizer.variables] for m in (masked, alone))
    both = zip(*ours_and_theirs, strict=True)
    for ours, theirs in both:
        np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=ours.path)


def test_numbers_depend_neither_on_the_seat_nor_on_the_neighbours():
    recipe = dataclasses.replace(RECIPE, batch_size=16)
    size, _, member = seated(masked_model(ratio=0.4), recipe, 3, 1)
    slot = slots.Slot(size.model, DATA, 16)

    def train(seeds):
        """Members of these seeds in this order, with other weights for other seeds."""
        values = {
            seed: [v * (1 + 0.1 * (seed - 3)) if v.dtype == "float32" else v for v in member.values] for seed in seeds
        }
        members = {seed: slots.Member(values[seed], member.allow, seed, 1, 15, 2 + seed) for seed in seeds}
        slot.waiting.extend(members.values())
        while slot.is_busy:
            slot.run()
        return members[3]

    alone = train([3])
    for seeds in ([5, 3, 4], [9, 8, 7, 6, 5, 4, 2, 3], [*range(4, 14), 3]):  # the last waits until a seat is free
        other = train(seeds)
        assert other.losses == alone.losses
        for ours, theirs in zip(other.best_values, alone.best_values, strict=True):
            np.testing.assert_array_equal(ours, theirs)
