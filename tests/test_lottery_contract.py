"""Is a lottery ticket what it says? Each bug here was found in public code; it is put in, and has to be noticed."""

import itertools
import math
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from zoo import ZOO, randomise

import tfprune
from tfprune import metrics
from tfprune.callbacks import GradualPruning, LotteryTicket, lottery
from tfprune.pruning import contract, criteria, masks, rewind, surgery
from tfprune.pruning.contract import ContractError
from tfprune.pruning.strategies import Strategy
from tfprune.structure.replay import value_of
from tfprune.study.compiled import train_round
from tfprune.study.trial import Recipe


def data(seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(32, 4)).astype("float32")
    return x, (x[:, 0] * x[:, 1] > 0).astype("int32")


def model(optimizer="adam", **options):
    keras.utils.set_random_seed(7)
    built = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, name="hidden", **options),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Dense(6, activation="relu", name="second", **options),
            layers.Dense(2, name="out"),
        ]
    )
    built.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return built


class Losses(keras.callbacks.Callback):
    """Puts values that fall (or rise) in the place of val_loss: the last (first) epoch of a round is its best."""

    def __init__(self, sign=-1):
        super().__init__()
        self.sign = sign

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.sign * float(epoch)


def fit(ticket, *others, masked=None, sign=-1, epochs=2):
    """Two epochs of two steps each round."""
    masked = tfprune.wrap(model()) if masked is None else masked
    ticket.epochs_per_round = epochs
    every = epochs * (ticket.rounds + 1)
    masked.fit(
        *data(), batch_size=16, epochs=every, callbacks=[Losses(sign), *others, ticket], verbose=0, shuffle=False
    )
    return masked


def in_fit(strategy):
    fit(LotteryTicket(0.5, rounds=strategy.rounds, rewind=strategy.rewind, patience=9, seed=1))


def shrinking(strategy):
    options = {"validation_data": data(1), "epochs_per_round": 2, "patience": 9, "verbose": 0, "batch_size": 16}
    tfprune.find_ticket(model(), data(), strategy, 0.5, shrink_between_rounds=True, seed=1, **options)


def compiled(strategy):
    ticket = LotteryTicket(0.5, strategy.rounds, strategy.rewind, patience=9, epochs_per_round=2, seed=1)
    masked, splits = tfprune.wrap(model()), types.SimpleNamespace(train=data(), validation=data(1))
    ticket.begin(masked)
    for number in range(ticket.rounds + 1):
        if number:
            ticket.prune_and_rewind(masked, number)
        keep = {"keep_optimizer": ticket.rewind is None}
        trained = train_round(masked, splits, Recipe(epochs=2, patience=9), 1, number, **keep)
        ticket.record(number, trained, tfprune.get_masks(masked))


PATHS = [in_fit, shrinking, compiled]


def two_rounds(rewind_to="init"):
    return Strategy("two", 2, rewind_to)


# Rewinding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("rewind_to", ["init", "random", "learning_rate", None])
def test_honest_code_keeps_the_contract(path, rewind_to):
    path(two_rounds(rewind_to))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("rewind_to", ["init", "random"])
def test_weights_that_are_not_reset_between_rounds_are_noticed(path, rewind_to, monkeypatch):
    """As in Synaptic-Flow, whose README says so."""
    monkeypatch.setattr(rewind.Snapshot, "restore", lambda self: None)
    with pytest.raises(ContractError, match=r"were not put back as they were: \d+ of \d+ variables differ"):
        path(two_rounds(rewind_to))


@pytest.mark.parametrize("path", PATHS)
def test_weights_kept_by_reference_are_noticed(path, monkeypatch):
    """As in LotteryTicketPruning, where "best weights" and initial ones were no copies."""

    def take(self, model, optimizer=True):
        variables = rewind.weights_of(model) + (rewind.optimizer_variables(model) if optimizer else [])
        self.values = [(variable, variable) for variable in variables]

    monkeypatch.setattr(rewind.Snapshot, "__init__", take)
    with pytest.raises(ContractError, match="were not put back as they were"):
        path(two_rounds())


def test_best_weights_that_are_not_restored_are_noticed(monkeypatch):
    monkeypatch.setattr(rewind.Snapshot, "restore", lambda self: None)
    with pytest.raises(ContractError, match=r"The best weights of the round \(epoch 1\) were not put back"):
        fit(LotteryTicket(0.5, rounds=0, patience=9), sign=+1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("forgets", "named"),
    [
        (lambda weight: "kernel" not in weight.path, "hidden/bias"),
        (lambda weight: "moving" in weight.path, "norm/moving_mean"),
    ],
    ids=["all but kernels", "statistics"],
)
def test_rewinding_kernels_only_is_noticed(path, forgets, named, monkeypatch):
    """As in PQuantML: BatchNormalization statistics, biases and optimizer were left as trained."""
    original = rewind.weights_of
    monkeypatch.setattr(rewind, "weights_of", lambda model: [w for w in original(model) if not forgets(w)])
    with pytest.raises(ContractError, match=rf"were not put back.*'{named}'"):
        path(two_rounds())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("forgotten", ["momentum", "iteration", "learning_rate"])
def test_optimizer_that_is_not_rewound_is_noticed(path, forgotten, monkeypatch):
    take, prune = rewind.Snapshot.__init__, lottery.prune

    def forgetful(self, model, optimizer=True):
        take(self, model, optimizer)
        self.values = [(variable, value) for variable, value in self.values if forgotten not in variable.path]

    def lower_the_rate(masked, *args, **selection):
        masked.optimizer.learning_rate = 1e-4
        prune(masked, *args, **selection)

    monkeypatch.setattr(rewind.Snapshot, "__init__", forgetful)
    monkeypatch.setattr(lottery, "prune", lower_the_rate)
    with pytest.raises(ContractError, match=f"The values to rewind to in round 1 were not put back.*{forgotten}"):
        path(two_rounds())


@pytest.mark.parametrize(
    ("forgotten", "named"),
    [
        ("iteration", "The values to rewind to in round 1 were not put back.*iteration"),
        ("hidden/bias", "The values to rewind to in round 1 were not put back.*'hidden/bias'"),
        ("momentum", "entries of kept channels in '.*momentum.*' are not what they were to go back to in round 1"),
    ],
)
def test_learning_rate_rewinding_that_forgets_something_is_noticed(forgotten, named, monkeypatch):
    restarted, prune = rewind.restarted, lottery.prune

    def forgetful(masked, start):
        found = restarted(masked, start)
        found.restore = lambda: [v.assign(value) for v, value in found.values if forgotten not in v.path]
        return found

    def spoil(masked, *args, **selection):
        prune(masked, *args, **selection)
        masked.get_layer("hidden").layer.bias.assign_add(np.ones(8))

    monkeypatch.setattr(rewind, "restarted", forgetful)
    monkeypatch.setattr(lottery, "prune", spoil)
    with pytest.raises(ContractError, match=named):
        in_fit(two_rounds("learning_rate"))


@pytest.mark.parametrize("path", PATHS)
def test_random_weights_that_are_the_initial_ones_are_noticed(path, monkeypatch):
    """As in Synaptic-Flow, whose shuffle() rebinds a local name: the control is the ticket itself."""

    def shuffle(model, seed):
        for weight in model.trainable_weights:
            values = value_of(weight)
            values = np.random.default_rng(seed).permutation(values.ravel()).reshape(values.shape)  # never assigned

    monkeypatch.setattr(rewind, "randomise", shuffle)
    with pytest.raises(ContractError, match=r"kept entries of layer 'hidden' are those of the start in round 1"):
        path(two_rounds("random"))


def test_a_single_layer_that_is_not_drawn_anew_is_noticed(monkeypatch):
    original = rewind.randomise

    def forgetful(model, seed):
        kernel = model.get_layer("out").layer.kernel
        before = value_of(kernel)
        original(model, seed)
        kernel.assign(before)

    monkeypatch.setattr(rewind, "randomise", forgetful)
    with pytest.raises(ContractError, match=r"All \d+ kept entries of layer 'out' are those of the start"):
        fit(LotteryTicket(0.5, rewind="random"))


def test_random_weights_with_a_frozen_layer_keep_it(monkeypatch):
    network = model()
    network.get_layer("hidden").trainable = False
    network.compile("sgd", "sparse_categorical_crossentropy")
    before = network.get_layer("hidden").get_weights()
    masked = fit(LotteryTicket(0.5, rewind="random"), masked=tfprune.wrap(network))
    for old, new in zip(before, masked.get_layer("hidden").layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    masked = tfprune.wrap(network)
    original = rewind.randomise

    def thorough(masked, seed):
        original(masked, seed)
        masked.get_layer("hidden").layer.kernel.assign(before[0] + 1)

    monkeypatch.setattr(rewind, "randomise", thorough)
    with pytest.raises(ContractError, match="entries of kept channels in 'hidden/kernel' are not what they were"):
        fit(LotteryTicket(0.5, rewind="random"), masked=masked)


def test_pruning_that_touches_kept_weights_is_noticed(monkeypatch):
    original = rewind.clear_pruned

    def clumsy(entries, optimizer=None):
        starts = original(entries, optimizer)
        for variable, keep in entries.values():
            variable.assign(value_of(variable) + 1e-7 * keep)
        return starts

    monkeypatch.setattr(rewind, "clear_pruned", clumsy)
    for rewind_to in ("init", None):
        with pytest.raises(ContractError, match=r"entries of kept channels in 'hidden/kernel'.*in round 1"):
            fit(LotteryTicket(0.5, rewind=rewind_to))


def test_random_weights_do_not_remember_the_initial_ones_in_an_optimizer_slot():
    """ScheduleFreeAdamW keeps a copy of the weights, which pulls them back to where the copy was taken."""
    if not hasattr(keras.optimizers, "ScheduleFreeAdamW"):
        pytest.skip("this Keras has no ScheduleFreeAdamW")
    masked = tfprune.wrap(model(keras.optimizers.ScheduleFreeAdamW(0.01)))
    ticket = LotteryTicket(0.5, rewind="random", epochs_per_round=2)
    ticket.begin(masked)
    ticket.prune_and_rewind(masked, 1)
    kernel = masked.get_layer("hidden").layer.kernel
    copies = [slot for variable, slot in rewind.slots(masked.optimizer) if variable is kernel]
    assert any(np.array_equal(value_of(copy), value_of(kernel)) for copy in copies)


# Masks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_masks_that_forget_the_last_round_are_noticed(path, monkeypatch):
    """As in KD_Lib, where no mask is kept and what was pruned grows back."""
    original = masks.compute_masks

    def forgetful(masked, ratio, **selection):
        tfprune.set_masks(masked, {name: mask | True for name, mask in tfprune.get_masks(masked).items()})
        return original(masked, ratio, **{**selection, "criterion": "random"})

    monkeypatch.setattr(masks, "compute_masks", forgetful)
    with pytest.raises(ContractError, match=r"channels of layer '\w+' that were pruned came back in round 2"):
        path(two_rounds())


@pytest.mark.parametrize("path", PATHS)
def test_masks_that_are_computed_but_not_kept_are_noticed(path, monkeypatch):
    monkeypatch.setattr(masks, "set_masks", lambda masked, masks: None)
    with pytest.raises(ContractError, match="8 channels of layer 'hidden' are kept in round 1, but 6 were asked for"):
        path(two_rounds())


def test_threshold_that_drops_one_channel_more_is_noticed(monkeypatch):
    """As in open_lth's sparse_global: `>` at the n-th score removes n + 1, and all that tie with it."""

    def above(graph, group, scores, count, keep):
        keep = keep.copy()
        keep[group.units] = scores > np.sort(scores)[-count]
        return keep

    monkeypatch.setattr(masks, "keep_best", above)
    for scope in ("layer", "global"):
        with pytest.raises(ContractError, match=r"\d+ channels of .* are kept in round 1, but \d+ were asked for"):
            fit(LotteryTicket(0.5, scope=scope))


def test_exact_count_with_ties():
    masked = tfprune.wrap(model())
    masked.get_layer("hidden").layer.kernel.assign(np.ones((4, 8)))
    assert int(tfprune.compute_masks(masked, 0.5)["hidden"].sum()) == 4


def test_random_control_with_other_counts_is_noticed(monkeypatch):
    """As in open_lth's randomly_prune: a control with other layer sizes compares nothing."""

    class Uneven(criteria.Random):
        def __call__(self, group):
            return super().__call__(group) if group.name == "hidden" else np.zeros(group.channels)

    original = masks.keep_best

    def uneven(graph, group, scores, count, keep):
        return original(graph, group, scores, count - (not scores.any()), keep)

    monkeypatch.setitem(criteria.CRITERIA, "random", Uneven)
    monkeypatch.setattr(masks, "keep_best", uneven)
    with pytest.raises(ContractError, match="2 channels of layer 'second' are kept in round 1, but 3 were asked for"):
        fit(LotteryTicket(0.5, criterion="random"))


def test_random_control_prunes_as_many_channels_of_each_layer_but_others():
    masked = tfprune.wrap(model())
    best = tfprune.compute_masks(masked, 0.5)
    drawn = [tfprune.compute_masks(masked, 0.5, criterion="random", seed=seed) for seed in range(5)]
    for found in drawn:
        assert {name: mask.sum() for name, mask in found.items()} == {name: mask.sum() for name, mask in best.items()}
    assert len({found["hidden"].tobytes() for found in drawn} | {best["hidden"].tobytes()}) > 3


@pytest.mark.parametrize("name", ["mlp_relu", "lenet_relu", "residual", "concatenated", "depthwise"])
@pytest.mark.parametrize(
    "selection",
    [
        {},
        {"round_to": 4},
        {"scope": "global"},
        {"scope": "global", "round_to": 3},
        {"criterion": "random", "seed": 0},
    ],
    ids=str,
)
def test_masks_as_asked_pass_the_check(name, selection):
    masked = tfprune.wrap(randomise(ZOO[name]()), verify=False)
    graph = masks.graph_of(masked)
    first = graph.prunable[0].name
    for ratio in (0.0, 0.3, {first: 0.5}, 0.62, 0.99):
        if isinstance(ratio, dict) and selection.get("scope") == "global":
            continue
        for spared in ({}, {"ignore": [first]}, {"only": [first]}):
            if "ignore" in spared and (len(graph.prunable) == 1 or isinstance(ratio, dict)):
                continue  # nothing would be left to prune
            lottery.prune(masked, ratio, "here", **selection, **spared)


# What is pruned -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_pruned_weights_that_are_not_cleared_are_noticed(path, monkeypatch):
    monkeypatch.setattr(rewind, "clear_pruned", lambda entries, optimizer=None: [])
    with pytest.raises(ContractError, match=r"pruned entries of 'hidden/kernel' are not 0 in round 1, after pruning"):
        path(two_rounds())


@pytest.mark.parametrize("path", PATHS)
def test_momentum_of_pruned_channels_that_stays_is_noticed(path, monkeypatch):
    original = rewind.clear_pruned
    monkeypatch.setattr(rewind, "clear_pruned", lambda entries, optimizer=None: original(entries))
    with pytest.raises(ContractError, match="slots of pruned channels were not cleared in round 1"):
        path(two_rounds(None))
    monkeypatch.setattr(
        rewind, "clear_pruned", lambda entries, optimizer=None: [original(entries), rewind.slot_starts(optimizer)][1]
    )
    with pytest.raises(ContractError, match=r"hidden_kernel_momentum' still remember pruned channels in round 1"):
        path(two_rounds(None))


class DenseBetweenEpochs(keras.callbacks.Callback):
    """Lays the masks on at the end of an epoch only; in between, all channels are trained."""

    def on_epoch_begin(self, epoch, logs=None):
        self.masks = tfprune.get_masks(self.model)
        tfprune.set_masks(self.model, {name: mask | True for name, mask in self.masks.items()})

    def on_epoch_end(self, epoch, logs=None):
        tfprune.set_masks(self.model, self.masks)
        graph = masks.graph_of(self.model)
        rewind.clear_pruned(surgery.kept_entries(graph, graph.kept()), self.model.optimizer)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_masks_at_the_ends_of_epochs_only_are_noticed(optimizer):
    """As in jim-meyer's callback: what is called 99 % sparse is dense training."""
    masked = tfprune.wrap(model(optimizer))
    with pytest.raises(ContractError, match=r"mask '\w+' of layer 'hidden' changed in round 1, after the first step"):
        fit(LotteryTicket(0.5, patience=9), DenseBetweenEpochs(), masked=masked)


class PutsBack(keras.callbacks.Callback):
    """Keeps the model's weights of the first epoch, masks included, and sets them again later."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.kept = self.model.get_weights()
        if epoch == 3:
            self.model.set_weights(self.kept)


def test_old_masks_that_another_callback_puts_back_are_noticed():
    with pytest.raises(ContractError, match=r"mask '\w+' of layer '\w+' changed in round 1, at the end of epoch 4"):
        fit(LotteryTicket(0.5, patience=9), PutsBack())


def test_old_weights_that_another_callback_puts_back_are_noticed():
    class KeepsMasks(PutsBack):
        def on_epoch_end(self, epoch, logs=None):
            found = tfprune.get_masks(self.model)
            super().on_epoch_end(epoch, logs)
            tfprune.set_masks(self.model, found)

    with pytest.raises(ContractError, match=r"pruned entries of 'hidden/kernel' are not 0 in round 1, at the end of"):
        fit(LotteryTicket(0.5, patience=9), KeepsMasks())


@keras.saving.register_keras_serializable("tests")
class Centred(keras.constraints.Constraint):
    """Moves weights that get no gradient: it takes off the mean of the others."""

    def __call__(self, w):
        return w - keras.ops.mean(w)


def test_constraint_that_moves_pruned_weights_is_noticed():
    masked = tfprune.wrap(model(kernel_constraint=Centred()))
    with pytest.raises(ContractError, match=r"'hidden/kernel' are not 0 in round 1.*a constraint or a callback moves"):
        fit(LotteryTicket(0.5, patience=9), masked=masked)


def spectral():
    built = keras.Sequential(
        [
            keras.Input((4,)),
            layers.SpectralNormalization(layers.Dense(8, activation="relu"), name="hidden"),
            layers.SpectralNormalization(layers.Dense(6, activation="relu"), name="second"),
            layers.Dense(2, name="out"),
        ]
    )
    built.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return built


def several_optimizers():
    parts = keras.optimizers
    if not hasattr(parts, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    return model(parts.MultiOptimizer(parts.OptimizerMap(parts.SGD(0.05, momentum=0.9))))


@pytest.mark.parametrize(
    "build",
    [
        lambda: model(keras.optimizers.AdamW(0.05, weight_decay=0.1)),
        lambda: model(keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.1, clipnorm=0.1)),
        lambda: model(keras.optimizers.Adam(0.05, gradient_accumulation_steps=2)),
        lambda: model(kernel_regularizer=keras.regularizers.L1L2(0.1, 0.1)),
        lambda: model(kernel_regularizer=keras.regularizers.OrthogonalRegularizer(mode="columns")),
        lambda: model(kernel_constraint=keras.constraints.MaxNorm(0.1)),
        lambda: model(kernel_constraint=keras.constraints.UnitNorm(axis=0)),
        lambda: model(kernel_constraint=keras.constraints.MinMaxNorm(0.5, 1.0)),
        lambda: model(kernel_constraint=keras.constraints.NonNeg()),
        spectral,
        several_optimizers,
    ],
    ids=["AdamW", "decay clipnorm", "accumulation", "L1L2", "Orthogonal", "MaxNorm", "UnitNorm", "MinMaxNorm", "NonNeg",
         "Spectral", "MultiOptimizer"],
)  # fmt: skip
def test_what_keras_does_to_weights_leaves_pruned_ones_zero(build):
    masked = fit(LotteryTicket(0.6, rounds=2, rewind=None, patience=9), masked=tfprune.wrap(build()))
    graph = masks.graph_of(masked)
    entries = surgery.kept_entries(graph, graph.kept())
    assert sum((~keep).sum() for variable, keep in entries.values() if variable.trainable) > 30
    for variable, keep in entries.values():
        if variable.trainable:
            assert not value_of(variable)[~keep].any(), variable.path


def test_epoch_that_diverged_breaks_no_promise():
    """NaN times a mask's zero is NaN: that is no weight that moved, and the best epoch is restored."""

    def diverge(epoch, logs=None):
        if epoch == 3:
            masked.get_layer("out").layer.bias.assign([np.nan, 0.0])

    masked, ticket = tfprune.wrap(model()), LotteryTicket(0.5, patience=9, epochs_per_round=2)
    spoiler = keras.callbacks.LambdaCallback(on_epoch_begin=diverge)
    masked.fit(*data(), validation_data=data(1), epochs=4, callbacks=[spoiler, ticket], verbose=0)
    assert ticket.finished
    assert ticket.history[1]["early_stop_epoch"] == 1
    assert np.isfinite(masked.evaluate(*data(1), verbose=0))


def test_averages_of_weights_are_refused():
    """Keras would put them in the place of the best weights after the last round has ended."""
    optimizers = [keras.optimizers.Adam(use_ema=True), keras.optimizers.SGD(use_ema=True, ema_overwrite_frequency=2)]
    for optimizer in optimizers:
        with pytest.raises(ValueError, match=r"Received: an optimizer with use_ema=True\. Compile the model without"):
            fit(LotteryTicket(0.5), masked=tfprune.wrap(model(optimizer)))


def test_model_that_has_masks_already_is_cleared_and_prunes_on():
    masked = tfprune.wrap(model("sgd"))
    tfprune.set_masks(masked, {"hidden": np.arange(8) > 2})
    ticket = LotteryTicket(0.5, patience=9)
    fit(ticket, masked=masked)
    assert not ticket.history[0]["masks"]["hidden"][:3].any()
    assert int(tfprune.get_masks(masked)["hidden"].sum()) == 4


@pytest.mark.parametrize("bug", ["masks", "weights"])
def test_gradual_pruning_keeps_the_contract_too(bug):
    def spoil(epoch, logs):
        layer = masked.get_layer("hidden")
        if epoch == 1 and bug == "masks":
            tfprune.set_masks(masked, {"hidden": np.ones(8, bool)})
        if epoch == 1 and bug == "weights":
            layer.layer.kernel.assign(np.ones((4, 8)))

    masked = tfprune.wrap(model())
    gradual = GradualPruning(lambda step: (step == 1, 0.5))
    masked.fit(*data(), batch_size=16, epochs=1, callbacks=[gradual], verbose=0)
    spoiler = keras.callbacks.LambdaCallback(on_epoch_end=spoil)
    with pytest.raises(ContractError, match=r"since step 2|before the first pruning"):
        masked.fit(*data(), batch_size=16, epochs=3, callbacks=[spoiler, gradual], verbose=0)


# What is promised ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rewind_to", "words"),
    [
        ("init", "rewound, enforced: bit-equal to those at the start of the fit"),
        ("random", "drawn anew at the dense size, enforced: in each layer drawn at random they differ"),
        (None, "kept, enforced: bit-equal to the best epoch of the round"),
        ("learning_rate", "kept, enforced: bit-equal to the best epoch of the round"),
        (3, "rewound, enforced: bit-equal to those after epoch 3"),
    ],
)
def test_contract_tells_a_user_what_is_enforced(rewind_to, words):
    found = LotteryTicket(0.5, rewind=rewind_to).contract
    assert found["kept weights"].startswith(words)
    assert {"masks", "pruned channels", "best weights", "optimizer", "data order", "random generators"} <= found.keys()
    known = ("enforced", "rewound", "kept, enforced", "drawn anew", "not rewound: ", "as in a new model")
    assert all(line.startswith(known) for line in found.values())
    assert found["data order"].startswith("not rewound: it belongs to fit")


def test_random_generators_go_on_as_the_contract_says():
    network = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dropout(0.5), layers.Dense(2)])
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    masked = tfprune.wrap(network)
    state = next(layer for layer in masked.layers if isinstance(layer, layers.Dropout)).seed_generator.state
    before = value_of(state)
    fit(LotteryTicket(0.5, patience=9), masked=masked)
    assert LotteryTicket(0.5).contract["random generators"].startswith("not rewound")
    assert not np.array_equal(before, value_of(state))


def test_checksum_tells_any_bit_of_any_dtype():
    for dtype in ("float32", "float16", "bfloat16", "int32"):
        variable = keras.Variable([[0, 1], [2, 3]], dtype=dtype)
        holder = type("Model", (), {"layers": [], "weights": [variable], "optimizer": None})()
        seal = contract.Seal(holder)
        seal.check("They")
        variable.assign([[0, 1], [3, 2]])
        with pytest.raises(ContractError, match="They were not put back as they were: 1 of 1 variables differ"):
            seal.check("They")


# Scores: which weights belong to which channel ----------------------------------------------------------------------


def sized(layer, path, axis, sizes):
    """Gives the weights of channel i the absolute size sizes[i], with mixed signs."""
    weight = surgery.roles.part(layer, path)
    shape = [-1 if index == axis % len(weight.shape) else 1 for index in range(len(weight.shape))]
    signs = np.where(np.arange(math.prod(weight.shape)) % 3, 1.0, -1.0).reshape(weight.shape)
    weight.assign(signs * np.asarray(sizes, "float32").reshape(shape))


KNOWN = {
    "dense": (lambda: layers.Dense(5, name="made"), (3,), "kernel", -1),
    "conv": (lambda: layers.Conv2D(5, (2, 3), name="made"), (4, 4, 3), "kernel", -1),
    "transposed": (lambda: layers.Conv2DTranspose(5, (2, 3), name="made"), (4, 4, 3), "kernel", -2),
    "separable": (lambda: layers.SeparableConv2D(5, 3, name="made"), (4, 4, 3), "pointwise_kernel", -1),
    "one axis": (lambda: layers.Conv1D(5, 2, name="made"), (4, 3), "kernel", -1),
}


def scores_of(name):
    """The l1 scores of five channels whose weights have the sizes 2, 5, 1, 4, 3, in units of the smallest."""
    build, shape, path, axis = KNOWN[name]
    made = build()
    network = keras.Sequential([keras.Input(shape), made, layers.Flatten(), layers.Dense(2, name="out")])
    sized(made, path, axis, [2, 5, 1, 4, 3])
    graph = masks.graph_of(tfprune.wrap(network))
    scores = criteria.l1(masks.describe(graph, graph.prunable[0], np.ones(graph.num_units, bool)))
    return (scores / scores.min()).tolist()


@pytest.mark.parametrize("name", KNOWN)
def test_l1_scores_belong_to_the_channel_that_the_weights_make(name, monkeypatch):
    assert scores_of(name) == pytest.approx([2, 5, 1, 4, 3])
    # As in Structure-LTH: rows cut without bringing the channels to the front first.
    scrambled = lambda weight, axis, group, units: np.asarray(weight).reshape(len(units), -1)  # noqa: E731
    monkeypatch.setattr(masks, "_rows", scrambled)
    assert scores_of(name) != pytest.approx([2, 5, 1, 4, 3])


def test_l1_of_a_depthwise_convolution_counts_all_copies_of_a_channel():
    network = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 1, use_bias=False, name="conv"),
            layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise"),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ]
    )
    sized(network.get_layer("conv"), "kernel", -1, [2, 3, 1])
    graph = masks.graph_of(tfprune.wrap(network))
    seen = masks.describe(graph, graph.prunable[0], np.ones(graph.num_units, bool))
    assert criteria.l1(seen).tolist() == [4.0, 6.0, 2.0], "two inputs each"


def test_l1_behind_flatten_leaves_out_all_rows_of_a_pruned_channel():
    network = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            layers.Conv2D(3, 1, use_bias=False, name="conv"),
            layers.Flatten(),
            layers.Dense(2, use_bias=False, name="dense"),
            layers.Dense(2, name="out"),
        ]
    )
    sized(network.get_layer("conv"), "kernel", -1, [3, 1, 2])  # channel 1 goes: rows 1, 4, 7 and 10
    kernel = np.zeros((12, 2))
    kernel[[1, 4, 7, 10], 0] = 9
    kernel[[0, 11], 1] = 1
    network.get_layer("dense").kernel.assign(kernel)
    found = tfprune.compute_masks(tfprune.wrap(network), {"conv": 1 / 3, "dense": 0.5})
    assert found["conv"].tolist() == [True, False, True]
    assert found["dense"].tolist() == [False, True]


def test_l1_takes_absolute_values(monkeypatch):
    """kisonho's GlobalL1Unstructured ranks signed weights: the most negative go, not the smallest."""

    def kept():
        network = keras.Sequential([keras.Input((1,)), layers.Dense(4, name="made"), layers.Dense(2)])
        network.get_layer("made").kernel.assign([[-9.0, 1.0, 2.0, -3.0]])
        return tfprune.compute_masks(tfprune.wrap(network), 0.5)["made"].tolist()

    assert kept() == [True, False, False, True]
    monkeypatch.setitem(criteria.CRITERIA, "l1", lambda group: sum(part.sum(axis=1) for part in group.incoming))
    assert kept() == [False, True, True, False]


# Seeds, history, bins -----------------------------------------------------------------------------------------------


def drawn(seed):
    ticket = LotteryTicket(0.5, rewind="random", criterion="random", seed=seed)
    masked = tfprune.wrap(model())
    ticket.begin(masked)
    ticket.prune_and_rewind(masked, 1)
    return np.concatenate([value_of(weight).ravel() for weight in masked.weights])


def test_seed_0_is_a_seed(monkeypatch):
    """Structure-LTH asks `if args.seed:`, and leaves seed 0 unseeded."""
    assert np.array_equal(drawn(0), drawn(0))
    assert not np.array_equal(drawn(0), drawn(1))
    assert not np.array_equal(drawn(None), drawn(None))
    original = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed=None: original(seed or None))
    assert not np.array_equal(drawn(0), drawn(0)), "with that bug the first line of this test fails"


def test_seed_0_of_the_random_criterion():
    masked = tfprune.wrap(model())
    first, again = (tfprune.compute_masks(masked, 0.5, criterion="random", seed=0) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    others = [tfprune.compute_masks(masked, 0.5, criterion="random")["hidden"].tobytes() for _ in range(20)]
    assert len(set(others)) > 1


@pytest.mark.parametrize("shrink", [False, True])
def test_nothing_is_missing_from_what_is_returned(shrink):
    """open_lth computes its outputs and forgets to return them."""
    options = {"validation_data": data(1), "epochs_per_round": 1, "verbose": 0, "shrink_between_rounds": shrink}
    found = tfprune.find_ticket(model(), data(), two_rounds(), ratio=0.5, **options)
    assert isinstance(found.model, keras.Model)
    assert isinstance(found.masked, keras.Model)
    assert [row["round"] for row in found.history] == [0, 1, 2]
    keys = {"round", "ratio", "epochs", "early_stop_epoch", "best", "masks", "channels_kept", "channels_total"}
    for row in found.history:
        assert keys <= row.keys()
        assert not any(value is None for value in row.values())
    for name, mask in found.history[-1]["masks"].items():
        np.testing.assert_array_equal(mask, found.masks[name])


def test_fifteen_bins_are_fifteen_and_lose_nothing():
    """LTH-Pass takes linspace(0, 1, 15) for the edges of 15 bins: they are 14, and 1 + rounding falls out."""
    confidence = np.linspace(0.5, 1.0, 101)
    confidence[-1] += 1e-7
    probabilities, labels = np.stack([confidence, 1 - confidence], axis=1), (np.arange(101) % 3 == 0).astype(int)
    table = metrics.reliability_table(probabilities, labels)
    assert [len(table[column]) for column in ("count", "confidence", "accuracy")] == [15, 15, 15]
    assert sum(table["count"]) == 101
    assert table["count"][-1] == 14, "0.935, 0.94 ... 1.0 and what rounding made of it"

    def error(edges):
        total = 0.0
        for low, high in itertools.pairwise(edges):
            inside = (confidence >= low) & ((confidence < high) | (high == 1))
            gap = confidence[inside] - (labels[inside] == 0)
            total += abs(gap.sum()) / 101
        return total

    assert metrics.ece(probabilities, labels) == pytest.approx(error(np.linspace(0, 1, 16)), abs=1e-8)
    assert abs(metrics.ece(probabilities, labels) - error(np.linspace(0, 1, 15))) > 1e-4


def test_data_set_of_one_batch_is_watched_at_the_end_of_its_epochs():
    """There is no second step to look between; the end of the epoch still tells."""
    masked = tfprune.wrap(model(kernel_constraint=Centred()))
    train = tf.data.Dataset.from_tensors(data())
    with pytest.raises(ContractError, match=r"are not 0 in round 1, at the end of epoch 3"):
        masked.fit(
            train, epochs=4, verbose=0, shuffle=False,
            callbacks=[Losses(), LotteryTicket(0.5, patience=9, epochs_per_round=2)],
        )  # fmt: skip
