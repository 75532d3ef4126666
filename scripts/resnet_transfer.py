"""What does pruning a residual network that learnt elsewhere do to its confidence on CIFAR-10?"""

import argparse
from pathlib import Path

import keras
import pandas as pd

import tfprune


def ticket_of(options, data, ratio, seed):
    """Trains the new head (and the backbone, unless it is frozen), prunes, and trains what is left."""
    keras.utils.set_random_seed(seed)
    build = getattr(tfprune.models, options.model)
    model = build(
        data.input_shape, data.num_classes, seed, options.weights, not options.frozen, resize_to=options.resize_to
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(options.learning_rate, momentum=0.9), loss, metrics=["accuracy"])
    masked = tfprune.wrap(model)
    callback = tfprune.callbacks.LotteryTicket(
        ratio, rounds=1, rewind=None, patience=3, epochs_per_round=options.epochs, round_to=8, seed=seed
    )
    masked.fit(
        *data.train,
        validation_data=data.validation,
        batch_size=64,
        epochs=2 * options.epochs,
        verbose=2,
        callbacks=[callback],
    )
    return tfprune.shrink(masked)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18", choices=("resnet18", "resnet50"))
    parser.add_argument("--weights", help='"imagenet", or a .keras file of such a network; random weights without it')
    parser.add_argument("--frozen", action="store_true", help="train the head only")
    parser.add_argument("--resize-to", type=int, help="enlarge the images inside the model, for example to 224")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5], help="shares of channels to remove")
    parser.add_argument("--epochs", type=int, default=10, help="most epochs of each of the two trainings")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, counted from 0")
    parser.add_argument("--examples", type=int, default=1000, help="images of each split; 45000 are all")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--out", type=Path, default=Path("runs/resnet_transfer"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    data = tfprune.datasets.cifar10(num_examples=options.examples)
    rows, tickets = [], {}
    for seed in range(options.seeds):
        for ratio in (0.0, *options.ratios):  # the dense network first: as many epochs, nothing removed
            tickets[ratio] = ticket_of(options, data, ratio, seed)
            tickets[ratio].save(options.out / f"{options.model}-{ratio}-{seed}.keras")
            row = tfprune.evaluate(tickets[ratio], data.test, data.ood, dense=tickets[0.0], latency=True)
            rows.append({"ratio": ratio, "seed": seed, **row})
    table = pd.DataFrame(rows)
    table.to_csv(options.out / "rows.csv", index=False)
    names = ["accuracy", "nll", "ece", "ece_floor", "cifar100/auroc_msp", "compression_ratio", "latency_ms"]
    print(table.groupby("ratio")[names].mean().round(4).to_string())
    pruned = tickets[options.ratios[-1]]
    print(tfprune.compare(tickets[0.0], pruned, data.test, data.ood, temperature_data=data.validation))
