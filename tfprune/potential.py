"""How much may be pruned before accuracy, calibration or OOD detection suffers? One ratio for each kind of data.

Liebenwein's prune potential is the largest ratio at which the accuracy holds, on clean data and on shifted data. Here
the calibration and the detection of strangers have to hold as well, and each of them beyond chance.
"""

import math

import numpy as np

from tfprune.significance import one_sided_bound

# What tells one pruning curve from another; the columns that the rows have.
CURVE = ("dataset", "model", "layers", "corruption", "severity", "strategy")


def prune_potential(rows, max_accuracy_drop=0.01, max_ece_rise=0.02, max_auroc_drop=0.02, confidence=0.95, score="msp"):
    """The largest ratio at which every bound holds, and holds at all smaller ratios, beyond chance.

    A bound holds at a ratio where the upper end of a one-sided interval of the harm stays within it. The ratios are
    tried in order, and the first at which one bound fails ends the search, even if a larger one would pass again. So
    the chance of a potential that is too large is at most 1 - confidence, whatever the number of bounds and ratios: all
    bounds have to pass, and each ratio is tried only after the one before passed.

    A seed that failed at a ratio is missing from its mean, which looks better for it. So a ratio with a failed seed is
    not shown to pass, if that seed has a dense network: a row of ratio 0. Of rows that hold differences every one has.

    Args:
        rows: list of flat dicts or a `DataFrame`, as a study's rows, or those of `tfprune.evaluate` or `evaluate_shift`
            with a "ratio" (and a "seed"). Lines of different "dataset", "model", "layers", "corruption", "severity" or
            "strategy" are different curves. Rows whose "status" is "failed" count as above and need no measures; a
            curve of failed rows alone has no line. Either

            * each seed has a row of ratio 0, with which its others are paired; the interval is Student's over seeds. It
              holds for this test set. A seed without a row of ratio 0 is left out; or
            * the rows hold differences, as `tfprune.compare` and `compare_seeds` give them ("accuracy_difference" ...).

            A single seed has no interval over seeds: its rows have to bring their own. These are "..._difference_low"
            and "..._difference_high" (with "confidence_level", at least 2 * confidence - 1), or a "..._standard_error"
            beside each difference, or beside each measure, at ratio 0 too.
        max_accuracy_drop: largest harmless fall of "accuracy"; None leaves the bound out.
        max_ece_rise: largest harmless rise of "ece_excess" where all rows have it, else of "ece"; or None.
        max_auroc_drop: largest harmless fall of each "NAME/auroc_SCORE" that the rows have; or None.
        confidence: level of the one-sided intervals.
        score: which OOD score's AUROC is looked at.

    Returns:
        A `DataFrame`, one line per curve: its columns of the above; "potential", 0.0 where the smallest ratio fails;
        "limited_by", what fails at the next ratio, "failed trials" first and then the bounds, worst first, and
        "failed_ratio", that ratio: None and NaN where all pass, so that the potential is the largest ratio there is;
        "num_seeds", the fewest at any ratio; and for each bound "NAME_margin", how far inside it the upper end is at
        the potential (NaN for a bound that another curve has).

    Raises:
        ValueError: for a single seed without own intervals, rows without ratio 0 to compare with, two rows for one
            ratio and seed, measures that are missing or not finite, or bounds that are negative or all None.

    Example:
        >>> rows = tfprune.study.read_rows("runs/digits")
        >>> tfprune.prune_potential(rows, max_ece_rise=0.01)[["strategy", "potential", "limited_by"]]

    Source: Liebenwein et al., "Lost in Pruning: The Effects of Pruning Neural Networks beyond Test Accuracy", 2021.
    Berger, "Multiparameter hypothesis testing and acceptance sampling", 1982 (all bounds at one level).
    """
    import pandas as pd

    harm = harm_by_ratio(rows, max_accuracy_drop, max_ece_rise, max_auroc_drop, confidence, score)
    curve = [name for name in CURVE if name in harm]
    found = [{**dict(zip(curve, key, strict=True)), **_potential_of(part)} for key, part in _groups(harm, curve)]
    return pd.DataFrame(found)


def harm_by_ratio(rows, max_accuracy_drop=0.01, max_ece_rise=0.02, max_auroc_drop=0.02, confidence=0.95, score="msp"):
    """The curve behind `prune_potential`: how much each bound's measure is harmed at each ratio.

    Args and errors as for `prune_potential`.

    Returns:
        A `DataFrame`, one line per curve, ratio above 0 and bound: "bound", "ratio", "num_seeds", "num_failed" (seeds
        that failed there), "harm" (mean over seeds, positive is worse), "upper" (end of its one-sided interval),
        "limit", "margin" (limit - upper), "holds" (no seed failed, and the margin is not negative). "upper" is NaN
        where failures leave one seed alone, and "harm" too where they leave none.
    """
    import pandas as pd

    table, failed = _table(rows)
    limits = {"accuracy": max_accuracy_drop, "ece": max_ece_rise, "auroc": max_auroc_drop}
    _check_limits(limits)
    bounds = _bounds(table, limits, score)
    curve = [name for name in CURVE if name in table]
    lines = []
    for key, part in _groups(table, curve):
        where = dict(zip(curve, key, strict=True))
        failures = _failures(part, failed, where)
        for bound in bounds:
            if not part[bound.columns].isna().all(axis=None):
                lines += [{**where, **line} for line in _harm_lines(part, bound, confidence, where, failures)]
    if not lines:
        raise ValueError("Expected rows of ratios above 0. Received: rows of ratio 0 only.")
    return pd.DataFrame(lines)


class _Bound:
    """A measure, which way is worse, how much worse it may be, and the columns that tell of it."""

    def __init__(self, measure, limit, columns):
        self.measure, self.limit = measure, limit
        self.name = measure.removesuffix("_excess")
        self.sign = 1 if self.name == "ece" else -1  # of what is worse
        self.difference = f"{measure}_difference"
        self.columns = columns

    def own_upper(self, row, confidence):
        """Upper end of the harm from the row's own interval of its difference; None without one."""
        low, high = (_number(row, f"{self.difference}_{end}") for end in ("low", "high"))
        if not (math.isfinite(low) and math.isfinite(high)):
            return None
        level = _number(row, "confidence_level")
        if not (1 + level) / 2 >= confidence - 1e-9:
            raise ValueError(
                f"A one-sided bound of confidence={confidence} needs two-sided intervals of at least "
                f"{2 * confidence - 1:g}. Received: rows with confidence_level={level:g}."
            )
        return high if self.sign > 0 else -low


def _potential_of(harm):
    """The line of one curve from its `harm_by_ratio`."""
    holds = harm.groupby("ratio")["holds"].all()
    failed = next((ratio for ratio, held in holds.items() if not held), math.nan)
    passed = [ratio for ratio in holds.index if not ratio >= failed]  # all of them where none failed
    potential = passed[-1] if passed else 0.0
    end = harm[harm["ratio"] == failed]
    worst = end[end["margin"] < 0].sort_values("margin", kind="stable")
    limited_by = [*(["failed trials"] if end["num_failed"].any() else []), *worst["bound"]]
    at = harm[harm["ratio"] == potential].set_index("bound")["margin"]
    limits = harm.groupby("bound", sort=False)["limit"].first()  # the margins of ratio 0, where nothing is harmed
    return {
        "potential": float(potential),
        "limited_by": ", ".join(limited_by) or None,
        "failed_ratio": failed,
        "num_seeds": int(harm["num_seeds"].min()),
        **{f"{bound}_margin": float(at.get(bound, limit)) for bound, limit in limits.items()},
    }


def _harm_lines(part, bound, confidence, where, failures):
    """Lines of one curve and one bound, in the order of the ratios."""
    lines = []
    for ratio in sorted({*part["ratio"][part["ratio"] > 0], *failures}):
        rows = part[part["ratio"] == ratio]
        failed = failures.get(ratio, 0)
        pairs = _pairs(part, ratio, rows, bound, where) if len(rows) else []
        harms = [harm for harm, _ in pairs]
        if len(harms) > 1:
            upper = one_sided_bound(harms, confidence)
        else:  # a seed left over by failures needs no interval, for the ratio does not pass anyway
            upper = math.nan if failed else _upper_of_one(*pairs[0], bound, confidence, {**where, "ratio": ratio})
        lines.append(
            {
                "bound": bound.name,
                "ratio": float(ratio),
                "num_seeds": len(harms),
                "num_failed": failed,
                "harm": float(np.mean(harms)) if harms else math.nan,
                "upper": float(upper),
                "limit": float(bound.limit),
                "margin": float(bound.limit - upper),
                "holds": bool(upper <= bound.limit) and not failed,
            }
        )
    return lines


def _failures(part, failed, where):
    """`{ratio: how many seeds failed}` of one curve; without its dense network a seed says nothing of the pruning."""
    # A trial that failed has no corruption and no severity: it is missing from all of its strategy's curves.
    for name, value in where.items():
        if name in failed:
            failed = failed[failed[name].isna() | (failed[name] == value)]
    dense = set(part["seed"][part["ratio"] == 0])
    found = {}
    for ratio, rows in failed[failed["ratio"] > 0].groupby("ratio"):
        seeds = set(rows["seed"]) - set(part["seed"][part["ratio"] == ratio])
        if count := len(seeds & dense if dense else seeds):
            found[ratio] = count
    return found


def _pairs(part, ratio, rows, bound, where):
    """`(harm, (row, its row of ratio 0 or None))` of each seed at one ratio."""
    if bound.difference in bound.columns and rows[bound.difference].notna().any():
        values = _finite(rows, bound.difference, where)
        return [(bound.sign * v, (row, None)) for v, row in zip(values, rows.to_dict("records"), strict=True)]
    dense = {row["seed"]: row for row in part[part["ratio"] == 0].to_dict("records")}
    if not dense:
        raise ValueError(
            f"Expected a row of ratio 0 for each seed to compare with. Received: none for {_named(where)}."
        )
    rows = rows[rows["seed"].isin(dense)]
    if rows.empty:
        raise ValueError(
            f"Expected seeds that have a row of ratio 0, too. Received: ratio {ratio:g} without such a seed, for "
            f"{_named(where)}."
        )
    _finite(part[part["ratio"] == 0], bound.measure, where)
    values = _finite(rows, bound.measure, where)
    return [
        (bound.sign * (value - dense[row["seed"]][bound.measure]), (row, dense[row["seed"]]))
        for value, row in zip(values, rows.to_dict("records"), strict=True)
    ]


def _upper_of_one(harm, rows, bound, confidence, where):
    """Upper end of the harm of a single seed, from what its rows bring."""
    from scipy.stats import norm

    row, dense = rows
    upper = bound.own_upper(row, confidence)
    if upper is not None:
        return upper
    name = f"{bound.difference if dense is None else bound.measure}_standard_error"
    errors = [_number(given, name) for given in (row, dense) if given is not None]
    if not all(math.isfinite(error) and error >= 0 for error in errors):
        raise ValueError(
            f"An interval needs two seeds or more. Received: one seed for {_named(where)}, without an interval of its "
            f"own for {bound.measure}. Run more seeds, or pass rows of tfprune.compare with their ratio."
        )
    # The errors of two models on one test set are taken to be independent, which they are not: a little too wide.
    return harm + norm.ppf(confidence) * math.hypot(*errors)


def _table(rows):
    """The rows as a `DataFrame` with "ratio" and "seed", checked; and those of failed trials, apart."""
    import pandas as pd

    table = pd.DataFrame(rows)
    if not len(table) or "ratio" not in table:
        raise ValueError(
            f'Expected rows with a "ratio" each. Received: {len(table)} rows with columns {list(table.columns)[:8]}.'
        )
    table = table.assign(seed=table.get("seed", 0))
    is_failed = table.get("status", table["ratio"]) == "failed"
    failed, table = table[is_failed], table[~is_failed]
    if not ((table["ratio"] >= 0) & (table["ratio"] < 1)).all():
        raise ValueError(f"ratio must be in [0, 1). Received: {sorted(set(table['ratio']))}.")
    names = [*(name for name in CURVE if name in table), "ratio", "seed"]
    twice = table[table.duplicated(names)]
    if len(twice):
        raise ValueError(
            f"Expected one row per ratio and seed. Received: two for {_named(twice[names].iloc[0].to_dict())}. "
            "Pass the rows of one recipe at a time."
        )
    return table, failed


def _bounds(table, limits, score):
    """The `_Bound`s whose limits are given and whose measures the rows have."""

    def columns(measure):
        return [name for name in (measure, f"{measure}_difference") if name in table]

    excess = columns("ece_excess")
    ece = "ece_excess" if excess and table[excess].notna().any(axis=1).all() else "ece"
    stems = {name.removesuffix("_difference") for name in table if "/" in name}
    aurocs = sorted(name for name in stems if name.endswith(f"/auroc_{score}"))
    wanted = [("accuracy", limits["accuracy"]), (ece, limits["ece"]), *((name, limits["auroc"]) for name in aurocs)]
    for measure, limit in wanted[:2]:
        if limit is not None and not columns(measure):
            raise ValueError(
                f"Expected rows with {measure!r}. Received: columns {list(table.columns)[:8]}. "
                "Pass None as its bound to leave it out."
            )
    return [_Bound(measure, limit, columns(measure)) for measure, limit in wanted if limit is not None]


def _check_limits(limits):
    if all(limit is None for limit in limits.values()):
        raise ValueError("Expected at least one bound. Received: None for all of them.")
    for name, limit in limits.items():
        if limit is not None and not limit >= 0:
            raise ValueError(f"Bounds must be numbers of at least 0. Received: {limit} for {name}.")


def _finite(rows, column, where):
    values = rows[column].to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.all(np.isfinite(values)):
        raise ValueError(f"Expected a finite {column!r} in each row. Received: {values.tolist()} for {_named(where)}.")
    return values


def _number(row, name):
    """The entry as a float, NaN where there is none."""
    value = row.get(name)
    return math.nan if value is None else float(value)


def _groups(table, names):
    """`(key, part)` of each combination of the named columns, in the order in which they appear."""
    return table.groupby(names, sort=False, dropna=False) if names else [((), table)]


def _named(where):
    return ", ".join(f"{name}={value}" for name, value in where.items()) or "these rows"
