"""Where do the models and the data of a command come from? Files and names become what tfprune's functions take."""

import importlib
import os
import sys
from pathlib import Path

from tfprune.cli import mistakes, names
from tfprune.cli.words import add_list, words


def add_model_flags(command):
    """Adds what every command needs that loads a model."""
    text = "modules that define layers of the model, imported before it is loaded"
    add_list(command, "--import", words, text, metavar="MODULE", dest="imports")


def add_data_flags(command, required=True):
    """Adds what every command needs that measures models on data; `required`: whether it cannot do without."""
    action = command.add_argument(
        "--data",
        required=required,
        metavar="DATA",
        help="data whose test split is used: moons, digits, cifar10, tfds:NAME, or module:function, a function that "
        "returns a tfprune.datasets.Dataset, (x, y) or a tf.data.Dataset",
    )
    action.completes = "datasets"
    strangers = "sets with which to test OOD detection, named as data or as DATA names its own"
    add_list(command, "--ood", words, strangers, completes="datasets")
    heads = command.add_mutually_exclusive_group()
    heads.add_argument("--logits", dest="from_logits", action="store_true", default=None, help="the model gives logits")
    heads.add_argument("--probabilities", dest="from_logits", action="store_false", help="... or probabilities")
    command.add_argument("--batch-size", type=int, default=256, metavar="N", help="samples at a time (default: 256)")
    command.add_argument(
        "--allow-leak", action="store_true", help="measure on samples, too, that a part of the model was fitted on"
    )


def load_model(path, imports=None):
    """Loads a .keras file with Keras' safe mode on: code inside the file is refused, not run.

    Args:
        path: Path of the file.
        imports: Names of modules that define the model's own layers.

    Raises:
        ValueError: There is no such file, or Keras cannot load it.
    """
    check_model_file(path)
    from tfprune.study.quiet import start_tensorflow

    start_tensorflow()
    import keras

    import tfprune.uncertainty  # noqa: F401 (a model may hold a calibrator)

    _import(imports or ())
    try:
        return keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # Keras raises many kinds here; to the user all of them mean the same
        raise ValueError(f"Keras could not load {path}: {mistakes.in_one_line(error)}") from error


def check_model_file(path):
    """Refuses what is no .keras file before TensorFlow is started for it."""
    if not Path(path).is_file():
        raise ValueError(f"No such file. Received: {path}. Expected a model saved by model.save('NAME.keras').")
    if Path(path).suffix != ".keras":
        raise ValueError(f"Models are read from .keras files. Received: {path}. Save it with model.save('NAME.keras').")


def check_new_model_file(path):
    """Refuses to write a model to a file that Keras would not read again."""
    if Path(path).suffix != ".keras":
        raise ValueError(f"--out must name a file that ends in .keras. Received: {path}.")


def _import(modules):
    if modules and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(f"--import {module}: {error}. Expected a module that Python finds from here.") from error


def load_data(name):
    """Returns the `Dataset` of a name; of a function that returns test data alone, one that holds these alone.

    Args:
        name: A name in `tfprune.datasets.DATASETS`, "tfds:NAME", or "module:function".

    Raises:
        ValueError: Unknown name, or data that cannot be had.
    """
    from tfprune import datasets

    load = datasets.loader(name)
    if name in datasets.DATASETS or name.startswith("tfds:"):
        return datasets.get(name)
    data = load()
    return data if isinstance(data, datasets.Dataset) else datasets.Dataset(name, None, None, data, {}, None, None)


def holds_numbers(data):
    """Whether the targets are numbers, not classes; test data alone are taken for those of a classifier."""
    return data.num_classes is None and data.train is not None


def load_ood(chosen, data, shape):
    """Returns `{name: inputs}` of out-of-distribution sets.

    Args:
        chosen: Names, or None: those of `data.ood`, of other data sets (their test inputs), "tfds:NAME" (its images,
            resized), or "module:function" (what it returns).
        data: The `Dataset` that they are strangers to.
        shape: Shape of one example.

    Raises:
        ValueError: Unknown name, or another shape.
    """
    return {name: _ood_inputs(name, data, tuple(shape)) for name in chosen or ()}


def _ood_inputs(name, data, shape):
    from tfprune import datasets

    if name in data.ood:
        return data.ood[name]
    if name.startswith("tfds:"):
        return datasets.images(name.removeprefix("tfds:"), "test", shape)[0]
    if ":" not in name and name not in datasets.DATASETS:
        known = ", ".join(map(repr, dict.fromkeys([*data.ood, *datasets.DATASETS])))
        raise ValueError(
            f"Unknown OOD set. Received: {name!r}. Expected one of {known}, 'tfds:NAME', 'module:function'."
        )
    other = load_data(name)
    if other.input_shape and tuple(other.input_shape) != shape:
        raise ValueError(
            f"OOD inputs must have the shape of {data.name}'s, {shape}. Received: {name} with {other.input_shape}."
        )
    return other.test[0] if other.input_shape else other.test


def check_data_name(name):
    """Refuses an unknown data set before TensorFlow is started for it."""
    if ":" not in name:
        names.check("datasets", [name])
