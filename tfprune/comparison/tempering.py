"""Which part of a change in calibration would a new temperature undo?

ECE = (ECE - ECE at the refitted temperature) + (ECE at it - noise floor at it) + noise floor at it: what a temperature
corrects, what it leaves, and what chance alone gives. The difference of two models' ECE is the sum of the three
differences, exactly. A temperature is fitted to each model anew, and never on the samples that it is judged on.
"""

import numpy as np

from tfprune.comparison.tallies import ece_floor
from tfprune.metrics.bins import bin_totals, calibration_error
from tfprune.metrics.scores import log_softmax
from tfprune.uncertainty.calibrators.scaling import best_inverse_temperature, temperature_derivatives

# A model that is right on every sample asks for temperature 0, one that is worse than none for infinity.
SMALLEST, LARGEST = 1e-3, 1e3


class Tempering:
    """Calibration errors and noise floors of several models at their temperatures.

    With `temperatures`, batches are judged as they come. Without, their logits are kept until the last (in float32, as
    Keras models give them): samples at even places then take the temperature fitted on those at odd places, and back.

    Args:
        num_models: how many models.
        num_bins: bins of the calibration error.
        temperatures: one per model, fitted on other data; None fits them on halves of what is judged.
    """

    def __init__(self, num_models, num_bins, temperatures=None):
        self.temperatures, self.totals = temperatures, np.zeros((num_models, 3, num_bins))
        self.logits, self.labels = [[] for _ in range(num_models)], []

    def add(self, logits, labels):
        """Adds a batch: the logits of each model, and the labels."""
        if self.temperatures is not None:
            self._judge(logits, labels, self.temperatures)
            return
        for kept, z in zip(self.logits, logits, strict=True):
            kept.append(z.astype(np.float32))
        self.labels.append(labels)

    def rows(self):
        """What became of each model: `{"temperature", "ece_at_temperature", "floor_at_temperature"}`."""
        if self.temperatures is None:
            self._judge_halves()
        return [
            {
                "temperature": float(temperature),
                "ece_at_temperature": calibration_error(totals),
                "floor_at_temperature": ece_floor(totals),
            }
            for temperature, totals in zip(self.temperatures, self.totals, strict=True)
        ]

    def _judge_halves(self):
        labels, place = np.concatenate(self.labels), 0
        by_place = []
        for kept in self.logits:
            logits = np.concatenate(kept)
            by_place.append(np.array([fit_temperature(logits[other::2], labels[other::2]) for other in (1, 0)]))
        for *logits, y in zip(*self.logits, self.labels, strict=True):
            halves = np.arange(place, place + len(y)) % 2
            self._judge(logits, y, [temperatures[halves, None] for temperatures in by_place])
            place += len(y)
        self.temperatures = [np.exp(np.mean(np.log(temperatures))) for temperatures in by_place]

    def _judge(self, logits, labels, temperatures):
        for totals, z, temperature in zip(self.totals, logits, temperatures, strict=True):
            confidence = np.exp(log_softmax(z / temperature).max(axis=1))
            totals += bin_totals(confidence, z.argmax(axis=1) == labels, totals.shape[1])


def fit_temperature(logits, labels):
    """Temperature in [0.001, 1000] of the least negative log-likelihood.

    Args:
        logits: (samples, classes).
        labels: (samples,) integers.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if temperature_derivatives(logits, labels, 1 / SMALLEST)[0] <= 0:
        return SMALLEST
    if temperature_derivatives(logits, labels, 1 / LARGEST)[0] >= 0:
        return LARGEST
    return 1 / best_inverse_temperature(logits, labels)


def split(difference, dense, pruned):
    """Parts of a difference in ECE, from two of `Tempering.rows`: temperature, residual and floor; they add up to it.

    Args:
        difference: pruned ECE - dense ECE, at temperature 1.
        dense: the dense model's row.
        pruned: the pruned model's row.
    """
    at_temperature = pruned["ece_at_temperature"] - dense["ece_at_temperature"]
    floor = pruned["floor_at_temperature"] - dense["floor_at_temperature"]
    return {
        "ece_difference_temperature": difference - at_temperature,
        "ece_difference_residual": at_temperature - floor,
        "ece_difference_floor": floor,
    }
