"""What does a channel mask cost per training step, against the bare model and against TFMOT's weight mask?

    python benchmarks/mask_overhead.py [--model cnn] [--steps 10] [--rounds 15] [--threads 1]

A small CNN (conv 32-64-64, batch 128, 32x32x3) is trained in four forms: bare Keras 3 model, the same wrapped by
tfprune and pruned to half its channels, bare tf_keras twin, and the twin in TFMOT's `prune_low_magnitude` at half
its weights. With `--model resnet20` the network is the residual one of `tfprune.models`, without TFMOT's two forms.
They take turns, a few steps each, and every round gives one ratio: a machine that slows down slows all sides.
Nothing is asserted.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 128
PACKAGES = ("tfprune", "tensorflow", "keras", "tf-keras", "tensorflow-model-optimization", "numpy")


def build(keras):
    """The same small CNN from either Keras."""
    model = keras.Sequential([keras.layers.Input((32, 32, 3))])
    for filters in (32, 64, 64):
        model.add(keras.layers.Conv2D(filters, 3, activation="relu", padding="same"))
        model.add(keras.layers.MaxPooling2D())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(10))
    return model


def compiled(model, keras):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    return model


def keras_sides(batch, model):
    """Bare and masked: step functions that train on `batch` once."""
    import keras

    import tfprune

    bare = compiled(build(keras) if model == "cnn" else tfprune.models.resnet(20), keras)
    masked = tfprune.wrap(bare)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio=0.5))
    return {"bare": lambda: bare.train_on_batch(*batch), "masked": lambda: masked.train_on_batch(*batch)}


def tfmot_sides(batch):
    """Bare twin and TFMOT's wrapper, which also needs its callback called at every step."""
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    import tensorflow_model_optimization as tfmot
    import tf_keras

    # TFMOT sets the variable for the whole process and its children.
    if before is None:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
    sparsity = tfmot.sparsity.keras
    twin = compiled(build(tf_keras), tf_keras)
    schedule = sparsity.ConstantSparsity(0.5, begin_step=0, frequency=100)
    pruned = compiled(sparsity.prune_low_magnitude(build(tf_keras), pruning_schedule=schedule), tf_keras)
    callback = sparsity.UpdatePruningStep()
    callback.set_model(pruned)
    callback.on_train_begin()

    def step():
        callback.on_train_batch_begin(0)
        pruned.train_on_batch(*batch)

    return {"twin": lambda: twin.train_on_batch(*batch), "twin_tfmot": step}


def seconds_per_step(step, steps):
    """(wall, processor) seconds; the second counts all threads and hardly notices what else the machine does."""
    start = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start[0]) / steps, (time.process_time() - start[1]) / steps


def measure(sides, steps, rounds):
    """{side: (wall, processor) seconds of each round}; every other round runs backwards: no side is always first."""
    for step in sides.values():
        seconds_per_step(step, 3)  # tracing and the first allocations
    times = {name: [] for name in sides}
    for turn in range(rounds):
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            times[name].append(seconds_per_step(sides[name], steps))
    return times


def compare(times, side, base):
    """The median of the rounds' ratios in wall and in processor time, and the ratio of the two cheapest rounds."""
    ratios = [(a[0] / b[0], a[1] / b[1]) for a, b in zip(times[side], times[base], strict=True)]
    wall, processor = (statistics.median(column) for column in zip(*ratios, strict=True))
    cheapest = min(t[1] for t in times[side]) / min(t[1] for t in times[base])
    return {"wall": round(wall, 4), "processor": round(processor, 4), "processor_cheapest": round(cheapest, 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("cnn", "resnet20"), default="cnn", help="the network that is trained")
    parser.add_argument("--steps", type=int, default=10, help="training steps of one side in one round")
    parser.add_argument("--rounds", type=int, default=15, help="rounds, each with all four sides")
    parser.add_argument("--threads", type=int, default=0, help="TensorFlow threads; 0 leaves the choice to TensorFlow")
    arguments = parser.parse_args()

    import keras
    import numpy as np
    import tensorflow as tf

    if arguments.threads:
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    images = tf.constant(random.normal(size=(BATCH, 32, 32, 3)), "float32")
    labels = tf.constant(random.integers(0, 10, size=BATCH), "int32")
    sides = keras_sides((images, labels), arguments.model)
    if arguments.model == "cnn":
        sides |= tfmot_sides((images, labels))
    times = measure(sides, arguments.steps, arguments.rounds)
    row = {
        "tfprune": compare(times, "masked", "bare"),
        **({"tfmot": compare(times, "twin_tfmot", "twin")} if "twin" in times else {}),
        "milliseconds_wall": {name: round(1000 * min(w for w, _ in rows), 2) for name, rows in times.items()},
        "milliseconds_processor": {name: round(1000 * min(p for _, p in rows), 2) for name, rows in times.items()},
        **vars(arguments),
        "cores": os.cpu_count(),
        "device": "gpu" if tf.config.list_physical_devices("GPU") else "cpu",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    print(f"{'training step against the bare model':38}{'wall':>8}{'processor':>11}{'cheapest':>10}")
    for name, label in (("tfprune", "tfprune, channels masked"), ("tfmot", "TFMOT, weights masked (tf_keras)")):
        if name not in row:
            continue
        wall, processor, cheapest = row[name].values()
        print(f"{label:38}{wall:8.3f}{processor:11.3f}{cheapest:10.3f}")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
