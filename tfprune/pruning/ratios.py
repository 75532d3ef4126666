"""Is a number what an argument takes: a share of channels that can be removed, a count, something above 0?"""

import math
import numbers


def check_ratio(ratio):
    """Returns the ratio, or says what is wrong with it."""
    if isinstance(ratio, bool) or not isinstance(ratio, numbers.Real):
        raise TypeError(f"ratio must be a number in [0, 1) or {{layer name: number}}. Received: ratio={ratio!r}.")
    if not 0 <= ratio < 1:
        hint = f" For {ratio:g} % of the channels pass ratio={ratio / 100:g}." if 1 < ratio < 100 else ""
        raise ValueError(f"ratio must be in [0, 1). Received: ratio={ratio:g}.{hint}")
    return float(ratio)


def check_count(name, value, least=1):
    """Returns the number, or raises ValueError unless it is a whole one of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}. Received: {name}={value!r}.")
    return int(value)


def check_positive(name, value):
    """Returns the number, or raises ValueError unless it is finite and above 0."""
    if check_finite(name, value) <= 0:
        raise ValueError(f"{name} must be a positive number. Received: {name}={value!r}.")
    return value


def check_finite(name, value):
    """Returns the number, or raises ValueError where it is none, or infinite."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number. Received: {name}={value!r}.")
    return value
