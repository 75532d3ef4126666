"""`tfprune study`: run a grid of trials and write its report, or say what it would run, or how far it is."""

from pathlib import Path

from tfprune.cli import chosen, cluster, forecast, names, standing
from tfprune.cli.answer import Answer
from tfprune.cli.summary import summary_table

HELP = "run a study (strategy x ratio x seed ...) and write its report"
DESCRIPTION = (
    "Runs a study and writes results.jsonl, results.csv and report.html. A study that was stopped goes on when the "
    "same command runs again. STUDY is a named study, a TOML file that describes one, or, with --dataset, --model, "
    "--ratios and --seeds, the name of a new one. A flag with several values makes an axis of the grid. The exit code "
    "is 1 where trials failed."
)


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    name = command.add_argument("study", nargs="?", metavar="STUDY", help="a named study, FILE.toml, or a new name")
    name.completes = "studies *.toml"
    looking = command.add_argument_group("before and beside")
    looking.add_argument("--dry-run", action="store_true", help="only print the trials and an estimate of the time")
    status = looking.add_argument("--status", metavar="DIR", help="only tell how far the study in a folder is")
    status.completes = "/"
    running = command.add_argument_group("running it")
    out = running.add_argument("--out", metavar="DIR", help="folder for the results (default: runs/NAME)")
    out.completes = "/"
    running.add_argument("--jobs", type=int, metavar="N", help="trials at a time (default: one per core, at most 4)")
    backend = running.add_argument(
        "--backend", choices=names.BACKENDS, help="where they run: processes here (loky), or a cluster of Dask or Ray"
    )
    backend.metavar = "NAME"
    running.add_argument("--cluster", metavar="ADDRESS", help="of Dask's scheduler, or of Ray's head node")
    running.add_argument(
        "--trainer",
        choices=names.TRAINERS,
        default="auto",
        metavar="NAME",
        help="what trains them: fit, compiled, batched, or auto (default), the fastest that can",
    )
    running.add_argument(
        "--devices", type=int, default=1, metavar="N", help="devices that share each batch (default: 1)"
    )
    running.add_argument("--quick", action="store_true", help="a small grid with fewer epochs, in runs/NAME-quick")
    running.add_argument("--retry-failed", action="store_true", help="run trials again that failed before")
    chosen.add_flags(command)


def run(options):
    """Runs the study and returns what came of it; or tells what would run, or how far it is."""
    if options.status:
        return standing.answer(options.status)
    study = chosen.chosen_study(options)
    folder = Path(options.out or f"runs/{study.name}")
    jobs = _jobs(options.jobs)
    if options.dry_run:
        return forecast.answer(study, folder, jobs, options.retry_failed)
    return _run(study, folder, jobs, options)


def _jobs(asked):
    if asked is not None and asked < 1:
        raise ValueError(f"--jobs must be at least 1. Received: {asked}.")
    if asked is not None:
        return asked
    import joblib

    # Each job is a process with its own TensorFlow and data: about half a gigabyte for moons, two for CIFAR-10.
    return min(joblib.cpu_count(), 4)


def _run(study, folder, jobs, options):
    from tfprune import study as studies

    options.resume_hint = f" What is finished is kept in {folder}; the same command goes on from there."
    print(f"{study.name}: {len(study.trials())} trials in {folder}")
    with cluster.connected(options.backend, options.cluster):
        rows = studies.run_study(
            study,
            out=folder,
            jobs=jobs,
            retry_failed=options.retry_failed,
            progress=not options.quiet,
            trainer=options.trainer,
            backend=options.backend,
            devices=options.devices,
        )
    return _answer(study, folder, studies.write_report(folder), rows)


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
