"""What does a study's table show in a terminal?"""

from tfprune.cli.answer import printed

_WITH_DEVIATION = ("accuracy", "early_stop_epoch")


def summary_table(rows):
    """Returns a table of the means over seeds as text, and its cells as a list of flat dicts.

    Args:
        rows: The rows of the trials that are done.
    """
    from tfprune.study import report

    columns = {
        "accuracy": (3, "accuracy"),
        "early_stop_epoch": (0, "epochs to\nearly stop"),
        "ece": (3, "\nECE"),
        **{name: (3, f"AUROC\n{name.split('/')[0]}") for name in report.auroc_columns(rows)},
        "compression_ratio": (2, "times\nsmaller"),
        "theoretical_speedup": (2, "fewer\nops"),
    }
    cells = report.summarise(rows)
    text = printed(_print, cells, columns)[1]
    return f"{text}\nMeans over seeds, ± one sample standard deviation.", [_flat(cell, columns) for cell in cells]


def _print(cells, columns):
    from rich import console, table

    # 80 characters hold it: the report has the other deviations
    shown = table.Table("strategy", "ratio", *(title for _, title in columns.values()), box=None, padding=(0, 1, 0, 0))
    for cell in cells:
        values = [_number(cell[name], digits, name in _WITH_DEVIATION) for name, (digits, _) in columns.items()]
        shown.add_row(cell["strategy"], f"{cell['ratio']:g}", *values)
    console.Console().print(shown)


def _number(pair, digits, deviation):
    if pair[0] is None:
        return "-"
    return f"{pair[0]:.{digits}f}" + (f" ± {pair[1]:.{digits}f}" if deviation and pair[1] is not None else "")


def _flat(cell, columns):
    return {
        "strategy": cell["strategy"],
        "ratio": cell["ratio"],
        **{name: cell[name][0] for name in columns},
        **{f"{name}_deviation": cell[name][1] for name in columns},
    }
