"""Do trials that are run together give the rows that they give alone?"""

import dataclasses

import numpy as np
import pytest

from tfprune.study import batched, work
from tfprune.study.grid import Study
from tfprune.study.trial import Evaluation, Recipe, Trial

RECIPE = Recipe(learning_rate=0.05, epochs=12, patience=4)
STRATEGIES = ("one_shot", "one_shot_reinit", "one_shot_random", "iterative", "rewind_epoch_2", "scratch_compute")
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


def test_row_does_not_depend_on_who_is_run_with_it(together):
    some = [trial for trial in STUDY.trials() if trial.seed == 1][::-2]
    again = dict(batched.run(some, None))
    assert [again[trial] for trial in some] == [together[trial] for trial in some]


def test_shared_dense_networks_are_taken_from_the_folder(together, folder):
    assert [error for _, error in batched.run_dense(STUDY.trials()[:1], folder)] == [None]
    assert len(list((folder / "dense").glob("*-epoch-2.npz"))) == 2
    assert len(list((folder / "dense").glob("*.npz"))) == 6  # two networks, their rows, and their epoch 2
    assert not list((folder / "rounds").glob("*"))


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
