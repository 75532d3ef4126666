"""How does a trial train one round in `model.fit`? The trainer for every model and data set; the others are faster."""

import math

import keras
import numpy as np
import tensorflow as tf

from tfprune.callbacks.lottery import Round
from tfprune.structure.replay import value_of
from tfprune.study import kept, state
from tfprune.study.compiled import Trained
from tfprune.study.order import batch_order

_VALIDATION_BATCH = 256


def train_round(
    masked,
    data,
    recipe,
    seed,
    round_number,
    keep_optimizer=False,
    early_stop=True,
    after_epoch=None,
    checkpoint=None,
):
    """Trains a model to the end of a round, in one `fit`, and gives it its best weights.

    Batches come in the order of `batch_order`, so nothing depends on where or when the round is trained: killed at any
    moment and called again with the same model, it goes on from its checkpoint and ends in the same bits.

    Args:
        masked: A compiled Keras model, masked or not.
        data: A `tfprune.datasets.Dataset`.
        recipe: What has `batch_size`, `epochs` and `patience`, as a `Recipe` does.
        seed: The trial's seed, for the order of the batches.
        round_number: Number of the round, 0 for the dense network.
        keep_optimizer: Whether the optimizer's state belongs to the best weights: where the next round goes on from it.
        early_stop: False trains all of `recipe.epochs`; the best weights are given back all the same.
        after_epoch: `{epoch, from 1: function()}`, called while the model is as it was after that epoch, if the round
            gets so far. A round that goes on from its checkpoint does not call again what was called before it.
        checkpoint: A `kept.Checkpoint`; None (default) keeps nothing.

    Returns:
        `Trained`.

    Raises:
        FloatingPointError: A loss became NaN or infinite.
        ValueError: Several devices cannot share the batches.

    Example:

    >>> train_round(masked, tfprune.datasets.moons(), Recipe(), seed=0, round_number=0).best_epoch
    """
    patience = recipe.patience if early_stop else recipe.epochs
    progress = _Progress(Round("val_loss", patience, 0.0, keep_optimizer), recipe.epochs, round_number)
    progress.calls, progress.checkpoint = after_epoch or {}, checkpoint or kept.Checkpoint()
    progress.resume(masked)
    if not progress.round.is_over(recipe.epochs):
        devices = masked.distribute_strategy.num_replicas_in_sync
        check_shares(len(data.train[0]), recipe.batch_size, devices)
        train, steps = _training_batches(data, recipe.batch_size, seed, round_number, progress.round.epochs)
        validation, validation_steps = _validation_batches(data, recipe.batch_size, devices)
        masked.fit(
            train,
            steps_per_epoch=steps,
            validation_data=validation,
            validation_steps=validation_steps,
            initial_epoch=progress.round.epochs,
            epochs=recipe.epochs,
            callbacks=[progress],
            shuffle=False,
            verbose=0,
        )
    progress.round.restore()
    ended = progress.round
    return Trained(ended.epochs, ended.best_epoch, ended.best, tuple(progress.loss), tuple(progress.val_loss))


class _Progress(keras.callbacks.Callback):
    """Early stopping and losses of a round, and the way into a checkpoint and back."""

    def __init__(self, rule, epochs, number):
        super().__init__()
        self.round, self.epochs, self.number = rule, epochs, number
        self.loss, self.val_loss = [], []

    def on_epoch_end(self, epoch, logs=None):
        refuse_infinite(logs, epoch + 1, self.number)
        self.round.see(self.model, logs)
        self.loss.append(float(logs["loss"]))
        self.val_loss.append(float(logs["val_loss"]))
        self.calls.get(self.round.epochs, lambda: None)()
        if self.round.is_over(self.epochs):
            self.model.stop_training = True
        elif self.checkpoint.due():
            self._save()

    def _save(self):
        about = {name: getattr(self.round, name) for name in ("epochs", "best_epoch", "best")}
        about |= {"loss": self.loss, "val_loss": self.val_loss}
        arrays = kept.numbered("now", state.read(self.model))
        arrays |= kept.numbered("random", map(value_of, state.generators(self.model)))
        arrays |= kept.numbered("best", self.round.best_values())
        self.checkpoint.save(about, arrays)

    def resume(self, masked):
        """Goes on from the checkpoint, where there is one."""
        found = self.checkpoint.load()
        if found is None:
            return
        about, arrays = found
        state.write(masked, kept.listed("now", arrays))
        best = kept.listed("best", arrays)
        self.round.resume(masked, about["epochs"], about["best_epoch"], about["best"], best)
        for variable, value in zip(state.generators(masked), kept.listed("random", arrays), strict=True):
            variable.assign(value)
        self.loss, self.val_loss = about["loss"], about["val_loss"]


def refuse_infinite(logs, epoch, round_number):
    """Raises a FloatingPointError where a loss of an epoch is NaN or infinite.

    Args:
        logs: `{name: value}`, of which "loss" and "val_loss" are looked at.
        epoch: Number of the epoch, from 1, for the error.
        round_number: Number of the round, for the error.
    """
    for name in ("loss", "val_loss"):
        value = logs.get(name, 0.0)
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name} became {value} in epoch {epoch} of round {round_number}. A lower learning rate is the usual "
                "cure."
            )


# Batches ------------------------------------------------------------------------------------------------------------

_HELD = [None, None]  # the data set that is held as tensors, and its tensors


def tensors(data):
    """Returns `{"train": (x, y), "validation": (x, y)}` of a `Dataset` as tensors, converted once in a process.

    Args:
        data: The `Dataset`; the last one is held.
    """
    if _HELD[0] is not data:
        # tf.data runs on the CPU, also where the model does not
        with tf.device("CPU:0"):
            splits = {name: tuple(map(tf.convert_to_tensor, getattr(data, name))) for name in ("train", "validation")}
        _HELD[:] = [data, splits]
    return _HELD[1]


def _training_batches(data, batch_size, seed, round_number, first_epoch):
    """An endless data set of batches, epoch after epoch in their order, and how many an epoch has."""
    x, y = tensors(data)["train"]
    if not batch_size:
        return tf.data.Dataset.from_tensors((x, y)).repeat(), 1
    steps = -(-len(x) // batch_size)

    def order(epoch):
        def numbers(epoch):
            return batch_order(seed, round_number, int(epoch), len(x)).astype(np.int64)

        return tf.ensure_shape(tf.numpy_function(numbers, [epoch], tf.int64), [len(x)])

    def batches_of(order):
        indices = tf.data.Dataset.range(steps).map(lambda step: order[step * batch_size : (step + 1) * batch_size])
        return indices.map(lambda chosen: (tf.gather(x, chosen), tf.gather(y, chosen)))

    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).map(order)
    return _as_written(epochs.flat_map(batches_of).prefetch(2)), steps


def check_shares(num_examples, batch_size, devices):
    """Raises where Keras cannot give each of several devices its part of every batch.

    The first batch must be split evenly, and no device may be left without an example in the last one.

    Args:
        num_examples: Number of training examples.
        batch_size: Examples in a step; 0 for all of them.
        devices: Number of devices.
    """
    size = batch_size or num_examples
    rest = num_examples % size
    if size % devices or 0 < rest < devices:
        raise ValueError(
            f"{devices} devices cannot share batches of {size} of {num_examples} examples. Expected a batch size that "
            f"is a multiple of {devices}, with none or at least {devices} examples left for the last batch."
        )


def _validation_batches(data, batch_size, devices=1):
    x, y = tensors(data)["validation"]
    most = min(_VALIDATION_BATCH if batch_size else len(x), len(x))
    sizes = range(most // devices * devices, 0, -devices)
    # no device without an example in the last batch, see check_shares
    size = next(size for size in sizes if not 0 < len(x) % size < devices)
    steps = -(-len(x) // size)
    starts = tf.data.Dataset.range(0, steps * size, size)
    batches = starts.map(lambda start: (x[start : start + size], y[start : start + size])).repeat()
    return _as_written(batches), steps


def _as_written(dataset):
    # a pipeline that TensorFlow tunes waits up to half a second for its tuner when a fit ends
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
