"""`tfprune report`: draw a study's report anew from the results in its folder."""

import webbrowser
from pathlib import Path

from tfprune.cli.answer import Answer

HELP = "draw report.html anew from a study's results, and write its tables"
DESCRIPTION = (
    "Draws report.html anew from the results.jsonl of a folder. With --tables it also writes results.csv, "
    "results.parquet where pyarrow is installed, summary.md, summary.tex and the figures as SVG."
)


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    command.add_argument("folder", metavar="DIR", help="folder of a study").completes = "/"
    command.add_argument("--tables", action="store_true", help="also write tables and figures for other programs")
    log = command.add_argument("--tensorboard", metavar="LOGDIR", help="also log the trials for TensorBoard")
    log.completes = "/"
    command.add_argument("--open", action="store_true", help="open the report in the browser")


def run(options):
    """Writes what was asked for and returns the paths."""
    from tfprune import study

    report = study.write_report(options.folder)
    document, text = {"folder": options.folder, "report": report}, f"report: {report}"
    if options.tables:
        document["tables"] = study.write_tables(options.folder)
        text += "".join(f"\ntable: {path}" for path in document["tables"])
    if options.tensorboard:
        document["tensorboard"] = study.log_to_tensorboard(options.folder, options.tensorboard)
        text += f"\ntensorboard: {document['tensorboard']} trials; look at them with tensorboard --logdir "
        text += options.tensorboard
    if options.open:
        webbrowser.open(Path(report).resolve().as_uri())
    return Answer(document, text)
