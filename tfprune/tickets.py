"""How is a ticket found in one call, without a callback?"""

import inspect
import math
from dataclasses import replace

import keras

from tfprune.callbacks import LotteryTicket, share_epochs
from tfprune.pruning import compaction, masks, strategies, surgery


def find_ticket(model, data, strategy="one_shot", ratio=0.5, shrink_between_rounds=False, **options):
    """Trains, prunes and trains again, and returns the small model: `LotteryTicket` as a function.

    Args:
        model: A compiled Keras model. It is left as it is.
        data: What `model.fit` trains on: a `tf.data.Dataset` or `(x, y)`; or a function `fit(model, callbacks)` that
            trains the model it is given, with these callbacks, for as long as they let it.
        strategy: "one_shot" (default), "one_shot_reinit", "one_shot_random", "iterative", "iterative_finetune", or a
            `tfprune.pruning.strategies.Strategy`.
        ratio: Share of channels removed in all, in [0, 1), or `{layer name: ratio}`. Default 0.5.
        shrink_between_rounds: Whether to shrink the model physically after each pruning. The result is the same up to
            rounding; later rounds cost less, but TensorFlow traces the smaller model anew. Worth it for large
            convolutional models. Default False.
        **options: `epochs_per_round`, `patience`, `criterion`, `scope`, `monitor`, `seed` ... go to `LotteryTicket`,
            all others (`validation_data`, `epochs`, `batch_size`, `verbose` ...) to `fit`.

    Returns:
        A `tfprune.Ticket`: `ticket.model` is the trained, small model, `ticket.masked` the full-size one with masks.

    Raises:
        ValueError: the model is not compiled, or an argument of LotteryTicket is wrong.

    Example:
        >>> ticket = tfprune.find_ticket(model, (x, y), "iterative", ratio=0.8, epochs=100, validation_data=(xv, yv))
        >>> ticket.model.save("small.keras")
        >>> ticket.save("net.ticket")
    """
    masked = surgery.wrap(model)
    if not getattr(model, "compiled", False):
        raise ValueError(f"find_ticket trains the model. Call compile on '{model.name}' first.")
    chosen = strategies.get(strategy)
    if chosen.ranked_on == "init":
        raise ValueError(
            f"Strategy '{chosen.name}' prunes before any training: no ticket is searched. Use tfprune.compute_masks "
            "and tfprune.set_masks on the untrained model, then fit; or run it in a tfprune.study.Study."
        )
    if chosen.channels != "criterion" or chosen.budget != "patience":
        raise ValueError(
            f"Strategy '{chosen.name}' is a control: what it does depends on the ticket that it is held against. "
            "Run it in a tfprune.study.Study, or choose another strategy."
        )
    own = {name: options.pop(name) for name in list(options) if name in _TICKET_ARGUMENTS}
    callback = LotteryTicket(ratio, rounds=chosen.rounds, rewind="init" if chosen.rewind == 0 else chosen.rewind, **own)
    fit = _fit_function(data, options, callback)
    if shrink_between_rounds and callback.backup is not None:
        raise ValueError("backup= is for one fit over all rounds. Received: shrink_between_rounds=True, too.")
    if shrink_between_rounds:
        small = _find_shrinking(masked, fit, callback)
    else:
        fit(masked, [callback])
        small = surgery.shrink(masked)
    return replace(callback.ticket(), model=small, masked=masked)


_TICKET_ARGUMENTS = set(inspect.signature(LotteryTicket.__init__).parameters) - {"self", "ratio", "rounds", "rewind"}


def _fit_function(data, options, ticket):
    if callable(data) and not hasattr(data, "element_spec"):
        if options:
            raise TypeError(f"A fit function takes its own arguments. Received for fit: {sorted(options)}.")
        return lambda model, callbacks: data(model, callbacks)
    if ticket.epochs_per_round is None and "epochs" in options:
        ticket.epochs_per_round = share_epochs(options["epochs"], ticket.rounds)
    if ticket.epochs_per_round is not None:
        options["epochs"] = ticket.epochs_per_round * (ticket.rounds + 1)
    x, y = data if isinstance(data, list | tuple) else (data, None)
    others = list(options.pop("callbacks", None) or [])
    return lambda model, callbacks: model.fit(x, y, callbacks=[*others, *callbacks], **options)


def _find_shrinking(masked, fit, ticket):
    """The rounds of `LotteryTicket`, each in a fit of its own on a physically smaller model."""
    ticket.set_model(masked)
    ticket.begin(masked)
    for number in range(ticket.rounds + 1):
        small, pairs = surgery.cut(masked)
        state = compaction.optimizer_pairs(masked, small, pairs)
        compaction.carry_optimizer(state, back=False)
        one = _OneRound(ticket, number, masked, pairs, state)
        fit(small, [one])
        one.carry_back()
        ticket.record(number, one.round, masks.get_masks(masked))
        if number < ticket.rounds:
            ticket.prune_and_rewind(masked, number + 1)
    ticket.finished = True
    return small


class _OneRound(keras.callbacks.Callback):
    """Trains a shrunk model until a round of `ticket` is over, and carries what it learnt back to the masked model."""

    def __init__(self, ticket, number, masked, pairs, state):
        super().__init__()
        self.ticket, self.number, self.masked, self.pairs, self.state = ticket, number, masked, pairs, state
        self.round = ticket.new_round()

    def on_epoch_end(self, epoch, logs=None):
        self.round.see(self.model, logs)
        if self.number == 0 and self.round.epochs == self.ticket.rewind:
            self.carry_back()
            self.ticket.remember(self.masked)
        self.model.stop_training = self.round.is_over(self.ticket.epochs_per_round or math.inf)

    def on_train_end(self, logs=None):
        self.round.restore()

    def carry_back(self):
        surgery.expand(self.pairs)
        compaction.carry_optimizer(self.state, back=True)
