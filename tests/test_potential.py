"""Is the prune potential the largest ratio that holds beyond chance, for each kind of data, and no larger?"""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from tfprune.potential import harm_by_ratio, prune_potential


def study(accuracy, ece=None, auroc=None, seeds=(0, 1, 2), **where):
    """Rows of each seed at ratios 0, 0.2, ... from values per ratio, every seed a little higher than the last."""
    rows = []
    for seed in seeds:
        for i, value in enumerate(accuracy):
            row = {**where, "ratio": round(0.2 * i, 1), "seed": seed, "accuracy": value + 0.1 * seed}
            row["ece"] = (ece or [0.05] * 9)[i] + 0.01 * seed
            if auroc:
                row["far/auroc_msp"] = auroc[i] - 0.05 * seed
            rows.append(row)
    return rows


# --- the right ratio --------------------------------------------------------------------------------------------------


def test_potential_is_the_last_ratio_within_the_bounds():
    found = prune_potential(study([0.9, 0.9, 0.895, 0.85])).iloc[0]
    assert (found["potential"], found["failed_ratio"], found["limited_by"]) == (0.4, 0.6, "accuracy")
    assert found["accuracy_margin"] == pytest.approx(0.01 - 0.005)
    assert found["ece_margin"] == pytest.approx(0.02)
    assert found["num_seeds"] == 3


def test_first_failing_ratio_ends_the_search():
    # 0.4 fails, 0.6 would hold again
    assert prune_potential(study([0.9, 0.9, 0.8, 0.9]))["potential"].tolist() == [0.2]


def test_nothing_fails_and_everything_fails():
    holds, fails = prune_potential(study([0.9, 0.9, 0.95])).iloc[0], prune_potential(study([0.9, 0.5, 0.4])).iloc[0]
    assert (holds["potential"], holds["limited_by"]) == (0.4, None)
    assert np.isnan(holds["failed_ratio"])
    assert (fails["potential"], fails["failed_ratio"], fails["limited_by"]) == (0.0, 0.2, "accuracy")
    assert fails["accuracy_margin"] == 0.01  # at ratio 0 nothing is harmed


def test_each_bound_can_limit_and_the_worst_is_named_first():
    def limit(**values):
        return prune_potential(study(**{"accuracy": [0.9, 0.9], "ece": [0.05, 0.05], "auroc": [0.8, 0.8], **values}))

    assert limit(ece=[0.05, 0.08])["limited_by"][0] == "ece"
    assert limit(auroc=[0.8, 0.7])["limited_by"][0] == "far/auroc_msp"
    assert limit(accuracy=[0.9, 0.85], auroc=[0.8, 0.7])["limited_by"][0] == "far/auroc_msp, accuracy"
    # better is never harm
    assert limit(accuracy=[0.9, 0.99], ece=[0.05, 0.0], auroc=[0.8, 0.9])["potential"][0] == 0.2


def test_bounds_are_the_callers_and_none_leaves_one_out():
    rows = study([0.9, 0.87, 0.8], ece=[0.05, 0.06, 0.2], auroc=[0.8, 0.7, 0.6])
    assert prune_potential(rows, max_accuracy_drop=0.05, max_auroc_drop=0.15)["potential"].tolist() == [0.2]
    assert prune_potential(rows, max_accuracy_drop=None, max_auroc_drop=None)["potential"].tolist() == [0.2]
    found = prune_potential(rows, max_accuracy_drop=0.2, max_ece_rise=None, max_auroc_drop=None)
    assert found["potential"].tolist() == [0.4]
    assert not {"ece_margin", "far/auroc_msp_margin"} & set(found)


def test_interval_is_one_sided_students_over_paired_seeds():
    drops = [0.001, 0.004, 0.007]
    rows = [{"ratio": 0.0, "seed": s, "accuracy": 0.5 + 0.2 * s, "ece": 0.1} for s in range(3)]
    rows += [{"ratio": 0.5, "seed": s, "accuracy": 0.5 + 0.2 * s - drops[s], "ece": 0.1} for s in (2, 0, 1)]
    line = harm_by_ratio(rows, confidence=0.9).query("bound == 'accuracy'").iloc[0]
    upper = 0.004 + scipy.stats.t.ppf(0.9, 2) * scipy.stats.sem(drops)
    assert (line["harm"], line["upper"]) == pytest.approx((0.004, upper))
    assert line["margin"] == pytest.approx(0.01 - upper)
    # within the bound on average, but not beyond chance
    assert prune_potential(rows, max_accuracy_drop=0.005)["potential"].tolist() == [0.0]
    assert prune_potential(rows, max_accuracy_drop=upper + 1e-9, confidence=0.9)["potential"].tolist() == [0.5]


def test_excess_over_the_noise_floor_is_preferred_where_all_rows_have_it():
    rows = study([0.9, 0.9], ece=[0.05, 0.09])
    with_excess = [{**row, "ece_excess": 0.01} for row in rows]
    assert prune_potential(rows)["potential"].tolist() == [0.0]
    assert prune_potential(with_excess)["potential"].tolist() == [0.2]
    del with_excess[0]["ece_excess"]
    assert prune_potential(with_excess)["potential"].tolist() == [0.0]


def test_potential_is_rarely_too_large():
    # The true harm grows by 0.01 with each ratio, and the bound lies at the second: 0.4 holds, 0.6 does not.
    random, too_large, reached = np.random.default_rng(0), 0, 0
    for _ in range(80):
        rows = []
        for seed in range(4):
            base = random.normal(0.9, 0.03)
            rows += [
                {"ratio": r, "seed": seed, "accuracy": base - 0.05 * r + random.normal(0, 0.004)}
                for r in (0.0, 0.2, 0.4, 0.6, 0.8)
            ]
        found = prune_potential(rows, max_accuracy_drop=0.0299, max_ece_rise=None)["potential"][0]
        too_large += found > 0.4
        reached += found > 0
    assert too_large / 80 < 0.1
    assert reached / 80 > 0.5


# --- curves -----------------------------------------------------------------------------------------------------------


def test_each_data_set_severity_and_strategy_has_its_own_potential():
    rows = study([0.9, 0.9, 0.9], dataset="d", severity=0, strategy="one_shot")
    rows += study([0.7, 0.7, 0.5], dataset="d", severity=3, strategy="one_shot")
    rows += study([0.9, 0.5, 0.5], dataset="d", severity=0, strategy="iterative")
    found = prune_potential(rows).set_index(["dataset", "severity", "strategy"])["potential"]
    assert found.to_dict() == {("d", 0, "one_shot"): 0.4, ("d", 3, "one_shot"): 0.2, ("d", 0, "iterative"): 0.0}


def test_strangers_that_only_one_data_set_has_bind_only_there():
    rows = study([0.9, 0.9], auroc=[0.8, 0.5], dataset="images") + study([0.9, 0.9], dataset="moons")
    found = prune_potential(rows).set_index("dataset")
    assert found["potential"].to_dict() == {"images": 0.0, "moons": 0.2}
    assert np.isnan(found.loc["moons", "far/auroc_msp_margin"])


def test_data_frames_failed_trials_and_lone_seeds_are_read():
    rows = study([0.9, 0.9])
    rows.append({"ratio": 0.2, "seed": 9, "status": "failed"})
    rows.append({"ratio": 0.2, "seed": 7, "accuracy": 0.1, "ece": 0.9})  # no row of ratio 0
    found = prune_potential(pd.DataFrame(rows))
    assert (found["potential"][0], found["num_seeds"][0]) == (0.2, 3)


def failed(ratio, seed, **more):
    return {"ratio": ratio, "seed": seed, "status": "failed", **more}


def test_ratio_at_which_a_seed_failed_is_not_shown_to_pass():
    rows = [row for row in study([0.9, 0.9, 0.9]) if (row["ratio"], row["seed"]) != (0.4, 2)]
    assert prune_potential(rows)["potential"].tolist() == [0.4]
    found = prune_potential([*rows, failed(0.4, 2)]).iloc[0]
    assert (found["potential"], found["failed_ratio"], found["limited_by"]) == (0.2, 0.4, "failed trials")
    assert found["num_seeds"] == 2
    # a trial that was run again and finished did not fail
    assert prune_potential([*rows, failed(0.4, 1)])["potential"].tolist() == [0.4]


def test_ratio_at_which_all_seeds_or_all_but_one_failed_ends_the_search():
    for left in ([], [2]):
        rows = [row for row in study([0.9, 0.9, 0.9]) if row["ratio"] != 0.2 or row["seed"] in left]
        found = prune_potential([*rows, failed(0.2, 0), failed(0.2, 1)]).iloc[0]
        assert (found["potential"], found["failed_ratio"], found["num_seeds"]) == (0.0, 0.2, len(left))


def test_failures_end_the_search_of_their_own_strategy_at_every_severity():
    rows = [row for s in "ab" for v in (0, 3) for row in study([0.9, 0.9, 0.9], strategy=s, severity=v)]
    rows = [row for row in rows if (row["strategy"], row["ratio"], row["seed"]) != ("a", 0.4, 0)]
    found = prune_potential([*rows, failed(0.4, 0, strategy="a")]).set_index(["strategy", "severity"])["potential"]
    assert found.to_dict() == {("a", 0): 0.2, ("a", 3): 0.2, ("b", 0): 0.4, ("b", 3): 0.4}


def test_failed_comparisons_end_the_search_too():
    rows = [difference(r, 0.001, 0.002, seed=s) for r in (0.3, 0.6) for s in (0, 1)]
    assert prune_potential(rows)["potential"].tolist() == [0.6]
    assert prune_potential([*rows, failed(0.6, 2)])["potential"].tolist() == [0.3]


def test_another_score_can_be_looked_at():
    rows = [{**row, "far/auroc_entropy": 0.9 - row["ratio"]} for row in study([0.9, 0.9], auroc=[0.8, 0.8])]
    assert prune_potential(rows)["potential"].tolist() == [0.2]
    assert prune_potential(rows, score="entropy")["limited_by"].tolist() == ["far/auroc_entropy"]


# --- one seed ---------------------------------------------------------------------------------------------------------


def difference(ratio, drop, half, **more):
    """A row as `tfprune.compare` gives it."""
    row = {"ratio": ratio, "confidence_level": 0.95, "accuracy_difference": -drop, "ece_difference": 0.0}
    ends = {"accuracy_difference_low": -drop - half, "accuracy_difference_high": -drop + half}
    return {**row, **ends, "ece_difference_low": -0.001, "ece_difference_high": 0.001, **more}


def test_a_single_seed_needs_an_interval_of_its_own():
    with pytest.raises(ValueError, match=r"two seeds or more\. Received: one seed for ratio=0\.2"):
        prune_potential(study([0.9, 0.9], seeds=[0]))


def test_intervals_of_a_comparison_are_used_as_they_are():
    rows = [difference(0.3, 0.002, 0.004), difference(0.6, 0.004, 0.007)]
    found = prune_potential(rows).iloc[0]
    assert (found["potential"], found["failed_ratio"], found["limited_by"]) == (0.3, 0.6, "accuracy")
    assert found["accuracy_margin"] == pytest.approx(0.01 - 0.006)
    assert found["ece_margin"] == pytest.approx(0.02 - 0.001)
    # a two-sided 95 % interval bounds one side at 97.5 %, and not at 99 %
    assert prune_potential(rows, confidence=0.975)["potential"].tolist() == [0.3]
    with pytest.raises(ValueError, match=r"two-sided intervals of at least 0\.98\. Received: rows with .*=0\.95"):
        prune_potential(rows, confidence=0.99)


def test_rows_of_a_real_comparison_have_a_potential():
    from tfprune.comparison import compare

    class Logits:
        from_logits = True

        def __init__(self, table):
            self.table = table

        def predict(self, x):
            return self.table[np.asarray(x)[:, 0].astype(int)]

    z, strange = 2 * np.random.randn(900, 3), 0.3 * np.random.randn(100, 3)
    y, table, x = z.argmax(axis=1), np.concatenate([z, strange]), np.arange(1000.0)[:, None]

    def row(ratio, noise):
        pruned = Logits(table + noise * np.random.randn(*table.shape))
        found = compare(Logits(table), pruned, (x[:900], y), ood={"far": x[900:]}, num_bootstraps=100)
        return {"ratio": ratio, **found.row}

    rows = [row(0.2, 1e-3), row(0.5, 1.0)]
    found = prune_potential(rows, max_ece_rise=0.2).iloc[0]
    assert (found["potential"], found["failed_ratio"]) == (0.2, 0.5)
    assert "accuracy" in found["limited_by"]
    assert "far/auroc_msp_margin" in found


def test_several_seeds_of_comparisons_are_averaged():
    rows = [difference(0.3, drop, 9.0, seed=s) for s, drop in enumerate((0.001, 0.002, 0.003))]
    line = harm_by_ratio(rows).query("bound == 'accuracy'").iloc[0]
    assert line["upper"] == pytest.approx(0.002 + scipy.stats.t.ppf(0.95, 2) * 0.001 / np.sqrt(3))


def test_standard_errors_beside_the_measures_will_do():
    rows = [
        {"ratio": r, "accuracy": a, "accuracy_standard_error": e}
        for r, a, e in ((0.0, 0.9, 0.003), (0.5, 0.899, 0.004))
    ]
    line = harm_by_ratio(rows, max_ece_rise=None).iloc[0]
    assert line["upper"] == pytest.approx(0.001 + scipy.stats.norm.ppf(0.95) * 0.005)
    rows = [{"ratio": 0.5, "accuracy_difference": -0.001, "accuracy_difference_standard_error": 0.005}]
    assert harm_by_ratio(rows, max_ece_rise=None).iloc[0]["upper"] == pytest.approx(line["upper"])


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_rows_that_say_too_little_are_refused():
    with pytest.raises(ValueError, match='rows with a "ratio"'):
        prune_potential([{"accuracy": 1.0}])
    with pytest.raises(ValueError, match="Received: 0 rows"):
        prune_potential([])
    with pytest.raises(ValueError, match="rows of ratio 0 only"):
        prune_potential(study([0.9]))
    with pytest.raises(ValueError, match=r"none for strategy=b"):
        prune_potential(study([0.9, 0.9], strategy="a") + study([0.9, 0.9], strategy="b")[1::2])
    with pytest.raises(ValueError, match=r"ratio 0\.4 without such a seed"):
        prune_potential([*study([0.9, 0.9]), {"ratio": 0.4, "seed": 8, "accuracy": 0.9, "ece": 0.1}])
    with pytest.raises(ValueError, match=r"two for ratio=0\.2, seed=1"):
        prune_potential([*study([0.9, 0.9]), {"ratio": 0.2, "seed": 1, "accuracy": 0.9, "ece": 0.1}])
    with pytest.raises(ValueError, match=r"rows with 'ece'.* None as its bound"):
        prune_potential([{"ratio": 0.0, "accuracy": 0.9}])
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\)"):
        prune_potential([{"ratio": 80, "accuracy": 0.9, "ece": 0.1}])


def test_measures_that_are_missing_or_not_finite_are_refused():
    rows = study([0.9, 0.9])
    rows[1]["accuracy"] = np.nan
    with pytest.raises(ValueError, match="finite 'accuracy' in each row"):
        prune_potential(rows)
    rows = study([0.9, 0.9])
    rows[0]["ece"] = None
    with pytest.raises(ValueError, match="finite 'ece' in each row"):
        prune_potential(rows)


def test_bounds_that_bind_nothing_are_refused():
    with pytest.raises(ValueError, match="at least one bound"):
        prune_potential(study([0.9, 0.9]), None, None, None)
    with pytest.raises(ValueError, match=r"at least 0\. Received: -0\.1 for ece"):
        prune_potential(study([0.9, 0.9]), max_ece_rise=-0.1)
    with pytest.raises(ValueError, match="one-sided interval needs confidence"):
        prune_potential(study([0.9, 0.9]), confidence=0.3)
