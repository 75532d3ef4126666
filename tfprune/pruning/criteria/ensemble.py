"""How do several criteria decide together?"""

from collections.abc import Iterable

from tfprune.pruning.criteria import table
from tfprune.pruning.ratios import check_finite


class Ensemble:
    """The weighted sum of several criteria's scores, each divided by its mean over the kept channels of a group.

    Args:
        criteria: List of criteria: names, functions or objects.
        weights: List of numbers, one a criterion. Default None: all count alike.

    Example:
        >>> both = criteria.Ensemble(["l1", criteria.Taylor(train)])
        >>> masks = tfprune.compute_masks(masked, 0.5, criterion=both)
    """

    def __init__(self, criteria, weights=None):
        self.criteria = [table.get(one) for one in _listed("criteria", criteria)]
        self.needs_scales = any(map(table.needs_scales, self.criteria))
        self.weights = [1.0] * len(self.criteria) if weights is None else _listed("weights", weights)
        for index, weight in enumerate(self.weights):
            check_finite(f"weights[{index}]", weight)
        if not self.criteria or len(self.weights) != len(self.criteria) or min(self.weights) < 0:
            raise ValueError(
                "Ensemble needs at least one criterion and one weight of at least 0 for each. Received: "
                f"{len(self.criteria)} criteria, weights={weights}."
            )

    def measure(self, masked, keep):
        """Lets each criterion look at the model, and returns a function `group -> scores`.

        Args:
            masked: A model from `tfprune.wrap`.
            keep: Bool array over the model's unit numbers, see `tfprune.structure.groups.ChannelGraph.kept`.
        """
        scorers = [table.look(one, masked, keep) for one in self.criteria]

        def scores(group):
            parts = (relative(table.score(scorer, group), group) for scorer in scorers)
            return sum(weight * part for weight, part in zip(self.weights, parts, strict=True))

        return scores


def _listed(name, values):
    """What an argument lists; a name alone would be read letter by letter."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} of Ensemble must be a list. Received: {name}={values!r}. Pass [{values!r}].")
    return list(values)


def relative(scores, group):
    """Scores divided by the mean of the channels that are left, so that different criteria or groups can be compared.

    Args:
        scores: Array of shape (n,).
        group: The `ChannelGroup`.
    """
    mean = scores.mean() if group.kept is None else scores[group.kept].mean()
    return scores / mean if mean > 0 else scores
