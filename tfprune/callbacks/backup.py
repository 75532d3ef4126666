"""What must LotteryTicket keep at the end of an epoch, so that another process goes on from there?"""

import numpy as np

from tfprune.pruning import checkpoint, masks, selection

_ROUND = ("epochs", "best_epoch", "best")


def identity(ticket):
    """What a backup must agree with: the settings of the callback, and the shapes of its model."""
    names = ("ratio", "rounds", "rewind", "monitor", "patience", "min_delta", "epochs_per_round", "seed")
    chosen = {name: _plain(value) for name, value in ticket.selection.items()}
    return {**{name: getattr(ticket, name) for name in names}, **chosen, **checkpoint.shape_of(ticket.model)}


def _plain(value):
    """A criterion that is a function goes by its name."""
    return getattr(value, "__name__", type(value).__name__) if callable(value) else value


def keep(ticket, backup, epoch, logs):
    """Writes all that the callback and its model know at the end of an epoch.

    Args:
        ticket: A `LotteryTicket`, which has done what it does at the end of this epoch.
        backup: A `checkpoint.Backup`.
        epoch: The epoch that has just ended, from 0.
        logs: `{name: [a value an epoch]}` of all epochs so far.
    """
    about = {
        "epoch": epoch + 1,
        "number": ticket._number,
        "limit": ticket._limit,
        "round": {name: getattr(ticket._round, name) for name in _ROUND},
        "random": ticket._random.bit_generator.state,
        "drawn": ticket._drawn,
        "rewinds_to_init": ticket._start is ticket._init,
        "history": [{name: value for name, value in row.items() if name != "masks"} for row in ticket.history],
        "logs": logs,
    }
    arrays = checkpoint.read(ticket.model)
    arrays |= checkpoint.numbered("init", [value for _, value in ticket._init.values])
    if ticket._start is not ticket._init:
        arrays |= checkpoint.numbered("start", [value for _, value in ticket._start.values])
    arrays |= checkpoint.numbered("best", ticket._round.best_values())
    for index, row in enumerate(ticket.history):
        arrays |= {f"history/{index}/{name}": mask for name, mask in row["masks"].items()}
    chosen = selection.recall(ticket.model, masks.get_masks(ticket.model))
    if chosen is not None:
        about["chosen"] = {"ratio": chosen.ratio, "criterion": chosen.criterion, "seed": chosen.seed}
        arrays |= {f"score/{name}": scores for name, scores in chosen.scores.items()}
    backup.save(about, arrays)


def resume(ticket, backup):
    """Takes callback and model to where a backup was written; gives `(epochs done, logs)`, None where there is none.

    Args:
        ticket: A `LotteryTicket` that has just begun on a model like the one of the backup.
        backup: A `checkpoint.Backup`.

    Raises:
        ValueError: the backup is of another training.
    """
    found = backup.load()
    if found is None:
        return None
    about, arrays = found
    model = ticket.model
    _write_start(ticket, about, arrays)
    ticket._number, ticket._limit, ticket._drawn = about["number"], about["limit"], about["drawn"]
    ticket._random.bit_generator.state = about["random"]
    ticket.history = [
        {**row, "masks": _under(arrays, f"history/{index}/")} for index, row in enumerate(about["history"])
    ]
    checkpoint.write(model, arrays)
    if "chosen" in about:
        kept = masks.get_masks(model)
        selection.remember(model, selection.Selection(masks=kept, scores=_under(arrays, "score/"), **about["chosen"]))
    ticket.watch_again()
    ticket._round = ticket.new_round()
    ticket._round.resume(model, *(about["round"][name] for name in _ROUND), checkpoint.listed("best", arrays))
    return about["epoch"], about["logs"]


def _write_start(ticket, about, arrays):
    """Has the callback remember the values of the start of the fit, and those to rewind to, as they were."""
    for name in ("init", *([] if about["rewinds_to_init"] else ["start"])):
        for (variable, _), value in zip(ticket._start.values, checkpoint.listed(name, arrays), strict=True):
            variable.assign(value)
        ticket.remember(ticket.model)
        if name == "init":
            ticket._init = ticket._start


def _under(arrays, prefix):
    return {name.removeprefix(prefix): np.array(array) for name, array in arrays.items() if name.startswith(prefix)}
