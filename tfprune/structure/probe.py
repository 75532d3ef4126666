"""Do the groups that follow from the roles hold when the model runs on numbers?

The labels say at which places of every tensor the channels of a unit lie. The probe disturbs a random half of all
units where layers make them, lets no layer read what was disturbed, and looks where the numbers change: nowhere but at
places of disturbed units, or the role of the call that spread the change is wrong. It knows nothing of roles but which
layers read, so that a wrong role, also a user's own, is found out. `tfprune.structure.groups.ChannelGraph` then freezes
what the call touches.
"""

import keras
import numpy as np

from tfprune.structure import roles
from tfprune.structure.samples import run, sample

SIZE_LIMIT = 5_000_000  # numbers in all tensors of one sample, and weights: above that only on request
_ROUNDS = 5  # random halves: a place that belongs to another unit stays hidden with probability 2^-5
_TOLERANCE = 1e-5


def is_wanted(traced, verify):
    """Whether to probe a model: as asked, or where None was asked, if that costs little."""
    if verify is not None:
        return verify
    tensors = [tensor for call in traced.calls for tensor in call.output_tensors]
    places = sum(int(np.prod([size or 16 for size in tensor.shape[1:]])) for tensor in tensors)
    weights = sum(
        int(np.prod(weight.shape)) for op in traced.operations if isinstance(op, keras.Layer) for weight in op.weights
    )
    return places + weights <= SIZE_LIMIT


def disagreements(graph, known=()):
    """The calls at which numbers change where the labels say they do not.

    Args:
        graph: A `ChannelGraph`.
        known: Calls (their ids) that are frozen already.

    Returns:
        `{id(call): reason}`; empty where labels and numbers agree, or where the model does not run on this device.
    """
    batch = sample(graph.trace.inputs)
    try:
        calm = run(graph.trace, batch)
    except Exception:  # say, convolutions with channels first on a CPU: then there is nothing to compare
        return {}
    free = np.zeros(graph.num_units, bool)
    for group in graph.prunable:
        free[group.units] = True
    found = {}
    for number in range(_ROUNDS if free.any() else 0):
        chosen = free & (np.random.default_rng(number).random(graph.num_units) < 0.5)
        found.update(_spread(graph, batch, calm, chosen, number))
    return {call: reason for call, reason in found.items() if call not in known}


def _spread(graph, batch, calm, chosen, seed):
    """`{id(call): reason}` of the calls that carry the disturbance of the chosen units to other places."""
    random, found = np.random.default_rng(seed), {}
    makers = {layer for layer, _ in graph.maker_axes.values()}

    def disturbed(call, args, kwargs):
        name, role = graph.trace.names[id(call.op)], roles.role_of(call.op)
        if role is None or role.reads or role.mixes or not call.input_tensors:
            # a layer that reads: what it is given is as calm as if it had a mask
            outputs = [calm[id(tensor)] for tensor in call.output_tensors]
        else:
            outputs = [leaf for leaf in keras.tree.flatten(call.op(*args, **kwargs)) if leaf is not None]
        if name in makers or role is None:
            outputs = [
                _noisy(value, chosen[graph.units(graph.labels[id(tensor)])], random)
                for value, tensor in zip(outputs, call.output_tensors, strict=True)
            ]
        for value, tensor in zip(outputs, call.output_tensors, strict=True):
            if _changed_elsewhere(value, calm[id(tensor)], chosen[graph.units(graph.labels[id(tensor)])]):
                found[id(call)] = (
                    f"layer '{name}': numbers change where its role says they do not; the role of "
                    f"{type(roles.unwrap(call.op)).__name__} is wrong"
                )
                return [calm[id(tensor)] for tensor in call.output_tensors]
        return outputs

    run(graph.trace, batch, disturbed)
    return found


def _noisy(value, chosen, random):
    """The value with large noise at the chosen places."""
    if not chosen.any() or "float" not in keras.backend.standardize_dtype(value.dtype):
        return value
    noise = random.normal(size=value.shape) * 3.0 * np.broadcast_to(chosen, value.shape[1:])
    return value + keras.ops.cast(noise, value.dtype)


def _changed_elsewhere(value, calm, chosen):
    if "float" not in keras.backend.standardize_dtype(value.dtype) or tuple(value.shape) != tuple(calm.shape):
        return False
    value, calm = (np.asarray(keras.ops.cast(part, "float32")) for part in (value, calm))
    moved = np.abs(value - calm) > _TOLERANCE * max(1.0, float(np.abs(calm).max(initial=0.0)))
    return bool((moved & ~np.broadcast_to(chosen, value.shape[1:])).any())
