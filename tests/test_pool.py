"""Does work in other processes come back whole, whatever becomes of the processes?"""

import dataclasses
import os
import signal
import sys
import time

import pytest

from tfprune.study import pool, process


@dataclasses.dataclass(frozen=True)
class Piece:
    """What the pool is given here: a number and what to do with it."""

    number: int
    deed: str = "square"

    @property
    def name(self):
        return f"piece-{self.number}"


def work(piece):
    if piece.deed == "die":
        time.sleep(0.2)  # the others have begun
        os.kill(os.getpid(), signal.SIGKILL)
    if piece.deed == "wait":
        time.sleep(0.3)
    return piece.number**2, os.environ.get("TF_NUM_INTRAOP_THREADS")


def answers(pieces, folder, **options):
    return {piece.number: answer for piece, answer in pool.run(work, pieces, folder, **options)}


def test_one_at_a_time_is_done_in_this_process_and_marked_while_it_lasts(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "is_fit", lambda: True)  # whatever tests before this one did to TensorFlow
    seen = []
    pieces = [Piece(number) for number in range(3)]
    for piece, _ in pool.run(lambda piece: seen.append((os.getpid(), pool.running(tmp_path))), pieces, tmp_path):
        assert piece in pieces
    assert seen == [(os.getpid(), [f"piece-{number}"]) for number in range(3)]
    assert pool.running(tmp_path) == []
    assert not (tmp_path / "running").exists()


def test_one_at_a_time_goes_elsewhere_where_this_process_has_several_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "is_fit", lambda: False)
    pieces = [Piece(number) for number in range(3)]
    found = [answer for _, answer in pool.run(lambda piece: os.getpid(), pieces, tmp_path)]
    assert os.getpid() not in found


def test_several_processes_answer_each_piece_once_with_one_thread(tmp_path):
    assert answers([Piece(number) for number in range(5)], tmp_path, jobs=2) == {n: (n * n, "1") for n in range(5)}


def test_a_piece_that_kills_its_process_is_named_and_all_others_are_answered(tmp_path):
    pieces = [Piece(number, "wait") for number in range(5)]
    pieces[1] = Piece(1, "die")
    found = answers(pieces, tmp_path, jobs=2)
    assert isinstance(found.pop(1), pool.Died)
    assert found == {n: (n * n, "1") for n in (0, 2, 3, 4)}
    assert pool.running(tmp_path) == []


def test_an_error_of_our_own_is_not_taken_for_a_death(tmp_path):
    with pytest.raises(TypeError):
        answers([Piece("x"), Piece("y")], tmp_path, jobs=2)


def test_unknown_backend_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Unknown backend\. Received: 'mpi'\. Expected one of 'loky', 'dask', 'ray'"):
        answers([Piece(0)], tmp_path, backend="mpi")


def test_ray_that_is_not_installed_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    with pytest.raises(ValueError, match=r"pip install 'tfprune\[ray\]'"):
        answers([Piece(0)], tmp_path, backend="ray")


def give_back():
    while process._CLAIMED:
        process._CLAIMED.pop().close()


def test_each_process_claims_a_device_of_its_own_and_shares_when_there_are_none_left(tmp_path):
    assert [process.claim(2, tmp_path) for _ in range(2)] == [0, 1]
    assert process.claim(2, tmp_path) in (0, 1)
    give_back()
    assert process.claim(2, tmp_path) == 0
    give_back()


def test_environment_is_as_before_afterwards(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with process.environment():
        assert (os.environ["TF_NUM_INTRAOP_THREADS"], os.environ["OMP_NUM_THREADS"]) == ("1", "1")
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == "7"
    assert "OMP_NUM_THREADS" not in os.environ
