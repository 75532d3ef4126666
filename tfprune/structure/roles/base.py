"""What is a role, and how is the role of a layer or an operation found?"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import keras
from keras import layers

from tfprune.layers import ChannelMask


@dataclass(frozen=True, eq=False)
class Uptake:
    """Which bias of a layer can say what a constant channel says through a kernel.

    Args:
        bias: The weight that takes it up, one of the role's; a bias with more axes than the role names takes it at the
            first place of these.
        axis: The axis of the kernel that counts the channels read. Default "in".
        switch: The config entry that is set to True to give the layer this bias; None where it cannot get one. Default
            "use_bias".
        arguments: Names of the call's arguments that may hold the channels, of which the first that is given does.
            Default (): the first argument.
        along: Which axis of that tensor counts the channels. Default None: as the layer's data_format says.
        through: A depthwise kernel that the channels go through first. Default None.
        ends: Whether the bias is what the layer adds last to its output channels, so that a BatchNormalization behind
            the layer can stand in for it. Default False.
        spreads: Whether each place read goes to several places that read different parts of the kernel, as many as the
            layer's strides say. Default False.
    """

    bias: str
    axis: str = "in"
    switch: str | None = "use_bias"
    arguments: tuple = ()
    along: int | None = None
    through: str | None = None
    ends: bool = False
    spreads: bool = False


@dataclass(frozen=True, eq=False)
class Role:
    """What a layer or an operation does to channels.

    Weights are named by their attribute ("kernel", or "cell.kernel" where a layer holds another), and the axes of a
    weight by what they count, from the last one back: `("in", "out")` for a kernel whose last axis counts the channels
    made and whose second last counts those read; None where an axis counts no channels.

    Args:
        flow: Function `(channels, layer, inputs, shapes) -> outputs`. `inputs` are the label arrays of the tensors that
            are read, `shapes` the shapes of the tensors that are made (both without the batch axis), `channels` the
            `tfprune.structure.groups.Flow` that creates, ties and freezes labels.
        weights: `{weight: names of its axes}`.
        reads: `{weight: (axis names)}`: where a mask on the weight keeps pruned channels from being read.
        makes: `{axis name: {weight: name of its axis}}`: the kinds of units that the layer makes, with the weights
            that flow into them (criteria look at these).
        sizes: `{config entry: axis name}` of entries that hold a number of channels; "layer.config.units" means the
            entry of a config inside the config.
        settings: Function `(config, inputs, outputs) -> config` for other entries that depend on the number of
            channels; `inputs` and `outputs` are bool arrays, True where a place of the tensor is kept. Default None.
        arguments: The same for the arguments of a call: `(args, kwargs, inputs, outputs) -> (args, kwargs)`.
        scales: `{weight: axis name}` of weights that must grow by sqrt(kept / all channels), because the layer divides
            by the square root of that number.
        divisor: The attribute of a built layer in which it remembers that number; "" where that is not known.
        mixes: Whether the layer computes statistics over all channels that it reads, so that it needs a mask itself.
        opens: Whether the layer is made of others and is entered where that is possible; the role serves where not.
        absorbs: `{kernel: Uptake}` of kernels through which a constant channel adds a constant, as a bias does.
    """

    flow: Callable
    weights: dict = field(default_factory=dict)
    reads: dict = field(default_factory=dict)
    makes: dict = field(default_factory=dict)
    sizes: dict = field(default_factory=dict)
    settings: Callable | None = None
    arguments: Callable | None = None
    scales: dict = field(default_factory=dict)
    divisor: str = ""
    mixes: bool = False
    opens: bool = False
    absorbs: dict = field(default_factory=dict)


ROLES = {}  # class or activation function -> Role, or function layer -> Role or None
NAMED = {}  # the same for classes that cannot be imported publicly, by what `public_name` says


def register(cls, role):
    """Teaches tfprune what a layer class, an operation class or an activation function does to channels.

    Args:
        cls: A `keras.Layer` or `keras.Operation` class, or an activation function.
        role: A `Role`, `roles.elementwise` for whatever works on each number by itself; or a function
            `layer -> Role or None` where it depends on the layer's arguments.

    Raises:
        TypeError: `role` is neither a `Role` nor a function, or `cls` neither a class nor a function.

    Example:
        >>> roles.register(Swish, roles.elementwise)
    """
    if not isinstance(role, Role) and (not callable(role) or isinstance(role, type)):
        raise TypeError(f"Expected a Role, for example roles.elementwise. Received: {role!r}.")
    if not callable(cls):
        raise TypeError(f"Expected a layer class or a function. Received: {cls!r}.")
    ROLES[cls] = role


def role_of(op):
    """The role of a layer or operation, or None where there is none; subclasses do not inherit roles."""
    layer = unwrap(op)
    if is_quantised(layer):
        return None  # its kernels are not what the role says any more
    cls = type(layer)
    role = ROLES.get(cls) or NAMED.get(public_name(cls))
    return role if role is None or isinstance(role, Role) else role(layer)


def is_quantised(layer):
    """Whether a layer's kernel is quantised or has LoRA weights beside it."""
    return bool(getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None))


def public_name(cls):
    """The name of a class or function with the package a user knows it from, as "keras.ops.Add"."""
    parts = str(getattr(cls, "__module__", "")).split(".")
    package = f"keras.{parts[2]}" if parts[:2] == ["keras", "src"] and len(parts) > 2 else parts[0]
    return f"{package}.{getattr(cls, '__name__', '')}"


def unwrap(op):
    """The layer inside a `ChannelMask`, or `op` itself."""
    return op.layer if isinstance(op, ChannelMask) else op


def part(layer, path):
    """The attribute of a layer that a dotted path names ("cell.kernel"), or None."""
    for name in path.split("."):
        layer = getattr(layer, name, None)
    return layer


def owner(layer, path):
    """The layer to which an attribute with a dotted name belongs."""
    outer, _, _ = path.rpartition(".")
    return part(layer, outer) if outer else layer


def nest(role, prefix, flow):
    """The role of a layer that holds the layer of `role` as its attribute (and config entry) `prefix`."""
    return replace(
        role,
        flow=flow,
        weights=_under(prefix, role.weights),
        reads=_under(prefix, role.reads),
        makes={axis: _under(prefix, weights) for axis, weights in role.makes.items()},
        sizes={f"{prefix}.config.{entry}": axis for entry, axis in role.sizes.items()},
        scales=_under(prefix, role.scales),
        divisor=role.divisor and f"{prefix}.{role.divisor}",
        absorbs=_under(prefix, {path: _inside(prefix, uptake) for path, uptake in role.absorbs.items()}),
    )


def _inside(prefix, uptake):
    """The uptake of a layer that is held by another; what that one does to the outputs is not known here."""
    return replace(
        uptake,
        bias=f"{prefix}.{uptake.bias}",
        switch=uptake.switch and f"{prefix}.config.{uptake.switch}",
        through=uptake.through and f"{prefix}.{uptake.through}",
        ends=False,
    )


def _under(prefix, table):
    return {f"{prefix}.{path}": value for path, value in table.items()}


# Activations -----------------------------------------------------------------------------------------------------

_activations = keras.activations
MIXING = {
    getattr(_activations, name)
    for name in ("softmax", "log_softmax", "sparsemax", "glu")
    if hasattr(_activations, name)
}
# Named one by one: an activation that a later Keras brings may mix channels, and then must not slip in here.
_ELEMENTWISE = (
    *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu"),
    *("linear", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softplus"),
    *("softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "tanh", "tanh_shrink", "threshold"),
)
ELEMENTWISE = {getattr(_activations, name) for name in _ELEMENTWISE if hasattr(_activations, name)}


def same(channels, layer, inputs, shapes):
    """Every number of the output comes from the number at the same place of the inputs."""
    return [channels.combine(inputs, shape) for shape in shapes]


elementwise = Role(same)


def refusing(reason):
    """The role of a layer that freezes what it touches, for a reason that no role could change."""
    return Role(lambda channels, layer, inputs, shapes: channels.refuse(inputs, shapes, reason))


def keeps_apart(activation):
    """Whether an activation (function or layer) works on each channel by itself."""
    if activation is None:
        return True
    if isinstance(activation, keras.Layer):
        if isinstance(activation, layers.Activation):
            return keeps_apart(activation.activation)
        return role_of(activation) is elementwise and not activation.weights
    return activation in ELEMENTWISE or elementwise in (ROLES.get(activation), NAMED.get(public_name(activation)))


def why_mixing(activation):
    """Why an activation freezes the channels that it touches."""
    name = getattr(activation, "__name__", type(activation).__name__)
    if activation in MIXING:
        return f"its {name} mixes the channels"
    return f"its activation '{name}' is unknown (if it is elementwise: roles.register({name}, roles.elementwise))"


def axis_without_batch(axis, rank):
    """The axis of a tensor without its batch axis that Keras means by `axis` (which counts the batch axis)."""
    axis = axis[0] if isinstance(axis, list | tuple) else axis
    return axis + rank if axis < 0 else axis - 1
