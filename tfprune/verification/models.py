"""Which published models does tfprune prune exactly? It tries them all, and writes down what it found."""

import contextlib
import json
import time
from pathlib import Path

import keras
import numpy as np

from tfprune.pruning import masks, surgery
from tfprune.pruning.certificate import TOLERANCE, compare
from tfprune.structure import roles
from tfprune.structure.cost import cost
from tfprune.structure.groups import ChannelGraph
from tfprune.writing import write_text

RATIOS = (0.3, 0.5, 0.9)
SCOPES = ("layer", "global")

# --- the models: name -> function that builds it with random weights --------------------------------------------------

# Above 40 million parameters a model takes minutes: tried on request.
LARGE = {
    *("ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtXLarge", "EfficientNetB7", "EfficientNetB6"),
    *("EfficientNetV2L", "EfficientNetV2M", "InceptionResNetV2", "NASNetLarge", "ResNet101", "ResNet101V2"),
    *("ResNet152", "ResNet152V2", "VGG16", "VGG19"),
}
_SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}


def applications():
    """`{name: function -> model}` of every model function in keras.applications, at small images."""
    found = {}
    for name in sorted(dir(keras.applications)):
        build = getattr(keras.applications, name)
        if callable(build) and name[0].isupper():
            found[name] = _application(name, build)
    return found


def _application(name, build):
    size = _SMALLEST.get(name, 64)
    return lambda: build(weights=None, classes=10, input_shape=(size, size, 3))


def hub_backbones():
    """`{name: function -> model}` of small KerasHub backbones with a dense head; empty where it is not installed."""
    with contextlib.suppress(ImportError):
        import keras_hub

        return {f"keras_hub.{name}": _backbone(keras_hub, name, options) for name, options in _BACKBONES.items()}
    return {}


def _backbone(keras_hub, name, options):
    def build():
        backbone = getattr(keras_hub.models, name)(**options)
        inputs = keras.tree.map_structure(_fixed_input, backbone.input)
        features = backbone(inputs)
        if isinstance(features, dict):
            features = features["sequence_output"]
        pooling = {3: keras.layers.GlobalAveragePooling1D, 4: keras.layers.GlobalAveragePooling2D}
        pooled = pooling[len(features.shape)]()(features)
        return keras.Model(inputs, keras.layers.Dense(10, name="logits")(pooled))

    return build


def _fixed_input(tensor):
    """An input of known size, so that multiply-adds are known."""
    return keras.Input([size or 16 for size in tensor.shape[1:]], dtype=tensor.dtype, name=tensor.name)


_TEXT = {
    "vocabulary_size": 60,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "max_sequence_length": 16,
}
_IMAGE = {"image_shape": (32, 32, 3)}
_BACKBONES = {
    "ResNetBackbone": {
        **_IMAGE,
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 128],
        "stackwise_num_blocks": [2, 2],
        "stackwise_num_strides": [1, 2],
        "block_type": "basic_block",
        "use_pre_activation": False,
    },
    "DenseNetBackbone": {**_IMAGE, "stackwise_num_repeats": [2, 3], "compression_ratio": 0.5, "growth_rate": 8},
    "VGGBackbone": {**_IMAGE, "stackwise_num_repeats": [1, 2], "stackwise_num_filters": [8, 16]},
    "EfficientNetBackbone": {
        "image_shape": (64, 64, 3),
        "stackwise_width_coefficients": [0.3] * 7,
        "stackwise_depth_coefficients": [0.5] * 7,
        "stackwise_squeeze_and_excite_ratios": [0.25] * 7,
        "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
        "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
        "stackwise_block_types": ["v1"] * 7,
        "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
        "stackwise_num_repeats": [1, 1, 2, 2, 2, 2, 1],
        "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
        "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
    },
    "CSPNetBackbone": {
        **_IMAGE,
        "stem_filters": 16,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 2],
        "stackwise_strides": [2, 2],
        "stackwise_num_filters": [32, 64],
        "block_type": "dark_block",
        "stage_type": "dark",
    },
    "MiTBackbone": {
        **_IMAGE,
        "layerwise_depths": [1, 1],
        "num_layers": 2,
        "layerwise_num_heads": [1, 2],
        "layerwise_sr_ratios": [4, 2],
        "max_drop_path_rate": 0.1,
        "layerwise_patch_sizes": [7, 3],
        "layerwise_strides": [4, 2],
        "hidden_dims": [16, 32],
    },
    "ViTBackbone": {**_IMAGE, "patch_size": (8, 8), "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64},
    "BertBackbone": _TEXT,
    "RobertaBackbone": _TEXT,
    "DistilBertBackbone": _TEXT,
    "GPT2Backbone": _TEXT,
}

# --- one row a model --------------------------------------------------------------------------------------------------


def verify(name, build, approximate=False, scopes=SCOPES, ratios=RATIOS):
    """Prunes a model in several ways, and compares the small model with the masked one each time.

    Args:
        name: What the row is called.
        build: Function that returns the model; its weights are drawn anew, biases and statistics included.
        approximate: Whether to prune channels that a normalisation mixes too. Default False.
        scopes, ratios: The ways to prune, every scope with every ratio. Default: "layer" and "global"; 0.3, 0.5, 0.9.

    Returns:
        A dict: `model`, `calls`, `groups`, `approximate_groups`, `share` (of the parameters, in layers that prunable
        groups touch), `seconds_trace`, `seconds_group`, `seconds_shrink`, `parameters`, `multiply_adds`,
        `parameters_half`, `multiply_adds_half` (at ratio 0.5, layer by layer), `change` (how much that changed the
        outputs, relative), `largest_difference` (masked against small, over all ways), `exact`, and `error` where it
        failed.
    """
    row = {"model": name}
    try:
        model = randomise(build())
        row |= _describe(model, approximate)
        row |= _try(model, approximate, scopes, ratios)
        row["exact"] = row["largest_difference"] <= TOLERANCE and not row["approximate_groups"]
    except Exception as error:
        row |= {"exact": False, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return row


def randomise(model, seed=0):
    """Draws every weight of a model anew, biases, gammas and moving statistics included; returns the model."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name in ("mean", "variance", "count") or "int" in str(weight.dtype):
            continue  # what Normalization knows of its data
        if weight.name in ("moving_variance", "gamma"):
            value = random.uniform(0.5, 1.5, weight.shape)
        elif len(weight.shape) > 1:
            value = random.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:-1]))
        else:
            value = random.normal(size=weight.shape) * 0.5
        weight.assign(value.astype("float32"))
    return model


def _describe(model, approximate):
    from tfprune.structure.trace import trace

    start = time.perf_counter()
    trace(model)
    traced = time.perf_counter()
    graph = ChannelGraph(model, approximate, verify=False)
    grouped = time.perf_counter()
    before = cost(graph.trace)
    return {
        "calls": len(graph.trace.calls),
        "groups": len(graph.prunable),
        "approximate_groups": sum(group.approximate for group in graph.prunable),
        "share": _share(graph, before["parameters"]),
        "seconds_trace": round(traced - start, 3),
        # the graph traces the model once more
        "seconds_group": round(max(0.0, grouped - traced - (traced - start)), 3),
        "parameters": before["parameters"],
        "multiply_adds": before["multiply_adds"],
    }


def _share(graph, parameters):
    """The share of the parameters with an axis that counts channels of prunable groups."""
    free = np.zeros(graph.num_units, bool)
    for group in graph.prunable:
        free[group.units] = True
    touched = {}
    for name, op in graph.layers.items():
        for path, axes in graph.axes(name).items():
            if any(units is not None and free[units].any() for units in axes):
                weight = roles.part(roles.unwrap(op), path)
                touched[id(weight)] = int(np.prod(weight.shape))
    return round(sum(touched.values()) / parameters, 4)


def _try(model, approximate, scopes, ratios):
    masked = surgery.wrap(model, approximate)
    graph = surgery.masked_graph(masked, "verify")
    whole = np.ones(graph.num_units, bool)
    found, worst = {}, 0.0
    for scope in scopes:
        for ratio in ratios:
            surgery.set_units(graph, whole)
            masks.set_masks(masked, masks.compute_masks(masked, ratio, scope=scope))
            start = time.perf_counter()
            small, _ = surgery.cut(masked)
            seconds = time.perf_counter() - start
            gaps = compare(masked, small, graph.trace.inputs)
            worst = max(worst, *(gap for pairs in gaps.values() for gap, _ in pairs))
            if (scope, ratio) == ("layer", 0.5):
                half = cost(small)
                found = {
                    "seconds_shrink": round(seconds, 3),
                    "parameters_half": half["parameters"],
                    "multiply_adds_half": half["multiply_adds"],
                    "change": max(
                        gap for pairs in compare(model, small, graph.trace.inputs).values() for gap, _ in pairs
                    ),
                }
    return {**found, "largest_difference": worst}


# --- all of them ------------------------------------------------------------------------------------------------------


def verify_models(out, large=False, only=None, progress=print):
    """Verifies all models, and writes the table; models that have their row already are not tried again.

    Args:
        out: Path of the Markdown table, for example "docs/verified_models.md". The rows are kept beside it, with the
            ending .jsonl.
        large: Whether to try the largest models too. Default False.
        only: List of model names to try. Default None: all.
        progress: Function that is told a line for each model. Default `print`.

    Returns:
        List of rows as from `verify`.

    Example:
        >>> verify_models("docs/verified_models.md", only=["MobileNetV2"])
    """
    out = Path(out)
    rows_path = out.with_suffix(".jsonl")
    rows = _read(rows_path)
    for name, build, approximate in _candidates(large, only):
        if name in rows and "error" not in rows[name]:
            continue
        row = {**verify(name, build, approximate), "versions": _versions()}
        if approximate and not row.get("approximate_groups", 1):
            continue  # the same as the row before
        rows = dict(sorted({**rows, name: row}.items(), key=lambda item: ("." in item[0], item[0])))
        write_text(rows_path, "".join(json.dumps(row) + "\n" for row in rows.values()))
        progress(_line(row))
        keras.backend.clear_session()
    write_text(out, table(list(rows.values())))
    return list(rows.values())


def _candidates(large, only):
    """`[(name of the row, function, approximate)]`; models with normalisations over channels get a second row."""
    found = {**applications(), **hub_backbones()}
    unknown = set(only or ()) - {*found, *(f"{name} (approximate)" for name in found)}
    if unknown:
        raise ValueError(f"Unknown models: {sorted(unknown)}. Expected some of {sorted(found)}.")
    rows = []
    for name, build in found.items():
        if name in LARGE and not large and name not in (only or ()):
            continue
        rows.append((name, build, False))
        if _normalises_over_channels(name):
            rows.append((f"{name} (approximate)", build, True))
    return [row for row in rows if only is None or row[0] in only]


def _normalises_over_channels(name):
    return any(kind in name for kind in ("ConvNeXt", "ViT", "MiT", "Bert", "Roberta", "GPT2"))


def _read(path):
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {row["model"]: row for row in rows}


def _versions():
    import tensorflow as tf

    return {"keras": keras.__version__, "tensorflow": tf.__version__, "numpy": np.__version__}


def _line(row):
    if "error" in row:
        return f"{row['model']}: FAILED, {row['error']}"
    return f"{row['model']}: {_verdict(row)}, largest difference {row['largest_difference']:.1e}"


def _verdict(row):
    if "error" in row:
        return "failed"
    if row["approximate_groups"]:
        return "approximate"
    return "exact" if row["exact"] else "differs"


_HEAD = """# Models that tfprune was verified on

Every model is built with random weights (biases, BatchNormalization parameters and statistics too), wrapped, pruned by
the l1 criterion with scope "layer" and "global" at ratios 0.3, 0.5 and 0.9, and shrunk. *Largest difference* is that
between the masked and the small model over all six, on random, constant and scaled inputs, relative to the largest
output. *Exact*: it stays below 1e-4, and no normalisation mixes the pruned channels. *Approximate*: such channels were
pruned too; the masked model normalises over the kept channels as the small one does, so that both still agree, up to
rounding that is large where a normalisation has hardly anything left to normalise over.
*Share* is that of the parameters which pruning some group makes smaller. Seconds are of the machine that made the
table. Made by `tfprune verify-models --all`.

"""


def table(rows):
    """The rows of `verify` as a Markdown page."""
    columns = [
        *("model", "verdict", "calls", "groups", "share", "trace s", "group s", "shrink s", "parameters", "at 0.5"),
        *("multiply-adds", "at 0.5", "largest difference"),
    ]
    lines = [_row(columns), _row(["---"] * len(columns)), *(_row(_cells(row)) for row in rows)]
    versions = sorted({json.dumps(row["versions"]) for row in rows if "versions" in row})
    said = [", ".join(f"{name} {number}" for name, number in json.loads(text).items()) for text in versions]
    return _HEAD + "\n".join(lines) + f"\n\nMeasured with {'; '.join(said)}.\n"


def _row(cells):
    return f"| {' | '.join(cells)} |"


def _cells(row):
    if "error" in row:
        return [row["model"], f"failed: {row['error']}", *[""] * 11]
    return [
        row["model"],
        _verdict(row),
        str(row["calls"]),
        str(row["groups"]),
        f"{row['share']:.0%}",
        *(f"{row[f'seconds_{step}']:.2f}" for step in ("trace", "group", "shrink")),
        *(_count(row[key]) for key in ("parameters", "parameters_half", "multiply_adds", "multiply_adds_half")),
        f"{row['largest_difference']:.1e}",
    ]


def _count(number):
    return "?" if number is None else f"{number:,}"
