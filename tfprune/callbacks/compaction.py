"""When does a model become physically smaller inside `model.fit`, so that later epochs take less time?"""

import keras

from tfprune.callbacks.company import company
from tfprune.pruning import compaction, surgery


class Compaction(keras.callbacks.Callback):
    """Trains the pruned model at its small size, inside the same `model.fit`.

    Beside a callback that prunes (`GradualPruning`, `LotteryTicket`), it makes the small model each time that channels
    went, and lets the steps of `fit` run on it: weights, BatchNormalization statistics, optimizer slots and averages
    are cut with the channels; step counter, learning-rate schedule, metrics, epochs and history go on. Losses, masks
    and the ticket are those of the fit without it, up to rounding.

    Worth it for models whose steps take their time, say convolutions: a mask costs what the dense model costs, while
    the small model costs what is left. Each pruning traces the small model anew (seconds for a deep network), so prune
    in few steps. Between the steps of an epoch the masked model lags behind: its weights are up to date at the end of
    each epoch, and whenever tfprune reads it. It holds all of its memory on; `tfprune.shrink` gives the small model
    after the fit.

    Not the same as without it: the random numbers of dropout between pruned layers, which have the small shapes; and
    optimizers that look at whole weights (Adafactor, Muon), which then leave out what is pruned. The loss that a
    regularizer adds is that of the small model, which holds no pruned weights; the callbacks that prune set these to
    zero, masks that you set yourself leave them.

    Raises:
        ValueError: at the start of the fit: a model without masks, or Compaction is not the first of the callbacks, so
            that another one would see weights from before the epoch.

    Example:
        >>> ticket = tfprune.callbacks.LotteryTicket(ratio=0.8, rounds=5)
        >>> masked.fit(train, validation_data=validation, epochs=200,
        ...            callbacks=[tfprune.callbacks.Compaction(), ticket])

    Source: Lym et al. 2019, PruneTrain: fast neural network training by dynamic sparse model reconfiguration.
    """

    _relay = None

    def on_train_begin(self, logs=None):
        """Checks that the fit can work, and takes over its steps."""
        surgery.check_masked(self.model, "Compaction")
        others = company(self)
        if others and others[0] is not self:
            raise ValueError(
                "Compaction must be the first of the callbacks, so that the others find the weights up to date. "
                f"Received: {type(others[0]).__name__} before it. Pass callbacks=[Compaction(), ...]."
            )
        if self._relay is not None:  # an earlier fit that was stopped in the middle
            self._relay.close()
        self._relay = compaction.Relay(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        """Takes the steps over again where another callback had Keras make new functions."""
        self._relay.open()

    def on_epoch_end(self, epoch, logs=None):
        """Brings the masked model up to date for the callbacks that come after."""
        self._relay.settle()

    def on_train_end(self, logs=None):
        """Gives the model its own steps back."""
        self._relay.close()
        self._relay = None
