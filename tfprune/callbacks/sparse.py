"""When are channels driven towards zero while a model trains, so that pruning them costs little?"""

import warnings

import keras
import numpy as np
import tensorflow as tf

from tfprune.callbacks.change import clear, learning_rate, steps_done
from tfprune.pruning import criteria, masks, sparsity, surgery
from tfprune.pruning.ratios import check_count, check_positive


class _Proximal(keras.callbacks.Callback):
    """Takes a step of its own after each step of the optimizer, as long as the learning rate makes it."""

    def on_train_begin(self, logs=None):
        """Finds the channels; nothing is added to the model."""
        self._channels = self._found_channels()
        self._step = steps_done(self.model)
        self._take = self.compile(self._channels)

    def on_train_batch_end(self, batch, logs=None):
        """Follows the optimizer."""
        now = steps_done(self.model)
        if now > self._step:
            self.follow(learning_rate(self.model) * (now - self._step))
            self._step = now

    def _found_channels(self):
        found = sparsity.Channels(self.model)
        if not found.free.any():
            raise ValueError(
                f"{type(self).__name__} needs channels that can be pruned. Model '{self.model.name}' has none: see "
                "tfprune.inspect(model)."
            )
        return found

    def compile(self, channels):
        """A function that takes a step, given its size."""
        raise NotImplementedError

    def follow(self, rate):
        """The step that belongs to a learning rate."""
        self._take(rate * self.strength)


class NetworkSlimming(_Proximal):
    """Trains with an L1 penalty on the scale (gamma) of every BatchNormalization that prunable channels pass.

    Channels that the loss does not need end with a scale of zero; then prune with criterion "batchnorm_scale". It works
    on any Keras model, with or without masks. The penalty is not part of the loss: after each step of the optimizer,
    scales move towards zero by learning rate x strength, and stop there. Nothing stays behind on the model.

    Args:
        strength: Factor of the penalty, the sum of all absolute scales. Default 1e-4.

    Raises:
        ValueError: at the start of the fit: no prunable channel passes a BatchNormalization with a gamma.

    Example:
        >>> masked.fit(train, epochs=40, callbacks=[tfprune.callbacks.NetworkSlimming(1e-4)])
        >>> masks = tfprune.compute_masks(masked, 0.5, criterion="batchnorm_scale", scope="global")

    Source: Liu et al. 2017, Learning Efficient Convolutional Networks through Network Slimming.
    """

    def __init__(self, strength=1e-4):
        super().__init__()
        self.strength = check_positive("strength", strength)

    def compile(self, channels):
        """Moves the scales towards zero."""
        scales = [
            (variable, channels.free[counted[0][1]])
            for variable, counted in channels.weights
            if variable.name == "gamma" and len(counted) == 1
        ]
        if not scales:
            raise ValueError(
                "NetworkSlimming needs a BatchNormalization with scale=True behind channels that can be pruned. Model "
                f"'{self.model.name}' has none. Use GroupLasso instead."
            )

        def move(size):
            for variable, free in scales:
                value = tf.convert_to_tensor(variable.value)
                variable.assign(tf.where(free, sparsity.soft(value, tf.cast(size, value.dtype)), value))

        return channels.writing(move)


class GroupLasso(_Proximal):
    """Trains with a penalty on the norm of each channel: of all weights that make, scale or read it, in all layers.

    Layers whose channels are coupled (by Add, say) share one norm, so that a channel goes to zero in all of them
    together. It works on any Keras model, with or without masks. The penalty is not part of the loss: after each step
    of the optimizer, the norms shrink by learning rate x strength, down to zero. Weights that belong to two channels
    (one that they read, one that they make) shrink with both. Nothing stays behind on the model.

    Args:
        strength: Factor of the penalty, the sum of all channels' norms. Default 1e-4.

    Raises:
        ValueError: at the start of the fit: the model has no channels that can be pruned.

    Example:
        >>> masked.fit(train, epochs=40, callbacks=[tfprune.callbacks.GroupLasso(1e-4)])
        >>> masks = tfprune.compute_masks(masked, 0.5, criterion="l2", scope="global")

    Source: Wen et al. 2016, Learning Structured Sparsity in Deep Neural Networks; Fang et al. 2023, DepGraph.
    """

    def __init__(self, strength=1e-4):
        super().__init__()
        self.strength = check_positive("strength", strength)

    def compile(self, channels):
        """Shrinks all channels."""
        return channels.scaling(sparsity.group_lasso)


class GrowingRegularization(_Proximal):
    """Chooses the channels that will go, lets an L2 penalty on them grow as the model trains, and prunes them then.

    The network has time to move what it knows to the channels that stay. Every few steps the penalty grows a little;
    when it has reached its ceiling, the channels are pruned, and the rest of the fit trains what is left. The penalty
    is not part of the loss (see `GroupLasso`). `strength` tells how far it has grown, `finished` whether it is done.

    Args:
        ratio: Share of channels to remove, in [0, 1), or `{layer name: ratio}`.
        increment: By how much the factor of the penalty, half the squared norm of the channels, grows. Default 1e-4.
        every: Number of steps after which it grows. Default 10.
        ceiling: The factor at which channels are pruned. Default 1.
        criterion, scope, ignore, only, round_to, seed: How the channels are chosen at the start of the fit, as in
            `tfprune.compute_masks`.

    Raises:
        ValueError: at the start of the fit: a model without masks.

    Example:
        >>> growing = tfprune.callbacks.GrowingRegularization(0.5, increment=1e-3, every=5)
        >>> masked.fit(train, epochs=100, callbacks=[growing])

    Source: Wang et al. 2021, Neural Pruning via Growing Regularization (GReg-1).
    """

    def __init__(
        self,
        ratio,
        increment=1e-4,
        every=10,
        ceiling=1.0,
        criterion="l1",
        scope="layer",
        ignore=None,
        only=None,
        round_to=1,
        seed=None,
    ):
        super().__init__()
        for share in ratio.values() if isinstance(ratio, dict) else [ratio]:
            masks.check_ratio(share)
        criteria.get(criterion)
        self.ratio, self.every = ratio, check_count("every", every)
        self.increment, self.ceiling = check_positive("increment", increment), check_positive("ceiling", ceiling)
        self.selection = {
            "criterion": criterion, "scope": scope, "ignore": ignore, "only": only, "round_to": round_to, "seed": seed,
        }  # fmt: skip
        self.strength, self.finished = 0.0, False

    def on_train_begin(self, logs=None):
        """Chooses the channels."""
        surgery.check_masked(self.model, "GrowingRegularization")
        self._watch = clear(self.model, "before the penalty grows")
        self._masks = masks.compute_masks(self.model, self.ratio, **self.selection)
        super().on_train_begin(logs)
        self._start, self.strength, self.finished = self._step, 0.0, False

    def compile(self, channels):
        """Shrinks the chosen channels."""
        goes = np.zeros(channels.num_units, bool)
        for name, mask in self._masks.items():
            goes[channels.graph.made(name)] |= ~mask
        return channels.scaling(lambda squares, given: tf.where(goes, 1 / (1 + given), tf.ones_like(squares)))

    def follow(self, rate):
        """Shrinks the chosen channels, and prunes them in the end."""
        if self.finished:
            return
        super().follow(rate)
        grown = (steps_done(self.model) - self._start) // self.every
        self.strength = min(self.ceiling, grown * self.increment)
        if self.strength >= self.ceiling:
            masks.set_masks(self.model, self._masks)
            self._watch = clear(self.model, "since the penalty reached its ceiling")
            self.finished = True

    def on_epoch_end(self, epoch, logs=None):
        """Looks whether what is pruned stayed so."""
        self._watch.check(f"at the end of epoch {epoch + 1}")

    def on_train_end(self, logs=None):
        """Says so where the fit was too short."""
        if not self.finished:
            warnings.warn(
                f"The fit ended while the penalty of GrowingRegularization was {self.strength:g} of {self.ceiling:g}: "
                "nothing is pruned. Give fit more epochs, or let it grow faster (increment, every).",
                stacklevel=2,
            )
