"""How does one cell of a study become one flat row?"""

import contextlib
import dataclasses
import functools
import platform
import time
import types

from tfprune import __version__, datasets, models
from tfprune.study import process

_SMALL_BYTES = 64 * 2**20  # of training data, below which `fit` costs more around its steps than in them
_FORMAT = 1  # of what is kept; another number makes old files unknown


def run_trial(trial, folder=None, devices=1, trainer="auto"):
    """Trains, prunes, shrinks and evaluates one network, and returns what was measured as a flat dict.

    The dense network is taken from the folder where a trial of the same `dense_key` left it; a round that was in
    progress when a process died goes on from its checkpoint. The row is the same either way, bit by bit, and the same
    in every process on one machine: TensorFlow's operations are made deterministic, and a process computes in one
    thread where TensorFlow has not started yet (afterwards it keeps the threads that it has).

    Args:
        trial: The `Trial` to run.
        folder: The study's folder, where the dense network ("dense/") and the rounds in progress ("rounds/") are kept;
            None keeps nothing.
        devices: Devices that share each batch, through `tf.distribute.MirroredStrategy` in `model.fit`: GPUs, or
            logical CPUs that were set up before. Default 1. Results agree up to rounding, but for what a network does
            to a batch as a whole: each device draws its own dropout and normalises its own share. Training over several
            machines is not supported: `model.fit` does not run under MultiWorkerMirroredStrategy with Keras 3; spread
            trials over machines instead.
        trainer: "fit", "compiled" (an epoch is one compiled loop), or "auto" (default): "compiled" where it can train
            the model and the data are small, otherwise "fit".

    Returns:
        A flat dict: how it was trained, what `tfprune.evaluate` (or `evaluate_regression`) says of the ticket, and the
        same of the dense network under names that start with "dense_".

    Raises:
        FloatingPointError: A loss became NaN or infinite.
        ValueError: Unknown data set, model or layers, or a strategy that does not fit the model.

    Example:

    >>> run_trial(Trial("moons", "mlp", "one_shot", ratio=0.5, seed=0))["accuracy"]
    """
    process.settle(devices)
    import tfprune
    from tfprune.study import measure, rounds

    setup = set_up(trial, devices, trainer)
    shelves = [_shelf(folder, name, setup) for name in ("dense", "rounds")]
    dense = rounds.train_dense(setup, shelves[0], trial.epochs_to_keep)
    dense_row = _dense_row(setup, dense, shelves[0])
    look = functools.partial(measure.glance, setup.masked, setup.data)
    ticket, glances = rounds.train_rounds(setup, dense, *shelves, look)
    columns = columns_of(setup, dense, dense_row, ticket, glances, tfprune.shrink(setup.masked))
    rounds.forget(setup, shelves[1])
    return columns


def columns_of(setup, dense, dense_row, ticket, glances, small):
    """Returns what was measured of a trial that has been trained, as a flat dict.

    Args:
        setup: The trial's `Setup`.
        dense: The trained `rounds.Dense`.
        dense_row: What was measured of it.
        ticket: The finished `LotteryTicket`.
        glances: What was seen after each round between.
        small: The ticket, as a model.
    """
    from tfprune.study import measure

    evaluation = setup.trial.evaluation
    row = measure.evaluate(small, setup.data, evaluation, setup.dense_cost, setup.trial.seed)
    columns = {
        **measure.training_columns(ticket, dense),
        "trainer": setup.trainer.name,
        "trainer_reason": setup.trainer.reason,
        "device": setup.device,
        **measure.round_columns(ticket, dense_row, glances, row, setup.data),
        **row,
        **{f"dense_{name}": value for name, value in dense_row.items()},
    }
    if evaluation.latency:
        columns |= measure.latency_columns(small, setup.model)
    return measure.plain(columns)


def run_dense(trial, folder, devices=1, marks=(), trainer="auto"):
    """Trains the dense network that all trials of one `dense_key` share, unless the folder has it already.

    Args:
        trial: Any `Trial` of them.
        folder: The study's folder; the network is kept in its "dense/KEY.npz".
        devices: As in `run_trial`.
        marks: Numbers of epochs whose weights strategies rewind to, beside the trial's own.
        trainer: As in `run_trial`.

    Raises:
        FloatingPointError: A loss became NaN or infinite.
        ValueError: Unknown data set or model.

    Example:

    >>> for trial in {trial.dense_key: trial for trial in study.trials()}.values():
    ...     run_dense(trial, "runs/moons")
    """
    process.settle(devices)
    from tfprune.study import rounds

    setup = set_up(trial, devices, trainer)
    shelf = _shelf(folder, "dense", setup)
    dense = rounds.train_dense(setup, shelf, sorted({*trial.epochs_to_keep, *marks}))
    _dense_row(setup, dense, shelf)


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that the training of a trial starts from.

    Args:
        trial: The `Trial`.
        data: Its `Dataset`.
        model: The dense network with its initial weights, compiled.
        masked: The same with masks; what is trained.
        only: Names of the layers that may be pruned; None for all that can be.
        trainer: What trains it: `name`, `train_round`, and the `reason` why it is no faster one.
        dense_cost: What `cost` says of the dense network.
        device: What it runs on, as "CPU" or "2 x GPU".
        identity: Short hash of initial weights and data, so that nothing of another network is taken for it.
    """

    trial: object
    data: object
    model: object
    masked: object
    only: list | None
    trainer: types.SimpleNamespace
    dense_cost: dict
    device: str
    identity: str


def set_up(trial, devices=1, trainer="auto"):
    """Returns the `Setup` of a trial: data, and the networks with their initial weights.

    Args:
        trial: The `Trial`.
        devices, trainer: As in `run_trial`.
    """
    import keras

    import tfprune
    from tfprune.structure.cost import cost
    from tfprune.study import measure, splits, state

    # State of earlier trials in this process would cost memory and shift the names of layers.
    keras.backend.clear_session()
    keras.utils.set_random_seed(trial.seed)
    data = splits.checked(datasets.get(trial.dataset))
    measure.check(trial.evaluation, data)
    with _scope(devices) as device:
        model = build_model(trial, data)
        masked = tfprune.wrap(model)
    weights = state.digest(map(state.value_of, model.weights))
    return Setup(
        trial,
        data,
        model,
        masked,
        _only(masked, trial.layers),
        _trainer(masked, data, trainer),
        cost(model),
        device,
        f"{weights} {_data_digest(data)}",
    )


def build_model(trial, data):
    """Returns the trial's dense network, compiled by its recipe.

    Args:
        trial: The `Trial`.
        data: Its `Dataset`.

    Raises:
        ValueError: The model's function does not take what it is called with.
        TypeError: It returns no model.
    """
    import keras

    from tfprune.study import rates

    recipe = trial.recipe
    extra = {name: getattr(recipe, name) for name in ("momentum", "weight_decay") if getattr(recipe, name)}
    outputs = {"num_classes": data.num_classes}
    if data.num_classes is None:
        outputs = {"num_targets": data.train[1].shape[1] if data.train[1].ndim > 1 else 1}
    models.check(trial.model, *outputs)
    model = models.get(trial.model)(input_shape=data.input_shape, seed=trial.seed, **outputs)
    if not isinstance(model, keras.Model):
        raise TypeError(f"A model function must return a keras.Model that is not compiled. Received: {model!r}.")
    learning_rate = recipe.learning_rate
    if recipe.decay != 1:
        steps = -(-len(data.train[0]) // recipe.batch_size) if recipe.batch_size else 1
        learning_rate = rates.StepDecay(learning_rate, steps, recipe.decay, recipe.epochs)
    optimizer = type(keras.optimizers.get(recipe.optimizer))
    model.compile(optimizer=optimizer(learning_rate=learning_rate, **extra), loss=_loss(model, data))
    return model


def _loss(model, data):
    """The loss that goes with the data and the model's last layer."""
    import keras

    from tfprune.losses import GaussianNegativeLogLikelihood
    from tfprune.structure.head import find_head

    if data.num_classes is None:
        return GaussianNegativeLogLikelihood()
    logits = find_head(model) not in ("softmax", "sigmoid")
    if model.output_shape[-1] == 1:
        return keras.losses.BinaryCrossentropy(from_logits=logits)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)


def versions():
    """Returns the versions that shaped a result, as columns of its row."""
    from importlib import metadata

    packages = ("tensorflow", "keras", "numpy")
    return {"tfprune": __version__, **{name: metadata.version(name) for name in packages}} | {
        "python": platform.python_version()
    }


def row_of(trial, trial_function=run_trial):
    """Returns the trial's finished row; a trial that raises gives a row with status "failed" and the reason.

    Args:
        trial: The `Trial`.
        trial_function: Function `(trial) -> flat dict` that does the work.
    """
    start = time.time()
    try:
        found = trial_function(trial)
    except Exception as error:  # whatever went wrong in one cell, the study goes on
        found = error
    return finish(trial, found, start, time.time() - start)


def finish(trial, found, started=None, wall_time=None):
    """Returns the row of a trial: what it is, what was measured, when, and by which versions.

    Args:
        trial: The `Trial`.
        found: Flat dict of what was measured, or the error that came instead.
        started: Seconds since 1970; None where it is not known.
        wall_time: Seconds that it took; None where it is not known.
    """
    if isinstance(found, Exception):
        measured = {"status": "failed", "error": f"{type(found).__name__}: {found}"}
    else:
        measured = {"status": "done", "error": None, **found}
    times = {"started": started and round(started, 3), "wall_time": wall_time and round(wall_time, 3)}
    return {**trial.identification(), **measured, **times, **versions()}


# What is kept -------------------------------------------------------------------------------------------------------


def _shelf(folder, name, setup):
    from pathlib import Path

    from tfprune.study import kept

    known = {name: value for name, value in versions().items() if name in ("tensorflow", "keras")}
    key = setup.trial.dense_key if name == "dense" else setup.trial.key
    return kept.Shelf(folder and Path(folder) / name, {"format": _FORMAT, "key": key, "of": setup.identity, **known})


def finished_file(key):
    """Name of the file, in the folder "rounds", of what was measured of a trial whose row is not written yet."""
    return f"{key}-finished.npz"


def _dense_row(setup, dense, shelf):
    """What is measured of the dense network: once for all its trials that measure the same."""
    import numpy as np

    from tfprune.study import measure, state

    evaluation = dataclasses.replace(setup.trial.evaluation, latency=False)
    measured = state.digest([np.frombuffer(repr(evaluation).encode(), np.uint8)])
    name = f"{setup.trial.dense_key}-row-{measured}.npz"
    found = shelf.load(name)
    if found is None:
        start = state.read(setup.masked)
        state.write(setup.masked, dense.values)
        row = measure.evaluate(setup.masked, setup.data, evaluation, setup.dense_cost, setup.trial.seed)
        state.write(setup.masked, start)
        shelf.save(name, row, {})
        return row
    return found[0]


_DATA = [None, None]  # the last data set, and its digest: it takes half a second for CIFAR-10


def _data_digest(data):
    from tfprune.study import state

    if _DATA[0] is not data:
        _DATA[:] = [data, state.digest([*data.train, *data.validation])]
    return _DATA[1]


# What it runs on ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _scope(devices):
    """Variables made inside belong to as many devices; gives their name for the row."""
    import tensorflow as tf

    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if devices == 1:
        yield kind
        return
    there = [device.name for device in tf.config.list_logical_devices(kind)]
    if len(there) < devices:
        raise ValueError(
            f"devices={devices} asks for as many {kind}s, but TensorFlow has {len(there)}. Logical ones are set up "
            "with tf.config.set_logical_device_configuration before TensorFlow starts."
        )
    with tf.distribute.MirroredStrategy(there[:devices]).scope():
        yield f"{devices} x {kind}"


def _trainer(masked, data, wanted):
    """What trains the model: the fastest that can, or the one that is wanted."""
    from tfprune.study import compiled, fit

    reason = compiled.why_not(masked, data)
    if wanted == "fit":
        reason = "it was asked for"
    elif wanted == "compiled" and reason is not None:
        raise ValueError(f"trainer={wanted!r} cannot train this trial: {reason}. Use trainer='auto'.")
    elif wanted != "compiled" and reason is None:
        size = sum(array.nbytes for array in (*data.train, *data.validation))
        if size > _SMALL_BYTES:
            reason = f"the training data take {size / 2**20:.0f} MiB: steps cost more than what is around them"
    if reason is None:
        asked = "it was asked for" if wanted == "compiled" else "data and model fit a compiled loop"
        found = "compiled", asked, compiled.train_round
    else:
        found = "fit", reason, fit.train_round
    return types.SimpleNamespace(**dict(zip(("name", "reason", "train_round"), found, strict=True)))


def _only(masked, layers):
    """Returns the names to hand to `only=`; None for every layer that can be pruned."""
    from tfprune.pruning import masks

    if layers == "all":
        return None
    if layers != "dense":
        names = [name.strip() for name in layers.split(",")]
        masks.choose_groups(masks.graph_of(masked), 0.0, None, names)  # refuses what cannot be pruned, not yet trained
        return names
    names = [layer.name for layer in masked.layers if layer.name.startswith("dense")]
    if not names:
        raise ValueError(
            "layers='dense' prunes the layers whose names start with 'dense'; there are none. Received a model with "
            f"{', '.join(layer.name for layer in masked.layers)}. Pass layers='all' or layer names."
        )
    return names
