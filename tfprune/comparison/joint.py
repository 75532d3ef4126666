"""How do several models see the same batches once? Each batch is read once and shown to all of them."""

import keras

from tfprune.metrics.detection import SCORES
from tfprune.metrics.scores import class_indices
from tfprune.predictions import Predictor, batches, check_batch_size, check_same_inputs

# Larger batches are taken apart: 1000 resamples of 1024 samples take 8 MB.
_MOST = 1024


class Joint:
    """Models that look at data side by side.

    Args:
        models: what `Predictor` takes, each.
        from_logits: whether their outputs are logits; None reads it off each model.
        batch_size: samples at a time, for arrays and unbatched data sets.
    """

    def __init__(self, models, from_logits=None, batch_size=256):
        check_batch_size(batch_size)
        self.predictors = [Predictor(model, from_logits) for model in models]
        check_same_inputs(models)
        # A Keras model says what shape its samples have; other objects do not.
        self.reader = next((model for model in models if isinstance(model, keras.Model)), models[0])
        self.batch_size, self.num_classes = batch_size, None

    def labelled(self, data, what, fingerprint=None):
        """Yields `(logits of each model, scores of each model, labels)`, at most 1024 samples at a time.

        Args:
            data: `(x, y)` arrays, or a `tf.data.Dataset` of `(x, y)`, batched or not.
            what: what to call the data in an error.
            fingerprint: optional `Fingerprint` to add the samples to.

        Raises:
            ValueError: for data that is empty or does not fit, or models with different numbers of classes.
        """
        empty = True
        for x, y in batches(data, self.reader, self.batch_size, what):
            logits, scores = self._see(x)
            labels = class_indices(y, self.num_classes)
            if len(labels) != len(logits[0]):
                raise ValueError(
                    f"{what} must hold one label per sample. Received: {len(labels)} labels, {len(logits[0])} samples."
                )
            empty = False
            if fingerprint is not None:
                fingerprint.add(x)
            for part in _parts(len(labels)):
                yield [z[part] for z in logits], [_cut(named, part) for named in scores], labels[part]
        if empty:
            raise ValueError(f"A comparison needs at least one sample. Received: {what} without any.")

    def strangers(self, data, what):
        """Yields `(logits of each model, scores of each model)` of data whose labels, if any, are not looked at."""
        empty = True
        like = self.predictors[0].sample_shape
        for x, _ in batches(data, self.reader, self.batch_size, what, labelled=False, like=like):
            empty = False
            yield self._see(x)
        if empty:
            raise ValueError(f"A comparison needs at least one sample. Received: {what} without any.")

    def _see(self, x):
        """Logits and OOD scores of all models; of the scores those that all of them know."""
        logits, known = zip(*(predict.with_scores(x) for predict in self.predictors), strict=True)
        widths = {z.shape[1] for z in logits}
        if self.num_classes is None and len(widths) == 1:
            self.num_classes = widths.pop()
        elif widths != {self.num_classes}:
            raise ValueError(f"The models must predict the same classes. Received: {sorted(widths)} classes.")
        shared = set(known[0]).intersection(*known)
        scores = [
            {**{name: score(z) for name, score in SCORES.items()}, **{name: own[name] for name in sorted(shared)}}
            for z, own in zip(logits, known, strict=True)
        ]
        return list(logits), scores


def _parts(size):
    return [slice(start, start + _MOST) for start in range(0, size, _MOST)]


def _cut(named, part):
    return {name: values[part] for name, values in named.items()}
