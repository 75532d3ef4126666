"""Are the studies' networks the paper's, and does the seed fix their weights?"""

import numpy as np
import pytest

from tfprune import models


def test_mlp_is_the_papers_2_30_2():
    model = models.mlp((2,))
    assert [layer.name for layer in model.layers] == ["hidden", "logits"]
    assert model.count_params() == 2 * 30 + 30 + 30 * 2 + 2


def test_mlp_names_several_hidden_layers_and_flattens_images():
    model = models.mlp((8, 8, 1), hidden=(64, 32), num_classes=10)
    assert [layer.name for layer in model.layers] == ["flatten", "hidden_1", "hidden_2", "logits"]
    assert model.output_shape == (None, 10)


def test_lenet_is_the_papers_network():
    model = models.lenet((32, 32, 3))
    named = [layer.name for layer in model.layers if layer.weights]
    assert named == ["conv_1", "conv_2", "dense_1", "dense_2", "logits"]
    assert model.count_params() == 62_006


@pytest.mark.parametrize("build", [models.mlp, models.lenet])
def test_models_give_logits(build):
    assert build((32, 32, 3), num_classes=10).layers[-1].activation.__name__ == "linear"


@pytest.mark.parametrize("build", [models.mlp, models.lenet])
def test_seed_fixes_the_initial_weights(build):
    one, same, other = (build((32, 32, 3), seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])


def test_layers_of_one_shape_start_from_different_weights():
    weights = models.mlp((30,), hidden=(30, 30), seed=0).get_weights()
    assert not np.array_equal(weights[0], weights[2])


def test_no_seed_draws_from_keras_global_seed():
    import keras

    drawn = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        drawn.append(models.mlp((2,)).get_weights()[0])
    np.testing.assert_array_equal(*drawn)
    assert not np.array_equal(drawn[0], models.mlp((2,)).get_weights()[0])


def test_lenet_refuses_images_too_small_for_it():
    with pytest.raises(ValueError, match=r"at least 16x16 pixels.*Received: input_shape=\(8, 8, 1\)"):
        models.lenet((8, 8, 1))


def test_unknown_model_is_refused():
    with pytest.raises(ValueError, match=r"Unknown model. Received: 'vgg'. Expected one of 'mlp', 'lenet'"):
        models.get("vgg")
