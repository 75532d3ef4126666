"""How fast are the streaming metrics beside other packages', and does their memory grow with the data?

    python benchmarks/metrics.py [--samples 10000000] [--classes 10] [--rounds 3]

Each side runs in a process of its own, in turns, and is fed the same float32 logits in batches of 50,000 (twenty
batches, over and over, so that no side pays for making them). A side computes one set of metrics; tfprune computes the
same set beside each of the others, and then all it has. Sides that keep every prediction get `--stored` samples at
most. Prints seconds, ratios, and how much memory a process took above what it held before the first batch; asserts
nothing.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PACKAGES = ("tfprune", "tensorflow", "keras", "numpy", "torch", "torchmetrics", "netcal", "scikit-learn")
BATCH, POOL = 50_000, 20


def batches(samples, classes):
    """Yields pairs of float32 logits and int32 labels."""
    import numpy as np

    random = np.random.default_rng(0)
    pool = []
    for _ in range(POOL):
        logits = 2 * random.standard_normal((BATCH, classes), dtype=np.float32)
        labels = (logits + 2 * random.standard_normal(logits.shape, dtype=np.float32)).argmax(axis=1)
        pool.append((logits, labels.astype("int32")))
    for start in range(0, samples, BATCH):
        logits, labels = pool[start // BATCH % POOL]
        yield logits[: samples - start], labels[: samples - start]


# --- the sides: classes -> what is fed batches, what gives the results, what forgets the batches ----------------------


def tfprune_metrics(names):
    """Keras metrics of tfprune in one step compiled by XLA; they share what they all need of a batch."""

    def side(classes):
        import tensorflow as tf

        from tfprune import metrics
        from tfprune.metrics.streaming import Batch

        settings = {
            "ClasswiseCalibrationError": {"num_classes": classes},
            "BrierDecomposition": {"num_classes": classes},
        }
        made = []
        for name in names:
            name, _, norm = name.partition(" ")
            options = settings.get(name, {}) | ({"norm": norm} if norm else {})
            made.append(getattr(metrics, name)(from_logits=True, **options))

        @tf.function(reduce_retracing=True, jit_compile=True)
        def update(logits, labels):
            batch = Batch(labels, logits, None, from_logits=True)
            for metric in made:
                metric.add_batch(batch)

        def reset():
            for metric in made:
                metric.reset_state()

        return update, lambda: [float(metric.result()) for metric in made], reset

    return side


def torchmetrics_side(names):
    """torchmetrics' modular metrics on softmax probabilities."""

    def side(classes):
        import torch
        import torchmetrics.classification as tm

        torch.set_num_threads(2)
        make = {
            "ece": lambda: tm.MulticlassCalibrationError(classes, n_bins=15, norm="l1"),
            "rmsce": lambda: tm.MulticlassCalibrationError(classes, n_bins=15, norm="l2"),
            "mce": lambda: tm.MulticlassCalibrationError(classes, n_bins=15, norm="max"),
            "accuracy": lambda: tm.MulticlassAccuracy(classes, average="micro"),
        }
        made = [make[name]() for name in names]

        def update(logits, labels):
            probabilities, labels = torch.softmax(torch.from_numpy(logits), dim=1), torch.from_numpy(labels)
            for metric in made:
                metric.update(probabilities, labels.long())

        def reset():
            for metric in made:
                metric.reset()

        return update, lambda: [float(metric.compute()) for metric in made], reset

    return side


def stored(compute):
    """A side that keeps all probabilities and labels, and computes at the end."""

    def side(classes):
        import numpy as np

        kept = []

        def update(logits, labels):
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            kept.append((exponentials / exponentials.sum(axis=1, keepdims=True), labels))

        return update, lambda: compute(*map(np.concatenate, zip(*kept, strict=True))), kept.clear

    return side


def netcal_errors(probabilities, labels):
    """ECE, MCE and average calibration error by netcal."""
    from netcal.metrics import ACE, ECE, MCE

    return [float(metric(15).measure(probabilities, labels)) for metric in (ECE, MCE, ACE)]


def sklearn_scores(probabilities, labels):
    """Negative log-likelihood by scikit-learn."""
    from sklearn.metrics import log_loss

    return [float(log_loss(labels, probabilities.astype("float64"), labels=range(probabilities.shape[1])))]


def tfp_errors(probabilities, labels):
    """ECE and Brier score by tensorflow-probability."""
    import numpy as np
    import tensorflow_probability as tfp

    logits = np.log(np.maximum(probabilities, 1e-37))
    predicted = probabilities.argmax(axis=1).astype("int32")
    ece = tfp.stats.expected_calibration_error(15, logits=logits, labels_true=labels, labels_predicted=predicted)
    return [float(ece), float(np.mean(tfp.stats.brier_score(labels, logits))) + 1]


ECE, RMSCE, MCE = (f"ExpectedCalibrationError {norm}" for norm in ("l1", "l2", "max"))
ALL = [
    *(ECE, RMSCE, MCE, "AverageCalibrationError", "ClasswiseCalibrationError", "EqualMassCalibrationError"),
    *("DebiasedCalibrationError", "KolmogorovSmirnovCalibrationError", "SmoothCalibrationError", "ConfidenceGap"),
    *("UncertaintyCalibrationError", "EntropyConfidenceGap", "NegativeLogLikelihood", "BrierScore"),
    *("BrierDecomposition", "PredictiveEntropy", "AURC", "EAURC", "AUGRC", "CoverageAtRisk"),
]
# package -> (its side, whether it keeps all predictions, the same set by tfprune)
PEERS = {
    "torchmetrics": (torchmetrics_side(["ece", "rmsce", "mce"]), True, [ECE, RMSCE, MCE]),
    "netcal": (stored(netcal_errors), True, [ECE, MCE, "AverageCalibrationError"]),
    "sklearn": (stored(sklearn_scores), True, ["NegativeLogLikelihood"]),
    "tensorflow_probability": (stored(tfp_errors), True, [ECE, "BrierScore"]),
}


def measure(side, samples, classes):
    """Runs one side and prints its seconds, its memory and its results as a line of JSON."""
    update, results, reset = side(classes)
    for logits, labels in batches(min(samples, BATCH), classes):  # compiles
        update(logits, labels)
    results()
    reset()
    stream = batches(samples, classes)
    first = next(stream)
    before, start = _memory(), time.perf_counter()
    update(*first)
    for batch in stream:
        update(*batch)
    values = results()
    print(json.dumps({"seconds": time.perf_counter() - start, "mib": _memory() - before, "values": values}))


def _memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_child(name, samples, classes):
    """What `measure` printed, from a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--side", name, "--samples", str(samples)]
    done = subprocess.run([*command, "--classes", str(classes)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def side_of(name):
    """ "all", the name of a peer, or "tfprune beside" it."""
    if name == "all":
        return tfprune_metrics(ALL)
    peer, ours = name.removeprefix("tfprune beside "), name.startswith("tfprune beside ")
    return tfprune_metrics(PEERS[peer][2]) if ours else PEERS[peer][0]


def compare(peer, samples, classes, rounds):
    """One line of the table: medians of both sides over rounds in turns."""
    found = {"theirs": [], "ours": []}
    for _ in range(rounds):
        found["theirs"].append(in_child(peer, samples, classes))
        found["ours"].append(in_child(f"tfprune beside {peer}", samples, classes))
    seconds = {who: statistics.median(run["seconds"] for run in runs) for who, runs in found.items()}
    memory = {who: max(run["mib"] for run in runs) for who, runs in found.items()}
    worst = max(abs(a - b) for a, b in zip(found["theirs"][0]["values"], found["ours"][0]["values"], strict=True))
    row = {"peer": peer, "samples": samples, "classes": classes, "seconds": seconds, "mib": memory}
    row |= {"ratio": seconds["theirs"] / seconds["ours"], "largest_difference": worst}
    print(
        f"{peer:24}{seconds['theirs']:8.1f} s {memory['theirs']:7.0f} MiB   tfprune {seconds['ours']:6.1f} s "
        f"{memory['ours']:6.0f} MiB   {row['ratio']:6.1f} times as fast, results differ by {worst:.0e}",
        flush=True,
    )
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--stored", type=int, default=1_000_000, help="most samples for sides that keep them all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="batches, in place of --samples: a small run")
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(side_of(options.side), options.samples, options.classes)
        return
    options.samples = BATCH * options.steps if options.steps else options.samples
    rows = []
    for peer in options.peers:
        if importlib.util.find_spec(peer) is None:
            print(f"{peer:24}not installed")
            continue
        samples = min(options.samples, options.stored) if PEERS[peer][1] else options.samples
        rows.append(compare(peer, samples, options.classes, options.rounds))
    for samples in (max(options.samples // 10, 1), options.samples):
        run = in_child("all", samples, options.classes)
        rows.append({"side": "all", "samples": samples, "classes": options.classes, **run})
        rate = samples / run["seconds"] / 1e6
        print(
            f"all {len(ALL)} of tfprune on {samples:,} x {options.classes}: {run['seconds']:.1f} s "
            f"({rate:.2f} million a second), {run['mib']:.0f} MiB",
            flush=True,
        )
    found = {name: importlib.metadata.version(name) for name in PACKAGES if _is_installed(name)}
    print(json.dumps({"rows": rows, "versions": found}))


def _is_installed(name):
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


if __name__ == "__main__":
    main()
