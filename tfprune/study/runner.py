"""How does a grid of trials become a folder of results, however often it is interrupted?"""

import contextlib
import os
import signal
from pathlib import Path

from tfprune import datasets
from tfprune.study import grid
from tfprune.study import results as results_files
from tfprune.study.work import row_of, run_trial


def run_study(study, out=None, jobs=1, retry_failed=False, progress=True, trial_function=run_trial):
    """Runs the trials of a study that its folder does not hold yet, and returns all rows of the study.

    Each finished trial is on the disk before the next is taken: kill it at any moment, run it again, and it goes on. A
    trial that raises becomes a row with status "failed" and its reason, and the study goes on.

    Args:
        study: A `Study`, or the name of one: "moons", "cifar10".
        out: Folder for results.jsonl and results.csv; runs/NAME by default.
        jobs: Processes that run trials. With more than one, each uses one thread.
        retry_failed: Run trials again that failed before; otherwise a failure is a result.
        progress: Show a progress bar with the time left.
        trial_function: Function `(trial) -> flat dict` that does the work of one trial.

    Returns:
        List of flat dicts, one per trial, failed ones included.

    Raises:
        ResultsError: The folder cannot be used, is damaged, or holds another study's results.
        ValueError: Unknown study or strategy.

    Example:

    >>> rows = run_study("moons", out="runs/moons", jobs=2)
    >>> tfprune.study.write_report("runs/moons")
    """
    study = grid.get(study)
    folder = Path(out or Path("runs") / study.name)
    with results_files.Results(folder) as results:
        _check_same_study(study, results.rows, folder)
        todo = _unfinished(study, results.rows, retry_failed)
        if todo and jobs == 1 and trial_function is run_trial:
            # Before the progress bar starts its thread: tensorflow_datasets replaces Python's import while it is itself
            # imported, and the bar's own imports fail then. A data set that cannot be had also says so at once.
            datasets.get(study.dataset)
        try:
            for row in _tracked(_run(todo, jobs, trial_function), study, todo, progress):
                results.append(row)
        finally:
            # also after Ctrl-C: the table of what is finished
            if results.rows:
                results_files.write_csv(results_files.latest(results.rows), folder / "results.csv")
    keys = {trial.key for trial in study.trials()}
    return [row for row in results_files.latest(results.rows) if row["key"] in keys]


def _check_same_study(study, rows, folder):
    """Refuses to add to a folder whose rows could not share a table with this study's."""
    wanted = study.trials()[0].identification()
    fixed = [name for name in wanted if name not in ("key", "strategy", "ratio", "seed")]
    for row in rows:
        differing = [name for name in fixed if row.get(name) != wanted[name]]
        if differing:
            theirs = ", ".join(f"{name}={row.get(name)}" for name in differing)
            ours = ", ".join(f"{name}={wanted[name]}" for name in differing)
            raise results_files.ResultsError(
                f"{folder} holds the results of another study. Received: {ours}. Expected: {theirs}, as its rows "
                "have. Choose another folder with --out."
            )


def _unfinished(study, rows, retry_failed):
    rows = results_files.latest(rows)
    finished = {row["key"] for row in rows if not (retry_failed and row.get("status") == "failed")}
    return [trial for trial in study.trials() if trial.key not in finished]


def _run(trials, jobs, trial_function):
    """Yields the row of each trial as it finishes."""
    if jobs == 1 or len(trials) < 2:
        for trial in trials:
            yield row_of(trial, trial_function)
        return
    import joblib

    with _child_environment(), joblib.parallel_config("loky", inner_max_num_threads=1):
        # batch_size=1: a batch of short trials would come back, and be safe on the disk, only together
        parallel = joblib.Parallel(n_jobs=min(jobs, len(trials)), batch_size=1, return_as="generator_unordered")
        yield from parallel(joblib.delayed(_row_in_child)(trial, trial_function) for trial in trials)


@contextlib.contextmanager
def _child_environment():
    """Gives the processes that start inside one thread each, their share of a GPU, and no start-up messages."""
    wanted = {
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # otherwise the first process reserves the whole GPU
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _row_in_child(trial, trial_function):
    # Ctrl-C reaches the children too; the parent alone decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return row_of(trial, trial_function)


def _tracked(rows, study, todo, progress):
    """Yields the rows and shows how far the study is."""
    if not progress or not todo:
        yield from rows
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left:"),
        bars.TimeRemainingColumn(),
    )
    # Trials differ by minutes: the time left comes from all of them, not from the last 30 seconds.
    with bars.Progress(*columns, speed_estimate_period=24 * 3600) as bar:
        total = len(study.trials())
        task = bar.add_task(study.name, total=len(todo))
        if len(todo) < total:
            bar.console.print(f"{total - len(todo)} of {total} trials were finished before.")
        for row in rows:
            if row["status"] == "failed":
                bar.console.print(f"failed: {row['key']}: {row['error']}", markup=False)
            bar.advance(task)
            yield row
