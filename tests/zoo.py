"""Which small models does every structural test run on? One for each layer and each way to join layers."""

import keras
import numpy as np
from keras import layers

ACTIVATIONS = ("relu", "sigmoid", "gelu", "softplus", "tanh")


def mlp(activation="relu"):
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(16, activation=activation, name="first"),
            layers.BatchNormalization(),
            layers.Dense(12, activation=activation, name="second"),
            layers.Dense(3, name="logits"),
        ]
    )


def lenet_like(activation="relu"):
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(6, 3, activation=activation, name="conv_1"),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, name="conv_2"),
            layers.BatchNormalization(),
            layers.Activation(activation),
            layers.Flatten(),
            layers.Dense(10, activation=activation, name="dense"),
            layers.Dense(4, activation="softmax", name="probabilities"),
        ]
    )


def residual():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    for index in range(2):
        y = layers.BatchNormalization()(x)
        y = layers.Activation("gelu")(y)
        y = layers.Conv2D(6, 3, padding="same", use_bias=False, name=f"inner_{index}")(y)
        y = layers.BatchNormalization()(y)
        y = layers.ReLU()(y)
        y = layers.Conv2D(8, 3, padding="same", name=f"outer_{index}")(y)
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


def concatenated():
    inputs = keras.Input((8, 8, 2))
    a = layers.Conv2D(5, 3, padding="same", activation="sigmoid", name="left")(inputs)
    b = layers.Conv2D(7, 1, name="right")(inputs)
    x = layers.BatchNormalization()(layers.Concatenate()([a, b, a]))
    x = layers.Conv2D(6, 3, name="after")(x)
    y = layers.Concatenate()([layers.Flatten()(x), layers.GlobalMaxPooling2D()(b)])
    return keras.Model(inputs, layers.Dense(2, name="logits")(y))


def concatenated_in_space():
    inputs = keras.Input((6, 6, 2))
    a = layers.Conv2D(6, 3, padding="same", name="top")(inputs)
    b = layers.Conv2D(6, 1, activation="tanh", name="bottom")(inputs)
    x = layers.Concatenate(axis=1)([a, b])
    return keras.Model(inputs, layers.Dense(2, name="logits")(layers.Flatten()(x)))


def depthwise():
    inputs = keras.Input((10, 10, 3))
    x = layers.Conv2D(8, 1, name="expand")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(max_value=6.0)(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="sigmoid", name="depthwise")(x)
    x = layers.BatchNormalization()(x)
    x = layers.SeparableConv2D(9, 3, depth_multiplier=2, activation="gelu", name="separable")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x)))


def every_merge():
    inputs = keras.Input((5,))
    branches = [layers.Dense(8, activation="sigmoid", name=f"branch_{index}")(inputs) for index in range(7)]
    x = layers.Subtract()(branches[:2])
    x = layers.Multiply()([x, branches[2]])
    x = layers.Average()([x, branches[3]])
    x = layers.Maximum()([x, branches[4], branches[5]])
    x = layers.Minimum()([x, branches[6]])
    return keras.Model(inputs, layers.Dense(2, name="logits")(x))


def squeeze_and_excite():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, name="trunk")(inputs)
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Reshape((1, 1, 8))(gate)
    gate = layers.Conv2D(4, 1, activation="relu", name="squeeze")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(gate)
    x = layers.Multiply()([x, gate])
    return keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalMaxPooling2D(keepdims=True)(x)))


def one_dimensional():
    inputs = keras.Input((20, 3))
    x = layers.Conv1D(8, 3, padding="causal", activation="gelu", name="conv")(inputs)
    x = layers.ZeroPadding1D(2)(x)
    x = layers.SpatialDropout1D(0.3)(x)
    x = layers.DepthwiseConv1D(3, name="depthwise")(x)
    x = layers.SeparableConv1D(6, 3, name="separable")(x)
    x = layers.UpSampling1D(2)(layers.MaxPooling1D(2)(x))
    x = layers.Conv1DTranspose(7, 3, strides=2, name="transposed")(layers.Cropping1D(1)(x))
    x = layers.Dense(5, activation="sigmoid", name="dense")(x)
    return keras.Model(inputs, layers.Dense(2, name="logits")(layers.GlobalAveragePooling1D()(x)))


def three_dimensional():
    inputs = keras.Input((6, 6, 6, 2))
    x = layers.Conv3D(5, 2, name="conv")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("silu")(layers.ZeroPadding3D(1)(x))
    x = layers.AveragePooling3D(2)(x)
    x = layers.Conv3DTranspose(6, 2, name="transposed")(layers.UpSampling3D(2)(x))
    x = layers.Cropping3D(1)(x)
    return keras.Model(inputs, layers.Dense(2, name="logits")(layers.Flatten()(x)))


def decoder():
    return keras.Sequential(
        [
            keras.Input((9,)),
            layers.Dense(64, activation="relu", name="dense"),
            layers.Reshape((4, 4, -1)),
            layers.Conv2DTranspose(6, 3, strides=2, name="transposed"),
            layers.BatchNormalization(),
            layers.PReLU(shared_axes=[1, 2]),
            layers.UpSampling2D(),
            layers.Cropping2D(1),
            layers.Conv2D(5, 3, name="conv"),
            layers.PReLU(),
            layers.GaussianNoise(0.1),
            layers.GlobalMaxPooling2D(),
            layers.Dropout(0.2),
            layers.Dense(3, name="logits"),
        ]
    )


def shared_layer():
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    tower = layers.Dense(10, activation="sigmoid", name="tower")
    inner = layers.Dense(8, name="inner")
    x = layers.Concatenate()([inner(tower(a)), inner(tower(b))])
    x = layers.Dense(6, activation="relu", name="joined")(x)
    return keras.Model([a, b], layers.Dense(2, name="logits")(x))


def nested():
    block_in = keras.Input((None, None, 6))
    y = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv")(block_in)
    block = keras.Model(block_in, [layers.Add()([block_in, y]), y], name="block")
    head = keras.Sequential(
        [keras.Input((6,)), layers.Dense(7, activation="tanh", name="conv"), layers.Dense(3)], name="head"
    )
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(6, 1, name="stem")(inputs)
    x, _ = block(x)
    x, skip = block(x)
    x = layers.Average()([x, skip])
    return keras.Model(inputs, head(layers.GlobalAveragePooling2D()(x)), name="outer")


def several_outputs():
    inputs = {"image": keras.Input((8, 8, 1), name="image"), "extra": keras.Input((4,), name="extra")}
    x = layers.Conv2D(6, 3, activation="relu", name="conv")(inputs["image"])
    y = layers.Dense(9, activation="relu", name="dense")(inputs["extra"])
    z = layers.Concatenate()([layers.Flatten()(x), y])
    hidden = layers.Dense(8, activation="sigmoid", name="hidden")(z)
    return keras.Model(inputs, {"class": layers.Dense(3, name="logits")(hidden), "features": y})


def softmax_in_the_middle():
    inputs = keras.Input((6,))
    x = layers.Dense(10, activation="relu", name="before")(inputs)
    x = layers.Dense(8, activation="softmax", name="attention")(x)
    x = layers.Dense(10, name="after")(x)
    x = layers.Activation("softmax")(x)
    x = layers.Dense(9, activation="gelu", name="last")(x)
    return keras.Model(inputs, layers.Dense(2, name="logits")(layers.Softmax()(layers.Dense(4, name="odds")(x))))


def normalised_input():
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(np.random.default_rng(1).normal(3.0, 2.0, (50, 5)))
    inputs = keras.Input((5,))
    x = layers.Dense(8, activation="relu", name="dense")(layers.Rescaling(0.5, 1.0)(normalization(inputs)))
    return keras.Model(inputs, layers.Dense(2, name="logits")(x))


def unknown_layer():
    inputs = keras.Input((6, 4))
    x = layers.Dense(8, activation="relu", name="free")(inputs)
    x = layers.Dense(8, name="stuck")(x)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Dense(6, activation="relu", name="also_free")(x)
    return keras.Model(inputs, layers.Dense(2, name="logits")(layers.GlobalAveragePooling1D()(x)))


def transformer():
    inputs = keras.Input((7, 6))
    x = layers.Dense(8, name="embed")(inputs)
    for index in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 6, value_dim=5, name=f"attention_{index}")(y, y)])
        y = layers.Dense(16, activation="gelu", name=f"wide_{index}")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(8, name=f"narrow_{index}")(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


def recurrent():
    inputs = keras.Input((6, 4))
    x = layers.LSTM(7, return_sequences=True, name="lstm")(inputs)
    x = layers.Bidirectional(layers.GRU(5, return_sequences=True), name="both")(x)
    x, state = layers.GRU(6, reset_after=False, return_sequences=True, return_state=True, name="gru")(x)
    x = layers.SimpleRNN(6, name="simple")(x, initial_state=state)
    return keras.Model(inputs, layers.Dense(2, name="logits")(x))


def in_groups():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 1, activation="relu", name="before")(inputs)
    x = layers.Conv2D(12, 3, groups=2, activation="sigmoid", name="grouped")(x)
    x = layers.Conv2D(24, 3, groups=12, name="each_apart")(x)
    x = layers.GroupNormalization(groups=-1, name="instance")(x)
    x = layers.Conv2D(6, 1, activation="tanh", name="after")(x)
    return keras.Model(inputs, layers.Dense(2, name="logits")(layers.GlobalAveragePooling2D()(x)))


def operations():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(12, 3, name="conv")(inputs)
    x = keras.ops.reshape(x, (-1, 4, 4, 3, 4))  # a channel shuffle
    x = keras.ops.reshape(keras.ops.transpose(x, (0, 1, 2, 4, 3)), (-1, 4, 4, 12))
    first, second = keras.ops.split(x * 0.5 + 1.0, 2, axis=-1)
    x = keras.ops.concatenate([keras.ops.relu(first) * second, x[..., 2:9]], axis=-1)
    x = keras.ops.mean(layers.Conv2D(8, 1, name="mixed")(x), axis=(1, 2))
    return keras.Model(inputs, layers.Dense(2, name="logits")(keras.ops.squeeze(keras.ops.expand_dims(x, 1), 1)))


def wrapped_layers():
    inputs = keras.Input((5, 6, 6, 2))
    x = layers.TimeDistributed(layers.Conv2D(6, 3, activation="relu"), name="frames")(inputs)
    x = layers.TimeDistributed(layers.BatchNormalization())(x)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    x = layers.EinsumDense("abc,cde->abde", (None, 3, 6), activation="gelu", bias_axes="de", name="einsum")(x)
    x = layers.EinsumDense("abde,def->abf", (None, 8), name="back")(x)
    x = layers.SpectralNormalization(layers.Dense(10, activation="sigmoid"), name="spectral")(x)
    return keras.Model(inputs, layers.Dense(2, name="logits")(layers.GlobalMaxPooling1D()(x)))


def tied():
    tokens = keras.Input((5,), dtype="int32")
    embedding = layers.ReversibleEmbedding(11, 8, name="embedding")
    x = layers.Conv1D(8, 3, padding="same", activation="relu", name="conv")(embedding(tokens))
    return keras.Model(tokens, embedding(layers.Add()([x, embedding(tokens)]), reverse=True))


def any_size():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(inputs)
    x = layers.Conv2D(6, 3, padding="same", name="second")(layers.ZeroPadding2D(1)(x))
    return keras.Model(inputs, layers.Conv2D(2, 1, name="logits")(layers.AveragePooling2D(2)(x)))


ZOO = {
    **{f"mlp_{activation}": (lambda activation=activation: mlp(activation)) for activation in ACTIVATIONS},
    **{f"lenet_{activation}": (lambda activation=activation: lenet_like(activation)) for activation in ACTIVATIONS[:2]},
    **{
        builder.__name__: builder
        for builder in (
            residual, concatenated, concatenated_in_space, depthwise, every_merge, squeeze_and_excite, one_dimensional,
            three_dimensional, decoder, shared_layer, nested, several_outputs, softmax_in_the_middle, normalised_input,
            unknown_layer, any_size, transformer, recurrent, in_groups, operations, wrapped_layers,
            *([tied] if hasattr(layers, "ReversibleEmbedding") else []),
        )
    },
}  # fmt: skip


def randomise(model, seed=0):
    """Gives every weight a random value, biases and BatchNormalization statistics included."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        is_statistic = "normalization/" in weight.path and "batch" not in weight.path
        if is_statistic or weight.name.endswith("_mask"):
            continue
        if weight.name == "moving_variance":
            weight.assign(random.uniform(0.3, 2.0, weight.shape))
        elif len(weight.shape) > 1:
            weight.assign(random.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:-1])))
        else:
            weight.assign(random.normal(size=weight.shape))
    return model


def inputs_of(model, samples=4, seed=0):
    """Random inputs for a model, in the structure it takes; unknown sizes become 12."""
    random = np.random.default_rng(seed)
    spec = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(lambda tensor: _values(tensor, samples, random), spec)


def _values(tensor, samples, random):
    shape = (samples, *(size or 12 for size in tensor.shape[1:]))
    return random.normal(size=shape).astype("float32") if "float" in tensor.dtype else random.integers(0, 10, shape)


def difference(first, second, inputs):
    """Largest difference of two models' outputs, relative to the largest output."""
    a, b = (keras.tree.flatten(model(inputs, training=False)) for model in (first, second))
    return max(
        float(np.abs(np.asarray(x) - np.asarray(y)).max() / max(np.abs(np.asarray(x)).max(), 1e-9))
        for x, y in zip(a, b, strict=True)
    )
