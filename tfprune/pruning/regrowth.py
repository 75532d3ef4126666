"""What do pruned channels hold that may grow back?"""

import numpy as np

from tfprune.pruning import surgery
from tfprune.structure.replay import value_of


class Hidden:
    """The weights and statistics of pruned channels as they were when they went.

    Pruned weights are zero in the model. To decide whether a channel should come back, it must be judged by what its
    weights would be.

    Args:
        masked: A model from `tfprune.wrap`. What it has pruned already does not grow back.
    """

    def __init__(self, masked):
        self._masked, self._values = masked, {}
        self._free = surgery.masked_graph(masked, "Growing back").kept()

    def remember(self):
        """Takes what the channels hold that were just pruned, before they are cleared."""
        self._values = {id(variable): value_of(variable) for variable, _ in self._entries()}

    def bring_back(self):
        """Gives all channels that may grow back their weights, and keeps them all."""
        for variable, kept in self._entries():
            if id(variable) in self._values:
                variable.assign(np.where(kept, value_of(variable), self._values[id(variable)]))
        surgery.set_units(self._graph(), self._free)

    def _entries(self):
        graph = self._graph()
        return surgery.kept_entries(graph, graph.kept()).values()

    def _graph(self):
        return surgery.masked_graph(self._masked, "Growing back")
