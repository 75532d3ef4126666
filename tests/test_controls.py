"""Does each control differ from a ticket in the one thing that it is a control of?"""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune import datasets
from tfprune.callbacks import change
from tfprune.pruning import masks, rewind, strategies, surgery
from tfprune.structure.cost import cost
from tfprune.structure.replay import value_of
from tfprune.study import controls, kept, rounds, state, work
from tfprune.study.trial import Recipe, Trial


def split(seed, size):
    random = np.random.default_rng(seed)
    x = random.normal(size=(size, 3)).astype("float32")
    return x, (x[:, 0] > x[:, 1] * x[:, 2]).astype("int32")


def tiny():
    return datasets.Dataset("tiny", split(0, 60), split(1, 43), split(2, 50), {}, 2, (3,))


def network(input_shape, num_classes, seed):
    def dense(units, name, place):
        return layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(10 * seed + place), name=name)

    return keras.Sequential(
        [
            keras.Input(input_shape),
            dense(24, "first", 0),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            dense(16, "second", 1),
            layers.ReLU(),
            dense(num_classes, "logits", 2),
        ]
    )


RECIPE = Recipe("adam", 0.05, epochs=5, patience=2, decay=0.5)


def trial(strategy, ratio=0.5, **fields):
    return Trial(tiny, network, strategy, ratio, seed=1, recipe=RECIPE, **fields)


def train(of, spy=None):
    """The setup of a trial after its rounds, its ticket, and the dense network."""
    setup, shelf = work.set_up(of), kept.Shelf(None, {})
    if spy:
        spy(setup)
    dense = rounds.train_dense(setup, shelf, of.epochs_to_keep)
    ticket, _ = rounds.train_rounds(setup, dense, shelf, shelf, dict)
    return setup, ticket, dense


def starts(of):
    """`(setup, ticket, dense, weights, recipe, options)` as the last round began with them."""
    found = {}

    def spy(setup):
        original = setup.trainer.train_round

        def train_round(masked, data, recipe, seed, number, **options):
            if number:
                weights = {w.path: value_of(w) for w in rewind.weights_of(masked)}
                rates = float(masked.optimizer.learning_rate)
                found.update(weights=weights, recipe=recipe, rate=rates, **options)
            return original(masked, data, recipe, seed, number, **options)

        setup.trainer.train_round = train_round

    setup, ticket, dense = train(of, spy)
    return setup, ticket, dense, found


def kept_entries(setup):
    graph = masks.graph_of(setup.masked)
    return {weight.path: keep for weight, keep in surgery.kept_entries(graph, graph.kept()).values()}


def own_name(weight):
    return "/".join(weight.path.split("/")[-2:])


def counts(ticket):
    return {name: int(mask.sum()) for name, mask in ticket.history[-1]["masks"].items()}


@pytest.fixture(scope="module")
def global_tickets():
    return {name: starts(trial(name, scope="global")) for name in ("one_shot", "random_channels", "magnitude_channels")}


def test_channel_controls_keep_as_many_of_each_layer_as_criterion_and_scope(global_tickets):
    wanted = counts(global_tickets["one_shot"][1])
    assert wanted["first"] / 24 != wanted["second"] / 16  # a ranking over both layers
    assert sum(wanted.values()) == 20
    for _, ticket, _, _ in global_tickets.values():
        assert counts(ticket) == wanted


def test_random_channels_are_others_than_those_of_the_criterion(global_tickets):
    ours, theirs = (global_tickets[name][1].history[-1]["masks"] for name in ("one_shot", "random_channels"))
    assert any(not np.array_equal(ours[name], theirs[name]) for name in ours)


def test_criterion_that_looks_at_data_looks_at_training_examples_and_the_trained_weights(monkeypatch):
    setup, _, dense = train(trial("one_shot", criterion="taylor"))
    chosen = masks.get_masks(setup.masked)
    masked = work.set_up(trial("one_shot")).masked
    state.write(masked, dense.values)
    expected = masks.compute_masks(masked, 0.5, tfprune.pruning.criteria.Taylor(tiny().train))
    by_size = masks.compute_masks(masked, 0.5)
    assert all((chosen[name] == expected[name]).all() for name in expected)
    assert any((chosen[name] != by_size[name]).any() for name in expected)
    monkeypatch.setattr(rounds, "LOOKED_AT", 3)
    x, _ = tiny().train
    np.testing.assert_array_equal(rounds._looked_at(tiny())[0], x[[0, 29, 59]])


def test_magnitude_channels_are_those_of_largest_l1_norm(global_tickets):
    setup, ticket, dense, _ = global_tickets["magnitude_channels"]
    first = dict(zip((w.path for w in rewind.weights_of(setup.masked)), dense.values, strict=False))["first/kernel"]
    norms = np.abs(first).sum(axis=0)
    keep = ticket.history[-1]["masks"]["first"]
    assert norms[keep].min() >= norms[~keep].max()


@pytest.mark.parametrize("name", ["random_channels", "magnitude_channels"])
def test_channel_controls_go_on_with_the_trained_weights(global_tickets, name):
    setup, _, dense, found = global_tickets[name]
    entries = kept_entries(setup)
    for (path, weight), trained in zip(found["weights"].items(), dense.values, strict=False):
        keep = entries.get(path, ...)
        np.testing.assert_array_equal(weight[keep], trained[keep], err_msg=path)
    assert found["recipe"] == RECIPE
    assert found["early_stop"]


def test_counts_of_layers_outside_only_stay_whole():
    _, ticket, _, _ = starts(trial("random_channels", layers="second"))
    assert counts(ticket) == {"first": 24, "second": 8}


def test_dense_control_trains_on_and_removes_nothing():
    _, ticket, dense, found = starts(trial("dense", ratio=0.0))
    assert counts(ticket) == {"first": 24, "second": 16}
    assert ticket.history[-1]["epochs"] >= 1
    for weight, trained in zip(found["weights"].values(), dense.values, strict=False):
        np.testing.assert_array_equal(weight, trained)
    assert found["keep_optimizer"]


@pytest.mark.parametrize("criterion", ["l1", "snip"])
def test_pruning_at_initialization_chooses_by_the_weights_before_any_training(criterion):
    of = trial("at_init", criterion=criterion)
    setup, ticket, _, found = starts(of)
    masked = work.set_up(of).masked
    start = {w.path: value_of(w) for w in rewind.weights_of(masked)}
    looked_at = tfprune.pruning.criteria.get(criterion, data=tiny().train if criterion == "snip" else None)
    expected = masks.compute_masks(masked, 0.5, looked_at)
    chosen = ticket.history[-1]["masks"]
    assert {name: mask.tolist() for name, mask in chosen.items()} == {n: m.tolist() for n, m in expected.items()}
    after_training = starts(trial("one_shot_reinit", criterion=criterion))[1].history[-1]["masks"]
    assert any(not np.array_equal(after_training[name], chosen[name]) for name in chosen)
    keep = kept_entries(setup)["second/kernel"]
    np.testing.assert_array_equal(found["weights"]["second/kernel"][keep], start["second/kernel"][keep])


def test_rounds_of_pruning_at_initialization_remove_what_one_would():
    """Weights of channels that earlier rounds removed are not counted, though the initial weights had them."""
    twice = strategies.Strategy("twice", 2, "init", ranked_on="init")
    of = trial(twice, ratio=0.75)
    ticket = train(of)[1]
    masked = work.set_up(of).masked
    for number in (1, 2):
        masks.set_masks(masked, masks.compute_masks(masked, ticket.asked(number)))
        change.clear(masked, "here")
    wanted, found = masks.get_masks(masked), ticket.history[-1]["masks"]
    assert {name: mask.tolist() for name, mask in found.items()} == {n: m.tolist() for n, m in wanted.items()}


def test_a_strategy_that_ranks_before_training_and_keeps_trained_weights_is_refused():
    with pytest.raises(ValueError, match=r"expected rewind='init' or 'random'\. Received: rewind=None"):
        strategies.Strategy("both", ranked_on="init")


@pytest.fixture(scope="module")
def scratch():
    return {name: starts(trial(name)) for name in ("scratch_epochs", "scratch_compute", "one_shot_random")}


def test_scratch_weights_are_drawn_at_the_size_of_the_small_network(scratch):
    setup, _, _, found = scratch["scratch_epochs"]
    keep = kept_entries(setup)["second/kernel"]
    drawn, limit = np.abs(found["weights"]["second/kernel"][keep]), np.sqrt(6 / (12 + 8))
    dense_limit = np.sqrt(6 / (24 + 16))
    assert dense_limit < drawn.max() <= limit
    assert drawn.mean() == pytest.approx(limit / 2, rel=0.2)
    start = {own_name(w): value_of(w) for w in setup.model.weights}["second/kernel"][keep]
    assert not np.any(found["weights"]["second/kernel"][keep] == start)
    np.testing.assert_array_equal(found["weights"]["norm/moving_mean"], 0)
    _, _, _, at_dense_size = scratch["one_shot_random"]
    assert np.abs(at_dense_size["weights"]["second/kernel"]).max() <= dense_limit


def test_scratch_trains_as_many_epochs_as_the_dense_network(scratch):
    _, ticket, dense, found = scratch["scratch_epochs"]
    assert ticket.history[-1]["epochs"] == dense.epochs == found["recipe"].epochs
    assert not found["early_stop"]


def test_scratch_trains_as_many_multiply_adds_as_the_dense_network(scratch):
    setup, ticket, dense, found = scratch["scratch_compute"]
    speedup = (3 * 24 + 24 * 16 + 16 * 2) / (3 * 12 + 12 * 8 + 8 * 2)
    assert cost(tfprune.shrink(setup.masked))["multiply_adds"] == 3 * 12 + 12 * 8 + 8 * 2
    assert ticket.history[-1]["epochs"] == round(dense.epochs * speedup)
    assert found["rate"] == pytest.approx(RECIPE.learning_rate)
    rates = []
    for step in (1, 2, 3, 4, 7):  # one step an epoch: the rate halves after 3.3 epochs, not after 1
        setup.masked.optimizer.iterations.assign(step)
        rates.append(float(setup.masked.optimizer.learning_rate))
    assert rates == pytest.approx([0.05, 0.05, 0.05, 0.025, 0.0125])


def test_rewinding_goes_to_the_state_after_that_epoch():
    of = trial("rewind_epoch_2")
    setup, ticket, _, found = starts(of)
    plain = work.set_up(of)
    train, validation = (datasets.as_full_batch(part) for part in (plain.data.train, plain.data.validation))
    plain.model.fit(
        train, steps_per_epoch=1, validation_data=validation, validation_steps=1, epochs=2, shuffle=False, verbose=0
    )
    entries = kept_entries(setup)
    for weight in plain.model.weights:
        rewound, keep = found["weights"][own_name(weight)], entries.get(own_name(weight), ...)
        np.testing.assert_allclose(rewound[keep], value_of(weight)[keep], rtol=1e-5, atol=1e-7)
    assert found["rate"] == pytest.approx(0.05 * 0.5**2)
    assert ticket.rewind == 2


def test_epoch_0_is_the_start():
    assert controls.StudyTicket(trial("rewind_epoch_0")).rewind == "init"


def test_compute_of_a_model_that_cannot_be_counted_is_refused():
    setup = work.set_up(trial("scratch_compute"))
    with pytest.raises(ValueError, match="as many multiply-adds as the dense network, but those of this model cannot"):
        controls.budget(strategies.get("scratch_compute"), RECIPE, 5, setup.masked, None)


def test_shares_give_counts_back_for_layers_that_share_channels():
    inputs = keras.Input((3,))
    left, right = (layers.Dense(10, name=name)(inputs) for name in ("left", "right"))
    model = keras.Model(inputs, layers.Dense(2, name="out")(layers.Dense(7, name="next")(left + right)))
    masked = tfprune.wrap(model)
    shares = controls.shares_of(masked, tfprune.compute_masks(masked, {"left": 0.3, "next": 0.6}))
    assert shares == pytest.approx({"left": 0.3, "next": 4 / 7})
    assert all(mask.all() for mask in tfprune.get_masks(masked).values())


def test_random_generators_start_each_round_in_a_state_of_their_own():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dropout(0.5), layers.GaussianNoise(0.1)])
    found = []
    for seed, number in ((0, 0), (0, 1), (1, 0), (0, 1)):
        state.reseed(model, seed, number)
        found.append(np.concatenate([value_of(part) for part in state.generators(model)]).tolist())
    assert found[1] == found[3]
    assert len({tuple(one) for one in found}) == 3
    assert len(found[0]) == 4
    assert found[0][:2] != found[0][2:]


def test_constant_learning_rate_is_left_alone_by_stretching():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    controls.stretch_schedule(model, 3.0)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


def test_trainer_of_every_strategy_is_asked_for_the_budget_it_has(scratch, global_tickets):
    assert {name: found[3]["early_stop"] for name, found in {**scratch, **global_tickets}.items()} == {
        "scratch_epochs": False,
        "scratch_compute": False,
        "one_shot_random": True,
        "one_shot": True,
        "random_channels": True,
        "magnitude_channels": True,
    }
