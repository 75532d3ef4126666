"""How sure are several models together? Deep ensembles, and ensembles of tickets.

Members trained from different seeds, or pruned to different tickets, agree on what the data show and differ elsewhere.
"""

import hashlib
import json
import secrets
from pathlib import Path

import keras
import numpy as np

from tfprune.metrics.scores import entropy, softmax
from tfprune.predictions import Forward, Predictor
from tfprune.uncertainty.passes import arrays_of, parts, probabilities_of
from tfprune.uncertainty.predictive import Predictive
from tfprune.writing import write_text

KIND, FORMAT = "tfprune ensemble", 1
_HEADER = "ensemble.json"


class Ensemble(Predictive):
    """Averages the probabilities of its members, never their logits.

    The members of a deep ensemble are models of one architecture trained from different seeds; those of a ticket
    ensemble are tickets, which may differ in size. Members that are the same model are the same opinion twice.

    Keras members are run as they are: later changes of their weights count.

    Args:
        members: a list of built Keras models with one output (samples, classes) or one sigmoid column, and of
            predictives. They may end in logits or in probabilities, mixed. All take the same inputs.
        weights: one number of at least 0 per member, of which shares are made; None weighs all alike.
        from_logits: whether members give logits whose last layer does not say so; None refuses those.

    Raises:
        ValueError: for no members, weights that do not fit, or members of different numbers of classes or inputs.
        TypeError: for a member that does not predict.

    Example:
        >>> ensemble = Ensemble([ticket, other_ticket, third_ticket])
        >>> tfprune.evaluate(ensemble, (x_test, y_test))
        >>> ensemble.predict_uncertainty(x)["mutual_information"]

    Source: Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles", 2017.
    """

    def __init__(self, members, weights=None, from_logits=None):
        if not isinstance(members, list | tuple) or not members:
            raise ValueError(f"Ensemble needs a list of at least one member. Received: members={members!r}.")
        self.members, self.weights, self._from_logits = list(members), weights, from_logits
        self._shares = _shares(weights, len(members))
        self._runs = [_Member(member, f"member {index}", from_logits) for index, member in enumerate(members)]
        _check_alike(self._runs)

    @property
    def inputs(self):
        """The inputs of the first member."""
        return self.members[0].inputs

    def predict_uncertainty(self, x):
        """Mean probabilities of the members, their entropy, and the mutual information of prediction and member.

        The mutual information is how much the members disagree: the entropy of their mean less the mean of their
        entropies. What a member itself knows of its uncertainty is not looked at.

        Args:
            x: array of inputs, samples first, or a structure of such.

        Returns:
            `{"probabilities": (n, classes), "entropy": (n,), "mutual_information": (n,)}`, float64, in nats.
        """
        mean, within = 0.0, 0.0
        for share, probabilities in zip(self._shares, self._each(x), strict=True):
            mean = mean + share * probabilities
            within = within + share * entropy(probabilities)
        whole = entropy(mean)
        # Never negative but for rounding, by Jensen's inequality.
        return {"probabilities": mean, "entropy": whole, "mutual_information": np.maximum(whole - within, 0.0)}

    def member_probabilities(self, x):
        """The probabilities of each member, float64 (members, n, classes).

        Args:
            x: array of inputs, samples first, or a structure of such.
        """
        return np.stack(list(self._each(x)))

    def _each(self, x):
        """Yields the probabilities of one member after the other."""
        x, num_classes = arrays_of(x, self), None
        for member in self._runs:
            probabilities = member(x)
            num_classes = num_classes or probabilities.shape[1]
            _check_classes(num_classes, probabilities.shape[1], member.what)
            yield probabilities

    def save(self, folder):
        """Writes the members as .keras files and `ensemble.json` into a folder; an ensemble there is replaced.

        Readers see the old ensemble or the new one, never half of one: the JSON file, which names the members' files
        and their SHA-256, is put in place last.

        Args:
            folder: where to write; it is made if it is not there.

        Raises:
            TypeError: for members that are not Keras models.
            FileExistsError: for a folder that holds other things.
        """
        for index, member in enumerate(self.members):
            if not isinstance(member, keras.Model):
                raise TypeError(
                    f"Only ensembles of Keras models can be saved. Received: member {index}, a {type(member).__name__}."
                )
        folder = Path(folder)
        old = _files_in(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = None if self.weights is None else [float(weight) for weight in self.weights]
        header = {"kind": KIND, "format": FORMAT, "weights": weights, "from_logits": self._from_logits}
        # Names that were never used before: the files of an older ensemble stay until the new header is in place.
        names = [f"member_{index}_{secrets.token_hex(4)}.keras" for index in range(len(self.members))]
        superseded = names
        try:
            header["members"] = [_save(member, folder / name) for member, name in zip(self.members, names, strict=True)]
            _write_header(folder, header)
            superseded = old
        finally:
            for name in superseded:
                (folder / name).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder, custom_objects=None):
        """The ensemble that `save` wrote.

        Args:
            folder: the folder.
            custom_objects: `{name: class}` for layers of your own, as `keras.saving.load_model` takes it.

        Raises:
            ValueError: where the folder holds no ensemble, a newer format, or a member's file that was changed.
        """
        folder = Path(folder)
        header = _read_header(folder)
        members = [_load_member(folder, entry, custom_objects) for entry in header["members"]]
        return cls(members, header["weights"], header["from_logits"])


class _Member:
    """Inputs -> float64 probabilities (samples, classes) of one member."""

    def __init__(self, member, what, from_logits):
        self.is_keras = isinstance(member, keras.Model)
        self.what = f"{what} ('{getattr(member, 'name', type(member).__name__)}')"
        knows = not self.is_keras and getattr(member, "from_logits", None) is not None
        self.told = Predictor(member, None if knows else from_logits)
        self.is_logits = self.told.gives_logits and self.told.head not in ("softmax", "sigmoid")
        # Not the Predictor's own run: it holds a copy of a last layer that has its softmax inside.
        self.forward = Forward(member) if self.is_keras else None
        self.num_classes = _num_classes(member) if self.told.traced else None
        self.inputs = [tuple(tensor.shape[1:]) for tensor in member.inputs] if self.told.traced else None

    def __call__(self, x):
        if not self.is_keras:
            return softmax(self.told(x))
        return np.concatenate([self._run(part) for part in parts(x)])

    def _run(self, x):
        outputs = keras.ops.convert_to_numpy(keras.ops.cast(self.forward(x), "float32"))
        return probabilities_of(outputs, self.is_logits, self.what)


def _num_classes(model):
    shape = model.outputs[0].shape
    if len(shape) != 2 or shape[1] is None:
        raise ValueError(f"Expected members that give (samples, classes). Received: '{model.name}', giving {shape}.")
    return max(shape[1], 2)  # one column is class 1 of two


def _shares(weights, size):
    """Weights that sum to 1, an array."""
    if weights is None:
        return np.full(size, 1 / size)
    shares = np.asarray(weights, dtype=np.float64)
    if shares.shape != (size,) or not np.all(np.isfinite(shares)) or shares.min() < 0 or shares.sum() == 0:
        raise ValueError(
            f"weights must be {size} numbers of at least 0, one for each member, not all 0. Received: {weights!r}."
        )
    return shares / shares.sum()


def _check_alike(members):
    known = [member for member in members if member.num_classes is not None]
    for member in known[1:]:
        _check_classes(known[0].num_classes, member.num_classes, member.what)
        if not _fit(known[0].inputs, member.inputs):
            raise ValueError(
                f"All members must take the same inputs. Received: {known[0].what} for samples of shape "
                f"{known[0].inputs}, {member.what} for {member.inputs}."
            )


def _fit(ours, theirs):
    """Whether lists of shapes agree wherever both say a size."""
    sizes = [(a, b) for one, other in zip(ours, theirs, strict=False) for a, b in zip(one, other, strict=False)]
    alike = [len(shape) for shape in ours] == [len(shape) for shape in theirs]
    return alike and all(a == b for a, b in sizes if None not in (a, b))


def _check_classes(expected, given, what):
    if given != expected:
        raise ValueError(f"All members must have the same classes. Received: {expected}, and {given} of {what}.")


# --- the folder -------------------------------------------------------------------------------------------------------


def _files_in(folder):
    """Names of the members' files of an ensemble that is saved in a folder, which may be new or empty."""
    if folder.is_dir() and (folder / _HEADER).exists():
        return [entry["file"] for entry in _read_header(folder)["members"]]
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"'{folder}' is there and holds no ensemble. Save into a new or empty folder.")
    return []


def _save(member, path):
    """Saves a member; returns what the header says of it."""
    member.save(path)
    return {"file": path.name, "sha256": _sha256(path)}


def _load_member(folder, entry, custom_objects):
    path = folder / Path(entry["file"]).name  # a name, never a way out of the folder
    if not path.is_file() or _sha256(path) != entry["sha256"]:
        raise ValueError(f"'{path}' is missing or is not the file that was saved. Save the ensemble again.")
    return keras.saving.load_model(path, custom_objects=custom_objects, compile=False)


def _write_header(folder, header):
    write_text(folder / _HEADER, json.dumps(header, indent=1))


def _read_header(folder):
    path = folder / _HEADER
    if not path.is_file():
        raise ValueError(
            f"'{folder}' holds no ensemble: there is no {_HEADER}. Ensemble(members).save(folder) makes it."
        )
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged: {error}") from error
    if not isinstance(header, dict) or header.get("kind") != KIND:
        raise ValueError(f"'{path}' is not the header of a tfprune ensemble.")
    if header["format"] > FORMAT:
        raise ValueError(f"'{path}' has format {header['format']}, this tfprune reads up to {FORMAT}. Update tfprune.")
    return header


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
