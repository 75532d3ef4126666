"""Do the commands that take saved models do what they say, for people and for machines?"""

import json

import numpy as np
import pytest

import tfprune
from tfprune import cli, datasets, models
from tfprune.cli import names


def _fails(capsys, *arguments):
    """Runs a command that must fail; returns its error output."""
    assert cli.main([str(word) for word in arguments]) == 2
    output = capsys.readouterr()
    assert not output.out
    assert output.err.startswith("tfprune: error: ")
    assert output.err.count("\n") == 1
    return output.err


def _document(capsys, *arguments, code=0):
    """Runs a command with --json; returns the one document that its output holds."""
    assert cli.main([*map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def two_points():
    """Data that a user brings: a pair of arrays and nothing else."""
    return np.array([[0.0, 1.0], [1.0, 0.0]], "float32"), np.array([0, 1])


def far_points():
    return np.full((5, 2), 9.0, "float32")


@pytest.fixture
def saved(tmp_path):
    """A saved, untrained 2-30-2 network."""
    path = tmp_path / "model.keras"
    models.mlp((2,), seed=0).save(path)
    return path


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


def test_prune_meets_budgets_and_says_what_was_reached(saved, tmp_path, capsys):
    import keras

    out = tmp_path / "small.keras"
    words = ["prune", saved, "--params", "50%", "--multiply-adds", "80", "--compensate", "--out", out]
    found = _document(capsys, *words)
    small = keras.saving.load_model(out)
    assert small.count_params() == found["budget"]["params"]["reached"] <= 76
    assert found["budget"]["multiply_adds"]["limit"] == 80
    assert found["compensated"] == ["logits"]
    assert cli.main([str(word) for word in (*words, "--bytes", "1kB")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed[1:4]] == ["params", "multiply_adds", "bytes"]
    assert printed[1].endswith("of 152 (47.4 %), at most 76")


def test_prune_needs_a_ratio_or_a_budget_and_not_both(saved, tmp_path, capsys):
    out = ["--out", tmp_path / "small.keras"]
    assert "either --ratio or a budget (--params, --multiply-adds, " in _fails(capsys, "prune", saved, *out)
    assert "Received: --ratio 0.5 and a budget" in _fails(capsys, "prune", saved, "--ratio=0.5", "--params=9", *out)
    assert "without --latency" in _fails(capsys, "prune", saved, "--params=9", "--batch-size=2", *out)
    assert "the smallest that can be reached is 7 " in _fails(capsys, "prune", saved, "--params", "3", *out)
    assert "latency must be a share" in _fails(capsys, "prune", saved, "--latency", "3", *out)
    assert not out[1].exists()


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
        (["--ratio", "1.5", "--out", "s.keras"], "ratio must be in [0, 1)"),
        (["--ratio", "0.5", "--out", "s.keras", "--round-to", "0"], "round_to must be a positive integer"),
        (["--ratio", "0.5", "--out", "s.keras", "--criterion", "l3"], "l3"),
        (["--ratio", "0.5", "--out", "s.keras", "--only", "hiden"], "hiden"),
        (["--ratio", "0.5", "--out", "{model}"], "--out would replace the model that is pruned"),
        (["--ratio", "0.5", "--out", "s.h5"], "--out must name a file that ends in .keras"),
    ],
)
def test_prune_answers_mistakes_in_one_line(capsys, saved, arguments, message):
    words = [word.replace("{model}", str(saved)) for word in arguments]
    assert message in _fails(capsys, "prune", saved, *words)


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


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of the moons that was trained a little, and its pruned self, saved."""
    import keras

    folder, data = tmp_path_factory.mktemp("trained"), datasets.moons()
    keras.utils.set_random_seed(0)
    dense = models.mlp((2,), seed=0)
    dense.compile(keras.optimizers.Adam(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    dense.fit(*data.train, batch_size=700, epochs=30, verbose=0)
    dense.save(folder / "dense.keras")
    assert cli.main(["prune", str(folder / "dense.keras"), "--ratio", "0.9", "--out", str(folder / "small.keras")]) == 0
    return folder


def test_evaluate_for_machines_is_the_row_of_the_function(trained, capsys):
    found = _document(
        capsys, "evaluate", trained / "dense.keras", "--data", "moons", "--ood", "far", "--detectors", "knn"
    )
    model, data = load(trained / "dense.keras"), datasets.moons()
    row = tfprune.evaluate(model, data.test, ood=data.ood, detectors=["knn"], train=data.train)
    assert found == {"model": str(trained / "dense.keras"), "data": "moons", **json.loads(json.dumps(row))}


def load(path):
    import keras

    return keras.saving.load_model(path)


def test_evaluate_measures_under_damage(tmp_path, capsys):
    path = tmp_path / "digits.keras"
    models.mlp((8, 8, 1), num_classes=10, seed=0).save(path)
    damages = ["--corruptions", "contrast,fog", "--severities", "1,5"]
    assert cli.main(["evaluate", str(path), "--data", "digits", *damages, "--logits"]) == 0
    output = capsys.readouterr()
    assert [line.split()[:2] for line in output.out.splitlines()[-4:]] == [
        ["contrast", "1"],
        ["contrast", "5"],
        ["fog", "1"],
        ["fog", "5"],
    ]
    assert output.err.count("accuracy") == 5  # progress, the clean images first


def test_data_and_strangers_may_come_from_functions_of_the_users(trained, capsys, monkeypatch):
    points = f"{__name__}:two_points"
    found = _document(capsys, "evaluate", trained / "dense.keras", "--data", points, "--ood", f"{__name__}:far_points")
    assert found["num_samples"] == 2
    assert found[f"{__name__}:far_points/num_samples"] == 5
    message = _fails(capsys, "evaluate", trained / "dense.keras", "--data", "nowhere_at_all:load")
    assert "nowhere_at_all" in message


def test_layers_of_the_users_are_known_after_import(tmp_path, capsys, monkeypatch):
    (tmp_path / "my_layers.py").write_text(
        "import keras\n@keras.saving.register_keras_serializable()\nclass Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n        return 2 * x\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import keras
    import my_layers

    keras.Sequential([keras.Input((2,)), keras.layers.Dense(4), my_layers.Twice(), keras.layers.Dense(2)]).save(
        "m.keras"
    )
    known = keras.saving.get_custom_objects()
    [name] = [name for name in known if name.endswith(">Twice")]
    del known[name]
    monkeypatch.delitem(__import__("sys").modules, "my_layers")
    assert "Keras could not load" in _fails(capsys, "inspect", "m.keras")
    assert cli.main(["inspect", "m.keras", "--import", "my_layers"]) == 0
    assert "2 groups" in capsys.readouterr().out
    del known[name]
    assert "--import no_such_layers" in _fails(capsys, "inspect", "m.keras", "--import", "no_such_layers")


def test_compare_answers_as_the_function_does_and_tells_by_its_exit_code(trained, capsys):
    words = ["compare", trained / "dense.keras", trained / "small.keras", "--data", "moons", "--ood", "far"]
    words += ["--num-bootstraps", "50", "--temperature-data", "validation"]
    found = _document(capsys, *words, code=1)
    data = datasets.moons()
    expected = tfprune.compare(
        *(load(path) for path in words[1:3]),
        data.test,
        ood=data.ood,
        num_bootstraps=50,
        temperature_data=data.validation,
    )
    assert found["verdict_accuracy"] == "worse"  # nine tenths of the units were cut off, and nothing trained again
    assert {name: found[name] for name in expected.row} == json.loads(json.dumps(expected.row))
    assert len(found["per_class"]) == 2
    same = [trained / "dense.keras"] * 2
    assert cli.main(["compare", *map(str, same), "--data", "moons", "--num-bootstraps", "40"]) == 0
    assert "verdict      not distinguishable" in capsys.readouterr().out


def test_compare_takes_a_pair_of_every_seed(trained, capsys):
    pairs = [trained / "dense.keras", trained / "small.keras"] * 2
    found = _document(capsys, "compare", *pairs, "--data", "moons", "--num-bootstraps", "40", code=1)
    assert found["num_seeds"] == 2
    assert len(found["pairs"]) == 2


def test_prune_and_inspect_answer_machines(trained, tmp_path, capsys):
    out = tmp_path / "half.keras"
    pruned = _document(capsys, "prune", trained / "dense.keras", "--ratio", "0.5", "--out", out, "--criterion", "l2")
    assert pruned["exact"] is True
    assert (pruned["parameters_before"], pruned["parameters_after"]) == (152, 77)
    assert [path.name for path in tmp_path.iterdir()] == ["half.keras"]
    found = _document(capsys, "inspect", out)
    assert found["parameters"] == 77
    assert [(group["group"], group["channels"], group["prunable"]) for group in found["groups"]] == [
        ("hidden", 15, True),
        ("logits", 2, False),
    ]


def test_prune_ranks_channels_by_what_they_do_on_data(trained, tmp_path, capsys):
    from tfprune.pruning import criteria

    out, data = tmp_path / "half.keras", ["--data", "moons"]
    words = ["prune", trained / "dense.keras", "--ratio", "0.5", "--out", out, "--criterion", "taylor"]
    _document(capsys, *words, *data)
    masked = tfprune.wrap(load(trained / "dense.keras"))
    masks = tfprune.compute_masks(masked, 0.5, criterion=criteria.Taylor(datasets.moons().train))
    kernel = load(trained / "dense.keras").get_layer("hidden").kernel.numpy()
    np.testing.assert_array_equal(load(out).get_layer("hidden").kernel, kernel[:, masks["hidden"]])
    assert not np.array_equal(masks["hidden"], tfprune.compute_masks(masked, 0.5)["hidden"])
    assert "name them with --data" in _fails(capsys, *words)
    assert "leave --data out" in _fails(capsys, *words[:-1], "l1", *data)
    assert "Did you mean 'taylor'?" in _fails(capsys, *words[:-1], "tailor")


def test_quiet_leaves_the_answer_alone(trained, tmp_path, capsys):
    words = ["evaluate", str(trained / "dense.keras"), "--data", "moons", "--quiet"]
    assert cli.main(words) == 0
    output = capsys.readouterr()
    assert output.out.startswith("accuracy")
    assert not output.err


def test_names_that_are_known_without_tensorflow_are_those_that_there_are():
    from tfprune import corruptions
    from tfprune.pruning import criteria
    from tfprune.uncertainty import detectors

    assert tuple(detectors.DETECTORS) == names.DETECTORS
    assert tuple(corruptions.CORRUPTIONS) == names.CORRUPTIONS
    assert tuple(criteria.CRITERIA) == names.CRITERIA
    assert tuple(criteria.table._NEED_DATA) == names.DATA_CRITERIA
    import keras

    for name in names.OPTIMIZERS:
        assert type(keras.optimizers.get(name)).__name__.lower() == name


def test_detectors_without_strangers_are_refused(trained, capsys):
    message = _fails(capsys, "evaluate", trained / "dense.keras", "--data", "moons", "--detectors", "knn")
    assert "name some strangers, too, with --ood" in message


def test_models_of_numbers_are_evaluated_as_such(tmp_path, trained, capsys):
    path = tmp_path / "line.keras"
    models.mlp((1,), num_classes=2, seed=0).save(path)  # a mean, and a log-variance
    found = _document(capsys, "evaluate", path, "--data", "noisy_line")
    row = tfprune.evaluate_regression(load(path), datasets.get("noisy_line").test)
    assert {name: found[name] for name in row} == json.loads(json.dumps(row))
    refused = _fails(capsys, "evaluate", path, "--data", "noisy_line", "--ood", "moons", "--corruptions", "fog")
    assert "--ood and --corruptions need classes. Received: noisy_line" in refused
    assert "compare is for classifiers" in _fails(capsys, "compare", path, path, "--data", "noisy_line")
