"""How far is a study, and how long will it take?"""

import json
import statistics
from pathlib import Path

from tfprune.study import pool, results


def tracked(rows, name, todo, finished, shown=True):
    """Yields the rows as they come and shows a bar with the time left; failures are told at once.

    Args:
        rows: Iterator of rows.
        name: What stands before the bar.
        todo: Number of rows to come.
        finished: Number of trials that were finished before.
        shown: Whether to show anything. Default True.
    """
    if not shown or not todo:
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
        task = bar.add_task(name, total=todo)
        if finished:
            bar.console.print(f"{finished} of {finished + todo} trials were finished before.")
        for row in rows:
            if row["status"] == "failed":
                bar.console.print(f"failed: {row['name']}: {row['error']}", markup=False)
            bar.advance(task)
            yield row


def status(folder):
    """Returns how a study stands: how many trials are done, failed, running and left, and the seconds left.

    Args:
        folder: The study's folder. It may be running; nothing is changed in it.

    Returns:
        Dict with `study`, `trials`, `done`, `failed`, `left`, `running` (names of what is under way), `active` (whether
        a process works on it), `jobs` and `seconds_left` (None where no trial tells).

    Raises:
        ResultsError: The folder holds no study, or its results are damaged.

    Example:

    >>> status("runs/moons")["done"]
    400
    """
    folder = Path(folder)
    known = read_plan(folder)
    rows = results.read_rows(folder) if (folder / "results.jsonl").exists() else []
    rows = [row for row in rows if row["key"] in known["trials"]]
    done = [row for row in rows if row.get("status") == "done"]
    active = results.is_locked(folder)
    left = {key: kind for key, kind in known["trials"].items() if key not in {row["key"] for row in rows}}
    return {
        "study": known["settings"]["name"],
        "trials": len(known["trials"]),
        "done": len(done),
        "failed": len(rows) - len(done),
        "left": len(left),
        "running": pool.running(folder) if active else [],
        "active": active,
        "jobs": known["jobs"],
        "seconds_left": seconds(left.values(), done, known["jobs"]),
    }


def seconds(kinds, rows, jobs=1):
    """Returns the seconds that trials will take, judged by finished ones; None where there are none.

    Args:
        kinds: Iterable of `[strategy, ratio]` of the trials to come.
        rows: Finished rows.
        jobs: How many trials run at a time. Default 1.
    """
    kinds = [tuple(kind) for kind in kinds]
    if not kinds:
        return 0.0
    times = [(row["strategy"], row["ratio"], row["wall_time"]) for row in rows if row.get("wall_time") is not None]
    if not times:
        return None
    overall = statistics.mean(time for *_, time in times)
    total = 0.0
    for strategy, ratio in kinds:
        alike = [t for s, r, t in times if (s, r) == (strategy, ratio)] or [t for s, _, t in times if s == strategy]
        total += statistics.mean(alike) if alike else overall
    return total / max(1, min(jobs, len(kinds)))


def write_plan(folder, study, jobs):
    """Writes study.json: what is to run, so that others can tell how far it is.

    Args:
        folder: The study's folder.
        study: The `Study`.
        jobs: How many trials run at a time.
    """
    from tfprune.study import settings

    trials = {trial.key: [trial.identification()["strategy"], trial.ratio] for trial in study.trials()}
    plan = {"settings": settings.to_settings(study), "jobs": jobs, "trials": trials}
    results.write_whole(json.dumps(plan, indent=1) + "\n", Path(folder) / "study.json")


def read_plan(folder):
    """Returns what `write_plan` wrote.

    Raises:
        ResultsError: There is none, or it is damaged.
    """
    path = Path(folder) / "study.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise results.ResultsError(f"No study found. Received: {folder}, which holds no study.json.") from error
    except ValueError as error:
        raise results.ResultsError(f"{path} is damaged: {error}. The study's command writes it anew.") from error
