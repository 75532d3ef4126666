"""Does running the model on numbers find out roles that are wrong, and are layers made of layers opened truthfully?"""

import keras
import numpy as np
import pytest
from keras import layers
from zoo import ZOO, difference, inputs_of, randomise

import tfprune
from tfprune.structure import probe, roles
from tfprune.structure.groups import ChannelGraph
from tfprune.structure.roles import ROLES
from tfprune.structure.trace import trace


class Shuffle(layers.Layer):
    def call(self, x):
        return keras.ops.roll(x, 1, axis=-1)


class Centre(layers.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, axis=-1, keepdims=True)


@pytest.fixture(params=[Shuffle, Centre], name="liar")
def _liar(request):
    """A layer that moves or mixes channels, registered as if it did not."""
    roles.register(request.param, roles.elementwise)
    yield request.param
    ROLES.pop(request.param)


def model_with(layer):
    inputs = keras.Input((6,))
    x = layer(layers.Dense(8, activation="relu", name="before")(inputs))
    x = layers.Dense(5, activation="relu", name="after")(x)
    return randomise(keras.Model(inputs, layers.Dense(2, name="logits")(x)))


@pytest.mark.parametrize("name", ZOO)
def test_labels_and_numbers_agree_on_every_architecture(name):
    graph = ChannelGraph(randomise(ZOO[name]()), verify=False)
    assert probe.disagreements(graph) == {}


def test_a_wrong_role_is_found_out_and_frozen(liar):
    graph = ChannelGraph(model_with(liar(name="liar")), verify=True)
    reasons = {group.name: group.reason for group in graph.groups}
    assert "layer 'liar': numbers change where its role says they do not" in reasons["before"]
    assert reasons["after"] == ""


def test_a_wrong_role_goes_unnoticed_only_without_verifying(liar):
    assert not ChannelGraph(model_with(liar()), verify=False).groups[0].reason


def test_small_models_are_verified_by_default_and_large_ones_on_request(liar, monkeypatch):
    model = model_with(liar())
    assert ChannelGraph(model).groups[0].reason
    monkeypatch.setattr(probe, "SIZE_LIMIT", 10)
    assert not ChannelGraph(model).groups[0].reason
    assert ChannelGraph(model, verify=True).groups[0].reason


def test_what_was_pinned_stays_pinned_in_the_masked_model(liar):
    masked = tfprune.wrap(model_with(liar()))
    assert set(tfprune.get_masks(masked)) == {"after"}
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    assert tfprune.shrink(masked).get_layer("before").units == 8


def test_without_the_probe_the_certificate_stops_a_wrong_role(liar):
    masked = tfprune.wrap(model_with(liar()), verify=False)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    with pytest.raises(RuntimeError, match="differs from the one it was given"):
        tfprune.shrink(masked)


# Layers made of layers -------------------------------------------------------------------------------------------


class Block(layers.Layer):
    """A user's block: nothing of its own but the layers inside."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.wide = layers.Dense(units, activation="relu", name="wide")
        self.narrow = layers.Dense(6, name="narrow")

    def build(self, shape):
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], self.wide.units))

    def call(self, x):
        return x + self.narrow(self.wide(x))


class Scaled(Block):
    """A block with a weight of its own: it cannot be opened."""

    def build(self, shape):
        super().build(shape)
        self.scale = self.add_weight(shape=(6,), initializer="ones", name="scale")

    def call(self, x):
        return super().call(x) * self.scale


class Peeking(Block):
    """A block that uses a weight of one of its layers itself: opened, it would not be trained."""

    def call(self, x):
        return super().call(x) * keras.ops.sum(self.narrow.kernel)


def blocks(block):
    inputs = keras.Input((6,))
    x = layers.Dense(6, name="stem")(inputs)
    x = block(block(x)) if block.name == "shared" else block(x)
    return randomise(keras.Model(inputs, layers.Dense(2, name="logits")(x)))


@pytest.mark.parametrize("name", ["block", "shared"])
def test_layers_made_of_layers_are_opened_and_pruned_inside(name):
    model = blocks(Block(10, name=name))
    masked = tfprune.wrap(model)
    assert difference(model, masked, inputs_of(model)) < 1e-6
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    ticket = tfprune.shrink(masked)
    assert ticket.get_layer("wide").units == 5
    assert not any(isinstance(layer, Block) for layer in ticket.layers)
    assert len(model.layers[-1].weights) == 2


@pytest.mark.parametrize("cls", [Scaled, Peeking])
def test_layers_that_do_more_than_call_layers_stay_closed(cls):
    model = blocks(cls(10, name="block"))
    graph = ChannelGraph(model)
    assert graph.trace.opened == ()
    assert {group.name: cls.__name__ in group.reason for group in graph.groups} == {"stem": True, "logits": False}


def test_an_opened_layer_that_computes_something_else_is_closed_again():
    class Counting(Block):
        """Its code does not do the same twice."""

        calls = 0

        def call(self, x):
            Counting.calls += 1
            return super().call(x) * float(Counting.calls)

    model = blocks(Counting(10, name="block"))
    assert trace(model).opened == ("block",)
    assert ChannelGraph(model).trace.opened == ()


def test_probe_says_nothing_of_a_model_that_does_not_run_here(monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("no such device")

    monkeypatch.setattr(probe, "run", fails)
    assert probe.disagreements(ChannelGraph(ZOO["mlp_relu"](), verify=False)) == {}


def test_random_halves_tell_any_two_units_apart_sooner_or_later():
    halves = np.array([np.random.default_rng(number).random(64) < 0.5 for number in range(probe._ROUNDS)])
    same = [(halves[:, i] == halves[:, j]).all() for i in range(64) for j in range(i)]
    assert np.mean(same) < 2 * 2.0**-probe._ROUNDS
