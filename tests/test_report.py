"""Does the report say what the rows say, claims included?"""

import base64
import re

import numpy as np
import pytest

from tfprune import study
from tfprune.study import claims, report
from tfprune.study.results import Results

RATIOS = tuple(i / 10 for i in range(10))
STRATEGIES = ("one_shot", "one_shot_reinit", "one_shot_random", "iterative")


def _row(strategy, ratio, seed, **columns):
    """A finished row in which every claim of the paper holds, unless columns say otherwise."""
    noise = np.random.default_rng(seed).normal(0, 0.001)
    falls = {"one_shot": 0.8, "one_shot_random": 0.5}.get(strategy, 0.9)
    row = {
        "key": f"{strategy} {ratio} {seed}",
        "dataset": "moons",
        "model": "mlp",
        "layers": "all",
        "strategy": strategy,
        "ratio": ratio,
        "seed": seed,
        "status": "done",
        "error": None,
        "optimizer": "adam",
        "learning_rate": 0.01,
        "early_stop_epoch": 30 + int(1000 * ratio) + seed,
        "accuracy": 0.97 - 0.15 * max(0, ratio - falls) + noise,
        "ece": 0.02 - 0.005 * (0 < ratio < 0.5) + noise,
        "nll": 0.1,
        "dense_accuracy": 0.97,
        "dense_ece": 0.02,
        "num_samples": 150,
        "reliability_count": [0, 50, 100],
        "reliability_confidence": [None, 0.5, 0.9],
        "reliability_accuracy": [None, 0.6, 0.95],
        "parameters": 152,
        "compression_ratio": 1 / (1 - ratio),
        "theoretical_speedup": 1 / (1 - ratio),
        "far/auroc_msp": 0.4 + ratio / 10 + noise,
        "far/mean_confidence": 0.9 - ratio / 10 + noise,
        "dense_far/mean_confidence": 0.9,
        "wall_time": 6.0,
        "tfprune": "0.1.0",
    }
    return {**row, **columns}


def _grid(seeds=10, ratios=RATIOS, **columns):
    return [_row(s, ratio, seed, **columns) for s in STRATEGIES for ratio in ratios for seed in range(seeds)]


def _verdicts(rows):
    return {claim.text: claim.verdict for claim in claims.judge(rows)}


def _verdict(rows, start):
    found = [verdict for text, verdict in _verdicts(rows).items() if text.startswith(start)]
    assert len(found) == 1, start
    return found[0]


def _changed(strategy, rows, change):
    return [{**row, **change(row)} if row["strategy"] == strategy else row for row in rows]


def test_rows_as_in_the_paper_reproduce_every_claim():
    rows = _grid()
    rows = [{**r, "accuracy": 0.925} if (r["strategy"], r["ratio"]) == ("one_shot", 0.9) else r for r in rows]
    assert set(_verdicts(rows).values()) == {"reproduced"}
    assert len(_verdicts(rows)) == 13


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_decide_nothing(seeds):
    assert set(_verdicts(_grid(seeds=seeds)).values()) == {"not enough seeds"}


def test_low_base_accuracy_is_not_reproduced():
    assert _verdict(_grid(dense_accuracy=0.9), "The dense network reaches") == "not reproduced"


def test_one_shot_figure_out_of_reach_is_not_reproduced():
    rows = _changed("one_shot", _grid(), lambda row: {"accuracy": 0.9} if row["ratio"] == 0.3 else {})
    claim = next(claim for claim in claims.judge(rows) if claim.text.startswith("One-shot accuracy"))
    assert claim.verdict == "not reproduced"
    assert "0.070, at ratio 0.3" in claim.measured


def test_epochs_that_do_not_rise_are_not_reproduced():
    falling = _changed("iterative", _grid(), lambda row: {"early_stop_epoch": 500 - int(100 * row["ratio"])})
    assert _verdict(falling, "Epochs to the early stop rise with the ratio (iterative)") == "not reproduced"
    assert _verdict(falling, "Epochs to the early stop rise with the ratio (one_shot)") == "reproduced"


def test_difference_within_the_noise_is_not_distinguishable():
    noise = np.random.default_rng(0).normal(0, 0.05, 10)
    rows = _changed("iterative", _grid(), lambda row: {"accuracy": 0.9 + noise[row["seed"]]})
    rows = _changed("one_shot_random", rows, lambda row: {"accuracy": 0.9 + noise[row["seed"] - 1]})
    assert _verdict(rows, "At ratio 0.9 iterative") == "not distinguishable"


def test_seeds_are_compared_in_pairs():
    # each seed differs by 0.05 from the next, but iterative beats random by 0.01 in every one of them
    level = {seed: 0.5 + 0.05 * seed for seed in range(10)}
    wobble = {seed: 0.001 * (seed % 2) for seed in range(10)}
    rows = _changed("iterative", _grid(), lambda row: {"accuracy": level[row["seed"]] + 0.01 + wobble[row["seed"]]})
    rows = _changed("one_shot_random", rows, lambda row: {"accuracy": level[row["seed"]]})
    assert _verdict(rows, "At ratio 0.9 iterative") == "reproduced"


def test_another_strategy_falling_first_refutes_random_falls_first():
    rows = _changed("one_shot_random", _grid(), lambda row: {"accuracy": 0.97})
    assert _verdict(rows, "Random re-initialisation loses accuracy first") == "not reproduced"


def test_worse_calibration_at_every_ratio_is_not_reproduced():
    rows = _changed("one_shot", _grid(), lambda row: {"ece": 0.06} if row["ratio"] else {})
    assert _verdict(rows, "Calibration is not worse") == "not reproduced"
    assert _verdict(rows, "Pruning improves calibration") == "not reproduced"


def test_failed_trials_count_in_no_claim():
    rows = [{**row, "status": "failed"} if row["seed"] >= 2 else row for row in _grid()]
    assert set(_verdicts(rows).values()) == {"not enough seeds"}


def test_interval_is_students():
    from scipy import stats

    values = [0.1, 0.4, 0.2, 0.5]
    wanted = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert claims.interval(values) == pytest.approx(wanted)


def test_data_sets_unknown_to_the_paper_are_held_against_its_general_claims_alone():
    texts = " ".join(_verdicts(_grid(dataset="mine")))
    assert "reaches an accuracy" not in texts
    assert "Epochs to the early stop rise" in texts


def test_reliability_is_pooled_by_counts_and_empty_bins_stay_empty():
    first = {
        "reliability_count": [0, 10, 0],
        "reliability_confidence": [None, 0.5, None],
        "reliability_accuracy": [None, 0.4, None],
    }
    second = {
        "reliability_count": [0, 30, 5],
        "reliability_confidence": [None, 0.6, 0.9],
        "reliability_accuracy": [None, 0.8, 1.0],
    }
    count, confidence, accuracy = report.pool_reliability([first, second])
    np.testing.assert_array_equal(count, [0, 40, 5])
    np.testing.assert_allclose(confidence, [np.nan, 0.575, 0.9])
    np.testing.assert_allclose(accuracy, [np.nan, 0.7, 1.0])


def test_summary_gives_mean_and_sample_standard_deviation():
    rows = [_row("one_shot", 0.5, seed, accuracy=value) for seed, value in enumerate([0.1, 0.2, 0.6])]
    [cell] = report.summarise(rows)
    assert cell["num_seeds"] == 3
    assert cell["accuracy"] == pytest.approx((0.3, np.sqrt((0.04 + 0.01 + 0.09) / 2)))
    assert report.summarise(rows[:1])[0]["accuracy"] == (0.1, None)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report on a small grid with one failed trial."""
    folder = tmp_path_factory.mktemp("report")
    key = "moons mlp one_shot ratio=0.9 seed=9"
    with Results(folder) as results:
        for row in _grid(seeds=3, ratios=(0.0, 0.6, 0.9)):
            results.append(row)
        results.append(_row("one_shot", 0.9, 9, key=key, status="failed", error="ValueError: <b>too small</b>"))
    return study.write_report(folder).read_text(encoding="utf-8")


def test_report_needs_no_network(page):
    assert not re.search(r"https?://|<script|<link|@import", page)
    assert re.findall(r'src="([^"]{20})', page) == ["data:image/svg+xml;b"] * 5


def test_report_draws_each_strategy_with_its_error_bars(page):
    images = [base64.b64decode(data).decode() for data in re.findall(r"base64,([^\"]+)", page)]
    assert all(color in image.upper() for image in images for color in ("#0072B2", "#009E73", "#D55E00", "#CC79A7"))
    # an error bar is a LineCollection; each is there twice, once in the legend
    assert all(image.count("LineCollection") == 8 for image in images[:4])


def test_report_lists_failed_trials_with_their_reason_as_text(page):
    assert "1 failed" in page
    assert "ValueError: &lt;b&gt;too small&lt;/b&gt;" in page
    assert "moons mlp one_shot ratio=0.9 seed=9" in page


def test_report_holds_the_claims_and_the_cost_table(page):
    assert page.count('class="verdict') == len(claims.judge(_grid(seeds=3, ratios=(0.0, 0.6, 0.9))))
    assert "10.00" in page  # compression ratio at ratio 0.9
    assert "theoretical<br>speed-up" in page


def test_report_on_failures_alone_says_so(tmp_path):
    with Results(tmp_path) as results:
        results.append({"key": "k", "strategy": "one_shot", "ratio": 0.5, "seed": 0, "status": "failed", "error": "x"})
    assert "No finished trials" in study.write_report(tmp_path).read_text(encoding="utf-8")


def test_report_is_not_drawn_from_an_empty_folder(tmp_path):
    with pytest.raises(study.ResultsError, match=r"holds no results\.jsonl"):
        study.write_report(tmp_path)
