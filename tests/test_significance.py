"""Are the tests exact, do the intervals cover what they promise, and is nothing found where there is nothing?"""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune import significance as sig

# --- McNemar and paired t ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "gained", "p"), [(0, 0, 1.0), (0, 5, 0.0625), (5, 0, 0.0625), (1, 9, 22 / 1024), (3, 3, 1.0), (2, 1, 1.0)]
)
def test_mcnemar_is_the_exact_binomial_test(lost, gained, p):
    assert sig.mcnemar(lost, gained) == pytest.approx(p, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(lost=st.integers(0, 400), gained=st.integers(0, 400))
def test_mcnemar_agrees_with_statsmodels_and_scipy(lost, gained):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    assert sig.mcnemar(lost, gained) == pytest.approx(tables.mcnemar([[7, lost], [gained, 9]], exact=True).pvalue)
    if lost + gained:
        assert sig.mcnemar(lost, gained) == pytest.approx(scipy.stats.binomtest(lost, lost + gained).pvalue)


@pytest.mark.parametrize("count", [-1, 0.5, float("nan")])
def test_mcnemar_refuses_what_is_no_count(count):
    with pytest.raises(ValueError, match="lost must be a count"):
        sig.mcnemar(count, 1)


def test_paired_t_from_sums_agrees_with_scipy():
    groups = [np.random.randn(n) * scale + shift for n, scale, shift in ((2, 1, 0), (9, 1e-3, 1e-3), (500, 2, 0.1))]
    sums = [[len(g) for g in groups], [g.sum() for g in groups], [(g**2).sum() for g in groups]]
    expected = [scipy.stats.ttest_1samp(g, 0).pvalue for g in groups]
    np.testing.assert_allclose(sig.paired_t(*sums), expected, rtol=1e-9)


def test_paired_t_finds_nothing_in_zeros_and_in_single_differences():
    # five zeros, one difference, none, and four differences of exactly 0.5
    assert sig.paired_t([5, 1, 0, 4], [0, 0.5, 0, 2.0], [0, 0.25, 0, 1.0]).tolist() == [1.0, 1.0, 1.0, 0.0]


# --- DeLong -----------------------------------------------------------------------------------------------------------


def kernel(id_scores, ood_scores):
    """1 where the stranger is above, 1/2 on ties: (strangers, samples)."""
    above = np.subtract.outer(ood_scores, id_scores)
    return (above > 0) + 0.5 * (above == 0)


def delong_by_definition(id_a, ood_a, id_b, ood_b):
    """Difference and its variance from all pairs of samples."""
    difference = kernel(id_b, ood_b) - kernel(id_a, ood_a)
    variance = difference.mean(axis=1).var(ddof=1) / len(ood_a) + difference.mean(axis=0).var(ddof=1) / len(id_a)
    return difference.mean(), variance


@pytest.mark.parametrize("decimals", [8, 1, 0])
def test_delong_is_its_definition_over_all_pairs_with_and_without_ties(decimals):
    id_a, ood_a = np.random.randn(60).round(decimals), (np.random.randn(45) + 1).round(decimals)
    id_b, ood_b = (id_a + np.random.randn(60)).round(decimals), (ood_a + np.random.randn(45)).round(decimals)
    found, (value, variance) = sig.delong(id_a, ood_a, id_b, ood_b), delong_by_definition(id_a, ood_a, id_b, ood_b)
    assert found.value == pytest.approx(value, abs=1e-14)
    assert found.standard_error == pytest.approx(np.sqrt(variance), rel=1e-12)
    assert found.p == pytest.approx(2 * scipy.stats.norm.sf(abs(value) / np.sqrt(variance)), rel=1e-9)
    assert (found.low, found.high) == pytest.approx(
        scipy.stats.norm.interval(0.95, value, np.sqrt(variance)), abs=1e-12
    )


def test_delong_variance_is_that_of_the_covariance_form():
    # S10 and S01 over both models, as in the paper: var(a) + var(b) - 2 cov(a, b)
    id_a, id_b = np.random.randn(2, 30)
    ood_a, ood_b = np.random.randn(2, 20) + 0.5
    by_ood = np.stack([kernel(id_a, ood_a).mean(axis=1), kernel(id_b, ood_b).mean(axis=1)])
    by_id = np.stack([kernel(id_a, ood_a).mean(axis=0), kernel(id_b, ood_b).mean(axis=0)])
    covariance = np.cov(by_ood) / 20 + np.cov(by_id) / 30
    expected = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert sig.delong(id_a, ood_a, id_b, ood_b).standard_error ** 2 == pytest.approx(expected, rel=1e-12)


def test_placements_average_to_the_auroc_on_either_side():
    known, strange = np.random.randn(200).round(1), np.random.randn(70).round(1) + 0.4
    by_id, by_ood = sig.placements(known, strange)
    expected = sk.roc_auc_score(np.repeat([0, 1], [200, 70]), np.concatenate([known, strange]))
    assert (by_id.mean(), by_ood.mean()) == pytest.approx((expected, expected), rel=1e-12)
    # hand: 0.2 is above 0.1 and ties with 0.2; 0.9 is above both
    by_id, by_ood = sig.placements([0.1, 0.2], [0.2, 0.9])
    assert (by_id.tolist(), by_ood.tolist()) == ([1.0, 0.75], [0.75, 1.0])


def test_delong_of_one_model_with_itself_is_exactly_nothing():
    known, strange = np.random.randn(50), np.random.randn(50)
    assert sig.delong(known, strange, known, strange) == sig.Difference(0.0, 0.0, 0.0, 0.0, 1.0)


def test_delong_rejects_as_often_as_it_says_where_there_is_no_difference():
    # two equally good, correlated scores of the same samples
    random = np.random.default_rng(0)
    rejected = 0
    for _ in range(800):
        known, strange = random.normal(size=(80, 1)), random.normal(1.0, size=(60, 1))
        id_scores, ood_scores = known + random.normal(size=(80, 2)), strange + random.normal(size=(60, 2))
        rejected += sig.delong(id_scores[:, 0], ood_scores[:, 0], id_scores[:, 1], ood_scores[:, 1]).p < 0.05
    assert 0.03 < rejected / 800 < 0.075


def test_delong_refuses_other_samples_single_samples_and_nan():
    with pytest.raises(ValueError, match=r"same OOD samples\. Received: shapes \(3,\) and \(2,\)"):
        sig.delong([1, 2], [1, 2, 3], [1, 2], [1, 2])
    with pytest.raises(ValueError, match="two or more samples"):
        sig.delong([1], [1, 2], [1], [1, 2])
    with pytest.raises(ValueError, match=r"OOD scores must be finite\. Received: 1 that are not"):
        sig.delong([1, 2], [1, np.nan], [1, 2], [1, 2])


# --- many tests -------------------------------------------------------------------------------------------------------


def test_holm_and_benjamini_hochberg_on_four_p_values():
    p = [0.01, 0.04, 0.03, 0.5]
    np.testing.assert_allclose(sig.holm(p), [0.04, 0.09, 0.09, 0.5])  # .01*4; .03*3; .04*2 -> .09; .5*1
    np.testing.assert_allclose(sig.benjamini_hochberg(p), [0.04, 0.16 / 3, 0.16 / 3, 0.5])  # .03*2 -> .04*4/3


@pytest.mark.parametrize("size", [1, 2, 3, 10, 200])
def test_corrections_agree_with_statsmodels(size):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = (np.random.rand(size) ** 3).round(2)  # ties and zeros among them
    np.testing.assert_allclose(sig.holm(p_values), multitest.multipletests(p_values, method="holm")[1], atol=1e-12)
    np.testing.assert_allclose(
        sig.benjamini_hochberg(p_values), multitest.multipletests(p_values, method="fdr_bh")[1], atol=1e-12
    )


@pytest.mark.parametrize("correct", [sig.holm, sig.benjamini_hochberg])
def test_corrections_refuse_what_is_no_p_value(correct):
    with pytest.raises(ValueError, match="non-empty"):
        correct([])
    with pytest.raises(ValueError, match=r"in \[0, 1\]\. Received: 1.5"):
        correct([0.5, 1.5])
    with pytest.raises(ValueError, match=r"in \[0, 1\]\. Received: nan"):
        correct([0.5, np.nan])


# --- bootstrap --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_bootstraps", [40, 41])
def test_weights_hang_on_the_place_of_a_sample_not_on_the_batch(num_bootstraps):
    whole = sig.PoissonWeights(num_bootstraps, seed=3).draw(50)
    parts = sig.PoissonWeights(num_bootstraps, seed=3)
    np.testing.assert_array_equal(np.concatenate([parts.draw(n) for n in (1, 0, 7, 42)], axis=1), whole)
    assert whole.shape == (num_bootstraps, 50)
    assert not np.array_equal(whole, sig.PoissonWeights(num_bootstraps, seed=4).draw(50))


def test_weights_are_poisson_of_mean_one():
    weights = sig.PoissonWeights(1000, seed=0).draw(1000)
    shares = np.bincount(weights.astype(int).ravel(), minlength=10)[:5] / weights.size
    np.testing.assert_allclose(shares, scipy.stats.poisson.pmf(range(5), 1.0), atol=2e-3)
    assert abs(np.corrcoef(weights[0], weights[1])[0, 1]) < 0.1
    assert abs(np.corrcoef(weights[:, 0], weights[:, 1])[0, 1]) < 0.1


def test_basic_interval_is_the_quantiles_turned_round_the_estimate():
    replicates = np.arange(101.0)  # quantiles 2.5 and 97.5
    assert sig.basic_bootstrap(60.0, replicates) == pytest.approx((120 - 97.5, 120 - 2.5))
    # with the centre known to be right, only the spread counts: 60 +- 47.5
    assert sig.basic_bootstrap(60.0, replicates, unbiased=True) == pytest.approx((12.5, 107.5))
    low, high = sig.basic_bootstrap(np.array([60.0, 0.0]), np.stack([replicates, 0 * replicates], axis=1))
    assert (low[0], high[0], low[1], high[1]) == pytest.approx((22.5, 117.5, 0, 0))


def test_paired_basic_interval_from_poisson_weights_covers_as_it_says():
    random, covered = np.random.default_rng(1), 0
    for trial in range(1000):
        shared = random.normal(size=100)
        a, b = shared + random.normal(size=100), shared + random.normal(size=100) + 0.3
        weights = sig.PoissonWeights(100, seed=trial).draw(100)
        replicates = weights @ (b - a) / weights.sum(axis=1)
        low, high = sig.basic_bootstrap(np.mean(b - a), replicates)
        covered += low <= 0.3 <= high
    assert 0.92 < covered / 1000 < 0.97


def test_bootstrap_refuses_too_few_replicates_and_nan():
    with pytest.raises(ValueError, match=r"at least 40 bootstraps\. Received: num_bootstraps=39"):
        sig.basic_bootstrap(0.0, np.zeros(39))
    with pytest.raises(ValueError, match="at least 200 bootstraps"):
        sig.basic_bootstrap(0.0, np.zeros(199), confidence=0.99)
    with pytest.raises(ValueError, match=r"finite\. Received: 1 that are not"):
        sig.basic_bootstrap(0.0, [np.nan] + [0.0] * 50)
    with pytest.raises(ValueError, match=r"For 95 % pass confidence=0\.95"):
        sig.basic_bootstrap(0.0, np.zeros(50), confidence=95)
    with pytest.raises(ValueError, match="must be an integer"):
        sig.check_num_bootstraps(1e3, 0.95)


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_interval_over_seeds_alone_is_student():
    found = sig.hierarchical_interval([1.0, 2.0, 3.0])
    assert (found.value, found.standard_error) == pytest.approx((2.0, 1 / np.sqrt(3)))
    assert (found.low, found.high) == pytest.approx(scipy.stats.t.interval(0.95, 2, 2.0, 1 / np.sqrt(3)))
    assert found.p == pytest.approx(scipy.stats.ttest_1samp([1.0, 2.0, 3.0], 0).pvalue)


def test_interval_adds_what_the_samples_do_to_all_seeds_alike():
    covariance = np.array([[5.0, 2.0, 3.0], [2.0, 5.0, 1.0], [3.0, 1.0, 5.0]])  # two seeds share 2 on average
    found = sig.hierarchical_interval([1.0, 2.0, 3.0], covariance)
    assert found.standard_error == pytest.approx(np.sqrt(1 / 3 + 2))
    degrees = 2 * ((1 / 3 + 2) / (1 / 3)) ** 2
    assert found.high == pytest.approx(2 + found.standard_error * scipy.stats.t.ppf(0.975, degrees))
    # noise that is each seed's own is in the spread between them already
    assert sig.hierarchical_interval([1.0, 2.0, 3.0], 5 * np.eye(3)) == sig.hierarchical_interval([1.0, 2.0, 3.0])


def test_interval_of_equal_seeds_without_noise_is_a_point():
    assert sig.hierarchical_interval([0.0, 0.0], np.zeros((2, 2))) == sig.Difference(0.0, 0.0, 0.0, 0.0, 1.0)


def test_known_bias_moves_the_interval_and_not_the_value():
    plain, moved = sig.hierarchical_interval([1.0, 2.0]), sig.hierarchical_interval([1.0, 2.0], bias=0.5)
    assert (moved.value, moved.low, moved.high) == pytest.approx((plain.value, plain.low - 0.5, plain.high - 0.5))


@pytest.mark.parametrize(("by_seed", "by_sample"), [(1.0, 1.0), (0.2, 1.0), (1.0, 0.1)])
@pytest.mark.parametrize("num_seeds", [3, 5])
def test_interval_over_seeds_and_samples_covers_as_it_says(num_seeds, by_seed, by_sample):
    # crossed: each seed has its effect, the drawn test set has one for all seeds, and each pair of both its own
    random, covered, num_samples = np.random.default_rng(2), 0, 50
    for _ in range(600):
        shared = by_sample * random.normal(size=num_samples) * np.sqrt(num_samples)
        own = random.normal(size=(num_seeds, num_samples)) * np.sqrt(num_samples) * 0.5
        samples = shared + own + by_seed * random.normal(size=(num_seeds, 1))
        found = sig.hierarchical_interval(samples.mean(axis=1), np.cov(samples) / num_samples)
        covered += found.low <= 0 <= found.high
    assert 0.92 < covered / 600 < 0.985


def test_intervals_over_seeds_refuse_one_seed_and_nan():
    with pytest.raises(ValueError, match="at least two seeds"):
        sig.hierarchical_interval([1.0])
    with pytest.raises(ValueError, match="must be finite"):
        sig.hierarchical_interval([1.0, np.nan])


def test_one_sided_bound_is_student():
    values = [0.1, 0.4, 0.2, 0.3]
    expected = np.mean(values) + scipy.stats.t.ppf(0.95, 3) * scipy.stats.sem(values)
    assert sig.one_sided_bound(values, 0.95) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"confidence in \(0\.5, 1\)"):
        sig.one_sided_bound(values, 0.5)
