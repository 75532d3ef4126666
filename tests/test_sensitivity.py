"""Does `sensitivity` measure what pruning each group alone costs, and do the ratios that follow cost little?"""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.budgets.sensitivity import path_of


@keras.saving.register_keras_serializable("tests")
class Counting(layers.Layer):
    """Counts how often Python runs it: once for each tracing."""

    calls = 0

    def call(self, inputs):
        Counting.calls += 1
        return inputs


tfprune.structure.roles.register(Counting, tfprune.structure.roles.elementwise)


@pytest.fixture(scope="module")
def trained():
    """A net whose second layer could do with few units, and whose first could not; its data."""
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 8)).astype("float32")
    y = (np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] > 0).astype("int32")
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(24, activation="relu", name="narrow"),
            Counting(),
            layers.Dense(96, activation="relu", name="wide"),
            layers.Dense(2, activation="softmax", name="head"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=64, epochs=25, verbose=0)
    return model, (x, y), {"noise": 3 * random.normal(size=(100, 8)).astype("float32")}


@pytest.fixture(scope="module")
def rows(trained):
    model, data, ood = trained
    Counting.calls = 0
    return tfprune.sensitivity(model, data, ratios=(0.25, 0.5, 0.75), ood=ood, batch_size=200)


def test_there_is_a_row_for_each_group_at_each_ratio_and_none_costs_a_tracing(rows):
    assert [(row["group"], row["ratio"], row["kept"]) for row in rows] == [
        *[("narrow", ratio, kept) for ratio, kept in ((0.0, 24), (0.25, 18), (0.5, 12), (0.75, 6))],
        *[("wide", ratio, kept) for ratio, kept in ((0.0, 96), (0.25, 72), (0.5, 48), (0.75, 24))],
    ]
    assert Counting.calls < 20  # tracing the model, wrapping it, and one compilation; 7 cells x 4 batches would be more


def test_every_row_is_what_evaluate_says_of_the_small_model(trained, rows):
    model, data, ood = trained
    for row in (rows[0], rows[2], rows[7]):
        masked = tfprune.wrap(model)
        tfprune.set_masks(masked, tfprune.compute_masks(masked, {row["group"]: row["ratio"]}))
        found = tfprune.evaluate(tfprune.shrink(masked), data, ood=ood)
        for name in ("accuracy", "nll", "brier", "ece", "noise/auroc_msp"):
            assert row[name] == pytest.approx(found[name], abs=2e-4), name
    assert rows[3]["nll"] != rows[2]["nll"]


def test_options_choose_the_groups_and_progress_is_shown(trained):
    model, data, _ = trained
    seen = []
    found = tfprune.sensitivity(model, data, ratios=(0.5,), only=["wide"], progress=seen.append)
    assert [row["group"] for row in found] == ["wide", "wide"]
    assert seen == found
    assert "noise/auroc_msp" not in found[0]
    with pytest.raises(ValueError, match=r"Unknown layer name 'wode' in ignore\. Did you mean 'wide'"):
        tfprune.sensitivity(model, data, ignore=["wode"])
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\)"):
        tfprune.sensitivity(model, data, ratios=(50,))
    for ratios in (0.5, (), "0.5"):
        with pytest.raises(ValueError, match=r"ratios must list what to remove, such as .*Received: ratios="):
            tfprune.sensitivity(model, data, ratios=ratios)


def row(group, ratio, accuracy, ece=0.1):
    return {"group": group, "ratio": ratio, "channels": 8, "kept": 4, "accuracy": accuracy, "ece": ece}


CURVES = [
    *(row("a", ratio, accuracy) for ratio, accuracy in ((0.0, 0.9), (0.4, 0.9), (0.8, 0.86))),
    *(row("b", ratio, accuracy, ece) for ratio, accuracy, ece in ((0.0, 0.9, 0.1), (0.4, 0.8, 0.05), (0.8, 0.9, 0.3))),
]


def test_a_criterion_that_derives_the_loss_ranks_a_model_with_probabilities(trained):
    """The channels are those that it chooses of the model itself, whose loss takes what its softmax gives."""
    model, data, _ = trained
    criterion = tfprune.pruning.criteria.Taylor(data)
    [_, row] = tfprune.sensitivity(model, data, ratios=(0.5,), criterion=criterion, only=["narrow"])
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, {"narrow": 0.5}, criterion))
    expected = tfprune.evaluate(tfprune.shrink(masked), data)
    assert row["accuracy"] == pytest.approx(expected["accuracy"])
    assert row["nll"] == pytest.approx(expected["nll"], rel=1e-3)


def test_ratios_are_the_largest_that_cost_no_more():
    assert tfprune.ratios_within(CURVES, 0.02) == pytest.approx({"a": 0.6, "b": 0.08})
    assert tfprune.ratios_within(CURVES, 0.0) == pytest.approx({"a": 0.4, "b": 0.0})
    # beyond the first ratio that costs more nothing is believed: b has its accuracy back at 0.8
    assert tfprune.ratios_within(CURVES, 0.05) == pytest.approx({"a": 0.8, "b": 0.2})
    assert tfprune.ratios_within(CURVES, 0.1, metric="ece")["b"] == pytest.approx(0.6)


def test_ratios_refuse_what_they_cannot_read():
    with pytest.raises(ValueError, match=r"max_drop must be at least 0\. Received: max_drop=-0.1"):
        tfprune.ratios_within(CURVES, -0.1)
    with pytest.raises(ValueError, match=r"metric must be a column of the rows: accuracy, ece\. Received: 'auroc'"):
        tfprune.ratios_within(CURVES, 0.1, metric="auroc")
    with pytest.raises(ValueError, match="Group 'b' has no row of ratio 0"):
        tfprune.ratios_within([line for line in CURVES if line != CURVES[3]], 0.1)


def test_strength_raises_every_ratio_from_nothing_to_the_largest_measured():
    path = path_of(CURVES)
    steps = [path(strength) for strength in np.linspace(0, 1, 21)]
    assert steps[0] == {"a": 0.0, "b": 0.0}
    assert steps[-1] == pytest.approx({"a": 0.8, "b": 0.8})
    for group in ("a", "b"):
        assert (np.diff([step[group] for step in steps]) >= 0).all()


def test_a_budget_by_sensitivity_spares_the_layer_that_matters(trained, rows):
    model, data, _ = trained
    uniform = tfprune.prune_to(model, params=0.4, show=False)
    spared = tfprune.prune_to(model, params=0.4, sensitivity=rows, show=False)
    assert spared.count_params() <= 0.4 * model.count_params()
    ratios = tfprune.budget_report(spared)["ratio"]
    assert ratios["narrow"] < ratios["wide"]
    accuracy = [tfprune.evaluate(small, data)["accuracy"] for small in (uniform, spared)]
    assert accuracy[1] > accuracy[0]
    with pytest.raises(ValueError, match="the largest ratios that sensitivity measured"):
        tfprune.prune_to(model, params=0.01, sensitivity=rows)


# --- the picture ------------------------------------------------------------------------------------------------------


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_heat_map_has_a_cell_for_each_group_and_ratio_but_the_whole_model(rows):
    ax = tfprune.plots.draw_sensitivity(rows)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["narrow", "wide"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.25", "0.5", "0.75"]
    assert texts(ax) == [f"{line['accuracy']:.3f}" for line in rows if line["ratio"] > 0]
    assert f"whole model {rows[0]['accuracy']:.3f}" in ax.get_title()


def test_colours_say_worse_whichever_way_the_metric_counts():
    accuracy, ece = (tfprune.plots.draw_sensitivity(CURVES, metric).images[0].get_array() for metric in COLUMNS)
    np.testing.assert_allclose(accuracy, [[0.0, -0.04], [-0.1, 0.0]], atol=1e-12)
    np.testing.assert_allclose(ece, [[0.0, 0.0], [0.05, -0.2]], atol=1e-12)  # less ECE is better
    low, high = tfprune.plots.draw_sensitivity(CURVES).images[0].get_clim()
    assert -low == high == pytest.approx(0.1)


COLUMNS = ("accuracy", "ece")


def test_rows_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match=r"with 'auroc'\. Received columns: 'group', 'ratio'"):
        tfprune.plots.draw_sensitivity(CURVES, metric="auroc")
    with pytest.raises(ValueError, match=r"none for \('b', 0\.8\)"):
        tfprune.plots.draw_sensitivity(CURVES[:-1])
    with pytest.raises(ValueError, match="rows of ratio 0"):
        tfprune.plots.draw_sensitivity([line for line in CURVES if line["ratio"]])
    with pytest.raises(ValueError, match="accuracy must be finite"):
        tfprune.plots.draw_sensitivity([*CURVES[:-1], {**CURVES[-1], "accuracy": float("nan")}])
