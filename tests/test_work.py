"""Does a trial's row tell what was trained and measured, for every kind of data, model and device?"""

import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune import datasets, models
from tfprune.study import fit, measure, work
from tfprune.study.trial import Evaluation, Recipe, Trial
from tfprune.uncertainty import detectors
from tfprune.uncertainty.leak import LeakError


def pictures():
    """Three classes of 8x8 pictures: where the bright square is."""
    random = np.random.default_rng(0)

    def split(size):
        y = random.integers(3, size=size)
        x = random.uniform(0, 0.3, size=(size, 8, 8, 1)).astype("float32")
        for picture, place in zip(x, y, strict=True):
            picture[2 * place : 2 * place + 3, 2:6] += 0.6
        return x, y.astype("int32")

    strangers = random.uniform(size=(40, 8, 8, 1)).astype("float32")
    return datasets.Dataset("pictures", split(96), split(48), split(64), {"noise": strangers}, 3, (8, 8, 1))


def softmax_net(input_shape, num_classes, seed):
    """Ends in probabilities, as many models of users do."""
    draw = keras.initializers.GlorotUniform(seed)
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(6, 3, activation="relu", kernel_initializer=draw, name="conv"),
            layers.Flatten(),
            layers.Dense(10, activation="relu", kernel_initializer=draw, name="hidden"),
            layers.Dense(num_classes, activation="softmax", kernel_initializer=draw, name="classes"),
        ]
    )


RECIPE = Recipe("adam", 0.01, batch_size=32, epochs=6, patience=6)
LOOK = Evaluation(
    detectors=("msp", "energy", "mahalanobis"), corruptions=("gaussian_noise",), severities=(1, 5), latency=True
)


@pytest.fixture(scope="module")
def row():
    of = Trial(pictures, softmax_net, "iterative", 0.5, 0, recipe=RECIPE, evaluation=LOOK, rounds=2)
    return work.run_trial(of)


def test_row_is_flat_and_ready_for_json(row):
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert not [name for name, value in row.items() if isinstance(value, dict)]


def test_row_tells_of_all_rounds(row):
    lists = {name: value for name, value in row.items() if name.startswith("round_")}
    names = ("ratio", "epochs", "early_stop_epoch", "channels_kept", "accuracy", "ece", "auroc")
    assert lists.keys() == {f"round_{name}" for name in names}
    assert {len(value) for value in lists.values()} == {3}
    assert row["round_ratio"] == pytest.approx([0, 1 - 0.5**0.5, 0.5])
    assert row["round_channels_kept"] == [16, 11, 8]
    assert row["rounds_done"] == 2
    assert row["total_epochs"] == sum(row["round_epochs"]) == row["dense_epochs"] + sum(row["round_epochs"][1:])
    assert row["epochs_trained"] == row["round_epochs"][-1] >= row["early_stop_epoch"] >= 1
    ends = {"accuracy": "accuracy", "ece": "ece", "auroc": "noise/auroc_msp"}
    for name, column in ends.items():
        assert (row[f"round_{name}"][0], row[f"round_{name}"][-1]) == (row[f"dense_{column}"], row[column])


def test_row_tells_widths_and_cost(row):
    assert row["layer_names"] == ["conv", "hidden"]
    assert (row["layer_channels_before"], row["layer_channels_after"]) == ([6, 10], [3, 5])
    assert row["parameters"] == (9 * 3 + 3) + (36 * 3 * 5 + 5) + (5 * 3 + 3)
    assert row["dense_parameters"] == (9 * 6 + 6) + (36 * 6 * 10 + 10) + (10 * 3 + 3)
    assert row["compression_ratio"] == pytest.approx(row["dense_parameters"] / row["parameters"])
    assert row["dense_compression_ratio"] == 1
    assert row["measured_speedup"] == pytest.approx(row["dense_latency_ms"] / row["latency_ms"])


def test_row_tells_what_trained_where(row):
    assert (row["trainer"], row["device"]) == ("compiled", "CPU")
    assert row["trainer_reason"] == "data and model fit a compiled loop"


def test_detectors_corruptions_and_the_dense_network_are_measured(row):
    for prefix in ("", "dense_"):
        assert 0 <= row[f"{prefix}noise/auroc_mahalanobis"] <= 1
        shifted = [name for name in row if name.startswith(f"{prefix}shift/")]
        assert {name.removeprefix(prefix).split("/")[1] for name in shifted} == {"gaussian_noise"}
        assert {name.split("/")[2] for name in shifted} == {"1", "5"}
        assert len(shifted) == 12
        assert sum(row[f"{prefix}reliability_count"]) == 64
    assert row["dense_accuracy"] > 0.8
    assert row["dense_best_val_loss"] < 0.6


def test_probabilities_are_not_taken_for_logits():
    data, model = pictures(), softmax_net((8, 8, 1), 3, 0)
    found = measure.evaluate(model, data, Evaluation())
    wanted = tfprune.evaluate(model, data.test, ood=data.ood, from_logits=False)
    assert found == measure.plain(wanted)
    assert isinstance(work._loss(model, data), keras.losses.SparseCategoricalCrossentropy)
    given = work._loss(model, data)(np.array([0]), np.array([[0.5, 0.25, 0.25]]))
    assert float(given) == pytest.approx(np.log(2), rel=1e-5)


def test_one_column_for_two_classes_is_trained_as_such():
    def sigmoid_net(input_shape, num_classes, seed):
        return keras.Sequential(
            [keras.Input(input_shape), layers.Dense(8, "relu", name="hidden"), layers.Dense(1, "sigmoid", name="yes")]
        )

    recipe = Recipe(learning_rate=0.05, epochs=40, patience=40)
    found = work.run_trial(Trial("moons", sigmoid_net, "one_shot", 0.25, 0, recipe=recipe))
    assert found["accuracy"] > 0.8
    assert found["layer_channels_after"] == [6]


@pytest.mark.parametrize("name", ["gaussian_mlp", "homoskedastic_mlp"])
def test_regression_is_trained_and_measured(name):
    recipe = Recipe(learning_rate=0.03, epochs=150, patience=150)
    found = work.run_trial(Trial("noisy_line", name, "iterative", 0.5, 0, recipe=recipe, rounds=2))
    assert found["homoskedastic"] is (name == "homoskedastic_mlp")
    for prefix in ("", "dense_"):
        assert 0.2 < found[f"{prefix}rmse"] < 0.5  # the noise is 0.3 on average, the targets spread over 0.65
        assert 0.75 < found[f"{prefix}picp_90"] < 1
    lists = {column: value for column, value in found.items() if column.startswith("round_")}
    assert {"round_gaussian_nll", "round_rmse", "round_interval_calibration_error"} < lists.keys()
    assert {len(value) for value in lists.values()} == {3}
    assert found["round_rmse"][-1] == found["rmse"]
    assert found["layer_channels_after"] == [15]


def test_model_file_with_a_gaussian_head_is_taken(tmp_path):
    path = str(tmp_path / "mine.keras")
    models.gaussian_mlp((1,), hidden=(4,)).save(path)
    setup = work.set_up(Trial("noisy_line", path, "one_shot", 0.5, 0))
    assert setup.model.output_shape == (None, 2)
    with pytest.raises(ValueError, match=r"Received: a network from \(1,\) to 2 outputs. Expected: from \(1,\) to 6"):
        models.from_file(path, (1,), num_targets=3)


def test_corruptions_of_points_are_refused():
    with pytest.raises(ValueError, match=r"Corruptions are of images.*Received: data of shape \(2,\)"):
        measure.evaluate(models.mlp((2,)), datasets.moons(), Evaluation(corruptions=("fog",)))
    with pytest.raises(ValueError, match="Severity 0 is the clean images"):
        measure.evaluate(softmax_net((8, 8, 1), 3, 0), pictures(), Evaluation(corruptions=("fog",), severities=(0, 1)))


@pytest.mark.parametrize(
    ("look", "message"),
    [
        ({"corruptions": ("fogg",)}, "Unknown corruption. Received: 'fogg'"),
        ({"corruptions": ("all",), "severities": (3, 9)}, "Severities are from 1 to 5"),
        ({"detectors": ("msp", "mspp")}, "Unknown detector 'mspp'"),
    ],
)
def test_evaluation_that_cannot_be_is_refused_before_anything_is_trained(look, message):
    with pytest.raises(ValueError, match=message):
        work.set_up(Trial("digits", "cnn", "one_shot", 0.5, 0, evaluation=Evaluation(**look)))


def test_all_stands_for_every_detector():
    look = Evaluation(detectors=("all",))
    measure.check(look, datasets.moons())
    found = measure.evaluate(models.mlp((2,), seed=0), datasets.moons(), look)
    assert {f"far/auroc_{name}" for name in detectors.DETECTORS} <= found.keys()
    assert found["far/auroc_knn"] > 0.5


def test_a_detector_that_cannot_be_had_of_a_network_leaves_its_other_columns():
    data, dead = datasets.moons(), models.mlp((2,), hidden=(2,), seed=0)
    dead.layers[0].bias.assign([-1000.0, -1000.0])
    found = measure.evaluate(dead, data, Evaluation(detectors=("msp", "knn", "mahalanobis")))
    without = measure.evaluate(dead, data, Evaluation(detectors=("msp",)))
    assert found.pop("detectors_reason").startswith("knn cannot be fitted: the model gives the same features")
    lost = {name: value for name, value in found.items() if name.endswith(("_knn", "_mahalanobis"))}
    assert {"far/auroc_knn", "far/fpr95_mahalanobis"} < lost.keys()
    assert set(lost.values()) == {None}
    assert {name: value for name, value in found.items() if name not in lost} == without


def test_detectors_that_can_be_had_are_asked_where_another_cannot():
    data, net = datasets.moons(), models.mlp((2,), seed=0)
    one_class = datasets.Dataset(**{**vars(data), "train": (data.train[0], 0 * data.train[1])})
    found = measure.evaluate(net, one_class, Evaluation(detectors=("relative_mahalanobis", "knn")))
    alone = measure.evaluate(net, one_class, Evaluation(detectors=("knn",)))
    assert found["far/auroc_relative_mahalanobis"] is None
    assert found["detectors_reason"].startswith("relative_mahalanobis cannot be fitted: all samples are of class 0")
    for name in ("far/auroc_knn", "num_features", "feature_rank", "leak"):
        assert found[name] == alone[name] is not None


def test_what_no_detector_is_to_blame_for_is_refused():
    data = datasets.moons()
    leaking = datasets.Dataset(**{**vars(data), "test": data.train})
    with pytest.raises(LeakError):
        measure.evaluate(models.mlp((2,), seed=0), leaking, Evaluation(detectors=("knn",)))
    with pytest.raises(ValueError, match=r"share a name|same name|different names"):
        measure.evaluate(models.mlp((2,), seed=0), data, Evaluation(detectors=("knn", "knn")))


def test_layers_that_there_are_not_are_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"Unknown layer name 'hiden' in only\. Did you mean 'hidden'"):
        work.set_up(Trial("moons", "mlp", "one_shot", 0.5, 0, "hiden"))


def test_function_that_does_not_take_what_the_data_ask_for_is_refused_by_name():
    def net(input_shape, num_classes, seed):
        return softmax_net(input_shape, num_classes, seed)

    message = r"'net' is called by keyword, with input_shape, num_targets and seed for numbers to predict.*Received: a"
    with pytest.raises(ValueError, match=message):
        work.set_up(Trial("noisy_line", net, "one_shot", 0.5, 0))
    with pytest.raises(ValueError, match=r"'gaussian_mlp' is called .* input_shape, num_classes and seed for classes"):
        work.set_up(Trial("moons", "gaussian_mlp", "one_shot", 0.5, 0))


def test_value_range_of_the_images_reaches_the_corruptions():
    data = pictures()
    shifted = datasets.Dataset(**{**vars(data), "test": (2 * data.test[0] - 1, data.test[1]), "value_range": (-1, 1)})
    look = Evaluation(corruptions=("contrast",), severities=(5,))
    flat = keras.Sequential([keras.Input((8, 8, 1)), layers.Rescaling(2.0, -1.0), *softmax_net((8, 8, 1), 3, 0).layers])
    base = keras.Sequential([keras.Input((8, 8, 1)), *flat.layers[1:]])
    one, other = measure.evaluate(flat, data, look), measure.evaluate(base, shifted, look)
    assert one["shift/contrast/5/nll"] == pytest.approx(other["shift/contrast/5/nll"], rel=1e-4)
    assert one["shift/contrast/5/nll"] != one["nll"]


def test_images_are_damaged_once_for_all_networks_of_a_seed(monkeypatch):
    data, look = pictures(), Evaluation(corruptions=("fog", "contrast"), severities=(1, 5))
    done = []
    corrupt = measure.corruptions.corrupt
    monkeypatch.setattr(measure.corruptions, "corrupt", lambda *given: done.append(given[1:4]) or corrupt(*given))
    one, other = softmax_net((8, 8, 1), 3, 0), softmax_net((8, 8, 1), 3, 1)
    first, second = measure.evaluate(one, data, look, seed=3), measure.evaluate(other, data, look, seed=3)
    assert done == [("fog", 1, 3), ("fog", 5, 3), ("contrast", 1, 3), ("contrast", 5, 3)]
    assert measure.evaluate(one, data, look, seed=3) == first != second
    assert measure.evaluate(one, data, look, seed=4) != first
    assert len(done) == 8
    again = datasets.Dataset(**{**vars(data), "test": (1 - data.test[0], data.test[1])})
    assert measure.evaluate(one, again, look, seed=4)["shift/fog/1/nll"] != first["shift/fog/1/nll"]
    monkeypatch.setattr(measure, "_MEMORY", 0)
    measure._DAMAGED.clear()
    assert measure.evaluate(one, data, look, seed=3) == first
    assert set(measure._DAMAGED) == {"for", "test"}


def test_at_most_a_thousand_images_are_damaged(monkeypatch):
    data, look = pictures(), Evaluation(corruptions=("contrast",), severities=(3,))
    monkeypatch.setattr(measure, "_SHIFTED", 20)
    net = softmax_net((8, 8, 1), 3, 0)
    found = measure.evaluate(net, data, look)
    places = np.linspace(0, len(data.test[0]) - 1, 20, dtype=int)
    rows = tfprune.evaluate_shift(net, tuple(part[places] for part in data.test), ["contrast"], [3], from_logits=False)
    assert found["shift/contrast/3/nll"] == pytest.approx(rows[1]["nll"], rel=1e-6)


def test_recipe_reaches_the_optimizer():
    recipe = Recipe("sgd", 0.1, momentum=0.9, weight_decay=0.01, batch_size=100, decay=0.5)
    optimizer = work.build_model(Trial("moons", "mlp", "one_shot", 0.5, 0, recipe=recipe), datasets.moons()).optimizer
    assert (optimizer.momentum, optimizer.weight_decay, type(optimizer).__name__) == (0.9, 0.01, "SGD")


def test_learning_rate_falls_and_then_stays():
    recipe = Recipe("sgd", 0.1, batch_size=100, decay=0.5, epochs=3)
    optimizer = work.build_model(Trial("moons", "mlp", "one_shot", 0.5, 0, recipe=recipe), datasets.moons()).optimizer
    falls = keras.optimizers.schedules.ExponentialDecay(0.1, 7, 0.5, staircase=True)
    again = type(optimizer).from_config(optimizer.get_config())
    for step in (0, 6, 7, 13, 14, 20, 21, 5000):
        optimizer.iterations.assign(step)
        again.iterations.assign(step)
        assert float(optimizer.learning_rate) == float(falls(min(step, 20))) == float(again.learning_rate)


def test_glance_is_what_evaluate_says():
    data, model = pictures(), softmax_net((8, 8, 1), 3, 0)
    wanted = tfprune.evaluate(model, data.test, ood=data.ood, from_logits=False)
    seen = measure.glance(tfprune.wrap(model), data)
    assert seen == pytest.approx(
        {"round_accuracy": wanted["accuracy"], "round_ece": wanted["ece"], "round_auroc": wanted["noise/auroc_msp"]}
    )


# Several devices ----------------------------------------------------------------------------------------------------


def test_two_devices_give_what_one_gives():
    code = textwrap.dedent("""
        import json
        import tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        from tfprune.study import work
        from tfprune.study.trial import Recipe, Trial

        of = Trial("moons", "mlp", "iterative", 0.5, 0, rounds=2, recipe=Recipe(batch_size=100, epochs=3, patience=3))
        rows = [work.run_trial(of, devices=devices, trainer=trainer) for devices, trainer in ((1, "fit"), (2, "auto"))]
        print(tf.config.threading.get_intra_op_parallelism_threads())
        print(json.dumps(rows))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    threads, rows = done.stdout.splitlines()
    one, two = json.loads(rows)
    assert threads == "1"
    assert (one["device"], two["device"]) == ("CPU", "2 x CPU")
    assert two["trainer_reason"] == "the model is distributed over several devices"
    assert one["round_channels_kept"] == two["round_channels_kept"] == [30, 21, 15]
    for name in ("nll", "dense_nll", "best_val_loss", "ece", "far/auroc_msp"):
        assert one[name] == pytest.approx(two[name], rel=1e-4), name


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(ValueError, match=r"devices=7 asks for as many CPUs, but TensorFlow has 1"):
        work.set_up(Trial("moons", "mlp", "one_shot", 0.5, 0), devices=7)


@pytest.mark.parametrize(("examples", "batch_size"), [(100, 33), (97, 32), (101, 0)])
def test_batches_that_devices_cannot_share_are_refused(examples, batch_size):
    fit.check_shares(examples, batch_size, 1)
    with pytest.raises(ValueError, match=rf"2 devices cannot share batches of \d+ of {examples} examples"):
        fit.check_shares(examples, batch_size, 2)


def test_validation_leaves_no_device_without_an_example():
    data = datasets.moons()
    batches, steps = fit._validation_batches(data, 0, devices=4)
    sizes = [len(x) for x, _ in batches.take(steps)]
    assert sum(sizes) == 150
    assert sizes[0] % 4 == 0
    assert min(sizes) >= 4


def test_detectors_learn_from_some_thousand_examples_of_many():
    data = datasets.moons()
    many = tuple(np.concatenate([part] * 20) for part in data.train)
    x, y = measure.evenly(many, 5000)
    assert len(x) == len(y) == 5000
    np.testing.assert_array_equal(x[[0, -1]], many[0][[0, -1]])
    assert 0.45 < y.mean() < 0.55
    np.testing.assert_array_equal(measure.evenly(data.train, 5000)[0], data.train[0])
