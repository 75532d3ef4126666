"""Does `shrink(compensate=...)` make good the mean of what was removed, exactly where it is constant?"""

import keras
import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf
from keras import layers
from zoo import ZOO, randomise

import tfprune

GONE = [1, 4, 5]  # of 8 channels; they are constant


def convolutions(padding="valid", behind="bias"):
    """Two convolutions; what the second has behind it takes over from the channels that it loses."""
    inputs = keras.Input((9, 9, 3))
    x = layers.Conv2D(8, 3, activation="sigmoid", name="first")(inputs)
    x = layers.Conv2D(5, 3, padding=padding, use_bias=behind == "bias", name="second")(x)
    if behind == "batchnorm":
        x = layers.BatchNormalization(name="norm")(x)
    x = layers.Activation("tanh")(x)
    x = layers.GlobalAveragePooling2D()(x) if behind != "nothing" else layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def normalised():
    """A channel is constant behind its BatchNormalization; two readers, one of them in groups."""
    inputs = keras.Input((9, 9, 3))
    x = layers.Conv2D(8, 3, use_bias=False, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    a = layers.Conv2D(6, 3, name="second")(x)
    b = layers.Conv2D(4, 3, groups=2, name="grouped")(x)
    x = layers.Concatenate()([a, b])
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


def dense():
    hidden = [layers.Dense(8, activation="gelu", name="first"), layers.Dense(6, activation="relu", name="second")]
    return keras.Sequential([keras.Input((5,)), *hidden, layers.Dense(2, name="head")])


def flattened():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 3, activation="softplus", name="first")(inputs)
    x = layers.DepthwiseConv2D(2, name="depthwise")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(layers.MaxPooling2D()(x))))


def shared():
    """The reader is called twice; it has one bias."""
    inputs = keras.Input((4, 5))
    x = layers.Dense(8, activation="sigmoid", name="first")(inputs)
    reader = layers.Dense(6, activation="relu", use_bias=False, name="reader")
    x = layers.Concatenate()([reader(x), reader(x)])
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def with_constant_channels(model, gone=GONE):
    """The model with weights of chance, but some channels of its first layer give the same whatever they read."""
    randomise(model)
    layer = model.get_layer("first")
    kernel = np.asarray(layer.kernel).copy()
    kernel[..., gone] = 0.0
    layer.kernel.assign(kernel)
    for other in model.layers:
        if isinstance(other, layers.GroupQueryAttention) and other.name != "a1":
            kernel = np.asarray(other._output_dense.kernel).copy()
            kernel[..., gone] = 0.0  # what it makes goes with what its query has
            other._output_dense.kernel.assign(kernel)
    return model


def masked_without(model, gone=GONE):
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, {"first": ~np.isin(np.arange(8), gone)})
    return masked


def inputs_of(model, samples=12, seed=3):
    return np.random.default_rng(seed).normal(size=(samples, *model.inputs[0].shape[1:])).astype("float32")


def gap(one, other, x):
    return float(np.abs(np.asarray(one(x)) - np.asarray(other(x))).max() / np.abs(np.asarray(one(x))).max())


BUILDERS = {
    "bias": convolutions,
    "batchnorm": lambda: convolutions(behind="batchnorm"),
    "new bias": lambda: convolutions(behind="nothing"),
    "normalised, two readers, groups": lambda: normalised(),
    "dense": dense,
    "flattened": flattened,
    "shared reader": shared,
}


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("data", ["noise", "inputs"])
def test_the_outputs_stay_the_same_where_what_is_removed_is_constant(kind, data):
    gone = [1, 5] if "groups" in kind else GONE  # groups lose channels at equal places
    model = with_constant_channels(BUILDERS[kind](), gone)
    masked, x = masked_without(model, gone), inputs_of(model)
    small = tfprune.shrink(masked, compensate=True if data == "noise" else x)
    assert gap(model, tfprune.shrink(masked), x) > 1e-3  # without, it is another function
    assert gap(model, small, x) < 1e-5
    report = tfprune.ticket_report(small)
    assert report["compensated"]
    assert report["not_compensated"] == []
    assert report["largest_difference"] < 1e-5  # small against masked, both compensated
    assert small.count_params() < model.count_params()


def test_the_mean_goes_where_it_costs_nothing():
    small = {kind: None for kind in ("bias", "batchnorm", "new bias")}
    for kind in small:
        model = with_constant_channels(BUILDERS[kind]())
        small[kind] = model, tfprune.shrink(masked_without(model), compensate=True)
    before, after = (model.get_layer("norm") for model in small["batchnorm"])
    assert not np.allclose(before.moving_mean, after.moving_mean)
    np.testing.assert_array_equal(before.moving_variance, after.moving_variance)
    assert not small["batchnorm"][1].get_layer("second").use_bias
    assert not small["new bias"][0].get_layer("second").use_bias
    assert small["new bias"][1].get_layer("second").use_bias


def test_padding_makes_an_error_at_the_border_alone():
    model = with_constant_channels(convolutions(padding="same", behind="nothing"))
    small = tfprune.shrink(masked_without(model), compensate=True)
    maps = [keras.Model(m.inputs[0], m.get_layer("second").output) for m in (model, small)]
    x = inputs_of(model)
    errors = np.abs(np.asarray(maps[0](x)) - np.asarray(maps[1](x))).max(axis=(0, 3))
    assert errors[1:-1, 1:-1].max() < 1e-5
    border = np.ones_like(errors, bool)
    border[1:-1, 1:-1] = False
    assert errors[border].min() > 1e-3


def test_the_mean_is_that_of_all_samples_however_they_come():
    model = randomise(dense())
    masked, x = masked_without(model), inputs_of(model, 50)
    kernel, bias = (np.asarray(weight) for weight in model.get_layer("second").weights)
    hidden = np.asarray(model.layers[0](x))
    expected = bias + hidden[:, GONE].mean(axis=0) @ kernel[GONE]
    sets = [x, (x, np.zeros(50)), tf.data.Dataset.from_tensor_slices(x), tf.data.Dataset.from_tensor_slices(x).batch(7)]
    for data in sets:
        small = tfprune.shrink(masked, compensate=data)
        np.testing.assert_allclose(small.get_layer("second").bias, expected, rtol=1e-5)


def test_the_masked_model_stays_as_it_is_and_what_was_asked_is_remembered():
    model = randomise(convolutions(behind="batchnorm"))
    model.compile("sgd", "mse")
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, {"first": 0.5}))
    weights = [np.asarray(variable).copy() for variable in masked.variables]
    small = tfprune.shrink(masked, compensate=inputs_of(model))
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(weights, masked.variables, strict=True))
    assert tfprune.ticket_report(small)["ratio_asked"] == {"first": 0.5}
    assert small.compiled
    assert type(small) is type(tfprune.shrink(masked))


# --- Readers of every kind --------------------------------------------------------------------------------------------


def sequence(read):
    """`read` makes of the hidden sequence what the head sees."""
    inputs = keras.Input((7, 4))
    x = read(layers.Dense(8, activation="sigmoid", name="first")(inputs))
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


def images(read):
    inputs = keras.Input((9, 9, 3))
    x = read(layers.Conv2D(8, 3, activation="sigmoid", name="first")(inputs))
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


def attended(use_bias=True, grouped=False):
    """Three attentions whose queries, keys and values lose channels, one or several of them."""

    def read(x):
        plain = [layers.Dense(8, activation="tanh", name=f"plain_{index}")(x) for index in range(3)]
        calls = [(x, *plain[:2]), (plain[0], plain[1], x), (plain[0], x, plain[2])]
        if grouped:  # its queries and values are equally wide, and it makes as many channels as these have
            calls = [(x, x, plain[0]), (plain[0], plain[1], x), (x, x, x)]
            made = [layers.GroupQueryAttention(6, 4, 2, use_bias=use_bias, name=f"a{i}") for i in range(3)]
        else:
            made = [
                layers.MultiHeadAttention(2, 4, value_dim=3, output_shape=6, use_bias=use_bias, name=f"a{i}")
                for i in range(3)
            ]
        return layers.Concatenate()([attend(*tensors) for attend, tensors in zip(made, calls, strict=True)])

    return sequence(read)


def one(layer, *behind):
    def read(x):
        x = layer(x)
        for other in behind:
            x = other(x)
        return x

    return read


RECURRENT = {
    "GRU": lambda **given: layers.GRU(5, **given),
    "GRU, reset before": lambda **given: layers.GRU(5, reset_after=False, **given),
    "LSTM": lambda **given: layers.LSTM(5, **given),
    "SimpleRNN": lambda **given: layers.SimpleRNN(5, activation=None, **given),
}
READERS = {
    **{
        f"{name}, {bias=}": lambda make=make, bias=bias: sequence(
            one(make(use_bias=bias, return_sequences=True, name="reader"), layers.BatchNormalization())
        )
        for name, make in RECURRENT.items()
        for bias in (True, False)
    },
    **{
        f"both ways, {name}, {bias=}": lambda make=make, bias=bias: sequence(
            one(layers.Bidirectional(make(use_bias=bias), name="reader"))
        )
        for name, make in RECURRENT.items()
        for bias in (True, False)
    },
    "separable 1D": lambda: sequence(one(layers.SeparableConv1D(5, 3, activation="tanh", name="reader"))),
    "separable 2D": lambda: images(one(layers.SeparableConv2D(5, 3, depth_multiplier=2, strides=2, name="reader"))),
    "separable 2D, norm behind": lambda: images(
        one(layers.SeparableConv2D(5, 3, use_bias=False, name="reader"), layers.BatchNormalization())
    ),
    "separable 2D, no bias": lambda: images(
        one(layers.SeparableConv2D(5, 3, use_bias=False, name="reader"), layers.ReLU())
    ),
    "transposed, each place read alone": lambda: images(one(layers.Conv2DTranspose(5, 1, name="reader"))),
    "einsum": lambda: sequence(one(layers.EinsumDense("abc,cde->abde", (7, 2, 3), bias_axes="de", name="reader"))),
    "einsum, channels not last": lambda: sequence(
        one(layers.Permute((2, 1)), layers.EinsumDense("acb,cd->abd", (7, 4), bias_axes="d", name="reader"))
    ),
    "at every step": lambda: sequence(
        one(layers.TimeDistributed(layers.Dense(5, "tanh", use_bias=False), name="reader"), layers.BatchNormalization())
    ),
    "spectral": lambda: images(one(layers.SpectralNormalization(layers.Conv2D(5, 3, use_bias=False), name="reader"))),
    **{f"attention, {bias=}": lambda bias=bias: attended(bias) for bias in (True, False)},
    **{f"grouped attention, {bias=}": lambda bias=bias: attended(bias, grouped=True) for bias in (True, False)},
}


@pytest.mark.parametrize("kind", READERS)
def test_readers_of_every_kind_take_over_what_is_constant(kind):
    model = with_constant_channels(READERS[kind]())
    masked, x = masked_without(model), inputs_of(model)
    small = tfprune.shrink(masked, compensate=x)
    assert gap(model, tfprune.shrink(masked), x) > 1e-3
    assert gap(model, small, x) < 1e-4
    report = tfprune.ticket_report(small)
    assert report["compensated"]
    assert report["not_compensated"] == []


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["LSTM", "both ways, GRU", "attention", "grouped attention"])
def test_readers_that_lose_units_of_their_own_are_compensated_for_their_inputs(kind, bias):
    model = with_constant_channels(READERS[f"{kind}, {bias=}"]())
    masked, x = masked_without(model), inputs_of(model)
    groups = ["a0:qk", "a0:head", "a2:qk"] if "attention" in kind else ["reader"]
    own = {name: tfprune.get_masks(masked)[name] > 0 for name in groups}
    for mask in own.values():
        mask[0] = False
    other = tfprune.wrap(model)
    tfprune.set_masks(other, own)
    tfprune.set_masks(masked, own)
    small = tfprune.shrink(masked, compensate=x)
    assert tfprune.ticket_report(small)["largest_difference"] < 1e-5
    assert gap(tfprune.shrink(other, compensate=x), small, x) < 1e-4


def test_what_cannot_take_over_is_named_and_left():
    inputs = keras.Input((12, 4))
    x = layers.Dense(8, activation="sigmoid", name="first")(inputs)
    y = layers.EinsumDense("abc,cd->abd", (None, 5), name="no_bias")(x)
    z = layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="e", name="bias_of_one_axis")(x)
    w = layers.Dense(3, name="plain")(x)
    x = layers.Concatenate()([*map(layers.GlobalAveragePooling1D(), (y, w, layers.Reshape((12, 6))(z)))])
    model = with_constant_channels(keras.Model(inputs, layers.Dense(2)(x)))
    report = tfprune.ticket_report(tfprune.shrink(masked_without(model), compensate=True))
    assert (report["compensated"], sorted(report["not_compensated"])) == (["plain"], ["bias_of_one_axis", "no_bias"])


def test_queries_and_values_of_grouped_attention_stay_equally_wide():
    inputs = keras.Input((7, 4))
    x, y = (layers.Dense(8, activation="tanh", name=name)(inputs) for name in ("first", "second"))
    z = layers.GroupQueryAttention(6, 4, 2)(x, y)
    model = randomise(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(z))))
    small = tfprune.shrink(masked_without(model), compensate=True)
    assert [small.get_layer(name).units for name in ("first", "second")] == [5, 5]


def maps_of(model, compensate=True):
    small = tfprune.shrink(masked_without(model), compensate=compensate)
    x = inputs_of(model)
    return [np.asarray(keras.Model(m.inputs[0], m.get_layer("reader").output)(x)) for m in (model, small)]


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_transposed_convolution_without_strides_errs_at_the_border_alone(padding):
    model = with_constant_channels(images(one(layers.Conv2DTranspose(5, 3, padding=padding, name="reader"))))
    before, after = maps_of(model)
    width = {"valid": 2, "same": 1}[padding]
    errors = np.abs(before - after).max(axis=(0, 3))
    assert errors[width:-width, width:-width].max() < 1e-5
    assert errors[0].min() > 1e-3


def test_a_transposed_convolution_with_strides_keeps_the_mean_of_its_phases():
    model = with_constant_channels(
        images(one(layers.Conv2DTranspose(5, 3, strides=2, padding="same", use_bias=False, name="reader")))
    )
    before, after = maps_of(model)
    errors = (before - after)[:, 2:-2, 2:-2]
    assert np.abs(errors).max() > 1e-2
    np.testing.assert_allclose(errors.mean(axis=(0, 1, 2)), 0.0, atol=1e-5)
    before, plain = maps_of(model, compensate=False)
    assert np.abs((before - plain)[:, 2:-2, 2:-2].mean(axis=(0, 1, 2))).min() > 1e-3


@pytest.fixture(scope="module")
def trained():
    """A network that knows digits; their images and labels, for training and for testing."""
    keras.utils.set_random_seed(0)
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8, 1) / 8 - 1).astype("float32")
    z = inputs = keras.Input((8, 8, 1))
    for width in (16, 32):
        z = layers.Conv2D(width, 3, use_bias=False)(z)
        z = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(z))
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(z)))
    model.compile(keras.optimizers.Adam(0.005), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:1200], y[:1200], batch_size=64, epochs=10, verbose=0)
    return model, x[:1200], (x[1200:], y[1200:])


@pytest.mark.parametrize("data", ["noise", "inputs"])
def test_it_brings_a_trained_network_nearer_to_what_it_was(trained, data):
    model, x, (held_out, labels) = trained
    dense, errors, accuracy = np.asarray(model(held_out)), [], []
    for seed in range(3):
        masked = tfprune.wrap(model)
        tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.2, criterion="random", seed=seed))
        smalls = [tfprune.shrink(masked), tfprune.shrink(masked, compensate=True if data == "noise" else x[:300])]
        outputs = [np.asarray(small(held_out)) for small in smalls]
        errors.append([np.sqrt(np.mean((dense - other) ** 2)) for other in outputs])
        accuracy.append([np.mean(other.argmax(axis=1) == labels) for other in outputs])
    plain, compensated = np.mean(errors, axis=0)
    assert compensated < 0.7 * plain
    plain, compensated = np.mean(accuracy, axis=0)
    assert compensated > plain + 0.15


def test_data_that_do_not_fit_are_refused():
    masked = masked_without(randomise(dense()))
    with pytest.raises(ValueError, match=r"compensate must have the shape \(None, 5\).*Received: \(3, 4\)"):
        tfprune.shrink(masked, compensate=np.zeros((3, 4), "float32"))
    with pytest.raises(ValueError, match="at least one sample"):
        tfprune.shrink(masked, compensate=np.zeros((0, 5), "float32"))
    with pytest.raises(ValueError, match="never ends"):
        tfprune.shrink(masked, compensate=tf.data.Dataset.from_tensors(np.zeros((2, 5), "float32")).repeat())
    with pytest.raises(TypeError, match="arrays of numbers"):
        tfprune.shrink(masked, compensate=[object()])


@pytest.mark.parametrize("name", ["residual", "concatenated", "squeeze_and_excite", "depthwise"])
def test_small_and_masked_agree_however_layers_join(name):
    model = randomise(ZOO[name]())
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    report = tfprune.ticket_report(tfprune.shrink(masked, compensate=True))
    assert report["compensated"]
    assert report["largest_difference"] < 1e-5


# --- BatchNormalization, estimated anew -------------------------------------------------------------------------------


def test_statistics_are_those_of_all_samples_as_numpy_finds_them():
    inputs = keras.Input((7, 7, 3))
    x = layers.BatchNormalization(name="images")(inputs)
    x = layers.Dropout(0.5)(x)
    x = layers.Conv2D(4, 3, name="conv")(x)
    model = randomise(keras.Model(inputs, layers.BatchNormalization(name="maps", momentum=0.7)(x)))
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(50, 7, 7, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, np.zeros(50))).batch(20)  # 20, 20 and 10
    new = tfprune.reestimate_batchnorm(model, data)
    norm = new.get_layer("images")
    np.testing.assert_allclose(norm.moving_mean, x.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, x.var(axis=(0, 1, 2)), rtol=1e-4)
    # behind it: by the batch, without dropout
    gamma, beta = (np.asarray(weight) for weight in model.get_layer("images").weights[:2])
    convolve = model.get_layer("conv")
    parts = [x[:20], x[20:40], x[40:]]
    eps = norm.epsilon
    maps = [
        np.asarray(convolve((p - p.mean((0, 1, 2))) / np.sqrt(p.var((0, 1, 2)) + eps) * gamma + beta)) for p in parts
    ]
    maps = np.concatenate(maps)
    behind = new.get_layer("maps")
    np.testing.assert_allclose(behind.moving_mean, maps.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(behind.moving_variance, maps.var(axis=(0, 1, 2)), rtol=1e-3)
    assert behind.momentum == 0.7


def test_nothing_else_changes_and_the_model_is_left_as_it_is(trained):
    model, x, _ = trained
    before = [value.copy() for value in model.get_weights()]
    new = tfprune.reestimate_batchnorm(model, x)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    for old, weight in zip(model.weights, new.weights, strict=True):
        assert old.path.split("/")[1:] == weight.path.split("/")[1:]
        assert np.array_equal(old, weight) == ("moving" not in old.path)
    assert new.compiled


def test_frozen_and_masked_models_are_estimated_too(trained):
    model, x, (held_out, labels) = trained
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.3, criterion="random", seed=0))
    masked.trainable = False
    new = tfprune.reestimate_batchnorm(masked, (x, None))
    assert {name: mask.sum() for name, mask in tfprune.get_masks(new).items()} == {
        name: mask.sum() for name, mask in tfprune.get_masks(masked).items()
    }
    small = tfprune.reestimate_batchnorm(tfprune.shrink(masked), x)
    assert gap(new, small, held_out) < 1e-4
    accuracy = [np.mean(np.asarray(m(held_out)).argmax(axis=1) == labels) for m in (masked, small)]
    assert accuracy[1] > accuracy[0] + 0.1
    assert not new.layers[2].trainable


def test_a_model_without_batchnorm_is_refused():
    with pytest.raises(ValueError, match="has no BatchNormalization whose statistics"):
        tfprune.reestimate_batchnorm(dense(), np.zeros((4, 5), "float32"))
