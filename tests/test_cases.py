"""Does each of the 32 ways in which structured pruning goes wrong go right here: pruned exactly, or frozen and why?

One or more tests a case, numbered. `cases.prune` holds each model to the contracts (wrap keeps the outputs, the small
model computes what the masked one does, output shapes stay, the original is untouched); the tests add what must be
pruned, what must be frozen, and why.
"""

import cases
import keras
import numpy as np
import pytest
import zoo
from cases import array, assert_exact_or_frozen, assert_frozen, batch_of, prune, reasons
from keras import layers, ops

import tfprune
from tfprune.structure.groups import ChannelGraph

MIXES = "mixes|normali[sz]|statistics"


def rows_of(kept, channels, positions):
    """Rows of a dense kernel that read the kept channels after channels-last flattening."""
    return [position * channels + channel for position in range(positions) for channel in kept]


def blocks_of(kept, units, gates):
    """Columns of a recurrent kernel that belong to the kept units."""
    return [gate * units + unit for gate in range(gates) for unit in kept]


# --- 1, 2: flatten and reshape ----------------------------------------------------------------------------------------


def test_case_01_flatten_channels_last_keeps_rows_c_and_every_C_further():
    result = prune(cases.flatten())
    assert result.sizes("conv", "dense") == [3, 2]
    before, after = result.weight("dense", "kernel")
    rows = rows_of(result.kept("conv"), 6, 16)
    np.testing.assert_array_equal(after, before[rows][:, result.kept("dense")])
    assert len(rows) == 48


def test_case_01_flatten_channels_first_keeps_the_same_rows():
    result = prune(cases.flatten_channels_first())
    assert result.sizes("conv", "dense") == [3, 2]
    before, after = result.weight("dense", "kernel")
    np.testing.assert_array_equal(after, before[rows_of(result.kept("conv"), 6, 9)][:, result.kept("dense")])
    before, after = result.weight("batchnorm", "moving_variance")
    np.testing.assert_array_equal(after, before[result.kept("conv")])


@pytest.mark.parametrize("name", cases.SHAPES)
def test_case_02_constants_in_reshape_are_rewritten(name):
    result = prune(cases.through_shapes(*cases.SHAPES[name]))
    assert result.sizes("conv", "dense") == [3, 2]


@pytest.mark.parametrize("samples", [1, 5])
def test_case_02_batch_axis_of_reshape_never_absorbs_what_was_pruned(samples):
    small = prune(cases.through_shapes(*cases.SHAPES["ops_flatten"])).small
    assert small(batch_of(small, samples)).shape == (samples, 2)
    assert small.output_shape == (None, 2)


@pytest.mark.parametrize("name", cases.CUT_SHAPES)
def test_case_02_reshape_that_cuts_through_channels_ties_or_freezes_them(name):
    assert_exact_or_frozen(cases.through_shapes(*cases.CUT_SHAPES[name]), "conv", "reshape|axis|tied")


# --- 3, 4, 5: depthwise, separable and grouped convolutions -----------------------------------------------------------


@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_case_03_depth_multiplier_ties_the_outputs_of_one_input(multiplier):
    result = prune(cases.depthwise(multiplier))
    assert result.sizes("conv", "after") == [3, 2]
    kept = result.kept("conv")
    before, after = result.weight("depthwise", "kernel")
    np.testing.assert_array_equal(after, before[:, :, kept])
    before, after = result.weight("depthwise", "bias")
    np.testing.assert_array_equal(after, before.reshape(6, multiplier)[kept].ravel())


def test_case_03_depthwise_convolution_in_one_dimension():
    result = prune(cases.depthwise_one_dimensional())
    assert result.sizes("conv") == [3]
    assert result.small.get_layer("depthwise").kernel.shape == (3, 3, 3)


def test_case_03_depthwise_convolution_of_the_input_stays_whole():
    result = prune(cases.depthwise_on_the_input())
    assert result.sizes("free") == [3]
    assert result.small.get_layer("depthwise").bias.shape == (8,)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_case_04_separable_convolution_loses_inputs_in_both_kernels(multiplier):
    result = prune(cases.separable(multiplier))
    assert result.sizes("conv", "separable") == [3, 4]
    separable = result.small.get_layer("separable")
    assert separable.depthwise_kernel.shape == (3, 3, 3, multiplier)
    assert separable.pointwise_kernel.shape == (1, 1, 3 * multiplier, 4)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
def test_case_05_grouped_convolution_keeps_equally_many_in_each_group(ratio):
    result = prune(cases.grouped(groups=2), ratio)
    small = result.small.get_layer("grouped")
    assert small.groups == 2
    for name in ("before", "grouped"):
        counts = result.masks[name].reshape(2, -1).sum(axis=1)
        assert counts[0] == counts[1]
        assert 0 < counts.sum() < result.masks[name].size
    assert small.kernel.shape == (3, 3, result.masks["before"].sum() // 2, result.masks["grouped"].sum())


@pytest.mark.parametrize("filters", [6, 12])
def test_case_05_convolution_in_as_many_groups_as_channels_is_depthwise(filters):
    result = prune(cases.grouped(groups=6, before=6, filters=filters))
    small = result.small.get_layer("grouped")
    assert small.kernel.shape[-2:] == (3, filters // 6)  # of a DepthwiseConv2D
    before, after = result.weight("grouped", "kernel")
    kept = np.repeat(result.masks["before"], filters // 6)
    np.testing.assert_array_equal(after.reshape(3, 3, 1, -1), before[..., kept])


def test_case_05_blocks_of_resnext_are_pruned():
    result = prune(cases.resnext_block())
    assert result.sizes("stem", "grouped_0", "expand_1") == [4, 4, 4]
    assert result.small.get_layer("grouped_0").groups == 4


# --- 6, 7: what mixes channels ----------------------------------------------------------------------------------------

MIXING = {
    "group_norm": lambda: layers.GroupNormalization(2, name="norm"),
    "group_norm_of_one_group": lambda: layers.GroupNormalization(1, name="norm"),
    "layer_norm": lambda: layers.LayerNormalization(name="norm"),
    "layer_norm_on_all_axes": lambda: layers.LayerNormalization(axis=(1, 2, 3), name="norm"),
    "rms_norm": lambda: layers.RMSNormalization(name="norm"),
}


def mixed(name):
    if name == "rms_norm" and not hasattr(layers, "RMSNormalization"):
        pytest.skip("this Keras has no RMSNormalization")
    return cases.mixed_by(MIXING[name]())


@pytest.mark.parametrize("name", [name for name in MIXING if "group" in name])
def test_case_06_channels_that_a_group_normalisation_mixes_are_frozen(name):
    assert assert_frozen(mixed(name), "conv", MIXES).sizes("conv", "free") == [8, 3]


def test_case_06_group_normalisation_approximately_keeps_groups_that_divide():
    model = mixed("group_norm")
    result = prune(model, exact=False, approximate=True)
    channels, groups = result.sizes("conv")[0], result.small.get_layer("norm").groups
    assert channels == 4
    assert channels % groups == 0
    assert np.isfinite(np.asarray(result.small(batch_of(model)))).all()


@pytest.mark.parametrize("groups", [8, -1])
def test_case_06_instance_normalisation_mixes_nothing_and_is_exact(groups):
    result = prune(cases.mixed_by(layers.GroupNormalization(groups, name="norm")))
    assert result.sizes("conv") == [4]
    before, after = result.weight("norm", "gamma")
    np.testing.assert_array_equal(after, before[result.kept("conv")])


@pytest.mark.parametrize("name", [name for name in MIXING if "group" not in name])
def test_case_07_channels_that_a_normalisation_mixes_are_frozen(name):
    assert assert_frozen(mixed(name), "conv", MIXES).sizes("conv", "free") == [8, 3]


@pytest.mark.parametrize("name", [*MIXING])
def test_case_07_approximate_prunes_what_a_normalisation_mixes_and_says_so(name):
    model = mixed(name)
    group = {group.name: group for group in ChannelGraph(model, approximate=True).groups}
    assert not group["conv"].reason
    assert group["conv"].approximate
    assert not group["free"].approximate
    result = prune(model, exact=False, approximate=True)
    assert result.sizes("conv", "free") == [4, 3]
    assert result.small.get_layer("norm").weights[0].shape[-1] == 4
    assert np.isfinite(np.asarray(result.small(batch_of(model)))).all()


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.LayerNormalization(axis=(1, 2), name="norm"),
        lambda: layers.UnitNormalization(axis=1, name="norm"),
        lambda: layers.Softmax(axis=(1, 2), name="norm"),
    ],
    ids=["layer_norm", "unit_norm", "softmax"],
)
def test_case_07_normalisation_over_space_mixes_no_channels_and_is_exact(layer):
    assert prune(cases.mixed_by(layer())).sizes("conv", "free") == [4, 3]


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.UnitNormalization(name="norm"),
        lambda: layers.Softmax(name="norm"),
        lambda: layers.Activation("softmax", name="norm"),
        lambda: lambda x: x - ops.mean(x, axis=-1, keepdims=True),
        lambda: lambda x: ops.mean(x, axis=-1, keepdims=True),
    ],
    ids=["unit_norm", "softmax", "softmax_activation", "minus_mean_of_channels", "mean_of_channels"],
)
def test_case_07_unit_norm_softmax_and_mean_over_channels_freeze_them(layer):
    assert assert_frozen(cases.mixed_by(layer()), "conv", MIXES + "|mean|unknown").sizes("conv", "free") == [8, 3]


# --- 8, 9: constants of dead channels, and BatchNormalization on the stream -------------------------------------------

AT_ZERO = {
    "sigmoid": 0.5, "hard_sigmoid": 0.5, "softplus": 0.693, "exponential": 1.0, "log_sigmoid": -0.693,
    "squareplus": 1.0, "sparse_plus": 0.25, "relu": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("activation", [name for name in AT_ZERO if hasattr(keras.activations, name)])
def test_case_08_constants_that_dead_channels_emit_do_not_matter_up_to_the_border(activation):
    assert float(getattr(keras.activations, activation)(0.0)) == pytest.approx(AT_ZERO[activation], abs=1e-3)
    assert prune(cases.constant_when_dead(activation)).sizes("first", "second", "third") == [4, 3, 2]


def test_case_09_batchnorm_on_the_stream_goes_with_every_writer():
    result = prune(cases.batchnorm_on_the_stream())
    assert result.sizes("stem", "outer_0", "outer_1", "inner_0") == [4, 4, 4, 3]
    for name in ("outer_0", "outer_1"):
        np.testing.assert_array_equal(result.masks["stem"], result.masks[name])
    for name in ("stream_norm_0", "stream_norm_1", "last_norm"):
        before, after = result.weight(name, "beta")
        np.testing.assert_array_equal(after, before[result.kept("stem")])


def test_case_09_each_layer_of_a_stream_counts_once_for_importance():
    group = next(group for group in ChannelGraph(cases.batchnorm_on_the_stream()).groups if group.name == "stem")
    assert len(set(group.layers)) == len(group.layers)
    assert set(group.layers) == {"stem", "outer_0", "outer_1", "stream_norm_0", "stream_norm_1", "last_norm"}


# --- 10, 11, 12: joins ------------------------------------------------------------------------------------------------


def test_case_10_add_of_three_ties_all_of_them():
    result = prune(cases.add_of_three())
    assert result.sizes("branch_0", "branch_1", "branch_2") == [4, 4, 4]
    assert len({result.masks[f"branch_{index}"].tobytes() for index in range(3)}) == 1


def test_case_10_one_channel_spread_over_many_ties_nothing():
    result = prune(cases.add_of_one_channel())
    assert result.sizes("wide", "single") == [4, 1]


def test_case_10_one_position_spread_over_space_ties_channels():
    result = prune(cases.add_of_one_position())
    assert result.sizes("wide", "other") == [4, 4]
    np.testing.assert_array_equal(result.masks["wide"], result.masks["other"])


def test_case_10_what_is_added_to_the_input_is_frozen():
    result = assert_frozen(cases.add_of_the_input(), "writes_to_the_input", "input of the model")
    assert result.sizes("free") == [3]


def test_case_11_concat_of_a_tensor_with_itself_loses_both_copies():
    result = prune(cases.concat_of_the_same())
    kept = result.kept("conv")
    before, after = result.weight("batchnorm", "moving_mean")
    np.testing.assert_array_equal(after, before[[*kept, *(kept + 6)]])
    assert result.sizes("conv", "after") == [3, 2]


def test_case_11_dense_skips_lose_a_channel_at_every_reader():
    result = prune(cases.dense_skips())
    assert result.sizes("stem", "grow_0", "grow_1", "grow_2") == [3, 2, 2, 2]
    order = np.concatenate([result.masks[name] for name in ("stem", "grow_0", "grow_1", "grow_2")])
    before, after = result.weight("last_norm", "gamma")
    np.testing.assert_array_equal(after, before[order])


def test_case_11_skips_of_a_u_net():
    assert prune(cases.u_net()).sizes("down_1", "down_2", "up", "after") == [3, 4, 3, 2]


@pytest.mark.parametrize("axis", [1, 2, -2])
def test_case_12_concat_in_space_makes_channels_equal(axis):
    result = prune(cases.concat_in_space(axis))
    assert result.sizes("top", "bottom", "after") == [3, 3, 2]
    np.testing.assert_array_equal(result.masks["top"], result.masks["bottom"])


# --- 13, 14, 15: gates, scales and normalised inputs ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["reshape", "dense", "expand_dims"])
def test_case_13_squeeze_and_excite_gate_follows_the_trunk(kind):
    result = prune(cases.squeeze_excite(kind))
    assert result.sizes("trunk", "squeeze", "excite") == [4, 2, 4]
    np.testing.assert_array_equal(result.masks["trunk"], result.masks["excite"])


def test_case_14_multiply_by_a_number_changes_nothing():
    assert prune(cases.multiplied_by(2.5)).sizes("conv", "free") == [4, 3]


def test_case_14_multiply_by_a_constant_of_each_channel_is_sliced_or_frozen():
    assert_exact_or_frozen(
        cases.multiplied_by(np.arange(1.0, 9.0, dtype="float32")), "conv", "constant|unknown|operand"
    )


def application(name, **options):
    model = getattr(keras.applications, name)(weights=None, classes=3, classifier_activation=None, **options)
    return zoo.randomise(model)


@pytest.mark.slow
def test_case_14_inner_layers_of_convnext_are_pruned_and_its_scaled_stream_is_frozen_by_its_norms():
    model = application("ConvNeXtTiny", input_shape=(32, 32, 3))
    masked = tfprune.wrap(model)
    masks = tfprune.compute_masks(masked, 0.5)
    tfprune.set_masks(masked, masks)
    small = tfprune.shrink(masked)
    assert zoo.difference(masked, small, batch_of(model, 2)) <= 1e-5
    inner = [layer for layer in small.layers if layer.name.endswith("pointwise_conv_1")]
    assert [layer.units for layer in inner] == [2 * c for c in (96,) * 3 + (192,) * 3 + (384,) * 9 + (768,) * 3]
    assert all(any("normali" in text for text in reasons(model, layer)) for layer in ("convnext_tiny_stem_conv",))


@pytest.mark.slow
def test_case_14_layer_scale_is_sliced_where_approximate_prunes_the_stream():
    model = application("ConvNeXtTiny", input_shape=(32, 32, 3))
    masked = tfprune.wrap(model, approximate=True)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    small = tfprune.shrink(masked)
    scales = [layer for layer in small.layers if type(layer).__name__ == "LayerScale"]
    assert [scale.gamma.shape[0] for scale in scales] == [48] * 3 + [96] * 3 + [192] * 9 + [384] * 3
    assert np.isfinite(np.asarray(small(batch_of(model, 2)))).all()


@pytest.mark.slow
def test_case_14_custom_scale_layer_of_inception_resnet_adds_two_streams():
    model = application("InceptionResNetV2", input_shape=(75, 75, 3))
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    small = tfprune.shrink(masked)
    assert zoo.difference(masked, small, batch_of(model, 2)) <= 1e-5
    assert small.get_layer("block35_1_conv").filters == 160
    assert [group.name for group in ChannelGraph(model).groups if group.reason] == ["predictions"]


def test_case_15_normalisation_and_rescaling_of_the_input_are_kept_with_their_statistics():
    model = cases.normalised_input()
    result = prune(model)
    assert result.sizes("conv") == [3]
    old, new = model.get_layer("normalization"), result.small.get_layer("normalization")
    for a, b in zip(old.weights, new.weights, strict=True):
        np.testing.assert_array_equal(array(a), array(b))
    assert len(old.weights) == 3, "mean, variance and count"


def test_case_15_statistics_in_the_middle_of_a_model_are_sliced_or_freeze_the_channels():
    assert_exact_or_frozen(cases.normalised_in_the_middle(), "conv", "statistics|normali")


# --- 16: what leaves channels alone -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.PASSIVE)
def test_case_16_layers_that_keep_channels_apart_change_nothing(name):
    assert prune(cases.passed_through(cases.PASSIVE[name]())).sizes("conv", "after") == [4, 2]


@pytest.mark.parametrize("name", cases.PROBABLY_PASSIVE)
def test_case_16_rarer_layers_over_space_are_exact_or_frozen(name):
    try:
        layer = cases.PROBABLY_PASSIVE[name]()
    except AttributeError:
        pytest.skip("this Keras has no such layer")
    assert_exact_or_frozen(cases.passed_through(layer), "conv", "unknown")


# --- 17, 18: recurrent layers -----------------------------------------------------------------------------------------

GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}


@pytest.mark.parametrize("kind", cases.RECURRENT)
def test_case_17_units_of_recurrent_layers_go_from_every_gate(kind):
    result = prune(cases.recurrent(kind))
    assert result.sizes("before", "first", "second") == [3, 4, 3]
    columns = blocks_of(result.kept("first"), 8, GATES[kind.split("_")[0]])
    before, after = (array(m.get_layer("first").cell.recurrent_kernel) for m in (result.model, result.small))
    np.testing.assert_array_equal(after, before[result.kept("first")][:, columns])
    before, after = (array(m.get_layer("first").cell.kernel) for m in (result.model, result.small))
    np.testing.assert_array_equal(after, before[result.kept("before")][:, columns])
    if "without_bias" not in kind:
        before, after = (array(m.get_layer("first").cell.bias) for m in (result.model, result.small))
        np.testing.assert_array_equal(after, before[..., columns])


@pytest.mark.parametrize("kind", ["GRU"])
def test_case_17_options_of_recurrent_layers_stay(kind):
    options = {"go_backwards": True, "dropout": 0.2, "recurrent_dropout": 0.1}
    result = prune(cases.recurrent(kind, **options))
    assert result.sizes("first", "second") == [4, 3]
    for key, value in options.items():
        assert result.small.get_layer("second").get_config()[key] == value


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_case_17_states_tie_encoder_and_decoder(kind):
    result = prune(cases.encoder_decoder(kind))
    assert result.sizes("encoder", "decoder", "each") == [4, 4, 3]
    np.testing.assert_array_equal(result.masks["encoder"], result.masks["decoder"])


def test_case_17_what_makes_an_initial_state_goes_with_the_units():
    result = prune(cases.bridged_states())
    assert result.sizes("hidden", "carry", "lstm") == [4, 4, 4]
    np.testing.assert_array_equal(result.masks["hidden"], result.masks["carry"])


@pytest.mark.parametrize(
    ("merge_mode", "kind"),
    [*((mode, "LSTM") for mode in ("concat", "sum", "mul", "ave", None)), ("concat", "GRU"), ("sum", "SimpleRNN")],
)
def test_case_17_bidirectional_prunes_both_directions(merge_mode, kind):
    result = prune(cases.bidirectional(merge_mode, kind))
    both = result.small.get_layer("both")
    assert both.forward_layer.units + both.backward_layer.units == 8
    if merge_mode in ("sum", "mul", "ave"):
        assert both.forward_layer.units == 4
    assert result.sizes("after") == [3]


def test_case_17_bidirectional_of_last_outputs():
    result = prune(cases.bidirectional("concat", sequences=False))
    assert result.small.get_layer("both").forward_layer.units < 8
    assert result.small.get_layer("after").kernel.shape == (8, 3)


def test_case_17_stateful_layers_carry_their_state_in_the_small_model():
    model = cases.stateful()
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    small = tfprune.shrink(masked)
    assert small.get_layer("free").units == 3
    assert small.get_layer("first").units == 4 or any("stateful" in text for text in reasons(model, "before"))
    batch, outputs = batch_of(model), {}
    for name, each in {"model": model, "masked": masked, "small": small}.items():
        for layer in each.layers:
            unwrapped = getattr(layer, "layer", layer)
            if hasattr(unwrapped, "reset_states"):
                unwrapped.reset_states()
        outputs[name] = [np.asarray(each(batch)) for _ in range(2)]
    for first, second in zip(outputs["masked"], outputs["small"], strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)
    assert not np.allclose(*outputs["small"]), "the state is carried to the second call"
    assert not np.allclose(outputs["model"][1], outputs["small"][1])


def test_case_17_masks_of_padded_sequences_reach_the_layers_behind():
    model = cases.padded_words()
    result = prune(model)
    assert result.sizes("embedding", "lstm", "gru") == [4, 3, 2]
    words = np.array([[1, 2, 3, 0, 0, 0], [4, 3, 0, 0, 0, 0]], "int32")
    assert zoo.difference(result.masked, result.small, words) <= 1e-5
    short = np.asarray(result.small(words[:1, :4]))
    np.testing.assert_allclose(short, np.asarray(result.small(words[:1])), atol=1e-6)


def test_case_18_convolutional_lstm_is_exact_or_frozen_by_name():
    result = assert_exact_or_frozen(cases.convolutional_lstm(), "before", "ConvLSTM2D")
    assert result.sizes("free") == [3]


@pytest.mark.parametrize(
    ("kind", "reason"), [("stacked", "StackedRNNCells|RNN"), ("own", "Averager|RNN"), ("plain", "RNN")]
)
def test_case_18_layers_of_cells_are_exact_or_frozen_by_name(kind, reason):
    result = assert_exact_or_frozen(cases.cells(kind), "before", reason)
    assert result.sizes("free") == [3]


# --- 19: attention ----------------------------------------------------------------------------------------------------


def shapes_of_attention(model, name="mha"):
    config = model.get_layer(name).get_config()
    return config["num_heads"], config["key_dim"], config["value_dim"]


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        ({"mha:head": 0.5}, (2, 6, 8)),
        ({"mha:qk": 0.5}, (4, 3, 8)),
        ({"mha:v": 0.25}, (4, 6, 6)),
        ({"mha:head": 0.25, "mha:qk": 0.5, "mha:v": 0.5}, (3, 3, 4)),
        ({"stem": 0.5}, (4, 6, 8)),
    ],
    ids=["head", "qk", "v", "all", "stream"],
)
def test_case_19_heads_and_their_dimensions_are_units_of_their_own(ratio, expected):
    result = prune(cases.attention(), ratio)
    assert shapes_of_attention(result.small) == expected
    assert result.sizes("stem") == [4 if "stem" in ratio else 8]


@pytest.mark.parametrize("options", [{}, {"use_bias": False}, {"residual": False}, {"causal": True}], ids=str)
def test_case_19_everything_in_attention_is_pruned_together(options):
    result = prune(cases.attention(**options))
    assert shapes_of_attention(result.small) == (2, 3, 4)
    assert result.sizes("stem", "after") == [4, 3]
    assert {"mha:head", "mha:qk", "mha:v", "mha"} <= set(result.masks)
    attention = result.small.get_layer("mha")
    shapes = {tuple(weight.shape) for weight in attention.weights if len(weight.shape) == 3}
    assert shapes == {(4, 2, 3), (4, 2, 4), (2, 4, 4)}
    if options.get("residual", True):
        np.testing.assert_array_equal(result.masks["stem"], result.masks["mha"])


@pytest.mark.skipif(keras.__version__.startswith("3.6."), reason="this Keras wants query and value equally wide")
def test_case_19_attention_of_two_sequences_under_a_mask():
    result = prune(cases.cross_attention())
    assert shapes_of_attention(result.small) == (2, 3, 4)
    assert result.sizes("query_stem", "memory_stem") == [4, 5]
    assert tuple(np.ravel(result.small.get_layer("mha").get_config()["output_shape"])) == (6,)


def test_case_19_heads_whose_scores_are_an_output_are_frozen():
    result = prune(cases.attention_with_scores())
    heads, key_dim, value_dim = shapes_of_attention(result.small)
    assert heads == 4
    assert value_dim <= 8
    assert key_dim <= 6


def test_case_19_attention_over_the_positions_of_an_image():
    result = prune(cases.attention_over_images())
    assert shapes_of_attention(result.small)[:2] == (1, 2)


@pytest.mark.skipif(not hasattr(layers, "GroupQueryAttention"), reason="this Keras has no GroupQueryAttention")
@pytest.mark.parametrize("causal", [False, True])
def test_case_19_grouped_query_attention_keeps_its_ratio_of_heads(causal):
    result = prune(cases.grouped_query_attention(causal))
    config = result.small.get_layer("gqa").get_config()
    assert config["num_query_heads"] % config["num_key_value_heads"] == 0
    assert config["num_query_heads"] * config["head_dim"] < 8 * 6
    assert result.sizes("stem") == [4]


@pytest.mark.parametrize("cls", [layers.Attention, layers.AdditiveAttention])
def test_case_19_attention_without_heads_is_exact_or_frozen_by_name(cls):
    assert_exact_or_frozen(cases.dot_attention(cls), "query", "Attention|mixes")


def test_case_19_einsum_dense_is_pruned_exactly_or_frozen_by_name():
    result = assert_exact_or_frozen(cases.einsum_dense(), "before", "EinsumDense")
    assert result.sizes("free") == [3]


# --- 20: embeddings ---------------------------------------------------------------------------------------------------


def test_case_20_embeddings_are_pruned_with_their_readers():
    result = prune(cases.embedding())
    assert result.sizes("embedding", "conv") == [4, 3]


@pytest.mark.skipif(not hasattr(layers, "ReversibleEmbedding"), reason="this Keras has no ReversibleEmbedding")
@pytest.mark.parametrize("tie_weights", [True, False])
def test_case_20_embedding_used_both_ways_follows_the_stream(tie_weights):
    result = prune(cases.language_model(tie_weights))
    assert result.sizes("embedding", "position", "mlp_out", "mlp_in") == [4, 4, 4, 3]
    assert result.small.output_shape == (None, 6, 5)
    if not tie_weights:
        assert result.small.get_layer("embedding").reverse_embeddings.shape == (4, 5)


# --- 21, 22: sharing --------------------------------------------------------------------------------------------------


def test_case_21_shared_tower_stays_shared():
    result = prune(cases.siamese())
    assert result.sizes("shared_1", "shared_2") == [4, 3]
    assert [layer.name for layer in result.small.layers].count("shared_1") == 1


def test_case_21_layer_that_reads_itself_ties_inputs_and_outputs():
    result = prune(cases.twice_in_a_row())
    assert result.sizes("twice", "first") == [4, 4]
    before, after = result.weight("twice", "kernel")
    np.testing.assert_array_equal(after, before[np.ix_(result.kept("first"), result.kept("twice"))])


def test_case_21_shared_batchnorm_ties_what_it_reads():
    result = prune(cases.shared_batchnorm())
    assert result.sizes("left", "right") == [4, 4]
    np.testing.assert_array_equal(result.masks["left"], result.masks["right"])


@pytest.mark.parametrize("build", [cases.same_kernel, cases.wrapped_and_plain], ids=lambda build: build.__name__)
def test_case_22_one_variable_in_two_layers_stays_one_or_is_refused(build):
    model = build()
    variables = len(model.trainable_variables)
    try:
        result = prune(model)
    except ValueError as error:
        assert "share" in str(error) or "same variable" in str(error)  # noqa: PT017 (either way is right)
        return
    assert len(result.masked.trainable_variables) == variables, "training would tear the two apart"
    assert len(result.small.trainable_variables) == variables


# --- 23, 24: nested models and several outputs ------------------------------------------------------------------------


def test_case_23_nested_models_are_pruned_inside():
    result = prune(cases.nested())
    assert result.sizes("stem", "block_inner", "block_outer", "in_sequence") == [4, 3, 4, 3]


def test_case_23_models_nested_twice():
    result = prune(cases.doubly_nested())
    assert result.sizes("stem", "middle_conv", "innermost_inner", "innermost_outer") == [4, 4, 3, 4]


def test_case_23_models_nested_and_used_twice():
    result = prune(cases.doubly_used())
    assert result.sizes("stem", "outer_conv", "inner_inner", "inner_outer") == [4, 4, 3, 4]


def test_case_24_outputs_keep_their_width_wherever_they_are_taken():
    result = assert_frozen(cases.several_outputs(), "shown", "output of the model")
    assert result.sizes("hidden") == [3]
    assert result.small.output["features"].shape == (None, 4, 4, 8)
    assert reasons(result.model, "logits")
    assert reasons(result.model, "other_logits")


# --- 25, 26, 27: what must be kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_shape", [None, (None, 1, None)], ids=str)
def test_case_25_dropout_over_places_changes_nothing(noise_shape):
    result = prune(cases.dropout(noise_shape))
    assert result.sizes("dense") == [4]
    assert result.small(batch_of(result.model), training=True).shape == (3, 2)


@pytest.mark.parametrize("noise_shape", [(None, 1, 8), (None, 5, 8), (None, 5, 1), (3, 5, 1)], ids=str)
def test_case_25_noise_shape_that_counts_channels_is_rewritten_or_freezes_them(noise_shape):
    result = assert_exact_or_frozen(cases.dropout(noise_shape), "dense", "noise_shape")
    assert result.small(batch_of(result.model), training=True).shape == (3, 2)


def test_case_26_regularizers_and_constraints_are_kept():
    result = prune(cases.regularised())
    assert result.sizes("dense", "before") == [4, 3]
    old, new = (m.get_layer("dense").get_config() for m in (result.model, result.small))
    for key in (
        "kernel_regularizer",
        "bias_regularizer",
        "activity_regularizer",
        "kernel_constraint",
        "bias_constraint",
    ):
        assert new[key] == old[key]
        assert new[key] is not None
    kernel = array(result.small.get_layer("dense").kernel)
    result.small(batch_of(result.model))
    penalty = 0.1 * np.abs(kernel).sum() + 0.2 * np.square(kernel).sum()
    assert any(np.isclose(float(loss), penalty, rtol=1e-4) for loss in result.small.losses)
    assert len(result.small.losses) == 3


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("build", [cases.plain_vector, cases.mixture], ids=lambda build: build.__name__)
def test_case_27_mixed_precision_is_kept(build, policy):
    keras.config.set_dtype_policy(policy)
    result = prune(build(), tolerance=0.1 if policy == "mixed_bfloat16" else 0.02)
    for layer in result.small.layers:
        if layer.weights:
            assert layer.dtype_policy.name == policy
            assert {weight.dtype for weight in layer.weights} == {"float32"}
    assert result.small.count_params() < 0.7 * result.model.count_params()


def test_case_27_layers_that_are_not_trained_stay_so():
    model = cases.plain_vector()
    model.get_layer("first").trainable = False
    result = prune(model)
    assert result.sizes("first", "second") == [4, 3]
    assert not result.small.get_layer("first").trainable
    assert not result.small.get_layer("first").trainable_variables
    assert result.small.get_layer("second").trainable


@pytest.mark.parametrize(
    ("change", "reason"),
    [(lambda layer: layer.enable_lora(2), "LoRA"), (lambda layer: layer.quantize("int8"), "quanti")],
    ids=["lora", "int8"],
)
def test_case_27_lora_and_quantised_kernels_are_refused_with_a_reason(change, reason):
    model = cases.vector_of_three()
    change(model.get_layer("special"))
    result = assert_frozen(model, "before", f"special.*{reason}", tolerance=1e-4)
    assert "special" not in result.masks
    assert result.sizes("before", "special", "free") == [8, 8, 3]


# --- 28: wrappers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_case_28_spectral_normalization_keeps_its_vector_in_step(kind):
    result = prune(cases.spectral(kind))
    assert result.sizes("spectral", "second") == [4, 3]
    before, after = result.weight("spectral", "vector_u")
    np.testing.assert_array_equal(after, before[:, result.kept("spectral")])
    assert np.isfinite(np.asarray(result.small(batch_of(result.model), training=True))).all()


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_case_28_time_distributed_layers_are_pruned_inside(kind):
    assert prune(cases.time_distributed(kind)).sizes("first", "second") == [4, 3]


def test_case_28_time_distributed_model_is_exact_or_frozen():
    assert prune(cases.time_distributed_model()).sizes("free") == [3]


# --- 29: operations that move channels --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.MOVES)
def test_case_29_operations_that_are_understood_are_pruned_through(name):
    result = prune(cases.moved(cases.MOVES[name]))
    assert result.sizes("conv", "free") == [4, 3]


@pytest.mark.parametrize("name", cases.OTHER_MOVES)
def test_case_29_other_operations_are_exact_or_frozen(name):
    result = assert_exact_or_frozen(cases.moved(cases.OTHER_MOVES[name]), "conv", r"\w+")
    assert result.sizes("free") == [3]


def test_case_29_shuffle_units_are_never_wrong():
    result = assert_exact_or_frozen(cases.shuffle_net(), "stem", "reshape|tied|axis|unknown")
    assert result.sizes("free") == [3]


@pytest.mark.filterwarnings("ignore:.*lambda")
def test_case_29_lambda_freezes_what_it_touches_and_says_how_to_free_it():
    model = cases.moved(layers.Lambda(lambda x: ops.roll(x, 1, axis=-1), name="unknown"))
    result = assert_frozen(model, "conv", r"Lambda.*roles\.register")
    assert result.sizes("free") == [3]


def test_case_29_an_index_that_adds_axes_carries_channels_along():
    image, text = keras.Input((6, 6, 2)), keras.Input((4,))
    scale, shift = (layers.Dense(8, name=name)(text)[:, None, None, :] for name in ("scale", "shift"))
    x = ops.relu(layers.Conv2D(8, 3, name="conv")(image) * scale + shift)
    model = keras.Model([image, text], layers.Dense(2)(layers.Flatten()(x[:, :, 1:, 2:])))
    assert prune(zoo.randomise(model)).sizes("conv", "scale", "shift") == [4, 4, 4]


@pytest.mark.parametrize(
    "product",
    [
        lambda x: layers.Attention()([x, x]),
        lambda x: layers.Dot(axes=(2, 2))([x, x]),
        lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
        lambda x: ops.einsum("bij,bkj->bik", x, x),
    ],
    ids=["attention", "dot", "matmul", "einsum"],
)
def test_case_29_products_of_tensors_freeze_what_they_multiply(product):
    inputs = keras.Input((5, 4))
    x = product(layers.Dense(6, name="multiplied")(inputs))
    model = zoo.randomise(keras.Model(inputs, layers.Dense(2)(layers.Dense(6, name="free")(x))))
    assert_frozen(model, "multiplied", "multiplies tensors with each other")
    assert prune(model).sizes("free") == [3]


def test_case_29_unknown_layer_freezes_what_it_touches_and_says_how_to_free_it():
    @keras.saving.register_keras_serializable("tfprune_tests")
    class Turn(keras.layers.Layer):
        def call(self, x):
            return x[..., ::-1]

    assert_frozen(cases.moved(Turn()), "conv", r"Turn.*roles\.register")


# --- 30: counts, ties and broken scores -------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [cases.plain_vector, cases.resnext_block, cases.flatten], ids=lambda b: b.__name__)
def test_case_30_nearly_everything_pruned_leaves_one_channel_of_each_layer(build):
    result = prune(build(), 0.99)
    for name, mask in result.masks.items():
        assert 1 <= mask.sum() < mask.size, name


def test_case_30_one_channel_is_left_of_plain_layers():
    assert prune(cases.plain_vector(), 0.99).sizes("first", "second") == [1, 1]


@pytest.mark.parametrize("ratio", [0.5, 0.9])
def test_case_30_a_layer_that_reads_one_part_of_a_split_is_left_a_channel(ratio):
    model = cases.split_with_a_weak_half()
    result = prune(model, ratio)
    assert all(result.small.get_layer(name).kernel.shape[2] >= 1 for name in ("reads_first", "reads_second"))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_case_30_among_tied_scores_the_first_channels_win(scope):
    model = cases.plain_vector()
    for weight in model.weights:
        weight.assign(ops.ones_like(weight))
    masked = tfprune.wrap(model)
    masks = [tfprune.compute_masks(masked, 0.5, scope=scope) for _ in range(2)]
    for name, mask in masks[0].items():
        np.testing.assert_array_equal(mask, masks[1][name])
        assert mask.tolist() == sorted(mask.tolist(), reverse=True), "kept channels come first"
    assert sum(int(mask.sum()) for mask in masks[0].values()) == 7


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_case_30_broken_weights_are_an_error(value, scope):
    model = cases.plain_vector()
    kernel = array(model.get_layer("second").kernel).copy()
    kernel[0, 2] = value
    model.get_layer("second").kernel.assign(kernel)
    masked = tfprune.wrap(model, verify=False)
    with pytest.raises(ValueError, match=r"(?i)second.*(nan|finite)|(nan|finite).*second"):
        tfprune.compute_masks(masked, 0.5, scope=scope)


@pytest.mark.parametrize(("ratio", "kept"), [(0.1, 9), (0.3, 7), (0.5, 5), (0.75, 2), (0.9, 1)])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_case_30_exactly_as_many_are_removed_as_asked(scope, ratio, kept):
    inputs = keras.Input((6,))
    model = cases.model_of(inputs, cases.head(layers.Dense(10, activation="relu", name="ten")(inputs)))
    masks = tfprune.compute_masks(tfprune.wrap(model), ratio, scope=scope)
    assert int(masks["ten"].sum()) == kept


# --- 31: the optimizer ------------------------------------------------------------------------------------------------


def test_case_31_optimizer_starts_afresh_with_its_settings():
    model = cases.plain_vector()
    rate = keras.optimizers.schedules.ExponentialDecay(0.003, 10, 0.5)
    model.compile(keras.optimizers.Adam(rate, beta_1=0.8), "mse", metrics=["mae"])
    x, y = np.random.default_rng(0).normal(size=(8, 6)), np.zeros((8, 2))
    model.fit(x, y, epochs=2, batch_size=4, verbose=0)
    masked = tfprune.wrap(model)
    masked.fit(x, y, batch_size=4, verbose=0)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    small = tfprune.shrink(masked)
    assert [int(m.optimizer.iterations) for m in (model, masked, small)] == [4, 2, 0]
    assert small.optimizer is not masked.optimizer
    assert small.optimizer.get_config() == model.optimizer.get_config()
    small.fit(x, y, epochs=2, batch_size=4, verbose=0)
    assert int(small.optimizer.iterations) == 4
    slots = {tuple(v.shape) for v in small.optimizer.variables if len(v.shape) == 2}
    assert slots == {tuple(v.shape) for v in small.trainable_variables if len(v.shape) == 2}
    assert set(small.evaluate(x, y, verbose=0, return_dict=True)) == {"loss", "mae"}


# --- 32: weights with space and channels ------------------------------------------------------------------------------


@pytest.mark.parametrize("shared_axes", [None, [1, 2], [1], [3], [1, 2, 3]], ids=str)
def test_case_32_prelu_slopes_are_sliced_on_the_axis_of_channels(shared_axes):
    result = prune(cases.prelu(shared_axes))
    assert result.sizes("conv", "after") == [4, 2]
    before, after = result.weight("prelu", "alpha")
    kept = result.kept("conv") if 3 not in (shared_axes or []) else [0]
    np.testing.assert_array_equal(after, before[:, :, kept])


def test_case_32_layer_normalisation_on_several_axes_is_sliced_on_the_last():
    model = cases.mixed_by(layers.LayerNormalization(axis=(1, 2, 3), name="norm"))
    result = prune(model, exact=False, approximate=True)
    before, after = result.weight("norm", "gamma")
    assert before.shape == (4, 4, 8)
    np.testing.assert_array_equal(after, before[:, :, result.kept("conv")])


def test_case_32_batchnorm_over_positions_keeps_its_weights():
    result = assert_exact_or_frozen(cases.batchnorm_over_positions(), "dense", "axis")
    assert result.small.get_layer("batchnorm").gamma.shape == (5,)
    assert result.sizes("free") == [3]
