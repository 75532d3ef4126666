"""How does a grid of trials become a folder of results, however often it is interrupted?"""

import dataclasses
import shutil
from pathlib import Path

from tfprune import datasets
from tfprune.study import grid, pieces, pool, work
from tfprune.study import progress as progress_of
from tfprune.study import results as results_files


def run_study(
    study,
    out=None,
    jobs=1,
    retry_failed=False,
    progress=True,
    trainer="auto",
    backend=None,
    devices=1,
    trial_function=None,
):
    """Runs the trials of a study that its folder does not hold yet, and returns all rows of the study.

    What is finished is on the disk before the next is taken, trial by trial, or piece by piece where small networks are
    trained together: kill it at any moment, run it again, and it goes on. A trial that raises becomes a row with status
    "failed" and its reason, and the study goes on; with two jobs or more, so does one that takes its process down with
    it. The dense network of a seed is trained once and serves all its trials.

    Args:
        study: A `Study`, or the name of one, such as "moons".
        out: Folder for results.jsonl, results.csv, study.json and the dense networks; runs/NAME by default.
        jobs: How many trials run at a time, each in a process with one thread. Rows do not depend on it.
        retry_failed: Run trials again that failed before; otherwise a failure is a result.
        progress: Show a progress bar with the time left.
        trainer: "fit" (`model.fit`), "compiled" (an epoch is one compiled loop), "batched" (many small networks at
            once), or "auto" (default): the last of these that can train a trial. They agree up to rounding; the rows
            say which it was, and why.
        backend: "loky" (processes here), "dask" or "ray" (a cluster, as joblib knows it; its workers should see the
            folder), or None (default): what `joblib.parallel_config` says around this call, otherwise "loky".
        devices: Devices of one process that share each batch, through `tf.distribute.MirroredStrategy`; then trainer
            "fit" trains. Default 1: several GPUs are used by as many jobs, one each.
        trial_function: Function `(trial) -> flat dict` that does the work of a trial in place of tfprune's own.

    Returns:
        List of flat dicts, one per trial, failed ones included.

    Raises:
        ResultsError: The folder cannot be used, is damaged, or holds another study's results.
        ValueError: Unknown study, trainer or backend, or no jobs or devices.

    Example:

    >>> rows = run_study("moons", out="runs/moons", jobs=2)
    >>> tfprune.study.write_report("runs/moons")
    """
    study = grid.get(study)
    pieces.check_trainer(trainer)
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1. Received: {jobs}.")
    if devices < 1:
        raise ValueError(f"devices must be at least 1. Received: {devices}.")
    # absolute: workers that live on from an earlier call have a working directory of their own
    folder = Path(out or Path("runs") / study.name).absolute()
    with results_files.Results(folder) as results:
        _check_same_study(study, results.rows, folder)
        progress_of.write_plan(folder, study, jobs)
        shutil.rmtree(folder / "running", ignore_errors=True)  # left by a process that was killed
        todo = _unfinished(study, results.rows, retry_failed)
        common = {"folder": str(folder), "trainer": trainer, "devices": devices}
        rows = _run(_sharing_data(todo), folder, jobs, backend, trial_function, common)
        finished = len(study.trials()) - len(todo)
        try:
            for row in progress_of.tracked(rows, study.name, len(todo), finished, progress):
                results.append(row)
                (folder / "rounds" / work.finished_file(row["key"])).unlink(missing_ok=True)
        finally:
            # also after Ctrl-C: the table of what is finished
            if results.rows:
                results_files.write_csv(results_files.latest(results.rows), folder / "results.csv")
    keys = {trial.key for trial in study.trials()}
    return [row for row in results_files.latest(results.rows) if row["key"] in keys]


def _check_same_study(study, rows, folder):
    """Refuses to add to a folder whose rows could not share a table with this study's."""
    wanted = [trial.identification() for trial in study.trials()]
    fixed = [
        name for name in wanted[0] if name not in ("key", "name", "strategy", "control", "ratio", "seed", "rounds")
    ]
    ours = {name: {fields[name] for fields in wanted} for name in fixed}
    for row in rows:
        differing = [name for name in fixed if row.get(name) not in ours[name]]
        if differing:
            theirs = ", ".join(f"{name}={row.get(name)}" for name in differing)
            asked = ", ".join(f"{name}={'/'.join(map(str, sorted(ours[name], key=str)))}" for name in differing)
            raise results_files.ResultsError(
                f"{folder} holds the results of another study. Received: {asked}. Expected: {theirs}, as its rows "
                "have. Choose another folder with --out."
            )


def _unfinished(study, rows, retry_failed):
    rows = results_files.latest(rows)
    finished = {row["key"] for row in rows if not (retry_failed and row.get("status") == "failed")}
    return [trial for trial in study.trials() if trial.key not in finished]


def _sharing_data(trials):
    """The trials, whose functions that load data are known again in every process."""
    shared = {trial.dataset: datasets.Shared(trial.dataset) for trial in trials if callable(trial.dataset)}
    return [
        dataclasses.replace(trial, dataset=shared[trial.dataset]) if callable(trial.dataset) else trial
        for trial in trials
    ]


def _run(trials, folder, jobs, backend, function, common):
    """Yields the row of each trial as it finishes: first what is shared is made, then what shares it."""
    if function is not None:
        yield from _rows(pieces.of_function(trials, function), folder, jobs, backend, trials, set())
        return
    reasons, refused = {}, set()
    for plan, reason in pool.run(pieces.perform, pieces.plans(trials, common), folder, jobs, backend):
        reasons |= {trial.key: reason and str(reason) for trial in plan.trials}
        if reason is not None and common["trainer"] == "batched":
            refused |= {trial.key for trial in plan.trials}
            yield from pieces.not_batched(plan, reason)
    trials = [trial for trial in trials if trial.key not in refused]
    trainings = pieces.dense_trainings(trials, reasons, common)
    full = len(trainings) // jobs * jobs
    broken = set()

    def rows_of(todo):
        return _rows(todo, folder, jobs, backend, trials, broken)

    def tickets_of(dense_keys):
        able = [trial for trial in trials if trial.dense_key in dense_keys - broken]
        return pieces.tickets(able, reasons, common)

    yield from rows_of(trainings[:full])
    # the last dense networks, too few for all jobs, are trained beside tickets of those before them
    late = {trial.dense_key for piece in trainings[full:] for trial in piece.trials}
    early = {trial.dense_key for trial in trials} - late
    yield from rows_of(trainings[full:] + tickets_of(early))
    yield from rows_of(tickets_of(late))


def _rows(todo, folder, jobs, backend, trials, broken):
    """Yields the rows of tickets as they finish; where a dense network fails, those of all its trials."""
    for piece, answer in pool.run(pieces.perform, todo, folder, jobs, backend):
        if isinstance(answer, pool.Died) and len(piece.trials) > 1:
            # one of them took the process down: alone, the others do not pay for it
            yield from _rows(pieces.one_by_one(piece), folder, jobs, backend, trials, broken)
            continue
        rows = pieces.failed(piece, answer) if isinstance(answer, pool.Died) else answer
        if piece.kind != "dense":
            yield from rows
            continue
        keys = {trial.key: trial.dense_key for trial in piece.trials}
        for row in rows:
            broken.add(keys[row["key"]])
            same = [trial for trial in trials if trial.dense_key == keys[row["key"]]]
            yield from ({**row, **trial.identification()} for trial in same)
