"""Do a trial's rounds give what one `fit` with LotteryTicket gives, whatever was kept and wherever it was killed?"""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from tfprune import datasets
from tfprune.callbacks import LotteryTicket
from tfprune.study import fit, kept, rounds, state, work
from tfprune.study.order import batch_order
from tfprune.study.trial import Recipe, Trial


def split(seed, size):
    random = np.random.default_rng(seed)
    x = random.normal(size=(size, 3)).astype("float32")
    return x, (x[:, 0] > x[:, 1] * x[:, 2]).astype("int32")


def tiny():
    return datasets.Dataset("tiny", split(0, 60), split(1, 43), split(2, 50), {"far": split(3, 20)[0] + 9}, 2, (3,))


def noisy(input_shape, num_classes, seed):
    """With all that has a state: statistics, dropout, an optimizer with slots."""
    draw = keras.initializers.GlorotUniform(seed)
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Dense(8, kernel_initializer=draw, name="hidden"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.2),
            layers.Dense(num_classes, kernel_initializer=draw, name="logits"),
        ]
    )


def trial(strategy="one_shot", ratio=0.5, epochs=4, patience=2, model=noisy, batch_size=16, rounds=None, seed=3):
    recipe = Recipe("adam", 0.05, batch_size=batch_size, epochs=epochs, patience=patience)
    return Trial(tiny, model, strategy, ratio, seed, recipe=recipe, rounds=rounds)


def row(of, folder=None):
    return work.run_trial(of, folder, trainer="fit")


def set_up(of):
    return work.set_up(of, trainer="fit")


class Killed(BaseException):
    """As kill -9: nothing may catch it."""


@pytest.fixture
def trained(monkeypatch):
    """The rounds that are trained, as `(round number, epochs at its start)`; `trained.kill` ends one in an epoch."""
    original = fit._Progress.on_epoch_end
    seen = type("Seen", (list,), {"kill": None})()

    def on_epoch_end(self, epoch, logs=None):
        if self.round.epochs == epoch and (not seen or seen[-1][0] != self.number or epoch == 0):
            seen.append((self.number, epoch))
        self.checkpoint.seconds = 0
        original(self, epoch, logs)
        if seen.kill == (self.number, epoch + 1):
            raise Killed

    monkeypatch.setattr(fit._Progress, "on_epoch_end", on_epoch_end)
    return seen


# One round ----------------------------------------------------------------------------------------------------------


def test_batches_of_fit_are_those_of_the_common_order():
    data = tiny()
    batches, steps = fit._training_batches(data, 16, seed=5, round_number=2, first_epoch=1)
    assert steps == 4
    taken = list(batches.take(2 * steps))
    for index, epoch in enumerate((1, 2)):
        order = batch_order(5, 2, epoch, 60)
        for part, which in enumerate((0, 1)):
            epoch_of = [batch[part].numpy() for batch in taken[index * steps : (index + 1) * steps]]
            assert [len(batch) for batch in epoch_of] == [16, 16, 16, 12]
            np.testing.assert_array_equal(np.concatenate(epoch_of), data.train[which][order])


def test_validation_takes_every_example_once():
    data = tiny()
    big = dataclasses.replace(data, validation=split(4, 600))
    for given, size, wanted in ((data, 16, [43]), (big, 16, [256, 256, 88]), (big, 0, [600])):
        batches, steps = fit._validation_batches(given, size)
        found = list(batches.take(steps))
        assert [len(x) for x, _ in found] == wanted
        np.testing.assert_array_equal(np.concatenate([y for _, y in found]), given.validation[1])


def test_no_round_waits_for_a_tuner_of_its_pipelines():
    data = tiny()
    for batches, _ in (fit._training_batches(data, 16, 0, 0, 0), fit._validation_batches(data, 16)):
        assert batches.options().autotune.enabled is False


def test_data_is_converted_once_in_a_process():
    data = tiny()
    assert fit.tensors(data) is fit.tensors(data)
    assert fit.tensors(tiny()) is not fit.tensors(data)


def test_round_ends_by_patience_or_trains_to_the_end():
    setup = set_up(trial())
    recipe = Recipe(batch_size=16, epochs=6, patience=2)
    start, values = state.read(setup.masked), []
    short = setup_round(setup, recipe, losses := [1.0, 2.0, 3.0, 0.5, 0.4, 0.3])
    assert (short.epochs, short.best_epoch, short.best) == (3, 1, 1.0)
    values.append(state.read(setup.masked))
    state.write(setup.masked, start)
    long = setup_round(setup, recipe, [*losses[:3], 4.0, 5.0, 6.0], early_stop=False)
    assert (long.epochs, long.best_epoch, long.val_loss[1]) == (6, 1, 2.0)
    values.append(state.read(setup.masked))
    best = len(setup.model.weights)  # the optimizer's state is not among the best weights
    assert all(np.array_equal(a, b) for a, b in zip(*(v[:best] for v in values), strict=True))


def setup_round(setup, recipe, losses, **options):
    """A round whose validation losses are put in."""
    given = iter(losses)
    state.reseed(setup.masked, 3, 0)
    original = fit.refuse_infinite

    def put_in(logs, *others):
        logs["val_loss"] = next(given)

    fit.refuse_infinite = put_in
    try:
        return fit.train_round(setup.masked, setup.data, recipe, 0, 0, **options)
    finally:
        fit.refuse_infinite = original


def test_loss_that_is_not_finite_is_an_error():
    with pytest.raises(FloatingPointError, match=r"val_loss became nan in epoch 3 of round 1. A lower learning rate"):
        fit.refuse_infinite({"loss": 0.5, "val_loss": float("nan")}, 3, 1)
    with pytest.raises(FloatingPointError, match="loss became inf in epoch 1 of round 0"):
        fit.refuse_infinite({"loss": float("inf")}, 1, 0)


@pytest.mark.parametrize("keep_optimizer", [True, False])
def test_killed_round_goes_on_to_the_same_bits(tmp_path, trained, keep_optimizer):
    recipe = Recipe(batch_size=16, epochs=6, patience=3)

    def train(checkpoint):
        setup = set_up(trial())
        state.reseed(setup.masked, 3, 1)
        found = fit.train_round(
            setup.masked, setup.data, recipe, 3, 1, keep_optimizer=keep_optimizer, checkpoint=checkpoint
        )
        return found, state.read(setup.masked)

    checkpoint = kept.Checkpoint(tmp_path / "a.npz", {"key": "1"})
    whole = train(None)
    trained.kill = (1, 4)
    with pytest.raises(Killed):
        train(checkpoint)
    trained.clear()
    trained.kill = None
    again = train(checkpoint)
    assert trained[0] == (1, 4)
    assert again[0] == whole[0]
    for now, then in zip(again[1], whole[1], strict=True):
        np.testing.assert_array_equal(now, then)


# All rounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["one_shot", "one_shot_random", "iterative", "lr_rewind", "rewind_epoch_2"])
def test_rounds_are_those_of_one_fit_with_lottery_ticket(strategy):
    of = trial(strategy, model="mlp", batch_size=0, rounds=2, epochs=5)
    setup, reference = set_up(of), set_up(of)
    rewind = rounds.controls.StudyTicket(of).rewind
    shelf = kept.Shelf(None, {})
    dense = rounds.train_dense(setup, shelf, of.epochs_to_keep)
    ticket, glances = rounds.train_rounds(setup, dense, shelf, shelf, lambda: {"seen": 1})
    callback = LotteryTicket(0.5, 2, rewind, patience=2, epochs_per_round=5, seed=3)
    train, validation = (datasets.as_full_batch(part) for part in (setup.data.train, setup.data.validation))
    reference.masked.fit(
        train, steps_per_epoch=1, validation_data=validation, validation_steps=1, epochs=15, callbacks=[callback],
        shuffle=False, verbose=0,
    )  # fmt: skip
    assert glances == [{"seen": 1}]
    assert repr(ticket.history) == repr(callback.history)
    assert ticket.ticket().seeds == callback.ticket().seeds
    for now, then in zip(setup.masked.get_weights(), reference.masked.get_weights(), strict=True):
        np.testing.assert_array_equal(now, then)


def test_dense_network_is_trained_once_for_all_strategies_and_ratios(tmp_path, trained):
    first = row(trial("one_shot"), tmp_path)
    second = row(trial("one_shot_random", ratio=0.25), tmp_path)
    assert [number for number, _ in trained] == [0, 1, 1]
    assert {name: first[name] for name in first if name.startswith("dense_")} == {
        name: second[name] for name in second if name.startswith("dense_")
    }


def test_run_dense_keeps_network_row_and_asked_epochs(tmp_path, trained):
    of = trial("rewind_epoch_2")
    work.run_dense(trial("one_shot"), tmp_path, marks=[1], trainer="fit")
    names = [path.name.replace(of.dense_key, "KEY") for path in (tmp_path / "dense").iterdir()]
    assert {"KEY.npz", "KEY-epoch-1.npz"} < set(names)
    assert sum(name.startswith("KEY-row-") for name in names) == 1
    found = row(of, tmp_path)
    # epoch 2 was not kept: it is trained again, and it alone
    assert [number for number, _ in trained] == [0, 0, 1]
    assert found["total_epochs"] == found["dense_epochs"] + found["epochs_trained"]
    work.run_dense(of, tmp_path, trainer="fit")
    assert len(trained) == 3
    assert found == row(of)


def test_epoch_after_the_end_of_the_dense_training_is_refused():
    with pytest.raises(ValueError, match=r"rewinds to epoch 4, but the dense network stopped after \d epochs"):
        row(trial("rewind_epoch_4", patience=1))


@pytest.mark.parametrize("kill", [(0, 2), (1, 1), (3, 2)], ids=str)
def test_killed_trial_resumes_to_the_same_row(tmp_path, trained, whole_row, kill):
    of = trial("iterative_finetune", rounds=3)
    trained.kill = kill
    with pytest.raises(Killed):
        row(of, tmp_path)
    trained.clear()
    trained.kill = None
    assert row(of, tmp_path) == whole_row
    assert trained[0] == kill
    assert not list((tmp_path / "rounds").iterdir())
    assert not list((tmp_path / "dense").glob("*.progress.npz"))


@pytest.fixture(scope="module")
def whole_row():
    return row(trial("iterative_finetune", rounds=3))


def test_dense_network_that_is_damaged_or_of_other_data_is_trained_again(tmp_path, trained):
    of = trial("one_shot")
    before = row(of, tmp_path)
    path = tmp_path / "dense" / f"{of.dense_key}.npz"
    path.write_bytes(path.read_bytes()[:-100])
    trained.clear()
    assert row(of, tmp_path) == before
    assert [number for number, _ in trained] == [0, 1]

    def edited():
        return dataclasses.replace(tiny(), train=split(7, 60))

    edited.__qualname__ = "tiny"  # the user changed the function of this name
    other = dataclasses.replace(of, dataset=edited)
    assert other.dense_key == of.dense_key
    trained.clear()
    assert row(other, tmp_path) != before
    assert [number for number, _ in trained] == [0, 1]
