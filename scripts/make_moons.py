"""Does a pruned network still know when it is unsure? The paper's study on two moons, through the public API."""

import argparse

from tfprune import study

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2000, help="most epochs in a round")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, counted from 0")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--out", default="runs/make_moons")
    options = parser.parse_args()

    grid = study.Study(
        "make_moons",
        dataset="moons",
        model="mlp",
        strategies=("one_shot", "one_shot_reinit", "one_shot_random", "iterative"),
        ratios=(0.0, 0.2, 0.4, 0.6, 0.8, 0.9),
        seeds=range(options.seeds),
        recipe=study.Recipe("adam", learning_rate=0.01, epochs=options.epochs, patience=20),
    )
    study.run_study(grid, out=options.out, jobs=options.jobs)
    print("report:", study.write_report(options.out))
