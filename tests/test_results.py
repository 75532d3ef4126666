"""Do results survive torn lines, second processes, full disks and files that are not ours?"""

import csv
import errno
import json
import os
import subprocess
import sys

import pytest

from tfprune.study import ResultsError, read_rows
from tfprune.study import results as results_files
from tfprune.study.results import Results


def _row(seed, **columns):
    return {"key": f"k{seed}", "strategy": "one_shot", "ratio": 0.5, "seed": seed, "status": "done", **columns}


def _written(folder, *rows):
    with Results(folder) as results:
        for row in rows:
            results.append(row)
    return folder / "results.jsonl"


def test_rows_come_back_as_they_were_written(tmp_path):
    _written(tmp_path, _row(1, accuracy=0.1 + 0.2, bins=[None, 0.5]), _row(2))
    assert read_rows(tmp_path) == [_row(1, accuracy=0.1 + 0.2, bins=[None, 0.5]), _row(2)]


def test_rows_are_ordered_by_number_not_by_text(tmp_path):
    _written(tmp_path, _row(10), _row(9))
    assert [row["seed"] for row in read_rows(tmp_path)] == [9, 10]


def test_numpy_values_and_nan_become_plain_json(tmp_path):
    import numpy as np

    path = _written(tmp_path, _row(1, a=np.float32(0.5), b=np.arange(2), c=float("nan")))
    row = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (row["a"], row["b"], row["c"]) == (0.5, [0, 1], None)


def test_later_row_of_the_same_trial_wins(tmp_path):
    _written(tmp_path, _row(1, status="failed"), _row(1, status="done"))
    assert [row["status"] for row in read_rows(tmp_path)] == ["done"]


@pytest.mark.parametrize("torn", [b"{", b'{"key": "k', b'{"key": "k3", "accuracy": 0.9'])
def test_torn_last_line_is_skipped_and_dropped_before_appending(tmp_path, torn):
    path = _written(tmp_path, _row(1), _row(2))
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [row["seed"] for row in read_rows(tmp_path)] == [1, 2]
    assert path.read_bytes() == whole + torn  # reading alone changes nothing
    _written(tmp_path, _row(3))
    assert [row["seed"] for row in read_rows(tmp_path)] == [1, 2, 3]
    assert path.read_bytes().startswith(whole + b'{"key": "k3"')


@pytest.mark.parametrize(
    "content",
    [
        b'{"key": "k1"}\nnot json\n{"key": "k2"}\n',
        b'{"key": "k1"}\n\n{"key": "k2"}\n',
        b'{"key": "k1"}\n[1, 2]\n',
        b'{"key": "k1"}\n{"seed": 3}\n',
        b'{"key": "k1"}\n\xff\xfe\n',
        b'{"key": "k1"}\na letter to a friend',
    ],
)
def test_damaged_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=r"is damaged: line 2 .*left as it is"):
        read_rows(tmp_path)
    with pytest.raises(ResultsError, match="is damaged: line 2"):
        Results(tmp_path).__enter__()
    assert path.read_bytes() == content
    path.write_bytes(b"")
    _written(tmp_path, _row(1))  # the refusal gave the lock back


def test_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ResultsError, match=r"holds no results\.jsonl"):
        read_rows(tmp_path)


def test_second_process_is_refused_while_the_first_writes(tmp_path):
    code = f"from tfprune.study.results import Results\nResults({str(tmp_path)!r}).__enter__()"
    with Results(tmp_path):
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Another process is writing results" in second.stderr
    after = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert after.returncode == 0, after.stderr


def test_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultsError, match=r"Cannot write results\. Received: .*file.*Choose another one with --out"):
        Results(tmp_path / "file").__enter__()


def test_full_disk_is_refused_before_any_work(tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(ResultsError, match=r"Too little room for results.*at least 16 MB"):
        Results(tmp_path).__enter__()


def test_disk_that_fills_up_leaves_no_torn_row(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Results(tmp_path) as results:
        results.append(_row(1))
        before = results.path.read_bytes()
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ResultsError, match=r"No space left on device\. The 1 rows before are kept"):
            results.append(_row(2))
        assert results.path.read_bytes() == before
        monkeypatch.undo()
        results.append(_row(2))
    assert [row["seed"] for row in read_rows(tmp_path)] == [1, 2]


def test_table_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    results_files.write_csv([_row(1, bins=[1, None])], path)
    before = path.read_text()
    assert next(csv.DictReader(before.splitlines()))["bins"] == "[1, null]"

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match="What stood there before is untouched"):
        results_files.write_csv([_row(2)], path)
    assert path.read_text() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["results.csv"]
