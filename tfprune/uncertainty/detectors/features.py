"""What does a detector see of a batch? Its features, its logits and the head between them, in one forward pass."""

import dataclasses
import hashlib
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.metrics.scores import class_indices
from tfprune.predictions import Forward, Predictor, batches
from tfprune.structure.groups import ChannelGraph
from tfprune.structure.head import without_activation
from tfprune.structure.replay import value_of
from tfprune.structure.running import given, run
from tfprune.uncertainty.detectors.linear_head import NoLinearHead, find_linear_head

# So many samples are run a second time, to see that the head that was found is the model's.
_NUM_CHECKED = 8


@dataclasses.dataclass(frozen=True, eq=False)
class FeaturesBatch:
    """What a detector sees of some samples.

    Args:
        inputs: the model's inputs, or None once they are gone.
        logits: (samples, classes) float64; logarithms of probabilities where the model gives only these.
        features: (samples, features), or None.
        labels: (samples,) integers, or None.
        known: `{name: OOD score}`, what the model itself says of its uncertainty.
    """

    inputs: Any
    logits: np.ndarray
    features: np.ndarray | None = None
    labels: np.ndarray | None = None
    known: dict = dataclasses.field(default_factory=dict)


class Features(Predictor):
    """A `Predictor` that gives features beside the logits, in the same forward pass.

    By default the features are what the last linear layer reads, and `linear` is that layer as a `LinearHead`.
    Where there are none (subclassed models, what is no Keras model), `without_features` says why.

    Args:
        model: what `Predictor` takes.
        feature_layer: name of the layer whose output is taken for features instead; maps are averaged over their
            positions. Then `linear` is None, unless it reads that very output.
        from_logits: as `Predictor` takes it.

    Raises:
        ValueError: for a layer that the model does not have or calls several times; and, with the first batch, where
            features @ weights + bias is not what the model says.

    Example:
        >>> batch = Features(model).batch(x)
        >>> batch.features.shape, batch.logits.shape
        ((256, 84), (256, 10))
    """

    def __init__(self, model, feature_layer=None, from_logits=None):
        super().__init__(model, from_logits)
        self.feature_layer, self.without_features = feature_layer, None
        self._path = self.linear = self._find_head()
        self._through, self._is_checked = None, False
        if feature_layer is not None:
            tensor = self._named_tensor()
            if self._path is None or tensor is not self._path.call.input_tensors[0]:
                self.linear, self.without_features = None, None
                self._kept, self._through = self._kept_channels(tensor), self._run(tensor, average=True)
        if self.linear:
            tensor = self.linear.call.input_tensors[0]
            self._kept, self._through = self.linear.kept, self._run(tensor, average=self.linear.pooled)

    @property
    def has_features(self):
        """Whether batches have features."""
        return self._through is not None

    def __call__(self, x):
        """Logits of a batch."""
        return self.batch(x).logits

    def with_scores(self, x):
        """As `Predictor.with_scores`."""
        batch = self.batch(x)
        return batch.logits, batch.known

    def batch(self, x, labels=None):
        """The `FeaturesBatch` of inputs `x`; `labels` are integers or one-hot rows."""
        features, known = None, {}
        if self._through:
            features, outputs = self._through(x)
            logits = self._logits(outputs, x) if self._path else super().__call__(x)
            features = self._rows(features)
            self._check_once(x, features, logits)
        elif hasattr(self.model, "predict_uncertainty"):
            logits, known = super().with_scores(x)
        else:
            logits = super().__call__(x)
        labels = None if labels is None else class_indices(labels, logits.shape[1])
        return FeaturesBatch(x, logits, features, labels, known)

    def stream(self, data, what, labelled=False, batch_size=256):
        """Yields the `FeaturesBatch` of every batch of `data`, which `tfprune.predictions.batches` reads."""
        for x, y in batches(data, self.model, batch_size, what, labelled, like=self.sample_shape):
            yield self.batch(x, y)

    def _find_head(self):
        """The linear head; or None, and then `without_features` says why."""
        name = getattr(self.model, "name", type(self.model).__name__)
        if not isinstance(self.model, keras.Model):
            self.without_features = f"{name} is no Keras model"
        elif self.traced is None:
            self.without_features = f"'{name}' is a subclassed model, whose layers cannot be read"
        elif not self.gives_logits:
            self.without_features = f"'{name}' gives probabilities, and its logits are not known"
        else:
            try:
                return find_linear_head(self.traced)
            except NoLinearHead as reason:
                self.without_features = f"'{name}' has no linear head: {reason}"
        return None

    def _named_tensor(self):
        """The output of the layer that `feature_layer` names."""
        names = self.traced.names if self.traced else {}
        calls = [call for call in self.traced.calls if names[id(call.op)] == self.feature_layer] if names else []
        if len(calls) != 1 or len(calls[0].output_tensors) != 1:
            known = ", ".join(map(repr, names.values())) or "unknown"
            raise ValueError(
                "feature_layer must name a layer that the model calls once and that has one output. "
                f"Received: {self.feature_layer!r}, called {len(calls)} times. The model's layers: {known}."
            )
        return calls[0].output_tensors[0]

    def _kept_channels(self, tensor):
        """Bool array: which channels (along the last axis) of a tensor are not pruned."""
        graph = ChannelGraph(self.model, verify=False)
        if not graph.masked:
            return np.ones(tensor.shape[-1], bool)
        # The graph has a trace of its own; what it leaves closed is not pruned inside.
        calls = [call for call in graph.trace.calls if graph.trace.names[id(call.op)] == self.feature_layer]
        if not calls:
            return np.ones(tensor.shape[-1], bool)
        kept = graph.kept()[graph.tensors(calls[0])[1][0]]
        return kept.any(axis=tuple(range(kept.ndim - 1)))

    def _run(self, tensor, average):
        """Function: batch -> (features, outputs)."""
        calls, outputs = self.traced.calls, tensor
        if self._path:
            replaced = {id(call) for call in (self._path.call, *self._path.tail)}
            head = without_activation(self._path.call)
            calls = [*(call for call in calls if id(call) not in replaced), head, *self._path.tail]
            outputs = calls[-1].output_tensors[0]
        return Forward(_Through(self.traced, calls, (tensor, outputs), average))

    def _rows(self, features):
        """Features (samples, features) as a finite NumPy array without those that are masked."""
        rows = np.asarray(ops.convert_to_numpy(features))[:, self._kept]
        if not np.all(np.isfinite(rows)):
            raise ValueError(
                f"The features hold NaN or infinity, in {int(np.sum(~np.isfinite(rows).all(axis=1)))} of the "
                f"{len(rows)} samples of a batch. Half precision overflows at 65504: run this model in float32."
            )
        return rows

    def _check_once(self, x, features, logits):
        """features @ weights + bias must be what the model says, up to a number per row (log-softmax takes one off)."""
        if self._is_checked or self._path is None:
            return
        features, logits = features[:_NUM_CHECKED], logits[:_NUM_CHECKED]
        said = super().__call__(keras.tree.map_structure(lambda leaf: leaf[:_NUM_CHECKED], x))
        allowed = self._path.tolerance * np.abs(logits).max(axis=1, keepdims=True)
        if self.linear:
            logits, allowed = self.linear.logits(features), self.linear.rounding(features).max(axis=1, keepdims=True)
        difference = logits - said
        difference -= difference.mean(axis=1, keepdims=True)
        if np.any(np.abs(difference) > allowed + 1e-9):
            raise ValueError(
                f"What layer '{self._path.call.op.name}' reads, times its weights, should be the logits of "
                f"'{self.model.name}', but differs by {np.abs(difference).max():.3g}. Use detectors that read logits "
                "only, such as 'msp'."
            )
        self._is_checked = True


class _Through(keras.Model):
    """Runs the calls of a trace, and gives two of its tensors: features as rows, and the outputs."""

    def __init__(self, traced, calls, wanted, average):
        # autocast=False: the layers cast for themselves, as they do inside a functional model.
        super().__init__(name=f"{traced.name}_features", autocast=False)
        self._traced, self._calls, self._wanted, self._average = traced, calls, wanted, average
        self._shared = [call.op for call in calls if isinstance(call.op, keras.Layer)]  # so that Keras sees them

    def call(self, inputs):
        """Features (samples, features) and outputs of a batch."""
        tensors = run(self._calls, given(self._traced, inputs))
        features, outputs = (tensors[id(tensor)] for tensor in self._wanted)
        return self._as_rows(features), outputs

    def _as_rows(self, features):
        if "float64" not in str(features.dtype):
            features = ops.cast(features, "float32")  # half precision is widened before anything is added up
        if self._average and len(features.shape) > 2:
            return ops.mean(features, axis=tuple(range(1, len(features.shape) - 1)))
        return ops.reshape(features, (ops.shape(features)[0], -1))


def weights_hash(model):
    """SHA-256 of the weights of a Keras model, masks included, in their order; it knows a model by what it computes.

    Args:
        model: a Keras model, or an object that holds some as attributes, such as an ensemble.

    Returns:
        A string; None for an object that holds no Keras model.
    """
    models = [model] if isinstance(model, keras.Model) else _models_in(model)
    found = hashlib.sha256()
    for weight in (weight for part in models for weight in part.weights):
        value = np.ascontiguousarray(value_of(weight))
        found.update(f"{value.dtype.name} {value.shape}\n".encode())
        found.update(value.tobytes())
    return found.hexdigest() if models else None


def _models_in(holder):
    leaves = keras.tree.flatten(list(getattr(holder, "__dict__", {}).values()))
    return [leaf for leaf in leaves if isinstance(leaf, keras.Model)]
