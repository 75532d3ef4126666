"""What does pruning do to a network's confidence on CIFAR-10, and on strange images? The paper's study."""

import argparse
import dataclasses
import functools

from tfprune import datasets, study

STUDIES = {"dense": "cifar10", "all": "cifar10-all", "resnet": "cifar10-resnet"}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--prune", default="dense", choices=STUDIES, help="LeNet: its dense layers, as the paper, or all; or a ResNet"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, counted from 0")
    parser.add_argument("--epochs", type=int, help="most epochs in a round (default: the study's)")
    parser.add_argument("--ratios", type=float, nargs="+", help="shares of channels to remove (default: the study's)")
    parser.add_argument("--examples", type=int, help="images of each split (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--out", help="folder for the results (default: runs/ and the study's name)")
    options = parser.parse_args()

    named = study.get(STUDIES[options.prune])
    epochs = options.epochs or named.recipe.epochs
    grid = dataclasses.replace(
        named,
        dataset=functools.partial(datasets.cifar10, num_examples=options.examples) if options.examples else "cifar10",
        ratios=tuple(options.ratios or named.ratios),
        seeds=tuple(range(options.seeds)),
        # a training of one epoch has no second one to rewind to
        strategies=[name for name in named.strategies if name != "rewind_epoch_2" or epochs >= 2],
        recipe=dataclasses.replace(named.recipe, epochs=epochs),
    )
    folder = options.out or f"runs/{named.name}"
    study.run_study(grid, out=folder, jobs=options.jobs)
    print("report:", study.write_report(folder))
