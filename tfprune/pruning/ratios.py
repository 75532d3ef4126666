"""Is a number a share of channels that can be removed?"""

import numbers


def check_ratio(ratio):
    """Returns the ratio, or says what is wrong with it."""
    if isinstance(ratio, bool) or not isinstance(ratio, numbers.Real):
        raise TypeError(f"ratio must be a number in [0, 1) or {{layer name: number}}. Received: ratio={ratio!r}.")
    if not 0 <= ratio < 1:
        hint = f" For {ratio:g} % of the channels pass ratio={ratio / 100:g}." if 1 < ratio < 100 else ""
        raise ValueError(f"ratio must be in [0, 1). Received: ratio={ratio:g}.{hint}")
    return float(ratio)
