"""How much does each group of layers matter? Each is pruned alone, at several ratios, and the model is evaluated."""

from collections.abc import Iterable

from tfprune.evaluation import evaluate
from tfprune.predictions import Forward, Predictor, check_batch_size
from tfprune.pruning import masks, surgery
from tfprune.structure.head import kind_and_chain, without_activation
from tfprune.structure.replay import copy_weights, rebuild_operation, replay
from tfprune.structure.trace import trace

RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)
# What gets worse by growing; of all others, less is worse.
_GROWING = ("ece", "nll", "brier")
_METRICS = ("accuracy", "nll", "brier", "ece")


def sensitivity(
    model, data, ratios=RATIOS, ood=None, from_logits=None, batch_size=256, approximate=False, progress=None, **options
):
    """Evaluates the model with each group of layers pruned alone, at each ratio; without training.

    One masked model, compiled once, serves all cells: masks are set and the data are run through. Sensitivity to
    pruning alone is a guide, not a promise: groups pruned together may hurt more.

    Args:
        model: A built Sequential or functional Keras classifier without masks. It is left as it is.
        data: `(x, y)` arrays, or a `tf.data.Dataset` of `(x, y)`, batched or not. Not the test set, if the ratios that
            follow are to be judged on it.
        ratios: Shares of the group's channels to remove. Default (0.1, 0.3, 0.5, 0.7, 0.9).
        ood: `{name: data}` of out-of-distribution sets, as `tfprune.evaluate` takes them. Default None.
        from_logits: Whether the model's outputs are logits. Default None reads it off the last layer.
        batch_size: Samples at a time, for arrays and unbatched data sets. Default 256.
        approximate: As in `tfprune.wrap`. Default False.
        progress: Function called with each row as it comes. Default None.
        **options: What else `tfprune.compute_masks` takes: criterion, ignore, only, round_to, seed.

    Returns:
        A list of flat rows, those of ratio 0 (the whole model) among them: `group`, `ratio`, `channels`, `kept`,
        `accuracy`, `nll`, `brier`, `ece`, and `NAME/auroc_msp` for each set of strangers.
        `tfprune.plots.draw_sensitivity` draws them, `tfprune.ratios_within` reads ratios off them.

    Raises:
        ValueError: a ratio outside [0, 1), a name that is unknown, data that do not fit the model.

    Example:
        >>> rows = tfprune.sensitivity(model, validation, ratios=(0.25, 0.5), ood={"noise": noise})
        >>> tfprune.plots.draw_sensitivity(rows)

    Source: the accuracy of layers pruned alone: Li et al. 2017, "Pruning Filters for Efficient ConvNets".
    """
    check_batch_size(batch_size)
    ratios = _checked(ratios)
    masked = surgery.wrap(_logits_of(model), approximate)
    # a criterion that looks at data derives the loss, which takes what the user's model gives
    ranked = masked if isinstance(options.get("criterion", "l1"), str) else surgery.wrap(model, approximate)
    whole_masks = masks.compute_masks(ranked, 0.0, **options)  # a misspelt option does not end a long run
    classifier, rows = _Compiled(masked, from_logits), []
    whole = _measure(classifier, data, ood, batch_size)
    for group, ratio, found in _cells(ranked, ratios, options):
        measured = whole
        if not found[group].all():
            masks.set_masks(masked, found)
            measured = _measure(classifier, data, ood, batch_size)
            masks.set_masks(masked, whole_masks)
        size = {"channels": len(found[group]), "kept": int(found[group].sum())}
        rows.append({"group": group, "ratio": ratio, **size, **measured})
        if progress:
            progress(rows[-1])
    return rows


def _checked(ratios):
    """The ratios as a list."""
    if isinstance(ratios, str) or not isinstance(ratios, Iterable) or not (found := list(ratios)):
        raise ValueError(f"ratios must list what to remove, such as (0.25, 0.5). Received: ratios={ratios!r}.")
    return [masks.check_ratio(ratio) for ratio in found]


def _cells(masked, ratios, options):
    """`(group, ratio, masks)`, the whole group first; groups in the order of the network."""
    ignored, only = set(options.get("ignore") or ()), options.get("only")
    for group in masks.graph_of(masked).prunable:
        names = {*group.layers, *group.makers}
        if names & ignored or (only is not None and not names & set(only)):
            continue
        for ratio in sorted({0.0, *ratios}):
            yield group.name, ratio, masks.compute_masks(masked, {group.name: ratio}, **options)


class _Compiled:
    """The masked model as `evaluate` takes it: compiled once, for setting masks needs no new tracing."""

    def __init__(self, masked, from_logits):
        predictor = Predictor(masked, from_logits)
        self.from_logits, self.inputs, self.predict = predictor.gives_logits, masked.inputs, Forward(masked, direct=0)


def _logits_of(model):
    """The model without its last softmax or sigmoid: probabilities saturate, and then all scores tie."""
    traced = trace(model)
    kind, chain = kind_and_chain(traced)
    if kind not in ("softmax", "sigmoid"):
        return model
    head = chain[0].op
    twin = without_activation(chain[0]).op
    logits, twins = replay(traced, lambda op, config: twin if op is head else rebuild_operation(op, config), draw=False)
    for op in traced.operations:
        if op is not head:
            copy_weights(op, twins[id(op)])
    return logits


def _measure(classifier, data, ood, batch_size):
    row = evaluate(classifier, data, ood=ood, detectors=("msp",), batch_size=batch_size)
    found = {name: row[name] for name in _METRICS}
    return found | {f"{name}/auroc_msp": row[f"{name}/auroc_msp"] for name in ood or ()}


# --- ratios that follow -----------------------------------------------------------------------------------------------


def ratios_within(rows, max_drop, metric="accuracy"):
    """The largest ratio of each group at which pruning it alone costs at most so much.

    Between two measured ratios the cost is taken to grow linearly; beyond the first ratio that costs more nothing is
    believed, and beyond the largest measured one nothing is pruned.

    Args:
        rows: What `tfprune.sensitivity` returned.
        max_drop: How much worse the metric may be than that of the whole model; 0.01 is one percentage point of
            accuracy. At least 0.
        metric: A column of the rows: "accuracy" (default), "nll", "brier", "ece" or "NAME/auroc_msp". Of "nll",
            "brier" and "ece", more is worse.

    Returns:
        `{group: ratio}`, for `ratio` of `tfprune.compute_masks`, `LotteryTicket` and their like.

    Raises:
        ValueError: no such column, or a negative `max_drop`.

    Example:
        >>> tfprune.ratios_within(rows, max_drop=0.01)
        {'conv_1': 0.1, 'conv_2': 0.63}
    """
    if not max_drop >= 0:
        raise ValueError(f"max_drop must be at least 0. Received: max_drop={max_drop!r}.")
    return {group: _ratio_within(*curve, max_drop) for group, curve in curves(rows, metric).items()}


def curves(rows, metric="accuracy"):
    """`{group: (ratios, costs)}`: how much worse the metric is at each ratio than at ratio 0, in rising order.

    Args:
        rows: What `tfprune.sensitivity` returned.
        metric: A column of the rows.
    """
    if not rows or metric not in rows[0]:
        known = [name for name in (rows[0] if rows else {}) if name not in ("group", "ratio", "channels", "kept")]
        raise ValueError(f"metric must be a column of the rows: {', '.join(known)}. Received: {metric!r}.")
    sign, found = (1 if metric in _GROWING else -1), {}
    for row in rows:
        found.setdefault(row["group"], {})[row["ratio"]] = sign * row[metric]
    for group, values in found.items():
        if 0.0 not in values:
            raise ValueError(f"Group '{group}' has no row of ratio 0 to compare with. Pass all rows of sensitivity().")
    return {
        group: (sorted(values), [values[ratio] - values[0.0] for ratio in sorted(values)])
        for group, values in found.items()
    }


def _ratio_within(ratios, costs, max_drop):
    for index in range(1, len(ratios)):
        if costs[index] > max_drop:
            before = max(costs[index - 1], 0.0)
            share = (max_drop - before) / (costs[index] - before)
            return float(ratios[index - 1] + share * (ratios[index] - ratios[index - 1]))
    return float(ratios[-1])


def path_of(rows):
    """Function `strength in [0, 1] -> {group: ratio}`, never falling: what `tfprune.budgets.Plan` takes.

    Up to 1/2 the ratios that cost nothing are approached, from there to 1 more and more accuracy is given up, as much
    in every group.

    Args:
        rows: What `tfprune.sensitivity` returned.
    """
    found = curves(rows)
    most = max(max(costs) for _, costs in found.values())

    def ratios(strength):
        scale, drop = min(1.0, 2 * strength), max(0.0, 2 * strength - 1) * max(most, 0.0)
        return {group: scale * _ratio_within(*curve, drop) for group, curve in found.items()}

    return ratios
