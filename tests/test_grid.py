"""Is a study the grid that was asked for, and is each cell found again by its key?"""

import dataclasses

import keras
import numpy as np
import pytest

from tfprune import datasets, models, pointers, study
from tfprune.pruning import strategies
from tfprune.study import settings
from tfprune.study.trial import Evaluation, Recipe, Trial


def _study(**changes):
    fields = {"ratios": (0, 0.5), "seeds": (0, 1), "strategies": ("one_shot",)}
    return study.Study("small", "moons", "mlp", **{**fields, **changes})


def nameless(shape, k, seed):
    """A model function whose arguments have other names."""


# These three are pinned: results written by earlier versions must be found again.
def test_keys_leave_defaults_out_and_never_change():
    assert Trial("moons", "mlp", "one_shot", 0.5, 0).key == "05e08073cbde4eb3"
    recipe = Recipe("sgd", 0.01, 0.9, 32, 20, 3)
    assert Trial("cifar10", "lenet", "iterative", 0.8, 2, "dense", recipe=recipe).key == "4eb1cbbd5450ded3"
    assert Trial("moons", "mlp", "one_shot", 3 * 0.1, 1, recipe=Recipe(epochs=300)).key == "3bf69a790f00ba19"


def test_every_field_of_a_trial_changes_its_key_and_the_dense_training_shares_what_it_may():
    base = Trial("moons", "mlp", "one_shot", 0.5, 0)
    shared = {
        "strategy": "iterative",
        "ratio": 0.6,
        "layers": "dense",
        "criterion": "l2",
        "scope": "global",
        "rounds": 2,
    }
    shared["evaluation"] = Evaluation(detectors=("energy",))
    own = {"dataset": "digits", "model": "lenet", "seed": 1, "recipe": Recipe(epochs=5)}
    others = [dataclasses.replace(base, **{name: value}) for name, value in {**shared, **own}.items()]
    assert len({base.key, *(other.key for other in others)}) == 12
    dense_keys = [other.dense_key for other in others]
    assert set(dense_keys[:7]) == {base.dense_key}
    assert len({base.dense_key, *dense_keys[7:]}) == 5


def test_equal_settings_have_equal_keys_however_they_are_written():
    first = Trial("moons", "mlp", "one_shot", 0.5, 0, recipe=Recipe(learning_rate=1, epochs=5.0))
    assert first.key == Trial("moons", "mlp", "one_shot", 0.5, 0, recipe=Recipe(learning_rate=1.0, epochs=5)).key
    assert Evaluation(detectors=["energy"]) == Evaluation(detectors="energy")


def test_strategies_of_a_user_are_known_by_all_they_do():
    keys = {Trial("moons", "mlp", study.Strategy("mine", rounds), 0.5, 0).key for rounds in (1, 2)}
    assert len(keys) == 2
    assert Trial("moons", "mlp", strategies.get("one_shot"), 0.5, 0).key == "05e08073cbde4eb3"
    # its key from before strategies could rank before training
    assert Trial("moons", "mlp", study.Strategy("mine", 3, "init"), 0.5, 0).key == "79dd42158cddb9fb"
    before_training = study.Strategy("mine", 3, "init", ranked_on="init")
    assert Trial("moons", "mlp", before_training, 0.5, 0).key != "79dd42158cddb9fb"


def test_trial_names_itself_in_one_line():
    trial = Trial("moons", "mlp", "one_shot", 0.5, 1, criterion="l2", recipe=Recipe(epochs=300))
    assert trial.name == "moons mlp one_shot ratio=0.5 seed=1 criterion=l2 epochs=300"
    wanted = {"strategy": "one_shot", "control": False, "rounds": 1, "epochs": 300, "detectors": "msp entropy"}
    assert wanted.items() <= trial.identification().items()


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        (1.0, r"ratio must be in \[0, 1\)\. Received: ratio=1\.$"),
        (-0.1, r"ratio must be in \[0, 1\)\. Received: ratio=-0\.1\.$"),
        (80, r"Received: ratio=80\. For 80 % of the channels pass ratio=0\.8\."),
    ],
)
def test_ratio_outside_its_range_is_refused(ratio, message):
    with pytest.raises(ValueError, match=message):
        _study(ratios=(ratio,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ()}, r"at least one of its seeds\. Received: seeds=\(\)"),
        ({"dataset": "mnist"}, "Unknown data set"),
        ({"model": "vgg"}, "Unknown model"),
        ({"strategies": ("two_shot",)}, "Unknown strategy.*two_shot"),
        ({"scope": "model"}, r"Unknown scope\. Received: 'model'"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"ratios": (0,), "strategies": ("random_channels",)}, "holds no trial"),
        ({"recipe": ()}, "at least one of its recipe"),
        (
            {"strategies": ("one_shot", "rewind_epoch_9"), "recipe": Recipe(epochs=2)},
            r"'rewind_epoch_9' rewinds to epoch 9, .* Received: epochs=2\.",
        ),
        (
            {"model": nameless},
            r"The model 'nameless' is called by keyword, .* Received: a function \(shape, k, seed\)\. "
            r"Expected: a function \(input_shape, num_classes, seed\) .*num_targets",
        ),
    ],
)
def test_grids_that_could_not_run_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(_study(), **changes)


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"learning_rate": 0}, {"batch_size": -1}, {"decay": -1}])
def test_recipe_refuses_what_no_training_could_use(changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))} must"):
        Recipe(**changes)


def test_model_file_that_is_not_there_is_refused():
    with pytest.raises(FileNotFoundError, match=r"There is no model file nowhere\.keras"):
        dataclasses.replace(_study(), model="nowhere.keras")


def test_model_functions_of_either_kind_of_data_are_taken():
    for model in (lambda input_shape, num_targets, seed: None, lambda **given: None, min):
        assert dataclasses.replace(_study(), model=model).trials()


def test_severities_that_are_none_are_refused():
    for severities, message in (((9,), r"from 1 to 5\. Received: severities=\(9,\)"), ((0, 1), "Severity 0")):
        with pytest.raises(ValueError, match=message):
            Evaluation(severities=severities)


def test_unknown_study_is_refused():
    with pytest.raises(ValueError, match=r"Unknown study\. Received: 'suns'\. Expected one of 'moons', 'digits'"):
        study.get("suns")


def test_named_studies_are_the_papers_grids_with_controls():
    moons, cifar10 = study.get("moons"), study.get("cifar10")
    assert len(moons.trials()) == 10 * 10 * 4
    assert moons.recipe == Recipe("adam", 0.01, 0.0, 0, 2000, 20)
    assert (cifar10.ratios, cifar10.seeds, cifar10.layers) == ((0.2, 0.4, 0.6, 0.8, 0.9), (0, 1, 2), "dense")
    assert len(cifar10.trials()) == 3 * (7 * 5 + 1 + 5 + 5 + 5)
    assert {trial.num_rounds for trial in cifar10.trials()} == {1, 3}


@pytest.mark.parametrize("name", sorted(study.STUDIES))
def test_quick_studies_are_small_and_leave_the_named_ones_alone(name):
    before = study.get(name)
    small = study.quick(name)
    assert small.name == f"{name}-quick"
    assert len(small.trials()) < len(before.trials())
    assert small.trials()[0].recipe.epochs <= before.trials()[0].recipe.epochs
    assert study.get(name) is before


def test_controls_run_where_they_are_controls():
    trials = _study(ratios=(0, 0.5), seeds=(0,), strategies=("one_shot", "dense", "random_channels", "scratch_epochs"))
    found = [(trial.strategy, trial.ratio) for trial in trials.trials()]
    assert found == [
        ("one_shot", 0), ("one_shot", 0.5), ("dense", 0), ("random_channels", 0.5), ("scratch_epochs", 0.5),
    ]  # fmt: skip


def test_everything_may_have_several_values():
    recipes = (Recipe(epochs=5), Recipe(epochs=6))
    grid = _study(criterion=("l1", "l2"), scope=("layer", "global"), recipe=recipes, rounds=(1, 3), seeds=(0,))
    assert len(grid.trials()) == 2 * 2 * 2 * 2 * 2
    assert len({trial.key for trial in grid.trials()}) == 32


TOML = """
dataset = "digits"
model = "mlp"
ratios = [0, 0.5]
seeds = [0, 1]
strategies = ["one_shot", "slow", "dense"]
[recipe]
learning_rate = [0.001, 0.01]
batch_size = 64
[evaluation]
detectors = ["energy", "knn"]
[[strategy]]
name = "slow"
rounds = 3
rewind = "init"
"""


def test_toml_file_is_a_study(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    grid = study.read_study(path)
    assert (grid.name, grid.dataset, grid.ratios, grid.seeds) == ("mine", "digits", (0, 0.5), (0, 1))
    assert [recipe.learning_rate for recipe in grid.recipe] == [0.001, 0.01]
    assert {recipe.batch_size for recipe in grid.recipe} == {64}
    assert grid.evaluation.detectors == ("energy", "knn")
    assert grid.strategies[1] == study.Strategy("slow", 3, "init")
    assert len(grid.trials()) == 2 * 2 * (2 + 2 + 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ratios = [", r"mine\.toml: "),
        (TOML.replace("seeds", "sedes"), r"mine\.toml: Unknown setting\. Received: sedes"),
        (TOML.replace("batch_size", "batch"), r"Unknown setting in \[recipe\]\. Received: batch"),
        (TOML.replace('model = "mlp"\n', ""), "A study needs model too"),
        (TOML.replace("[0, 0.5]", "[0, 50]"), r"ratio must be in \[0, 1\)"),
        (TOML.replace("[0, 0.5]", '["half"]'), r"ratios must be numbers in \[0, 1\)\. Received: 'half'"),
        (
            'strategy = "one_shot"\nstudy = "moons"',
            r"Each \[\[strategy\]\] is a table with a name.*strategy = 'one_shot'",
        ),
        ("recipe = 5\nstudy = 'moons'", r"\[recipe\] is a table of settings\. Received: recipe = 5"),
        ("study = 'moons'\n[[strategy]]\nrounds = 3", r"a table with a name"),
        ("study = 'moons'\nseeds = [0.5]", "seeds must be whole numbers. Received: 0.5"),
    ],
)
def test_toml_file_that_is_no_study_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        study.read_study(path)


@pytest.mark.parametrize("name", sorted(study.STUDIES))
def test_settings_are_the_study(name):
    assert settings.from_settings(settings.to_settings(study.get(name))) == study.get(name)
    changed = settings.from_settings({"study": name, "seeds": 3, "recipe": {"epochs": 2}})
    assert (changed.seeds, changed.recipe.epochs, changed.ratios) == ((3,), 2, study.get(name).ratios)


def test_pointers_find_functions_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "their_data.py").write_text("from tfprune import datasets\nload = datasets.moons\nnumber = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path])
    assert datasets.get("their_data:load").name == "moons"
    with pytest.raises(ValueError, match="has no function 'number'"):
        pointers.follow("their_data:number")
    with pytest.raises(ValueError, match="ModuleNotFoundError"):
        models.get("nowhere_at_all:build")


def test_model_file_gives_its_network_with_weights_of_the_seed(tmp_path):
    path = str(tmp_path / "net.keras")
    models.mlp((2,), hidden=(4,), num_classes=2, seed=0).save(path)
    build = models.get(path)
    first, again, other = (build(input_shape=(2,), num_classes=2, seed=seed) for seed in (1, 1, 2))
    assert first.count_params() == 4 * 2 + 4 + 8 + 2
    assert (first.get_weights()[0] == again.get_weights()[0]).all()
    assert not (first.get_weights()[0] == other.get_weights()[0]).all()
    with pytest.raises(ValueError, match="does not fit the data"):
        build(input_shape=(3,), num_classes=2, seed=0)
    with pytest.raises(FileNotFoundError, match="no model file"):
        models.get("missing.keras")(input_shape=(2,), num_classes=2, seed=0)


def test_model_file_keeps_what_does_not_learn(tmp_path):
    x = np.random.default_rng(0).normal(5000, 1000, (200, 2)).astype("float32")
    scale = keras.layers.Normalization()
    scale.adapt(x)
    frozen = keras.layers.Dense(4, trainable=False)
    free = keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((2,)), scale, keras.Sequential([frozen]), free])
    model.save(tmp_path / "net.keras")
    found = models.get(str(tmp_path / "net.keras"))(input_shape=(2,), num_classes=3, seed=5)
    normalised = keras.Model(found.inputs[0], found.layers[0].output)
    assert abs(np.asarray(normalised(x)).mean()) < 0.01
    assert (found.layers[1].get_weights()[0] == frozen.get_weights()[0]).all()
    assert not (found.layers[2].get_weights()[0] == free.get_weights()[0]).all()


@pytest.mark.tfds("cifar10")
def test_any_image_set_of_tfds_is_a_dataset(monkeypatch):
    few = tuple(part[:20] for part in datasets.images("cifar10"))
    monkeypatch.setattr(datasets, "_images", lambda name, split: few)
    data = datasets.get("tfds:cifar10")
    assert (data.name, data.input_shape, data.train[0].shape) == ("cifar10", (32, 32, 3), (20, 32, 32, 3))
