"""Does every command do what it says, start at once and answer mistakes in one line?"""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from tfprune import cli, models, study
from tfprune.study import grid
from tfprune.study.trial import Recipe


def _fails(capsys, *arguments):
    """Runs a command that must fail; returns its error output."""
    assert cli.main([str(word) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tfprune: error: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture
def saved(tmp_path):
    """A saved, untrained 2-30-2 network."""
    path = tmp_path / "model.keras"
    models.mlp((2,), seed=0).save(path)
    return path


@pytest.fixture
def small_study(monkeypatch):
    """Stands in for the moons: the same study with two epochs a round and two cells."""
    small = study.Study("moons", "moons", "mlp", (0.0, 0.5), (0,), ("one_shot",), recipe=Recipe(epochs=2, patience=1))
    monkeypatch.setitem(grid.STUDIES, "moons", small)


def test_help_is_instant_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom tfprune.cli import main\n"
        "try:\n    main(['study', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'matplotlib', 'numpy', 'sklearn', 'joblib'} & sys.modules.keys()\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout
    times = []
    for _ in range(3):  # the best of three: the machine may be busy
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tfprune", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5


def test_study_writes_its_files_and_prints_table_and_report(small_study, tmp_path, capsys):
    out = tmp_path / "runs"
    assert cli.main(["study", "moons", "--out", str(out), "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "one_shot" in printed
    assert "AUROC" in printed
    assert f"report: {out / 'report.html'}" in printed
    assert {"results.jsonl", "results.csv", "report.html"} <= {path.name for path in out.iterdir()}
    assert len(study.read_rows(out)) == 2


def test_study_options_choose_the_grid():
    grid = ["--seeds", "0-2,7", "--ratios", "0,0.5", "--strategies", "one_shot,iterative"]
    options = cli._parser().parse_args(["study", "moons", *grid, "--layers", "hidden", "--epochs", "9"])
    chosen = cli._chosen_study(options)
    assert (chosen.seeds, chosen.ratios, chosen.strategies) == ((0, 1, 2, 7), (0.0, 0.5), ("one_shot", "iterative"))
    assert (chosen.layers, chosen.recipe) == ("hidden", Recipe(epochs=9))


def test_lists_may_be_written_with_spaces():
    grid = ["--seeds", "0", "4-5", "--ratios", "0", "0.5", "--strategies", "one_shot", "iterative"]
    chosen = cli._chosen_study(cli._parser().parse_args(["study", "moons", *grid]))
    assert (chosen.seeds, chosen.ratios, chosen.strategies) == ((0, 4, 5), (0.0, 0.5), ("one_shot", "iterative"))


def test_quick_study_has_a_folder_of_its_own():
    assert cli._chosen_study(cli._parser().parse_args(["study", "moons", "--quick"])).name == "moons-quick"


def test_ctrl_c_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "run_study", stopped)
    assert cli.main(["study", "moons", "--out", str(tmp_path)]) == 130
    assert f"is kept in {tmp_path}; the same command goes on from there" in capsys.readouterr().err


def test_report_is_drawn_anew(small_study, tmp_path, capsys):
    cli.main(["study", "moons", "--out", str(tmp_path), "--jobs", "1"])
    (tmp_path / "report.html").unlink()
    assert cli.main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").exists()


def test_prune_writes_a_smaller_model_that_still_computes(saved, tmp_path, capsys):
    import keras

    out = tmp_path / "new" / "small.keras"
    assert cli.main(["prune", str(saved), "--ratio", "0.5", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "77 of 152 parameters kept (1.97 times smaller)" in printed
    assert "Compared with the masked model: exact, largest difference" in printed
    small = keras.saving.load_model(out)
    assert [layer.units for layer in small.layers] == [15, 2]
    assert np.isfinite(small.predict(np.ones((3, 2)), verbose=0)).all()


def test_prune_removes_what_a_normalisation_mixes_only_where_asked_for(tmp_path, capsys):
    import keras
    from keras import layers

    inputs = keras.Input((4,))
    x = layers.Dense(6)(layers.LayerNormalization()(layers.Dense(8, name="mixed")(inputs)))
    keras.Model(inputs, layers.Dense(2)(x)).save(tmp_path / "normed.keras")
    words = ["prune", str(tmp_path / "normed.keras"), "--ratio", "0.5", "--out", str(tmp_path / "small.keras")]
    assert cli.main(words) == 0
    assert keras.saving.load_model(tmp_path / "small.keras").get_layer("mixed").units == 8
    assert cli.main([*words, "--approximate"]) == 0
    assert keras.saving.load_model(tmp_path / "small.keras").get_layer("mixed").units == 4
    assert "1 group approximate" in capsys.readouterr().out


def test_a_shrink_that_was_stopped_is_one_line(saved, tmp_path, capsys, monkeypatch):
    from tfprune.pruning import certificate

    monkeypatch.setattr(certificate, "_difference", lambda *arrays, floor: (1.0, 1.0))
    assert cli.main(["prune", str(saved), "--ratio", "0.5", "--out", str(tmp_path / "small.keras")]) == 2
    assert "was stopped: on" in capsys.readouterr().err
    assert not (tmp_path / "small.keras").exists()


def test_inspect_shows_groups_and_cost(saved, capsys):
    assert cli.main(["inspect", str(saved)]) == 0
    printed = capsys.readouterr().out
    assert "hidden" in printed
    assert "152 parameters, 120 multiply-adds per example, 608 bytes" in printed
    assert "Smallest reachable: 7 parameters (4.60 %), 4 multiply-adds (3.33 %)" in printed


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_inspect_draws_the_network(saved, tmp_path, capsys, suffix):
    picture = tmp_path / "pictures" / f"structure.{suffix}"
    assert cli.main(["inspect", str(saved), "--draw", str(picture)]) == 0
    assert f"drawing: {picture}" in capsys.readouterr().out
    start = picture.read_bytes()
    assert b"logits" in start if suffix == "svg" else start.startswith(b"\x89PNG")


def test_inspect_counts_what_a_normalisation_mixes_only_when_asked(tmp_path, capsys):
    import keras

    path = tmp_path / "normalised.keras"
    layers = keras.layers
    keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, name="wide"), layers.LayerNormalization(), layers.Dense(2)]
    ).save(path)
    assert cli.main(["inspect", str(path)]) == 0
    assert "0 of 2 groups can be pruned" in capsys.readouterr().out
    assert cli.main(["inspect", str(path), "--approximate"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 groups can be pruned" in printed
    assert "≈ 8" in printed


def test_evaluate_prints_one_line_per_number(saved, capsys):
    assert cli.main(["evaluate", str(saved), "--data", "moons", "--ood", "far", "--logits"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert 0 <= float(lines["accuracy"]) <= 1
    assert lines["num_samples"] == "150"
    assert "far/auroc_msp" in lines
    assert not any(name.startswith("reliability") for name in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "moons", "--ratios", "80"], "Received: ratio=80. For 80 % of the channels pass ratio=0.8."),
        (["study", "moons", "--strategies", "two_shot"], "two_shot"),
        (["study", "moons", "--epochs", "0"], "epochs must be at least 1"),
        (["inspect", "nowhere.keras"], "No such file. Received: nowhere.keras"),
        (["inspect", "nowhere.keras", "--draw", "picture.bmp"], "must name a file that ends in .svg or .png"),
        (["report", "nowhere"], "holds no results.jsonl"),
    ],
)
def test_mistakes_are_answered_in_one_line(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in _fails(capsys, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ratio", "1.5", "--out", "s.keras"], "ratio must be in [0, 1)"),
        (["--ratio", "0.5", "--out", "s.keras", "--criterion", "l3"], "l3"),
        (["--ratio", "0.5", "--out", "s.keras", "--only", "hiden"], "hiden"),
        (["--ratio", "0.5", "--out", "s.h5"], "--out must name a file that ends in .keras"),
    ],
)
def test_prune_answers_mistakes_in_one_line(capsys, saved, arguments, message):
    assert message in _fails(capsys, "prune", saved, *arguments)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study", "suns"], "invalid choice: 'suns'"),
        (["study", "moons", "--seeds", "a"], "expected seeds such as 0,1,2 or 0-9; received: a"),
        (["study", "moons", "--ratios", "x"], "expected numbers such as 0,0.5,0.9; received: x"),
    ],
)
def test_words_that_cannot_be_read_exit_with_2(capsys, words, message):
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    assert message in capsys.readouterr().err


def test_file_that_is_no_model_is_refused(capsys, tmp_path):
    path = tmp_path / "broken.keras"
    path.write_text("not a model")
    assert "Keras could not load" in _fails(capsys, "inspect", path)


def test_code_inside_a_model_file_is_not_run(capsys, tmp_path):
    import keras

    path = tmp_path / "lambda.keras"
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(path)
    assert "Keras could not load" in _fails(capsys, "inspect", path)


def test_ood_set_of_another_shape_is_refused(capsys, saved):
    message = _fails(capsys, "evaluate", saved, "--data", "moons", "--ood", "digits", "--logits")
    assert "OOD inputs must have the shape of moons's, (2,). Received: digits with (8, 8, 1)." in message


def test_damaged_results_are_refused_in_one_line(capsys, tmp_path):
    (tmp_path / "results.jsonl").write_text(json.dumps({"key": "k"}) + "\nbroken\n")
    assert "is damaged: line 2" in _fails(capsys, "study", "moons", "--out", tmp_path)
