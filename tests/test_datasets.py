"""Does every data set come as the paper split it, the same every time?"""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import make_moons
from sklearn.model_selection import train_test_split

from tfprune import datasets


def test_moons_are_the_papers_points_and_splits():
    x, y = make_moons(1000, noise=0.2, random_state=42)
    x_train, x_rest, _, y_rest = train_test_split(x, y, test_size=300, random_state=42)
    x_validation, x_test, _, y_test = train_test_split(x_rest, y_rest, test_size=150, random_state=42)
    data = datasets.moons()
    np.testing.assert_allclose(data.train[0], x_train.astype("float32"))
    np.testing.assert_allclose(data.validation[0], x_validation.astype("float32"))
    np.testing.assert_allclose(data.test[0], x_test.astype("float32"))
    np.testing.assert_array_equal(data.test[1], y_test)
    assert [len(split[0]) for split in (data.train, data.validation, data.test)] == [700, 150, 150]


def test_far_points_are_far_from_every_training_point_and_the_same_every_time():
    data = datasets.moons()
    far = data.ood["far"]
    distances = np.linalg.norm(far[:, None] - data.train[0][None], axis=-1)
    assert far.shape == (500, 2)
    assert distances.min() > 1.0
    np.testing.assert_array_equal(far, datasets.moons().ood["far"])


def test_digits_are_split_without_overlap_and_scaled_to_one():
    data = datasets.digits()
    sizes = [len(split[0]) for split in (data.train, data.validation, data.test)]
    assert sum(sizes) == 1797
    assert data.train[0].shape[1:] == data.input_shape == (8, 8, 1)
    assert data.train[0].min() == 0
    assert data.train[0].max() == 1
    assert set(data.test[1]) == set(range(data.num_classes))


def test_shuffled_digits_keep_each_images_grey_values_but_not_their_places():
    data = datasets.digits()
    shuffled, test = data.ood["shuffled"], data.test[0]
    np.testing.assert_allclose(np.sort(shuffled.reshape(len(test), -1)), np.sort(test.reshape(len(test), -1)))
    assert np.abs(shuffled - test).mean() > 0.1


def test_photos_are_real_pieces_at_the_size_of_a_digit():
    photos = datasets.digits().ood["photos"]
    assert photos.shape == datasets.digits().test[0].shape
    assert (photos.min() >= 0, photos.max() <= 1) == (True, True)
    assert len(np.unique(photos, axis=0)) == len(photos)
    smooth = np.abs(np.diff(photos, axis=1)).mean()  # neighbours in a photograph are alike
    assert smooth < 0.5 * np.abs(np.diff(datasets.digits().ood["shuffled"], axis=1)).mean()
    np.testing.assert_array_equal(photos, datasets.digits().ood["photos"])


def test_noise_of_the_noisy_line_grows_along_it():
    data = datasets.noisy_line()
    assert [len(x) for x, _ in (data.train, data.validation, data.test)] == [700, 150, 150]
    assert data.num_classes is None
    x, y = (np.concatenate(parts) for parts in zip(data.train, data.validation, data.test, strict=True))
    noise = (y - 2 * x) / (0.1 + 0.4 * x)
    assert x.shape == y.shape == (1000, 1)
    assert abs(noise.mean()) < 0.1
    for half in (x < 0.5, x >= 0.5):
        assert 0.93 < noise[half].std() < 1.07


def test_full_batch_gives_the_whole_split_again_and_again():
    split = datasets.moons().train
    for x, y in datasets.as_full_batch(split).take(2):
        np.testing.assert_array_equal(x, split[0])
        np.testing.assert_array_equal(y, split[1])


@pytest.mark.parametrize(
    ("num_examples", "splits"),
    [
        (None, ["train[:45000]", "train[45000:50000]", "test[:10000]", "test[:10000]"]),
        (7000, ["train[:7000]", "train[45000:50000]", "test[:7000]", "test[:7000]"]),
        (99_999, ["train[:45000]", "train[45000:50000]", "test[:10000]", "test[:10000]"]),
    ],
)
def test_cifar10_scales_pixels_and_reads_no_more_than_is_asked_for(monkeypatch, num_examples, splits):
    asked = []

    def load(name, split, batch_size):
        asked.append((name, split))
        image = np.array([0, 255], "uint8").reshape(2, 1, 1, 1) * np.ones((1, 32, 32, 3), "uint8")
        return {"image": tf.constant(image), "label": tf.constant([3, 7])}

    monkeypatch.setattr("tensorflow_datasets.load", load)
    data = datasets.cifar10(num_examples)
    assert asked == list(zip(["cifar10", "cifar10", "cifar10", "cifar100"], splits, strict=True))
    assert data.train[0].dtype == np.float32
    assert (data.train[0].min(), data.train[0].max()) == (-1, 1)
    assert list(data.test[1]) == [3, 7]
    assert data.ood["cifar100"].shape == (2, 32, 32, 3)


def load_of(images):
    return lambda *_, **__: {"image": tf.constant(images), "label": tf.range(len(images))}


def test_grey_images_are_brought_to_the_shape_of_cifar10(monkeypatch):
    grey = np.arange(2 * 28 * 28).reshape(2, 28, 28, 1).astype("uint8")
    monkeypatch.setattr("tensorflow_datasets.load", load_of(grey))
    x, y = datasets.images("mnist")
    assert (x.shape, x.dtype, y.tolist()) == ((2, 32, 32, 3), np.float32, [0, 1])
    np.testing.assert_array_equal(x[..., 0], x[..., 2])
    same, _ = datasets.images("mnist", shape=(28, 28, 1))
    np.testing.assert_allclose(same, grey / 127.5 - 1, atol=1e-6)
    assert x.mean() == pytest.approx(same.mean(), abs=0.01)  # resizing keeps the brightness


def test_coloured_images_are_averaged_where_grey_is_asked_for(monkeypatch):
    colour = np.zeros((1, 8, 8, 3), "uint8") + np.array([0, 51, 255], "uint8")
    monkeypatch.setattr("tensorflow_datasets.load", load_of(colour))
    np.testing.assert_allclose(datasets.images("x", shape=(8, 8, 1))[0], np.full((1, 8, 8, 1), -0.2), atol=1e-6)


def test_images_refuses_two_channels():
    with pytest.raises(ValueError, match=r"1 or 3 channels\. Received: shape=\(8, 8, 2\)"):
        datasets.images("mnist", shape=(8, 8, 2))


@pytest.mark.tfds("fashion_mnist")
def test_real_images_of_another_data_set_fit_a_cifar10_model():
    x, y = datasets.images("fashion_mnist")
    assert x.shape == (10000, 32, 32, 3)
    assert (x.min(), x.max()) == (-1, 1)
    assert np.bincount(y).tolist() == [1000] * 10


def test_missing_images_are_refused_with_what_to_do(monkeypatch):
    def load(*_, **__):
        raise OSError("no route to host\nsecond line")

    monkeypatch.setattr("tensorflow_datasets.load", load)
    with pytest.raises(ValueError, match=r"could not get 'cifar10' \(OSError: no route to host\).*TFDS_DATA_DIR"):
        datasets.cifar10()


def test_get_takes_names_functions_and_data_sets():
    data = datasets.get("moons")
    assert datasets.get(data) is data
    assert datasets.get(lambda: data) is data
    assert datasets.get("moons") is not None


@pytest.mark.parametrize("batch_size", [None, 64])
def test_splits_of_tf_data_are_read_into_memory(batch_size):
    import tensorflow as tf

    data, calls = datasets.moons(), []

    def piped():
        calls.append(1)
        pipe = {name: tf.data.Dataset.from_tensor_slices(getattr(data, name)) for name in ("train", "test")}
        far = tf.data.Dataset.from_tensor_slices(data.ood["far"])
        parts = {**pipe, "validation": data.validation}
        if batch_size:
            parts, far = {**parts, **{name: pipe[name].batch(batch_size) for name in pipe}}, far.batch(batch_size)
        return datasets.Dataset("piped", **parts, ood={"far": far}, num_classes=2, input_shape=(2,))

    found = datasets.get(piped)
    assert datasets.get(piped) is found
    assert len(calls) == 1
    for name in ("train", "validation", "test"):
        for now, then in zip(getattr(found, name), getattr(data, name), strict=True):
            np.testing.assert_array_equal(now, then)
            assert now.dtype == then.dtype
    np.testing.assert_array_equal(found.ood["far"], data.ood["far"])


def test_tf_data_without_end_is_refused():
    data = datasets.moons()
    endless = datasets.Dataset(**{**vars(data), "train": datasets.as_full_batch(data.train)})
    with pytest.raises(ValueError, match=r"The tf.data.Dataset of 'train' has no end. Pass it without repeat"):
        datasets.get(endless)


def test_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match=r"Unknown data set. Received: 'mnist'. Expected one of 'moons'"):
        datasets.get("mnist")


def test_function_that_returns_no_data_set_is_refused():
    with pytest.raises(TypeError, match=r"must return a tfprune.datasets.Dataset. Received: tuple"):
        datasets.get(lambda: (1, 2))
