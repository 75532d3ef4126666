"""Is a difference more than chance? Exact tests, intervals and corrections for two models seen on the same samples.

Everything here works on numbers: counts, scores, replicates, p-values. What they are counts of is the caller's affair.

Example:
    >>> from tfprune import significance
    >>> significance.mcnemar(lost=1, gained=9)
    0.021484375
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference, how far it may be off, and the chance of one as large where there is none.

    Args:
        value: the estimated difference.
        standard_error: its standard error.
        low: lower end of the two-sided interval.
        high: upper end of the two-sided interval.
        p: two-sided p-value of no difference.
    """

    value: float
    standard_error: float
    low: float
    high: float
    p: float


# --- tests ------------------------------------------------------------------------------------------------------------


def mcnemar(lost, gained):
    """Exact two-sided p-value of McNemar's test: are as many samples lost as gained?

    Args:
        lost: how many samples only the first model gets right.
        gained: how many samples only the second model gets right.

    Raises:
        ValueError: for counts that are negative or not whole.

    Example:
        >>> mcnemar(0, 5)
        0.0625

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
    """
    from scipy.stats import binom

    for name, count in (("lost", lost), ("gained", gained)):
        if not count >= 0 or count != int(count):
            raise ValueError(f"{name} must be a count: a whole number of at least 0. Received: {name}={count}.")
    return float(min(1.0, 2 * binom.cdf(min(lost, gained), lost + gained, 0.5)))


def paired_t(count, total, squares):
    """Two-sided p-values of paired t-tests, from what streams: how many differences, their sum, their sum of squares.

    Args:
        count: (tests,) how many paired differences each test has.
        total: (tests,) their sums.
        squares: (tests,) the sums of their squares.

    Returns:
        (tests,) p-values. 1.0 where there are fewer than two differences or all of them are 0; 0.0 where all of them
        are one other number.
    """
    from scipy.stats import t

    count, total, squares = (np.asarray(values, dtype=np.float64) for values in (count, total, squares))
    tested = (count >= 2) & (squares > 0)
    n = np.where(tested, count, 2.0)
    mean = total / n
    variance = np.maximum(squares - n * mean**2, 0.0) / (n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.abs(mean) / np.sqrt(variance / n)
    return np.where(tested, 2 * t.sf(statistic, n - 1), 1.0)


def placements(id_scores, ood_scores):
    """What each sample adds to the AUROC: the share of the other set that it is on the right side of, ties half.

    Args:
        id_scores: (samples,) scores of the negatives (in-distribution).
        ood_scores: (samples,) scores of the positives (OOD), larger = stranger.

    Returns:
        One float64 array per set, of its length; the mean of either is the AUROC.

    Raises:
        ValueError: for sets of fewer than two scores, or scores that are not finite.

    Source: Sun and Xu, "Fast implementation of DeLong's algorithm for comparing the areas under correlated receiver
    operating characteristic curves", 2014: midranks, in O(n log n).
    """
    from scipy.stats import rankdata

    id_scores, ood_scores = _scores(id_scores, "in-distribution"), _scores(ood_scores, "OOD")
    ranks = rankdata(np.concatenate([id_scores, ood_scores]))
    below = (ranks[: len(id_scores)] - rankdata(id_scores)) / len(ood_scores)
    return 1.0 - below, (ranks[len(id_scores) :] - rankdata(ood_scores)) / len(id_scores)


def delong(id_a, ood_a, id_b, ood_b, confidence=0.95):
    """Difference of two AUROCs, b - a, of scores that two models give the same samples.

    The interval and the p-value take the difference as normal, which needs some dozens of samples in each set. Where
    both models separate the sets perfectly the standard error is 0.

    Args:
        id_a: (samples,) model a's scores of the in-distribution samples.
        ood_a: (strangers,) model a's scores of the OOD samples, larger = stranger.
        id_b: (samples,) model b's scores of the same in-distribution samples, in the same order.
        ood_b: (strangers,) model b's scores of the same OOD samples, in the same order.
        confidence: level of the two-sided interval.

    Returns:
        A `Difference`.

    Raises:
        ValueError: for sets of fewer than two scores or of different lengths, or scores that are not finite.

    Source: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
    characteristic curves", 1988.
    """
    _check_confidence(confidence)
    for name, a, b in (("in-distribution", id_a, id_b), ("OOD", ood_a, ood_b)):
        if np.shape(a) != np.shape(b):
            raise ValueError(
                f"Both models must score the same {name} samples. Received: shapes {np.shape(a)} and {np.shape(b)}."
            )
    # The differences per sample, not their two variances: exactly 0 where the models are one.
    by_id, by_ood = (b - a for a, b in zip(placements(id_a, ood_a), placements(id_b, ood_b), strict=True))
    variance = by_id.var(ddof=1) / len(by_id) + by_ood.var(ddof=1) / len(by_ood)
    return _t_difference(by_ood.mean(), np.sqrt(variance), np.inf, confidence)


# --- many tests -------------------------------------------------------------------------------------------------------


def holm(p_values):
    """p-values adjusted for their number, (tests,): below a level, the chance of any false one is below it too.

    Args:
        p_values: (tests,) p-values, in any order.

    Raises:
        ValueError: if there are none, or some are outside [0, 1].

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    p_values = _p_values(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def benjamini_hochberg(p_values):
    """p-values adjusted for the false discovery rate, (tests,): of those below a level, at most that share is false.

    Args and errors as for `holm`.

    Source: Benjamini and Hochberg, "Controlling the false discovery rate", 1995.
    """
    from scipy.stats import false_discovery_control

    return false_discovery_control(_p_values(p_values), method="bh")


# --- intervals --------------------------------------------------------------------------------------------------------


class PoissonWeights:
    """How often each sample of a stream is in each of many resamples: Poisson(1) counts, drawn as the samples come.

    A bootstrap that needs neither the number of samples nor a second pass. The weights hang on the seed and on the
    position of the sample in the stream, not on how it is cut into batches.

    Args:
        num_bootstraps: how many resamples.
        seed: fixes the weights.

    Example:
        >>> weights = PoissonWeights(num_bootstraps=1000, seed=0)
        >>> sums = weights.draw(len(batch)) @ batch      # add up over batches: one row per resample

    Source: Chamandy et al., "Estimating uncertainty for massive data streams", 2012.
    """

    def __init__(self, num_bootstraps, seed):
        from scipy.stats import poisson

        self.num_bootstraps, self._random = num_bootstraps, np.random.Generator(np.random.PCG64(seed))
        # 16 random bits through a table are six times faster than a Poisson sampler, and have mean 1 exactly.
        edges = np.rint(poisson.cdf(np.arange(10), 1.0) * 2**16)
        self._counts = np.searchsorted(edges, np.arange(2**16), side="right").astype(np.float64)

    def draw(self, size):
        """Weights of the next samples, float64 (num_bootstraps, size)."""
        # Whole words for each sample, or a batch would end within one.
        words = self._random.integers(2**32, size=(size, (self.num_bootstraps + 1) // 2), dtype=np.uint32)
        return self._counts[words.view(np.uint16)[:, : self.num_bootstraps]].T


def basic_bootstrap(estimate, replicates, confidence=0.95, unbiased=False):
    """Two-sided basic bootstrap interval, (low, high): the quantiles of the replicates, turned round the estimate.

    A statistic that is never negative, such as a calibration error, is larger in resamples than in the sample, as it is
    larger in the sample than in the population. Turned round, this corrects itself; a percentile interval doubles it.

    Args:
        estimate: the statistic on the sample, a number or an array.
        replicates: (num_bootstraps, ...) the statistic on each resample.
        confidence: level of the interval.
        unbiased: whether the estimate needs no such correction, because it was corrected otherwise; the replicates
            then give the spread alone.

    Raises:
        ValueError: for too few replicates to have such quantiles, or replicates that are not finite.

    Source: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 5.2.
    """
    replicates, tail = np.asarray(replicates, dtype=np.float64), (1 - confidence) / 2
    check_num_bootstraps(len(replicates), confidence)
    if not np.all(np.isfinite(replicates)):
        raise ValueError(f"Replicates must be finite. Received: {int(np.sum(~np.isfinite(replicates)))} that are not.")
    centre = replicates.mean(axis=0) if unbiased else estimate
    low, high = np.quantile(replicates, [tail, 1 - tail], axis=0) - centre
    return estimate - high, estimate - low


def hierarchical_interval(values, covariance=None, confidence=0.95, bias=0.0):
    """Mean of a statistic over training seeds, with the chance of both the seeds and the test samples.

    All seeds are judged on the same samples. The spread between seeds holds the chance of training and whatever the
    samples do to one seed alone; what the samples do to all seeds alike moves no spread, and is the covariance between
    two seeds. So the squared standard error is s**2 / seeds + mean covariance of two different seeds, which is without
    bias in the crossed model seed + sample + seed x sample. The interval is Student's, its degrees of freedom after
    Satterthwaite: about seeds - 1 where training matters most, many where the samples do. (Resampling seeds instead
    would give a third of the variance away with three seeds, and know no Student.)

    Args:
        values: (seeds,) the statistic of each seed, two or more.
        covariance: (seeds, seeds) covariance of the values over samples (of bootstrap replicates with shared weights,
            or DeLong's); None takes the samples as given, so that the interval is Student's over seeds.
        confidence: level of the two-sided interval.
        bias: known bias of the mean, by which the interval is moved down.

    Returns:
        A `Difference`.

    Raises:
        ValueError: for fewer than two seeds, or values that are not finite.

    Source: Satterthwaite, "An approximate distribution of estimates of variance components", 1946.
    """
    _check_confidence(confidence)
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(
            f"An interval over seeds needs at least two seeds. Received: values of shape {values.shape}. "
            "One seed says nothing about the next; compare its two models on samples instead."
        )
    if not np.all(np.isfinite(values)):
        raise ValueError(f"The values of the seeds must be finite. Received: {values}.")
    num_seeds = len(values)
    by_seed, shared = values.var(ddof=1) / num_seeds, 0.0
    if covariance is not None:
        covariance = np.asarray(covariance, dtype=np.float64)
        shared = max(0.0, (covariance.sum() - np.trace(covariance)) / (num_seeds * (num_seeds - 1)))
    variance = by_seed + shared
    degrees = (num_seeds - 1) * (variance / by_seed) ** 2 if by_seed > 1e-12 * variance else np.inf
    return _t_difference(values.mean(), np.sqrt(variance), degrees, confidence, bias)


def one_sided_bound(values, confidence=0.95):
    """Upper end of the one-sided interval of a mean over seeds: Student's, (-infinity, bound].

    Args:
        values: (seeds,) numbers, two or more.
        confidence: level of the interval.

    Raises:
        ValueError: for fewer than two values, values that are not finite, or a level that is not above one half.
    """
    if not 0.5 < confidence < 1:
        raise ValueError(f"A one-sided interval needs confidence in (0.5, 1). Received: confidence={confidence}.")
    return hierarchical_interval(values, confidence=2 * confidence - 1).high


def _t_difference(value, standard_error, degrees, confidence, bias=0.0):
    """A `Difference` by Student's distribution, which is the normal one for infinitely many degrees of freedom."""
    from scipy.stats import t

    centre, half = value - bias, standard_error * t.ppf((1 + confidence) / 2, degrees)
    p = 2 * t.sf(abs(centre) / standard_error, degrees) if standard_error else centre == 0
    return Difference(*map(float, (value, standard_error, centre - half, centre + half, p)))


# --- what is given ----------------------------------------------------------------------------------------------------


def check_num_bootstraps(num_bootstraps, confidence):
    """Raises ValueError unless there are enough replicates for the quantiles of such an interval."""
    _check_confidence(confidence)
    if isinstance(num_bootstraps, bool) or not isinstance(num_bootstraps, (int, np.integer)):
        raise ValueError(f"num_bootstraps must be an integer. Received: num_bootstraps={num_bootstraps!r}.")
    needed = int(np.ceil(2 / (1 - confidence) - 1e-9))
    if num_bootstraps < needed:
        raise ValueError(
            f"An interval of confidence={confidence} needs at least {needed} bootstraps. "
            f"Received: num_bootstraps={num_bootstraps}."
        )


def _check_confidence(confidence):
    if not 0 < confidence < 1:
        hint = f" For {confidence} % pass confidence={confidence / 100:g}." if confidence > 1 else ""
        raise ValueError(f"confidence must be in (0, 1). Received: confidence={confidence}.{hint}")


def _p_values(p_values):
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1 or not p_values.size:
        raise ValueError(f"p-values must be a non-empty 1-D array. Received: shape {p_values.shape}.")
    if not np.all((p_values >= 0) & (p_values <= 1)):  # written so that NaN fails too
        raise ValueError(f"p-values must be in [0, 1]. Received: {p_values[~((p_values >= 0) & (p_values <= 1))][0]}.")
    return p_values


def _scores(scores, name):
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or len(scores) < 2:
        raise ValueError(f"The {name} scores must be 1-D, of two or more samples. Received: shape {scores.shape}.")
    if not np.all(np.isfinite(scores)):
        raise ValueError(
            f"The {name} scores must be finite. Received: {int(np.sum(~np.isfinite(scores)))} that are not."
        )
    return scores
