"""How is a round trained fast on data that fits into memory?

`model.fit` takes milliseconds for an epoch, however small the network: it makes iterators, calls callbacks and reads
logs. Here a whole round, early stopping and best weights included, is one compiled loop, and an epoch of a small
network takes a fraction of a millisecond. Steps, batches and losses are those of `fit`, so that both give the same
weights up to rounding.
"""

import dataclasses
import logging
import math
import time
import weakref

import keras
import numpy as np
import tensorflow as tf

from tfprune.pruning import rewind
from tfprune.structure.replay import value_of
from tfprune.study import kept, state
from tfprune.study.order import batch_order

# Each trial compiles a loop of its own, as it must for a model of its own; TensorFlow takes that for a mistake.
logging.getLogger("tensorflow").addFilter(lambda record: "tf.function retracing" not in record.getMessage())

MOST_BYTES = 2**30  # of data that is kept in memory a second time, as tensors
_FIRST_EPOCHS = 64  # before the loop comes back to see whether a checkpoint is due


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a round went; `LotteryTicket.record` takes it.

    Args:
        epochs: Epochs trained.
        best_epoch: The epoch, from 1, whose weights the model has now: the one with the lowest validation loss.
        best: Its validation loss.
        loss: Training loss of each epoch, as `fit` logs it.
        val_loss: Validation loss of each epoch.
    """

    epochs: int
    best_epoch: int
    best: float
    loss: tuple = ()
    val_loss: tuple = ()


def why_not(model, data):
    """Says why `train_round` cannot train a model on these data; None where it can.

    Args:
        model: A compiled Keras model.
        data: A `tfprune.datasets.Dataset`.

    Example:
        >>> why_not(model, data)
        'the data take 5.0 GiB, more than the 1.0 GiB that are kept in memory'
    """
    arrays = keras.tree.flatten((data.train, data.validation))
    if not all(isinstance(array, np.ndarray) for array in arrays):
        return "the data are no NumPy arrays"
    size = sum(array.nbytes for array in arrays)
    if size > MOST_BYTES:
        return (
            f"the data take {size / 2**30:.1f} GiB, more than the {MOST_BYTES / 2**30:.1f} GiB that are kept in memory"
        )
    return why_not_model(model)


def why_not_model(model):
    """Says what of a model only `fit` can train; None where there is nothing."""
    for name in ("fit", "train_step", "test_step", "make_train_function", "make_test_function"):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            return f"the model has a {name} of its own"
    if model.run_eagerly:
        return "the model is compiled with run_eagerly=True"
    if getattr(model.optimizer, "use_ema", False):
        return "the optimizer averages the weights (use_ema=True)"
    if hasattr(model.optimizer, "inner_optimizer") or hasattr(model.optimizer, "dynamic_scale"):
        return "the loss is scaled for half precision"
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        return "the model is distributed over several devices"
    return None


def train_round(
    model,
    data,
    recipe,
    seed,
    round_number,
    keep_optimizer=False,
    early_stop=True,
    after_epoch=None,
    checkpoint=None,
):
    """Trains a model to the end of a round and gives it its best weights, as `fit` and `LotteryTicket` do.

    A round ends when the validation loss has not fallen for `recipe.patience` epochs, or after `recipe.epochs`. Batches
    are taken in the order that `batch_order` says; with batch size 0 a step takes the whole set.

    Args:
        model: A compiled Keras model, masked or not.
        data: A `tfprune.datasets.Dataset`: `train` and `validation` are pairs `(x, y)` of arrays.
        recipe: What has `batch_size`, `epochs` and `patience`, as a `Recipe` does.
        seed: The trial's seed, for the order of the batches.
        round_number: Number of the round, 0 for the dense network.
        keep_optimizer: Whether the optimizer's state belongs to the best weights: where the next round goes on from it.
        early_stop: False trains all of `recipe.epochs`; the best weights are given back all the same.
        after_epoch: `{epoch, from 1: function()}`, called while the model is as it was after that epoch, if the round
            gets so far. A round that goes on from its checkpoint does not call again what was called before it.
        checkpoint: A `kept.Checkpoint`; None (default) keeps nothing.

    Returns:
        A `Trained`.

    Raises:
        FloatingPointError: the validation loss became NaN or infinite.

    Example:
        >>> trained = train_round(masked, data, Recipe(batch_size=64), seed=0, round_number=0)
        >>> trained.epochs, trained.best_epoch
    """
    loop = _loop_of(model, recipe.batch_size, keep_optimizer)
    patience = max(recipe.patience, 1) if early_stop else recipe.epochs
    checkpoint, calls, stride = checkpoint or kept.Checkpoint(), after_epoch or {}, _FIRST_EPOCHS
    progress, losses = _resume(loop, model, checkpoint)
    while progress[0] < recipe.epochs and progress[0] - progress[1] < patience:
        stops = [recipe.epochs, *calls, *([progress[0] + stride] if checkpoint.path else [])]
        until = min(epoch for epoch in stops if progress[0] < epoch <= recipe.epochs)
        begun = time.monotonic()
        *progress, history = loop.run(data, (seed, round_number), progress, until, patience)
        stride *= 2 if time.monotonic() - begun < checkpoint.seconds / 8 else 1
        losses.extend(history.tolist())
        check_finite(losses)
        calls.get(progress[0], lambda: None)()
        if checkpoint.due():
            _save(loop, model, checkpoint, progress, losses)
    loop.restore()
    return Trained(*progress, *map(tuple, zip(*losses, strict=True)))


def _save(loop, model, checkpoint, progress, losses):
    arrays = kept.numbered("now", state.read(model))
    arrays |= kept.numbered("random", map(value_of, state.generators(model)))
    arrays |= kept.numbered("best", map(value_of, loop.best))
    checkpoint.save({"progress": list(progress), "losses": losses}, arrays)


def _resume(loop, model, checkpoint):
    """Progress and losses so far; where there is a checkpoint, the model goes on as it was then."""
    found = checkpoint.load()
    if found is None:
        return [0, 0, math.inf], []
    about, arrays = found
    state.write(model, kept.listed("now", arrays))
    held = [*state.generators(model), *loop.best], [*kept.listed("random", arrays), *kept.listed("best", arrays)]
    for variable, value in zip(*held, strict=True):
        variable.assign(value)
    return about["progress"], about["losses"]


def check_finite(losses):
    """Raises a FloatingPointError where a validation loss is NaN or infinite.

    Args:
        losses: `[(loss, validation loss)]` of the epochs of a round.
    """
    for epoch, (_, value) in enumerate(losses, start=1):
        if not math.isfinite(value):
            raise FloatingPointError(
                f"val_loss became {value} in epoch {epoch}. A lower learning rate is the usual cure."
            )


_LOOPS = weakref.WeakKeyDictionary()


def _loop_of(model, batch_size, keep_optimizer):
    """The compiled loop of a model, traced once for all its rounds."""
    known = _LOOPS.setdefault(model, {})
    key = (id(model.optimizer), batch_size, keep_optimizer)
    if key not in known:
        known[key] = _Loop(model, batch_size, keep_optimizer)
    return known[key]


class _Loop:
    """Epochs of one model as one compiled function.

    The model is held weakly: a loop that held it would keep itself alive.
    """

    def __init__(self, model, batch_size, keep_optimizer):
        self._model, self.batch_size = weakref.ref(model), batch_size
        slots = rewind.optimizer_variables(model)  # also builds the optimizer
        self.kept = rewind.weights_of(model) + (slots if keep_optimizer else [])
        self.best = [keras.Variable(keras.ops.copy(v), dtype=v.dtype, trainable=False) for v in self.kept]
        self.compiled = tf.function(self._epochs)

    def run(self, data, key, progress, until, patience):
        """Trains from an epoch to another, or until the patience ends; returns the new progress and the losses."""
        epoch, best_epoch, best = progress
        tensors = (keras.tree.map_structure(tf.convert_to_tensor, split) for split in (data.train, data.validation))
        numbers = (tf.constant(number, "int32") for number in (*key, epoch, best_epoch, until, patience))
        *ended, history = self.compiled(*tensors, *numbers, tf.constant(best, "float32"))
        return *(value.numpy().item() for value in ended), history.numpy()

    def restore(self):
        """Gives the model its best weights."""
        for variable, value in zip(self.kept, self.best, strict=True):
            variable.assign(value)

    def _epochs(self, train, validation, seed, number, epoch, best_epoch, until, patience, best):
        history, first, last = (
            tf.TensorArray("float32", 0, dynamic_size=True, element_shape=(2,)),
            epoch,
            tf.constant(0.0),
        )
        while epoch < until and epoch - best_epoch < patience and tf.math.is_finite(last):
            loss = self._mean_loss(train, self._order(seed, number, epoch, train), self._step)
            last = self._mean_loss(validation, None, self._loss)
            history = history.write(epoch - first, tf.stack([loss, last]))
            epoch += 1
            if last < best or (best_epoch == 0 and tf.math.is_finite(last)):
                best, best_epoch = last, epoch
                for value, variable in zip(self.best, self.kept, strict=True):
                    value.assign(variable)
        return epoch, best_epoch, best, history.stack()

    def _order(self, seed, number, epoch, split):
        size = _size(split)
        if not self.batch_size:
            return None
        order = tf.numpy_function(_order, [seed, number, epoch, size], "int64", stateful=False)
        return tf.ensure_shape(order, [size])

    def _mean_loss(self, split, order, run):
        """The mean of the batches' losses, weighted by their sizes as Keras does."""
        size = _size(split)
        if not self.batch_size:
            return run(*split)
        total = tf.constant(0.0)
        for start in tf.range(0, size, self.batch_size):
            stop = tf.minimum(start + self.batch_size, size)
            total += run(*_slice(split, order, start, stop)) * tf.cast(stop - start, "float32")
        return total / size

    def _step(self, x, y):
        model = self._model()
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=y_pred, training=True)
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
        return tf.cast(loss, "float32")

    def _loss(self, x, y):
        model = self._model()
        y_pred = model(x, training=False)
        return tf.cast(model.compute_loss(x=x, y=y, y_pred=y_pred, training=False), "float32")


def _order(seed, number, epoch, size):
    return batch_order(int(seed), int(number), int(epoch), int(size))


def _size(split):
    return keras.tree.flatten(split)[0].shape[0]


def _slice(split, order, start, stop):
    if order is None:
        return keras.tree.map_structure(lambda tensor: tensor[start:stop], split)
    return keras.tree.map_structure(lambda tensor: tf.gather(tensor, order[start:stop]), split)
