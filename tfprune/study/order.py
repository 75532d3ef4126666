"""In which order are the examples of an epoch taken? All trainers ask here, so that they train on the same batches."""

import numpy as np


def batch_order(seed, round_number, epoch, num_examples):
    """Returns the order in which the training examples are taken in an epoch, as a permutation of their positions.

    A batch is a slice of it, and the last batch holds what is left. An order depends on nothing but these numbers, so
    that a round that is resumed, trained elsewhere or by another trainer goes on with the batches it would have had.
    Where a step takes the whole set (batch size 0) nothing is shuffled.

    Args:
        seed: The trial's seed, an integer of at least 0.
        round_number: Number of the round, 0 for the dense network.
        epoch: Number of the epoch in its round, from 0.
        num_examples: Number of training examples.

    Example:

    >>> order = batch_order(seed=0, round_number=1, epoch=5, num_examples=700)
    >>> batches = [order[start : start + 64] for start in range(0, 700, 64)]
    """
    return np.random.default_rng([seed, round_number, epoch]).permutation(num_examples)
