"""Does LotteryTicket run each strategy inside one fit, and rewind everything it says it rewinds?"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfprune
from tfprune.callbacks import EarlyBird, GradualPruning, LotteryTicket
from tfprune.pruning import criteria, masks, rewind, selection, surgery
from tfprune.structure.replay import value_of


def data(samples=64, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(samples, 4)).astype("float32")
    return x, (x[:, 0] * x[:, 1] > 0).astype("int32")


def datasets(batch=16):
    return tuple(tf.data.Dataset.from_tensor_slices(data(seed=seed)).batch(batch) for seed in (0, 1))


def masked_model(optimizer="adam", units=8, **compile_options):
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(units, name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Dense(6, activation="relu", name="second"),
            layers.Dense(2, name="out"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **compile_options)
    return tfprune.wrap(model)


class Recorder(keras.callbacks.Callback):
    """Keeps what weights and optimizer are at the start and the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.begins, self.ends, self.losses, self.rates = [], [], [], []

    def state(self):
        return {
            "weights": [value_of(w) for w in rewind.weights_of(self.model)],
            "optimizer": [value_of(v) for v in rewind.optimizer_variables(self.model)],
        }

    def on_epoch_begin(self, epoch, logs=None):
        self.begins.append(self.state())
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self.state())
        self.losses.append(logs["val_loss"])


def fit(masked, ticket, *others, epochs=12, **options):
    train, validation = datasets()
    recorder = Recorder()
    # first in the list, so that it sees an epoch's end before LotteryTicket acts on it
    masked.fit(
        train, validation_data=validation, epochs=epochs, callbacks=[recorder, ticket, *others], verbose=0,
        shuffle=False, **options,
    )  # fmt: skip
    return recorder


def kept(masked):
    """For each weight of the model: which of its entries belong to channels that are kept."""
    graph = masks.graph_of(masked)
    entries = surgery.kept_entries(graph, graph.kept())
    return [entries[id(w)][1] if id(w) in entries else np.ones(w.shape, bool) for w in rewind.weights_of(masked)]


class FakeLosses(keras.callbacks.Callback):
    """Puts given values in the place of val_loss."""

    def __init__(self, values, name="val_loss"):
        super().__init__()
        self.values, self.name = iter(values), name

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = next(self.values)


def assert_same_where_kept(masked, found, expected):
    for name, mask, a, b in zip([w.path for w in masked.weights], kept(masked), found, expected, strict=False):
        np.testing.assert_array_equal(a[mask], b[mask], err_msg=name)


def first_epoch_of_round(ticket, number):
    return sum(row["epochs"] for row in ticket.history[:number])


# What a round does --------------------------------------------------------------------------------------------------


def test_init_rewinds_weights_statistics_and_optimizer():
    masked, ticket = masked_model(), LotteryTicket(0.5, rounds=2, patience=2, seed=0)
    seen = fit(masked, ticket, epochs=15)
    for number in (1, 2):
        begin = seen.begins[first_epoch_of_round(ticket, number)]
        assert_same_where_kept(masked, begin["weights"], seen.begins[0]["weights"])
        for now, then in zip(begin["optimizer"], seen.begins[0]["optimizer"], strict=True):
            np.testing.assert_array_equal(now, then)
    trained = seen.ends[first_epoch_of_round(ticket, 1) - 1]["weights"]
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(trained, seen.begins[0]["weights"], strict=True))


def test_none_keeps_the_best_weights_of_the_round():
    masked, ticket = masked_model(), LotteryTicket(0.5, rewind=None, patience=2)
    seen = fit(masked, ticket, epochs=20)
    best = seen.ends[ticket.history[0]["early_stop_epoch"] - 1]["weights"]
    assert_same_where_kept(masked, seen.begins[first_epoch_of_round(ticket, 1)]["weights"], best)


def test_random_draws_new_weights_that_the_seed_decides():
    def start(seed):
        masked, ticket = masked_model(), LotteryTicket(0.5, rewind="random", patience=2, seed=seed)
        seen = fit(masked, ticket)
        return seen.begins[0]["weights"], seen.begins[first_epoch_of_round(ticket, 1)]["weights"], kept(masked)

    initial, first, mask = start(1)
    _, again, _ = start(1)
    _, other, _ = start(2)
    kernel = 0
    assert np.array_equal(first[kernel], again[kernel])
    assert not np.array_equal(first[kernel], other[kernel])
    assert not np.any(first[kernel][mask[kernel]] == initial[kernel][mask[kernel]])
    assert np.abs(first[kernel]).max() <= np.sqrt(6 / (4 + 8)), "drawn by the layer's own initializer, at dense size"


def test_random_draws_new_weights_even_from_a_seeded_initializer():
    keras.utils.set_random_seed(0)
    initializer = keras.initializers.GlorotUniform(seed=3)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, kernel_initializer=initializer, name="a"), layers.Dense(2, name="b")]
    )
    masked = tfprune.wrap(model)
    rewind.randomise(masked, seed=3)
    assert not np.allclose(masked.get_layer("a").layer.get_weights()[0], model.get_layer("a").get_weights()[0])


def test_random_spares_frozen_layers_and_adapted_statistics():
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(5, 2, (40, 4)))
    frozen = layers.Dense(8, name="frozen", trainable=False)
    model = keras.Sequential(
        [keras.Input((4,)), normalization, frozen, layers.Dense(6, name="free"), layers.Dense(2, name="out")]
    )
    masked = tfprune.wrap(model)
    kernels = [masked.get_layer(name).layer.kernel for name in ("frozen", "free")]
    before = [value_of(kernel) for kernel in kernels], np.asarray(masked.layers[0].mean)
    rewind.randomise(masked, seed=1)
    np.testing.assert_array_equal(value_of(kernels[0]), before[0][0])
    assert not np.any(value_of(kernels[1]) == before[0][1])
    np.testing.assert_array_equal(np.asarray(masked.layers[0].mean), before[1])


def test_epoch_number_rewinds_to_the_end_of_that_epoch():
    masked, ticket = masked_model(), LotteryTicket(0.5, rewind=2, epochs_per_round=4, patience=9)
    seen = fit(masked, ticket)
    begin = seen.begins[4]
    assert_same_where_kept(masked, begin["weights"], seen.ends[1]["weights"])
    iterations = [v for v in masked.optimizer.variables if v.path.endswith("iteration")]
    index = [id(v) for v in rewind.optimizer_variables(masked)].index(id(iterations[0]))
    assert int(begin["optimizer"][index]) == 2 * 4


def test_epoch_number_after_the_dense_model_stopped_warns():
    masked, ticket = masked_model(), LotteryTicket(0.5, rewind=9, patience=2)
    train, validation = datasets()
    with pytest.warns(UserWarning, match="rewind=9, but the dense model stopped after 3 epochs"):
        masked.fit(
            train, validation_data=validation, epochs=30, verbose=0, shuffle=False,
            callbacks=[FakeLosses([1.0, 2.0, 2.0, 1.0, 2.0, 2.0]), ticket],
        )  # fmt: skip


def test_learning_rate_schedule_starts_again_with_each_round():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([8], [0.05, 0.01])  # drops after two epochs
    masked, ticket = masked_model(keras.optimizers.SGD(schedule)), LotteryTicket(0.5, epochs_per_round=4, patience=9)
    seen = fit(masked, ticket)
    expected = [0.05, 0.05, 0.05, 0.01]  # the boundary itself still has the first rate
    np.testing.assert_allclose(seen.rates[:8], expected + expected, rtol=1e-6)


def test_learning_rate_rewinding_keeps_the_weights_and_starts_optimizer_and_schedule_again():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([8], [0.05, 0.01])
    masked, ticket = masked_model(keras.optimizers.Adam(schedule)), LotteryTicket(0.5, 2, "learning_rate", patience=2)
    seen = fit(masked, ticket, epochs=15)
    for number in (1, 2):
        first = first_epoch_of_round(ticket, number)
        best = first_epoch_of_round(ticket, number - 1) + ticket.history[number - 1]["early_stop_epoch"] - 1
        assert_same_where_kept(masked, seen.begins[first]["weights"], seen.ends[best]["weights"])
        for now, then in zip(seen.begins[first]["optimizer"], seen.begins[0]["optimizer"], strict=True):
            np.testing.assert_array_equal(now, then)
        assert seen.rates[first] == pytest.approx(0.05)
    assert ticket.ticket().started == {"weights": "trained"}


def test_learning_rate_rewinding_gives_slots_that_copy_weights_the_trained_ones():
    masked = masked_model(keras.optimizers.ScheduleFreeAdamW(0.05))
    seen = fit(masked, LotteryTicket(0.5, rewind="learning_rate", epochs_per_round=2, patience=9))
    pairs = rewind.slots(masked.optimizer)

    def both(state):
        weights = dict(zip(map(id, rewind.weights_of(masked)), state["weights"], strict=True))
        optimizer = dict(zip(map(id, rewind.optimizer_variables(masked)), state["optimizer"], strict=True))
        return [(weights[id(weight)], optimizer[id(slot)]) for weight, slot in pairs]

    where = dict(zip(map(id, rewind.weights_of(masked)), kept(masked), strict=True))
    copies = [
        index for index, (weight, slot) in enumerate(both(seen.begins[0])) if weight.any() and (weight == slot).all()
    ]
    assert copies
    for index in copies:
        weight, slot = (value[where[id(pairs[index][0])]] for value in both(seen.begins[2])[index])
        np.testing.assert_array_equal(slot, weight)


@pytest.mark.parametrize("rewind_to", ["init", "random", "learning_rate", None, 1])
def test_pruned_entries_stay_zero_and_masks_are_nested(rewind_to):
    masked, ticket = masked_model(), LotteryTicket(0.7, rounds=3, rewind=rewind_to, patience=1, seed=0)
    fit(masked, ticket, epochs=20)
    for weight, mask in zip(rewind.weights_of(masked), kept(masked), strict=True):
        if weight.trainable:
            assert not value_of(weight)[~mask].any(), weight.path
    for earlier, later in zip(ticket.history, ticket.history[1:], strict=False):
        for name in earlier["masks"]:
            assert not (later["masks"][name] & ~earlier["masks"][name]).any()


def test_best_weights_of_the_last_round_are_restored():
    masked, ticket = masked_model(keras.optimizers.Adam(0.3)), LotteryTicket(0.5, patience=3)
    seen = fit(masked, ticket, epochs=40)
    last = seen.losses[first_epoch_of_round(ticket, 1) :]
    assert min(last) < last[-1], "the last epoch was the best one, so the test proves nothing"
    loss = masked.evaluate(datasets()[1], verbose=0)[0]
    assert loss == pytest.approx(min(last), rel=1e-5) == ticket.history[1]["best"]
    assert ticket.history[1]["early_stop_epoch"] == int(np.argmin(last)) + 1


def test_history_has_a_line_for_each_round():
    masked, ticket = masked_model(), LotteryTicket(0.75, rounds=2, epochs_per_round=2, patience=5)
    fit(masked, ticket)
    assert [row["round"] for row in ticket.history] == [0, 1, 2]
    assert [row["ratio"] for row in ticket.history] == [0.0, 0.5, 0.75]
    assert [row["epochs"] for row in ticket.history] == [2, 2, 2]
    assert [row["channels_kept"] for row in ticket.history] == [14, 7, 3]
    assert [int(row["masks"]["hidden"].sum()) for row in ticket.history] == [8, 4, 2]
    assert ticket.history[0]["channels_total"] == 14
    assert ticket.finished


@pytest.mark.parametrize(
    ("options", "losses", "epochs", "best"),
    [
        ({"patience": 2}, [3, 2, 1, 5, 5, 9], 5, 3),
        ({"patience": 1}, [3, 2, 4, 1], 3, 2),
        ({"patience": 0}, [3, 2, 4, 1], 3, 2),
        ({"patience": 2, "min_delta": 0.5}, [3.0, 2.8, 2.7, 2.6], 3, 1),
        ({"patience": 2}, [3, float("nan"), 2, 4, 4], 5, 3),
        ({"patience": 2, "monitor": "val_accuracy"}, [0.1, 0.5, 0.4, 0.3], 4, 2),
        ({"patience": 9, "epochs_per_round": 3}, [3, 2, 1, 0.5], 3, 3),
    ],
)
def test_round_ends_when_patience_is_over(options, losses, epochs, best):
    masked, ticket = masked_model(), LotteryTicket(0.5, rounds=0, **options)
    train, validation = datasets()
    callbacks = [FakeLosses(losses, options.get("monitor", "val_loss")), ticket]
    masked.fit(train, validation_data=validation, epochs=len(losses), callbacks=callbacks, verbose=0, shuffle=False)
    assert (ticket.history[0]["epochs"], ticket.history[0]["early_stop_epoch"]) == (epochs, best)


def test_epochs_of_the_fit_are_shared_among_the_rounds():
    masked, ticket = masked_model(), LotteryTicket(0.5, rounds=2, patience=99)
    fit(masked, ticket, epochs=10)
    assert [row["epochs"] for row in ticket.history] == [3, 3, 3]
    assert ticket.finished


def test_fit_that_ends_too_early_says_so():
    masked, ticket = masked_model(), LotteryTicket(0.5, epochs_per_round=5, patience=99)
    with pytest.warns(UserWarning, match="ended in round 0 of 1.*Give fit more epochs"):
        fit(masked, ticket, epochs=3)
    assert not ticket.finished
    assert all(mask.all() for mask in tfprune.get_masks(masked).values())


def test_callback_is_usable_for_a_second_fit_and_gives_the_same():
    ticket = LotteryTicket(0.5, rewind="random", patience=2, seed=4)
    first = fit(masked_model(), ticket), ticket.history
    second = fit(masked_model(), ticket), ticket.history
    assert first[0].losses == second[0].losses
    assert [row["best"] for row in first[1]] == [row["best"] for row in second[1]]


def test_steps_are_not_traced_again_between_rounds():
    masked, traces = masked_model(), []
    original = masked.train_step

    def train_step(data):
        traces.append(1)
        return original(data)

    masked.train_step = train_step
    fit(masked, LotteryTicket(0.5, rounds=3, epochs_per_round=2, patience=9))
    assert len(traces) <= 2, "one symbolic build, one trace"


# What it works with -------------------------------------------------------------------------------------------------

OPTIMIZERS = sorted(
    name
    for name, cls in vars(keras.optimizers).items()
    if inspect.isclass(cls) and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap")
)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("rewind_to", ["init", None])
def test_every_optimizer_is_rewound_and_leaves_pruned_channels_alone(name, rewind_to):
    masked = masked_model(getattr(keras.optimizers, name)(learning_rate=0.01))
    ticket = LotteryTicket(0.5, rewind=rewind_to, epochs_per_round=2, patience=9)
    seen = fit(masked, ticket)
    if rewind_to == "init":
        owners = {id(slot): variable for variable, slot in rewind.slots(masked.optimizer)}
        masked_by = dict(zip(map(id, rewind.weights_of(masked)), kept(masked), strict=True))
        for variable, now, then in zip(
            masked.optimizer.variables, seen.begins[2]["optimizer"], seen.begins[0]["optimizer"], strict=True
        ):
            where = masked_by[id(owners[id(variable)])] if id(variable) in owners else ...
            np.testing.assert_array_equal(now[where], then[where], err_msg=variable.path)
    for weight, before, after, mask in zip(
        rewind.weights_of(masked), seen.begins[2]["weights"], seen.ends[3]["weights"], kept(masked), strict=True
    ):
        if weight.trainable:
            np.testing.assert_array_equal(after[~mask], before[~mask], err_msg=weight.path)
    assert any(np.any(a != b) for a, b in zip(seen.begins[2]["weights"], seen.ends[3]["weights"], strict=True))


def test_momentum_would_move_pruned_weights_if_slots_were_kept():
    """The trap that clearing the slots is for; without it this drift is what the test above would find."""
    masked = masked_model(keras.optimizers.SGD(0.1, momentum=0.9))
    train, _ = datasets()
    masked.fit(train, epochs=2, verbose=0, shuffle=False)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    kernel = masked.get_layer("hidden").layer.kernel
    pruned = ~tfprune.get_masks(masked)["hidden"]
    before = value_of(kernel)[:, pruned]
    masked.fit(train, epochs=1, verbose=0, shuffle=False)
    assert np.abs(value_of(kernel)[:, pruned] - before).max() > 1e-4


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    masked, ticket = masked_model(), LotteryTicket(0.5, rounds=2, patience=1, seed=0)
    fit(masked, ticket)
    assert ticket.finished
    ticket_model = tfprune.shrink(masked)
    x = data()[0]
    np.testing.assert_allclose(
        np.asarray(ticket_model(x), "float32"), np.asarray(masked(x), "float32"), atol=0.05, rtol=0.05
    )


@pytest.mark.parametrize("options", [{"steps_per_execution": 2}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_compile_options(options):
    masked, ticket = masked_model(**options), LotteryTicket(0.5, rounds=2, epochs_per_round=2, patience=9)
    seen = fit(masked, ticket)
    assert ticket.finished
    assert_same_where_kept(masked, seen.begins[4]["weights"], seen.begins[0]["weights"])


def test_class_weights_and_the_usual_callbacks(tmp_path):
    masked, ticket = masked_model(), LotteryTicket(0.5, rounds=1, epochs_per_round=2, patience=9)
    others = [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "board"),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.ModelCheckpoint(tmp_path / "last.weights.h5", save_weights_only=True),
    ]
    fit(masked, ticket, *others, class_weight={0: 1.0, 1: 3.0})
    assert ticket.finished
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5
    assert list((tmp_path / "board").rglob("events*"))


def test_dropout_and_regularizers():
    keras.utils.set_random_seed(1)
    hidden = layers.Dense(8, "relu", kernel_regularizer="l2", activity_regularizer="l1", name="hidden")
    second = layers.Dense(8, "relu", kernel_regularizer="l2", activity_regularizer="l1", name="second")
    model = keras.Sequential([keras.Input((4,)), hidden, layers.Dropout(0.3), second, layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    masked = tfprune.wrap(model)
    x, y = data()
    assert masked.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-5)
    masked.fit(x, y, validation_data=(x, y), epochs=6, verbose=0, callbacks=[LotteryTicket(0.5, patience=1)])
    ticket = tfprune.shrink(masked)
    # pruned weights are zero, so the regularizers of both models add the same
    assert ticket.evaluate(x, y, verbose=0) == pytest.approx(masked.evaluate(x, y, verbose=0), rel=0.2)


# What it refuses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda path: keras.callbacks.EarlyStopping(), r"EarlyStopping cannot work beside LotteryTicket.*patience="),
        (
            lambda path: keras.callbacks.ReduceLROnPlateau(),
            "ReduceLROnPlateau cannot work beside.*LearningRateSchedule",
        ),
        (lambda path: keras.callbacks.LearningRateScheduler(lambda e: 0.1), "LearningRateScheduler cannot work beside"),
        (lambda path: keras.callbacks.BackupAndRestore(path), "BackupAndRestore cannot work beside"),
        (
            lambda path: keras.callbacks.ModelCheckpoint(path / "b.keras", save_best_only=True),
            "ModelCheckpoint cannot work beside",
        ),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_callbacks_that_cannot_work_beside_it_are_refused(other, message, before, tmp_path):
    masked, ticket, other = masked_model(), LotteryTicket(0.5), other(tmp_path)
    train, validation = datasets()
    with pytest.raises(ValueError, match=message):
        masked.fit(
            train, validation_data=validation, epochs=4, verbose=0, shuffle=False,
            callbacks=[other, ticket] if before else [ticket, other],
        )  # fmt: skip


def test_model_without_masks_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for callback in (LotteryTicket(0.5), GradualPruning(lambda step: (False, 0.0))):
        with pytest.raises(ValueError, match=rf"{type(callback).__name__} needs a model with channel masks.*wrap"):
            model.fit(*data(), epochs=2, callbacks=[callback], verbose=0)


def test_monitor_that_is_not_logged_is_refused():
    with pytest.raises(ValueError, match=r"monitors 'val_loss', but the epoch logged only \['accuracy', 'loss'\]"):
        masked_model().fit(*data(), epochs=4, callbacks=[LotteryTicket(0.5)], verbose=0)


def test_training_loss_can_be_monitored():
    ticket = LotteryTicket(0.5, monitor="loss", patience=1)
    masked_model().fit(*data(), epochs=8, callbacks=[ticket], verbose=0)
    assert ticket.finished


def test_layer_name_that_is_wrong_fails_before_the_training():
    seen = []
    spy = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    with pytest.raises(ValueError, match="Unknown layer name 'hiden' in ratio"):
        fit(masked_model(), LotteryTicket({"hiden": 0.5}), spy)
    assert not seen


@pytest.mark.parametrize(
    "make",
    [
        lambda options: LotteryTicket(0.5, **options),
        lambda options: GradualPruning(lambda step: (False, 0.0), **options),
        lambda options: EarlyBird(0.5, **options),
    ],
    ids=["LotteryTicket", "GradualPruning", "EarlyBird"],
)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "x"}, "Unknown scope 'x'"),
        ({"only": ["typo"]}, "Unknown layer name 'typo' in only"),
        ({"round_to": 0}, "round_to must be a positive integer"),
        ({"criterion": "batchnorm_scale", "only": ["second"]}, "needs a BatchNormalization .*Received: 'second'"),
        ({"criterion": criteria.Ensemble(["l1", "batchnorm_scale"])}, "needs a BatchNormalization .*'second' without"),
    ],
)
def test_options_that_are_wrong_fail_before_the_first_step(make, options, message):
    options = {"criterion": "l1", **options}
    steps = []
    spy = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    with pytest.raises(ValueError, match=message):
        fit(masked_model(), make(options), spy, epochs=2)
    assert not steps


def test_looking_at_the_options_leaves_what_was_chosen_before():
    masked = masked_model()
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5, criterion="l2"))
    chosen = selection.recall(masked, tfprune.get_masks(masked))
    for callback in (LotteryTicket(0.6), GradualPruning(lambda step: (False, 0.0))):
        callback.set_model(masked)
        callback.on_train_begin()
        assert selection.recall(masked, tfprune.get_masks(masked)) is chosen


def test_too_few_epochs_are_refused():
    with pytest.raises(ValueError, match=r"trains 6 times, so it needs at least 6 epochs. Received: epochs=5"):
        fit(masked_model(), LotteryTicket(0.5, rounds=5), epochs=5)


def test_diverged_model_is_not_pruned():
    masked = masked_model(keras.optimizers.SGD(float("inf")))
    with pytest.raises(ValueError, match="not finite"):
        fit(masked, LotteryTicket(0.5, patience=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 80}, r"ratio must be in \[0, 1\)"),
        ({"ratio": {"hidden": 2}}, r"ratio must be in \[0, 1\)"),
        ({"ratio": 0.5, "rounds": 1.5}, "rounds must be an integer"),
        ({"ratio": 0.5, "rounds": -1}, "rounds must be an integer of at least 0"),
        ({"ratio": 0.5, "rewind": "start"}, "rewind must be 'init', 'random', 'learning_rate', None or an epoch"),
        ({"ratio": 0.5, "rewind": True}, "rewind must be"),
        ({"ratio": 0.5, "rewind": 0}, "rewind must be"),
        ({"ratio": 0.5, "patience": -1}, "patience must be an integer of at least 0"),
        ({"ratio": 0.5, "criterion": "l3"}, "Unknown criterion 'l3'"),
        ({"ratio": 0.5, "rewind": 9, "epochs_per_round": 3}, "rewind=9 asks for the weights after 9 epochs"),
        ({"ratio": 0.5, "epochs_per_round": 0}, "epochs_per_round must be an integer of at least 1"),
        ({"ratio": 0.5, "min_delta": "x"}, "min_delta must be a finite number. Received: min_delta='x'"),
        ({"ratio": 0.5, "min_delta": float("nan")}, "min_delta must be a finite number. Received: min_delta=nan"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LotteryTicket(**arguments)


# GradualPruning -----------------------------------------------------------------------------------------------------


def ramp(step):
    """Prunes every fourth step, to 0.75 at step 12."""
    return step % 4 == 0, min(0.75, 0.0625 * step)


def test_gradual_pruning_follows_its_schedule():
    masked, gradual = masked_model(), GradualPruning(ramp)
    masked.fit(datasets()[0], epochs=5, callbacks=[gradual], verbose=0, shuffle=False)
    assert [(row["step"], row["ratio"]) for row in gradual.history] == [(5, 0.25), (9, 0.5), (13, 0.75)]
    assert {name: int(mask.sum()) for name, mask in tfprune.get_masks(masked).items()} == {"hidden": 2, "second": 1}
    for weight, mask in zip(rewind.weights_of(masked), kept(masked), strict=True):
        if weight.trainable:
            assert not value_of(weight)[~mask].any()


def test_gradual_pruning_misses_no_step_of_a_long_execution():
    masked, gradual = masked_model(steps_per_execution=2), GradualPruning(ramp)
    masked.fit(datasets()[0], epochs=5, callbacks=[gradual], verbose=0, shuffle=False)
    assert gradual.history[-1]["ratio"] == 0.75


def test_gradual_pruning_never_gives_channels_back():
    masked, gradual = masked_model(), GradualPruning(lambda step: (True, 0.5 if step < 3 else 0.25))
    masked.fit(datasets()[0], epochs=2, callbacks=[gradual], verbose=0, shuffle=False)
    assert [row["ratio"] for row in gradual.history] == [0.5]
    assert int(tfprune.get_masks(masked)["hidden"].sum()) == 4


@pytest.mark.parametrize("schedule", [lambda step: 0.5, lambda step: (True, 1.5)], ids=["no pair", "ratio"])
def test_schedule_that_answers_wrongly_is_refused(schedule):
    with pytest.raises(ValueError, match=r"must give \(due, ratio\)|ratio must be in"):
        masked_model().fit(*data(), callbacks=[GradualPruning(schedule)], verbose=0)


@pytest.mark.parametrize("step", [True, -1, 2.5, "ten"])
def test_step_of_growing_back_that_is_none_is_refused(step):
    with pytest.raises(ValueError, match=r"regrow_until must be an integer of at least 0\. Received: regrow_until="):
        GradualPruning(ramp, regrow_until=step)
    assert GradualPruning(ramp, regrow_until=0).regrow_until == 0


def test_schedule_that_is_no_callable_is_refused():
    with pytest.raises(TypeError, match="schedule must be a callable"):
        GradualPruning(0.5)


@pytest.mark.parametrize("name", ["PolynomialDecay", "ConstantSparsity"])
def test_schedules_of_tensorflow_model_optimization_pass_straight_through(name, monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "")  # importing TFMOT sets it for all child processes
    assert tf.keras.__name__  # touched first, so that TFMOT's import cannot change what it means
    tfmot = pytest.importorskip("tensorflow_model_optimization")
    cls = getattr(tfmot.sparsity.keras, name)
    arguments = {"begin_step": 2, "end_step": 12, "frequency": 2}
    if name == "PolynomialDecay":
        schedule = cls(initial_sparsity=0.0, final_sparsity=0.75, **arguments)
    else:
        schedule = cls(0.75, **arguments)
    masked, gradual = masked_model(), GradualPruning(schedule)
    masked.fit(datasets()[0], epochs=5, callbacks=[gradual], verbose=0, shuffle=False)
    assert gradual.history[-1]["ratio"] == pytest.approx(0.75)
    assert int(tfprune.get_masks(masked)["hidden"].sum()) == 2
    assert len(gradual.history) > 2 or name == "ConstantSparsity"
