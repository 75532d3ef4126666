"""Does a file come to its place whole or not at all?"""

import os

import pytest

from tfprune.writing import replacing, write_text


def test_file_takes_its_place_when_it_is_written(tmp_path):
    path = tmp_path / "new" / "ticket.keras"
    with replacing(path) as partial:
        assert partial.suffix == ".keras"
        partial.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_what_stood_there_stays_where_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "before")
    with pytest.raises(TypeError), replacing(path) as partial:
        partial.write_text(b"no text")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_lines_end_as_they_were_given(tmp_path):
    write_text(tmp_path / "a.csv", "ä\r\nb\n")
    assert (tmp_path / "a.csv").read_bytes() == "ä\r\nb\n".encode()


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as one, replacing(path) as two:
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"


def test_what_killed_writers_left_is_swept_up(tmp_path):
    old, young, other = (tmp_path / f".{name}.part.npz" for name in ("a.00000001", "a.00000002", "b.00000003"))
    for partial in (old, young, other):
        partial.write_bytes(b"half")
    for partial in (old, other):
        os.utime(partial, (0, 0))
    write_text(tmp_path / "a.npz", "whole")
    assert not old.exists()
    assert young.exists()
    assert other.exists()
