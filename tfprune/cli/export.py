"""`tfprune export`: write a saved model for serving or for small devices, and tell what that did to its confidence."""

from tfprune.cli import sources
from tfprune.cli.answer import Answer, number
from tfprune.cli.words import add_list, words

FORMATS = ("saved_model", "litert", "litert-int8", "onnx")
HELP = "write a saved model as SavedModel, LiteRT or ONNX, and compare the two"
DESCRIPTION = (
    "Writes a saved model for serving or for small devices. The file is run and compared with the model before it gets "
    "its name. With --data both are measured on the test split, too: does the confidence survive? litert-int8 computes "
    "in integers alone, and takes their range from the training split of --data."
)


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    command.add_argument("model", metavar="MODEL.keras").completes = "*.keras"
    command.add_argument("--to", required=True, choices=FORMATS, help="format of the file (onnx: tfprune[onnx])")
    out = command.add_argument("--out", required=True, metavar="FILE", help="file to write; of saved_model a folder")
    out.completes = "*.tflite *.onnx /"
    sources.add_data_flags(command, required=False)
    add_list(command, "--detectors", words, "OOD detectors (default: msp,entropy)", completes="detectors")
    sources.add_model_flags(command)


def run(options):
    """Writes the file, compares, and measures both where there is data."""
    if options.data:
        sources.check_data_name(options.data)
    elif options.to == "litert-int8" or options.ood:
        raise ValueError(f"{'--ood' if options.ood else '--to litert-int8'} needs --data, for example --data cifar10.")
    model = sources.load_model(options.model, options.imports)

    import tfprune

    data = sources.load_data(options.data) if options.data else None
    split = (data.train or data.test) if data else None
    try:
        row = tfprune.export(model, options.out, to=options.to, data=split)
    except ImportError as error:  # a package of the extra onnx
        raise ValueError(str(error)) from error
    document, text = {"model": options.model, **row}, _compared(row)
    if data:
        document["confidence"] = _reevaluate(model, data, options)
        text = f"{text}\n\n{_table(document['confidence'])}"
    return Answer(document, text)


def _compared(row):
    agreement = "" if row["agreement"] is None else f", same class on {row['agreement']:.1%}"
    return (
        f"{row['path']}: {row['bytes']:,} bytes. Compared with the model on {row['num_samples']} samples: outputs "
        f"differ by at most {row['max_difference']:.1e}, {row['mean_difference']:.1e} on average{agreement}."
    )


def _reevaluate(model, data, options):
    from tfprune import deployment

    ood = sources.load_ood(options.ood, data, data.input_shape or model.input_shape[1:])
    asked = {"batch_size": options.batch_size, "from_logits": options.from_logits, "allow_leak": options.allow_leak}
    if ood and options.detectors:
        asked["detectors"] = options.detectors
    return deployment.reevaluate(model, options.out, data.test, ood or None, options.to, **asked)


def _table(rows):
    """One line per measure, one column per form."""
    wanted = ("accuracy", "nll", "brier", "ece", "ece_floor", "mean_confidence", "mean_entropy", "aurc", "bytes")
    names = [name for name in rows[0] if name in wanted or "/auroc" in name or "/fpr95_" in name]
    head = f"{'':32}" + "".join(f"{row['form']:>14}" for row in rows)
    return "\n".join([head, *(f"{name:32}" + "".join(f"{number(row[name]):>14}" for row in rows) for name in names)])
