"""Does a pruned regression network still know how noisy its answers are, with one noise for all or one for each?"""

import argparse
import dataclasses

from tfprune import study

if __name__ == "__main__":
    regression = study.get("regression")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(regression.seeds), help="number of seeds, counted from 0")
    parser.add_argument("--epochs", type=int, default=regression.recipe.epochs, help="most epochs in a round")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--out", default="runs/regression")
    options = parser.parse_args()

    recipe = dataclasses.replace(regression.recipe, epochs=options.epochs)
    grid = dataclasses.replace(regression, seeds=tuple(range(options.seeds)), recipe=recipe)
    study.run_study(grid, out=options.out, jobs=options.jobs)
    print("report:", study.write_report(options.out))
