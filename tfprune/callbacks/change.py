"""What happens to a model in the moment when a callback prunes it?"""

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
