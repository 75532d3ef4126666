"""Which data can tfprune's studies run on?

Every loader returns a `Dataset`: NumPy splits that `model.fit` and `tfprune.evaluate` both take as they are, and
out-of-distribution (OOD) sets that hold inputs only. Nothing here is drawn at random without a fixed seed.
"""

import dataclasses
import functools
import uuid
from collections.abc import Callable

import numpy as np

from tfprune import pointers


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The splits of one data set, with what a model must know to fit them.

    Args:
        name: Name of the data set, as the results write it.
        train, validation, test: Pairs `(x, y)` of NumPy arrays; `x` is float32, `y` holds integer classes, or numbers
            to predict, (samples,) or (samples, targets).
        ood: `{name: x}`, inputs that belong to none of the classes; empty where there are none.
        num_classes: Number of classes; None where `y` holds numbers to predict.
        input_shape: Shape of one example, without the batch axis.
        value_range: The values that stand for black and for white in images, for `tfprune.corruptions`. Default (0, 1).

    Example:

    >>> data = tfprune.datasets.moons()
    >>> data.train[0].shape, data.input_shape, data.num_classes
    ((700, 2), (2,), 2)
    """

    name: str
    train: tuple
    validation: tuple
    test: tuple
    ood: dict
    num_classes: int | None
    input_shape: tuple
    value_range: tuple = (0, 1)


def as_full_batch(split):
    """Returns a split `(x, y)` as a `tf.data.Dataset` that repeats it as one batch, for small sets.

    In `fit` an epoch of it takes a tenth of the time that NumPy arrays take, because no iterator is made anew. It has
    no end: pass `steps_per_epoch=1`, `validation_steps=1` and `shuffle=False` beside it.

    Args:
        split: Pair `(x, y)` of arrays of equal length.

    Example:

    >>> train, validation = as_full_batch(data.train), as_full_batch(data.validation)
    >>> model.fit(train, steps_per_epoch=1, validation_data=validation, validation_steps=1, shuffle=False, epochs=100)
    """
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(tuple(split)).repeat()


def moons():
    """Returns scikit-learn's two moons as the paper uses them, with points far from both as OOD set "far".

    1,000 points with noise 0.2, split 700/150/150; the points and both splits with random_state 42, features as drawn.
    "far" is ours, the paper has none: 500 points, uniform in the box [-5, 6] x [-5, 5.5], none of them within 1.0 of a
    training point, drawn with seed 42.

    Example:

    >>> data = tfprune.datasets.moons()
    >>> model.fit(*data.train, validation_data=data.validation)
    """
    from sklearn.datasets import make_moons

    x, y = make_moons(n_samples=1000, noise=0.2, random_state=42)
    train, validation, test = _split_70_15_15(x.astype("float32"), y.astype("int32"))
    far = _far_points(train[0], num_points=500, low=(-5.0, -5.0), high=(6.0, 5.5), distance=1.0)
    return Dataset("moons", train, validation, test, {"far": far}, num_classes=2, input_shape=(2,))


def digits():
    """Returns scikit-learn's 1,797 handwritten digits, 8x8 grey values in [0, 1], split 70/15/15; needs no download.

    Two OOD sets: "shuffled", the test images with the pixels of each in a random order, the same grey values but no
    digit; and "photos", pieces of scikit-learn's two photographs at the size of a digit.

    Example:

    >>> tfprune.datasets.digits().input_shape
    (8, 8, 1)
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    x = (raw.images[..., None] / 16.0).astype("float32")
    train, validation, test = _split_70_15_15(x, raw.target.astype("int32"))
    pixels = np.random.default_rng(42).permuted(test[0].reshape(len(test[0]), -1), axis=1)
    ood = {"shuffled": pixels.reshape(test[0].shape), "photos": _pieces_of_photos(len(test[0]), 8, zoom=8)}
    return Dataset("digits", train, validation, test, ood, num_classes=10, input_shape=(8, 8, 1))


def noisy_line():
    """Returns points along the line y = 2 x whose noise grows with x: a regression whose uncertainty can be right.

    1,000 points, x uniform in [0, 1], noise normal with the standard deviation 0.1 + 0.4 x, drawn with seed 42 and
    split 700/150/150. The paper's linear regression with sigma = m x + c, with m and c of ours.

    Example:

    >>> data = tfprune.datasets.noisy_line()
    >>> data.num_classes is None, data.train[1].shape
    (True, (700, 1))
    """
    random = np.random.default_rng(42)
    x = random.uniform(size=(1000, 1))
    y = 2 * x + (0.1 + 0.4 * x) * random.normal(size=x.shape)
    x, y = x.astype("float32"), y.astype("float32")
    splits = [(x[start:stop], y[start:stop]) for start, stop in ((0, 700), (700, 850), (850, 1000))]
    return Dataset("noisy_line", *splits, {}, num_classes=None, input_shape=(1,))


def cifar10(num_examples=None):
    """Returns CIFAR-10 (Krizhevsky 2009), pixels in [-1, 1], split 45,000/5,000/10,000.

    CIFAR-100's test set is its OOD set. Both are read through tensorflow_datasets, which downloads them once or finds
    them in the folder that TFDS_DATA_DIR names. The validation split is the last 5,000 training images, the same
    every time.

    Args:
        num_examples: Most images of each split, the first ones, for a quick look. Default None: all.

    Raises:
        ValueError: tensorflow_datasets cannot get the data.

    Example:

    >>> data = tfprune.datasets.cifar10()
    >>> data.train[0].shape
    (45000, 32, 32, 3)
    """
    size = 45_000 if num_examples is None else min(num_examples, 45_000)  # only these are read and decoded
    names = (f"train[:{size}]", f"train[45000:{45_000 + min(size, 5000)}]", f"test[:{min(size, 10_000)}]")
    train, validation, test = (_images("cifar10", split) for split in names)
    ood = {"cifar100": _images("cifar100", names[2])[0]}
    return Dataset("cifar10", train, validation, test, ood, 10, input_shape=(32, 32, 3), value_range=(-1, 1))


def images(name, split="test", shape=(32, 32, 3)):
    """Returns `(x, y)` of any image data set of tensorflow_datasets, scaled as CIFAR-10 is here, for use as OOD set.

    Pixels go from [0, 255] to [-1, 1]. Images of another size are resized (bilinear, antialiased); grey ones get three
    equal channels, coloured ones are averaged where one channel is asked for.

    Args:
        name: Name of the data set, such as "mnist"; it must hold "image" and "label".
        split: Split, in the words of tensorflow_datasets.
        shape: (height, width, channels) of the images to return, with 1 or 3 channels.

    Returns:
        float32 images (samples, *shape), and int32 labels (samples,).

    Raises:
        ValueError: tensorflow_datasets cannot get the data, or `shape` has another number of channels.

    Example:

    >>> strangers, _ = tfprune.datasets.images("fashion_mnist")
    >>> tfprune.evaluate(model, data.test, ood={"fashion_mnist": strangers})
    """
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise ValueError(f"shape must be (height, width, channels) with 1 or 3 channels. Received: shape={shape}.")
    x, y = _images(name, split)
    if x.shape[1:3] != tuple(shape[:2]):
        import tensorflow as tf

        x = tf.image.resize(x, shape[:2], antialias=True).numpy()
    if shape[2] < x.shape[3]:
        x = x.mean(axis=3, keepdims=True)
    return np.repeat(x, shape[2] // x.shape[3], axis=3), y


DATASETS = {"moons": moons, "digits": digits, "noisy_line": noisy_line, "cifar10": cifar10}


def from_tfds(name):
    """Returns an image classification set of tensorflow_datasets, scaled to [-1, 1], without OOD sets.

    Args:
        name: Name in tensorflow_datasets, such as "fashion_mnist". Its "train" and "test" splits are used; the
            validation set is its "validation" split, or the last tenth of "train" where there is none.

    Raises:
        ValueError: It cannot be had, has no such splits, or holds no images with labels.

    Example:

    >>> data = from_tfds("fashion_mnist")
    """
    splits = _tfds_splits(name)
    missing = {"train", "test"} - splits
    if missing:
        raise ValueError(
            f"{name!r} of tensorflow_datasets has no split {' and '.join(sorted(missing))}. Received: splits "
            f"{', '.join(sorted(splits))}. Expected 'train' and 'test'; a function that returns a Dataset will do, too."
        )
    whole = "validation" in splits
    train = _images(name, "train" if whole else "train[:90%]")
    validation = _images(name, "validation" if whole else "train[90%:]")
    test = _images(name, "test")
    return Dataset(name, train, validation, test, {}, int(train[1].max()) + 1, train[0].shape[1:], (-1, 1))


def _tfds_splits(name):
    import tensorflow_datasets as tfds

    try:
        return set(tfds.builder(name).info.splits)
    except Exception as error:  # an unknown name, or no network to ask for it
        raise ValueError(
            f"tensorflow_datasets has no {name!r} ({type(error).__name__}: {_first_line(error)}). Expected the name of "
            "one of its image classification sets."
        ) from error


def get(dataset):
    """Returns the `Dataset` that a name, or a function without arguments, stands for.

    Its splits and OOD sets may be `tf.data.Dataset`s, batched or not: they are read into memory, once.

    Args:
        dataset: A name in `DATASETS`, "tfds:NAME" (see `from_tfds`), "module:function", a `Dataset`, or a function
            that returns one.

    Raises:
        ValueError: Unknown name, or a `tf.data.Dataset` without end.
        TypeError: The function returned something else.

    Example:

    >>> tfprune.datasets.get("moons").num_classes
    2
    """
    return _in_memory(dataset) if isinstance(dataset, Dataset) else _load(dataset)


def loader(dataset):
    """Returns the function that loads a data set, without calling it.

    Args:
        dataset: A name in `DATASETS`, "tfds:NAME", "module:function", or a function that returns a `Dataset`.

    Raises:
        ValueError: Unknown name.
        TypeError: The `Dataset` itself.

    Example:

    >>> tfprune.datasets.loader("moons")().name
    'moons'
    """
    if callable(dataset):
        return dataset
    if isinstance(dataset, Dataset):
        raise TypeError(
            f"A study takes a function that returns its data, so that every process can load them. Received: the "
            f"Dataset {dataset.name!r} itself. Pass `lambda: data`, or a function of a module to resume by name."
        )
    if dataset in DATASETS:
        return DATASETS[dataset]
    if str(dataset).startswith("tfds:"):
        return functools.partial(from_tfds, dataset.removeprefix("tfds:"))
    if ":" in str(dataset):
        return pointers.follow(dataset)
    raise ValueError(
        f"Unknown data set. Received: {dataset!r}. Expected one of {', '.join(map(repr, DATASETS))}, 'tfds:NAME', "
        "'module:function', or a function that returns a tfprune.datasets.Dataset."
    )


@dataclasses.dataclass(frozen=True)
class Shared:
    """A function that loads data, and that is known to be the same one each time it comes to another process.

    The processes of a study then load its data once, not once a trial.

    Args:
        function: Function that returns a `Dataset`.
        mark: What its copies have in common; a new random text by default.

    Example:

    >>> shared = Shared(my_data)
    >>> pickle.loads(pickle.dumps(shared)) == shared
    True
    """

    function: Callable = dataclasses.field(compare=False)
    mark: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)

    def __call__(self):
        """Calls the function."""
        return self.function()


@functools.lru_cache(maxsize=1)
def _load(dataset):
    # A study asks for the same data in every trial; CIFAR-10 takes seconds and 0.9 GB, so one set is kept, no more.
    data = loader(dataset)()
    if not isinstance(data, Dataset):
        raise TypeError(f"A data set function must return a tfprune.datasets.Dataset. Received: {type(data).__name__}.")
    return _in_memory(data)


def _in_memory(data):
    """The data set with NumPy arrays in the place of each `tf.data.Dataset`."""
    names = ("train", "validation", "test")
    splits = {name: getattr(data, name) for name in names if hasattr(getattr(data, name), "as_numpy_iterator")}
    ood = {name: x for name, x in data.ood.items() if hasattr(x, "as_numpy_iterator")}
    if not splits and not ood:
        return data
    read = {name: _arrays(split, name, data.input_shape) for name, split in splits.items()}
    strangers = {name: _arrays(x, name, data.input_shape) for name, x in ood.items()}
    strangers = {name: x[0] if isinstance(x, tuple) else x for name, x in strangers.items()}
    return dataclasses.replace(data, **read, ood={**data.ood, **strangers})


def _arrays(dataset, name, input_shape):
    """A `tf.data.Dataset` of `x` or `(x, y)` as arrays."""
    if int(dataset.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError(f"The tf.data.Dataset of '{name}' has no end. Pass it without repeat().")
    elements = list(dataset.as_numpy_iterator())
    pairs = isinstance(elements[0], tuple)
    is_batched = np.ndim(elements[0][0] if pairs else elements[0]) > len(input_shape)
    join = np.concatenate if is_batched else np.stack
    return tuple(map(join, zip(*elements, strict=True))) if pairs else join(elements)


def _split_70_15_15(x, y):
    from sklearn.model_selection import train_test_split

    x_train, x_rest, y_train, y_rest = train_test_split(x, y, test_size=0.3, random_state=42)
    x_validation, x_test, y_validation, y_test = train_test_split(x_rest, y_rest, test_size=0.5, random_state=42)
    return (x_train, y_train), (x_validation, y_validation), (x_test, y_test)


def _far_points(x, num_points, low, high, distance):
    rng = np.random.default_rng(42)
    kept = np.empty((0, x.shape[1]), "float32")
    while len(kept) < num_points:
        points = rng.uniform(low, high, size=(2 * num_points, x.shape[1])).astype("float32")
        nearest = np.min(np.linalg.norm(points[:, None] - x[None], axis=-1), axis=1)
        kept = np.concatenate([kept, points[nearest > distance]])
    return kept[:num_points]


def _pieces_of_photos(count, size, zoom):
    """Grey pieces of photographs in [0, 1], (count, size, size, 1); a pixel is the mean of zoom x zoom of theirs."""
    from sklearn.datasets import load_sample_images

    photos = [photo.mean(axis=2) / 255 for photo in load_sample_images().images]
    rng, found = np.random.default_rng(42), []
    for number in range(count):
        photo = photos[number % len(photos)]
        top, left = (rng.integers(side - size * zoom) for side in photo.shape)
        piece = photo[top : top + size * zoom, left : left + size * zoom]
        found.append(piece.reshape(size, zoom, size, zoom).mean(axis=(1, 3)))
    return np.stack(found)[..., None].astype("float32")


def _images(name, split):
    import tensorflow_datasets as tfds

    try:
        raw = tfds.as_numpy(tfds.load(name, split=split, batch_size=-1))
    except Exception as error:  # tfds raises whatever its downloader, its file system or its checksums raise
        raise ValueError(
            f"tensorflow_datasets could not get {name!r} ({type(error).__name__}: {_first_line(error)}). Expected a "
            "network connection for the first download, or prepared data: set the environment variable TFDS_DATA_DIR "
            f"to the folder that holds {name}/."
        ) from error
    return (raw["image"] / np.float32(127.5) - np.float32(1)), raw["label"].astype("int32")


def _first_line(error):
    return (str(error).strip().splitlines() or ["no message"])[0]
