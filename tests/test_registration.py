"""Do saved models that hold classes of tfprune load in a process that imported nothing but Keras and tfprune?"""

import subprocess
import sys

import keras
import numpy as np
import pytest

import tfprune
from tfprune import uncertainty


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A masked model, and one with a calibrator on it, compiled with a metric."""
    folder = tmp_path_factory.mktemp("saved")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    tfprune.wrap(model).save(folder / "masked.keras")
    labels = model.predict(x, verbose=0).argmax(axis=-1)
    labels[:15] = 1 - labels[:15]
    calibrated = uncertainty.TemperatureScaling().fit(model, (x, labels)).attach(model)
    calibrated.compile(
        "adam", tfprune.losses.GaussianNegativeLogLikelihood(), metrics=[tfprune.metrics.ExpectedCalibrationError()]
    )
    calibrated.save(folder / "calibrated.keras")
    return [folder / "masked.keras", folder / "calibrated.keras"]


def loaded(imports, files):
    """Names of the classes of what a fresh process loads."""
    code = f"""if True:
        import sys
        {imports}
        import keras
        for file in sys.argv[1:]:
            model = keras.models.load_model(file)
            print("loaded", *sorted({{type(layer).__name__ for layer in model.layers}} | {{type(model.loss).__name__}}))
    """
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [set(line.split()) for line in done.stdout.splitlines() if line.startswith("loaded")]


@pytest.mark.parametrize("imports", ["import keras, tfprune", "import tfprune", "import tfprune, tensorflow"])
def test_import_of_tfprune_is_enough_in_any_order(imports, files):
    masked, calibrated = loaded(imports, files)
    assert "ChannelMask" in masked
    assert {"TemperatureScaling", "GaussianNegativeLogLikelihood"} <= calibrated


@pytest.mark.parametrize("imports", ["import tfprune.losses", "import tfprune.metrics.scores", "import tfprune.models"])
def test_masked_model_loads_where_tfprune_itself_brought_keras(imports, files):
    [masked] = loaded(imports, files[:1])
    assert "ChannelMask" in masked
