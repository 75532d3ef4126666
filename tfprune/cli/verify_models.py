"""`tfprune verify-models`: prune all of keras.applications, and tell whether each stays exact."""

from tfprune.cli.answer import Answer
from tfprune.cli.words import add_list, words

HELP = "prune all of keras.applications, and tell whether each stays exact"
DESCRIPTION = (
    "Prunes every model of keras.applications (and of KerasHub, where it is installed) in six ways, compares masked "
    "and small model, and writes the table. Models that have their row already are left out. The exit code is 1 where "
    "a model failed."
)


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    command.add_argument("--all", action="store_true", help="the largest models too")
    add_list(command, "--only", words, "only these models", metavar="MODEL")
    out = command.add_argument("--out", default="docs/verified_models.md", metavar="TABLE.md", help="table to write")
    out.completes = "*.md"


def run(options):
    """Verifies the models; exit code 1 where one failed."""
    from tfprune.study.quiet import start_tensorflow

    start_tensorflow()
    from tfprune.verification.models import verify_models

    rows = verify_models(options.out, options.all, options.only, lambda line: print(line, flush=True))
    failed = [row["model"] for row in rows if "error" in row]
    text = f"{len(rows)} rows in {options.out}; {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}."
    return Answer({"out": options.out, "failed": failed, "rows": rows}, text, code=int(bool(failed)))
