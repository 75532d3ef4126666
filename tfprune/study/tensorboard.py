"""What does TensorBoard need to show a study? Scalars over rounds, and each trial's settings beside its results."""

import importlib.util
import os
import shutil
import time
from pathlib import Path

from tfprune.study import results
from tfprune.study.quiet import start_tensorflow

_FINAL = ("accuracy", "ece", "nll", "rmse", "crps", "interval_calibration_error", "compression_ratio", "latency_ms")
_NO_SETTINGS = ("key", "name", "status", "error")


def log_to_tensorboard(folder, logdir):
    """Writes a study's finished trials as TensorBoard runs: curves over the rounds of pruning, and hyperparameters.

    Each trial is a run LOGDIR/KEY with the scalars "round/ratio", "round/accuracy", "round/ece", "round/auroc" ..., one
    step per round of pruning, round 0 being the dense network, and with its settings for the HParams tab, which ranks
    trials by "accuracy", "ece", AUROC and the like. A run that is there already is left as it is, so that this can be
    called again as a study grows.

    Args:
        folder: Folder that holds results.jsonl.
        logdir: Folder for TensorBoard; then `tensorboard --logdir LOGDIR`.

    Returns:
        Number of trials written.

    Raises:
        ResultsError: No results, or damaged ones.
        ImportError: tensorboard is not installed.

    Example:

    >>> tfprune.study.log_to_tensorboard("runs/moons", "logs/moons")
    360
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ImportError("log_to_tensorboard needs the package tensorboard. Install it: pip install tensorboard.")
    rows = [row for row in results.read_rows(folder) if row.get("status") == "done"]
    todo = [row for row in rows if not any(_run(logdir, row).glob("events.out.tfevents.*"))]
    if todo:
        # tensorboard reads and writes through TensorFlow where it finds it.
        start_tensorflow()
    for row in todo:
        _write_run(_run(logdir, row), row)
    return len(todo)


def _run(logdir, row):
    # Keys may hold spaces and signs that a file system refuses.
    return Path(logdir) / "".join(sign if sign.isalnum() or sign in "-_=." else "_" for sign in row["key"])


def _write_run(folder, row):
    """Writes one run in a folder beside, which gets its name once it is whole."""
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    writer = EventFileWriter(str(partial))
    try:
        for step, summary in _summaries(row):
            writer.add_event(_event(summary, step))
    finally:
        writer.close()
    os.replace(partial, folder)


def _summaries(row):
    """Yields `(step, summary)`: settings, values of each round, and results at the step of the last round."""
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    yield 0, hparams_pb(_settings(row), trial_id=row["key"])
    rounds = {name: row[name] for name in row if name.startswith("round_") and isinstance(row[name], list)}
    for name, values in rounds.items():
        for number, value in enumerate(values):
            if value is not None:
                yield number, _scalar(name.replace("_", "/", 1), value)
    last = max([0, *(len(values) - 1 for values in rounds.values())])
    for name in (*_FINAL, *_aurocs(row)):
        if row.get(name) is not None:
            yield last, _scalar(name, row[name])


def _settings(row):
    """The trial's own settings: the columns before its status, as numbers, truths and words."""
    found = {}
    for name, value in row.items():
        if name == "status":
            break
        if name not in _NO_SETTINGS and value is not None:
            found[name] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return found


def _aurocs(row):
    return sorted(name for name in row if "/auroc_" in name and not name.startswith("dense_"))


def _scalar(tag, value):
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    plugin = SummaryMetadata.PluginData(plugin_name="scalars")
    return Summary(
        value=[Summary.Value(tag=tag, simple_value=float(value), metadata=SummaryMetadata(plugin_data=plugin))]
    )


def _event(summary, step):
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=time.time(), step=step, summary=summary)
