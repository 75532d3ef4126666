"""When do the channels that would be pruned stop changing, so that training on is a waste?"""

import numbers
import warnings

import keras
import numpy as np

from tfprune.callbacks.change import clear, prune
from tfprune.pruning import criteria, masks, surgery
from tfprune.pruning.ratios import check_count


class EarlyBird(keras.callbacks.Callback):
    """Stops the fit, and prunes, as soon as the channels that would go stay the same from epoch to epoch.

    After each epoch it computes masks without setting them. Where they differed from those of the epoch before in less
    than `threshold` of the channels, `patience` times in a row, the ticket has emerged: the masks are set and the fit
    stops. Train on with another `fit`, or rewind. `distances` holds one number an epoch, `epoch` the epoch (from 1) in
    which the ticket was found, or None.

    Args:
        ratio: Share of channels removed, in [0, 1), or `{layer name: ratio}`.
        threshold: The share of channels whose mask changed below which masks count as the same. Default 0.1.
        patience: How many epochs in a row that must be so. Default 5.
        criterion: How channels are ranked, see `tfprune.compute_masks`. Default "batchnorm_scale", for which the paper
            trains with `NetworkSlimming`.
        scope: "global" (default) or "layer".
        ignore, only, round_to, seed: As in `tfprune.compute_masks`.

    Raises:
        ValueError: at the start of the fit: a model without masks, or options that `tfprune.compute_masks` refuses for
            this model.

    Example:
        >>> bird = tfprune.callbacks.EarlyBird(0.5)
        >>> masked.fit(train, epochs=160, callbacks=[tfprune.callbacks.NetworkSlimming(1e-4), bird])
        >>> bird.epoch, bird.distances

    Source: You et al. 2020, Drawing Early-Bird Tickets: Toward More Efficient Training of Deep Networks.
    """

    def __init__(
        self,
        ratio,
        threshold=0.1,
        patience=5,
        criterion="batchnorm_scale",
        scope="global",
        ignore=None,
        only=None,
        round_to=1,
        seed=None,
    ):
        super().__init__()
        for share in ratio.values() if isinstance(ratio, dict) else [ratio]:
            masks.check_ratio(share)
        if isinstance(threshold, bool) or not isinstance(threshold, numbers.Real) or not 0 < threshold <= 1:
            raise ValueError(f"EarlyBird needs a threshold in (0, 1]. Received: threshold={threshold!r}.")
        criteria.get(criterion)
        self.ratio, self.threshold, self.patience = ratio, threshold, check_count("patience", patience)
        self.selection = {
            "criterion": criterion, "scope": scope, "ignore": ignore, "only": only, "round_to": round_to, "seed": seed,
        }  # fmt: skip
        self.distances, self.epoch = [], None

    def on_train_begin(self, logs=None):
        """Checks the options, and starts afresh."""
        surgery.check_masked(self.model, "EarlyBird")
        masks.check_options(self.model, self.ratio, **self.selection)  # rather than after the first epoch
        self.distances, self.epoch, self._last = [], None, None
        self._watch = clear(self.model, "before the ticket is drawn")

    def on_epoch_end(self, epoch, logs=None):
        """Compares the masks with those of the epoch before."""
        self._watch.check(f"at the end of epoch {epoch + 1}")
        if self.epoch is not None:
            return
        now = self._kept()
        if self._last is not None:
            self.distances.append(float(np.mean(now != self._last)))
        self._last = now
        recent = self.distances[-self.patience :]
        if len(recent) == self.patience and max(recent) < self.threshold:
            self.epoch, self.model.stop_training = epoch + 1, True
            prune(self.model, self.ratio, f"in epoch {epoch + 1}", **self.selection)
            self._watch = clear(self.model, f"since epoch {epoch + 1}")

    def on_train_end(self, logs=None):
        """Says so where no ticket emerged."""
        if self.epoch is None:
            last = f"{self.distances[-1]:.3g}" if self.distances else "unknown"
            warnings.warn(
                f"No early-bird ticket emerged: the last distance of masks was {last}, and {self.patience} in a row "
                f"must be below {self.threshold:g}. Nothing is pruned. Give fit more epochs, or raise the threshold.",
                stacklevel=2,
            )

    def _kept(self):
        """Whether each prunable channel would be kept, each counted once."""
        graph, found = masks.graph_of(self.model), masks.compute_masks(self.model, self.ratio, **self.selection)
        kept = np.ones(graph.num_units, bool)
        for name, mask in found.items():
            kept[graph.made(name)] &= mask
        return kept[np.concatenate([group.units for group in graph.prunable])]
