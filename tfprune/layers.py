"""What layer holds the masks of a model while it is being pruned?"""

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfprune")
class ChannelMask(keras.layers.Wrapper):
    """Wraps a layer so that it reads only the channels that are kept.

    Pruning a channel means that nobody reads it any more, so the mask stands where the channel is read: on the
    rows of the kernel that would multiply it. The wrapped model then computes what the shrunk model computes, whatever
    stands in between (BatchNormalization, sigmoid ...), and what was pruned gets a gradient of exactly zero. Masking
    the kernel costs little, for it is small beside the activations.

    `tfprune.wrap(model)` places these layers; there is no need to make them by hand.

    Args:
        layer: The layer to wrap, for example `keras.layers.Dense(10)`.
        reads: `{weight attribute: axis}`, the weights that read channels, with the axis that counts them. Empty where
            the channels that the layer reads cannot be pruned.
        inputs: Number of channels (kernel rows) that `reads` counts, or None.
        channels: Number of channels that the layer makes, or None where these cannot be pruned.

    Example:
        >>> layer = ChannelMask(keras.layers.Dense(10), reads={"kernel": 0}, inputs=30, channels=10)
        >>> outputs = layer(keras.ops.ones((1, 30)))
        >>> layer.input_mask.assign(numpy.arange(30) < 15)   # reads the first 15 channels only
    """

    def __init__(self, layer, reads=None, inputs=None, channels=None, **kwargs):
        kwargs.setdefault("name", layer.name)
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        self.reads = dict(reads or {})
        self.inputs = inputs
        self.channels = channels
        # Masks are created here and not in build(): they need no input shape, and are there from the start.
        self.input_mask = self._mask("input_mask", inputs) if self.reads else None
        self.channel_mask = self._mask("channel_mask", channels) if channels else None

    def _mask(self, name, size):
        return self.add_weight(
            shape=(size,), initializer="ones", dtype="float32", trainable=False, autocast=False, name=name
        )

    def call(self, inputs, training=None):
        """Calls the wrapped layer with its kernel rows masked; dense layers and convolutions always do the same."""
        if not self.reads:
            return self.layer(inputs)
        masked = [self._masked(getattr(self.layer, weight), axis) for weight, axis in self.reads.items()]
        with keras.StatelessScope(masked, collect_losses=True) as scope:
            outputs = self.layer(inputs)
        for loss in scope.losses:  # an activity regularizer's loss would stay behind in the scope
            self.add_loss(loss)
        return outputs

    def _masked(self, weight, axis):
        value = ops.convert_to_tensor(weight)
        shape = [-1 if index == axis % len(weight.shape) else 1 for index in range(len(weight.shape))]
        mask = ops.reshape(ops.cast(ops.convert_to_tensor(self.input_mask), value.dtype), shape)
        return weight, value * mask

    def compute_output_shape(self, input_shape):
        """The wrapped layer's output shape."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self):
        """What `__init__` takes."""
        return {**super().get_config(), "reads": self.reads, "inputs": self.inputs, "channels": self.channels}
