"""Does a ticket say which channels stay and why, survive on disk, and give back every model it stands for?"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from zoo import ZOO, difference, inputs_of, randomise

import tfprune
from tfprune import Ticket
from tfprune.callbacks import GradualPruning, LotteryTicket
from tfprune.pruning import rewind
from tfprune.pruning.ticket import applied
from tfprune.pruning.ticket_pairs import hypergeometric
from tfprune.structure.replay import value_of


def attention():
    inputs = keras.Input((6, 8))
    x = layers.Dense(12, name="embed")(inputs)
    y = layers.MultiHeadAttention(4, 6, value_dim=5, name="attention")(x, x)
    x = layers.Dense(10, activation="relu", name="mlp")(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(2, name="logits")(layers.GlobalAveragePooling1D()(x)))


NAMES = ("mlp_relu", "residual", "concatenated", "shared_layer", "nested", "several_outputs")
MODELS = {**{name: ZOO[name] for name in NAMES}, "attention": attention}


@pytest.fixture(params=MODELS, name="model")
def _model(request):
    return randomise(MODELS[request.param]())


def mlp(first=4, second=3, inputs=2, compiled=False, **options):
    """Two hidden layers and two outputs."""
    model = keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(first, activation="relu", name="first", **options),
            layers.Dense(second, activation="relu", name="second", **options),
            layers.Dense(2, name="logits", **options),
        ]
    )
    if compiled:
        model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def pruned(model, ratio=0.5, **options):
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio, **options))
    return masked


def ticket_of(masks, model=None):
    masked = tfprune.wrap(model or mlp())
    tfprune.set_masks(masked, {name: np.array(mask, bool) for name, mask in masks.items()})
    return Ticket.of(masked)


def saved(ticket, folder, **options):
    ticket.save(folder / "net.ticket", **options)
    return Ticket.load(folder / "net.ticket")


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def assert_same_masks(first, second):
    assert list(first) == list(second)
    assert_same(first.values(), second.values())


# --- every model it stands for ------------------------------------------------------------------------------


def test_loaded_ticket_gives_the_shrunk_model_bit_for_bit_and_the_same_masks(model, tmp_path):
    before = [value.copy() for value in model.get_weights()]
    masked = pruned(model)
    ticket = saved(Ticket.of(masked), tmp_path)
    assert_same(ticket.apply(model, form="compact").get_weights(), tfprune.shrink(masked).get_weights())
    again = ticket.apply(model, form="masked")
    assert_same_masks(tfprune.get_masks(again), tfprune.get_masks(masked))
    assert difference(again, masked, inputs_of(model)) <= 1e-6
    assert_same(before, model.get_weights())


def test_trained_small_model_expands_to_a_masked_one_that_computes_the_same(model):
    masked = pruned(model)
    ticket = Ticket.of(masked)
    small = randomise(tfprune.shrink(masked), seed=9)  # as training would, with biases and statistics
    full = ticket.expand(small, model)
    assert_same_masks(tfprune.get_masks(full), ticket.masks)
    assert difference(small, full, inputs_of(model)) <= 1e-6
    assert difference(model, full, inputs_of(model)) > 1e-3


def test_composed_ticket_prunes_what_pruning_twice_pruned(model):
    masked = pruned(model, 0.4)
    first = Ticket.of(masked)
    small = tfprune.wrap(first.apply(model, form="compact"))
    tfprune.set_masks(small, tfprune.compute_masks(small, 0.4))
    both = first.compose(Ticket.of(small))
    composed = both.apply(model, weights="given", form="compact")
    for one, other in zip(composed.get_weights(), tfprune.shrink(small).get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)  # attention scales its queries once or twice
    assert both.parent == first.id
    assert all((first.masks[name] | ~mask).all() for name, mask in both.masks.items()), "the masks are not nested"


def test_ticket_opens_in_another_process_on_a_model_built_there(tmp_path):
    """Keras gives layers without a name other numbers there."""
    ZOO["residual"]()
    model = randomise(ZOO["residual"]())
    masked = pruned(model)
    Ticket.of(masked).save(tmp_path / "net.ticket", weights=True)
    code = f"""if True:
        import sys, numpy
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import tfprune
        from zoo import ZOO
        model = ZOO["residual"]()
        small = tfprune.Ticket.load({str(tmp_path / "net.ticket")!r}).apply(model, form="compact")
        numpy.savez({str(tmp_path / "weights.npz")!r}, *small.get_weights())
        print(*[layer.name for layer in model.layers])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() != [layer.name for layer in model.layers]
    with np.load(tmp_path / "weights.npz") as found:
        assert_same(found.values(), tfprune.shrink(masked).get_weights())


def test_weights_are_known_again_in_a_model_built_twice(tmp_path):
    model = randomise(ZOO["residual"]())
    masked = pruned(model)
    twin = ZOO["residual"]()
    twin.set_weights(model.get_weights())
    small = saved(Ticket.of(masked), tmp_path).apply(twin, form="compact")  # the file holds hashes only
    assert_same(small.get_weights(), tfprune.shrink(masked).get_weights())


def test_mixed_normalisations_stay_prunable_where_the_ticket_pruned_them(tmp_path):
    inputs = keras.Input((5,))
    x = layers.LayerNormalization()(layers.Dense(8, name="mixed")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="logits")(x))
    masked = tfprune.wrap(model, approximate=True)
    tfprune.set_masks(masked, {"mixed": np.arange(8) < 3})
    ticket = saved(Ticket.of(masked), tmp_path)
    assert ticket.apply(model, form="compact").get_layer("mixed").units == 3


def test_small_model_from_a_file_expands(tmp_path):
    model = randomise(mlp())
    ticket = saved(ticket_of({"first": [1, 0, 0, 1], "second": [0, 1, 1]}, model), tmp_path)
    ticket.apply(model, form="compact").save(tmp_path / "small.keras")
    small = keras.models.load_model(tmp_path / "small.keras")
    assert difference(small, ticket.expand(small, mlp()), inputs_of(model)) <= 1e-6


def test_what_a_normalization_layer_learnt_of_the_data_comes_back(tmp_path):
    model, other = randomise(ZOO["normalised_input"]()), ZOO["normalised_input"]()
    other.get_layer("normalization").adapt(np.random.default_rng(2).normal(-5.0, 9.0, (50, 5)))
    masked = pruned(model)
    small = saved(Ticket.of(masked), tmp_path, weights=True).apply(other, form="compact")
    assert difference(small, masked, inputs_of(model)) <= 1e-6


def test_compile_settings_are_kept():
    model = mlp(compiled=True)
    ticket = ticket_of({"first": [1, 1, 0, 0]}, model)
    for form in ("masked", "compact"):
        made = ticket.apply(model, form=form)
        assert (made.loss, type(made.optimizer).__name__) == ("mse", "SGD")
        made.fit(np.ones((4, 2)), np.ones((4, 2)), verbose=0)
    small = ticket.apply(mlp(), weights="given", form="compact")
    small.compile("adam", "mae")
    assert ticket.expand(small, mlp()).loss == "mae"


def test_bfloat16_weights_come_back_exactly(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    model = randomise(mlp())
    ticket = saved(ticket_of({"first": [1, 0, 0, 1]}, model), tmp_path, weights=True)
    small = ticket.apply(randomise(mlp(), seed=4), form="compact")
    kernels = [value_of(made.get_layer("first").kernel).astype("float32") for made in (model, small)]
    np.testing.assert_array_equal(kernels[1], kernels[0][:, [0, 3]])


# --- what it says -------------------------------------------------------------------------------------------


def test_kept_positions_are_those_of_the_original_model():
    ticket = ticket_of({"first": [1, 0, 0, 1], "second": [0, 1, 0]})
    assert {name: kept.tolist() for name, kept in ticket.kept.items()} == {"first": [0, 3], "second": [1]}


def test_layers_that_share_channels_are_one_group_and_count_once(tmp_path):
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="a")(inputs)
    x = layers.Add()([x, layers.Dense(4, name="b")(inputs)])
    model = keras.Model(inputs, layers.Dense(2)(x))
    ticket = saved(ticket_of({"b": [0, 1, 0, 0]}, model), tmp_path)
    assert {name: kept.tolist() for name, kept in ticket.kept.items()} == {"a": [1]}
    assert ticket.masks["a"].tolist() == ticket.masks["b"].tolist() == [False, True, False, False]
    assert ticket.ledger == [
        {"round": 1, "asked": None, "achieved": 0.75, "channels_kept": 1, "channels_total": 4},
    ]


def test_scores_are_those_that_decided():
    model = mlp()
    first, second = np.array([[1, -5, 2, 0], [1, 0, 2, 0.5]]), np.array([[1, 0, 0], [9, 9, 9], [0, -3, 1], [7, 0, 7]])
    model.get_layer("first").set_weights([first, np.zeros(4)])
    model.get_layer("second").set_weights([second, np.zeros(3)])
    ticket = Ticket.of(pruned(model))
    assert ticket.scores["first"].tolist() == [2, 5, 4, 0.5]
    # of the four inputs the second layer has lost the first and the last
    assert ticket.scores["second"].tolist() == [9, 12, 10]
    assert ticket.masks["second"].tolist() == [False, True, False]  # half of 3 is 2
    assert ticket.criterion == "l1"


def test_layers_that_were_not_scored_have_no_score():
    ticket = Ticket.of(pruned(mlp(), only=["second"]))
    assert np.isnan(ticket.scores["first"]).all()
    assert not np.isnan(ticket.scores["second"]).any()


def test_masks_set_by_hand_have_no_scores_and_no_criterion():
    masked = pruned(mlp())
    tfprune.set_masks(masked, {"first": np.array([1, 0, 0, 0], bool)})
    ticket = Ticket.of(masked)
    assert (ticket.scores, ticket.criterion, ticket.ledger[0]["asked"]) == ({}, None, None)


def test_random_criterion_notes_its_seed():
    assert Ticket.of(pruned(mlp(), criterion="random", seed=7)).seeds == {"criterion": [7]}
    assert Ticket.of(pruned(mlp())).seeds == {}


def test_id_names_channels_weights_and_parent():
    model = mlp()
    ids = {
        ticket_of({"first": [1, 0, 0, 1]}, model).id,
        ticket_of({"first": [1, 0, 1, 0]}, model).id,
        ticket_of({"first": [1, 0, 0, 1]}, randomise(mlp())).id,
    }
    assert len(ids) == 3
    assert ticket_of({"first": [1, 0, 0, 1]}, model).id in ids


def test_ticket_shows_itself_in_one_line():
    assert repr(ticket_of({"first": [1, 0, 0, 1]})).endswith(": 5 of 7 channels kept, weights: trained>")


# --- found by a callback ------------------------------------------------------------------------------------


def data(seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(32, 2)).astype("float32"), random.normal(size=(32, 2)).astype("float32")


def fit(masked, callback, *others, epochs=6):
    x, y = data()
    masked.fit(x, y, validation_data=data(1), epochs=epochs, callbacks=[*others, callback], verbose=0, shuffle=False)
    return callback.ticket()


def test_callback_gives_the_ticket_with_all_its_rounds(tmp_path):
    masked = tfprune.wrap(mlp(first=20, second=10, compiled=True))
    ticket = fit(masked, LotteryTicket(0.75, rounds=2, rewind="init", seed=5))
    assert_same_masks(ticket.masks, tfprune.get_masks(masked))
    assert [row["asked"] for row in ticket.ledger] == [0, 0.5, 0.75]
    assert [row["channels_kept"] for row in ticket.ledger] == [30, 15, 7]
    assert [row["achieved"] for row in ticket.ledger] == [0, 0.5, 1 - 7 / 30]
    again = saved(ticket, tmp_path)
    assert (again.ledger, again.seeds, again.started) == (ticket.ledger, ticket.seeds, {"weights": "init"})
    assert again.seeds["seed"] == 5
    assert len(again.seeds["criterion"]) == 2
    for row, other in zip(ticket.history, again.history, strict=True):
        assert_same_masks(row["masks"], other["masks"])
        assert row["best"] == other["best"]


def test_weights_of_the_start_and_of_the_epoch_that_is_rewound_to_are_kept_bit_for_bit(tmp_path):
    model, after = mlp(compiled=True), []
    start = [value.copy() for value in model.get_weights()]
    spy = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: after.append([value_of(weight) for weight in rewind.weights_of(masked)])
    )
    masked = tfprune.wrap(model)
    ticket = saved(fit(masked, LotteryTicket(0.5, rewind=2), spy), tmp_path, weights=True)
    assert ticket.started == {"weights": "rewind", "epoch": 2}
    for name, expected in {"init": start, "rewind": after[1]}.items():
        made = ticket.apply(mlp(), weights=name)
        kept = ticket.masks["first"]
        kernel = value_of(made.get_layer("first").layer.kernel)
        np.testing.assert_array_equal(kernel, expected[0] * kept)
    assert ticket.hashes["init"] != ticket.hashes["rewind"]


def test_model_with_the_initial_weights_will_do_where_only_their_hash_is_known(tmp_path):
    model = mlp(compiled=True)
    ticket = saved(fit(tfprune.wrap(model), LotteryTicket(0.5, rewind="init")), tmp_path)
    assert ticket.weights == {}
    assert ticket.hashes["init"] == ticket.hashes["rewind"] != ticket.hashes["trained"]
    small = ticket.apply(model, weights="init", form="compact")
    kernels = [made.get_layer("first").get_weights()[0] for made in (model, small)]
    np.testing.assert_array_equal(kernels[1], kernels[0][:, ticket.kept["first"]])
    with pytest.raises(ValueError, match=r"only the hash of its 'rewind' weights, and model .* has other weights"):
        ticket.apply(mlp(), weights="rewind")
    with pytest.raises(ValueError, match=r"save\(path, weights=\['trained'\]\), or .* weights='given'"):
        ticket.apply(model)


def test_random_weights_of_the_fit_are_drawn_again_from_the_seed_of_the_ticket():
    model = mlp()
    model.compile(keras.optimizers.SGD(0.0), "mse")  # nothing is learnt
    masked = tfprune.wrap(model)
    ticket = fit(masked, LotteryTicket(0.5, rewind="random"))
    assert ticket.started == {"weights": "random", "seed": ticket.seeds["rewind"][-1], "fan": "dense"}
    assert "rewind" not in ticket.hashes
    again = ticket.apply(mlp(), weights="random", seed=ticket.started["seed"])
    assert_same(again.get_weights(), masked.get_weights())


def test_fine_tuned_ticket_knows_nothing_to_rewind_to():
    ticket = fit(tfprune.wrap(mlp(compiled=True)), LotteryTicket(0.5, rewind=None))
    assert ticket.started == {"weights": "trained"}
    with pytest.raises(ValueError, match=r"no 'rewind' weights.*It knows: init, trained"):
        ticket.apply(mlp(), weights="rewind")


def test_gradual_pruning_gives_its_ledger_by_steps():
    masked = tfprune.wrap(mlp(compiled=True))
    callback = GradualPruning(lambda step: (step == 2, 0.5))
    masked.fit(*data(), epochs=3, batch_size=16, callbacks=[callback], verbose=0)
    ticket = Ticket.of(masked, history=callback.history)
    assert ticket.ledger == [{"step": 3, "asked": 0.5, "achieved": 4 / 7, "channels_kept": 3, "channels_total": 7}]
    assert ticket.criterion == "l1"


def test_ticket_of_a_model_that_a_ticket_made_has_it_as_its_parent():
    model = mlp(compiled=True)
    first = ticket_of({"first": [1, 1, 1, 0]}, model)
    masked = first.apply(model, weights="random", seed=3, fan="pruned")
    second = Ticket.of(masked)
    assert second.parent == first.id
    assert second.started == {"weights": "random", "seed": 3, "fan": "pruned"}


def test_callback_without_a_fit_has_no_ticket():
    with pytest.raises(ValueError, match=r"Pass it to fit\(callbacks="):
        LotteryTicket(0.5).ticket()


# --- random weights -----------------------------------------------------------------------------------------


def test_fan_decides_how_large_random_weights_are():
    """He's uniform initializer draws up to sqrt(6 / fan_in): 0.245 of 100 inputs, 0.775 of the 10 that are left."""
    model = mlp(first=100, second=50, kernel_initializer="he_uniform")
    ticket = ticket_of({"first": np.arange(100) < 10}, model)
    limits = {"dense": np.sqrt(6 / 100), "pruned": np.sqrt(6 / 10)}
    for fan, limit in limits.items():
        for form in ("compact", "masked"):
            made = ticket.apply(model, weights="random", fan=fan, form=form, seed=1)
            layer = made.get_layer("second")
            largest = np.abs(value_of(getattr(layer, "layer", layer).kernel)[:10]).max()
            assert 0.95 * limit <= largest <= limit
            assert applied(made) == {"ticket": ticket.id, "form": form, "weights": "random", "seed": 1, "fan": fan}


@pytest.mark.parametrize("fan", ["dense", "pruned"])
def test_both_forms_draw_the_same_random_weights(fan):
    model = attention()
    ticket = Ticket.of(pruned(model))
    small, masked = (
        ticket.apply(model, weights="random", seed=2, fan=fan, form=form) for form in ("compact", "masked")
    )
    assert_same(small.get_weights(), tfprune.shrink(masked).get_weights())
    assert difference(small, ticket.apply(model, weights="random", seed=3, fan=fan), inputs_of(model)) > 1e-3


def test_seed_that_was_not_given_is_told():
    model = mlp()
    ticket = ticket_of({"first": [1, 1, 0, 0]}, model)
    made = ticket.apply(model, weights="random")
    again = ticket.apply(model, weights="random", seed=applied(made)["seed"])
    assert_same(made.get_weights(), again.get_weights())


# --- two tickets --------------------------------------------------------------------------------------------


def test_composed_masks_and_ledger_by_hand():
    model = mlp()
    first = ticket_of({"first": [1, 0, 1, 1], "second": [1, 1, 1]}, model)
    masked = tfprune.wrap(first.apply(model, form="compact"))
    masks = tfprune.compute_masks(masked, 0.5, criterion=lambda group: np.arange(group.channels))
    tfprune.set_masks(masked, masks)
    both = first.compose(Ticket.of(masked))
    # of three channels half are two, of which the last has the highest score
    assert both.masks["first"].tolist() == [False, False, False, True]
    assert both.masks["second"].tolist() == [False, False, True]
    np.testing.assert_array_equal(both.scores["first"], [0, np.nan, 1, 2])
    assert both.ledger == [
        {"round": 1, "asked": None, "achieved": 1 - 6 / 7, "channels_kept": 6, "channels_total": 7},
        {"round": 2, "asked": pytest.approx(4 / 7), "achieved": 1 - 2 / 7, "channels_kept": 2, "channels_total": 7},
    ]
    assert "trained" not in both.hashes


def test_ratios_by_layer_are_told_of_the_full_size_when_composed():
    model = mlp()
    first = ticket_of({"first": [1, 1, 0, 0]}, model)
    both = first.compose(Ticket.of(pruned(first.apply(model, form="compact"), {"first": 0.5})))
    assert both.ledger[-1]["asked"] == {"first": 0.75}


def test_ticket_of_another_small_model_is_refused():
    first = ticket_of({"first": [1, 0, 1, 1]})
    with pytest.raises(ValueError, match="Layer 'first' has 3 channels in this ticket, 4 in the other ticket"):
        first.compose(first)


def test_overlap_by_hand():
    """Two of four at random share 0, 1 or 2 with probabilities 1/6, 4/6, 1/6."""
    np.testing.assert_allclose(hypergeometric(4, 2, 2), [1 / 6, 4 / 6, 1 / 6])
    np.testing.assert_allclose(hypergeometric(3, 2, 2), [0, 2 / 3, 1 / 3], atol=1e-12)
    first = ticket_of({"first": [1, 1, 0, 0], "second": [1, 1, 0]})
    second = ticket_of({"first": [0, 1, 1, 0], "second": [1, 1, 0]})
    table = first.overlap(second).set_index("group")
    row = table.loc["first"]
    assert (row["channels"], row["kept"], row["kept_by_other"], row["shared"]) == (4, 2, 2, 1)
    assert row["jaccard"] == pytest.approx(1 / 3)
    assert row["shared_by_chance"] == pytest.approx(1)
    assert row["jaccard_by_chance"] == pytest.approx(4 / 6 / 3 + 1 / 6)
    assert row["p_value"] == pytest.approx(5 / 6)
    assert table.loc["second", "p_value"] == pytest.approx(1 / 3)
    # both layers: 3 of 4 are shared; more only with all 4, of probability 1/6 x 1/3
    assert table.attrs["shared"] == 3
    assert table.attrs["jaccard"] == pytest.approx(3 / 5)
    assert table.attrs["shared_by_chance"] == pytest.approx(1 + 4 / 3)
    assert table.attrs["p_value"] == pytest.approx(4 / 6 / 3 + 1 / 6)


def test_ticket_overlaps_with_itself_wholly():
    ticket = Ticket.of(pruned(randomise(ZOO["residual"]())))
    table = ticket.overlap(ticket)
    assert (table["jaccard"] == 1).all()
    assert table["group"].is_unique
    assert (table["jaccard_by_chance"] < 1).all()


def test_seeds_of_one_architecture_are_compared_though_keras_numbers_their_layers_differently():
    tickets = []
    for seed in range(2):
        inputs = keras.Input((3,))
        x = layers.Dense(5)(layers.Dense(8)(inputs))
        tickets.append(Ticket.of(pruned(randomise(keras.Model(inputs, layers.Dense(2)(x)), seed))))
    assert set(tickets[0].masks) != set(tickets[1].masks)
    assert tickets[0].overlap(tickets[1])["channels"].tolist() == [8, 5]


def test_overlap_of_other_architectures_is_refused():
    with pytest.raises(ValueError, match="Layer 'second' has 3 channels in this ticket, 5 in the other ticket"):
        ticket_of({}).overlap(ticket_of({}, mlp(second=5)))


# --- the file -----------------------------------------------------------------------------------------------


def test_file_is_readable_without_tfprune_and_without_pickle(tmp_path):
    ticket_of({"first": [1, 0, 0, 1]}).save(tmp_path / "net.ticket")
    with np.load(tmp_path / "net.ticket", allow_pickle=False) as archive:
        assert archive["kept/first"].tolist() == [0, 3]
        header = json.loads(archive["ticket.json"])
    assert header["layers"] == {"first": 4, "second": 3}
    assert header["format"] == 1
    assert not [name for name in archive.files if name.startswith("weights/")]


def test_file_is_small_unless_weights_are_asked_for_and_holds_equal_weights_once(tmp_path):
    masked = tfprune.wrap(mlp(first=300, second=300, compiled=True))
    ticket = fit(masked, LotteryTicket(0.5, rewind="init"))
    sizes = {}
    for weights in (False, ("init",), ("init", "rewind"), True):
        ticket.save(tmp_path / "net.ticket", weights=weights)
        sizes[weights] = os.path.getsize(tmp_path / "net.ticket")
    assert sizes[False] < 20_000
    assert sizes[("init",)] > 300_000
    assert sizes[("init", "rewind")] - sizes[("init",)] < 100
    assert sizes[True] > sizes[("init",)] + 50_000
    assert list(Ticket.load(tmp_path / "net.ticket").weights) == ["init", "rewind", "trained"]


def test_same_ticket_gives_the_same_file(tmp_path):
    ticket = ticket_of({"first": [1, 0, 0, 1]})
    for name in ("one", "other"):
        ticket.save(tmp_path / name, weights=True)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_loaded_ticket_is_saved_and_loaded_again(tmp_path):
    ticket = saved(Ticket.of(pruned(mlp(), only=["second"])), tmp_path, weights=True)
    again = saved(ticket, tmp_path, weights=True)
    assert again.id == ticket.id
    assert_same_masks(again.scores, ticket.scores)
    assert_same(again.weights["trained"].values(), ticket.weights["trained"].values())


def test_file_that_could_not_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "net.ticket"
    ticket_of({"first": [1, 0, 0, 1]}).save(path)
    before = path.read_bytes()

    def full_disk(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    with pytest.raises(OSError, match="no space left"):
        ticket_of({"first": [1, 0, 0, 0]}).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.ticket"]


def rewritten(path, entry, content):
    """The same zip file with another entry in place of one."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, old in entries.items():
            archive.writestr(name, content(old) if name == entry else old)


def test_what_is_no_ticket_is_refused(tmp_path):
    (tmp_path / "text").write_text("not a zip file")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="is no ticket, or it is damaged"):
        Ticket.load(tmp_path / "text")
    with pytest.raises(ValueError, match="is no ticket, but a zip file of something else"):
        Ticket.load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        Ticket.load(tmp_path / "missing")


def test_damaged_and_newer_files_are_refused(tmp_path):
    path = tmp_path / "net.ticket"
    ticket_of({"first": [1, 0, 0, 1]}).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        Ticket.load(path)
    path.write_bytes(whole)
    rewritten(path, "ticket.json", lambda text: text.replace(b'"parent": null', b'"parent": "x"'))
    with pytest.raises(ValueError, match="is damaged: its channels or hashes are not those"):
        Ticket.load(path)
    path.write_bytes(whole)
    rewritten(path, "ticket.json", lambda text: text.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(ValueError, match=r"in format 2; this version reads format 1\. Update tfprune"):
        Ticket.load(path)


def test_weights_that_are_not_there_cannot_be_saved(tmp_path):
    ticket = ticket_of({})
    for wrong in (["init"], "trained"):
        with pytest.raises(ValueError, match=r"a bool or a list from \['trained'\]\. Received"):
            ticket.save(tmp_path / "net.ticket", weights=wrong)


# --- refusals -----------------------------------------------------------------------------------------------


def test_model_that_the_ticket_does_not_fit_is_refused_with_the_first_difference():
    ticket = ticket_of({"first": [1, 0, 0, 1]})
    with pytest.raises(ValueError, match=r"Layer 'second' has 3 channels in this ticket, 6 in model"):
        ticket.apply(mlp(second=6))
    other = keras.Sequential([keras.Input((2,)), layers.Dense(4, name="first"), layers.Dense(2, name="logits")])
    with pytest.raises(ValueError, match=r"Layer 'second' of the ticket is missing in what can be pruned of model"):
        ticket.apply(other)
    with pytest.raises(ValueError, match=r"Layer 'second' of what can be pruned of model .* is missing in the ticket"):
        ticket_of({}, other).apply(mlp())


def test_stored_weights_that_do_not_fit_are_refused():
    ticket = ticket_of({})
    with pytest.raises(ValueError, match=r"Weight 'first/0' has shape \(7, 4\) in model .*, \(2, 4\) in the ticket"):
        ticket.apply(mlp(inputs=7))


def test_small_model_of_another_ticket_cannot_be_expanded():
    model = mlp()
    small = ticket_of({"first": [1, 0, 0, 0]}, model).apply(model, form="compact")
    with pytest.raises(ValueError, match=r"Weight 'first/0' has shape \(2, 2\) in model .*, \(2, 1\) in the small"):
        ticket_of({"first": [1, 0, 0, 1]}, model).expand(small, model)


def test_small_model_of_other_layers_cannot_be_expanded():
    model = randomise(mlp())
    ticket = ticket_of({"first": [1, 0, 0, 1]}, model)
    small = ticket.apply(model, form="compact")
    small.get_layer("first").activation = keras.activations.tanh
    with pytest.raises(ValueError, match="computes something else than"):
        ticket.expand(small, model)


def test_expanding_leaves_the_report_of_the_small_model_alone():
    masked = pruned(mlp(), 0.25)
    small = tfprune.shrink(masked)
    Ticket.of(masked).expand(small, mlp())
    assert tfprune.ticket_report(small)["ratio_asked"] == 0.25


def test_wrong_choices_are_refused():
    model = mlp()
    ticket = ticket_of({}, model)
    with pytest.raises(ValueError, match="weights must be one of 'trained', 'init', 'rewind', 'random', 'given'"):
        ticket.apply(model, weights="lucky")
    with pytest.raises(ValueError, match="form must be one of 'masked', 'compact'"):
        ticket.apply(model, form="small")
    with pytest.raises(ValueError, match=r"seed and fan are for weights='random'\. Received: weights='trained'"):
        ticket.apply(model, fan="pruned")
    with pytest.raises(ValueError, match="has masks already"):
        ticket.apply(tfprune.wrap(model))
    with pytest.raises(ValueError, match=r"Ticket\.of needs a model with channel masks"):
        Ticket.of(model)
