"""What does a study's table show in a terminal?"""

from tfprune.cli.answer import printed

_WITH_DEVIATION = ("accuracy", "rmse", "early_stop_epoch")


def summary_table(rows):
    """Returns a table of the means over seeds as text, and its cells as a list of flat dicts.

    Args:
        rows: The rows of the trials that are done.
    """
    from tfprune.study.report.cells import Cells, chapters

    tables, cells = [], []
    several = len(chapters(rows)) > 1
    for (dataset, model), part in chapters(rows).items():
        found = Cells(part)
        columns = _columns(found)
        mine = _cells(found, columns)
        text = printed(_print, mine, columns)[1]
        tables.append(f"{dataset}, {model}:\n{text}" if several else text)
        cells += [{"dataset": dataset, "model": model, **cell} for cell in mine]
    return "\n".join([*tables, "Means over seeds, ± one sample standard deviation."]), cells


def _columns(found):
    """`{column: (digits, title)}` of what a terminal has room for."""
    from tfprune.study.report import auroc_columns

    stop, size = {"early_stop_epoch": (0, "epochs to\nearly stop")}, {"compression_ratio": (2, "times\nsmaller")}
    faster = {"theoretical_speedup": (2, "fewer\nops")}
    if found.is_regression:
        error = {"interval_calibration_error": (3, "calibration\nerror")}
        return {"rmse": (3, "\nRMSE"), **stop, "crps": (3, "\nCRPS"), **error, **size, **faster}
    auroc = {name: (3, f"AUROC\n{name.split('/')[0]}") for name in auroc_columns(found.rows)}
    return {"accuracy": (3, "\naccuracy"), **stop, "ece": (3, "\nECE"), **auroc, **size, **faster}


def _cells(found, columns):
    """One flat dict per line and ratio: strategy, ratio, seeds, and mean and deviation of each column."""
    from tfprune.study.report.cells import mean_and_deviation

    cells = []
    for series in found.series:
        for ratio in found.ratios:
            rows = found.at(series, ratio)
            if rows:
                cell = {"strategy": series.name, "ratio": ratio, "num_seeds": len(rows)}
                for name in columns:
                    mean, deviation, _ = mean_and_deviation([row.get(name) for row in rows])
                    cell |= {name: mean, f"{name}_deviation": deviation}
                cells.append(cell)
    return cells


def _print(cells, columns):
    from rich import console, measure

    output = console.Console(markup=False, highlight=False)
    endless = output.options.update(max_width=10_000)
    columns, table = dict(columns), _table(cells, columns)
    for name in _spare(columns):
        if measure.Measurement.get(output, endless, table).maximum <= output.width:
            break
        del columns[name]
        table = _table(cells, columns)
    output.print(table)


def _spare(columns):
    """What a narrow terminal leaves out, one after another; the report has it all."""
    aurocs = [name for name in columns if "/" in name]
    return ["theoretical_speedup", *aurocs[:0:-1], "compression_ratio"]


def _table(cells, columns):
    from rich import table

    shown = table.Table(box=None, padding=(0, 1, 0, 0))
    for title in ("\nstrategy", "\nratio", *(title for _, title in columns.values())):
        shown.add_column(title, no_wrap=title != "\nstrategy")
    for cell in cells:
        values = [_number(cell, name, digits) for name, (digits, _) in columns.items()]
        shown.add_row(cell["strategy"], f"{cell['ratio']:g}", *values)
    return shown


def _number(cell, name, digits):
    mean, deviation = cell[name], cell[f"{name}_deviation"]
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if name in _WITH_DEVIATION and deviation else "")
