"""How much does each channel matter to the loss, judged by derivatives on data?"""

import numpy as np
import tensorflow as tf

from tfprune.pruning.criteria.data import Measured
from tfprune.pruning.criteria.group import combine
from tfprune.pruning.criteria.weights import alive_in
from tfprune.pruning.ratios import check_count


class Taylor(Measured):
    """Squared first-order change of the loss when a channel goes (Molchanov et al. 2019, Importance Estimation).

    Args:
        data: A `tf.data.Dataset` of `(x, y)` batches, or a pair of arrays. The square is taken of each batch's mean.
        form: "gate" (default): the derivative by a gate on the channel, wherever it is read. "weight": weight times
            derivative, squared and summed over the weights that flow into the channel.
        members: With form "weight": how the layers that make the same channels are combined, "sum" (default), "mean" or
            "max". The gate of a channel is one.
        batches: The most batches to look at. Default None: all.

    Example:
        >>> masks = tfprune.compute_masks(masked, 0.5, criterion=criteria.Taylor(train), scope="global")
    """

    def __init__(self, data, form="gate", members="sum", batches=None):
        super().__init__(data, members, batches)
        if form not in ("gate", "weight"):
            raise ValueError(f"form must be 'gate' or 'weight'. Received: form={form!r}.")
        self.form = form

    def step(self, network, batch, gates):
        """The squares of one batch."""
        if self.form == "gate":
            return [tf.square(network.gate_gradient(batch, gates))]
        weights = network.weights()
        slopes = network.weight_gradients(batch, gates, weights)
        return [tf.square(weight * slope) for weight, slope in zip(weights, slopes, strict=True)]

    def finish(self, network, found):
        """One array over units for gates, one a weight otherwise."""
        return found[0] if self.form == "gate" else found


class Gradient(Measured):
    """Sum of the absolute derivatives of the loss by the weights that flow into a channel (Liu & Wu 2019).

    Args:
        data: A `tf.data.Dataset` of `(x, y)` batches, or a pair of arrays.
        members: How the layers that make the same channels are combined: "sum" (default), "mean" or "max".
        batches: The most batches to look at. Default None: all.

    Example:
        >>> masks = tfprune.compute_masks(masked, 0.5, criterion=criteria.Gradient(train))
    """

    def step(self, network, batch, gates):
        """The derivatives on one batch."""
        return network.weight_gradients(batch, gates, network.weights())

    def finish(self, network, found):
        """The absolute value of the derivative on all data."""
        return [np.abs(slope) for slope in found]


class Fisher(Measured):
    """Half the mean squared derivative of each sample's loss by the channel's gate (Theis et al. 2018).

    It is the increase of the loss to second order when the channel goes, with the Fisher information in place of the
    Hessian. Samples are taken one by one, so a pass costs more than one of `Taylor`.

    Args:
        data: A `tf.data.Dataset` of `(x, y)` batches, or a pair of arrays.
        batches: The most batches to look at. Default None: all.

    Example:
        >>> masks = tfprune.compute_masks(masked, 0.5, criterion=criteria.Fisher(train, batches=8))
    """

    def __init__(self, data, batches=None):
        super().__init__(data, batches=batches)

    def step(self, network, batch, gates):
        """The mean over the samples of one batch."""

        def of_one(sample):
            alone = tf.nest.map_structure(lambda part: part[None], sample)
            return tf.square(network.gate_gradient(alone, gates))

        return [0.5 * tf.reduce_mean(tf.map_fn(of_one, batch, fn_output_signature=tf.float32), axis=0)]


class Hessian(Measured):
    """Half the squared weights times the diagonal of the Hessian, summed over a channel (LeCun et al. 1990).

    The diagonal is estimated by Hutchinson's method (random signs times the Hessian times the same signs), as in Yao et
    al. 2021, AdaHessian; its absolute value counts.

    Args:
        data: A `tf.data.Dataset` of `(x, y)` batches, or a pair of arrays.
        draws: Random directions for each batch. Default 1.
        members: How the layers that make the same channels are combined: "sum" (default), "mean" or "max".
        batches: The most batches to look at. Default None: all.
        seed: Integer; the same seed gives the same directions. Default 0.

    Example:
        >>> masks = tfprune.compute_masks(masked, 0.5, criterion=criteria.Hessian(train, draws=4))
    """

    def __init__(self, data, draws=1, members="sum", batches=None, seed=0):
        super().__init__(data, members, batches)
        self.draws, self.seed = check_count("draws", draws), seed
        self._drawn = tf.random.Generator.from_seed(seed)

    def look(self, network, gates):
        """Draws other directions for each batch, and the same ones each time."""
        self._drawn.reset_from_seed(self.seed)
        return super().look(network, gates)

    def step(self, network, batch, gates):
        """The estimate of one batch."""
        weights = network.weights()

        def draw(number, *total):
            signs = [self._signs(weight) for weight in weights]
            bent = network.curvature(batch, gates, weights, signs)
            sums = [sofar + sign * part for sofar, sign, part in zip(total, signs, bent, strict=True)]
            return (number + 1, *sums)

        # a loop in the graph: written out, many draws would not fit into memory
        start = (0, *(tf.zeros_like(weight) for weight in weights))
        _, *total = tf.while_loop(lambda number, *_: number < self.draws, draw, start, parallel_iterations=1)
        return [part / self.draws for part in total]

    def finish(self, network, found):
        """The saliency of each weight."""
        return [0.5 * np.square(w) * np.abs(h) for w, h in zip(network.weights(), found, strict=True)]

    def _signs(self, like):
        return tf.cast(2 * self._drawn.uniform(like.shape, 0, 2, tf.int32) - 1, like.dtype)


class SNIP(Measured):
    """Absolute derivative of the loss by the channel's gate, before training (Lee et al. 2019; on channels as in van
    Amersfoort et al. 2020).

    Args:
        data: A `tf.data.Dataset` of `(x, y)` batches, or a pair of arrays.
        batches: The most batches to look at. Default None: all.

    Example:
        >>> masks = tfprune.compute_masks(masked, 0.5, criterion=criteria.SNIP(train, batches=1), scope="global")
    """

    def __init__(self, data, batches=None):
        super().__init__(data, batches=batches)

    def step(self, network, batch, gates):
        """The derivatives on one batch."""
        return [network.gate_gradient(batch, gates)]

    def finish(self, network, found):
        """The absolute value of the derivative on all data."""
        return np.abs(found[0])


class GraSP(Measured):
    """How much of the gradient's squared norm is lost when a channel goes, before training (Wang et al. 2020).

    Weight times Hessian times gradient, summed over the weights that flow into the channel. It may be negative, where
    the gradient grows without the channel; scores are shifted so that these channels are ranked first among those to
    go, yet behind channels that are zero. It takes two passes over the data.

    Args:
        data: A `tf.data.Dataset` of `(x, y)` batches, or a pair of arrays. It must give the same batches twice.
        members: How the layers that make the same channels are combined: "sum" (default), "mean" or "max".
        batches: The most batches to look at. Default None: all.

    Example:
        >>> masks = tfprune.compute_masks(masked, 0.5, criterion=criteria.GraSP(train), scope="global")
    """

    def look(self, network, gates):
        """The gradient on all data, then the Hessian on all data times it."""
        slopes = self.average(network, self.slopes, gates)
        return self.average(network, self.step, gates, [tf.cast(slope, "float32") for slope in slopes])

    def slopes(self, network, batch, gates):
        """The gradient on one batch."""
        return network.weight_gradients(batch, gates, network.weights())

    def step(self, network, batch, gates, slopes):
        """The Hessian on one batch times the gradient."""
        return network.curvature(batch, gates, network.weights(), slopes)

    def finish(self, network, found):
        """What is lost with each weight, and more than a channel can gain by going."""
        lost = [np.asarray(weight) * bent for weight, bent in zip(network.weights(), found, strict=True)]
        network.shift = 1.01 * network.channel_sums([np.abs(part) for part in lost]).max(initial=0.0)
        return lost

    def score(self, group, network, found):
        """The order of the paper, but positive: what is zero comes last."""
        scores = combine([row.sum(axis=1) for row in group.rows(network.lookup(found))], self.members)
        return np.where(alive_in(group), scores + network.shift, 0.0)
