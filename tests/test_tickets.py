"""Does find_ticket give what LotteryTicket gives, shrunk between rounds or not?"""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.callbacks import LotteryTicket
from tfprune.pruning.schedules import ratio_of_round
from tfprune.pruning.strategies import Strategy

PAPER = ("one_shot", "one_shot_reinit", "one_shot_random", "iterative", "iterative_finetune")


def data(seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(64, 8, 8, 2)).astype("float32")
    return x, (x.mean((1, 2, 3)) > 0).astype("int32")


def model(optimizer=None):
    keras.utils.set_random_seed(3)
    built = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(8, 3, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10, activation="relu", name="dense"),
            layers.Dense(2, name="logits"),
        ]
    )
    built.compile(
        optimizer or keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return built


def find(strategy, shrinking=False, optimizer=None, **options):
    options = {"validation_data": data(1), "epochs_per_round": 3, "patience": 2, "seed": 5, **options}
    return tfprune.find_ticket(
        model(optimizer),
        data(),
        strategy,
        ratio=0.6,
        shrink_between_rounds=shrinking,
        shuffle=False,
        verbose=0,
        **options,
    )


@pytest.mark.parametrize("strategy", [*PAPER, Strategy("late", 2, 1)], ids=str)
def test_shrinking_between_rounds_finds_the_same_ticket(strategy):
    masked, shrunk = find(strategy), find(strategy, shrinking=True)
    for name, mask in masked.masks.items():
        np.testing.assert_array_equal(mask, shrunk.masks[name])
    assert [row["early_stop_epoch"] for row in masked.history] == [row["early_stop_epoch"] for row in shrunk.history]
    np.testing.assert_allclose(
        [row["best"] for row in masked.history], [row["best"] for row in shrunk.history], rtol=1e-3, atol=1e-5
    )
    x = data(2)[0]
    expected = masked.model.predict(x, verbose=0)
    np.testing.assert_allclose(shrunk.model.predict(x, verbose=0), expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD(0.05, momentum=0.9), keras.optimizers.Adafactor(0.01)])
def test_shrinking_carries_the_optimizer_state(optimizer):
    config = optimizer.get_config()
    tickets = [find("one_shot", shrinking, type(optimizer).from_config(config)) for shrinking in (False, True)]
    # Adafactor keeps summaries over whole weights, which start afresh: close, not equal
    tolerance = 1e-4 if isinstance(optimizer, keras.optimizers.SGD) else 0.2
    assert tickets[0].history[1]["best"] == pytest.approx(tickets[1].history[1]["best"], rel=tolerance)


@pytest.mark.parametrize("shrinking", [False, True])
def test_ticket_masked_model_and_masks_agree(shrinking):
    ticket = find("one_shot_reinit", shrinking)
    x = data(2)[0]
    expected = ticket.masked.predict(x, verbose=0)
    np.testing.assert_allclose(ticket.model.predict(x, verbose=0), expected, atol=1e-5 * np.abs(expected).max())
    assert {name: int(mask.sum()) for name, mask in ticket.masks.items()} == {"conv": 3, "dense": 4}
    assert ticket.model.get_layer("conv").filters == 3
    assert len(ticket.history) == 2


@pytest.mark.parametrize("shrinking", [False, True])
def test_ticket_gives_its_model_and_its_start_back_from_the_file(shrinking, tmp_path):
    ticket = find("one_shot_reinit", shrinking)
    ticket.save(tmp_path / "net.ticket", weights=True)
    loaded = tfprune.Ticket.load(tmp_path / "net.ticket")
    small = loaded.apply(model(), form="compact")
    x = data(2)[0]
    np.testing.assert_allclose(small.predict(x, verbose=0), ticket.model.predict(x, verbose=0), atol=1e-6)
    start = loaded.apply(model(), weights="rewind", form="compact")
    np.testing.assert_array_equal(
        start.get_layer("conv").get_weights()[0],
        model().get_layer("conv").get_weights()[0][..., loaded.masks["conv"]],
    )
    assert loaded.id == ticket.id
    assert [row["asked"] for row in loaded.ledger] == [0, 0.6]
    assert loaded.seeds["seed"] == 5


@pytest.mark.parametrize("shrinking", [False, True])
def test_own_fit_function_trains(shrinking):
    calls = []

    def fit(network, callbacks):
        calls.append(network.count_params())
        return network.fit(*data(), validation_data=data(1), epochs=20, callbacks=callbacks, verbose=0)

    ticket = tfprune.find_ticket(
        model(), fit, "one_shot", ratio=0.5, shrink_between_rounds=shrinking, patience=1, epochs_per_round=3
    )
    assert len(calls) == (2 if shrinking else 1)
    assert not shrinking or calls[1] < calls[0]
    assert len(ticket.history) == 2


def test_users_own_callbacks_are_called_too():
    seen = []
    spy = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    ticket = find("one_shot", callbacks=[spy])
    assert len(seen) == sum(row["epochs"] for row in ticket.history)


def test_ratio_of_each_round_removes_the_same_share_of_what_is_left():
    ratios = [ratio_of_round(0.9, done, 5) for done in range(6)]
    left = 1 - np.array(ratios)
    np.testing.assert_allclose(left[1:] / left[:-1], 0.1 ** (1 / 5))
    assert ratios[0] == 0
    assert ratios[-1] == 0.9


def test_no_rounds_train_the_dense_control():
    ticket = tfprune.find_ticket(
        model(), data(), Strategy("dense", 0, None), ratio=0.5, validation_data=data(1), epochs=2, verbose=0
    )
    assert ticket.model.count_params() == model().count_params()


def test_model_that_is_not_compiled_is_refused():
    network = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(2)])
    with pytest.raises(ValueError, match="Call compile on"):
        tfprune.find_ticket(network, data())


def test_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match=r"Unknown strategy\. Received: 'oneshot'\. Expected one of 'one_shot'"):
        tfprune.find_ticket(model(), data(), "oneshot")


def test_fit_arguments_beside_a_fit_function_are_refused():
    with pytest.raises(TypeError, match=r"takes its own arguments. Received for fit: \['epochs'\]"):
        tfprune.find_ticket(model(), lambda network, callbacks: None, epochs=3)


def test_original_model_keeps_its_weights():
    network = model()
    before = network.get_weights()
    tfprune.find_ticket(network, data(), ratio=0.5, validation_data=data(1), epochs=2, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))


def test_arguments_of_lottery_ticket_are_passed_on():
    ticket = find("one_shot", ignore=["conv"])
    assert ticket.masks["conv"].all()
    assert isinstance(LotteryTicket(0.5, ignore=["conv"]).selection["ignore"], list)


def test_pruning_before_training_is_no_search():
    with pytest.raises(ValueError, match=r"'at_init' prunes before any training.*compute_masks and tfprune.set_masks"):
        tfprune.find_ticket(model(), data(), "at_init")


@pytest.mark.parametrize("control", ["random_channels", "scratch_epochs"])
def test_controls_of_a_study_are_refused(control):
    with pytest.raises(ValueError, match=f"Strategy '{control}' is a control.*Run it in a tfprune.study.Study"):
        find(control)
