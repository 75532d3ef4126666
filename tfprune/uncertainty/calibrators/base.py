"""What do all calibrators share? They are fitted on a model's logits, keep what they learned, and join a model."""

from dataclasses import replace

import keras
import numpy as np
from keras import ops

from tfprune.metrics.scores import class_indices, entropy, logit_columns, softmax
from tfprune.predictions import NLL_EPSILON, Predictor, collect
from tfprune.structure.compiling import compile_like
from tfprune.structure.cost import record_reference, reference_of
from tfprune.structure.head import kind_and_chain, without_activation
from tfprune.structure.replay import copy_weights, replay
from tfprune.uncertainty.leak import Fingerprint
from tfprune.uncertainty.predictive import Predictive


class Calibrator(keras.layers.Layer):
    """Base class: a layer logits -> calibrated logits whose weights are fitted, not trained.

    A subclass writes `learn(logits, labels)`, which returns its weights by name, and `calibrate(logits)`, which applies
    them. Logits of shape (n, classes) give the same shape; one column, the logit of class 1, gives one column. The
    layer computes in float64 whatever the dtype policy, and gives `dtype`.

    Args:
        name: name of the layer.
        dtype: dtype of the calibrated logits; float32 by default, under a mixed precision policy too.
    """

    def __init__(self, name=None, dtype="float32", **kwargs):
        # autocast=False: logits that come in float32 must not be rounded to half precision on the way in.
        super().__init__(name=name, dtype=dtype, autocast=False, **kwargs)
        self.num_classes, self.shapes, self.fingerprint = None, (), None

    def learn(self, logits, labels):
        """`{name: array}` of the layer's weights, learned from float64 logits (n, classes) and integer labels (n,)."""
        raise NotImplementedError

    def calibrate(self, logits):
        """Calibrated logits of float64 logits, tensors (n, classes) both."""
        raise NotImplementedError

    # --- fitting ------------------------------------------------------------------------------------------------------

    @property
    def is_fitted(self):
        """Whether `fit` has been called, on this layer or on the saved one it was loaded from."""
        return self.num_classes is not None

    @property
    def fingerprints(self):
        """The fingerprint of the data it was fitted on, in a list; empty where only logits were given."""
        return [] if self.fingerprint is None else [self.fingerprint]

    def fit(self, model, validation, from_logits=None):
        """Fits the calibrator on what a model says of validation data; returns itself.

        Args:
            model: a built Keras model with one output, or a predictive (anything with `.predict(x)`); of an ensemble,
                the mean probability is calibrated. The model is left as it is.
            validation: `(x, y)` arrays, or a `tf.data.Dataset` of `(x, y)`, batched or not. Samples that the model was
                neither trained nor will be evaluated on.
            from_logits: whether the model's outputs are logits. None reads it off the model's last layer.

        Raises:
            ValueError: as `fit_logits`, and for data or a model that cannot be read.
        """
        predict = _Watched(model, from_logits)
        logits, labels = collect(predict, validation, "validation")
        return self.fit_logits(logits, labels, predict.fingerprint)

    def fit_logits(self, logits, labels, fingerprint=None):
        """Fits the calibrator on logits; returns itself.

        Args:
            logits: (n, classes), or one column for a sigmoid. The logarithm of probabilities will do.
            labels: integers (n,) or one-hot rows.
            fingerprint: optional `Fingerprint` of the samples that the logits are of. Without it no evaluation can tell
                whether it is done on the same samples.

        Raises:
            ValueError: for fewer than two samples or a single class among the labels; for logits that are not finite;
                where no best fit exists; where the calibrator is fitted already.
        """
        if self.is_fitted:
            raise ValueError(f"'{self.name}' is fitted already. Make a new {type(self).__name__} for another fit.")
        logits, labels = _checked(logits, labels)
        values = self.learn(logits, labels)
        self.shapes = tuple((name, tuple(np.shape(value))) for name, value in values.items())
        self.num_classes = logits.shape[1]
        if fingerprint is not None:
            owner = f"{type(self).__name__} '{self.name}'"
            self.fingerprint = Fingerprint.from_config({**fingerprint.get_config(), "owner": owner})
        self.build((None, self.num_classes))
        for name, value in values.items():
            getattr(self, name).assign(value)
        return self

    # --- the layer ----------------------------------------------------------------------------------------------------

    def build(self, input_shape):
        """Creates the weights that were learned; in float64, so that they are kept to the last digit."""
        self._check_fitted()
        for name, shape in self.shapes:
            # Not trainable: what training would make of them is no calibration.
            weight = self.add_weight(
                shape=shape, initializer="zeros", dtype="float64", trainable=False, autocast=False, name=name
            )
            setattr(self, name, weight)

    def call(self, inputs):
        """Calibrated logits."""
        self._check_fitted()
        self._check_classes(inputs.shape)
        logits = ops.cast(inputs, "float64")
        is_column = inputs.shape[-1] == 1
        if is_column:
            logits = ops.concatenate([ops.zeros_like(logits), logits], axis=-1)
        calibrated = self.calibrate(logits)
        if is_column:
            calibrated = calibrated[:, 1:] - calibrated[:, :1]
        return ops.cast(calibrated, self.compute_dtype)

    def compute_output_spec(self, inputs):
        """As the inputs, in the layer's dtype."""
        self._check_fitted()
        self._check_classes(inputs.shape)
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def _check_fitted(self):
        if not self.is_fitted:
            raise ValueError(f"'{self.name}' is not fitted. Call {type(self).__name__}().fit(model, validation) first.")

    def _check_classes(self, shape):
        given = 2 if len(shape) == 2 and shape[-1] == 1 else shape[-1]
        if len(shape) != 2 or given != self.num_classes:
            raise ValueError(
                f"'{self.name}' was fitted on {self.num_classes} classes and expects logits of shape "
                f"(samples, {self.num_classes}). Received: shape {tuple(shape)}."
            )

    def get_config(self):
        """What `__init__` takes, and under "fitted" what `from_config` needs to hold the weights again."""
        fitted = {
            "num_classes": self.num_classes,
            "shapes": {name: list(shape) for name, shape in self.shapes},
            "fingerprint": self.fingerprint.get_config() if self.fingerprint else None,
        }
        return {**super().get_config(), "fitted": fitted if self.is_fitted else None}

    @classmethod
    def from_config(cls, config):
        """The layer that `get_config` was called on, but for its weights."""
        config = dict(config)
        fitted = config.pop("fitted", None)
        layer = cls(**config)
        if fitted:
            layer.num_classes = fitted["num_classes"]
            layer.shapes = tuple((name, tuple(shape)) for name, shape in fitted["shapes"].items())
            found = fitted["fingerprint"]
            layer.fingerprint = Fingerprint.from_config(found) if found else None
        return layer

    # --- becoming part of a model -------------------------------------------------------------------------------------

    def attach(self, model, from_logits=None):
        """Returns a new model that gives calibrated probabilities; neither the model nor the calibrator changes later.

        A Keras model gives a functional model with copies of its layers, up to the logits, followed by a copy of this
        layer and a softmax (a sigmoid where the model has one output column). It is compiled as the model was, unless
        the model gives logits: losses made for logits do not fit probabilities. A predictive gives a
        `CalibratedPredictive`.

        Args:
            model: the model that this was fitted on, or one like it.
            from_logits: whether the model's outputs are logits. None reads it off the model's last layer.

        Raises:
            ValueError: where this is not fitted, or on another number of classes; for subclassed Keras models, whose
                graph cannot be read.
        """
        self._check_fitted()
        if not isinstance(model, keras.Model):
            return CalibratedPredictive(model, self, from_logits)
        told = Predictor(model, from_logits)
        if told.traced is None:
            raise ValueError(
                f"Cannot read the graph of the subclassed model '{model.name}'. Pass it within a functional model: "
                "inputs = keras.Input(shape); keras.Model(inputs, model(inputs)), and say from_logits."
            )
        return _with_calibrator(told, self)

    def copy(self, name=None):
        """A new layer with the same weights.

        Args:
            name: its name; None takes the same.
        """
        self._check_fitted()
        twin = type(self).from_config({**self.get_config(), "name": name or self.name})
        twin.build((None, self.num_classes))
        copy_weights(self, twin)
        return twin


class CalibratedPredictive(Predictive):
    """A predictive whose probabilities are calibrated; `Calibrator.attach` makes it.

    The entropy is that of the calibrated probabilities. Other scores, as the mutual information, stay what the
    predictive says of them: they compare its samples, which are not calibrated one by one.

    Args:
        predictive: anything with `.predict(x)`.
        calibrator: a fitted `Calibrator`.
        from_logits: whether `.predict` gives logits; None reads it off the object's `from_logits`.
    """

    def __init__(self, predictive, calibrator, from_logits=None):
        self.predictive, self.calibrator = predictive, calibrator.copy()
        self._predict = Predictor(predictive, from_logits)

    def predict_uncertainty(self, x):
        """Calibrated probabilities, their entropy, and the other scores of the predictive.

        Args:
            x: array of inputs, samples first.
        """
        logits, scores = self._predict.with_scores(x)
        self.calibrator._check_classes(logits.shape)
        calibrated = self.calibrator.calibrate(ops.convert_to_tensor(logits, dtype="float64"))
        probabilities = softmax(ops.convert_to_numpy(calibrated))
        return {**scores, "probabilities": probabilities, "entropy": entropy(probabilities)}


class _Watched(Predictor):
    """A predictor that remembers the fingerprint of what it is asked."""

    def __init__(self, model, from_logits):
        super().__init__(model, from_logits)
        self.fingerprint = Fingerprint()

    def __call__(self, x):
        self.fingerprint.add(x)
        return super().__call__(x)


def _checked(logits, labels):
    logits = logit_columns(logits)
    labels = class_indices(labels, logits.shape[1])
    if len(logits) != len(labels):
        raise ValueError(f"Expected a label for each of the {len(logits)} logits. Received: {len(labels)} labels.")
    present = np.unique(labels)
    if len(present) < 2:  # a single sample has a single class
        raise ValueError(
            "A calibrator learns from labels of at least two classes. "
            f"Received: {len(labels)} sample(s), all of class {present[0]}."
        )
    return logits, labels


# --- a Keras model with a calibrator at its end -----------------------------------------------------------------------


def _with_calibrator(told, calibrator):
    twin = _logits_model(told)
    logits = twin.outputs[0]
    if told.head == "sigmoid" and logits.shape[-1] > 1:
        raise ValueError(
            f"Expected one class per sample. Received: model '{told.model.name}', a sigmoid over {logits.shape[-1]} "
            "outputs, which is a multi-label model."
        )
    logits = logits if told.gives_logits else _logits_of(logits)
    taken = {layer.name for layer in twin.layers}
    calibrated = calibrator.copy(_free_name(calibrator.name, taken))(logits)
    function = "sigmoid" if logits.shape[-1] == 1 else "softmax"
    last = keras.layers.Activation(function, dtype="float32", name=_free_name("calibrated", taken))
    inputs = twin.inputs[0] if isinstance(twin, keras.Sequential) else twin.input
    model = keras.Model(inputs, last(calibrated), name=f"{told.model.name}_calibrated")
    if told.head in ("softmax", "sigmoid"):
        compile_like(model, told.model)
    if reference_of(told.model):
        record_reference(model, reference_of(told.model))
    return model


def _logits_model(told):
    """A copy of the model, without the softmax or sigmoid it ends in."""
    traced = told.traced
    if told.head in ("softmax", "sigmoid"):
        _, chain = kind_and_chain(traced)
        plain = without_activation(chain[0])
        calls = [plain if call is chain[0] else call for call in traced.calls]
        traced = replace(traced, calls=calls, names={**traced.names, id(plain.op): traced.names[id(chain[0].op)]})
    twin, twins = replay(traced, draw=False)
    for op in traced.operations:
        copy_weights(op, twins[id(op)])
    return twin


def _logits_of(probabilities):
    """Logits of a model that gives probabilities and cannot be stepped back; one column stays one."""
    logarithm = ops.log(ops.maximum(probabilities, NLL_EPSILON))
    if probabilities.shape[-1] > 1:
        return logarithm
    return logarithm - ops.log(ops.maximum(1.0 - probabilities, NLL_EPSILON))


def _free_name(name, taken):
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
