"""How does one cell of a study become one flat row?"""

import platform
import time
import warnings

from tfprune import __version__, datasets, models
from tfprune.study.quiet import start_tensorflow


def run_trial(trial):
    """Trains, prunes, shrinks and evaluates one network, and returns what was measured as a flat dict.

    Args:
        trial: The `Trial` to run.

    Returns:
        A flat dict: epochs and stops of the last round, what `tfprune.evaluate` says of the ticket, and the same of
        the dense network of round 0 under names that start with "dense_".

    Raises:
        FloatingPointError: The loss became NaN or infinite.
        ValueError: Unknown data set, model, strategy or layers.

    Example:

    >>> run_trial(Trial("moons", "mlp", "one_shot", ratio=0.5, seed=0))["accuracy"]
    """
    start_tensorflow()
    import keras

    import tfprune

    # State of earlier trials in this process would cost memory and shift the names of layers.
    keras.backend.clear_session()
    keras.utils.set_random_seed(trial.seed)
    data = datasets.get(trial.dataset)
    model = build_model(trial, data)
    masked = tfprune.wrap(model)
    ticket, dense_weights = train(masked, data, trial)
    small = tfprune.shrink(masked)
    measured = tfprune.evaluate(small, data.test, ood=data.ood, from_logits=True, dense=model)
    masked.set_weights(dense_weights)
    dense = tfprune.evaluate(masked, data.test, ood=data.ood, from_logits=True)
    return {**_training_columns(ticket), **measured, **_dense_columns(ticket, dense)}


def build_model(trial, data):
    """Returns the trial's dense network, compiled by its recipe."""
    import keras

    recipe = trial.recipe
    extra = {name: getattr(recipe, name) for name in ("momentum", "weight_decay") if getattr(recipe, name)}
    model = models.get(trial.model)(input_shape=data.input_shape, num_classes=data.num_classes, seed=trial.seed)
    learning_rate = recipe.learning_rate
    if recipe.decay != 1:
        steps = -(-len(data.train[0]) // recipe.batch_size) if recipe.batch_size else 1
        learning_rate = keras.optimizers.schedules.ExponentialDecay(learning_rate, steps, recipe.decay, staircase=True)
    model.compile(
        optimizer=_optimizer(recipe.optimizer)(learning_rate=learning_rate, **extra),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def _optimizer(name):
    """Returns Keras' optimizer class of a name."""
    import keras

    return type(keras.optimizers.get(name))


def train(masked, data, trial):
    """Runs all rounds of the trial's strategy; returns its `LotteryTicket` and the dense network's best weights.

    Data that is trained on in one batch runs in a compiled loop, everything else in `fit`; both give the same.
    """
    import tfprune
    from tfprune.pruning import strategies
    from tfprune.study import trainer

    recipe, strategy = trial.recipe, strategies.get(trial.strategy)
    ticket = tfprune.callbacks.LotteryTicket(
        trial.ratio,
        rounds=trial.rounds or strategy.rounds,
        rewind=strategy.rewind,
        patience=recipe.patience,
        epochs_per_round=recipe.epochs,
        seed=trial.seed,
        criterion=trial.criterion,
        scope=trial.scope,
        only=_only(masked, trial.layers),
    )
    if not recipe.batch_size:
        dense = {}
        trainer.train_full_batch(
            masked, data.train, data.validation, ticket, lambda number: dense.setdefault(0, masked.get_weights())
        )
        return ticket, dense[0]
    return ticket, _fit(masked, data, recipe, ticket)


def _fit(masked, data, recipe, ticket):
    """Trains in `model.fit`; returns the best weights of round 0, the dense network."""
    import keras

    dense_round = _dense_round(ticket)
    with warnings.catch_warnings():
        # after TerminateOnNaN; _refuse_nan says it better
        warnings.filterwarnings("ignore", message="The fit ended in round")
        history = masked.fit(
            *data.train,
            batch_size=recipe.batch_size,
            validation_data=data.validation,
            epochs=(ticket.rounds + 1) * recipe.epochs,
            # dense_round first: when a round ends, ticket replaces the weights that dense_round has to see
            callbacks=[keras.callbacks.TerminateOnNaN(), dense_round, ticket],
            verbose=0,
        )
    _refuse_nan(history.history)
    return dense_round.weights


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
    start = time.perf_counter()
    try:
        measured = {"status": "done", "error": None, **trial_function(trial)}
    except Exception as error:  # whatever went wrong in one cell, the study goes on
        measured = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    wall_time = round(time.perf_counter() - start, 3)
    return {**trial.identification(), **measured, "wall_time": wall_time, **versions()}


def _only(masked, layers):
    """Returns the names to hand to `only=`; None for every layer that can be pruned."""
    if layers == "all":
        return None
    if layers != "dense":
        return [name.strip() for name in layers.split(",")]
    names = [layer.name for layer in masked.layers if layer.name.startswith("dense")]
    if not names:
        raise ValueError(
            "layers='dense' prunes the layers whose names start with 'dense'; there are none. Received a model with "
            f"{', '.join(layer.name for layer in masked.layers)}. Pass layers='all' or layer names."
        )
    return names


def _refuse_nan(history):
    import numpy as np

    for name in ("loss", "val_loss"):
        broken = np.flatnonzero(~np.isfinite(history.get(name, [])))
        if broken.size:
            raise FloatingPointError(
                f"{name} became {history[name][broken[0]]} in epoch {broken[0] + 1}. "
                "A lower learning rate is the usual cure."
            )


def _dense_round(ticket):
    """Returns a callback that keeps the best weights of round 0, the dense network that the ticket is held against."""
    import keras

    class DenseRound(keras.callbacks.Callback):
        best, weights = float("inf"), None

        def on_epoch_end(self, epoch, logs=None):
            if not ticket.history and logs["val_loss"] < self.best:
                self.best, self.weights = logs["val_loss"], self.model.get_weights()

    return DenseRound()


def _training_columns(ticket):
    last = ticket.history[-1]
    return {
        "rounds": len(ticket.history) - 1,
        "early_stop_epoch": last["early_stop_epoch"],
        "epochs_trained": last["epochs"],
        "total_epochs": sum(record["epochs"] for record in ticket.history),
        "best_val_loss": last["best"],
        "channels_kept": last["channels_kept"],
        "channels_total": last["channels_total"],
    }


def _dense_columns(ticket, dense):
    columns = {name: dense[name] for name in ("accuracy", "nll", "brier", "ece", "uce", "mean_confidence")}
    columns |= {name: dense[name] for name in dense if name.endswith(("/auroc_msp", "/mean_confidence"))}
    return {
        "dense_early_stop_epoch": ticket.history[0]["early_stop_epoch"],
        **{f"dense_{name}": value for name, value in columns.items()},
    }
