"""Does any model that somebody could build keep the contracts? Hypothesis builds them from the supported layers.

A model that fails is printed as the shortest Keras code that still fails.
"""

from collections import Counter

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import zoo
from random_models import ENDINGS, FAMILIES, KINDS, Recipe, Step, recipes

import tfprune

TOLERANCE = 1e-5
EXAMPLES = 14
# Several short runs draw more different models than a long one: hypothesis likes to vary what it drew before.
RUNS = [(family, seed) for family, seeds in {"image": 6, "sequence": 5, "vector": 5}.items() for seed in range(seeds)]
OPTIONS = st.fixed_dictionaries(
    {
        "ratio": st.sampled_from((0.5, 0.3, 0.9)),
        "scope": st.sampled_from(("layer", "global")),
        # False: what is read off the graph must be right by itself, without the probe that catches what is not.
        "verify": st.sampled_from((None, False)),
    }
)


def for_models_of(family, seed):
    """Calls a test with the same models in every run, and without a clock: the machine may be busy."""

    def decorate(test):
        settings = hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None, print_blob=False)
        return hypothesis.seed(seed)(settings(hypothesis.given(recipes(family), OPTIONS)(test)))

    return decorate


def check(recipe, ratio, scope, verify):
    """Holds one model to the contracts; returns the share of channels removed, None where nothing can be pruned."""
    model = zoo.randomise(recipe.build())
    inputs = zoo.inputs_of(model)
    weights = [value.copy() for value in model.get_weights()]
    try:
        masked = tfprune.wrap(model, verify=verify)
    except ValueError as error:
        assert "no channel that can be pruned" in str(error)  # noqa: PT017 (anything else is a failure)
        return None
    assert zoo.difference(model, masked, inputs) <= TOLERANCE, "wrap changes the outputs"
    masks = tfprune.compute_masks(masked, ratio, scope=scope)
    tfprune.set_masks(masked, masks)
    small = tfprune.shrink(masked)
    shapes = [keras.tree.map_structure(lambda t: t.shape, m.outputs) for m in (model, small)]
    assert shapes[0] == shapes[1], "the shapes of the outputs change"
    assert zoo.difference(masked, small, inputs) <= TOLERANCE, "masked and small differ"
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True)), "the original changed"
    assert small.count_params() <= model.count_params()
    kept = np.concatenate(list(masks.values()))
    assert kept.all() or small.count_params() < model.count_params()
    return 1 - kept.mean()


@pytest.mark.parametrize(("family", "seed"), RUNS)
def test_every_random_model_is_pruned_exactly(family, seed):
    removed = []

    @for_models_of(family, seed)
    def every_model(recipe, options):
        hypothesis.note(recipe.code)
        removed.append(check(recipe, **options))

    every_model()
    prunable = [share for share in removed if share is not None]
    assert len(removed) >= EXAMPLES
    assert len(prunable) > 0.5 * len(removed), "most models can be pruned, or the test proves little"
    assert np.mean([share > 0 for share in prunable]) > 0.5, "most models lose channels"


def test_every_kind_of_step_is_drawn_in_at_least_two_hundred_models():
    kinds, models = Counter(), set()
    for family, seed in RUNS:

        @for_models_of(family, seed)
        def count(recipe, options):
            models.add((recipe, *options.values()))
            kinds.update(recipe.kinds)

        count()
    assert set(kinds) == {*KINDS, *ENDINGS}
    assert len(models) >= 200


def test_recipe_reads_as_keras_code():
    recipe = Recipe("image", (Step("conv", size=1), Step("concat"), Step("flatten")), "one_output")
    assert recipe.code.splitlines() == [
        "x0 = keras.Input((6, 6, 2))",
        'x1 = layers.Conv2D(6, 3, padding="same", name="layer_1")(x0)',
        'x2 = layers.Conv2D(4, 3, strides=1, padding="same", activation="linear", name="layer_2")(x1)',
        "x3 = layers.Concatenate()([x2, x2, x2])",
        "x4 = layers.Flatten()(x3)",
        'x5 = layers.Dense(2, name="layer_5")(x4)',
        "model = keras.Model(x0, x5)",
    ]
    assert recipe.build().output_shape == (None, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_step_keeps_the_contracts_by_itself(kind):
    family = next(family for family, kinds in FAMILIES.items() if kind in kinds)
    for how in range(6):
        steps = (Step("dense", size=2, how=2), Step(kind, of=0, size=how, how=how), Step("dense", size=1, how=3))
        check(Recipe(family, steps, "one_output"), ratio=0.5, scope="layer", verify=False)
