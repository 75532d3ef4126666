"""How do weights and optimizer go back to where they were, or to fresh random values?"""

import weakref

import keras
import numpy as np

from tfprune.layers import ChannelMask
from tfprune.structure import roles
from tfprune.structure.compiling import optimizer_like
from tfprune.structure.replay import rebuild_operation, replay, value_of
from tfprune.structure.trace import trace


class Snapshot:
    """A copy of a model's weights, BatchNormalization statistics and optimizer state, to go back to.

    Masks are left out: what is pruned stays pruned. The state of random generators is left out too: after rewinding,
    dropout and shuffling go on with new random numbers.

    Args:
        model: A Keras model.
        optimizer: Whether to copy the optimizer's variables (slots, iteration, learning rate) too. Default True.

    Example:
        >>> snapshot = Snapshot(model)
        >>> model.fit(x, y)
        >>> snapshot.restore()
    """

    def __init__(self, model, optimizer=True):
        variables = weights_of(model) + (optimizer_variables(model) if optimizer else [])
        self.values = [(variable, value_of(variable)) for variable in variables]

    def restore(self):
        """Gives all copied variables their values back."""
        for variable, value in self.values:
            variable.assign(value)


def restarted(model, start):
    """A snapshot of a model's weights as they are now, with an optimizer that starts again.

    What belongs to the optimizer as a whole (iterations, learning rate) is as an earlier snapshot has it, and with it
    the place in a learning-rate schedule; the slots hold what they would hold if it started from these weights.

    Args:
        model: A Keras model with an optimizer.
        start: The `Snapshot` of the same model that iterations and learning rate come from.
    """
    snapshot, known = Snapshot(model, optimizer=False), {id(variable): value for variable, value in start.values}
    fresh = zip(slots(model.optimizer), slot_starts(model.optimizer), strict=True)
    known |= {id(slot): value for (_, slot), value in fresh}
    snapshot.values += [(variable, known[id(variable)]) for variable in optimizer_variables(model)]
    return snapshot


def weights_of(model):
    """The weights of a model without its masks."""
    masks = {id(mask) for layer in model.layers if isinstance(layer, ChannelMask) for mask in layer.weights}
    masks -= {id(weight) for layer in model.layers if isinstance(layer, ChannelMask) for weight in layer.layer.weights}
    return [weight for weight in model.weights if id(weight) not in masks]


def optimizer_variables(model):
    """All variables of the model's optimizer, its slots made if they are not there yet."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return []
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    return list(optimizer.variables)


def randomise(model, seed):
    """Draws fresh initial weights for all trainable layers from their own initializers; masks stay.

    Values are drawn at the size of the dense model (the fan-in that an initializer sees is the dense one), and the
    channels that are left get theirs. Frozen layers and what Normalization layers learnt of the data stay as they are.
    The optimizer's slots start afresh: some hold a copy of the weights (ScheduleFreeAdamW), which would lead back.

    Args:
        model: A model with or without masks; its weights change.
        seed: Integer; the same seed gives the same weights, another seed others, whatever seed the initializers had.
    """
    traced = trace(model)
    random = np.random.default_rng(seed)
    _, twins = replay(traced, lambda op, config: rebuild_operation(op, reseed(config, random)))
    for op in traced.operations:
        layer, twin = roles.unwrap(op), roles.unwrap(twins[id(op)])
        if not isinstance(layer, keras.Layer) or not layer.trainable or isinstance(layer, keras.layers.Normalization):
            continue
        for old, new in zip(layer.weights, twin.weights, strict=True):
            old.assign(new)
    restart_slots(getattr(model, "optimizer", None))


def restart_slots(optimizer):
    """Gives the optimizer's slots what they would hold if it started now, from the weights as they are."""
    for (_, slot), start in zip(slots(optimizer), slot_starts(optimizer), strict=True):
        slot.assign(start)


def reseed(config, random):
    """The config with a new integer seed in each initializer, drawn from `random`."""
    if isinstance(config, list | tuple):
        return type(config)(reseed(item, random) for item in config)
    if not isinstance(config, dict):
        return config
    if "seed" in config:
        config = {**config, "seed": int(random.integers(2**31))}
    return {key: reseed(value, random) for key, value in config.items()}


def clear_pruned(entries, optimizer=None):
    """Sets the pruned entries of weights to zero, and those of the optimizer's slots to what they are at the start.

    The masks already hide these weights. Zeroing them too keeps weight decay and regularizers off them, and fresh slots
    keep momentum from moving them. A slot does not always start at zero: Ftrl divides by one that starts at 0.1.

    Args:
        entries: `{id(variable): (variable, bool array of the entries to keep)}`.
        optimizer: The optimizer whose slots are cleared, or None.

    Returns:
        What each of `slots(optimizer)` holds at the start; an empty list where there was nothing to clear.
    """
    for variable, keep in entries.values():
        if variable.trainable:
            variable.assign(value_of(variable) * keep)
    found = slots(optimizer)
    starts = slot_starts(optimizer) if any(id(variable) in entries for variable, _ in found) else []
    for (variable, slot), start in zip(found, starts, strict=bool(starts)):
        if id(variable) in entries:
            slot.assign(np.where(entries[id(variable)][1], value_of(slot), start))
    return starts


def steady(model):
    """Makes the model's optimizer safe for weights whose gradient is exactly zero, as that of pruned ones is.

    Adafactor divides by a product of row and column averages of the squared gradient, each at least `epsilon_1`. Where
    row and column are both pruned, its default of 1e-30 squared is zero in float32, and all weights become NaN; 1e-15
    changes nothing for gradients that are larger than 1e-7.
    """
    for part in parts(model.optimizer):
        if isinstance(part, keras.optimizers.Adafactor) and part.epsilon_1 < 1e-15:
            part.epsilon_1 = 1e-15
            model.make_train_function(force=True)  # the old one may have been traced with the old value


def slots(optimizer):
    """`[(variable, slot)]`: the optimizer's variables that accompany a model variable entry by entry.

    Keras keeps slots in lists in the order of the variables they belong to (`momentums[i]` goes with variable i).
    """
    return [pair for part in parts(optimizer) for pair in _slots_of(part)]


def slot_starts(optimizer):
    """What each of `slots(optimizer)` would hold if the optimizer started now: zero, a constant, a copy of a weight."""
    return [start for part in parts(optimizer) if getattr(part, "built", False) for start in _starts_of(part)]


def _starts_of(optimizer):
    if optimizer not in _STARTS:
        starts = [value_of(slot) for _, slot in _slots_of(_fresh_twin(optimizer))]
        # Making an optimizer takes long. Only starts that are copies of weights will be others the next time.
        if any(np.ptp(start.astype("float32")) > 0 for start in starts):
            return starts
        _STARTS[optimizer] = starts
    return _STARTS[optimizer]


_STARTS = weakref.WeakKeyDictionary()


def _fresh_twin(optimizer):
    """An optimizer of the same kind for the same variables, as it is before the first step."""
    twin = optimizer_like(optimizer)
    twin.build(list(optimizer._trainable_variables))
    return twin


def _slots_of(optimizer):
    variables = getattr(optimizer, "_trainable_variables", [])
    found = []
    for values in vars(optimizer).values() if optimizer is not None else ():
        if isinstance(values, list) and len(values) == len(variables) and values is not variables:
            found += [
                (variable, slot)
                for variable, slot in zip(variables, values, strict=True)
                if slot is not variable and getattr(slot, "shape", None) == variable.shape
            ]
    return found


def parts(optimizer):
    """The optimizers that hold the slots: LossScaleOptimizer wraps one, MultiOptimizer several."""
    return getattr(optimizer, "optimizers", None) or [getattr(optimizer, "inner_optimizer", optimizer)]
