"""How long does the paper's whole moons study take, and how fast is a network-epoch beside eager PyTorch?

    python benchmarks/moons_study.py [--jobs 2] [--torch-python PATH] [--out FOLDER]

The study: 2-30-2 network, 700 points in one batch, Adam with 0.01, early stopping up to 2,000 epochs with patience 20;
4 strategies x 10 ratios x 10 seeds. It is timed from the start of its process to its rows on disk, evaluation with
calibration and out-of-distribution detection included. A network-epoch is one epoch of one network with its validation
loss; the dense networks, which the trials share, count once.

Beside it an eager PyTorch loop of the same network is timed: forward, backward, Adam's step, validation loss; with
PyTorch's own number of threads and with one, by wall and by processor time, before and after the study, while nothing
else of the benchmark runs. PyTorch needs not be in the same environment: `--torch-python` names an interpreter that has
it. Without it that side is left out. Nothing is asserted.

`headline_faster_than_torch` compares wall times: what the training alone takes for each network-epoch, all `--jobs`
processes together and compiled before, and what PyTorch's loop takes with its own number of threads.
"""

import argparse
import importlib.metadata
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = ("tfprune", "tensorflow", "keras", "numpy", "joblib")
STRATEGIES = ("one_shot", "one_shot_reinit", "one_shot_random", "iterative")

# Run by an interpreter that has PyTorch: wall and processor milliseconds of an epoch, by its threads.
TORCH = """
import json, sys, time
import numpy as np, torch
data = np.load(sys.argv[1])
x, y, xv, yv = (torch.from_numpy(data[name]) for name in ("x", "y", "xv", "yv"))
y, yv = y.long(), yv.long()

def milliseconds(epochs):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 30), torch.nn.ReLU(), torch.nn.Linear(30, 2))
    optimizer, loss_of = torch.optim.Adam(net.parameters(), lr=0.01), torch.nn.CrossEntropyLoss()
    def epoch():
        net.train()
        optimizer.zero_grad()
        loss = loss_of(net(x), y)
        loss.backward()
        optimizer.step()
        net.eval()
        with torch.no_grad():
            return loss_of(net(xv), yv).item()
    for _ in range(50):
        epoch()
    start, processor = time.perf_counter(), time.process_time()
    for _ in range(epochs):
        epoch()
    return 1000 * (time.perf_counter() - start) / epochs, 1000 * (time.process_time() - processor) / epochs

threads = torch.get_num_threads()
found = {"default_threads": milliseconds(1000)}
torch.set_num_threads(1)
found["one_thread"] = milliseconds(1000)
print(json.dumps({"version": torch.__version__, "threads": threads, "milliseconds": found}))
"""


def paper_study(seeds=10):
    """The paper's grid, without tfprune's own controls."""
    from tfprune.study import Study

    ratios = tuple(ratio / 10 for ratio in range(10)) if seeds == 10 else (0.5,)
    return Study("moons-paper", "moons", "mlp", ratios=ratios, seeds=tuple(range(seeds)), strategies=STRATEGIES)


def run_study(folder, jobs, seeds):
    """(wall, processor) seconds of a process that runs the study into a folder."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, __file__, "--study", str(folder), "--jobs", str(jobs), "--steps", str(seeds)]
    subprocess.run(command, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def network_epochs(rows):
    """How many epochs of one network the study trained: those of each dense network once."""
    dense = {(row["dataset"], row["seed"]): row["round_epochs"][0] for row in rows}
    return sum(dense.values()) + sum(sum(row["round_epochs"][1:]) for row in rows)


def time_torch(python, folder):
    """What the eager PyTorch loop says of itself; None where the interpreter has no PyTorch."""
    import numpy as np

    import tfprune

    data = tfprune.datasets.get("moons")
    (x, y), (xv, yv) = data.train, data.validation
    np.savez(folder / "moons.npz", x=x, y=y, xv=xv, yv=yv)
    done = subprocess.run([python, "-c", TORCH, str(folder / "moons.npz")], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"PyTorch is left out: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout)


def time_training(jobs):
    """(wall, processor) milliseconds of a network-epoch of the training alone, in several processes at once."""
    command = [sys.executable, __file__, "--training"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(jobs)]
    for process in processes:
        process.stdout.readline()  # it has compiled
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [json.loads(process.communicate()[0]) for process in processes]
    wall = 1000 / sum(one["epochs"] / one["wall"] for one in found)
    return wall, 1000 * sum(one["processor"] for one in found) / sum(one["epochs"] for one in found)


def train(ratios=(0.3, 0.8)):
    """What one of the processes of `time_training` does: a part of the study; prints seconds and network-epochs."""
    from tfprune.study import batched, process, slots

    process.settle()
    spent = {"wall": 0.0, "processor": 0.0, "epochs": 0}
    run = slots.Slot.run

    def timed(slot):
        wall, processor = time.perf_counter(), time.process_time()
        over = run(slot)
        spent["wall"] += time.perf_counter() - wall
        spent["processor"] += time.process_time() - processor
        spent["epochs"] += sum(member.epoch for member in over)
        return over

    parts = [[trial for trial in paper_study().trials() if trial.ratio == ratio] for ratio in ratios]
    for part in parts:
        list(batched.run([trial for trial in part if trial.seed == 0], None))
    print("compiled", flush=True)
    sys.stdin.readline()
    slots.Slot.run = timed
    for part in parts:
        list(batched.run(part, None))
    print(json.dumps(spent))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes that run the study")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has PyTorch")
    parser.add_argument("--out", help="folder to keep the study's results in; a temporary one by default")
    parser.add_argument("--steps", type=int, default=10, help="seeds; fewer than 10 are a small part of the study")
    parser.add_argument("--study", help=argparse.SUPPRESS)
    parser.add_argument("--training", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.study:
        import tfprune.study

        tfprune.study.run_study(paper_study(arguments.steps), arguments.study, jobs=arguments.jobs, progress=False)
        return
    if arguments.training:
        train()
        return

    from tfprune.study import read_rows

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.out or scratch)
        torch = [time_torch(arguments.torch_python, Path(scratch))]
        wall, processor = run_study(folder, arguments.jobs, arguments.steps)
        torch.append(time_torch(arguments.torch_python, Path(scratch)))
        rows = read_rows(folder)
    training = time_training(arguments.jobs) if arguments.steps == 10 else (math.nan, math.nan)
    found = {
        "trials": len(rows),
        "failed": sum(row["status"] == "failed" for row in rows),
        "trainers": sorted({row.get("trainer") for row in rows}),
        "network_epochs": network_epochs(rows),
        "seconds": round(wall, 1),
        "processor_seconds": round(processor, 1),
        "ms_per_network_epoch": round(1000 * wall / network_epochs(rows), 4),
        "processor_ms_per_network_epoch": round(1000 * processor / network_epochs(rows), 4),
        "training_alone_ms_per_network_epoch": round(training[0], 4),
        "training_alone_processor_ms_per_network_epoch": round(training[1], 4),
    }
    if all(torch):
        times = [side["milliseconds"] for side in torch]  # {threads: (wall, processor)}, before and after
        mean = {
            threads: [round(statistics.mean(pair), 4) for pair in zip(*(t[threads] for t in times), strict=True)]
            for threads in times[0]
        }
        found |= {"torch": torch[0]["version"], "torch_threads": torch[0]["threads"]}
        found["torch_wall_and_processor_ms_per_epoch"] = mean
        wall, processor = mean["default_threads"][0], mean["one_thread"][1]
        found["headline_faster_than_torch"] = round(wall / training[0], 1)
        found["headline"] = "wall time of a network-epoch: PyTorch's loop, default threads / training, all processes"
        found["whole_study_faster_than_torch_by_wall"] = round(wall / found["ms_per_network_epoch"], 1)
        found["training_faster_than_torch_on_one_thread_by_processor"] = round(processor / training[1], 1)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    print(json.dumps({**found, "jobs": arguments.jobs, "cores": os.cpu_count(), "versions": versions}))


if __name__ == "__main__":
    main()
