"""How do accuracy and calibration hold when the images get worse?"""

import numpy as np

from tfprune import corruptions as damages
from tfprune.evaluation.classification import evaluate


def evaluate_shift(
    model, data, corruptions=None, severities=(1, 2, 3, 4, 5), seed=0, value_range=None, progress=None, **options
):
    """Evaluates a classifier on clean images, and on each corruption at each severity; returns a list of flat rows.

    The damage is done in a `tf.data` pipeline and is the same for every model, so rows of two models are paired.

    Args:
        model: what `tfprune.evaluate` takes.
        data: `(x, y)` arrays of images and labels, or a `tf.data.Dataset` of them, batched or not.
        corruptions: names from `tfprune.corruptions.CORRUPTIONS`. Default None: all ten.
        severities: integers from 1 to 5.
        seed: seed of the corruptions' noise.
        value_range: pair of the values for black and for white. Default: as `tfprune.corruptions.corrupt` has it.
        progress: function called with each row as it comes. Default None.
        **options: what else `tfprune.evaluate` takes.

    Returns:
        Rows as from `tfprune.evaluate`, each with "corruption" and "severity" before; the first is of the clean images
        ("none", 0). `tfprune.plots.draw_shift` draws them.

    Raises:
        ValueError: for an unknown corruption or severity, and as `tfprune.evaluate` does.

    Example:
        >>> rows = evaluate_shift(model, data.test, corruptions=["fog"], severities=[1, 5], value_range=(-1, 1))
        >>> [(row["corruption"], row["severity"]) for row in rows]
        [('none', 0), ('fog', 1), ('fog', 5)]

    Source: Ovadia et al., "Can You Trust Your Model's Uncertainty?", 2019.
    """
    if 0 in severities:
        raise ValueError("Severity 0 is the clean images, whose row is always given. Pass severities from 1 to 5.")
    names = list(damages.CORRUPTIONS) if corruptions is None else list(corruptions)
    cells = [("none", 0), *((name, severity) for name in names for severity in severities)]
    data = _as_dataset(data)
    # All damages are set up before the first is done, so that a misspelt one does not end a long run.
    sets = [damages.corrupt(data, name, severity, seed, value_range) if severity else data for name, severity in cells]
    rows = []
    for (name, severity), damaged in zip(cells, sets, strict=True):
        rows.append({"corruption": name, "severity": int(severity), **evaluate(model, damaged, **options)})
        if progress:
            progress(rows[-1])
    return rows


def _as_dataset(data):
    """A data set, so that images are damaged batch by batch and never kept."""
    import tensorflow as tf

    is_pair = isinstance(data, tuple | list) and len(data) == 2
    return tf.data.Dataset.from_tensor_slices(tuple(map(np.asarray, data))).batch(256) if is_pair else data
