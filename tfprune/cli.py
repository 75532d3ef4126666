"""What can tfprune do from the command line? Heavy packages load only once a command needs them."""

import argparse
import os
import sys
from pathlib import Path

from tfprune import __version__

_STUDIES = ("moons", "digits", "cifar10")
_DATASETS = ("moons", "digits", "cifar10")
_WITH_DEVIATION = ("accuracy", "early_stop_epoch")


def main(arguments=None):
    """Runs one command and returns its exit code.

    0 is success, 1 a check that found something wrong, 2 what the user can mend, 130 Ctrl-C.

    Args:
        arguments: List of words after `tfprune`; those of the process by default.

    Example:

    >>> main(["study", "moons", "--quick"])
    """
    options = _parser().parse_args(arguments)
    # Before TensorFlow loads: its start-up notes are no answer to any command.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return options.run(options) or 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"tfprune: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ntfprune: stopped.{getattr(options, 'resume_hint', '')}", file=sys.stderr)
        return 130


def _one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


def _parser():
    parser = argparse.ArgumentParser(
        prog="tfprune",
        description="Removes whole channels from Keras models and tells what that did to their confidences.",
    )
    parser.add_argument("--version", action="version", version=f"tfprune {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        _add_study,
        _add_inspect,
        _add_prune,
        _add_verify_models,
        _add_verify_metrics,
        _add_evaluate,
        _add_report,
    ):
        add(commands)
    return parser


def _add_study(commands):
    command = commands.add_parser(
        "study",
        help="run a study (strategy x ratio x seed) and write its report",
        description="Runs a study and writes results.jsonl, results.csv and report.html. A study that was stopped goes "
        "on when the same command runs again.",
    )
    command.add_argument("name", choices=_STUDIES, metavar="NAME", help="moons, digits or cifar10")
    lists = {"nargs": "+", "action": _Joined, "metavar": "LIST"}
    command.add_argument("--seeds", type=_seeds, help="such as 0,1,2 or 0-9", **lists)
    command.add_argument("--ratios", type=_numbers, help="shares of channels to remove, such as 0,0.5", **lists)
    command.add_argument("--strategies", type=_words, help="such as one_shot,iterative", **lists)
    command.add_argument("--layers", metavar="WHICH", help="what may be pruned: all, dense, or layer names")
    command.add_argument("--epochs", type=int, metavar="N", help="most epochs in a round")
    command.add_argument("--jobs", type=int, metavar="N", help="trials at a time (default: one per core, at most 4)")
    command.add_argument("--out", metavar="DIR", help="folder for the results (default: runs/NAME)")
    command.add_argument("--quick", action="store_true", help="a small grid with fewer epochs, in runs/NAME-quick")
    command.add_argument("--retry-failed", action="store_true", help="run trials again that failed before")
    command.set_defaults(run=_study)


def _add_inspect(commands):
    command = commands.add_parser(
        "inspect",
        help="show what of a saved model can be pruned, what that frees, and why the rest cannot",
        description="Lists the groups of channels that are pruned together, the parameters and multiply-adds that each "
        "can free, what is pinned and why, and the smallest size that can be reached.",
    )
    command.add_argument("model", metavar="MODEL.keras")
    command.add_argument("--draw", metavar="PICTURE.svg", help="also draw the network, coupled layers in one colour")
    command.add_argument(
        "--approximate", action="store_true", help="count channels too that a normalisation mixes: pruning is inexact"
    )
    command.set_defaults(run=_inspect)


def _add_prune(commands):
    command = commands.add_parser("prune", help="remove channels from a saved model, without training")
    command.add_argument("model", metavar="MODEL.keras")
    command.add_argument("--ratio", type=float, required=True, help="share of channels to remove, in [0, 1)")
    command.add_argument("--out", required=True, metavar="SMALL.keras", help="file to write")
    command.add_argument("--criterion", default="l1", help="what ranks the channels (default: l1)")
    command.add_argument("--scope", default="layer", help="rank per layer or global (default: layer)")
    command.add_argument("--round-to", type=int, default=1, metavar="N", help="keep a multiple of N channels")
    command.add_argument("--ignore", type=_words, metavar="LAYERS", help="layers to leave whole")
    command.add_argument("--only", type=_words, metavar="LAYERS", help="the only layers to prune")
    command.add_argument("--approximate", action="store_true", help="prune channels that a normalisation mixes too")
    command.set_defaults(run=_prune)


def _add_verify_models(commands):
    command = commands.add_parser(
        "verify-models",
        help="prune all of keras.applications, and tell whether each stays exact",
        description="Prunes every model of keras.applications (and of KerasHub, where it is installed) in six ways, "
        "compares masked and small model, and writes the table. Models that have their row already are left out.",
    )
    command.add_argument("--all", action="store_true", help="the largest models too")
    command.add_argument("--only", type=_words, metavar="MODELS", help="only these models")
    command.add_argument("--out", default="docs/verified_models.md", metavar="TABLE.md", help="table to write")
    command.set_defaults(run=_verify_models)


def _add_verify_metrics(commands):
    command = commands.add_parser(
        "verify-metrics",
        help="compute every metric with other packages too, and tell whether they agree",
        description="Computes every metric by tfprune, by the packages that are installed, and from published golden "
        "values, and writes the table. The exit code is 1 where something differs.",
    )
    command.add_argument("--out", default="docs/verified_metrics.md", metavar="TABLE.md", help="table to write")
    command.set_defaults(run=_verify_metrics)


def _add_evaluate(commands):
    command = commands.add_parser("evaluate", help="measure a saved model: accuracy, calibration, OOD, size")
    command.add_argument("model", metavar="MODEL.keras")
    command.add_argument("--data", required=True, choices=_DATASETS, help="data set whose test split is used")
    command.add_argument("--ood", type=_words, metavar="NAMES", help="data sets with which to test OOD detection")
    heads = command.add_mutually_exclusive_group()
    heads.add_argument("--logits", dest="from_logits", action="store_true", default=None, help="the model gives logits")
    heads.add_argument("--probabilities", dest="from_logits", action="store_false", help="... or probabilities")
    command.set_defaults(run=_evaluate)


def _add_report(commands):
    command = commands.add_parser("report", help="draw report.html anew from a folder's results")
    command.add_argument("folder", metavar="DIR")
    command.set_defaults(run=_report)


def _words(text):
    return tuple(text.replace(",", " ").split())


class _Joined(argparse.Action):
    """Takes a list written with commas, with spaces, or both."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, type(values[0])(item for value in values for item in value))


def _numbers(text):
    try:
        return tuple(float(word) for word in _words(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected numbers such as 0,0.5,0.9; received: {text}") from error


def _seeds(text):
    """Reads "0,1,2" and "0-9"."""
    try:
        bounds = [word.partition("-") for word in _words(text)]
        return tuple(seed for first, _, last in bounds for seed in range(int(first), int(last or first) + 1))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected seeds such as 0,1,2 or 0-9; received: {text}") from error


def _study(options):
    from tfprune import study as studies

    study = _chosen_study(options)
    folder = Path(options.out or f"runs/{study.name}")
    options.resume_hint = f" What is finished is kept in {folder}; the same command goes on from there."
    jobs = _default_jobs() if options.jobs is None else options.jobs
    print(f"{study.name}: {len(study.trials())} trials, at most {study.recipe.epochs} epochs a round, in {folder}")
    rows = studies.run_study(study, out=folder, jobs=jobs, retry_failed=options.retry_failed)
    _print_table(rows)
    print(f"report: {studies.write_report(folder)}")


def _chosen_study(options):
    import dataclasses

    from tfprune.study import grid

    study = grid.quick(options.name) if options.quick else grid.get(options.name)
    names = ("seeds", "ratios", "strategies", "layers")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.epochs is not None:
        changes["recipe"] = dataclasses.replace(study.recipe, epochs=options.epochs)
    return dataclasses.replace(study, **changes)


def _default_jobs():
    import joblib

    # Each job is a process with its own TensorFlow and data: about half a gigabyte for moons, two for CIFAR-10.
    return min(joblib.cpu_count(), 4)


def _print_table(rows):
    from rich import console, table

    from tfprune.study import report

    done = [row for row in rows if row["status"] == "done"]
    failed = len(rows) - len(done)
    columns = {
        "accuracy": (3, "accuracy"),
        "early_stop_epoch": (0, "epochs to\nearly stop"),
        "ece": (3, "\nECE"),
        **{name: (3, f"AUROC\n{name.split('/')[0]}") for name in report.auroc_columns(done)},
        "compression_ratio": (2, "times\nsmaller"),
        "theoretical_speedup": (2, "fewer\nops"),
    }
    # 80 characters hold it: the report has the other deviations
    shown = table.Table("strategy", "ratio", *(title for _, title in columns.values()), box=None, padding=(0, 1, 0, 0))
    for cell in report.summarise(done):
        values = [_number(cell[name], digits, name in _WITH_DEVIATION) for name, (digits, _) in columns.items()]
        shown.add_row(cell["strategy"], f"{cell['ratio']:g}", *values)
    console.Console().print(shown)
    print("Means over seeds, ± one sample standard deviation.")
    if failed:
        print(f"{failed} of {len(rows)} trials failed; the report says why.")


def _number(pair, digits, deviation):
    if pair[0] is None:
        return "-"
    return f"{pair[0]:.{digits}f}" + (f" ± {pair[1]:.{digits}f}" if deviation and pair[1] is not None else "")


def _inspect(options):
    picture = Path(options.draw) if options.draw else None
    if picture and picture.suffix not in (".svg", ".png"):
        raise ValueError(f"--draw must name a file that ends in .svg or .png. Received: {picture}.")
    model = _load(options.model)

    import tfprune

    tfprune.inspect(model, approximate=options.approximate)
    if picture:
        _draw(model, options.approximate, picture)


def _draw(model, approximate, picture):
    os.environ.setdefault("MPLBACKEND", "Agg")  # no window: the picture goes to a file
    import matplotlib

    import tfprune

    ax = tfprune.plots.draw_structure(model, approximate=approximate)
    picture.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # names stay text that can be searched for
        ax.figure.savefig(picture, dpi=150)
    print(f"drawing: {picture}")


def _prune(options):
    out = Path(options.out)
    if out.suffix != ".keras":
        raise ValueError(f"--out must name a file that ends in .keras. Received: {out}.")
    model = _load(options.model)

    import tfprune

    masked = tfprune.wrap(model, approximate=options.approximate)
    masks = tfprune.compute_masks(
        masked,
        options.ratio,
        criterion=options.criterion,
        scope=options.scope,
        ignore=options.ignore,
        only=options.only,
        round_to=options.round_to,
    )
    tfprune.set_masks(masked, masks)
    small = tfprune.shrink(masked)
    out.parent.mkdir(parents=True, exist_ok=True)
    small.save(out)
    report = tfprune.ticket_report(small)
    before, after = report["parameters_before"], report["parameters_after"]
    print(f"{out}: {after:,} of {before:,} parameters kept ({before / max(after, 1):.2f} times smaller). Train it on.")
    print(_certificate(report))


def _certificate(report):
    """What `ticket_report` found, in one line."""
    if report["not_compared"]:
        return f"Not compared with the masked model, which does not run here: {report['not_compared']}"
    count = report["groups_approximate"]
    kinds = "exact" if report["exact"] else f"{count} group{'s' if count > 1 else ''} approximate"
    return f"Compared with the masked model: {kinds}, largest difference {report['largest_difference']:.1e}."


def _verify_models(options):
    from tfprune.verification.models import verify_models

    rows = verify_models(options.out, options.all, options.only, lambda line: print(line, flush=True))
    failed = [row["model"] for row in rows if "error" in row]
    print(f"{len(rows)} rows in {options.out}; {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}.")


def _verify_metrics(options):
    from tfprune.verification.metrics import verify_metrics

    rows = verify_metrics(options.out, lambda line: print(line, flush=True))
    wrong = [f"{row['ours']} ({row['package']})" for row in rows if row["verdict"] in ("differs", "failed")]
    print(f"{len(rows)} rows in {options.out}.")
    if wrong:
        print(f"tfprune: {len(wrong)} differ or failed: {', '.join(wrong)}.", file=sys.stderr)
    return int(bool(wrong))


def _evaluate(options):
    from tfprune.study.quiet import start_tensorflow

    start_tensorflow()
    import tfprune
    from tfprune import datasets

    model, data = _load(options.model), datasets.get(options.data)
    available = data.ood | {name: None for name in _DATASETS if name != data.name}
    ood = {name: _ood_inputs(name, data, available) for name in (options.ood or ())}
    for name, value in tfprune.evaluate(model, data.test, ood=ood or None, from_logits=options.from_logits).items():
        if not isinstance(value, list):
            print(f"{name:32} {value:.6g}" if isinstance(value, float) else f"{name:32} {value}")


def _ood_inputs(name, data, available):
    from tfprune import datasets

    if name not in available:
        raise ValueError(f"Unknown OOD set. Received: {name!r}. Expected one of {', '.join(available)}.")
    if name in data.ood:
        return data.ood[name]
    other = datasets.get(name)
    if other.input_shape != data.input_shape:
        raise ValueError(
            f"OOD inputs must have the shape of {data.name}'s, {data.input_shape}. Received: {name} with "
            f"{other.input_shape}."
        )
    return other.test[0]


def _report(options):
    from tfprune import study

    print(f"report: {study.write_report(options.folder)}")


def _load(path):
    """Loads a .keras file with Keras' safe mode on: code inside the file is refused, not run."""
    if not Path(path).is_file():
        raise ValueError(f"No such file. Received: {path}. Expected a model saved by model.save('NAME.keras').")
    if Path(path).suffix != ".keras":
        raise ValueError(f"Models are read from .keras files. Received: {path}. Save it with model.save('NAME.keras').")
    from tfprune.study.quiet import start_tensorflow

    start_tensorflow()
    import keras

    try:
        return keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # Keras raises many kinds here; to the user all of them mean the same
        raise ValueError(f"Keras could not load {path}: {_one_line(error)}") from error
