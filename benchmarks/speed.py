"""How much faster and smaller is a network with half of its channels, beside what its multiply-adds promise?

    python benchmarks/speed.py [--all] [--models ResNet50 VGG16] [--batches 8 1] [--rounds 9] [--steps 1]

Each network loses half the channels of every layer (random weights: which ones does not matter here), or as many
multiply-adds with kept channels in the multiple that `tfprune.choose_round_to` measures to be fastest. Timed in turns
within one run:

    keras     compiled predictions of the dense and the small Keras model
    rebuilt   where that differs, the dense model that `shrink` makes with nothing pruned: convolutions of one channel
              a group become DepthwiseConv2D, which "keras" counts with the pruning
    folded    both after `tfprune.fold_batch_norm`, where the network has BatchNormalizations
    shipped   the dense Keras model against the small folded one: all that pruning with tfprune brings
    litert    with --litert: the two models as LiteRT files, in floats, run by its interpreter
    tfmot     the tf_keras twin, and the twin with half of its weights zeroed and stripped by TFMOT
    torch     with --torch: torchvision's twin, dense and pruned by Torch-Pruning, in a process of its own

Printed are the time that pruning took, the speed-up that multiply-adds promise, those measured by the wall clock and in
processor time (which hardly notices what else the machine does), and the share of the promise that they keep; with
--int8 also the bytes of the LiteRT files in integers. Nothing is asserted. Without --all or --models a small residual
network shows that the script works.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

MODELS = ("VGG16", "ResNet50", "MobileNetV2", "DenseNet121", "EfficientNetB0", "InceptionV3", "ConvNeXtTiny")
TWINS = {
    "VGG16": "vgg16", "ResNet50": "resnet50", "MobileNetV2": "mobilenet_v2", "DenseNet121": "densenet121",
    "EfficientNetB0": "efficientnet_b0", "InceptionV3": "inception_v3", "ConvNeXtTiny": "convnext_tiny",
}  # fmt: skip
PACKAGES = ("tfprune", "tensorflow", "keras", "tf-keras", "tensorflow-model-optimization", "numpy")
RATIO = 0.5


# --- the sides --------------------------------------------------------------------------------------------------------


def build(name, size):
    import keras

    import tfprune

    if name == "resnet20":
        return tfprune.models.resnet(20)
    return getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3))


def prune(model, batch, repeats):
    """`(small model, row)`: half the channels of every layer, or as many multiply-adds in multiples that run faster."""
    import tfprune

    approximate = "convnext" in model.name
    start = time.perf_counter()
    round_to = tfprune.choose_round_to(model, RATIO, batch_size=batch, repeats=repeats, approximate=approximate)
    chosen = time.perf_counter()
    masked = tfprune.wrap(model, approximate=approximate)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, RATIO))
    small = tfprune.shrink(masked)
    done = time.perf_counter()
    row = tfprune.ticket_report(small)
    if round_to > 1:
        # rounded up at the same ratio, the model would keep multiply-adds that half the channels do not cost
        budget = {"multiply_adds": row["multiply_adds_after"], "approximate": approximate}
        small = tfprune.prune_to(model, round_to=round_to, show=False, **budget)
        row = tfprune.ticket_report(small)
    return small, {
        "seconds_to_prune": round(done - chosen, 2),
        "seconds_to_choose_round_to": round(chosen - start, 2),
        "round_to": round_to,
        "theoretical": round(row["multiply_adds_before"] / row["multiply_adds_after"], 3),
        "parameters": [row["parameters_before"], row["parameters_after"]],
    }


def images(batch, shape):
    import numpy as np

    return np.random.default_rng(0).normal(size=(batch, *shape)).astype("float32")


def compiled(model, batch):
    """A function without arguments that makes one prediction and waits for it."""
    import numpy as np
    import tensorflow as tf

    x = tf.constant(images(batch, model.inputs[0].shape[1:]))
    predict = tf.function(lambda x: model(x, training=False), autograph=False).get_concrete_function(x)
    return lambda: np.asarray(predict(x))


def rebuilt(model):
    """The dense model as `shrink` builds it with nothing pruned, or None where that changes no layer."""
    import tfprune

    again = tfprune.shrink(tfprune.wrap(model))
    kinds = [sorted(type(layer).__name__ for layer in one.layers if layer.weights) for one in (model, again)]
    return None if kinds[0] == kinds[1] else again


def folded_twins(dense, small):
    """Both models without BatchNormalizations behind kernels; nothing where there are none."""
    import tfprune

    twins = {"folded dense": tfprune.fold_batch_norm(dense), "folded small": tfprune.fold_batch_norm(small)}
    return {} if len(twins["folded dense"].layers) == len(dense.layers) else twins


def interpreted(model, batch, folder):
    """The same for its LiteRT file."""
    import tensorflow as tf

    import tfprune

    path = os.path.join(folder, f"{model.name}-{batch}-{id(model)}.tflite")
    tfprune.export(model, path, to="litert")
    interpreter = tf.lite.Interpreter(path, num_threads=os.cpu_count())
    entrance = interpreter.get_input_details()[0]["index"]
    x = images(batch, model.inputs[0].shape[1:])
    interpreter.resize_tensor_input(entrance, x.shape)
    interpreter.allocate_tensors()

    def predict():
        interpreter.set_tensor(entrance, x)
        interpreter.invoke()

    return predict


def tfmot_twins(model):
    """The tf_keras twin and the stripped one, or the reason why there is none."""
    import tfprune

    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        twin, other = tfprune.to_tf_keras(model), tfprune.to_tf_keras(model)
        import tensorflow_model_optimization as tfmot

        # TFMOT sets the variable for the whole process and its children.
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        return {"tfmot dense": twin, "tfmot stripped": stripped(tfmot.sparsity.keras, other)}, None
    except (
        Exception
    ) as error:  # a layer that tf_keras or TFMOT does not know: the other sides are measured all the same
        return {}, f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def stripped(sparsity, twin):
    """The twin with the smaller half of the weights of every kernel zeroed by TFMOT, without TFMOT's wrappers."""
    import tf_keras

    schedule = sparsity.ConstantSparsity(RATIO, begin_step=0, frequency=1)
    kernels = (tf_keras.layers.Conv2D, tf_keras.layers.DepthwiseConv2D, tf_keras.layers.Dense)

    def wrap(layer):
        # Asked for the whole model, TFMOT refuses it for any layer that it does not know.
        if isinstance(layer, kernels):
            return sparsity.prune_low_magnitude(layer, pruning_schedule=schedule)
        return type(layer).from_config(layer.get_config())

    wrapped = tf_keras.models.clone_model(twin, clone_function=wrap)
    for layer in wrapped.layers:
        if type(layer).__name__ == "PruneLowMagnitude":
            layer.pruning_step.assign(0)
            layer.pruning_obj.conditional_mask_update()
            layer.pruning_obj.weight_mask_op()
    return sparsity.strip_pruning(wrapped)


def int8_bytes(model):
    """Bytes of the LiteRT file in integers, or the reason why there is none."""
    import tfprune

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.tflite")
        try:
            tfprune.export(model, path, to="litert-int8", data=images(4, model.inputs[0].shape[1:]))
            return os.path.getsize(path)
        except Exception as error:  # the converter refuses some models
            return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


# --- the clock --------------------------------------------------------------------------------------------------------


def seconds(step, steps):
    """(wall, processor) seconds; the second counts all threads and hardly notices what else the machine does."""
    start = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start[0]) / steps, (time.process_time() - start[1]) / steps


def in_turns(sides, steps, rounds):
    """{side: [(wall, processor)] a round}; every other round runs backwards: no side is always first."""
    for step in sides.values():
        seconds(step, 2)  # the first runs allocate
    times = {name: [] for name in sides}
    for turn in range(rounds):
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            times[name].append(seconds(sides[name], steps))
    return times


def speedup(times, dense, small):
    """{"wall", "processor"}: medians over the rounds; "processor_best": of the least processor time of each side."""
    ratios = [(a[0] / b[0], a[1] / max(b[1], 1e-9)) for a, b in zip(times[dense], times[small], strict=True)]
    wall, processor = (statistics.median(column) for column in zip(*ratios, strict=True))
    best = min(p for _, p in times[dense]) / max(min(p for _, p in times[small]), 1e-9)
    return {"wall": round(wall, 3), "processor": round(processor, 3), "processor_best": round(best, 3)}


# --- one network ------------------------------------------------------------------------------------------------------


def measure(name, arguments):
    model = build(name, arguments.size)
    small, row = prune(model, arguments.batches[0], max(2, arguments.rounds))
    twins, reason = ({}, "not asked for") if arguments.no_tfmot else tfmot_twins(model)
    row |= {"model": name, "speedup": {}, **({"tfmot": reason} if reason else {})}
    again = rebuilt(model)
    like = again or model  # what the small model is compared with like for like
    folded = folded_twins(like, small)
    for batch in arguments.batches:
        sides = {
            "keras dense": compiled(model, batch),
            **({"rebuilt dense": compiled(again, batch)} if again else {}),
            "keras small": compiled(small, batch),
            **{side: compiled(one, batch) for side, one in folded.items()},
            **{side: compiled(twin, batch) for side, twin in twins.items()},
        }
        with tempfile.TemporaryDirectory() as folder:
            if arguments.litert:
                sides["litert dense"] = interpreted(like, batch, folder)
                sides["litert small"] = interpreted(small, batch, folder)
            times = in_turns(sides, arguments.steps, arguments.rounds)
        compared = {
            "keras": ("keras dense", "keras small"),
            "rebuilt": ("rebuilt dense", "keras small"),
            "folded": ("folded dense", "folded small"),
            "shipped": ("keras dense", "folded small"),
            "litert": ("litert dense", "litert small"),
            "tfmot": ("tfmot dense", "tfmot stripped"),
        }
        row["speedup"][batch] = {
            **{side: speedup(times, *pair) for side, pair in compared.items() if set(pair) <= times.keys()},
            "milliseconds": {side: round(1000 * min(w for w, _ in found), 2) for side, found in times.items()},
        }
        del sides
        gc.collect()
    if arguments.int8:
        row["int8_bytes"] = [int8_bytes(model), int8_bytes(small)]
    if arguments.torch and name in TWINS:
        row["torch"] = torch_row(name, arguments)
    return row


# --- the torch twin: a process of its own, for torchvision and TensorFlow do not live in one --------------------------


def torch_row(name, arguments):
    words = [arguments.torch_python, __file__, "--torch-side", name, "--batches", *map(str, arguments.batches)]
    words += ["--size", str(arguments.size), "--steps", str(arguments.steps), "--rounds", str(arguments.rounds)]
    done = subprocess.run(words, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr.strip()[-200:]


def torch_side(name, arguments):
    """Prints what Torch-Pruning makes of torchvision's twin, as one line of JSON."""
    import copy

    import torch
    import torch_pruning
    import torchvision

    torch.set_flush_denormal(True)  # as TensorFlow does: random weights make numbers so small that they are slow
    options = {"aux_logits": False, "init_weights": False} if name == "InceptionV3" else {}
    dense = getattr(torchvision.models, TWINS[name])(weights=None, **options).eval()
    small, example = copy.deepcopy(dense), torch.randn(1, 3, arguments.size, arguments.size)
    start = time.perf_counter()
    head = [m for m in small.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 1000]
    importance = torch_pruning.importance.MagnitudeImportance(p=1)
    pruner = torch_pruning.pruner.BasePruner(small, example, importance, pruning_ratio=RATIO, ignored_layers=head)
    pruner.step()
    row = {"seconds_to_prune": round(time.perf_counter() - start, 2), "speedup": {}}
    work = [torch_pruning.utils.count_ops_and_params(m, example)[0] for m in (dense, small)]
    row["theoretical"] = round(work[0] / work[1], 3)
    with torch.inference_mode():
        for batch in arguments.batches:
            x = torch.randn(batch, 3, arguments.size, arguments.size)
            sides = {"dense": lambda x=x: dense(x), "small": lambda x=x: small(x)}
            row["speedup"][batch] = speedup(in_turns(sides, arguments.steps, arguments.rounds), "dense", "small")
    print(json.dumps(row))


# --- the whole run ----------------------------------------------------------------------------------------------------


def show(row):
    theory = row["theoretical"]
    print(
        f"{row['model']}: pruned in {row['seconds_to_prune']:.1f} s, round_to={row['round_to']} "
        f"(chosen in {row['seconds_to_choose_round_to']:.1f} s), promised {theory:.2f}x"
    )
    for batch, found in row["speedup"].items():
        for side in ("keras", "rebuilt", "folded", "shipped", "litert", "tfmot"):
            if side in found:
                wall, processor, best = found[side].values()
                kept = "" if side == "tfmot" else f"   of the promise {processor / theory:.2f} ({wall / theory:.2f})"
                print(
                    f"  batch {batch} {side:8} processor {processor:5.2f}x (best {best:5.2f}x), wall {wall:5.2f}x{kept}"
                )
    if isinstance(row.get("tfmot"), str):
        print(f"  no TFMOT twin: {row['tfmot']}")
    if "int8_bytes" in row:
        sizes = (f"{size:,}" if isinstance(size, int) else size for size in row["int8_bytes"])
        print(f"  LiteRT in integers: {' -> '.join(sizes)} bytes")
    if "torch" in row:
        print(f"  Torch-Pruning: {row['torch']}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet20"], help=f"of keras.applications: {', '.join(MODELS)}")
    parser.add_argument("--all", action="store_true", help="these seven, with --int8 --litert --torch")
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 1], help="samples of a prediction")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--steps", type=int, default=1, help="predictions of one side in one round")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, each with all sides")
    parser.add_argument("--int8", action="store_true", help="bytes of the LiteRT files in integers too")
    parser.add_argument("--litert", action="store_true", help="the speed of LiteRT files in floats too")
    parser.add_argument("--torch", action="store_true", help="Torch-Pruning too, where it is installed")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch and torch-pruning")
    parser.add_argument("--no-tfmot", action="store_true", help="without TFMOT's twin")
    parser.add_argument("--torch-side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.all:
        arguments.models, arguments.int8, arguments.litert, arguments.torch = list(MODELS), True, True, True
    return arguments


def main():
    arguments = parse()
    if arguments.torch_side:
        return torch_side(arguments.torch_side, arguments)
    import keras
    import tensorflow as tf

    rows = []
    for name in arguments.models:
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        rows.append(measure(name, arguments))
        show(rows[-1])
        sys.stdout.flush()
        gc.collect()
    machine = {
        "cores": os.cpu_count(),
        "device": "gpu" if tf.config.list_physical_devices("GPU") else "cpu",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    print(json.dumps({"rows": rows, **vars(arguments), **machine}))


if __name__ == "__main__":
    main()
