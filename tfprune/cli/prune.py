"""`tfprune prune`: remove channels from a saved model, without training."""

from pathlib import Path

from tfprune.cli import sources
from tfprune.cli.answer import Answer
from tfprune.cli.words import add_list, words

HELP = "remove channels from a saved model, without training"
DESCRIPTION = (
    "Removes the channels that matter least, writes the smaller model, and tells how exact it is: its outputs are "
    "compared with those of the model in which the same channels are only shut off. Train it on after that."
)


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    command.add_argument("model", metavar="MODEL.keras").completes = "*.keras"
    command.add_argument("--ratio", type=float, required=True, help="share of channels to remove, in [0, 1)")
    out = command.add_argument("--out", required=True, metavar="SMALL.keras", help="file to write")
    out.completes = "*.keras"
    criterion = command.add_argument("--criterion", default="l1", help="what ranks the channels (default: l1)")
    criterion.completes = "criteria"
    command.add_argument(
        "--scope", default="layer", choices=("layer", "global"), help="the ratio in every layer, or over all of them"
    )
    command.add_argument("--round-to", type=int, default=1, metavar="N", help="keep a multiple of N channels")
    add_list(command, "--ignore", words, "layers to leave whole", metavar="LAYER")
    add_list(command, "--only", words, "the only layers to prune", metavar="LAYER")
    command.add_argument("--approximate", action="store_true", help="prune channels that a normalisation mixes too")
    command.add_argument("--seed", type=int, metavar="N", help="of the criterion random")
    sources.add_model_flags(command)


def run(options):
    """Prunes the model, saves it and returns what was saved."""
    sources.check_new_model_file(options.out)
    model = sources.load_model(options.model, options.imports)

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
        seed=options.seed,
    )
    tfprune.set_masks(masked, masks)
    small = tfprune.shrink(masked)
    _save(small, Path(options.out))
    report = tfprune.ticket_report(small)
    return Answer({"model": options.model, "out": options.out, **report}, _text(options.out, report))


def _save(model, out):
    import os

    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.stem}.partial.keras")
    try:
        model.save(partial)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def _text(out, report):
    before, after = report["parameters_before"], report["parameters_after"]
    kept = f"{out}: {after:,} of {before:,} parameters kept ({before / max(after, 1):.2f} times smaller). Train it on."
    return f"{kept}\n{_certificate(report)}"


def _certificate(report):
    """What `ticket_report` found, in one line."""
    if report["not_compared"]:
        return f"Not compared with the masked model, which does not run here: {report['not_compared']}"
    count = report["groups_approximate"]
    kinds = "exact" if report["exact"] else f"{count} group{'s' if count > 1 else ''} approximate"
    return f"Compared with the masked model: {kinds}, largest difference {report['largest_difference']:.1e}."
