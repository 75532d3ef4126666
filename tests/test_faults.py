"""Does a study that is killed again and again end in the table of one that never was?"""

import subprocess
import sys

import pytest

from tfprune.study import read_rows

# TensorFlow is loaded once; every run of the study is a fork that starts it, and dies, as a process of its own.
DRIVER = """
import os, random, signal, sys, time
from tfprune.study import process
os.environ.update(process.ENVIRONMENT)
import keras, sklearn.datasets, tensorflow
import tfprune
from tfprune import study
from tfprune.study import compiled, fit, measure, rounds

folder, kills = sys.argv[1], int(sys.argv[2])
grid = study.Study(
    "small", "moons", "mlp", ratios=(0.0, 0.6), seeds=(0, 1), strategies=("one_shot", "iterative", "random_channels"),
    rounds=2, recipe=study.Recipe(batch_size=100, epochs=4, patience=2),
)

def run():
    pid = os.fork()
    if not pid:
        try:
            study.run_study(grid, out=folder, progress=False, trainer="fit")
            os._exit(0)
        finally:
            os._exit(1)
    return pid

moments = random.Random(0)
died = 0
while died < kills:
    pid = run()
    time.sleep(moments.uniform(0.1, 2.5))
    os.kill(pid, signal.SIGKILL)
    died += os.waitpid(pid, 0)[1] == signal.SIGKILL
    rows = os.path.join(folder, "results.jsonl")
    if os.path.exists(rows) and open(rows, "rb").read().count(b"\\n") == len(grid.trials()):
        os.rename(folder, f"{folder}-{died}")  # finished before all kills were done: another one begins
assert os.waitpid(run(), 0)[1] == 0
print(died)
"""

TIMES = ("wall_time", "started")


def table(folder):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in read_rows(folder)]


@pytest.mark.slow
def test_study_killed_at_twenty_random_moments_ends_in_the_same_table(tmp_path):
    def drive(name, kills):
        command = [sys.executable, "-c", DRIVER, str(tmp_path / name), str(kills)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == str(kills), done.stderr
        return table(tmp_path / name)

    whole, killed = drive("whole", 0), drive("killed", 20)
    assert {row["status"] for row in whole} == {"done"}
    assert killed == whole
    for finished_earlier in tmp_path.glob("killed-*"):
        assert table(finished_earlier) == whole
    assert not list((tmp_path / "killed").glob("rounds/*"))
    assert not list((tmp_path / "killed").rglob("*.part*"))
