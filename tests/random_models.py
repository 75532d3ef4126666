"""Which models could anybody build? Random small ones, written as Keras code that can be read and run.

`recipes(family)` is a hypothesis strategy. A `Recipe` is a list of small steps that mean something in every order, so
that hypothesis can leave steps out and make numbers smaller until the shortest model that fails is left. `Recipe.code`
is that model as Python code, and `Recipe.build()` runs it.
"""

import math
from dataclasses import dataclass

import hypothesis.strategies as st
import keras
from keras import layers, ops

ACTIVATIONS = ("linear", "leaky_relu", "sigmoid", "tanh", "softplus", "gelu")
WIDTHS = (2, 4, 6, 3)
INPUTS = {"image": (6, 6, 2), "sequence": (6, 3), "vector": (5,)}
STEMS = {
    "image": 'layers.Conv2D(6, 3, padding="same", name="{name}")({})',
    "sequence": 'layers.Conv1D(6, 3, padding="same", name="{name}")({})',
    "vector": 'layers.Dense(6, name="{name}")({})',
}


@dataclass(frozen=True)
class Step:
    """One step: what is done, on which of the tensors so far (0 = the last), and two numbers that vary it."""

    kind: str
    of: int = 0
    size: int = 0
    how: int = 0


@dataclass(frozen=True)
class Recipe:
    """A model: the family says what it reads, the steps what is done, the ending how the outputs are made."""

    family: str
    steps: tuple
    ending: str

    @property
    def code(self):
        """The model as Python code."""
        return "\n".join(self._written().lines)

    @property
    def kinds(self):
        """The kinds of steps, the ending included."""
        return [*(step.kind for step in self.steps), self.ending]

    def build(self):
        """The model itself."""
        return self._written().tensors["model"]

    def _written(self):
        code = Code(INPUTS[self.family])
        code.x(STEMS[self.family], "x0")
        for step in self.steps:
            KINDS[step.kind](code, step)
        ENDINGS[self.ending](code)
        return code


def recipes(family, max_steps=8):
    """A hypothesis strategy for the recipes of one family."""
    step = st.builds(
        Step,
        st.sampled_from(FAMILIES[family]),
        of=st.sampled_from((0, 0, 0, 1, 2)),
        size=st.integers(0, 3),
        how=st.integers(0, 5),
    )
    steps = st.lists(step, min_size=1, max_size=max_steps).map(tuple)
    return st.builds(Recipe, st.just(family), steps, st.sampled_from(sorted(ENDINGS)))


class Code:
    """Lines of Python code, each run at once, so that the next line can look at the shapes."""

    def __init__(self, shape):
        self.lines = []
        self.tensors = {"keras": keras, "layers": layers, "ops": ops}
        self.unread = []
        self.count = 0
        self.x("keras.Input({})", shape)

    def x(self, text, *values):
        """Writes `x<n> = ...` and returns the new name; `{}` takes the values, `{name}` a name of its own."""
        name = f"x{self.count}"
        self.count += 1
        self.line(f"{name} = {text.format(*values, name=self.fresh())}")
        self.unread = [other for other in self.unread if other not in values] + [name]
        return name

    def line(self, text):
        """Writes and runs one line."""
        self.lines.append(text)
        exec(text, self.tensors)

    def fresh(self):
        """A layer name that no other layer has."""
        return f"layer_{len(self.lines)}"

    def pick(self, rank, of=0):
        """The name of a tensor of this rank (batch axis included), the last one or the `of`-th before it."""
        names = [name for name in self.names() if len(self.tensors[name].shape) == rank]
        return names[-1 - of % len(names)] if names else self.make(rank)

    def like(self, name, of):
        """Another tensor of the same shape where there is one, else the tensor itself."""
        names = [other for other in self.names() if self.shape(other) == self.shape(name) and other != name]
        return names[-1 - of % len(names)] if names else name

    def names(self):
        """The names of all tensors, in the order in which they were made."""
        return [f"x{index}" for index in range(self.count)]

    def shape(self, name):
        """A tensor's shape without the batch axis."""
        return tuple(self.tensors[name].shape[1:])

    def make(self, rank):
        """A tensor of a rank that no tensor has yet."""
        last = self.names()[-1]
        if rank == 2:
            return self.x("layers.Flatten()({})", last)
        if rank == 3:
            height, width, channels = self.shape(last)
            return self.x("layers.Reshape(({}, {}))({})", height * width, channels, last)
        raise ValueError(f"No way to a tensor of rank {rank}.")


def activation(step):
    return ACTIVATIONS[step.how % len(ACTIVATIONS)]


def width(step):
    return WIDTHS[step.size % len(WIDTHS)]


def divisor(number, step):
    """A divisor of a number that is larger than one where there is one; for how = 0 the smallest."""
    divisors = [value for value in range(2, number + 1) if number % value == 0] or [1]
    return divisors[step.how % len(divisors)]


# --- steps on images --------------------------------------------------------------------------------------------------


def conv(code, step):
    x = code.pick(4, step.of)
    stride = 2 if step.how == 5 else 1
    code.x(
        'layers.Conv2D({}, {}, strides={}, padding="same", activation="{}", name="{name}")({})',
        width(step), 1 + 2 * (step.size % 2), stride, activation(step), x,
    )  # fmt: skip


def grouped_conv(code, step):
    x = code.pick(4, step.of)
    channels = code.shape(x)[-1]
    groups = divisor(channels, step)
    filters = groups * (1 + step.size % 3)
    code.x('layers.Conv2D({}, 3, padding="same", groups={}, name="{name}")({})', filters, groups, x)


def depthwise(code, step):
    x = code.pick(4, step.of)
    code.x(
        'layers.DepthwiseConv2D(3, padding="same", depth_multiplier={}, activation="{}", name="{name}")({})',
        1 + step.size % 2, activation(step), x,
    )  # fmt: skip


def separable(code, step):
    x = code.pick(4, step.of)
    code.x(
        'layers.SeparableConv2D({}, 3, padding="same", depth_multiplier={}, name="{name}")({})',
        width(step), 1 + step.how % 2, x,
    )  # fmt: skip


def transposed(code, step):
    x = code.pick(4, step.of)
    code.x('layers.Conv2DTranspose({}, 2, strides=1, padding="same", name="{name}")({})', width(step), x)


def pool(code, step):
    x = code.pick(4, step.of)
    kind = ("MaxPooling2D", "AveragePooling2D")[step.size % 2]
    code.x('layers.{}(2, strides=1, padding="same")({})', kind, x)


def resize(code, step):
    x = code.pick(4, step.of)
    if step.how % 3 == 0 or min(code.shape(x)[:2]) < 3:
        code.x("layers.ZeroPadding2D(((1, 0), (0, 1)))({})", x)
    elif step.how % 3 == 1:
        code.x("layers.Cropping2D(1)({})", x)
    else:
        code.x("layers.UpSampling2D(2)({})", code.x("layers.MaxPooling2D(2)({})", x))


def squeeze_excite(code, step):
    x = code.pick(4, step.of)
    channels = code.shape(x)[-1]
    gate = code.x("layers.GlobalAveragePooling2D(keepdims={})({})", step.how % 2 == 0, x)
    kind = "Conv2D({}, 1, " if step.how % 2 == 0 else "Dense({}, "
    gate = code.x(f'layers.{kind}activation="leaky_relu", name="{{name}}")({{}})', width(step), gate)
    gate = code.x(f'layers.{kind}activation="sigmoid", name="{{name}}")({{}})', channels, gate)
    if step.how % 2:
        gate = code.x("layers.Reshape((1, 1, {}))({})", channels, gate)
    code.x("layers.Multiply()([{}, {}])", x, gate)


def shuffle(code, step):
    x = code.pick(4, step.of)
    height, wide, channels = code.shape(x)
    groups = divisor(channels, step)
    y = code.x("ops.reshape({}, (-1, {}, {}, {}, {}))", x, height, wide, groups, channels // groups)
    y = code.x("ops.transpose({}, (0, 1, 2, 4, 3))", y)
    code.x("ops.reshape({}, (-1, {}, {}, {}))", y, height, wide, channels)


def concat_space(code, step):
    x = code.pick(4, step.of)
    y = code.x('layers.Conv2D({}, 1, activation="{}", name="{name}")({})', code.shape(x)[-1], activation(step), x)
    code.x("layers.Concatenate(axis={})([{}, {}])", 1 + step.size % 2, x, y)


def space_mean(code, step):
    x = code.pick(4, step.of)
    if step.how % 2:
        code.x("ops.mean({}, axis=(1, 2))", x)
    else:
        code.x("{} - ops.mean({}, axis=(1, 2), keepdims=True)", x, x)


def to_sequence(code, step):
    """Positions become steps: channels stay, or lie along the steps, or are merged with the columns."""
    x = code.pick(4, step.of)
    height, wide, channels = code.shape(x)
    if step.how % 4 == 0:
        code.x("layers.Reshape(({}, {}))({})", height * wide, channels, x)
    elif step.how % 4 == 1:
        code.x("ops.reshape({}, (-1, {}, {}))", x, height, wide * channels)
    elif step.how % 4 == 2:
        y = code.x("ops.reshape({}, (-1, {}, {}))", x, height * wide, channels)
        code.x("ops.transpose({}, (0, 2, 1))", y)
    else:
        y = code.x("layers.Permute((3, 1, 2))({})", x)
        code.x("layers.Reshape(({}, {}))({})", channels, height * wide, y)


def turn(code, step):
    x = code.pick(4, step.of)
    if step.how % 2:
        code.x("ops.transpose({}, (0, 2, 1, 3))", x)
    else:
        code.x("layers.Permute((2, 1, 3))({})", x)


def global_pool(code, step):
    x = code.pick(4, step.of)
    code.x("layers.Global{}Pooling2D()({})", ("Average", "Max")[step.how % 2], x)


# --- steps on sequences -----------------------------------------------------------------------------------------------


def conv_1d(code, step):
    x = code.pick(3, step.of)
    code.x(
        'layers.Conv1D({}, 3, padding="{}", activation="{}", name="{name}")({})',
        width(step), ("same", "causal")[step.size % 2], activation(step), x,
    )  # fmt: skip


def recurrent(code, step):
    x = code.pick(3, step.of)
    kind = ("LSTM", "GRU", "SimpleRNN")[step.how % 3]
    options = ", reset_after=False" if kind == "GRU" and step.size % 2 else ""
    code.x(f'layers.{kind}({{}}, return_sequences={{}}{options}, name="{{name}}")({{}})', width(step), step.how < 3, x)


def bidirectional(code, step):
    x = code.pick(3, step.of)
    kind = ("GRU", "LSTM", "SimpleRNN")[step.how % 3]
    merge = ("concat", "sum", "mul", "ave")[step.size % 4]
    inner = f"layers.{kind}({width(step)}, return_sequences=True)"
    code.x(f'layers.Bidirectional({inner}, merge_mode="{merge}", name="{{name}}")({{}})', x)


def attention(code, step):
    x = code.pick(3, step.of)
    memory = code.like(x, step.size) if step.how % 2 else x
    code.x(
        'layers.MultiHeadAttention({}, {}, value_dim={}, name="{name}")({}, {}, use_causal_mask={})',
        2 + step.size % 2, width(step), 2 + step.how, x, memory, step.how == 2,
    )  # fmt: skip


def time_distributed(code, step):
    x = code.pick(3, step.of)
    code.x(
        'layers.TimeDistributed(layers.Dense({}, activation="{}"), name="{name}")({})', width(step), activation(step), x
    )


def last_step(code, step):
    x = code.pick(3, step.of)
    if step.how % 2:
        code.x("layers.GlobalAveragePooling1D()({})", x)
    else:
        code.x("{}[:, -1]", x)


def swap_steps(code, step):
    x = code.pick(3, step.of)
    y = code.x("layers.Permute((2, 1))({})", x)
    y = code.x('layers.Dense({}, activation="{}", name="{name}")({})', code.shape(y)[-1], activation(step), y)
    code.x("ops.transpose({}, (0, 2, 1))", y)


def pool_1d(code, step):
    x = code.pick(3, step.of)
    code.x('layers.MaxPooling1D(2, strides=1, padding="same")({})', x)


# --- steps on vectors -------------------------------------------------------------------------------------------------


def to_image(code, step):
    x = code.pick(2, step.of)
    y = code.x('layers.Dense({}, activation="{}", name="{name}")({})', 9 * width(step), activation(step), x)
    code.x("layers.Reshape((3, 3, -1))({})", y)


def repeat(code, step):
    code.x("layers.RepeatVector({})({})", 2 + step.size % 2, code.pick(2, step.of))


def softmax_gate(code, step):
    x = code.pick(2, step.of)
    gate = code.x('layers.Dense({}, activation="softmax", name="{name}")({})', code.shape(x)[-1], x)
    code.x("layers.Multiply()([{}, {}])", x, gate)


# --- steps on any tensor ----------------------------------------------------------------------------------------------


def anything(code, step):
    """Any tensor; the last one for of = 0."""
    names = [name for name in code.names() if len(code.tensors[name].shape) <= 4]
    return names[-1 - step.of % len(names)]


def dense(code, step):
    code.x('layers.Dense({}, activation="{}", name="{name}")({})', width(step), activation(step), anything(code, step))


def batchnorm(code, step):
    code.x('layers.BatchNormalization(name="{name}")({})', anything(code, step))


def layernorm(code, step):
    code.x('layers.LayerNormalization(name="{name}")({})', anything(code, step))


def activate(code, step):
    code.x('layers.Activation("{}")({})', ACTIVATIONS[1 + step.how % 5], anything(code, step))


def prelu(code, step):
    x = anything(code, step)
    axes = list(range(1, len(code.shape(x)))) if step.how % 2 else None
    code.x('layers.PReLU(shared_axes={}, name="{name}")({})', axes or None, x)


def dropout(code, step):
    code.x("layers.Dropout(0.3)({})", anything(code, step))


def residual(code, step):
    """A branch back to the width of the stream, added to it."""
    x = anything(code, step)
    y = code.x('layers.Dense({}, activation="{}", name="{name}")({})', width(step), activation(step), x)
    y = code.x('layers.Dense({}, name="{name}")({})', code.shape(x)[-1], y)
    if step.how % 2:
        code.x("{} + {}", x, y)
    else:
        code.x("layers.Add()([{}, {}])", x, y)


def add_three(code, step):
    x = anything(code, step)
    names = [
        code.x('layers.Dense({}, activation="{}", name="{name}")({})', width(step), kind, x)
        for kind in (activation(step), "sigmoid", "linear")
    ]
    code.x("layers.{}()([{}, {}, {}])", ("Add", "Maximum", "Average")[step.how % 3], *names)


def gate(code, step):
    x = anything(code, step)
    other = code.like(x, step.size)
    code.x("{} * ops.sigmoid({})" if step.how % 2 else "layers.Multiply()([{}, {}])", x, other)


def concat(code, step):
    x = anything(code, step)
    others = [name for name in code.names() if code.shape(name)[:-1] == code.shape(x)[:-1]]
    other = others[-1 - step.size % len(others)]
    text = "ops.concatenate([{}, {}, {}], axis=-1)" if step.how % 2 else "layers.Concatenate()([{}, {}, {}])"
    code.x(text, x, other, x)


def split(code, step):
    x = anything(code, step)
    channels = code.shape(x)[-1]
    if channels < 2:
        return
    cut = channels // 2 if step.how % 2 else 1 + step.size % (channels - 1)
    parts = [code.x("ops.split({}, [{}], axis=-1)[{}]", x, cut, index) for index in (0, 1)]
    code.x("ops.concatenate([{}, {}], axis=-1)", *reversed(parts))


def arithmetic(code, step):
    text = ("2.0 * {} + 1.0", "ops.tanh({}) / 2.0", "ops.square({}) - 0.5")[step.how % 3]
    code.x(text, anything(code, step))


def flatten(code, step):
    x = anything(code, step)
    if len(code.shape(x)) < 2:
        return
    if step.how % 2:
        code.x("ops.reshape({}, (-1, {}))", x, math.prod(code.shape(x)))
    else:
        code.x("layers.Flatten()({})", x)


def shared(code, step):
    """One dense layer called on two tensors."""
    x = anything(code, step)
    layer = f"shared_{len(code.lines)}"
    code.line(f'{layer} = layers.Dense({width(step)}, activation="{activation(step)}", name="{layer}")')
    first = code.x("{}({})", layer, x)
    second = code.x("{}(ops.tanh({}))", layer, code.like(x, step.how))
    code.x("layers.{}()([{}, {}])", ("Concatenate", "Subtract")[step.size % 2], first, second)


def twice(code, step):
    """A layer that reads what it made."""
    x = anything(code, step)
    layer = f"twice_{len(code.lines)}"
    y = code.x('layers.Dense({}, name="{name}")({})', width(step), x)
    code.line(f'{layer} = layers.Dense({width(step)}, activation="{activation(step)}", name="{layer}")')
    code.x("{}({}({}))", layer, layer, y)


def nested(code, step):
    """A model of its own, called once or twice."""
    x = anything(code, step)
    shape, inner = code.shape(x), f"model_{len(code.lines)}"
    hidden = f'layers.Dense({width(step)}, activation="{activation(step)}", name="{inner}_hidden")'
    code.line(f"{inner}_in = keras.Input({shape})")
    code.line(f'{inner}_out = layers.Dense({shape[-1]}, name="{inner}_last")({hidden}({inner}_in))')
    code.line(f'{inner} = keras.Model({inner}_in, {inner}_out, name="{inner}")')
    y = code.x("{}({})", inner, x)
    if step.how % 2:
        code.x("layers.Add()([{}, {}({})])", x, inner, y)


KINDS = {
    function.__name__: function
    for function in (
        conv, grouped_conv, depthwise, separable, transposed, pool, resize, squeeze_excite, shuffle, concat_space,
        space_mean, to_sequence, turn, global_pool,
        conv_1d, recurrent, bidirectional, attention, time_distributed, last_step, swap_steps, pool_1d,
        to_image, repeat, softmax_gate,
        dense, batchnorm, layernorm, activate, prelu, dropout, residual, add_three, gate, concat, split, arithmetic,
        flatten, shared, twice, nested,
    )
}  # fmt: skip
_ALL = list(KINDS)
_ON_ANY = _ALL[_ALL.index("dense") :]
FAMILIES = {
    "image": _ALL[: _ALL.index("conv_1d")] + _ON_ANY,
    "sequence": _ALL[_ALL.index("conv_1d") : _ALL.index("to_image")] + _ON_ANY,
    "vector": _ALL[_ALL.index("to_image") : _ALL.index("dense")] + _ON_ANY,
}


# --- endings ----------------------------------------------------------------------------------------------------------


def one_output(code):
    """Everything that nobody has read is flattened, joined and read by one layer."""
    code.line(f"model = keras.Model(x0, {_logits(code, _joined(code, code.unread))})")


def pooled_output(code):
    """As one output, but images and sequences are averaged first."""
    pooled = [_pooled(code, name) for name in code.unread]
    code.line(f"model = keras.Model(x0, {_logits(code, _joined(code, pooled))})")


def several_outputs(code):
    """Every tensor that nobody has read has a head of its own."""
    heads = [_logits(code, _joined(code, [name])) for name in code.unread]
    code.line(f"model = keras.Model(x0, [{', '.join(heads)}])")


def shown_output(code):
    """A tensor in the middle is an output as well, as it is."""
    middle = code.names()[code.count // 2]
    head = _logits(code, _joined(code, code.unread))
    code.line(f'model = keras.Model(x0, {{"shown": {middle}, "logits": {head}}})')


ENDINGS = {function.__name__: function for function in (one_output, pooled_output, several_outputs, shown_output)}


def _logits(code, name):
    return code.x('layers.Dense(2, name="{name}")({})', name)


def _joined(code, names):
    flat = [name if len(code.shape(name)) == 1 else code.x("layers.Flatten()({})", name) for name in names]
    return flat[0] if len(flat) == 1 else code.x(f"layers.Concatenate()([{', '.join('{}' for _ in flat)}])", *flat)


def _pooled(code, name):
    axes = len(code.shape(name)) - 1
    return code.x("layers.GlobalAveragePooling{}D()({})", axes, name) if axes in (1, 2) else name
