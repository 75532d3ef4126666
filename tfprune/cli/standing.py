"""How far is the study in a folder? What `tfprune study --status DIR` says, while it runs or after."""

from tfprune.cli.answer import Answer, duration


def answer(folder):
    """Returns how many trials are done, failed, running and left, and for how long; exit code 1 where some failed.

    Args:
        folder: The study's folder; nothing is changed in it.
    """
    from tfprune.study import progress

    found = progress.status(folder)
    return Answer({"folder": folder, **found}, "\n".join(_lines(folder, found)), code=int(found["failed"] > 0))


def _lines(folder, found):
    counts = ", ".join(f"{found[name]} {name}" for name in ("done", "failed", "left"))
    yield f"{found['study']}: {found['trials']} trials, {counts}"
    if found["left"] and not found["active"]:
        yield f"No process works on it. The command that began it goes on from here, in {folder}."
    if found["left"]:
        yield f"time left: {_left(found)}"
    if found["running"]:
        yield f"running: {', '.join(found['running'])}"
    if found["failed"]:
        yield "Trials that failed are run again with --retry-failed; the report says why they did."


def _left(found):
    if found["seconds_left"] is None:
        return "not known before a trial is finished"
    return f"about {duration(found['seconds_left'])} at {found['jobs']} trials at a time"
