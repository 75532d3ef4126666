"""Is a model compiled as the one it was made from, whatever the user put into that?"""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.callbacks import Compaction, GradualPruning

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(64, 6)).astype("float32"), RANDOM.normal(size=(64, 2)).astype("float32")


def network(model_class=keras.Model):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    hidden = layers.Dense(8, activation="relu", name="b")(layers.Dense(8, activation="relu", name="a")(inputs))
    return model_class(inputs, layers.Dense(2, name="out")(hidden))


class Steps(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule without a config, which Keras could not write down."""

    def __call__(self, step):
        return 0.05 / (1.0 + keras.ops.cast(step, "float32"))


class Slow(keras.optimizers.SGD):
    """An optimizer that is not registered."""


class Needy(keras.optimizers.SGD):
    """An optimizer whose config does not say what it takes."""

    def __init__(self, must_have, learning_rate=0.01, **kwargs):
        super().__init__(learning_rate, **kwargs)


class Gap(keras.metrics.Metric):
    """A metric that takes more than its config says."""

    def __init__(self, scale, name="gap", **kwargs):
        super().__init__(name=name, **kwargs)
        self.scale, self.total = scale, self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(self.scale * keras.ops.mean(keras.ops.abs(y_true - y_pred)))

    def result(self):
        return self.total


SETTINGS = {
    "a lambda": lambda: {"optimizer": "sgd", "loss": lambda y, p: keras.ops.mean((y - p) ** 2)},
    "a partial": lambda: {"optimizer": "sgd", "loss": functools.partial(keras.losses.huber, delta=0.2)},
    "metrics": lambda: {
        "optimizer": "sgd", "loss": "mse", "weighted_metrics": ["mae"],
        "metrics": ["mse", lambda y, p: keras.ops.mean(y - p), keras.metrics.MeanAbsoluteError(name="far")],
    },
    "a schedule": lambda: {"optimizer": keras.optimizers.Adam(Steps()), "loss": "mse"},
    "a function as rate": lambda: {"optimizer": keras.optimizers.SGD(lambda: 0.01), "loss": "mse"},
    "an optimizer": lambda: {"optimizer": Slow(0.02, momentum=0.5), "loss": "mse", "steps_per_execution": 2},
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_models_are_compiled_as_the_user_did(case):
    model = network()
    model.compile(**SETTINGS[case]())
    masked = tfprune.wrap(model)
    assert masked.optimizer is not model.optimizer
    assert type(masked.optimizer) is type(model.optimizer)
    masked.fit(X, Y, epochs=2, verbose=0)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    ticket = tfprune.shrink(masked)
    assert ticket.steps_per_execution == model.steps_per_execution
    assert ticket.evaluate(X, Y, verbose=0) == pytest.approx(masked.evaluate(X, Y, verbose=0), rel=1e-4)
    before = float(ticket.optimizer.learning_rate) if case != "a schedule" else 0.05
    ticket.fit(X, Y, epochs=1, verbose=0)
    assert before == pytest.approx({"an optimizer": 0.02, "a schedule": 0.05}.get(case, 0.01))
    assert int(masked.optimizer.iterations) != int(ticket.optimizer.iterations)


def test_metric_that_cannot_be_made_again_is_left_out_with_a_warning():
    model = network()
    model.compile("sgd", "mse", metrics=["mae", Gap(2.0)])
    with pytest.warns(UserWarning, match=r"metric 'gap' is left out .* Gap cannot be made again"):
        masked = tfprune.wrap(model)
    assert len(masked.evaluate(X, Y, verbose=0)) == 2


def test_optimizer_that_cannot_be_made_again_leaves_the_model_uncompiled():
    model = network()
    model.compile(Needy(1), "mse")
    with pytest.warns(UserWarning, match="is not compiled: .*must_have.* Call its compile yourself"):
        masked = tfprune.wrap(model)
    assert not masked.compiled
    masked.compile(Needy(1), "mse")
    masked.fit(X, Y, verbose=0)
    callbacks = [Compaction(), GradualPruning(lambda step: (True, 0.5))]
    message = "Compaction needs an optimizer that can be made again"
    with pytest.warns(UserWarning, match="is not compiled"), pytest.raises(ValueError, match=message):
        masked.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)


@pytest.mark.parametrize("by", ["name", "variable"])
def test_weights_left_out_of_weight_decay_stay_left_out(by):
    model = network()
    optimizer = keras.optimizers.AdamW(0.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(
        **({"var_names": ["kernel"]} if by == "name" else {"var_list": [model.get_layer("b").kernel]})
    )
    model.compile(optimizer, "mse")
    masked = tfprune.wrap(model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    for one in (masked, tfprune.shrink(masked)):
        inner = [getattr(one.get_layer(name), "layer", one.get_layer(name)) for name in ("a", "b")]
        used = [one.optimizer._use_weight_decay(layer.kernel) for layer in inner]
        assert used == ([False, False] if by == "name" else [True, False])
        assert one.optimizer._use_weight_decay(inner[1].bias)


@keras.saving.register_keras_serializable("test")
class Distilled(keras.Model):
    """A model with settings of its own, and a compile that asks for more."""

    alpha = 1.0

    def compile(self, optimizer, loss, teacher=None):
        super().compile(optimizer=optimizer, loss=loss)
        self.teacher = teacher

    def train_step(self, data):
        x, y = data
        taught = self.alpha * keras.ops.mean((self(x) - self.teacher(x)) ** 2)
        self.optimizer.apply([taught * weight for weight in self.trainable_variables], self.trainable_variables)
        return {"loss": self.compute_loss(x, y, self(x, training=True))}


def test_model_class_of_the_users_own_keeps_what_it_needs():
    model, teacher = network(Distilled), network()
    model.compile("sgd", "mse", teacher=teacher)
    model.alpha = 0.25
    masked = tfprune.wrap(model)
    assert masked.compiled
    assert masked.alpha == 0.25
    assert masked.teacher is teacher
    masked.alpha = 0.5
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    ticket = tfprune.shrink(masked)
    assert (ticket.alpha, ticket.teacher) == (0.5, teacher)
    ticket.fit(X, Y, verbose=0)  # asks for the teacher


def test_compaction_trains_a_users_own_objective():
    found = []
    for compaction in ([], [Compaction()]):
        masked = tfprune.wrap(network(Weighted))
        masked.compile("sgd", "mse")
        masked.alpha = 0.1
        masked.fit(X, Y, epochs=3, shuffle=False, verbose=0,
                   callbacks=[*compaction, GradualPruning(lambda step: (step == 1, 0.5))])  # fmt: skip
        found.append(tfprune.shrink(masked).predict(X, verbose=0))
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


@keras.saving.register_keras_serializable("test")
class Weighted(keras.Model):
    """A loss with a weight."""

    alpha = 1.0

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.alpha * super().compute_loss(x, y, y_pred, sample_weight, training)


def test_layers_frozen_after_wrapping_are_compacted_as_well():
    found = []
    for compaction in ([], [Compaction()]):
        model = network()
        model.compile(keras.optimizers.AdamW(0.02), "mse")
        masked = tfprune.wrap(model)
        masked.get_layer("b").trainable = False
        masked.fit(X, Y, epochs=3, shuffle=False, verbose=0,
                   callbacks=[*compaction, GradualPruning(lambda step: (step == 1, 0.5))])  # fmt: skip
        found.append(tfprune.shrink(masked).predict(X, verbose=0))
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
