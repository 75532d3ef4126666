"""Does the small model compute what the masked one computes? Every `shrink` tries, and keeps what it found."""

import weakref
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.pruning import selection
from tfprune.structure.cost import cost, reference_of
from tfprune.structure.samples import KINDS, sample

TOLERANCE = 1e-4  # of exact models, relative to the largest output
# Rounding alone is larger where layers compute in half precision.
_HALF = {"float16": 2e-2, "bfloat16": 2e-1}


@dataclass(frozen=True)
class _Certificate:
    exact: int
    approximate: int
    differences: dict  # {kind of input: [(largest, mean) of each output]}
    reason: str  # why nothing could be compared
    asked: float | dict | None
    achieved: float
    optimizer: str
    compensated: tuple  # layers that had the mean of what they lost made good
    not_compensated: tuple


_CERTIFICATES = weakref.WeakKeyDictionary()


def ticket_report(ticket):
    """What was found when `shrink` made this model: is it exact, and what did it save?

    Args:
        ticket: A model from `tfprune.shrink`. A model that was saved and loaded has no report any more.

    Returns:
        A dict: `groups_exact` and `groups_approximate` (groups of channels that lost some; approximate are those that a
        normalisation mixes), `exact` (bool: no approximate ones), `largest_difference` and `mean_difference` (masked
        against small model on random, constant and scaled inputs, relative to the largest output; None where the model
        does not run here, and `not_compared` says why), `differences` (`{kind of input: [largest of each output]}`),
        `ratio_asked` (None where masks were set by hand) and `ratio_achieved` (share of the channels that could be
        pruned), `compensated` and `not_compensated` (lists of the layers that had the mean of their lost inputs made
        good, and that had not; see `shrink`), `parameters`, `multiply_adds` and `bytes`, each with `_before` and
        `_after`, and `optimizer` (what was dropped of its state).

    Raises:
        ValueError: the model does not come from `shrink`.

    Example:
        >>> tfprune.ticket_report(ticket)["largest_difference"]
        1.2e-07
    """
    try:
        found = _CERTIFICATES.get(ticket)
    except TypeError:  # what cannot be referenced weakly is no model
        found = None
    if found is None:
        raise ValueError(
            f"ticket_report needs a model as tfprune.shrink returned it. Received: {ticket!r}. "
            "A report does not outlive the process: read it before saving the model."
        )
    flat = [pair for pairs in found.differences.values() for pair in pairs]
    before, after = reference_of(ticket), cost(ticket)
    return {
        "exact": not found.approximate,
        "groups_exact": found.exact,
        "groups_approximate": found.approximate,
        "largest_difference": max((largest for largest, _ in flat), default=None),
        "mean_difference": float(np.mean([mean for _, mean in flat])) if flat else None,
        "differences": {kind: [largest for largest, _ in pairs] for kind, pairs in found.differences.items()},
        "not_compared": found.reason,
        "ratio_asked": found.asked,
        "ratio_achieved": found.achieved,
        "compensated": list(found.compensated),
        "not_compensated": list(found.not_compensated),
        **{f"{key}_before": value for key, value in before.items()},
        **{f"{key}_after": value for key, value in after.items()},
        "optimizer": found.optimizer,
    }


def certify(masked, ticket, graph, compensated=None):
    """Compares the outputs of both models, and keeps the result for `ticket_report`.

    Args:
        masked: The model with masks.
        ticket: The small model.
        graph: The `ChannelGraph` of the masked model.
        compensated: What `tfprune.pruning.compensation` did to the masked model. Default None: nothing.

    Raises:
        RuntimeError: the difference is more than 1e-4 of the largest output (more in half precision).
    """
    keep = graph.kept()
    pruned = [group for group in graph.prunable if not keep[group.units].all()]
    approximate = sum(group.approximate for group in pruned)
    differences, reason = _compared(masked, ticket, graph.trace.inputs)
    check(differences, "shrink", masked, ticket)
    units = np.concatenate([group.units for group in graph.prunable]) if graph.prunable else np.zeros(0, int)
    masks = {maker: keep[graph.made(maker)] for group in graph.prunable for maker in group.makers}
    chosen = selection.recall(masked, masks)
    _CERTIFICATES[ticket] = _Certificate(
        len(pruned) - approximate,
        approximate,
        differences,
        reason,
        chosen.ratio if chosen else None,
        float(1 - keep[units].mean()) if len(units) else 0.0,
        _dropped(masked),
        tuple(compensated.layers if compensated else ()),
        tuple(compensated.others if compensated else ()),
    )


def _dropped(masked):
    """What the small model's optimizer does not know any more: its slots had other shapes."""
    optimizer = getattr(masked, "optimizer", None)
    if optimizer is None:
        return "none: the model is not compiled"
    return (
        f"{type(optimizer).__name__} starts afresh, without the slots and the step count of {_steps(optimizer)} steps"
    )


def _steps(optimizer):
    return int(np.asarray(keras.ops.convert_to_tensor(optimizer.iterations)))


def _compared(masked, ticket, inputs):
    """`(differences, "")`, or `({}, reason)` where the masked model does not run on this device."""
    batch = _batch(inputs)
    try:
        expected = _outputs(masked, batch)
    except Exception as error:  # say, an operation that this device does not have: it keeps both from being compared
        return {}, f"{type(error).__name__}: {' '.join(str(error).split())}"
    try:
        return _differences(expected, _outputs(ticket, batch)), ""
    except Exception as error:
        raise RuntimeError(
            f"shrink of '{masked.name}' was stopped: the masked model runs, but the small one does not. {error}"
        ) from error


def compare(first, second, inputs):
    """`{kind of input: [(largest, mean relative difference) of each output]}` of two models that take the same inputs.

    Args:
        first: A Keras model.
        second: A Keras model.
        inputs: Structure of KerasTensors that says what they take.
    """
    batch = _batch(inputs)
    return _differences(_outputs(first, batch), _outputs(second, batch))


def _batch(inputs):
    """Samples of all kinds after one another: one call does for all, for no sample sees another."""
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *(sample(inputs, kind) for kind in KINDS))


def _outputs(model, batch):
    return [np.asarray(keras.ops.cast(out, "float32")) for out in keras.tree.flatten(model(batch, training=False))]


def _differences(ours, theirs):
    rows = {kind: slice(2 * index, 2 * index + 2) for index, kind in enumerate(KINDS)}
    return {
        kind: [
            # Constant inputs may cancel out (in a normalisation): then only rounding is left of them.
            _difference(one[part], other[part], floor=_largest(one) * (1.0 if kind == "constant" else 0.01))
            for one, other in zip(ours, theirs, strict=True)
        ]
        for kind, part in rows.items()
    }


def _difference(one, other, floor=0.0):
    """(largest, mean) difference, relative to the largest number; numbers that are not finite must be the same."""
    if one.shape != other.shape or not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return float("inf"), float("inf")
    finite = np.isfinite(one)
    if not finite.any():
        return 0.0, 0.0
    size = max(_largest(one), floor, 1e-12)
    gaps = np.abs(one[finite].astype("float64") - other[finite]) / size
    return float(gaps.max()), float(gaps.mean())


def _largest(values):
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def check(differences, maker, model, other):
    """Raises a RuntimeError where outputs differ by more than rounding.

    Args:
        differences: What `compare` found.
        maker: Name of the function that made the second model.
        model: The model that it was given.
        other: The model that it made.
    """
    largest = max((gap for pairs in differences.values() for gap, _ in pairs), default=0.0)
    dtypes = {getattr(layer, "compute_dtype", "float32") for layer in other.layers}
    allowed = max([TOLERANCE, *(_HALF[dtype] for dtype in dtypes & _HALF.keys())])
    if largest > allowed:
        worst = max(differences, key=lambda kind: max(gap for gap, _ in differences[kind]))
        raise RuntimeError(
            f"{maker} of '{model.name}' was stopped: on {worst} inputs the new model differs from the one it was given "
            f"by {largest:.1e} of the largest output, more than {allowed:.0e}. {_ADVICE[maker]}"
        )


_ADVICE = {
    "shrink": "A layer does something to channels that its role does not say. tfprune.wrap(model, verify=True) finds "
    "most of such layers and leaves them whole; please report the model.",
    "fold_batch_norm": "A BatchNormalization with a tiny variance makes kernels too large for the precision of the "
    "model. Use the model as it is.",
}
