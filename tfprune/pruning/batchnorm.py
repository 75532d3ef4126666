"""What do the BatchNormalizations of a pruned model see, now that channels are gone?

Their moving means and variances were estimated while all channels were there. Estimated anew, on data and without
training, they are right again; that alone gives back much of the accuracy that pruning cost.
"""

import contextlib

import keras
import numpy as np

from tfprune.structure import roles
from tfprune.structure.feeding import feed
from tfprune.structure.replay import clone
from tfprune.structure.running import has_mode
from tfprune.structure.samples import run
from tfprune.structure.trace import trace


def reestimate_batchnorm(model, data, batch_size=64):
    """Returns a new model whose BatchNormalizations have the means and variances of these data.

    The model is run once over the data, its BatchNormalizations as in training and everything else (dropout,
    augmentation) as in prediction. Each gets the mean and the variance of all samples together. What a layer sees
    depends on how the layers before it normalise, which is by the batch, as in training: take batches as large as
    those of the training. No other weight changes.

    Args:
        model: A built Sequential or functional Keras model, with or without masks. It is left as it is; nested models
            are flattened in the new one.
        data: Inputs like those of the training: arrays, `(inputs, labels)`, or a `tf.data.Dataset` of either, batched
            or not.
        batch_size: Samples at a time, where the data are not batched. Default 64.

    Returns:
        A new model, compiled as the old one is.

    Raises:
        ValueError: the model has no BatchNormalization, or the data do not fit it.

    Example:
        >>> ticket = tfprune.reestimate_batchnorm(tfprune.shrink(masked), train.take(100))

    Source: Li et al. 2020, "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning".
    """
    twin = clone(model)
    traced = trace(twin)
    norms = [op for op in traced.operations if is_batchnorm(roles.unwrap(op))]
    if not norms:
        raise ValueError(f"Model '{model.name}' has no BatchNormalization whose statistics could be estimated.")
    found = _statistics(traced, norms, feed(data, traced.inputs, "reestimate_batchnorm", batch_size))
    for norm, (mean, variance) in zip(map(roles.unwrap, norms), found, strict=True):
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance)
    return twin


def is_batchnorm(layer):
    """Whether a layer keeps moving statistics of its channels."""
    return all(hasattr(layer, name) for name in ("moving_mean", "moving_variance", "momentum"))


def normalisation_behind(traced, op):
    """The BatchNormalization that alone reads what a layer without an activation makes, or None.

    Args:
        traced: A `Trace`.
        op: A layer of it, with its mask or without.
    """
    calls = [call for call in traced.calls if call.op is op]
    activation = getattr(roles.unwrap(op), "activation", None)
    if len(calls) != 1 or activation not in (None, keras.activations.linear):
        return None
    made = id(calls[0].output_tensors[0])
    reading = [call for call in traced.calls if made in map(id, call.input_tensors)]
    is_output = made in map(id, keras.tree.flatten(traced.outputs))
    if len(reading) != 1 or is_output or not is_batchnorm(roles.unwrap(reading[0].op)):
        return None
    norm, rank = reading[0].op, len(calls[0].output_tensors[0].shape)
    channels = 1 if getattr(roles.unwrap(op), "data_format", None) == "channels_first" else rank - 1
    is_called_once = sum(call.op is norm for call in traced.calls) == 1
    return norm if is_called_once and norm.axis % rank == channels else None


def _statistics(traced, norms, batches):
    """`[(mean, variance)]` of what each of the layers reads, over all batches together."""
    of_batch, count, sums = _batch_statistics(traced, norms), 0, [0.0] * len(norms)
    for x in batches:
        size = len(keras.tree.flatten(x)[0])
        count += size
        for index, calls in enumerate(of_batch(keras.tree.map_structure(keras.ops.convert_to_tensor, x))):
            # Beside the variance within a batch there is that of the batches' means.
            moments = [np.stack([mean, variance + mean**2]) for mean, variance in np.asarray(calls, "float64")]
            sums[index] = sums[index] + size * np.mean(moments, axis=0)  # a shared layer: over its calls
    means = [total / count for total in sums]
    return [(mean, np.maximum(square - mean**2, 0.0)) for mean, square in means]


def _batch_statistics(traced, norms):
    """Function `batch -> [[(mean, variance) of each call] of each layer]`."""
    import tensorflow as tf

    @tf.function(autograph=False, reduce_retracing=True)
    def of_batch(x):
        found = {id(norm): [] for norm in norms}

        def layer(call, args, kwargs):
            mode = {"training": id(call.op) in found} if has_mode(call.op) else {}
            outputs = call.op(*args, **{**kwargs, **mode})
            if id(call.op) in found:
                own = roles.unwrap(call.op)
                parts = [tf.convert_to_tensor(weight) for weight in (own.moving_mean, own.moving_variance)]
                found[id(call.op)].append(tf.stack(parts))
            return outputs

        with _forgetting(map(roles.unwrap, norms)):
            run(traced, x, layer)
        return [tf.stack(found[id(norm)]) for norm in norms]

    return of_batch


@contextlib.contextmanager
def _forgetting(norms):
    """Lets the layers' moving statistics be those of their last batch; frozen layers take part."""
    before = [(norm, norm.momentum, norm.trainable) for norm in norms]
    for norm, _, _ in before:
        norm.momentum, norm.trainable = 0.0, True
    try:
        yield
    finally:
        for norm, momentum, trainable in before:
            norm.momentum, norm.trainable = momentum, trainable
