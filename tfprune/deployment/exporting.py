"""How is a Keras model written as a SavedModel, a LiteRT or an ONNX file, and does the file say what the model says?"""

import contextlib
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

from tfprune.deployment.loading import FORMATS, load_exported
from tfprune.layers import ChannelMask
from tfprune.predictions import batches
from tfprune.structure.head import find_head
from tfprune.structure.replay import copy_weights, rebuild_operation, replay
from tfprune.structure.samples import sample
from tfprune.structure.trace import trace

# What float formats may differ from Keras, relative to the largest output: they sum in another order.
TOLERANCE = 1e-3


def export(model, path, to=None, data=None, num_samples=256):
    """Writes a model for serving or for small devices, and compares what the file says with what the model says.

    The file is run before it gets its name: "saved_model", "litert" and "onnx" must give the model's outputs, else
    nothing is written. "litert-int8" computes in integers alone, inputs and outputs included, for devices without
    floating point; how far it strays is in what is returned, and what that does to the confidence tells
    `tfprune.deployment.reevaluate`. Models of mixed precision are exported in float32.

    Args:
        model: A built functional or Sequential Keras model with one input and one output, for example a ticket.
        path: File to write or replace, as a whole or not at all; of "saved_model" a folder.
        to: "saved_model", "litert", "litert-int8" or "onnx" (needs `pip install tfprune[onnx]`). Default None reads it
            off the path: `.tflite` is "litert", `.onnx` is "onnx", no suffix is "saved_model".
        data: Representative inputs, not labels: a `tf.data.Dataset` of `x` or `(x, y)`, or arrays. "litert-int8" takes
            the ranges of its integers from them, so it needs them, preprocessed as in training; the others are only
            compared on them. Default None: random numbers.
        num_samples: How many samples of `data` are used at most. Default 256.

    Returns:
        A flat dict: `to`, `path`, `bytes`, `num_samples`, `max_difference` and `mean_difference` of the outputs, and
        `agreement`: on which share of samples both name the same class, None for one output without classes.

    Raises:
        ValueError: an unknown format, a model with masks or with several inputs or outputs, no data for "litert-int8".
        ImportError: a package that the format needs is not installed.
        RuntimeError: the model cannot be converted, or the file does not compute what the model computes.

    Example:
        >>> row = tfprune.export(ticket, "ticket.tflite", to="litert-int8", data=train.map(lambda x, y: x))
        >>> row["bytes"], row["agreement"]
    """
    path = Path(path)
    to = _format(path, to)
    traced = _check_model(model)
    samples = _samples(model, traced, data, to, num_samples)
    if keras.tree.is_nested(traced.inputs) or keras.tree.is_nested(traced.outputs):
        # runtimes give and take the tensor itself
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        traced = trace(model)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _convert(_ready(model, traced, to), samples, partial, to)
        row = _compare(model, partial, to, samples, find_head(traced))
        row = {"to": to, "path": str(path), "bytes": size(partial), **row}
        _replace(partial, path)
    finally:
        _remove(partial)
    return row


def size(path):
    """Bytes of a file, or of all files in a folder."""
    path = Path(path)
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


# What may be exported ---------------------------------------------------------------------------------------------


def _format(path, to):
    to = to or {".tflite": "litert", ".onnx": "onnx", "": "saved_model"}.get(path.suffix)
    if to not in FORMATS:
        raise ValueError(
            f"to must be one of {', '.join(map(repr, FORMATS))}. Received: to={to!r} for '{path}'. Without it the path "
            "must end in .tflite or .onnx, or have no suffix."
        )
    wanted = FORMATS[to]
    if path.suffix != wanted and (wanted or path.suffix in (".keras", ".tflite", ".onnx")):
        raise ValueError(
            f"'{to}' is written to a {f'file that ends in {wanted}' if wanted else 'folder'}. Received: '{path}'."
        )
    return to


def _check_model(model):
    traced = trace(model)
    if any(isinstance(layer, ChannelMask) for layer in model.layers):
        raise ValueError(
            f"Model '{model.name}' has masks: exported, its pruned channels would be computed all the same. Call "
            "tfprune.shrink(model) first."
        )
    ends = {"input": keras.tree.flatten(traced.inputs), "output": keras.tree.flatten(traced.outputs)}
    for what, tensors in ends.items():
        if len(tensors) != 1:
            raise ValueError(f"export needs a model with one {what}. Received: '{model.name}' with {len(tensors)}.")
    return traced


def _samples(model, traced, data, to, num_samples):
    """At most `num_samples` inputs, as one array."""
    if data is None:
        if to == "litert-int8":
            raise ValueError(
                "litert-int8 needs representative data, for the range of its integers. Pass data=, a tf.data.Dataset "
                "of inputs that are preprocessed as in training."
            )
        return keras.tree.flatten(sample(traced.inputs, batch_size=min(num_samples, 32)))[0]
    found, count = [], 0
    for x, _ in batches(data, model, min(num_samples, 256), "data", labelled=False):
        found.append(np.asarray(keras.tree.flatten(x)[0])[: num_samples - count])
        count += len(found[-1])
        if count >= num_samples:
            break
    if not count:
        raise ValueError("export needs at least one sample. Received: data without any.")
    return np.concatenate(found)


# How it is written ------------------------------------------------------------------------------------------------


def _ready(model, traced, to):
    """The model itself, or where a runtime could not run it a twin that computes the same: in float32 in place of half
    precision, recurrent layers without the random generator of their dropout, and for LiteRT, which knows no loops over
    batches of any size, with each of their steps written out."""
    loops = [op for op in traced.operations if isinstance(op, keras.Layer) and "'unroll'" in str(op.get_config())]
    single = _computes_in_float32(traced.operations)
    if single and not loops:
        return model
    unroll = to.startswith("litert")
    if unroll:
        _check_lengths(loops)

    def rebuild(op, config):
        config = config if op not in loops else _for_inference(config, unroll)
        return rebuild_operation(op, config if single else {**config, "dtype": "float32"})

    twin, twins = replay(traced, rebuild, draw=False)
    for op in traced.operations:
        copy_weights(op, twins[id(op)])
    return twin


def _check_lengths(loops):
    for layer in loops:
        shape = keras.tree.flatten(layer.input)[0].shape
        if shape[1] is None:
            raise ValueError(
                "LiteRT runs recurrent layers step by step, over sequences of one known length. Received: layer "
                f"'{layer.name}' with inputs of shape {shape}. Build the model with keras.Input((steps, ...)) and give "
                "it these weights."
            )


def _for_inference(config, unroll):
    """The config of recurrent layers, and of those inside of it, without dropout and unrolled where asked for."""
    if isinstance(config, list):
        return [_for_inference(value, unroll) for value in config]
    if not isinstance(config, dict):
        return config
    changed = {"dropout": 0.0, "recurrent_dropout": 0.0, **({"unroll": True} if unroll else {})}
    return {key: changed.get(key, _for_inference(value, unroll)) for key, value in config.items()}


def _computes_in_float32(operations):
    return not {getattr(op, "compute_dtype", None) for op in operations} & {"float16", "bfloat16"}


def _convert(model, samples, path, to):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the converters' own deprecated calls; the result is compared
            _CONVERTERS[to](model, samples, path)
    except ImportError:
        raise
    except Exception as error:  # converters raise many kinds, some of them not even documented
        raise RuntimeError(f"Model '{model.name}' cannot be exported to {to}: {error}") from error


def _to_saved_model(model, samples, path):
    entry = keras.tree.flatten(model.inputs)[0]
    archive = keras.export.ExportArchive()
    archive.track(model)
    # not model.export: it calls the model without saying for what, which layers that augment images take for training
    archive.add_endpoint(
        "serve",
        lambda inputs: model(inputs, training=False),
        [keras.InputSpec(shape=entry.shape, dtype=entry.dtype, name=entry.name)],
    )
    archive.write_out(path, verbose=False)


def _to_litert(model, samples, path):
    with _converter(model) as converter:
        path.write_bytes(converter.convert())


def _to_integers(model, samples, path):
    with _converter(model) as converter:
        _set_to_integers(converter, samples.astype(keras.tree.flatten(model.inputs)[0].dtype))
        path.write_bytes(converter.convert())


def _set_to_integers(converter, samples):
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([one[None]] for one in samples)
    # without these, what cannot be quantised would stay in floating point and nobody would notice
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8


@contextlib.contextmanager
def _converter(model):
    """A LiteRT converter that reads a SavedModel, which is there as long as the context is."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        _to_saved_model(model, None, folder)
        yield tf.lite.TFLiteConverter.from_saved_model(folder)


def _function(model):
    import tensorflow as tf

    entry = keras.tree.flatten(model.inputs)[0]
    signature = [tf.TensorSpec(entry.shape, entry.dtype, name="inputs")]

    def run(inputs):
        # Keras puts a convolution in groups into a function that XLA compiles, which tf2onnx does not open
        with _functions_opened():
            return model(inputs, training=False)

    return tf.function(run, input_signature=signature, autograph=False)


@contextlib.contextmanager
def _functions_opened():
    """What is traced inside has the operations of the functions that it calls in place of the calls."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _to_onnx(model, samples, path):
    try:
        import tf2onnx
    except ImportError as error:
        raise ImportError("Export to ONNX needs tf2onnx. Run: pip install 'tfprune[onnx]'") from error
    function = _closed(_function(model))
    with _numpy_of_old():
        tf2onnx.convert.from_function(
            function,
            function.input_signature,
            opset=17,
            custom_op_handlers={"Erfc": (_erfc, [])},
            output_path=str(path),
        )


def _closed(function):
    """The function with all that it takes from outside as constants: tf2onnx asks for the rest, a Normalization's mean
    for one, as further inputs."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function.get_concrete_function(), lower_control_flow=False)
    return tf.function(lambda inputs: frozen(inputs)[0], input_signature=function.input_signature, autograph=False)


def _erfc(graph, node, name, _):
    """ONNX has no Erfc, from which Keras computes GELU: it is 1 - Erf."""
    shape, dtype = graph.get_shape(node.output[0]), graph.get_dtype(node.output[0])
    graph.remove_node(name)
    erf = graph.make_node("Erf", node.input, shapes=[shape], dtypes=[dtype])
    one = graph.make_const(f"{name}/one", np.array(1.0, "float32"))
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=node.output, shapes=[shape], dtypes=[dtype])


@contextlib.contextmanager
def _numpy_of_old():
    """tf2onnx 1.16 still asks for names that NumPy 2 has no more."""
    missing = [name for name in ("object", "cast") if name not in vars(np)]
    for name in missing:
        setattr(np, name, {"object": object, "cast": _Cast()}[name])
    try:
        yield
    finally:
        for name in missing:
            delattr(np, name)


class _Cast(dict):
    """`numpy.cast[dtype](value)`, as NumPy 1 had it."""

    def __missing__(self, dtype):
        return lambda value: np.asarray(value).astype(dtype)


_CONVERTERS = {
    "saved_model": _to_saved_model,
    "litert": _to_litert,
    "litert-int8": _to_integers,
    "onnx": _to_onnx,
}


def _replace(partial, path):
    """Puts the new file or folder in the place of the old one, which is never missing for longer than a moment."""
    if not path.is_dir():
        os.replace(partial, path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    os.replace(path, old)
    os.replace(partial, path)
    shutil.rmtree(old)


def _remove(partial):
    if partial.is_dir():
        shutil.rmtree(partial)
    partial.unlink(missing_ok=True)


# What it says -----------------------------------------------------------------------------------------------------


def _compare(model, path, to, samples, head):
    expected = np.asarray(model.predict(samples, verbose=0), "float64")
    found = np.asarray(load_exported(path, to).run(samples), "float64")
    if found.shape != expected.shape:
        raise RuntimeError(f"The exported model gives outputs of shape {found.shape} instead of {expected.shape}.")
    difference = np.abs(found - expected)
    worst, exact = float(difference.max()), _computes_in_float32(trace(model).operations)
    # of a model that computes in half precision, half precision is what the file can be compared with
    allowed = (1 if exact else 30) * TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if to != "litert-int8" and not worst <= allowed:
        raise RuntimeError(
            f"The exported model does not compute what '{model.name}' computes: outputs differ by up to {worst:.3g}, "
            f"{allowed:.3g} is allowed. Nothing was written."
        )
    return {
        "num_samples": len(samples),
        "max_difference": worst,
        "mean_difference": float(difference.mean()),
        "agreement": _agreement(expected, found, head),
    }


def _agreement(expected, found, head):
    """The share of samples where both name the same class."""
    if expected.shape[-1] > 1:
        return float(np.mean(expected.argmax(-1) == found.argmax(-1)))
    return float(np.mean((expected > 0.5) == (found > 0.5))) if head == "sigmoid" else None
