"""Which models show the 32 ways in which structured pruning goes wrong, and how is each of them held to the contracts?

The builders of `tests/test_cases.py`. All are tiny; every layer that a test asks about has a name.
"""

import re
from dataclasses import dataclass

import keras
import numpy as np
import zoo
from keras import layers, ops

import tfprune
from tfprune.structure.groups import ChannelGraph

TOLERANCE = 1e-5


# --- what every case is held to ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pruned:
    """A model, its masked twin, the masks, and the small model that came of it."""

    model: keras.Model
    masked: keras.Model
    masks: dict
    small: keras.Model

    def kept(self, name):
        """Positions of the channels that a layer keeps."""
        return np.flatnonzero(self.masks[name])

    def sizes(self, *names):
        """The widths that the small model's layers say in their config."""
        return [width(self.small.get_layer(name)) for name in names]

    def weight(self, name, attribute):
        """A weight before and after, as NumPy arrays."""
        return tuple(array(getattr(m.get_layer(name), attribute)) for m in (self.model, self.small))


def width(layer):
    """The number of channels that a layer, or the layer it wraps, says it makes."""
    config = layer.get_config()
    for key in ("units", "filters", "output_dim", "groups"):
        if key in config:
            return config[key]
    return width(layer.layer)


def array(variable):
    """A variable's value."""
    return np.asarray(variable.value)


def prune(model, ratio=0.5, exact=True, tolerance=TOLERANCE, approximate=False, batch=None):
    """Prunes by layer and globally, holds both to the contracts, and returns what came of pruning by layer."""
    batch = batch_of(model) if batch is None else batch
    options = {"approximate": True} if approximate else {}
    weights = [value.copy() for value in model.get_weights()]
    for scope in ("layer",) if isinstance(ratio, dict) else ("global", "layer"):
        masked = tfprune.wrap(model, **options)
        assert zoo.difference(model, masked, batch) <= tolerance, "wrap changes the outputs"
        masks = tfprune.compute_masks(masked, ratio, scope=scope)
        tfprune.set_masks(masked, masks)
        small = tfprune.shrink(masked)
        shapes = [keras.tree.map_structure(lambda t: t.shape, m.outputs) for m in (model, small)]
        assert shapes[0] == shapes[1], "the shapes of the outputs change"
        if exact:
            assert zoo.difference(masked, small, batch) <= tolerance, f"masked and small differ (scope={scope})"
        assert zoo.difference(model, small, batch) > 1e-4, (
            "nothing was pruned that mattered, so the test proves nothing"
        )
        assert small.count_params() < model.count_params()
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True)), "the original changed"
    return Pruned(model, masked, masks, small)


def reasons(model, name, **options):
    """Why the channels that a layer makes are frozen; empty where they are not."""
    return {g.reason for g in ChannelGraph(model, **options).groups if name in g.makers and g.reason}


def assert_frozen(model, name, reason, **options):
    """The layer stays whole and says why, and the rest of the model is pruned exactly."""
    found = reasons(model, name)
    assert found, f"{name} is not frozen"
    assert any(re.search(reason, text, re.IGNORECASE) for text in found), f"{found} do not say '{reason}'"
    result = prune(model, **options)
    assert name not in result.masks
    return result


def assert_exact_or_frozen(model, name, reason, **options):
    """The layer is pruned exactly, or it stays whole and says why; never a wrong output."""
    if reasons(model, name):
        return assert_frozen(model, name, reason, **options)
    result = prune(model, **options)
    assert not result.masks[name].all(), f"{name} is neither frozen nor pruned"
    return result


def batch_of(model, samples=3):
    """Random inputs in the structure that a model takes: small indices for integers, bits for bools."""
    random = np.random.default_rng(7)

    def draw(tensor):
        shape = (tensor.shape[0] or samples, *(size or 6 for size in tensor.shape[1:]))
        if tensor.dtype.startswith("int"):
            return random.integers(0, 5, shape).astype(tensor.dtype)
        if tensor.dtype == "bool":
            return random.random(shape) < 0.7
        return random.normal(size=shape).astype("float32")

    return keras.tree.map_structure(draw, model.inputs[0] if isinstance(model, keras.Sequential) else model.input)


def model_of(inputs, outputs, seed=0):
    """The functional model with random weights."""
    return zoo.randomise(keras.Model(inputs, outputs), seed)


def head(x, name="logits"):
    """Two numbers from any tensor."""
    return layers.Dense(2, name=name)(layers.Flatten()(x) if len(x.shape) != 2 else x)


def conv(filters, name, size=3, **options):
    """A convolution that keeps the image's size."""
    return layers.Conv2D(filters, size, padding="same", name=name, **options)


def vector_model(body, size=6):
    """A model on a vector: `body` maps the input to the last tensor."""
    inputs = keras.Input((size,), name="vector")
    return model_of(inputs, head(body(inputs)))


def sequence_model(body, steps=5, size=3):
    """A model on a sequence of vectors."""
    inputs = keras.Input((steps, size), name="sequence")
    return model_of(inputs, head(body(inputs)))


def image_model(body, size=4, channels=2):
    """A model on an image."""
    inputs = keras.Input((size, size, channels), name="image")
    return model_of(inputs, head(body(inputs)))


# --- 1, 2: flatten and reshape ----------------------------------------------------------------------------------------


def flatten(activation="leaky_relu"):
    return image_model(
        lambda x: layers.Dense(4, activation=activation, name="dense")(
            layers.Flatten()(conv(6, "conv", activation="sigmoid")(x))
        )
    )


def flatten_channels_first():
    inputs = keras.Input((2, 4, 4))
    x = layers.Conv2D(6, 3, padding="same", data_format="channels_first", activation="sigmoid", name="conv")(inputs)
    x = layers.BatchNormalization(axis=1, name="batchnorm")(x)
    x = layers.MaxPooling2D(2, strides=1, data_format="channels_first")(x)
    x = layers.Dense(4, activation="leaky_relu", name="dense")(layers.Flatten(data_format="channels_first")(x))
    return model_of(inputs, head(x))


def through_shapes(*steps):
    """A convolution of 6 filters on 4x4 positions, its output passed through `steps`, read by a dense layer."""

    def body(x):
        x = conv(6, "conv", activation="sigmoid")(x)
        for step in steps:
            x = step(x)
        return layers.Dense(4, activation="tanh", name="dense")(x)

    return image_model(body)


SHAPES = {
    "ops_flatten": [lambda x: ops.reshape(x, (-1, 96))],
    "ops_positions": [lambda x: ops.reshape(x, (-1, 16, 6))],
    "ops_merge_width_and_channels": [lambda x: ops.reshape(x, (-1, 4, 24))],
    "ops_there_and_back": [lambda x: ops.reshape(x, (-1, 96)), lambda x: ops.reshape(x, (-1, 4, 4, 6))],
    "ops_channels_first": [lambda x: ops.transpose(x, (0, 3, 1, 2)), lambda x: ops.reshape(x, (-1, 96))],
    "layer_positions": [layers.Reshape((16, 6))],
    "layer_inferred_positions": [layers.Reshape((-1, 6))],
    "layer_inferred_channels": [layers.Reshape((16, -1))],
    "permuted": [layers.Permute((3, 1, 2)), layers.Reshape((6, 16)), layers.Permute((2, 1))],
    "ops_expand_and_squeeze": [lambda x: ops.expand_dims(x, 1), lambda x: ops.squeeze(x, 1)],
}
CUT_SHAPES = {
    "channels_in_two": [lambda x: ops.reshape(x, (-1, 4, 4, 2, 3))],
    "across_positions": [lambda x: ops.reshape(x, (-1, 24, 4))],
    "layer_across_positions": [lambda x: layers.Reshape((24, 4))(x)],
}


# --- 3, 4, 5: depthwise, separable and grouped convolutions -----------------------------------------------------------


def depthwise(multiplier=2):
    def body(x):
        x = conv(6, "conv", activation="sigmoid")(x)
        x = layers.DepthwiseConv2D(
            3, padding="same", depth_multiplier=multiplier, activation="softplus", name="depthwise"
        )(x)
        return conv(4, "after", activation="leaky_relu")(x)

    return image_model(body)


def depthwise_one_dimensional():
    def body(x):
        x = layers.Conv1D(6, 3, padding="same", activation="sigmoid", name="conv")(x)
        return layers.DepthwiseConv1D(3, depth_multiplier=3, activation="softplus", name="depthwise")(x)

    return sequence_model(body)


def depthwise_on_the_input():
    def body(x):
        x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=4, name="depthwise")(x)
        return conv(6, "free", activation="leaky_relu")(x)

    return image_model(body)


def separable(multiplier=2):
    def body(x):
        x = conv(6, "conv", activation="sigmoid")(x)
        x = layers.SeparableConv2D(
            8, 3, padding="same", depth_multiplier=multiplier, activation="gelu", name="separable"
        )(x)
        return conv(4, "after", activation="leaky_relu")(x)

    return image_model(body)


def grouped(groups=2, before=8, filters=12):
    def body(x):
        x = conv(before, "before", activation="sigmoid")(x)
        x = conv(filters, "grouped", groups=groups, activation="softplus")(x)
        return conv(4, "after", activation="leaky_relu")(layers.BatchNormalization(name="batchnorm")(x))

    return image_model(body)


def resnext_block():
    """Two blocks of grouped convolutions around a residual stream."""

    def body(x):
        x = conv(8, "stem", activation="leaky_relu")(x)
        for index in range(2):
            y = conv(8, f"squeeze_{index}", size=1, activation="sigmoid")(x)
            y = conv(8, f"grouped_{index}", groups=4, activation="leaky_relu")(y)
            y = conv(8, f"expand_{index}", size=1)(layers.BatchNormalization(name=f"batchnorm_{index}")(y))
            x = layers.Add()([x, y])
        return x

    return image_model(body)


# --- 6, 7: what mixes channels ----------------------------------------------------------------------------------------


def mixed_by(*made, after="leaky_relu"):
    """A convolution, a layer that may mix its channels, and a convolution that stays free."""

    def body(x):
        x = conv(8, "conv", activation="sigmoid")(x)
        for layer in made:
            x = layer(x)
        return conv(6, "free", activation=after)(x)

    return image_model(body)


# --- 8, 9: constants of dead channels, and BatchNormalization on the stream -------------------------------------------


def constant_when_dead(activation):
    def body(x):
        # tanh holds exponential where float32 is exact enough to be compared
        x = layers.Activation(activation)(layers.Activation("tanh")(conv(8, "first")(x)))
        x = layers.BatchNormalization(name="batchnorm_1")(x)
        x = layers.Activation(activation)(layers.Activation("tanh")(conv(6, "second")(x)))
        x = layers.BatchNormalization(name="batchnorm_2")(x)
        return layers.Activation(activation)(layers.Activation("tanh")(layers.Conv2D(4, 3, name="third")(x)))

    return image_model(body)


def batchnorm_on_the_stream():
    """Pre-activation blocks as in ResNetV2: the normalisation belongs to the sum."""

    def body(x):
        x = conv(8, "stem")(x)
        for index in range(2):
            y = layers.BatchNormalization(name=f"stream_norm_{index}")(x)
            y = conv(6, f"inner_{index}")(layers.Activation("softplus")(y))
            x = layers.Add()([x, conv(8, f"outer_{index}")(y)])
        return layers.Activation("sigmoid")(layers.BatchNormalization(name="last_norm")(x))

    return image_model(body)


# --- 10, 11, 12: joins ------------------------------------------------------------------------------------------------


def add_of_three():
    def body(x):
        branches = [conv(8, f"branch_{index}", activation="sigmoid")(x) for index in range(3)]
        return layers.Add()(branches)

    return image_model(body)


def add_of_one_channel():
    def body(x):
        wide = conv(8, "wide", activation="sigmoid")(x)
        return layers.Add()([wide, conv(1, "single")(x)])

    return image_model(body)


def add_of_one_position():
    """The mean of each channel is added back to all positions."""

    def body(x):
        wide = conv(8, "wide", activation="sigmoid")(x)
        mean = layers.GlobalAveragePooling2D(keepdims=True)(conv(8, "other")(x))
        return layers.Add()([wide, mean])

    return image_model(body)


def add_of_the_input():
    def body(x):
        y = conv(6, "free", activation="leaky_relu")(x)
        return layers.Add()([x, conv(2, "writes_to_the_input")(y)])

    return image_model(body)


def concat_of_the_same():
    def body(x):
        x = conv(6, "conv", activation="sigmoid")(x)
        x = layers.Concatenate()([x, x])
        return conv(4, "after", activation="leaky_relu")(layers.BatchNormalization(name="batchnorm")(x))

    return image_model(body)


def dense_skips():
    """A DenseNet block: every layer reads all layers before it."""

    def body(x):
        x = conv(6, "stem")(x)
        for index in range(3):
            y = layers.Activation("sigmoid")(layers.BatchNormalization(name=f"batchnorm_{index}")(x))
            x = layers.Concatenate()([x, conv(4, f"grow_{index}")(y)])
        return layers.BatchNormalization(name="last_norm")(x)

    return image_model(body)


def u_net():
    def body(x):
        a = conv(6, "down_1", activation="sigmoid")(x)
        b = conv(8, "down_2", activation="leaky_relu")(layers.MaxPooling2D()(a))
        c = layers.Conv2DTranspose(6, 2, strides=2, name="up")(b)
        x = layers.Concatenate()([layers.UpSampling2D()(b), a, c])
        return conv(4, "after", activation="softplus")(x)

    return image_model(body)


def concat_in_space(axis):
    def body(x):
        parts = [
            conv(6, "top", activation="sigmoid")(x),
            conv(6, "bottom", activation="leaky_relu")(x),
        ]
        return conv(4, "after", activation="leaky_relu")(layers.Concatenate(axis=axis)(parts))

    return image_model(body)


# --- 13, 14, 15: gates, scales and normalised inputs ------------------------------------------------------------------


def squeeze_excite(kind):
    def body(x):
        x = conv(8, "trunk", activation="silu")(x)
        gate = layers.GlobalAveragePooling2D()(x)
        if kind == "reshape":
            gate = layers.Reshape((1, 1, 8))(gate)
            gate = layers.Conv2D(4, 1, activation="leaky_relu", name="squeeze")(gate)
            gate = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(gate)
        else:
            gate = layers.Dense(4, activation="leaky_relu", name="squeeze")(gate)
            gate = layers.Dense(8, activation="sigmoid", name="excite")(gate)
            gate = layers.Reshape((1, 1, 8))(gate) if kind == "dense" else ops.expand_dims(gate, (1, 2))
        return conv(4, "after", activation="leaky_relu")(layers.Multiply()([x, gate]))

    return image_model(body)


def multiplied_by(constant):
    def body(x):
        x = conv(8, "conv", activation="sigmoid")(x)
        return conv(6, "free", activation="leaky_relu")(x * constant)

    return image_model(body)


def normalised_input():
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(np.random.default_rng(1).normal(3.0, 2.0, (40, 4, 4, 2)))
    return image_model(
        lambda x: conv(6, "conv", activation="leaky_relu")(layers.Rescaling([0.5, 2.0], [1.0, -1.0])(normalization(x)))
    )


def normalised_in_the_middle():
    normalization = layers.Normalization(name="normalization", mean=[0.5] * 8, variance=[2.0] * 8)
    return mixed_by(normalization)


# --- 16: what leaves channels alone -----------------------------------------------------------------------------------

PASSIVE = {
    "zero_padding": lambda: layers.ZeroPadding2D(((1, 0), (2, 1))),
    "cropping": lambda: layers.Cropping2D(((0, 1), (1, 0))),
    "max_pooling": lambda: layers.MaxPooling2D(2),
    "max_pooling_of_padded": lambda: layers.MaxPooling2D(3, strides=1, padding="same"),
    "average_pooling_of_padded": lambda: layers.AveragePooling2D(3, strides=2, padding="same"),
    "upsampling": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
    "global_max_pooling": lambda: layers.GlobalMaxPooling2D(keepdims=True),
    "spatial_dropout": lambda: layers.SpatialDropout2D(0.3),
    "gaussian_noise": lambda: layers.GaussianNoise(0.2),
    "identity": lambda: layers.Identity(),
}
PROBABLY_PASSIVE = {
    "resizing": lambda: layers.Resizing(6, 5),
    "center_crop": lambda: layers.CenterCrop(2, 2),
    "random_flip": lambda: layers.RandomFlip(),
    "adaptive_pooling": lambda: layers.AdaptiveAveragePooling2D(2),
}


def passed_through(layer):
    def body(x):
        x = layer(conv(8, "conv", activation="sigmoid")(x))
        return layers.Conv2D(4, 1, activation="softplus", name="after")(x)

    return image_model(body)


# --- 17, 18: recurrent layers -----------------------------------------------------------------------------------------

RECURRENT = {
    "LSTM": lambda units, **options: layers.LSTM(units, **options),
    "LSTM_without_bias": lambda units, **options: layers.LSTM(units, use_bias=False, **options),
    "GRU": lambda units, **options: layers.GRU(units, reset_after=True, **options),
    "GRU_reset_before": lambda units, **options: layers.GRU(units, reset_after=False, **options),
    "GRU_without_bias": lambda units, **options: layers.GRU(units, use_bias=False, **options),
    "SimpleRNN": lambda units, **options: layers.SimpleRNN(units, **options),
}


def recurrent(kind, **options):
    make = RECURRENT[kind]

    def body(x):
        x = layers.Dense(6, activation="sigmoid", name="before")(x)
        x = make(8, return_sequences=True, name="first", **options)(x)
        return make(6, name="second", **options)(x)

    return sequence_model(body)


def encoder_decoder(kind):
    """The states of one layer start another one: their units are the same."""
    source, target = keras.Input((5, 3), name="source"), keras.Input((4, 2), name="target")
    encoded, *states = RECURRENT[kind](8, return_state=True, name="encoder")(source)
    x = RECURRENT[kind](8, return_sequences=True, name="decoder")(target, initial_state=states)
    x = layers.TimeDistributed(layers.Dense(6, activation="sigmoid"), name="each")(x)
    return model_of([source, target], [head(x), head(encoded, "encoded_logits")])


def bridged_states():
    """Dense layers make the states that an LSTM starts with."""
    sequence, vector = keras.Input((5, 3), name="sequence"), keras.Input((4,), name="vector")
    states = [layers.Dense(8, activation="tanh", name=name)(vector) for name in ("hidden", "carry")]
    x = layers.LSTM(8, name="lstm")(sequence, initial_state=states)
    return model_of([sequence, vector], head(x))


def bidirectional(merge_mode, kind="LSTM", sequences=True):
    def body(x):
        layer = RECURRENT[kind](8, return_sequences=sequences)
        x = layers.Bidirectional(layer, merge_mode=merge_mode, name="both")(x)
        if merge_mode is None:
            x = layers.Concatenate()(list(x))
        return layers.Dense(6, activation="sigmoid", name="after")(x)

    return sequence_model(body)


def stateful():
    inputs = keras.Input(batch_shape=(3, 5, 3))
    x = layers.Dense(8, activation="sigmoid", name="before")(inputs)
    x = layers.LSTM(8, stateful=True, return_sequences=True, name="first")(x)
    x = layers.GRU(6, stateful=True, name="second")(x)
    return model_of(inputs, head(layers.Dense(6, activation="sigmoid", name="free")(x)))


def padded_words():
    """Padding is masked: the layers after it must still see Keras' mask."""
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(5, 8, mask_zero=True, name="embedding")(tokens)
    x = layers.LSTM(6, return_sequences=True, name="lstm")(x)
    return model_of(tokens, head(layers.GRU(4, name="gru")(x)))


def convolutional_lstm():
    inputs = keras.Input((3, 4, 4, 2))
    x = layers.Dense(8, activation="sigmoid", name="before")(inputs)
    x = layers.ConvLSTM2D(6, 3, padding="same", name="convlstm")(x)
    return model_of(inputs, head(conv(6, "free", activation="leaky_relu")(x)))


@keras.saving.register_keras_serializable("tfprune_tests")
class Averager(keras.layers.Layer):
    """A recurrent cell of the user's own: a running mean of a projection."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        value = 0.5 * states[0] + 0.5 * ops.matmul(inputs, self.kernel)
        return value, [value]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def cells(kind):
    cell = {
        "stacked": lambda: [layers.LSTMCell(6), layers.LSTMCell(6)],
        "own": lambda: Averager(6),
        "plain": lambda: layers.GRUCell(6),
    }[kind]()

    def body(x):
        x = layers.Dense(8, activation="sigmoid", name="before")(x)
        x = layers.RNN(cell, return_sequences=True, name="rnn")(x)
        return layers.Dense(6, activation="leaky_relu", name="free")(x)

    return sequence_model(body)


# --- 19: attention ----------------------------------------------------------------------------------------------------


def attention(residual=True, causal=False, **options):
    """Self-attention of 4 heads, with 6 numbers a head for query and key and 8 for value."""

    def body(x):
        x = layers.Dense(8, activation="sigmoid", name="stem")(x)
        y = layers.MultiHeadAttention(4, 6, value_dim=8, name="mha", **options)(x, x, use_causal_mask=causal)
        x = layers.Add()([x, y]) if residual else y
        return layers.Dense(6, activation="leaky_relu", name="after")(x)

    return sequence_model(body)


def cross_attention():
    query, memory = keras.Input((4, 3), name="query"), keras.Input((5, 2), name="memory")
    mask = keras.Input((4, 5), dtype="bool", name="mask")
    q = layers.Dense(8, activation="sigmoid", name="query_stem")(query)
    m = layers.Dense(10, activation="sigmoid", name="memory_stem")(memory)
    x = layers.MultiHeadAttention(4, 6, value_dim=8, output_shape=12, name="mha")(q, m, attention_mask=mask)
    return model_of({"query": query, "memory": memory, "mask": mask}, head(x))


def attention_with_scores():
    inputs = keras.Input((5, 8))
    x, scores = layers.MultiHeadAttention(4, 6, value_dim=8, name="mha")(inputs, inputs, return_attention_scores=True)
    return model_of(inputs, [head(x), scores])


def attention_over_images():
    def body(x):
        x = conv(8, "stem", activation="sigmoid")(x)
        return layers.MultiHeadAttention(2, 4, attention_axes=(1, 2), name="mha")(x, x)

    return image_model(body)


def grouped_query_attention(causal=False):
    def body(x):
        x = layers.Dense(8, activation="sigmoid", name="stem")(x)
        layer = layers.GroupQueryAttention(head_dim=6, num_query_heads=8, num_key_value_heads=4, name="gqa")
        return layers.Add()([x, layer(x, x, use_causal_mask=causal)])

    return sequence_model(body)


def dot_attention(cls):
    def body(x):
        query, value = (layers.Dense(8, activation="tanh", name=name)(x) for name in ("query", "value"))
        return layers.Dense(6, activation="leaky_relu", name="free")(cls(name="attention")([query, value]))

    return sequence_model(body)


def einsum_dense():
    """Attention-like projections: into heads and back."""

    def body(x):
        x = layers.Dense(8, activation="sigmoid", name="before")(x)
        x = layers.EinsumDense("abc,cd->abd", (5, 8), bias_axes="d", activation="sigmoid", name="plain")(x)
        x = layers.EinsumDense("abc,cde->abde", (5, 4, 6), bias_axes="de", activation="tanh", name="into")(x)
        x = layers.EinsumDense("abde,dec->abc", (5, 10), bias_axes="c", name="back")(x)
        return layers.Dense(6, activation="leaky_relu", name="free")(x)

    return sequence_model(body)


# --- 20: embeddings ---------------------------------------------------------------------------------------------------


def language_model(tie_weights=True):
    tokens, positions = (keras.Input((6,), dtype="int32", name=name) for name in ("tokens", "positions"))
    embedding = layers.ReversibleEmbedding(5, 8, tie_weights=tie_weights, name="embedding")
    x = embedding(tokens) + layers.Embedding(6, 8, name="position")(positions)
    x = x + layers.Dense(8, activation="sigmoid", name="mlp_out")(layers.Dense(6, "leaky_relu", name="mlp_in")(x))
    return model_of({"tokens": tokens, "positions": positions}, embedding(x, reverse=True))


def embedding():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(5, 8, name="embedding")(tokens)
    return model_of(tokens, head(layers.Conv1D(6, 3, activation="leaky_relu", name="conv")(x)))


# --- 21, 22: sharing --------------------------------------------------------------------------------------------------


def siamese():
    a, b = keras.Input((4, 4, 2), name="a"), keras.Input((4, 4, 2), name="b")
    tower = [
        conv(8, "shared_1", activation="sigmoid"),
        layers.BatchNormalization(name="shared_norm"),
        conv(6, "shared_2"),
    ]
    x, y = a, b
    for layer in tower:
        x, y = layer(x), layer(y)
    return model_of([a, b], head(layers.Subtract()([x, y])))


def twice_in_a_row():
    def body(x):
        layer = layers.Dense(8, activation="sigmoid", name="twice")
        return layer(layer(layers.Dense(8, name="first")(x)))

    return vector_model(body)


def shared_batchnorm():
    """Two convolutions whose outputs pass one BatchNormalization: their channels are the same ones."""

    def body(x):
        norm = layers.BatchNormalization(name="norm")
        return layers.Concatenate()([norm(conv(8, "left")(x)), norm(conv(8, "right")(x))])

    return image_model(body)


def same_kernel():
    """Two dense layers hold one variable as their kernel."""
    inputs = keras.Input((6,))
    first, second = (layers.Dense(6, activation="sigmoid", name=name) for name in ("first", "second"))
    x = first(inputs)
    make = second.add_weight
    second.add_weight = lambda *args, **kw: first.kernel if kw.get("name") == "kernel" else make(*args, **kw)
    x = layers.Dense(8, activation="tanh", name="free")(second(x))
    return model_of(inputs, head(x))


def wrapped_and_plain():
    """One dense layer called by itself and inside TimeDistributed."""
    inputs = keras.Input((5, 3))
    dense = layers.Dense(8, activation="sigmoid", name="dense")
    x = layers.Concatenate()([dense(inputs), layers.TimeDistributed(dense, name="each")(inputs)])
    return model_of(inputs, head(layers.Dense(6, activation="leaky_relu", name="free")(x)))


# --- 23, 24: nested models and several outputs ------------------------------------------------------------------------


def block(filters, name):
    """A small model of its own: a residual block."""
    inputs = keras.Input((None, None, filters))
    x = conv(6, f"{name}_inner", activation="sigmoid")(inputs)
    return keras.Model(inputs, layers.Add()([inputs, conv(filters, f"{name}_outer")(x)]), name=name)


def nested():
    sequence = keras.Sequential(
        [keras.Input((4, 4, 8)), conv(6, "in_sequence", activation="leaky_relu")], name="sequence"
    )
    return image_model(lambda x: sequence(block(8, "block")(conv(8, "stem")(x))))


def doubly_nested():
    inputs = keras.Input((4, 4, 8))
    middle = keras.Model(inputs, block(8, "innermost")(conv(8, "middle_conv")(inputs)), name="middle")
    return image_model(lambda x: middle(conv(8, "stem", activation="sigmoid")(x)))


def doubly_used():
    inner = block(8, "inner")
    inputs = keras.Input((4, 4, 8))
    outer = keras.Model(inputs, inner(conv(8, "outer_conv", activation="sigmoid")(inner(inputs))), name="outer")
    return image_model(lambda x: outer(outer(conv(8, "stem")(x))))


def several_outputs():
    inputs = keras.Input((4, 4, 2))
    x = conv(8, "shown", activation="sigmoid")(inputs)
    y = conv(6, "hidden", activation="leaky_relu")(x)
    z = layers.Flatten()(y)
    return model_of(inputs, {"features": x, "class": head(z), "again": layers.Dense(3, name="other_logits")(z)})


# --- 25, 26, 27: what must be kept ------------------------------------------------------------------------------------


def dropout(noise_shape):
    def body(x):
        x = layers.Dense(8, activation="sigmoid", name="dense")(x)
        return layers.Dense(6, activation="leaky_relu", name="free")(layers.Dropout(0.5, noise_shape=noise_shape)(x))

    return sequence_model(body)


def regularised():
    def body(x):
        return layers.Dense(
            8,
            activation="sigmoid",
            kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2),
            bias_regularizer=keras.regularizers.L2(0.3),
            activity_regularizer=keras.regularizers.L1(0.01),
            kernel_constraint=keras.constraints.MaxNorm(2.0, axis=0),
            bias_constraint=keras.constraints.NonNeg(),
            name="dense",
        )(layers.Dense(6, activation="leaky_relu", name="before")(x))

    return vector_model(body)


def plain_vector():
    return vector_model(
        lambda x: layers.Dense(6, activation="leaky_relu", name="second")(
            layers.BatchNormalization(name="batchnorm")(layers.Dense(8, activation="sigmoid", name="first")(x))
        )
    )


def vector_of_three():
    return vector_model(
        lambda x: layers.Dense(6, activation="leaky_relu", name="free")(
            layers.Dense(8, activation="tanh", name="special")(layers.Dense(8, activation="sigmoid", name="before")(x))
        )
    )


def mixture():
    """Convolution, attention and recurrence in one model."""

    def body(x):
        x = layers.Reshape((16, 8))(layers.BatchNormalization(name="batchnorm")(conv(8, "conv")(x)))
        x = layers.Add()([x, layers.MultiHeadAttention(2, 4, name="mha")(x, x)])
        return layers.LSTM(6, name="lstm")(x)

    return image_model(body)


# --- 28: wrappers -----------------------------------------------------------------------------------------------------


def spectral(kind):
    def body(x):
        layer = conv(8, "inner") if kind == "conv" else layers.Dense(8, name="inner")
        x = layers.Activation("sigmoid")(layers.SpectralNormalization(layer, name="spectral")(x))
        return layers.SpectralNormalization(conv(6, "inner_2", activation="leaky_relu"), name="second")(x)

    return image_model(body)


def time_distributed(kind):
    if kind == "dense":
        return sequence_model(
            lambda x: layers.TimeDistributed(layers.Dense(6, activation="leaky_relu"), name="second")(
                layers.TimeDistributed(layers.Dense(8, activation="sigmoid"), name="first")(x)
            )
        )
    inputs = keras.Input((3, 4, 4, 2))
    x = layers.TimeDistributed(conv(8, "inner", activation="sigmoid"), name="first")(inputs)
    x = layers.TimeDistributed(layers.BatchNormalization(), name="norm")(x)
    x = layers.TimeDistributed(layers.MaxPooling2D(), name="pool")(x)
    x = layers.TimeDistributed(layers.Flatten(), name="flat")(x)
    return model_of(inputs, head(layers.LSTM(6, name="second")(x)))


def time_distributed_model():
    inner = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            conv(6, "inner", activation="leaky_relu"),
            layers.Flatten(),
            layers.Dense(5, name="last"),
        ],
        name="inner_model",
    )
    inputs = keras.Input((3, 4, 4, 2))
    x = layers.TimeDistributed(inner, name="each")(inputs)
    return model_of(inputs, head(layers.Dense(6, activation="leaky_relu", name="free")(x)))


# --- 29: operations that move channels --------------------------------------------------------------------------------


def shuffled(x, groups=2):
    """ShuffleNet's channel shuffle."""
    height, width_, channels = x.shape[1:]
    x = ops.reshape(x, (-1, height, width_, groups, channels // groups))
    return ops.reshape(ops.transpose(x, (0, 1, 2, 4, 3)), (-1, height, width_, channels))


def _swapped(x):
    first, second = ops.split(x, 2, axis=-1)
    return ops.concatenate([second, first], axis=-1)


def _unequal(x):
    first, second, third = ops.split(x, [1, 4], axis=-1)
    return ops.concatenate([third, first, ops.tanh(second)], axis=-1)


def _halves_multiplied(x):
    first, second = ops.split(x, 2, axis=-1)
    return first * ops.sigmoid(second)


MOVES = {
    "transpose": lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "transpose_of_channels": lambda x: ops.transpose(x, (0, 3, 1, 2)),
    "split_and_swap": _swapped,
    "split_unequally": _unequal,
    "split_and_gate": _halves_multiplied,
    "concatenate": lambda x: ops.concatenate([x, ops.relu(x), x], axis=-1),
    "mean_over_space": lambda x: ops.mean(x, axis=(1, 2)),
    "max_over_space_keepdims": lambda x: x - ops.max(x, axis=(1, 2), keepdims=True),
    "scale_and_shift": lambda x: 2.0 * ops.tanh(x) + 1.0,
}
OTHER_MOVES = {
    "shuffle": shuffled,
    "roll_channels": lambda x: ops.roll(x, 3, axis=-1),
    "roll_space": lambda x: ops.roll(x, 1, axis=1),
    "roll_everything": lambda x: ops.roll(x, 5),
    "flip_channels": lambda x: ops.flip(x, axis=-1),
    "flip_space": lambda x: ops.flip(x, axis=1),
    "take_channels": lambda x: ops.take(x, [5, 0, 0, 3], axis=-1),
    "take_rows": lambda x: ops.take(x, [2, 0], axis=1),
    "slice_channels": lambda x: x[..., 2:7],
    "slice_every_second": lambda x: x[..., ::2],
    "slice_rows": lambda x: x[:, 1:],
    "reverse_channels": lambda x: x[..., ::-1],
    "swapaxes": lambda x: ops.swapaxes(x, 1, 3),
    "moveaxis": lambda x: ops.moveaxis(x, -1, 1),
    "stack": lambda x: ops.stack([x, ops.tanh(x)], axis=-1),
    "stack_before": lambda x: ops.stack([x, ops.tanh(x)], axis=1),
    "unstack_channels": lambda x: ops.concatenate([ops.unstack(x, axis=1)[2], ops.unstack(x, axis=1)[0]], axis=-1),
    "repeat_channels": lambda x: ops.repeat(x, 2, axis=-1),
    "tile_channels": lambda x: ops.tile(x, (1, 1, 1, 2)),
    "pad_channels": lambda x: ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 2))),
    "pad_space_with_ones": lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 1), (0, 0)), constant_values=1.0),
    "mean_of_channels": lambda x: ops.mean(x, axis=-1, keepdims=True) + x,
    "sum_of_channels": lambda x: ops.sum(x, axis=-1),
    "mean_of_everything": lambda x: ops.mean(x, axis=(1, 2, 3), keepdims=True) + x,
    "max_of_channels": lambda x: ops.max(x, axis=-1),
    "norm_of_channels": lambda x: x / (ops.norm(x, axis=-1, keepdims=True) + 1.0),
    "cumsum_of_channels": lambda x: ops.cumsum(x, axis=-1),
    "cumsum_over_space": lambda x: ops.cumsum(x, axis=1),
    "sort_of_channels": lambda x: ops.sort(x, axis=-1),
    "softmax_of_channels": lambda x: ops.softmax(x),
    "softmax_over_space": lambda x: ops.softmax(x, axis=1),
    "matmul_with_itself": lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
    "einsum_with_itself": lambda x: ops.einsum("bhwc,bhvc->bhwv", x, x),
    "matmul_with_a_constant": lambda x: ops.matmul(x, np.ones((8, 3), "float32")),
    "plus_a_constant_for_each_channel": lambda x: x + np.arange(8, dtype="float32"),
    "times_a_constant_for_each_row": lambda x: x * np.arange(4, dtype="float32").reshape(4, 1, 1),
    "where": lambda x: ops.where(x > 0.5, x, 0.1),
    "cast_and_clip": lambda x: ops.clip(ops.cast(x, "float32"), 0.2, 0.8),
    "space_to_depth": lambda x: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 2, 2, 2, 2, 8)), (0, 1, 3, 2, 4, 5)), (-1, 2, 2, 32)
    ),
}


def moved(function):
    """A convolution whose channels are moved about, beside one that is free."""

    def body(x):
        y = function(conv(8, "conv", activation="sigmoid")(x))
        y = layers.Flatten()(y) if len(y.shape) > 2 else y
        free = layers.Flatten()(conv(6, "free", activation="sigmoid")(x))
        return layers.Concatenate()([y, free])

    return image_model(body)


def shuffle_net():
    """Two shuffle units: half of the channels pass by, half are convolved."""

    def body(x):
        x = conv(8, "stem", activation="leaky_relu")(x)
        for index in range(2):
            left, right = ops.split(x, 2, axis=-1)
            right = conv(4, f"branch_{index}", activation="sigmoid")(right)
            x = shuffled(ops.concatenate([left, right], axis=-1))
        return conv(6, "free", activation="leaky_relu")(x)

    return image_model(body)


# --- 30: nothing left -------------------------------------------------------------------------------------------------


def split_with_a_weak_half():
    """The first half of the channels scores lowest, and a layer reads nothing but that half."""

    def body(x):
        first, second = ops.split(conv(8, "conv", activation="sigmoid")(x), 2, axis=-1)
        parts = [conv(6, "reads_first", activation="sigmoid")(first), conv(6, "reads_second")(second)]
        return layers.Concatenate()(parts)

    model = image_model(body)
    kernel = array(model.get_layer("conv").kernel).copy()
    kernel[..., :4] *= 1e-3
    model.get_layer("conv").kernel.assign(kernel)
    return model


# --- 32: weights with space and channels ------------------------------------------------------------------------------


def prelu(shared_axes=None):
    def body(x):
        x = layers.PReLU(shared_axes=shared_axes, name="prelu")(conv(8, "conv")(x))
        return conv(4, "after", activation="leaky_relu")(x)

    return image_model(body)


def batchnorm_over_positions():
    """BatchNormalization on the axis of time: its weights count positions, not channels."""

    def body(x):
        x = layers.Dense(8, activation="sigmoid", name="dense")(x)
        x = layers.BatchNormalization(axis=1, name="batchnorm")(x)
        return layers.Dense(6, activation="leaky_relu", name="free")(x)

    return sequence_model(body)
