"""How long does it take to prune a large network, step by step, and how much memory?

    python benchmarks/structure_time.py [--models ResNet50 DenseNet121] [--rounds 5]

Times tracing the model, finding its groups, scoring and choosing channels, and building the small model, at half the
channels of every layer, without the certificate's forward passes; beside them a bare clone of the model by Keras
(`clone_model` and `set_weights`) in the same run, so that a slow machine shows in both. Nothing is asserted.
"""

import argparse
import gc
import importlib.metadata
import itertools
import json
import os
import statistics
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PACKAGES = ("tfprune", "tensorflow", "keras", "numpy")


def steps(model):
    """{step: seconds} of one pruning of a plain model."""
    import tfprune
    from tfprune.pruning import surgery
    from tfprune.structure.groups import ChannelGraph
    from tfprune.structure.trace import trace

    masked = tfprune.wrap(model, verify=False)
    clock = [time.perf_counter()]

    def lap():
        clock.append(time.perf_counter())

    trace(masked)
    lap()
    graph = ChannelGraph(masked)
    lap()
    tfprune.compute_masks(masked, 0.5)  # finds the groups too: the graph is remembered from here on
    lap()
    masks = tfprune.compute_masks(masked, 0.5)
    lap()
    tfprune.set_masks(masked, masks)
    surgery.cut(masked, graph)
    lap()
    traced, grouped, _, scored, cut = (after - before for before, after in itertools.pairwise(clock))
    return {"trace": traced, "trace and group": grouped, "score": scored, "shrink": cut}


def clone(model):
    """Seconds of Keras' own copy."""
    import keras

    start = time.perf_counter()
    keras.models.clone_model(model).set_weights(model.get_weights())
    return time.perf_counter() - start


def resident():
    """Bytes of memory that the process holds now (0 where the system does not say)."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def growth(action):
    """The most memory that an action holds beyond what was held before."""
    gc.collect()
    before, peak, done = resident(), [0], threading.Event()

    def watch():
        while not done.wait(0.005):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = action()
    done.set()
    watcher.join()
    del result
    return max(0, peak[0] - before)


def prune(model):
    import tfprune
    from tfprune.pruning import surgery

    masked = tfprune.wrap(model, verify=False)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    return masked, surgery.cut(masked)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["ResNet50", "DenseNet121"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="2 measures one small model only (for a quick check)")
    options = parser.parse_args()
    import keras

    names = ["MobileNetV2"] if options.steps else options.models
    results = {}
    for name in names:
        model = getattr(keras.applications, name)(weights=None)
        weights = sum(weight.value.numpy().nbytes for weight in model.weights)
        memory = growth(lambda model=model: prune(model)) / weights
        rounds = [{**steps(model), "keras clone": clone(model)} for _ in range(options.rounds)]
        found = {step: statistics.median(row[step] for row in rounds) for step in rounds[0]}
        found["in all"] = found["trace and group"] + found["score"] + found["shrink"]
        results[name] = {
            **{step: round(value, 3) for step, value in found.items()},
            "copies of weights": round(memory, 2),
        }
        print(name, "  ".join(f"{step} {value:.2f}" for step, value in results[name].items()), flush=True)
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    print(json.dumps({"results": results, "rounds": options.rounds, "versions": versions}))


if __name__ == "__main__":
    main()
