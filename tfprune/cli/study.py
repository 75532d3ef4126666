"""`tfprune study`: run a grid of trials and write its report, or say what it would run, or how far it is."""

from pathlib import Path

from tfprune.cli import chosen
from tfprune.cli.answer import Answer
from tfprune.cli.summary import summary_table

HELP = "run a study (strategy x ratio x seed ...) and write its report"
DESCRIPTION = (
    "Runs a study and writes results.jsonl, results.csv and report.html. A study that was stopped goes on when the "
    "same command runs again. STUDY is a named study, a TOML file that describes one, or, with --dataset, --model and "
    "--ratios, the name of a new one. A flag with several values makes an axis of the grid. The exit code is 1 where "
    "trials failed."
)


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    name = command.add_argument("study", nargs="?", metavar="STUDY", help="a named study, FILE.toml, or a new name")
    name.completes = "studies *.toml"
    chosen.add_flags(command)
    running = command.add_argument_group("running it")
    out = running.add_argument("--out", metavar="DIR", help="folder for the results (default: runs/NAME)")
    out.completes = "/"
    running.add_argument("--jobs", type=int, metavar="N", help="trials at a time (default: one per core, at most 4)")
    running.add_argument("--quick", action="store_true", help="a small grid with fewer epochs, in runs/NAME-quick")
    running.add_argument("--retry-failed", action="store_true", help="run trials again that failed before")


def run(options):
    """Runs the study and returns what came of it."""
    from tfprune import study as studies

    study = chosen.chosen_study(options)
    folder = Path(options.out or f"runs/{study.name}")
    options.resume_hint = f" What is finished is kept in {folder}; the same command goes on from there."
    jobs = _default_jobs() if options.jobs is None else options.jobs
    print(f"{study.name}: {len(study.trials())} trials in {folder}")
    rows = studies.run_study(
        study, out=folder, jobs=jobs, retry_failed=options.retry_failed, progress=not options.quiet
    )
    report = studies.write_report(folder)
    return _answer(study, folder, report, rows)


def _default_jobs():
    import joblib

    # Each job is a process with its own TensorFlow and data: about half a gigabyte for moons, two for CIFAR-10.
    return min(joblib.cpu_count(), 4)


def _answer(study, folder, report, rows):
    failed = [row for row in rows if row["status"] == "failed"]
    text, cells = summary_table([row for row in rows if row["status"] == "done"])
    if failed:
        text += f"\n{len(failed)} of {len(rows)} trials failed; the report says why."
    document = {
        "study": study.name,
        "folder": folder,
        "results": folder / "results.jsonl",
        "report": report,
        "trials": len(rows),
        "failed": [{"key": row["key"], "error": row["error"]} for row in failed],
        "cells": cells,
    }
    return Answer(document, f"{text}\nreport: {report}", code=int(bool(failed)))
