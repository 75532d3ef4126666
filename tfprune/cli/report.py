"""`tfprune report`: draw a study's report anew from the results in its folder."""

import webbrowser
from pathlib import Path

from tfprune.cli.answer import Answer

HELP = "draw report.html anew from a study's results"
DESCRIPTION = "Draws report.html anew from the results.jsonl of a folder."


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    command.add_argument("folder", metavar="DIR", help="folder of a study").completes = "/"
    command.add_argument("--open", action="store_true", help="open the report in the browser")


def run(options):
    """Writes the report and returns its path."""
    from tfprune import study

    report = study.write_report(options.folder)
    if options.open:
        webbrowser.open(Path(report).resolve().as_uri())
    return Answer({"folder": options.folder, "report": report}, f"report: {report}")
