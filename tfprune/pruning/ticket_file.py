"""How does a ticket lie on disk?

One zip file, written and read without pickle; `numpy.load` opens it, too:

    ticket.json            format, criterion, history, seeds, parent, hashes ..., and the layers with their channels
    kept/<group>.npy       int32: the channels kept of a group, as positions in its first layer
    units/<layer>.npy      int32: a number for each channel of a layer; channels that share one live or die together,
                           -1 is a channel that cannot go
    scores.npy             float64: the score of each of these numbers, where there are scores
    rounds.npy             bool: a row for each line of the history, True where the number is kept
    weights/<hash>/<layer>/<index>.npy     where asked for; the hash is one of those in ticket.json
"""

import io
import json
import zipfile
import zlib

import numpy as np

from tfprune import __version__
from tfprune.pruning import units
from tfprune.writing import replacing

KIND, FORMAT = "tfprune ticket", 1
_IN_HEADER = ("criterion", "seeds", "started", "parent", "hashes", "approximate")


def write(path, ticket, weights=()):
    """Writes a ticket, whole or not at all.

    Args:
        path: File to write or replace.
        ticket: A `tfprune.Ticket`.
        weights: Names of the weights to store.
    """
    with replacing(path) as partial, open(partial, "wb") as file:
        _write(file, _header(ticket, weights), {**_arrays(ticket), **_weights(ticket, weights)})


def read(path):
    """`(fields, id)`: what `Ticket` takes, as a dict, and the id that it had.

    Args:
        path: A file that `write` has written.

    Raises:
        ValueError: the file is no ticket, is damaged, or was written by a newer tfprune.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            header = _read_header(path, archive)
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            arrays = {name.removesuffix(".npy"): _read_array(archive, name) for name in names}
            return _fields(header, arrays), header["id"]
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(
            f"'{path}' is no ticket, or it is damaged ({error}). Expected a file from Ticket.save."
        ) from error


def _header(ticket, weights):
    return {
        "kind": KIND,
        "format": FORMAT,
        "tfprune": __version__,
        "id": ticket.id,
        **{name: getattr(ticket, name) for name in _IN_HEADER},
        "stored": list(weights),
        "layers": {name: mask.size for name, mask in ticket.masks.items()},
        "history": [{key: value for key, value in row.items() if key != "masks"} for row in ticket.history],
    }


def _arrays(ticket):
    numbers, count = ticket.units, units.count(ticket.units)
    rounds = [units.gather(numbers, row["masks"], np.ones(count, bool)) for row in ticket.history]
    scores = {"scores": units.gather(numbers, ticket.scores, np.full(count, np.nan))} if ticket.scores else {}
    return {
        **{f"kept/{name}": positions.astype("int32") for name, positions in ticket.kept.items()},
        **{f"units/{name}": found.astype("int32") for name, found in numbers.items()},
        **scores,
        "rounds": np.array(rounds, bool).reshape(len(rounds), count),
    }


def _weights(ticket, names):
    """Each set of weights once, under its hash: what is rewound to is often what training began with."""
    by_hash = {ticket.hashes[name]: ticket.weights[name] for name in names}
    return {f"weights/{key}/{name}": value for key, found in by_hash.items() for name, value in found.items()}


def _fields(header, arrays):
    numbers = {name: arrays[f"units/{name}"].astype(int) for name in header["layers"]}
    kept = np.zeros(units.count(numbers), bool)
    for name in units.own(numbers):
        kept[numbers[name][arrays[f"kept/{name}"]]] = True
    rounds = [units.spread(numbers, row, True) for row in arrays["rounds"]]
    return {
        "masks": units.spread(numbers, kept, True),
        "units": numbers,
        "scores": units.spread(numbers, arrays["scores"], np.nan) if "scores" in arrays else {},
        "history": [{**row, "masks": masks} for row, masks in zip(header["history"], rounds, strict=True)],
        "weights": {name: _under(arrays, f"weights/{header['hashes'][name]}/") for name in header["stored"]},
        **{name: header[name] for name in _IN_HEADER},
    }


def _under(arrays, prefix):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _write(file, header, arrays):
    text = json.dumps(header, indent=1, default=_as_json)
    with zipfile.ZipFile(file, "w") as archive:
        # entries get no time stamp, so that the same ticket gives the same file
        archive.writestr(zipfile.ZipInfo("ticket.json"), text, zipfile.ZIP_DEFLATED)
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getbuffer(), zipfile.ZIP_DEFLATED)


def _as_json(value):
    """NumPy's numbers and arrays as Python's; of anything else, what it says of itself."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else repr(value)


def _read_array(archive, name):
    with archive.open(name) as entry:
        return np.lib.format.read_array(entry, allow_pickle=False)


def _read_header(path, archive):
    header = json.loads(archive.read("ticket.json")) if "ticket.json" in archive.namelist() else {}
    if header.get("kind") != KIND:
        raise ValueError(f"'{path}' is no ticket, but a zip file of something else. Expected one from Ticket.save.")
    if header["format"] > FORMAT:
        raise ValueError(
            f"'{path}' was written by tfprune {header['tfprune']} in format {header['format']}; this version reads "
            f"format {FORMAT}. Update tfprune."
        )
    return header
