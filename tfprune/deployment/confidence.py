"""Does a model keep its accuracy, calibration and sense of strangers when it is exported?"""

from tfprune.deployment.exporting import size
from tfprune.deployment.loading import load_exported
from tfprune.evaluation import evaluate
from tfprune.predictions import Predictor


def reevaluate(model, exported, data, ood=None, to=None, **options):
    """Measures a model and its exported file on the same data, one row each.

    A file of integers answers in steps: whether its classes are those of the model says nothing of its confidences,
    which have only 256 values. Export a model that ends in logits where these matter.

    Args:
        model: The Keras model.
        exported: Path of what `tfprune.export` made of it, or `{name: path}` of several.
        data, ood: As in `tfprune.evaluate`.
        to: Format of the file, as in `tfprune.export`. Default None: read off the path.
        **options: Others of `tfprune.evaluate` (`detectors`, `num_bins` ...).

    Returns:
        List of flat dicts: `form` ("keras", then the format or the names), and what `tfprune.evaluate` found; `bytes`
        are those of the weights in Keras, and those of the file.

    Example:
        >>> for row in tfprune.deployment.reevaluate(ticket, "ticket.tflite", test, ood={"cifar100": cifar100}):
        ...     print(row["form"], row["accuracy"], row["ece"], row["cifar100/auroc_msp"])
    """
    gives_logits = _gives_logits(model, options.get("from_logits"))
    paths = exported if isinstance(exported, dict) else {to or "exported": exported}
    rows = [{"form": "keras", **evaluate(model, data, ood, **options)}]
    for name, path in paths.items():
        twin = load_exported(path, from_logits=gives_logits)
        found = evaluate(twin, data, ood, **{**options, "from_logits": gives_logits})
        rows.append({"form": name, **found, "bytes": size(path)})
    return rows


def _gives_logits(model, from_logits):
    """Whether the model's own outputs are logits: a softmax at its end makes them probabilities."""
    head = Predictor(model, from_logits).head
    return head == "linear" if from_logits is None else bool(from_logits)
