"""How much faster are the later epochs of a fit when Compaction makes the pruned model small?

    python benchmarks/compaction.py [--ratio 0.5] [--steps 16] [--rounds 6] [--threads 0]

ResNet-20 of `tfprune.models` on random images (32x32x3) is trained by one `model.fit` with masks only, and by one with
`Compaction`: an epoch of the dense model, then channels go, then epochs of the pruned one. Both sides prune to the same
ratio. Their epochs take turns, so that a machine that slows down slows both, and every pair of epochs gives one ratio.
The first epoch after pruning, in which TensorFlow traces the small model, is told apart. Nothing is asserted.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PACKAGES = ("tfprune", "tensorflow", "keras", "numpy")


class Turns:
    """Lets the epochs of two fits run one after the other, never at the same time."""

    def __init__(self, names):
        self.names, self.now, self.waiting = names, 0, threading.Condition()

    def take(self, name):
        """Waits for a side's turn."""
        with self.waiting:
            self.waiting.wait_for(lambda: self.names[self.now % len(self.names)] == name)

    def give(self):
        """Lets the other side go on."""
        with self.waiting:
            self.now += 1
            self.waiting.notify_all()


def clock(keras, turns, name):
    """A callback that waits for its side's turn, and measures each epoch in wall and processor time."""

    class Clock(keras.callbacks.Callback):
        seconds = ()

        def on_epoch_begin(self, epoch, logs=None):
            turns.take(name)
            self.start = time.perf_counter(), time.process_time()

        def on_epoch_end(self, epoch, logs=None):
            took = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
            self.seconds = (*self.seconds, took)
            turns.give()

    return Clock()


def side(name, turns, images, labels, options):
    """Trains one model, and gives what each epoch took: `[(wall, processor)]`."""
    import keras

    import tfprune
    from tfprune.callbacks import Compaction, GradualPruning

    turns.take(name)  # the models are made one after the other too
    keras.utils.set_random_seed(0)
    model = tfprune.models.resnet(20)
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    masked = tfprune.wrap(model)
    pruning = GradualPruning(lambda step: (step == options.steps - 1, options.ratio))
    measured = clock(keras, turns, name)
    turns.give()
    masked.fit(
        images, labels, batch_size=options.batch, epochs=options.rounds + 2, verbose=0, shuffle=False,
        callbacks=[*([Compaction()] if name == "compact" else []), measured, pruning],
    )  # fmt: skip
    return measured.seconds


def run(options):
    """`{"masked": [(wall, processor)], "compact": ...}`."""
    import numpy as np

    random = np.random.default_rng(0)
    images = random.normal(size=(options.batch * options.steps, 32, 32, 3)).astype("float32")
    labels = random.integers(0, 10, size=len(images)).astype("int32")
    names, found = ("masked", "compact"), {}
    turns = Turns(names)

    def work(name):
        found[name] = side(name, turns, images, labels, options)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def speedup(times, epochs, clock):
    """The median over pairs of epochs of masked time / compact time."""
    pairs = zip(times["masked"][epochs], times["compact"][epochs], strict=True)
    return round(statistics.median(masked[clock] / compact[clock] for masked, compact in pairs), 3)


def cheapest(times):
    """Masked / compact, the processor time of the cheapest epoch of each."""
    masked, compact = (min(took[1] for took in times[name][2:]) for name in ("masked", "compact"))
    return round(masked / compact, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ratio", type=float, default=0.5, help="share of channels removed after the first epoch")
    parser.add_argument("--steps", type=int, default=16, help="training steps in an epoch")
    parser.add_argument("--rounds", type=int, default=6, help="epochs of the pruned model after the first")
    parser.add_argument("--batch", type=int, default=64, help="images in a step")
    parser.add_argument("--threads", type=int, default=0, help="TensorFlow threads; 0 leaves the choice to TensorFlow")
    options = parser.parse_args()

    import tensorflow as tf

    if options.threads:
        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    times = run(options)
    wall, processor = (speedup(times, slice(2, None), clock) for clock in (0, 1))
    row = {
        "speedup_wall": wall,
        "speedup_processor": processor,
        "speedup_cheapest": cheapest(times),
        "speedup_before_pruning": speedup(times, slice(0, 1), 1),
        "seconds_wall": {name: [round(took[0], 3) for took in found] for name, found in times.items()},
        **vars(options),
        "cores": os.cpu_count(),
        "device": "gpu" if tf.config.list_physical_devices("GPU") else "cpu",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    print(
        f"epochs after pruning to ratio {options.ratio:g}, masked / compact: {wall:.2f} wall, {processor:.2f} processor"
    )
    print(json.dumps(row))


if __name__ == "__main__":
    main()
