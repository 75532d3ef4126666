"""How does a file come to its place whole or not at all?"""

import contextlib
import os
import secrets
import time
from pathlib import Path

_HOUR = 3600


@contextlib.contextmanager
def replacing(path):
    """Gives the path of a neighbour to write; it takes the place of `path` where the block ends without an error.

    No reader and no crash ever sees half of the file: it is on the disk before it gets its name, and what stood there
    before stays where anything goes wrong. Folders that are missing are made.

    Args:
        path: File to write or replace.

    Example:

    >>> with replacing("ticket.keras") as partial:
    ...     model.save(partial)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    # the suffix stays at the end: Keras and others go by it
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a text file in UTF-8, whole or not at all.

    Args:
        path: File to write or replace.
        text: What it will hold.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def _sweep(path):
    """Removes what writers that were killed left behind; one that writes now is younger than an hour."""
    for partial in path.parent.glob(f".{path.stem}.????????.part{path.suffix}"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > _HOUR:
                partial.unlink()
