"""Are the studies' networks the paper's, and does the seed fix their weights?"""

from functools import partial

import numpy as np
import pytest

import tfprune
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


def test_cnn_fits_the_digits_and_each_layer_can_be_pruned():
    model = models.cnn()
    assert [layer.name for layer in model.layers if "kernel" in dir(layer)] == ["conv_1", "conv_2", "dense", "logits"]
    assert model.count_params() == (9 * 16) + 4 * 16 + (9 * 16 * 32) + 4 * 32 + (2 * 2 * 32 * 32 + 32) + (32 * 10 + 10)
    assert set(tfprune.get_masks(tfprune.wrap(model))) == {"conv_1", "conv_2", "dense"}


def test_cnn_refuses_what_is_no_image():
    with pytest.raises(ValueError, match=r"cnn needs images of at least 4x4 pixels.*Received: input_shape=\(3, 8, 1\)"):
        models.cnn((3, 8, 1))


@pytest.mark.parametrize("homoskedastic", [False, True])
def test_gaussian_mlp_gives_means_and_log_variances(homoskedastic):
    model = models.gaussian_mlp((3,), hidden=(8,), num_targets=2, homoskedastic=homoskedastic, seed=1)
    x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    outputs = model.predict(x, verbose=0)
    assert outputs.shape == (50, 4)
    assert [len(np.unique(outputs[:, column])) == 1 for column in range(4)] == [False, False, *[homoskedastic] * 2]
    assert list(tfprune.get_masks(tfprune.wrap(model))) == ["hidden"]


BUILDERS = [models.mlp, models.cnn, models.lenet, models.vgg16, partial(models.resnet, 8)]


@pytest.mark.parametrize("build", BUILDERS)
def test_models_give_logits(build):
    assert build((32, 32, 3), num_classes=10).layers[-1].activation.__name__ == "linear"


@pytest.mark.parametrize("build", BUILDERS)
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


# Table 2 of Li et al. 2017: multiply-adds and parameters of each layer, as printed
VGG16 = """
conv_1   1.8E+06 1.7E+03
conv_2   3.8E+07 3.7E+04
conv_3   1.9E+07 7.4E+04
conv_4   3.8E+07 1.5E+05
conv_5   1.9E+07 2.9E+05
conv_6   3.8E+07 5.9E+05
conv_7   3.8E+07 5.9E+05
conv_8   1.9E+07 1.2E+06
conv_9   3.8E+07 2.4E+06
conv_10  3.8E+07 2.4E+06
conv_11  9.4E+06 2.4E+06
conv_12  9.4E+06 2.4E+06
conv_13  9.4E+06 2.4E+06
hidden   2.6E+05 2.6E+05
logits   5.1E+03 5.1E+03
"""


def test_vgg16_is_the_papers_network_layer_by_layer():
    from tfprune.structure.cost import cost_table

    rows = [row for row in cost_table(models.vgg16()) if row["multiply_adds"]]
    counts = [f"{row['name']:8} {row['multiply_adds']:.1E} {row['parameters']:.1E}" for row in rows]
    assert counts == VGG16.split("\n")[1:-1]


def test_every_convolution_of_vgg16_and_its_hidden_layer_have_batch_normalization():
    names = [layer.name for layer in models.vgg16().layers]
    for name in [*(f"conv_{number}" for number in range(1, 14)), "hidden"]:
        place = names.index(name)
        assert names[place + 1 : place + 3] == [f"{name}_norm", f"{name}_relu"]


def test_vgg16_refuses_images_too_small_for_it():
    with pytest.raises(ValueError, match=r"at least 32x32 pixels.*Received: input_shape=\(28, 28, 1\)"):
        models.vgg16((28, 28, 1))


def test_resnet_of_depth_8_by_hand():
    convolutions = 9 * (3 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    normalisations = 4 * (3 * 16 + 2 * 32 + 2 * 64)
    model = models.resnet(8, input_shape=(8, 8, 3), num_classes=5)
    assert model.count_params() == convolutions + normalisations + 64 * 5 + 5
    assert model.output_shape == (None, 5)


@pytest.mark.parametrize("depth", [20, 56, 110])
def test_resnet_has_as_many_layers_as_its_name_says(depth):
    model = models.get(f"resnet{depth}")(input_shape=(32, 32, 3), num_classes=10, seed=0)
    convolutions = [layer.name for layer in model.layers if type(layer).__name__ == "Conv2D"]
    assert convolutions == [f"conv_{number}" for number in range(1, depth)]
    assert model.layers[-1].name == "logits"
    assert model.name == f"resnet{depth}"


def test_resnet_shortcut_takes_every_second_pixel_and_adds_channels_of_zeros():
    import keras

    model = models.resnet(8, input_shape=(7, 6, 3))
    shortcut = keras.Model(model.get_layer("conv_4_shortcut_stride").input, model.get_layer("conv_4_shortcut").output)
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 16)).astype("float32")
    expected = np.concatenate([x[:, ::2, ::2], np.zeros((2, 4, 3, 16))], axis=-1)
    np.testing.assert_array_equal(shortcut(x), expected)


def test_resnet_block_is_centred_on_the_pixels_that_its_shortcut_takes():
    import keras

    model = models.resnet(8, input_shape=(8, 6, 3))
    kernel = np.zeros((3, 3, 16, 32), "float32")
    kernel[1, 1, 0, 0] = 1
    model.get_layer("conv_4").kernel.assign(kernel)
    block = keras.Model(model.get_layer("conv_4_padding").input, model.get_layer("conv_4").output)
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 16)).astype("float32")
    np.testing.assert_allclose(block(x)[..., 0], x[:, ::2, ::2, 0])


@pytest.mark.parametrize("depth", [2, 18, 50.0, 57])
def test_resnet_refuses_a_depth_that_is_not_6n_plus_2(depth):
    with pytest.raises(ValueError, match=rf"6n \+ 2, for example 20.*Received: depth={depth}"):
        models.resnet(depth)


def test_resnet_refuses_vectors():
    with pytest.raises(ValueError, match=r"resnet needs images.*Received: input_shape=\(4,\)"):
        models.resnet(8, input_shape=(4,))


def test_unknown_model_is_refused():
    with pytest.raises(ValueError, match=r"Unknown model. Received: 'vgg'. Expected one of 'mlp', 'cnn'"):
        models.get("vgg")
