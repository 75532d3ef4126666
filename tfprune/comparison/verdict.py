"""Better, worse, or not distinguishable? What the intervals allow to say, and no more."""

from tfprune.significance import holm

NOT_DISTINGUISHABLE = "not distinguishable"
# Smaller differences are rounding: float32 networks that compute the same in another order differ by less.
RESOLUTION = 1e-6


def of_interval(low, high, larger_is_better):
    """Verdict on a difference whose interval this is.

    Args:
        low: lower end.
        high: upper end.
        larger_is_better: whether a positive difference is good.
    """
    if low > RESOLUTION:
        return "better" if larger_is_better else "worse"
    if high < -RESOLUTION:
        return "worse" if larger_is_better else "better"
    return NOT_DISTINGUISHABLE


def of_accuracy(row):
    """Verdict on the accuracy."""
    return of_interval(row["accuracy_difference_low"], row["accuracy_difference_high"], True)


def of_calibration(row):
    """Verdict on the calibration error, where the raw one and its excess over the noise floor agree.

    The floor rises as accuracy falls, so a rise of the raw error alone may be chance; and where the error is far above
    the floor, the floor is no longer in it, so that a change of the excess alone may be the floor's. (Simulated at
    95 %, two models of equal true error and unequal accuracy, 500 to 10,000 samples: the raw interval alone was wrong
    in 7 to 13 % of cases, that of the excess alone in 1 to 16 %, both together in 1 to 7 %.)
    """
    verdicts = {
        of_interval(row[f"{name}_difference_low"], row[f"{name}_difference_high"], False)
        for name in ("ece", "ece_excess")
    }
    return verdicts.pop() if len(verdicts) == 1 else NOT_DISTINGUISHABLE


def of_detection(differences, confidence):
    """Verdict on the AUROCs of all out-of-distribution sets and scores, after Holm's correction for their number.

    Args:
        differences: list of `Difference`.
        confidence: 1 - the level of the tests.

    Returns:
        None where there are none; "mixed" where some are better and others worse.
    """
    if not differences:
        return None
    adjusted = holm([difference.p for difference in differences])
    distinct = [
        difference.value > 0
        for difference, p in zip(differences, adjusted, strict=True)
        if p <= 1 - confidence and abs(difference.value) > RESOLUTION
    ]
    if not distinct:
        return NOT_DISTINGUISHABLE
    return "mixed" if len(set(distinct)) > 1 else ("better" if distinct[0] else "worse")


def overall(verdicts):
    """One line from `{question: verdict}`; questions that were not asked are None."""
    asked = {question: verdict for question, verdict in verdicts.items() if verdict is not None}
    if set(asked.values()) == {NOT_DISTINGUISHABLE}:
        return NOT_DISTINGUISHABLE
    return ", ".join(f"{question} {verdict}" for question, verdict in asked.items())


def rows_of(row, differences, confidence):
    """All verdicts as a flat row: `verdict_accuracy`, `verdict_calibration`, `verdict_ood` and `verdict`."""
    verdicts = {
        "accuracy": of_accuracy(row),
        "calibration": of_calibration(row),
        "OOD": of_detection(differences, confidence),
    }
    named = {f"verdict_{question.lower()}": verdict for question, verdict in verdicts.items()}
    return {**named, "verdict": overall(verdicts)}
