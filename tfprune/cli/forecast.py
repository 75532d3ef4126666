"""What would a study run, and for how long? What `tfprune study --dry-run` says."""

import dataclasses
import time

from tfprune.cli.answer import Answer, at_a_time, duration

_STEPS = 20  # of the epoch that is measured where no trial has run yet


def answer(study, folder, jobs, retry_failed=False):
    """Returns the trials, which of them are finished, and an estimate of the time that the others take.

    The estimate is made from the folder's finished trials. Where there are none, each kind of network is set up,
    trained for some steps and evaluated, and the estimate is the most that this may take: as if no round stopped early.

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
        yield f"time: {_time(document)} with {at_a_time(document['jobs'])}"


def _time(document):
    shown = duration(document["seconds"])
    if document["seconds_from"] == "finished trials":
        return f"about {shown}, as the finished trials took,"
    return f"at most about {shown}, if no round stops early and each trial runs alone (timed on {_STEPS} steps),"


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
    return _longest(todo, jobs), "a short epoch"


def _longest(todo, jobs):
    """The seconds that trials take where no round stops early: dense networks once, and every trial's rounds."""
    costs, epochs = {}, {}
    for trial in todo:
        kind = (trial.dataset, trial.model, dataclasses.replace(trial.recipe, epochs=1, patience=1), trial.evaluation)
        if kind not in costs:
            print(f"timing {trial.model} on {trial.dataset} ...", flush=True)
            costs[kind] = time_trial(trial)
        epochs[trial.key] = kind, trial.num_rounds * trial.recipe.epochs * _longer(trial)
        epochs[trial.dense_key] = kind, trial.recipe.epochs
    work = sum(costs[kind].fixed + count * costs[kind].epoch for kind, count in epochs.values())
    return max(cost.start for cost in costs.values()) + work / min(jobs, len(todo))


def _longer(trial):
    """How many epochs a trial has for one of its recipe: a small network gets the compute that the dense one had."""
    from tfprune.pruning import strategies

    # both the inputs and the outputs of a layer get fewer
    return 1 / (1 - trial.ratio) ** 2 if strategies.get(trial.strategy).budget == "compute" else 1


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a trial takes.

    Args:
        start: Seconds until a process is ready for its first trial.
        fixed: Seconds to set up, compile, shrink and evaluate.
        epoch: Seconds of an epoch.
    """

    start: float
    fixed: float
    epoch: float


def time_trial(trial):
    """Returns the `Cost` of a trial here: of the first steps of its dense network, of half of it, and its evaluation.

    Args:
        trial: The `Trial`.
    """
    from tfprune.study import process

    _, start = _timed(process.settle)  # as for a trial, and before anything else loads TensorFlow
    from tfprune.study import work

    setup, fixed = _timed(work.set_up, trial)
    size = trial.recipe.batch_size
    data, share = (setup.data, 1.0) if not size else _shortened(setup.data, _STEPS * size)
    more = 1 if size else _STEPS  # an epoch of one step is too short to time
    recipes = [dataclasses.replace(trial.recipe, epochs=epochs) for epochs in (1, 1, 1 + more)]
    first, one, several = (
        _timed(setup.trainer.train_round, setup.masked, data, recipe, trial.seed, 0, early_stop=False)[1]
        for recipe in recipes
    )
    fixed += max(first - one, 0.0) + _timed(_half_measured, setup)[1]
    return Cost(start, fixed, max(several - one, 0.0) / more / share)


def _half_measured(setup):
    """What a trial does when its rounds are over."""
    import tfprune
    from tfprune.study import measure

    tfprune.set_masks(setup.masked, tfprune.compute_masks(setup.masked, 0.5))
    small = tfprune.shrink(setup.masked)
    return measure.evaluate(small, setup.data, setup.trial.evaluation, setup.dense_cost, setup.trial.seed)


def _timed(function, *arguments, **options):
    """`(what the function returns, seconds)`."""
    start = time.perf_counter()
    result = function(*arguments, **options)
    return result, time.perf_counter() - start


def _shortened(data, most):
    """`(data of at most so many examples, which share of them these are)`."""
    share = min(1.0, most / len(data.train[0]))
    parts = {
        name: tuple(array[: max(1, round(share * len(array)))] for array in getattr(data, name))
        for name in ("train", "validation")
    }
    return dataclasses.replace(data, **parts), share
