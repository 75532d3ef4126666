"""Is it said what is wrong with a data set before a study trains on it?"""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from tfprune import datasets
from tfprune.study import splits, work
from tfprune.study.trial import Trial

RANDOM = np.random.default_rng(0)


def pair(samples=12, classes=3):
    return RANDOM.normal(size=(samples, 4)).astype("float32"), np.arange(samples, dtype="int32") % classes


def dataset(**changes):
    fields = {"train": pair(), "validation": pair(), "test": pair(), "ood": {}, "num_classes": 3, "input_shape": (4,)}
    return datasets.Dataset("mine", **{**fields, **changes})


def test_what_fits_is_left_as_it_is():
    data = dataset()
    assert splits.checked(data) is data
    numbers = dataset(**{name: (pair()[0], RANDOM.normal(size=(12, 2))) for name in ("train", "validation", "test")},
                      num_classes=None)  # fmt: skip
    assert splits.checked(numbers) is numbers


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (x, np.eye(3)[y]),
        lambda x, y: (x, y[:, None]),
        lambda x, y: (x, y.astype("float64")),
        lambda x, y: (x.tolist(), y.tolist()),
        lambda x, y: (pd.DataFrame(x), pd.Series(y, index=range(100, 112))),
        lambda x, y: [x, y],
    ],
)
def test_what_means_the_same_becomes_arrays_and_classes(change):
    train = pair()
    found = splits.checked(dataset(train=change(*train)))
    np.testing.assert_allclose(found.train[0], train[0])
    np.testing.assert_array_equal(found.train[1], train[1])
    assert found.train[1].dtype.kind == "i"
    assert found.test[0].shape == (12, 4)


def holed(value):
    x, _ = pair()
    x[3, 1:3] = value
    return x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": (*pair(), np.ones(12))}, r"train split .*'mine' must be a pair \(x, y\).* Received: 3 parts"),
        ({"test": pair()[0]}, "test split .* must be a pair .* Received: ndarray"),
        ({"train": ({"a": pair()[0]}, pair()[1])}, "one array of inputs. Received: a dict of a"),
        ({"validation": pair(0)}, "at least one example.* Received: 0 examples, 0 labels"),
        ({"test": (pair()[0], pair()[1][:-1])}, "Received: 12 examples, 11 labels"),
        ({"input_shape": (5,)}, r"examples of shape \(4,\)\. Expected: \(5,\)"),
        ({"train": (pair()[0], pair(classes=4)[1])}, r"train split .* of 3 classes: Labels must be in \[0, 3\)"),
        ({"train": (pair()[0], np.full(12, np.nan))}, "Class labels must be whole numbers. Received: nan"),
        ({"train": (pair()[0], np.full(12, np.inf)), "num_classes": None}, "finite numbers to predict"),
        ({"train": (np.full((12, 4), "a"), pair()[1])}, "arrays of numbers. Received: <U1"),
        ({"train": ([[1.0], [1.0, 2.0]], [0, 1])}, "rows of different lengths"),
        ({"train": (pair()[0], np.full(12, "cat"))}, r"Received: <U3 .*integers, .*np\.unique\(y, return_inverse=True"),
        ({"train": (holed(np.nan), pair()[1])}, "train split .* finite inputs. Received: 2 of 48 values"),
        ({"test": (holed(np.inf), pair()[1])}, "test split .* finite inputs. Received: 2 of 48 values"),
        ({"ood": {"far": holed(np.nan)}}, "OOD set 'far' of .*'mine' must hold finite inputs. Received: 2 of 48"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        splits.checked(dataset(**changes))


def test_every_trial_asks():
    data = dataset(train=(pair()[0], pair(classes=4)[1]))
    with pytest.raises(ValueError, match=r"Labels must be in \[0, 3\)"):
        work.set_up(Trial(lambda: data, "mlp", "one_shot", 0.5, 0))
    whole = dataclasses.replace(data, train=(pair()[0], np.eye(3)[pair()[1]]))
    assert work.set_up(Trial(lambda: whole, "mlp", "one_shot", 0.5, 0)).data.train[1].shape == (12,)
