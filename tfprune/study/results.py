"""How do a study's rows survive crashes, full disks and second processes?

`results.jsonl` is only ever appended to, one line per finished trial, and only by the process that holds the lock.
"""

import contextlib
import json
import math
import os
import shutil
from pathlib import Path

from tfprune.writing import write_text

_ROOM_BYTES = 16 * 1024 * 1024
_LINE_START = b'{"key": "'


class ResultsError(OSError):
    """Raised when a results folder cannot be read, written or shared."""


class Results:
    """The results of one study in one folder, open for appending; use it as a context manager.

    Entering makes the folder, checks that it can be written, takes the lock, reads what is there and drops a last line
    that a killed process left unfinished. Leaving gives the lock back.

    Args:
        folder: Where results.jsonl lives or will live.

    Raises:
        ResultsError: The folder cannot be written, the disk is (nearly) full, another process writes here, or
            results.jsonl is damaged anywhere but in its last line.

    Example:

    >>> with Results("runs/moons") as results:
    ...     results.append({"key": "moons mlp one_shot ratio=0.5 seed=0", "accuracy": 0.97})
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.path = self.folder / "results.jsonl"
        self.rows = []

    def __enter__(self):
        """Opens the folder for appending."""
        _check_writable(self.folder)
        self._lock = lock(self.folder / ".lock")
        try:
            self.rows, whole_bytes = _read(self.path)
            if self.path.exists() and self.path.stat().st_size > whole_bytes:
                os.truncate(self.path, whole_bytes)
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_):
        """Gives the folder back."""
        self._lock.close()

    def append(self, row):
        """Writes one row so that it is on the disk when this returns; a row that did not fit leaves no trace."""
        line = json.dumps(_plain({"key": row["key"], **row}), allow_nan=False) + "\n"
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with open(self.path, "ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, size)
            raise ResultsError(
                f"Could not write to {self.path}: {error.strerror}. The {len(self.rows)} rows before are kept. "
                "Make room, then run the same command again: it goes on from there."
            ) from error
        self.rows.append(json.loads(line))


def read_rows(folder):
    """Returns the rows of a results folder, one per trial; of a trial that ran again, the latest.

    Args:
        folder: A folder that holds results.jsonl.

    Raises:
        ResultsError: There is no results.jsonl, or it is damaged anywhere but in its last line.

    Example:

    >>> rows = tfprune.study.read_rows("runs/moons")
    """
    path = Path(folder) / "results.jsonl"
    if not path.exists():
        raise ResultsError(f"No results found. Received: {folder}, which holds no results.jsonl.")
    return latest(_read(path)[0])


def latest(rows):
    """Returns one row per key, the last one written, in the order of strategy, ratio and seed."""
    by_key = {row["key"]: row for row in rows}
    names = ("dataset", "model", "layers", "strategy")
    return sorted(
        by_key.values(),
        key=lambda row: (*(str(row.get(name, "")) for name in names), row.get("ratio", 0), row.get("seed", 0)),
    )


def write_csv(rows, path):
    """Writes rows as a table, whole or not at all; lists become JSON text.

    Args:
        rows: List of flat dicts.
        path: File to write or replace.
    """
    import pandas as pd

    def cell(value):
        return json.dumps(value) if isinstance(value, list) else value

    table = pd.DataFrame([{name: cell(value) for name, value in row.items()} for row in rows])
    write_whole(table.to_csv(index=False), path)


def write_whole(text, path):
    """Writes a text file, whole or not at all.

    Raises:
        ResultsError: The file cannot be written.
    """
    with errors_of(path):
        write_text(path, text)


@contextlib.contextmanager
def errors_of(path):
    """Says of what goes wrong inside, where `tfprune.writing` writes a file, which file it was.

    Raises:
        ResultsError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"Could not write {path}: {error.strerror or error}. What stood there before is untouched."
        ) from error


def _read(path):
    """Returns the rows and the number of bytes they take; bytes after that are a torn last line."""
    if not path.exists():
        return [], 0
    content = path.read_bytes()
    # What follows the last newline is what a killed process left behind, but only if it began as our lines begin:
    # anything else was not written here, and is refused like any other damage.
    *lines, torn = content.split(b"\n")
    if torn and not torn.startswith(_LINE_START[: len(torn)]):
        lines.append(torn)
    rows = [_row(line, number, path) for number, line in enumerate(lines, start=1)]
    return rows, len(content) - len(torn)


def _row(line, number, path):
    try:
        row = json.loads(line)
        if not isinstance(row, dict) or not isinstance(row.get("key"), str):
            raise ValueError("not a row with a key")
    except ValueError as error:
        raise ResultsError(
            f"{path} is damaged: line {number} is {line[:40]!r} ({error}). Expected one JSON object with a key per "
            "line. It was left as it is: mend or remove that line, or choose another folder."
        ) from error
    return row


def _plain(value):
    """Returns value in JSON's own types; NaN and infinities, which JSON lacks, become None."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _check_writable(folder):
    probe = folder / ".probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 65536)
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        with contextlib.suppress(OSError):
            probe.unlink()
        raise ResultsError(
            f"Cannot write results. Received: {folder} ({error.strerror}). Expected a folder that can be made and "
            "written, with some free space. Choose another one with --out."
        ) from error
    if free < _ROOM_BYTES:
        raise ResultsError(
            f"Too little room for results. Received: {folder} with {free / 2**20:.1f} MB free. Expected at least "
            f"{_ROOM_BYTES / 2**20:.0f} MB. Make room, or choose another folder with --out."
        )


def lock(path):
    """Returns a file that this process alone has locked; the operating system gives it back however the process ends.

    Args:
        path: The file to lock; made where it is not there.

    Raises:
        ResultsError: Another process has it.
    """
    file = open(path, "a+b")  # noqa: SIM115 (held open for as long as the lock is)
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ResultsError(
            f"Another process is writing results to {Path(path).parent}. Wait for it, stop it, or choose another "
            "folder with --out."
        ) from error
    return file


def is_locked(folder):
    """Returns whether a process writes results to a folder now.

    Args:
        folder: The study's folder.
    """
    path = Path(folder) / ".lock"
    if not path.exists():
        return False
    try:
        lock(path).close()
    except ResultsError:
        return True
    return False
