"""Which files besides the page tell of a study? Rows for other programs, tables for papers, figures one by one."""

import importlib.util
import json
from pathlib import Path

from tfprune.study import results, verdicts
from tfprune.study.report import page, svg, tables
from tfprune.study.report.cells import Cells
from tfprune.writing import replacing


def write_tables(folder):
    """Writes the rows of a results folder as files for other programs, and its tables and figures for papers.

    results.csv and, where pyarrow is installed, results.parquet hold every row; summary.md and summary.tex (for the
    LaTeX package booktabs) the tables of the report; figures/NAME.svg its figures, on white paper with their legends.
    Each file is whole or not there, and the same rows give the same bytes.

    Args:
        folder: Folder that holds results.jsonl.

    Returns:
        List of the paths written.

    Raises:
        ResultsError: No results, damaged results, or a folder that cannot be written.

    Example:

    >>> tfprune.study.write_tables("runs/moons")[0]
    PosixPath('runs/moons/results.csv')
    """
    folder = Path(folder)
    rows = results.read_rows(folder)
    written = [folder / "results.csv"]
    results.write_csv(rows, written[0])
    if importlib.util.find_spec("pyarrow"):
        written.append(folder / "results.parquet")
        _write_parquet(rows, written[-1])
    found = all_tables(rows)
    texts = {
        "summary.md": "\n".join(f"## {table.title}\n\n{tables.to_markdown(table)}" for table in found),
        "summary.tex": "\n".join(tables.to_latex(table, svg.file_name(table.name)) for table in found),
    }
    texts |= {f"figures/{figure.name}.svg": svg.standalone(figure.svg) for figure in page.all_figures(rows)}
    for name, text in texts.items():
        written.append(folder / name)
        results.write_whole(text, written[-1])
    return written


def all_tables(rows):
    """Returns the tables of the report on these rows: potential, quality, cost, detection of strangers, differences."""
    found = []
    for prefix, part in page.numbered(rows):
        cells = Cells(part)
        potentials, measures = verdicts.potentials(cells), verdicts.measures(cells)
        differences = tables.differences(cells, prefix)[1]
        chapter = [
            tables.potential(potentials, measures, prefix),
            tables.steps(potentials, measures, prefix),
            tables.quality(cells, prefix),
            tables.cost(cells, prefix),
            *tables.out_of_distribution(cells, prefix),
            *tables.corruptions(cells, prefix),
            differences,
        ]
        if prefix:
            where = f"{part[0].get('model')} on {part[0].get('dataset')}"
            chapter = [tables.retitled(table, f"{table.title}: {where}") for table in chapter]
        found += [table for table in chapter if table.rows]
    return found


def _write_parquet(rows, path):
    import pandas as pd

    table = pd.DataFrame(rows)
    for name in table.columns:
        kinds = {_kind(value) for value in table[name] if value is not None and value == value}
        if len(kinds) > 1 or kinds & {"other"}:
            # One type a column: what is a list in one row and a number in the next goes as JSON text.
            table[name] = [None if value is None or value != value else json.dumps(value) for value in table[name]]
    with results.errors_of(path), replacing(path) as partial:
        table.to_parquet(partial, index=False, engine="pyarrow")


def _kind(value):
    if isinstance(value, (bool, str, list)):
        return type(value).__name__
    return "number" if isinstance(value, (int, float)) else "other"
