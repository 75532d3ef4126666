"""What do images look like after a measured amount of damage?

Ten of the corruptions of CIFAR-10-C in five severities, as TensorFlow operations that run inside a `tf.data` pipeline.
The constants are those that Hendrycks & Dietterich chose for 32x32 pixels (`make_cifar_c.py` of the repository
hendrycks/robustness), for severity 1 to 5 on pixels in [0, 1]:

| name | what it does | severities 1 to 5 |
| --- | --- | --- |
| gaussian_noise | adds N(0, s²) | s = 0.04, 0.06, 0.08, 0.09, 0.10 |
| shot_noise | counts photons: Poisson(x n) / n | n = 500, 250, 100, 75, 50 |
| impulse_noise | sets a share p of the values to 0 or 1 | p = 0.01, 0.02, 0.03, 0.05, 0.07 |
| defocus_blur | disk of radius r, its edge blurred by s | (r, s) = (.3, .4), (.4, .5), (.5, .6), (1, .2), (1.5, .1) |
| motion_blur | half a Gaussian, 2r + 1 long, along a line | (r, s) = (6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5) |
| brightness | adds b to the value of HSV | b = 0.05, 0.1, 0.15, 0.2, 0.3 |
| contrast | scales the distance to each channel's mean by c | c = 0.75, 0.5, 0.4, 0.3, 0.15 |
| fog | adds t times plasma of decay d, then dims | (t, d) = (0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75) |
| pixelate | box-resizes to a share p of the size and back | p = 0.95, 0.9, 0.85, 0.75, 0.65 |
| jpeg_compression | encodes and decodes with quality q | q = 80, 65, 58, 50, 40 |

Where this differs from the files of CIFAR-10-C: the random numbers are TensorFlow's, so noise, angles and clouds are
other draws from the same distributions; uint8 images are rounded, not cut off, and float images are not quantised at
all, JPEG excepted; JPEG is TensorFlow's encoder, not Pillow's. As in CIFAR-10-C, the severities 3 and 4 of motion blur
are the same picture to seven digits: they share s = 2, and a kernel six s long has no tail left to lengthen. On images
much larger than 32x32 the same constants blur and pixelate less than those of ImageNet-C do.

Source: Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019, arXiv:1903.12261.
"""

import numbers

import numpy as np
import tensorflow as tf


def corrupt(data, corruption, severity=3, seed=0, value_range=None):
    """Returns the same images, damaged by one corruption; what stands beside them (labels, weights) is left alone.

    The randomness of an image hangs on `seed` and on its position in the data, on nothing else: batching, parallel
    calls and the kind of data do not change it, and the severities of one corruption share it. Data that is shuffled
    anew in each pass is therefore damaged anew in each pass: shuffle after `corrupt`, not before.

    Args:
        data: Images with a channel axis, grey (1) or colour (3), of any size: a NumPy array `(height, width,
            channels)` or `(images, height, width, channels)`, a tuple `(x, y, ...)` that begins with one, or a
            `tf.data.Dataset` of images or of such tuples, batched or not. uint8 or floating; shape and dtype are kept.
        corruption: One of the names in `CORRUPTIONS`, or a function `(image, severity, seed) -> image` of TensorFlow
            operations: `image` is float32 `(height, width, channels)` in [0, 1], `seed` a pair for `tf.random`'s
            stateless functions; what it returns is clipped to [0, 1].
        severity: Integer from 0 (nothing happens) to 5.
        seed: Integer.
        value_range: Pair of the values for black and for white, for example `(-1, 1)`. Default: `(0, 255)` for uint8,
            `(0, 1)` for floats. Never guessed: floats more than a thousandth of the range outside of it are an error.

    Returns:
        The same kind as `data`.

    Raises:
        ValueError: Unknown corruption or severity, images without a channel axis, floats outside `value_range` (from a
            `tf.data.Dataset`: `tf.errors.InvalidArgumentError`, once it is read).
        TypeError: Images that are neither uint8 nor floats, or data of another kind.

    Example:

    >>> foggy = tfprune.corruptions.corrupt(test_images, "fog", severity=3)
    >>> tfprune.evaluate(model, tfprune.corruptions.corrupt(dataset, "shot_noise", severity=5, value_range=(-1, 1)))

    Source: Hendrycks & Dietterich 2019, arXiv:1903.12261.
    """
    function = _function(corruption)
    _check_severity(severity)
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
        raise TypeError(f"seed must be an integer. Received: seed={seed!r}.")
    low, high = _value_range(value_range, _image_dtype(data))
    if severity == 0:
        return data

    def damage(images, first):
        return _damage(images, first, lambda image, pair: function(image, severity, pair), seed, low, high)

    if isinstance(data, tf.data.Dataset):
        return _damage_dataset(data, damage)
    if isinstance(data, tuple):
        return (_damage_array(data[0], damage, low, high), *data[1:])
    return _damage_array(data, damage, low, high)


def gaussian_noise(image, severity, seed):
    """Adds noise with standard deviation 0.04 to 0.10, to each value on its own."""
    scale = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return image + tf.random.stateless_normal(tf.shape(image), seed, stddev=scale)


def shot_noise(image, severity, seed):
    """Replaces each value by a photon count, 500 to 50 photons making white."""
    photons = (500.0, 250.0, 100.0, 75.0, 50.0)[severity - 1]
    return tf.random.stateless_poisson(tf.shape(image), seed, image * photons, dtype=image.dtype) / photons


def impulse_noise(image, severity, seed):
    """Sets 1 to 7 % of the values to 0 or 1, each channel on its own."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    hit, coin = tf.unstack(tf.random.stateless_uniform(tf.concat([[2], tf.shape(image)], axis=0), seed))
    return tf.where(hit < share, tf.cast(coin < 0.5, image.dtype), image)


def defocus_blur(image, severity, seed):
    """Convolves with a disk of radius 0.3 to 1.5 pixels; the image is mirrored at its borders."""
    radius, blur = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[severity - 1]
    kernel = _blurred_disk(radius, blur)
    margin = len(kernel) // 2
    rows, columns = (_mirrored(size, margin) for size in tf.unstack(tf.shape(image)[:2]))
    padded = tf.gather(tf.gather(image, rows), columns, axis=1)
    filters = tf.repeat(tf.constant(kernel[..., None, None], image.dtype), image.shape[-1], axis=2)
    return tf.nn.depthwise_conv2d(padded[None], filters, strides=[1, 1, 1, 1], padding="VALID")[0]


def motion_blur(image, severity, seed):
    """Averages along a line of random direction, within 45 degrees of the horizontal, with a one-sided Gaussian.

    The line and its weights are those of ImageMagick's motion blur; beyond the borders the outermost pixels go on.
    """
    radius, sigma = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[severity - 1]
    steps = np.arange(2 * radius + 1, dtype="float32")
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    angle = tf.random.stateless_uniform([], seed, -np.pi / 4, np.pi / 4)
    height, width = tf.unstack(tf.shape(image)[:2])
    rows, columns = (
        # (steps, size): which row (column) each step of the line reads for each pixel
        tf.clip_by_value(tf.range(size) + tf.cast(tf.math.ceil(steps * slope - 0.5), tf.int32)[:, None], 0, size - 1)
        for size, slope in ((height, tf.sin(angle)), (width, tf.cos(angle)))
    )
    shifted = tf.gather(tf.gather(image, rows), columns, axis=2, batch_dims=1)
    return tf.tensordot(tf.constant(weights / weights.sum()), shifted, axes=1)


def brightness(image, severity, seed):
    """Raises the value (V) of HSV by 0.05 to 0.3, the grey value of grey images."""
    rise = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    if image.shape[-1] == 1:
        return image + rise
    hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(image), axis=-1)
    return tf.image.hsv_to_rgb(tf.stack([hue, saturation, tf.minimum(value + rise, 1.0)], axis=-1))


def contrast(image, severity, seed):
    """Scales each value's distance to the mean of its channel by 0.75 to 0.15."""
    scale = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    mean = tf.reduce_mean(image, axis=(0, 1), keepdims=True)
    return mean + scale * (image - mean)


def fog(image, severity, seed):
    """Adds clouds, 0.2 to 1.5 thick, then scales back so that the brightest value possible stays the image's own."""
    thickness, decay = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))[severity - 1]
    height, width = tf.unstack(tf.shape(image)[:2])
    clouds = _plasma(tf.maximum(height, width), decay, seed)[:height, :width, None]
    brightest = tf.reduce_max(image)
    return (image + thickness * clouds) * brightest / (brightest + thickness)


def pixelate(image, severity, seed):
    """Shrinks the image to 95 to 65 % of its height and width and enlarges it again, both with a box filter."""
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    there_and_back = []
    for size in tf.unstack(tf.shape(image)[:2]):
        # float64, as 0.95 * 20 must come to 19
        small = tf.maximum(tf.cast(tf.cast(size, tf.float64) * share, tf.int32), 1)
        there_and_back.append(tf.matmul(_box(size, small), _box(small, size)))
    return tf.einsum("yr,xc,rck->yxk", *there_and_back, image)


def jpeg_compression(image, severity, seed):
    """Encodes as JPEG with quality 80 to 40 and decodes again; values come back as multiples of 1/255."""
    quality = (80, 65, 58, 50, 40)[severity - 1]
    encoded = tf.io.encode_jpeg(tf.cast(tf.round(image * 255), tf.uint8), quality=quality)
    decoded = tf.io.decode_jpeg(encoded, channels=image.shape[-1], dct_method="INTEGER_ACCURATE")
    return tf.cast(decoded, image.dtype) / 255


# name -> function (image in [0, 1], severity from 1 to 5, seed) -> image
CORRUPTIONS = {
    function.__name__: function
    for function in (
        *(gaussian_noise, shot_noise, impulse_noise, defocus_blur, motion_blur),
        *(brightness, contrast, fog, pixelate, jpeg_compression),
    )
}


def _function(corruption):
    if callable(corruption):
        return corruption
    if corruption not in CORRUPTIONS:
        raise ValueError(
            f"Unknown corruption. Received: {corruption!r}. Expected one of {', '.join(map(repr, CORRUPTIONS))}, "
            "or a function (image, severity, seed) -> image."
        )
    return CORRUPTIONS[corruption]


def _check_severity(severity):
    whole = isinstance(severity, numbers.Integral) and not isinstance(severity, bool)
    if not whole or not 0 <= severity <= 5:
        raise ValueError(
            f"severity must be an integer from 0 (unharmed) to 5 (worst). Received: severity={severity!r}."
        )


def _image_dtype(data):
    """Returns the dtype of the images, which stand alone or first in a tuple; refuses what are no images."""
    from_pipeline = isinstance(data, tf.data.Dataset)
    images = data.element_spec if from_pipeline else data
    images = images[0] if isinstance(images, tuple) and images else images
    known = (
        isinstance(images, tf.TensorSpec) if from_pipeline else hasattr(images, "shape") and hasattr(images, "dtype")
    )
    if not known:
        raise TypeError(
            "data must be an array of images, a tuple (x, y, ...) that begins with one, or a tf.data.Dataset of images "
            f"or such tuples. Received: {f'a tf.data.Dataset of {images}' if from_pipeline else type(images).__name__}."
            " A pipeline of dictionaries becomes one of tuples by dataset.map(lambda d: (d['image'], d['label']))."
        )
    shape, dtype = tf.TensorShape(images.shape), tf.as_dtype(images.dtype)
    if shape.rank not in (3, 4) or shape[-1] not in (1, 3):
        raise ValueError(
            "Images must be (height, width, channels), or (images, height, width, channels) in a batch, with 1 or 3 "
            f"channels. Received: shape={shape}. For grey images without a channel axis pass x[..., None]."
        )
    if dtype != tf.uint8 and not dtype.is_floating:
        raise TypeError(f"Images must be uint8 or floats. Received: {dtype.name}. Convert them with astype.")
    return dtype


def _value_range(value_range, dtype):
    default = (0, 255) if dtype == tf.uint8 else (0, 1)
    pair = np.ravel(default if value_range is None else value_range).astype(float)
    if pair.shape != (2,) or not -np.inf < pair[0] < pair[1] < np.inf:
        raise ValueError(f"value_range must be a pair (black, white), black < white. Received: {value_range!r}.")
    if dtype == tf.uint8 and tuple(pair) != default:
        raise ValueError(f"uint8 images have value_range (0, 255). Received: {value_range!r}.")
    return tuple(pair.tolist())


def _out_of_range(low, high):
    return (
        f"Images must lie in value_range={(low, high)}, the default for floats being (0, 1). Pass the range that the "
        "images were scaled to, for example value_range=(-1, 1). Received the extremes:"
    )


def _inside(images, low, high):
    """Returns the images of a pipeline, which fails where a value is not a number or clearly out of range."""
    if images.dtype == tf.uint8:
        return images
    margin = 1e-3 * (high - low)
    least, most = (tf.cast(find(images), tf.float32) for find in (tf.reduce_min, tf.reduce_max))
    # An empty batch has the extremes (inf, -inf), which pass.
    fine = (least >= low - margin) & (most <= high + margin)
    with tf.control_dependencies([tf.debugging.Assert(fine, [_out_of_range(low, high), least, most])]):
        return tf.identity(images)


def _damage(images, first, function, seed, low, high):
    """Damages one image, or a batch of them; `first` is the (first) image's position in the data."""
    images = _inside(images, low, high)

    def one(image, position):
        unit = tf.clip_by_value((tf.cast(image, tf.float32) - low) / (high - low), 0.0, 1.0)
        damaged = function(unit, tf.stack([tf.constant(seed, tf.int64), position]))
        damaged = tf.clip_by_value(damaged, 0.0, 1.0) * (high - low) + low
        damaged = tf.round(damaged) if image.dtype == tf.uint8 else damaged
        return tf.ensure_shape(tf.cast(damaged, image.dtype), image.shape)

    if images.shape.rank == 3:
        return one(images, first)
    positions = first + tf.range(tf.shape(images, out_type=tf.int64)[0])
    signature = tf.TensorSpec(images.shape[1:], images.dtype)
    return tf.map_fn(lambda pair: one(*pair), (images, positions), fn_output_signature=signature)


def _damage_dataset(dataset, damage):
    in_tuple = isinstance(dataset.element_spec, tuple)

    def number(first, element):
        images = element[0] if in_tuple else element
        count = tf.shape(images, out_type=tf.int64)[0] if images.shape.rank == 4 else tf.constant(1, tf.int64)
        return first + count, (first, element)

    def replace(first, element):
        return (damage(element[0], first), *element[1:]) if in_tuple else damage(element, first)

    # Counting goes in order, the work behind it in parallel.
    numbered = dataset.scan(tf.constant(0, tf.int64), number)
    return numbered.map(replace, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _damage_array(images, damage, low, high):
    images = np.asarray(images)
    margin = 1e-3 * (high - low)
    if images.size and not (images.min() >= low - margin and images.max() <= high + margin):
        raise ValueError(f"{_out_of_range(low, high)} {images.min()}, {images.max()}.")
    if images.ndim == 3:
        return _damage_array(images[None], damage, low, high)[0]
    damaged, filled = np.empty_like(images), 0
    for batch in _damage_dataset(tf.data.Dataset.from_tensor_slices(images).batch(64), damage):
        damaged[filled : filled + len(batch)] = batch
        filled += len(batch)
    return damaged


def _blurred_disk(radius, blur):
    """Returns the (5, 5) kernel of a disk, the pixels whose centres it covers, blurred by a Gaussian of three taps."""
    axis = np.arange(-2, 3)
    kernel = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(float)
    taps = np.exp(-np.array([1, 0, 1]) / (2 * blur**2))
    for along in (0, 1):
        kernel = np.apply_along_axis(np.convolve, along, kernel, taps, mode="same")
    return kernel / kernel.sum()


def _mirrored(size, margin):
    """Returns the indices of an axis with a margin on both sides, mirrored about its first and its last pixel."""
    period = tf.maximum(2 * (size - 1), 1)
    folded = tf.abs(tf.range(-margin, size + margin)) % period
    return tf.minimum(folded, period - folded)


def _box(new, old):
    """Returns the matrix (new, old) that resizes an axis with a box filter, as Pillow's BOX does.

    A new pixel is the mean of the old ones whose centres it covers, or, in enlarging, the old one that covers it.
    """
    new, old = tf.cast(new, tf.float64), tf.cast(old, tf.float64)
    scale = old / new
    centre = (tf.range(new) + 0.5) * scale
    distance = (tf.range(old) + 0.5 - centre[:, None]) / tf.maximum(scale, 1.0)
    covered = tf.cast((distance > -0.5) & (distance <= 0.5), tf.float32)
    return covered / tf.reduce_sum(covered, axis=1, keepdims=True)


def _plasma(size, decay, seed):
    """Returns a square of clouds in [0, 1] by the diamond-square algorithm, its side the power of two above `size`.

    The map wraps around. Each round doubles it: the new points are the mean of the four nearest old ones plus a
    uniform number, whose spread falls by decay² from round to round.
    """

    def double(corners, spread, seed):
        side = tf.shape(corners)[0]
        drawn = tf.random.stateless_uniform(tf.stack([3, side, side]), seed, -1.0, 1.0) * spread
        beside, below = tf.roll(corners, -1, axis=1), tf.roll(corners, -1, axis=0)
        middle = (corners + beside + below + tf.roll(below, -1, axis=1)) / 4 + drawn[0]
        top = (corners + beside + middle + tf.roll(middle, 1, axis=0)) / 4 + drawn[1]
        left = (corners + below + middle + tf.roll(middle, 1, axis=1)) / 4 + drawn[2]
        doubled = tf.stack([tf.stack([corners, top], axis=2), tf.stack([left, middle], axis=2)], axis=1)
        return (
            tf.reshape(doubled, [2 * side, 2 * side]),
            spread / decay**2,
            tf.random.fold_in(seed, tf.cast(side, seed.dtype)),
        )

    clouds, _, _ = tf.while_loop(
        lambda corners, spread, seed: tf.shape(corners)[0] < size,
        double,
        (tf.zeros([1, 1]), tf.constant(1.0), tf.convert_to_tensor(seed)),
        shape_invariants=(tf.TensorShape([None, None]), tf.TensorShape([]), tf.TensorShape([2])),
    )
    clouds -= tf.reduce_min(clouds)
    return tf.math.divide_no_nan(clouds, tf.reduce_max(clouds))
