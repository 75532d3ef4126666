"""Does a trace hold every call of a model, and does its replay compute the same?"""

import keras
import numpy as np
import pytest
from keras import layers
from zoo import ZOO, difference, inputs_of, nested, randomise

import tfprune
from tfprune.structure.replay import clone, replay
from tfprune.structure.trace import trace


@pytest.mark.parametrize("name", ZOO)
def test_clone_computes_the_same(name):
    model = randomise(ZOO[name]())
    assert difference(model, clone(model), inputs_of(model)) <= 1e-6


def test_calls_come_in_order_and_nested_models_are_flattened():
    model = nested()
    called = [call.op.name for call in trace(model).calls]
    assert called[0] == "stem"
    assert called.count("conv") == 3, "the block's convolution twice, the head's dense layer once"
    assert not any(name in called for name in ("block", "head"))


def test_layers_of_the_same_name_get_names_of_their_own():
    traced = trace(nested())
    names = list(traced.names.values())
    assert len(names) == len(set(names)) == len(traced.operations)
    assert {"block.conv", "head.conv", "stem"} <= set(names)


def test_shared_layers_stay_shared():
    model = ZOO["shared_layer"]()
    traced = trace(model)
    twin, _ = replay(traced)
    assert len(traced.calls) == len(traced.operations) + 2
    assert twin.count_params() == model.count_params()


def test_nested_model_called_with_training_true_stays_so():
    nested_layers = [keras.Input((4,)), layers.Dense(8, name="inner"), layers.BatchNormalization()]
    inputs = keras.Input((4,))
    features = keras.Sequential(nested_layers, name="block")(inputs, training=True)
    model = randomise(keras.Model(inputs, layers.Dense(2)(layers.Dense(5, name="hidden")(features))))
    x = inputs_of(model)
    expected = np.asarray(model(x))
    assert not np.allclose(expected, np.asarray(model(x, training=False)), atol=1e-3)
    for twin in (clone(model), tfprune.wrap(model), tfprune.shrink(tfprune.wrap(model))):
        np.testing.assert_allclose(np.asarray(twin(x)), expected, rtol=1e-5, atol=1e-6)


def test_sequential_stays_sequential():
    twin = clone(ZOO["mlp_relu"]())
    assert isinstance(twin, keras.Sequential)
    assert [layer.name for layer in twin.layers][::2] == ["first", "second"]


def test_trained_class_of_a_functional_model_is_kept():
    class Doubled(keras.Model):
        def test_step(self, data):
            return {"doubled": 2}

    inputs = keras.Input((3,))
    assert isinstance(clone(Doubled(inputs, layers.Dense(2)(inputs))), Doubled)


def test_own_activation_and_unregistered_layer_are_rebuilt():
    def swing(x):
        return keras.ops.sin(x)

    class Shift(layers.Layer):
        def call(self, x):
            return x + 1.0

    inputs = keras.Input((3,))
    model = keras.Model(inputs, Shift()(layers.Dense(2, activation=swing)(inputs)))
    assert difference(model, clone(model), inputs_of(model)) == 0


def test_compile_settings_are_kept_with_the_users_own_loss():
    def squared(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.25, momentum=0.5), loss=squared, metrics=["mae"])
    twin = clone(model)
    assert twin.optimizer is not model.optimizer
    assert (float(twin.optimizer.learning_rate), twin.optimizer.momentum) == (0.25, 0.5)
    x, y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")
    assert twin.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


def test_adapted_normalization_keeps_its_statistics():
    model = ZOO["normalised_input"]()
    assert float(model.get_layer("normalization").mean[0, 0]) > 2
    assert difference(model, clone(model), inputs_of(model)) <= 1e-6


def test_subclassed_model_is_refused_with_what_to_do():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"subclassed model .* Build it from keras.Input"):
        trace(Subclassed())


def test_unbuilt_model_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"not built.*keras.Input\(shape\)"):
        trace(keras.Sequential([layers.Dense(3)]))


def test_something_else_is_refused():
    with pytest.raises(TypeError, match=r"Expected a Keras model. Received: 'model.keras'"):
        trace("model.keras")


def test_layer_with_weights_that_cannot_be_rebuilt_is_named():
    class Stubborn(layers.Layer):
        def __init__(self, size):
            super().__init__(name="stubborn")
            self.size = size

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], self.size))

        def call(self, x):
            return x @ self.kernel

    inputs = keras.Input((3,))
    model = keras.Model(inputs, Stubborn(2)(inputs))
    with pytest.raises(ValueError, match=r"'stubborn' \(Stubborn\).*get_config"):
        clone(model)
