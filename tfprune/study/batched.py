"""How are the trials of a small network run together: seeds, strategies and ratios at once?

A step of a small network costs less than starting it. So networks that are pruned to about the same size train side by
side in slots (`tfprune.study.slots`): each round of each trial is a member, and between its rounds a trial prunes,
rewinds and measures as any other does (`rounds.ticket_steps`), all of them on one masked model that takes turns. A
row depends on its trial alone, and not on who was run with it.
"""

import dataclasses
import time
import types

import keras
import numpy as np

import tfprune
from tfprune.pruning import certificate, strategies, surgery
from tfprune.structure import roles
from tfprune.study import compiled, kept, measure, rounds, sizes, slots, state, work

MOST_PARAMETERS = 100_000  # of a network; larger ones keep a processor busy by themselves
MOST_BYTES = 2**28  # of the activations of all networks of a slot in one step
KEEP_ROUNDS_AFTER = 60.0  # seconds; what takes less is done again when a study was killed

_LAYERS = {
    *("InputLayer", "Dense", "Flatten", "Reshape", "BatchNormalization", "Dropout", "GaussianNoise", "GaussianDropout"),
    *("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax", "Rescaling", "Add", "Subtract", "Multiply"),
    *("Average", "Maximum", "Minimum", "Concatenate"),
}
_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


def why_not(trial):
    """Says why a trial cannot be run together with others of its kind; None where it can.

    Args:
        trial: The `Trial`; what is asked holds for all seeds, ratios and strategies.

    Example:
        >>> why_not(Trial("cifar10", "lenet", "one_shot", ratio=0.5, seed=0))
        'Conv2D is no layer of the small networks that are trained side by side'
    """
    setup = work.set_up(trial)
    if trial.evaluation.latency:
        return "times are measured, which needs a processor of one's own"
    return compiled.why_not(setup.masked, setup.data) or _why_not_model(setup.masked, setup.data, trial.recipe)


def _why_not_model(model, data, recipe):
    odd = [
        layer
        for layer in map(roles.unwrap, model.layers)
        if not _is_keras(layer) or type(layer).__name__ not in _LAYERS
    ]
    if odd:
        return f"{type(odd[0]).__name__} is no layer of the small networks that are trained side by side"
    if not _is_keras(model.optimizer) or model.optimizer.gradient_accumulation_steps:
        return "the optimizer is not one of Keras' own, or accumulates gradients"
    if any(weight.dtype != "float32" for weight in model.weights):
        return "not all weights are of float32"
    if getattr(model.loss, "reduction", _MEANS[0]) not in _MEANS or not isinstance(model.loss, keras.losses.Loss | str):
        return "the loss is not the mean over the examples"
    if model.count_params() > MOST_PARAMETERS:
        return f"the network has {model.count_params():,} parameters, more than {MOST_PARAMETERS:,}"
    widths = sum(int(np.prod(layer.output.shape[1:])) for layer in model.layers)
    examples = recipe.batch_size or len(data.train[0])
    size = 4 * slots.SEATS * widths * max(examples, len(data.validation[0]))
    if size > MOST_BYTES:
        return f"a step of {slots.SEATS} networks takes {size / 2**20:.0f} MiB, more than {MOST_BYTES / 2**20:.0f} MiB"
    return None


def _is_keras(thing):
    return type(thing).__module__.startswith("keras.")


def run_dense(trials, folder):
    """Trains the dense networks of trials of one kind that the folder does not hold yet.

    Args:
        trials: List of `Trial`, alike but for seed, ratio, strategy and rounds.
        folder: The study's folder; None keeps nothing.

    Yields:
        `(trial, error or None)`, one for each `dense_key`, as they are done.
    """
    family = _family(trials)
    able, others = family.able({trial.dense_key: trial for trial in reversed(trials)}.values())
    for trial, error in others:
        yield trial, error or _found_of(work.run_dense, trial, folder)
    for trial, answer in family.work_off([family.dense_run(trial, folder) for trial in able]):
        yield trial, answer if isinstance(answer, Exception) else None


def run(trials, folder):
    """Runs trials of one kind together; yields each as it is finished.

    Args:
        trials: List of `Trial`, alike but for seed, ratio, strategy and rounds.
        folder: The study's folder, as for `work.run_trial`; None keeps nothing.

    Yields:
        `(trial, measured)`: what `work.run_trial` returns, or the exception that ended the trial.

    Example:
        >>> for trial, measured in run(Study("mine", "moons", "mlp", ratios=(0.5,), seeds=range(8)).trials(), None):
        ...     print(trial.name, measured["accuracy"])
    """
    family, dense = _family(trials), {}
    able, others = family.able(trials)
    firsts = {trial.dense_key: trial for trial in reversed(able)}
    marks = sorted({epoch for trial in trials for epoch in trial.epochs_to_keep})
    for trial, answer in family.work_off([family.dense_run(trial, folder, marks) for trial in firsts.values()]):
        dense[trial.dense_key] = answer
    for trial, error in others:
        yield trial, error or _found_of(work.run_trial, trial, folder)
    runs = []
    for trial in able:
        if isinstance(dense[trial.dense_key], Exception):
            yield trial, dense[trial.dense_key]
        elif _trains_alone(trial):
            yield trial, _found_of(work.run_trial, trial, folder)
        else:
            runs.append(family.ticket_run(trial, folder, *dense[trial.dense_key]))
    yield from family.work_off(runs)


def _found_of(function, trial, folder):
    """What a function finds of a trial, or the exception that ended it."""
    try:
        return function(trial, folder)
    except Exception as error:  # whatever went wrong in one trial, the others go on
        return error


def _trains_alone(trial):
    """Whether a trial's learning rate falls otherwise than that of all others."""
    return strategies.get(trial.strategy).budget == "compute" and trial.recipe.decay != 1


@dataclasses.dataclass(eq=False)
class _Run:
    """A trial in progress.

    Args:
        trial: The `Trial`.
        steps: Generator of the `rounds.Training` to do, which is sent how each went and returns the trial's answer.
        values, masks: What the masked model holds when it is the trial's turn.
        wanted, size, member: The training that is being done.
    """

    trial: object
    steps: object
    values: list
    masks: np.ndarray
    wanted: object = None
    size: object = None
    member: object = None


class _Family:
    """All trials of one kind: one masked model, its sizes, and their slots.

    Args:
        trial: Any of its trials.
    """

    def __init__(self, trial):
        trainer = types.SimpleNamespace(name="batched", reason=None, train_round=None)
        self.setup = dataclasses.replace(work.set_up(trial), trainer=trainer)
        self.masked = self.setup.masked
        self.graph = surgery.masked_graph(self.masked, "batched")
        self.may_shrink = sizes.may_shrink(self.masked)
        self.whole = self.graph.kept()
        self.sizes, self.smalls, self.slots, self.seeds = {}, {}, {}, {}

    # Starting -------------------------------------------------------------------------------------------------------

    def able(self, trials):
        """`(trials that can be batched, [(trial, error)] of the others)`, with None for what can only train alone.

        A user's model may fail for one seed, or have another shape for it.
        """
        ours = [tuple(value.shape) for value in state.read(self.masked)]
        able, others = [], []
        for trial in trials:
            try:
                _, values = self.setup_of(trial)
            except Exception as error:
                others.append((trial, error))
                continue
            fits = [tuple(value.shape) for value in values] == ours
            able.append(trial) if fits else others.append((trial, None))
        return able, others

    def setup_of(self, trial):
        """The `Setup` of a trial, and the values of its masked model before training."""
        if trial.seed not in self.seeds:
            keras.utils.set_random_seed(trial.seed)
            model = work.build_model(trial, self.setup.data)
            values = state.read(tfprune.wrap(model, verify=False))  # verified once, for all seeds
            weights = state.digest(map(state.value_of, model.weights))
            identity = " ".join([weights, *self.setup.identity.split(" ")[1:]])
            self.seeds[trial.seed] = model, values, identity
        model, values, identity = self.seeds[trial.seed]
        return dataclasses.replace(self.setup, trial=trial, model=model, identity=identity), values

    def dense_run(self, trial, folder, marks=()):
        """The training of a trial's dense network; its answer is `(Dense, row, shelf)`."""
        setup, values = self.setup_of(trial)
        shelf = work._shelf(folder, "dense", setup)

        def steps():
            dense = yield from rounds.dense_steps(setup, shelf, marks)
            return dense, work._dense_row(setup, dense, shelf), shelf

        return _Run(trial, steps(), values, self.whole)

    def ticket_run(self, trial, folder, dense, dense_row, dense_shelf):
        """The rounds of a trial; its answer is what was measured."""
        setup, values = self.setup_of(trial)
        shelf = work._shelf(folder, "rounds", setup)
        shelf = _PatientShelf(shelf.folder, shelf.identity)

        def steps():
            def look():
                return measure.glance(self.small(), setup.data)

            # the rows of a piece reach the disk together: what a killed process had finished is kept here till then
            finished = shelf.load(work.finished_file(trial.key))
            if finished is not None:
                return finished[0]
            ticket, glances = yield from rounds.ticket_steps(setup, dense, dense_shelf, shelf, look)
            columns = work.columns_of(setup, dense, dense_row, ticket, glances, self.small())
            rounds.forget(setup, shelf)
            shelf.save(work.finished_file(trial.key), columns, {})
            return columns

        return _Run(trial, steps(), values, self.whole)

    # Turns ----------------------------------------------------------------------------------------------------------

    def work_off(self, runs):
        """Yields `(trial, answer)` of runs as they end; an answer may be the exception that ended one."""
        for slot in self.slots.values():
            slot.clear()
        for run in runs:
            yield from self._turn(run, lambda run=run: run.steps.send(None))
        while busy := [slot for slot in self.slots.values() if slot.is_busy]:
            for member in max(busy, key=lambda slot: slot.num_members).run():
                yield from self._end(member.owner)

    def _turn(self, run, go_on):
        """Lets a run go on to its next training, or its end: then yields its answer."""
        self._load(run)
        try:
            run.wanted = go_on()
        except StopIteration as end:
            yield run.trial, end.value
        except Exception as error:  # whatever went wrong in one trial, the others go on
            yield run.trial, error
        else:
            run.values, run.masks = state.read(self.masked), self.graph.kept()
            self._seat(run)

    def _seat(self, run):
        counts = sizes.counts_of(self.graph, run.masks, self.may_shrink)
        recipe, options = run.wanted.recipe, run.wanted.options
        run.size = self.size(counts)
        run.member = slots.Member(
            *run.size.take(run.masks),
            run.trial.seed,
            run.wanted.number,
            _next_stop(run.wanted, 0),
            max(recipe.patience, 1) if options.get("early_stop", True) else recipe.epochs,
            owner=run,
        )
        self.slot(run).waiting.append(run.member)

    def _end(self, run):
        """What follows when a member left its seat: a call, and more of its round, or the trial's next step."""
        member, calls = run.member, run.wanted.options.get("after_epoch") or {}
        if member.epoch in calls:
            self._load(run)
            run.size.give(member.values, run.masks)
            calls[member.epoch]()
        if not member.failed and member.epoch < run.wanted.recipe.epochs and not member.is_out_of_patience:
            member.epochs = _next_stop(run.wanted, member.epoch)
            self.slot(run).waiting.append(member)
            return
        yield from self._turn(run, lambda: self._answer(run))

    def _answer(self, run):
        """Sends a run how its round went."""
        try:
            compiled.check_finite(run.member.losses)
        except FloatingPointError as error:
            return run.steps.throw(error)
        run.size.give(run.member.best_values, run.masks)
        return run.steps.send(run.member.trained)

    def _load(self, run):
        state.write(self.masked, run.values)
        surgery.set_units(self.graph, run.masks)

    # Models ---------------------------------------------------------------------------------------------------------

    def size(self, counts):
        """The `Size` of these counts, made once."""
        if counts not in self.sizes:
            self.sizes[counts] = sizes.Size(self.masked, counts)
        return self.sizes[counts]

    def slot(self, run):
        """The slot for a run's size and batches, made once."""
        key = run.size.counts, run.trial.recipe.batch_size
        if key not in self.slots:
            self.slots[key] = slots.Slot(run.size.model, self.setup.data, run.trial.recipe.batch_size)
        return self.slots[key]

    def small(self):
        """The small model of the masked one as it is now, as `tfprune.shrink` gives it; compared once for each size."""
        keep = self.graph.kept()
        counts = tuple(int(keep[group.units].sum()) for group in self.graph.prunable)
        known = self.smalls.get(counts)
        # not the model of a slot, which computes in its own way
        size = self.smalls[counts] = known or sizes.Size(self.masked, counts)
        size.fill(keep)
        if known is None:
            certificate.certify(self.masked, size.model, self.graph)
        return size.model


def _next_stop(wanted, epoch):
    """The epoch at which a member next leaves its seat."""
    calls = wanted.options.get("after_epoch") or {}
    return min(stop for stop in (*calls, wanted.recipe.epochs) if epoch < stop <= wanted.recipe.epochs)


class _PatientShelf(kept.Shelf):
    """A shelf that saves nothing before the process has worked for a while: what took seconds is soon done again."""

    def save(self, name, about, arrays):
        if time.monotonic() - _BEGUN > KEEP_ROUNDS_AFTER:
            super().save(name, about, arrays)


_BEGUN = time.monotonic()
_FAMILIES = {}


def _family(trials):
    """The family of trials; the last one of a process is kept, with its compiled programs."""
    kind = trials[0].kind
    if kind not in _FAMILIES:
        _FAMILIES.clear()
        _FAMILIES[kind] = _made(trials)
    return _FAMILIES[kind]


def _made(trials):
    """A family from the first trial whose model can be made: a user's own may fail for one seed."""
    tried = set()
    for trial in trials:
        if trial.seed in tried:
            continue
        tried.add(trial.seed)
        try:
            return _Family(trial)
        except Exception as error:
            reason = error
    raise reason
