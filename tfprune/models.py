"""Which networks do tfprune's studies train? Plain Keras, with logits as outputs and layers named plainly."""

import functools
import inspect
import itertools
import numbers
from pathlib import Path

from tfprune import pointers


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


def cnn(input_shape=(8, 8, 1), num_classes=10, seed=None):
    """Returns a small convolutional network with BatchNormalization for small images, such as the digits.

    3x3 convolutions of 16 and 32 channels ("conv_1", "conv_2"), each halving the image, a hidden layer of 32 ("dense")
    and logits: 2.2e4 parameters on 8x8 images.

    Args:
        input_shape: Shape of one image, height and width at least 4.
        num_classes: Width of the last layer, "logits".
        seed: Integer that fixes the initial weights, or None to draw them from Keras' global seed.

    Raises:
        ValueError: The input is no image, or too small.

    Example:

    >>> tfprune.models.cnn((8, 8, 1)).output_shape
    (None, 10)
    """
    import keras

    if len(input_shape) != 3 or min(input_shape[:2]) < 4:
        raise ValueError(
            "cnn needs images of at least 4x4 pixels, as (height, width, colours). "
            f"Received: input_shape={tuple(input_shape)}."
        )
    conv, dense = _normalised(keras.layers.Conv2D, seed), _seeded(keras.layers.Dense, seed, first=2)
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *conv(16, 3, padding="same", name="conv_1"),
            keras.layers.MaxPooling2D(2, name="pool_1"),
            *conv(32, 3, padding="same", name="conv_2"),
            keras.layers.MaxPooling2D(2, name="pool_2"),
            keras.layers.Flatten(name="flatten"),
            dense(32, activation="relu", name="dense"),
            dense(num_classes, name="logits"),
        ],
        name="cnn",
    )


def gaussian_mlp(input_shape, hidden=(30,), num_targets=1, homoskedastic=False, seed=None):
    """Returns a multilayer perceptron with a Gaussian head: means, then raw log-variances (see `tfprune.losses`).

    Args:
        input_shape: Shape of one example.
        hidden: Units of each hidden layer, named as in `mlp`.
        num_targets: How many numbers are predicted.
        homoskedastic: Whether the noise is learnt as one number for all inputs. Default False: it depends on the input.
        seed: Integer that fixes the initial weights, or None to draw them from Keras' global seed.

    Example:

    >>> model = tfprune.models.gaussian_mlp((1,), seed=0)
    >>> model.compile("adam", tfprune.losses.GaussianNegativeLogLikelihood())
    """
    import keras

    from tfprune.losses import ConstantVariance

    if not homoskedastic:
        return mlp(input_shape, hidden, 2 * num_targets, seed)
    means = mlp(input_shape, hidden, num_targets, seed)
    return keras.Sequential([keras.Input(input_shape), *means.layers, ConstantVariance(name="variance")], name="mlp")


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


def vgg16(input_shape=(32, 32, 3), num_classes=10, seed=None):
    """Returns VGG-16 for CIFAR-10: 13 convolutions and a hidden dense layer, with BatchNormalization, then logits.

    The network of Li et al., row for row their Table 2: 1.5e7 parameters, 3.13e8 multiply-adds. Its convolutions are
    named "conv_1" to "conv_13", the hidden layer "hidden". Layouts of `tfprune.layouts` that fit it: "vgg16_a".

    Args:
        input_shape: Shape of one image, height and width at least 32.
        num_classes: Width of the last layer, "logits".
        seed: Integer that fixes the initial weights, or None to draw them from Keras' global seed.

    Raises:
        ValueError: The images are too small for five poolings.

    Example:

    >>> model = tfprune.models.vgg16(seed=0)
    >>> masks = tfprune.compute_masks(tfprune.wrap(model), ratio=tfprune.layouts.get("vgg16_a"))

    Source: Li et al. 2017, Pruning Filters for Efficient ConvNets (arXiv:1608.08710), section 4.1, after Simonyan and
    Zisserman 2015 and Zagoruyko 2015.
    """
    import keras

    if len(input_shape) != 3 or min(input_shape[:2]) < 32:
        raise ValueError(
            "vgg16 needs images of at least 32x32 pixels, as (height, width, colours). "
            f"Received: input_shape={tuple(input_shape)}. For smaller images use tfprune.models.lenet or resnet."
        )
    conv, dense = _normalised(keras.layers.Conv2D, seed), _normalised(keras.layers.Dense, seed, first=13)
    logits = _seeded(keras.layers.Dense, seed, first=14)
    stack, number = [keras.Input(input_shape)], 0
    for stage, (channels, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for _ in range(count):
            number += 1
            stack += conv(channels, 3, padding="same", name=f"conv_{number}")
        stack.append(keras.layers.MaxPooling2D(2, name=f"pool_{stage}"))
    stack += [keras.layers.Flatten(name="flatten"), *dense(512, name="hidden"), logits(num_classes, name="logits")]
    return keras.Sequential(stack, name="vgg16")


def resnet(depth=56, input_shape=(32, 32, 3), num_classes=10, seed=None):
    """Returns the 6n + 2-layer residual network for CIFAR-10: three stages of n blocks, 16, 32 and 64 channels wide.

    Shortcuts have no parameters (option A of He et al.): where a stage begins they take every second pixel and add
    channels of zeros. With depth 56 that makes 8.5e5 parameters and 1.25e8 multiply-adds, those of Li et al. Layers are
    named by their number in the network, as the papers count them: "conv_1", then "conv_2" and "conv_3" in the first
    block, and so on. Layouts of `tfprune.layouts` that fit: "resnet56_a", "resnet56_b", "resnet110_a", "resnet110_b".

    Args:
        depth: Number of layers, 6n + 2: 20, 32, 44, 56 (default), 110, ...
        input_shape: Shape of one image.
        num_classes: Width of the last layer, "logits".
        seed: Integer that fixes the initial weights, or None to draw them from Keras' global seed.

    Raises:
        ValueError: A depth that is not 6n + 2, or an input that is no image.

    Example:

    >>> model = tfprune.models.resnet(56, seed=0)
    >>> masks = tfprune.compute_masks(tfprune.wrap(model), ratio=tfprune.layouts.get("resnet56_b"))

    Source: He et al. 2016, Deep Residual Learning for Image Recognition (arXiv:1512.03385), section 4.2.
    """
    import keras

    if not isinstance(depth, numbers.Integral) or depth < 8 or depth % 6 != 2:
        raise ValueError(f"resnet needs a depth of 6n + 2, for example 20, 56 or 110. Received: depth={depth}.")
    if len(input_shape) != 3:
        raise ValueError(
            f"resnet needs images, as (height, width, colours). Received: input_shape={tuple(input_shape)}."
        )
    conv = _normalised(keras.layers.Conv2D, seed)
    inputs = keras.Input(input_shape)
    x = _chain(inputs, conv(16, 3, padding="same", name="conv_1"))
    for first in range(2, depth, 2):
        stage, place = divmod(first // 2 - 1, (depth - 2) // 6)
        x = _residual_block(x, conv, first, channels=16 * 2**stage, halve=stage > 0 and place == 0)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = _seeded(keras.layers.Dense, seed, first=depth - 1)(num_classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=f"resnet{depth}")


def _residual_block(x, conv, first, channels, halve):
    """Two convolutions, numbered `first` and `first + 1`, and the shortcut around them."""
    import keras

    y = x
    if halve:
        # One pixel on every side: Keras' "same" with strides of 2 would shift the block against its shortcut.
        y = keras.layers.ZeroPadding2D(1, name=f"conv_{first}_padding")(x)
        x = _zero_padded_shortcut(x, f"conv_{first}_shortcut")
    how = {"strides": 2} if halve else {"padding": "same"}
    y = _chain(y, conv(channels, 3, name=f"conv_{first}", **how))
    *second, relu = conv(channels, 3, padding="same", name=f"conv_{first + 1}")
    return relu(keras.layers.Add(name=f"conv_{first + 1}_add")([_chain(y, second), x]))


def _zero_padded_shortcut(x, name):
    """Half the height and width, and as many channels of zeros again: in layers that keep channels apart."""
    import keras

    x = keras.layers.AveragePooling2D(1, strides=2, name=f"{name}_stride")(x)
    zeros = keras.layers.Rescaling(0.0, name=f"{name}_zeros")(x)
    return keras.layers.Concatenate(name=name)([x, zeros])


def _chain(x, stack):
    for layer in stack:
        x = layer(x)
    return x


def __getattr__(name):
    # Those that may carry weights learnt elsewhere live in a module of their own.
    if name in ("resnet18", "resnet50"):
        from tfprune import transfer

        return getattr(transfer, name)
    raise AttributeError(f"module 'tfprune.models' has no attribute {name!r}.")


MODELS = {
    "mlp": mlp,
    "cnn": cnn,
    "gaussian_mlp": gaussian_mlp,
    "homoskedastic_mlp": functools.partial(gaussian_mlp, homoskedastic=True),
    "lenet": lenet,
    "vgg16": vgg16,
    **{f"resnet{depth}": functools.partial(resnet, depth=depth) for depth in (8, 20, 56, 110)},
}


def get(model):
    """Returns the function that builds a model: a name's, or the function itself.

    Args:
        model: A name in `MODELS`, a .keras file (see `from_file`), "module:function", or a function
            `(input_shape, num_classes, seed) -> keras.Model`, called by keyword; on data with numbers to predict,
            `(input_shape, num_targets, seed)`.

    Raises:
        ValueError: Unknown name.

    Example:

    >>> build = tfprune.models.get("mlp")
    """
    if callable(model):
        return model
    if model in MODELS:
        return MODELS[model]
    if str(model).endswith(".keras"):
        return functools.partial(from_file, model)
    if ":" in str(model):
        return pointers.follow(model)
    raise ValueError(
        f"Unknown model. Received: {model!r}. Expected one of {', '.join(map(repr, MODELS))}, a .keras file, "
        "'module:function', or a function (input_shape, num_classes, seed) -> keras.Model."
    )


def check(model, outputs=None):
    """Refuses a model that a study could not build, before anything is trained.

    Args:
        model: As in `get`.
        outputs: By which name the data tell a function how much it predicts: "num_classes" or "num_targets"; None
            (default) where the data are not known yet, and a function may take either.

    Raises:
        ValueError: Unknown name, or a function that does not take what it is called with.
        FileNotFoundError: A model file that is not there.

    Example:

    >>> tfprune.models.check("mlp", "num_classes")
    """
    function = get(model)
    if model not in MODELS and str(model).endswith(".keras"):
        _check_file(model)
    kinds = (outputs,) if outputs else tuple(_PREDICTED)
    reasons = [_why_not_called(function, kind) for kind in kinds]
    if all(reasons):
        name = model if isinstance(model, str) else getattr(model, "__name__", repr(model))
        raise ValueError(
            f"The model {name!r} is called by keyword, with input_shape, {kinds[0]} and seed for "
            f"{_PREDICTED[kinds[0]]}, and cannot be: {reasons[0]}. Received: a function {inspect.signature(function)}. "
            "Expected: a function (input_shape, num_classes, seed) -> keras.Model for classes, (input_shape, "
            "num_targets, seed) for numbers to predict."
        )


# by which name a function is told how much it predicts -> what that is
_PREDICTED = {"num_classes": "classes", "num_targets": "numbers to predict"}


def _why_not_called(function, outputs):
    try:
        signature = inspect.signature(function)
    except ValueError:  # what is written in C may not tell
        return None
    try:
        signature.bind(**dict.fromkeys(("input_shape", outputs, "seed")))
    except TypeError as error:
        return str(error)
    return None


def _check_file(path):
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no model file {path}. Expected a .keras file that model.save wrote.")


def from_file(path, input_shape, num_classes=None, seed=0, num_targets=None):
    """Returns the network of a .keras file with fresh weights, as a study that compares seeds needs it.

    Layers that do not learn keep the weights of the file: frozen ones, and a `Normalization` that was adapted.

    Args:
        path: File that `model.save` wrote; loaded in Keras' safe mode.
        input_shape: Shape of one example, which the network must take.
        num_classes: Number of classes, which the network must tell apart.
        seed: Integer for the fresh weights.
        num_targets: In the place of `num_classes`: how many numbers a network with a Gaussian head predicts.

    Raises:
        ValueError: The network takes or gives other shapes.
        OSError: The file cannot be read.

    Example:

    >>> model = from_file("mine.keras", input_shape=(2,), num_classes=2, seed=0)
    """
    import keras

    _check_file(path)
    saved = keras.models.load_model(path, compile=False, safe_mode=True)
    given, outputs = tuple(saved.input_shape[1:]), saved.output_shape[-1]
    wanted = num_classes or 2 * num_targets
    is_binary = num_classes == 2 and outputs == 1  # one column, of a sigmoid
    if given != tuple(input_shape) or not (outputs == wanted or is_binary):
        raise ValueError(
            f"{path} does not fit the data. Received: a network from {given} to {outputs} outputs. Expected: "
            f"from {tuple(input_shape)} to {wanted}."
        )
    seeds = itertools.count(1000 * seed)
    fresh = keras.models.clone_model(
        saved, clone_function=lambda layer: type(layer).from_config(_reseeded(layer.get_config(), seeds))
    )
    for layer, twin in zip(saved._flatten_layers(), fresh._flatten_layers(), strict=True):
        if layer.weights and (isinstance(layer, keras.layers.Normalization) or not layer.trainable):
            twin.set_weights(layer.get_weights())
        if isinstance(layer, keras.layers.Normalization):
            twin.finalize_state()  # it computes with what it derives from its weights
    return fresh


def _reseeded(config, seeds):
    """A layer's config in which every initializer, and every other thing with a seed, has the next of the seeds."""
    if isinstance(config, list | tuple):
        return type(config)(_reseeded(part, seeds) for part in config)
    if not isinstance(config, dict):
        return config
    return {name: next(seeds) if name == "seed" else _reseeded(part, seeds) for name, part in config.items()}


def _normalised(layer_class, seed, first=0):
    """Returns a maker of three layers: a seeded one for ReLU, its BatchNormalization, ReLU.

    Without bias: BatchNormalization takes the mean away, and the papers count none.
    """
    import keras

    seeded = _seeded(layer_class, seed, first, initializer="HeNormal")

    def make(*args, name, **kwargs):
        norm = keras.layers.BatchNormalization(name=f"{name}_norm")
        return [seeded(*args, use_bias=False, name=name, **kwargs), norm, keras.layers.ReLU(name=f"{name}_relu")]

    return make


def _seeded(layer_class, seed, first=0, initializer="GlorotUniform"):
    """Returns a maker of layers whose kernels are drawn from seed: a different stream for each layer made."""
    import keras

    made = iter(range(first, 10_000))
    draw = getattr(keras.initializers, initializer)

    def make(*args, **kwargs):
        # 1,000 layers apart, so that the streams of two seeds never meet
        stream = None if seed is None else seed * 1_000 + next(made)
        return layer_class(*args, kernel_initializer=draw(seed=stream), **kwargs)

    return make
