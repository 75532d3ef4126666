"""How is a fitted detector kept in a file? Its arrays in an .npz, everything else in a .json beside it; no pickle."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np

from tfprune.uncertainty.detectors.health import Health
from tfprune.uncertainty.leak import Fingerprint
from tfprune.writing import replacing, write_text

_FORMAT = 1


def write(detector, path):
    """Writes a fitted detector to `path`.npz and `path`.json; a reader never sees half a file.

    Args:
        detector: a fitted detector.
        path: where to, without a suffix.

    Raises:
        ValueError: for a detector that is not fitted, or whose model has changed since.
    """
    detector.check()
    arrays = io.BytesIO()
    np.savez(arrays, **detector.statistics)
    about = {
        "format": _FORMAT,
        "detector": type(detector).name,
        "config": detector.get_config(),
        "choices": detector.choices,
        "from_logits": detector.from_logits,
        "model_hash": detector.model_hash,
        "health": detector.health,
        "fingerprint": None if detector.fingerprint is None else detector.fingerprint.get_config(),
        # Two files cannot be replaced at once: the hash tells a pair from two strangers.
        "npz_sha256": hashlib.sha256(arrays.getvalue()).hexdigest(),
    }
    npz, about_path = _paths(path)
    text = json.dumps(about, indent=1, default=_plain, allow_nan=False)
    with replacing(npz) as partial:
        partial.write_bytes(arrays.getvalue())
    write_text(about_path, text)


def read(path):
    """`(about, arrays)` of what `write` wrote.

    Args:
        path: without a suffix.

    Raises:
        FileNotFoundError: where one of the two files is missing.
        ValueError: where they are not a pair, or of a later version.
    """
    npz, about_path = _paths(path)
    about, data = json.loads(about_path.read_text(encoding="utf-8")), npz.read_bytes()
    if about.get("format") != _FORMAT:
        raise ValueError(f"{about_path} must be of format {_FORMAT}. Received: {about.get('format')!r}.")
    if hashlib.sha256(data).hexdigest() != about["npz_sha256"]:
        raise ValueError(f"{npz} and {about_path} were not written together. Save the detector again.")
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        return about, {name: stored[name] for name in stored.files}


def restore(detector, about, arrays):
    """Gives a new detector what `read` returned; it still has to be bound to its model."""
    detector.statistics, detector.choices = arrays, about["choices"]
    detector.from_logits, detector.model_hash = about["from_logits"], about["model_hash"]
    detector.health = None if about["health"] is None else Health(about["health"])
    detector.fingerprint = None if about["fingerprint"] is None else Fingerprint.from_config(about["fingerprint"])


def _paths(path):
    path = Path(path)
    if path.suffix in (".npz", ".json"):
        raise ValueError(f"path must have no suffix: two files are written. Received: {str(path)!r}.")
    return path.with_name(path.name + ".npz"), path.with_name(path.name + ".json")


def _plain(value):
    """NumPy numbers and arrays as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"Expected numbers, text, lists and dicts. Received: {value!r} of type {type(value).__name__}.")
