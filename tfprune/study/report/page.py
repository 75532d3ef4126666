"""What does the page say? Its sentences, its figures and its tables, chapter by chapter, poured into the template."""

from importlib import resources

from tfprune.study import claims, verdicts
from tfprune.study.report import figures, svg, tables
from tfprune.study.report.cells import Cells, chapters, mean_and_deviation

_VERSIONS = ("tfprune", "tensorflow", "keras", "numpy", "python")
_RECIPE = ("optimizer", "learning_rate", "momentum", "weight_decay", "batch_size", "epochs", "patience", "decay")
_SETTINGS = ("layers", "criterion", "scope", "rounds", *_RECIPE, "detectors", "corruptions")
_MOST_FAILURES = 50
_NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "svhn": "SVHN",
}
_NAMES |= {"mlp": "the MLP", "cnn": "the CNN", "lenet": "LeNet", "moons": "two moons"}


def render(rows):
    """Returns the report on rows as the text of one HTML page that needs nothing but itself.

    Args:
        rows: Rows of a study, finished and failed ones, as `tfprune.study.read_rows` gives them.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfprune.study.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.jinja").render(
        chapters=[chapter(part, prefix) for prefix, part in numbered(rows)],
        palette=svg.PALETTE,
        figure_style=svg.style(),
        css=_text("page.css"),
        script=_text("page.js"),
    )


def chapter(rows, prefix=""):
    """Returns what the template needs to tell of one model on one data set."""
    cells = Cells(rows)
    potentials = verdicts.potentials(cells)
    lines, differences = tables.differences(cells, prefix)
    return {
        "prefix": prefix,
        "facts": facts(rows, cells),
        "headline": headline(cells, potentials, rows),
        "cells": cells,
        "legend": [(one, svg.colour(one), svg.swatch(one)) for one in cells.curves],
        "figures": figures.draw(cells, potentials, prefix),
        "steps": tables.steps(potentials, verdicts.measures(cells), prefix),
        "verdicts": lines,
        "measures": [
            one.title for one in verdicts.measures(cells) if any(one.title in line["found"] for line in lines)
        ],
        "quality": tables.quality(cells, prefix),
        "cost": tables.cost(cells, prefix),
        "ood": tables.out_of_distribution(cells, prefix),
        "corruptions": tables.corruptions(cells, prefix),
        "differences": differences,
        "claims": claims.judge(rows),
        "claims_setting": _claims_setting(claims.setting(rows)),
        "failures": failures(rows),
    }


def all_figures(rows):
    """Yields every figure of the report on these rows."""
    for prefix, part in numbered(rows):
        cells = Cells(part)
        yield from figures.flat(figures.draw(cells, verdicts.potentials(cells), prefix))


def numbered(rows):
    """Yields `(prefix, rows)` of each chapter; a single one needs no prefix to be told from others."""
    parts = list(chapters(rows).values())
    for index, part in enumerate(parts, start=1):
        yield f"c{index}-" if len(parts) > 1 else "", part


def headline(cells, potentials, rows):
    """Returns the answer of the first screen: a sentence, what limits it, and a few numbers.

    Args:
        cells: `Cells` of the chapter.
        potentials: What `verdicts.potentials` says of them.
        rows: All rows of the chapter.
    """
    ours = [one for one in potentials if not one.series.control] or potentials
    plain = {"big": "", "notes": [], "tiles": []}
    if not cells.rows:
        return {"lead": "Nothing is finished yet:", "tail": f"{_count(len(rows), 'trial')} failed.", **plain}
    if not ours:
        return {"lead": "Nothing to compare yet:", "tail": _why_nothing(cells), **plain}
    best = ours[0]
    first, *more = _notes(best, ours, cells)
    notes = [first, *_notes_on_failures(best, cells), *more, *_notes_on_controls(best, potentials)]
    notes = [note.replace(" %", "\u00a0%") for note in notes]
    return {**_answer(best, cells), "notes": notes, "tiles": _tiles(best, cells)}


def _why_nothing(cells):
    if cells.curves:
        return "no pruned network has a dense one of its seed beside it."
    if failed := cells.num_failed(pruned=True):
        return f"no pruned network is finished, {_count(failed, 'trial')} failed."
    return "there is no pruned network."


def _answer(best, cells):
    suffers = _either(list(dict.fromkeys(one.suffers for one in verdicts.measures(cells))))
    share = _share(cells)
    if not best.has_intervals:
        return {
            "lead": "By a single seed, up to",
            "big": f"{best.by_mean:.0%}",
            "tail": f"of {share} can go before {suffers} suffers.",
        }
    if not best.ratio:
        first = best.failed_ratio
        if best.is_sure:
            harmed = [one.suffers for one in best.limited_by if best.verdict(one) == verdicts.FAILS]
            lead = "No ratio tried is safe: already at"
            tail = f"{_and(harmed)} {'suffers' if len(harmed) == 1 else 'suffer'}."
        else:
            lead, tail = "Not shown safe at", f", the smallest ratio tried: {_why_open(best, cells)}."
        return {"lead": lead, "big": f"{first:.0%}", "tail": tail}
    return {"lead": "Up to", "big": f"{best.ratio:.0%}", "tail": f"of {share} can go before {suffers} suffers."}


def _why_open(best, cells):
    if best.failed_ratio not in best.failures:
        return f"{best.num_seeds} seeds do not tell"
    failed = len(cells.failed(best.series, best.failed_ratio))
    return f"{failed} of {_count(_num_tried(best.series, best.failed_ratio, cells), 'trial')} failed"


def _share(cells):
    layers = {row.get("layers", "all") for row in cells.rows}
    whole = {"all": "the channels", "dense": "the dense layers’ channels"}
    words = "; ".join(sorted(map(str, layers)))
    return whole.get(words, f"the channels in {words}")


def _notes_on_controls(best, potentials):
    """Whether a control goes as far: then it is not the strategy that does it."""
    as_far = [one.series.title for one in potentials if one.series.control and one.ratio >= best.ratio > 0]
    if not as_far or best.series.control:
        return []
    return [f"{'A control goes' if len(as_far) == 1 else 'Controls go'} as far: {_and(as_far)}."]


def _notes_on_failures(best, cells):
    """Where trials failed, of the answer's line ratio by ratio: the means of the others look better than all would."""
    tried = sorted({0, *cells.ratios, *cells.failed_ratios})
    ratios = [ratio for ratio in tried if cells.failed(best.series, ratio)]
    counts = [(len(cells.failed(best.series, ratio)), _num_tried(best.series, ratio, cells), ratio) for ratio in ratios]
    notes, elsewhere = [], cells.num_failed() - sum(failed for failed, _, _ in counts)
    if counts:
        failed, tried, ratio = counts[0]
        words = [f"{failed} of {_count(tried, 'trial')} of {best.series.title} failed at ratio {ratio:g}"]
        words += [f"{failed} of {tried} at {ratio:g}" for failed, tried, ratio in counts[1:]]
        notes.append(f"{', '.join(words)}; means are of the others.")
    if best.failed_ratio in best.failures:
        notes.append("A ratio at which a seed failed is not shown to hold, whatever the others say.")
    if elsewhere:
        notes.append(f"{_count(elsewhere, 'trial')} of other lines failed; they are in no mean.")
    return notes


def _num_tried(series, ratio, cells):
    return len(cells.failed(series, ratio)) + len(cells.at(series, ratio))


def _notes(best, ours, cells):
    """What stands below the answer: whose it is, how sure it is, and what ended the search."""
    if not best.has_intervals:
        return [f"{best.series.title.capitalize()}. One seed has no interval: this is a hint, and shows nothing."]
    among = f" (the farthest of {len(ours)} strategies)" if len(ours) > 1 else ""
    sure = "with 95 % confidence" if best.ratio else "at 95 % confidence"
    notes = [f"{best.series.title.capitalize()}{among}, {sure}, {_count(best.num_seeds, 'seed')}."]
    if len(ours) > 1 and (shared := verdicts.shared_potential(cells)) < best.ratio:
        notes.append(f"The farthest of {len(ours)} is easily too far: if they share the risk, it is {shared:.0%}.")
    if best.failed_ratio is None:
        notes.append("That is the largest ratio tried: the limit lies beyond it.")
    for one in best.limited_by[:2]:
        step = next(s for s in best.steps[one.column] if s.ratio == best.failed_ratio)
        notes.append(f"At {best.failed_ratio:.0%}, {_limit_words(one, step)}.")
    if best.by_mean > best.ratio:
        notes.append(f"By the means alone, without confidence, {best.by_mean:.0%}.")
    return notes


def _limit_words(measure, step):
    """What a measure does at the ratio that ended the search, in words."""
    falls = "falls" if measure.higher_is_better else "rises"

    def form(value):
        return f"{100 * value:.1f} %" if measure.relative else f"{value:.3f}"

    allowed = f"({100 * measure.limit:g} % is allowed)" if measure.relative else f"({measure.limit:g} is allowed)"
    if step.high is None:
        return f"{measure.title} {falls} by {form(step.harm)} in the one seed there is {allowed}"
    if step.verdict == verdicts.FAILS:
        return f"{measure.title} {falls} by {form(step.harm)}, surely by more than {form(step.low)} {allowed}"
    change = f"{falls} by {form(step.harm)} on average" if step.harm > 0 else "is no worse on average"
    return f"{measure.title} {change}, but {form(step.high)} cannot be ruled out {allowed}"


def _tiles(best, cells):
    """A few numbers of the network at its potential, beside the dense one."""
    ratio = best.ratio if best.has_intervals else best.by_mean
    if not ratio:
        return []
    tiles = []
    for column, title, form in (
        ("compression_ratio", "times smaller", "{:.1f}×"),
        ("theoretical_speedup", "fewer multiply-adds", "{:.1f}×"),
        ("accuracy", "accuracy", "{:.3f}"),
        ("rmse", "RMSE", "{:.3f}"),
        ("ece", "ECE", "{:.3f}"),
    ):
        mean = mean_and_deviation(list(cells.column(best.series, ratio, column).values()))[0]
        base = mean_and_deviation(list(cells.base(best.series, column).values()))[0]
        if mean is not None:
            beside = f"dense {form.format(base)}" if base is not None and "×" not in form else f"at {ratio:.0%}"
            tiles.append({"value": form.format(mean), "title": title, "beside": beside})
    return tiles


def facts(rows, cells):
    """Returns what was run: the grid, trainers, devices, versions, and how much of it failed."""
    first = rows[0] if rows else {}
    done = cells.rows
    return {
        "dataset": _name(first.get("dataset") or "the data"),
        "model": _name(first.get("model") or "the model"),
        "num_trials": len(rows),
        "num_done": len(done),
        "num_failed": sum(row.get("status") == "failed" for row in rows),
        "seeds": _span(cells.seeds),
        "num_seeds": len(cells.seeds),
        "ratios": ", ".join(f"{ratio:g}" for ratio in cells.ratios),
        "settings": [(_title(name), value) for name in _SETTINGS if (value := _values(rows, name))],
        "trainers": _counts([{"trainer": _trainer(row)} for row in done], "trainer"),
        "devices": _counts(done, "device"),
        **_epochs(done),
        "minutes": sum(row.get("wall_time") or 0 for row in rows) / 60,
        "num_cut": sum(bool(row.get("epochs")) and row.get("epochs_trained") == row.get("epochs") for row in done),
        "num_test": next((row.get("num_samples") for row in done if row.get("num_samples")), None),
        "versions": [(name, version) for name in _VERSIONS if (version := _versions(rows, name))],
        "different_recipe": claims.recipe_changes(rows),
    }


def failures(rows):
    """Returns failed trials by their reason, those of most trials first, at most fifty reasons."""
    found = {}
    for row in rows:
        if row.get("status") != "done":
            found.setdefault(str(row.get("error")), []).append(str(row.get("name") or row.get("key")))
    ordered = sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return [{"error": error, "count": len(keys), "keys": keys[:5]} for error, keys in ordered[:_MOST_FAILURES]]


def _epochs(rows):
    """Epochs that were trained, and those that sharing saved: every row counts those of its dense network."""
    counted = [row for row in rows if row.get("total_epochs") is not None]
    every = sum(row["total_epochs"] for row in counted)
    shared = [row for row in counted if row.get("dense_epochs")]
    once = {(row.get("seed"), *(str(row.get(name)) for name in _RECIPE)): row["dense_epochs"] for row in shared}
    saved = sum(row["dense_epochs"] for row in shared) - sum(once.values())
    return {"epochs": every - saved, "saved_epochs": saved}


def _values(rows, name):
    """The values of a setting, a few of them, as words."""
    values = dict.fromkeys(row[name] for row in rows if row.get(name) is not None and not isinstance(row[name], list))
    shown = [_value(value) for value in values]
    if name == "batch_size":
        shown = ["the whole set" if value == "0" else value for value in shown]
    return ", ".join(shown[:6]) + (f" … ({len(shown)} in all)" if len(shown) > 6 else "")


def _value(value):
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _versions(rows, name):
    nested = (row.get("versions") if isinstance(row.get("versions"), dict) else row for row in rows)
    return ", ".join(sorted({str(found[name]) for found in nested if found.get(name)}))


def _trainer(row):
    """What trained a row, and why no faster trainer did: the fastest that can is chosen by itself."""
    trainer, reason = row.get("trainer"), row.get("trainer_reason")
    # Older rows say why the compiled loop could be taken, which is no reason against a faster one.
    if not trainer or not reason or reason == "data and model fit a compiled loop":
        return trainer
    faster = {"fit": "compiled", "compiled": "batched"}.get(trainer)
    return f"{trainer} (not {faster}: {reason})" if faster and reason != "it was asked for" else f"{trainer} ({reason})"


def _claims_setting(setting):
    """Which rows the claims are about, in a sentence; None where the study has no others."""
    if not setting:
        return None
    words = _and([f"{name.replace('_', ' ')} {_value(value)}" for name, value in setting.items()])
    return f"This study varies more than the paper’s: the claims are judged on the rows of {words} alone."


def _counts(rows, name):
    found = {}
    for row in rows:
        if row.get(name):
            found[str(row[name])] = found.get(str(row[name]), 0) + 1
    return [
        f"{value} ({_count(count, 'trial')})" if len(found) > 1 else value for value, count in sorted(found.items())
    ]


def _title(setting):
    return "Epochs a round at most" if setting == "epochs" else setting.replace("_", " ").capitalize()


def _count(number, word):
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _name(name):
    return _NAMES.get(name, name)


def _span(seeds):
    """Seeds as words: "0–9" where none is missing."""
    whole = all(isinstance(seed, int) for seed in seeds)
    if len(seeds) > 2 and whole and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds[:12])) + (" …" if len(seeds) > 12 else "")


def _either(words):
    return ", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else "".join(words)


def _and(words):
    words = list(dict.fromkeys(words))
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else "".join(words)


def _text(name):
    return resources.files("tfprune.study.report").joinpath(name).read_text(encoding="utf-8")
