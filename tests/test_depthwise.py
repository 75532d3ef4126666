"""A convolution with one channel a group comes out of `shrink` as the depthwise layer that runs it fast."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.pruning import surgery


def net(rank=2, multiplier=1, **options):
    keras.utils.set_random_seed(0)
    convolution = {1: layers.Conv1D, 2: layers.Conv2D}[rank]
    inputs = keras.Input((12,) * rank + (3,))
    x = convolution(8, 3, padding="same", activation="relu", name="before")(inputs)
    x = convolution(8 * multiplier, 3, groups=8, activation="gelu", name="apart", **options)(x)
    x = convolution(5, 1, name="after")(x)
    x = {1: layers.GlobalAveragePooling1D, 2: layers.GlobalAveragePooling2D}[rank]()(x)
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    for variable in model.weights:
        variable.assign(np.random.default_rng(1).normal(0.1, 0.5, variable.shape))
    return model


def halved(model):
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    return masked, tfprune.shrink(masked)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"multiplier": 3, "strides": 2, "padding": "same"},
        {"dilation_rate": 2, "use_bias": False},
        {"kernel_regularizer": "l2", "bias_initializer": "ones"},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_it_computes_the_same(rank, options):
    masked, small = halved(net(rank, **options))
    twin = small.get_layer("apart")
    assert type(twin) is {1: layers.DepthwiseConv1D, 2: layers.DepthwiseConv2D}[rank]
    assert twin.kernel.shape[-2:] == (4, options.get("multiplier", 1))
    assert twin.activation is keras.activations.gelu
    x = np.random.default_rng(2).normal(size=(6, *masked.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(small(x), masked(x), rtol=1e-5, atol=1e-5)
    assert len(small.losses) == len(options.keys() & {"kernel_regularizer"})


def test_nothing_pruned_is_rebuilt_too():
    model = net(multiplier=2)
    small = tfprune.shrink(tfprune.wrap(model))
    assert type(small.get_layer("apart")) is layers.DepthwiseConv2D
    x = np.random.default_rng(2).normal(size=(6, 12, 12, 3)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (2, {"strides": (1, 2)}),
        (2, {"kernel_constraint": keras.constraints.MaxNorm(axis=[0, 1, 2])}),
        (2, {"kernel_regularizer": "own"}),
        (1, {"padding": "causal"}),
    ],
    ids=["strides", "constraint", "regularizer", "causal"],
)
def test_what_the_depthwise_layer_cannot_do_stays_a_convolution(rank, options):
    if "kernel_regularizer" in options:
        options = {"kernel_regularizer": Sizes()}
    masked, small = halved(net(rank, **options))
    assert type(small.get_layer("apart")) is type(masked.get_layer("before").layer)
    assert small.get_layer("apart").groups == 4
    x = np.random.default_rng(2).normal(size=(6, *masked.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(small(x), masked(x), rtol=1e-5, atol=1e-5)


@keras.saving.register_keras_serializable("test_depthwise")
class Sizes(keras.regularizers.Regularizer):
    """A regularizer of one's own, which may look at the kernel's axes."""

    def __call__(self, kernel):
        """Returns the penalty."""
        return 0.01 * keras.ops.sum(keras.ops.max(kernel, axis=-1))

    def get_config(self):
        """Returns what `__init__` takes."""
        return {}


def test_weights_go_back_to_their_places():
    masked = tfprune.wrap(net(multiplier=2))
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    small, pairs = surgery.cut(masked)
    before = masked.get_layer("apart").kernel.numpy()
    twin = small.get_layer("apart")
    twin.kernel.assign(twin.kernel + 1)
    surgery.expand(pairs)
    after = masked.get_layer("apart").kernel.numpy()
    changed = np.any(after != before, axis=(0, 1, 2))
    assert changed.sum() == twin.kernel.shape[-2] * 2 == 8
    np.testing.assert_allclose(after[..., changed], before[..., changed] + 1, rtol=1e-6)
    np.testing.assert_array_equal(after[..., ~changed], before[..., ~changed])


def test_a_compacted_fit_trains_it(tmp_path):
    masked = tfprune.wrap(net())
    masked.compile("adam", "mse")
    x = np.random.default_rng(3).normal(size=(32, 12, 12, 3)).astype("float32")
    y = np.random.default_rng(4).normal(size=(32, 2)).astype("float32")
    plain = tfprune.wrap(net())
    plain.compile("adam", "mse")
    for model in (masked, plain):
        tfprune.set_masks(model, tfprune.compute_masks(model, 0.5))
    masked.fit(x, y, epochs=3, shuffle=False, verbose=0, callbacks=[tfprune.callbacks.Compaction()])
    plain.fit(x, y, epochs=3, shuffle=False, verbose=0)
    ticket = tfprune.shrink(masked)
    np.testing.assert_allclose(ticket(x), plain(x), rtol=1e-3, atol=1e-4)
    ticket.save(tmp_path / "ticket.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "ticket.keras")(x), ticket(x), rtol=1e-6)
