"""How much faster are two jobs than one on a study of `fit` trials, and what does sharing the dense training save?

Both sides are the same command in a process of its own, start-up included; they take turns. Rows must not differ.

    python benchmarks/study_jobs.py                   # scikit-learn's digits, a small CNN: much of a trial is set-up
    python benchmarks/study_jobs.py --data cifar10    # 10,000 images, LeNet: most of a trial is training
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

TIMES = ("wall_time", "started")
CODE = """
import functools, sys
from tfprune import datasets, study
folder, name, jobs, seeds, epochs = *sys.argv[1:3], *map(int, sys.argv[3:])
images = functools.partial(datasets.cifar10, num_examples=10_000)
data, model = ("digits", "cnn") if name == "digits" else (images, "lenet")
recipe = study.Recipe("adam", 0.002, batch_size=32, epochs=epochs, patience=epochs)
ratios, strategies = (0.25, 0.5, 0.75), ("one_shot", "one_shot_random", "random_channels")
grid = study.Study("jobs", data, model, ratios[:seeds], range(seeds), strategies, recipe=recipe)
study.run_study(grid, out=folder, jobs=jobs, trainer="fit", progress=False)
"""


def run(data, jobs, seeds, epochs):
    """Runs the study; returns its seconds and its rows without times."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-c", CODE, folder, data, *map(str, (jobs, seeds, epochs))]
        subprocess.run(command, check=True, env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1"})
        seconds = time.perf_counter() - start
        lines = (Path(folder) / "results.jsonl").read_text(encoding="utf-8").splitlines()
    rows = sorted((json.loads(line) for line in lines), key=lambda row: row["key"])
    return seconds, [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def epochs_of(rows):
    """Epochs trained with the dense training shared, and what they would be without."""
    dense = {row["seed"]: row["dense_epochs"] for row in rows}
    alone = sum(row["total_epochs"] for row in rows)
    return alone - sum(row["dense_epochs"] for row in rows) + sum(dense.values()), alone


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", choices=("digits", "cifar10"))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs")
    parser.add_argument("--steps", type=int, default=10, help="epochs in a round of a trial")
    options = parser.parse_args()
    small = options.steps == 2
    seeds, rounds = (1, 1) if small else (options.seeds, options.rounds)

    sides = {1: [], 2: []}
    for number in range(rounds):
        for jobs in (1, 2) if number % 2 else (2, 1):
            seconds, rows = run(options.data, jobs, seeds, options.steps)
            sides[jobs].append((seconds, rows))
            print(f"{jobs} jobs: {seconds:.1f} s, {len(rows)} trials", flush=True)
    same = all(rows == sides[1][0][1] for side in sides.values() for _, rows in side)
    one, two = (statistics.median(seconds for seconds, _ in sides[jobs]) for jobs in (1, 2))
    shared, alone = epochs_of(sides[1][0][1])
    print(f"one job {one:.1f} s, two jobs {two:.1f} s: {one / two:.2f} times as fast; the same rows: {same}")
    print(f"epochs: {shared} with the dense training shared, {alone} without: {1 - shared / alone:.0%} saved")
    versions = {name: metadata.version(name) for name in ("tensorflow", "keras", "numpy", "joblib")}
    found = {"one": one, "two": two, "ratio": one / two, "same": same, "shared": shared, "alone": alone}
    print(json.dumps({"benchmark": "study_jobs", "data": options.data, **found, **versions}))
