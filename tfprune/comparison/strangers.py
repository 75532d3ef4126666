"""Does the pruned model tell strangers as well as the dense one, and which classes does it take them for?"""

import numpy as np

from tfprune.significance import delong, holm, mcnemar, placements


class Scores:
    """OOD scores of several models on one set of samples, kept whole because they are ranked: 8 bytes each.

    Args:
        num_models: how many models.
    """

    def __init__(self, num_models):
        self.parts = [{} for _ in range(num_models)]

    def add(self, scores):
        """Adds a batch: `{name: (samples,)}` of each model."""
        for parts, named in zip(self.parts, scores, strict=True):
            for name, values in named.items():
                parts.setdefault(name, []).append(values)

    def of(self, model, name):
        """All scores of one name by one model, (samples,)."""
        return np.concatenate(self.parts[model][name])

    @property
    def names(self):
        """Names of the scores."""
        return list(self.parts[0])


class StrangersSeen:
    """What several models say of one out-of-distribution set: scores, and the class that each stranger is taken for.

    Args:
        joint: the `Joint` models.
        strangers: the data.
        what: what to call them in an error.
    """

    def __init__(self, joint, strangers, what):
        self.num_classes, self.scores, predicted = joint.num_classes, Scores(len(joint.predictors)), []
        for logits, scores in joint.strangers(strangers, what):
            self.scores.add(scores)
            predicted.append([z.argmax(axis=1) for z in logits])
        self.predicted = np.concatenate(predicted, axis=1)

    @property
    def count(self):
        """How many strangers."""
        return self.predicted.shape[1]

    def by_class(self, where=slice(None)):
        """How many strangers each model takes for each class, (models, classes)."""
        return np.stack([np.bincount(classes[where], minlength=self.num_classes) for classes in self.predicted])


def auroc_rows(name, known, seen, confidence):
    """Differences in AUROC of the second model to the first by every score: `{score: (flat row, Difference)}`.

    Args:
        name: name of the out-of-distribution set.
        known: `Scores` of the in-distribution samples.
        seen: `StrangersSeen`.
        confidence: level of the intervals.
    """
    rows = {}
    for score in seen.scores.names:
        dense, pruned = ((known.of(model, score), seen.scores.of(model, score)) for model in (0, 1))
        difference = delong(*dense, *pruned, confidence)
        key = f"{name}/auroc_{score}_difference"
        row = {
            f"{name}/dense_auroc_{score}": float(placements(*dense)[1].mean()),
            f"{name}/pruned_auroc_{score}": float(placements(*pruned)[1].mean()),
            key: difference.value,
            f"{key}_low": difference.low,
            f"{key}_high": difference.high,
            f"{key}_standard_error": difference.standard_error,
            f"{key}_p": difference.p,
        }
        rows[score] = row, difference
    return rows


def class_columns(name, seen):
    """Share of the strangers that each model takes for each class, and Holm's p of a change; columns of a table."""
    dense, pruned = seen.by_class() / seen.count
    moved = seen.by_class(where=seen.predicted[0] != seen.predicted[1])
    p_values = [mcnemar(*pair) for pair in moved.T]
    return {f"{name}/dense_share": dense, f"{name}/pruned_share": pruned, f"{name}/share_p": holm(p_values)}
