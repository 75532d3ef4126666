"""What may a model cost? Budgets as users write them: 100000, 0.5, "50 %", "1.5M", "10 MB", "12 ms"."""

import math
import numbers
import re
from dataclasses import dataclass

_COUNTS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
UNITS = {
    "params": _COUNTS,
    "multiply_adds": _COUNTS,
    "bytes": {
        **{"": 1, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9},
        **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    },
    "latency": {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0},
}
_EXAMPLES = {
    "params": 'a number such as 100000 or "1.5M"',
    "multiply_adds": 'a number such as 3e8 or "300M"',
    "bytes": 'a number such as 2000000 or "2 MB"',
    "latency": 'a time with its unit, such as "12 ms"',
}


@dataclass(frozen=True)
class Limit:
    """What one of a model's costs may be at most.

    Args:
        name: "params", "multiply_adds", "bytes" or "latency".
        value: A share of what the whole model costs, or a number (latency in seconds).
        is_share: Which of the two.
    """

    name: str
    value: float
    is_share: bool

    def of(self, whole):
        """The limit as a number, given what the whole model costs."""
        return self.value * whole if self.is_share else self.value


def read(name, asked):
    """Returns the `Limit` that a user means.

    Args:
        name: "params", "multiply_adds", "bytes" or "latency".
        asked: A share in (0, 1) or as "50 %"; or a number of at least 1, with a unit if it is written as text. Latency
            is a share or a time with its unit: 0.5 seconds and half the time must not be mistaken for each other.

    Raises:
        ValueError: it is neither.
    """
    number, unit = _number_and_unit(asked)
    if number is not None and math.isfinite(number) and number > 0:
        if unit == "%" and number <= 100:
            return Limit(name, number / 100, True)
        if unit == "" and number < 1:
            return Limit(name, float(number), True)
        if unit in UNITS[name]:
            return Limit(name, float(number) * UNITS[name][unit], False)
    raise ValueError(
        f'{name} must be a share of the whole model, such as 0.5 or "50 %", or {_EXAMPLES[name]}. '
        f"Received: {name}={asked!r}."
    )


def _number_and_unit(asked):
    if isinstance(asked, numbers.Real) and not isinstance(asked, bool):
        return float(asked), ""
    found = re.fullmatch(r"\s*([\d.,_]+(?:e[+-]?\d+)?)\s*([%a-zA-Zµ]*)\s*", asked) if isinstance(asked, str) else None
    try:
        return (float(found[1].replace(",", "").replace("_", "")), found[2]) if found else (None, "")
    except ValueError:  # "1.2.3"
        return None, ""


def show(name, number):
    """A cost as people read it."""
    return f"{1000 * number:.3g} ms" if name == "latency" else f"{number:,.0f}"
