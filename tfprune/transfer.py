"""Which networks come with weights learnt elsewhere, ready for a new head and for pruning? ResNet-18 and ResNet-50.

Both take images in [-1, 1], as `tfprune.datasets` gives them, bring them to the size and scale their weights expect
inside the model, and end in "pool" and "logits". Reach them as `tfprune.models.resnet18` and `resnet50`.
"""

from pathlib import Path

# Of ImageNet's images, red, green, blue: in [0, 1] as PyTorch's weights know them, and in [0, 255] as Caffe's do.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (123.68, 116.779, 103.939)


def resnet18(input_shape=(32, 32, 3), num_classes=10, seed=None, weights=None, trainable=True, resize_to=None):
    """Returns ResNet-18 with a new head for `num_classes` classes.

    Args:
        input_shape: Shape of one image, three colours in [-1, 1].
        num_classes: Width of the last layer, "logits", which always starts from random weights.
        seed: Integer that fixes the random weights, or None to draw them from Keras' global seed.
        weights: None for random weights; "imagenet" for those of KerasHub's preset "resnet_18_imagenet" (needs the
            extra "hub", and downloads 45 MB once); or the path of a `.keras` file of such a network, whose head may be
            another.
        trainable: Whether the backbone learns; if not, only the head does, and BatchNormalization keeps its statistics.
        resize_to: Height and width to which the model enlarges its images, such as 224, the size of ImageNet's. None
            takes them as they are.

    Raises:
        ValueError: Images without three colours, or unknown weights.
        ImportError: "imagenet" without keras-hub.

    Example:

    >>> model = tfprune.models.resnet18((32, 32, 3), num_classes=10, seed=0)
    >>> frozen = tfprune.models.resnet18(weights="imagenet", trainable=False, resize_to=224)

    Source: He et al. 2016, Deep Residual Learning for Image Recognition (arXiv:1512.03385).
    """
    inputs, x = _images(input_shape, resize_to)
    x = _standardised(x)
    x = _convolution(x, 64, 7, strides=2, name="conv1")
    x = _padded_pool(x)
    for stage, channels in enumerate((64, 128, 256, 512)):
        x = _basic_block(x, channels, strides=2 if stage else 1, name=f"stack{stage}_block0")
        x = _basic_block(x, channels, strides=1, name=f"stack{stage}_block1")
    model = _finish(inputs, x, num_classes, seed, "resnet18")
    if weights == "imagenet":
        copy_backbone(_hub_backbone("resnet_18_imagenet"), model)
    return _ready(model, weights, trainable)


def resnet50(input_shape=(32, 32, 3), num_classes=10, seed=None, weights=None, trainable=True, resize_to=None):
    """Returns ResNet-50 of `keras.applications` with a new head for `num_classes` classes.

    Args:
        input_shape: Shape of one image, three colours in [-1, 1]; at least 32x32 pixels, before or after `resize_to`.
        num_classes, seed, trainable, resize_to: As for `resnet18`.
        weights: None for random weights; "imagenet" for those of keras.applications (downloads 95 MB once); or the path
            of a `.keras` file of such a network, whose head may be another.

    Raises:
        ValueError: Images that are too small or have no three colours, or unknown weights.

    Example:

    >>> model = tfprune.models.resnet50(weights="imagenet", trainable=False, resize_to=224)

    Source: He et al. 2016, Deep Residual Learning for Image Recognition (arXiv:1512.03385).
    """
    import keras

    inputs, x = _images(input_shape, resize_to)
    # Its weights expect blue, green, red in [0, 255] without their means; the colours are turned in the first kernel.
    x = keras.layers.Rescaling(127.5, [127.5 - mean for mean in _CAFFE_MEAN], name="preprocess")(x)
    backbone = keras.applications.ResNet50(
        include_top=False, weights="imagenet" if weights == "imagenet" else None, input_tensor=x
    )
    model = _finish(inputs, backbone.output, num_classes, seed if weights is None else None, "resnet50")
    if weights == "imagenet":
        kernel = model.get_layer("conv1_conv").kernel
        kernel.assign(keras.ops.flip(kernel, axis=2))
        _draw(model.get_layer("logits"), seed, 0)
    return _ready(model, weights, trainable)


def copy_backbone(source, model):
    """Copies the weights of a network into another whose layers have the same names; all but those of "logits".

    Args:
        source: A network as `resnet18` or `resnet50` returns it, or a `keras_hub.models.ResNetBackbone` of
            ResNet-18's depth.
        model: What `resnet18` or `resnet50` returned.

    Raises:
        ValueError: A layer is missing, or has weights of other shapes.
    """
    theirs = {layer.name: layer for layer in source.layers}
    for layer in model.layers:
        if not layer.weights or layer.name == "logits":
            continue
        given = theirs[layer.name].get_weights() if layer.name in theirs else []
        if [weight.shape for weight in given] != [tuple(weight.shape) for weight in layer.weights]:
            raise ValueError(
                f"'{source.name}' is no {model.name}: expected a layer '{layer.name}' with weights of the shapes "
                f"{[tuple(weight.shape) for weight in layer.weights]}. Received: {[weight.shape for weight in given]}."
            )
        layer.set_weights(given)


def _images(input_shape, resize_to):
    import keras

    if len(input_shape) != 3 or input_shape[2] != 3:
        raise ValueError(
            "A network for ImageNet's weights needs images of three colours, as (height, width, 3). "
            f"Received: input_shape={tuple(input_shape)}."
        )
    inputs = keras.Input(input_shape)
    if resize_to is None:
        return inputs, inputs
    # Not keras.layers.Resizing: it takes a call without `training` for training, for all layers behind it, too.
    return inputs, keras.ops.image.resize(inputs, (resize_to, resize_to), interpolation="bilinear")


def _standardised(x):
    """From [-1, 1] to mean 0 and deviation 1 of ImageNet's colours."""
    import keras

    offset = [(0.5 - mean) / std for mean, std in zip(_MEAN, _STD, strict=True)]
    return keras.layers.Rescaling([0.5 / std for std in _STD], offset, name="preprocess")(x)


def _convolution(x, channels, size, strides, name, relu=True):
    import keras

    if size > 1:
        # The same on every side, as the weights were trained: Keras' "same" with strides pads less on the left.
        x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    x = keras.layers.Conv2D(
        channels, size, strides, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    x = keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _padded_pool(x):
    import keras

    # What is padded is 0 after ReLU: never the maximum unless all are 0.
    x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name="pool1_pool")(x)


def _basic_block(x, channels, strides, name):
    import keras

    shortcut = x
    if strides > 1:
        shortcut = _convolution(x, channels, 1, strides, f"{name}_0", relu=False)
    x = _convolution(x, channels, 3, strides, f"{name}_1")
    x = _convolution(x, channels, 3, 1, f"{name}_2", relu=False)
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.ReLU(name=f"{name}_out")(x)


def _finish(inputs, x, num_classes, seed, name):
    import keras

    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(num_classes, name="logits")(x), name=name)
    for number, layer in enumerate(layer for layer in model.layers if hasattr(layer, "kernel_initializer")):
        _draw(layer, seed, number)
    return model


def _draw(layer, seed, number):
    """Draws a layer's kernel anew; without a seed it stays as Keras drew it."""
    if seed is None:
        return
    initializer = layer.kernel_initializer
    # 1,000 layers apart, as in tfprune.models, so that the streams of two seeds never meet
    drawn = type(initializer).from_config({**initializer.get_config(), "seed": seed * 1_000 + number})
    layer.kernel.assign(drawn(layer.kernel.shape))


def _ready(model, weights, trainable):
    if weights not in (None, "imagenet"):
        copy_backbone(_load(weights), model)
    for layer in model.layers:
        layer.trainable = trainable or layer.name == "logits"
    return model


def _load(path):
    import keras

    if Path(path).suffix != ".keras" or not Path(path).is_file():
        raise ValueError(
            f"weights must be None, 'imagenet', or the path of a .keras file. Received: weights={str(path)!r}."
        )
    return keras.models.load_model(path, compile=False)


def _hub_backbone(preset):
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            f"The weights of {preset!r} come from keras-hub, which is not installed: pip install 'tfprune[hub]'; "
            "or give the path of a file of weights; or use resnet50, whose weights come with Keras."
        ) from error
    return keras_hub.models.ResNetBackbone.from_preset(preset)
