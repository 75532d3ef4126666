"""Are the right channels chosen, counted exactly, and is bad input refused?"""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from zoo import ZOO, difference, inputs_of, randomise

import tfprune
from tfprune.pruning import criteria, surgery
from tfprune.pruning.masks import describe, graph_of


def masked_mlp(hidden=4, name="hidden"):
    """2-hidden-2 whose hidden unit i has incoming weights of L1 norm i + 1."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(hidden, name=name), layers.Dense(2, name="out")])
    sizes = np.arange(1, hidden + 1, dtype="float32")
    model.get_layer(name).set_weights([np.stack([sizes, np.zeros(hidden)]), np.zeros(hidden)])
    return tfprune.wrap(model)


def counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


def test_channels_with_the_smallest_l1_norm_go():
    masks = tfprune.compute_masks(masked_mlp(), 0.5)
    assert {name: mask.tolist() for name, mask in masks.items()} == {"hidden": [False, False, True, True]}
    assert masks["hidden"].dtype == bool


@pytest.mark.parametrize(
    ("channels", "ratio", "kept"),
    [
        (10, 0.0, 10),
        (10, 0.3, 7),
        (10, 0.35, 6),
        (10, 0.7, 3),
        (100, 0.29, 71),
        (30, 0.9, 3),
        (3, 0.99, 1),
        (84, 0.2, 67),
    ],
)
def test_number_kept_is_the_nearest_and_never_zero(channels, ratio, kept):
    assert counts(tfprune.compute_masks(masked_mlp(channels), ratio)) == {"hidden": kept}


def test_ties_go_to_the_channel_that_comes_first():
    masked = masked_mlp()
    masked.get_layer("hidden").layer.set_weights([np.ones((2, 4)), np.zeros(4)])
    assert tfprune.compute_masks(masked, 0.5)["hidden"].tolist() == [True, True, False, False]


def test_scores_of_a_layer_leave_out_inputs_that_were_just_pruned():
    model = keras.Sequential(
        [keras.Input((1,)), layers.Dense(2, name="a"), layers.Dense(2, name="b"), layers.Dense(1, name="out")]
    )
    model.get_layer("a").set_weights([np.array([[1.0, 5.0]]), np.zeros(2)])
    # unit 0 of b has the larger norm, but it reads almost only channel 0 of a, which goes
    model.get_layer("b").set_weights([np.array([[9.0, 1.0], [1.0, 2.0]]), np.zeros(2)])
    masks = tfprune.compute_masks(tfprune.wrap(model), 0.5)
    assert masks["a"].tolist() == [False, True]
    assert masks["b"].tolist() == [False, True]


def test_pruned_stays_pruned_and_ratio_counts_from_the_dense_model():
    masked = masked_mlp(10)
    tfprune.set_masks(masked, {"hidden": np.arange(10) < 6})  # the largest four are gone
    half = tfprune.compute_masks(masked, 0.5)["hidden"]
    assert half.tolist() == [False, True, True, True, True, True, False, False, False, False]
    assert counts(tfprune.compute_masks(masked, 0.2)) == {"hidden": 6}


def test_global_scope_ranks_all_layers_together():
    model = keras.Sequential(
        [keras.Input((1,)), layers.Dense(4, name="a"), layers.Dense(4, name="b"), layers.Dense(1, name="out")]
    )
    model.get_layer("a").set_weights([np.array([[1.0, 1.0, 1.0, 1.0]]), np.zeros(4)])
    model.get_layer("b").set_weights([np.diag([0.1, 0.1, 0.1, 40.0]), np.zeros(4)])
    masks = tfprune.compute_masks(tfprune.wrap(model), 3 / 8, scope="global")
    assert counts(masks) == {"a": 4, "b": 1}
    # equal scores in a are 1 after dividing by their mean, whatever their size
    model.get_layer("a").set_weights([np.full((1, 4), 1e-6), np.zeros(4)])
    assert counts(tfprune.compute_masks(tfprune.wrap(model), 3 / 8, scope="global")) == {"a": 4, "b": 1}


def test_global_scope_keeps_a_channel_of_each_layer():
    masked = tfprune.wrap(randomise(ZOO["residual"]()))
    assert all(tfprune.compute_masks(masked, 0.98, scope="global")[name].any() for name in tfprune.get_masks(masked))


def test_tied_layers_get_the_same_mask():
    masks = tfprune.compute_masks(tfprune.wrap(randomise(ZOO["residual"]())), 0.5)
    np.testing.assert_array_equal(masks["stem"], masks["outer_0"])
    np.testing.assert_array_equal(masks["stem"], masks["outer_1"])


def test_ignore_only_and_ratios_by_name():
    masked = tfprune.wrap(randomise(ZOO["mlp_relu"]()))
    assert counts(tfprune.compute_masks(masked, 0.5, ignore=["first"])) == {"first": 16, "second": 6}
    assert counts(tfprune.compute_masks(masked, 0.5, only=["first"])) == {"first": 8, "second": 12}
    assert counts(tfprune.compute_masks(masked, {"first": 0.25, "second": 0.75})) == {"first": 12, "second": 3}
    assert counts(tfprune.compute_masks(masked, {"second": 0.75})) == {"first": 16, "second": 3}


def test_ignoring_a_member_spares_its_group():
    masked = tfprune.wrap(randomise(ZOO["depthwise"]()))
    assert counts(tfprune.compute_masks(masked, 0.5, ignore=["depthwise"]))["expand"] == 8


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_round_to_rounds_the_kept_channels_up(scope):
    masks = tfprune.compute_masks(tfprune.wrap(randomise(ZOO["residual"]())), 0.6, round_to=4, scope=scope)
    assert all(mask.sum() % 4 == 0 or mask.all() for mask in masks.values())


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_round_to_counts_channels_where_several_go_at_once(scope):
    """Of a convolution in 8 groups 8 channels go at once, one of each: 16 of 32 are a multiple of 16 already."""
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(32, 3, groups=8, name="grouped")(keras.layers.Conv2D(32, 3, name="first")(inputs))
    masked = tfprune.wrap(keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))))
    kept = [counts(tfprune.compute_masks(masked, 0.5, round_to=n, scope=scope))["grouped"] for n in (1, 4, 8, 16, 12)]
    assert all(count % n == 0 for count, n in zip(kept, (1, 4, 8, 16, 12), strict=True))
    assert max(kept) < 32


def test_masks_can_be_set_and_taken_back():
    model = randomise(ZOO["mlp_sigmoid"]())
    masked, inputs = tfprune.wrap(model), inputs_of(model)
    tfprune.set_masks(masked, {"first": np.arange(16) % 2 == 0})
    assert tfprune.get_masks(masked)["first"].tolist() == [True, False] * 8
    assert difference(model, masked, inputs) > 1e-3
    tfprune.set_masks(masked, {"first": np.ones(16, bool)})
    assert difference(model, masked, inputs) <= 1e-6


def test_masks_of_one_tied_layer_are_followed_by_the_others():
    masked = tfprune.wrap(ZOO["residual"]())
    tfprune.set_masks(masked, {"outer_1": np.arange(8) < 3})
    assert tfprune.get_masks(masked)["stem"].tolist() == [True] * 3 + [False] * 5


# Criteria -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["l1", "l2", "batchnorm_scale"])
@pytest.mark.parametrize("name", ["residual", "depthwise", "concatenated", "shared_layer"])
def test_zeroed_channel_scores_lowest(criterion, name):
    graph = graph_of(tfprune.wrap(randomise(ZOO[name]())))
    everything = np.ones(graph.num_units, bool)
    zeroed = everything.copy()
    zeroed[[group.units[2] for group in graph.prunable]] = False
    for variable, kept in surgery.kept_entries(graph, zeroed).values():
        variable.assign(keras.ops.convert_to_numpy(variable) * kept)
    seen = [describe(graph, group, everything) for group in graph.prunable]
    seen = [group for group in seen if criterion != "batchnorm_scale" or group.scales]
    assert seen or name == "shared_layer"
    for group in seen:
        scores = criteria.score(criteria.get(criterion), group)
        assert np.argmin(scores) == 2
        assert scores[2] == 0


def test_norms_are_what_numpy_says():
    group = criteria.ChannelGroup("g", ("g",), 2, [np.array([[3.0, -4.0], [1.0, 0.0]])], [np.array([-2.0, 0.5])])
    assert criteria.l1(group).tolist() == [7.0, 1.0]
    assert criteria.l2(group).tolist() == [5.0, 1.0]
    assert criteria.batchnorm_scale(group).tolist() == [2.0, 0.5]


def test_random_is_seeded_and_differs_between_groups():
    def scores(name, seed):
        return criteria.Random(seed)(criteria.ChannelGroup(name, (name,), 5, [], [])).tolist()

    assert scores("a", 1) == scores("a", 1)
    assert scores("a", 1) != scores("b", 1)
    assert scores("a", 1) != scores("a", 2)


def test_own_criterion_is_used():
    masks = tfprune.compute_masks(masked_mlp(), 0.5, criterion=lambda group: -group.incoming[0].sum(axis=1))
    assert masks["hidden"].tolist() == [True, True, False, False]


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"ratio": 80},
            ValueError,
            r"ratio must be in \[0, 1\). Received: ratio=80. For 80 % of the channels pass ratio=0.8",
        ),
        ({"ratio": 1.0}, ValueError, r"ratio must be in \[0, 1\). Received: ratio=1"),
        ({"ratio": -0.1}, ValueError, r"ratio must be in \[0, 1\)"),
        ({"ratio": float("nan")}, ValueError, r"ratio must be in \[0, 1\)"),
        ({"ratio": "half"}, TypeError, "ratio must be a number"),
        ({"ratio": {"hidden": 1.5}}, ValueError, r"ratio must be in \[0, 1\)"),
        ({"ratio": {"hiden": 0.5}}, ValueError, "Unknown layer name 'hiden' in ratio. Did you mean 'hidden'?"),
        ({"ratio": 0.5, "criterion": "l3"}, ValueError, "Unknown criterion 'l3'. Expected one of 'l1', 'l2'"),
        ({"ratio": 0.5, "criterion": "batchnorm_scale"}, ValueError, "needs a BatchNormalization.*'hidden' without"),
        ({"ratio": 0.5, "criterion": lambda group: [1.0]}, ValueError, r"one score a channel: shape \(4,\)"),
        (
            {"ratio": 0.5, "criterion": lambda group: [np.nan] * 4},
            ValueError,
            "4 scores of group 'hidden' that are not",
        ),
        ({"ratio": 0.5, "scope": "model"}, ValueError, "Unknown scope 'model'. Expected 'layer' or 'global'"),
        ({"ratio": {"hidden": 0.5}, "scope": "global"}, ValueError, "one ratio for all layers"),
        ({"ratio": 0.5, "ignore": ["nobody"]}, ValueError, "Unknown layer name 'nobody' in ignore"),
        ({"ratio": 0.5, "ignore": "hidden"}, TypeError, r"ignore must be a list.*Pass \['hidden'\]"),
        ({"ratio": 0.5, "only": ["out"]}, ValueError, "'out' in only cannot be pruned: it is an output"),
        ({"ratio": 0.5, "ignore": ["hidden"]}, ValueError, "Nothing is left to prune"),
        ({"ratio": 0.5, "round_to": 0}, ValueError, "round_to must be a positive integer"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        tfprune.compute_masks(masked_mlp(), **arguments)


def test_all_layers_without_a_scale_are_named_at_once_with_what_to_pass():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            *[layers.Dense(4, name=name) for name in "abc"],
            layers.BatchNormalization(name="norm"),
            layers.Dense(2, name="out"),
        ]
    )
    masked = tfprune.wrap(model)
    partial = functools.partial(criteria.batchnorm_scale, members="max")
    for criterion in ("batchnorm_scale", partial):
        with pytest.raises(ValueError, match=r"Received: 'a', 'b' without one\. .* ignore=\['a', 'b'\]"):
            tfprune.compute_masks(masked, 0.5, criterion)
    # what to pass leaves out what was left out before
    with pytest.raises(ValueError, match=r"Received: 'b' without one\. .* ignore=\['a', 'b'\]"):
        tfprune.compute_masks(masked, 0.5, "batchnorm_scale", ignore=["a"])
    # nothing would be left to prune
    with pytest.raises(ValueError, match=r"Received: 'a', 'b' without one\. Use criterion='l1'"):
        tfprune.compute_masks(masked, 0.5, "batchnorm_scale", only=["a", "b"])
    assert tfprune.compute_masks(masked, 0.5, "batchnorm_scale", ignore=["a", "b"])["c"].sum() == 2


def test_tied_layers_with_different_ratios_are_refused():
    masked = tfprune.wrap(ZOO["residual"]())
    with pytest.raises(ValueError, match="'stem' and 'outer_0' share channels, but got different ratios"):
        tfprune.compute_masks(masked, {"stem": 0.5, "outer_0": 0.25})


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"hiden": np.ones(4, bool)}, "Unknown layer name 'hiden' in masks. Did you mean 'hidden'?"),
        ({"out": np.ones(2, bool)}, "'out' in masks has no mask"),
        ({"hidden": np.ones(3, bool)}, r"must have shape \(4,\). Received: shape \(3,\)"),
        ({"hidden": np.zeros(4, bool)}, "At least one channel of layer 'hidden' must be kept"),
        ({"hidden": np.array([0.5, 1, 1, 1])}, "must hold True"),
    ],
)
def test_bad_masks_are_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        tfprune.set_masks(masked_mlp(), masks)


def test_tied_masks_that_disagree_are_refused_and_nothing_changes():
    masked = tfprune.wrap(ZOO["residual"]())
    with pytest.raises(ValueError, match="'stem' and 'outer_0' share channels, but their masks disagree"):
        tfprune.set_masks(masked, {"stem": np.arange(8) < 3, "outer_0": np.arange(8) < 4})
    assert all(mask.all() for mask in tfprune.get_masks(masked).values())


@pytest.mark.parametrize("function", ["shrink", "get_masks", "compute_masks", "set_masks"])
def test_model_without_masks_is_refused(function):
    arguments = {"compute_masks": [0.5], "set_masks": [{}]}.get(function, [])
    with pytest.raises(ValueError, match=r"without ChannelMask layers. Call tfprune.wrap\(model\) first"):
        getattr(tfprune, function)(ZOO["mlp_relu"](), *arguments)


def test_model_with_masks_is_not_wrapped_again():
    with pytest.raises(ValueError, match="has masks already"):
        tfprune.wrap(masked_mlp())


def test_model_where_nothing_can_be_pruned_is_refused_with_reasons():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="only")])
    with pytest.raises(ValueError, match=r"no channel that can be pruned.*\n  only: it is an output of the model"):
        tfprune.wrap(model)


@pytest.mark.parametrize("function", ["wrap", "inspect"])
def test_models_that_cannot_be_read_are_refused(function):
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="subclassed model"):
        getattr(tfprune, function)(Subclassed())
    with pytest.raises(ValueError, match="not built"):
        getattr(tfprune, function)(keras.Sequential([layers.Dense(3)]))


def test_masks_out_of_step_are_refused_by_shrink():
    masked = masked_mlp()
    masked.get_layer("hidden").masks["out"].assign([1.0, 0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="contradict each other: layer 'out' keeps 4 of the channels"):
        tfprune.shrink(masked)
