"""How much faster are two jobs than one on a study of `fit` trials, and what does sharing the dense training save?

Both sides are the same command in a process of its own, start-up included; they take turns. Rows must not differ.
What the machine allows is measured beside them: the one-job study twice at the same time, two programs that know
nothing of each other. Where two of them take as long as one, that is a factor of 2.

    python benchmarks/study_jobs.py                   # scikit-learn's digits, a small CNN: much of a trial is set-up
    python benchmarks/study_jobs.py --data cifar10    # 10,000 images, LeNet: most of a trial is training
"""

import argparse
import contextlib
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


def run(data, jobs, seeds, epochs, copies=1):
    """Runs the study, or several copies of it at once; returns the seconds and the rows of one without times."""
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(copies)]
        environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}
        start = time.perf_counter()
        commands = [[sys.executable, "-c", CODE, folder, data, *map(str, (jobs, seeds, epochs))] for folder in folders]
        processes = [subprocess.Popen(command, env=environment) for command in commands]
        if any([process.wait() for process in processes]):
            raise SystemExit("A study ended with an error.")
        seconds = time.perf_counter() - start
        lines = (Path(folders[0]) / "results.jsonl").read_text(encoding="utf-8").splitlines()
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

    sides = {"one job": (1, 1), "two jobs": (2, 1), "two studies at once": (1, 2)}
    found = {name: [] for name in sides}
    for number in range(rounds):
        for name in sorted(sides, reverse=number % 2 == 1):
            jobs, copies = sides[name]
            found[name].append(run(options.data, jobs, seeds, options.steps, copies))
            print(f"{name}: {found[name][-1][0]:.1f} s, {len(found[name][-1][1])} trials", flush=True)
    rows = found["one job"][0][1]
    same = all(other == rows for side in found.values() for _, other in side)
    one, two, at_once = (statistics.median(seconds for seconds, _ in side) for side in found.values())
    shared, alone = epochs_of(rows)
    print(f"one job {one:.1f} s, two jobs {two:.1f} s: {one / two:.2f} times as fast; the same rows: {same}")
    print(f"what the machine allows: two studies at once take {at_once:.1f} s: {2 * one / at_once:.2f} times as fast")
    print(f"epochs: {shared} with the dense training shared, {alone} without: {1 - shared / alone:.0%} saved")
    versions = {name: metadata.version(name) for name in ("tensorflow", "keras", "numpy", "joblib")}
    numbers = {"one": one, "two": two, "at_once": at_once, "ratio": one / two, "allowed": 2 * one / at_once}
    counts = {"same": same, "shared": shared, "alone": alone}
    print(json.dumps({"benchmark": "study_jobs", "data": options.data, **numbers, **counts, **versions}))
