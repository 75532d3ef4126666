"""How does a trial go from its initial weights to its ticket, training nothing that is kept already?

`LotteryTicket` knows how to prune and rewind; here its rounds are trained one by one, each by whichever trainer suits,
and what is finished is put on a shelf. Round 0, the dense network, is the same for all trials of one `dense_key`.
"""

import dataclasses

from tfprune.pruning import criteria, masks
from tfprune.study import controls, kept, measure, state

LOOKED_AT = 1024  # examples that rank channels, where the criterion looks at data


@dataclasses.dataclass(frozen=True)
class Dense:
    """The dense network of a trial after its training.

    Args:
        epochs, best_epoch, best, loss, val_loss: As in `fit.Trained`.
        values: `state.read` of the model at its best epoch.
        trainer: Name of the trainer.
    """

    epochs: int
    best_epoch: int
    best: float
    loss: tuple
    val_loss: tuple
    values: list
    trainer: str


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that has to be done next; the model holds what it starts from.

    Args:
        number: Number of the round, 0 for the dense network.
        recipe: The `Recipe` of this round.
        options: What else `train_round` is told.
    """

    number: int
    recipe: object
    options: dict


def carry_out(steps, setup):
    """Runs `dense_steps` or `ticket_steps` to their end with the trial's own trainer; returns what they return.

    Args:
        steps: Generator of `Training`, which is sent how each went.
        setup: The trial's `work.Setup`.
    """
    trained = None
    while True:
        try:
            wanted = steps.send(trained)
        except StopIteration as end:
            return end.value
        fixed = setup.masked, setup.data, wanted.recipe, setup.trial.seed, wanted.number
        trained = setup.trainer.train_round(*fixed, **wanted.options)


def train_dense(setup, shelf, marks=()):
    """Returns the trained dense network of a trial, from the shelf where it is kept; the model is as before.

    Args:
        setup: The trial's `work.Setup`; its masked model holds the initial weights.
        shelf: The `kept.Shelf` of the dense network.
        marks: Numbers of epochs after which its state is wanted, for `state_after`.

    Raises:
        FloatingPointError: A loss became NaN or infinite.
    """
    return carry_out(dense_steps(setup, shelf, marks), setup)


def dense_steps(setup, shelf, marks=()):
    """As `train_dense`, but yields each `Training` instead of doing it."""
    start = state.read(setup.masked)
    dense = _known(shelf, setup.trial.dense_key)
    if dense is None:
        dense = yield from _train(setup, shelf, marks)
    for epoch in marks:
        if epoch <= dense.epochs and shelf.load(_mark(setup.trial.dense_key, epoch)) is None:
            state.write(setup.masked, start)
            recipe = dataclasses.replace(setup.trial.recipe, epochs=epoch)
            yield _dense_training(setup, recipe, _savers(setup, shelf, [epoch]), early_stop=False)
    state.write(setup.masked, start)
    return dense


def state_after(shelf, dense_key, epoch):
    """Returns the dense network's state after an epoch, or None.

    Args:
        shelf: The `kept.Shelf` of the dense network.
        dense_key: Its key.
        epoch: An epoch that `train_dense` was asked to mark.
    """
    found = shelf.load(_mark(dense_key, epoch))
    return found and kept.listed("state", found[1])


def train_rounds(setup, dense, dense_shelf, shelf, glance):
    """Prunes, rewinds and trains round after round; the model then holds the ticket.

    Args:
        setup: The trial's `work.Setup`; its masked model holds the initial weights.
        dense: The trained `Dense`.
        dense_shelf: Its `kept.Shelf`.
        shelf: The `kept.Shelf` of the trial.
        glance: Function `() -> dict` that looks at the model between two rounds.

    Returns:
        `(ticket, glances)`: the `LotteryTicket`, and what was seen after each round from 1 to the last but one.
    """
    return carry_out(ticket_steps(setup, dense, dense_shelf, shelf, glance), setup)


def ticket_steps(setup, dense, dense_shelf, shelf, glance):
    """As `train_rounds`, but yields each `Training` instead of doing it."""
    trial, masked = setup.trial, setup.masked
    looked_at = _looked_at(setup.data) if criteria.needs_data(trial.criterion) else None
    ticket = controls.StudyTicket(trial, setup.only, looked_at)
    ticket.set_model(masked)
    ticket.begin(masked)
    if isinstance(ticket.rewind, int):
        state.write(masked, _state_to_rewind_to(ticket.rewind, dense, dense_shelf, trial))
        ticket.remember(masked)
    state.write(masked, dense.values)
    ticket.record(0, dense, masks.get_masks(masked))
    glances = _go_on(setup, ticket, shelf)
    for number in range(len(ticket.history), ticket.rounds + 1):
        ticket.prune_and_rewind(masked, number)
        trained = yield _training(setup, ticket, dense, shelf, number)
        ticket.record(number, trained, masks.get_masks(masked))
        if number < ticket.rounds:
            glances.append(glance())
        _keep_round(setup, ticket, shelf, glances)
    ticket.finished = True
    return ticket, glances


def _looked_at(data):
    """What criteria that need data look at: training examples from all over the set, few enough to take no time."""
    return measure.evenly(data.train, LOOKED_AT)


def forget(setup, shelf):
    """Removes what was kept of a trial's rounds: its row is finished."""
    key = setup.trial.key
    for name in (f"{key}.npz", *(_progress(key, number) for number in range(1, 1 + setup.trial.num_rounds))):
        shelf.remove(name)


# The dense network --------------------------------------------------------------------------------------------------


def _known(shelf, key):
    found = shelf.load(f"{key}.npz")
    if found is None:
        return None
    about, arrays = found
    return Dense(**about, values=kept.listed("best", arrays))


def _train(setup, shelf, marks):
    key, start = setup.trial.dense_key, kept.numbered("start", state.read(setup.masked))
    checkpoint = shelf.checkpoint(_progress(key, 0))
    trained = yield _dense_training(setup, setup.trial.recipe, _savers(setup, shelf, marks), checkpoint=checkpoint)
    about = {**dataclasses.asdict(trained), "trainer": setup.trainer.name}
    values = state.read(setup.masked)
    shelf.save(f"{key}.npz", about, {**start, **kept.numbered("best", values)})
    checkpoint.remove()
    return Dense(**about, values=values)


def _dense_training(setup, recipe, after_epoch, **options):
    state.reseed(setup.masked, setup.trial.seed, 0)
    # the optimizer's state at the best epoch belongs to what is kept: strategies that do not rewind go on from it
    options |= {"keep_optimizer": True, "after_epoch": after_epoch}
    return Training(0, recipe, options)


def _savers(setup, shelf, marks):
    """`{epoch: function}` that put the model's state after an epoch on the shelf."""

    def saver(epoch):
        name = _mark(setup.trial.dense_key, epoch)
        return lambda: shelf.save(name, {"epoch": epoch}, kept.numbered("state", state.read(setup.masked)))

    return {epoch: saver(epoch) for epoch in marks}


def _mark(key, epoch):
    return f"{key}-epoch-{epoch}.npz"


def _progress(key, number):
    return f"{key}-round-{number}.progress.npz"


# Rounds of a ticket -------------------------------------------------------------------------------------------------


def _state_to_rewind_to(epoch, dense, shelf, trial):
    if epoch > dense.epochs:
        raise ValueError(
            f"Strategy {trial.strategy!r} rewinds to epoch {epoch}, but the dense network stopped after "
            f"{dense.epochs} epochs. Choose an earlier epoch, or a recipe that trains longer."
        )
    return state_after(shelf, trial.dense_key, epoch)


def _training(setup, ticket, dense, shelf, number):
    trial, masked = setup.trial, setup.masked
    recipe = controls.budget(ticket.strategy, trial.recipe, dense.epochs, masked, setup.dense_cost["multiply_adds"])
    state.reseed(masked, trial.seed, number)
    options = {
        "keep_optimizer": ticket.rewind is None,
        "early_stop": ticket.strategy.budget == "patience",
        "checkpoint": shelf.checkpoint(_progress(trial.key, number)),
    }
    return Training(number, recipe, options)


def _keep_round(setup, ticket, shelf, glances):
    """Puts a finished round on the shelf; the model's masks are in the history, as lists."""
    history = [{**row, "masks": {name: mask.tolist() for name, mask in row["masks"].items()}} for row in ticket.history]
    values = kept.numbered("best", state.read(setup.masked))
    shelf.save(f"{setup.trial.key}.npz", {"history": history, "glances": glances}, values)
    shelf.remove(_progress(setup.trial.key, len(history) - 1))


def _go_on(setup, ticket, shelf):
    """Takes up the last round that is kept, if one is; returns what was seen after the rounds so far."""
    found = shelf.load(f"{setup.trial.key}.npz")
    if found is None:
        return []
    about, arrays = found
    state.write(setup.masked, kept.listed("best", arrays))
    ticket.go_on(setup.masked, [{**row, "masks": _as_arrays(row["masks"])} for row in about["history"]])
    return about["glances"]


def _as_arrays(lists):
    import numpy as np

    return {name: np.array(mask, bool) for name, mask in lists.items()}
