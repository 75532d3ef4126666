"""Does every shrink prove that the small model computes what the masked one computes, and stop where it does not?"""

import keras
import numpy as np
import pytest
from keras import layers
from zoo import ZOO, randomise

import tfprune
from tfprune.pruning import certificate, surgery
from tfprune.structure.cost import cost


def pruned(name="lenet_relu", ratio=0.5, **options):
    masked = tfprune.wrap(randomise(ZOO[name]()), **options)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio))
    return masked


def test_report_says_what_was_asked_what_was_reached_and_what_it_saves():
    masked = pruned("mlp_relu")
    ticket = tfprune.shrink(masked)
    report = tfprune.ticket_report(ticket)
    assert report["exact"]
    assert (report["groups_exact"], report["groups_approximate"]) == (2, 0)
    assert report["ratio_asked"] == 0.5
    assert report["ratio_achieved"] == 0.5
    assert 0 <= report["mean_difference"] <= report["largest_difference"] < 1e-5
    assert report["differences"].keys() == {"random", "constant", "scaled"}
    for key, value in cost(masked).items():
        assert report[f"{key}_before"] == value
        assert report[f"{key}_after"] == cost(ticket)[key] < value


def test_every_output_is_compared():
    report = tfprune.ticket_report(tfprune.shrink(pruned("several_outputs")))
    assert [len(gaps) for gaps in report["differences"].values()] == [2, 2, 2]


def test_achieved_ratio_is_the_share_of_the_channels_that_could_be_pruned():
    masked = tfprune.wrap(ZOO["mlp_relu"]())  # 16 and 12 channels
    tfprune.set_masks(masked, tfprune.compute_masks(masked, {"first": 0.75}))
    report = tfprune.ticket_report(tfprune.shrink(masked))
    assert report["ratio_asked"] == {"first": 0.75}
    assert report["ratio_achieved"] == pytest.approx(12 / 28)
    assert report["groups_exact"] == 1


def test_masks_set_by_hand_were_asked_by_nobody():
    masked = pruned("mlp_relu")
    tfprune.set_masks(masked, {"first": np.arange(16) < 3})
    assert tfprune.ticket_report(tfprune.shrink(masked))["ratio_asked"] is None


def test_a_small_model_that_computes_something_else_is_not_returned(monkeypatch):
    masked, cut = pruned(), surgery.cut

    def with_a_wrong_weight(*args):
        ticket, pairs = cut(*args)
        kernel = ticket.get_layer("conv_2").kernel
        kernel.assign(kernel * 1.01)
        return ticket, pairs

    monkeypatch.setattr(surgery, "cut", with_a_wrong_weight)
    with pytest.raises(RuntimeError, match="the new model differs from the one it was given by"):
        tfprune.shrink(masked)


def test_outputs_that_are_not_finite_must_be_so_in_both_models():
    same = np.array([[1.0, np.inf, np.nan]])
    assert certificate._difference(same, same) == (0.0, 0.0)
    assert certificate._difference(same, np.array([[1.0, 2.0, np.nan]])) == (np.inf, np.inf)


def test_a_model_that_does_not_run_here_is_returned_with_the_reason():
    inputs = keras.Input((4, 6, 6))
    x = layers.Conv2D(8, 3, data_format="channels_first", name="conv")(inputs)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    masked = tfprune.wrap(keras.Model(inputs, layers.Dense(2)(x)))
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    report = tfprune.ticket_report(tfprune.shrink(masked))
    runs_here = report["largest_difference"] is not None
    assert runs_here or "NHWC" in report["not_compared"] or "channels" in report["not_compared"].lower()


def test_half_precision_may_round_more():
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        masked = pruned("lenet_relu")
    finally:
        keras.mixed_precision.set_dtype_policy(policy)
    assert tfprune.ticket_report(tfprune.shrink(masked))["largest_difference"] < 0.2


def test_report_says_what_became_of_the_optimizer():
    masked = pruned("mlp_relu")
    assert tfprune.ticket_report(tfprune.shrink(masked))["optimizer"] == "none: the model is not compiled"
    masked.compile("adam", "mse")
    masked.fit(np.ones((8, 6)), np.ones((8, 3)), batch_size=4, epochs=2, verbose=0)
    ticket = tfprune.shrink(masked)
    assert (
        "Adam starts afresh, without the slots and the step count of 4 steps"
        in tfprune.ticket_report(ticket)["optimizer"]
    )
    assert int(ticket.optimizer.iterations) == 0


def test_other_models_have_no_report():
    with pytest.raises(ValueError, match=r"needs a model as tfprune.shrink returned it. Received: <Sequential"):
        tfprune.ticket_report(ZOO["mlp_relu"]())


# Channels that a normalisation mixes -----------------------------------------------------------------------------


def normalised(norm):
    inputs = keras.Input((5, 6))
    x = layers.Dense(12, activation="relu", name="before")(inputs)
    x = layers.Dense(6, name="after")(norm(x))
    return randomise(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))))


NORMS = {
    "layer": lambda: layers.LayerNormalization(),
    "layer without weights": lambda: layers.LayerNormalization(center=False, scale=False, epsilon=0.1),
    "layer over steps too": lambda: layers.LayerNormalization(axis=[1, 2]),
    "groups": lambda: layers.GroupNormalization(3),
    "one group": lambda: layers.GroupNormalization(1, scale=False),
    "unit": lambda: layers.UnitNormalization(),
    **({"root mean square": lambda: layers.RMSNormalization()} if hasattr(layers, "RMSNormalization") else {}),
}


@pytest.mark.parametrize("norm", NORMS)
def test_channels_that_a_normalisation_mixes_stay_unless_asked_for(norm):
    table = tfprune.inspect(normalised(NORMS[norm]()), show=False).set_index("group")
    assert not table.loc["before"].prunable
    assert "normalisation mixes the channels (approximate=True" in table.loc["before"].reason
    assert table.loc["after"].prunable


@pytest.mark.parametrize("norm", NORMS)
def test_masked_normalisation_leaves_out_what_is_pruned_as_the_ticket_does(norm):
    masked = tfprune.wrap(normalised(NORMS[norm]()), approximate=True)
    before = masked.predict(np.ones((1, 5, 6)), verbose=0)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    ticket = tfprune.shrink(masked)
    report = tfprune.ticket_report(ticket)
    assert ticket.get_layer("before").units == 6
    assert (report["exact"], report["groups_approximate"], report["groups_exact"]) == (False, 1, 1)
    assert report["largest_difference"] < 1e-5
    assert np.abs(masked.predict(np.ones((1, 5, 6)), verbose=0) - before).max() > 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_masked_normalisation_with_all_channels_is_the_normalisation(norm):
    model = normalised(NORMS[norm]())
    x = np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")
    masked = tfprune.wrap(model, approximate=True)
    np.testing.assert_allclose(masked(x), model(x), rtol=2e-5, atol=1e-5)


def test_a_normalisation_that_keeps_channels_apart_is_exact():
    for norm in (layers.GroupNormalization(12), layers.LayerNormalization(axis=1)):
        masked = tfprune.wrap(normalised(norm))
        tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
        ticket = tfprune.shrink(masked)
        assert ticket.get_layer("before").units == 6
        assert tfprune.ticket_report(ticket)["exact"]
