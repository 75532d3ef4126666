"""What does a model cost, and what share of the dense model is that, in the words of a result row?"""

import keras

from tfprune.structure.cost import cost, latency, reference_of

_KEYS = ("parameters", "multiply_adds", "bytes", "compression_ratio", "theoretical_speedup")


def cost_row(model, traced=None, dense=None, with_latency=False):
    """Parameters, multiply-adds, bytes, compression ratio and theoretical speed-up, None where they cannot be known.

    Args:
        model: a Keras model; of anything else nothing is known.
        traced: the model's trace, where it has been read already.
        dense: the dense model, or what `cost` said of it. None takes the one that `tfprune.shrink` recorded.
        with_latency: whether to measure `latency_ms` too (median, one sample).

    Raises:
        TypeError: if the latency is asked for of something that is no Keras model.
    """
    if not isinstance(model, keras.Model):
        if with_latency:
            raise TypeError(f"latency=True needs a Keras model. Received: model of type {type(model).__name__}.")
        return dict.fromkeys(_KEYS)
    own = cost(traced or model)
    reference = (dense if isinstance(dense, dict) else cost(dense)) if dense is not None else reference_of(model) or own
    row = {
        **{key: own[key] for key in _KEYS[:3]},
        "compression_ratio": 1.0 if reference is own else _quotient(reference["parameters"], own["parameters"]),
        "theoretical_speedup": 1.0 if reference is own else _quotient(reference["multiply_adds"], own["multiply_adds"]),
    }
    return {**row, "latency_ms": 1000 * latency(model)} if with_latency else row


def _quotient(whole, part):
    return whole / part if whole is not None and part else None
