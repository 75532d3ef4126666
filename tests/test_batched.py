"""Do trials that are run together give the rows that they give alone?"""

import dataclasses

import keras
import numpy as np
import pytest

from tfprune.study import batched, sizes, slots, work
from tfprune.study.grid import Study
from tfprune.study.trial import Evaluation, Recipe, Trial

RECIPE = Recipe(learning_rate=0.05, epochs=12, patience=4)
STRATEGIES = (
    "one_shot",
    "one_shot_reinit",
    "one_shot_random",
    "iterative",
    "at_init",
    "rewind_epoch_2",
    "scratch_compute",
)
STUDY = Study("test", "moons", "mlp", ratios=(0.6,), seeds=(0, 1), strategies=STRATEGIES, recipe=RECIPE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def together(folder):
    rows = dict(batched.run(STUDY.trials(), folder))
    assert set(rows) == set(STUDY.trials())
    return rows


def assert_alike(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in theirs.keys() - {"trainer", "trainer_reason"}:
        if isinstance(theirs[name], float):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-4), name
        elif isinstance(theirs[name], list) and all(isinstance(value, float) for value in theirs[name]):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4, err_msg=name)
        elif "reliability" not in name:
            assert ours[name] == theirs[name], name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_trial_agrees_with_the_compiled_and_the_fit_trainer(together, strategy):
    trial = next(trial for trial in together if trial.strategy == strategy)
    for trainer in ("compiled", "fit")[: 2 if strategy == "iterative" else 1]:
        assert_alike(together[trial], work.run_trial(trial, trainer=trainer))
    assert together[trial]["trainer"] == "batched"


def test_trials_that_a_killed_piece_had_finished_are_not_trained_again(together, tmp_path, monkeypatch):
    monkeypatch.setattr(batched, "KEEP_ROUNDS_AFTER", -1.0)
    some = [trial for trial in STUDY.trials() if trial.seed == 0][:3]
    running = batched.run(some, tmp_path)
    first, row = next(running)
    running.close()  # as a process that is killed: the rows of a piece come back together
    begun = []
    steps = batched.rounds.ticket_steps
    monkeypatch.setattr(
        batched.rounds, "ticket_steps", lambda setup, *rest: begun.append(setup.trial) or steps(setup, *rest)
    )
    assert dict(batched.run(some, tmp_path))[first] == row == together[first]
    assert set(begun) == set(some) - {first}


@pytest.mark.parametrize("optimizer", ["nadam", "rmsprop", "ftrl", "lion", "adamw", "muon"])
def test_optimizers_agree_with_the_compiled_trainer(optimizer):
    trial = Trial("moons", "mlp", "one_shot", 0.6, 0, recipe=dataclasses.replace(RECIPE, optimizer=optimizer))
    [(_, row)] = batched.run([trial], None)
    assert_alike(row, work.run_trial(trial, trainer="compiled"))


def test_row_does_not_depend_on_who_is_run_with_it(together):
    some = [trial for trial in STUDY.trials() if trial.seed == 1][::-2]
    again = dict(batched.run(some, None))
    assert [again[trial] for trial in some] == [together[trial] for trial in some]


@pytest.fixture(scope="module")
def slot():
    family = batched._family(STUDY.trials())
    return slots.Slot(sizes.Size(family.masked, (9,)).model, family.setup.data, batch_size=0)


def members_of(slot):
    """As many networks of random weights as a slot has seats."""
    rng, found = np.random.default_rng(0), []
    for seed in range(slots.SEATS):
        values = [variable.numpy() for part in slot.parts for variable in part]
        values[: len(slot.parts[0])] = [rng.normal(size=v.shape).astype("float32") for v in slot.parts[0]]
        allow = [np.ones(v.shape, "float32") for v in slot.parts[0]]
        found.append(slots.Member(values, allow, seed, round_number=0, epochs=5, patience=5))
    return found


def trained(slot, members):
    slot.waiting.extend(members)
    while slot.is_busy:
        slot.run()
    return members


def test_numbers_depend_neither_on_the_seat_nor_on_the_neighbours(slot):
    first, again = members_of(slot), members_of(slot)
    trained(slot, first)
    trained(slot, again[1:][::-1])
    trained(slot, again[:1])
    for one, other in zip(first, again, strict=True):
        assert one.losses == other.losses
        for ours, theirs in zip(one.values, other.values, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_step_of_a_slot_is_that_of_train_on_batch(slot):
    family, [member, *_] = batched._family(STUDY.trials()), members_of(slot)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(9, "relu"), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RECIPE.learning_rate), loss)
    model.set_weights(member.values[:4])
    losses = [model.train_on_batch(*family.setup.data.train) for _ in range(5)]
    trained(slot, [member])
    np.testing.assert_allclose([own for own, _ in member.losses], losses, rtol=1e-5)
    for ours, theirs in zip(member.values, model.get_weights(), strict=False):  # the optimizer's follow
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_shared_dense_networks_are_taken_from_the_folder(together, folder):
    assert [error for _, error in batched.run_dense(STUDY.trials()[:1], folder)] == [None]
    assert len(list((folder / "dense").glob("*-epoch-2.npz"))) == 2
    assert len(list((folder / "dense").glob("*.npz"))) == 6  # two networks, their rows, and their epoch 2
    # what is finished stays until its row is written, where the process has worked for a while
    assert not [path for path in (folder / "rounds").glob("*") if not path.name.endswith("-finished.npz")]


def test_a_trial_that_fails_leaves_the_others_alone():
    late = Trial("moons", "mlp", "rewind_epoch_99", 0.5, 0, recipe=RECIPE)
    good = dataclasses.replace(late, strategy="one_shot")
    found = dict(batched.run([late, good], None))
    assert isinstance(found[late], ValueError)
    assert found[good]["early_stop_epoch"] > 0


def test_training_that_diverges_is_the_trials_error():
    wild = dataclasses.replace(RECIPE, optimizer="sgd", learning_rate=1e30)
    [(_, error)] = batched.run([Trial("moons", "mlp", "one_shot", 0.5, 0, recipe=wild)], None)
    assert isinstance(error, FloatingPointError)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"model": "cnn", "dataset": "digits"}, "Conv2D is no layer"),
        ({"evaluation": Evaluation(latency=True)}, "times are measured"),
    ],
    ids=["moons", "cnn", "latency"],
)
def test_batched_says_why_it_cannot(change, reason):
    found = batched.why_not(dataclasses.replace(STUDY.trials()[0], **change))
    assert found is reason or reason in found
