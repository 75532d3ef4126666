"""Are parameters, multiply-adds and bytes those that hand calculation gives?"""

import gc
import time

import keras
import numpy as np
import pytest
from keras import layers

from tfprune import models
from tfprune.layers import ChannelMask
from tfprune.structure import cost as module
from tfprune.structure.cost import cost, cost_table, latency, record_reference, reference_of
from tfprune.structure.trace import trace


def sequential(layer, shape):
    return keras.Sequential([keras.Input(shape), layer])


# one layer: input shape, parameters, multiply-adds, both by hand
BY_HAND = {
    "dense": (lambda: layers.Dense(5), (4,), 4 * 5 + 5, 4 * 5),
    "dense over positions": (lambda: layers.Dense(5), (7, 4), 4 * 5 + 5, 7 * 4 * 5),
    "conv1d causal": (lambda: layers.Conv1D(5, 3, padding="causal"), (8, 2), 3 * 2 * 5 + 5, 8 * 3 * 2 * 5),
    "conv2d": (lambda: layers.Conv2D(5, 3), (8, 6, 2), 9 * 2 * 5 + 5, 6 * 4 * 9 * 2 * 5),
    "conv2d strides": (lambda: layers.Conv2D(5, 3, strides=2), (9, 9, 2), 9 * 2 * 5 + 5, 4 * 4 * 9 * 2 * 5),
    "conv2d same": (lambda: layers.Conv2D(5, 3, padding="same"), (8, 6, 2), 9 * 2 * 5 + 5, 8 * 6 * 9 * 2 * 5),
    "conv2d groups": (lambda: layers.Conv2D(6, 3, groups=2), (8, 6, 4), 9 * 2 * 6 + 6, 6 * 4 * 9 * 2 * 6),
    "conv3d": (lambda: layers.Conv3D(5, 2), (4, 4, 4, 2), 8 * 2 * 5 + 5, 27 * 8 * 2 * 5),
    "conv2d transpose": (lambda: layers.Conv2DTranspose(5, 3, strides=2), (4, 4, 2), 9 * 2 * 5 + 5, 16 * 9 * 2 * 5),
    "conv1d transpose": (lambda: layers.Conv1DTranspose(5, 3), (4, 2), 3 * 2 * 5 + 5, 4 * 3 * 2 * 5),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 6, 4), 9 * 8 + 8, 6 * 4 * 9 * 8),
    "separable": (lambda: layers.SeparableConv2D(5, 3), (8, 6, 4), 9 * 4 + 4 * 5 + 5, 6 * 4 * (9 * 4 + 4 * 5)),
    "batchnorm": (layers.BatchNormalization, (8, 6, 4), 16, 0),
    "prelu": (layers.PReLU, (8, 4), 32, 0),
    "embedding": (lambda: layers.Embedding(10, 4), (3,), 40, 0),
    "pooling": (lambda: layers.MaxPooling2D(2), (8, 6, 4), 0, 0),
    "recurrent": (lambda: layers.SimpleRNN(3), (5, 2), 2 * 3 + 3 * 3 + 3, 5 * (2 * 3 + 3 * 3)),
    "lstm": (lambda: layers.LSTM(3), (5, 2), 12 * (2 + 3 + 1), 5 * 12 * (2 + 3)),
    "gru": (lambda: layers.GRU(3), (5, 2), 9 * (2 + 3 + 2), 5 * 9 * (2 + 3)),
    "bidirectional": (lambda: layers.Bidirectional(layers.SimpleRNN(3)), (5, 2), 2 * 18, 2 * 5 * (2 * 3 + 3 * 3)),
    "time distributed": (lambda: layers.TimeDistributed(layers.Dense(3)), (5, 2), 9, 5 * 2 * 3),
    "spectral normalization": (lambda: layers.SpectralNormalization(layers.Dense(3)), (2,), 9 + 3, 2 * 3),
    "einsum": (
        lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="e"),
        (5, 3),
        3 * 8 + 4,
        5 * 3 * 2 * 4,
    ),
    "layernorm over space": (lambda: layers.LayerNormalization(axis=[1, 2]), (5, 3), 30, 0),
    "unknown image size": (lambda: layers.Conv2D(5, 3), (None, None, 2), 9 * 2 * 5 + 5, None),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_cost_of_one_layer_by_hand(name):
    layer, shape, parameters, multiply_adds = BY_HAND[name]
    expected = {"parameters": parameters, "multiply_adds": multiply_adds, "bytes": 4 * parameters}
    assert cost(sequential(layer(), shape)) == expected


def test_channels_first_costs_the_same():
    last = sequential(layers.Conv2D(5, 3), (8, 6, 2))
    first = sequential(layers.Conv2D(5, 3, data_format="channels_first"), (2, 8, 6))
    assert cost(first) == cost(last)


def test_lenet_by_hand():
    dense = 400 * 120 + 120 * 84 + 84 * 10
    convolutions = 28 * 28 * 75 * 6 + 10 * 10 * 150 * 16
    assert cost(models.lenet()) == {"parameters": 62006, "multiply_adds": convolutions + dense, "bytes": 4 * 62006}


def test_parameters_are_those_of_keras_and_work_is_that_of_tensorflow():
    """TensorFlow's profiler counts floating-point operations: two for each multiply-add of a kernel."""
    import tensorflow as tf
    from tensorflow.python.profiler import model_analyzer, option_builder

    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(8, 3, strides=2, use_bias=False),
            layers.DepthwiseConv2D(3, use_bias=False),
            layers.Flatten(),
            layers.Dense(4, use_bias=False),
        ]
    )
    graph = tf.function(model).get_concrete_function(tf.TensorSpec((1, 12, 12, 3))).graph
    options = option_builder.ProfileOptionBuilder(option_builder.ProfileOptionBuilder.float_operation())
    counted = model_analyzer.profile(graph, options=options.with_empty_output().build())
    assert cost(model)["parameters"] == model.count_params()
    assert 2 * cost(model)["multiply_adds"] == counted.total_float_ops


def test_layer_called_twice_counts_its_work_twice_and_its_weights_once():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(shared(inputs)))
    assert cost(model) == {"parameters": 20, "multiply_adds": 32, "bytes": 80}
    row = {"name": "shared", "class": "Dense", "calls": 2, "parameters": 20, "multiply_adds": 32, "bytes": 80}
    assert cost_table(model) == [row]


def test_table_adds_up_to_the_whole_in_nested_models():
    inputs = keras.Input((6, 6, 2))
    inner = sequential(layers.Conv2D(3, 3), (6, 6, 2))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inner(inputs))))
    table = cost_table(model)
    assert [row["class"] for row in table] == ["Conv2D", "Flatten", "Dense"]
    for key, total in cost(model).items():
        assert sum(row[key] for row in table) == total
    assert cost(trace(model)) == cost(model)


def test_masks_are_no_parameters():
    masked = sequential(ChannelMask(layers.Dense(5), {"in": 4, "out": 5}, {"kernel": {"in": 0}}), (4,))
    assert cost(masked) == cost(sequential(layers.Dense(5), (4,)))
    assert cost_table(masked)[0]["class"] == "Dense"


def test_bytes_follow_the_dtype_of_the_weights():
    model = sequential(layers.Dense(5, dtype="bfloat16"), (4,))
    assert cost(model)["bytes"] == 2 * 25


@pytest.mark.parametrize(
    "operation", [lambda x: keras.ops.einsum("bij,bjk->bik", x, x), lambda x: layers.Dot(1)([x, x])]
)
def test_products_without_a_rule_make_the_total_unknown(operation):
    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(operation(inputs))))
    assert cost(model)["multiply_adds"] is None
    assert [row["multiply_adds"] for row in cost_table(model)] == [None, 0, 32]


class Doubled(layers.Dense):
    """Computes more than a Dense layer does, so Dense's rule must not be taken for it."""


def test_subclasses_do_not_inherit_a_rule():
    assert cost(sequential(Doubled(3), (4,)))["multiply_adds"] is None


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def built(model):
    model(np.ones((1, 4), "float32"))
    return model


def test_subclassed_model_has_parameters_only():
    model = Subclassed()
    with pytest.raises(ValueError, match="is not built"):
        cost(model)
    assert cost(built(model)) == {"parameters": 15, "multiply_adds": None, "bytes": 60}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cost(keras.Sequential([layers.Dense(3)])), ValueError, "is not built"),
        (lambda: cost("model.keras"), TypeError, "Expected a Keras model. Received: 'model.keras'"),
        (lambda: latency(sequential(layers.Conv2D(1, 3), (None, None, 1))), ValueError, "needs fixed input sizes"),
        (lambda: latency(built(Subclassed())), ValueError, "needs a Sequential or functional model"),
        (lambda: latency(models.mlp((2,)), repeats=0), ValueError, "repeats must be an integer of at least 1"),
        (lambda: latency(models.mlp((2,)), batch_size=1.5), ValueError, "batch_size must be an integer of at least 1"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_latency_is_the_median_after_warm_up(monkeypatch):
    times = iter([9.0, 9.0, 9.0, 0.1, 0.3, 0.2, 0.2, 5.0])
    monkeypatch.setattr(module, "_seconds", lambda predict: next(times))
    assert latency(models.mlp((2,)), repeats=5) == 0.2


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_latency_runs_the_model_on_the_batch_size(dtype):
    a, b = keras.Input((4,), dtype=dtype, name="a"), keras.Input((2,), name="b")
    outputs = layers.Dense(2)(layers.Concatenate()([keras.ops.cast(a, "float32"), b]))
    model = keras.Model({"a": a, "b": b}, outputs)
    start = time.perf_counter()
    assert 0 < latency(model, batch_size=3, repeats=2) < time.perf_counter() - start


def test_reference_is_remembered_as_long_as_the_model_lives():
    model = models.mlp((2,))
    assert reference_of(model) is None
    record_reference(model, cost(model))
    assert reference_of(model) == cost(model)
    assert reference_of(object()) is None
    gc.collect()  # models of other tests
    size = len(module._REFERENCES)
    del model
    gc.collect()
    assert len(module._REFERENCES) == size - 1


def test_attention_counts_its_projections_its_scores_and_its_sums():
    query, value = keras.Input((5, 8)), keras.Input((7, 8))
    model = keras.Model([query, value], layers.MultiHeadAttention(2, 4, value_dim=3)(query, value))
    projections = 5 * 8 * 2 * 4 + 7 * 8 * 2 * 4 + 7 * 8 * 2 * 3 + 5 * 2 * 3 * 8
    assert cost(model)["multiply_adds"] == projections + 5 * 7 * 2 * (4 + 3)


def test_a_product_of_two_tensors_counts():
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, keras.ops.matmul(inputs, keras.ops.transpose(inputs, (0, 2, 1))))
    assert cost(model)["multiply_adds"] == 5 * 4 * 5


@pytest.mark.skipif(not hasattr(layers, "ReversibleEmbedding"), reason="this Keras has no ReversibleEmbedding")
def test_tied_embedding_multiplies_only_when_it_is_read_backwards():
    embedding = layers.ReversibleEmbedding(10, 4)
    inputs = keras.Input((3,), dtype="int32")
    model = keras.Model(inputs, embedding(layers.Dense(4)(embedding(inputs)), reverse=True))
    assert cost(model)["multiply_adds"] == 3 * 4 * 4 + 3 * 4 * 10
