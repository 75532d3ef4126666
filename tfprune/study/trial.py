"""What is one cell of a study, and by which key is it found again?"""

import dataclasses
import functools
import hashlib
import json

from tfprune import datasets
from tfprune.pruning import strategies


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a trial trains each of its rounds; the defaults are the paper's for the moons.

    Args:
        optimizer: Keras' name of the optimizer, such as "adam" or "sgd".
        learning_rate: Its learning rate.
        momentum: Momentum of "sgd"; left alone where 0.
        batch_size: Examples in a step; 0 for the whole training set in one step.
        epochs: Most epochs in a round.
        patience: Epochs without a lower validation loss after which a round ends.
        decay: Factor on the learning rate after each epoch, rewound with the weights; 1 leaves it constant. A round
            that does not rewind trains with the rate of the last of `epochs`.
        weight_decay: Decoupled weight decay of the optimizer; left alone where 0.

    Raises:
        ValueError: A number that no training could use.

    Example:

    >>> Recipe(optimizer="sgd", learning_rate=0.01, momentum=0.9, batch_size=64, epochs=20, patience=3)
    """

    optimizer: str = "adam"
    learning_rate: float = 0.01
    momentum: float = 0.0
    batch_size: int = 0
    epochs: int = 2000
    patience: int = 20
    decay: float = 1.0
    weight_decay: float = 0.0

    def __post_init__(self):
        """Refuses values no training could use."""
        for field in dataclasses.fields(self):
            # 1 and 1.0 are one learning rate, and must have one key
            object.__setattr__(self, field.name, field.type(getattr(self, field.name)))
        for name in ("epochs", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={getattr(self, name)}.")
        for name in ("batch_size", "momentum", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative. Received: {name}={getattr(self, name)}.")
        for name in ("learning_rate", "decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0. Received: {name}={getattr(self, name)}.")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is measured of each ticket beside accuracy, calibration and cost.

    Args:
        detectors: Names of OOD detectors (`tfprune.uncertainty.detectors`), or ("all",), asked on every OOD set of the
            data. Those that learn do so from the training examples, 5,000 at most. One that cannot be had of a network
            leaves its columns None there; the column `detectors_reason` says why.
        ood: Names of image sets of tensorflow_datasets that join the data's own OOD sets; none by default.
        corruptions: Names of corruptions (`tfprune.corruptions`) of the test images, 1,000 of them at most, or
            ("all",); none by default.
        severities: Severities of the corruptions, 1 to 5.
        latency: Whether to measure the time of a prediction, dense and pruned side by side. Rows then hold times.

    Raises:
        ValueError: A severity that is none.

    Example:

    >>> Evaluation(detectors=("msp", "energy", "knn"), corruptions=("gaussian_noise",), severities=(1, 3, 5))
    """

    detectors: tuple = ("msp", "entropy")
    corruptions: tuple = ()
    severities: tuple = (1, 2, 3, 4, 5)
    latency: bool = False
    ood: tuple = ()

    def __post_init__(self):
        """Turns lists into tuples, so that equal evaluations have equal keys; refuses severities that are none."""
        for name in ("detectors", "corruptions", "severities", "ood"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str | int) else tuple(value))
        if 0 in self.severities:
            raise ValueError("Severity 0 is the clean images, which every row tells of. Pass severities from 1 to 5.")
        if not set(self.severities) <= {1, 2, 3, 4, 5}:
            raise ValueError(f"Severities are from 1 to 5. Received: severities={self.severities}.")


DEFAULT_RECIPE = Recipe()
DEFAULT_EVALUATION = Evaluation()


@dataclasses.dataclass(frozen=True)
class Trial:
    """One cell of a study: which network is pruned on which data, how, by how much and from which seed.

    Args:
        dataset: Name in `tfprune.datasets`, "tfds:NAME", "module:function", or a function that returns a `Dataset`.
        model: Name in `tfprune.models`, a .keras file, "module:function", or a function
            `(input_shape, num_classes, seed) -> keras.Model`.
        strategy: Name of a pruning strategy, such as "one_shot", or a `Strategy`.
        ratio: Share of channels to remove, in [0, 1).
        seed: Fixes initial weights, batches and random restarts. Trials of one seed share their dense network.
        layers: What may be pruned: "all", "dense" (the layers whose names start with "dense"), or layer names with
            commas between.
        criterion: Name of the criterion that ranks channels. Default "l1". Those that look at data, such as "taylor",
            look at 1,024 training examples, evenly spaced.
        scope: "layer" (default) or "global", see `tfprune.compute_masks`.
        rounds: How many times to prune; None (default) for the strategy's own number.
        recipe: How each round trains.
        evaluation: What is measured.

    Raises:
        ValueError: A ratio outside [0, 1), an unknown strategy, or a ratio that the strategy cannot have.

    Example:

    >>> Trial("moons", "mlp", "one_shot", ratio=0.5, seed=0).name
    'moons mlp one_shot ratio=0.5 seed=0'
    """

    dataset: str
    model: str
    strategy: str
    ratio: float
    seed: int
    layers: str = "all"
    criterion: str = "l1"
    scope: str = "layer"
    rounds: int | None = None
    recipe: Recipe = DEFAULT_RECIPE
    evaluation: Evaluation = DEFAULT_EVALUATION

    def __post_init__(self):
        """Refuses cells that could not run."""
        if not 0 <= self.ratio < 1:
            hint = f" For {self.ratio:g} % of the channels pass ratio={self.ratio / 100:g}." if self.ratio > 1 else ""
            raise ValueError(f"ratio must be in [0, 1). Received: ratio={self.ratio:g}.{hint}")
        if self.scope not in ("layer", "global"):
            raise ValueError(f"Unknown scope. Received: {self.scope!r}. Expected 'layer' or 'global'.")
        if self.rounds is not None and self.rounds < 1:
            raise ValueError(f"rounds must be at least 1. Received: rounds={self.rounds}.")
        if strategies.get(self.strategy).name == "dense" and self.ratio:
            raise ValueError(f"The control 'dense' removes nothing: its ratio is 0. Received: ratio={self.ratio:g}.")
        # 3 * 0.1 and 0.3 are one cell
        object.__setattr__(self, "ratio", round(float(self.ratio), 6))
        object.__setattr__(self, "seed", int(self.seed))

    @property
    def key(self):
        """A hash of the fields that are not at their defaults: new fields do not orphan old results."""
        return _hash(self._unusual())

    @property
    def dense_key(self):
        """The same of what its dense network depends on: trials with one dense key share one dense training."""
        shared = ("dataset", "model", "seed", *(f"recipe.{field.name}" for field in dataclasses.fields(Recipe)))
        return _hash({name: value for name, value in self._unusual().items() if name in shared})

    @property
    def num_rounds(self):
        """How many times it prunes."""
        return self.rounds or self._strategy().rounds

    @property
    def epochs_to_keep(self):
        """The epochs of the dense training whose weights it goes back to: one, or none."""
        rewind = self._strategy().rewind
        return (rewind,) if isinstance(rewind, int) and rewind else ()

    @property
    def kind(self):
        """What it has in common with the trials that share its data and architecture, as a trial."""
        return dataclasses.replace(self, strategy="one_shot", ratio=0, seed=0, rounds=None)

    @property
    def name(self):
        """The trial in one line for people, with fields at their defaults left out."""
        fields = self._unusual()
        words = [name_of(getattr(self, name)) for name in ("dataset", "model") if fields.pop(name)]
        fields.pop("strategy")
        shown = {"ratio": f"{fields.pop('ratio'):g}", **fields}
        named = [f"{name.split('.')[-1]}={_shown(value)}" for name, value in shown.items()]
        return " ".join([*words, self._strategy().name, *named])

    def identification(self):
        """Returns the fields as a flat dict, the first columns of the trial's row."""
        strategy = self._strategy()
        return {
            "key": self.key,
            "name": self.name,
            "dataset": name_of(self.dataset),
            "model": name_of(self.model),
            "strategy": strategy.name,
            "control": strategy.control,
            "ratio": self.ratio,
            "seed": self.seed,
            "layers": self.layers,
            "criterion": name_of(self.criterion),
            "scope": self.scope,
            "rounds": self.num_rounds,
            **dataclasses.asdict(self.recipe),
            **{name: _shown(value) for name, value in dataclasses.asdict(self.evaluation).items()},
        }

    def _strategy(self):
        return strategies.get(self.strategy)

    def _unusual(self):
        """`{field: value}`, nested ones as recipe.FIELD; those without a default always, others where they differ."""
        found = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, Recipe | Evaluation):
                usual = dataclasses.asdict(field.default)
                changed = {name: value for name, value in dataclasses.asdict(value).items() if value != usual[name]}
                found |= {f"{field.name}.{name}": value for name, value in changed.items()}
            elif field.default is dataclasses.MISSING or value != field.default:
                found[field.name] = _plain(value)
        return found


def name_of(value):
    """Returns how a name, or a function of the user's, stands in a row.

    Args:
        value: A string, a function, or an object.
    """
    value = value.function if isinstance(value, datasets.Shared) else value
    value = value.func if isinstance(value, functools.partial) else value
    return value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)


def _plain(value):
    """A field as JSON has it; functions by where they are defined, strategies by all that they do."""
    if isinstance(value, strategies.Strategy):
        known = strategies.STRATEGIES.get(value.name)
        if value == known:
            return value.name
        fields = dataclasses.asdict(value)
        if value.ranked_on == strategies.Strategy.ranked_on:
            del fields["ranked_on"]  # which strategies had not when the first keys were made
        return fields
    if isinstance(value, datasets.Shared):
        return _plain(value.function)
    if isinstance(value, functools.partial):
        return [_plain(value.func), list(value.args), value.keywords]
    if callable(value):
        return f"{value.__module__}:{getattr(value, '__qualname__', type(value).__qualname__)}"
    return value


def _shown(value):
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else value


def _hash(fields):
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
