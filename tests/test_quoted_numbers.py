"""Are the numbers that README and documentation quote those of the committed rows?"""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("quote", ROOT / "docs" / "quote.py")
quote = importlib.util.module_from_spec(spec)
spec.loader.exec_module(quote)

ACCURACY = {0.0: [0.90, 0.92, 0.94], 0.8: [0.91, 0.90, 0.905]}
DROPS = np.array(ACCURACY[0.8]) - np.array(ACCURACY[0.0])


@pytest.fixture(scope="module")
def quotes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    rows = [
        {"key": f"{ratio} {seed}", "strategy": "one_shot", "ratio": ratio, "seed": seed, "status": "done",
         "accuracy": accuracy, "dense_accuracy": ACCURACY[0.0][seed], "ece": 0.02, "dense_ece": 0.05 + seed / 1000,
         "shift/fog/1/accuracy": 0.9, "shift/fog/5/accuracy": accuracy / 2, "shift/rain/5/accuracy": accuracy / 4,
         "far/auroc_msp": 0.7 + seed / 10, "near/auroc_msp": 0.5, "far/auroc_knn": 0.6, "near/auroc_knn": 0.5,
         "dense_far/auroc_msp": 0.9, "dense_near/auroc_msp": 0.4,
         "dense_far/auroc_knn": 0.6, "dense_near/auroc_knn": 0.3}
        for ratio, values in ACCURACY.items()
        for seed, accuracy in enumerate(values)
    ]  # fmt: skip
    rows.append({"key": "failed", "strategy": "one_shot", "ratio": 0.8, "seed": 3, "status": "failed"})
    (folder / "tiny").mkdir()
    (folder / "tiny" / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return quote.Quotes(folder)


@pytest.mark.parametrize("path", quote.documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_quoted_number_is_what_the_rows_say(path):
    """Where this fails: `python docs/quote.py` writes the values of today, which are then to be read again."""
    _, stale = quote.fill(path.read_text(encoding="utf-8"), quote.Quotes(ROOT / "results"))
    assert not stale


def test_marks_come_in_pairs():
    for path in quote.documents():
        text = path.read_text(encoding="utf-8")
        assert text.count("<!-- results:") == text.count("<!-- /results -->") == len(quote.MARK.findall(text)), path


def test_no_mark_tears_its_paragraph_apart():
    """To Markdown a line that begins with a comment is HTML: what stands behind the comment shows as it is written."""
    for path in quote.documents():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            begins = re.match(r" {0,3}<!--", line)
            alone = re.fullmatch(r" {0,3}<!--((?!-->).)*-->(not measured yet<!-- /results -->)?", line)
            assert not begins or alone, f"{path.relative_to(ROOT)}:{number}: begin the line with a word"


WHERE = '"tiny", "accuracy", ratio=0.8'
EXPECTED = {
    f"mean({WHERE})": "0.905",
    f'mean({WHERE}, format=".1%")': "90.5%",
    f"spread({WHERE})": f"{np.std(ACCURACY[0.8], ddof=1):.3f}",
    f"smallest({WHERE})": "0.900",
    f"largest({WHERE})": "0.910",
    f"total({WHERE})": "2.715",
    'count("tiny")': "6",
    'count("tiny", ratio=(0.8, 0.9), seed=1)': "1",
    'distinct("tiny", "seed")': "3",
    f"difference({WHERE})": f"{DROPS.mean():.3f}",
    f"low({WHERE})": f"{DROPS.mean() - stats.t.ppf(0.975, 2) * DROPS.std(ddof=1) / 3**0.5:.3f}",
    f"high({WHERE})": f"{DROPS.mean() + stats.t.ppf(0.975, 2) * DROPS.std(ddof=1) / 3**0.5:.3f}",
    f"verdict({WHERE})": "not distinguishable",
    'verdict("tiny", "ece", better="lower", ratio=0.8)': "better",
    'verdict("tiny", "ece", ratio=0.8)': "worse",
    'shifted("tiny", "accuracy", 5, ratio=0.8)': f"{0.905 * 3 / 8:.3f}",
}


@pytest.mark.parametrize("expression", EXPECTED)
def test_question_gets_the_answer_computed_by_hand(expression, quotes):
    assert quotes.text(expression) == EXPECTED[expression]


def test_table_has_a_line_for_each_ratio_with_mean_and_spread(quotes):
    assert quotes.text('table("tiny", "accuracy")').strip().splitlines() == [
        "| ratio | `one_shot` |",
        "| --- | --- |",
        "| 0 | 0.920 ± 0.020 |",
        "| 0.8 | 0.905 ± 0.005 |",
    ]


def test_aurocs_have_a_line_for_each_detector_and_a_column_for_each_strange_set(quotes):
    assert quotes.text('aurocs("tiny", ratio=0.8)').strip().splitlines() == [
        "| detector | far | near |",
        "| --- | --- | --- |",
        "| `msp` | 0.90 → 0.80 | 0.40 → 0.50 |",
        "| `knn` | 0.60 → 0.60 | 0.30 → 0.50 |",
    ]


def test_claims_are_those_of_the_report(quotes):
    from tfprune.study import claims

    text = quotes.text('claims("tiny")')
    found = claims.judge(quotes.rows("tiny"))
    assert found
    assert all(f"| {claim.text} | {claim.measured} | **{claim.verdict}** |" in text for claim in found)


def test_claims_of_two_models_are_not_judged_together():
    with pytest.raises(ValueError, match="of several data sets or models"):
        quote.Quotes(ROOT / "results").text('claims("regression")')


def test_study_without_rows_is_not_measured_yet(quotes):
    assert quotes.text('mean("moons", "accuracy")') == "not measured yet"


def test_filling_writes_what_is_stale_and_is_then_content(quotes):
    text = 'It reaches <!-- results: mean("tiny", "accuracy", ratio=0.8) -->0.9<!-- /results --> there.'
    filled, stale = quote.fill(text, quotes)
    assert "-->0.905<!--" in filled
    assert len(stale) == 1
    assert quote.fill(filled, quotes) == (filled, [])


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ('__import__("os").system("true")', "one call of constants"),
        ('mean("tiny", open("x"))', "one call of constants"),
        ('median("tiny", "accuracy")', "Expected one of aurocs, claims"),
        ('mean("tiny", "accurate")', "lack 'accurate'"),
        ('shifted("tiny", "accuracy", 6)', "no 'accuracy' at severity 6"),
        ('mean("tiny", "accuracy", ratio=0.5)', "No finished row of 'tiny'"),
    ],
)
def test_what_cannot_be_answered_is_refused(expression, message, quotes):
    with pytest.raises(ValueError, match=message):
        quotes.text(expression)


def test_every_question_of_the_text_can_be_asked():
    assert all(name in quote.__doc__ and callable(getattr(quote.Quotes, name)) for name in quote.NAMES)
