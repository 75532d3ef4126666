"""Which samples are strangers to a (pruned) model? Detectors of out-of-distribution data, larger score = stranger.

    from tfprune.uncertainty import detectors

    knn = detectors.get("knn").fit(ticket, (x_train, y_train))
    scores = knn.score(x)
    fitted = detectors.fit_all(["msp", "energy", "mahalanobis", detectors.ViM(dim=64)], ticket, (x_train, y_train))
    scores = detectors.score_all(fitted, x)            # {name: scores}, one forward pass for all

name                  reads                learns from
msp                   logits or probabilities
entropy               logits or probabilities
gen                   logits or probabilities
kl_matching           logits or probabilities   samples
max_logit             logits
energy                logits
odin                  logits, gradients
mahalanobis           features             labels
relative_mahalanobis  features             labels
knn                   features             samples
she                   features             labels
nnguide               features, logits     samples
vim, react, dice      features, head       samples
fdbd                  features, head       samples
ash, scale, gradnorm  features, head
"""

from tfprune.uncertainty.detectors.ash import ASH
from tfprune.uncertainty.detectors.base import Detector, Panel, fit_all, score_all
from tfprune.uncertainty.detectors.dice import DICE
from tfprune.uncertainty.detectors.energy import Energy
from tfprune.uncertainty.detectors.entropy import Entropy
from tfprune.uncertainty.detectors.fdbd import FDBD
from tfprune.uncertainty.detectors.features import Features, FeaturesBatch, weights_hash
from tfprune.uncertainty.detectors.files import read, restore
from tfprune.uncertainty.detectors.gen import GEN
from tfprune.uncertainty.detectors.gradnorm import GradNorm
from tfprune.uncertainty.detectors.health import Health, health_report
from tfprune.uncertainty.detectors.kl_matching import KLMatching
from tfprune.uncertainty.detectors.knn import KNN
from tfprune.uncertainty.detectors.mahalanobis import Mahalanobis
from tfprune.uncertainty.detectors.max_logit import MaxLogit
from tfprune.uncertainty.detectors.msp import MSP
from tfprune.uncertainty.detectors.nnguide import NNGuide
from tfprune.uncertainty.detectors.odin import ODIN
from tfprune.uncertainty.detectors.react import ReAct
from tfprune.uncertainty.detectors.relative_mahalanobis import RelativeMahalanobis
from tfprune.uncertainty.detectors.scale import SCALE
from tfprune.uncertainty.detectors.she import SHE
from tfprune.uncertainty.detectors.vim import ViM

# name -> class
DETECTORS = {
    detector.name: detector
    for detector in (
        *(MSP, MaxLogit, Energy, Entropy, GEN, ODIN, Mahalanobis, RelativeMahalanobis, KNN, ViM),
        *(ReAct, DICE, ASH, SCALE, GradNorm, KLMatching, SHE, NNGuide, FDBD),
    )
}


def get(detector):
    """Returns the detector of a name, with default arguments, or the detector itself.

    Args:
        detector: a name in `DETECTORS`, or a `Detector`.

    Raises:
        ValueError: for an unknown name.
        TypeError: for anything else.

    Example:
        >>> get("energy").name
        'energy'
    """
    if isinstance(detector, Detector):
        return detector
    if not isinstance(detector, str):
        raise TypeError(f"Expected the name of a detector, or a detector such as KNN(). Received: {detector!r}.")
    if detector not in DETECTORS:
        raise ValueError(f"Unknown detector {detector!r}. Expected one of {', '.join(map(repr, DETECTORS))}.")
    return DETECTORS[detector]()


def load(path, model):
    """The detector that `save` wrote, bound to its model; its scores are the same.

    Args:
        path: where `save` wrote to, without a suffix.
        model: the model that it was fitted on, with the same weights.

    Raises:
        FileNotFoundError: where a file is missing.
        ValueError: where the model has other weights, or the files are not a pair.

    Example:
        >>> knn.save("runs/ticket_knn")
        >>> load("runs/ticket_knn", ticket).score(x)
    """
    about, arrays = read(path)
    if about["detector"] not in DETECTORS:
        raise ValueError(
            f"{path} holds a detector {about['detector']!r}, which tfprune does not know. "
            "Make one, give it the files with restore(detector, *read(path)), and bind it to the model."
        )
    detector = DETECTORS[about["detector"]](**about["config"])
    restore(detector, about, arrays)
    return detector.bind(model)


__all__ = [
    "ASH",
    "DETECTORS",
    "DICE",
    "FDBD",
    "GEN",
    "KNN",
    "MSP",
    "ODIN",
    "SCALE",
    "SHE",
    "Detector",
    "Energy",
    "Entropy",
    "Features",
    "FeaturesBatch",
    "GradNorm",
    "Health",
    "KLMatching",
    "Mahalanobis",
    "MaxLogit",
    "NNGuide",
    "Panel",
    "ReAct",
    "RelativeMahalanobis",
    "ViM",
    "fit_all",
    "get",
    "health_report",
    "load",
    "read",
    "restore",
    "score_all",
    "weights_hash",
]
