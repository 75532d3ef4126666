"""What does removing 80 % of LeNet's hidden units do to its confidence on CIFAR-10, and to nineteen detectors?"""

import argparse
import json
from pathlib import Path

import keras
import pandas as pd

import tfprune
from tfprune.uncertainty import detectors


def fit(model, data, seed, epochs):
    """Trains with the learning rate falling by a fifth each epoch, until the validation loss has risen three times."""
    keras.utils.set_random_seed(seed)
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, len(data.train[0]) // 64 + 1, 0.8, staircase=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    model.fit(*data.train, 64, epochs, verbose=2, validation_data=data.validation, callbacks=[stop])
    return model


def pair(data, seed, epochs, ratio, out):
    """The dense model and its ticket; each is trained once and then loaded."""
    paths = [out / f"dense-{seed}.keras", out / f"ticket-{ratio}-{seed}.keras"]
    if not paths[0].exists():
        fit(tfprune.models.lenet(seed=seed), data, seed, epochs).save(paths[0])
    dense = keras.models.load_model(paths[0])
    if not paths[1].exists():
        masked = tfprune.wrap(dense)
        tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio, only=["dense_1", "dense_2"]))
        tfprune.shrink(fit(masked, data, seed + 100, epochs)).save(paths[1])
    return dense, keras.models.load_model(paths[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12, help="most epochs of a training")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, counted from 0")
    parser.add_argument("--ratio", type=float, default=0.8, help="share of the hidden units to remove")
    parser.add_argument("--examples", type=int, help="images of each split (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10-uncertainty"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    data = tfprune.datasets.cifar10(options.examples)
    far = {name: tfprune.datasets.images(name)[0][: options.examples] for name in ("fashion_mnist", "mnist")}
    ood = {**data.ood, **far}
    pairs = [pair(data, seed, options.epochs, options.ratio, options.out) for seed in range(options.seeds)]

    rows = []
    for seed, (dense, ticket) in enumerate(pairs):
        for name, model in {"dense": dense, "ticket": ticket}.items():
            path = options.out / f"{name}-{seed}.json"
            if not path.exists():
                row = tfprune.evaluate(model, data.test, ood, "all", data.train, dense=dense)
                path.write_text(json.dumps({"model": name, "seed": seed, **row}), encoding="utf-8")
            rows.append(json.loads(path.read_text(encoding="utf-8")))
    means = pd.DataFrame(rows).groupby("model").mean(numeric_only=True).T
    print(means[~means.index.str.contains("/")].drop("seed").round(4).to_string())
    for name in ood:
        kinds = {kind: [f"{name}/{kind}_{detector}" for detector in detectors.DETECTORS] for kind in ("auroc", "fpr95")}
        columns = {kind: means.loc[keys].set_axis(detectors.DETECTORS) for kind, keys in kinds.items()}
        print(f"\n{name}\n{pd.concat(columns, axis=1).round(3).to_string()}")

    comparison = tfprune.compare(*pairs[0], data.test, ood, temperature_data=data.validation)
    (options.out / "comparison.json").write_text(json.dumps(comparison.row), encoding="utf-8")
    comparison.per_class.to_csv(options.out / "per_class.csv")
    print(f"\nseed 0: {comparison}")
    if options.seeds > 1:
        print(f"\n{options.seeds} seeds: {tfprune.compare_seeds(*zip(*pairs, strict=True), data.test, ood)}")
    tfprune.plots.draw_reliability({row["model"]: row for row in rows[:2]}).figure.savefig(
        options.out / "reliability.png"
    )
    tfprune.plots.draw_harm(comparison.per_class).figure.savefig(options.out / "harm.png")
