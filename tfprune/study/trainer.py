"""How is a ticket trained fast on data that fits one batch?

`model.fit` takes milliseconds for an epoch, however small the network: it makes iterators, calls callbacks and reads
logs. Here a whole round, early stopping and best weights included, is one compiled loop, and an epoch of a small
network takes a fraction of a millisecond. `LotteryTicket` decides between the rounds as it does in `fit`, so that both
give the same ticket up to rounding.
"""

import dataclasses
import logging
import math

import keras
import tensorflow as tf

from tfprune.pruning import masks, rewind

# Each trial compiles a loop of its own, as it must for a model of its own; TensorFlow takes that for a mistake.
logging.getLogger("tensorflow").addFilter(lambda record: "tf.function retracing" not in record.getMessage())


@dataclasses.dataclass(frozen=True)
class _Ended:
    """What `LotteryTicket.record` asks of a round that is over."""

    epochs: int
    best_epoch: int
    best: float


def train_full_batch(masked, train, validation, ticket, after_round=None):
    """Runs all rounds of a `LotteryTicket` on full batches, as `masked.fit(callbacks=[ticket])` would.

    Args:
        masked: A compiled model from `tfprune.wrap`; afterwards it holds the ticket.
        train: Pair `(x, y)` of arrays, one training step.
        validation: Pair `(x, y)` of arrays; its loss decides when a round ends.
        ticket: A `tfprune.callbacks.LotteryTicket` with `epochs_per_round` that monitors "val_loss" and rewinds to
            "init", "random" or None.
        after_round: Function called with the number of each round that ended, while the model holds its best weights.

    Raises:
        FloatingPointError: the validation loss became NaN or infinite.
        ValueError: the ticket monitors something else, rewinds to an epoch, or has no `epochs_per_round`.

    Example:
        >>> ticket = tfprune.callbacks.LotteryTicket(0.8, rounds=5, patience=20, epochs_per_round=2000)
        >>> train_full_batch(masked, (x, y), (x_validation, y_validation), ticket)
        >>> ticket.history[-1]["early_stop_epoch"]
    """
    _check(ticket)
    ticket.begin(masked)
    run_round = _compile_round(masked, train, validation, ticket)
    for number in range(ticket.rounds + 1):
        ended = run_round()
        if after_round is not None:
            after_round(number)
        ticket.record(number, ended, masks.get_masks(masked))
        if number < ticket.rounds:
            ticket.prune_and_rewind(masked, number + 1)
    ticket.finished = True


def _check(ticket):
    if ticket.monitor != "val_loss" or isinstance(ticket.rewind, int) or ticket.epochs_per_round is None:
        raise ValueError(
            "train_full_batch needs a ticket that monitors 'val_loss', rewinds to 'init', 'random' or None and has "
            f"epochs_per_round. Received: monitor={ticket.monitor!r}, rewind={ticket.rewind!r}, "
            f"epochs_per_round={ticket.epochs_per_round}. Use masked.fit(callbacks=[ticket]) instead."
        )


def _compile_round(model, train, validation, ticket):
    """A function that trains a round to its stop, restores its best weights and says how it went."""
    train, validation = _tensors(train), _tensors(validation)
    optimizer_state = rewind.optimizer_variables(model)
    kept = rewind.weights_of(model) + (optimizer_state if ticket.rewind is None else [])
    best_values = [keras.Variable(keras.ops.copy(v), dtype=v.dtype, trainable=False) for v in kept]
    patience = max(ticket.patience, 1)

    @tf.function
    def loop():
        epoch, best_epoch, best, loss = tf.constant(0), tf.constant(0), tf.constant(float("inf")), tf.constant(0.0)
        while epoch < ticket.epochs_per_round and epoch - best_epoch < patience and tf.math.is_finite(loss):
            epoch += 1
            _step(model, *train)
            loss = tf.cast(_loss(model, *validation, training=False), "float32")
            if loss < best - ticket.min_delta or (best_epoch == 0 and tf.math.is_finite(loss)):
                best, best_epoch = loss, epoch
                for value, variable in zip(best_values, kept, strict=True):
                    value.assign(variable)
        return epoch, best_epoch, best, loss

    def run_round():
        epochs, best_epoch, best, loss = (value.numpy().item() for value in loop())
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"val_loss became {loss} in epoch {epochs}. A lower learning rate is the usual cure."
            )
        for value, variable in zip(best_values, kept, strict=True):
            variable.assign(value)
        return _Ended(epochs, best_epoch, best)

    return run_round


def _tensors(split):
    return tuple(tf.convert_to_tensor(array) for array in split)


def _step(model, x, y):
    with tf.GradientTape() as tape:
        loss = _loss(model, x, y, training=True)
    variables = model.trainable_variables
    model.optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)


def _loss(model, x, y, training):
    """The compiled loss and the model's own losses (regularizers), as `fit` adds them up."""
    return model.compute_loss(x=x, y=y, y_pred=model(x, training=training), training=training)
