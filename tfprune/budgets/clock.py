"""How long do models take on this device, side by side?

Models are run in turns, so that a machine that slows down slows all of them, and their ratio is that of the medians of
the same rounds.
"""

import time

import numpy as np

from tfprune.structure.cost import prediction

_SLICE = 0.002  # seconds: what is faster is run several times between two looks at the clock
_WARM_UP = 3  # the first calls allocate and choose algorithms


def in_turns(models, batch_size=1, repeats=15):
    """Times predictions of several models in turns.

    Args:
        models: List of built Keras models, their input sizes known but for the batch.
        batch_size: Samples per prediction. Default 1.
        repeats: Rounds in which each model is timed. Default 15.

    Returns:
        Array (models, repeats, 2): seconds of one prediction, wall clock and processor (of all threads together).

    Raises:
        ValueError: an input size is not known.

    Example:
        >>> dense, small = numpy.median(in_turns([model, ticket])[:, :, 0], axis=1)
    """
    runs = [prediction(model, batch_size) for model in models]
    calls = [_calls_a_slice(run) for run in runs]
    times = np.zeros((len(models), repeats, 2))
    for turn in range(repeats):
        order = range(len(runs))
        for index in order if turn % 2 == 0 else reversed(order):  # no model is always the first
            times[index, turn] = _seconds(runs[index], calls[index])
    return times


def ratio(times, other):
    """Median over the rounds of how long one model takes of the time of another, by the wall clock."""
    return float(np.median(times[:, 0] / other[:, 0]))


def median(times):
    """Median seconds by the wall clock."""
    return float(np.median(times[:, 0]))


def _calls_a_slice(run):
    for _ in range(_WARM_UP):
        seconds = _seconds(run, 1)[0]
    return max(1, int(_SLICE / max(seconds, 1e-6)))


def _seconds(run, calls):
    start = time.perf_counter(), time.process_time()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start[0]) / calls, (time.process_time() - start[1]) / calls
