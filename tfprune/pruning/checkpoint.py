"""How is a pruned training kept on disk, so that a killed one goes on as if nothing had happened?

A backup is one NumPy .npz file without pickled objects: arrays, and an entry "about" with JSON that says what they are
and which training they belong to. It is written beside its place and moved there whole.
"""

import json
import warnings
from pathlib import Path

import numpy as np

from tfprune import __version__
from tfprune.pruning import masks, rewind
from tfprune.structure.replay import value_of
from tfprune.writing import replacing

KIND, FORMAT = "tfprune backup", 1


class Backup:
    """A folder with the backup of one training.

    Args:
        folder: Folder for the file; it is made when there is something to keep.
        identity: Dict of JSON values that says which training this is, a line for each of its settings.
    """

    def __init__(self, folder, identity):
        self.path = Path(folder) / "training.npz"
        self.identity = json.loads(json.dumps(identity))  # as it comes back: a tuple is a list

    def save(self, about, arrays):
        """Writes or replaces the backup, whole or not at all.

        Args:
            about: Dict of JSON values.
            arrays: `{name: array}`.

        Raises:
            OSError: the disk is full, or the folder cannot be written; what stood there before is untouched.
        """
        # bfloat16 and its kind are no types of NumPy's own; float32 holds all that they can
        plain = {name: array.astype("float32") if array.dtype.kind == "V" else array for name, array in arrays.items()}
        header = {"kind": KIND, "format": FORMAT, "tfprune": __version__, "identity": self.identity, "about": about}
        with replacing(self.path) as partial, open(partial, "wb") as file:
            np.savez(file, about=np.frombuffer(json.dumps(header).encode(), np.uint8), **plain)

    def load(self):
        """`(about, arrays)` as they were saved, or None where there is nothing to go on from.

        A torn file is nothing to go on from: there is a warning, and the training starts at its beginning.

        Raises:
            ValueError: the backup is of another training, or was written by a newer tfprune.
        """
        if not self.path.exists():
            return None
        try:
            with open(self.path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                # every entry is read to its end, where zip's checksum of it is compared
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays.pop("about").tobytes())
        except Exception as error:  # a damaged file raises whatever the damage leads to
            warnings.warn(
                f"The backup '{self.path}' is damaged ({error}). The training starts at its beginning.", stacklevel=2
            )
            return None
        self._check(header)
        return header["about"], arrays

    def remove(self):
        """Removes the backup: the training has ended."""
        self.path.unlink(missing_ok=True)

    def _check(self, header):
        if header.get("kind") != KIND or header["format"] > FORMAT:
            raise ValueError(
                f"'{self.path}' is no backup that this version of tfprune ({__version__}) can read. Pass another "
                "folder, or update tfprune."
            )
        other = header["identity"]
        for name in [*self.identity, *other]:
            if self.identity.get(name) != other.get(name):
                raise ValueError(
                    f"The backup '{self.path}' is of another training: its {name} is {_short(other.get(name))}, here "
                    f"it is {_short(self.identity.get(name))}. Pass another folder, or remove the file to begin anew."
                )


def _short(value, most=120):
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shape_of(model):
    """What tells one model from another, without its values: the optimizer, and the shapes of all variables."""
    kinds = [type(part).__name__ for part in rewind.parts(model.optimizer)]
    return {"optimizer": kinds, "shapes": [list(variable.shape) for variable in _variables(model)]}


def read(model):
    """`{name: array}`: a masked model's masks, weights, optimizer and random generators, all that training changes."""
    kept = {f"mask/{name}": mask for name, mask in masks.get_masks(model).items()}
    return kept | numbered("now", [value_of(variable) for variable in _variables(model)])


def write(model, arrays):
    """Gives a masked model what `read` took of one like it."""
    kept = {name.removeprefix("mask/"): mask for name, mask in arrays.items() if name.startswith("mask/")}
    masks.set_masks(model, kept)
    for variable, value in zip(_variables(model), listed("now", arrays), strict=True):
        variable.assign(value)


def numbered(prefix, values):
    """`{"prefix/0": value, "prefix/1": value, ...}`: the names of a list of arrays in a backup."""
    return {f"{prefix}/{index}": value for index, value in enumerate(values)}


def listed(prefix, arrays):
    """The list that `numbered` named."""
    count = sum(name.startswith(f"{prefix}/") for name in arrays)
    return [arrays[f"{prefix}/{index}"] for index in range(count)]


def _variables(model):
    """Weights without masks, the optimizer's variables, and the states of random generators."""
    known = {id(weight) for weight in model.weights}
    generators = [variable for variable in model.variables if id(variable) not in known]
    return rewind.weights_of(model) + rewind.optimizer_variables(model) + generators
