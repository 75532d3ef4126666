"""What every test can count on: a seed, float32, no window, and real data only where it is prepared."""

import importlib
import importlib.util
import os
import random
import sys
from pathlib import Path

# Set before TensorFlow or matplotlib is imported anywhere, and inherited by the processes that tests start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MPLBACKEND"] = "Agg"
# Some virtual machines name AMX among their instructions and die of it in the first bfloat16 product.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")
# Some metrics are compared with packages that import torchvision, which crashes the process once TensorFlow is loaded.
if importlib.util.find_spec("torchvision"):
    importlib.import_module("torchvision")
# Workers share the cores: one thread each beats several that fight for them. Studies run in this process only then.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import numpy as np
import pytest

SEED = 20240607


@pytest.fixture(autouse=True)
def _seed_everything():
    """Every test starts from the same random state; Keras is seeded only where it is already loaded."""
    random.seed(SEED)
    np.random.seed(SEED)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(SEED)


@pytest.fixture(autouse=True)
def _restore_float32():
    """A test that trains in bfloat16 leaves the next one in float32."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")


@pytest.fixture(autouse=True, scope="module")
def _restore_determinism():
    """A study makes TensorFlow's operations deterministic, and Keras then compiles nothing by XLA."""
    yield
    if "tensorflow" in sys.modules:
        importlib.import_module("tensorflow.python.framework.config").disable_op_determinism()


def pytest_report_header():
    return f"TFDS_DATA_DIR: {os.environ.get('TFDS_DATA_DIR', 'not set, tests on prepared data are skipped')}"


def pytest_runtest_setup(item):
    marker = item.get_closest_marker("tfds")
    if marker is None:
        return
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder:
        pytest.skip(f"needs {', '.join(marker.args)}: set TFDS_DATA_DIR to a folder of prepared tfds data sets")
    missing = [name for name in marker.args if not (Path(folder) / name).is_dir()]
    if missing:
        pytest.skip(f"TFDS_DATA_DIR={folder} has no {', '.join(missing)}")
