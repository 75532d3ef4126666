"""What must be copied of a model so that its training goes on as if nothing had happened?"""

import hashlib

import numpy as np

from tfprune.pruning import rewind
from tfprune.structure.replay import value_of


def read(model):
    """Returns copies of a model's weights, without its masks, and of its optimizer's variables, as one list.

    Args:
        model: A compiled Keras model, with or without masks.

    Example:

    >>> values = read(masked)
    >>> write(masked, values)
    """
    return [value_of(variable) for variable in _variables(model)]


def write(model, values):
    """Gives a model the values that `read` took of one like it.

    Args:
        model: A compiled Keras model.
        values: List of arrays, as from `read`.

    Raises:
        ValueError: They are of another model.
    """
    for variable, value in zip(_variables(model), values, strict=True):
        variable.assign(value)


def generators(model):
    """Returns the states of a model's random generators (dropout, noise, augmentation)."""
    known = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in known]


def reseed(model, seed, round_number):
    """Lets a model's random generators start a round in a state that depends on seed and round alone.

    So a round draws the same noise whether or not the rounds before it were trained in the same process.

    Args:
        model: A Keras model.
        seed: The trial's seed, an integer of at least 0.
        round_number: Number of the round, 0 for the dense network.
    """
    for index, state in enumerate(generators(model)):
        drawn = np.random.SeedSequence([seed, round_number, index]).generate_state(2)
        state.assign(drawn.reshape(state.shape))


def digest(arrays):
    """Returns a short hash over shapes, dtypes and bytes of arrays: the same for the same values alone.

    Args:
        arrays: List of arrays.
    """
    found = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        found.update(f"{array.dtype} {array.shape} ".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()[:16]


def _variables(model):
    return rewind.weights_of(model) + rewind.optimizer_variables(model)
