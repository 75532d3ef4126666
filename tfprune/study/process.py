"""What must a process be like, so that the same seed gives the same row in it, whichever process it is?"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

# One thread each: sums over several threads are added up in another order, and the last bit differs.
ENVIRONMENT = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "1",  # off by default on some processors, where a LeNet then takes three times as long
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # otherwise the first process reserves the whole GPU
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_CLAIMED = []


@contextlib.contextmanager
def environment():
    """Gives the processes that start inside what they need before TensorFlow loads.

    Example:

    >>> with environment():
    ...     subprocess.run([sys.executable, "train.py"])
    """
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def start():
    """Starts TensorFlow, where it has not started yet, without its messages and with one thread.

    Example:

    >>> start()
    """
    if "tensorflow" not in sys.modules:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    from tfprune.study.quiet import start_tensorflow

    start_tensorflow()


def settle(devices=1):
    """Makes this process fit for trials: one thread, deterministic operations, one GPU of its own where there are any.

    Where TensorFlow was at work here before, its threads stay as they are: rows may then differ in the last bits.

    Args:
        devices: How many devices a trial uses; with several, all GPUs stay visible.

    Example:

    >>> settle()
    """
    start()
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    with contextlib.suppress(RuntimeError):  # devices and threads were set up before
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        gpus = tf.config.list_physical_devices("GPU")
        if devices == 1 and len(gpus) > 1 and not _CLAIMED:
            tf.config.set_visible_devices(gpus[claim(len(gpus))], "GPU")


def is_fit():
    """Returns whether trials that run in this process give the rows that they give in a process of their own.

    Example:

    >>> is_fit()  # TensorFlow is not loaded yet
    True
    """
    if "tensorflow" not in sys.modules:
        return True
    import tensorflow as tf

    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.environ.get("TF_NUM_INTRAOP_THREADS")
    return str(threads) == "1"


def claim(count, folder=None):
    """Returns the number of a device that no other process of this machine has claimed; all taken, they are shared.

    The claim lasts as long as the process: the operating system gives the lock back however it ends.

    Args:
        count: How many devices there are.
        folder: Where the locks are; the system's temporary folder by default.

    Example:

    >>> tf.config.set_visible_devices(gpus[claim(len(gpus))], "GPU")
    """
    from tfprune.study import results

    folder = Path(folder or tempfile.gettempdir())
    for number in range(count):
        with contextlib.suppress(results.ResultsError):
            _CLAIMED.append(results.lock(folder / f".tfprune-device-{number}"))
            return number
    return os.getpid() % count
