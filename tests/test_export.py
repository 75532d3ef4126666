"""Does an exported ticket say what the ticket says, and does its confidence survive integers?"""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfprune
from tfprune import cli, datasets, deployment
from tfprune.cli.export import FORMATS

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnxruntime"))
ONNX = pytest.param("onnx", marks=pytest.mark.skipif(not HAS_ONNX, reason="needs the extra onnx"))
ALL = [ONNX if to == "onnx" else to for to in deployment.FORMATS]


def data(samples=96, seed=0):
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, size=samples)
    x = random.normal(scale=0.3, size=(samples, 8, 8, 1))
    x[np.arange(samples), y + 2] += 1.0  # a bright row tells the class
    return x.astype("float32"), y.astype("int32")


def dataset():
    """What the command line names test_export:dataset."""
    noise = np.random.default_rng(5).normal(size=(40, 8, 8, 1)).astype("float32")
    return datasets.Dataset("rows", data(), None, data(seed=1), {"noise": noise}, 3, (8, 8, 1))


def network(head="softmax"):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False)(inputs)
    skip = x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Add()([layers.DepthwiseConv2D(3, padding="same")(x), skip])
    x = layers.LeakyReLU(negative_slope=0.1)(x)
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    return keras.Model(inputs, layers.Dense(3, activation=head)(layers.Dropout(0.1)(x)), name="net")


@pytest.fixture(scope="module")
def ticket():
    """A small CNN, trained and pruned to half its channels."""
    model = network()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    small = tfprune.shrink(masked)
    small.fit(*data(), epochs=12, verbose=0)
    return small


@pytest.fixture(scope="module")
def exported(ticket, tmp_path_factory):
    """`{format: (path, what export said)}` of all formats."""
    folder = tmp_path_factory.mktemp("exported")
    representative = tf.data.Dataset.from_tensor_slices(data()).batch(20)
    found = {}
    for to, suffix in deployment.FORMATS.items():
        if to == "onnx" and not HAS_ONNX:
            continue
        path = folder / f"{to}{suffix}"
        found[to] = path, tfprune.export(ticket, path, to=to, data=representative, num_samples=50)
    return found


@pytest.mark.parametrize("to", ALL)
def test_file_gives_the_outputs_of_the_model(ticket, exported, to):
    path, row = exported[to]
    x = data(seed=1)[0]
    expected, found = ticket.predict(x, verbose=0), tfprune.load_exported(path, to).predict(x)
    difference = np.abs(found - expected).max()
    assert difference < (0.15 if to == "litert-int8" else 1e-5)
    assert row["num_samples"] == 50
    assert (row["max_difference"] > 1e-4) == (to == "litert-int8")
    assert row["max_difference"] >= row["mean_difference"] > 0 or to != "litert-int8"
    assert row["agreement"] >= 0.95
    assert row["bytes"] == deployment.exporting.size(path) > 0
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize("to", [to for to in ALL if to != "litert-int8"])
def test_ticket_of_a_convnext_block_is_exported(to, tmp_path):
    """Normalization, GELU and a convolution of one channel a group: tf2onnx takes none of them as Keras builds it."""
    inputs = keras.Input((8, 8, 8))
    x = layers.Normalization(mean=[0.1] * 8, variance=[2.0] * 8)(inputs)
    x = layers.Conv2D(8, 7, padding="same", groups=8)(x)
    x = layers.Dense(8)(layers.Dense(32, activation="gelu")(layers.LayerNormalization(epsilon=1e-6)(x)))
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Add()([inputs, x])))
    masked = tfprune.wrap(keras.Model(inputs, outputs))
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    path = tmp_path / f"block{deployment.FORMATS[to]}"
    row = tfprune.export(tfprune.shrink(masked), path, to)
    assert row["max_difference"] < 1e-5


@pytest.mark.parametrize("to", ALL)
def test_convolution_in_groups_is_exported(to, tmp_path):
    """Keras has XLA compile it, in a function that tf2onnx does not open."""
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, groups=2, strides=2, padding="same", activation="relu")(layers.Conv2D(8, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    samples = np.random.default_rng(0).normal(size=(20, 8, 8, 4)).astype("float32")
    row = tfprune.export(model, tmp_path / f"groups{deployment.FORMATS[to]}", to, samples)
    assert row["max_difference"] < (0.5 if to == "litert-int8" else 1e-5)


def test_integers_are_integers_from_end_to_end_and_smaller(exported):
    path, row = exported["litert-int8"]
    interpreter = deployment.loading._interpreter(path)
    kinds = {np.dtype(detail["dtype"]).name for detail in interpreter.get_tensor_details()}
    assert kinds <= {"int8", "int32"}  # int32: biases and shapes
    assert row["bytes"] < exported["saved_model"][1]["bytes"]


def test_same_table_tells_accuracy_calibration_and_strangers_of_model_and_integers(ticket, exported):
    paths = {to: path for to, (path, _) in exported.items() if to in ("litert", "litert-int8")}
    strangers = np.random.default_rng(5).normal(size=(40, 8, 8, 1)).astype("float32")
    whole, same, integers = deployment.reevaluate(ticket, paths, data(seed=1), {"noise": strangers})
    assert [whole["form"], same["form"], integers["form"]] == ["keras", "litert", "litert-int8"]
    assert whole.keys() == same.keys() == integers.keys()
    for name in ("accuracy", "ece", "nll", "noise/auroc_msp"):
        assert same[name] == pytest.approx(whole[name], abs=1e-4), name
        assert integers[name] == pytest.approx(whole[name], abs=0.1), name
    assert integers["nll"] != whole["nll"]
    assert integers["bytes"] == exported["litert-int8"][1]["bytes"]
    # by hand: the accuracy of the file itself, its rows divided by their sum
    found = tfprune.load_exported(paths["litert-int8"], from_logits=False).predict(data(seed=1)[0])
    assert integers["accuracy"] == pytest.approx(np.mean(found.argmax(1) == data(seed=1)[1]))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_command_writes_the_file_and_shows_both_in_one_table(ticket, tmp_path, capsys):
    ticket.save(tmp_path / "ticket.keras")
    out = tmp_path / "ticket.tflite"
    words = ["export", tmp_path / "ticket.keras", "--to", "litert-int8", "--out", out]
    assert cli.main(words) == 2
    assert "--to litert-int8 needs --data" in capsys.readouterr().err
    assert cli.main([*words, "--data", "test_export:dataset", "--ood", "noise"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"{out}: {out.stat().st_size:,} bytes. Compared with the model on 96 samples: ")
    assert shown[2].split() == ["keras", "litert-int8"]
    table = {line.split()[0]: line.split()[1:] for line in shown[3:]}
    assert table["bytes"][1] == str(out.stat().st_size)
    assert {"accuracy", "ece", "nll", "noise/auroc_msp"} <= table.keys()
    assert float(table["nll"][0]) != float(table["nll"][1])


def test_command_knows_all_formats():
    assert tuple(deployment.FORMATS) == FORMATS


def test_half_precision_is_exported_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    row = tfprune.export(network(None), tmp_path / "half.tflite")
    assert row["to"] == "litert"
    assert row["max_difference"] < 0.03
    assert row["agreement"] > 0.9


def test_inputs_are_cast_to_what_the_file_takes(exported):
    """Images of bytes and rows of doubles are given as they are to every format."""
    x = (data(8)[0] * 9).clip(0, 9)
    for to, (path, _) in exported.items():
        twin = tfprune.load_exported(path, to)
        expected = twin.predict(np.floor(x).astype("float32"))
        for kind in ("uint8", "float64", "int64"):
            np.testing.assert_allclose(twin.predict(np.floor(x).astype(kind)), expected, atol=1e-6, err_msg=to)


@pytest.mark.parametrize("to", ["saved_model", "litert", ONNX])
def test_inputs_of_indices_are_exported(to, tmp_path, exported):
    keras.utils.set_random_seed(3)
    words = keras.Sequential(
        [keras.Input((5,), dtype="int32"), layers.Embedding(9, 6), layers.Flatten(), layers.Dense(3)]
    )
    x = np.random.default_rng(0).integers(0, 9, size=(20, 5))
    row = tfprune.export(words, tmp_path / f"words{deployment.FORMATS[to]}", to=to, data=x)
    assert row["max_difference"] < 1e-5


def test_file_that_says_something_else_is_not_left_behind(ticket, tmp_path, monkeypatch):
    other = tf.lite.TFLiteConverter.from_keras_model(network()).convert()
    path = tmp_path / "ticket.tflite"
    path.write_bytes(b"before")
    monkeypatch.setitem(deployment.exporting._CONVERTERS, "litert", lambda _, __, path: path.write_bytes(other))
    with pytest.raises(RuntimeError, match=r"does not compute what 'net' computes: .* Nothing was written"):
        tfprune.export(ticket, path)
    assert path.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_saved_model_replaces_an_older_one(exported, ticket):
    path = exported["saved_model"][0]
    (path / "stale").write_text("old")
    tfprune.export(ticket, path)
    assert not (path / "stale").exists()
    assert (path / "saved_model.pb").exists()
    assert not [other for other in path.parent.iterdir() if other.name.startswith(".")]


@pytest.mark.parametrize("to", ["saved_model", "litert", "litert-int8"])
def test_model_with_named_input_and_output_is_exported(tmp_path, to):
    entry = keras.Input((8,), name="values")
    outputs = layers.Dense(3)(layers.Dense(4, activation="relu")(entry))
    x = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices(({"values": x}, np.zeros(40))).batch(8)
    model = keras.Model({"values": entry}, {"logits": outputs})
    path = tmp_path / ("model" if to == "saved_model" else "model.tflite")
    row = tfprune.export(model, path, to=to, data=data)
    assert row["num_samples"] == 40
    found = tfprune.load_exported(path).predict(x)
    assert np.abs(found - model.predict({"values": x}, verbose=0)["logits"]).max() < (0.2 if "int8" in to else 1e-4)


def test_export_says_what_it_cannot_do(ticket, tmp_path):
    with pytest.raises(ValueError, match=r"to must be one of 'saved_model', .* Received: to='tf'"):
        tfprune.export(ticket, tmp_path / "a", to="tf")
    with pytest.raises(ValueError, match=r"'litert' is written to a file that ends in \.tflite"):
        tfprune.export(ticket, tmp_path / "a.onnx", to="litert")
    with pytest.raises(ValueError, match="litert-int8 needs representative data"):
        tfprune.export(ticket, tmp_path / "a.tflite", to="litert-int8")
    with pytest.raises(ValueError, match="has masks"):
        tfprune.export(tfprune.wrap(network()), tmp_path / "a.tflite")
    inputs = keras.Input((2,))
    with pytest.raises(ValueError, match=r"one output\. Received: 'pair' with 2"):
        tfprune.export(keras.Model(inputs, [inputs, layers.Dense(1)(inputs)], name="pair"), tmp_path / "a")
    (tmp_path / "torn.tflite").write_bytes(b"no flatbuffer")
    with pytest.raises(ValueError, match="cannot be opened as litert"):
        tfprune.load_exported(tmp_path / "torn.tflite")
    with pytest.raises(ValueError, match="No such file"):
        tfprune.load_exported(tmp_path / "missing.tflite")


TFMOT = """if True:
    import json, os, sys
    import keras, numpy as np
    import tensorflow as tf
    import tfprune
    ticket = keras.models.load_model(sys.argv[1])
    x = np.load(sys.argv[2])
    twin = tfprune.to_tf_keras(ticket)
    difference = np.abs(twin.predict(x, verbose=0) - ticket.predict(x, verbose=0)).max()
    found = {"keras": tf.keras.__version__, "difference": float(difference)}
    import tensorflow_model_optimization as tfmot
    y = np.argmax(ticket.predict(x, verbose=0), 1)
    sparsity, clustering = tfmot.sparsity.keras, tfmot.clustering.keras
    def train(model, callbacks=()):
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(x, y, epochs=1, verbose=0, callbacks=list(callbacks))
        return model
    aware = train(tfmot.quantization.keras.quantize_model(twin))
    found["aware"] = float(np.mean(aware.predict(x, verbose=0).argmax(1) == y))
    found["fake_quantised"] = sum("quant" in layer.name for layer in aware.layers)
    start = clustering.CentroidInitialization.LINEAR
    clustered = train(clustering.cluster_weights(tfprune.to_tf_keras(ticket), 4, start))
    kernels = [layer.kernel for layer in clustering.strip_clustering(clustered).layers if hasattr(layer, "kernel")]
    found["values"] = [len(np.unique(kernel.numpy())) for kernel in kernels]
    sparse = train(
        sparsity.prune_low_magnitude(
            tfprune.to_tf_keras(ticket), sparsity.ConstantSparsity(0.5, begin_step=0, frequency=1)),
        [sparsity.UpdatePruningStep()])
    found["zeros"] = [float(np.mean(layer.kernel.numpy() == 0))
                      for layer in sparsity.strip_pruning(sparse).layers if hasattr(layer, "kernel")]
    print(json.dumps(found))
"""


def test_tfmot_quantises_clusters_and_prunes_a_ticket_by_its_twin(ticket, tmp_path):
    ticket.save(tmp_path / "ticket.keras")
    np.save(tmp_path / "x.npy", data()[0])
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    shown = subprocess.run(
        [sys.executable, "-c", TFMOT, tmp_path / "ticket.keras", tmp_path / "x.npy"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr[-2000:]
    found = json.loads(shown.stdout.splitlines()[-1])
    assert found["keras"].startswith("3."), "making a twin leaves tf.keras as it is"
    assert found["difference"] < 1e-5
    assert found["fake_quantised"] >= 4
    assert found["aware"] > 0.8
    assert found["values"]
    assert max(found["values"]) <= 4
    assert min(found["zeros"]) >= 0.45


def test_twin_in_tf_keras_says_what_it_cannot_be():
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=r"has no twin in tf_keras\. Expected layers"):
        tfprune.to_tf_keras(keras.Model(inputs, keras.ops.tanh(inputs)))
    with pytest.raises(ValueError, match=r"tf_keras has no pad_to_aspect_ratio\. Received: True"):
        tfprune.to_tf_keras(keras.Sequential([keras.Input((4, 4, 1)), layers.Resizing(2, 2, pad_to_aspect_ratio=True)]))
    with pytest.raises(ValueError, match="has masks"):
        tfprune.to_tf_keras(tfprune.wrap(network()))


@pytest.mark.parametrize("to", ALL)
def test_layers_that_augment_images_do_nothing_in_what_is_exported(tmp_path, to):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = layers.RandomRotation(0.3)(layers.RandomFlip()(layers.Rescaling(2.0)(inputs)))
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3, activation="relu")(layers.Resizing(6, 6)(x)))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    row = tfprune.export(model, tmp_path / f"out{deployment.FORMATS[to]}", to=to, data=data()[0])
    assert row["max_difference"] < (0.1 if to == "litert-int8" else 1e-5)


def recurrent(steps):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((steps, 4))
    x = layers.Bidirectional(layers.GRU(6, return_sequences=True, dropout=0.2))(inputs)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.LSTM(5)(x)))


@pytest.mark.parametrize("to", ALL)
def test_recurrent_layers_are_exported(tmp_path, to):
    sequences = np.random.default_rng(0).normal(size=(40, 6, 4)).astype("float32")
    row = tfprune.export(recurrent(6), tmp_path / f"out{deployment.FORMATS[to]}", to=to, data=sequences)
    assert row["num_samples"] == 40
    assert row["max_difference"] < (0.1 if to == "litert-int8" else 1e-5)


def test_normalisation_and_augmentation_have_twins_in_tf_keras():
    pytest.importorskip("tf_keras")
    model = keras.Sequential([
        keras.Input((6, 6, 2)), layers.RandomFlip("horizontal"), layers.LayerNormalization(), layers.Conv2D(3, 3),
        layers.GroupNormalization(3), layers.Flatten(), layers.Dense(2),
    ])  # fmt: skip
    x = np.random.default_rng(0).normal(size=(5, 6, 6, 2)).astype("float32")
    np.testing.assert_allclose(
        tfprune.to_tf_keras(model)(x, training=False).numpy(), model.predict(x, verbose=0), atol=1e-5
    )


def test_recurrent_layers_have_twins_in_tf_keras():
    pytest.importorskip("tf_keras")
    inputs = keras.Input((6, 4))
    x = layers.Bidirectional(layers.GRU(6, return_sequences=True), merge_mode="sum")(inputs)
    x = layers.TimeDistributed(layers.Dense(5, activation="relu"))(x)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    model = keras.Model(inputs, layers.SimpleRNN(4)(layers.GRU(4, return_sequences=True, reset_after=False)(x)))
    twin = tfprune.to_tf_keras(model)
    sequences = np.random.default_rng(0).normal(size=(8, 6, 4)).astype("float32")
    np.testing.assert_allclose(twin(sequences), model(sequences), atol=1e-5)


def test_sequences_of_any_length_are_no_litert_file(tmp_path):
    with pytest.raises(ValueError, match=r"of one known length\. Received: layer 'bidirectional.*\(None, None, 4\)"):
        tfprune.export(recurrent(None), tmp_path / "a.tflite", data=np.zeros((2, 6, 4), "float32"))
    assert list(tmp_path.iterdir()) == []
