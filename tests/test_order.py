"""Are the batches of an epoch fixed by its seed, round and number, and by nothing else?"""

import numpy as np

from tfprune.study.order import batch_order


def test_every_example_comes_once():
    np.testing.assert_array_equal(np.sort(batch_order(0, 0, 0, 700)), np.arange(700))


def test_order_is_pinned():
    # what NumPy draws: other batches would make other rows of a study that is resumed with a later version
    assert batch_order(3, 1, 20, 8).tolist() == np.random.default_rng([3, 1, 20]).permutation(8).tolist()
    assert batch_order(3, 1, 20, 8).tolist() == [0, 4, 6, 1, 7, 3, 2, 5]


def test_seed_round_and_epoch_each_change_the_order():
    orders = {tuple(batch_order(*numbers, 50)) for numbers in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2))}
    assert len(orders) == 5
