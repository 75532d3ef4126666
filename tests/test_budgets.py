"""Does `prune_to` meet every budget, prune no harder than that takes, and say so where it cannot?"""

import itertools

import keras
import numpy as np
import pytest
from keras import layers
from zoo import ZOO, randomise

import tfprune
from tfprune.budgets import clock, limits
from tfprune.structure.cost import cost


def mlp(name="net", widths=(40, 24)):
    hidden = [layers.Dense(width, activation="relu", name=f"dense_{i}") for i, width in enumerate(widths)]
    return randomise(keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, name="head")], name=name))


COSTS = {"params": "parameters", "multiply_adds": "multiply_adds", "bytes": "bytes"}


# --- what budgets mean ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "asked", "whole", "limit"),
    [
        ("params", 0.5, 1000, 500),
        ("params", "50 %", 1000, 500),
        ("params", "12.5%", 1000, 125),
        ("params", 300, 1000, 300),
        ("params", "1.5M", 1000, 1_500_000),
        ("params", "12,000", 1000, 12_000),
        ("multiply_adds", 3e8, 1000, 3e8),
        ("multiply_adds", "300 M", 1000, 3e8),
        ("bytes", "2 MB", 1000, 2e6),
        ("bytes", "2 MiB", 1000, 2 * 1024**2),
        ("bytes", 4096, 1000, 4096),
        ("latency", 0.25, 8.0, 2.0),
        ("latency", "12 ms", 8.0, 0.012),
        ("latency", "500us", 8.0, 0.0005),
        ("latency", "0.5 s", 8.0, 0.5),
    ],
)
def test_a_budget_is_a_share_or_a_number_with_its_unit(name, asked, whole, limit):
    assert limits.read(name, asked).of(whole) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        *[("params", wrong) for wrong in (0, -5, "half", "120 %", "1.2.3", "5 ms", True, float("nan"), float("inf"))],
        *[("latency", wrong) for wrong in (2, "12", "3 MB")],  # 2 what?
    ],
)
def test_what_is_no_budget_is_refused_with_what_was_received(name, asked):
    with pytest.raises(ValueError, match=rf"{name} must be a share .*Received: {name}="):
        limits.read(name, asked)


def test_no_budget_at_all_is_refused():
    with pytest.raises(ValueError, match=r"needs a budget.*Received: none"):
        tfprune.prune_to(mlp())


@pytest.mark.parametrize("round_to", [0, 1.5, "auto", True])
def test_a_multiple_that_is_none_is_refused(round_to):
    with pytest.raises(ValueError, match=rf"round_to must be a positive integer.*Received: round_to={round_to!r}"):
        tfprune.prune_to(mlp(), params=0.5, round_to=round_to)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tfprune.prune_to(mlp(), params=0.5, ratio=0.2),
            r"prune_to takes model, .*Received: ratio=0.2",
        ),
        (lambda: tfprune.prune_to(mlp(), params=0.5, critrion="l1"), r"criterion, scope, .*Did you mean 'criterion'"),
        (lambda: tfprune.choose_round_to(mlp(), round_to=8), r"choose_round_to takes .*Received: round_to=8"),
    ],
)
def test_an_option_that_is_not_taken_is_told_beside_those_that_are(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multiples": (0, 8)}, r"multiples\[0\] must be an integer of at least 1. Received: multiples\[0\]=0"),
        ({"multiples": 8}, r"multiples must list the candidates.*Received: multiples=8"),
        ({"multiples": ()}, r"multiples must list the candidates.*Received: multiples=\(\)"),
        *[({"ratio": ratio}, r"ratio must be a number in \(0, 1\). Received: ratio=") for ratio in (0, 1.0, "half")],
        ({"repeats": 0}, "repeats must be an integer of at least 1. Received: repeats=0"),
    ],
)
def test_candidates_that_cannot_be_compared_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tfprune.choose_round_to(mlp(), **arguments)


# --- what is counted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zoo_name", ["lenet_relu", "residual"])
@pytest.mark.parametrize("budget", COSTS)
def test_a_budget_is_met_and_what_is_reported_is_what_the_small_model_costs(zoo_name, budget):
    model = randomise(ZOO[zoo_name]())
    small = tfprune.prune_to(model, **{budget: 0.5}, show=False)
    before, after = cost(model)[COSTS[budget]], cost(small)[COSTS[budget]]
    assert after <= before // 2
    assert tfprune.budget_report(small)[budget] == {"limit": before // 2, "before": before, "reached": after}


def test_no_more_is_pruned_than_the_budget_takes():
    model = mlp()

    def parameters(ratio):
        masked = tfprune.wrap(model)
        tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio))
        return tfprune.shrink(masked).count_params()

    small = tfprune.prune_to(model, params=700, show=False)
    found = tfprune.budget_report(small)["ratio"]
    assert small.count_params() == parameters(found) <= 700
    assert parameters(found - 1 / 40) > 700  # one channel of the wider layer


def test_several_budgets_are_all_met_and_the_hardest_decides():
    model = randomise(ZOO["lenet_relu"]())
    both = tfprune.prune_to(model, params=0.9, multiply_adds=0.4, bytes="5 kB", show=False)
    alone = tfprune.prune_to(model, multiply_adds=0.4, show=False)
    assert cost(both) == cost(alone)
    assert set(tfprune.budget_report(both)) == {"ratio", "round_to", "params", "multiply_adds", "bytes"}
    assert cost(both)["bytes"] <= 5000


def test_a_budget_that_is_met_already_changes_nothing():
    model = mlp()
    small = tfprune.prune_to(model, params=10**9, show=False)
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), rtol=1e-6)
    assert small is not model


def test_an_impossible_budget_is_refused_with_the_smallest_size_that_can_be_reached():
    model = randomise(ZOO["residual"]())
    smallest = tfprune.inspect(model, show=False).attrs["smallest_parameters"]
    with pytest.raises(ValueError, match=rf"cannot be met: .* smallest that can be reached is {smallest:,} \(one"):
        tfprune.prune_to(model, params=smallest - 1)
    assert tfprune.prune_to(model, params=smallest, show=False).count_params() == smallest


def test_multiples_that_leave_too_much_are_named_in_the_refusal():
    with pytest.raises(ValueError, match=r"reached is 1,\d+ \(one channel a group, in multiples of 32\)"):
        tfprune.prune_to(mlp(), params=100, round_to=32)


def test_options_are_those_of_compute_masks_and_the_model_is_left_as_it_is():
    model = mlp()
    weights = [value.copy() for value in model.get_weights()]
    small = tfprune.prune_to(model, params=0.7, only=["dense_0"], criterion="l2", round_to=8, show=False)
    assert small.get_layer("dense_1").units == 24
    assert small.get_layer("dense_0").units % 8 == 0
    norms = np.linalg.norm(weights[0], axis=0)
    best = np.sort(np.argsort(-norms)[: small.get_layer("dense_0").units])
    np.testing.assert_array_equal(small.get_layer("dense_0").get_weights()[0], weights[0][:, best])
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    with pytest.raises(ValueError, match="Unknown layer name 'dense_9'"):
        tfprune.prune_to(model, params=0.5, ignore=["dense_9"])


def test_global_scope_meets_the_budget_with_another_shape():
    model = mlp()
    small = tfprune.prune_to(model, params=0.5, scope="global", show=False)
    assert small.count_params() <= model.count_params() // 2
    uniform = tfprune.prune_to(model, params=0.5, show=False)
    assert [layer.units for layer in small.layers] != [layer.units for layer in uniform.layers]


def test_what_was_reached_is_printed_and_a_stranger_has_no_report(capsys):
    tfprune.prune_to(mlp(), params="50 %", bytes=0.9)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("params: ")
    assert lines[0].endswith(f"at most {mlp().count_params() // 2}")
    with pytest.raises(ValueError, match=r"budget_report needs a model as tfprune\.prune_to returned it"):
        tfprune.budget_report(mlp())


# --- what is measured -------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """A machine whose time is a function of the model, to be set: no test waits for, or trusts, a real clock."""

    class Machine:
        seconds = staticmethod(lambda model: 1e-6 * cost(model)["multiply_adds"])

    def in_turns(models, batch_size=1, repeats=15):
        Machine.asked.append((len(models), batch_size, repeats))
        return np.array([[[Machine.seconds(model)] * 2] * repeats for model in models])

    Machine.asked = []
    monkeypatch.setattr(clock, "in_turns", in_turns)
    return Machine


def test_latency_is_met_at_the_batch_size_that_was_asked_for(machine):
    model = mlp()
    small = tfprune.prune_to(model, latency=0.5, batch_size=4, show=False)
    report = tfprune.budget_report(small)["latency"]
    assert report["reached"] == pytest.approx(machine.seconds(small))
    assert 0.4 * machine.seconds(model) < machine.seconds(small) <= 0.5 * machine.seconds(model)
    assert {batch for _, batch, _ in machine.asked} == {4}
    assert all(repeats >= 15 for _, _, repeats in machine.asked)


def test_latency_may_be_a_time_and_joins_what_is_counted(machine):
    model = mlp()  # 1272 multiply-adds: 1.272 ms
    small = tfprune.prune_to(model, latency="0.6 ms", params=0.9, show=False)
    assert machine.seconds(small) <= 0.0006
    harder = tfprune.prune_to(model, latency="0.6 ms", params=0.2, show=False)
    assert cost(harder)["parameters"] <= 0.2 * cost(model)["parameters"]


def test_a_latency_that_cannot_be_met_is_refused_with_the_fastest(machine):
    machine.seconds = staticmethod(lambda model: 0.001 + 1e-6 * cost(model)["multiply_adds"])
    with pytest.raises(ValueError, match=r"A latency of 0\.5 ms cannot be met: model 'net' takes 2\.27 ms.* 1\.01 ms"):
        tfprune.prune_to(mlp(), latency="0.5 ms")


def test_a_lucky_measurement_is_not_believed(machine):
    honest, calls = machine.seconds, itertools.count()

    def lucky(model):
        return honest(model) * (0.5 if next(calls) == 9 else 1.0)  # one small model, once

    machine.seconds = staticmethod(lucky)
    small = tfprune.prune_to(mlp(), latency=0.5, round_to=1, show=False)
    assert next(calls) > 10
    assert honest(small) <= 0.5 * honest(mlp())


def in_blocks_of(block):
    """Seconds of a machine that computes as many channels as fill whole blocks."""

    def seconds(model):
        widths = [6, *(layer.units for layer in model.layers if hasattr(layer, "units"))]
        widths = [-(-width // block) * block for width in widths]
        return 1e-6 * sum(a * b for a, b in itertools.pairwise(widths))

    return staticmethod(seconds)


def test_round_to_is_the_block_of_the_machine(machine):
    model = mlp(widths=(128, 128))
    for block, expected in ((16, 16), (8, 8), (1, 1)):
        machine.seconds = in_blocks_of(block)
        assert tfprune.choose_round_to(model, ratio=0.42) == expected


def test_candidates_that_keep_the_same_channels_are_not_timed(machine):
    assert tfprune.choose_round_to(mlp(widths=(64, 64)), ratio=0.5, multiples=(1, 16, 32)) == 1
    assert machine.asked == []


def test_latency_chooses_round_to_and_keeps_whole_blocks(machine):
    machine.seconds = in_blocks_of(16)
    model = mlp(widths=(112, 144))
    small = tfprune.prune_to(model, latency=0.45, show=False)
    assert tfprune.budget_report(small)["round_to"] == 16
    assert all(layer.units % 16 == 0 for layer in small.layers[:2])
    assert machine.seconds(small) <= 0.45 * machine.seconds(model)


def test_the_clock_times_models_in_turns():
    small, large = mlp(), mlp(widths=(3000, 3000))
    times = clock.in_turns([small, large], batch_size=2, repeats=4)
    assert times.shape == (2, 4, 2)
    assert (times > 0).all()
    assert clock.ratio(times[1], times[0]) > 1.5
    assert clock.median(times[0]) == np.median(times[0, :, 0])
