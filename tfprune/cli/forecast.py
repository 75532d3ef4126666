"""What would a study run, and for how long? What `tfprune study --dry-run` says."""

import dataclasses
import time

from tfprune.cli.answer import Answer, duration

_STEPS = 20  # of the epoch that is measured where no trial has run yet


def answer(study, folder, jobs, retry_failed=False):
    """Returns the trials, which of them are finished, and an estimate of the time that the others take.

    The estimate is made from the folder's finished trials. Where there are none, some steps of each kind of network are
    trained and timed, and the estimate is the most that training may take: as if no round stopped early.

    Args:
        study: The `Study`.
        folder: Where its results are or would be; nothing is changed in it.
        jobs: Trials at a time.
        retry_failed: Whether failed trials are run again.
    """
    trials, rows = study.trials(), _rows(folder)
    status = {row["key"]: row["status"] for row in rows}
    over = {key for key, found in status.items() if not (retry_failed and found == "failed")}
    todo = [trial for trial in trials if trial.key not in over]
    seconds, source = _estimate(todo, [row for row in rows if row["status"] == "done"], jobs)
    document = {
        "study": study.name,
        "folder": folder,
        "jobs": jobs,
        "to_run": len(todo),
        "seconds": seconds,
        "seconds_from": source,
        "trials": [{**trial.identification(), "status": status.get(trial.key, "left")} for trial in trials],
    }
    return Answer(document, "\n".join(_lines(document, trials, status)))


def _lines(document, trials, status):
    for trial in trials:
        yield f"{trial.key}  {trial.name}" + (f"  [{status[trial.key]}]" if trial.key in status else "")
    yield f"{document['study']}: {len(trials)} trials in {document['folder']}, {document['to_run']} to run"
    if document["to_run"]:
        yield f"time: {_time(document)} at {document['jobs']} trials at a time"


def _time(document):
    shown = duration(document["seconds"])
    if document["seconds_from"] == "finished trials":
        return f"about {shown}, as the finished trials took,"
    return f"at most {shown} of training, if no round stops early (measured on {_STEPS} steps),"


def _rows(folder):
    from tfprune.study import results

    return results.read_rows(folder) if (folder / "results.jsonl").exists() else []


def _estimate(todo, done, jobs):
    """`(seconds, where they are from)`."""
    from tfprune.study import progress

    kinds = [(trial.identification()["strategy"], trial.ratio) for trial in todo]
    seconds = progress.seconds(kinds, done, jobs)
    if seconds is not None:
        return seconds, "finished trials"
    return _longest(todo) / min(jobs, len(todo)), "a short epoch"


def _longest(todo):
    """The seconds that training takes where no round stops early: dense networks once, and every trial's rounds."""
    per_epoch, epochs = {}, {}
    for trial in todo:
        kind = (trial.dataset, trial.model, dataclasses.replace(trial.recipe, epochs=1, patience=1))
        if kind not in per_epoch:
            print(f"timing {trial.model} on {trial.dataset} ...", flush=True)
            per_epoch[kind] = seconds_per_epoch(trial)
        epochs[trial.key] = kind, trial.num_rounds * trial.recipe.epochs
        epochs[trial.dense_key] = kind, trial.recipe.epochs
    return sum(count * per_epoch[kind] for kind, count in epochs.values())


def seconds_per_epoch(trial):
    """Returns the seconds that an epoch of a trial's dense network takes here, measured on its first steps.

    Args:
        trial: The `Trial`.
    """
    from tfprune.study import process, work

    process.settle()  # as for a trial
    setup = work.set_up(trial)
    size = trial.recipe.batch_size
    data, share = (setup.data, 1.0) if not size else _shortened(setup.data, _STEPS * size)
    more = 1 if size else _STEPS  # an epoch of one step is too short to time
    times = []
    for epochs in (1, 1, 1 + more):  # the first call compiles
        recipe = dataclasses.replace(trial.recipe, epochs=epochs)
        start = time.perf_counter()
        setup.trainer.train_round(setup.masked, data, recipe, trial.seed, 0, early_stop=False)
        times.append(time.perf_counter() - start)
    return max(times[2] - times[1], 0.0) / more / share


def _shortened(data, most):
    """`(data of at most so many examples, which share of them these are)`."""
    share = min(1.0, most / len(data.train[0]))
    parts = {
        name: tuple(array[: max(1, round(share * len(array)))] for array in getattr(data, name))
        for name in ("train", "validation")
    }
    return dataclasses.replace(data, **parts), share
