"""How does a TOML file, or a flat dict of settings, become a study and back?"""

import dataclasses
import itertools
from pathlib import Path

from tfprune.pruning.strategies import Strategy
from tfprune.study import grid
from tfprune.study.grid import Study
from tfprune.study.trial import Evaluation, Recipe

_FIELDS = tuple(field.name for field in dataclasses.fields(Study) if field.name not in ("recipe", "evaluation"))


def read_study(path):
    """Reads a study from a TOML file.

    The file names the fields of `tfprune.study.Study`; lists are grids. `[recipe]` and `[evaluation]` are tables of
    their fields, where a list is a grid as well (but for those that are lists by themselves, such as detectors).
    `study = "moons"` starts from a named study, and `[[strategy]]` defines strategies of your own.

    Args:
        path: A file such as this:

            dataset = "digits"
            model = "mlp"
            ratios = [0, 0.5, 0.9]
            seeds = [0, 1, 2]
            strategies = ["one_shot", "dense", "random_channels"]
            [recipe]
            optimizer = "adam"
            learning_rate = [0.001, 0.01]
            batch_size = 64
            epochs = 30
            patience = 5

    Returns:
        A `Study`, named as the file unless it says otherwise.

    Raises:
        ValueError: Not TOML, an unknown field, or a grid that could not run; with the file's name.
        OSError: The file cannot be read.

    Example:

    >>> study = read_study("my.toml")
    """
    path = Path(path)
    try:
        settings = _toml(path.read_bytes())
        return from_settings({"name": path.stem, **settings})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _toml(content):
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    return tomllib.loads(content.decode("utf-8"))


def from_settings(settings):
    """Returns the study that a dict of plain values describes, as a TOML file holds them.

    Args:
        settings: Fields of `Study`; "recipe" and "evaluation" are dicts; "study" names a study to start from.

    Raises:
        ValueError: An unknown field, one that is missing, or a grid that could not run.

    Example:

    >>> from_settings({"study": "moons", "seeds": [0], "recipe": {"epochs": 100}}).recipe.epochs
    100
    """
    settings = dict(settings)
    start = settings.pop("study", None)
    base = _fields_of(grid.get(start)) if start else {}
    own = _own_strategies(settings.pop("strategy", []))
    recipe, evaluation = (_table(settings, name) for name in ("recipe", "evaluation"))
    unknown = set(settings) - set(_FIELDS)
    if unknown:
        known = ", ".join((*_FIELDS, "recipe", "evaluation", "strategy", "study"))
        raise ValueError(f"Unknown setting. Received: {', '.join(sorted(unknown))}. Expected some of {known}.")
    fields = {**base, **{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}}
    for name in ("ratios", "seeds", "strategies"):
        if name in fields and not isinstance(fields[name], tuple):
            fields[name] = (fields[name],)
    if "strategies" in fields:
        fields["strategies"] = tuple(_strategy(one) if isinstance(one, dict) else one for one in fields["strategies"])
    if own:
        fields["strategies"] = tuple(own.get(name, name) for name in fields.get("strategies", tuple(own)))
    missing = [name for name in ("name", "dataset", "model", "ratios", "seeds") if name not in fields]
    if missing:
        raise ValueError(f"A study needs {', '.join(missing)} too. Received: {', '.join(sorted(fields))}.")
    fields["recipe"] = _spread(Recipe, fields.get("recipe", grid.DEFAULT_RECIPE), recipe, lists=())
    lists = ("detectors", "corruptions", "severities", "ood")
    fields["evaluation"] = _spread(Evaluation, fields.get("evaluation", grid.DEFAULT_EVALUATION), evaluation, lists)
    return Study(**fields)


def to_settings(study):
    """Returns a study as plain values, which JSON and TOML can hold and `from_settings` reads where all is named.

    Args:
        study: A `Study`.

    Example:

    >>> to_settings(get("moons"))["ratios"][:3]
    [0.0, 0.1, 0.2]
    """
    from tfprune.study.trial import name_of

    def plain(value):
        if isinstance(value, tuple | list):
            return [plain(part) for part in value]
        if isinstance(value, Recipe | Evaluation | Strategy):
            return {name: plain(part) for name, part in dataclasses.asdict(value).items()}
        return name_of(value) if callable(value) else value

    return {field.name: plain(getattr(study, field.name)) for field in dataclasses.fields(Study)}


def _own_strategies(tables):
    if not isinstance(tables, list) or not all(isinstance(table, dict) and "name" in table for table in tables):
        raise ValueError(
            "Each [[strategy]] is a table with a name, a strategy of your own. Known ones are named in strategies = "
            f'["one_shot", ...]. Received: strategy = {tables!r}.'
        )
    return {table["name"]: _strategy(table) for table in tables}


def _table(settings, name):
    found = settings.pop(name, {})
    if not isinstance(found, dict):
        raise ValueError(f"[{name}] is a table of settings. Received: {name} = {found!r}.")
    return found


def _strategy(table):
    return Strategy(**_known(table, Strategy, "[[strategy]]"))


def _fields_of(study):
    return {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}


def _spread(kind, base, settings, lists):
    """The products of all listed values, as one object or a tuple of them."""
    settings = _known(settings, kind, f"[{kind.__name__.lower()}]")
    axes = {name: value for name, value in settings.items() if isinstance(value, list) and name not in lists}
    fixed = {name: value for name, value in settings.items() if name not in axes}
    bases = base if isinstance(base, tuple) else (base,)
    found = tuple(
        dataclasses.replace(start, **fixed, **dict(zip(axes, values, strict=True)))
        for start in bases
        for values in itertools.product(*axes.values())
    )
    return found if len(found) > 1 else found[0]


def _known(settings, kind, where):
    names = [field.name for field in dataclasses.fields(kind)]
    unknown = set(settings) - set(names)
    if unknown:
        received, known = ", ".join(sorted(unknown)), ", ".join(names)
        raise ValueError(f"Unknown setting in {where}. Received: {received}. Expected some of {known}.")
    return settings
