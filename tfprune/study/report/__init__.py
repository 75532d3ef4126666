"""What does a study's folder say to a person? One HTML page that opens offline, and its tables and figures.

cells.py says which rows a point stands on; figures.py draws (how_far.py, curves.py, against.py, reliability.py and
widths.py, on svg.py); tables.py and page.py put it into words, page.html.jinja on the page; exports.py into files.
"""

from pathlib import Path

from tfprune.study import results
from tfprune.study.report.cells import Cells, mean_and_deviation
from tfprune.study.report.exports import write_tables

__all__ = ["auroc_columns", "render", "summarise", "write_report", "write_tables"]


def write_report(folder):
    """Writes report.html from the rows in a results folder and returns its path.

    The file holds its pictures and needs no network. Everything in it is computed from results.jsonl, and the same rows
    give the same bytes.

    Args:
        folder: Folder that holds results.jsonl.

    Returns:
        Path of report.html in the same folder.

    Raises:
        ResultsError: No results, damaged results, or a folder that cannot be written.

    Example:

    >>> tfprune.study.write_report("runs/moons")
    PosixPath('runs/moons/report.html')
    """
    path = Path(folder) / "report.html"
    results.write_whole(render(results.read_rows(folder)), path)
    return path


def render(rows):
    """Returns the report on rows of one study as the text of an HTML page.

    Args:
        rows: Rows as `tfprune.study.read_rows` gives them, failed ones included.
    """
    from tfprune.study.report import page

    return page.render(rows)


def summarise(rows):
    """Returns one dict per strategy and ratio: mean and sample standard deviation over seeds of the main columns.

    Args:
        rows: Finished rows of one study.

    Returns:
        List of dicts with strategy, ratio, num_seeds, and for each column a pair (mean, sample standard deviation);
        the standard deviation of one seed is None.

    Example:

    >>> summarise(read_rows("runs/moons"))[0]["accuracy"]
    (0.969, 0.004)
    """
    cells = Cells([{**row, "status": "done"} for row in rows])
    names = ["accuracy", "ece", "nll", "early_stop_epoch", "parameters", "compression_ratio", "theoretical_speedup"]
    names += auroc_columns(rows)
    return [
        {
            "strategy": series.name,
            "ratio": ratio,
            "num_seeds": len(found),
            **{name: mean_and_deviation([row.get(name) for row in found])[:2] for name in names},
        }
        for series in cells.series
        for ratio in cells.ratios
        if (found := cells.at(series, ratio))
    ]


def auroc_columns(rows):
    """Returns the names of the columns that hold an OOD set's AUROC."""
    return sorted({name for row in rows for name in row if name.endswith("/auroc_msp") and name[:6] != "dense_"})
