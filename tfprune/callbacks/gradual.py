"""When is a model pruned while it trains?"""

import keras

from tfprune.callbacks.change import clear, prune
from tfprune.pruning import criteria, masks, rewind, schedules, surgery


class GradualPruning(keras.callbacks.Callback):
    """Prunes while the model trains, as a schedule says.

    Args:
        schedule: Callable `step -> (due, ratio)`, for example TensorFlow Model Optimization's `PolynomialDecay` or
            `ConstantSparsity`, taken as it is. The ratio never falls, whatever the schedule says.
        criterion: How channels are ranked, see `tfprune.compute_masks`. Default "l1".
        scope: "layer" (default) or "global", see `tfprune.compute_masks`.
        ignore, only, round_to, seed: As in `tfprune.compute_masks`.

    Raises:
        ValueError: at the start of the fit: a model without masks, or a schedule that gives no `(due, ratio)`.

    Example:
        >>> from tensorflow_model_optimization.sparsity.keras import PolynomialDecay
        >>> schedule = PolynomialDecay(initial_sparsity=0, final_sparsity=0.8, begin_step=0, end_step=1000)
        >>> masked.fit(train, epochs=10, callbacks=[tfprune.callbacks.GradualPruning(schedule)])

    Source: Zhu & Gupta 2017, To prune, or not to prune.
    """

    def __init__(self, schedule, criterion="l1", scope="layer", ignore=None, only=None, round_to=1, seed=None):
        super().__init__()
        if not callable(schedule):
            raise TypeError(f"schedule must be a callable step -> (due, ratio). Received: {schedule!r}.")
        criteria.get(criterion)
        self.schedule = schedule
        self.selection = {
            "criterion": criterion, "scope": scope, "ignore": ignore, "only": only, "round_to": round_to, "seed": seed,
        }  # fmt: skip
        self.history = []

    def on_train_begin(self, logs=None):
        """Checks the model and the schedule."""
        surgery.check_masked(self.model, "GradualPruning")
        schedules.read(self.schedule, 0)
        rewind.steady(self.model)
        self.history, self._ratio = [], 0.0
        self._watch = clear(self.model, "before the first pruning")  # it may have masks from an earlier one
        self._step = int(self.model.optimizer.iterations)

    def on_train_batch_end(self, batch, logs=None):
        """Prunes where the schedule was due at one of the steps since the last call."""
        now = int(self.model.optimizer.iterations)
        answers = [schedules.read(self.schedule, step) for step in range(self._step, now)]
        self._step = now
        due = [ratio for is_due, ratio in answers if is_due and ratio > self._ratio]
        if due:
            self._ratio = max(due)
            prune(self.model, self._ratio, f"at step {now}", **self.selection)
            self._watch = clear(self.model, f"since step {now}")
            self.history.append({"step": now, "ratio": self._ratio, "masks": masks.get_masks(self.model)})

    def on_epoch_end(self, epoch, logs=None):
        """Looks whether what is pruned stayed so."""
        self._watch.check(f"at the end of epoch {epoch + 1}")
