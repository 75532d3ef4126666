"""How is training kept on disk, so that nothing is done twice and nothing wrong is ever taken for it?

A kept file is NumPy's .npz without pickled objects: arrays, and an entry "about" with JSON that says what they are. It
is written beside its place and moved there whole. A file that is torn, or that belongs to another training, reads as if
it were not there: what it would have held is done again.
"""

import contextlib
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np

from tfprune.writing import replacing


def save(path, identity, about, arrays):
    """Writes a kept file, whole or not at all; returns whether that was possible.

    A disk that is full costs what could have been kept, not the training that made it: there is a warning, and what
    stood there before is untouched.

    Args:
        path: File to write or replace; its folder is made.
        identity: Dict of JSON values that says which training this is; `load` asks for the same.
        about: Dict of JSON values to keep beside the arrays.
        arrays: `{name: array}`.

    Example:

    >>> save("runs/dense/1f.npz", {"key": "1f"}, {"epochs": 12}, {"best/0": kernel})
    True
    """
    path = Path(path)
    # bfloat16 and its kind are no types of NumPy's own: they are kept as the integers of their bits
    foreign = {name: str(array.dtype) for name, array in arrays.items() if array.dtype.kind == "V"}
    arrays = {name: a.view(f"uint{8 * a.itemsize}") if name in foreign else a for name, a in arrays.items()}
    text = json.dumps({"identity": identity, "about": about, "foreign": foreign}).encode()
    try:
        with replacing(path) as partial, open(partial, "wb") as file:
            np.savez(file, about=np.frombuffer(text, np.uint8), **arrays)
    except OSError as error:
        warnings.warn(f"{path} could not be kept ({error.strerror}). The training goes on without.", stacklevel=2)
        return False
    return True


def load(path, identity):
    """Returns `(about, arrays)` as they were saved; None where there is no whole file of this identity.

    Args:
        path: File to read.
        identity: What `save` was told.

    Example:

    >>> about, arrays = load("runs/dense/1f.npz", {"key": "1f"})
    """
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            # every entry is read to its end, where zip's checksum of it is compared
            arrays = {name: file[name] for name in file.files}
        told = json.loads(arrays.pop("about").tobytes())
        arrays |= {name: arrays[name].view(_foreign_dtype(dtype)) for name, dtype in told["foreign"].items()}
    except Exception:  # no file; or a damaged one, which raises whatever the damage leads to
        return None
    # through JSON, as what was saved went: a tuple comes back as a list
    return (told["about"], arrays) if told["identity"] == json.loads(json.dumps(identity)) else None


def remove(path):
    """Removes a file that may not be there."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def numbered(prefix, values):
    """Returns `{"prefix/0": value, "prefix/1": value, ...}`, the names of a list of arrays in a file."""
    return {f"{prefix}/{index}": value for index, value in enumerate(values)}


def listed(prefix, arrays):
    """Returns the list that `numbered` named."""
    count = sum(name.startswith(f"{prefix}/") for name in arrays)
    return [arrays[f"{prefix}/{index}"] for index in range(count)]


class Checkpoint:
    """Where a round in progress is written now and then, so that a killed training goes on from there.

    Args:
        path: The file; None to keep nothing.
        identity: As for `save`.
        seconds: Least time between two writes. Default 30: a killed training repeats half a minute at most.

    Example:

    >>> checkpoint = Checkpoint("runs/dense/1f.progress.npz", {"key": "1f"})
    >>> if checkpoint.due():
    ...     checkpoint.save({"epochs": 3}, arrays)
    """

    def __init__(self, path=None, identity=None, seconds=30.0):
        self.path, self.identity, self.seconds = path, identity, seconds
        self._last = time.monotonic()

    def due(self):
        """Whether it is time to write again."""
        return self.path is not None and time.monotonic() - self._last >= self.seconds

    def save(self, about, arrays):
        """Writes, as `kept.save` does."""
        save(self.path, self.identity, about, arrays)
        self._last = time.monotonic()

    def load(self):
        """What was written last, as `kept.load` gives it."""
        return None if self.path is None else load(self.path, self.identity)

    def remove(self):
        """Removes it: the round is over and safe elsewhere."""
        if self.path is not None:
            remove(self.path)


class Shelf:
    """Where a training keeps its files: a folder, or memory where there is none.

    What could not be written, on a full disk, is held in memory too, so that the training goes on.

    Args:
        folder: Folder, which is made with the first file; None to keep all in memory.
        identity: As for `save`, for all files of this shelf.
    """

    def __init__(self, folder, identity):
        self.folder, self.identity = folder and Path(folder), identity
        self._held = {}

    def save(self, name, about, arrays):
        """Keeps arrays, and what is to be known of them, under a name."""
        if self.folder is None or not save(self.folder / name, self.identity, about, arrays):
            self._held[name] = (about, arrays)

    def load(self, name):
        """Returns `(about, arrays)`; None where there is nothing of this name, or nothing to be trusted."""
        if name in self._held:
            return self._held[name]
        return None if self.folder is None else load(self.folder / name, self.identity)

    def remove(self, name):
        """Removes what is kept under a name."""
        self._held.pop(name, None)
        if self.folder is not None:
            remove(self.folder / name)

    def checkpoint(self, name):
        """Returns the `Checkpoint` of this name; without a folder, one that keeps nothing."""
        return Checkpoint(self.folder and self.folder / name, self.identity)


def _foreign_dtype(name):
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name))
