"""How does TensorFlow start, without writing a dozen lines that concern nobody, and so that a study can be repeated?"""

import contextlib
import os
import sys
import tempfile


def start_tensorflow():
    """Imports Keras with TensorFlow's start-up messages held back; they are shown if the import fails.

    TensorFlow 2.21 writes some of them before it reads TF_CPP_MIN_LOG_LEVEL, straight to the process's error output.

    Example:

    >>> start_tensorflow()
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # The default on some processors only; without it a LeNet takes three times as long.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with tempfile.TemporaryFile() as held:
        try:
            with _stderr_to(held):
                import keras  # noqa: F401
        except BaseException:
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise


@contextlib.contextmanager
def _stderr_to(file):
    # The messages come from C++: only the file descriptor itself catches them, not sys.stderr.
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
