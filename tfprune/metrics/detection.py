"""How well does a score tell strangers (out-of-distribution samples) from known data?

One convention everywhere: out-of-distribution (OOD) is the positive class, and a larger score is a stranger.
The scores are ranked as they are, exactly, by scikit-learn. (`keras.metrics.AUC` uses 200 thresholds in [0, 1] and is
wrong for such scores.)

Example:
    >>> from tfprune import metrics
    >>> metrics.auroc([0.1, 0.2, 0.3], [0.25, 0.9])
    0.8333333333333334
"""

import numpy as np

from tfprune.metrics.scores import log_softmax, logit_columns


def msp_score(logits):
    """Maximum softmax probability as a stranger score, (samples,): log((1 - p) / p) of the predicted class.

    It ranks as 1 - max softmax does, but in logit space, so a softmax that saturates at 1.0 makes no ties.

    Args:
        logits: (samples, classes), or one column for a sigmoid.

    Source: Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples", 2017.
    """
    logits = logit_columns(logits)
    predicted = logits.argmax(axis=1)[:, None]
    others = logits.copy()
    np.put_along_axis(others, predicted, -np.inf, axis=1)
    largest = others.max(axis=1, keepdims=True)
    others = largest[:, 0] + np.log(np.exp(others - largest).sum(axis=1))
    return others - np.take_along_axis(logits, predicted, axis=1)[:, 0]


def entropy_score(logits):
    """Entropy of the softmax as a stranger score, (samples,), from logits; keeps its order where the softmax saturates.

    Args:
        logits: (samples, classes), or one column for a sigmoid.
    """
    log_probabilities = log_softmax(logits)
    return -np.sum(np.exp(log_probabilities) * log_probabilities, axis=1)


# name in the result row -> logits -> one score per sample, larger = stranger
SCORES = {"msp": msp_score, "entropy": entropy_score}


def auroc(id_scores, ood_scores):
    """Area under the ROC curve: the chance that a stranger scores above a known sample, ties counting half.

    Args:
        id_scores: (samples,) scores of in-distribution data.
        ood_scores: (samples,) scores of out-of-distribution data, larger = stranger.

    Raises:
        ValueError: if either set is empty or holds NaN or infinity.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_ranked(id_scores, ood_scores)))


def aupr_out(id_scores, ood_scores):
    """Area under the precision-recall curve with OOD positive (trapezoid); depends on how many of each there are.

    Args and errors as for `auroc`. With many tied scores the trapezoid is optimistic.
    """
    return _area_under_precision_recall(*_ranked(id_scores, ood_scores))


def aupr_in(id_scores, ood_scores):
    """Area under the precision-recall curve with in-distribution data positive (trapezoid), scores negated.

    Args and errors as for `auroc`.
    """
    is_ood, scores = _ranked(id_scores, ood_scores)
    return _area_under_precision_recall(1 - is_ood, -scores)


def fpr95(id_scores, ood_scores):
    """Share of known samples flagged at the first threshold that catches at least 95 % of the strangers.

    Args and errors as for `auroc`. (The ODIN paper counts the other way round, in-distribution positive.)
    """
    from sklearn.metrics import roc_curve

    # drop_intermediate=True would drop the very threshold that is looked for.
    false_rate, true_rate, _ = roc_curve(*_ranked(id_scores, ood_scores), drop_intermediate=False)
    return float(false_rate[np.argmax(true_rate >= 0.95)])


def detection(id_scores, ood_scores):
    """All detection metrics of one score: {"auroc": ..., "aupr_out": ..., "aupr_in": ..., "fpr95": ...}.

    Args and errors as for `auroc`.
    """
    return {metric.__name__: metric(id_scores, ood_scores) for metric in (auroc, aupr_out, aupr_in, fpr95)}


def _area_under_precision_recall(is_positive, scores):
    from sklearn.metrics import auc, precision_recall_curve

    precision, recall, _ = precision_recall_curve(is_positive, scores)
    return float(auc(recall, precision))


def _ranked(id_scores, ood_scores):
    """0/1 labels (1 = OOD) and scores of both sets together."""
    id_scores, ood_scores = _checked(id_scores, "in-distribution"), _checked(ood_scores, "OOD")
    is_ood = np.repeat([0, 1], [len(id_scores), len(ood_scores)])
    return is_ood, np.concatenate([id_scores, ood_scores])


def _checked(scores, name):
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or not scores.size:
        raise ValueError(f"The {name} scores must be a non-empty 1-D array. Received: shape {scores.shape}.")
    if not np.all(np.isfinite(scores)):
        raise ValueError(f"The {name} scores must be finite. Received: {np.sum(~np.isfinite(scores))} that are not.")
    return scores
