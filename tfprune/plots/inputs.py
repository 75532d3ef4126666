"""Is what should be drawn all there: named, of one length, and no value missing?"""

from collections.abc import Mapping

import numpy as np


def tables_by_name(given, columns, what):
    """`{name: table}` from a dict of tables, or from one table alone, which gets the name "".

    Args:
        given: A table (a dict of columns or a pandas DataFrame), or a dict of several.
        columns: Keys that every table must have.
        what: What a table is called in an error, and where it comes from.

    Raises:
        ValueError: No table, or one without all columns.
        TypeError: Something else.
    """
    if not _is_table(given):
        raise TypeError(f"Expected {what}, or a dict of them. Received: {type(given).__name__}.")
    several = isinstance(given, Mapping) and all(_is_table(value) for value in given.values())
    tables = dict(given) if several else {"": given}
    if not tables:
        raise ValueError(f"Expected at least one of: {what}. Received: an empty dict.")
    for name, table in tables.items():
        missing = [column for column in columns if column not in table]
        if missing:
            raise ValueError(
                f"Expected {what}, with {', '.join(map(repr, columns))}. Received{_named(name)}: no "
                f"{', '.join(map(repr, missing))} among {sorted(map(str, table))}."
            )
    return tables


def numbers(values, what, least=-np.inf, most=np.inf):
    """The values as a float64 array (n,), n at least 1; refuses what is missing, infinite or out of range.

    Raises:
        ValueError: The values are no flat, finite, non-empty list in [least, most]; `what` names them.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a flat list of numbers. Received: {values!r:.80}.") from None
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{what} must be a flat list of at least one number. Received: shape {array.shape}.")
    bad = ~np.isfinite(array) | (array < least) | (array > most)
    if bad.any():
        bounds = "finite" if np.isinf([least, most]).all() else f"in [{least:g}, {most:g}]"
        raise ValueError(f"{what} must be {bounds}. Received: {array[bad][0]} at position {np.flatnonzero(bad)[0]}.")
    return array


def same_length(**columns):
    """Refuses columns of which some are longer than others.

    Raises:
        ValueError: The lengths differ.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"{', '.join(lengths)} must be equally long. Received: lengths {found}.")


def _is_table(value):
    return isinstance(value, Mapping) or hasattr(value, "columns")  # the latter: pandas, without importing it


def _named(name):
    return f" for {name!r}" if name else ""
