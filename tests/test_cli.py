"""Does every command do what it says, start at once and answer mistakes in one line?"""

import json
import subprocess
import sys
import time

import pytest

from tfprune import cli


def _fails(capsys, *arguments):
    """Runs a command that must fail; returns its error output."""
    assert cli.main([str(word) for word in arguments]) == 2
    output = capsys.readouterr()
    assert not output.out
    assert output.err.startswith("tfprune: error: ")
    assert output.err.count("\n") == 1
    return output.err


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "moons", "--ratios", "80"], "Received: ratio=80. For 80 % of the channels pass ratio=0.8."),
        (["study", "moons", "--strategies", "two_shot"], "two_shot"),
        (["study", "moons", "--epochs", "0"], "epochs must be at least 1"),
        (["study", "moons", "--model", "nofile.keras"], "There is no model file nofile.keras"),
        (["study", "moons", "--severities", "9"], "Severities are from 1 to 5"),
        (["study", "moons", "--strategies", "rewind_epoch_9", "--epochs", "2"], "rewinds to epoch 9"),
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
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND. See tfprune --help."),
        (["studdy"], "Did you mean 'study'?"),
        (["study"], "Which study? Expected one of moons"),
        (["study", "mons"], "Did you mean 'moons'?"),
        (["study", "moons", "--ratio", "0.5"], "Received: '--ratio'."),
        (["study", "moons", "--ratio", "0.5"], "Did you mean '--ratios'?"),
        (["study", "moons", "--seeds", "a"], "expected seeds such as 0,1,2 or 0-9; received: a"),
        (["study", "moons", "--seeds", "9-0"], "expected seeds in rising order such as 0-9; received: 9-0"),
        (["study", "moons", "--ratios", "x"], "expected numbers such as 0,0.5,0.9; received: x"),
        (["study", "moons", "--batch-size", "1.5"], "expected whole numbers such as 1,3,5; received: 1.5"),
        (["study", "a/b", "--dataset", "moons", "--model", "mlp"], "The name of a study holds no slashes"),
        (["study", "mine", "--dataset", "moons", "--model", "mlp"], "A study needs ratios, seeds too."),
        (["study", "nowhere.toml"], "No such file. Received: nowhere.toml. Expected a TOML file"),
        (["study", "moons", "--jobs", "0"], "--jobs must be at least 1. Received: 0."),
        (["study", "moons", "--criterion", "l1,lampp"], "Did you mean 'lamp'?"),
        (["study", "moons", "--optimizer", "adamm"], "Did you mean 'adam'?"),
        (["study", "moons", "--detectors", "knm"], "Did you mean 'knn'?"),
        (["study", "moons", "--corruptions", "fogg"], "Did you mean 'fog'?"),
        (["study", "moons", "--backend", "dusk"], "Did you mean 'dask'?"),
        (["study", "--status", "nowhere"], "No study found. Received: nowhere"),
        (["completion", "bsh"], "Received: 'bsh'. Expected one of bash, zsh, fish. See tfprune completion --help. Did"),
        (["evaluate", "x.keras", "--data", "moon"], "Did you mean 'moons'?"),
        (["evaluate", "x.keras", "--data", "moons", "--detectors", "energie"], "Did you mean 'energy'?"),
        (["evaluate", "x.keras", "--data", "moons", "--corruptions", "foog"], "Did you mean 'fog'?"),
        (["compare", "x.keras", "--data", "moons"], "Models come in pairs"),
        (["compare", "x.keras", "y.keras", "--data", "mooons"], "Did you mean 'moons'?"),
        (["compare", *"abcd", "--data", "moons", "--temperature-data", "validation"], "is for one pair of models"),
    ],
)
def test_words_that_cannot_be_read_are_answered_in_one_line(capsys, words, message):
    assert message in _fails(capsys, *words)


def test_damaged_results_are_refused_in_one_line(capsys, tmp_path):
    (tmp_path / "results.jsonl").write_text(json.dumps({"key": "k"}) + "\nbroken\n")
    assert "is damaged: line 2" in _fails(capsys, "study", "moons", "--quiet", "--out", tmp_path)


def test_a_misspelt_setting_of_a_file_is_guessed(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('dataset = "moons"\nmodel = "mlp"\nratois = [0]\nseeds = [0]\n')
    message = _fails(capsys, "study", path)
    assert str(path) in message
    assert message.endswith("Did you mean 'ratios'?\n")


def test_a_bug_is_not_taken_for_a_mistake_of_the_users(monkeypatch):
    from tfprune.cli import report

    def broken(options):
        return None + 1

    monkeypatch.setattr(report, "run", broken)
    with pytest.raises(TypeError, match="unsupported operand"):
        cli.main(["report", "runs"])


def test_output_that_is_cut_off_is_no_mistake():
    done = subprocess.run(
        f"set -o pipefail; {sys.executable} -m tfprune completion bash | head -1",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
