"""Does a model without its BatchNormalizations predict what it predicted with them?"""

import keras
import numpy as np
import pytest
from keras import layers
from zoo import ZOO, difference, inputs_of, randomise

import tfprune
from tfprune.pruning import folding

NORM = layers.BatchNormalization
RANDOM = np.random.default_rng(0)


def norms(model):
    return sum(isinstance(layer, NORM) for layer in model.layers)


def sequential(shape, *stack):
    return randomise(keras.Sequential([keras.Input(shape), *stack]))


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((7,), layers.Dense(5)),
        ((6, 7), layers.Dense(5, use_bias=False)),
        ((9, 4), layers.Conv1D(6, 3, padding="same")),
        ((8, 8, 4), layers.Conv2D(6, 3, strides=2, use_bias=False)),
        ((8, 8, 4), layers.Conv2D(6, 3, groups=2)),
        ((8, 8, 4), layers.Conv2D(4, 3, groups=4)),
        ((5, 5, 5, 2), layers.Conv3D(3, 2)),
        ((9, 4), layers.DepthwiseConv1D(3, depth_multiplier=2)),
        ((8, 8, 4), layers.DepthwiseConv2D(3, depth_multiplier=3, use_bias=False)),
        ((8, 8, 4), layers.SeparableConv2D(6, 3, padding="same", depth_multiplier=2)),
        ((9, 4), layers.SeparableConv1D(6, 3, use_bias=False)),
        ((9, 4), layers.Conv1DTranspose(6, 3)),
        ((6, 6, 4), layers.Conv2DTranspose(5, 3, strides=2, use_bias=False)),
        ((4, 4, 4, 2), layers.Conv3DTranspose(3, 2)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else str(value),
)
@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}], ids=str)
def test_normalisation_goes_into_the_layer_before_it(shape, layer, settings):
    layer = type(layer).from_config(layer.get_config())
    model = sequential(shape, layer, NORM(**settings), layers.ReLU())
    folded = tfprune.fold_batch_norm(model)
    assert norms(model) == 1
    assert norms(folded) == 0
    assert isinstance(folded, keras.Sequential)
    assert difference(model, folded, inputs_of(model)) < 1e-5
    layer.set_weights([2 * weight for weight in layer.get_weights()])
    assert difference(model, folded, inputs_of(model)) > 1e-3, "the new model has weights of its own"


def branches(read):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    return randomise(keras.Model(inputs, read(x)))


def shared():
    inputs, conv = keras.Input((8, 8, 4)), layers.Conv2D(4, 3, padding="same")
    return randomise(keras.Model(inputs, NORM()(conv(conv(inputs)))))


STAYS = {
    "an activation lies between": lambda: sequential((7,), layers.Dense(5, activation="relu"), NORM()),
    "another layer reads the convolution": lambda: branches(lambda x: NORM()(x) + x),
    "the convolution is an output": lambda: branches(lambda x: [NORM()(x), x]),
    "it is told to normalise by the batch": lambda: branches(lambda x: NORM()(x, training=True)),
    "it normalises another axis": lambda: branches(lambda x: NORM(axis=1)(x)),
    "pooling lies between": lambda: branches(lambda x: NORM()(layers.MaxPooling2D()(x))),
    "the convolution is called twice": shared,
}


@pytest.mark.parametrize("case", STAYS)
def test_normalisation_stays_where(case):
    model = STAYS[case]()
    folded = tfprune.fold_batch_norm(model)
    assert norms(folded) == 1
    assert difference(model, folded, inputs_of(model)) < 1e-5


def has_norm_behind_a_kernel(name):
    model = ZOO[name]()
    return norms(tfprune.fold_batch_norm(model)) < norms(model)


@pytest.mark.parametrize("name", ZOO)
def test_folded_ticket_computes_what_the_ticket_computes(name):
    model = randomise(ZOO[name]())
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    ticket = tfprune.shrink(masked)
    folded = tfprune.fold_batch_norm(ticket)
    assert difference(ticket, folded, inputs_of(ticket)) < 1e-4
    assert len(folded.layers) <= len(ticket.layers)


def test_networks_of_the_zoo_lose_normalisations():
    assert sum(map(has_norm_behind_a_kernel, ZOO)) >= 4


@pytest.mark.parametrize(
    ("name", "left"), [("ResNet50V2", 17), ("MobileNetV2", 0), ("DenseNet121", 62), ("EfficientNetB0", 0)]
)
def test_networks_of_keras_are_folded(name, left):
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=5)
    for norm in (layer for layer in model.layers if isinstance(layer, NORM)):
        norm.set_weights([value + RANDOM.uniform(0, 0.3, value.shape) for value in norm.get_weights()])
    folded = tfprune.fold_batch_norm(model)
    assert norms(folded) == left, "a normalisation before its convolution stays"
    assert difference(model, folded, inputs_of(model)) < 1e-4


def test_folded_model_is_saved_loaded_and_knows_what_the_ticket_cost(tmp_path):
    model = sequential((8, 8, 3), layers.Conv2D(8, 3), NORM(), layers.ReLU(), layers.Flatten(), layers.Dense(2))
    model.compile("adam", "mse", metrics=["mae"])
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    ticket = tfprune.shrink(masked)
    folded = tfprune.fold_batch_norm(ticket)
    assert folded.loss == "mse"
    assert folded.layers[0].name == ticket.layers[0].name
    folded.save(tmp_path / "folded.keras")
    loaded = keras.saving.load_model(tmp_path / "folded.keras", safe_mode=True)
    assert difference(ticket, loaded, inputs_of(model)) < 1e-5
    x, y = inputs_of(model), np.zeros((4, 2), "float32")
    assert folded.evaluate(x, y, verbose=0) == pytest.approx(ticket.evaluate(x, y, verbose=0), rel=1e-4)


def test_half_precision_is_folded_within_its_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = sequential((8, 8, 3), layers.Conv2D(8, 3), NORM(), layers.ReLU())
    folded = tfprune.fold_batch_norm(model)
    assert norms(folded) == 0
    assert folded.layers[0].compute_dtype == "bfloat16"
    assert difference(model, folded, inputs_of(model)) < 0.1


def test_quantised_kernels_are_left_alone():
    model = sequential((8,), layers.Dense(8), NORM())
    model.layers[0].quantize("int8")
    assert norms(tfprune.fold_batch_norm(model)) == 1


def test_masked_model_is_refused():
    masked = tfprune.wrap(sequential((8,), layers.Dense(8), NORM(), layers.Dense(2)))
    with pytest.raises(ValueError, match=r"has masks that may still change\. Call tfprune\.shrink first"):
        tfprune.fold_batch_norm(masked)


def test_model_that_computes_something_else_is_not_returned(monkeypatch):
    monkeypatch.setitem(folding._KERNELS, layers.Dense, ("kernel", lambda kernel, scale: kernel * scale**2))
    model = sequential((8,), layers.Dense(8), NORM(), layers.Dense(2))
    with pytest.raises(RuntimeError, match=r"fold_batch_norm of .* was stopped: .* tiny variance"):
        tfprune.fold_batch_norm(model)
