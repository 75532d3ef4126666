"""Do the callbacks find the same masks on two devices as on one, and in half precision as compiled by XLA?"""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfprune
from tfprune import callbacks


def data(seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(48, 5, 5, 1)).astype("float32")
    return x, (x[:, :2].mean(axis=(1, 2, 3)) > x[:, 3:].mean(axis=(1, 2, 3))).astype("int32")


def masked_model(**options):
    keras.utils.set_random_seed(7)
    inputs = keras.Input((5, 5, 1))
    x = layers.Conv2D(8, 3, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(synchronized=True, name="norm")(x))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 2, activation="relu", name="second")(x))
    outputs = layers.Dense(2, dtype="float32", name="out")(x)
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, **options)
    return tfprune.wrap(model)


def falling(step):
    """Due in the middle of an epoch of three steps."""
    return step in (1, 4), 0.3 if step < 4 else 0.6


CALLBACKS = {
    "LotteryTicket": lambda: [callbacks.LotteryTicket(0.6, rounds=1, epochs_per_round=2, seed=0)],
    "Compaction and GradualPruning": lambda: [callbacks.Compaction(), callbacks.GradualPruning(falling)],
    "GrowingRegularization": lambda: [callbacks.GrowingRegularization(0.5, increment=0.2, every=1)],
    "NetworkSlimming, GroupLasso and EarlyBird": lambda: [
        callbacks.NetworkSlimming(0.01),
        callbacks.GroupLasso(0.01),
        callbacks.EarlyBird(0.5, threshold=1.0, patience=2, ignore=["second"]),
    ],
}


def masks_of(name, **options):
    """`(masks, validation losses, the model)` after a fit with the callbacks of a name."""
    masked = masked_model(**options)
    train, validation = (tf.data.Dataset.from_tensor_slices(data(seed)).batch(16) for seed in (0, 1))
    history = masked.fit(
        train, validation_data=validation, epochs=4, shuffle=False, verbose=0, callbacks=CALLBACKS[name]()
    ).history
    found = {layer: mask.astype(int).tolist() for layer, mask in tfprune.get_masks(masked).items()}
    return found, history["val_loss"], masked


# Two devices --------------------------------------------------------------------------------------------------------

TWO = """if True:
    import json, sys
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    sys.path.insert(0, sys.argv[1])
    import test_distribution as t
    import tfprune
    found, strategy = {}, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for name in t.CALLBACKS:
        with strategy.scope():
            masks, losses, masked = t.masks_of(name)
        assert strategy.num_replicas_in_sync == 2
        small = tfprune.shrink(masked)
        found[name] = {"masks": masks, "losses": losses, "parameters": small.count_params()}
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def on_two_devices():
    shown = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TWO, Path(__file__).parent], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr[-3000:]
    return json.loads(shown.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CALLBACKS)
def test_two_devices_find_the_masks_of_one(name, on_two_devices):
    masks, losses, masked = masks_of(name)
    assert any(0 in mask for mask in masks.values())
    assert on_two_devices[name]["masks"] == masks
    np.testing.assert_allclose(on_two_devices[name]["losses"], losses, rtol=1e-3)
    assert on_two_devices[name]["parameters"] == tfprune.shrink(masked).count_params()


# Precision and compilation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "name", "kept"),
    [
        ("mixed_float16", "Compaction and GradualPruning", [3, 2]),
        ("mixed_bfloat16", "GrowingRegularization", [4, 3]),
    ],
)
def test_half_precision_finds_as_many_channels(policy, name, kept):
    keras.config.set_dtype_policy(policy)
    masks, losses, masked = masks_of(name)
    scales = type(masked.optimizer).__name__ == "LossScaleOptimizer"
    assert scales == (policy == "mixed_float16")
    assert [sum(mask) for mask in masks.values()] == kept
    assert np.all(np.isfinite(losses))


def test_small_model_keeps_the_scale_of_the_loss():
    keras.config.set_dtype_policy("mixed_float16")
    masked = masked_model()
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    masked.optimizer.dynamic_scale.assign(1024.0)
    keras.config.set_dtype_policy("float32")  # as a user may, once the model is made
    masked.fit(*data(), epochs=1, batch_size=16, verbose=0, callbacks=[callbacks.Compaction()])
    assert float(masked.optimizer.dynamic_scale) == 1024.0
    assert int(masked.optimizer.step_counter) == int(masked.optimizer.iterations) == 3


def test_compiled_by_xla_compaction_finds_the_same_masks():
    found = []
    for compiled in (True, False):
        keras.utils.set_random_seed(7)
        model = keras.Sequential([keras.Input((25,)), layers.Dense(8, "relu", name="hidden"), layers.Dense(2)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, jit_compile=compiled)
        masked, (x, y) = tfprune.wrap(model), data()
        history = masked.fit(
            x.reshape(-1, 25),
            y,
            batch_size=16,
            epochs=3,
            shuffle=False,
            verbose=0,
            callbacks=CALLBACKS["Compaction and GradualPruning"](),
        ).history
        found.append((tfprune.get_masks(masked)["hidden"].tolist(), history["loss"]))
    assert found[0][0] == found[1][0]
    assert sum(found[0][0]) == 3
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4)


def test_nothing_that_trains_prunes_or_exports_is_forced_onto_a_device():
    folders = ("structure", "pruning", "callbacks", "deployment")
    paths = [path for folder in folders for path in (Path(tfprune.__file__).parent / folder).rglob("*.py")]
    words = ("tf.device(", "keras.device(", "CUDA_VISIBLE", "set_visible_dev")
    assert len(paths) > 20
    assert not [path.name for path in paths if any(word in path.read_text(encoding="utf-8") for word in words)]
