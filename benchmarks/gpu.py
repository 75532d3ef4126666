"""Does tfprune give on a GPU what it gives on the CPU, and what does pruning gain there?

    python benchmarks/gpu.py [--models ResNet50 MobileNetV2] [--batch 64] [--steps 20] [--rounds 5]

For each network, in float32 and in mixed_float16, half of the channels go. Checked are the masks of the device against
those of the CPU, the small network against the masked one after a fit that pruned it, and the small one on the device
against itself on the CPU (float32 without TensorFloat-32). Timed in turns within one run are predictions and training
steps of the dense, the masked and the small network, compiled by XLA where Keras does so. Without a GPU everything runs
on the CPU, and the row says so. Nothing is asserted.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PACKAGES = ("tfprune", "tensorflow", "keras", "numpy")
POLICIES = ("float32", "mixed_float16")
RATIO = 0.5


def build(name):
    """A network with random weights, compiled for ten classes or a thousand."""
    import keras

    import tfprune

    keras.utils.set_random_seed(0)
    if name == "resnet20":
        model = tfprune.models.resnet(20)
    else:
        model = getattr(keras.applications, name)(weights=None, classifier_activation=None)
    model.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def batches(model, batch, steps):
    """A data set of random images that ends after so many steps."""
    import numpy as np
    import tensorflow as tf

    random = np.random.default_rng(0)
    x = random.normal(size=(batch, *model.input_shape[1:])).astype("float32")
    y = random.integers(0, model.output_shape[-1], size=batch)
    return x, tf.data.Dataset.from_tensors((x, y)).repeat(steps)


def agreement(name, batch):
    """What the device gives beside the CPU; differences relative to the largest output."""
    import numpy as np
    import tensorflow as tf

    import tfprune
    from tfprune.callbacks import GradualPruning

    found = {}
    for where in ("device", "cpu"):
        with tf.device("CPU:0") if where == "cpu" else tf.device(None):
            masked = tfprune.wrap(build(name))
            found[where] = tfprune.compute_masks(masked, RATIO)
    x, data = batches(masked, batch, 2)
    masked = tfprune.wrap(build(name))
    masked.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[GradualPruning(lambda step: (step == 1, RATIO))])
    small = tfprune.shrink(masked)
    outputs = {"masked": masked(x, training=False), "small": small(x, training=False)}
    with tf.device("CPU:0"):
        outputs["cpu"] = small(tf.constant(x), training=False)
    outputs = {side: np.asarray(value, "float64") for side, value in outputs.items()}
    scale = np.abs(outputs["masked"]).max()
    return {
        "parameters": [masked.count_params(), small.count_params()],
        "placed_on": small.weights[0].value.device.rsplit("/", 1)[-1],
        "same_masks": all(np.array_equal(found["cpu"][layer], mask) for layer, mask in found["device"].items()),
        "small_against_masked": float(np.abs(outputs["small"] - outputs["masked"]).max() / scale),
        "device_against_cpu": float(np.abs(outputs["small"] - outputs["cpu"]).max() / scale),
    }


def sides(name):
    """`{side: model}`: the dense network, the same with masks on it, and the small one, compiled alike."""
    import tfprune

    masked = tfprune.wrap(build(name))
    tfprune.set_masks(masked, tfprune.compute_masks(masked, RATIO))
    return {"dense": build(name), "masked": masked, "small": tfprune.shrink(masked)}


def seconds(models, batch, steps, rounds):
    """`{"predict": {side: seconds a step}, "train": ...}`, medians of rounds in which the sides take turns."""
    import numpy as np
    import tensorflow as tf

    took = {work: {side: [] for side in models} for work in ("predict", "train")}
    x, data = batches(models["dense"], batch, steps)
    x = tf.constant(x)
    predict = {side: tf.function(lambda x, model=model: model(x, training=False)) for side, model in models.items()}
    for number in range(rounds + 1):
        for side in sorted(models, reverse=number % 2 == 1):
            start = time.perf_counter()
            for _ in range(steps):
                answer = predict[side](x)
            np.asarray(answer)  # a GPU is waited for once, not in every step
            middle = time.perf_counter()
            models[side].fit(data, shuffle=False, verbose=0)
            end = time.perf_counter()
            if number:  # the first round traces and compiles
                took["predict"][side].append((middle - start) / steps)
                took["train"][side].append((end - middle) / steps)
    return {work: {side: statistics.median(of) for side, of in found.items()} for work, found in took.items()}


def run(name, policy, options):
    """One row: a network under a dtype policy."""
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy(policy)
    tf.config.experimental.enable_tensor_float_32_execution(policy != "float32")
    row = {"model": name, "policy": policy, **agreement(name, min(options.batch, 8))}
    took = seconds(sides(name), options.batch, options.steps, options.rounds)
    for work, of in took.items():
        row[f"{work}_milliseconds"] = {side: round(1000 * value, 3) for side, value in of.items()}
        row[f"{work}_speedup"] = round(of["dense"] / of["small"], 3)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet20"], help="names in keras.applications, or resnet20")
    parser.add_argument("--batch", type=int, default=64, help="images in a step")
    parser.add_argument("--steps", type=int, default=20, help="steps of a side in a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "gpu") if gpus else "cpu"
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    for model in options.models:
        for policy in POLICIES:
            row = run(model, policy, options)
            print(
                f"{model}, {policy}, on {name}: predictions {row['predict_speedup']:.2f} times as fast, training steps "
                f"{row['train_speedup']:.2f}; same masks as on the CPU: {row['same_masks']}"
            )
            print(json.dumps({"benchmark": "gpu", "device": name, **row, **vars(options), **versions}), flush=True)


if __name__ == "__main__":
    main()
