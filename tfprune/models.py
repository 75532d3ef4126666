"""Which networks do tfprune's studies train? Plain Keras, with logits as outputs and layers named plainly."""


def mlp(input_shape, hidden=(30,), num_classes=2, seed=None):
    """Returns a multilayer perceptron with ReLU; by default 2-30-2's shape, the paper's network for the moons.

    Args:
        input_shape: Shape of one example; anything but a vector is flattened first.
        hidden: Units of each hidden layer. One layer is named "hidden", several "hidden_1", "hidden_2", ...
        num_classes: Width of the last layer, "logits".
        seed: Integer that fixes the initial weights, or None to draw them from Keras' global seed.

    Example:

    >>> model = tfprune.models.mlp((2,), seed=0)
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    """
    import keras

    dense = _seeded(keras.layers.Dense, seed)
    names = ["hidden"] if len(hidden) == 1 else [f"hidden_{i + 1}" for i in range(len(hidden))]
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *([keras.layers.Flatten(name="flatten")] if len(input_shape) > 1 else []),
            *(dense(units, activation="relu", name=name) for units, name in zip(hidden, names, strict=True)),
            dense(num_classes, name="logits"),
        ],
        name="mlp",
    )


def lenet(input_shape=(32, 32, 3), num_classes=10, seed=None):
    """Returns the paper's LeNet: two 5x5 convolutions (6, 16) with pooling, dense 120 and 84, ReLU, logits.

    Args:
        input_shape: Shape of one image, height and width at least 16.
        num_classes: Width of the last layer, "logits".
        seed: Integer that fixes the initial weights, or None to draw them from Keras' global seed.

    Raises:
        ValueError: The images are too small for two 5x5 convolutions with pooling.

    Example:

    >>> tfprune.models.lenet((32, 32, 3)).count_params()
    62006
    """
    import keras

    if len(input_shape) != 3 or min(input_shape[:2]) < 16:
        raise ValueError(
            "lenet needs images of at least 16x16 pixels, as (height, width, colours). "
            f"Received: input_shape={tuple(input_shape)}. For smaller inputs use tfprune.models.mlp."
        )
    conv, dense = _seeded(keras.layers.Conv2D, seed), _seeded(keras.layers.Dense, seed, first=2)
    return keras.Sequential(
        [
            keras.Input(input_shape),
            conv(6, 5, activation="relu", name="conv_1"),
            keras.layers.MaxPooling2D(2, name="pool_1"),
            conv(16, 5, activation="relu", name="conv_2"),
            keras.layers.MaxPooling2D(2, name="pool_2"),
            keras.layers.Flatten(name="flatten"),
            dense(120, activation="relu", name="dense_1"),
            dense(84, activation="relu", name="dense_2"),
            dense(num_classes, name="logits"),
        ],
        name="lenet",
    )


MODELS = {"mlp": mlp, "lenet": lenet}


def get(model):
    """Returns the function that builds a model: a name's, or the function itself.

    Args:
        model: "mlp", "lenet", or a function `(input_shape, num_classes, seed) -> keras.Model`, called by keyword.

    Raises:
        ValueError: Unknown name.

    Example:

    >>> build = tfprune.models.get("mlp")
    """
    if callable(model):
        return model
    if model not in MODELS:
        raise ValueError(
            f"Unknown model. Received: {model!r}. Expected one of {', '.join(map(repr, MODELS))}, "
            "or a function (input_shape, num_classes, seed) -> keras.Model."
        )
    return MODELS[model]


def _seeded(layer_class, seed, first=0):
    """Returns a maker of layers whose kernels are drawn from seed: a different stream for each layer made."""
    import keras

    made = iter(range(first, 10_000))

    def make(*args, **kwargs):
        # 1,000 layers apart, so that the streams of two seeds never meet
        stream = None if seed is None else seed * 1_000 + next(made)
        return layer_class(*args, kernel_initializer=keras.initializers.GlorotUniform(seed=stream), **kwargs)

    return make
