"""`tfprune evaluate`: measure a saved model on a data set: accuracy, calibration, OOD detection, shift, size."""

from tfprune.cli import names, sources
from tfprune.cli.answer import Answer, lines
from tfprune.cli.words import add_list, integers, numbers, words

HELP = "measure a saved model: accuracy, calibration, OOD detection, shift, size"
DESCRIPTION = (
    "Measures a saved model on the test split of a data set. Detectors that have to be fitted are fitted on this model "
    "and the training split. With --corruptions there is a row for each damage to the images, too."
)


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    command.add_argument("model", metavar="MODEL.keras").completes = "*.keras"
    sources.add_data_flags(command)
    add_list(command, "--detectors", words, "OOD detectors (default: msp,entropy), or all", completes="detectors")
    add_list(command, "--corruptions", words, "damages to the images to measure under, or all", completes="corruptions")
    add_list(command, "--severities", integers, "severities of the damages (default: 1-5)")
    values = "the images' values of black and white, such as 0,1"
    add_list(command, "--value-range", numbers, values, metavar="LOW,HIGH")
    dense = command.add_argument("--dense", metavar="DENSE.keras", help="the model before pruning, to compare the cost")
    dense.completes = "*.keras"
    command.add_argument("--latency", action="store_true", help="measure the time of a prediction, too")
    sources.add_model_flags(command)


def run(options):
    """Returns the model's row, and under "shift" those on damaged images."""
    names.check("detectors", options.detectors)
    names.check("corruptions", options.corruptions)
    sources.check_data_name(options.data)
    model = sources.load_model(options.model, options.imports)

    import tfprune

    data = sources.load_data(options.data)
    if sources.holds_numbers(data):
        return _regression(model, data, options)
    dense = sources.load_model(options.dense, options.imports) if options.dense else None
    asked = {"batch_size": options.batch_size, "from_logits": options.from_logits, "allow_leak": options.allow_leak}
    ood = sources.load_ood(options.ood, data, data.input_shape or model.input_shape[1:])
    if ood:
        chosen = options.detectors or ("msp", "entropy")
        asked |= {"ood": ood, "train": data.train, "detectors": "all" if "all" in chosen else chosen}
    elif options.detectors:
        raise ValueError("--detectors tell strangers from the data: name some strangers, too, with --ood.")
    row = tfprune.evaluate(model, data.test, dense=dense, latency=options.latency, **asked)
    document, text = {"model": options.model, "data": options.data, **row}, lines(row)
    if options.corruptions:
        document["shift"] = _shift(model, data, options, asked)
        text = f"{text}\n\n{_shift_table(document['shift'])}"
    return Answer(document, text)


def _regression(model, data, options):
    """The row of a Gaussian head: strangers and damages are for classifiers."""
    import tfprune

    unused = [f"--{name}" for name in ("ood", "detectors", "corruptions") if getattr(options, name)]
    if unused:
        raise ValueError(f"{' and '.join(unused)} need classes. Received: {options.data}, whose targets are numbers.")
    dense = sources.load_model(options.dense, options.imports) if options.dense else None
    row = tfprune.evaluate_regression(model, data.test, dense, options.batch_size, options.latency)
    return Answer({"model": options.model, "data": options.data, **row}, lines(row))


def _shift(model, data, options, asked):
    import tfprune

    return tfprune.evaluate_shift(
        model,
        data.test,
        corruptions=None if "all" in options.corruptions else options.corruptions,
        severities=options.severities or (1, 2, 3, 4, 5),
        value_range=options.value_range or data.value_range,
        progress=lambda row: print(f"{row['corruption']} {row['severity']}: accuracy {row['accuracy']:.3f}"),
        **asked,
    )[1:]  # the first is of the clean images


def _shift_table(rows):
    columns = ("accuracy", "nll", "ece", "ece_floor", "mean_confidence")
    head = f"{'corruption':20} severity" + "".join(f"{name:>16}" for name in columns)
    body = (
        f"{row['corruption']:20} {row['severity']:8}" + "".join(f"{row[name]:16.4f}" for name in columns)
        for row in rows
    )
    return "\n".join([head, *body])
