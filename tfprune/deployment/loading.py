"""What does an exported model say? Files of every format, run from Python as Keras models are."""

import warnings
from pathlib import Path

import numpy as np

# format -> suffix of its files; a SavedModel is a folder
FORMATS = {"saved_model": "", "litert": ".tflite", "litert-int8": ".tflite", "onnx": ".onnx"}


def load_exported(path, to=None, from_logits=None):
    """Opens an exported model, to predict with it or to pass it to `tfprune.evaluate`.

    Args:
        path: What `tfprune.export` has written: a SavedModel's folder, a .tflite or an .onnx file.
        to: Its format, see `tfprune.export`. Default None: read off the path.
        from_logits: Whether its outputs are logits (True) or probabilities (False). Default None: not known;
            `tfprune.evaluate` then has to be told.

    Returns:
        An `Exported`.

    Raises:
        ValueError: nothing is there, or it is no such file.
        ImportError: onnxruntime is not installed (`pip install tfprune[onnx]`).

    Example:
        >>> small = tfprune.load_exported("ticket.tflite", from_logits=True)
        >>> tfprune.evaluate(small, (x_test, y_test))["ece"]
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"No such file. Received: {path}. Expected what tfprune.export has written.")
    suffixes = {"": "saved_model", ".tflite": "litert", ".onnx": "onnx"}
    to = to or ("saved_model" if path.is_dir() else suffixes.get(path.suffix))
    if to not in FORMATS:
        raise ValueError(f"Expected a SavedModel's folder, a .tflite or an .onnx file. Received: {path}.")
    try:
        run = {"saved_model": _saved_model, "onnx": _onnx}.get(to, _litert)(path)
    except ImportError:
        raise
    except Exception as error:  # each runtime has its own errors; to the user all of them mean the same
        raise ValueError(f"'{path}' cannot be opened as {to}: {error}") from error
    return Exported(path.name, run, from_logits)


class Exported:
    """An exported model with a Keras model's `predict`; see `load_exported`.

    Args:
        name: Name for errors and tables.
        run: Function `batch -> outputs`, arrays of float32.
        from_logits: Whether the outputs are logits; None where it is not known.
    """

    def __init__(self, name, run, from_logits=None):
        self.name, self.run, self.from_logits = name, run, from_logits

    def predict(self, x, batch_size=256, verbose=0):
        """Outputs of samples, (samples, classes).

        Probabilities in integers are multiples of 1/256, so their sum is not quite one: each row is divided by it.

        Args:
            x: Array of inputs, samples first.
            batch_size: Samples at a time. Default 256.
            verbose: Not used; it stands here as in Keras.
        """
        x = np.asarray(x)
        outputs = np.concatenate([self.run(x[at : at + batch_size]) for at in range(0, len(x), batch_size)])
        if self.from_logits is not False or outputs.ndim != 2 or outputs.shape[1] == 1:
            return outputs
        return outputs / np.maximum(outputs.sum(axis=1, keepdims=True), np.finfo("float32").tiny)


def _saved_model(path):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # the function lives no longer than this does
    kind = loaded.signatures["serving_default"].inputs[0].dtype
    return lambda x, loaded=loaded: np.asarray(loaded.serve(tf.cast(x, kind)))


def _onnx(path):
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("An ONNX file runs in onnxruntime. Run: pip install 'tfprune[onnx]'") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    kind = {"tensor(float)": "float32", "tensor(double)": "float64"}.get(entry.type, entry.type[len("tensor(") : -1])
    return lambda x: session.run(None, {entry.name: np.asarray(x, kind)})[0]


def _litert(path):
    interpreter = _interpreter(path)
    entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(x):
        if tuple(interpreter.get_input_details()[0]["shape"]) != x.shape:
            interpreter.resize_tensor_input(entry["index"], x.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], _as_declared(x, entry))
        interpreter.invoke()
        return _as_floats(interpreter.get_tensor(end["index"]), end)

    interpreter.allocate_tensors()
    return run


def _interpreter(path):
    """The LiteRT interpreter: that of its own package where it is installed, else the one in TensorFlow."""
    content = Path(path).read_bytes()  # not the path: the file may be renamed while it is open
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated")
        return Interpreter(model_content=content)


def _as_declared(values, details):
    """Values in the type of the file's input: rounded to its steps where it is quantised (its scale is not zero)."""
    scale, zero = details["quantization"]
    if not scale:
        return np.asarray(values, details["dtype"])
    limits = np.iinfo(details["dtype"])
    return np.clip(np.round(np.asarray(values, "float32") / scale + zero), limits.min, limits.max).astype(
        details["dtype"]
    )


def _as_floats(values, details):
    scale, zero = details["quantization"]
    if not scale:
        return values
    return ((values.astype("float32") - zero) * scale).astype("float32")
