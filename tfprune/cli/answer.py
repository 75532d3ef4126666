"""What does a command find, for people and for machines?"""

import contextlib
import dataclasses
import io
import math


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command found.

    Args:
        document: Flat dict or nested ones, the JSON document of --json.
        text: The same for people.
        code: Exit code: 0, or 1 where a check found something.
    """

    document: dict
    text: str
    code: int = 0


def plain(value):
    """Returns a value in JSON's own types; NaN and infinities, which JSON lacks, become None."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def printed(function, *arguments, **options):
    """Returns what a function returns, and the text that it prints.

    Example:

    >>> table, text = printed(tfprune.inspect, model)
    """
    with contextlib.redirect_stdout(io.StringIO()) as output:
        result = function(*arguments, **options)
    return result, output.getvalue().rstrip("\n")


def number(value):
    """Returns a number as people read it; None is a dash."""
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def lines(row):
    """Returns one line per number of a flat row; lists, which are for machines, are left out."""
    return "\n".join(f"{name:32} {number(value)}" for name, value in row.items() if not isinstance(value, list | dict))


def at_a_time(jobs):
    """Returns how many trials run side by side, in words."""
    return f"{jobs} trial{'s' if jobs != 1 else ''} at a time"


def duration(seconds):
    """Returns a time as people say it.

    Example:

    >>> duration(8000)
    '2 h 13 min'
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
