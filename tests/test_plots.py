"""Do the pictures show what the network and the row hold?"""

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib import pyplot

import tfprune


def network():
    return keras.Sequential([keras.Input((2,)), layers.Dense(4, name="hidden"), layers.Dense(3, name="logits")])


def test_network_has_a_line_for_each_weight_and_a_dot_for_each_unit():
    ax = tfprune.plots.draw_network(network())
    assert len(ax.lines) == 2 * 4 + 4 * 3
    assert [len(dots.get_offsets()) for dots in ax.collections] == [2, 4, 3]
    pyplot.close("all")


def test_pruned_units_are_hollow_and_lose_their_lines():
    masked = tfprune.wrap(network())
    tfprune.set_masks(masked, {"hidden": np.array([True, False, False, True])})
    ax = tfprune.plots.draw_network(masked)
    assert len(ax.lines) == 2 * 2 + 2 * 3
    hidden = ax.collections[1].get_facecolors()
    assert [tuple(colour[:3]) == (1, 1, 1) for colour in hidden] == [False, True, True, False]
    pyplot.close("all")


def test_colour_is_the_sign_and_width_the_size():
    model = network()
    model.get_layer("hidden").set_weights([np.array([[1.0, -2.0, 0.5, 0.5]] * 2), np.zeros(4)])
    lines = tfprune.plots.draw_network(model).lines
    assert lines[0].get_color() != lines[1].get_color()
    assert lines[1].get_linewidth() > lines[0].get_linewidth()
    pyplot.close("all")


def test_network_with_other_layers_is_refused():
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(2, 3, name="conv"), layers.Flatten(), layers.Dense(2)]
    )
    with pytest.raises(ValueError, match=r"chains of Dense layers. Received: layer 'conv' \(Conv2D\)"):
        tfprune.plots.draw_network(model)


def test_reliability_leaves_empty_bins_out():
    row = {
        "ece": 0.125,
        "reliability_count": [0, 1, 0, 3],
        "reliability_confidence": [None, 0.4, None, 0.9],
        "reliability_accuracy": [None, 0.0, None, 1.0],
    }
    ax = tfprune.plots.draw_reliability(row)
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in ax.patches] == [(0.375, 0.0), (0.875, 1.0)]
    assert ax.lines[0].get_xydata().tolist() == [[0.4, 0.0], [0.9, 1.0]]
    assert ax.get_title() == "ECE 0.125"
    pyplot.close("all")
