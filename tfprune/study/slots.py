"""How are several networks of one structure trained at once, each to its own stop?

A slot is one compiled program with a fixed number of seats. Every seat holds the weights of one network, and one step
trains them all: the step of a single network, vectorised over the seats. When a network's round is over it leaves its
seat, and the next one that waits takes it. The numbers of a network depend neither on its seat nor on who sits beside
it, for the program is always the same.
"""

import collections
import dataclasses
import functools
import math

import keras
import numpy as np
import tensorflow as tf

from tfprune.structure.compiling import optimizer_config
from tfprune.study import sizes
from tfprune.study.compiled import Trained
from tfprune.study.order import batch_order

SEATS = 3  # more cost less each, but at the end of a study more are empty
THIN = 4  # inputs or outputs of a layer, up to which it is no product of matrices
CHUNK = 256  # epochs after which the program comes back at the latest


@dataclasses.dataclass(eq=False)
class Member:
    """A network in training.

    Args:
        values: Arrays of its trainable variables, its other variables and its optimizer's, as `Slot.names` lists them.
        allow: For each trainable variable an array of ones, and zeros where a channel is pruned.
        seed: The trial's seed, for the order of the batches.
        round_number: Number of the round, for the same.
        epochs: Most epochs.
        patience: Epochs without a lower validation loss that end the round; `epochs` or more for none.
        owner: Whatever belongs to it.
    """

    values: list
    allow: list
    seed: int
    round_number: int
    epochs: int
    patience: int
    owner: object = None
    epoch: int = 0
    best_epoch: int = 0
    best: float = math.inf
    best_values: list = None
    losses: list = dataclasses.field(default_factory=list)

    @property
    def is_over(self):
        """Whether it has to leave its seat."""
        return self.epoch >= self.epochs or self.is_out_of_patience or self.failed

    @property
    def is_out_of_patience(self):
        """Whether the validation loss has not fallen for too long."""
        return self.epoch - self.best_epoch >= self.patience

    @property
    def failed(self):
        """Whether the validation loss is NaN or infinite."""
        return bool(self.losses) and not math.isfinite(self.losses[-1][1])

    @property
    def trained(self):
        """How the round went, as a `Trained`."""
        return Trained(self.epoch, self.best_epoch, self.best, *map(tuple, zip(*self.losses, strict=True)))


class Slot:
    """Trains networks of one structure, a few at a time.

    Args:
        model: A compiled, plain Keras model of that structure. Its own weights do not matter, and it is for the slot
            alone: its thin layers compute in another way from now on.
        data: A `tfprune.datasets.Dataset`.
        batch_size: Examples in a step; 0 for the whole set.

    Example:
        >>> slot = Slot(model, data, batch_size=0)
        >>> slot.waiting.append(member)
        >>> while slot.is_busy:
        ...     for member in slot.run():
        ...         print(member.trained.best_epoch)
    """

    def __init__(self, model, data, batch_size):
        self.model, self.batch_size = model, batch_size
        self.optimizer = stateless(model.optimizer)
        self.optimizer.build(model.trainable_variables)
        self.parts = [model.trainable_variables, model.non_trainable_variables, self.optimizer.variables]
        self.split = tuple(keras.tree.map_structure(tf.convert_to_tensor, (data.train, data.validation)))
        self.size = keras.tree.flatten(data.train)[0].shape[0]
        self.waiting, self.seats = collections.deque(), [None] * SEATS
        shapes = [(SEATS, *variable.shape) for part in self.parts for variable in part]
        types = [keras.backend.standardize_dtype(variable.dtype) for part in self.parts for variable in part]
        empty = [np.zeros(shape, dtype) for shape, dtype in zip(shapes, types, strict=True)]
        self._values, self._best = empty, [array.copy() for array in empty]
        self._allow = [np.ones((SEATS, *variable.shape), "float32") for variable in self.parts[0]]
        # XLA draws other random numbers than TensorFlow does in `fit`
        by_xla = not sizes.is_noisy(model)
        self._program = tf.function(self._epochs, jit_compile=by_xla)
        if by_xla:
            _spell_out(model)

    @property
    def is_busy(self):
        """Whether a network waits or sits in a seat."""
        return bool(self.waiting) or any(self.seats)

    @property
    def num_members(self):
        """How many wait or sit in a seat."""
        return len(self.waiting) + sum(member is not None for member in self.seats)

    def clear(self):
        """Sends all away."""
        self.waiting.clear()
        self.seats = [None] * SEATS

    def run(self):
        """Trains until at least one network's round is over; returns those, which have left their seats."""
        self._seat()
        while True:
            self._train()
            over = [member for member in self.seats if member is not None and member.is_over]
            if over:
                self.seats = [None if member in over else member for member in self.seats]
                return over

    def _seat(self):
        for place, member in enumerate(self.seats):
            if member is None and self.waiting:
                self.seats[place] = new = self.waiting.popleft()
                for arrays, own in ((self._values, new.values), (self._allow, new.allow)):
                    for array, value in zip(arrays, own, strict=True):
                        array[place] = value
                for array, value in zip(self._best, new.best_values or new.values, strict=True):
                    array[place] = value

    def _train(self):
        numbers = np.array([self._numbers(member) for member in self.seats], "int32").T
        best = np.array([member.best if member else math.inf for member in self.seats], "float32")
        out = self._program(self.split, self._values, self._best, self._allow, numbers, best, self._orders())
        values, kept, epoch, best_epoch, best, losses = tf.nest.map_structure(lambda tensor: np.array(tensor), out)
        self._values, self._best = values, kept
        for place, member in enumerate(self.seats):
            if member is not None:
                member.losses.extend(map(tuple, losses[: epoch[place] - member.epoch, :, place].tolist()))
                member.epoch, member.best_epoch = int(epoch[place]), int(best_epoch[place])
                member.best = float(best[place])
                if member.is_over:
                    member.values = [array[place].copy() for array in values]
                    member.best_values = [array[place].copy() for array in kept]

    def _numbers(self, member):
        # an empty seat computes along and is never looked at
        return (member.epoch, member.best_epoch, member.epochs, member.patience) if member else (0, 0, 0, 0)

    def _orders(self):
        """The order of the examples in the next epochs of each seat, `(epochs, seats, examples)`."""
        if not self.batch_size:
            return np.zeros((0, SEATS, 0), "int32")
        chunk = self._chunk
        orders = np.zeros((chunk, SEATS, self.size), "int32")
        for place, member in enumerate(self.seats):
            for epoch in range(chunk if member else 0):
                key = member.seed, member.round_number, member.epoch + epoch
                orders[epoch, place] = batch_order(*key, self.size)
        return orders

    @property
    def _chunk(self):
        """Fewer epochs at a time where batches have an order: those not needed are drawn in vain."""
        return 32 if self.batch_size else CHUNK

    # The program ----------------------------------------------------------------------------------------------------

    def _epochs(self, split, values, best_values, allow, numbers, best, orders):
        (train, validation), (epoch, best_epoch, most, patience) = split, tf.unstack(numbers)
        losses = tf.TensorArray("float32", self._chunk, element_shape=(2, SEATS))
        if not self.batch_size:
            # Examples of its own for each seat: with those that it shares, all seats would become one product of
            # matrices, in which a sum depends on where it stands.
            train = keras.tree.map_structure(lambda tensor: tf.stack([tensor] * SEATS), train)
        seated, count, finite = most > 0, tf.constant(0), tf.fill([SEATS], True)
        while count < self._chunk and tf.reduce_all(
            ~seated | ((epoch < most) & (epoch - best_epoch < patience) & finite)
        ):
            values, loss = self._train_epoch(train, values, allow, orders, count)
            val_loss = self._over_seats(lambda own: self._loss(own, *validation, False)[0], values)
            losses = losses.write(count, tf.stack([loss, val_loss]))
            count, epoch, finite = count + 1, epoch + 1, tf.math.is_finite(val_loss)
            better = (val_loss < best) | (finite & (best_epoch == 0))
            best, best_epoch = tf.where(better, val_loss, best), tf.where(better, epoch, best_epoch)
            best_values = [
                tf.where(tf.reshape(better, [SEATS] + [1] * (len(new.shape) - 1)), new, old)
                for new, old in zip(values, best_values, strict=True)
            ]
        return values, best_values, epoch, best_epoch, best, losses.stack()

    def _train_epoch(self, train, values, allow, orders, count):
        """One epoch of all seats; the mean of the batches' losses is weighted by their sizes, as Keras does."""
        if not self.batch_size:
            return self._over_seats(lambda own, may, own_train: self._step(own, may, *own_train), values, allow, train)
        order, total, size = orders[count], tf.zeros([SEATS]), min(self.batch_size, self.size)
        whole = self.size // size * size
        for start in tf.range(0, whole, size):
            at = tf.slice(order, [0, start], [SEATS, size])
            values, loss = self._batch(train, values, allow, at)
            total += loss * size
        if whole < self.size:
            values, loss = self._batch(train, values, allow, order[:, whole:])
            total += loss * (self.size - whole)
        return values, total / self.size

    def _batch(self, train, values, allow, at):
        def step(own, may, places):
            return self._step(own, may, *keras.tree.map_structure(lambda tensor: tf.gather(tensor, places), train))

        return self._over_seats(step, values, allow, at)

    def _over_seats(self, function, *stacked):
        # nothing in a step is for autograph, which would look through all of Keras
        plain = tf.autograph.experimental.do_not_convert(function)
        return tf.vectorized_map(lambda own: plain(*own), stacked, warn=False)

    def _step(self, values, allow, x, y):
        """A network's values after one step, and its loss before it."""
        trainable, others, state = self._split(values)
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            loss, others = self._loss([*trainable, *others], x, y, True)
        gradients = tape.gradient(loss, trainable, unconnected_gradients="zero")
        # what is pruned is zero, and without a gradient it stays so
        gradients = [gradient * may for gradient, may in zip(gradients, allow, strict=True)]
        trainable, state = self.optimizer.stateless_apply(state, gradients, trainable)
        return [tf.convert_to_tensor(value) for value in (*trainable, *others, *state)], loss

    def _loss(self, values, x, y, training):
        """A network's loss with its regularizers, and its other variables afterwards."""
        trainable, others, _ = self._split(values)
        held = [*zip(self.parts[0], trainable, strict=True), *zip(self.parts[1], others, strict=True)]
        with keras.StatelessScope(held, collect_losses=True) as scope:
            y_pred = self.model(x, training=training)
            loss = self.model.compute_loss(x=x, y=y, y_pred=y_pred, training=training)
        return tf.cast(loss, "float32"), [scope.get_current_value(variable) for variable in self.parts[1]]

    def _split(self, values):
        first = len(self.parts[0])
        second = first + len(self.parts[1])
        return list(values[:first]), list(values[first:second]), list(values[second:])


def _spell_out(model):
    """Lets layers with few inputs or outputs, and the loss of few classes, compute along the examples.

    Keras' way a 2-30-2 network's products, and its softmax over two numbers at a time, are nearly all overhead: an
    epoch takes three times as long by them.
    """
    for layer in model.layers:
        if type(layer) is keras.layers.Dense and len(layer.input.shape) == 2 and min(layer.kernel.shape) <= THIN:
            object.__setattr__(layer, "call", functools.partial(_thin_call, layer))
    if _is_thin_crossentropy(model):
        model.compile(optimizer=model.optimizer, loss=_thin_crossentropy)


def _thin_call(layer, inputs, training=None):
    """What a Dense layer computes; the examples are the axis that lies together in memory."""
    kernel = tf.convert_to_tensor(layer.kernel)
    bias = tf.convert_to_tensor(layer.bias) if layer.use_bias else tf.zeros(kernel.shape[1:])
    return layer.activation(tf.transpose(_thin_product(kernel, bias, tf.transpose(inputs))))


@tf.custom_gradient
def _thin_product(kernel, bias, x):
    """`kernel.T @ x + bias`, `(outputs, examples)`.

    The few products of a thin side are added up one by one, of which XLA makes one loop with what is around them. Sums
    over the examples are products of matrices: as sums, XLA adds up number after number.
    """

    def gradient(upstream):
        if kernel.shape[1] <= THIN:
            to_x = tf.add_n([kernel[:, j][:, None] * upstream[j][None, :] for j in range(kernel.shape[1])])
        else:
            to_x = tf.matmul(kernel, upstream)
        if kernel.shape[0] > THIN:
            return tf.matmul(x, upstream, transpose_b=True), tf.reduce_sum(upstream, axis=1), to_x
        # the bias is the weight of an input that is always one
        both = tf.matmul(tf.concat([x, tf.ones_like(x[:1])], axis=0), upstream, transpose_b=True)
        return both[:-1], both[-1], to_x

    if kernel.shape[0] <= THIN:
        outputs = tf.add_n([kernel[i][:, None] * x[i][None, :] for i in range(kernel.shape[0])])
    else:
        outputs = tf.matmul(kernel, x, transpose_a=True)
    return outputs + bias[:, None], gradient


def _is_thin_crossentropy(model):
    loss = model.loss
    if type(loss) is not keras.losses.SparseCategoricalCrossentropy or loss.reduction != "sum_over_batch_size":
        return False
    options = loss.get_config()
    plain = options["from_logits"] and options["ignore_class"] is None and options.get("axis", -1) == -1
    shape = model.outputs[0].shape
    return plain and len(model.outputs) == 1 and len(shape) == 2 and shape[1] <= THIN


def _thin_crossentropy(y_true, y_pred):
    """Sparse categorical cross-entropy from logits, of each example."""
    logits = tf.unstack(tf.transpose(y_pred))
    labels = tf.reshape(y_true, [-1])
    highest = tf.stop_gradient(functools.reduce(tf.maximum, logits))
    logits = [logit - highest for logit in logits]
    own = tf.add_n([tf.where(tf.equal(labels, number), logit, 0.0) for number, logit in enumerate(logits)])
    return tf.math.log(tf.add_n([tf.exp(logit) for logit in logits])) - own


def stateless(optimizer):
    """A new optimizer of the same kind that works on values instead of variables.

    On TensorFlow, Keras' optimizers write to variables through tf.distribute. These methods are those that all other
    backends use.
    """
    line = {cls.__name__: cls for cls in type(optimizer).__mro__}
    base = vars(line["BaseOptimizer"])
    plain = ("assign", "assign_add", "assign_sub", "stateless_apply", "_apply_weight_decay", "_backend_update_step")
    # behind the optimizer's own class, whose methods may add to these (Nadam), and before TensorFlow's
    middle = type("Plain", (line["TFOptimizer"],), {name: base[name] for name in (*plain, "_var_key")})
    kind = type(type(optimizer).__name__, (type(optimizer), middle), {})
    return kind(**optimizer_config(optimizer))
