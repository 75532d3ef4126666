"""Is what is kept of a training whole, of the right training, or not there?"""

import errno
import os

import ml_dtypes
import numpy as np
import pytest

from tfprune.study import kept

ARRAYS = {"best/0": np.arange(12, dtype="float32").reshape(3, 4), "best/1": np.array(7, "int64")}
ABOUT = {"epochs": 3, "best": 0.1 + 0.2, "loss": [1.0, float("nan")]}
IDENTITY = {"key": "1f", "of": "data"}


def assert_same(found, about=ABOUT, arrays=ARRAYS):
    assert repr(found[0]) == repr(about)
    assert found[1].keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[1][name].dtype == array.dtype
        np.testing.assert_array_equal(found[1][name], array)


def test_what_is_kept_comes_back_bit_by_bit(tmp_path):
    path = tmp_path / "dense" / "1f.npz"
    assert kept.save(path, IDENTITY, ABOUT, ARRAYS)
    assert_same(kept.load(path, IDENTITY))
    assert os.listdir(path.parent) == ["1f.npz"]


def test_small_floats_of_other_packages_are_kept(tmp_path):
    arrays = {"now/0": np.array([1.5, -2.0], ml_dtypes.bfloat16)}
    kept.save(tmp_path / "a.npz", IDENTITY, {}, arrays)
    assert_same(kept.load(tmp_path / "a.npz", IDENTITY), {}, arrays)


def test_file_of_another_training_is_not_taken(tmp_path):
    kept.save(tmp_path / "a.npz", IDENTITY, ABOUT, ARRAYS)
    assert kept.load(tmp_path / "a.npz", {**IDENTITY, "of": "other data"}) is None
    assert kept.load(tmp_path / "missing.npz", IDENTITY) is None


def test_damaged_file_reads_as_none_or_unharmed(tmp_path):
    path = tmp_path / "a.npz"
    kept.save(path, IDENTITY, ABOUT, ARRAYS)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert kept.load(path, IDENTITY) is None
    refused = 0
    for position in range(0, len(whole), 3):  # a flipped bit in a date of the zip file harms nothing
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        found = kept.load(path, IDENTITY)
        refused += found is None
        if found is not None:
            assert_same(found)
    assert refused > len(whole) / 3 / 2


def test_pickled_objects_are_never_read(tmp_path):
    np.savez(tmp_path / "a.npz", about=np.array([{"identity": IDENTITY}], dtype=object))
    assert kept.load(tmp_path / "a.npz", IDENTITY) is None


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_costs_what_could_be_kept_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    kept.save(path, IDENTITY, ABOUT, ARRAYS)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.warns(UserWarning, match=r"a.npz could not be kept \(No space left on device\)"):
        assert not kept.save(path, IDENTITY, {}, {})
    assert_same(kept.load(path, IDENTITY))
    assert os.listdir(tmp_path) == ["a.npz"]


def test_shelf_without_room_or_folder_holds_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    full, none = kept.Shelf(tmp_path, IDENTITY), kept.Shelf(None, IDENTITY)
    with pytest.warns(UserWarning, match="could not be kept"):
        full.save("a.npz", ABOUT, ARRAYS)
    none.save("a.npz", ABOUT, ARRAYS)
    for shelf in (full, none):
        assert_same(shelf.load("a.npz"))
        shelf.remove("a.npz")
        assert shelf.load("a.npz") is None


def test_checkpoint_waits_between_two_writes(tmp_path):
    checkpoint = kept.Checkpoint(tmp_path / "a.npz", IDENTITY, seconds=3600)
    assert not checkpoint.due()
    checkpoint.seconds = 0
    assert checkpoint.due()
    checkpoint.save(ABOUT, ARRAYS)
    assert_same(checkpoint.load())
    checkpoint.remove()
    assert checkpoint.load() is None
    assert not kept.Checkpoint(seconds=0).due()
