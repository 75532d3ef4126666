"""What is told of a ticket and of its dense network in a row?"""

import functools
import itertools
import json
import weakref

import numpy as np

import tfprune
from tfprune import corruptions, datasets
from tfprune.metrics.detection import DETECTION_METRICS
from tfprune.structure.cost import latency
from tfprune.structure.head import find_head
from tfprune.uncertainty import detectors
from tfprune.uncertainty.leak import LeakError

# What is looked at after each round of a trial, on the test set, and by which name of `evaluate`.
_GLANCE = {"accuracy": "accuracy", "ece": "ece"}
_REGRESSION_GLANCE = {name: name for name in ("gaussian_nll", "rmse", "interval_calibration_error")}
# What detectors learn from: a nearest-neighbour search in all of CIFAR-10 takes longer than training on it.
_LESSON = 5_000
_SHIFTED = 1_000  # test images that are corrupted
_MEMORY = 2**30  # bytes of corrupted images that are kept
_SHIFT = ("accuracy", "nll", "brier", "ece", "uce", "mean_confidence")


def evaluate(model, data, evaluation, dense=None, seed=0):
    """Returns what `tfprune.evaluate`, or `evaluate_regression`, says of a network on the test set, as JSON has it.

    Corruptions that the `Evaluation` names add `shift/CORRUPTION/SEVERITY/METRIC`, of at most 1,000 evenly spaced
    test images. A detector that cannot be had of this network has None in its columns, and `detectors_reason` says why:
    a network is no less measured for it.

    Args:
        model: A Keras model.
        data: The `Dataset`: its test set, its OOD sets, and its training set for detectors that learn: of more than
            5,000 examples, as many evenly spaced ones.
        evaluation: The `Evaluation`.
        dense: What `cost` said of the dense network; None where the model is that.
        seed: Seed of the corruptions' noise, the same for all networks that are compared.

    Raises:
        ValueError: What `check` refuses, or what `tfprune.evaluate` refuses without any detectors.
    """
    check(evaluation, data)
    if data.num_classes is None:
        return plain(tfprune.evaluate_regression(model, data.test, dense=dense))
    logits = _gives_logits(model)
    strangers = _strangers(data, evaluation)
    lesson = evenly(data.train, _LESSON)
    ask = functools.partial(
        tfprune.evaluate, model, data.test, ood=strangers, train=lesson, from_logits=logits, dense=dense
    )
    row = _with_detectors(ask, _detectors_of(evaluation), strangers)
    return plain({**row, **_shift_columns(model, data, evaluation, logits, seed)})


def _with_detectors(ask, names, strangers):
    """What the network is told of with all detectors, or with those that can be had of it.

    Those whose features are dead are no random part of a study's networks: without them its means would be others.
    """
    try:
        return ask(detectors=names)
    except ValueError:
        row, reasons = _one_by_one(ask, names, strangers)
        if not reasons:  # each can be had, so it is not a detector that was refused
            raise
    return {**row, "detectors_reason": " ".join(reasons)}


def _one_by_one(ask, names, strangers):
    """`(row, reasons)`: None where a detector would have told something, and why it did not."""
    row, reasons = ask(detectors=()), []
    for name in names:
        try:
            found = ask(detectors=(name,))
        except LeakError:
            raise  # the data are to blame, of every network
        except ValueError as error:
            found = {f"{one}/{metric}_{name}": None for one in strangers for metric in DETECTION_METRICS}
            reasons.append(str(error) if str(error).startswith(name) else f"{name}: {error}")
        # what does not depend on detectors stays as it was told without any
        row |= {column: value for column, value in found.items() if row.get(column) is None}
    return row, reasons


def evenly(split, most):
    """Returns at most so many examples of a split, evenly spaced.

    Args:
        split: Tuple of arrays.
        most: Number of examples.
    """
    size = len(split[0])
    chosen = np.linspace(0, size - 1, min(size, most), dtype=int)
    return tuple(part[chosen] for part in split)


def _strangers(data, evaluation):
    most = len(data.test[0])  # as many strangers as known samples are enough
    return data.ood | {name: _image_set(name, tuple(data.input_shape))[:most] for name in evaluation.ood}


@functools.lru_cache(maxsize=4)
def _image_set(name, shape):
    return datasets.images(name, shape=shape)[0]


def glance(model, data):
    """Returns what is looked at between two rounds: `{"round_NAME": number}`, see `round_columns`.

    Args:
        model: A Keras model, masked or not.
        data: The `Dataset`.
    """
    if data.num_classes is None:
        return _glance_of(plain(tfprune.evaluate_regression(model, data.test)), data)
    ood = dict(list(data.ood.items())[:1])
    row = tfprune.evaluate(model, data.test, ood=ood, detectors=("msp",), from_logits=_gives_logits(model))
    return _glance_of(plain(row), data)


def round_columns(ticket, dense_row, glances, row, data):
    """Returns the columns that hold a list over the rounds, 0 (dense) to the last.

    Args:
        ticket: The finished `LotteryTicket`.
        dense_row: What `evaluate` said of the dense network.
        glances: What `glance` saw after each round between.
        row: What `evaluate` said of the ticket.
        data: The `Dataset`.
    """
    seen = [_glance_of(dense_row, data), *glances, _glance_of(row, data)]
    history = ticket.history
    return {
        "round_ratio": [record["ratio"] for record in history],
        "round_epochs": [record["epochs"] for record in history],
        "round_early_stop_epoch": [record["early_stop_epoch"] for record in history],
        "round_channels_kept": [record["channels_kept"] for record in history],
        **{name: [one[name] for one in seen] for name in seen[0]},
    }


def training_columns(ticket, dense):
    """Returns how the trial was trained.

    Args:
        ticket: The finished `LotteryTicket`.
        dense: The trained `rounds.Dense`.
    """
    last = ticket.history[-1]
    return {
        "rounds_done": len(ticket.history) - 1,
        "early_stop_epoch": last["early_stop_epoch"],
        "epochs_trained": last["epochs"],
        "total_epochs": sum(record["epochs"] for record in ticket.history),
        "best_val_loss": last["best"],
        "dense_epochs": dense.epochs,
        "dense_early_stop_epoch": dense.best_epoch,
        "dense_best_val_loss": dense.best,
        "channels_kept": last["channels_kept"],
        "channels_total": last["channels_total"],
        "layer_names": list(last["masks"]),
        "layer_channels_before": [mask.size for mask in last["masks"].values()],
        "layer_channels_after": [int(mask.sum()) for mask in last["masks"].values()],
    }


def latency_columns(small, model):
    """Returns the time of one prediction of the ticket and of its dense network, measured one after the other.

    Args:
        small: The ticket.
        model: The dense network.
    """
    own, dense = 1000 * latency(small), 1000 * latency(model)
    return {"latency_ms": own, "dense_latency_ms": dense, "measured_speedup": dense / own}


def plain(row):
    """Returns a row as it comes back from a JSON file: NumPy's numbers as Python's, tuples as lists.

    A row that was kept and a row that was just measured are then the same.

    Args:
        row: A flat dict.
    """
    return json.loads(json.dumps(row, default=lambda value: value.tolist()))


def _glance_of(row, data):
    if data.num_classes is None:
        return {f"round_{name}": row[key] for name, key in _REGRESSION_GLANCE.items()}
    found = {f"round_{name}": row[key] for name, key in _GLANCE.items()}
    first = next(iter(data.ood), None)
    auroc = f"{first}/auroc_msp"
    return {**found, "round_auroc": row[auroc]} if auroc in row else found


def _gives_logits(model):
    """Whether outputs are logits: a study's models give these, unless their last layer says otherwise."""
    if model not in _LOGITS:  # a small model is asked for every ticket of its size
        _LOGITS[model] = find_head(model) not in ("softmax", "sigmoid")
    return _LOGITS[model]


_LOGITS = weakref.WeakKeyDictionary()


def check(evaluation, data):
    """Refuses an evaluation that these data cannot have: before a network is trained for it.

    Args:
        evaluation: The `Evaluation` of a trial.
        data: Its `Dataset`.

    Raises:
        ValueError: An unknown detector or corruption, or corruptions of what is no image.
    """
    for detector in () if data.num_classes is None else evaluation.detectors:
        if detector != "all":
            detectors.get(detector)
    if evaluation.corruptions and len(data.input_shape) != 3:
        raise ValueError(
            f"Corruptions are of images, (height, width, colours). Received: data of shape {tuple(data.input_shape)}. "
            "Use an evaluation without corruptions."
        )
    for corruption in _corruptions_of(evaluation):
        if corruption not in corruptions.CORRUPTIONS:
            known = ", ".join(map(repr, corruptions.CORRUPTIONS))
            raise ValueError(f"Unknown corruption. Received: {corruption!r}. Expected one of {known}, or 'all'.")


def _detectors_of(evaluation):
    return tuple(detectors.DETECTORS) if "all" in evaluation.detectors else evaluation.detectors


def _corruptions_of(evaluation):
    return tuple(corruptions.CORRUPTIONS) if evaluation.corruptions == ("all",) else evaluation.corruptions


def _shift_columns(model, data, evaluation, logits, seed):
    if not evaluation.corruptions:
        return {}
    row, test = {}, evenly(data.test, _SHIFTED)
    for name, severity in itertools.product(_corruptions_of(evaluation), evaluation.severities):
        seen = tfprune.evaluate(model, _damaged(data, test, name, severity, seed), from_logits=logits)
        row |= {f"shift/{name}/{severity}/{metric}": seen[metric] for metric in _SHIFT}
    return row


def _damaged(data, test, name, severity, seed):
    """The chosen test images after a corruption, with their labels; they are kept for the next network of the same
    seed, for damaging them takes longer than looking at them."""
    images, labels = test
    if _DAMAGED.get("for") != (id(data.test), seed):
        _DAMAGED.clear()
        # with the images themselves: as long as they are held, no others have their number
        _DAMAGED.update({"for": (id(data.test), seed), "test": data.test})
    if (name, severity) not in _DAMAGED:
        damaged = corruptions.corrupt(images, name, severity, seed, data.value_range)
        if 5 * len(corruptions.CORRUPTIONS) * damaged.nbytes > _MEMORY:
            return damaged, labels
        _DAMAGED[name, severity] = damaged
    return _DAMAGED[name, severity], labels


_DAMAGED = {}
