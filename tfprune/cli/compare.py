"""`tfprune compare`: dense and pruned model on the same samples, and what is more than chance."""

from tfprune.cli import sources
from tfprune.cli.answer import Answer

HELP = "hold a pruned model against its dense one: what changed, and is it more than chance?"
DESCRIPTION = (
    "Runs both models over the test split of a data set and gives all differences with paired intervals, and verdicts. "
    "With several pairs, one a training seed, the intervals hold the chance of training, too. The exit code is 1 where "
    "accuracy, calibration or OOD detection is worse beyond chance."
)


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    models = command.add_argument(
        "models", nargs="+", metavar="MODEL.keras", help="DENSE SMALL, or DENSE SMALL DENSE SMALL ... over seeds"
    )
    models.completes = "*.keras"
    sources.add_data_flags(command)
    temperature = command.add_argument(
        "--temperature-data",
        metavar="DATA",
        help="data on which to fit each model's temperature: validation, for that split of --data, or named as --data "
        "is. Without it, each half of the samples is judged at the temperature of the other",
    )
    temperature.completes = "datasets"
    command.add_argument("--num-bins", type=int, default=15, metavar="N", help="bins of the ECE (default: 15)")
    command.add_argument(
        "--num-bootstraps", type=int, default=1000, metavar="N", help="resamples of the intervals (default: 1000)"
    )
    command.add_argument("--confidence", type=float, default=0.95, metavar="LEVEL", help="of intervals (default: 0.95)")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the resamples (default: 0)")
    sources.add_model_flags(command)


def run(options):
    """Returns the comparison; exit code 1 where something is worse beyond chance."""
    _check(options)
    models = [sources.load_model(path, options.imports) for path in options.models]

    import tfprune

    data = sources.load_data(options.data)
    if sources.holds_numbers(data):
        raise ValueError(f"compare is for classifiers. Received: {options.data}, whose targets are numbers.")
    asked = {
        "ood": sources.load_ood(options.ood, data, data.input_shape or models[0].input_shape[1:]) or None,
        **{name: getattr(options, name) for name in ("num_bins", "num_bootstraps", "confidence", "seed")},
        **{name: getattr(options, name) for name in ("batch_size", "from_logits", "allow_leak")},
    }
    if len(models) > 2:
        found = tfprune.compare_seeds(models[::2], models[1::2], data.test, **asked)
        tables = {"pairs": found.pairs, "exemplars": found.exemplars}
    else:
        temperature_data = _temperature_data(options.temperature_data, data)
        found = tfprune.compare(*models, data.test, temperature_data=temperature_data, **asked)
        tables = {"per_class": found.per_class, "flips": found.flips}
    document = {"dense_models": options.models[::2], "pruned_models": options.models[1::2], **found.row}
    document |= {name: table.to_dict("records") for name, table in tables.items()}
    return Answer(document, str(found), code=_code(found.row))


def _code(row):
    """1 where something is worse beyond chance."""
    verdicts = {row[f"verdict_{question}"] for question in ("accuracy", "calibration", "ood")}
    return int(bool(verdicts & {"worse", "mixed"}))


def _check(options):
    """Refuses what cannot be compared before anything is loaded."""
    if len(options.models) % 2:
        raise ValueError(
            f"Models come in pairs, each dense one followed by its pruned one. Received: {len(options.models)} "
            "model(s). Expected: tfprune compare dense.keras small.keras --data NAME."
        )
    if len(options.models) > 2 and options.temperature_data:
        raise ValueError("--temperature-data is for one pair of models. Received: several. Leave it out.")
    for name in (options.data, options.temperature_data):
        if name and name != "validation":
            sources.check_data_name(name)
    for path in options.models:
        sources.check_model_file(path)


def _temperature_data(name, data):
    if name != "validation":
        return sources.load_data(name).test if name else None
    if data.validation is None:
        raise ValueError(f"{data.name} has no validation split. Name other data with --temperature-data.")
    return data.validation
