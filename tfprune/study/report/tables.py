"""Which tables does a study's report hold, and how do they read in HTML, Markdown and LaTeX?"""

import dataclasses

from tfprune.study import verdicts
from tfprune.study.report.cells import mean_and_deviation, ood_columns
from tfprune.study.report.reliability import few

NONE = "–"
# column, heading, digits, whether the deviation is told
_QUALITY = (
    ("accuracy", "accuracy", 3, True),
    ("ece", "ECE", 3, True),
    ("ece_floor", "ECE floor", 3, False),
    ("ece_excess", "ECE excess", 3, True),
    ("uce", "UCE", 3, True),
    ("nll", "NLL", 3, True),
    ("brier", "Brier", 3, True),
    ("rmse", "RMSE", 3, True),
    ("gaussian_nll", "NLL", 3, True),
    ("crps", "CRPS", 3, True),
    ("interval_calibration_error", "interval calibration error", 3, True),
    ("picp_90", "coverage of 90 %", 3, True),
    ("mpiw_90", "width of 90 %", 3, True),
    ("ence", "ENCE", 3, True),
)
_COST = (
    ("channels_kept", "channels", 0, False),
    ("parameters", "parameters", 0, False),
    ("multiply_adds", "multiply-adds", 0, False),
    ("compression_ratio", "compression ratio", 2, False),
    ("theoretical_speedup", "theoretical speed-up", 2, False),
    ("latency_ms", "latency (ms)", 3, True),
    ("measured_speedup", "measured speed-up", 2, True),
    ("total_epochs", "epochs in all", 0, True),
    ("wall_time", "seconds", 1, True),
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell: what is written, and the number it sorts by (None sorts by the text)."""

    text: str
    value: float | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for every format.

    Args:
        name: Name, unique in the report.
        title: What it holds.
        columns: Headings.
        rows: Lists of `Cell`, one per heading.
        filter: Number of the column by whose values the page lets one choose; None has no choice.
    """

    name: str
    title: str
    columns: list
    rows: list
    filter: int | None = None


def potential(potentials, measures, prefix=""):
    """Returns the table of how far each line goes: its prune potential, what ends it, and each measure alone.

    Args:
        potentials: What `verdicts.potentials` says.
        measures: What `verdicts.measures` says.
        prefix: What the table's name starts with.
    """
    columns = [
        "strategy",
        "prune potential",
        "by the means alone",
        "ended by",
        *(f"{one.title} alone" for one in measures),
    ]
    rows = [
        [
            Cell(one.series.title + (" (control)" if one.series.control else "")),
            Cell(f"{one.ratio:g}", one.ratio),
            Cell(f"{one.by_mean:g}", one.by_mean),
            Cell(", ".join(_ended_by(one)) or NONE),
            *(Cell(f"{(alone := one.alone(measure)):g}", alone) for measure in measures),
        ]
        for one in potentials
    ]
    return Table(f"{prefix}potential", "Prune potential", columns, rows)


def _ended_by(potential):
    failed = ["failed trials"] if potential.failed_ratio in potential.failures else []
    return [*failed, *(measure.title for measure in potential.limited_by)]


def steps(potentials, measures, prefix=""):
    """Returns the table behind the potentials: each measure's harm at each ratio, its interval, and the verdict."""
    words = {verdicts.HOLDS: "holds", verdicts.OPEN: "not shown", verdicts.FAILS: "suffers"}
    rows = [
        [
            Cell(one.series.title),
            Cell(measure.title),
            Cell(f"{step.ratio:g}", step.ratio),
            Cell(str(step.count), step.count),
            *(_signed(value) for value in (step.harm, step.low, step.high)),
            Cell(f"{measure.limit:g}", measure.limit),
            Cell(words[step.verdict]),
        ]
        for one in potentials
        for measure in measures
        for step in one.steps.get(measure.column, ())
    ]
    columns = ["strategy", "measure", "ratio", "seeds", "harm", "from", "to", "allowed", "verdict"]
    return Table(f"{prefix}steps", "Harm at every ratio", columns, rows, 0)


def retitled(table, title):
    """Returns the table under another title."""
    return dataclasses.replace(table, title=title)


def quality(cells, prefix=""):
    """Returns the table of how good each cell of the study is: mean ± sample standard deviation over seeds."""
    columns = [entry for entry in _QUALITY if cells.has(entry[0])]
    for name, scores in ood_columns(cells.columns).items():
        columns.append((f"{name}/auroc_{scores[0]}", f"AUROC {name}", 3, True))
    if cells.has("early_stop_epoch"):
        columns.append(("early_stop_epoch", "epochs to early stop", 0, True))
    return _by_cell(cells, columns, f"{prefix}quality", "Quality")


def cost(cells, prefix=""):
    """Returns the table of what each cell of the study costs."""
    columns = [entry for entry in _COST if cells.has(entry[0])]
    return _by_cell(cells, columns, f"{prefix}cost", "Cost")


def corruptions(cells, prefix=""):
    """Returns tables of accuracy and ECE on damaged inputs: a line per strategy and damage, a column per ratio."""
    ratios, found = few(cells.ratios, 7), []
    stems = {name.rpartition("/")[0] for name in cells.columns if name.startswith("shift/")}
    stems = [(stem, _severity(stem)[1]) for stem in sorted(stems, key=_severity)]
    for metric, title in (("accuracy", "Accuracy"), ("ece", "ECE")):
        rows = [
            [Cell(series.title), Cell(stem.split("/")[1].replace("_", " ")), Cell(f"{severity:g}", severity)]
            + [_of(cells, series, ratio, f"{stem}/{metric}") for ratio in ratios]
            for series in cells.series
            for stem, severity in stems
        ]
        rows = [row for row in rows if any(cell.value is not None for cell in row[3:])]
        columns = ["strategy", "corruption", "severity", *(f"ratio {ratio:g}" for ratio in ratios)]
        if rows:
            found.append(Table(f"{prefix}shift-{metric}", f"{title} on damaged inputs", columns, rows, 0))
    return found


def _severity(stem):
    """`(corruption, severity)` of shift/CORRUPTION/SEVERITY, to sort by."""
    _, corruption, severity = [*stem.split("/"), "0"][:3]
    return corruption, float(severity) if severity.replace(".", "", 1).isdigit() else 0.0


def out_of_distribution(cells, prefix=""):
    """Returns two tables per OOD set, AUROC and FPR95: a line per strategy and detector, a column per ratio."""
    ratios, found = few(cells.ratios, 7), []
    for name, scores in ood_columns(cells.columns).items():
        for metric, title, better in (("auroc", "AUROC", "higher"), ("fpr95", "FPR95", "lower")):
            rows = [
                [Cell(series.title), Cell(score), *(_of(cells, series, r, f"{name}/{metric}_{score}") for r in ratios)]
                for series in cells.series
                for score in scores
            ]
            rows = [row for row in rows if any(cell.value is not None for cell in row)]
            columns = ["strategy", "detector", *(f"ratio {ratio:g}" for ratio in ratios)]
            if rows:
                found.append(
                    Table(f"{prefix}{name}-{metric}", f"{title} on {name} ({better} is better)", columns, rows, 0)
                )
    return found


def differences(cells, prefix=""):
    """Returns the table of paired differences, every strategy to every control at every ratio, and one-line verdicts.

    The verdicts are dicts: "series", "control", and "found", `{measure: (word, half a sentence)}`.
    """
    lines, rows = {}, []
    for control, title in controls(cells):
        for measure in verdicts.measures(cells):
            found = verdicts.differences(cells, control, measure)
            for series in dict.fromkeys(one.series for one in found):
                part = [one for one in found if one.series == series]
                line = lines.setdefault((series, title), {"series": series.title, "control": title, "found": {}})
                line["found"][measure.title] = verdicts.sentence(part)
                rows += [_difference_row(one, title) for one in part]
    columns = ["strategy", "minus", "measure", "ratio", "seeds", "difference", "95 % from", "to"]
    return list(lines.values()), Table(f"{prefix}differences", "Paired differences to the controls", columns, rows, 1)


def _difference_row(one, title):
    low, high = one.bounds or (None, None)
    numbers = [_signed(one.mean), _signed(low), _signed(high)]
    where = [Cell(f"{one.ratio:g}", one.ratio), Cell(str(len(one.values)), len(one.values))]
    return [Cell(one.series.title), Cell(title), Cell(one.measure.title), *where, *numbers]


def controls(cells):
    """Returns what the strategies are held against: (line or "dense", name in words), the dense network first."""
    lines = [one for one in cells.controls if one.name != "dense"]
    return [("dense", "the dense network"), *((one, one.title) for one in lines)]


def _by_cell(cells, columns, name, title):
    rows = [
        [
            Cell(series.title),
            Cell(f"{ratio:g}", ratio),
            Cell(str(len(cells.at(series, ratio))), len(cells.at(series, ratio))),
            *(
                _number(list(cells.column(series, ratio, column).values()), digits, told)
                for column, _, digits, told in columns
            ),
        ]
        for series, ratio in _keys(cells)
    ]
    return Table(name, title, ["strategy", "ratio", "seeds", *(heading for _, heading, _, _ in columns)], rows)


def _keys(cells):
    return [(series, ratio) for series in cells.series for ratio in cells.ratios if cells.at(series, ratio)]


def _of(cells, series, ratio, column):
    values = cells.column(series, ratio, column) if ratio else cells.base(series, column)
    return _number(list(values.values()), 3, True)


def _number(values, digits, told):
    mean, deviation, count = mean_and_deviation(values)
    if not count:
        return Cell(NONE)
    shown = f"{mean:,.{digits}f}"
    return Cell(f"{shown} ± {deviation:,.{digits}f}" if told and deviation is not None else shown, mean)


def _signed(value):
    # Adding 0.0 takes the sign from a zero.
    return Cell(NONE) if value is None else Cell(f"{round(value, 3) + 0.0:+.3f}", value)


def to_markdown(table):
    """Returns a table as Markdown text."""

    def line(cells):
        return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"

    align = [":---" if _is_text(table, i) else "---:" for i in range(len(table.columns))]
    return (
        "\n".join([line(table.columns), line(align), *(line(cell.text for cell in row) for row in table.rows)]) + "\n"
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_LATEX |= {"±": r"$\pm$", "–": "--", "→": r"$\to$", "×": r"$\times$", "−": "$-$", "<": r"$<$", ">": r"$>$"}


def to_latex(table, label):
    """Returns a table as LaTeX text, for the package booktabs."""

    def line(cells):
        return " & ".join(latex_text(text) for text in cells) + r" \\"

    align = "".join("l" if _is_text(table, i) else "r" for i in range(len(table.columns)))
    head = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(table.title)}}}", rf"\label{{tab:{label}}}"]
    body = [rf"\begin{{tabular}}{{{align}}}", r"\toprule", line(table.columns), r"\midrule"]
    body += [line(cell.text for cell in row) for row in table.rows]
    return "\n".join([*head, *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def latex_text(text):
    """Returns text in which LaTeX reads every sign as it stands."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _is_text(table, index):
    return all(row[index].value is None for row in table.rows)
