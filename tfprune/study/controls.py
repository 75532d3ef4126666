"""How does a strategy become what `LotteryTicket` does, and how are controls held to the same counts and budgets?

A ticket says something only beside its controls. By construction, each of them differs from a ticket in one thing:

* `dense` (ratio 0) trains the dense network on for a round, as `one_shot` does, and removes nothing: what more training
  alone does.
* `random_channels` and `magnitude_channels` keep of each layer as many channels as the trial's criterion and scope
  would, but others: at random, or by their l1 norm. Weights go on as trained, as in `one_shot` (Blalock et al. 2020,
  appendix B: "the same layerwise proportions").
* `scratch_epochs` trains the ticket's architecture from fresh weights, drawn at its small size, for as many epochs as
  the dense network was trained: Scratch-E of Liu et al. 2019, who count the epochs of the large model.
  `scratch_compute` does so for those epochs times the theoretical speed-up (multiply-adds of the dense network / of the
  ticket), which costs as many multiply-adds as the dense training: their Scratch-B, without their limit at twice the
  epochs. A learning rate that falls epoch by epoch falls that much slower. Neither stops early; as everywhere in a
  study, the weights are those of the epoch with the lowest validation loss.
* `at_init` chooses channels by the initial weights, before any training (criteria such as "snip", "grasp" and "synflow"
  are made for that), and trains from there.
* `rewind_epoch_K` goes back to the dense network's weights and optimizer after K epochs (Frankle et al. 2019);
  `lr_rewind` keeps the weights and rewinds optimizer and learning rate alone (Renda, Frankle & Carbin 2020).
"""

import dataclasses

from tfprune.callbacks.change import clear, prune
from tfprune.callbacks.lottery import LotteryTicket
from tfprune.pruning import criteria, masks, rewind, strategies, surgery
from tfprune.structure.cost import cost


class StudyTicket(LotteryTicket):
    """The `LotteryTicket` of a trial: its strategy, with the channels and fresh weights that a control asks for.

    Args:
        trial: The `Trial`.
        only: Names of the layers that may be pruned; None for all that can be.
        data: Training examples `(x, y)` for criteria that look at data; None where there are none.
    """

    def __init__(self, trial, only=None, data=None):
        self.strategy = strategies.get(trial.strategy)
        super().__init__(
            trial.ratio,
            rounds=trial.num_rounds,
            rewind="init" if self.strategy.rewind == 0 else self.strategy.rewind,
            criterion=_criterion(trial.criterion, data),
            scope=trial.scope,
            patience=trial.recipe.patience,
            epochs_per_round=trial.recipe.epochs,
            seed=trial.seed,
            only=only,
        )

    def prune_and_rewind(self, masked, number):
        """As `LotteryTicket` does; a network that starts from scratch then gets weights drawn at its small size."""
        super().prune_and_rewind(masked, number)
        if self.strategy.rewind == "random" and self.strategy.budget != "patience":
            redraw_small(masked, self._drawn["rewind"][-1])
            self._watch = clear(masked, f"in round {number}")

    def go_on(self, masked, history):
        """Goes on after rounds that were trained before; the model holds their last weights, but not its masks.

        Args:
            masked: The model, after `begin`.
            history: `history` as it was, from round 0 to the last that ended.
        """
        for _ in history[1:]:
            self._draw("criterion")
            if self.rewind == "random":
                self._draw("rewind")
        masks.set_masks(masked, history[-1]["masks"])
        self.history = list(history)
        self._watch = clear(masked, f"in round {len(history) - 1}")

    def _prune(self, masked, number, when):
        if self.strategy.ranked_on == "init":
            self._start.restore()  # where it goes back to afterwards, too
        if self.strategy.channels == "criterion":
            super()._prune(masked, number, when)
            return
        seed = self._draw("criterion")
        shares = shares_of(masked, masks.compute_masks(masked, self.asked(number), seed=seed, **self.selection))
        selection = {**self.selection, "criterion": self.strategy.channels, "scope": "layer"}
        prune(masked, shares, when, seed=seed, **selection)


def _criterion(criterion, data):
    """Names stay names, by which "random" is told; what looks at data gets them."""
    return criteria.get(criterion, data=data) if criteria.needs_data(criterion) else criterion


def shares_of(masked, chosen):
    """Returns `{layer name: share of its channels removed}` of masks: a ratio that takes as many of each layer.

    Args:
        masked: A model from `tfprune.wrap`; it is left as it is.
        chosen: Masks, as from `tfprune.compute_masks`.

    Example:

    >>> shares_of(masked, tfprune.compute_masks(masked, 0.5, scope="global"))
    {'conv_1': 0.25, 'conv_2': 0.625}
    """
    before = masks.get_masks(masked)
    masks.set_masks(masked, chosen)
    graph = masks.graph_of(masked)
    keep = graph.kept()
    masks.set_masks(masked, before)
    shares = {}
    for group in graph.prunable:
        name = _own_name(graph, group)  # channels that layers share are one group, which goes by any of their names
        share = 1 - keep[group.units].sum() / group.channels
        if shares.setdefault(name, share) != share:
            raise ValueError(
                f"Layer '{name}' makes channels of several groups: their counts cannot be held one by one."
            )
    return shares


def _own_name(graph, group):
    others = {name for other in graph.prunable if other is not group for name in other.makers}
    return next((name for name in group.makers if name not in others), next(iter(group.makers)))


def redraw_small(masked, seed):
    """Draws fresh weights for the channels that are kept, at the size of the small network.

    An initializer looks at how many inputs a layer has: drawn at the dense size, as `LotteryTicket` does, the weights
    of a small network come out too small to be called trained from scratch.

    Args:
        masked: A pruned model from `tfprune.wrap`; its weights and the optimizer's slots change.
        seed: Integer.
    """
    small, pairs = surgery.cut(masked)
    rewind.randomise(small, seed)
    surgery.expand(pairs)
    rewind.restart_slots(masked.optimizer)


def budget(strategy, recipe, dense_epochs, masked, dense_multiply_adds):
    """Returns the recipe of a pruned network's round: how long it trains, as the module's text defines.

    Args:
        strategy: The `Strategy`.
        recipe: The trial's `Recipe`.
        dense_epochs: How many epochs the dense network was trained.
        masked: The pruned model; for "compute", its learning-rate schedule is stretched.
        dense_multiply_adds: Multiply-adds of the dense network, for "compute".

    Returns:
        A `Recipe`.
    """
    if strategy.budget == "patience":
        return recipe
    if strategy.budget == "epochs":
        return dataclasses.replace(recipe, epochs=dense_epochs)
    multiply_adds = cost(surgery.cut(masked)[0])["multiply_adds"]
    if not dense_multiply_adds or not multiply_adds:
        raise ValueError(
            f"Strategy '{strategy.name}' trains for as many multiply-adds as the dense network, but those of this "
            "model cannot be told. Use 'scratch_epochs'."
        )
    factor = dense_multiply_adds / multiply_adds
    stretch_schedule(masked, factor)
    return dataclasses.replace(recipe, epochs=max(1, round(dense_epochs * factor)))


def stretch_schedule(model, factor):
    """Makes the learning rate of a model with a recipe's decay fall `factor` times slower.

    Args:
        model: A compiled model.
        factor: Positive number; 1 changes nothing.
    """
    schedule = model.optimizer._learning_rate  # the property gives the number of the moment
    if hasattr(schedule, "decay_steps"):
        schedule.decay_steps = schedule.decay_steps * factor
        model.make_train_function(force=True)  # the old one may have been traced with the old steps
