"""When is a ticket pruned, rewound and stopped inside one `model.fit`?"""

import math
import numbers
import warnings

import keras
import numpy as np

from tfprune.callbacks import backup as backups
from tfprune.callbacks.change import clear, prune
from tfprune.callbacks.company import company
from tfprune.pruning import checkpoint, contract, criteria, masks, rewind, schedules, surgery, ticket_pairs
from tfprune.pruning.ratios import check_count, check_finite
from tfprune.pruning.ticket import Ticket


class LotteryTicket(keras.callbacks.Callback):
    """Finds a lottery ticket inside one `model.fit`: train, prune, rewind, train again.

    The fit starts with the dense model (round 0). When the monitored value has not improved for `patience` epochs, the
    best weights of the round are restored, the model is pruned, weights, BatchNormalization statistics, optimizer and
    learning-rate schedule are rewound, and the next round begins; the last round trains to its own stop. Each of the
    paper's strategies is a pair of `rounds` and `rewind`: one-shot (1, None), re-initialised one-shot (1, "init"),
    randomly re-initialised one-shot (1, "random"), iterative (5, "init"), iterative fine-tuning (5, None).

    Afterwards `history` holds one dict for each round, 0 (dense) to `rounds`: `round`, `ratio` (asked), `epochs`
    (trained), `early_stop_epoch` (the epoch with the best value, from 1), `best` (that value), `masks`,
    `channels_kept`, `channels_total`; `finished` says whether the last round was reached and ended; and `ticket()`
    gives it all as a `tfprune.Ticket`, which can be saved and applied to other models.

    `contract` says what is promised of the ticket, and which of it is enforced: masks are nested, pruned weights stay
    exactly 0, rewound weights, statistics and optimizer are bit-equal to where they go back to. A fit that breaks such
    a promise, say because another callback puts old weights back, stops with a ContractError.

    Args:
        ratio: Share of channels removed after the last round, in [0, 1), or `{layer name: ratio}`.
        rounds: How many times to prune; each round removes the same share of what is left. Default 1. 0 trains the
            dense model only, by the same stopping rule.
        rewind: What the weights become after pruning: "init" (default), the values at the start of the fit; "random",
            fresh random values; None, they stay as trained; "learning_rate", they stay as trained, while optimizer and
            learning-rate schedule start again; or an epoch k: the values after k epochs of round 0.
        criterion: How channels are ranked, see `tfprune.compute_masks`. Default "l1".
        scope: "layer" (default) or "global", see `tfprune.compute_masks`.
        monitor: The logged value that says how good the model is. Default "val_loss". Values whose name speaks of
            accuracy, AUC, precision, recall or F1 should rise, all others fall.
        patience: How many epochs without improvement end a round. Default 3.
        min_delta: The least change that counts as an improvement. Default 0.
        epochs_per_round: The most epochs a round may take. Default None: the epochs of the fit, shared equally.
        seed: Integer for rewind "random" and criterion "random". Default None: drawn anew for each fit.
        ignore, only, round_to: As in `tfprune.compute_masks`.
        backup: Folder for a backup at the end of each epoch. A fit that was killed goes on from it when the same script
            runs again, and ends with the same ticket where the data comes in the same order; a fit that ended removes
            it. Default None: no backup.

    Raises:
        ValueError: at the start of the fit: a model without masks, options that `tfprune.compute_masks` refuses for
            this model, a monitored value that is not logged, an optimizer with use_ema=True, a backup of another
            training, or a callback beside it that cannot work with several rounds (EarlyStopping, ReduceLROnPlateau,
            LearningRateScheduler, BackupAndRestore, ModelCheckpoint(save_best_only=True)).
        tfprune.pruning.contract.ContractError: a promise of the ticket was broken.

    Example:
        >>> ticket = tfprune.callbacks.LotteryTicket(ratio=0.8, rounds=5, patience=3, rewind="init")
        >>> masked.fit(train, validation_data=validation, epochs=200, callbacks=[ticket])
        >>> [(row["round"], row["channels_kept"], row["early_stop_epoch"]) for row in ticket.history]

    Source: Frankle & Carbin 2019, The Lottery Ticket Hypothesis; Agrawal, Rajpal & Singhal, What Happens To Uncertainty
    In Neural Networks Upon Pruning? (Algorithm 1). "learning_rate": Renda, Frankle & Carbin 2020, Comparing Rewinding
    and Fine-tuning in Neural Network Pruning.
    """

    def __init__(
        self,
        ratio,
        rounds=1,
        rewind="init",
        criterion="l1",
        scope="layer",
        monitor="val_loss",
        patience=3,
        min_delta=0.0,
        epochs_per_round=None,
        seed=None,
        ignore=None,
        only=None,
        round_to=1,
        backup=None,
    ):
        super().__init__()
        for share in ratio.values() if isinstance(ratio, dict) else [ratio]:
            masks.check_ratio(share)
        criteria.get(criterion)
        self.ratio, self.rounds, self.rewind = ratio, check_count("rounds", rounds, 0), _check_rewind(rewind)
        self.monitor, self.patience = monitor, check_count("patience", patience, 0)
        self.min_delta = abs(check_finite("min_delta", min_delta))
        self.epochs_per_round = None if epochs_per_round is None else check_count("epochs_per_round", epochs_per_round)
        if isinstance(rewind, int) and epochs_per_round and rewind > epochs_per_round:
            raise ValueError(
                f"rewind={rewind} asks for the weights after {rewind} epochs, but a round has at most "
                f"epochs_per_round={epochs_per_round}."
            )
        self.seed, self.backup = seed, backup
        self.selection = {
            "criterion": criterion, "scope": scope, "ignore": ignore, "only": only, "round_to": round_to,
        }  # fmt: skip
        self.history, self.finished = [], False
        self.contract = contract.terms(rewind)

    def on_train_begin(self, logs=None):
        """Checks that the fit can work, and remembers where it starts."""
        surgery.check_masked(self.model, "LotteryTicket")
        _refuse_company(self)
        self.begin(self.model)
        self._number, self._limit = 0, self.epochs_per_round
        self._round = self.new_round()
        if self.backup is not None:
            self._go_on()

    def _go_on(self):
        """Takes the fit up where its backup was written, if there is one."""
        self._kept, self._logs = checkpoint.Backup(self.backup, backups.identity(self)), {}
        found = backups.resume(self, self._kept)
        if found is not None:
            self.model._initial_epoch, self._logs = found  # where Keras' own BackupAndRestore says it

    def _keep(self, epoch, logs):
        for name, value in (logs or {}).items():
            self._logs.setdefault(name, []).append(float(value))
        if not self.finished:
            backups.keep(self, self._kept, epoch, self._logs)

    def on_epoch_begin(self, epoch, logs=None):
        """Shares the epochs of the fit among the rounds where `epochs_per_round` is not given."""
        if self.backup is not None and self.model._initial_epoch:
            self._tell_history(epoch)
        if self._limit is None:
            self._limit = share_epochs(self.params["epochs"] - epoch, self.rounds)

    def _tell_history(self, epoch):
        """Gives Keras' History the epochs before the fit was killed, and lets the next fit start at its beginning."""
        self.model.history.history.update({name: list(values) for name, values in self._logs.items()})
        self.model.history.epoch = list(range(epoch))
        self.model._initial_epoch = None

    def on_train_batch_begin(self, batch, logs=None):
        """Looks between two steps at what is pruned: another callback might put it right by the end of the epoch."""
        if batch:
            self._watch.look_once("after the first step")

    def on_epoch_end(self, epoch, logs=None):
        """Keeps the best weights; ends the round when they have not improved for a while."""
        if self.finished:
            return
        self._watch.check(f"at the end of epoch {epoch + 1}")
        self._round.see(self.model, logs)
        if self._number == 0 and self._round.epochs == self.rewind:
            self.remember(self.model)
        if self._round.is_over(self._limit):
            self._end_round()
        if self.backup is not None:
            self._keep(epoch, logs)

    def on_train_end(self, logs=None):
        """Ends a round that the fit cut short, and says so where the ticket is not finished."""
        if self.backup is not None:
            self._kept.remove()
        self._watch.check("at the end of the fit")
        if self.finished:
            return
        if self._round.epochs:
            self._round.restore()
            self.record(self._number, self._round, masks.get_masks(self.model))
        self.finished = self._number == self.rounds
        if not self.finished:
            warnings.warn(
                f"The fit ended in round {self._number} of {self.rounds}, before LotteryTicket was finished: the model "
                f"is pruned to {self.asked(self._number)} instead of {self.ratio}. Give fit more epochs, or set "
                "epochs_per_round.",
                stacklevel=2,
            )

    def ticket(self):
        """What the fit found, as a `tfprune.Ticket` with the model's weights as they are now.

        Raises:
            ValueError: there was no fit yet.

        Example:
            >>> callback.ticket().save("net.ticket")
        """
        if self.model is None:
            raise ValueError("LotteryTicket has no ticket yet. Pass it to fit(callbacks=[...]) first.")
        known = {"init": self._init}
        if self.rewind == "init" or isinstance(self.rewind, int):
            known["rewind"] = self._start
        seeds = {"seed": self.seed, **self._drawn}
        return Ticket.of(self.model, self.history, known, seeds, self._started())

    def _started(self):
        """What the last round began with, in the words of `Ticket.started`."""
        if self._drawn["rewind"]:
            return {"weights": "random", "seed": self._drawn["rewind"][-1], "fan": "dense"}
        if self.rewind in (None, "learning_rate") and self._drawn["criterion"]:
            return {"weights": "trained"}
        return {"weights": "init"} if self._start is self._init else {"weights": "rewind", "epoch": self.rewind}

    def begin(self, masked):
        """Starts afresh on a model, which is as it will be rewound to."""
        _refuse_averages(masked.optimizer)
        # An option that is wrong fails now rather than after the first round.
        masks.check_options(masked, self.ratio, **self.selection)
        rewind.steady(masked)
        self.history, self.finished = [], False
        self._random, self._drawn = np.random.default_rng(self.seed), {"criterion": [], "rewind": []}
        self.remember(masked)
        self._init = self._start
        self._watch = clear(masked, "in round 0")  # the model may have masks from an earlier pruning

    def remember(self, masked):
        """Takes the model as it is now for what rewinding goes back to."""
        self._start, self._seal = rewind.Snapshot(masked), contract.Seal(masked)

    def watch_again(self):
        """Watches over the masks and zeros that the model has now."""
        self._watch = clear(self.model, f"in round {self._number}")

    def new_round(self):
        """The early-stopping state of a round that begins."""
        return Round(self.monitor, self.patience, self.min_delta, keep_optimizer=self.rewind is None)

    def asked(self, number):
        """The ratio asked for in a round."""
        return schedules.ratio_of_round(self.ratio, number, self.rounds)

    def record(self, number, finished_round, kept):
        """Writes a round's line of the history."""
        self._watch.check("at its end")
        self.history.append(
            {
                "round": number,
                "ratio": self.asked(number),
                "epochs": finished_round.epochs,
                "early_stop_epoch": finished_round.best_epoch,
                "best": finished_round.best,
                **ticket_pairs.tally(kept),
            }
        )

    def prune_and_rewind(self, masked, number):
        """Prunes a trained model for a round, then takes its weights back to where the strategy says."""
        when = f"in round {number}"
        start, check_way_back = self._way_back(masked, f"The values to rewind to {when}")
        self._prune(masked, number, when)
        if self.rewind is not None:
            start.restore()
            check_way_back()
        if self.rewind == "random":
            rewind.randomise(masked, self._draw("rewind"))
        self._watch = clear(masked, when)
        contract.check_kept(masked, start, when, fresh=self.rewind == "random")

    def _prune(self, masked, number, when):
        prune(masked, self.asked(number), when, seed=self._draw("criterion"), **self.selection)

    def _way_back(self, masked, what):
        """`(snapshot, check)`: what a trained model goes back to, and a function that checks that it went there."""
        if self.rewind is None:
            return rewind.Snapshot(masked), None
        if self.rewind != "learning_rate":
            return self._start, lambda: self._seal.check(what)
        trained = contract.Seal(masked, optimizer=False)
        free = [*rewind.weights_of(masked), *(slot for _, slot in rewind.slots(masked.optimizer))]
        return rewind.restarted(masked, self._start), lambda: (trained.check(what), self._seal.check(what, but=free))

    def _end_round(self):
        self._round.restore()
        self.record(self._number, self._round, masks.get_masks(self.model))
        if self._number == self.rounds:
            self.finished = True
            self.model.stop_training = True
            return
        self._warn_of_short_round()
        self._number += 1
        self.prune_and_rewind(self.model, self._number)
        self._round = self.new_round()

    def _warn_of_short_round(self):
        if self._number == 0 and isinstance(self.rewind, int) and self._round.epochs < self.rewind:
            warnings.warn(
                f"rewind={self.rewind}, but the dense model stopped after {self._round.epochs} epochs: the weights go "
                "back to the start of the fit instead.",
                stacklevel=2,
            )

    def _draw(self, kind):
        drawn = int(self._random.integers(2**31))
        self._drawn[kind].append(drawn)
        return drawn


class Round:
    """The early-stopping rule: the best epoch so far, a copy of its weights, and whether it is time to stop.

    Args:
        monitor: Name of the logged value.
        patience: How many epochs without improvement end the round.
        min_delta: The least change that counts as an improvement.
        keep_optimizer: Whether the optimizer's state belongs to the best weights too.
    """

    def __init__(self, monitor, patience, min_delta, keep_optimizer):
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.keep_optimizer = keep_optimizer
        self.epochs, self.best_epoch, self.best, self._weights = 0, 0, None, None

    def see(self, model, logs):
        """Takes note of an epoch that has just ended."""
        self.epochs += 1
        value = (logs or {}).get(self.monitor)
        if value is None:
            raise ValueError(
                f"LotteryTicket monitors '{self.monitor}', but the epoch logged only {sorted(logs or {})}. Pass "
                "validation_data to fit (with validation_freq=1), or monitor one of these."
            )
        # A diverged epoch is never the best one; any epoch is better than none.
        if not math.isnan(value) and (self.best is None or self._gain(value) > self.min_delta):
            self.best, self.best_epoch = float(value), self.epochs
            self._take(model)

    def is_over(self, limit):
        """Whether the round has not improved for `patience` epochs, or has had its `limit` of them."""
        return self.epochs - self.best_epoch >= max(self.patience, 1) or self.epochs >= limit

    def restore(self):
        """Gives the model the weights of its best epoch back."""
        if self._weights is not None:
            self._weights.restore()
            self._seal.check(f"The best weights of the round (epoch {self.best_epoch})")

    def best_values(self):
        """The values of the best epoch, to `resume` from; an empty list where there is none yet."""
        return [value for _, value in self._weights.values] if self._weights else []

    def resume(self, model, epochs, best_epoch, best, values):
        """Goes on where a round of this model once was; the model stays as it is.

        Args:
            model: The model.
            epochs, best_epoch, best: What the round knew.
            values: Its `best_values`.
        """
        self.epochs, self.best_epoch, self.best = epochs, best_epoch, best
        if values:
            now = rewind.Snapshot(model)
            self._take(model)
            for (variable, _), value in zip(self._weights.values, values, strict=True):
                variable.assign(value)
            self._take(model)
            now.restore()

    def _take(self, model):
        self._weights = rewind.Snapshot(model, optimizer=self.keep_optimizer)
        self._seal = contract.Seal(model, optimizer=self.keep_optimizer)

    def _gain(self, value):
        rises = any(word in self.monitor.lower() for word in ("acc", "auc", "precision", "recall", "f1"))
        return value - self.best if rises else self.best - value


def share_epochs(epochs, rounds):
    """The epochs that each of `rounds` + 1 trainings may take when `epochs` are shared equally."""
    if epochs < rounds + 1:
        raise ValueError(
            f"LotteryTicket(rounds={rounds}) trains {rounds + 1} times, so it needs at least {rounds + 1} epochs. "
            f"Received: epochs={epochs}."
        )
    return epochs // (rounds + 1)


def _check_rewind(value):
    is_epoch = isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= 1
    if value in ("init", "random", "learning_rate", None) or is_epoch:
        return value
    raise ValueError(
        f"rewind must be 'init', 'random', 'learning_rate', None or an epoch number from 1. Received: rewind={value!r}."
    )


_REASONS = {
    keras.callbacks.EarlyStopping: "its best weights and its patience span all rounds, and it would restore old masks. "
    "Use LotteryTicket(patience=..., min_delta=...)",
    keras.callbacks.ReduceLROnPlateau: "it does not notice that a new round begins. Use a "
    "keras.optimizers.schedules.LearningRateSchedule, which is rewound",
    keras.callbacks.LearningRateScheduler: "it counts the epochs of all rounds together. Use a "
    "keras.optimizers.schedules.LearningRateSchedule, which is rewound",
    keras.callbacks.BackupAndRestore: "it does not know of rounds and masks. Use LotteryTicket(backup=FOLDER)",
}


def _refuse_company(callback):
    for other in company(callback):
        reason = next((reason for cls, reason in _REASONS.items() if isinstance(other, cls)), None)
        if isinstance(other, keras.callbacks.ModelCheckpoint) and other.save_best_only:
            reason = (
                "its best model spans all rounds, the dense one included. Save after fit: the best weights are restored"
            )
        if reason:
            raise ValueError(f"{type(other).__name__} cannot work beside {type(callback).__name__}: {reason}.")


def _refuse_averages(optimizer):
    optimizers = [optimizer, getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", [])]
    if any(getattr(one, "use_ema", False) for one in optimizers):
        raise ValueError(
            "LotteryTicket ends with the weights of the best epoch, but Keras replaces them by an average over all "
            "epochs when fit ends. Received: an optimizer with use_ema=True. Compile the model without it."
        )
