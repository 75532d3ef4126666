"""Into which pieces of work is a study cut, and how is each done in the process it comes to?"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable

from tfprune.study import process, work

TRAINERS = ("auto", "fit", "compiled", "batched")
CHUNK = 100  # trials that are batched in one piece, at most: few enough that a crash costs little


@dataclasses.dataclass(frozen=True)
class Piece:
    """Work that one process does at a time.

    Args:
        kind: "plan" (can they be batched?), "dense" or "ticket".
        trials: The trials it is about.
        batched: Whether they are trained together.
        folder: The study's folder.
        trainer: Name of the trainer.
        devices: Devices that share each batch.
        marks: Epochs of the dense network that strategies rewind to.
        reason: Why the trials cannot be batched; "" where they can, or nobody asked.
        function: What does the work of a trial in place of tfprune's own; None for that.
    """

    kind: str
    trials: tuple
    batched: bool = False
    folder: str = ""
    trainer: str = "auto"
    devices: int = 1
    marks: tuple = ()
    reason: str = ""
    function: Callable | None = None

    @property
    def name(self):
        """What marks it while it runs; no two pieces of a study share it."""
        return f"{self.kind}-{self.trials[0].key}"


def check_trainer(trainer):
    """Returns the trainer's name, or says which there are.

    Raises:
        ValueError: Unknown trainer.
    """
    if trainer not in TRAINERS:
        raise ValueError(f"Unknown trainer. Received: {trainer!r}. Expected one of {', '.join(map(repr, TRAINERS))}.")
    return trainer


def of_function(trials, function):
    """Returns the pieces of a study whose trials a function of the user's runs.

    Args:
        trials: The trials to run.
        function: Function `(trial) -> flat dict`.
    """
    return [Piece("ticket", (trial,), function=function) for trial in trials]


def plans(trials, common):
    """Returns the pieces that find out which trials can be batched: one for each kind of trial.

    Args:
        trials: The trials to run.
        common: Dict of what all pieces of the study have in common: folder, trainer, devices.
    """
    if common["trainer"] not in ("auto", "batched"):
        return []
    return [Piece("plan", tuple(alike), **common) for alike in _by(trials, lambda trial: trial.kind)]


def dense_trainings(trials, reasons, common):
    """Returns the pieces that train what trials share: the dense network of each `dense_key`.

    Args:
        trials: The trials to run.
        reasons: `{key: why the trial cannot be batched}`, None where it can; those that are missing are not, either.
        common: As for `plans`.
    """
    pieces, together = [], []
    for alike in _by(trials, lambda trial: trial.dense_key):
        marks = sorted({epoch for trial in alike for epoch in trial.epochs_to_keep})
        if not marks and all(reasons.get(trial.key, "") is None for trial in alike):
            together.append(alike[0])
        else:
            pieces.append(Piece("dense", alike[:1], marks=tuple(marks), **common))
    return pieces + [Piece("dense", chunk, batched=True, **common) for chunk in _chunks(together, 2)]


def not_batched(plan, reason):
    """Returns the rows of trials that were to be batched, and cannot be.

    Args:
        plan: The `Piece` of kind "plan".
        reason: What came of it.
    """
    return failed(
        plan, ValueError(f"trainer='batched' cannot train this trial: {reason}. Use trainer='auto' in its place.")
    )


def tickets(trials, reasons, common):
    """Returns the pieces that find the tickets; those that take longest come first.

    Args:
        trials: The trials to run, whose dense networks are kept.
        reasons, common: As for `dense_trainings`.
    """
    batched = {trial.key for trial in trials if reasons.get(trial.key, "") is None}
    alone = sorted((trial for trial in trials if trial.key not in batched), key=lambda trial: -trial.num_rounds)
    # all ratios in each piece: while the last networks of one size train, those of others do not wait
    together = sorted((trial for trial in trials if trial.key in batched), key=lambda trial: trial.seed)
    chunks = _chunks(together, 4)
    return [Piece("ticket", chunk, batched=True, **common) for chunk in chunks] + [
        Piece("ticket", (t,), reason=reasons.get(t.key, ""), **common) for t in alone
    ]


def perform(piece):
    """Does a piece of work and returns what comes of it; whatever goes wrong in a trial is its row.

    Args:
        piece: The `Piece`.

    Returns:
        Rows; for kind "plan" the reason why its trials cannot be batched, or None.
    """
    if piece.function is None:
        process.settle(piece.devices)
    try:
        return {"plan": _plan, "dense": _dense, "ticket": _tickets}[piece.kind](piece)
    except Exception as error:  # none of its trials can be set up; each meets it again where this was a plan
        return f"it cannot be set up: {type(error).__name__}: {error}" if piece.kind == "plan" else failed(piece, error)


def failed(piece, error):
    """Returns the rows of a piece that an error kept from being done.

    Args:
        piece: The `Piece`.
        error: What happened.
    """
    return [work.finish(trial, error) for trial in piece.trials]


def one_by_one(piece):
    """Returns a piece for each trial of a piece.

    Args:
        piece: The `Piece`.
    """
    return [dataclasses.replace(piece, trials=(trial,)) for trial in piece.trials]


def _plan(piece):
    from tfprune.study import batched

    return batched.why_not(piece.trials[0])


def _dense(piece):
    """The rows of the trials whose dense network could not be trained."""
    if piece.batched:
        from tfprune.study import batched

        found = batched.run_dense(piece.trials, piece.folder)
        return [work.finish(trial, error) for trial, error in found if error]
    [trial] = piece.trials
    row = work.row_of(
        trial, lambda trial: work.run_dense(trial, piece.folder, piece.devices, piece.marks, piece.trainer) or {}
    )
    return [row] if row["status"] == "failed" else []


def _tickets(piece):
    if piece.batched:
        from tfprune.study import batched

        start = time.time()
        found = list(batched.run(piece.trials, piece.folder))
        share = (time.time() - start) / max(1, len(found))  # they trained side by side
        return [work.finish(trial, one, start, share) for trial, one in found]
    [trial] = piece.trials
    function = piece.function or functools.partial(
        work.run_trial, folder=piece.folder, devices=piece.devices, trainer=piece.trainer
    )
    row = work.row_of(trial, function)
    if piece.reason and row.get("trainer") == "compiled":
        row["trainer_reason"] = piece.reason
    return [row]


def _by(trials, key):
    """Returns the trials in tuples of the same key, in their order."""
    found = {}
    for trial in trials:
        found.setdefault(key(trial), []).append(trial)
    return [tuple(alike) for alike in found.values()]


def _chunks(trials, parts):
    """The trials of each kind in about so many tuples of about equal length, none too long."""
    found = []
    for alike in _by(trials, lambda trial: trial.kind):
        parts_here = max(-(-len(alike) // CHUNK), min(parts, -(-len(alike) // 4)))
        bounds = [len(alike) * part // parts_here for part in range(parts_here + 1)]
        found += [alike[start:stop] for start, stop in itertools.pairwise(bounds)]
    return found
