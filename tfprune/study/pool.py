"""How does work run in several processes, here or on a cluster, and survive the death of one of them?"""

import contextlib
import os
import signal
import threading
import warnings
from pathlib import Path

from tfprune.study import process

_DEATHS = ("TerminatedWorkerError", "BrokenProcessPool", "KilledWorker", "WorkerCrashedError")
BACKENDS = ("loky", "dask", "ray")


class Died(RuntimeError):
    """The process that did a piece of work ended without an answer, twice: the second time alone."""


def run(function, pieces, folder, jobs=1, backend=None):
    """Yields `(piece, answer)` as the pieces of work are done; an answer may be a `Died`.

    Args:
        function: Function `(piece) -> answer`, which joblib can send to another process. It catches its own errors.
        pieces: List of what it is called with, each with a `name` of its own.
        folder: Folder for the marks by which it is known what is running.
        jobs: How many at a time. One at a time is done in this process where it is fit for that.
        backend: "loky" (processes of this machine), "dask", "ray", or None (default) for what `joblib.parallel_config`
            says around this call, "loky" where it says nothing.

    Raises:
        ValueError: Unknown backend, or one that is not set up.
    """
    marks, waiting = Path(folder) / "running", list(pieces)
    try:
        if _here(jobs, backend):
            yield from ((piece, _marked(function, piece, marks)) for piece in waiting)
        else:
            yield from _elsewhere(function, waiting, marks, jobs, backend)
    finally:
        with contextlib.suppress(OSError):
            marks.rmdir()


def running(folder):
    """Returns the names of the pieces of work that were begun and not ended.

    Args:
        folder: As for `run`.
    """
    marks = Path(folder) / "running"
    return sorted(mark.name for mark in marks.iterdir()) if marks.is_dir() else []


def _elsewhere(function, waiting, marks, jobs, backend):
    while waiting:
        try:
            for piece, answer in _parallel(function, list(waiting), marks, jobs, backend):
                waiting.remove(piece)
                yield piece, answer
        except Exception as error:
            if type(error).__name__ not in _DEATHS:
                raise
            suspects = [piece for piece in waiting if (marks / piece.name).exists()]
            for piece in suspects:
                waiting.remove(piece)
                yield piece, _alone(function, piece, marks, backend)
            if not suspects:
                raise


def _here(jobs, backend):
    import joblib

    active, _ = joblib.parallel.get_active_backend()
    return jobs == 1 and backend is None and type(active).__name__ == "LokyBackend" and process.is_fit()


def _alone(function, piece, marks, backend):
    """A piece during which a process died, in a process of its own: a second death is its own doing."""
    try:
        [(_, answer)] = _parallel(function, [piece], marks, 1, backend)
        return answer
    except Exception as error:
        if type(error).__name__ not in _DEATHS:
            raise
        _unmark(marks / piece.name)
        return Died(
            "The process ended without an answer, alone as well: it was killed, ran out of memory, or crashed in "
            f"native code ({type(error).__name__})."
        )


def _parallel(function, pieces, marks, jobs, backend):
    import joblib

    with process.environment(), _configuration(backend), warnings.catch_warnings():
        # loky gives a process up that TensorFlow has made large, and takes a new one: nothing is lost
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
        active, _ = joblib.parallel.get_active_backend()
        calls = [joblib.delayed(_numbered)(number, function, piece, marks) for number, piece in enumerate(pieces)]
        if active.supports_return_generator:
            # batch_size=1: a batch of short pieces would come back, and be safe on the disk, only together. One job in
            # two processes, one piece at a time: joblib would do it here, and a crash would take this process along.
            most = {"n_jobs": 2, "pre_dispatch": 1} if jobs == 1 else {"n_jobs": min(jobs, max(2, len(pieces)))}
            parallel = joblib.Parallel(**most, batch_size=1, return_as="generator_unordered")
            for number, answer in parallel(calls):
                yield pieces[number], answer
        else:
            for start in range(0, len(pieces), jobs):
                done = joblib.Parallel(n_jobs=jobs, batch_size=1)(calls[start : start + jobs])
                yield from ((pieces[number], answer) for number, answer in done)


def _numbered(number, function, piece, marks):
    """What a worker does: a piece of work, whose answer says by its number which it was."""
    if threading.current_thread() is threading.main_thread():
        # Ctrl-C reaches the children too; the parent alone decides what to do about it
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return number, _marked(function, piece, marks)


def _marked(function, piece, marks):
    """Does a piece of work, with a file that says so while it lasts."""
    mark = marks / piece.name
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(f"{os.getpid()}\n")
    try:
        return function(piece)
    finally:
        _unmark(mark)


def _unmark(mark):
    with contextlib.suppress(OSError):
        mark.unlink()


def _configuration(backend):
    import joblib

    active, _ = joblib.parallel.get_active_backend()
    if backend is None and type(active).__name__ != "LokyBackend":
        return contextlib.nullcontext()  # what the user's joblib.parallel_config says
    backend = backend or "loky"
    if backend not in BACKENDS:
        raise ValueError(f"Unknown backend. Received: {backend!r}. Expected one of {', '.join(map(repr, BACKENDS))}.")
    if backend == "ray":
        _register_ray()
    inner = {"inner_max_num_threads": 1} if backend == "loky" else {}
    return joblib.parallel_config(backend, **inner)


def _register_ray():
    try:
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise ValueError("backend='ray' needs Ray. Install it: pip install 'tfprune[ray]'.") from error
    register_ray()
