"""`tfprune prune`: remove channels from a saved model, without training."""

from pathlib import Path

from tfprune.cli import names, sources
from tfprune.cli.answer import Answer
from tfprune.cli.words import add_list, words
from tfprune.writing import replacing

HELP = "remove channels from a saved model, without training"
DESCRIPTION = (
    "Removes the channels that matter least, writes the smaller model, and tells how exact it is: its outputs are "
    "compared with those of the model in which the same channels are only shut off. Train it on after that. "
    "Say how many channels go by --ratio, or what the model may cost: of several budgets all are met."
)


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    command.add_argument("model", metavar="MODEL.keras").completes = "*.keras"
    command.add_argument("--ratio", type=float, help="share of channels to remove, in [0, 1)")
    command.add_argument("--params", metavar="N", help="parameters at most: 50%%, 100000, 1.5M")
    command.add_argument("--multiply-adds", metavar="N", help="multiply-adds of one sample at most: 50%%, 300M")
    command.add_argument("--bytes", metavar="N", help="bytes of the weights at most: 50%%, 2MB")
    command.add_argument("--latency", metavar="TIME", help="time of a prediction on this device at most: 50%%, 12ms")
    command.add_argument("--batch-size", type=int, metavar="N", help="samples of the prediction timed (default: 1)")
    out = command.add_argument("--out", required=True, metavar="SMALL.keras", help="file to write")
    out.completes = "*.keras"
    criterion = command.add_argument("--criterion", default="l1", help="what ranks the channels (default: l1)")
    criterion.completes = "criteria"
    data = command.add_argument(
        "--data", metavar="DATA", help="data whose training split is looked at by criteria such as taylor: moons ..."
    )
    data.completes = "datasets"
    command.add_argument(
        "--scope", default="layer", choices=("layer", "global"), help="the ratio in every layer, or over all of them"
    )
    command.add_argument(
        "--round-to", type=int, metavar="N", help="keep a multiple of N channels (with --latency: what runs fastest)"
    )
    add_list(command, "--ignore", words, "layers to leave whole", metavar="LAYER")
    add_list(command, "--only", words, "the only layers to prune", metavar="LAYER")
    command.add_argument("--approximate", action="store_true", help="prune channels that a normalisation mixes too")
    command.add_argument(
        "--compensate", action="store_true", help="let biases take over what the removed channels emitted in the mean"
    )
    command.add_argument("--seed", type=int, metavar="N", help="of the criterion random")
    sources.add_model_flags(command)


def run(options):
    """Prunes the model, saves it and returns what was saved."""
    sources.check_new_model_file(options.out)
    if Path(options.out).resolve() == Path(options.model).resolve():
        raise ValueError(f"--out would replace the model that is pruned. Received: {options.out} twice. Name another.")
    budget = {name: getattr(options, name) for name in _BUDGETS if getattr(options, name) is not None}
    _check_asked(options, budget)
    _check_criterion(options)
    model = sources.load_model(options.model, options.imports)
    small, reached = _to_budget(model, options, budget) if budget else (_by_ratio(model, options), {})

    import tfprune

    _save(small, Path(options.out))
    report = tfprune.ticket_report(small)
    answer = {"model": options.model, "out": options.out, **report, **({"budget": reached} if budget else {})}
    return Answer(answer, _text(options.out, report, reached))


_BUDGETS = ("params", "multiply_adds", "bytes", "latency")


def _check_asked(options, budget):
    if (options.ratio is None) == (not budget):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in _BUDGETS)
        received = f"--ratio {options.ratio:g} and a budget" if budget else "neither"
        raise ValueError(f"Expected either --ratio or a budget ({flags}). Received: {received}.")
    if options.batch_size is not None and "latency" not in budget:
        raise ValueError("--batch-size says what --latency times. Received: --batch-size without --latency.")


def _check_criterion(options):
    """Refuses an unknown criterion, or one whose data are not named, before anything heavy is loaded."""
    on_data = options.criterion in names.DATA_CRITERIA
    if not on_data and options.criterion not in names.CRITERIA:
        known = ", ".join([*names.CRITERIA, *names.DATA_CRITERIA])
        raise ValueError(f"Unknown criterion. Received: {options.criterion!r}. Expected one of {known}.")
    if on_data != (options.data is not None):
        wanted = "looks at data: name them with --data" if on_data else "looks at no data: leave --data out"
        raise ValueError(f"The criterion {options.criterion} {wanted}. Received: --data {options.data}.")
    if on_data:
        sources.check_data_name(options.data)


def _criterion(options):
    """The criterion's name, or the criterion with its data."""
    if options.criterion not in names.DATA_CRITERIA:
        return options.criterion
    from tfprune.pruning import criteria

    data = sources.load_data(options.data)
    return criteria.get(options.criterion, data=data.test if data.train is None else data.train)


def _chosen_by(options):
    chosen = {name: getattr(options, name) for name in ("scope", "ignore", "only", "seed")}
    return {"criterion": _criterion(options), **chosen}


def _by_ratio(model, options):
    import tfprune

    masked = tfprune.wrap(model, approximate=options.approximate)
    masks = tfprune.compute_masks(
        masked, options.ratio, round_to=1 if options.round_to is None else options.round_to, **_chosen_by(options)
    )
    tfprune.set_masks(masked, masks)
    return tfprune.shrink(masked, options.compensate)


def _to_budget(model, options, budget):
    import tfprune

    small = tfprune.prune_to(
        model,
        **budget,
        round_to=options.round_to,
        batch_size=options.batch_size or 1,
        approximate=options.approximate,
        compensate=options.compensate,
        show=False,
        **_chosen_by(options),
    )
    return small, tfprune.budget_report(small)


def _save(model, out):
    with replacing(out) as partial:
        model.save(partial)


def _text(out, report, reached):
    before, after = report["parameters_before"], report["parameters_after"]
    kept = f"{out}: {after:,} of {before:,} parameters kept ({before / max(after, 1):.2f} times smaller). Train it on."
    return "\n".join([kept, *_reached(reached), _certificate(report)])


def _reached(found):
    if not found:
        return []
    from tfprune.budgets.search import lines

    return lines({name: found[name] for name in _BUDGETS if name in found})


def _certificate(report):
    """What `ticket_report` found, in one line."""
    if report["not_compared"]:
        return f"Not compared with the masked model, which does not run here: {report['not_compared']}"
    count = report["groups_approximate"]
    kinds = "exact" if report["exact"] else f"{count} group{'s' if count > 1 else ''} approximate"
    return f"Compared with the masked model: {kinds}, largest difference {report['largest_difference']:.1e}."
