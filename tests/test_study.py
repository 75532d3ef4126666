"""Does a study run every cell once, whatever happens on the way?"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from tfprune import datasets, models, study
from tfprune.study import ResultsError, pool, work
from tfprune.study.trial import Recipe, Trial

SHORT = Recipe(epochs=8, patience=4)


def _study(**changes):
    fields = {"ratios": (0, 0.5), "seeds": (0, 1), "strategies": ("one_shot",)}
    return study.Study("small", "moons", "mlp", **{**fields, **changes})


def _fake(trial):
    return {"accuracy": 0.9 + trial.seed / 100 - trial.ratio / 10}


def _run(grid, out, **options):
    return study.run_study(grid, out=out, progress=False, **{"trial_function": _fake, **options})


def _table(rows):
    return [{name: value for name, value in row.items() if name not in ("wall_time", "started")} for row in rows]


# The runner, with a trial that does no work.


def test_every_cell_runs_once_and_rows_carry_what_identifies_them(tmp_path):
    rows = _run(_study(), tmp_path)
    assert [(row["ratio"], row["seed"]) for row in rows] == [(0, 0), (0, 1), (0.5, 0), (0.5, 1)]
    wanted = {"dataset": "moons", "strategy": "one_shot", "status": "done", "error": None, "epochs": 2000}
    assert wanted.items() <= rows[0].items()
    assert {"tfprune", "tensorflow", "keras", "numpy", "python", "wall_time"} <= rows[0].keys()
    assert rows == study.read_rows(tmp_path)
    assert (tmp_path / "results.csv").read_text().count("\n") == 5


def test_finished_trials_are_not_repeated_when_the_grid_grows(tmp_path):
    ran = []

    def counted(trial):
        ran.append(trial.key)
        return _fake(trial)

    _run(_study(), tmp_path, trial_function=counted)
    _run(_study(seeds=(0, 1, 2)), tmp_path, trial_function=counted)
    assert len(ran) == len(set(ran)) == 6


def test_rows_of_the_asked_grid_alone_are_returned(tmp_path):
    _run(_study(), tmp_path)
    assert [row["seed"] for row in _run(_study(seeds=(1,)), tmp_path)] == [1, 1]


def test_failed_trial_is_recorded_and_the_study_goes_on(tmp_path):
    def broken(trial):
        if trial.seed == 0:
            raise FloatingPointError("loss became nan in epoch 3.")
        return _fake(trial)

    rows = _run(_study(), tmp_path, trial_function=broken)
    assert [row["status"] for row in rows] == ["failed", "done", "failed", "done"]
    assert rows[0]["error"] == "FloatingPointError: loss became nan in epoch 3."
    again = _run(_study(), tmp_path)
    assert [row["status"] for row in again] == ["failed", "done", "failed", "done"]
    mended = _run(_study(), tmp_path, retry_failed=True)
    assert [row["status"] for row in mended] == ["done"] * 4


def test_folder_of_another_study_is_refused(tmp_path):
    _run(_study(), tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    with pytest.raises(ResultsError, match=r"another study\. Received: epochs=8, patience=4\. Expected: epochs=2000"):
        _run(_study(recipe=SHORT), tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    def stopped(trial):
        if trial.seed == 1:
            raise KeyboardInterrupt
        return _fake(trial)

    with pytest.raises(KeyboardInterrupt):
        _run(_study(), tmp_path, trial_function=stopped)
    assert [row["seed"] for row in study.read_rows(tmp_path)] == [0, 0]
    assert (tmp_path / "results.csv").read_text().count("\n") == 3
    assert len(_run(_study(), tmp_path)) == 4


def test_jobs_give_the_same_table(tmp_path):
    assert _table(_run(_study(), tmp_path / "one")) == _table(_run(_study(), tmp_path / "two", jobs=2))


def _waves(monkeypatch, tmp_path, fail=(), **options):
    """What the runner hands to its processes, call by call, as "dense-SEED" and "ticket-SEED"; and the rows."""
    waves = []

    def done(function, pieces, *ignored):
        waves.append(sorted(f"{piece.kind}-{piece.trials[0].seed}" for piece in pieces))
        for piece in pieces:
            [trial] = piece.trials
            failed = piece.kind == "dense" and trial.seed in fail
            found = FloatingPointError("loss became nan in epoch 1.") if failed else _fake(trial)
            yield piece, [work.finish(trial, found)] if failed or piece.kind == "ticket" else []

    monkeypatch.setattr(pool, "run", done)
    grid = _study(ratios=(0.5,), seeds=(0, 1, 2))
    rows = _run(grid, tmp_path, trial_function=None, trainer="fit", **options)
    return [wave for wave in waves if wave], rows


def test_the_last_dense_network_is_trained_beside_tickets_of_the_first(monkeypatch, tmp_path):
    waves, rows = _waves(monkeypatch, tmp_path, jobs=2)
    assert waves == [["dense-0", "dense-1"], ["dense-2", "ticket-0", "ticket-1"], ["ticket-2"]]
    assert len(rows) == 3


def test_tickets_of_a_dense_network_that_failed_are_failed_and_not_run(monkeypatch, tmp_path):
    waves, rows = _waves(monkeypatch, tmp_path, fail=(1, 2), jobs=2)
    assert waves == [["dense-0", "dense-1"], ["dense-2", "ticket-0"]]
    assert [row["status"] for row in rows] == ["done", "failed", "failed"]
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert len({row["key"] for row in rows}) == 3


def test_a_study_without_jobs_or_devices_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"jobs must be at least 1\. Received: 0"):
        _run(_study(), tmp_path, jobs=0)
    with pytest.raises(ValueError, match=r"devices must be at least 1\. Received: 0"):
        _run(_study(), tmp_path, devices=0)
    assert not list(tmp_path.iterdir())


def test_progress_bar_tells_of_failures_and_of_what_was_finished(tmp_path, capsys):
    def broken(trial):
        raise ValueError("too [bold]small[/bold]")

    _run(_study(seeds=(0,)), tmp_path)
    study.run_study(_study(), out=tmp_path, trial_function=broken)
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 of 4 trials were finished before" in shown
    assert "ValueError: too [bold]small[/bold]" in shown


SLOW_STUDY = """
import sys, time
from tfprune import study

def slow(trial):
    with open(sys.argv[1] + "/ran.txt", "a") as file:
        file.write(trial.key + "\\n")
    time.sleep(0.15)
    return {"accuracy": trial.ratio + trial.seed}

grid = study.Study("small", "moons", "mlp", ratios=(0, 0.3, 0.6), seeds=range(6), strategies=("one_shot",))
study.run_study(grid, out=sys.argv[1] + "/runs", jobs=int(sys.argv[2]), trial_function=slow, progress=False)
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_study_resumes_to_the_same_table_without_repeating_trials(tmp_path, jobs):
    script, out = tmp_path / "slow.py", tmp_path / "runs" / "results.jsonl"
    script.write_text(SLOW_STUDY)
    command = [sys.executable, str(script), str(tmp_path), str(jobs)]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.time() + 60
    while not (out.exists() and out.read_text().count("\n") >= 4):
        assert time.time() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {json.loads(line)["key"] for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")}
    assert 4 <= len(finished) < 18
    time.sleep(1.0)  # orphaned children end the trial they were at
    started_before = len((tmp_path / "ran.txt").read_text().splitlines())
    subprocess.run(command, check=True)
    ran = (tmp_path / "ran.txt").read_text().splitlines()
    assert not finished & set(ran[started_before:])
    rows = study.read_rows(tmp_path / "runs")
    cells = [(ratio, seed) for ratio in (0, 0.3, 0.6) for seed in range(6)]
    assert [(row["ratio"], row["seed"], row["accuracy"]) for row in rows] == [(r, s, r + s) for r, s in cells]
    assert out.read_text().count("\n") == 18


# Real trials, small.


@pytest.fixture(scope="module")
def rows():
    """Rows of real trials on the moons, by (strategy, ratio)."""
    cells = [("one_shot", 0.0), ("one_shot", 0.5), ("one_shot_random", 0.5), ("iterative", 0.5)]
    return {
        (strategy, ratio): work.row_of(Trial("moons", "mlp", strategy, ratio, 3, recipe=SHORT))
        for strategy, ratio in cells
    }


def test_real_trials_finish(rows):
    assert {row["error"] for row in rows.values()} == {None}


def test_ticket_has_the_asked_size(rows):
    assert {ratio: row["parameters"] for (_, ratio), row in rows.items()} == {0.0: 152, 0.5: 2 * 15 + 15 + 15 * 2 + 2}
    assert rows["one_shot", 0.5]["compression_ratio"] == pytest.approx(152 / 77)
    assert (rows["one_shot", 0.5]["channels_kept"], rows["one_shot", 0.5]["channels_total"]) == (15, 30)


def test_rows_hold_what_the_report_draws(rows):
    for row in rows.values():
        assert 1 <= row["early_stop_epoch"] <= row["epochs_trained"] <= 8
        assert 0 <= row["ece"] <= 1
        assert 0 <= row["far/auroc_msp"] <= 1
        assert sum(row["reliability_count"]) == 150


def test_strategies_differ_in_rounds_as_the_paper_says(rows):
    assert {strategy: row["rounds"] for (strategy, _), row in rows.items()} == {
        "one_shot": 1,
        "one_shot_random": 1,
        "iterative": 5,
    }


def test_trials_of_one_seed_share_their_dense_network(rows):
    shared = {name for name in rows["one_shot", 0.5] if name.startswith("dense_")}
    assert {"dense_accuracy", "dense_ece", "dense_early_stop_epoch", "dense_far/auroc_msp"} <= shared
    for name in shared:
        assert len({repr(row[name]) for row in rows.values()}) == 1, name


def test_dense_columns_are_those_of_plain_early_stopping(rows):
    import keras

    import tfprune

    cell = Trial("moons", "mlp", "one_shot", 0.5, 3, recipe=SHORT)
    keras.utils.set_random_seed(3)
    data = datasets.moons()
    model = work.build_model(cell, data)
    stop = keras.callbacks.EarlyStopping(patience=SHORT.patience, restore_best_weights=True)
    model.fit(
        *data.train,
        batch_size=len(data.train[0]),
        validation_data=data.validation,
        epochs=SHORT.epochs,
        callbacks=[stop],
        verbose=0,
    )
    wanted = tfprune.evaluate(model, data.test, from_logits=True)
    assert rows["one_shot", 0.5]["dense_accuracy"] == wanted["accuracy"]
    assert rows["one_shot", 0.5]["dense_nll"] == pytest.approx(wanted["nll"], abs=1e-6)


def test_decay_lowers_the_learning_rate_epoch_by_epoch():
    cell = Trial("moons", "mlp", "one_shot", 0.5, 0, recipe=Recipe("sgd", 0.1, 0.9, batch_size=100, decay=0.5))
    optimizer = work.build_model(cell, datasets.moons()).optimizer
    rates = []
    for step in (0, 6, 7, 14):  # 700 points in batches of 100: seven steps an epoch
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.025])
    assert optimizer.momentum == 0.9


def test_same_seed_gives_the_same_row(rows):
    again = work.row_of(Trial("moons", "mlp", "one_shot", 0.5, 3, recipe=SHORT))
    assert _table([again]) == _table([rows["one_shot", 0.5]])


def test_nan_loss_fails_the_trial_with_its_reason():
    recipe = Recipe("sgd", learning_rate=1e30, epochs=8, patience=4)
    row = work.row_of(Trial("moons", "mlp", "one_shot", 0.5, 0, recipe=recipe))
    assert row["status"] == "failed"
    assert "became nan in epoch" in row["error"]


def test_dense_layers_alone_are_pruned_when_asked():
    x = np.random.default_rng(0).normal(size=(32, 16, 16, 1)).astype("float32")
    split = (x, np.arange(32) % 3)

    def images():
        return datasets.Dataset("images", split, split, split, {}, num_classes=3, input_shape=(16, 16, 1))

    recipe = Recipe(batch_size=16, epochs=1, patience=1)
    row = work.row_of(Trial(images, "lenet", "one_shot", 0.5, 0, "dense", recipe=recipe))
    assert row["error"] is None
    assert row["dataset"] == "images"
    convolutions = (5 * 5 * 1 * 6 + 6) + (5 * 5 * 6 * 16 + 16)
    assert row["parameters"] == convolutions + (16 * 60 + 60) + (60 * 42 + 42) + (42 * 3 + 3)


def test_dense_layers_of_a_model_without_any_are_refused():
    row = work.row_of(Trial("moons", "mlp", "one_shot", 0.5, 0, "dense", recipe=SHORT))
    assert row["status"] == "failed"
    assert "there are none" in row["error"]


def test_own_data_and_model_run_in_child_processes(tmp_path):
    # defined here, as in a notebook: the children cannot import them
    code = textwrap.dedent("""
        import sys
        from tfprune import datasets, models, study

        def half():
            data = datasets.moons()
            return datasets.Dataset("half", data.train, data.validation, data.test, {}, 2, (2,))

        def tiny(input_shape, num_classes, seed):
            return models.mlp(input_shape, hidden=(4,), num_classes=num_classes, seed=seed)

        grid = study.Study("own", half, tiny, (0.5,), (0, 1), ("one_shot",), recipe=study.Recipe(epochs=2, patience=1))
        rows = study.run_study(grid, out=sys.argv[1], jobs=2, progress=False)
        print([(row["error"], row["dataset"], row["parameters"]) for row in rows])
    """)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[(None, 'half', 12), (None, 'half', 12)]", done.stderr


@pytest.mark.parametrize("batch_size", [1024, 700])
def test_a_batch_larger_than_the_data_is_all_of_them_for_every_trainer(tmp_path, batch_size):
    grid = _study(seeds=(0,), recipe=Recipe(batch_size=batch_size, epochs=3, patience=3))
    rows = {
        trainer: study.run_study(grid, tmp_path / trainer, progress=False, trainer=trainer)
        for trainer in ("batched", "compiled", "fit")
    }
    assert {row["trainer"] for row in rows["batched"]} == {"batched"}
    for trainer in ("batched", "compiled"):
        nll = [row["nll"] for row in rows[trainer]]
        np.testing.assert_allclose(nll, [row["nll"] for row in rows["fit"]], rtol=1e-4)


def test_rows_say_why_no_faster_trainer_was_taken(tmp_path):
    grid = _study(ratios=(0.5,), seeds=(0,), recipe=SHORT, evaluation=study.Evaluation(latency=True))
    [row] = study.run_study(grid, tmp_path / "auto", progress=False)
    assert (row["trainer"], row["trainer_reason"]) == (
        "compiled",
        "times are measured, which needs a processor of one's own",
    )
    [row] = study.run_study(grid, tmp_path / "compiled", progress=False, trainer="compiled")
    assert (row["trainer"], row["trainer_reason"]) == ("compiled", "it was asked for")
    [row] = study.run_study(grid, tmp_path / "batched", progress=False, trainer="batched")
    assert row["status"] == "failed"
    assert "trainer='batched' cannot train this trial: times are measured" in row["error"]
    [row] = study.run_study(dataclasses.replace(grid, evaluation=study.Evaluation()), tmp_path / "own", progress=False)
    assert (row["trainer"], row["trainer_reason"]) == ("batched", None)


def odd_network(input_shape, num_classes, seed):
    """Fails for seed 1, and has another shape for seed 2."""
    if seed == 1:
        raise AttributeError("no seed 1")
    return models.mlp(input_shape, hidden=(12 if seed == 2 else 8,), num_classes=num_classes, seed=seed)


def not_a_model(input_shape, num_classes, seed):
    return "a text"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_that_fails_is_a_row_and_the_others_are_what_they_are_without_it(tmp_path, jobs):
    recipe = study.Recipe(epochs=3, patience=3)
    grid = study.Study("odd", "moons", (odd_network, not_a_model), (0.0, 0.5), (0, 1, 2), ("one_shot",), recipe=recipe)
    rows = study.run_study(grid, tmp_path, jobs=jobs, progress=False)
    outcome = {(row["model"], row["seed"]): (row["status"], row["error"], row.get("trainer")) for row in rows}
    assert len(rows) == 12
    assert outcome["odd_network", 0] == ("done", None, "batched")
    assert outcome["odd_network", 1][:2] == ("failed", "AttributeError: no seed 1")
    assert outcome["odd_network", 2] == ("done", None, "compiled")
    assert {outcome["not_a_model", seed][0] for seed in (0, 1, 2)} == {"failed"}
    assert "a text" in outcome["not_a_model", 0][1]
    healthy = dataclasses.replace(grid, model=odd_network, seeds=(0,))
    alone = study.run_study(healthy, tmp_path / "alone", progress=False)
    assert _table(alone) == [row for row in _table(rows) if row["key"] in {other["key"] for other in alone}]


def test_a_seed_that_takes_its_process_down_does_not_condemn_the_others(tmp_path):
    def dies(input_shape, num_classes, seed):
        if seed == 1:
            os._exit(7)
        return models.mlp(input_shape, hidden=(8,), num_classes=num_classes, seed=seed)

    recipe = study.Recipe(epochs=3, patience=3)
    grid = study.Study("dies", "moons", dies, (0.0, 0.5), (0, 1, 2), ("one_shot",), recipe=recipe)
    rows = study.run_study(grid, tmp_path, jobs=2, progress=False)
    assert {(row["seed"], row["status"]) for row in rows} == {(0, "done"), (1, "failed"), (2, "done")}
    assert {row.get("trainer") for row in rows if row["seed"] != 1} == {"batched"}


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_process_loads_the_data_of_a_function_once(tmp_path, jobs):
    def logged():
        with (tmp_path / "loads").open("a") as file:
            file.write(f"{os.getpid()}\n")
        return datasets.moons()

    grid = study.Study("own", logged, "mlp", (0.0, 0.5), (0, 1), ("one_shot",), recipe=study.Recipe(epochs=2))
    rows = study.run_study(grid, tmp_path / "run", jobs=jobs, trainer="fit", progress=False)
    assert [row["status"] for row in rows] == ["done"] * 4
    assert {row["dataset"] for row in rows} == {"logged"}
    loads = (tmp_path / "loads").read_text().split()
    assert len(loads) == len(set(loads)) <= 2 * jobs  # a one-job study has a process to plan in, where this is unfit


def test_data_themselves_in_place_of_a_function_are_refused():
    with pytest.raises(TypeError, match=r"takes a function that returns its data.*'moons' itself"):
        study.Study("own", datasets.moons(), "mlp", (0.5,), (0,), ("one_shot",))


def test_data_by_name_of_tfds_is_loaded_once(monkeypatch):
    loads = []
    monkeypatch.setattr(datasets, "from_tfds", lambda name: loads.append(name) or datasets.moons())
    assert datasets.get("tfds:none") is datasets.get("tfds:none")
    assert loads == ["none"]
