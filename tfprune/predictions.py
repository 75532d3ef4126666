"""What does a model say of a batch? Its logits, in float64, from any model and any data.

`Predictor` reads logits off a Keras model (before its softmax or sigmoid, so that nothing saturates) or off anything
with `.predict`; `batches` reads arrays and data sets, batch by batch, and refuses what does not fit the model.
"""

import keras
import numpy as np

from tfprune.metrics.scores import class_indices, logit_columns, probability_columns
from tfprune.structure.head import find_head, logits_model_of
from tfprune.structure.trace import trace

# The smallest normal float32: a probability that a float32 softmax gives as 0 is below it.
NLL_EPSILON = float(np.finfo(np.float32).tiny)


# --- what the model gives ---------------------------------------------------------------------------------------------


class Predictor:
    """Batch -> float64 logits (samples, classes), whatever the model gives.

    Args:
        model: a built Keras model with one output, or anything with `.predict(x)`. An object that also has
            `.predict_uncertainty(x)` (see `tfprune.uncertainty.predictive`) is asked for its scores as well.
        from_logits: whether the outputs are logits; None reads it off the model's last layer.

    Raises:
        ValueError: where logits and probabilities cannot be told apart, or the model is unbuilt or has many outputs.
        TypeError: for a model without `.predict`.
    """

    def __init__(self, model, from_logits=None):
        self.model, self.traced = model, checked_trace(model)
        self.head = find_head(self.traced) if self.traced else None
        if from_logits is None and not isinstance(model, keras.Model):
            from_logits = getattr(model, "from_logits", None)
        _check_told(model, self.head, from_logits)
        stepped_back = self.head in ("softmax", "sigmoid")
        self.gives_logits = stepped_back or (self.head == "linear" if from_logits is None else bool(from_logits))
        self.epsilon = None if self.gives_logits else NLL_EPSILON
        self.sample_shape = None
        if isinstance(model, keras.Model):
            self.run = Forward(logits_model_of(model, self.traced) if stepped_back else model)
        else:
            self.run = lambda x: model.predict(keras.tree.map_structure(np.asarray, x))

    def __call__(self, x):
        """Logits of a batch."""
        return self._logits(self.run(x), x)

    def with_scores(self, x):
        """`(logits, {name: OOD score of each sample})`, the latter what the model itself knows of its uncertainty."""
        if not hasattr(self.model, "predict_uncertainty"):
            return self(x), {}
        known = dict(self.model.predict_uncertainty(keras.tree.map_structure(np.asarray, x)))
        return self._logits(known.pop("probabilities"), x), {key: np.asarray(known[key]) for key in sorted(known)}

    def _logits(self, outputs, x):
        self.sample_shape = self.sample_shape or _sample_shape(x)
        outputs = _matrix(outputs, len(keras.tree.flatten(x)[0]))
        if self.head == "sigmoid" and outputs.shape[1] > 1:
            raise ValueError(
                f"Expected one class per sample. Received: a sigmoid over {outputs.shape[1]} outputs, which is "
                "a multi-label model. Use a softmax, or a single sigmoid output for two classes."
            )
        return logit_columns(outputs) if self.gives_logits else _logits_of_probabilities(outputs)


def collect(model, data, what, from_logits=None, batch_size=256):
    """All logits (samples, classes) and labels (samples,) of labelled data.

    Args:
        model: what `Predictor` takes, or a `Predictor`.
        data: `(x, y)` arrays, or a `tf.data.Dataset` of `(x, y)`, batched or not.
        what: what to call the data in an error.
        from_logits: as `Predictor` takes it.
        batch_size: samples at a time, for arrays and unbatched data sets.

    Raises:
        ValueError: for data that is empty or does not fit the model.
    """
    predict = model if isinstance(model, Predictor) else Predictor(model, from_logits)
    logits, labels = [], []
    for x, y in batches(data, predict.model, batch_size, what):
        logits.append(predict(x))
        labels.append(class_indices(y, logits[-1].shape[1]))
    if not logits:
        raise ValueError(f"Expected at least one sample. Received: {what} without any.")
    return np.concatenate(logits), np.concatenate(labels)


class Forward:
    """Runs a Keras model on batches: the first few directly, later ones through a compiled function.

    Compiling costs about as much as four batches do without; small sets, which a study evaluates by the hundred, are
    done before that.
    """

    def __init__(self, model, direct=4):
        self.model, self.direct, self.compiled = model, direct, {}
        self.structure = model.input if isinstance(model, keras.Function) else None

    def __call__(self, x):
        """Outputs of a batch."""
        import tensorflow as tf

        x = keras.tree.map_structure(tf.convert_to_tensor, _arranged(x, self.structure))
        if self.direct:
            self.direct -= 1
            return self.model(x, training=False)
        spec = keras.tree.map_structure(lambda t: tf.TensorSpec((None, *t.shape[1:]), t.dtype), x)
        key = repr(spec)  # tells a list of inputs from a tuple, too
        if key not in self.compiled:
            function = tf.function(lambda x: self.model(x, training=False), autograph=False)
            self.compiled[key] = function.get_concrete_function(spec)
        return self.compiled[key](x)


def _arranged(x, structure):
    """Inputs in the structure that a functional model was made with; Keras warns at any other, [x] for x included."""
    expected = keras.tree.flatten(structure)
    if structure is None or isinstance(structure, dict) or len(keras.tree.flatten(x)) != len(expected):
        return x
    leaves = [x[tensor.name] for tensor in expected] if isinstance(x, dict) else keras.tree.flatten(x)
    return keras.tree.pack_sequence_as(structure, leaves)


def _check_told(model, head, from_logits):
    """Raises where logits and probabilities cannot be told apart, or where what is said is not what is seen."""
    if from_logits not in (None, True, False):
        raise ValueError(f"from_logits must be True, False or None. Received: from_logits={from_logits!r}.")
    name = getattr(model, "name", type(model).__name__)
    if head is None and from_logits is None:
        raise ValueError(
            f"Cannot tell whether '{name}' gives logits or probabilities: expected a Keras model that ends in a "
            "softmax, a sigmoid or a linear layer. Pass from_logits=True if it gives logits, from_logits=False if it "
            "gives probabilities."
        )
    if head in ("softmax", "sigmoid") and from_logits:
        raise ValueError(
            f"Model '{name}' ends in a {head}, so it gives probabilities. Received: from_logits=True. "
            "Leave from_logits out."
        )


def _matrix(outputs, size):
    """Outputs as a finite NumPy array (samples, classes)."""
    if isinstance(outputs, dict | tuple):
        raise ValueError(f"Expected a model with one output. Received: {len(outputs)} outputs.")
    if not isinstance(outputs, list):
        outputs = keras.ops.convert_to_numpy(outputs)
    outputs = np.asarray(outputs)
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    if outputs.ndim != 2 or len(outputs) != size:
        raise ValueError(
            f"Expected outputs of shape (samples, classes), here ({size}, classes). Received: shape {outputs.shape}."
        )
    if not np.all(np.isfinite(outputs.astype(np.float64))):
        bad = int(np.sum(~np.all(np.isfinite(outputs.astype(np.float64)), axis=1)))
        raise ValueError(
            f"The model's outputs hold NaN or infinity, in {bad} of the {size} samples of a batch. "
            "Did its training diverge? Is its input scaled as in training?"
        )
    return outputs


def _logits_of_probabilities(outputs):
    """Logarithms of probabilities; their softmax is the probabilities again."""
    tolerance = 1e-3 if outputs.dtype.itemsize >= 4 else 2e-2  # half precision holds two to three digits
    p = outputs.astype(np.float64)
    sums = p.sum(axis=1) if p.shape[1] > 1 else np.ones(len(p))
    if p.min() < -tolerance or p.max() > 1 + tolerance or np.abs(sums - 1).max() > tolerance:
        raise ValueError(
            "Expected probabilities: numbers in [0, 1] whose rows sum to 1. Received: values from "
            f"{p.min():.4g} to {p.max():.4g}, row sums from {sums.min():.4g} to {sums.max():.4g}. "
            "If these are logits, pass from_logits=True."
        )
    return np.log(np.maximum(probability_columns(np.clip(p, 0.0, 1.0)), NLL_EPSILON))


# --- what is given ----------------------------------------------------------------------------------------------------


def batches(data, model, batch_size, what, labelled=True, like=None):
    """Pairs (x, y) of batches, y None unless `labelled`; `like` is the sample shape where the model says none."""
    import tensorflow as tf

    expected = _input_shape(model) or like
    if isinstance(data, tf.data.Dataset):
        pairs = _dataset_batches(data, expected, batch_size, what, labelled)
    else:
        pairs = _array_batches(data, model, batch_size, what, labelled)
    for x, y in pairs:
        if len(keras.tree.flatten(x)[0]):
            _check_names(x, model, what)
            _check_shape(x, expected, what)
            yield x, y


def _dataset_batches(data, expected, batch_size, what, labelled):
    spec = data.element_spec
    if labelled and not (isinstance(spec, tuple) and len(spec) == 2):
        raise ValueError(
            f"{what} must give pairs (x, y). Received: a tf.data.Dataset of {_parts(spec)}. "
            "Map it to (x, y); sample weights are not used here."
        )
    if data.cardinality() == -1:  # tf.data.INFINITE_CARDINALITY
        raise ValueError(f"{what} never ends (repeat without a count?). Pass it without repeat(), or take(n) of it.")
    if _is_unbatched(spec, expected):
        data = data.batch(batch_size)
    for element in data:
        x, y = (element[0], element[1:]) if isinstance(element, tuple) else (element, ())
        yield x, np.asarray(y[0]) if labelled else None


def _is_unbatched(spec, expected):
    """Whether the elements are single samples: inputs one axis short of a batch, or labels that are numbers."""
    inputs, labels = (spec[0], spec[1:]) if isinstance(spec, tuple) else (spec, ())
    inputs, labels = keras.tree.flatten(inputs), keras.tree.flatten(labels)
    rank = inputs[0].shape.rank
    if expected is not None and len(inputs) == 1 and rank is not None:
        return rank == len(expected)
    return any(label.shape.rank == 0 for label in labels[:1])


def _array_batches(data, model, batch_size, what, labelled):
    x, y = _arrays(data, model, what, labelled)
    sizes = {len(leaf) if leaf.ndim else None for leaf in keras.tree.flatten((x, y)) if leaf is not None}
    if len(sizes) != 1 or None in sizes:
        raise ValueError(f"{what} must hold arrays of equal length. Received: lengths {sorted(map(str, sizes))}.")
    for start in range(0, sizes.pop(), batch_size):
        part = slice(start, start + batch_size)
        yield keras.tree.map_structure(lambda leaf, part=part: leaf[part], x), None if y is None else y[part]


def _arrays(data, model, what, labelled):
    """(x, y) of NumPy arrays, x a structure where the model has several inputs."""
    if labelled and not (isinstance(data, tuple | list) and len(data) == 2):
        raise TypeError(
            f"{what} must be a pair (x, y) of arrays or a tf.data.Dataset of such. Received: {_parts(data)}."
        )
    if not labelled and isinstance(data, tuple) and len(data) not in (1, 2):
        raise TypeError(f"{what} must be arrays x, a pair (x, y), or a tf.data.Dataset. Received: {_parts(data)}.")
    x, y = data if labelled else (data[0] if isinstance(data, tuple) else data, None)
    if not isinstance(x, dict) and not (isinstance(x, list | tuple) and len(getattr(model, "inputs", [0])) > 1):
        x = np.asarray(x)
    x = keras.tree.map_structure(np.asarray, x)
    if any(leaf.dtype == object for leaf in keras.tree.flatten(x)):
        raise TypeError(f"{what} must hold arrays of numbers of one shape. Received: {_parts(data)}.")
    return x, None if y is None else np.asarray(y)


def _check_names(x, model, what):
    """Refuses named inputs that the model does not know; names of nothing are left to Keras."""
    if not isinstance(x, dict) or not isinstance(model, keras.Sequential | keras.Function):
        return
    wanted = set(model.input) if isinstance(model.input, dict) else {tensor.name for tensor in model.inputs}
    if not wanted <= set(x):
        raise ValueError(
            f"{what} has inputs named {', '.join(map(str, x))}, but the model takes {', '.join(sorted(wanted))}."
        )


def _check_shape(x, expected, what):
    given = _sample_shape(x)
    if expected is None or given is None or given == expected:
        return
    if not _fits(given, expected):
        raise ValueError(
            f"{what} has samples of shape {given}, but the model takes {expected}. Bring them to the model's shape "
            "with the same steps as its training data."
        )


def _fits(given, expected):
    """Whether a model that declares one shape takes samples of the other; None is any size."""
    sizes = zip(given, expected, strict=False)
    same = len(given) == len(expected) and all(g == e or None in (g, e) for g, e in sizes)
    return same or (*given, 1) == expected  # Keras itself reads (samples,) as (samples, 1)


def check_same_inputs(models):
    """Raises ValueError unless all Keras models among these take samples of one shape."""
    shapes = [shape for model in models if (shape := _input_shape(model)) is not None]
    for shape in shapes:
        if not _fits(shape, shapes[0]) and not _fits(shapes[0], shape):
            raise ValueError(
                f"The models must take the same inputs, for they see the same batches. Received: models of samples of "
                f"shape {shapes[0]} and of shape {shape}."
            )


def _sample_shape(x):
    """Shape of one sample, or None where there are several inputs."""
    leaves = keras.tree.flatten(x)
    return tuple(leaves[0].shape[1:]) if len(leaves) == 1 else None


def _input_shape(model):
    """Shape of one sample as the model declares it, or None."""
    inputs = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    return tuple(inputs[0].shape[1:]) if inputs and len(inputs) == 1 else None


def _parts(value):
    """A short description of data that cannot be used."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} parts"
    return f"{type(value).__name__}"


def checked_trace(model):
    """The model's trace; None where there is no graph to read but the model can be used."""
    if not isinstance(model, keras.Model):
        if not callable(getattr(model, "predict", None)):
            raise TypeError(f"model must be a Keras model or have .predict(x). Received: {type(model).__name__}.")
        if hasattr(model, "predict_proba"):
            raise TypeError(
                f"The .predict of {type(model).__name__} gives class labels, not probabilities. "
                "Pass an object whose .predict is its predict_proba, with from_logits=False."
            )
        return None
    if not model.built:
        raise ValueError(
            f"Model '{model.name}' is not built. Start it with keras.Input(shape), or call it on data, first."
        )
    if not isinstance(model, keras.Sequential | keras.Function):
        return None
    if len(model.outputs) != 1:
        raise ValueError(
            f"Expected a model with one output. Received: '{model.name}' with {len(model.outputs)}. "
            "Pass keras.Model(model.inputs, model.outputs[i])."
        )
    return trace(model)


def check_batch_size(batch_size):
    """Raises ValueError unless `batch_size` is a whole number of at least 1."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1. Received: batch_size={batch_size!r}.")


def checked_ood(ood):
    """`{name: data}`, {} for None.

    Raises:
        TypeError: for anything else.
    """
    if ood is None:
        return {}
    if not isinstance(ood, dict) or not all(isinstance(name, str) and name for name in ood):
        raise TypeError(
            f"ood must be a dict of names and data sets. Received: {type(ood).__name__}. "
            'Pass ood={"cifar100": x}, for example.'
        )
    return ood
