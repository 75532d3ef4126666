"""Is the end of a model recognised, and are its logits found?"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfprune.layers import ChannelMask
from tfprune.structure.head import find_head, logits_model


def sequential(*tail, shape=(6,)):
    return keras.Sequential([keras.Input(shape), *tail])


def conv_head(*tail):
    """A head of MobileNet's kind: a convolution on one position, then something that makes a row of it."""
    return sequential(layers.Conv2D(4, 3), *tail, shape=(3, 3, 2))


def operation_head(operation):
    inputs = keras.Input((6,))
    return keras.Model(inputs, operation(layers.Dense(3)(inputs)))


def nested_head():
    inner = sequential(layers.Dense(5, activation="relu"), layers.Dense(3), layers.Softmax())
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dropout(0.5)(inner(inputs)))


def two_inputs_head():
    a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b")
    return keras.Model([a, b], layers.Dense(3, activation="softmax")(layers.Concatenate()([a, b])))


def masked_head():
    layer = layers.Dense(3, activation="softmax")
    model = sequential(layers.Dense(5, activation="relu"), ChannelMask(layer, {"in": 5}, {"kernel": {"in": 0}}))
    model.layers[-1].masks["in"].assign([1.0, 0.0, 1.0, 0.0, 1.0])
    return model


SOFTMAX = {
    "inside": lambda: sequential(layers.Dense(3, activation="softmax")),
    "tensorflow's": lambda: sequential(layers.Dense(3, activation=tf.nn.softmax)),
    "layer as activation": lambda: sequential(layers.Dense(3, activation=layers.Softmax())),
    "activation layer": lambda: sequential(layers.Dense(3), layers.Activation("softmax")),
    "softmax layer": lambda: sequential(layers.Dense(3), layers.Softmax()),
    "operation": lambda: operation_head(keras.ops.softmax),
    "dropout after": lambda: sequential(layers.Dense(3, activation="softmax"), layers.Dropout(0.5)),
    "linear activation after": lambda: sequential(layers.Dense(3), layers.Softmax(), layers.Activation("linear")),
    "flatten after": lambda: conv_head(layers.Softmax(), layers.Flatten()),
    "reshape after, inside": lambda: sequential(
        layers.Conv2D(4, 3, activation="softmax"), layers.Reshape((4,)), shape=(3, 3, 2)
    ),
    "flatten before": lambda: conv_head(layers.Flatten(), layers.Activation("softmax")),
    "twice": lambda: sequential(layers.Dense(3, activation="softmax"), layers.Softmax()),
    "nested": nested_head,
    "two inputs": two_inputs_head,
    "masked": masked_head,
}
SIGMOID = {
    "inside": lambda: sequential(layers.Dense(1, activation="sigmoid")),
    "layer": lambda: sequential(layers.Dense(1), layers.Activation("sigmoid")),
    "operation": lambda: operation_head(keras.ops.sigmoid),
}
LINEAR = {
    "dense": lambda: sequential(layers.Dense(3)),
    "flatten after": lambda: conv_head(layers.Flatten()),
    "temperature": lambda: sequential(layers.Dense(3), layers.Rescaling(0.5)),
    "pooled": lambda: sequential(layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), shape=(6, 6, 2)),
    "log-softmax": lambda: sequential(layers.Dense(3, activation="log_softmax")),
    "masked": lambda: sequential(ChannelMask(layers.Dense(3), {"in": 6}, {"kernel": {"in": 0}})),
}


def own_softmax(x):
    return keras.ops.softmax(x)


UNKNOWN = {
    "relu": lambda: sequential(layers.Dense(3, activation="relu")),
    "user's function": lambda: sequential(layers.Dense(3, activation=own_softmax)),
    "mean of softmaxes": lambda: sequential(
        layers.Conv2D(4, 3, activation="softmax"), layers.GlobalAveragePooling2D(), shape=(6, 6, 2)
    ),
    "scaled softmax": lambda: sequential(layers.Dense(3, activation="softmax"), layers.Rescaling(0.5)),
    "softmax over positions": lambda: sequential(
        layers.Conv2D(4, 3, activation="softmax"), layers.Flatten(), shape=(6, 6, 2)
    ),
    "softmax over another axis": lambda: sequential(layers.Reshape((3, 2)), layers.Softmax(axis=1)),
    "recurrent": lambda: sequential(layers.SimpleRNN(3, activation="linear"), shape=(4, 2)),
    "two outputs": lambda: keras.Model(i := keras.Input((6,)), [layers.Dense(3)(i), layers.Dense(2)(i)]),
    "no layer": lambda: keras.Model(i := keras.Input((6,)), i),
}
CASES = [
    pytest.param(make, kind, id=f"{kind}: {name}")
    for kind, family in {"softmax": SOFTMAX, "sigmoid": SIGMOID, "linear": LINEAR, None: UNKNOWN}.items()
    for name, make in family.items()
]


@pytest.mark.parametrize(("make", "kind"), CASES)
def test_head_is_recognised(make, kind):
    assert find_head(make()) == kind


def inputs_of(model):
    r = np.random.RandomState(0)
    x = [r.randn(5, *tensor.shape[1:]).astype("float32") for tensor in model.inputs]
    return x if len(x) > 1 else x[0]


@pytest.mark.parametrize(("make", "kind"), [case for case in CASES if case.values[1]])
def test_activation_of_the_logits_is_the_model(make, kind):
    keras.utils.set_random_seed(0)
    model = make()
    x = inputs_of(model)
    logits = logits_model(model)(x, training=False)
    activation = {"softmax": keras.ops.softmax, "sigmoid": keras.ops.sigmoid, "linear": lambda z: z}[kind]
    np.testing.assert_allclose(activation(logits), model(x, training=False), rtol=1e-5, atol=1e-6)
    if kind == "linear":
        assert logits_model(model) is model


@pytest.mark.parametrize(
    "make", [SOFTMAX["inside"], SOFTMAX["softmax layer"], SOFTMAX["masked"], SOFTMAX["reshape after, inside"]]
)
def test_logits_do_not_saturate(make):
    model = make()
    model.set_weights([1000 * weight if weight.ndim > 1 else weight for weight in model.get_weights()])
    x = inputs_of(model)
    assert np.max(model(x)) == 1.0
    assert np.max(np.abs(logits_model(model)(x))) > 100


def test_model_is_left_as_it_is():
    model = SOFTMAX["inside"]()
    x, config = inputs_of(model), model.get_config()
    before = np.asarray(model(x))
    logits_model(model)(x)
    np.testing.assert_array_equal(model(x), before)
    assert model.get_config() == config
    assert [len(layer._inbound_nodes) for layer in model.layers] == [1] * len(model.layers)


def test_logits_follow_the_weights_of_the_model():
    model = SOFTMAX["softmax layer"]()
    logits = logits_model(model)
    model.layers[0].bias.assign([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(logits(np.zeros((1, 6), "float32")), [[1.0, 2.0, 3.0]])


def test_logits_model_reads_inputs_as_the_model_does():
    model = two_inputs_head()
    a, b = inputs_of(model)
    expected = np.asarray(logits_model(model)([a, b]))
    np.testing.assert_array_equal(logits_model(model)({"a": a, "b": b}), expected)
    np.testing.assert_array_equal(logits_model(model).predict([a.astype("float64"), b], verbose=0), expected)
    images = np.full((2, 3, 3, 2), 255, "uint8")
    model = SOFTMAX["flatten before"]()
    np.testing.assert_array_equal(logits_model(model)(images), logits_model(model)(images.astype("float32")))


def test_logits_under_mixed_bfloat16_are_the_layers_own():
    model = sequential(layers.Dense(3, activation="softmax", dtype="mixed_bfloat16"))
    logits = logits_model(model)(inputs_of(model))
    assert keras.backend.standardize_dtype(logits.dtype) == "bfloat16"


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.dense(x)


def test_subclassed_model_cannot_be_told():
    assert find_head(Subclassed()) is None
    with pytest.raises(ValueError, match="Cannot find the logits of model 'subclassed"):
        logits_model(Subclassed())


@pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)
def test_logits_of_an_unknown_head_are_refused(make):
    with pytest.raises(ValueError, match="ends in a softmax, a sigmoid or a linear layer"):
        logits_model(make())


def test_unbuilt_model_is_refused():
    with pytest.raises(ValueError, match="not built"):
        find_head(keras.Sequential([layers.Dense(3)]))


def test_augmentation_stays_off_as_in_predict():
    inputs = keras.Input((8, 8, 1))
    x = layers.RandomFlip("horizontal")(inputs)
    outputs = layers.Dense(3, activation="softmax")(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    images = np.random.RandomState(0).randn(20, 8, 8, 1).astype("float32")
    z = np.asarray(logits_model(model)(images, training=False))
    p = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(p / p.sum(axis=1, keepdims=True), model.predict(images, verbose=0), atol=1e-6)
