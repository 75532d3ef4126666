"""`tfprune verify-metrics`: compute every metric with other packages too, and tell whether they agree."""

from tfprune.cli.answer import Answer

HELP = "compute every metric with other packages too, and tell whether they agree"
DESCRIPTION = (
    "Computes every metric by tfprune, by the packages that are installed, and from published golden values, and "
    "writes the table. The exit code is 1 where something differs."
)


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    out = command.add_argument("--out", default="docs/verified_metrics.md", metavar="TABLE.md", help="table to write")
    out.completes = "*.md"


def run(options):
    """Verifies the metrics; exit code 1 where one differs."""
    from tfprune.study.quiet import start_tensorflow

    start_tensorflow()
    from tfprune.verification.metrics import verify_metrics

    rows = verify_metrics(options.out, lambda line: print(line, flush=True))
    wrong = [f"{row['ours']} ({row['package']})" for row in rows if row["verdict"] in ("differs", "failed")]
    text = f"{len(rows)} rows in {options.out}."
    if wrong:
        text = f"{text}\n{len(wrong)} differ or failed: {', '.join(wrong)}."
    return Answer({"out": options.out, "wrong": wrong, "rows": rows}, text, code=int(bool(wrong)))
