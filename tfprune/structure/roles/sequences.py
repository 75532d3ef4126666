"""What do embeddings, recurrent layers, attention and einsum layers do to channels?"""

from dataclasses import replace

import keras
import numpy as np
from keras import layers

from tfprune.structure.roles.base import (
    NAMED,
    ROLES,
    Role,
    Uptake,
    keeps_apart,
    nest,
    refusing,
    role_of,
    why_mixing,
)
from tfprune.structure.roles.feedforward import kept_shape, write

# Embeddings ------------------------------------------------------------------------------------------------------


def _embedding(channels, layer, inputs, shapes):
    """Makes channels from indices; called with reverse=True it reads the same channels and makes logits."""
    if not channels.arguments().get("reverse"):
        made = channels.make("out", shapes[0][-1])
        return [channels.spread(made, shapes[0], len(shapes[0]) - 1)]
    channels.count("out", channels.along(inputs[0], -1))
    return [channels.new_frozen(shapes[0], "it is a word of the vocabulary")]


_EMBEDDING = Role(
    _embedding,
    {"embeddings": (None, "out")},
    makes={"out": {"embeddings": "out"}},
    sizes={"output_dim": "out"},
)
_REVERSIBLE = Role(
    _embedding,
    {"embeddings": (None, "out"), "reverse_embeddings": ("out", None)},
    # read backwards, a pruned column must not meet the channel that it would multiply
    {"embeddings": ("out",), "reverse_embeddings": ("out",)},
    {"out": {"embeddings": "out"}},
    {"output_dim": "out"},
)

# Recurrent layers ------------------------------------------------------------------------------------------------


def _recurrent(channels, layer, inputs, shapes):
    """A hidden unit lies in all gates, in the recurrent kernel's rows and columns, in every state and output."""
    given = channels.arguments()
    channels.count("in", channels.along(inputs[0], -1))
    size = shapes[0][-1]
    made = channels.make("out", size)
    channels.count("gates", np.tile(made, layer.cell.kernel.shape[-1] // size))
    for state in keras.tree.flatten(given.get("initial_state")):
        if isinstance(state, np.ndarray):
            channels.tie(made, channels.along(state, -1))
    for activation in (layer.cell.activation, getattr(layer.cell, "recurrent_activation", None)):
        if not keeps_apart(activation):
            channels.freeze(made, why_mixing(activation))
    return [channels.spread(made, shape, len(shape) - 1) for shape in shapes]


_CELL = Role(
    _recurrent,
    {"cell.kernel": ("in", "gates"), "cell.recurrent_kernel": ("out", "gates"), "cell.bias": ("gates",)},
    {"cell.kernel": ("in",), "cell.recurrent_kernel": ("out",)},
    {"out": {"cell.kernel": "gates", "cell.recurrent_kernel": "gates"}},
    {"units": "out"},
    absorbs={"cell.kernel": Uptake("cell.bias")},  # of a GRU's two rows of biases the first is that of the inputs
)


def _recurrent_role(layer):
    return refusing("it is stateful: what it remembers of a batch cannot be cut") if layer.stateful else _CELL


def _bidirectional(layer):
    """Two recurrent layers that read the same, and lose the same units."""
    ahead, back = layer.forward_layer, layer.backward_layer
    if role_of(ahead) is not _CELL or role_of(back) is not _CELL or type(ahead) is not type(back):
        return refusing("its two layers are not of one kind, are unknown, or are stateful")
    one, two = nest(_CELL, "layer", None), nest(_CELL, "backward_layer", None)
    both = {}
    for entry in ("weights", "reads"):
        both[entry] = {
            **{f"forward_{path}": names for path, names in getattr(one, entry).items()},
            **{path: tuple(map(_BACK.get, names)) for path, names in getattr(two, entry).items()},
        }
    makes = {
        "out": {f"forward_{path}": axis for path, axis in one.makes["out"].items()},
        "backward": {path: _BACK[axis] for path, axis in two.makes["out"].items()},
    }
    sizes = {**one.sizes, "backward_layer.config.units": "backward"}
    return Role(_both_ways, **both, makes=makes, sizes=sizes, absorbs=_ABSORBED_BOTH_WAYS)


_ABSORBED_BOTH_WAYS = {
    f"{inner}.cell.kernel": Uptake(f"{inner}.cell.bias", switch=f"{entry}.config.use_bias")
    for inner, entry in (("forward_layer", "layer"), ("backward_layer", "backward_layer"))
}
_BACK = {"in": "in", "out": "backward", "gates": "backward_gates"}


def _both_ways(channels, layer, inputs, shapes):
    given = channels.arguments()
    if given.get("initial_state") is not None:
        return channels.refuse(inputs, shapes, "it is given an initial state")
    channels.count("in", channels.along(inputs[0], -1))
    made = []
    for axis, inner in (("out", layer.forward_layer), ("backward", layer.backward_layer)):
        labels = channels.make(axis, inner.units)
        channels.count({"out": "gates"}.get(axis, "backward_gates"), np.tile(labels, _num_gates(inner)))
        for activation in (inner.cell.activation, getattr(inner.cell, "recurrent_activation", None)):
            if not keeps_apart(activation):
                channels.freeze(labels, why_mixing(activation))
        made.append(labels)
    return [
        channels.spread(labels, shape, len(shape) - 1)
        for labels, shape in zip(_merged(channels, layer, *made, len(shapes)), shapes, strict=True)
    ]


def _num_gates(layer):
    return layer.cell.kernel.shape[-1] // layer.units


def _merged(channels, layer, ahead, back, num_outputs):
    """The labels of each output: the merged sequence (or both sequences), then the states of both layers."""
    channels.tie(ahead, back)  # Keras takes both directions to be equally wide
    if layer.merge_mode is None:
        outputs = [ahead, back]
    elif layer.merge_mode == "concat":
        outputs = [np.concatenate([ahead, back])]
    else:
        outputs = [ahead]
    states = num_outputs - len(outputs)
    return [*outputs, *[ahead] * (states // 2), *[back] * (states // 2)]


# Attention -------------------------------------------------------------------------------------------------------


def _attention(channels, layer, inputs, shapes):
    """Three kinds of units: whole heads, the dimensions in which queries meet keys, and those of the values."""
    heads, qk = layer._query_dense.kernel.shape[-2:]
    head = channels.make("head", heads)
    channels.make("qk", qk)
    channels.make("v", layer._value_dense.kernel.shape[-1])
    return _attend(channels, layer, head, shapes)


def _grouped_attention(channels, layer, inputs, shapes):
    """As `_attention`; a head of keys and values goes with all the query heads that share it."""
    given = channels.arguments()
    channels.tie(channels.along(given["query"], -1), channels.along(given["value"], -1))  # Keras wants equal widths
    heads, qk = layer._key_dense.kernel.shape[-2:]
    head = channels.make("head", heads)
    channels.make("qk", qk)
    channels.count("query_head", np.repeat(head, layer.num_query_heads // heads))
    return _attend(channels, layer, np.repeat(head, layer.num_query_heads // heads), shapes)


def _attend(channels, layer, head, shapes):
    """What all attention layers share: reading three sequences, and writing one as wide as the query."""
    given = channels.arguments()
    value = given["value"]
    key = value if given.get("key") is None else given["key"]
    query_channels = channels.along(given["query"], -1)
    for name, labels in (("in_q", query_channels), ("in_k", key), ("in_v", value)):
        channels.count(name, channels.along(labels, -1))
    made = channels.make("out", shapes[0][-1])
    if getattr(layer, "_output_shape", None) is None:
        channels.tie(made, query_channels)  # the layer makes as many channels as its query has
    mask = given.get("attention_mask")
    if isinstance(mask, np.ndarray) and mask.ndim == 3 and mask.shape[0] > 1:
        channels.freeze(head, "its attention_mask has a place for each head")
    outputs = [channels.spread(made, shapes[0], len(shapes[0]) - 1)]
    return outputs + [channels.spread(head, shape, 0) for shape in shapes[1:]]  # scores: (heads, queries, keys)


_Q, _K, _V, _O = "_query_dense", "_key_dense", "_value_dense", "_output_dense"
_ATTENTION = Role(
    _attention,
    {
        f"{_Q}.kernel": ("in_q", "head", "qk"),
        f"{_Q}.bias": ("head", "qk"),
        f"{_K}.kernel": ("in_k", "head", "qk"),
        f"{_K}.bias": ("head", "qk"),
        f"{_V}.kernel": ("in_v", "head", "v"),
        f"{_V}.bias": ("head", "v"),
        f"{_O}.kernel": ("head", "v", "out"),
        f"{_O}.bias": ("out",),
    },
    {
        f"{_Q}.kernel": ("in_q", "qk"),
        f"{_Q}.bias": ("qk",),
        f"{_K}.kernel": ("in_k",),
        f"{_V}.kernel": ("in_v",),
        f"{_O}.kernel": ("head", "v"),
    },
    {
        "head": {f"{_Q}.kernel": "head", f"{_K}.kernel": "head", f"{_V}.kernel": "head"},
        "qk": {f"{_Q}.kernel": "qk", f"{_K}.kernel": "qk"},
        "v": {f"{_V}.kernel": "v"},
        "out": {f"{_O}.kernel": "out"},
    },
    {"num_heads": "head", "key_dim": "qk", "value_dim": "v"},
    # the layer divides by sqrt(key_dim), which gets smaller
    scales={f"{_Q}.kernel": "qk", f"{_Q}.bias": "qk"},
    divisor="_inverse_sqrt_key_dim",
    absorbs={
        f"{_Q}.kernel": Uptake(f"{_Q}.bias", axis="in_q", arguments=("query",)),
        f"{_K}.kernel": Uptake(f"{_K}.bias", axis="in_k", arguments=("key", "value")),
        f"{_V}.kernel": Uptake(f"{_V}.bias", axis="in_v", arguments=("value",)),
    },
)


def _of_groups(names):
    """The axis names of a query or output weight in grouped attention: more heads, and values as long as keys."""
    return tuple({"head": "query_head", "v": "qk"}.get(name, name) for name in names)


_GROUPED_ATTENTION = Role(
    _grouped_attention,
    {
        path: _of_groups(names) if path.startswith((_Q, _O)) else tuple({"v": "qk"}.get(name, name) for name in names)
        for path, names in _ATTENTION.weights.items()
    },
    {path: _of_groups(names) if path.startswith((_Q, _O)) else names for path, names in _ATTENTION.reads.items()},
    {
        "head": {f"{_Q}.kernel": "query_head", f"{_K}.kernel": "head", f"{_V}.kernel": "head"},
        "qk": {f"{_Q}.kernel": "qk", f"{_K}.kernel": "qk", f"{_V}.kernel": "qk"},
        "out": {f"{_O}.kernel": "out"},
    },
    {"num_query_heads": "query_head", "num_key_value_heads": "head", "head_dim": "qk"},
    scales=_ATTENTION.scales,
    divisor="_inverse_sqrt_head_dim",
    absorbs=_ATTENTION.absorbs,
)


def _with_output_shape(role, entry):
    def attention_role(layer):
        if not layer.built or getattr(layer, "_use_gate", False) or getattr(layer, "use_gate", False):
            return refusing("its attention has gates")
        own = getattr(layer, "_output_shape", None)
        return role if own is None else replace(role, sizes={**role.sizes, entry: "out"})

    return attention_role


# Transformer blocks that cannot be entered: their code does not run on symbols --------------------------------------


def _block(channels, layer, inputs, shapes):
    """Only the units between the two dense layers can go: nothing else in the block has a size of its own."""
    kernel = layer._feedforward_intermediate_dense.kernel
    made = channels.make("hidden", kernel.shape[-1])
    if not keeps_apart(layer.activation):
        channels.freeze(made, why_mixing(layer.activation))
    return channels.refuse(inputs, shapes, "it is a block whose code cannot be read: only its hidden units can go")


_FIRST, _SECOND = "_feedforward_intermediate_dense", "_feedforward_output_dense"
_BLOCK = Role(
    _block,
    {f"{_FIRST}.kernel": (None, "hidden"), f"{_FIRST}.bias": ("hidden",), f"{_SECOND}.kernel": ("hidden", None)},
    {f"{_SECOND}.kernel": ("hidden",)},
    {"hidden": {f"{_FIRST}.kernel": "hidden"}},
    {"intermediate_dim": "hidden"},
    opens=True,
)

# Einsum ----------------------------------------------------------------------------------------------------------


def _einsum_role(layer):
    """Letters of the equation name the axes; of the axes that the kernel makes, the last one counts the channels."""
    if not layer.built or "." in layer.equation:
        return refusing("its equation has an ellipsis")
    read, made = layer.equation.replace(" ", "").split("->")
    read, kernel = read.split(",")
    letters = [letter for letter in made if letter in kernel and letter not in read]
    if not letters or read[0] in kernel or read[0] != made[0]:
        return refusing("its equation makes no channels of its own")
    names = {letter: f"axis_{letter}" for letter in kernel}
    names[letters[-1]] = "out"
    weights = {"kernel": tuple(names[letter] for letter in kernel)}
    if layer.bias is not None:
        bias = [letter for letter in made if letter in (layer.bias_axes or "")]
        weights["bias"] = (*(names.get(letter) for letter in bias), *[None] * (len(layer.bias.shape) - len(bias)))
    contracted = tuple(names[letter] for letter in kernel if letter in read and letter not in made)
    return Role(
        _einsum,
        weights,
        {"kernel": contracted},
        {"out": {"kernel": "out"}},
        settings=kept_shape("output_shape"),
        absorbs=_einsum_absorbs(weights, contracted, [names.get(letter) for letter in read]),
    )


def _einsum_absorbs(weights, contracted, read):
    """A bias that is the same for places that the kernel tells apart cannot say what the kernel says."""
    if len(contracted) != 1 or {*contracted, *weights.get("bias", ())} != set(weights["kernel"]):
        return {}
    along = read.index(contracted[0]) - len(read)
    return {"kernel": Uptake("bias", axis=contracted[0], switch=None, along=along)}


def _einsum(channels, layer, inputs, shapes):
    read, made = layer.equation.replace(" ", "").split("->")
    read, kernel = read.split(",")
    for axis, labels in channels.varying_axes(inputs[0]):
        letter = read[axis + 1]
        if letter in made or letter not in kernel:
            return channels.refuse(inputs, shapes, "its equation keeps the axis that counts the channels it reads")
        channels.count(f"axis_{letter}", labels)
    letters = [letter for letter in made if letter in kernel and letter not in read]
    return write(channels, layer, shapes[0], made.index(letters[-1]) - 1)


_MULTIPLYING = refusing("it multiplies tensors with each other, without a weight between them")
_attention_role = _with_output_shape(_ATTENTION, "output_shape")

ROLES.update(
    {
        layers.Embedding: _EMBEDDING,
        **dict.fromkeys((layers.SimpleRNN, layers.GRU, layers.LSTM), _recurrent_role),
        layers.Bidirectional: _bidirectional,
        layers.MultiHeadAttention: _attention_role,
        layers.EinsumDense: _einsum_role,
        **dict.fromkeys((layers.Attention, layers.AdditiveAttention, layers.Dot), _MULTIPLYING),
    }
)
for _name, _role in {
    "GroupQueryAttention": _with_output_shape(_GROUPED_ATTENTION, None),
    "ReversibleEmbedding": _REVERSIBLE,
}.items():
    if hasattr(layers, _name):
        ROLES[getattr(layers, _name)] = _role

NAMED.update(
    {
        "keras_hub.ReversibleEmbedding": _REVERSIBLE,
        "keras_hub.CachedMultiHeadAttention": _attention_role,
        "keras_hub.TransformerDecoder": _BLOCK,
    }
)
