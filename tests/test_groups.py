"""Are channels that must live or die together found together, and is what cannot go frozen with a reason?"""

import keras
import pytest
from keras import layers
from zoo import ZOO

from tfprune.structure import roles
from tfprune.structure.groups import ChannelGraph


def groups(name):
    return {group.name: group for group in ChannelGraph(ZOO[name]()).groups}


def test_layers_joined_by_add_form_one_group():
    found = groups("residual")
    assert found["stem"].layers[:3] == ("stem", "outer_0", "outer_1")
    assert found["stem"].channels == 8
    assert found["inner_0"].channels == 6
    assert found["inner_0"].layers[0] == "inner_0"
    assert len(found["inner_0"].layers) == 2, "its BatchNormalization goes with it"


def test_concatenated_layers_stay_apart():
    found = groups("concatenated")
    assert [(found[name].channels, found[name].reason) for name in ("left", "right", "after")] == [
        (5, ""),
        (7, ""),
        (6, ""),
    ]


def test_layers_concatenated_in_space_share_channels():
    assert set(groups("concatenated_in_space")["top"].makers) == {"top", "bottom"}


def test_depthwise_convolution_follows_the_layer_before():
    found = groups("depthwise")
    assert "depthwise" in found["expand"].layers
    assert "depthwise" not in found
    assert found["separable"].channels == 9


def test_gate_and_trunk_of_squeeze_and_excite_share_channels():
    assert set(groups("squeeze_and_excite")["trunk"].makers) == {"trunk", "excite"}


def test_shared_layer_ties_the_channels_of_both_calls():
    found = groups("shared_layer")
    assert (found["tower"].channels, found["inner"].channels) == (10, 8)


@pytest.mark.parametrize(
    ("model", "layer", "reason"),
    [
        ("mlp_relu", "logits", "output of the model"),
        ("lenet_relu", "probabilities", "output of the model"),
        ("softmax_in_the_middle", "attention", "softmax mixes the channels"),
        ("softmax_in_the_middle", "after", "softmax mixes the channels"),
        ("softmax_in_the_middle", "odds", "softmax mixes the channels"),
        ("unknown_layer", "stuck", r"normalisation mixes the channels.*approximate=True"),
        ("several_outputs", "dense", "output of the model"),
    ],
)
def test_frozen_channels_say_why(model, layer, reason):
    with pytest.raises(AssertionError, match=reason):
        assert not groups(model)[layer].reason, groups(model)[layer].reason


def test_layer_beside_an_unknown_one_stays_free():
    found = groups("unknown_layer")
    assert not found["free"].reason
    assert not found["also_free"].reason


def test_one_channel_cannot_be_pruned():
    inputs = keras.Input((4,))
    x = layers.Dense(1, name="single")(inputs)
    found = ChannelGraph(keras.Model(inputs, layers.Dense(2)(x))).groups
    assert "only one channel" in found[0].reason


def test_gate_of_one_number_does_not_tie_the_channels_it_scales():
    inputs = keras.Input((4,))
    x = layers.Dense(6, name="wide")(inputs)
    gate = layers.Dense(1, activation="sigmoid", name="gate")(inputs)
    found = {g.name: g for g in ChannelGraph(keras.Model(inputs, layers.Dense(2)(layers.Multiply()([x, gate])))).groups}
    assert (found["wide"].channels, found["wide"].reason) == (6, "")
    assert "spreads it" in found["gate"].reason


def test_groups_of_a_convolution_lose_channels_at_the_same_places():
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(8, 1, name="before")(inputs)
    x = layers.Conv2D(6, 3, groups=2, name="grouped")(x)
    x = layers.Conv2D(2, 1)(x)
    found = {group.name: group for group in ChannelGraph(keras.Model(inputs, x)).prunable}
    assert {name: group.channels for name, group in found.items()} == {"before": 4, "grouped": 3}
    assert found["before"].makers["before"][:4].tolist() == found["before"].makers["before"][4:].tolist()


def test_channels_first_flatten_is_understood():
    inputs = keras.Input((3, 6, 6))
    x = layers.Conv2D(5, 3, data_format="channels_first", name="conv")(inputs)
    x = layers.Dense(2, name="logits")(layers.Flatten(data_format="channels_first")(x))
    graph = ChannelGraph(keras.Model(inputs, x))
    assert graph.prunable[0].channels == 5
    read = graph.units(graph.counts["logits"]["in"])
    assert read.tolist() == graph.prunable[0].units.tolist() * 16


def test_register_teaches_a_layer_an_activation_and_an_operation():
    class Twice(layers.Layer):
        def call(self, x):
            return x * 2

    def bend(x):
        return keras.ops.tanh(x)

    def build():
        inputs = keras.Input((4,))
        x = Twice()(layers.Dense(8, activation=bend, name="hidden")(inputs))
        return keras.Model(inputs, layers.Dense(2)(x))

    assert "bend" in ChannelGraph(build()).groups[0].reason
    try:
        roles.register(bend, roles.elementwise)
        assert "Twice is unknown" in ChannelGraph(build()).groups[0].reason
        roles.register(Twice, roles.elementwise)
        assert not ChannelGraph(build()).groups[0].reason
    finally:
        roles.ROLES.pop(bend, None), roles.ROLES.pop(Twice, None)


def test_register_refuses_what_is_no_role():
    with pytest.raises(TypeError, match="Expected a Role"):
        roles.register(layers.Dense, "elementwise")


def test_quantised_or_lora_kernels_are_frozen():
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, name="hidden")
    model = keras.Model(inputs, layers.Dense(2)(hidden(inputs)))
    hidden.enable_lora(2)
    assert all(group.name != "hidden" or group.reason for group in ChannelGraph(model).groups)
