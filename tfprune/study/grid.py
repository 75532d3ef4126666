"""Which cells does a study consist of?"""

import dataclasses
import itertools
import numbers

from tfprune import datasets, models
from tfprune.pruning import strategies
from tfprune.pruning.strategies import Strategy
from tfprune.study.trial import DEFAULT_EVALUATION, DEFAULT_RECIPE, Evaluation, Recipe, Trial

PAPER_STRATEGIES = ("one_shot", "one_shot_reinit", "one_shot_random", "iterative")
CONTROLS = ("dense", "random_channels", "scratch_epochs")
# What a study may have several of, beside ratios, seeds and strategies.
_AXES = ("dataset", "model", "layers", "criterion", "scope", "rounds", "recipe", "evaluation")


@dataclasses.dataclass(frozen=True)
class Study:
    """A grid of trials: every strategy at every ratio from every seed, and so on for all that has several values.

    Args:
        name: Name of the study; its results go to runs/NAME unless told otherwise.
        dataset, model: As in `Trial`, or a tuple of these.
        ratios: Shares of channels to remove, each in [0, 1).
        seeds: Integers. Trials of one seed start from the same weights.
        strategies: Names of strategies, or `Strategy` values; the paper's four by default. Controls run where they say
            something: "dense" at ratio 0, the others above it.
        layers, criterion, scope, rounds, recipe, evaluation: As in `Trial`, or a tuple of these.

    Raises:
        ValueError: An empty grid, a ratio outside [0, 1), an unknown data set, model or strategy, a model function that
            cannot be called, or a strategy that rewinds to an epoch that its recipe never reaches.
        FileNotFoundError: A model file that is not there.

    Example:

    >>> study = Study("mine", "digits", "mlp", ratios=(0, 0.5), seeds=(0, 1, 2), recipe=Recipe(batch_size=64))
    >>> rows = run_study(study)
    """

    name: str
    dataset: str | tuple
    model: str | tuple
    ratios: tuple
    seeds: tuple
    strategies: tuple = PAPER_STRATEGIES
    layers: str | tuple = "all"
    criterion: str | tuple = "l1"
    scope: str | tuple = "layer"
    rounds: int | tuple | None = None
    recipe: Recipe | tuple = DEFAULT_RECIPE
    evaluation: Evaluation | tuple = DEFAULT_EVALUATION

    def __post_init__(self):
        """Refuses a grid that could not run."""
        for name in ("ratios", "seeds", "strategies", *_AXES):
            values = self.axis(name)
            if not values:
                raise ValueError(f"A study needs at least one of its {name}. Received: {name}=().")
            if isinstance(getattr(self, name), tuple | list | range):
                object.__setattr__(self, name, values)
        for name, kind in (("ratios", numbers.Real), ("seeds", numbers.Integral)):
            odd = [value for value in self.axis(name) if not isinstance(value, kind)]
            if odd:
                raise ValueError(f"{name} must be {_KINDS[kind]}. Received: {odd[0]!r}.")
        for dataset in self.axis("dataset"):
            datasets.loader(dataset)
        for model in self.axis("model"):
            models.check(model)
        trials = self.trials()
        for trial in trials:
            _check_rewind(trial)
        if not trials:
            raise ValueError(
                "The grid holds no trial: controls run above ratio 0 only, and 'dense' at 0. Received: "
                f"ratios={self.ratios}, strategies={self.strategies}."
            )

    def axis(self, name):
        """Returns the values that the study has of a field, as a tuple without repetitions.

        Args:
            name: Name of a field, such as "seeds" or "recipe".
        """
        value = getattr(self, name)
        # dict.fromkeys: a value named twice is still one cell
        return tuple(dict.fromkeys(value)) if isinstance(value, tuple | list | range) else (value,)

    def trials(self):
        """Returns the trials; seed by seed, so that a study stopped early holds whole grids of its first seeds."""
        found = {}
        outer = itertools.product(*(self.axis(name) for name in _AXES))
        for values, seed, strategy in itertools.product(outer, self.axis("seeds"), self.axis("strategies")):
            fields = dict(zip(_AXES, values, strict=True))
            for ratio in _ratios_of(strategies.get(strategy), self.axis("ratios")):
                trial = Trial(strategy=strategy, ratio=ratio, seed=seed, **fields)
                found[trial.key] = trial
        order = {seed: position for position, seed in enumerate(self.axis("seeds"))}
        return sorted(found.values(), key=lambda trial: order[trial.seed])


def _check_rewind(trial):
    for epoch in trial.epochs_to_keep:
        if epoch > trial.recipe.epochs:
            raise ValueError(
                f"Strategy {strategies.get(trial.strategy).name!r} rewinds to epoch {epoch}, which a training never "
                f"reaches. Received: epochs={trial.recipe.epochs}. Rewind to an earlier epoch, or train for more."
            )


_KINDS = {numbers.Real: "numbers in [0, 1)", numbers.Integral: "whole numbers"}


def _ratios_of(strategy, ratios):
    """A control at the ratios at which it is one."""
    if strategy.name == "dense":
        return (0.0,)
    if strategy.channels != "criterion" or strategy.budget != "patience":
        return tuple(ratio for ratio in ratios if ratio)
    return ratios


# CIFAR-10 trains in batches of 64 where the paper has 4, with momentum and a rate that falls by 0.3 each epoch: that
# reaches the paper's accuracy within 8 epochs a round, in a fraction of the time.
_CIFAR10 = Recipe("sgd", 0.015, momentum=0.9, decay=0.7, batch_size=64, epochs=8, patience=3, weight_decay=0.003)
_RESNET = Recipe("sgd", 0.1, momentum=0.9, decay=0.5, batch_size=128, epochs=5, patience=3, weight_decay=1e-4)
_DIGITS = Recipe("adam", 0.002, batch_size=64, epochs=60, patience=5)
_LINE = Recipe("adam", 0.01, epochs=1000, patience=50)
_DETECTORS = ("msp", "max_logit", "energy", "entropy", "mahalanobis", "knn", "vim")
_DIGIT_LOOK = Evaluation(detectors=_DETECTORS)
_CIFAR10_LOOK = Evaluation(detectors=(*_DETECTORS, "gen", "react", "ash"), ood=("fashion_mnist", "mnist"))
_LENET_LOOK = dataclasses.replace(_CIFAR10_LOOK, corruptions=("all",))
_TENTHS = tuple(i / 10 for i in range(10))
_RATIOS = (0.2, 0.4, 0.6, 0.8, 0.9)  # and 0: the control "dense"
# Three rounds in place of the paper's five: a round of real images costs minutes.
_THREE_ROUNDS = (Strategy("iterative", 3, "init"), Strategy("iterative_finetune", 3, None))
_IMAGE_STRATEGIES = (*PAPER_STRATEGIES[:3], *_THREE_ROUNDS, "lr_rewind", "rewind_epoch_2", *CONTROLS)
_LINE_STRATEGIES = ("one_shot", "one_shot_random", "iterative", "dense", "random_channels")

STUDIES = {
    study.name: study
    for study in (
        Study("moons", "moons", "mlp", _TENTHS, tuple(range(10))),
        Study(
            "digits", "digits", "mlp", _RATIOS, (0, 1, 2, 3, 4), (*PAPER_STRATEGIES, "lr_rewind", *CONTROLS),
            recipe=_DIGITS, evaluation=_DIGIT_LOOK,
        ),
        Study(
            "digits-cnn", "digits", "cnn", _RATIOS, (0, 1, 2), (*PAPER_STRATEGIES, "lr_rewind", *CONTROLS),
            recipe=_DIGITS, evaluation=_DIGIT_LOOK,
        ),
        Study(
            "regression", "noisy_line", ("gaussian_mlp", "homoskedastic_mlp"), _RATIOS, (0, 1, 2, 3, 4),
            _LINE_STRATEGIES, recipe=_LINE,
        ),
        Study(
            "cifar10", "cifar10", "lenet", _RATIOS, (0, 1, 2), (*_IMAGE_STRATEGIES, "scratch_compute"), layers="dense",
            recipe=_CIFAR10, evaluation=_LENET_LOOK,
        ),
        Study(
            "cifar10-all", "cifar10", "lenet", _RATIOS, (0, 1, 2), _IMAGE_STRATEGIES,
            recipe=_CIFAR10, evaluation=_LENET_LOOK,
        ),
        Study(
            "cifar10-resnet", "cifar10", "resnet8", (0.25, 0.5, 0.75), (0, 1, 2), ("one_shot", "lr_rewind", *CONTROLS),
            recipe=_RESNET, evaluation=_CIFAR10_LOOK,
        ),
    )
}  # fmt: skip

_QUICK_CIFAR10 = {
    "ratios": (0.4, 0.8),
    "seeds": (0,),
    "strategies": ("one_shot", "one_shot_random", "dense"),
    "recipe": dataclasses.replace(_CIFAR10, epochs=2),
}
_QUICK_DIGITS = {
    "ratios": (0.5, 0.9),
    "seeds": (0, 1, 2),
    "strategies": ("one_shot", "one_shot_random", "dense", "random_channels"),
    "recipe": dataclasses.replace(_DIGITS, epochs=15),
}
# The same studies small enough to look at: what `tfprune study NAME --quick` changes. The moons train at 10 times
# the paper's learning rate: rounds reach their early stop within the fewer epochs that they have.
_QUICK = {
    "moons": {
        "ratios": (0.0, 0.5, 0.9),
        "seeds": (0, 1, 2),
        "recipe": Recipe(learning_rate=0.1, epochs=200, patience=10),
    },
    "digits": _QUICK_DIGITS,
    "digits-cnn": _QUICK_DIGITS,
    "regression": {"ratios": (0.5, 0.9), "seeds": (0, 1, 2), "recipe": dataclasses.replace(_LINE, epochs=200)},
    "cifar10": _QUICK_CIFAR10,
    "cifar10-all": _QUICK_CIFAR10,
    "cifar10-resnet": {**_QUICK_CIFAR10, "recipe": dataclasses.replace(_RESNET, epochs=1)},
}


def get(study):
    """Returns the `Study` that a name stands for, or the study itself.

    Raises:
        ValueError: Unknown name.

    Example:

    >>> get("moons").seeds
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    """
    if isinstance(study, Study):
        return study
    if study not in STUDIES:
        raise ValueError(
            f"Unknown study. Received: {study!r}. Expected one of {', '.join(map(repr, STUDIES))}, or a "
            "tfprune.study.Study."
        )
    return STUDIES[study]


def quick(study):
    """Returns a named study cut down to minutes, as a new study named NAME-quick.

    Args:
        study: A name in `STUDIES`.

    Example:

    >>> len(quick("moons").trials())
    36
    """
    return dataclasses.replace(get(study), name=f"{study}-quick", **_QUICK[study])
