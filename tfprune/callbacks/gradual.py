"""When is a model pruned while it trains?"""

import keras

from tfprune.callbacks.change import clear, prune, steps_done
from tfprune.pruning import criteria, masks, regrowth, rewind, schedules, surgery
from tfprune.pruning.ratios import check_count


class GradualPruning(keras.callbacks.Callback):
    """Prunes while the model trains, as a schedule says.

    Args:
        schedule: A schedule of `tfprune.pruning.schedules` (Constant, Polynomial, Cubic, Exponential, OneCycle), one of
            TensorFlow Model Optimization (`PolynomialDecay`, `ConstantSparsity`), taken as it is, or any callable
            `step -> (due, ratio)`. The ratio never falls, whatever the schedule says.
        criterion: How channels are ranked, see `tfprune.compute_masks`. Default "l1".
        scope: "layer" (default) or "global", see `tfprune.compute_masks`.
        ignore, only, round_to, seed: As in `tfprune.compute_masks`.
        regrow_until: Training step up to which channels are chosen anew each time that the schedule is due: one that
            went comes back, with the weights that it had, where the criterion ranks it above one that stayed. Default
            None: what is pruned stays pruned.

    Raises:
        ValueError: at the start of the fit: a model without masks, a schedule that gives no `(due, ratio)`, or options
            that `tfprune.compute_masks` refuses for this model.

    Example:
        >>> schedule = tfprune.pruning.schedules.Cubic(0.8, end=1000)
        >>> masked.fit(train, epochs=10, callbacks=[tfprune.callbacks.GradualPruning(schedule)])

    Source: Zhu & Gupta 2017, To prune, or not to prune; He et al. 2018, Soft Filter Pruning (growing back).
    """

    def __init__(
        self,
        schedule,
        criterion="l1",
        scope="layer",
        ignore=None,
        only=None,
        round_to=1,
        seed=None,
        regrow_until=None,
    ):
        super().__init__()
        if not callable(schedule):
            raise TypeError(f"schedule must be a callable step -> (due, ratio). Received: {schedule!r}.")
        criteria.get(criterion)
        self.schedule = schedule
        self.regrow_until = -1 if regrow_until is None else check_count("regrow_until", regrow_until, 0)
        self.selection = {
            "criterion": criterion, "scope": scope, "ignore": ignore, "only": only, "round_to": round_to, "seed": seed,
        }  # fmt: skip
        self.history = []

    def on_train_begin(self, logs=None):
        """Checks the model, the schedule and the options."""
        surgery.check_masked(self.model, "GradualPruning")
        schedules.read(self.schedule, 0)
        # An option that is wrong fails now rather than when the schedule is first due.
        masks.check_options(self.model, 0.0, **self.selection)
        rewind.steady(self.model)
        self.history, self._ratio = [], 0.0
        self._watch = clear(self.model, "before the first pruning")  # it may have masks from an earlier one
        self._step = steps_done(self.model)
        self._hidden = regrowth.Hidden(self.model) if self._step <= self.regrow_until else None

    def on_train_batch_end(self, batch, logs=None):
        """Prunes where the schedule was due at one of the steps since the last call."""
        now = steps_done(self.model)
        answers = [schedules.read(self.schedule, step) for step in range(self._step, now)]
        self._step = now
        due = [ratio for is_due, ratio in answers if is_due and (ratio > self._ratio or self._hidden is not None)]
        if due:
            self._ratio = max(self._ratio, *due)
            self._prune(now)
        if now >= self.regrow_until:
            self._hidden = None

    def _prune(self, now):
        if self._hidden is not None:
            self._hidden.bring_back()
        prune(self.model, self._ratio, f"at step {now}", **self.selection)
        if self._hidden is not None:
            self._hidden.remember()
        self._watch = clear(self.model, f"since step {now}")
        self.history.append({"step": now, "ratio": self._ratio, "masks": masks.get_masks(self.model)})

    def on_epoch_end(self, epoch, logs=None):
        """Looks whether what is pruned stayed so."""
        self._watch.check(f"at the end of epoch {epoch + 1}")
