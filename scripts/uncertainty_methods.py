"""Do MC dropout, last-layer Laplace and ensembles of tickets mend the confidence of pruned networks? On digits.

Each method is a line of the report: the ticket alone, the same ticket with dropout at test time, with a Gaussian over
its last layer, and five tickets of other seeds together. Seed k's ensemble holds the tickets 5 k to 5 k + 4.
"""

import argparse
import functools
from pathlib import Path

from tfprune import study

METHODS = tuple(study.Strategy(name) for name in ("one_ticket", "mc_dropout", "laplace", "ensemble"))
MEMBERS = 5


def network(input_shape, num_classes, seed):
    """A multilayer perceptron with the dropout that MC dropout needs."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            *(keras.Input(input_shape), layers.Flatten()),
            *(layers.Dense(100, "relu"), layers.Dropout(0.2), layers.Dense(100, "relu"), layers.Dropout(0.2)),
            layers.Dense(num_classes),
        ]
    )


def ticket(folder, data, trial, seed):
    """The ticket of a ratio and a seed; it is trained once, and then loaded."""
    import keras

    import tfprune

    path = Path(folder) / "tickets" / f"{trial.ratio:g}-{seed}.keras"
    if not path.exists():
        model = network(data.input_shape, data.num_classes, seed)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(trial.recipe.learning_rate), loss)
        found = tfprune.find_ticket(
            model,
            data.train,
            ratio=trial.ratio,
            patience=trial.recipe.patience,
            epochs_per_round=trial.recipe.epochs,
            batch_size=trial.recipe.batch_size,
            validation_data=data.validation,
            verbose=0,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        found.model.save(path)
    return keras.models.load_model(path)


def measure(folder, trial):
    """Evaluates the tickets of a trial by its method."""
    from tfprune import datasets, evaluate
    from tfprune.uncertainty import Ensemble, LastLayerLaplace, MCDropout

    data = datasets.get(trial.dataset)
    member = functools.partial(ticket, folder, data, trial)
    predictive = {
        "one_ticket": lambda: member(MEMBERS * trial.seed),
        "mc_dropout": lambda: MCDropout(member(MEMBERS * trial.seed), from_logits=True),
        "laplace": lambda: LastLayerLaplace().fit(member(MEMBERS * trial.seed), data.train),
        "ensemble": lambda: Ensemble([member(MEMBERS * trial.seed + i) for i in range(MEMBERS)], from_logits=True),
    }[trial.strategy.name]()
    logits = True if trial.strategy.name == "one_ticket" else None
    return evaluate(predictive, data.test, ood=data.ood, from_logits=logits)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, counted from 0")
    parser.add_argument("--epochs", type=int, default=60, help="most epochs in a round")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.0, 0.5, 0.8, 0.9])
    parser.add_argument("--out", default="runs/uncertainty_methods")
    options = parser.parse_args()

    recipe = study.Recipe("adam", 0.002, batch_size=64, epochs=options.epochs, patience=5)
    grid = study.Study(
        "uncertainty_methods", "digits", network, options.ratios, range(options.seeds), METHODS, recipe=recipe
    )
    study.run_study(grid, out=options.out, trial_function=functools.partial(measure, options.out))
    print("report:", study.write_report(options.out))
