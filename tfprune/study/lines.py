"""Which settings does a study vary besides strategy, ratio and seed? Each value of them makes a line of its own."""

_NO_SETTINGS = frozenset({"key", "name", "strategy", "ratio", "seed", "control", "dataset", "model"})


def varied(rows):
    """Returns `{strategy: {setting: values}}`, the settings that take several values within a strategy.

    Settings are the columns before the status; values are told apart by how they are written.

    Args:
        rows: Rows of one model on one data set.
    """
    seen = {}
    for row in rows:
        fields = seen.setdefault(row["strategy"], {})
        for name, value in row.items():
            if name == "status":
                break
            if name not in _NO_SETTINGS:
                fields.setdefault(name, {})[str(value)] = value
    return {
        strategy: {name: list(values.values()) for name, values in fields.items() if len(values) > 1}
        for strategy, fields in seen.items()
    }


def one_setting(rows, usual):
    """Returns the rows of one setting of what the study varies, and that setting as `{name: value}`.

    Of each setting it is the usual value where the study has it, else the first: the least number or word. A strategy
    that has not that value, such as one that prunes in more rounds than others, is left with the first of its own.

    Args:
        rows: Rows of one model on one data set.
        usual: `{setting: value}`, what is preferred.
    """
    by_strategy, chosen = varied(rows), {}
    for name in dict.fromkeys(name for fields in by_strategy.values() for name in fields):
        chosen[name] = _preferred([v for fields in by_strategy.values() for v in fields.get(name, ())], usual.get(name))
    own = {
        strategy: {name: _preferred(values, chosen[name]) for name, values in fields.items()}
        for strategy, fields in by_strategy.items()
    }
    kept = [row for row in rows if all(str(row.get(n)) == str(v) for n, v in own[row["strategy"]].items())]
    return kept, chosen


def _preferred(values, wanted):
    def order(value):
        is_number = isinstance(value, int | float)
        return str(value) != str(wanted), not is_number, value if is_number else 0, str(value)

    return min(values, key=order)
