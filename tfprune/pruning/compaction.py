"""How does a small model train in the place of a masked one, so that later steps cost less?"""

import functools
import weakref

import keras
import numpy as np

from tfprune.pruning import rewind, surgery
from tfprune.structure.compiling import carry_exclusions, optimizer_like
from tfprune.structure.replay import value_of


class StandIn:
    """The small model of a masked one as its masks are now, and how the state of the two corresponds.

    Weights, statistics and all that the optimizer remembers of each weight (slots, averages) are cut as the masks say.
    Counters, learning rate and metrics are not copied: the small model uses those of the masked one.

    Args:
        masked: A compiled model from `tfprune.wrap`.
    """

    def __init__(self, masked):
        graph = surgery.masked_graph(masked, "Compaction")
        self.kept = graph.kept()
        self.small, self._weights = surgery.cut(masked, graph, trains_alike=True)
        _remember_frozen(masked, self.small, self._weights)
        self._state = optimizer_pairs(masked, self.small, self._weights)
        shared = _share_counters(masked.optimizer, self.small.optimizer)
        self._state = [pair for pair in self._state if id(pair[0]) not in shared]
        _share_metrics(masked, self.small)
        carry_optimizer(self._state, back=False)

    def take(self):
        """Gives the small model what the masked one holds now."""
        for old, new, index, factor in self._weights:
            value = value_of(old)[index]
            new.assign(value if factor == 1 else value * factor)
        carry_optimizer(self._state, back=False)

    def give(self):
        """Gives the masked model what the small one has learnt; what is pruned stays as it is."""
        surgery.expand(self._weights)
        carry_optimizer(self._state, back=True)


class Relay:
    """Lets a masked model's training steps run on its `StandIn` while channels are pruned.

    `model.fit` goes on with the masked model: its callbacks, counters, metrics and history. Only the functions that
    Keras calls for each step are others. The masked model's weights are brought up to date by `settle`, and whenever
    tfprune reads it; after that it may be changed, and the next step takes what it holds.

    Args:
        masked: A compiled model from `tfprune.wrap`.
    """

    def __init__(self, masked):
        self.masked, self._own = masked, {}
        self._stand_in, self._ahead = None, False
        self.open()
        surgery.call_before_reading(masked, weakref.WeakMethod(self.settle))

    def open(self):
        """Takes the place of the model's functions; again where somebody made a new one meanwhile."""
        for kind in ("train", "test", "predict"):
            if getattr(self._function_of(self.masked, kind), "func", None) != self._run:
                self._own[kind] = self._function_of(self.masked, kind)
                setattr(self.masked, f"{kind}_function", functools.partial(self._run, kind))

    def close(self):
        """Brings the model up to date, and gives it its own functions back."""
        self.settle()
        for kind, function in self._own.items():
            setattr(self.masked, f"{kind}_function", function)
        surgery.call_before_reading(self.masked, None)
        self._stand_in = None

    def settle(self):
        """Brings the masked model up to date."""
        if self._ahead:
            self._ahead = False  # first, for giving reads the masked model too
            self._stand_in.give()

    def _run(self, kind, iterator):
        if kind == "train":
            self._prepare()
        elif kind == "predict":
            self.settle()
        if not self._ahead:
            return self._own[kind](iterator)
        return self._function_of(self._stand_in.small, kind)(iterator)

    def _prepare(self):
        """Makes the small model ready for a step, where there is something to leave out."""
        if self._ahead:
            return
        kept = surgery.masked_graph(self.masked, "Compaction").kept()
        if kept.all():
            self._stand_in = None
        elif self._stand_in is None or not np.array_equal(kept, self._stand_in.kept):
            self._stand_in = StandIn(self.masked)
        else:
            self._stand_in.take()
        self._ahead = self._stand_in is not None

    @staticmethod
    def _function_of(model, kind):
        getattr(model, f"make_{kind}_function")()  # Keras makes it only where there is none
        return getattr(model, f"{kind}_function")


def optimizer_pairs(masked, small, weights):
    """`[(variable of the masked model's optimizer, that of the small one's, index)]` of what can be cut.

    A summary over whole weights (Adafactor's rows and columns) has another meaning in the small model: it is left out,
    and starts afresh there.

    Args:
        masked: A model from `tfprune.wrap`.
        small: What `surgery.cut` made of it, as are
        weights: its pairs.
    """
    indices = {id(variable): index for variable, _, index, _ in weights}
    cuts = {id(slot): indices[id(variable)] for variable, slot in rewind.slots(masked.optimizer)}
    both = zip(rewind.optimizer_variables(masked), rewind.optimizer_variables(small), strict=True)
    return [
        (full, cut, cuts.get(id(full), ...))
        for full, cut in both
        if value_of(full)[cuts.get(id(full), ...)].shape == tuple(cut.shape)
    ]


def _remember_frozen(masked, small, weights):
    """Has the small model's optimizer remember the same weights: some may have been frozen after compiling."""
    if not small.compiled:
        raise ValueError(
            f"Compaction needs an optimizer that can be made again for the small model of '{masked.name}': give its "
            "class a get_config() that returns what its __init__ takes."
        )
    rewind.optimizer_variables(masked)  # makes its slots
    twins = {id(old): new for old, new, _, _ in weights}
    known = [variable for part in rewind.parts(masked.optimizer) for variable in part._trainable_variables]
    if len(known) != len(small.trainable_variables):
        small.optimizer = optimizer_like(masked.optimizer)
        carry_exclusions(small, masked)
        small.optimizer.build([twins.get(id(variable), variable) for variable in known])


def carry_optimizer(pairs, back):
    """Copies the optimizer's state from the masked model to the small one, or back, by `optimizer_pairs`."""
    for full, cut, index in pairs:
        if back:
            value = value_of(full)
            value[index] = value_of(cut)
            full.assign(value)
        else:
            cut.assign(value_of(full)[index])


def _share_counters(optimizer, other):
    """Lets `other` count its steps, and read its learning rate, where `optimizer` does; gives their ids."""
    shared = set()
    for part, twin in zip(rewind.parts(optimizer), rewind.parts(other), strict=True):
        for name in ("_iterations", "_learning_rate"):
            variable = getattr(part, name, None)
            if hasattr(variable, "assign"):  # a schedule is no variable
                _set(twin, name, variable)
                shared.add(id(variable))
    return shared


def _share_metrics(masked, small):
    """Lets the small model's steps count in the masked model's metrics, its users' own ones included."""
    for name, value in vars(masked).items():
        if isinstance(value, keras.metrics.Metric) or name in ("_compile_loss", "_metrics"):
            _set(small, name, value)


def _set(owner, name, value):
    """Sets an attribute without Keras counting what it holds among the owner's own variables or metrics once more."""
    object.__setattr__(owner, name, value)
