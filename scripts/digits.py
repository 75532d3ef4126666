"""How far can a small network be pruned on handwritten digits before its confidence suffers? Needs no download."""

import argparse
import dataclasses

from tfprune import study

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mlp", choices=("mlp", "cnn"), help="which network")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, counted from 0")
    parser.add_argument("--epochs", type=int, default=60, help="most epochs in a round")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--out", default="runs/digits")
    options = parser.parse_args()

    digits = study.get("digits" if options.model == "mlp" else "digits-cnn")
    recipe = dataclasses.replace(digits.recipe, epochs=options.epochs)
    grid = dataclasses.replace(digits, seeds=tuple(range(options.seeds)), recipe=recipe)
    study.run_study(grid, out=options.out, jobs=options.jobs)
    print("report:", study.write_report(options.out))
