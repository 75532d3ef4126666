"""What is a detector, and how do several share one forward pass?

A detector gives each sample a score, larger = stranger. What it learns it learns from the pruned model itself: it
remembers a hash of the weights it was fitted on and refuses to score with others, for statistics of the dense model on
features of the pruned one measure the drift and not the strangers.
"""

import inspect
import numbers

import numpy as np

from tfprune.predictions import check_batch_size
from tfprune.uncertainty.detectors.features import Features, FeaturesBatch, weights_hash
from tfprune.uncertainty.detectors.health import health_report
from tfprune.uncertainty.leak import Fingerprint


class Detector:
    """Base class. A subclass says what it needs, what it learns, and how it scores a batch.

    Args:
        feature_layer: name of the layer whose output is taken for features; None takes what the last linear layer
            reads. Detectors that need the weights of that layer take no other.
        name: what to call the scores; the class's own name by default.

    Attributes:
        needs: what must be known of the model: "logits" (not only probabilities), "features", "head" (the linear layer
            from features to logits).
        learns_from: None, "samples" or "labels": what data `fit` needs.
        statistics: `{name: array}`, what was learnt.
        choices: `{name: value}`, what was chosen where an argument was None.
        health: `tfprune.uncertainty.detectors.health.Health` of the data, or None where nothing is learnt.
        fingerprint: `tfprune.uncertainty.leak.Fingerprint` of the data, or None where nothing is learnt.

    Example:
        >>> class Length(Detector):
        ...     name, needs = "length", ("features",)
        ...
        ...     def scores(self, batch):
        ...         return np.linalg.norm(batch.features, axis=1)
    """

    name = None
    needs = ()
    learns_from = None

    def __init__(self, feature_layer=None, name=None):
        if feature_layer is not None and "features" not in self.needs:
            raise ValueError(f"{type(self).__name__} reads no features. Received: feature_layer={feature_layer!r}.")
        self.feature_layer, self.name = feature_layer, name or type(self).name
        self.from_logits, self.source, self.model_hash = None, None, None
        self.statistics, self.choices, self.health, self.fingerprint = {}, {}, None, None

    def scores(self, batch):
        """Scores (samples,) of a `FeaturesBatch`, larger = stranger."""
        raise NotImplementedError(f"{type(self).__name__} must define scores(batch).")

    def learn(self, seen):
        """Returns `{name: array}`, the statistics of all samples in one `FeaturesBatch` without inputs."""
        raise NotImplementedError(f"{type(self).__name__} must define learn(seen).")

    def check_source(self, source):
        """Raises ValueError where a model (as `Features`) does not give what the detector needs."""
        _check_needs(self, source)

    @property
    def head(self):
        """The `LinearHead` of the model."""
        return self.source.linear

    @property
    def fingerprints(self):
        """The fingerprint in a list, empty where nothing was learnt."""
        return [] if self.fingerprint is None else [self.fingerprint]

    def fit(self, model, data=None, from_logits=None, batch_size=256):
        """Binds the detector to a model and learns its statistics; returns the detector.

        Args:
            model: a built Keras model, or a predictive.
            data: `(x, y)` arrays or a `tf.data.Dataset` of `(x, y)`, in-distribution. Labels are looked at only by
                detectors that learn from labels, data only by those that learn anything.
            from_logits: whether the model's outputs are logits. None reads it off the model's last layer.
            batch_size: samples at a time, for arrays and unbatched data sets.

        Raises:
            ValueError: where the model does not give what the detector needs, data are missing, or features that
                nothing can be learnt from.
        """
        fit_all([self], model, data, from_logits, batch_size)
        return self

    def score(self, data, batch_size=256):
        """Scores of all samples, float64 (samples,), larger = stranger.

        Args:
            data: arrays `x`, `(x, y)`, or a `tf.data.Dataset` of either; labels are not looked at.
            batch_size: samples at a time, for arrays and unbatched data sets.

        Raises:
            ValueError: before `fit`, where the model's weights have changed since, or for scores that are not finite.
        """
        return score_all([self], data, batch_size)[self.name]

    def scores_of(self, batch):
        """Scores of one `FeaturesBatch` of the model that the detector is bound to, checked to be finite."""
        with np.errstate(all="ignore"):  # what overflows is reported below, in words
            scores = np.asarray(self.scores(batch), dtype=np.float64)
        if not np.all(np.isfinite(scores)):
            raise ValueError(
                f"{self.name} gave {int(np.sum(~np.isfinite(scores)))} of {len(scores)} scores that are not finite: "
                "the features or logits are too large for its formula, or of a kind it was not made for. "
                "Look at its health, or use a detector that reads logits only, such as 'msp'."
            )
        return scores

    def bind(self, model):
        """Binds a fitted or loaded detector to a model with the weights that it was fitted on; returns the detector.

        Args:
            model: the model.

        Raises:
            ValueError: before `fit`, and where the weights are others.
        """
        if self.learns_from and not self.statistics:
            raise ValueError(f"{self.name} is not fitted. Call fit(model, data) first.")
        _check_weights(self, model, weights_hash(model))
        self.source = Features(model, self.feature_layer, self.from_logits)
        self.check_source(self.source)
        return self

    def check(self):
        """Raises ValueError before `fit`, and where the model's weights have changed since."""
        _check_fitted([self])

    def save(self, path):
        """Writes `path`.npz (statistics) and `path`.json (everything else).

        Args:
            path: where to, without a suffix.
        """
        from tfprune.uncertainty.detectors.files import write

        write(self, path)

    def get_config(self):
        """What `__init__` takes."""
        parameters = inspect.signature(type(self).__init__).parameters
        own = {key: getattr(self, key) for key in parameters if key not in ("self", "kwargs")}
        return {**own, "feature_layer": self.feature_layer, "name": self.name}


class Panel:
    """Fitted detectors of one model, that score every batch after a single forward pass.

    It may stand where `Predictor.with_scores` is called. (ODIN runs the model again, for gradients; and each
    `feature_layer` is a pass of its own.)

    Args:
        detectors: list of fitted detectors with different names.

    Raises:
        ValueError: for detectors that are not fitted, or of different models, or of the same name.

    Example:
        >>> logits, scores = Panel(fitted).with_scores(x)
    """

    def __init__(self, detectors):
        self.detectors = list(detectors)
        _check_detectors(self.detectors)
        _check_fitted(self.detectors)
        if len({id(detector.source.model) for detector in self.detectors}) > 1:
            raise ValueError(
                "Detectors that score together must be fitted on the same model. Received: several models."
            )
        self._groups = [(group[0].source, group) for group in _groups(self.detectors).values()]

    @property
    def source(self):
        """The `Features` of the first group of detectors."""
        return self._groups[0][0]

    def with_scores(self, x):
        """`(logits, {name: scores})` of a batch; the model's own scores come first."""
        found, logits = {}, None
        for source, group in self._groups:
            batch = source.batch(x)
            logits = batch.logits if logits is None else logits
            found |= {**batch.known, **{detector.name: detector.scores_of(batch) for detector in group}}
        return logits, found


def fit_all(detectors, model, data=None, from_logits=None, batch_size=256):
    """Fits detectors on one model and one pass over the data; returns them as a list.

    Args:
        detectors: list of names or instances.
        model, data, from_logits, batch_size: as `Detector.fit` takes them.

    Raises:
        ValueError: as `Detector.fit`.

    Example:
        >>> fitted = fit_all(["energy", "knn", ViM(dim=64)], ticket, (x_train, y_train))
        >>> scores = score_all(fitted, x_test)
    """
    from tfprune.uncertainty.detectors import get

    check_batch_size(batch_size)
    detectors = [get(detector) for detector in detectors]
    _check_detectors(detectors)
    model_hash = weights_hash(model)
    for layer, group in _groups(detectors).items():
        source = Features(model, layer, from_logits)
        for detector in group:
            _forget(detector, model_hash, from_logits)
            detector.check_source(source)
        learners = [detector for detector in group if detector.learns_from]
        seen, fingerprint = _collect(source, learners, data, batch_size) if learners else (None, None)
        health = health_report(seen.features, seen.logits, seen.labels) if learners else None
        for detector in learners:
            _teach(detector, source, seen, health, fingerprint)
        for detector in group:
            detector.source = source
    return detectors


def score_all(detectors, data, batch_size=256):
    """`{name: scores}` of fitted detectors, float64 (samples,) each, in one pass over the data.

    Args:
        detectors: list of detectors, as `fit_all` returns them.
        data, batch_size: as `Detector.score` takes them.

    Raises:
        ValueError: as `Detector.score` and `Panel`.
    """
    from tfprune.predictions import batches

    check_batch_size(batch_size)
    panel = Panel(detectors)
    source, found = panel.source, {detector.name: [] for detector in panel.detectors}
    for x, _ in batches(data, source.model, batch_size, "data", labelled=False, like=source.sample_shape):
        _, scores = panel.with_scores(x)
        for name, parts in found.items():
            parts.append(scores[name])
    if not all(found.values()):
        raise ValueError("Expected at least one sample. Received: data without any.")
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _forget(detector, model_hash, from_logits):
    """A detector as before its first fit: should this one fail, it is not fitted."""
    detector.source, detector.model_hash, detector.from_logits = None, model_hash, from_logits
    detector.statistics, detector.choices, detector.health, detector.fingerprint = {}, {}, None, None


def _teach(detector, source, seen, health, fingerprint):
    if "features" in detector.needs and not health["rank"]:
        raise ValueError(
            f"{detector.name} cannot be fitted: the model gives the same features for all "
            f"{health['num_samples']} samples, {health['num_dead']} of {health['num_features']} are dead. "
            "Prune less, train longer, or use a detector that reads logits only, such as 'msp'."
        )
    detector.source = source  # learning may ask for the head
    try:
        detector.statistics = {name: np.asarray(value) for name, value in detector.learn(seen).items()}
    except Exception:
        detector.source = None
        raise
    detector.health, detector.fingerprint = health, _owned(fingerprint, detector)


def _owned(fingerprint, detector):
    """The same fingerprint in the detector's name."""
    return Fingerprint.from_config({**fingerprint.get_config(), "owner": f"{type(detector).__name__} detector"})


def _collect(source, learners, data, batch_size):
    """All samples as one `FeaturesBatch` without inputs, and the fingerprint of the inputs."""
    names = ", ".join(detector.name for detector in learners)
    if data is None:
        raise ValueError(
            f"Detectors that learn ({names}) need in-distribution data: fit(model, (x_train, y_train)). Received: None."
        )
    labelled = any(detector.learns_from == "labels" for detector in learners)
    fingerprint, parts, num_samples = Fingerprint(), [], 0
    for batch in source.stream(data, f"data for {names}", labelled, batch_size):
        fingerprint.add(batch.inputs)
        parts.append((batch.logits, batch.features, batch.labels))
        num_samples += len(batch.logits)
    if num_samples < 2:
        raise ValueError(f"Detectors that learn ({names}) need at least two samples. Received: {num_samples}.")
    logits, features, labels = (
        None if column[0] is None else np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return FeaturesBatch(None, logits, features, labels), fingerprint


def _groups(detectors):
    """`{feature_layer: detectors}`; those that read no features go with the first."""
    layers = [detector.feature_layer for detector in detectors if "features" in detector.needs] or [None]
    groups = {layer: [] for layer in layers}
    for detector in detectors:
        groups[detector.feature_layer if "features" in detector.needs else layers[0]].append(detector)
    return groups


def _check_detectors(detectors):
    names = [detector.name for detector in detectors]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            "Expected a list of detectors with different names (name='...' gives an instance another). "
            f"Received: {names}."
        )


def _check_fitted(detectors):
    """Raises ValueError for detectors that are not fitted, or whose models have changed since."""
    hashes = {}
    for detector in detectors:
        if detector.source is None:
            raise ValueError(f"{detector.name} is not fitted. Call fit(model, data) first.")
        model = detector.source.model
        if id(model) not in hashes:  # reading all weights takes time: once a model, not once a detector
            hashes[id(model)] = weights_hash(model)
        _check_weights(detector, model, hashes[id(model)])


def _check_weights(detector, model, found):
    if detector.model_hash != found:
        raise ValueError(
            f"{detector.name} was fitted on other weights than '{getattr(model, 'name', type(model).__name__)}' has "
            "now. What it learnt holds for the features of those weights only, so before or after pruning and training "
            "it is another model: refit on this one with fit(model, data)."
        )


def _check_needs(detector, source):
    if "logits" in detector.needs and not source.gives_logits:
        raise ValueError(
            f"{detector.name} needs logits, and this model gives probabilities only, whose logarithms lack what it "
            "measures. Use 'msp', 'entropy', 'gen' or 'kl_matching', or the model before its softmax."
        )
    if "features" in detector.needs and not source.has_features:
        raise ValueError(
            f"{detector.name} needs features, but {source.without_features}. Name a layer of a functional model with "
            "feature_layer, or use detectors that need none: 'msp', 'entropy', 'gen', 'kl_matching'."
        )
    if "head" in detector.needs and source.linear is None:
        raise ValueError(
            f"{detector.name} needs features that the model's last linear layer turns into its logits. "
            f"Received: feature_layer={detector.feature_layer!r}, which is not what that layer reads. Leave it out, or "
            "use a detector that needs no head: 'knn', 'mahalanobis', 'relative_mahalanobis', 'she', 'nnguide'."
        )


# --- arguments --------------------------------------------------------------------------------------------------------


def check_positive(name, value):
    """Returns a number above 0, or raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value < np.inf:
        raise ValueError(f"{name} must be a number above 0. Received: {name}={value!r}.")
    return value


def check_percentile(value):
    """Returns a percentile, a number in [0, 100), or raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < 100:
        raise ValueError(f"percentile must be in [0, 100). Received: percentile={value!r}.")
    return value


def check_count(name, value):
    """Returns a whole number of at least 1, or None, or raises ValueError."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if value is not None and not (is_whole and value >= 1):
        raise ValueError(f"{name} must be an integer of at least 1, or None. Received: {name}={value!r}.")
    return value


def check_at_most(detector, name, value, largest, what):
    """Raises ValueError where a chosen count exceeds what the data or the model hold."""
    if value > largest:
        raise ValueError(
            f"{detector} has {name}={value}, but there are only {largest} {what}. "
            f"Choose {name} <= {largest}, or leave it out to have it chosen."
        )
