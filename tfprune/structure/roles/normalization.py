"""What do normalisation layers do to channels: keep them apart, or mix them in their statistics?"""

import math

from keras import layers

from tfprune.structure.roles.base import NAMED, ROLES, Role, axis_without_batch, refusing, same


def _batchnorm(channels, layer, inputs, shapes):
    """Statistics over everything but the channels: each channel by itself."""
    axis = axis_without_batch(layer.axis, len(shapes[0]))
    read = channels.along(inputs[0], axis)
    channels.count("in", read)
    return [channels.spread(read, shapes[0], axis)]


def _per_channel(channels, layer, inputs, shapes):
    """A weight for each place of the last axis: LayerScale, embeddings of positions."""
    read = channels.along(inputs[0], -1)
    channels.count("in", read)
    return [channels.spread(read, shapes[0], len(shapes[0]) - 1)]


def _over_axes(channels, layer, inputs, shapes):
    """Statistics over the layer's axes; channels that lie along another axis are left apart."""
    rank = len(shapes[0])
    axes = [axis_without_batch(axis, rank) for axis in _axes(layer)]
    for axis, labels in channels.varying_axes(inputs[0]):
        if axis in axes:
            channels.mix(labels)
            channels.count(f"axis_{axes.index(axis)}", labels)
            channels.count("in", labels)
    return same(channels, layer, inputs, shapes)


def _axes(layer):
    return layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]


def _over_axes_role(*weights):
    """The role of a normalisation whose weights have an axis for each axis of its statistics."""

    def role(layer):
        if getattr(layer, "rms_scaling", False):
            return refusing("it normalises with rms_scaling")
        names = tuple(f"axis_{index}" for index in range(len(_axes(layer))))
        return Role(_over_axes, dict.fromkeys(weights, names), mixes=True)

    return role


def _group_norm_role(layer):
    """Each channel by itself where groups and channels are as many; else all groups lose channels at equal places."""
    if not layer.built:
        return None
    weight = layer.gamma if layer.scale else layer.beta
    alone = weight is not None and layer.groups in (-1, weight.shape[0])
    weights = {"gamma": ("in",), "beta": ("in",)}
    if alone:
        return Role(_batchnorm, weights, sizes={"groups": "in"})
    return Role(_in_groups, weights, mixes=True)


def _in_groups(channels, layer, inputs, shapes):
    axis = axis_without_batch(layer.axis, len(shapes[0]))
    read = channels.along(inputs[0], axis)
    rows = read.reshape(math.gcd(layer.groups, len(read)), -1)
    for row in rows[1:]:
        channels.tie(rows[0], row)
    channels.mix(read)
    channels.count("in", read)
    return [channels.spread(read, shapes[0], axis)]


_NORM = {name: ("in",) for name in ("gamma", "beta", "moving_mean", "moving_variance")}

ROLES.update(
    {
        layers.BatchNormalization: Role(_batchnorm, _NORM),
        layers.LayerNormalization: _over_axes_role("gamma", "beta"),
        layers.UnitNormalization: _over_axes_role(),
        layers.GroupNormalization: _group_norm_role,
    }
)
if hasattr(layers, "RMSNormalization"):
    ROLES[layers.RMSNormalization] = _over_axes_role("scale")

NAMED.update(
    {
        "keras.applications.LayerScale": Role(_per_channel, {"gamma": ("in",)}, sizes={"projection_dim": "in"}),
        "keras_hub.PositionEmbedding": Role(_per_channel, {"position_embeddings": (None, "in")}),
    }
)
