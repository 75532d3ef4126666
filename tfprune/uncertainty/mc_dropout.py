"""How sure is a model when its dropout stays on? Monte Carlo dropout.

Each of several passes drops other units, and so asks another network; where the networks disagree, the model has not
seen enough. Only dropout is in training mode. BatchNormalization keeps its moving statistics, which
`model(x, training=True)` would replace by those of the batch.
"""

import contextlib
import numbers

import keras
import numpy as np
from keras import layers

from tfprune.predictions import Predictor
from tfprune.structure.replay import value_of
from tfprune.structure.running import given, has_mode, run
from tfprune.structure.trace import trace
from tfprune.uncertainty.passes import arrays_of, parts, probabilities_of
from tfprune.uncertainty.predictive import Predictive, uncertainty_of

# SpatialDropout1D, 2D and 3D are kinds of Dropout. GaussianNoise is not among them: it widens the data, and stands for
# no distribution of the weights.
_DROPOUT = (layers.Dropout, layers.AlphaDropout, layers.GaussianDropout)
# Rates that recurrent and attention layers have as numbers.
_RATES = ("dropout", "recurrent_dropout")


class MCDropout(Predictive):
    """Averages the probabilities of passes with dropout as in training.

    Use it on a model that was trained with dropout; it needs no fit. In training mode are Dropout, SpatialDropout1D to
    3D, AlphaDropout, GaussianDropout, subclasses of these, and the `dropout` and `recurrent_dropout` of recurrent and
    attention layers, in nested models and wrappers too. All else is in inference mode: BatchNormalization,
    GaussianNoise, random augmentation. What comes before the first dropout is computed once, not for each pass.

    It runs the layers of the model itself: later changes of their weights count, and nothing of the model is changed,
    the state of its random generators included.

    Every call of `predict` and `predict_uncertainty` starts from the seed, and so does every 256 samples within one:
    the same x gives the same numbers, bit for bit, whatever was predicted before. The masks depend on a sample's place
    in its batch, so other batches give other, equally good, samples.

    Args:
        model: a built Sequential or functional Keras model with one output (samples, classes), or one sigmoid column.
        num_samples: number of passes. 20 make the mean stable to about two digits.
        seed: integer that all masks are drawn from.
        from_logits: whether the model gives logits; None reads it off its last layer.

    Raises:
        ValueError: for a model without dropout, one that is subclassed, unbuilt or has several outputs, or a layer
            whose dropout cannot be told from what else it does in training.

    Example:
        >>> known = MCDropout(model, num_samples=50).predict_uncertainty(x)
        >>> known["probabilities"], known["entropy"], known["mutual_information"]
        >>> tfprune.evaluate(MCDropout(model), (x_test, y_test))

    Source: Gal and Ghahramani, "Dropout as a Bayesian Approximation", 2016.
    """

    def __init__(self, model, num_samples=20, seed=0, from_logits=None):
        if isinstance(num_samples, bool) or not isinstance(num_samples, numbers.Integral) or num_samples < 1:
            raise ValueError(f"num_samples must be an integer of at least 1. Received: num_samples={num_samples!r}.")
        if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
            raise ValueError(f"seed must be an integer of at least 0. Received: seed={seed!r}.")
        told = Predictor(model, from_logits)
        self.model, self.num_samples, self.seed = model, int(num_samples), int(seed)
        self._traced = told.traced or trace(model)  # which says why a model cannot be traced
        self._is_logits = told.gives_logits and told.head not in ("softmax", "sigmoid")
        self._once, self._each = _split(self._traced)
        self._states = _states({id(call.op): call.op for call in self._each}.values())
        self._compiled = {}

    @property
    def inputs(self):
        """The model's inputs."""
        return self.model.inputs

    def predict_uncertainty(self, x):
        """Mean probabilities over the passes, their entropy, and the mutual information of prediction and model.

        Args:
            x: array of inputs, samples first, or a structure of such.

        Returns:
            `{"probabilities": (n, classes), "entropy": (n,), "mutual_information": (n,)}`, float64, in nats.
        """
        known = [uncertainty_of(self._draw(part)) for part in parts(arrays_of(x, self.model))]
        return {key: np.concatenate([part[key] for part in known]) for key in known[0]}

    def sample(self, x):
        """The probabilities of each pass, float64 (num_samples, n, classes).

        Args:
            x: array of inputs, samples first, or a structure of such.
        """
        return np.concatenate([self._draw(part) for part in parts(arrays_of(x, self.model))], axis=1)

    def _draw(self, x):
        import tensorflow as tf

        x = keras.tree.map_structure(tf.convert_to_tensor, x)
        spec = keras.tree.map_structure(lambda t: tf.TensorSpec((None, *t.shape[1:]), t.dtype), x)
        key = repr(spec)
        if key not in self._compiled:
            self._compiled[key] = tf.function(self._passes, autograph=False).get_concrete_function(spec)
        with self._seeded():
            outputs = self._compiled[key](x).numpy()
        return probabilities_of(outputs, self._is_logits, f"model '{self.model.name}'")

    def _passes(self, x):
        """Outputs of all passes (num_samples, n, columns), in a graph with one loop over them."""
        import tensorflow as tf

        shared = run(self._once, given(self._traced, x))
        wanted = keras.tree.flatten(self._traced.outputs)[0]

        def one(index, outputs):
            tensors = dict(shared)
            for call in self._each:
                run([call], tensors, training=_drops(call.op))
            return index + 1, outputs.write(index, tf.cast(tensors[id(wanted)], tf.float32))

        outputs = tf.TensorArray(tf.float32, size=self.num_samples)
        # One pass at a time: several would need the memory of several.
        _, outputs = tf.while_loop(lambda index, _: index < self.num_samples, one, (0, outputs), parallel_iterations=1)
        return outputs.stack()

    @contextlib.contextmanager
    def _seeded(self):
        """Sets the random generators of the model's dropout to our seed, and back to where they were."""
        before = [value_of(state) for state in self._states]
        seeds = np.random.SeedSequence(self.seed).generate_state(len(self._states))
        try:
            for state, seed in zip(self._states, seeds, strict=True):
                state.assign(np.array([seed, 0], dtype="uint32"))
            yield
        finally:
            for state, value in zip(self._states, before, strict=True):
                state.assign(value)


def _split(traced):
    """The calls that are the same in every pass, and those that are a dropout or come after one."""
    once, each, drawn = [], [], set()
    for call in traced.calls:
        if _drops(call.op):
            _check_separable(call.op)
        if _drops(call.op) or any(id(tensor) in drawn for tensor in call.input_tensors):
            each.append(call)
            drawn.update(map(id, call.output_tensors))
        else:
            once.append(call)
    if not any(id(tensor) in drawn for tensor in keras.tree.flatten(traced.outputs)):
        raise ValueError(
            f"MCDropout needs a model with dropout. Received: '{traced.name}', in which no Dropout of a rate above 0 "
            "acts on the output. Train it with keras.layers.Dropout, or use an Ensemble or LastLayerLaplace."
        )
    return once, each


def _drops(op):
    """Whether a layer, or one that it holds, drops something in training."""
    return any(_rate(part) > 0 for part in _held(op))


def _rate(part):
    if isinstance(part, _DROPOUT):
        return part.rate
    rates = [getattr(part, name, 0) for name in _RATES]
    return max((rate for rate in rates if isinstance(rate, numbers.Real)), default=0)


def _held(op):
    """A layer and all layers it holds, at any depth; none for an operation that is no layer."""
    found, waiting = {}, [op]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list | tuple):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, keras.Layer) and id(part) not in found:
            found[id(part)] = part
            waiting += vars(part).values()
    return list(found.values())


def _check_separable(op):
    """Raises where training mode would switch on more of a layer than its dropout, or would not reach the dropout."""
    held = _held(op)
    others = [part for part in held if _changes_otherwise(part)]
    if others:
        raise ValueError(
            f"Layer '{op.name}' ({type(op).__name__}) holds dropout beside '{others[0].name}' "
            f"({type(others[0]).__name__}), and training mode would change both. Call its parts one by one in the "
            f"model, or freeze '{others[0].name}' (trainable = False) if it is a BatchNormalization."
        )
    if len(held) > 1 and not has_mode(op):
        raise ValueError(
            f"The dropout inside layer '{op.name}' ({type(op).__name__}) cannot be switched on, for the layer's call "
            "has no argument `training`. Give it one and hand it on to the dropout."
        )


def _changes_otherwise(part):
    """Whether a layer does anything in training mode but drop, or hand the mode on to what it holds."""
    if isinstance(part, layers.BatchNormalization):
        return part.trainable  # frozen, it keeps its statistics in training mode too
    if isinstance(part, (layers.GaussianNoise, layers.SpectralNormalization)):
        return True
    module = type(part).__module__
    if module.startswith("keras."):
        return has_mode(part) and ".preprocessing." in module  # random augmentation
    is_own = not isinstance(part, _DROPOUT) and _rate(part) == 0 and len(_held(part)) == 1
    return has_mode(part) and is_own  # a layer of the user's: what it does in training mode cannot be known


def _states(ops):
    """The states of the random generators in layers: what is state but no weight."""
    found = {}
    for op in ops:
        if isinstance(op, keras.Layer) and _drops(op):
            weights = set(map(id, op.weights))
            found |= {id(variable): variable for variable in op.variables if id(variable) not in weights}
    return list(found.values())
