"""Are images damaged as the source says, as much as asked, and the same way every time?"""

import io

import numpy as np
import pytest
import tensorflow as tf

from tfprune import corruptions
from tfprune.corruptions import CORRUPTIONS, corrupt

NAMES = sorted(CORRUPTIONS)
RANDOM = ["fog", "gaussian_noise", "impulse_noise", "motion_blur", "shot_noise"]


def smooth_images(count=6, height=32, width=32, channels=3):
    """Float images in [0, 1] that fall off from low to high frequencies, as photographs do."""
    rng = np.random.default_rng(7)
    y, x = np.linspace(0, np.pi, height)[:, None, None], np.linspace(0, np.pi, width)[None, :, None]
    images = np.zeros((count, height, width, channels))
    for across in range(12):
        for down in range(12):
            size = rng.normal(size=(count, 1, 1, channels)) / (1 + across**2 + down**2)
            images += size * np.cos(across * x) * np.cos(down * y)
    images -= images.min(axis=(1, 2, 3), keepdims=True)
    return (images / images.max(axis=(1, 2, 3), keepdims=True)).astype("float32")


def as_bytes(images):
    return np.round(images * 255).astype("uint8")


def flat(value, shape=(64, 64, 3)):
    return np.full(shape, value, "float32")


# --- each corruption, against numbers by hand or an independent reference --------------------------------------------


@pytest.mark.parametrize(("severity", "scale"), list(enumerate([0.04, 0.06, 0.08, 0.09, 0.10], start=1)))
def test_gaussian_noise_has_the_standard_deviation_of_its_severity(severity, scale):
    noise = corrupt(flat(0.5), "gaussian_noise", severity) - 0.5
    assert noise.std() == pytest.approx(scale, rel=0.03)
    assert abs(noise.mean()) < 4 * scale / np.sqrt(noise.size)


@pytest.mark.parametrize(("severity", "photons"), [(1, 500), (5, 50)])
def test_shot_noise_is_a_photon_count(severity, photons):
    noisy = corrupt(flat(0.3), "shot_noise", severity)
    np.testing.assert_allclose(noisy * photons, np.round(noisy * photons), atol=1e-3)
    assert noisy.mean() == pytest.approx(0.3, rel=0.02)
    assert noisy.var() == pytest.approx(0.3 / photons, rel=0.05)  # a Poisson count's variance is its mean


@pytest.mark.parametrize(("severity", "share"), [(1, 0.01), (5, 0.07)])
def test_impulse_noise_sets_its_share_of_values_half_to_black_and_half_to_white(severity, share):
    noisy = corrupt(flat(0.5, (128, 128, 3)), "impulse_noise", severity)
    assert set(np.unique(noisy)) == {0.0, 0.5, 1.0}
    assert np.mean(noisy != 0.5) == pytest.approx(share, rel=0.1)
    assert np.mean(noisy == 1) == pytest.approx(share / 2, rel=0.15)


def test_worst_defocus_is_the_mean_of_nine_mirrored_at_the_border():
    image = smooth_images(1)[0]
    mirrored = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    expected = sum(mirrored[i : i + 32, j : j + 32] for i in range(3) for j in range(3)) / 9
    np.testing.assert_allclose(corrupt(image, "defocus_blur", 5), expected, atol=1e-6)


def test_mildest_defocus_spreads_a_point_as_a_gaussian_of_three_taps():
    point = np.zeros((5, 5, 1), "float32")
    point[2, 2] = 1
    edge = np.exp(-1 / (2 * 0.4**2))  # beside a middle tap of 1
    taps = np.array([0, edge, 1, edge, 0]) / (1 + 2 * edge)
    np.testing.assert_allclose(corrupt(point, "defocus_blur", 1)[..., 0], np.outer(taps, taps), atol=1e-7)


@pytest.mark.parametrize(("severity", "radius", "sigma"), [(1, 6, 1.0), (5, 9, 2.5)])
def test_motion_blur_sums_shifted_images_along_imagemagicks_line(severity, radius, sigma):
    image, seed = smooth_images(1, height=20, width=24)[0], tf.constant([3, 4], tf.int64)
    angle = float(tf.random.stateless_uniform([], seed, -np.pi / 4, np.pi / 4))
    expected, total = np.zeros(image.shape), 0.0
    for step in range(2 * radius + 1):
        down, right = (int(np.ceil(step * slope - 0.5)) for slope in (np.sin(angle), np.cos(angle)))
        rows, columns = np.clip(np.arange(20) + down, 0, 19), np.clip(np.arange(24) + right, 0, 23)
        weight = np.exp(-(step**2) / (2 * sigma**2))
        expected, total = expected + weight * image[rows][:, columns], total + weight
    blurred = CORRUPTIONS["motion_blur"](tf.constant(image), severity, seed)
    np.testing.assert_allclose(blurred, expected / total, atol=1e-6)


def test_motion_blur_turns_by_up_to_45_degrees_from_image_to_image():
    ramp = np.broadcast_to(np.linspace(0, 1, 64, dtype="float32")[:, None, None], (40, 64, 64, 1))
    moved = (corrupt(ramp, "motion_blur", 5) - ramp)[:, 32, 32, 0] * 63  # rows, as the ramp rises by 1/63 a row
    farthest = 2.0  # the half Gaussian's mean step is about sigma * sqrt(2 / pi) = 2.0, times sin(45 degrees) = 1.4
    assert moved.min() < -0.5
    assert moved.max() > 0.5
    assert np.abs(moved).max() < farthest


def test_brightness_adds_to_the_largest_channel_and_keeps_hue_and_saturation():
    pixels = np.array([[[0.2, 0.4, 0.6], [0.0, 0.0, 0.0]], [[0.45, 0.9, 0.9], [1.0, 0.0, 0.0]]], "float32")
    # Value 0.6 -> 0.9 is a factor of 1.5; black becomes grey; 0.9 + 0.3 stops at 1; full red stays.
    expected = [[[0.3, 0.6, 0.9], [0.3, 0.3, 0.3]], [[0.5, 1.0, 1.0], [1.0, 0.0, 0.0]]]
    np.testing.assert_allclose(corrupt(pixels, "brightness", 5), expected, atol=1e-6)


def test_brightness_adds_to_grey_images_and_stops_at_white():
    image = np.array([[[0], [100]], [[200], [250]]], "uint8")
    # 0.1 * 255 = 25.5; 25.5 rounds to the even 26
    np.testing.assert_array_equal(corrupt(image, "brightness", 2)[..., 0], [[26, 126], [226, 255]])


def test_contrast_pulls_each_channel_to_its_own_mean():
    image = np.zeros((4, 4, 3), "float32")
    image[:2, :, 0] = 0.8  # mean 0.4
    image[..., 1] = 0.5  # flat
    image[0, 0, 2] = 1.0  # mean 1 / 16
    result = corrupt(image, "contrast", 5)
    np.testing.assert_allclose(result[:2, :, 0], 0.4 + 0.15 * 0.4, atol=1e-6)
    np.testing.assert_allclose(result[2:, :, 0], 0.4 - 0.15 * 0.4, atol=1e-6)
    np.testing.assert_allclose(result[..., 1], 0.5, atol=1e-6)
    assert result[0, 0, 2] == pytest.approx(1 / 16 + 0.15 * 15 / 16)


@pytest.mark.parametrize(("severity", "thickness"), list(enumerate([0.2, 0.5, 0.75, 1.0, 1.5], start=1)))
def test_fog_over_white_reaches_from_its_thickest_to_its_thinnest_place(severity, thickness):
    foggy = corrupt(flat(1, (2, 32, 32, 1)), "fog", severity)
    np.testing.assert_allclose(foggy.min(axis=(1, 2, 3)), 1 / (1 + thickness), rtol=1e-5)
    np.testing.assert_allclose(foggy.max(axis=(1, 2, 3)), 1, rtol=1e-6)


def test_fog_is_grey_and_cloudy_and_leaves_black_alone():
    foggy = corrupt(flat(0.5, (32, 32, 3)), "fog", 5)
    np.testing.assert_array_equal(foggy[..., 0], foggy[..., 2])
    shuffled = np.random.default_rng(0).permutation(foggy[..., 0].ravel()).reshape(32, 32)
    steps = [np.abs(np.diff(clouds, axis=axis)).mean() for clouds in (foggy[..., 0], shuffled) for axis in (0, 1)]
    assert max(steps[:2]) < 0.5 * min(steps[2:])
    np.testing.assert_array_equal(corrupt(flat(0, (8, 8, 1)), "fog", 5), 0)


def test_plasma_puts_new_points_at_the_mean_of_four_neighbours():
    """A decay so steep that only the first round adds anything: the second interpolates, on a map that wraps."""
    seed = tf.constant([5, 6], tf.int64)
    coarse = corruptions._plasma(2, 1e6, seed).numpy()
    fine = corruptions._plasma(4, 1e6, seed).numpy()
    np.testing.assert_allclose(fine[::2, ::2], coarse, atol=1e-5)
    np.testing.assert_allclose(fine[1::2, 1::2], coarse.mean(), atol=1e-5)
    beside = (coarse + coarse[:, ::-1]) / 4 + coarse.mean() / 2  # two old points, two middles
    np.testing.assert_allclose(fine[::2, 1::2], beside, atol=1e-5)
    np.testing.assert_allclose(fine[1::2, ::2], (coarse + coarse[::-1]) / 4 + coarse.mean() / 2, atol=1e-5)


def test_pixelate_4x4_to_2x2_takes_the_mean_of_each_block():
    image = np.arange(16, dtype="float32").reshape(4, 4, 1)
    blocks = np.array([[2.5, 4.5], [10.5, 12.5]])
    result = corrupt(image, "pixelate", 5, value_range=(0, 15))  # int(4 * 0.65) = 2
    np.testing.assert_allclose(result[..., 0], np.kron(blocks, np.ones((2, 2))), atol=1e-5)


def test_pixelate_4x4_to_3x3_merges_the_middle():
    row = np.array([0, 0.2, 0.6, 1], "float32")
    image = np.broadcast_to(row[None, :, None], (4, 4, 1))
    result = corrupt(image, "pixelate", 4)  # int(4 * 0.75) = 3
    np.testing.assert_allclose(result[..., 0], np.broadcast_to([0, 0.4, 0.4, 1], (4, 4)), atol=1e-6)


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.95, 0.9, 0.85, 0.75, 0.65], start=1)))
@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 37)])
def test_pixelate_agrees_with_pillow(severity, share, height, width):
    pillow = pytest.importorskip("PIL.Image")
    image = as_bytes(smooth_images(1, height, width)[0])
    small = pillow.fromarray(image).resize((int(width * share), int(height * share)), pillow.Resampling.BOX)
    expected = np.asarray(small.resize((width, height), pillow.Resampling.BOX)).astype(int)
    # Pillow rounds to whole numbers twice on the way.
    assert np.abs(corrupt(image, "pixelate", severity) - expected).max() <= 1


@pytest.mark.parametrize(("severity", "quality"), list(enumerate([80, 65, 58, 50, 40], start=1)))
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_agrees_with_pillow_at_the_same_quality(severity, quality, channels):
    pillow = pytest.importorskip("PIL.Image")
    image, file = as_bytes(smooth_images(1, channels=channels)[0]), io.BytesIO()
    pillow.fromarray(image if channels == 3 else image[..., 0]).save(file, "JPEG", quality=quality)
    expected = np.asarray(pillow.open(file)).astype(int).reshape(image.shape)
    difference = np.abs(corrupt(image, "jpeg_compression", severity) - expected)
    assert difference.mean() < 0.5
    assert np.abs(image - expected).mean() > 3 * difference.mean()


# --- what holds for every corruption ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_damage_rises_with_severity(name):
    images = smooth_images()
    losses = np.array([np.mean((corrupt(images, name, severity) - images) ** 2) for severity in range(6)])
    assert losses[0] == 0
    rises = np.diff(losses)
    if name == "motion_blur":  # severities 3 and 4 of the source are one picture; see the module's first lines
        assert losses[4] == pytest.approx(losses[3], rel=1e-5)
        rises = np.delete(rises, 3)
    assert np.all(rises > 0.01 * losses[-1])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_bytes_stay_bytes_and_agree_with_floats(name, channels):
    images = as_bytes(smooth_images(2, 17, 23, channels))
    damaged = corrupt(images, name, 4)
    assert damaged.dtype == np.uint8
    assert damaged.shape == images.shape
    in_floats = corrupt(images / np.float32(255), name, 4)
    np.testing.assert_allclose(damaged, in_floats * 255, atol=0.51)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", ["brightness", "gaussian_noise", "jpeg_compression"])
def test_floats_keep_dtype_and_range(name, dtype):
    images = (smooth_images(2, 9, 8) * 2 - 1).astype(dtype)
    damaged = corrupt(images, name, 5, value_range=(-1, 1))
    assert damaged.dtype == dtype
    assert damaged.min() >= -1
    assert damaged.max() <= 1
    expected = corrupt((images.astype("float32") + 1) / 2, name, 5) * 2 - 1
    # Half precision holds three digits; JPEG may round a value to the next of its 256 levels.
    np.testing.assert_allclose(damaged, expected, atol=2e-3 if name != "jpeg_compression" else 2e-2)


@pytest.mark.parametrize("name", NAMES)
def test_batching_and_kind_of_data_change_nothing(name):
    images = smooth_images(7, 12, 10)
    expected = corrupt(images, name, 3, seed=5)
    dataset = tf.data.Dataset.from_tensor_slices(images)
    one_by_one = np.stack(list(corrupt(dataset, name, 3, seed=5).as_numpy_iterator()))
    np.testing.assert_array_equal(one_by_one, expected)
    for pipeline in (dataset.batch(3), dataset.batch(7, drop_remainder=True)):
        batches = corrupt(pipeline, name, 3, seed=5)
        assert batches.element_spec == pipeline.element_spec
        assert batches.cardinality() == pipeline.cardinality()
        np.testing.assert_array_equal(np.concatenate(list(batches.as_numpy_iterator())), expected)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_are_known_only_when_read_change_nothing(name):
    images = [smooth_images(1, height, width)[0] for height, width in [(16, 16), (9, 21), (1, 1), (2, 3)]]
    spec = tf.TensorSpec([None, None, 3], tf.float32)
    pipeline = corrupt(tf.data.Dataset.from_generator(lambda: iter(images), output_signature=spec), name, 5)
    assert pipeline.element_spec == spec
    first, *others = list(pipeline.as_numpy_iterator())
    np.testing.assert_allclose(first, corrupt(images[0], name, 5), atol=1e-6)
    assert [other.shape for other in others] == [(9, 21, 3), (1, 1, 3), (2, 3, 3)]
    assert all(np.isfinite(other).all() for other in others)


@pytest.mark.parametrize("name", NAMES)
def test_runs_in_a_graph_as_it_runs_eagerly(name):
    image, seed = tf.constant(smooth_images(1)[0]), tf.constant([1, 2], tf.int64)
    graph = tf.function(lambda x, pair: CORRUPTIONS[name](x, 2, pair))
    graph = graph.get_concrete_function(tf.TensorSpec([None, None, 3]), tf.TensorSpec([2], tf.int64))
    np.testing.assert_allclose(graph(image, seed), CORRUPTIONS[name](image, 2, seed), atol=1e-6)


@pytest.mark.parametrize("name", RANDOM)
def test_seed_and_position_decide_and_nothing_else(name):
    images = np.repeat(smooth_images(1), 3, axis=0)
    first = corrupt(images, name, 3, seed=0)
    np.testing.assert_array_equal(corrupt(images, name, 3, seed=0), first)
    np.testing.assert_array_equal(corrupt(images[0], name, 3, seed=0), first[0])
    assert np.abs(first[0] - first[1]).max() > 0
    assert np.abs(corrupt(images, name, 3, seed=1) - first).max(axis=(1, 2, 3)).min() > 0
    pipeline = corrupt(tf.data.Dataset.from_tensor_slices(images), name, 3)
    for _ in range(2):
        np.testing.assert_array_equal(np.stack(list(pipeline.as_numpy_iterator())), first)


# --- what goes in, and what comes out beside the images --------------------------------------------------------------


def test_labels_and_weights_pass_through():
    images, labels = as_bytes(smooth_images(4)), np.arange(4)
    damaged, same_labels = corrupt((images, labels), "contrast")
    assert same_labels is labels
    pipeline = tf.data.Dataset.from_tensor_slices((images, labels, labels * 0.5)).batch(3)
    x, y, weights = (np.concatenate(part) for part in zip(*corrupt(pipeline, "contrast"), strict=True))
    np.testing.assert_array_equal(x, damaged)
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_array_equal(weights, labels * 0.5)


def test_severity_zero_gives_back_what_came():
    pair = smooth_images(2), np.arange(2)
    pipeline = tf.data.Dataset.from_tensor_slices(pair)
    assert corrupt(pair, "fog", 0) is pair
    assert corrupt(pipeline, "fog", 0) is pipeline


def test_arrays_are_left_as_they_were():
    images = smooth_images(2)
    before = images.copy()
    corrupt(images, "impulse_noise", 5)
    np.testing.assert_array_equal(images, before)


def test_no_images_give_no_images():
    assert corrupt(np.zeros((0, 8, 8, 3), "uint8"), "gaussian_noise").shape == (0, 8, 8, 3)


def test_own_function_is_called_with_images_in_the_unit_range_and_clipped():
    def invert(image, severity, seed):
        assert image.dtype == tf.float32
        return (1 - image) * severity

    images = np.array([[[[0]], [[51]], [[255]]]], "uint8")
    np.testing.assert_array_equal(corrupt(images, invert, 1)[0, :, 0, 0], [255, 204, 0])
    np.testing.assert_array_equal(corrupt(images, invert, 2)[0, :, 0, 0], [255, 255, 0])


@pytest.mark.parametrize("severity", [-1, 6, 2.0, True, "3"])
def test_unknown_severity_is_refused(severity):
    with pytest.raises(ValueError, match=r"integer from 0 \(unharmed\) to 5 \(worst\)\. Received: severity="):
        corrupt(smooth_images(1), "fog", severity)


def test_unknown_corruption_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"Received: 'snow'\. Expected one of 'gaussian_noise', .*'jpeg_compression'"):
        corrupt(smooth_images(1), "snow")


def test_seed_must_be_an_integer():
    with pytest.raises(TypeError, match=r"seed must be an integer\. Received: seed=0\.5"):
        corrupt(smooth_images(1), "fog", seed=0.5)


@pytest.mark.parametrize("shape", [(28, 28), (5, 28, 28), (5, 8, 8, 4), (1, 2, 8, 8, 3)])
def test_what_has_no_channel_axis_is_refused(shape):
    with pytest.raises(ValueError, match=r"Received: shape=.* pass x\[\.\.\., None\]"):
        corrupt(np.zeros(shape, "uint8"), "fog")
    with pytest.raises(ValueError, match=r"Received: shape=.* pass x\[\.\.\., None\]"):
        corrupt(tf.data.Dataset.from_tensors(np.zeros(shape, "uint8")), "fog")


def test_whole_numbers_other_than_bytes_are_refused():
    with pytest.raises(TypeError, match=r"uint8 or floats\. Received: int64"):
        corrupt(np.zeros((2, 8, 8, 3), "int64"), "fog")


def test_other_kinds_of_data_are_refused():
    with pytest.raises(TypeError, match="Received: list"):
        corrupt([smooth_images(1)], "fog")
    with pytest.raises(TypeError, match=r"a tf.data.Dataset of \{'image'.*dataset.map\(lambda d"):
        corrupt(tf.data.Dataset.from_tensors({"image": np.zeros((8, 8, 3)), "label": 1}), "fog")


@pytest.mark.parametrize("value", [-0.5, 1.5, np.nan])
def test_floats_outside_the_range_are_refused(value):
    images = smooth_images(2)
    images[1, 3, 3, 0] = value
    with pytest.raises(ValueError, match=r"value_range=\(0\.0, 1\.0\), the default .* Received the extremes"):
        corrupt(images, "contrast")
    pipeline = corrupt(tf.data.Dataset.from_tensor_slices(images).batch(2), "contrast")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"value_range=\(0\.0, 1\.0\), the default"):
        next(iter(pipeline))


@pytest.mark.parametrize("value_range", [(1, 0), (0, 1, 2), 1, (0, np.inf)])
def test_value_range_must_be_a_rising_pair(value_range):
    with pytest.raises(ValueError, match=r"pair \(black, white\), black < white"):
        corrupt(smooth_images(1), "fog", value_range=value_range)


def test_bytes_have_one_value_range():
    images = as_bytes(smooth_images(1))
    with pytest.raises(ValueError, match=r"uint8 images have value_range \(0, 255\)\. Received: \(0, 1\)"):
        corrupt(images, "fog", value_range=(0, 1))
    np.testing.assert_array_equal(corrupt(images, "fog", value_range=(0, 255)), corrupt(images, "fog"))
