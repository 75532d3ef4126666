"""Are ResNet-18 and ResNet-50 the published networks, do given weights arrive, and does pruning reach through them?"""

import importlib.util

import keras
import numpy as np
import pytest

import tfprune
from tfprune import models, transfer

X = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module")
def resnet18():
    return models.resnet18(seed=0)


@pytest.fixture(scope="module")
def resnet50():
    return models.resnet50(seed=0, num_classes=5)


def trainable_parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_resnet18_has_the_parameters_of_the_published_network(resnet18):
    # 11,689,512 with 1,000 classes, as torchvision counts them: 513,000 of them in the head.
    assert trainable_parameters(resnet18) == 11_689_512 - 513_000 + 512 * 10 + 10


def test_resnet50_is_that_of_keras_applications(resnet50):
    whole = keras.applications.ResNet50(weights=None, include_top=False)
    assert resnet50.count_params() == whole.count_params() + 2048 * 5 + 5
    assert resnet50.output_shape == (None, 5)


def test_resnet50_gets_what_its_weights_expect(resnet50):
    """keras.applications turns and shifts colours outside the model; here the same happens inside, kernel turned."""
    from keras.applications.resnet import preprocess_input

    prepared = resnet50.get_layer("preprocess")(X)
    expected = preprocess_input(np.array((X + 1) * 127.5))[..., ::-1]
    np.testing.assert_allclose(prepared, expected, atol=0.02)


def test_resnet18_standardises_images_as_its_weights_expect(resnet18):
    expected = ((X + 1) / 2 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(resnet18.get_layer("preprocess")(X), expected, atol=1e-5)


def test_seed_fixes_the_weights(resnet18):
    same, other = models.resnet18(seed=0), models.resnet18(seed=1)
    for name in ("conv1_conv", "stack3_block1_2_conv", "logits"):
        kernels = [np.asarray(model.get_layer(name).kernel) for model in (resnet18, same, other)]
        np.testing.assert_array_equal(kernels[0], kernels[1])
        assert not np.array_equal(kernels[0], kernels[2])


def test_frozen_backbone_leaves_only_the_head_to_learn():
    frozen = models.resnet18(seed=0, trainable=False)
    assert [weight.path for weight in frozen.trainable_weights] == ["logits/kernel", "logits/bias"]
    masked = tfprune.wrap(frozen)
    assert trainable_parameters(masked) == 512 * 10 + 10


@pytest.mark.parametrize("num_classes", [10, 3])
def test_weights_of_a_file_arrive_all_but_the_head(num_classes, resnet18, tmp_path):
    path = tmp_path / "ours.keras"
    resnet18.save(path)
    loaded = models.resnet18(num_classes=num_classes, seed=3, weights=path)
    for layer in loaded.layers[1:-1]:
        pairs = zip(layer.get_weights(), resnet18.get_layer(layer.name).get_weights(), strict=True)
        assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)
    assert loaded.output_shape == (None, num_classes)
    assert not np.array_equal(loaded.layers[-1].kernel, resnet18.layers[-1].kernel)


def test_images_are_enlarged_inside_the_model(resnet18):
    large = models.resnet18(seed=0, resize_to=64)
    enlarged = keras.ops.image.resize(X, (64, 64), interpolation="bilinear")
    np.testing.assert_allclose(large(X), models.resnet18((64, 64, 3), seed=0)(enlarged), atol=1e-4)
    assert large.input_shape == (None, 32, 32, 3)


def test_enlarging_model_is_pruned_saved_and_loaded(tmp_path):
    masked = tfprune.wrap(models.resnet18(seed=0, resize_to=48))
    tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio=0.5))
    ticket = tfprune.shrink(masked)
    ticket.save(tmp_path / "ticket.keras")
    loaded = keras.models.load_model(tmp_path / "ticket.keras")
    np.testing.assert_allclose(loaded(X), masked(X), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_half_of_every_group_goes_and_the_outputs_stay(name, request):
    masked = tfprune.wrap(request.getfixturevalue(name))
    tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio=0.5))
    ticket = tfprune.shrink(masked)
    assert tfprune.ticket_report(ticket)["exact"]
    np.testing.assert_allclose(ticket(X), masked(X), rtol=1e-3, atol=1e-4)
    assert ticket.count_params() < 0.3 * masked.count_params()


@pytest.mark.skipif(importlib.util.find_spec("keras_hub") is None, reason="needs keras-hub")
def test_resnet18_with_the_weights_of_kerashub_gives_its_features(resnet18):
    """The preset's file cannot be downloaded in a test, its architecture with random weights can be built."""
    import keras_hub

    theirs = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[2, 2, 2, 2],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=(32, 32, 3),
    )
    random = np.random.default_rng(1)
    for layer in theirs.layers:
        layer.set_weights([random.uniform(0.01, 0.1, w.shape) for w in layer.get_weights()])
    ours = models.resnet18(seed=1)
    transfer.copy_backbone(theirs, ours)
    features = keras.Model(ours.input, ours.get_layer("pool").output)
    expected = keras.ops.mean(theirs(ours.get_layer("preprocess")(X)), axis=(1, 2))
    np.testing.assert_allclose(features(X), expected, rtol=1e-3)


@pytest.mark.skipif(importlib.util.find_spec("keras_hub") is not None, reason="keras-hub is there")
def test_imagenet_without_kerashub_says_what_to_do():
    with pytest.raises(ImportError, match=r"keras-hub, which is not installed.*resnet50"):
        models.resnet18(weights="imagenet")


def test_what_is_no_resnet18_is_refused(resnet18, resnet50):
    with pytest.raises(ValueError, match=r"'resnet50' is no resnet18: expected a layer 'conv1_conv'"):
        transfer.copy_backbone(resnet50, resnet18)


def test_grey_images_are_refused():
    with pytest.raises(ValueError, match=r"three colours.*Received: input_shape=\(28, 28, 1\)"):
        models.resnet18((28, 28, 1))


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match=r"'imagenet', or the path of a .keras file.*Received: weights='imagnet'"):
        models.resnet18(weights="imagnet")


def test_unknown_model_is_an_attribute_error():
    with pytest.raises(AttributeError, match="resnet34"):
        models.resnet34  # noqa: B018
