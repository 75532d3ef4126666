"""Which numbers in the README and the documentation come from committed rows, and are they still what the rows say?

A number is written between two comments, the first of which says how it is computed:

    accuracy <!-- results: mean("moons", "accuracy", ratio=0.8, strategy="one_shot") -->0.967<!-- /results -->

`python docs/quote.py` writes the values between the comments; `--check` only compares, and a test does so too. The rows
are those of `results/NAME/results.jsonl`; where a study has none the text is "not measured yet". Conditions name
columns of the rows: `ratio=0.8`, or `ratio=(0.2, 0.4)` for any of several. What can be asked, of rows that are done:

    mean, spread(study, column, **where)             mean and sample standard deviation
    total, smallest, largest(study, column, **where)
    count(study, **where), distinct(study, column)   number of rows, of different values
    difference(study, column, **where)               mean over seeds of ticket - its own dense network
    low, high(study, column, **where)                ends of its 95 % interval (Student)
    verdict(study, column, better=..., **where)      "better", "worse", "not distinguishable"; better="lower" for errors
    table(study, column, **where)                    ratio x strategy, mean and spread
    shifted(study, metric, severity, **where)        mean over all corruptions of a severity and over rows
    aurocs(study, **where)                           detector x strange data: dense network's and tickets' mean AUROC
    claims(study)                                    the paper's claims, each with what was measured and a verdict

`format=".1f"` at the end changes how a number is written; it is ".3f" otherwise.
"""

import argparse
import ast
import difflib
import functools
import itertools
import re
import sys
from pathlib import Path

import numpy as np

from tfprune.study import claims as paper_claims
from tfprune.study import read_rows
from tfprune.study.report.cells import ood_columns

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"(<!-- results: (.+?) -->)(.*?)(<!-- /results -->)", re.DOTALL)
UNKNOWN = "not measured yet"


class NotMeasuredError(LookupError):
    """A study whose rows are not committed."""


class Quotes:
    """Answers expressions about the studies below a folder.

    Args:
        folder: Holds NAME/results.jsonl for each study.

    Example:

    >>> Quotes("results").text('mean("moons", "accuracy", ratio=0.8, strategy="one_shot")')
    '0.967'
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self._read = functools.cache(lambda study: read_rows(self.folder / study))  # a document asks a study often

    def text(self, expression):
        """The value of an expression as it stands in a document."""
        name, arguments, options = _parse(expression)
        form = options.pop("format", ".3f")
        try:
            value = getattr(self, name)(*arguments, **options)
        except NotMeasuredError:
            return UNKNOWN
        if isinstance(value, str):
            return value
        return str(value) if isinstance(value, int) else format(value, form)

    def rows(self, study, **where):
        """The finished rows of a study that meet the conditions, at least one."""
        if not (self.folder / study / "results.jsonl").is_file():
            raise NotMeasuredError(study)
        found = [row for row in self._read(study) if row.get("status") == "done"]
        for column, wanted in where.items():
            allowed = wanted if isinstance(wanted, tuple) else (wanted,)
            found = [row for row in found if row.get(column) in allowed]
        if not found:
            raise ValueError(f"No finished row of {study!r} has {where}.")
        return found

    def values(self, study, column, **where):
        """One value a row."""
        rows = self.rows(study, **where)
        if any(row.get(column) is None for row in rows):
            near = difflib.get_close_matches(column, rows[0], n=5, cutoff=0.5)
            raise ValueError(f"Some rows of {study!r} with {where} lack {column!r}. Columns like it: {near}.")
        return np.array([row[column] for row in rows], dtype=float)

    def mean(self, study, column, **where):
        """Mean over the rows."""
        return float(self.values(study, column, **where).mean())

    def spread(self, study, column, **where):
        """Sample standard deviation over the rows."""
        return float(self.values(study, column, **where).std(ddof=1))

    def total(self, study, column, **where):
        """Sum over the rows."""
        return float(self.values(study, column, **where).sum())

    def smallest(self, study, column, **where):
        """Least value of the rows."""
        return float(self.values(study, column, **where).min())

    def largest(self, study, column, **where):
        """Greatest value of the rows."""
        return float(self.values(study, column, **where).max())

    def count(self, study, **where):
        """Number of rows."""
        return len(self.rows(study, **where))

    def distinct(self, study, column, **where):
        """Number of different values of a column."""
        return len({str(row.get(column)) for row in self.rows(study, **where)})

    def differences(self, study, column, **where):
        """Ticket - its own dense network, one value a row."""
        return self.values(study, column, **where) - self.values(study, f"dense_{column}", **where)

    def difference(self, study, column, **where):
        """Mean of ticket - dense."""
        return float(self.differences(study, column, **where).mean())

    def interval(self, study, column, **where):
        """The two-sided 95 % interval of the mean of ticket - dense."""
        found = paper_claims.interval(self.differences(study, column, **where))
        if found is None:
            raise ValueError(f"An interval needs at least three seeds. Received: {study!r} with {where}.")
        return found

    def low(self, study, column, **where):
        """Its lower end."""
        return float(self.interval(study, column, **where)[0])

    def high(self, study, column, **where):
        """Its upper end."""
        return float(self.interval(study, column, **where)[1])

    def verdict(self, study, column, better="higher", **where):
        """What the interval of ticket - dense says, in words."""
        low, high = self.interval(study, column, **where)
        if low <= 0 <= high:
            return "not distinguishable"
        return "better" if (low > 0) == (better == "higher") else "worse"

    def table(self, study, column, digits=3, **where):
        """A Markdown table: a line for each ratio, a column for each strategy, mean and sample deviation."""
        rows = self.rows(study, **where)
        strategies, ratios = (sorted({row[name] for row in rows}) for name in ("strategy", "ratio"))

        def cell(ratio, strategy):
            values = [row[column] for row in rows if (row["ratio"], row["strategy"]) == (ratio, strategy)]
            spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
            return f"{np.mean(values):.{digits}f}{spread}" if values else ""

        lines = [[f"{ratio:g}", *(cell(ratio, strategy) for strategy in strategies)] for ratio in ratios]
        return _markdown(["ratio", *(f"`{strategy}`" for strategy in strategies)], lines)

    def shifted(self, study, metric, severity, **where):
        """Mean of a metric over every corruption of a severity, and over the rows."""
        rows = self.rows(study, **where)
        found = [name for name in rows[0] if re.fullmatch(rf"shift/[^/]+/{severity}/{metric}", name)]
        if not found:
            raise ValueError(f"The rows of {study!r} hold no {metric!r} at severity {severity}.")
        return float(np.mean([self.mean(study, name, **where) for name in found]))

    def aurocs(self, study, digits=2, **where):
        """A Markdown table: a line for each detector, a column for each set of strange data, dense -> tickets."""
        sets = ood_columns(self.rows(study, **where)[0])
        detectors = list(dict.fromkeys(itertools.chain(*sets.values())))

        def cell(name, detector):
            column = f"{name}/auroc_{detector}"
            dense, ticket = self.mean(study, f"dense_{column}", **where), self.mean(study, column, **where)
            return f"{dense:.{digits}f} → {ticket:.{digits}f}"

        return _markdown(
            ["detector", *sets],
            [[f"`{detector}`", *(cell(name, detector) for name in sets)] for detector in detectors],
        )

    def claims(self, study, **where):
        """A Markdown table of the paper's claims that the study can be held against: of one data set and one model."""
        rows = self.rows(study, **where)
        if len({(row.get("dataset"), row.get("model")) for row in rows}) > 1:
            raise ValueError(f"Rows of {study!r} with {where} are of several data sets or models. Name one.")
        found = paper_claims.judge(rows)
        return _markdown(
            ["claim", "measured", "verdict"], [[claim.text, claim.measured, f"**{claim.verdict}**"] for claim in found]
        )


NAMES = {
    *("mean", "spread", "total", "smallest", "largest", "count", "distinct"),
    *("difference", "low", "high", "verdict", "table", "shifted", "aurocs", "claims"),
}


def fill(text, quotes):
    """Returns a document with every quoted value as the rows say, and the list of those that were another.

    Args:
        text: The document.
        quotes: `Quotes`.
    """
    stale = []

    def value(match):
        opening, expression, written, closing = match.groups()
        now = quotes.text(expression)
        if written != now:
            stale.append(f"{expression}: {written!r} is {now!r} now")
        return opening + now + closing

    return MARK.sub(value, text), stale


def documents():
    """The README, that of the results, and every page of the documentation."""
    return [ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _parse(expression):
    """Name, arguments and keywords of a call of constants; nothing else is understood, and nothing is executed."""
    try:
        call = ast.parse(expression, mode="eval").body
        arguments = [ast.literal_eval(argument) for argument in call.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        known = call.func.id in NAMES
    except (SyntaxError, ValueError, AttributeError) as error:
        raise ValueError(f"A quote is one call of constants. Received: {expression!r} ({error}).") from error
    if not known:
        raise ValueError(f"Unknown question. Received: {expression!r}. Expected one of {', '.join(sorted(NAMES))}.")
    return call.func.id, arguments, keywords


def _markdown(header, lines):
    rows = [header, ["---"] * len(header), *lines]
    # Around a table Markdown needs empty lines, also where a comment ends.
    return "\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n\n"


def main():
    """Fills, or with --check compares; the exit code is 1 where something is stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, only tell")
    options = parser.parse_args()
    found = 0
    for path in documents():
        before = path.read_text(encoding="utf-8")
        after, stale = fill(before, Quotes(ROOT / "results"))
        found += len(stale)
        print(*(f"{path.relative_to(ROOT)}: {line[:200]}" for line in stale), sep="\n", end="\n" if stale else "")
        if stale and not options.check:
            path.write_text(after, encoding="utf-8")
    return int(options.check and found > 0)


if __name__ == "__main__":
    sys.exit(main())
