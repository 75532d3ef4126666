"""Do the metrics give the numbers that other packages give? Every one is computed again, on the same data, by both."""

import itertools
import warnings

from tfprune.verification import references  # first: it imports what must come before TensorFlow
from tfprune.verification.references import CHECKS, our_detection, our_regression, version  # isort: split

import numpy as np

from tfprune import metrics
from tfprune.uncertainty import calibrators
from tfprune.verification import golden
from tfprune.writing import write_text


def verify_metrics(out=None, progress=print):
    """Compares every metric with the packages that are installed, and with the published golden values.

    Args:
        out: Path of a Markdown table to write, such as "docs/verified_metrics.md". Default None: none is written.
        progress: Function that is told a line for each comparison. Default `print`.

    Returns:
        List of rows: `ours`, `package`, `version`, `function`, `data`, `difference`, `tolerance`, `verdict`
        ("agrees", "differs", "failed" or "not installed"), `remark`.

    Example:
        >>> rows = verify_metrics("docs/verified_metrics.md")
        >>> {row["verdict"] for row in rows}
        {'agrees'}
    """
    rows = []
    for row in itertools.chain(_golden_rows(), map(_compared, CHECKS)):
        rows.append(row)
        progress(_line(row))
    if out is not None:
        write_text(out, table(rows))
    return rows


def _compared(check):
    row = {"ours": check.ours, "package": check.package, "version": version(check.package), "function": check.function}
    row |= {"tolerance": check.tolerance, "remark": check.remark}
    data = {name: value for name, value in references.DATA[check.kind]().items() if name not in check.without}
    if row["version"] is None:
        return {**row, "data": 0, "difference": None, "verdict": "not installed"}
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that lag behind those they use
            pairs = [check.compute(value) for value in data.values()]
    except Exception as error:  # whatever the other package raises: the other rows are wanted all the same
        return {**row, "data": 0, "difference": None, "verdict": "failed", "remark": f"{type(error).__name__}: {error}"}
    difference = float(max(abs(ours - theirs) for ours, theirs in pairs))
    return {**row, "data": len(data), "difference": difference, "verdict": _verdict(difference, check.tolerance)}


def _golden_rows():
    """Rows of the golden values, both of a name in one."""
    for published, found in (
        (golden.CLASSIFIERS, [_classifier_values(*data) for data in (golden.classifier_a(), golden.classifier_b())]),
        (golden.DETECTORS, [_detector_values(*golden.detector(tied)) for tied in (False, True)]),
        (golden.REGRESSORS, [_regressor_values(golden.regressor())]),
    ):
        for name, texts in published.items():
            pairs = [golden.deviation(name, values[name], text) for values, text in zip(found, texts, strict=True)]
            difference, tolerance = (max(column) for column in zip(*pairs, strict=True))
            fits = all(deviation <= allowed for deviation, allowed in pairs)
            yield {
                **{"ours": name, "package": "golden values", "version": "", "function": ", ".join(texts)},
                **{"tolerance": tolerance, "remark": "", "data": len(pairs), "difference": difference},
                "verdict": "agrees" if fits else "differs",
            }


def _classifier_values(logits, labels):
    p = metrics.softmax(logits)
    pair = metrics.confidence_and_correct(logits, labels, from_logits=True)
    layer = calibrators.TemperatureScaling().fit_logits(logits, labels)
    tempered = logits / float(layer.temperature)
    functions = (
        *("average_calibration_error", "equal_mass_ece", "debiased_calibration_error", "smooth_ece", "classwise_ece"),
        *("adaptive_calibration_error", "thresholded_adaptive_calibration_error", "uce", "ks_calibration_error"),
        *("accuracy", "brier", "ece"),
    )
    return {
        **{name: getattr(metrics, name)(p, labels) for name in functions},
        **{f"brier {part}": value for part, value in metrics.brier_decomposition(p, labels).items()},
        **{name: getattr(metrics, name)(*pair) for name in ("aurc", "eaurc", "augrc")},
        "optimal_aurc": metrics.optimal_aurc(pair[1]),
        "mean_confidence": metrics.mean_confidence(p),
        "ece of 10 bins": metrics.ece(p, labels, num_bins=10),
        "ece, l2": metrics.ece(p, labels, norm="l2"),
        "ece, max": metrics.ece(p, labels, norm="max"),
        "smooth_ece, sigma 0.05": metrics.smooth_ece(p, labels, sigma=0.05),
        "nll": metrics.nll(logits, labels),
        "entropy": float(metrics.entropy(p).mean()),
        "temperature": float(layer.temperature),
        "nll at the temperature": metrics.nll(tempered, labels),
        "ece at the temperature": metrics.ece(metrics.softmax(tempered), labels),
    }


def _detector_values(known, strange):
    return {name: our_detection(name, known, strange) for name in golden.DETECTORS}


def _regressor_values(given):
    names = [name for name in golden.REGRESSORS if "coverage" in name or name.startswith(("gaussian", "std"))]
    return {
        **{name: our_regression(name, given) for name in names},
        "sharpness": metrics.sharpness(given[1]),
        "picp": metrics.picp(*given),
        "mpiw": metrics.mpiw(given[1]),
        "ence, width": metrics.ence(*given, binning="width"),
        "regression_uce, width": metrics.regression_uce(*given, binning="width"),
    }


def _verdict(difference, tolerance):
    return "agrees" if difference <= tolerance else "differs"  # NaN differs


def _line(row):
    if row["difference"] is None:
        return f"{row['ours']}: {row['package']} {row['verdict']} {row['remark']}"
    return f"{row['ours']}: {row['verdict']} with {row['package']}, largest difference {row['difference']:.1e}"


_HEAD = """# Metrics that tfprune was verified on

Every metric is computed by tfprune and by another package, on the golden data A and B (one over-confident everywhere,
one over- and under-confident in turn) and on data of 2 to 1000 classes, with ties, with saturated probabilities and
with a class that is missing. *Data* counts the sets that both were given: where a package cannot take one, the remark
says why. *Difference* is the largest absolute one. Made by `tfprune verify-metrics`.

"""


def table(rows):
    """The rows of `verify_metrics` as a Markdown page."""
    columns = (
        "metric",
        "package",
        "version",
        "function or published values",
        "data",
        "difference",
        "verdict",
        "remark",
    )
    lines = [_joined(columns), _joined(["---"] * len(columns)), *(_joined(_cells(row)) for row in rows)]
    return _HEAD + "\n".join(lines) + "\n"


def _joined(cells):
    return f"| {' | '.join(cells)} |"


def _cells(row):
    difference = "" if row["difference"] is None else f"{row['difference']:.1e}"
    named = (row["ours"], row["package"], row["version"] or "", row["function"], str(row["data"]), difference)
    return [*named, row["verdict"], row["remark"]]
