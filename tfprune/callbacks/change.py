"""What happens to a model in the moment when a callback prunes it?"""

import numpy as np
from keras import ops

from tfprune.pruning import contract, masks, rewind, surgery


def prune(masked, ratio, when, **selection):
    """Computes masks and sets them; `when` says for an error in which round or step."""
    graph = masks.graph_of(masked)
    before = graph.kept()
    masks.set_masks(masked, masks.compute_masks(masked, ratio, **selection))
    contract.check_masks(graph, before, ratio, when, **selection)


def clear(masked, when):
    """Zeroes what is pruned, in the weights and in the optimizer's slots; returns the `Watch` that it stays so."""
    graph = masks.graph_of(masked)
    starts = rewind.clear_pruned(surgery.kept_entries(graph, graph.kept()), masked.optimizer)
    return contract.Watch(masked, when, starts)


def steps_done(model):
    """How many steps the model's optimizer has made; also where it keeps a copy of the number on each device."""
    return int(np.asarray(ops.convert_to_tensor(model.optimizer.iterations)))


def learning_rate(model):
    """The learning rate as it is now."""
    return float(np.asarray(ops.convert_to_tensor(model.optimizer.learning_rate)))
