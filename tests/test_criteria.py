"""Does each criterion measure what its paper says, on groups that span several layers, batch after batch?"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy.spatial.distance import cdist
from zoo import randomise

import tfprune
from tfprune.callbacks import GradualPruning, LotteryTicket
from tfprune.pruning import criteria, masks, surgery
from tfprune.pruning.criteria.network import Network
from tfprune.structure import roles
from tfprune.structure.replay import value_of


def coupled():
    """Channels that meet in Add and Concatenate, and pass BatchNormalization, depthwise filters and Flatten."""
    inputs = keras.Input((6, 6, 2))
    stem = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = layers.Activation("softplus")(layers.BatchNormalization()(stem))
    x = layers.Conv2D(4, 3, padding="same", name="inner")(x)
    x = layers.BatchNormalization()(layers.Add()([stem, x]))
    x = layers.DepthwiseConv2D(3, activation="softplus", name="depthwise")(x)
    x = layers.Concatenate()([x, layers.Conv2D(3, 3, activation="tanh", name="branch")(inputs)])
    x = layers.Conv2D(5, 2, activation="softplus", name="after")(x)
    x = layers.Dense(4, activation="softplus", name="dense")(layers.Flatten()(x))
    model = randomise(keras.Model(inputs, layers.Dense(3, name="logits")(x)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def images(samples=10):
    random = np.random.default_rng(1)
    return random.normal(size=(samples, 6, 6, 2)).astype("float32"), random.integers(0, 3, samples)


def dataset(pair, batch=4):
    return tf.data.Dataset.from_tensor_slices(pair).batch(batch)


def two_inputs():
    keras.utils.set_random_seed(0)
    first, second = keras.Input((6,)), keras.Input((4,))
    x = layers.Concatenate()([layers.Dense(8, activation="relu")(first), layers.Dense(8, activation="relu")(second)])
    model = keras.Model([first, second], layers.Dense(2)(x))
    model.compile("sgd", "mse")
    return tfprune.wrap(model)


def test_data_are_what_fit_takes():
    masked, random = two_inputs(), np.random.default_rng(0)
    one, two, y = (random.normal(size=(40, size)).astype("float32") for size in (6, 4, 2))
    masked.fit([one, two], y, verbose=0)
    given = [
        ([one, two], y),
        ((one, two), y, np.ones(40, "float32")),
        tf.data.Dataset.from_tensor_slices(((one, two), y)).batch(32),
        tf.data.Dataset.from_tensor_slices(((one, two), y)),
    ]
    found = [tfprune.compute_masks(masked, 0.5, criterion=criteria.Taylor(data)) for data in given]
    for other in found[1:]:
        assert all((other[name] == mask).all() for name, mask in found[0].items())


def test_one_row_of_numbers_is_one_array():
    x, y = np.random.default_rng(0).normal(size=(12, 6, 6, 2)), [number % 3 for number in range(12)]
    assert criteria.Taylor((x.tolist(), y)).data.element_spec[0].shape == (None, 6, 6, 2)
    assert criteria.Taylor((x, y)).data.element_spec[1].shape == (None,)


def test_many_draws_make_no_larger_program(masked):
    def size(draws):
        criterion = criteria.Hessian(dataset(images()), draws=draws)
        network = criterion._network(masked)
        gates = tf.ones([network.num_units])
        return len(criterion._compiled(network, criterion.step, [gates]).graph.get_operations())

    assert size(500) == size(2)


@pytest.fixture(scope="module", name="masked")
def _masked():
    return tfprune.wrap(coupled())


@pytest.fixture(autouse=True)
def _same_weights_afterwards(masked):
    before = [(weight, value_of(weight)) for weight in masked.weights]
    yield
    for weight, value in before:
        weight.assign(value)


def scores_of(criterion, masked, keep=None):
    """`{group name: scores}`."""
    graph = masks.graph_of(masked)
    keep = graph.kept() if keep is None else keep
    scorer = criteria.look(criteria.get(criterion), masked, keep)
    found = {}
    for group in graph.prunable:
        seen = masks.describe(graph, group, keep)
        if criterion != "batchnorm_scale" or seen.scales:
            found[group.name] = criteria.score(scorer, seen)
    return found


# The contract -------------------------------------------------------------------------------------------------------

DATA = dataset(images())
CRITERIA = {
    **{name: name for name in criteria.CRITERIA if name != "random"},
    "taylor": criteria.Taylor(DATA),
    "taylor of weights": criteria.Taylor(DATA, form="weight"),
    "gradient": criteria.Gradient(DATA, members="max"),
    "fisher": criteria.Fisher(DATA),
    "hessian": criteria.Hessian(DATA),
    "snip": criteria.SNIP(DATA),
    "grasp": criteria.GraSP(DATA, members="mean"),
    "activation mean": criteria.ActivationMean(DATA, members="mean"),
    "apoz": criteria.APoZ(DATA, members="max"),
    "ensemble": criteria.Ensemble(["l1", criteria.SNIP(DATA)], weights=[1, 2]),
}
CRITERIA["synflow"] = criteria.SynFlow()  # one object, so that the model is not made linear anew


def weights_by_unit(masked):
    """`[(variable, axis, [positions of each unit])]` of all weights that belong to channels that can be pruned."""
    graph = masks.graph_of(masked)
    for name, layer in graph.layers.items():
        for path, axes in graph.axes(name).items():
            weight = roles.part(roles.unwrap(layer), path)
            for axis, units in enumerate(axes) if weight is not None else ():
                if units is not None:
                    yield weight, axis, units


def permute(masked, order):
    """Gives unit i what unit order[i] had, in all weights."""
    for weight, axis, units in weights_by_unit(masked):
        places = [np.flatnonzero(units == unit) for unit in range(len(order))]
        moved = np.arange(len(units))
        for unit, found in enumerate(places):
            moved[found] = places[order[unit]]
        weight.assign(np.take(value_of(weight), moved, axis))


@pytest.mark.parametrize("name", CRITERIA)
def test_zeroed_channel_scores_lowest_and_scores_follow_the_channels(name, masked):
    graph, criterion = masks.graph_of(masked), CRITERIA[name]
    before = scores_of(criterion, masked)
    assert [len(scores) for scores in before.values()] == [
        group.channels for group in graph.prunable if group.name in before
    ]
    assert all(len(np.unique(scores)) > 1 or name == "apoz" for scores in before.values()), "told apart by nothing"

    order = np.arange(graph.num_units)
    for group in graph.prunable:
        order[group.units] = np.roll(group.units, 1)
    values = [(weight, value_of(weight)) for weight in masked.weights]
    permute(masked, order)
    after = scores_of(criterion, masked)
    for group in graph.prunable if name != "hessian" else ():  # it draws at random
        if group.name in before:
            np.testing.assert_allclose(after[group.name], np.roll(before[group.name], 1), rtol=2e-3, atol=1e-9)

    for weight, value in values:
        weight.assign(value)
    everything = np.ones(graph.num_units, bool)
    zeroed = everything.copy()
    zeroed[[group.units[1] for group in graph.prunable]] = False
    for variable, kept in surgery.kept_entries(graph, zeroed).values():
        variable.assign(value_of(variable) * kept)
    for found in scores_of(criterion, masked).values():
        assert np.argmin(found) == 1
        assert found[1] < np.delete(found, 1).min()


@pytest.mark.parametrize("name", CRITERIA)
def test_criterion_chooses_masks_layer_by_layer_and_over_all(name, masked):
    if name == "batchnorm_scale":
        return  # not every group has one; the older tests have it
    if name == "synflow":
        CRITERIA[name].rounds = 5
    for scope in ("layer", "global"):
        chosen = tfprune.compute_masks(masked, 0.5, CRITERIA[name], scope=scope)
        assert sum(mask.sum() for mask in chosen.values()) < sum(mask.size for mask in chosen.values())
        np.testing.assert_array_equal(chosen["stem"], chosen["inner"])


def test_looking_leaves_the_model_as_it_is(masked):
    masked.evaluate(*images(), verbose=0)
    before = [value_of(variable) for variable in (*masked.variables, *masked.metrics_variables)]
    for name in ("taylor", "hessian", "fisher", "activation mean", "synflow"):
        scores_of(CRITERIA[name], masked)
    after = [value_of(variable) for variable in (*masked.variables, *masked.metrics_variables)]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_gate_derivative_is_what_finite_differences_say(masked):
    """The masks themselves are turned up and down, at all the places that one channel passes."""
    graph, network = masks.graph_of(masked), Network(masked)
    found = scores_of(criteria.SNIP(images()), masked)

    def loss(unit, gate):
        for mask, units in network.masks:
            mask.assign(np.where(units == unit, gate, 1.0))
        return masked.evaluate(*images(), verbose=0)[0]

    for group in graph.prunable:
        unit = group.units[2]
        slope = (loss(unit, 1.05) - loss(unit, 0.95)) / 0.1
        assert found[group.name][2] == pytest.approx(abs(slope), rel=2e-2, abs=1e-5), group.name


def test_gate_taylor_is_the_mean_of_the_squares_of_batches(masked):
    x, y = images()
    parts = [scores_of(criteria.SNIP((x[part], y[part])), masked) for part in (slice(0, 8), slice(8, 10))]
    found = scores_of(criteria.Taylor(dataset((x, y), batch=8)), masked)
    for name, scores in found.items():
        np.testing.assert_allclose(scores, (8 * parts[0][name] ** 2 + 2 * parts[1][name] ** 2) / 10, rtol=1e-3)


@pytest.mark.parametrize("name", ["snip", "fisher", "grasp", "activation mean", "apoz"])
def test_several_batches_give_what_one_gives(name, masked):
    whole = type(CRITERIA[name])(dataset(images(), batch=10))
    whole.members = CRITERIA[name].members
    one, several = scores_of(whole, masked), scores_of(CRITERIA[name], masked)
    for group in one:
        np.testing.assert_allclose(one[group], several[group], rtol=2e-3, atol=1e-8)


def test_pruned_channels_are_gone_for_those_that_are_left(masked):
    """Scores with some channels gone are those of the shrunk model."""
    keep = np.ones(masks.graph_of(masked).num_units, bool)
    chosen = {"after": np.array([True, False, True, True, False])}
    before = {name: scores_of(CRITERIA[name], masked)["dense"] for name in ("taylor", "activation mean")}
    tfprune.set_masks(masked, chosen)
    keep = masks.graph_of(masked).kept()
    small = tfprune.wrap(tfprune.shrink(masked))
    for name in ("taylor", "activation mean"):
        found = scores_of(CRITERIA[name], masked, keep)
        np.testing.assert_allclose(found["dense"], scores_of(CRITERIA[name], small)["dense"], rtol=1e-3)
        assert not np.allclose(found["dense"], before[name], rtol=1e-2) or name == "activation mean"


# Each by hand -------------------------------------------------------------------------------------------------------

W1 = np.array([[1.0, -2.0, 0.5], [0.3, 0.7, -1.5]])
W2 = np.array([[1.0, 0.5], [-0.5, 2.0], [0.2, 0.1]])
X = np.array([[1.0, 2.0], [-1.0, 0.5], [0.3, -0.7], [2.0, 1.0]])
Y = np.array([[1.0, 0.0], [0.5, -1.0], [0.0, 1.0], [2.0, 2.0]])


def two_layers(activation=None, first=W1, second=W2):
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, activation, use_bias=False, name="hidden"),
            layers.Dense(2, use_bias=False, name="out"),
        ]
    )
    model.set_weights([first, second])
    model.compile("sgd", "mse")
    return tfprune.wrap(model)


def by_numpy(x=X, y=Y):
    """The derivatives of the mean squared error by both kernels."""
    error = 2 * (x @ W1 @ W2 - y) / y.size
    return x.T @ error @ W2.T, (x @ W1).T @ error


def bent(direction):
    """The Hessian by the first kernel times a direction: the error is linear in it."""
    return 2 / Y.size * X.T @ X @ direction @ (W2 @ W2.T)


def single(criterion, masked=None):
    return scores_of(criterion, masked or two_layers())["hidden"]


def test_gradients_are_what_numpy_says():
    first, second = by_numpy()
    np.testing.assert_allclose(single(criteria.Gradient((X, Y))), np.abs(first).sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        single(criteria.Taylor((X, Y), form="weight")), np.square(W1 * first).sum(axis=0), rtol=1e-5
    )
    gates = (W2 * second).sum(axis=1)
    np.testing.assert_allclose(single(criteria.SNIP((X, Y))), np.abs(gates), rtol=1e-5)
    np.testing.assert_allclose(single(criteria.Taylor((X, Y))), gates**2, rtol=1e-5)


def test_fisher_is_what_numpy_says_of_each_sample():
    gates = [(W2 * by_numpy(X[i : i + 1], Y[i : i + 1])[1]).sum(axis=1) for i in range(4)]
    np.testing.assert_allclose(single(criteria.Fisher((X, Y))), 0.5 * np.square(gates).mean(axis=0), rtol=1e-5)


def test_hessian_diagonal_is_what_numpy_says():
    """Hutchinson's estimate is exact for a diagonal Hessian, and near with many draws otherwise."""
    x, second = np.diag([1.0, 3.0]), np.array([[2.0, 0.0], [0.0, 0.5], [0.0, 0.0]])
    diagonal = 2 / 4 * np.square(x).sum(axis=0)[:, None] * np.square(second).sum(axis=1)
    found = single(criteria.Hessian((x, np.zeros((2, 2)))), two_layers(second=second))
    np.testing.assert_allclose(found, 0.5 * (W1**2 * diagonal).sum(axis=0), rtol=1e-5)

    second = np.array([[1.0, 0.2], [0.3, 1.0], [0.5, -0.8]])
    diagonal = 2 / 8 * np.square(X).sum(axis=0)[:, None] * np.square(second).sum(axis=1)
    many = criteria.Hessian(tf.data.Dataset.from_tensors((X, Y)).repeat(100), draws=8, seed=1)
    found = single(many, two_layers(second=second))
    np.testing.assert_allclose(found, 0.5 * (W1**2 * diagonal).sum(axis=0), rtol=0.05)


def test_grasp_ranks_as_weight_times_hessian_times_gradient():
    kept = (W1 * bent(by_numpy()[0])).sum(axis=0)
    assert kept.min() < 0, "a negative one is what the shift is for"
    found = single(criteria.GraSP(dataset((X.astype("float32"), Y), batch=3)))
    np.testing.assert_allclose(found - found[0], kept - kept[0], rtol=1e-4)
    assert found.min() > 0


def test_activations_are_what_numpy_says():
    hidden = np.maximum(X @ W1, 0)
    data = dataset((X, Y), batch=3)
    np.testing.assert_allclose(single(criteria.ActivationMean(data), two_layers("relu")), hidden.mean(axis=0), 1e-5)
    np.testing.assert_allclose(single(criteria.APoZ(data), two_layers("relu")), (hidden > 0).mean(axis=0), 1e-5)


def test_activations_behind_flatten_and_in_two_tensors():
    inputs = keras.Input((4, 4, 1))
    made = layers.Conv2D(3, 3, name="conv")(inputs)
    flat = layers.Dense(2)(layers.Flatten()(layers.ReLU()(made)))
    model = randomise(keras.Model(inputs, layers.Add()([flat, layers.Dense(2)(layers.GlobalMaxPooling2D()(made))])))
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 1)).astype("float32")
    maps = np.asarray(keras.Model(inputs, made)(x))
    seen = [np.maximum(maps, 0).mean(axis=(0, 1, 2)), np.abs(maps.max(axis=(1, 2))).mean(axis=0)]
    masked = tfprune.wrap(model)
    for members, combined in {"sum": sum(seen), "mean": sum(seen) / 2, "max": np.maximum(*seen)}.items():
        found = scores_of(criteria.ActivationMean((x, x), members=members), masked)["conv"]
        np.testing.assert_allclose(found, combined, rtol=1e-5)


def test_synflow_is_the_flow_that_numpy_finds_and_every_layer_passes_the_same():
    deep = keras.Sequential([keras.Input((2,))] + [layers.Dense(n, "tanh") for n in (5, 4, 6)] + [layers.Softmax()])
    deep = tfprune.wrap(randomise(deep))
    kernels = [np.abs(layer.layer.kernel.numpy()) for layer in deep.layers[:3]]
    assert len(scores_of("synflow", deep)) == 2
    biases = [np.abs(layer.layer.bias.numpy()) for layer in deep.layers[:3]]
    ahead = kernels[0].sum(axis=0)
    found = list(scores_of("synflow", deep).values())
    np.testing.assert_allclose(found[0], ahead * (kernels[1] @ kernels[2]).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found[1], ((ahead + biases[0]) @ kernels[1]) * kernels[2].sum(axis=1), rtol=1e-6)
    for layer in deep.layers[:3]:
        layer.layer.bias.assign(np.zeros(layer.layer.units))
    flows = [scores.sum() for scores in scores_of("synflow", deep).values()]
    assert flows[0] == pytest.approx(flows[1])


def test_synflow_looks_again_after_each_round_and_keeps_every_layer():
    sizes = (24, 6, 24)
    deep = keras.Sequential(
        [keras.Input((4,))] + [layers.Dense(n, "relu", name=f"d{n}_{i}") for i, n in enumerate(sizes)]
    )
    deep.add(layers.Dense(2, name="out"))
    masked = tfprune.wrap(randomise(deep))
    seen = []

    class Counted(criteria.SynFlow):
        def measure(self, masked, keep):
            seen.append(int(keep.sum()))
            return super().measure(masked, keep)

    chosen = tfprune.compute_masks(masked, 0.8, Counted(), scope="global")
    assert len(seen) == 100
    assert seen[0] - seen[50] > seen[50] - seen[99] > 0, "exponential: the early rounds remove more"
    kept = [int(mask.sum()) for mask in chosen.values()]
    assert sum(kept) == 11
    assert min(kept) >= 2
    at_once = tfprune.compute_masks(masked, 0.8, criteria.SynFlow(rounds=1), scope="global")
    assert min(int(mask.sum()) for mask in at_once.values()) < min(kept)


def test_data_free_criteria_by_hand():
    rows = [np.array([[3.0, -4.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), np.array([[1.0], [2.0], [0.0], [2.0]])]
    group = criteria.ChannelGroup("g", ("g",), 4, rows, [np.array([1.0, -2, 0, 3]), np.array([2.0, 0, 0, 0])])
    assert criteria.l1(group).tolist() == [8, 3, 0, 3]
    assert criteria.l1(group, members="max").tolist() == [7, 2, 0, 2]
    assert criteria.l1(group, members="mean").tolist() == [4, 1.5, 0, 1.5]
    np.testing.assert_allclose(criteria.l2(group), np.sqrt([26, 5, 0, 5]))
    assert criteria.linf(group).tolist() == [4, 2, 0, 2]
    assert criteria.batchnorm_scale(group, members="max").tolist() == [2, 2, 0, 3]
    np.testing.assert_allclose(criteria.lamp(group), [1, 5 / 36, 0, 5 / 36])
    alive = [0, 1, 3]
    expected = sum(cdist(part[alive], part[alive]).sum(axis=1) for part in rows)
    np.testing.assert_allclose(criteria.geometric_median(group)[alive], expected, rtol=1e-6)
    assert criteria.geometric_median(group)[2] == 0
    partial = functools.partial(criteria.l1, members="max")
    assert tfprune.compute_masks(two_layers(), 0.4, partial)["hidden"].tolist() == [False, True, True]


def test_geometric_median_removes_what_others_stand_for():
    first = np.array([[1.0, 1.1, 5.0], [1.0, 0.9, -5.0]])
    masked = two_layers(first=first)
    assert tfprune.compute_masks(masked, 0.34, "geometric_median")["hidden"].tolist() != [True, True, False]
    assert criteria.geometric_median(criteria.ChannelGroup("g", ("g",), 3, [first.T], [])).argmax() == 2


def test_lamp_is_ranked_over_all_layers_as_it_is():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(4, name="a"), layers.Dense(4, name="b"), layers.Dense(1)])
    model.get_layer("a").set_weights([np.array([[10.0, 10, 10, 10]]), np.zeros(4)])
    model.get_layer("b").set_weights([np.diag([0.1, 0.2, 0.3, 4.0]), np.zeros(4)])
    chosen = tfprune.compute_masks(tfprune.wrap(model), 3 / 8, "lamp", scope="global")
    assert {name: mask.tolist() for name, mask in chosen.items()} == {"a": [True] * 4, "b": [False, False, False, True]}


def test_ensemble_adds_relative_scores():
    masked = two_layers()
    one, other = single("l1", masked), single(criteria.SNIP((X, Y)), masked)
    both = criteria.Ensemble(["l1", criteria.SNIP((X, Y))], weights=[1, 3])
    np.testing.assert_allclose(single(both, masked), one / one.mean() + 3 * other / other.mean(), rtol=1e-6)


# In use -------------------------------------------------------------------------------------------------------------


def test_half_precision_measures_the_same():
    expected = single(criteria.Taylor((X, Y)))
    keras.config.set_dtype_policy("mixed_float16")
    np.testing.assert_allclose(single(criteria.Taylor((X, Y))), expected, rtol=2e-2)


def test_small_gradients_survive_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = two_layers()
    model.compile("sgd", "mse", loss_weights=[1e-6])
    expected = single(criteria.SNIP((X, Y)), two_layers())
    np.testing.assert_allclose(single(criteria.SNIP((X, Y)), model), expected * 1e-6, rtol=5e-2)


@pytest.mark.parametrize(
    "make",
    [
        lambda criterion: LotteryTicket(0.4, criterion=criterion, epochs_per_round=1, monitor="loss"),
        lambda criterion: GradualPruning(lambda step: (step == 1, 0.4), criterion=criterion),
    ],
    ids=["LotteryTicket", "GradualPruning"],
)
def test_callbacks_take_criteria_that_look_at_data(make):
    masked = two_layers("relu")
    callback = make(criteria.Taylor((X, Y)))
    masked.fit(X, Y, epochs=2, batch_size=2, callbacks=[callback], verbose=0)
    masked.fit(X, Y, epochs=2, batch_size=2, callbacks=[callback], verbose=0)
    assert tfprune.get_masks(masked)["hidden"].sum() == 2


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: criteria.get("taylor"), ValueError, r"'taylor' needs data: pass .*criteria.Taylor\(data"),
        (lambda: criteria.get(criteria.Taylor), TypeError, "Received: the class Taylor. Make one of it"),
        (lambda: criteria.Taylor((X, Y), form="both"), ValueError, "form must be 'gate' or 'weight'. Received"),
        (lambda: criteria.Gradient((X, Y), members="min"), ValueError, "must be 'sum', 'mean' or 'max'. Received"),
        (lambda: criteria.SNIP(X), TypeError, r"tf.data.Dataset of \(x, y\) batches.*Received: ndarray"),
        (lambda: criteria.SNIP(dataset((X, Y)).repeat()), ValueError, "SNIP looks at all of its data.*batches=10"),
        (lambda: single(criteria.SNIP(dataset((X, Y)).take(0))), ValueError, "SNIP needs data, but .* gave no batch"),
        (lambda: criteria.SynFlow(rounds=0), ValueError, "rounds must be a positive integer"),
        (lambda: criteria.Ensemble([]), ValueError, "at least one criterion"),
        (lambda: criteria.Ensemble("l1"), TypeError, r"must be a list. Received: criteria='l1'. Pass \['l1'\]"),
        (lambda: criteria.Ensemble(["l1"], weights=["a"]), ValueError, r"weights\[0\] must be a finite number.*'a'"),
        (lambda: criteria.Ensemble(["l1"], weights=2), TypeError, r"must be a list. Received: weights=2. Pass \[2\]"),
        (lambda: criteria.Taylor((X, Y), batches=0), ValueError, "batches must be an integer of at least 1. Received"),
        (lambda: criteria.Hessian((X, Y), draws=0), ValueError, "draws must be an integer of at least 1"),
        (lambda: criteria.get("random", seed="a"), ValueError, "seed must be an integer of at least 0. .*'a'"),
        (lambda: criteria.Taylor((X, Y[:2])), ValueError, rf"as many samples. .*\({len(X)}, \d\), \(2, \d\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("kind", [criteria.Taylor, criteria.GraSP, criteria.ActivationMean])
def test_data_of_another_width_are_told_beside_what_the_model_takes(kind):
    with pytest.raises(ValueError, match=r"on its data. The model takes x of shape \(None, 2\)") as found:
        single(kind((np.ones((6, 5), "float32"), np.zeros((6, 2), "float32"))))
    assert "Received: x of shape (None, 5)" in str(found.value)
    assert "\n" not in str(found.value)


def test_labels_of_another_shape_are_told_beside_what_the_model_gives(masked):
    x, _ = images()
    with pytest.raises(ValueError, match=r"gives \(None, 3\). Received: x of .* and y of shape \(None, 7\)") as found:
        tfprune.compute_masks(masked, 0.4, criteria.Taylor((x, np.zeros((10, 7), int))))
    assert "user code" not in str(found.value)


@pytest.mark.parametrize("kind", [criteria.ActivationMean, criteria.APoZ])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_activations_that_are_not_finite_are_not_taken_for_channels_inside_a_layer(kind, bad):
    x = np.full((4, 2), bad, "float32")
    with pytest.raises(ValueError, match=rf"{kind.__name__} met activations that are not finite in .* Check its data"):
        single(kind((x, np.zeros((4, 2), "float32"))))


def test_loss_that_is_not_compiled_is_asked_for():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="hidden"), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"Taylor derives the loss.*Call compile"):
        tfprune.compute_masks(tfprune.wrap(model), 0.4, criteria.Taylor((X, Y)))
    tfprune.compute_masks(tfprune.wrap(model), 0.4, criteria.ActivationMean((X, Y)))  # needs none
