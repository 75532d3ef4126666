"""What does a study's folder say to a person? One HTML file that opens offline, drawn from the rows alone."""

import base64
import dataclasses
import io
import math
from pathlib import Path

import numpy as np

from tfprune.study import claims, grid, results

# Okabe and Ito's colours, told apart with any kind of colour vision; markers and dashes tell them apart in print.
_LOOKS = {
    "one_shot": ("#0072B2", "o", "-"),
    "one_shot_reinit": ("#009E73", "s", "--"),
    "one_shot_random": ("#D55E00", "^", ":"),
    "iterative": ("#CC79A7", "D", "-."),
    "iterative_finetune": ("#E69F00", "v", (0, (5, 1))),
}
_MORE_LOOKS = [("#56B4E9", "P", "-"), ("#000000", "X", "--"), ("#F0E442", "*", ":")]
_TITLES = {
    "one_shot": "one-shot",
    "one_shot_reinit": "one-shot, re-initialised",
    "one_shot_random": "one-shot, random",
    "iterative": "iterative",
    "iterative_finetune": "iterative, fine-tuned",
}


def write_report(folder):
    """Writes report.html from the rows in a results folder and returns its path.

    The file holds its pictures and needs no network. Everything in it is computed from results.jsonl.

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
    """Returns the report on rows of one study as the text of an HTML page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfprune.study", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    done = [row for row in rows if row.get("status") == "done"]
    return environment.get_template("report.html.jinja").render(
        facts=_facts(rows, done),
        claims=claims.judge(rows),
        figures=_figures(done) if done else [],
        table=summarise(done),
        failed=[row for row in rows if row.get("status") != "done"],
        titles=_TITLES,
    )


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
    cells = {}
    for row in rows:
        cells.setdefault((row["strategy"], row["ratio"]), []).append(row)
    ordered = sorted(cells, key=lambda cell: (_strategy_order(cell[0]), cell[1]))
    return [_summary(strategy, ratio, cells[strategy, ratio]) for strategy, ratio in ordered]


def _summary(strategy, ratio, rows):
    names = ["accuracy", "ece", "nll", "early_stop_epoch", "parameters", "compression_ratio", "theoretical_speedup"]
    names += auroc_columns(rows)
    return {
        "strategy": strategy,
        "ratio": ratio,
        "num_seeds": len(rows),
        **{name: _mean_and_deviation([row.get(name) for row in rows]) for name in names},
    }


def _mean_and_deviation(values):
    values = [value for value in values if value is not None]
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def auroc_columns(rows):
    """Returns the names of the columns that hold an OOD set's AUROC."""
    return sorted({name for row in rows for name in row if name.endswith("/auroc_msp") and name[:6] != "dense_"})


def _strategy_order(name):
    known = list(_LOOKS)
    return (known.index(name), name) if name in known else (len(known), name)


def _strategies(rows):
    return sorted({row["strategy"] for row in rows}, key=_strategy_order)


def _look(strategy, strategies):
    others = [name for name in strategies if name not in _LOOKS]
    return _LOOKS[strategy] if strategy in _LOOKS else _MORE_LOOKS[others.index(strategy) % len(_MORE_LOOKS)]


def _facts(rows, done):
    """Returns what stands at the top of the report."""
    first = rows[0] if rows else {}
    recipe = (
        f"{first.get('optimizer')} at learning rate {first.get('learning_rate')}"
        + (f", momentum {first['momentum']}" if first.get("momentum") else "")
        + (f", batches of {first['batch_size']}" if first.get("batch_size") else ", full batch")
        + f", at most {first.get('epochs')} epochs a round, patience {first.get('patience')}"
    )
    versions = ("tfprune", "tensorflow", "keras", "numpy", "python")
    return {
        "dataset": first.get("dataset"),
        "model": first.get("model"),
        "layers": first.get("layers"),
        "recipe": recipe,
        "num_trials": len(rows),
        "num_done": len(done),
        "seeds": sorted({row["seed"] for row in rows if "seed" in row}),
        "ratios": sorted({row["ratio"] for row in rows if "ratio" in row}),
        "strategies": _strategies(rows),
        "changes": _recipe_changes(first),
        "num_cut": sum(row.get("epochs_trained") == row.get("epochs") for row in done),
        "minutes": sum(row.get("wall_time") or 0 for row in rows) / 60,
        "num_test": next((row.get("num_samples") for row in done), None),
        "versions": {name: ", ".join(sorted({str(row[name]) for row in rows if name in row})) for name in versions},
        "margin": claims.ACCURACY_MARGIN,
        "columns": auroc_columns(done),
    }


def _recipe_changes(row):
    """Returns what was trained otherwise than in the named study on the same data, as words."""
    usual = next((study.recipe for study in grid.STUDIES.values() if study.dataset == row.get("dataset")), None)
    fields = dataclasses.asdict(usual) if usual else {}
    return [f"{name} {row[name]:g}, not {value:g}" for name, value in fields.items() if _differs(row.get(name), value)]


def _differs(value, usual):
    return value is not None and not isinstance(value, str) and value != usual


def _figures(rows):
    """Returns the figures as dicts with title, text and image."""
    dense = _dense_means(rows)
    plain = [
        (
            "Epochs to the early stop",
            "The epoch of the lowest validation loss in the last round: how long the pruned network learns.",
            ["early_stop_epoch"],
            {"ylabel": "epochs", "whole": True},
        ),
        ("Accuracy", "On the test set. The grey line is the dense network of the same seeds.", ["accuracy"], {}),
        (
            "Calibration error",
            "Expected calibration error (15 equal-width bins): how far confidence is from accuracy. Lower is better. "
            "The grey line is the dense network.",
            ["ece"],
            {"ylabel": "ECE"},
        ),
    ]
    plain += [
        (
            f"Noticing what is strange: {name.split('/')[0]}",
            f"AUROC of the maximum softmax probability on {name.split('/')[0]}, the out-of-distribution set. "
            "1 is perfect, 0.5 (dotted) is chance; below it the network is surer of strange inputs than of known ones.",
            [name],
            {"ylabel": "AUROC", "chance": 0.5},
        )
        for name in auroc_columns(rows)
    ]
    figures = [
        {"title": title, "text": text, "image": _curve(rows, names[0], dense.get(names[0]), **options)}
        for title, text, names, options in plain
    ]
    reliability = _reliability(rows)
    return {"curves": figures, "reliability": reliability}


def _dense_means(rows):
    """Returns the dense network's mean of each column, over seeds: its rows repeat in every cell of a seed."""
    by_seed = {row["seed"]: row for row in rows}
    names = {name[6:] for row in rows for name in row if name.startswith("dense_")} - {"early_stop_epoch"}
    return {name: _mean_and_deviation([row.get(f"dense_{name}") for row in by_seed.values()])[0] for name in names}


def _curve(rows, name, dense, ylabel=None, whole=False, chance=None):
    """Draws one column against ratio: a line per strategy, error bars of one sample standard deviation."""
    figure, axes = _canvas(6.2, 3.9)
    strategies = _strategies(rows)
    highest, lowest = 0.0, math.inf
    for index, strategy in enumerate(strategies):
        cells = [cell for cell in summarise_column(rows, strategy, name) if cell[1] is not None]
        if not cells:
            continue
        color, marker, dashes = _look(strategy, strategies)
        # a small step aside keeps error bars of different strategies from covering each other
        ratios = [ratio + (index - (len(strategies) - 1) / 2) * 0.008 for ratio, _, _ in cells]
        means, deviations = [mean for _, mean, _ in cells], [deviation or 0 for _, _, deviation in cells]
        highest, lowest = max(highest, *means), min(lowest, *means)
        axes.errorbar(
            ratios, means, yerr=deviations, color=color, marker=marker, linestyle=dashes, markersize=5, linewidth=1.6,
            elinewidth=1, capsize=2.5, label=_TITLES.get(strategy, strategy),
        )  # fmt: skip
    if dense is not None:
        axes.axhline(dense, color="#888888", linewidth=1.2, zorder=0, label="dense")
    if chance is not None:
        axes.axhline(chance, color="#444444", linewidth=1, linestyle=":", zorder=0)
    if whole and highest > 10 * lowest > 0:
        # bars that reach below the first epoch would stretch a logarithmic axis over nothing
        axes.set(yscale="log", ylim=(1, None))
    elif whole:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("ratio (share of channels removed)")
    axes.set_ylabel(ylabel or name)
    axes.legend(frameon=False, fontsize=8.5, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _image(figure)


def summarise_column(rows, strategy, name):
    """Returns [(ratio, mean, sample standard deviation)] of one column of one strategy."""
    ratios = sorted({row["ratio"] for row in rows if row["strategy"] == strategy})
    return [
        (ratio, *_mean_and_deviation([r.get(name) for r in rows if (r["strategy"], r["ratio"]) == (strategy, ratio)]))
        for ratio in ratios
    ]


def pool_reliability(rows):
    """Returns the reliability table of several rows as if their samples were one set.

    Bins are pooled by their counts, so that a bin that is empty for one seed weighs nothing there; a bin that is empty
    for all is NaN, never an accuracy of 0.

    Args:
        rows: Finished rows with reliability_count, reliability_confidence and reliability_accuracy.

    Returns:
        Arrays (count, confidence, accuracy), one value per bin.

    Example:

    >>> count, confidence, accuracy = pool_reliability(rows)
    """
    counts = np.array([row["reliability_count"] for row in rows], float)

    def pooled(name):
        values = np.array([[math.nan if v is None else v for v in row[name]] for row in rows], float)
        with np.errstate(invalid="ignore"):
            return np.where(counts > 0, values * counts, 0).sum(axis=0) / counts.sum(axis=0)

    return counts.sum(axis=0), pooled("reliability_confidence"), pooled("reliability_accuracy")


def _reliability(rows):
    """Draws a reliability diagram per strategy and a few ratios, all seeds pooled."""
    rows = [row for row in rows if row.get("reliability_count")]
    strategies, ratios = _strategies(rows), _few(sorted({row["ratio"] for row in rows}))
    if not rows:
        return None
    figure, grid = _canvas(2.15 * len(ratios) + 0.9, 2.15 * len(strategies) + 0.5, len(strategies), len(ratios))
    for i, strategy in enumerate(strategies):
        for j, ratio in enumerate(ratios):
            axes = grid[i][j]
            cell = [row for row in rows if (row["strategy"], row["ratio"]) == (strategy, ratio)]
            _reliability_diagram(axes, cell, _look(strategy, strategies)[0])
            if i == 0:
                axes.set_title(f"ratio {ratio:g}", fontsize=10)
            if j == 0:
                axes.set_ylabel(_TITLES.get(strategy, strategy) + "\naccuracy", fontsize=8.5)
            if i == len(strategies) - 1:
                axes.set_xlabel("confidence", fontsize=8.5)
    return {"image": _image(figure), "width": int(210 * len(ratios) + 90)}


def _reliability_diagram(axes, rows, color):
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
    axes.tick_params(labelsize=8)
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, zorder=0)
    if not rows:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", fontsize=8, color="#888888")
        return
    count, confidence, accuracy = pool_reliability(rows)
    share = count / count.sum()
    # Grey bars: where the samples are. Dots: the bins that hold any, larger where they hold more.
    axes.bar((np.arange(len(count)) + 0.5) / len(count), share, width=1 / len(count), color="#dddddd", zorder=0)
    full = count > 0
    axes.plot(confidence[full], accuracy[full], color=color, linewidth=1, alpha=0.6)
    axes.scatter(confidence[full], accuracy[full], s=10 + 60 * np.sqrt(share[full]), color=color, zorder=3)


def _few(values, most=5):
    """Returns at most five of the values, first and last among them, evenly apart."""
    if len(values) <= most:
        return values
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]


def _canvas(width, height, rows=None, columns=None):
    """Returns a figure and its axes; made by hand, so that no global state of matplotlib is touched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if rows:
        return figure, figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    return figure, axes


def _image(figure):
    """Returns the figure as a data URI that an <img> shows without a network."""
    import matplotlib

    buffer = io.BytesIO()
    # a fixed salt: the same rows give the same bytes
    with matplotlib.rc_context({"svg.hashsalt": "tfprune", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
