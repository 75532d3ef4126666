"""How far is the study in a folder? What `tfprune study --status DIR` says, while it runs or after."""

from tfprune.cli.answer import Answer, at_a_time, duration


def answer(folder):
    """Returns how many trials are done, failed, running and left, and for how long; exit code 1 where some failed.

    Args:
        folder: The study's folder; nothing is changed in it.
    """
    from tfprune.study import progress

    found, kinds = progress.status(folder), progress.read_plan(folder)["trials"]
    text = "\n".join(_lines(folder, found, kinds))
    return Answer({"folder": folder, **found}, text, code=int(found["failed"] > 0))


def _lines(folder, found, kinds):
    counts = ", ".join(f"{found[name]} {name}" for name in ("done", "failed", "left"))
    yield f"{found['study']}: {found['trials']} trials, {counts}"
    if found["left"] and not found["active"]:
        yield f"No process works on it. The command that began it goes on from here, in {folder}."
    if found["left"]:
        yield f"time left: {_left(found)}"
    if found["running"]:
        yield f"running: {', '.join(_named(piece, kinds) for piece in found['running'])}"
    if found["failed"]:
        yield "Trials that failed are run again with --retry-failed; the report says why they did."


def _left(found):
    if found["seconds_left"] is None:
        return "not known before a trial is finished"
    return f"about {duration(found['seconds_left'])} with {at_a_time(found['jobs'])}"


def _named(piece, kinds):
    """What a piece of work is about; its name holds what kind of work it is, and the key of its (first) trial."""
    work, _, key = piece.partition("-")
    strategy, ratio = kinds.get(key, (work, None))
    if work == "dense":
        return "a dense network"
    return piece if ratio is None else f"{strategy} at {ratio:g}"
