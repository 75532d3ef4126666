"""Does TensorBoard see a study: each round's values, and each trial's settings?"""

import importlib.util
import json

import pytest

from tfprune import study

ROW = {
    "key": "0123456789abcdef", "dataset": "moons", "model": "mlp", "strategy": "iterative", "ratio": 0.5, "seed": 3,
    "optimizer": "adam", "control": False, "status": "done", "round_ratio": [0.0, 0.3, 0.5],
    "round_accuracy": [0.9, 0.89, 0.87], "round_ece": [0.02, 0.03, 0.05], "round_auroc": [0.8, None, 0.7],
    "accuracy": 0.87, "ece": 0.05, "far/auroc_msp": 0.7, "dense_far/auroc_msp": 0.8,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    rows = [ROW, {**ROW, "key": "failed", "status": "failed", "error": "x"}]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def _scalars(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    return {
        tag: [(e.step, pytest.approx(e.value)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }, events


def test_tensorboard_reads_each_round_and_the_settings(folder, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.plugins.hparams import plugin_data_pb2

    logs = tmp_path / "logs"
    assert study.log_to_tensorboard(folder, logs) == 1
    assert [path.name for path in logs.iterdir()] == [ROW["key"]]
    scalars, events = _scalars(logs / ROW["key"])
    assert scalars["round/ratio"] == [(0, 0.0), (1, 0.3), (2, 0.5)]
    assert scalars["round/ece"] == [(0, 0.02), (1, 0.03), (2, 0.05)]
    assert scalars["round/auroc"] == [(0, 0.8), (2, 0.7)]
    assert scalars["accuracy"] == [(2, 0.87)]
    assert scalars["far/auroc_msp"] == [(2, 0.7)]
    assert "dense_far/auroc_msp" not in scalars
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert {name: settings[name].number_value for name in ("ratio", "seed")} == {"ratio": 0.5, "seed": 3}
    assert settings["strategy"].string_value == "iterative"
    assert "status" not in settings
    # as a study grows, what is there stays
    assert study.log_to_tensorboard(folder, logs) == 0


def test_without_tensorboard_the_error_says_what_to_install(folder, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    with pytest.raises(ImportError, match="pip install tensorboard"):
        study.log_to_tensorboard(folder, tmp_path / "logs")
