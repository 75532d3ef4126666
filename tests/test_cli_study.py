"""Does `tfprune study` run what its words and flags say, forecast it, and tell how far it is?"""

import json
import os
import subprocess
import sys
import types

import pytest

import tfprune
from tfprune import cli, datasets, models, study
from tfprune.cli import chosen, forecast, names, program, standing, summary
from tfprune.study import grid
from tfprune.study.trial import Evaluation, Recipe


def two_points():
    """A data set that a user brings."""


def chosen_study(*words):
    return chosen.chosen_study(program.build_parser().parse_args(["study", *map(str, words)]))


def test_study_options_choose_the_grid():
    grid = ["--seeds", "0-2,7", "--ratios", "0,0.5", "--strategies", "one_shot,iterative"]
    study = chosen_study("moons", *grid, "--layers", "hidden", "--epochs", "9")
    assert (study.seeds, study.ratios, study.strategies) == ((0, 1, 2, 7), (0.0, 0.5), ("one_shot", "iterative"))
    assert (study.layers, study.recipe) == ("hidden", Recipe(epochs=9))


def test_lists_may_be_written_with_spaces():
    study = chosen_study("moons", "--seeds", "0", "4-5", "--ratios", "0", "0.5", "--strategies", "one_shot", "dense")
    assert (study.seeds, study.ratios, study.strategies) == ((0, 4, 5), (0.0, 0.5), ("one_shot", "dense"))


def test_several_values_of_any_flag_are_an_axis_of_the_grid():
    flags = {
        "--dataset": f"moons,{__name__}:two_points",
        "--model": "mlp",
        "--criterion": "l1,l2",
        "--scope": "layer,global",
        "--rounds": "1,3",
        "--layers": "dense,hidden+logits",
        "--optimizer": "sgd",
        "--learning-rate": "0.1,0.2",
        "--momentum": "0.9",
        "--weight-decay": "0.01",
        "--decay": "0.5",
        "--batch-size": "32,64",
        "--patience": "2",
        "--detectors": "msp,knn",
        "--ood": "svhn_cropped",
        "--corruptions": "fog",
        "--severities": "1,5",
    }
    grid = ["--ratios", "0.5", "--seeds", "0", "--strategies", "one_shot"]
    study = chosen_study("mine", *grid, *(word for flag in flags.items() for word in flag), "--latency")
    trials = study.trials()
    assert (study.name, len(trials)) == ("mine", 2**7)
    assert {trial.dataset for trial in trials} == {"moons", f"{__name__}:two_points"}
    assert {trial.layers for trial in trials} == {"dense", "hidden,logits"}
    assert {trial.rounds for trial in trials} == {1, 3}
    assert {(trial.criterion, trial.scope) for trial in trials} == {
        (c, s) for c in ("l1", "l2") for s in names.KNOWN["scopes"]()
    }
    assert {(trial.recipe.learning_rate, trial.recipe.batch_size) for trial in trials} == {
        (r, b) for r in (0.1, 0.2) for b in (32, 64)
    }
    assert {(t.recipe.optimizer, t.recipe.momentum, t.recipe.weight_decay, t.recipe.decay) for t in trials} == {
        ("sgd", 0.9, 0.01, 0.5)
    }
    assert {trial.evaluation for trial in trials} == {
        Evaluation(("msp", "knn"), ("fog",), (1, 5), True, ("svhn_cropped",))
    }


def test_flags_change_a_study_that_a_file_describes(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('dataset = "moons"\nmodel = "mlp"\nratios = [0, 0.5]\nseeds = [0]\n[recipe]\nepochs = [5, 6]\n')
    study = chosen_study(path, "--seeds", "3", "--patience", "4")
    assert (study.name, study.seeds) == ("mine", (3,))
    assert {(trial.recipe.epochs, trial.recipe.patience) for trial in study.trials()} == {(5, 4), (6, 4)}


def test_strategies_that_a_file_defines_can_be_chosen_by_a_flag(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'dataset = "moons"\nmodel = "mlp"\nratios = [0.5]\nseeds = [0]\n[[strategy]]\nname = "three"\nrounds = 3\n'
        '[[strategy]]\nname = "four"\nrounds = 4\n'
    )
    trials = chosen_study(path, "--strategies", "three,one_shot").trials()
    assert [(trial.name.split()[2], trial.num_rounds) for trial in trials] == [("three", 3), ("one_shot", 1)]


def test_quick_study_has_a_folder_of_its_own():
    assert chosen_study("moons", "--quick").name == "moons-quick"


SMALL = study.Study("moons", "moons", "mlp", (0.0, 0.5), (0,), ("one_shot",), recipe=Recipe(epochs=2, patience=1))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which `tfprune study` ran the moons with two epochs a round and two cells; and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "moons"
    words = ["study", "moons", "--seeds", "0", "--ratios", "0,0.5", "--strategies", "one_shot", "--epochs", "2"]
    words += ["--patience", "1", "--jobs", "1", "--out", str(folder), "--trainer", "compiled"]
    code = f"import sys\nfrom tfprune.cli import main\nsys.exit(main({words!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def small_study(monkeypatch):
    """Stands in for the moons: what `finished` ran."""
    monkeypatch.setitem(grid.STUDIES, "moons", SMALL)


def document(capsys, *words, code=0):
    assert cli.main([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_study_writes_its_files_and_prints_table_and_report(finished):
    folder, done = finished
    assert "one_shot" in done.stdout
    assert "AUROC" in done.stdout
    assert done.stdout.endswith(f"report: {folder / 'report.html'}\n")
    assert f"moons: 2 trials in {folder}" in done.stderr
    assert {"results.jsonl", "results.csv", "report.html"} <= {path.name for path in folder.iterdir()}
    assert len(study.read_rows(folder)) == 2


def test_study_answers_machines_with_its_table(finished, small_study, capsys):
    found = document(capsys, "study", "moons", "--out", finished[0], "--jobs", "1", "--quiet")
    rows = {row["ratio"]: row for row in study.read_rows(finished[0])}
    assert [(cell["strategy"], cell["ratio"]) for cell in found["cells"]] == [("one_shot", 0.0), ("one_shot", 0.5)]
    assert found["cells"][1]["accuracy"] == rows[0.5]["accuracy"]
    assert (found["trials"], found["failed"]) == (2, [])


def test_how_it_runs_is_handed_on(small_study, monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(study, "run_study", lambda study, **how: asked.update(how) or [])
    monkeypatch.setattr(study, "write_report", lambda folder: folder)
    monkeypatch.setattr("tfprune.cli.study.summary_table", lambda rows: ("", []))
    words = ["--jobs", "3", "--backend", "ray", "--trainer", "fit", "--devices", "2", "--retry-failed", "--quiet"]
    assert cli.main(["study", "moons", "--out", str(tmp_path), *words]) == 0
    expected = {"jobs": 3, "backend": "ray", "trainer": "fit", "devices": 2, "retry_failed": True, "progress": False}
    assert asked == {"out": tmp_path, **expected}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # distributed and what it stands on, in their own code
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_study_runs_on_the_dask_cluster_at_an_address(small_study, monkeypatch, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    seen = []

    def run_study(study, **how):
        seen.append(distributed.get_client().scheduler.address)
        return []

    monkeypatch.setattr(study, "run_study", run_study)
    monkeypatch.setattr(study, "write_report", lambda folder: folder)
    monkeypatch.setattr("tfprune.cli.study.summary_table", lambda rows: ("", []))
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, processes=False, protocol="tcp") as cluster:
        address = cluster.scheduler_address
        words = ["study", "moons", "--out", str(tmp_path), "--backend", "dask", "--cluster", address]
        assert cli.main(words) == 0
    assert seen == [address]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "dask"], "--backend dask needs the address of a scheduler."),
        (["--cluster", "tcp://127.0.0.1:1"], "--cluster needs --backend dask or --backend ray."),
    ],
)
def test_clusters_that_cannot_be_reached_are_told_in_one_line(words, message, tmp_path, capsys):
    assert cli.main(["study", "moons", "--quiet", "--out", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err


def test_backends_and_trainers_are_those_that_there_are():
    from tfprune.study import pieces, pool

    assert names.BACKENDS == pool.BACKENDS
    assert names.TRAINERS == pieces.TRAINERS


def test_failed_trials_are_told_by_the_exit_code(small_study, monkeypatch, tmp_path, capsys):
    failed = [{"key": "k", "status": "failed", "error": "FloatingPointError: nan"}]
    monkeypatch.setattr(study, "run_study", lambda study, **how: failed)
    monkeypatch.setattr(study, "write_report", lambda folder: folder)
    monkeypatch.setattr("tfprune.cli.study.summary_table", lambda rows: ("", []))
    assert document(capsys, "study", "moons", "--out", tmp_path, code=1)["failed"] == [
        {"key": "k", "error": "FloatingPointError: nan"}
    ]


def test_status_tells_how_far_a_study_is(finished, tmp_path, capsys):
    folder = tmp_path / "half"
    folder.mkdir()
    for name in ("study.json", "results.jsonl"):
        (folder / name).write_bytes((finished[0] / name).read_bytes())
    assert cli.main(["study", "--status", str(folder)]) == 0
    assert capsys.readouterr().out == "moons: 2 trials, 2 done, 0 failed, 0 left\n"
    first, second = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    (folder / "results.jsonl").write_text(first)
    found = document(capsys, "study", "--status", folder)
    assert [found[name] for name in ("trials", "done", "failed", "left", "active")] == [2, 1, 0, 1, False]
    assert found["seconds_left"] == pytest.approx(json.loads(first)["wall_time"])
    cli.main(["study", "--status", str(folder)])
    assert "No process works on it." in capsys.readouterr().out
    failed = {**json.loads(second), "status": "failed", "error": "it did"}
    (folder / "results.jsonl").write_text(first + json.dumps(failed) + "\n")
    assert cli.main(["study", "--status", str(folder)]) == 1
    assert "1 done, 1 failed, 0 left" in capsys.readouterr().out


def test_status_loads_nothing_heavy(finished):
    code = (
        "import sys\nfrom tfprune.cli import main\nmain(['study', '--status', sys.argv[1]])\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'matplotlib', 'numpy', 'sklearn', 'joblib'} & sys.modules.keys()\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(finished[0])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_dry_run_lists_the_trials_and_what_finished_ones_tell_of_the_time(finished, monkeypatch, capsys):
    monkeypatch.setattr(forecast, "time_trial", None)  # nothing needs to be measured
    grid_words = ["--seeds", "0-1", "--ratios", "0,0.5", "--strategies", "one_shot", "--epochs", "2", "--patience", "1"]
    words = ["study", "moons", *grid_words, "--dry-run", "--jobs", "2", "--out", finished[0]]
    found = document(capsys, *words)
    assert [trial["status"] for trial in found["trials"]] == ["done", "done", "left", "left"]
    times = [row["wall_time"] for row in study.read_rows(finished[0])]
    assert (found["to_run"], found["seconds_from"]) == (2, "finished trials")
    assert found["seconds"] == pytest.approx(sum(times) / 2)
    assert cli.main([str(word) for word in words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("moons mlp one_shot ratio=0 seed=0 epochs=2 patience=1  [done]")
    assert lines[-2] == f"moons: 4 trials in {finished[0]}, 2 to run"
    assert lines[-1].startswith("time: about ")


def test_dry_run_without_finished_trials_counts_epochs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(forecast, "time_trial", lambda trial: forecast.Cost(start=7.0, fixed=3.0, epoch=0.5))
    strategies = "one_shot,iterative,scratch_compute"
    words = ["--seeds", "0-1", "--ratios", "0.2,0.5", "--strategies", strategies, "--epochs", "100"]
    found = document(capsys, "study", "moons", *words, "--dry-run", "--jobs", "4", "--out", tmp_path / "new")
    # two dense networks, and for each of two seeds and two ratios one round of one_shot and five of iterative; from
    # scratch with the same compute the epochs grow as layers lose inputs and outputs
    rounds = 2 + 4 * (1 + 5) + 2 * (1 / 0.8**2 + 1 / 0.5**2)
    assert found["seconds"] == pytest.approx(7 + (3 * (2 + 4 * 3) + 0.5 * 100 * rounds) / 4)
    assert found["seconds_from"] == "a short epoch"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("batch_size", "trained", "epoch"),
    [
        (0, [(700, 1), (700, 1), (700, 3)], 1.0),  # two epochs more take two seconds more
        (128, [(256, 1), (256, 1), (256, 2)], 2 * 700 / 256),  # one epoch more of 256 of 700 examples takes two more
    ],
)
def test_a_trial_is_timed_on_its_first_steps_and_the_evaluation_of_its_half(batch_size, trained, epoch, monkeypatch):
    from tfprune.study import measure, process, work

    seen = []
    trainer = types.SimpleNamespace(
        train_round=lambda masked, data, recipe, seed, number, early_stop: seen.append(
            (len(data.train[0]), recipe.epochs)
        )
    )
    trial = study.Trial("moons", "mlp", "one_shot", 0.5, 0, recipe=Recipe(batch_size=batch_size))
    masked = tfprune.wrap(models.mlp((2,), num_classes=2))
    setup = types.SimpleNamespace(data=datasets.moons(), masked=masked, trainer=trainer, dense_cost={}, trial=trial)
    monkeypatch.setattr(work, "set_up", lambda trial: setup)
    monkeypatch.setattr(process, "settle", lambda: None)
    monkeypatch.setattr(measure, "evaluate", lambda small, data, *_: seen.append(small.count_params()))
    monkeypatch.setattr(forecast, "_STEPS", 2)
    # what the clock says before and after: 6 s to start, 5 to set up, 9, 1 and 3 s to train, 4 s to evaluate
    clock = iter([0, 6, 10, 15, 20, 29, 30, 31, 40, 43, 50, 54])
    monkeypatch.setattr(forecast, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    assert forecast.time_trial(trial) == forecast.Cost(start=6, fixed=5 + (9 - 1) + 4, epoch=pytest.approx(epoch))
    assert seen == [*trained, 2 * 15 + 15 + 15 * 2 + 2]  # of the half


def test_trials_that_trained_side_by_side_share_the_time(monkeypatch):
    from tfprune.study import batched, pieces

    trials = tuple(study.Trial("moons", "mlp", "one_shot", ratio, 0) for ratio in (0.0, 0.5, 0.9))
    monkeypatch.setattr(batched, "run", lambda trials, folder: ((trial, {}) for trial in trials))
    clock = iter([100.0, 106.0])
    monkeypatch.setattr(pieces.time, "time", lambda: next(clock))
    rows = pieces.perform(pieces.Piece("ticket", trials, batched=True))
    assert [(row["started"], row["wall_time"]) for row in rows] == [(100.0, 2.0)] * 3


def test_status_names_what_is_running():
    kinds = {"k1": ["one_shot", 0.5], "k2": ["iterative", 0.9]}
    found = {"study": "moons", "trials": 2, "done": 0, "failed": 0, "left": 2, "active": True, "jobs": 2}
    found |= {"seconds_left": 8000.0, "running": ["dense-k1", "ticket-k2", "plan-k3"]}
    assert list(standing._lines("runs/moons", found, kinds)) == [
        "moons: 2 trials, 0 done, 0 failed, 2 left",
        "time left: about 2 h 13 min with 2 trials at a time",
        "running: a dense network, iterative at 0.9, plan-k3",
    ]


def test_a_narrow_terminal_leaves_columns_out_and_wraps_no_number(monkeypatch):
    common = {"status": "done", "strategy": "one_shot_random", "model": "mlp", "dataset": "digits", "ratio": 0.5}
    common |= {"early_stop_epoch": 3, "compression_ratio": 2.0, "theoretical_speedup": 2.5, "ece": 0.05}
    common |= {f"{name}/auroc_msp": 0.8 for name in ("photos", "shuffled")}
    rows = [{**common, "seed": 0, "accuracy": 0.9}, {**common, "seed": 1, "accuracy": 0.8}]
    monkeypatch.setenv("COLUMNS", "80")
    text, cells = summary.summary_table(rows)
    [line] = [line for line in text.splitlines() if line.startswith("one_shot_random")]
    assert line.split() == ["one_shot_random", "0.5", "0.850", "±", "0.071", "3", "0.050", "0.800", "0.800", "2.00"]
    assert cells[0]["theoretical_speedup"] == 2.5
    monkeypatch.setenv("COLUMNS", "120")
    assert "2.50" in summary.summary_table(rows)[0]


def test_ctrl_c_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "run_study", stopped)
    assert cli.main(["study", "moons", "--out", str(tmp_path)]) == 130
    assert f"is kept in {tmp_path}; the same command goes on from there" in capsys.readouterr().err


def test_report_is_drawn_anew(finished, tmp_path, capsys, monkeypatch):
    (tmp_path / "results.jsonl").write_bytes((finished[0] / "results.jsonl").read_bytes())
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert cli.main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'report.html'}\n"
    assert (tmp_path / "report.html").exists()
    found = document(capsys, "report", tmp_path, "--tables", "--tensorboard", tmp_path / "logs", "--open")
    assert {"results.csv", "summary.md", "summary.tex"} <= {path.rsplit("/", 1)[-1] for path in found["tables"]}
    assert found["tensorboard"] == len(list((tmp_path / "logs").iterdir())) == 2
    assert opened == [(tmp_path / "report.html").as_uri()]


def test_tables_of_regression_show_errors_and_each_data_set_has_one():
    common = {"status": "done", "strategy": "one_shot", "seed": 0, "model": "mlp", "early_stop_epoch": 3}
    common |= {"compression_ratio": 2.0, "theoretical_speedup": 2.5}
    rows = [
        {
            **common,
            "dataset": "noisy_line",
            "ratio": 0.5,
            "rmse": 0.25,
            "crps": 0.1,
            "interval_calibration_error": 0.04,
        },
        {**common, "dataset": "moons", "ratio": 0.5, "accuracy": 0.9, "ece": 0.05},
        {**common, "dataset": "moons", "ratio": 0.5, "accuracy": 0.8, "ece": 0.07, "seed": 1},
    ]
    text, cells = summary.summary_table(rows)
    assert "noisy_line, mlp:" in text
    assert [line.split() for line in text.splitlines() if "0.250" in line] == [
        ["one_shot", "0.5", "0.250", "3", "0.100", "0.040", "2.00", "2.50"]
    ]
    assert "0.850 ± 0.071" in text
    assert [(cell["dataset"], cell["num_seeds"]) for cell in cells] == [("moons", 2), ("noisy_line", 1)]
    assert cells[0]["ece"] == pytest.approx(0.06)
    assert cells[1]["rmse_deviation"] is None


def test_code_of_the_user_that_loads_tensorflow_is_looked_at_in_silence(tmp_path):
    (tmp_path / "mine.py").write_text("import keras\n", encoding="utf-8")
    words = ["study", "new", "--dataset", "mine:missing", "--model", "mlp", "--ratios", "0.5", "--seeds", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", "tfprune", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("tfprune: error: 'mine:missing' points nowhere")
    assert done.stderr.count("\n") == 1
