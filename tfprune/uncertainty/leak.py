"""Was a fitted artefact made with the very samples it is evaluated on?

Whatever is fitted after training (temperatures, detectors, thresholds) carries a `Fingerprint` of the data it saw: a
64-bit hash of the bytes of each sample. `find_fingerprints` collects those of a model, `check_leak` compares them with
the data of an evaluation and refuses where they share samples.

A sample is known again as the artefact got it. The same image scaled, cropped or augmented another way has other bytes,
and is not recognised.

Example:
    >>> seen = Fingerprint.of(test_set)
    >>> check_leak(find_fingerprints(calibrated_model), seen)   # LeakError if it was calibrated on the test set
"""

import base64
import hashlib

import keras
import numpy as np

from tfprune.predictions import batches

MAX_HASHES = 65_536
# Public test sets hold a few images of their training sets; so few do not move a result.
TOLERANCE = 0.01
_NUM_POSSIBLE = 2.0**64


class LeakError(ValueError):
    """Something was fitted on samples that it is evaluated on."""


class Fingerprint:
    """Which samples a data set holds: a hash of each, whatever their order, batches or number type.

    At most `max_hashes` hashes are kept, those with the smallest values. They are a random sample of all different
    samples, the same one in every data set, so that overlaps are still estimated without bias (for 65,536 hashes with
    a standard error below 0.002). Up to `max_hashes` different samples, overlaps are exact.

    Numbers are compared as float32 (so 0 equals -0.0, and the bytes 0 to 255 equal the same numbers as floats), text as
    UTF-8. The shape of a sample does not count.

    Args:
        owner: what was fitted on the data, for messages.
        max_hashes: how many hashes are kept.

    Example:
        >>> validation, test = Fingerprint.of(x_val), Fingerprint.of(x_test)
        >>> validation.overlap(test)
        0.0

    Source: Broder, "On the resemblance and containment of documents", 1997 (the sketch of smallest hashes).
    """

    def __init__(self, owner=None, max_hashes=MAX_HASHES):
        if isinstance(max_hashes, bool) or not isinstance(max_hashes, int) or max_hashes < 1:
            raise ValueError(f"max_hashes must be an integer of at least 1. Received: max_hashes={max_hashes!r}.")
        self.owner, self.max_hashes, self.num_samples = owner, max_hashes, 0
        self._kept, self._new, self._is_exact = np.zeros(0, np.uint64), [], True

    @classmethod
    def of(cls, data, model=None, owner=None, max_hashes=MAX_HASHES):
        """The fingerprint of a data set; labels are not looked at.

        Args:
            data: arrays `x`, a tuple `(x, y)`, or a `tf.data.Dataset` of either, batched or not.
            model: the model the data are for. It tells whether a data set without labels is batched, and a list of
                several inputs from one array.
            owner: what was fitted on the data, for messages.
            max_hashes: how many hashes are kept.

        Raises:
            ValueError, TypeError: for data that cannot be read.
        """
        found = cls(owner, max_hashes)
        for x, _ in batches(data, model, 1024, "data", labelled=False):
            found.add(x)
        return found

    def add(self, x):
        """Adds a batch of inputs; returns self.

        Args:
            x: array or tensor, samples first, or a structure of such (the inputs of one model).

        Raises:
            TypeError: for inputs that are neither numbers nor text.
        """
        hashes = _hashes(x)
        self.num_samples += len(hashes)
        self._new.append(hashes)
        if sum(map(len, self._new)) > self.max_hashes:
            self._sort()
        return self

    @property
    def hashes(self):
        """The hashes kept, uint64, different and in ascending order."""
        self._sort()
        return self._kept

    @property
    def is_exact(self):
        """Whether all different samples are kept, so that an overlap with another such fingerprint is exact."""
        self._sort()
        return self._is_exact

    def overlap(self, other):
        """Share of the different samples of `other` that this fingerprint has seen, in [0, 1]; 0 if it holds none.

        Args:
            other: another `Fingerprint`.
        """
        # Below both limits each of the two kept everything, so there they may be compared one to one.
        limit = min(self._limit, other._limit)
        theirs = other.hashes[other.hashes <= limit]
        return float(np.isin(theirs, self.hashes, assume_unique=True).mean()) if len(theirs) else 0.0

    @property
    def _limit(self):
        return np.uint64(2**64 - 1) if self.is_exact else self.hashes[-1]

    def _sort(self):
        if not self._new:
            return
        found = np.unique(np.concatenate([self._kept, *self._new]))
        self._is_exact = self._is_exact and len(found) <= self.max_hashes
        self._kept, self._new = found[: self.max_hashes], []

    def get_config(self):
        """A dict of plain values, ready for JSON; 11 bytes a hash."""
        return {
            "owner": self.owner,
            "max_hashes": self.max_hashes,
            "num_samples": self.num_samples,
            "is_exact": self.is_exact,
            "hashes": base64.b64encode(self.hashes.astype("<u8").tobytes()).decode("ascii"),
        }

    @classmethod
    def from_config(cls, config):
        """The fingerprint that `get_config` was called on.

        Args:
            config: what `get_config` returned.
        """
        made = cls(config["owner"], config["max_hashes"])
        made.num_samples, made._is_exact = config["num_samples"], config["is_exact"]
        made._kept = np.frombuffer(base64.b64decode(config["hashes"]), dtype="<u8").astype(np.uint64)
        return made

    def __eq__(self, other):
        """Whether both have seen the same samples, as far as they keep them."""
        if not isinstance(other, Fingerprint):
            return NotImplemented
        same = (self.num_samples, self.max_hashes, self.is_exact) == (
            *(other.num_samples, other.max_hashes, other.is_exact),
        )
        return same and np.array_equal(self.hashes, other.hashes)

    __hash__ = None

    def __repr__(self):
        """Owner and size."""
        return f"Fingerprint(owner={self.owner!r}, num_samples={self.num_samples})"


def find_fingerprints(model):
    """The fingerprints of all that was fitted in a model, a list without duplicates.

    Looks at `fingerprints` (a list) or `fingerprint` of the object itself, of the layers of a Keras model at any depth,
    and of the models, layers and predictives that an object holds as attributes, in lists and dicts too.

    Args:
        model: a Keras model or layer, a predictive, a detector; or a list of such.

    Example:
        >>> find_fingerprints(calibrator.attach(model))
        [Fingerprint(owner="TemperatureScaling 'temperature_scaling'", num_samples=5000)]
    """
    found, seen, waiting = [], set(), [model]
    while waiting:
        part = waiting.pop(0)
        if id(part) in seen:
            continue
        seen.add(id(part))
        own = getattr(part, "fingerprints", None) or [getattr(part, "fingerprint", None)]
        found += [one for one in own if isinstance(one, Fingerprint) and not _holds(found, one)]
        waiting += _parts(part)
    return found


def check_leak(fingerprints, seen, allow_leak=False):
    """Refuses an evaluation on samples that something was fitted on; returns the largest share found.

    Up to 1 % of shared samples are let pass, of the evaluated data as of the data the artefact was fitted on: public
    test sets hold a few samples of their training sets.

    Args:
        fingerprints: what `find_fingerprints` returned.
        seen: `Fingerprint` of the data evaluated on. None where there is no fingerprint to compare it with.
        allow_leak: whether to go on regardless.

    Returns:
        The largest share of the evaluated samples that one artefact was fitted on, a float in [0, 1].

    Raises:
        LeakError: where the two share samples, unless `allow_leak`.

    Example:
        >>> fingerprints = find_fingerprints(model)
        >>> seen = Fingerprint() if fingerprints else None
        >>> for x, y in data:
        ...     if seen is not None:
        ...         seen.add(x)
        >>> check_leak(fingerprints, seen)
    """
    shares = [fitted.overlap(seen) for fitted in fingerprints]
    for fitted, share in zip(fingerprints, shares, strict=True):
        # A few samples out of a large test set are a leak all the same where nothing else was fitted on.
        if not allow_leak and max(share, seen.overlap(fitted)) > TOLERANCE:
            raise LeakError(_message(fitted, seen, share))
    return max(shares, default=0.0)


def _message(fitted, seen, share):
    is_count = fitted.is_exact and seen.is_exact and len(seen.hashes) == seen.num_samples
    about = "" if is_count else "about "
    return (
        f"{fitted.owner or 'A part of the model'} was fitted on {about}{round(share * seen.num_samples)} of the "
        f"{seen.num_samples} samples to be evaluated ({share:.1%}), so the result would look better than it is. "
        "Evaluate on samples that nothing was fitted on, or pass allow_leak=True to measure regardless."
    )


def _hashes(x):
    """64-bit hash of each sample, uint64."""
    leaves = [_rows(leaf) for leaf in keras.tree.flatten(x)]
    if len(leaves) == 1 and isinstance(leaves[0], np.ndarray):
        rows = map(memoryview, leaves[0])
    else:
        rows = (b"\0".join(bytes(part) for part in parts) for parts in zip(*leaves, strict=True))
    return np.frombuffer(b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows), dtype="<u8")


def _rows(leaf):
    """Samples as rows of bytes: (samples, bytes), or a list of `bytes` for text."""
    leaf = np.asarray(leaf)
    if leaf.dtype.kind in "SUO":
        return [b"\0".join(map(_encoded, np.ravel(sample))) for sample in leaf]
    if leaf.ndim == 0:
        raise TypeError("Expected samples along the first axis. Received: a single number.")
    # bfloat16 has no kind of its own in NumPy; as float32 it is one number like the others. Adding 0 makes -0.0 be 0.0.
    numbers = np.ascontiguousarray(leaf.astype("<f4") + np.float32(0))
    return numbers.reshape(len(leaf), -1).view(np.uint8) if numbers.size else []


def _encoded(text):
    if not isinstance(text, bytes | str):
        raise TypeError(f"Samples must be numbers or text. Received: {type(text).__name__}.")
    return text if isinstance(text, bytes) else text.encode()


def _holds(fingerprints, one):
    return any(other.owner == one.owner and other == one for other in fingerprints)


def _parts(value):
    """What an object holds: its items, its layers, and its attributes that may hold more."""
    if isinstance(value, list | tuple | set):
        return [item for item in value if _may_hold(item)]
    if isinstance(value, dict):
        return [item for item in value.values() if _may_hold(item)]
    layers = list(value.layers) if isinstance(value, keras.Model) else []
    attributes = vars(value).values() if hasattr(value, "__dict__") else []
    return layers + [item for item in attributes if _may_hold(item)]


def _may_hold(value):
    kinds = (keras.Layer, list, tuple, set, dict)
    return isinstance(value, kinds) or hasattr(value, "fingerprints") or callable(getattr(value, "predict", None))
