"""Do the callbacks of sparse training shrink what they say, by what they say, and leave nothing behind?"""

import itertools
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.callbacks import EarlyBird, GroupLasso, GrowingRegularization, NetworkSlimming
from tfprune.structure.replay import value_of

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int32")
RATE = 0.1


def residual(optimizer=None, synchronized=False, **options):
    """Layers `a` and `b` make the same five channels."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    a = layers.Dense(5, name="a")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(synchronized=synchronized, name="norm")(a))
    x = layers.Dense(6, activation="relu", name="inner")(x)
    x = layers.Add()([a, layers.Dense(5, name="b")(x)])
    x = layers.ReLU()(layers.BatchNormalization(synchronized=synchronized, name="last")(x))
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(RATE), loss, **options)
    return model


def fit(model, *callbacks, epochs=1, batch_size=8):
    return model.fit(X, Y, batch_size=batch_size, epochs=epochs, callbacks=callbacks, verbose=0, shuffle=False).history


def plain(model, name):
    layer = model.get_layer(name)
    return getattr(layer, "layer", layer)


def values(model):
    return {
        w.path: value_of(w) for name in ("a", "norm", "inner", "b", "last", "out") for w in plain(model, name).weights
    }


def by_hand(step, batches=4):
    """The model trained batch by batch, with a step of ours after each."""
    model = residual()
    for start in range(0, 8 * batches, 8):
        model.train_on_batch(X[start : start + 8], Y[start : start + 8])
        step(model)
    return values(model)


def assert_same(found, expected):
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=2e-4, atol=2e-6, err_msg=path)


# Network slimming ---------------------------------------------------------------------------------------------------


def soften(model, strength):
    for name in ("norm", "last"):
        gamma = plain(model, name).gamma
        value = value_of(gamma)
        gamma.assign(np.sign(value) * np.maximum(np.abs(value) - RATE * strength, 0))


@pytest.mark.parametrize("wrap", [False, True], ids=["plain", "masked"])
def test_scales_take_the_step_of_the_penalty_after_each_step_of_the_loss(wrap):
    model = tfprune.wrap(residual()) if wrap else residual()
    fit(model, NetworkSlimming(0.5))
    assert_same(values(model), by_hand(lambda model: soften(model, 0.5)))


def test_scales_that_reach_zero_stay_there_and_are_pruned_first():
    masked = tfprune.wrap(residual())
    for name in ("norm", "last"):
        plain(masked, name).gamma.assign([1, 0.05, 1, 0.05, 1])
    fit(masked, NetworkSlimming(0.5), epochs=2)
    scales = np.stack([np.abs(value_of(plain(masked, name).gamma)) for name in ("norm", "last")])
    assert (scales == 0).all(axis=0).tolist() == [False, True, False, True, False]
    chosen = tfprune.compute_masks(masked, {"a": 0.4}, criterion="batchnorm_scale")
    assert chosen["a"].tolist() == [True, False, True, False, True]


# Group lasso --------------------------------------------------------------------------------------------------------


def shrink_groups(model, strength):
    """The channels of `a` and `b`, and those of `inner`, written out."""
    a, b, inner, out = (plain(model, name) for name in ("a", "b", "inner", "out"))
    norms = [plain(model, name) for name in ("norm", "last")]
    rows = [a.kernel, b.kernel, a.bias, b.bias, *(w for norm in norms for w in (norm.gamma, norm.beta))]
    read = [inner.kernel, out.kernel]
    coupled = sum((value_of(w) ** 2).reshape(-1, 5).sum(axis=0) for w in rows)
    coupled += sum((value_of(w) ** 2).sum(axis=1) for w in read)
    within = (
        (value_of(inner.kernel) ** 2).sum(axis=0) + value_of(inner.bias) ** 2 + (value_of(b.kernel) ** 2).sum(axis=1)
    )
    one, other = (np.maximum(1 - RATE * strength / np.sqrt(square), 0) for square in (coupled, within))
    for weight in rows:
        weight.assign(value_of(weight) * one)
    for weight in read:
        weight.assign(value_of(weight) * one[:, None])
    inner.kernel.assign(value_of(inner.kernel) * other)
    inner.bias.assign(value_of(inner.bias) * other)
    b.kernel.assign(value_of(b.kernel) * other[:, None])


@pytest.mark.parametrize("wrap", [False, True], ids=["plain", "masked"])
def test_whole_channels_shrink_in_all_layers_that_they_pass(wrap):
    model = tfprune.wrap(residual()) if wrap else residual()
    fit(model, GroupLasso(0.7))
    assert_same(values(model), by_hand(lambda model: shrink_groups(model, 0.7)))


def test_coupled_channel_goes_to_zero_in_all_layers_together():
    model = residual()
    fit(model, GroupLasso(0.9), epochs=6)
    found = values(model)
    gone = np.all(found["a/kernel"] == 0, axis=0)
    assert 0 < gone.sum() < 5, "the strength is chosen so that some go"
    for path in ("a/bias", "norm/gamma", "norm/beta", "last/gamma", "last/beta", "b/bias"):
        assert (found[path][gone] == 0).all(), path
    assert (found["b/kernel"][:, gone] == 0).all()
    assert (found["out/kernel"][gone] == 0).all()
    assert (found["a/kernel"][:, ~gone] != 0).any()


# Growing regularisation ---------------------------------------------------------------------------------------------


def test_penalty_grows_on_the_chosen_channels_only_and_they_are_pruned_at_its_ceiling():
    masked, sizes = tfprune.wrap(residual()), []
    chosen = tfprune.compute_masks(masked, 0.4)
    growing = GrowingRegularization(0.4, increment=1.0, every=2, ceiling=5.0)

    def note(batch, logs):
        squares = np.square(values(masked)["inner/kernel"]).sum(axis=0)
        sizes.append((growing.strength, squares[~chosen["inner"]].sum(), squares[chosen["inner"]].sum()))

    fit(masked, growing, keras.callbacks.LambdaCallback(on_train_batch_end=note), epochs=4)
    assert [size[0] for size in sizes[:10]] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    going, staying = [size[1] for size in sizes], [size[2] for size in sizes]
    assert all(after < before for before, after in itertools.pairwise(going[2:10]))
    assert going[9] == 0
    assert min(staying) > 0.5 * staying[0]
    assert growing.finished
    for name, mask in tfprune.get_masks(masked).items():
        np.testing.assert_array_equal(mask, chosen[name])


def test_growing_penalty_is_the_decay_that_numpy_says():
    """From the second step on the factor is 2: weights shrink by 1 / (1 + rate x 2)."""
    masked = tfprune.wrap(residual(keras.optimizers.SGD(1e-6)))
    goes = ~tfprune.compute_masks(masked, {"inner": 0.5})["inner"]
    before = values(masked)["inner/kernel"]
    masked.optimizer.learning_rate = 1e-6
    growing = GrowingRegularization({"inner": 0.5}, increment=1e5, every=1, ceiling=1e9)
    with pytest.warns(UserWarning, match=r"penalty of GrowingRegularization was 400000 of 1e\+09: nothing is pruned"):
        fit(masked, growing)
    factor = np.prod([1 / (1 + 1e-6 * 1e5 * step) for step in (0, 1, 2, 3)])
    np.testing.assert_allclose(values(masked)["inner/kernel"][:, goes], before[:, goes] * factor, rtol=1e-4)
    np.testing.assert_allclose(values(masked)["inner/kernel"][:, ~goes], before[:, ~goes], rtol=1e-4, atol=1e-5)


# Early bird ---------------------------------------------------------------------------------------------------------


def scripted(orders):
    """A criterion that ranks the channels of `inner` by another order each time that it is asked."""
    asked = iter(orders)

    def criterion(group):
        return np.array(next(asked), dtype=float) if group.name == "inner" else np.arange(5.0)

    return criterion


def test_ticket_is_drawn_when_masks_stay_the_same_several_times_in_a_row():
    first, other = [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]
    masked = tfprune.wrap(residual())
    bird = EarlyBird(
        0.5, patience=2, criterion=scripted([first, other, other, first, first, first, first]), scope="layer"
    )
    history = fit(masked, bird, epochs=9)
    # all six channels of inner change, and none of the five others
    assert bird.distances == pytest.approx([6 / 11, 0, 6 / 11, 0, 0])
    assert bird.epoch == 6
    assert len(history["loss"]) == 6
    assert tfprune.get_masks(masked)["inner"].tolist() == [False] * 3 + [True] * 3
    assert not values(masked)["inner/kernel"][:, :3].any()


def test_masks_that_go_on_changing_give_no_ticket():
    first, other = [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]
    masked, bird = (
        tfprune.wrap(residual()),
        EarlyBird(0.5, patience=1, criterion=scripted([first, other] * 2), scope="layer"),
    )
    with pytest.warns(UserWarning, match=r"No early-bird ticket emerged: the last distance of masks was 0.545"):
        fit(masked, bird, epochs=4)
    assert bird.epoch is None
    assert all(mask.all() for mask in tfprune.get_masks(masked).values())


def test_early_bird_beside_network_slimming_and_a_second_fit():
    masked = tfprune.wrap(residual())
    bird = EarlyBird(0.4, patience=1, threshold=1.0, only=["a"])
    for _ in range(2):
        fit(masked, NetworkSlimming(0.1), bird, epochs=3)
        assert bird.epoch == 2
        assert tfprune.get_masks(masked)["a"].sum() == 3


# What all have in common --------------------------------------------------------------------------------------------

ALL = {
    "slimming": lambda: NetworkSlimming(0.1),
    "lasso": lambda: GroupLasso(0.1),
    "growing": lambda: GrowingRegularization(0.4, increment=1.0, every=1, ceiling=1.0),
}


@pytest.mark.parametrize("name", ALL)
def test_nothing_stays_behind_on_the_model(name):
    masked, callback = tfprune.wrap(residual()), ALL[name]()
    attributes = set(vars(masked))
    paths = [weight.path for weight in masked.variables]
    first = fit(masked, callback, batch_size=32)["loss"][0]
    assert first == pytest.approx(fit(residual(), batch_size=32)["loss"][0]), "the logged loss is the task's"
    assert masked.losses == []
    assert not [weight.path for weight in masked.weights if weight.regularizer is not None]
    assert [weight.path for weight in masked.variables] == paths
    # what a fit without the callback does to the weights is what it does to a model that never met it
    fresh = tfprune.wrap(residual())
    fresh.set_weights(masked.get_weights())
    fit(masked)
    fit(fresh)
    assert_same(values(masked), values(fresh))
    new = set(vars(masked)) - attributes
    assert not {attribute for attribute in new if not attribute.startswith("_")} - {"history"}


@pytest.mark.parametrize("name", ALL)
def test_half_precision_long_executions_and_a_second_fit(name):
    keras.config.set_dtype_policy("mixed_float16")
    masked = tfprune.wrap(residual("adam", steps_per_execution=2))
    callback = ALL[name]()
    for _ in range(2):
        losses = fit(masked, callback)["loss"]
        assert np.isfinite(losses).all()
    found = values(masked)
    assert all(np.isfinite(value).all() for value in found.values())
    assert {value.dtype for value in found.values()} == {np.dtype("float32")}
    assert tfprune.get_masks(masked)["inner"].sum() == (4 if name == "growing" else 6)


ON_TWO_DEVICES = """if True:
    import contextlib
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import test_sparse_training as tests
    from tfprune.callbacks import GradualPruning, GroupLasso, GrowingRegularization, NetworkSlimming
    from tfprune.pruning import criteria, schedules

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    steps = {"ratio": 0.6, "end": 10, "every": 3}
    make = {
        "sparse": lambda: [NetworkSlimming(0.1), GroupLasso(0.1)],
        "growing": lambda: [GrowingRegularization(0.4, increment=1.0, every=2, ceiling=3.0)],
        "gradual": lambda: [
            GradualPruning(schedules.Cubic(**steps), criteria.Taylor((tests.X, tests.Y)), "global", regrow_until=6)
        ],
    }
    for name, callbacks in make.items():
        found = []
        for scope in (contextlib.nullcontext(), strategy.scope()):
            with scope:
                masked = tests.tfprune.wrap(tests.residual(synchronized=True))
            tests.fit(masked, *callbacks(), epochs=3)
            found.append((tests.tfprune.get_masks(masked), tests.values(masked)))
        tests.assert_same(found[1][1], found[0][1])
        print(name, all((found[0][0][key] == mask).all() for key, mask in found[1][0].items()))
"""


def test_two_devices_give_what_one_gives():
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ON_TWO_DEVICES],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert process.stdout.split() == ["sparse", "True", "growing", "True", "gradual", "True"]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: NetworkSlimming(0), "strength must be a positive number. Received: strength=0"),
        (lambda: GroupLasso(-1.0), "strength must be a positive number"),
        (lambda: NetworkSlimming("a"), "strength must be a finite number. Received: strength='a'"),
        (lambda: GroupLasso("a"), "strength must be a finite number"),
        (lambda: GroupLasso(float("inf")), "strength must be a finite number. Received: strength=inf"),
        (lambda: GrowingRegularization(0.5, every=0), "every must be an integer of at least 1"),
        (lambda: GrowingRegularization(0.5, every=0.5), "every must be an integer of at least 1. Received: every=0.5"),
        (lambda: GrowingRegularization(50), r"ratio must be in \[0, 1\)"),
        (lambda: EarlyBird(0.5, threshold=0), r"threshold in \(0, 1\].*Received: threshold=0"),
        (lambda: EarlyBird(0.5, threshold="a"), r"threshold in \(0, 1\].*Received: threshold='a'"),
        (lambda: EarlyBird(0.5, patience=1.5), "patience must be an integer of at least 1. Received: patience=1.5"),
        (lambda: fit(without_scales(), NetworkSlimming()), "NetworkSlimming needs .*Use GroupLasso"),
        (lambda: fit(one_layer(), GroupLasso()), "needs channels that can be pruned. Model 'one' has none"),
        (lambda: fit(residual(), GrowingRegularization(0.5)), "GrowingRegularization needs a model with channel masks"),
        (lambda: fit(residual(), EarlyBird(0.5)), "EarlyBird needs a model with channel masks"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(run, message):
    with pytest.raises(ValueError, match=message):
        run()


def compiled(*stack, name):
    model = keras.Sequential([keras.Input((4,)), *stack], name=name)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def without_scales():
    return compiled(layers.Dense(3), layers.BatchNormalization(scale=False), layers.Dense(2), name="unscaled")


def one_layer():
    return compiled(layers.Dense(2), name="one")
