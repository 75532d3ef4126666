"""Which study do the words and flags of `tfprune study` describe?"""

from pathlib import Path

from tfprune.cli import names
from tfprune.cli.words import add_list, integers, numbers, seeds, words

# field of a study -> how its flag's values are read, what the shell completes, and what the help says
_GRID = {
    "dataset": (words, "datasets", "data: moons, digits, cifar10, tfds:NAME or module:function"),
    "model": (words, "models *.keras", "networks: mlp, lenet ..., FILE.keras or module:function"),
    "strategies": (words, "strategies", "such as one_shot,iterative, and controls such as random_channels"),
    "ratios": (numbers, "", "shares of channels to remove, such as 0,0.5"),
    "seeds": (seeds, "", "such as 0,1,2 or 0-9"),
    "criterion": (words, "criteria", "what ranks the channels, such as l1"),
    "scope": (words, "scopes", "the ratio in every layer (layer), or over all of them (global)"),
    "rounds": (integers, "", "times to prune and train, instead of each strategy's own number"),
    "layers": (words, "layers", "what may be pruned: all, dense, or layer names joined by +"),
}
_RECIPE = {
    "optimizer": (words, "optimizers", "Keras' name, such as adam"),
    "learning_rate": (numbers, "", "such as 0.001,0.01"),
    "momentum": (numbers, "", "of sgd"),
    "weight_decay": (numbers, "", "decoupled, 0 for none"),
    "decay": (numbers, "", "factor on the learning rate after each epoch"),
    "batch_size": (integers, "", "examples in a step, 0 for all at once"),
    "epochs": (integers, "", "most epochs in a round"),
    "patience": (integers, "", "epochs without a lower validation loss that end a round"),
}
_EVALUATION = {
    "detectors": (words, "detectors", "OOD detectors, such as msp,energy,knn"),
    "ood": (words, "", "image sets of tensorflow-datasets as further strangers, such as svhn_cropped"),
    "corruptions": (words, "corruptions", "damages to the test images to measure under, or all"),
    "severities": (integers, "", "severities of the damages, such as 1,3,5"),
}
# These are lists even where they hold one value.
_LISTS = ("ratios", "seeds", "strategies")


def add_flags(command):
    """Adds a flag for each axis of a study's grid."""
    for title, fields in {
        "the grid (several values make an axis)": _GRID,
        "training (several values make an axis)": _RECIPE,
        "what is measured of each ticket": _EVALUATION,
    }.items():
        group = command.add_argument_group(title)
        for name, (kind, completes, text) in fields.items():
            add_list(group, f"--{name.replace('_', '-')}", kind, text, completes)
    group.add_argument("--latency", action="store_true", default=None, help="measure the time of a prediction, too")


def chosen_study(options):
    """Returns the `Study` that the options describe.

    Args:
        options: What `argparse` read for `tfprune study`.

    Raises:
        ValueError: An unknown name, a field that is missing, or a grid that could not run.
        OSError: A TOML file that cannot be read.
    """
    from tfprune.study.settings import from_settings

    _start_quietly(options)
    start, changes = _start(options), _changes(options)
    if "study" in start and "strategies" in changes:
        own = {value.name: value for value in start["study"].axis("strategies") if not _is_name(value)}
        changes["strategies"] = [own.get(name, name) for name in changes["strategies"]]
    study = from_settings({**start, **changes})
    _check_names(study)
    return study


def _start_quietly(options):
    """Where code of the user's is named, it is imported, and TensorFlow with it: with one thread, and in silence."""
    words = [*(options.dataset or ()), *(options.model or ())]
    if str(options.study).endswith(".toml") and Path(options.study).is_file():
        words.append(Path(options.study).read_text(encoding="utf-8", errors="replace"))
    if any(":" in word for word in words):
        from tfprune.study import process

        process.start()


def _check_names(study):
    """Refuses names that would make every trial fail, before anything heavy is loaded for them."""
    names.check("criteria", filter(_is_name, study.axis("criterion")))
    names.check("optimizers", (recipe.optimizer for recipe in study.axis("recipe")))
    for evaluation in study.axis("evaluation"):
        names.check("detectors", filter(_is_name, evaluation.detectors))
        names.check("corruptions", filter(_is_name, evaluation.corruptions))


def _is_name(value):
    return isinstance(value, str)


def _start(options):
    """The settings to start from: a named study, a file's, or the name of a new one."""
    from tfprune.study import grid, settings

    name = options.study
    if name is None:
        raise ValueError(
            f"Which study? Expected one of {', '.join(grid.STUDIES)}, FILE.toml, or the name of a new one."
        )
    if options.quick:
        return {"study": grid.quick(name)}
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise ValueError(f"No such file. Received: {name}. Expected a TOML file that describes a study.")
        return {"study": settings.read_study(name)}
    if name not in grid.STUDIES and options.dataset and options.model:
        return {"name": _checked(name)}
    return {"study": grid.get(name)}


def _checked(name):
    """The name of a new study, which becomes that of a folder."""
    if Path(name).name != name:
        raise ValueError(f"The name of a study holds no slashes. Received: {name!r}. Name its folder with --out.")
    return name


def _changes(options):
    """What the flags say, as a TOML file would."""
    found, recipe, evaluation = (_given(options, fields) for fields in (_GRID, _RECIPE, _EVALUATION))
    if "layers" in found:
        found["layers"] = [value.replace("+", ",") for value in found["layers"]]
    if options.latency:
        evaluation["latency"] = True
    changes = {name: value if name in _LISTS else _single(value) for name, value in found.items()}
    changes["recipe"] = {name: _single(value) for name, value in recipe.items()}
    return {**changes, "evaluation": evaluation}


def _given(options, fields):
    return {name: list(getattr(options, name)) for name in fields if getattr(options, name) is not None}


def _single(values):
    return values[0] if len(values) == 1 else values
