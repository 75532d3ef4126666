"""What is a ticket, apart from any model: which channels stay, how they were found, and what can be made of them?"""

import hashlib
import weakref
from dataclasses import dataclass, field

import keras
import numpy as np

from tfprune.pruning import (
    certificate,
    fingerprint,
    masks,
    rewind,
    selection,
    surgery,
    ticket_file,
    ticket_pairs,
    units,
)
from tfprune.structure.compiling import compile_like
from tfprune.structure.replay import clone


@dataclass(frozen=True, eq=False, repr=False)
class Ticket:
    """A lottery ticket: the channels kept of a model, how they were found, and which weights they began with.

    It comes from `tfprune.find_ticket`, from a callback (`LotteryTicket.ticket()`), from any masked model
    (`Ticket.of(masked)`) or from a file (`Ticket.load(path)`); there is no need to make one by hand. All channels are
    counted in the coordinates of the original, dense model.

    Args:
        masks: `{layer name: bool array over its output channels}`, True = kept.
        units: `{layer name: int array}`: channels with the same number live or die together; -1 cannot go.
        scores: `{layer name: array}`: what the channels were ranked by when they were last pruned, larger = keep; NaN
            where a channel was not scored.
        criterion: Name of the criterion that gave the scores; None where masks were set by hand.
        history: One dict a round, as `LotteryTicket.history`: `round`, `ratio` (asked), `masks` and more.
        seeds: Integers, `{"seed": what the user passed, "criterion": [...], "rewind": [...]}`: what each round drew.
        started: What the last training began with: `{"weights": "init"}`, `{"weights": "rewind", "epoch": 3}`,
            `{"weights": "trained"}` (it went on), or `{"weights": "random", "seed": 5, "fan": "dense"}`.
        parent: `id` of the ticket that this one goes on from, or None.
        hashes: `{"init": ..., "rewind": ..., "trained": ...}`, those that are known: SHA-256 of all weights of the
            full-size model before training, as rewound to, and as the ticket was taken.
        weights: `{name in hashes: {"layer/index": array}}`, where they are at hand.
        approximate: Whether channels that a normalisation mixes could be pruned, see `tfprune.wrap`.
        model: From `find_ticket` only: the trained, small model.
        masked: From `find_ticket` only: the full-size model with masks that computes the same.

    Example:
        >>> tfprune.Ticket.of(masked).save("net.ticket")
        >>> ticket = tfprune.Ticket.load("net.ticket")
        >>> control = ticket.apply(model, weights="random", seed=1, form="compact")

    Source: Frankle & Carbin 2019, The Lottery Ticket Hypothesis.
    """

    masks: dict
    units: dict
    scores: dict = field(default_factory=dict)
    criterion: str | None = None
    history: list = field(default_factory=list)
    seeds: dict = field(default_factory=dict)
    started: dict = field(default_factory=dict)
    parent: str | None = None
    hashes: dict = field(default_factory=dict)
    weights: dict = field(default_factory=dict)
    approximate: bool = False
    model: keras.Model | None = None
    masked: keras.Model | None = None

    @classmethod
    def of(cls, masked, history=None, snapshots=None, seeds=None, started=None):
        """The ticket of a masked model as it is now. Its weights are copied.

        Args:
            masked: A model from `tfprune.wrap`, its masks set.
            history: The rounds that led here, `history` of a callback. Default None: one round.
            snapshots: `{"init": snapshot, "rewind": snapshot}`: earlier weights of this model, those that are known, as
                `tfprune.pruning.rewind.Snapshot`. Default None.
            seeds: See `Ticket`. Default None: what `compute_masks` was called with.
            started: See `Ticket`. Default None: what `apply` gave the model, where it made it.

        Raises:
            ValueError: the model has no masks.

        Example:
            >>> tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
            >>> ticket = tfprune.Ticket.of(masked)
        """
        graph, kept, made = surgery.masked_graph(masked, "Ticket.of"), masks.get_masks(masked), applied(masked)
        is_whole = all(mask.all() for mask in kept.values())
        chosen = None if is_whole else selection.recall(masked, kept)
        if seeds is None:
            seeds = {"criterion": [chosen.seed]} if chosen and chosen.criterion == "random" else {}
        if started is None:
            started = {key: value for key, value in made.items() if key not in ("ticket", "form")}
        if history is None:
            history = [{"round": 1, "ratio": chosen.ratio if chosen else None, **ticket_pairs.tally(kept)}]
        known = {name: fingerprint.read_weights(graph.layers, taken) for name, taken in (snapshots or {}).items()}
        known["trained"] = fingerprint.read_weights(graph.layers)
        return cls(
            masks=kept,
            units=units.number(graph, kept),
            scores=chosen.scores if chosen else {},
            criterion=chosen.criterion if chosen else None,
            history=list(history),
            seeds=seeds,
            started=started,
            parent=made.get("ticket"),
            hashes={name: fingerprint.fingerprint(values) for name, values in known.items()},
            weights=known,
            approximate=any(group.approximate for group in graph.prunable),
        )

    # What it says -----------------------------------------------------------------------------------------------

    @property
    def id(self):
        """SHA-256 that names the ticket: the same channels, weights and parent give the same."""
        found = hashlib.sha256(repr((self.parent, sorted(self.hashes.items()))).encode())
        for name, mask in sorted(self.masks.items()):
            found.update(f"{name} {mask.astype(int).tolist()}\n".encode())
        return found.hexdigest()

    @property
    def kept(self):
        """`{group name: positions of the channels kept}`; a group goes by its first layer, and counts its channels."""
        return {name: own[self.masks[name][own]] for name, own in units.own(self.units).items()}

    @property
    def ledger(self):
        """What was asked and what came of it: one dict for each line of the history.

        `round` (or `step`), `asked` (ratio), `achieved` (share of the prunable channels that is gone), `channels_kept`
        and `channels_total`. Channels that live or die together count once.
        """
        return [self._entry(row) for row in self.history]

    def _entry(self, row):
        kept = units.kept(self.units, row["masks"])
        return {
            **{key: row[key] for key in ("round", "step") if key in row},
            "asked": row["ratio"],
            "achieved": 1 - float(kept.mean()),
            "channels_kept": int(kept.sum()),
            "channels_total": kept.size,
        }

    def __repr__(self):
        """One line: the masks alone would fill pages."""
        kept = sum(map(len, self.kept.values()))
        stored = ", ".join(self.weights) or "not stored"
        return f"<Ticket {self.id[:8]}: {kept} of {units.count(self.units)} channels kept, weights: {stored}>"

    def overlap(self, other):
        """How much two tickets of the same architecture have in common, next to what chance would give.

        Args:
            other: A `Ticket`, for example of another seed.

        Returns:
            A pandas DataFrame, one row a group: `group`, `channels`, `kept`, `kept_by_other`, `shared`,
            `shared_by_chance` (expected of two random choices of as many channels), `jaccard` (shared / kept by one or
            both), `jaccard_by_chance`, and `p_value`: how probable it is that chance shares as many, or more. Its
            `attrs` hold the same of all groups together.

        Raises:
            ValueError: the tickets are of different architectures (it says the first difference).

        Example:
            >>> tfprune.Ticket.load("seed_0.ticket").overlap(tfprune.Ticket.load("seed_1.ticket"))
        """
        return ticket_pairs.overlap(self, other)

    # What can be made of it -------------------------------------------------------------------------------------

    def apply(self, model, weights="trained", form="masked", seed=None, fan="dense"):
        """Returns a new model with the ticket's channels; the model passed is left as it is.

        Args:
            model: The original dense model, or one of the same architecture. Its compile settings are kept.
            weights: What the channels that stay begin with. "trained" (default): the weights when the ticket was taken.
                "init": those before training. "rewind": those that each round went back to. All three come from the
                ticket where it holds them; where it knows only their hash, `model` must hold them. "random": fresh
                ones from each layer's own initializers (frozen layers stay). "given": those of `model`, whatever they
                are.
            form: "masked" (default): full size, with masks, to train or to prune further; what is pruned is zero.
                "compact": the small model, as `tfprune.shrink` returns it.
            seed: Integer for "random". Default None: drawn anew.
            fan: What the initializers of "random" see. "dense" (default): the size of the dense model; the channels
                that stay get theirs. "pruned": the size of the small model. Structured pruning makes the fan smaller,
                and Glorot, He and LeCun initializers then draw larger weights: these are two different controls.
                `tfprune.pruning.ticket.applied` tells which it was, and with which seed.

        Raises:
            ValueError: the ticket does not fit the model (it says the first difference), or the weights are not there.

        Example:
            >>> winner = ticket.apply(model, weights="init", form="compact")
            >>> control = ticket.apply(model, weights="random", seed=1, form="compact")
        """
        _check_choices(weights, form, seed, fan)
        masked = surgery.wrap(model, approximate=self.approximate)
        masks.set_masks(masked, self._masks_for(masked))
        started = _randomise(masked, seed, fan) if weights == "random" else self._give(masked, weights)
        graph = surgery.masked_graph(masked, "Ticket.apply")
        rewind.clear_pruned(surgery.kept_entries(graph, graph.kept()))
        made = masked if form == "masked" else surgery.shrink(masked)
        _APPLIED[made] = {"ticket": self.id, "form": form, **started}
        return made

    def expand(self, small, model):
        """Returns a new full-size model with masks that computes what a small one computes.

        With it a small model can be pruned further, or compared with others channel by channel. It is compiled as the
        small model is, with an optimizer that starts afresh; what is pruned is zero.

        Args:
            small: A model that this ticket was shrunk to; it may have been trained or loaded since.
            model: The original dense model, or one of the same architecture. Both are left as they are.

        Raises:
            ValueError: the small model does not have this ticket's channels, or does not compute the same.

        Example:
            >>> small = keras.models.load_model("small.keras")
            >>> masked = tfprune.Ticket.load("net.ticket").expand(small, model)
        """
        masked = self.apply(model, weights="given")
        twin, pairs = surgery.cut(masked)
        names = f"the small model '{small.name}'", f"model '{model.name}' with this ticket's channels"
        values = fingerprint.read_weights(fingerprint.layers_of(small))
        fingerprint.write_weights(fingerprint.layers_of(twin), values, *names)
        surgery.expand(pairs)
        graph = surgery.masked_graph(masked, "Ticket.expand")
        try:
            # of a clone, so that the small model keeps the report that shrink gave it
            certificate.certify(masked, clone(small), graph)
        except RuntimeError as error:
            raise ValueError(f"{names[0].capitalize()} computes something else than {names[1]}.") from error
        compile_like(masked, small)
        _APPLIED[masked] = {"ticket": self.id, "form": "masked", "weights": "expanded"}
        return masked

    def compose(self, other):
        """The ticket that loses what this one loses, and then what a second one loses, found on the small model.

        Args:
            other: A `Ticket` of the model that this one was shrunk to.

        Returns:
            A new `Ticket` in the coordinates of the original model, this one being its parent: both histories, the
            scores and seeds of the second, and the initial weights of this one. Trained weights stay with the small
            model: see `expand`.

        Raises:
            ValueError: the other ticket is not one of this one's small model (it says the first difference).

        Example:
            >>> masked = tfprune.wrap(ticket.apply(model, form="compact"))
            >>> tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
            >>> both = ticket.compose(tfprune.Ticket.of(masked))
        """
        return ticket_pairs.compose(self, other)

    def _masks_for(self, masked):
        """The masks by the names of a model's layers, which may be numbered otherwise."""
        theirs = masks.get_masks(masked)
        where = f"model '{masked.name}'"
        names = fingerprint.pair_names(self.masks, theirs, "Layer", "the ticket", f"what can be pruned of {where}")
        for ours, name in names.items():
            ticket_pairs.check_size(name, self.masks[ours].size, theirs[name].size, where)
        return {name: self.masks[ours] for ours, name in names.items()}

    def _give(self, masked, weights):
        """Gives a model the weights that the ticket holds, or makes sure that the model has them."""
        layers, where = surgery.masked_graph(masked, "Ticket.apply").layers, f"model '{masked.name}'"
        if weights in self.weights:
            fingerprint.write_weights(layers, self.weights[weights], "the ticket", where)
        elif weights != "given" and weights not in self.hashes:
            raise ValueError(
                f"The ticket knows no '{weights}' weights, for it was not found with any. It knows: "
                f"{', '.join(self.hashes)}. Others are weights='random' and weights='given'."
            )
        elif weights != "given" and fingerprint.fingerprint(fingerprint.read_weights(layers)) != self.hashes[weights]:
            raise ValueError(
                f"The ticket knows only the hash of its '{weights}' weights, and {where} has other weights. Pass the "
                f"model that has them, store them with save(path, weights=['{weights}']), or take those of the model "
                "with weights='given'."
            )
        return {"weights": weights}

    # How it is kept ---------------------------------------------------------------------------------------------

    def save(self, path, weights=False):
        """Writes the ticket to one file, without pickle; `tfprune.pruning.ticket_file` says what is inside.

        Args:
            path: File to write or replace, as a whole or not at all.
            weights: Whether to store weights too: True for all that are at hand, or a list of names ("init", "rewind",
                "trained"). Default False: only their hashes, so that the file stays small.

        Raises:
            ValueError: weights are asked for that are not at hand.

        Example:
            >>> ticket.save("net.ticket", weights=["init"])
        """
        stored = list(self.weights) if weights is True else weights or []
        if isinstance(weights, str) or not set(stored) <= set(self.weights):
            raise ValueError(f"weights must be a bool or a list from {list(self.weights)}. Received: {weights!r}.")
        ticket_file.write(path, self, stored)

    @classmethod
    def load(cls, path):
        """Reads a ticket from a file.

        Args:
            path: A file from `save`.

        Raises:
            ValueError: the file is no ticket, is damaged, or was written by a newer tfprune.

        Example:
            >>> ticket = tfprune.Ticket.load("net.ticket")
        """
        fields, name = ticket_file.read(path)
        ticket = cls(**fields)
        if ticket.id != name:
            raise ValueError(f"'{path}' is damaged: its channels or hashes are not those that it was saved with.")
        return ticket


_APPLIED = weakref.WeakKeyDictionary()
_WEIGHTS = ("trained", "init", "rewind", "random", "given")


def applied(model):
    """What `Ticket.apply` or `Ticket.expand` made a model of.

    Args:
        model: A Keras model.

    Returns:
        `{"ticket": id, "form": "masked" or "compact", "weights": as asked for}`, and for random weights "seed" and
        "fan" ("dense" or "pruned"). Empty for any other model, a saved and loaded one included.
    """
    return dict(_APPLIED.get(model, {}))


def _randomise(masked, seed, fan):
    """Draws fresh weights, at the size of the full model or at that of the small one."""
    seed = int(np.random.default_rng().integers(2**31)) if seed is None else int(seed)
    rewind.randomise(masked, seed)
    if fan == "pruned":
        small, pairs = surgery.cut(masked)
        rewind.randomise(small, seed)
        surgery.expand(pairs)
    return {"weights": "random", "seed": seed, "fan": fan}


def _check_choices(weights, form, seed, fan):
    for name, value, choices in (
        ("weights", weights, _WEIGHTS), ("form", form, ("masked", "compact")), ("fan", fan, ("dense", "pruned")),
    ):  # fmt: skip
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}.")
    if weights != "random" and (seed is not None or fan != "dense"):
        raise ValueError(f"seed and fan are for weights='random'. Received: weights={weights!r}.")
