"""How is a table written so that nobody ever reads half of it?"""

import os


def write(path, text):
    """Writes a text file, whole or not at all.

    Args:
        path: a `Path`; folders that are missing are made.
        text: what it will hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
