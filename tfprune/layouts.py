"""How many channels did a published network keep in each layer? Ratios by layer, under the name that its paper gave it.

A layout is a dict `{layer name: ratio}`, made for a network of `tfprune.models`. It goes where `ratio` takes a dict:

    model = tfprune.models.resnet(56)
    masked = tfprune.wrap(model)
    layout = tfprune.layouts.get("resnet56_b")

    tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio=layout))   # one shot, or
    tfprune.callbacks.LotteryTicket(ratio=layout, rounds=5)                  # while training

| layout | network | removed, in percent | whole layers | parameters | multiply-adds |
| --- | --- | --- | --- | --- | --- |
| `vgg16_a` | `vgg16()` | 50 in conv 1 and 8 to 13 | all others | 1.5e7 to 5.4e6 | 3.13e8 to 2.06e8 |
| `resnet56_a` | `resnet(56)` | 10, 10, 10 | 16, 20, 38, 54 | 8.5e5 to 7.7e5 | 1.25e8 to 1.12e8 |
| `resnet56_b` | `resnet(56)` | 60, 30, 10 | 16, 18, 20, 34, 38, 54 | 8.5e5 to 7.3e5 | 1.25e8 to 9.09e7 |
| `resnet110_a` | `resnet(110)` | 50, 0, 0 | 36 | 1.72e6 to 1.68e6 | 2.53e8 to 2.13e8 |
| `resnet110_b` | `resnet(110)` | 50, 40, 30 | 36, 38, 74 | 1.72e6 to 1.16e6 | 2.53e8 to 1.55e8 |

The numbers are those of the paper's Table 1, and the layouts give all of them. In the residual networks the percentages
are those of the three stages, and only the first convolution of each block is pruned: "conv_2", "conv_4", ...

The paper counts as parameters the weights of convolutions and dense layers, nothing of BatchNormalization. `cost` of
`tfprune.structure.cost` counts BatchNormalization too, moving statistics included (4 numbers a channel): 8.57e5 for
ResNet-56 and 7.39e5 for `resnet56_b`. Of the ten percentages that the table prints beside its counts, three are a tenth
lower than the counts make them: 13.7 (parameters of ResNet-56-pruned-B; 13.8), 38.6 and 32.4 (multiply-adds and
parameters of ResNet-110-pruned-B; 38.7 and 32.5).

Source: Li, Kadav, Durdanovic, Samet and Graf 2017, Pruning Filters for Efficient ConvNets (arXiv:1608.08710).
"""


def get(name):
    """Returns the layout of this name, as a new dict `{layer name: share of its channels removed}`.

    Args:
        name: "vgg16_a", "resnet56_a", "resnet56_b", "resnet110_a" or "resnet110_b".

    Raises:
        ValueError: Unknown name.

    Example:

    >>> tfprune.layouts.get("vgg16_a")["conv_1"]
    0.5
    """
    if name not in LAYOUTS:
        raise ValueError(f"Unknown layout. Received: {name!r}. Expected one of {', '.join(map(repr, LAYOUTS))}.")
    return dict(LAYOUTS[name])


def _resnet(depth, percents, whole):
    """Ratios of the first convolution of each block; one percentage a stage, none for the layers in `whole`."""
    blocks = (depth - 2) // 6
    layout = {}
    for first in range(2, depth, 2):
        stage = (first // 2 - 1) // blocks
        if percents[stage] and first not in whole:
            layout[f"conv_{first}"] = _share(percents[stage], channels=(16, 32, 64)[stage])
    return layout


def _share(percent, channels):
    """The ratio that removes percent of the channels, a part of a channel counted as a whole one.

    Table 1 asks for this rounding: of 16, 32 and 64 channels 10 % are 2, 4 and 7, which leaves ResNet-56-pruned-A its
    1.12e8 multiply-adds. The nearest counts (2, 3, 6) would leave 1.14e8, the next lower ones (1, 3, 6) 1.16e8. As a
    share of the channels, the count comes out the same whichever way masks are rounded.
    """
    return -(-percent * channels // 100) / channels


LAYOUTS = {
    "vgg16_a": {f"conv_{number}": 0.5 for number in (1, *range(8, 14))},
    "resnet56_a": _resnet(56, (10, 10, 10), whole={16, 20, 38, 54}),
    "resnet56_b": _resnet(56, (60, 30, 10), whole={16, 18, 20, 34, 38, 54}),
    "resnet110_a": _resnet(110, (50, 0, 0), whole={36}),
    "resnet110_b": _resnet(110, (50, 40, 30), whole={36, 38, 74}),
}
