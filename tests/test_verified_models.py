"""Are the models that Keras ships pruned exactly, and does the sweep say so truthfully?"""

import json

import keras
import pytest
from keras import layers

from tfprune import cli
from tfprune.verification import models as verification

SMALL = sorted(set(verification.applications()) - verification.LARGE)


def test_every_model_function_of_keras_applications_is_tried():
    modules = {"ResNet50", "VGG16", "MobileNetV3Large", "ConvNeXtXLarge", "NASNetLarge", "EfficientNetV2L", "Xception"}
    assert modules <= set(verification.applications())
    assert len(verification.applications()) >= 38
    assert set(verification.applications()) >= verification.LARGE


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_model_of_keras_applications_is_pruned_exactly(name):
    row = verification.verify(name, verification.applications()[name], scopes=("layer",), ratios=(0.5,))
    assert "error" not in row, row["error"]
    assert row["exact"]
    assert row["largest_difference"] < 1e-5
    assert row["change"] > 1e-3, "nothing was pruned that mattered, so the test proves nothing"
    assert row["share"] > (0.9 if "ConvNeXt" in name else 0.99)
    assert row["parameters_half"] < 0.55 * row["parameters"]
    assert row["multiply_adds_half"] < 0.55 * row["multiply_adds"]


def tiny(units=8):
    return keras.Sequential([keras.Input((4,)), layers.Dense(units, "relu"), layers.Dense(units), layers.Dense(2)])


@pytest.fixture(name="models")
def _models(monkeypatch):
    found = {"Tiny": tiny, "Wide": lambda: tiny(16), "ViTiny": with_norm}
    monkeypatch.setattr(verification, "applications", lambda: found)
    monkeypatch.setattr(verification, "hub_backbones", lambda: {})
    return found


def with_norm():
    inputs = keras.Input((4,))
    x = layers.Dense(8, activation="relu")(layers.LayerNormalization()(layers.Dense(6)(inputs)))
    return keras.Model(inputs, layers.Dense(2)(x))


def test_sweep_writes_a_row_for_each_model_and_a_second_one_where_a_normalisation_mixes(models, tmp_path):
    rows = verification.verify_models(tmp_path / "table.md", progress=lambda line: None)
    assert [row["model"] for row in rows] == ["Tiny", "ViTiny", "ViTiny (approximate)", "Wide"]
    assert [row["exact"] for row in rows] == [True, True, False, True]
    assert rows[0]["parameters"] == 4 * 8 + 8 + 8 * 8 + 8 + 8 * 2 + 2
    assert rows[0]["parameters_half"] == 4 * 4 + 4 + 4 * 4 + 4 + 4 * 2 + 2
    assert rows[0]["share"] == round(1 - 2 / rows[0]["parameters"], 4), "all but the biases of the outputs"
    text = (tmp_path / "table.md").read_text()
    assert text.count("| exact |") == 3
    assert text.count("| approximate |") == 1


def test_sweep_goes_on_where_it_was_stopped_and_tries_failures_again(models, tmp_path):
    seen = []
    verification.verify_models(tmp_path / "table.md", only=["Tiny"], progress=seen.append)

    def broken():
        raise RuntimeError("no memory")

    models["Wide"] = broken
    rows = verification.verify_models(tmp_path / "table.md", only=["Tiny", "Wide"], progress=seen.append)
    assert "no memory" in rows[1]["error"]
    models["Wide"] = lambda: tiny(16)
    rows = verification.verify_models(tmp_path / "table.md", only=["Tiny", "Wide"], progress=seen.append)
    assert rows[1]["exact"]
    assert [line.split(":")[0] for line in seen] == ["Tiny", "Wide", "Wide"]
    assert len((tmp_path / "table.jsonl").read_text().splitlines()) == 2


def test_a_model_that_differs_is_not_called_exact(models, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "compare", lambda *models: {"random": [(0.5, 0.1)]})
    row = verification.verify("Tiny", tiny)
    assert (row["exact"], row["largest_difference"]) == (False, 0.5)
    assert "| differs |" in verification.table([row])


def test_largest_models_wait_for_all(models, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "LARGE", {"Wide", "ViTiny"})
    assert [row["model"] for row in verification.verify_models(tmp_path / "a.md", progress=print)] == ["Tiny"]
    assert len(verification.verify_models(tmp_path / "b.md", large=True, progress=print)) == 4


def test_command_prints_a_line_a_model_and_how_many_failed(models, tmp_path, capsys):
    assert cli.main(["verify-models", "--only", "Tiny,Wide", "--out", str(tmp_path / "t.md")]) == 0
    printed = capsys.readouterr()
    assert "Tiny: exact, largest difference" in printed.err
    assert "2 rows" in printed.out
    assert "0 failed" in printed.out
    assert json.loads((tmp_path / "t.jsonl").read_text().splitlines()[0])["versions"]["keras"] == keras.__version__


def test_unknown_models_are_refused(models, tmp_path, capsys):
    assert cli.main(["verify-models", "--only", "Tinny", "--out", str(tmp_path / "t.md")]) == 2
    assert "Unknown models: ['Tinny']" in capsys.readouterr().err
