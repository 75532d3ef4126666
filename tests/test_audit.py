"""Does the audit say before pruning what pruning then frees, and which layer pins what, and why?"""

import re
import time

import keras
import numpy as np
import pytest
from keras import layers
from zoo import ZOO

import tfprune
from tfprune.structure import ledger
from tfprune.structure.cost import cost, cost_table
from tfprune.structure.groups import ChannelGraph
from tfprune.structure.ledger import Ledger


def audit(model):
    return tfprune.inspect(model, show=False)


def cut(model, groups):
    """The model really pruned: of each of these groups only the first channel stays."""
    masks = {}
    for group in groups:
        for name, units in group.makers.items():
            masks.setdefault(name, np.ones(len(units), bool))[np.isin(units, group.units[1:])] = False
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, masks)
    return tfprune.shrink(masked)


def by_hand():
    """3 -> 5 -> 4 -> 2: (3 + 1) 5 + 2 x 2 x 5 BatchNormalization + (5 + 1) 4 + (4 + 1) 2 parameters."""
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(5, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(4, name="second"),
            layers.Dense(2, name="logits"),
        ],
        name="small",
    )


def test_numbers_are_those_counted_by_hand():
    table = audit(by_hand()).set_index("group")
    total = 4 * 5 + 4 * 5 + 6 * 4 + 5 * 2
    assert table.loc["first", ["parameters", "multiply_adds"]].tolist() == [4 * (4 + 4 + 4), 4 * (3 + 4)]
    assert table.loc["second", ["parameters", "multiply_adds"]].tolist() == [3 * (6 + 2), 3 * (5 + 2)]
    assert table.loc["logits", ["parameters", "multiply_adds"]].tolist() == [0, 0]
    assert table.parameters_share["first"] == pytest.approx(48 / total)
    assert table.multiply_adds_share["second"] == pytest.approx(21 / (15 + 20 + 8))
    assert table.attrs == {
        "parameters": total,
        "multiply_adds": 43,
        "bytes": 4 * total,
        "smallest_parameters": 4 + 4 + 2 + 2 * 2,
        "smallest_multiply_adds": 3 + 1 + 2,
        "prunable_share": pytest.approx(1 - 2 / total),  # two biases of the logits belong to no prunable channel
    }


@pytest.mark.parametrize("name", ZOO)
def test_smallest_size_is_what_pruning_to_one_channel_reaches(name):
    model = ZOO[name]()
    smallest = cut(model, ChannelGraph(model).prunable)
    totals = audit(model).attrs
    assert totals["parameters"] == model.count_params()
    assert totals["smallest_parameters"] == smallest.count_params()
    assert totals["smallest_multiply_adds"] == cost(smallest)["multiply_adds"]


def attention():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(4, 3, value_dim=5, name="attention")(inputs, inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def grouped_attention():
    inputs = keras.Input((6, 8))
    x = layers.GroupQueryAttention(4, 6, 2, name="attention")(inputs, inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def recurrent():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.GRU(7, return_sequences=True, name="gru")(layers.Embedding(20, 5, name="embedding")(inputs))
    return keras.Model(inputs, layers.Dense(2)(layers.LSTM(4, name="lstm")(x)))


def in_groups():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(12, 3, groups=4, name="grouped")(layers.Conv2D(8, 1, name="before")(inputs))
    x = layers.Conv2D(12, 3, groups=12, name="each_by_itself")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


@pytest.mark.parametrize("build", [attention, grouped_attention, recurrent, in_groups])
def test_units_that_lie_on_several_axes_are_counted_exactly(build):
    model, before = build(), cost(build())
    table, groups = audit(model).set_index("group"), ChannelGraph(model).prunable
    smallest = cost(cut(model, groups))
    assert len(groups) > 1
    for name in ("parameters", "multiply_adds"):
        assert table.attrs[f"smallest_{name}"] == smallest[name]
        for group in groups:
            assert table[name][group.name] == before[name] - cost(cut(model, [group]))[name]


def test_attention_has_a_row_for_each_kind_of_unit():
    table = audit(attention()).set_index("group")
    rows = table.loc[["attention:head", "attention:qk", "attention:v"]]
    assert rows.kind.tolist() == ["head", "qk", "v"]
    assert rows.channels.tolist() == [4, 3, 5]
    # 8 channels are read by queries, keys and values, with biases; 8 are written
    assert rows.parameters.tolist() == [3 * (2 * 9 * 3 + 9 * 5 + 5 * 8), 2 * (2 * 9 * 4), 4 * (9 * 4 + 4 * 8)]
    # 6 steps for each projection, 6 x 6 pairs of a query and a key
    head = 6 * (2 * 8 * 3 + 8 * 5 + 5 * 8) + 36 * (3 + 5)
    assert rows.multiply_adds["attention:head"] == 3 * head


def test_multiply_adds_that_kernels_do_not_explain_are_not_known(monkeypatch, capsys):
    rows = [{**row, "multiply_adds": row["multiply_adds"] + 1} for row in cost_table(by_hand())]
    monkeypatch.setattr(ledger, "cost_table", lambda model: rows)
    table = tfprune.inspect(by_hand())
    assert table.attrs["multiply_adds"] == 43
    assert table.attrs["smallest_multiply_adds"] is None
    assert set(table.multiply_adds) == {None}
    assert "multiply-adds freed" not in capsys.readouterr().out


def test_approximate_groups_are_prunable_only_when_asked_and_marked(capsys):
    model = ZOO["unknown_layer"]()
    exact, approximate = audit(model).set_index("group"), tfprune.inspect(model, approximate=True).set_index("group")
    assert not exact.prunable["stuck"]
    assert exact.parameters["stuck"] == 0
    assert approximate.prunable["stuck"]
    assert approximate.approximate[approximate.prunable].to_dict() == {"free": False, "stuck": True, "also_free": False}
    assert approximate.parameters["stuck"] > 0
    printed = capsys.readouterr().out
    assert "≈ 8" in printed
    assert "≈ a normalisation mixes these channels: pruning them is not exact" in printed


def test_model_without_channels_has_an_empty_table(capsys):
    table = tfprune.inspect(keras.Sequential([keras.Input((4,)), layers.ReLU()]))
    assert len(table) == 0
    assert "0 of 0 groups can be pruned" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["concatenated", "decoder", "depthwise", "nested", "residual", "squeeze_and_excite"])
def test_group_frees_what_pruning_it_alone_frees(name):
    model = ZOO[name]()
    table, before = audit(model).set_index("group"), cost(model)
    for group in ChannelGraph(model).prunable:
        after = cost(cut(model, [group]))
        assert table.parameters[group.name] == before["parameters"] - after["parameters"]
        assert table.multiply_adds[group.name] == before["multiply_adds"] - after["multiply_adds"]


def test_any_choice_of_channels_is_counted_exactly():
    model = ZOO["residual"]()
    masked = tfprune.wrap(model)
    masks = tfprune.compute_masks(masked, 0.4, criterion="random", seed=0)
    tfprune.set_masks(masked, masks)
    graph = ChannelGraph(model)
    keep = np.ones(graph.num_units, bool)
    for name, mask in masks.items():
        keep[graph.made(name)] &= mask
    counted, after = Ledger(graph), cost(tfprune.shrink(masked))
    assert counted.parameters(counted.counts(keep)) == after["parameters"]
    assert counted.multiply_adds(counted.counts(keep)) == after["multiply_adds"]


def test_multiply_adds_are_none_where_the_image_size_is_not_known(capsys):
    table = tfprune.inspect(ZOO["any_size"]())
    assert table.attrs["multiply_adds"] is None
    assert table.attrs["smallest_multiply_adds"] is None
    assert set(table.multiply_adds) | set(table.multiply_adds_share) == {None}
    assert (table.parameters[table.prunable] > 0).all()
    assert "unknown multiply-adds" in capsys.readouterr().out


def test_rows_say_what_is_coupled_and_in_which_order_it_flows():
    table = audit(ZOO["residual"]())
    assert table.group.tolist() == ["stem", "inner_0", "inner_1", "logits"]
    assert table.layers[0][:3] == ["stem", "outer_0", "outer_1"]
    assert table.channels.tolist() == [8, 6, 6, 3]
    assert set(table.kind) == {"channels"}
    assert not table.approximate.any()


@pytest.mark.parametrize(
    ("model", "group", "pinned_by", "reason"),
    [
        ("mlp_relu", "logits", "model", "output of the model"),
        ("unknown_layer", "stuck", "norm", "normalisation mixes the channels"),
        ("softmax_in_the_middle", "attention", "attention", "softmax mixes the channels"),
        ("softmax_in_the_middle", "odds", "softmax", "softmax mixes the channels"),
        ("mlp_relu", "first", "", "^$"),
    ],
)
def test_pinned_groups_name_the_layer_that_pins_them(model, group, pinned_by, reason):
    keras.utils.clear_session()  # layers that are not named start counting anew
    row = audit(ZOO[model]()).set_index("group").loc[group]
    assert row.pinned_by == pinned_by
    assert re.search(reason, row.reason)


def test_printed_table_is_readable_on_a_hundred_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    tfprune.inspect(ZOO["residual"]())
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert "outer_0, outer_1 … +3" in printed, "long lists of layers are cut short"
    assert "1,827  85.4 %" in printed
    assert printed.index("inner_1") < printed.index("it is an output of the model"), "what is pinned comes last"
    assert "2,139 parameters, 124,440 multiply-adds per example, 8,556 bytes" in printed
    assert "99.85 % of the parameters belong to channels that can be pruned" in printed
    assert "Smallest reachable: 92 parameters (4.30 %), 4,035 multiply-adds (3.24 %)" in printed


def test_layer_names_are_printed_as_they_are(capsys):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(5, name="[red]:v:"), layers.Dense(2)])
    tfprune.inspect(model)
    assert "[red]:v:" in capsys.readouterr().out


def test_inspect_can_be_silent(capsys):
    audit(ZOO["mlp_relu"]())
    assert capsys.readouterr().out == ""


def test_audit_of_resnet50_takes_less_than_a_second_beyond_its_graph():
    model, times = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3)), []
    for read in (ChannelGraph, audit):
        start = time.perf_counter()
        read(model)
        times.append(time.perf_counter() - start)
    assert times[1] - times[0] < 1
