"""Does a pruned network still know when it is unsure? The paper's study on two moons, whole."""

import argparse
import dataclasses

from tfprune import study

if __name__ == "__main__":
    moons = study.get("moons")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(moons.seeds), help="number of seeds, counted from 0")
    parser.add_argument("--epochs", type=int, default=moons.recipe.epochs, help="most epochs in a round")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--out", default="runs/moons")
    options = parser.parse_args()

    recipe = dataclasses.replace(moons.recipe, epochs=options.epochs)
    grid = dataclasses.replace(moons, seeds=tuple(range(options.seeds)), recipe=recipe)
    study.run_study(grid, out=options.out, jobs=options.jobs)
    print("report:", study.write_report(options.out))
