"""Do the pictures show what the network and the row hold?"""

import itertools
import xml.etree.ElementTree

import keras
import matplotlib
import numpy as np
import pytest
from keras import layers
from matplotlib import pyplot
from zoo import ZOO

import tfprune
from tfprune.plots.layout import lay_out


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def network():
    return keras.Sequential([keras.Input((2,)), layers.Dense(4, name="hidden"), layers.Dense(3, name="logits")])


def test_network_has_a_line_for_each_weight_and_a_dot_for_each_unit():
    ax = tfprune.plots.draw_network(network())
    assert len(ax.lines) == 2 * 4 + 4 * 3
    assert [len(dots.get_offsets()) for dots in ax.collections] == [2, 4, 3]


def test_pruned_units_are_hollow_and_lose_their_lines():
    masked = tfprune.wrap(network())
    tfprune.set_masks(masked, {"hidden": np.array([True, False, False, True])})
    ax = tfprune.plots.draw_network(masked)
    assert len(ax.lines) == 2 * 2 + 2 * 3
    hidden = ax.collections[1].get_facecolors()
    assert [tuple(colour[:3]) == (1, 1, 1) for colour in hidden] == [False, True, True, False]


def test_colour_is_the_sign_and_width_the_size():
    model = network()
    model.get_layer("hidden").set_weights([np.array([[1.0, -2.0, 0.5, 0.5]] * 2), np.zeros(4)])
    lines = tfprune.plots.draw_network(model).lines
    assert lines[0].get_color() != lines[1].get_color()
    assert lines[1].get_linewidth() > lines[0].get_linewidth()


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


# The structure of real networks ------------------------------------------------------------------------------------


def bars(ax):
    """`{layer name: (outline, filled part)}` of a drawing, found by the names under the bars."""
    rectangles = [patch for patch in ax.patches if isinstance(patch, matplotlib.patches.Rectangle)]
    found = {}
    for text in ax.texts:
        x, y = text.get_position()
        above = [bar for bar in rectangles if np.isclose(bar.get_center()[0], x) and 0 < bar.get_y() - y < 0.1]
        if len(above) == 2 and text.get_verticalalignment() == "top":
            found[text.get_text().replace("\n", "")] = tuple(above)
    return found


def colours(ax):
    return {name: matplotlib.colors.to_hex(filled.get_facecolor()) for name, (_, filled) in bars(ax).items()}


def labels(ax):
    return [text.get_text() for text in ax.texts]


def halved(name):
    """A model, and masks that keep half of every layer's channels."""
    model = ZOO[name]()
    return model, {
        name: np.arange(len(mask)) < len(mask) // 2 for name, mask in tfprune.get_masks(tfprune.wrap(model)).items()
    }


def test_structure_shows_layers_with_kernels_only():
    ax = tfprune.plots.draw_structure(ZOO["residual"]())
    assert set(bars(ax)) == {"input", "stem", "inner_0", "outer_0", "inner_1", "outer_1", "logits"}
    assert labels(ax).count("+") == 2, "two circles for the two Adds"


def test_bar_is_as_high_as_the_root_of_the_channels():
    ax = tfprune.plots.draw_structure(ZOO["residual"]())
    heights = {name: outline.get_height() for name, (outline, _) in bars(ax).items()}
    assert heights["stem"] / heights["logits"] == pytest.approx(np.sqrt(8 / 3))
    assert heights["stem"] == heights["outer_1"]
    assert {"8", "6", "3"} <= set(labels(ax))


def test_coupled_layers_have_one_colour_and_pinned_ones_are_hatched():
    ax = tfprune.plots.draw_structure(ZOO["residual"]())
    found = colours(ax)
    assert found["stem"] == found["outer_0"] == found["outer_1"]
    assert found["inner_0"] == found["inner_1"] != found["stem"], "each is pruned by itself"
    assert {name for name, (_, filled) in bars(ax).items() if filled.get_hatch()} == {"input", "logits"}
    assert "stem + 2 more: 8 channels" in labels(ax)


def test_different_groups_have_different_colours():
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for stage in range(4):
        x = layers.Conv2D(4 + stage, 1, name=f"first_{stage}")(x)
        x = layers.Add()([x, layers.Conv2D(4 + stage, 1, name=f"second_{stage}")(x)])
    found = colours(tfprune.plots.draw_structure(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))))
    assert all(found[f"first_{stage}"] == found[f"second_{stage}"] for stage in range(4))
    assert len({found[f"first_{stage}"] for stage in range(4)}) == 4


def test_filled_part_is_the_share_that_is_kept():
    ax = tfprune.plots.draw_structure(*halved("residual"))
    shares = {name: filled.get_height() / outline.get_height() for name, (outline, filled) in bars(ax).items()}
    assert shares == {name: pytest.approx(1 if name in ("input", "logits") else 0.5) for name in shares}
    assert labels(ax).count("8→4") == 3
    assert labels(ax).count("6→3") == 2


def test_masked_model_its_masks_and_its_ticket_give_one_picture():
    model, masks = halved("depthwise")
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, masks)
    ticket = tfprune.shrink(masked)
    pictures = [
        (labels(ax), ax.get_title("left"))
        for ax in (
            tfprune.plots.draw_structure(masked),
            tfprune.plots.draw_structure(model, masks),
            tfprune.plots.draw_structure(model, after=ticket),
        )
    ]
    assert pictures[0] == pictures[1] == pictures[2]
    before, after = model.count_params(), ticket.count_params()
    assert f"{before:,} → {after:,} ({100 * after / before:.3g} %) parameters" in pictures[0][1]


def test_picture_of_a_whole_model_names_its_parameters_only():
    title = tfprune.plots.draw_structure(ZOO["residual"]()).get_title("left")
    assert title.endswith(": 2,139 parameters")


def test_attention_shows_its_heads():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(4, 2, name="attention")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    masks = {"attention:head": np.array([True, False, True, False])}
    assert "attention\n4→2 head\n2 qk\n2 v" in labels(tfprune.plots.draw_structure(model, masks))


def test_channels_that_a_normalisation_mixes_are_pinned_unless_approximate():
    model = ZOO["unknown_layer"]()
    assert bars(tfprune.plots.draw_structure(model))["stuck"][1].get_hatch()
    assert not bars(tfprune.plots.draw_structure(model, approximate=True))["stuck"][1].get_hatch()


@pytest.mark.parametrize("name", ZOO)
def test_every_structure_can_be_drawn_and_no_two_words_overlap(name):
    ax = tfprune.plots.draw_structure(*halved(name))
    no_words_overlap(ax)


def no_words_overlap(ax):
    ax.figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in ax.texts]
    assert not [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.overlaps(other)]
    inside = ax.figure.bbox
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 for _, box in boxes)


@pytest.mark.parametrize("size", [(5, 3), (20, 4)])
def test_in_the_users_own_axes_words_shrink_with_the_drawing(size):
    ax = pyplot.subplots(figsize=size)[1]
    assert tfprune.plots.draw_structure(*halved("residual"), ax=ax) is ax
    no_words_overlap(ax)


def test_resnet50_is_drawn_over_several_rows_and_no_two_words_overlap():
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3))
    ax = tfprune.plots.draw_structure(model)
    no_words_overlap(ax)
    width, height = ax.figure.get_size_inches()
    assert 0.6 < height / width < 1.2
    drawn = colours(ax)
    assert len(drawn) == 55, "input, 53 convolutions, dense layer"
    streams = [{drawn[f"conv{stage}_block{block}_3_conv"] for block in (1, 2, 3)} for stage in (2, 3, 4, 5)]
    assert [len(stream) for stream in streams] == [1, 1, 1, 1]
    assert len(set.union(*streams)) == 4


def test_structure_is_written_as_svg(tmp_path):
    ax = tfprune.plots.draw_structure(*halved("residual"))
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        ax.figure.savefig(tmp_path / "structure.svg")
    words = [element.text for element in xml.etree.ElementTree.parse(tmp_path / "structure.svg").iter() if element.text]
    assert {"stem", "outer_1", "8→4"} <= set(words)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ({"stem": np.ones(3, bool)}, r"Expected for 'stem': 8\. Received: 3"),
        ({"stam": np.ones(8, bool)}, "Expected for 'stam': none: no such layer makes channels"),
        (network(), "must be a ticket of this model. Expected at most 8 channels in layer 'stem'.*has no such layer"),
    ],
)
def test_what_is_no_outcome_of_pruning_is_refused(after, message):
    with pytest.raises(ValueError, match=message):
        tfprune.plots.draw_structure(ZOO["residual"](), after)


def test_layout_puts_the_longest_path_on_one_line_and_the_rest_beside_it():
    # 0 -> 1 -> 2 -> 4 -> 5, a branch 0 -> 3 -> 4 and a skip 0 -> 4
    found = lay_out(6, {(0, 1), (1, 2), (2, 4), (4, 5), (0, 3), (3, 4), (0, 4)})
    assert found.columns == [0, 1, 2, 1, 3, 4]
    assert [found.lanes[node] for node in (0, 1, 2, 4, 5)] == [0] * 5
    assert found.lanes[3] == -1
    assert found.edge_lanes == {(3, 4): -1, (0, 4): 1}
    assert found.rows == [(0, 4)]


def test_layout_nests_skips_and_breaks_rows_where_few_lines_cross():
    chain = {(node, node + 1) for node in range(19)}
    found = lay_out(20, chain | {(1, 8), (2, 5), (10, 18)}, width=10)
    assert (found.edge_lanes[2, 5], found.edge_lanes[1, 8], found.edge_lanes[10, 18]) == (1, 2, 1)
    assert found.rows == [(0, 9), (10, 19)]


def test_layout_puts_a_late_input_before_its_reader():
    assert lay_out(5, {(0, 2), (2, 3), (3, 4), (1, 4)}).columns == [0, 2, 1, 2, 3]
