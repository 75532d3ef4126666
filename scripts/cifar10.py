"""What does pruning LeNet do to its confidences on CIFAR-10, and on images of none of its classes (CIFAR-100)?"""

import argparse

from tfprune import study

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="most epochs in a round")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, counted from 0")
    parser.add_argument("--layers", default="dense", help="dense, as in the paper, or all for the filters too")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time")
    parser.add_argument("--out", default="runs/cifar10")
    options = parser.parse_args()

    grid = study.Study(
        "cifar10",
        dataset="cifar10",
        model="lenet",
        strategies=("one_shot", "one_shot_random"),
        ratios=(0.0, 0.4, 0.8),
        seeds=range(options.seeds),
        layers=options.layers,
        recipe=study.Recipe(
            "sgd", learning_rate=0.01, momentum=0.9, decay=0.8, batch_size=64, epochs=options.epochs, patience=3
        ),
    )
    study.run_study(grid, out=options.out, jobs=options.jobs)
    print("report:", study.write_report(options.out))
