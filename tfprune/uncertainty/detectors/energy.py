"""Energy: is there much evidence for all classes together?"""

import numpy as np
from scipy.special import logsumexp

from tfprune.uncertainty.detectors.base import Detector, check_positive


def score(logits, temperature=1.0):
    """-T logsumexp(z / T), (samples,).

    Args:
        logits: (samples, classes).
        temperature: T.
    """
    return -temperature * logsumexp(np.asarray(logits, dtype=np.float64) / temperature, axis=1)


class Energy(Detector):
    """Free energy of the logits.

    Args:
        temperature: T, 1.0 by default.
        kwargs: `name`.

    Example:
        >>> scores = Energy().fit(model).score(x)

    Source: Liu et al., "Energy-based Out-of-distribution Detection", 2020.
    """

    name = "energy"
    needs = ("logits",)

    def __init__(self, temperature=1.0, **kwargs):
        super().__init__(**kwargs)
        self.temperature = check_positive("temperature", temperature)

    def scores(self, batch):
        """Scores of a batch."""
        return score(batch.logits, self.temperature)
