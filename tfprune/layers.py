"""What layers hold the masks of a model while it is being pruned?"""

import functools

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfprune")
class ChannelMask(keras.layers.Layer):
    """Wraps a layer so that it reads only the channels that are kept.

    Pruning a channel means that nobody reads it any more, so the mask stands where the channel is read: on the
    rows of the kernel that would multiply it. The wrapped model then computes what the shrunk model computes, whatever
    stands in between (BatchNormalization, sigmoid ...), and what was pruned gets a gradient of exactly zero. Masking
    the kernel costs little, for it is small beside the activations.

    `tfprune.wrap(model)` places these layers; there is no need to make them by hand. A wrapped layer is called as the
    layer itself.

    Args:
        layer: The layer to wrap, for example `keras.layers.Dense(10)`.
        masks: `{axis name: number of channels}`, a mask for each: "in" for the channels that a layer reads, "out" for
            those that it makes; attention layers have more.
        reads: `{weight: {axis name: axis}}`: the weights that a mask is laid on, and along which axis. A weight of an
            inner layer has a dotted name ("cell.kernel").

    Example:
        >>> layer = ChannelMask(keras.layers.Dense(10), {"in": 30, "out": 10}, {"kernel": {"in": 0}})
        >>> outputs = layer(keras.ops.ones((1, 30)))
        >>> layer.masks["in"].assign(numpy.arange(30) < 15)   # reads the first 15 channels only
    """

    def __init__(self, layer, masks=None, reads=None, **kwargs):
        # Keras reads the signature of `call` when a layer is made: a wrapped layer takes what the layer takes.
        call = functools.partial(self._call_masked)
        object.__setattr__(self, "call", functools.update_wrapper(call, layer.call))
        kwargs.setdefault("name", layer.name)
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(**kwargs)
        self.layer = layer
        self.reads = {path: dict(axes) for path, axes in (reads or {}).items()}
        self.supports_masking = layer.supports_masking
        # Masks are created here and not in build(): they need no input shape, and are there from the start.
        self.masks = {name: self._mask(name, size) for name, size in (masks or {}).items()}

    def _mask(self, name, size):
        return self.add_weight(
            shape=(size,), initializer="ones", dtype="float32", trainable=False, autocast=False, name=f"{name}_mask"
        )

    def _call_masked(self, *args, **kwargs):
        if not self.reads or not self.layer.built:
            return self.layer(*args, **kwargs)
        values = [(weight, self._masked(weight, axes)) for weight, axes in self._weights()]
        masked = {id(weight) for weight, _ in values}
        # A scope hides the one around it (as of `stateless_call`), so what holds there is handed on.
        values += [(weight, ops.convert_to_tensor(weight)) for weight in self._others(masked)]
        with keras.StatelessScope(values, collect_losses=True) as scope:
            given = {id(weight): scope.get_current_value(weight) for weight, _ in values}
            outputs = self.layer(*args, **kwargs)
        self._keep(scope, given)
        return outputs

    def _others(self, masked):
        return [weight for weight in self.layer.variables if id(weight) not in masked]

    def _weights(self):
        """`[(weight, {axis name: axis})]` of the weights that exist (a layer may have no bias)."""
        found = [(functools.reduce(getattr, path.split("."), self.layer), axes) for path, axes in self.reads.items()]
        return [(weight, axes) for weight, axes in found if weight is not None]

    def _masked(self, weight, axes):
        value = ops.convert_to_tensor(weight)
        for name, axis in axes.items():
            shape = [-1 if index == axis % len(weight.shape) else 1 for index in range(len(weight.shape))]
            mask = ops.cast(ops.convert_to_tensor(self.masks[name]), value.dtype)
            value = value * ops.reshape(mask, shape)
        return value

    def _keep(self, scope, given):
        """What the layer changed would stay behind in the scope: seeds of dropout, losses of regularizers."""
        for variable in self.layer.variables:
            value = scope.get_current_value(variable)
            if value is not None and value is not given.get(id(variable)):
                variable.assign(value)
        for loss in scope.losses:
            self.add_loss(loss)

    def compute_output_spec(self, *args, **kwargs):
        """The shapes and dtypes that the wrapped layer gives."""
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, *args, **kwargs):
        """The wrapped layer's output shape."""
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, *args, **kwargs):
        """The wrapped layer's mask of time steps."""
        return self.layer.compute_mask(*args, **kwargs)

    def get_config(self):
        """What `__init__` takes."""
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "masks": {name: int(mask.shape[0]) for name, mask in self.masks.items()},
            "reads": self.reads,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds the layer again from its config."""
        config = dict(config)
        layer = keras.saving.deserialize_keras_object(config.pop("layer"), custom_objects=custom_objects)
        return cls(layer, **config)


@keras.saving.register_keras_serializable("tfprune")
class NormalizationMask(ChannelMask):
    """Wraps a normalisation so that its statistics are those of the channels that are kept.

    LayerNormalization, GroupNormalization, RMSNormalization and UnitNormalization compute their statistics over
    channels. With a mask they leave out those that are pruned, as the shrunk model will. The mask "in" counts the
    channels along their last normalised axis.

    Args:
        layer: The normalisation layer.
        masks: `{"in": number of channels}`.

    Example:
        >>> layer = NormalizationMask(keras.layers.LayerNormalization(), {"in": 8})
    """

    def _call_masked(self, inputs):
        layer = self.layer
        if not layer.built:
            return layer(inputs)
        mask = ops.convert_to_tensor(self.masks["in"])
        x = ops.cast(inputs, "float32")  # as Keras does, for squares overflow in half precision
        if isinstance(layer, keras.layers.GroupNormalization):
            return ops.cast(self._in_groups(x, mask), inputs.dtype)
        axes = [axis % len(x.shape) for axis in (layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis])]
        shape = [size if index in axes else 1 for index, size in enumerate(x.shape)]
        along = [-1 if index == _masked_axis(shape, mask) else 1 for index in range(len(shape))]
        return ops.cast(self._over(x, axes, ops.reshape(mask, along), shape), inputs.dtype)

    def _over(self, x, axes, mask, shape):
        layer, x = (
            self.layer,
            x * mask,
        )  # what is pruned must not grow without bound, for infinity times zero is not zero
        count = ops.sum(ops.broadcast_to(mask, [size or 1 for size in shape]))
        mean = lambda y: ops.sum(y, axis=axes, keepdims=True) / count  # noqa: E731
        weight = lambda name: ops.reshape(ops.cast(getattr(layer, name), "float32"), shape)  # noqa: E731
        if isinstance(layer, keras.layers.UnitNormalization):
            return x * ops.rsqrt(ops.maximum(mean(ops.square(x)) * count, 1e-12))
        if not isinstance(layer, keras.layers.LayerNormalization):  # RMSNormalization
            return x * ops.rsqrt(mean(ops.square(x)) + layer.epsilon) * weight("scale")
        centred = (x - mean(x)) * mask
        y = centred * ops.rsqrt(mean(ops.square(centred)) + layer.epsilon)
        y = y * weight("gamma") if layer.gamma is not None else y
        return y + weight("beta") if layer.beta is not None else y

    def _in_groups(self, x, mask):
        layer, rank = self.layer, len(x.shape)
        axis = layer.axis % rank
        x = ops.moveaxis(x, axis, -1)
        shape = ops.shape(x)
        mask = ops.reshape(mask, (layer.groups, -1))
        split = ops.reshape(x, (*shape[:-1], layer.groups, -1)) * mask
        axes = [*range(1, rank - 1), rank]
        places = ops.cast(ops.prod(ops.convert_to_tensor(shape[1:-1])), "float32") if rank > 2 else 1.0
        count = places * ops.sum(mask, axis=-1, keepdims=True)
        centred = (split - ops.sum(split, axis=axes, keepdims=True) / count) * mask
        variance = ops.sum(ops.square(centred), axis=axes, keepdims=True) / count
        y = ops.reshape(centred * ops.rsqrt(variance + layer.epsilon), shape)
        y = y * ops.cast(layer.gamma, "float32") if layer.scale else y
        y = y + ops.cast(layer.beta, "float32") if layer.center else y
        return ops.moveaxis(y, -1, axis)


def _masked_axis(shape, mask):
    """The last normalised axis that is as long as the mask."""
    return max(axis for axis, size in enumerate(shape) if size == mask.shape[0])
