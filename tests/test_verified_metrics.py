"""Does `tfprune verify-metrics` compare every metric, notice what differs, and say what could not be compared?"""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from tfprune import cli, metrics
from tfprune.verification import golden, references
from tfprune.verification import metrics as verification

INSTALLED = ("scikit-learn", "scipy")


@pytest.fixture(scope="module")
def rows():
    return verification.verify_metrics(progress=lambda line: None)


def test_everything_that_can_be_compared_agrees(rows):
    assert [row for row in rows if row["verdict"] not in ("agrees", "not installed")] == []
    compared = [row for row in rows if row["verdict"] == "agrees"]
    assert {"golden values", *INSTALLED} <= {row["package"] for row in compared}
    assert all(row["difference"] <= row["tolerance"] or row["package"] == "golden values" for row in compared)


def test_every_golden_value_is_recomputed(rows):
    published = {**golden.CLASSIFIERS, **golden.DETECTORS, **golden.REGRESSORS}
    assert [row["ours"] for row in rows if row["package"] == "golden values"] == list(published)


@pytest.mark.parametrize("package", sorted({check.package for check in references.CHECKS} - set(INSTALLED)))
def test_package_that_is_there_is_used(rows, package):
    module = {"uncertainty-calibration": "calibration", "pytorch-ood": "pytorch_ood"}.get(package)
    module = module or package.replace("-", "_")
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{package} is not installed")
    assert {row["verdict"] for row in rows if row["package"] == package} == {"agrees"}


@pytest.mark.skipif(importlib.util.find_spec("tensorflow_probability") is None, reason="it is not installed")
@pytest.mark.parametrize("before", ["import tensorflow_model_optimization", "os.environ['TF_USE_LEGACY_KERAS'] = '1'"])
def test_tensorflow_probability_is_compared_where_tf_keras_stands_for_keras(before):
    code = f"""if True:
        import os
        import tensorflow.compat.v2
        {before}
        tensorflow.compat.v2.keras.layers  # looked up when it is used, and then for good
        os.environ.pop("TF_USE_LEGACY_KERAS")
        from tfprune.verification import references
        data = next(iter(references.classifiers().values()))
        for check in references.CHECKS:
            if check.package == "tensorflow-probability":
                ours, theirs = check.compute(data)
                print(abs(ours - theirs) <= check.tolerance)
    """
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert shown.stdout.split() == ["True", "True"]


def test_wrong_metric_is_noticed(monkeypatch):
    monkeypatch.setattr(metrics, "auroc", lambda known, strange: 0.5)
    rows = verification.verify_metrics(progress=lambda line: None)
    verdicts = {row["package"]: row["verdict"] for row in rows if row["ours"] == "auroc"}
    assert verdicts["golden values"] == verdicts["scikit-learn"] == "differs"


def test_metric_that_is_nan_differs():
    assert verification._verdict(float("nan"), 1e-6) == "differs"


def test_package_that_fails_is_named_and_the_rest_goes_on(monkeypatch):
    def broken(data):
        raise RuntimeError("no such bin")

    check = references.Check("ece", "scikit-learn", "broken", 1e-6, "classifier", broken)
    monkeypatch.setattr(verification, "CHECKS", [check])
    rows = verification.verify_metrics(progress=lambda line: None)
    assert (rows[-1]["verdict"], rows[-1]["remark"]) == ("failed", "RuntimeError: no such bin")
    assert len(rows) > 1


def test_command_writes_the_table_and_fails_where_something_differs(tmp_path, monkeypatch, capsys):
    out = tmp_path / "docs" / "table.md"
    monkeypatch.setattr(verification, "CHECKS", [check for check in references.CHECKS if check.ours == "fpr95"])
    assert cli.main(["verify-metrics", "--out", str(out)]) == 0
    assert "| fpr95 | scikit-learn |" in out.read_text()
    assert [path.name for path in out.parent.iterdir()] == ["table.md"]
    monkeypatch.setattr(metrics, "fpr95", lambda known, strange, positive="ood": np.nan)
    assert cli.main(["verify-metrics", "--out", str(out)]) == 1
    assert "differ" in capsys.readouterr().err
    assert "| differs |" in out.read_text()
