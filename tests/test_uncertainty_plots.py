"""Do the pictures of confidence, coverage, detection, shift and harm show the numbers they are given?"""

import itertools

import numpy as np
import pytest
from matplotlib import colors, pyplot
from scipy import stats

import tfprune
from tfprune import metrics
from tfprune.comparison import compare
from tfprune.plots import canvas

R = np.random.RandomState(7)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def row(count=(0, 10, 20, 70), confidence=(None, 0.4, 0.6, 0.9), accuracy=(None, 0.5, 0.5, 0.8), ece=0.125):
    return {
        "ece": ece,
        "reliability_count": list(count),
        "reliability_confidence": list(confidence),
        "reliability_accuracy": list(accuracy),
    }


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def line(ax, label):
    """The one line whose legend entry begins so."""
    (found,) = [line for line in ax.lines if line.get_label().startswith(label)]
    return found


def lightness(colour):
    """CIE L*, 0 for black to 100 for white."""
    rgb = np.array(colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


# What holds for all ------------------------------------------------------------------------------------------------

CURVE = {"coverage": [0.25, 0.5, 0.75, 1.0], "risk": [0.0, 0.0, 0.0, 0.25]}
TABLE = {"nominal": [0.0, 0.5, 1.0], "observed": [0.0, 0.3, 1.0]}
SHIFT = [
    {"model": model, "corruption": corruption, "severity": severity, "ece": 0.1 + 0.1 * severity * scale * factor}
    for model, factor in (("dense", 1), ("pruned", 2))
    for corruption, scale in (("fog", 0.5), ("snow", 1.0), ("blur", 1.5))
    for severity in range(6)
]
HARM = {
    "class": ["cat", "dog", "frog"],
    "recall_change": [0.1, -0.3, -0.1],
    "recall_low": [0.0, -0.4, -0.2],
    "recall_high": [0.2, -0.2, 0.05],
    "recall_p": [0.2, 0.001, 0.05],
}
IMAGES = R.rand(2, 8, 8, 3)
GIVEN = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
KNOWN, SCORES = R.randn(300), {"near": R.randn(300) + 1, "far": R.randn(200) + 4}

CASES = {
    "reliability": lambda **o: tfprune.plots.draw_reliability(row(), **o),
    "reliability of two": lambda **o: tfprune.plots.draw_reliability({"dense": row(), "pruned": row(ece=0.2)}, **o),
    "regression": lambda **o: tfprune.plots.draw_regression_reliability({"dense": TABLE, "pruned": TABLE}, **o),
    "risk": lambda **o: tfprune.plots.draw_risk_coverage({"dense": CURVE, "pruned": CURVE}, optimal=True, **o),
    "roc": lambda **o: tfprune.plots.draw_roc(KNOWN, SCORES, **o),
    "histograms": lambda **o: tfprune.plots.draw_score_histograms(KNOWN, SCORES, **o),
    "confidences": lambda **o: tfprune.plots.draw_confidences(IMAGES, {"dense": GIVEN, "pruned": GIVEN}, [0, 1], **o),
    "shift": lambda **o: tfprune.plots.draw_shift(SHIFT, **o),
    "harm": lambda **o: tfprune.plots.draw_harm(HARM, **o),
}


@pytest.mark.parametrize("name", CASES)
def test_axes_given_are_drawn_on_and_returned_and_no_window_opens(name, monkeypatch):
    monkeypatch.setattr(pyplot, "show", lambda *args, **options: pytest.fail("a window was opened"))
    pyplot.close("all")  # what tests of other modules left open
    ours, other = pyplot.subplots(1, 2)[1]
    assert CASES[name](ax=ours, title="a title") is ours
    assert ours.get_title() == "a title"
    assert ours.has_data() or ours.child_axes
    assert not other.has_data()
    assert len(pyplot.get_fignums()) == 1


@pytest.mark.parametrize("name", CASES)
def test_without_axes_there_is_a_figure_in_which_all_text_can_be_read(name):
    ax = CASES[name](title="a title")
    ax.figure.canvas.draw()
    assert ax.figure.axes == [ax]
    page = ax.figure.bbox.padded(1)
    texts = [text for text in ax.findobj(pyplot.Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 8
    for part in (ax, *ax.child_axes):
        box = part.get_tightbbox()
        np.testing.assert_array_less([page.x0, page.y0], box.min, "cut off on the left or below")
        np.testing.assert_array_less(box.max, [page.x1, page.y1], "cut off on the right or above")


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("confidences", "histograms")])
def test_axes_have_labels(name):
    ax = CASES[name]()
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_four_models_stay_apart_in_grey_print():
    shades = sorted(lightness(canvas.colour_of(index)) for index in range(4))
    assert min(np.diff(shades)) > 10
    assert max(lightness(colour) for colour in canvas.COLOURS) < 75, "too light for a line on white"


def test_many_models_never_share_marker_and_line_and_colour():
    looks = {str([canvas.line_style(index)[key] for key in ("color", "marker", "linestyle")]) for index in range(50)}
    assert len(looks) == 50
    for a, b in itertools.combinations(range(8), 2):
        assert canvas.line_style(a)["marker"] != canvas.line_style(b)["marker"]


@pytest.mark.parametrize("name", ["reliability of two", "regression", "risk", "roc", "shift"])
def test_lines_of_two_models_differ_without_colour(name):
    models = [line for line in CASES[name]().lines if line.get_marker() not in ("None", "", None)]
    assert len(models) == 2
    assert models[0].get_marker() != models[1].get_marker()
    assert models[0].get_linestyle() != models[1].get_linestyle()
    assert abs(lightness(models[0].get_color()) - lightness(models[1].get_color())) > 10


# Reliability -------------------------------------------------------------------------------------------------------


def test_reliability_has_jeffreys_interval_of_each_bin():
    ax = tfprune.plots.draw_reliability(row(), level=0.9)
    drawn = [segment[:, 1] for segment in ax.collections[0].get_segments()]
    expected = [stats.beta.ppf([0.05, 0.95], right + 0.5, wrong + 0.5) for right, wrong in ((5, 5), (10, 10), (56, 14))]
    np.testing.assert_allclose(drawn, expected, atol=1e-12)
    assert "accuracy, 90 % interval" in labels(ax)


def test_interval_reaches_one_where_all_are_right_and_zero_where_all_are_wrong():
    ax = tfprune.plots.draw_reliability(row([1, 3, 0], [0.2, 0.5, None], [0.0, 1.0, None]))
    (wrong, right) = [segment[:, 1] for segment in ax.collections[0].get_segments()]
    # 0.975 of Beta(0.5, 1.5), 0.025 of Beta(3.5, 0.5)
    np.testing.assert_allclose(wrong, [0.0, 0.8532537], atol=1e-6)
    np.testing.assert_allclose(right, [0.4644168, 1.0], atol=1e-6)


def test_narrow_interval_still_holds_the_accuracy():
    ax = tfprune.plots.draw_reliability(row([10, 0, 0, 0], [0.2, None, None, None], [0.1, None, None, None]), level=0.1)
    ((low, high),) = [segment[:, 1] for segment in ax.collections[0].get_segments()]
    assert low == pytest.approx(0.1), "Beta(1.5, 9.5) has its quantile 0.45 above 0.1"
    assert high == pytest.approx(stats.beta.ppf(0.55, 1.5, 9.5))


def test_mean_confidence_that_rounds_above_one_is_drawn():
    ax = tfprune.plots.draw_reliability(row([0, 0, 0, 5], [None, None, None, 1.0000001], [None, None, None, 1.0]))
    assert ax.lines[0].get_xydata().tolist() == [[1.0, 1.0]]


def test_reliability_without_interval():
    ax = tfprune.plots.draw_reliability(row(), level=None)
    assert not ax.collections
    assert labels(ax) == ["calibrated", "accuracy"]


def test_strip_shows_the_share_of_each_bin_below_the_accuracies():
    ax = tfprune.plots.draw_reliability(row())
    (strip,) = ax.child_axes
    np.testing.assert_allclose(strip.patches[0].get_data().values, [0, 0.1, 0.2, 0.7])
    assert strip.texts[0].get_text() == "samples per bin, at most 70 % of 100"
    ax.figure.canvas.draw()
    top = ax.transData.inverted().transform(strip.get_window_extent().corners())[:, 1].max()
    assert ax.get_ylim()[0] < top < 0


def test_several_rows_are_lines_with_bands_and_outlined_counts():
    other = row([30, 30, 40, 0], [0.2, 0.4, 0.6, None], [0.3, 0.4, 0.5, None], ece=0.07)
    ax = tfprune.plots.draw_reliability({"dense": row(), "pruned": other})
    assert line(ax, "dense").get_xydata().tolist() == [[0.4, 0.5], [0.6, 0.5], [0.9, 0.8]]
    assert line(ax, "pruned").get_xydata().tolist() == [[0.2, 0.3], [0.4, 0.4], [0.6, 0.5]]
    assert labels(ax) == ["dense: ECE 0.125", "pruned: ECE 0.070", "calibrated"]
    assert not ax.patches
    low, high = stats.beta.ppf([0.025, 0.975], 5.5, 5.5)
    corners = ax.collections[0].get_paths()[0].vertices
    assert np.isclose(corners, [0.4, low]).all(axis=1).any()
    assert np.isclose(corners, [0.4, high]).all(axis=1).any()
    strip = ax.child_axes[0]
    assert [patch.get_data().values.tolist() for patch in strip.patches] == [[0, 0.1, 0.2, 0.7], [0.3, 0.3, 0.4, 0]]
    assert ax.get_title() == ""


def test_counts_of_different_size_are_compared_as_shares():
    ax = tfprune.plots.draw_reliability({"small": row([0, 1, 2, 7]), "large": row()})
    assert ax.child_axes[0].texts[0].get_text() == "samples per bin, at most 70 %"


@pytest.mark.parametrize(("accuracy", "below"), [(0.9, True), (0.2, False)])
def test_legend_of_reliability_makes_way_for_underconfident_bins(accuracy, below):
    ax = tfprune.plots.draw_reliability(row([10, 10, 0, 0], [0.2, 0.4, None, None], [accuracy, accuracy, None, None]))
    ax.figure.canvas.draw()
    middle = ax.transAxes.inverted().transform(ax.get_legend().get_window_extent().corners()).mean(axis=0)
    assert (middle[1] < 0.5) == below


def test_reliability_of_evaluate_is_drawn():
    class Uniform:
        def predict(self, x, **options):
            return np.tile([[0.75, 0.25]], (len(x), 1))

    found = tfprune.evaluate(Uniform(), (np.zeros((8, 2)), np.array([0] * 6 + [1] * 2)), from_logits=False)
    ax = tfprune.plots.draw_reliability(found)
    assert [bar.get_height() for bar in ax.patches] == [0.75]
    assert ax.lines[0].get_xydata().tolist() == [[0.75, 0.75]]
    assert ax.get_title() == "ECE 0.000"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "at least one of: the row that tfprune.evaluate returned. Received: an empty dict"),
        ({"ece": 0.1}, r"no 'reliability_count', 'reliability_confidence', .* among \['ece'\]"),
        ({"dense": row(), "pruned": {}}, "Received for 'pruned': no 'ece'"),
        (row(count=[0, 0, 0, 0]), "must hold samples. Received: 4 empty bins"),
        (row(count=[1, 2]), "must be equally long. Received: lengths reliability_count 2, reliability_confidence 4"),
        (row(count=[1, 10, 20, 70]), "reliability_confidence where a bin holds samples must be in .*Received: nan"),
        (row(accuracy=[None, 0.5, 1.5, 0.8]), r"reliability_accuracy .* must be in \[0, 1\]. Received: 1.5"),
        (row(count=[0, -10, 20, 70]), r"reliability_count must be in \[0, inf\]. Received: -10"),
    ],
)
def test_row_that_cannot_be_drawn_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        tfprune.plots.draw_reliability(given)


def test_level_in_percent_and_rows_as_list_are_refused():
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), or None. Received: level=95"):
        tfprune.plots.draw_reliability(row(), level=95)
    with pytest.raises(TypeError, match=r"or a dict of them\. Received: list"):
        tfprune.plots.draw_reliability([row()])


# Regression --------------------------------------------------------------------------------------------------------


def test_regression_curve_is_the_coverage_table_and_its_gap_the_calibration_error():
    random = np.random.RandomState(2)
    x = random.uniform(0, 6, 1000)
    mean, std = np.sin(x), 0.1 + 0.1 * x
    targets = mean + std * random.randn(1000)
    table = metrics.coverage_table(mean, 0.7 * std, targets)
    ax = tfprune.plots.draw_regression_reliability({"golden": table})
    drawn = line(ax, "golden")
    np.testing.assert_array_equal(drawn.get_xydata(), np.transpose([table["nominal"], table["observed"]]))
    assert drawn.get_label() == "golden: mean gap 0.098", "0.09798 in the verification table"
    assert line(ax, "calibrated").get_xydata().tolist() == [[0, 0], [1, 1]]


def test_overconfident_coverage_is_filled_with_stripes_and_underconfident_with_dots():
    def hatches(observed):
        ax = tfprune.plots.draw_regression_reliability({"nominal": [0.0, 0.5, 1.0], "observed": observed})
        assert {"too wide: under-confident", "too narrow: over-confident"} <= {text.get_text() for text in ax.texts}
        return {area.get_hatch() for area in ax.collections} - {None}

    assert hatches([0.0, 0.3, 1.0]) == {"////"}
    assert hatches([0.0, 0.7, 1.0]) == {"...."}
    assert hatches([0.0, 0.5, 1.0]) == set()


def test_several_tables_are_not_filled():
    ax = tfprune.plots.draw_regression_reliability({"dense": TABLE, "pruned": TABLE})
    assert not ax.collections
    assert labels(ax) == ["calibrated", "dense: mean gap 0.067", "pruned: mean gap 0.067"]


def test_quantiles_are_named_as_such():
    ax = tfprune.plots.draw_regression_reliability(TABLE, kind="quantile")
    assert "quantile" in ax.get_xlabel()
    assert [text.get_text() for text in ax.texts] == ["quantile too high", "quantile too low"]


def test_row_of_a_regression_is_drawn_as_its_coverage_table():
    given = {"crps": 0.3, "coverage_nominal": TABLE["nominal"], "coverage_observed": TABLE["observed"]}
    ax = tfprune.plots.draw_regression_reliability(given)
    assert line(ax, "mean gap").get_xydata().tolist() == [[0.0, 0.0], [0.5, 0.3], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({"nominal": [0, 1]}, {}, r"no 'observed' among \['nominal'\]"),
        ({"nominal": [0, 1], "observed": [0, 0.5, 1]}, {}, "equally long. Received: lengths nominal 2, observed 3"),
        (
            {"nominal": [0, 1], "observed": [0, np.nan]},
            {},
            r"observed must be in \[0, 1\]. Received: nan at position 1",
        ),
        ({"nominal": [1, 0], "observed": [0, 1]}, {}, "nominal must rise"),
        ({"a": {"nominal": [0, 90], "observed": [0, 1]}}, {}, r"nominal of 'a' must be in \[0, 1\]. Received: 90"),
        ({"nominal": [], "observed": []}, {}, "at least one number"),
        (TABLE, {"kind": "band"}, "kind must be one of 'interval', 'quantile'. Received: kind='band'"),
    ],
)
def test_coverage_that_cannot_be_drawn_is_refused(given, options, message):
    with pytest.raises(ValueError, match=message):
        tfprune.plots.draw_regression_reliability(given, **options)


# Risk and coverage -------------------------------------------------------------------------------------------------


def test_risk_coverage_draws_the_curve_with_its_area():
    ax = tfprune.plots.draw_risk_coverage({"dense": {**CURVE, "aurc": 0.0625}, "pruned": CURVE})
    expected = [[0.25, 0], [0.5, 0], [0.75, 0], [1, 0.25]]
    assert line(ax, "dense").get_xydata().tolist() == line(ax, "pruned").get_xydata().tolist() == expected
    assert labels(ax) == ["dense: AURC 0.0625", "pruned"]


def test_optimal_curve_has_the_optimal_aurc():
    correct = np.array([1, 0, 1, 1, 0, 1, 1, 1, 1, 0])
    table = metrics.risk_coverage_table(np.linspace(1, 0.1, 10), correct)
    ax = tfprune.plots.draw_risk_coverage(table, optimal=True)
    best = line(ax, "thin")
    at_samples = np.interp(np.arange(1, 11) / 10, *best.get_xydata().T)
    assert at_samples.mean() == pytest.approx(metrics.optimal_aurc(correct), abs=1e-6)
    assert best.get_xydata()[-1].tolist() == [1.0, pytest.approx(0.3)]
    assert best.get_linewidth() < line(ax, "model").get_linewidth()


def test_legend_of_risk_coverage_stands_above_flat_curves():
    flat = {"coverage": np.linspace(0.01, 1, 100), "risk": np.full(100, 0.4)}
    ax = tfprune.plots.draw_risk_coverage({str(index): flat for index in range(6)})
    ax.figure.canvas.draw()
    lowest = ax.transData.inverted().transform(ax.get_legend().get_window_extent().corners())[:, 1].min()
    assert lowest > 0.4


def test_markers_of_thousands_of_samples_do_not_run_together():
    curve = {"coverage": np.arange(1, 5001) / 5000, "risk": np.linspace(0, 0.3, 5000)}
    ax = tfprune.plots.draw_risk_coverage({"dense": curve, "pruned": curve})
    marked = [drawn.get_markevery() for drawn in ax.lines]
    assert [len(places) for places in marked] == [10, 10]
    assert not set(marked[0]) & set(marked[1])


def test_curve_without_errors_is_drawn():
    ax = tfprune.plots.draw_risk_coverage({"coverage": [0.5, 1.0], "risk": [0.0, 0.0]}, optimal=True)
    assert ax.get_ylim()[0] < 0 < ax.get_ylim()[1]
    assert set(line(ax, "thin").get_ydata()) == {0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coverage": [0.5, 1]}, "no 'risk'"),
        ({"coverage": [0.5, 1], "risk": [0.1]}, "equally long"),
        ({"coverage": [1, 0.5], "risk": [0.1, 0.1]}, "coverage must rise from point to point"),
        ({"a": {"coverage": [0.5, 1], "risk": [0.1, None]}}, "risk of 'a' must be .* Received: nan"),
        ({"coverage": [0.5, 0.9], "risk": [0.1, 0.1]}, "error rate at coverage 1. Received: coverage 0.9"),
        ({"coverage": [0.5, 1], "risk": [[0.1], [0.1]]}, r"flat list of at least one number. Received: shape \(2, 1\)"),
        ({"coverage": [0.5, 1], "risk": ["a", "b"]}, r"must be a flat list of numbers. Received: \['a', 'b'\]"),
    ],
)
def test_risk_that_cannot_be_drawn_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        tfprune.plots.draw_risk_coverage(given, optimal=True)


# Detection ---------------------------------------------------------------------------------------------------------


def test_roc_steps_through_hand_made_scores_and_marks_fpr95():
    # Thresholds 4, 3, 2, 1: strangers 4, 2 and known 3, 1.
    ax = tfprune.plots.draw_roc([1, 3], [2, 4])
    curve = line(ax, "AUROC")
    assert curve.get_xydata().tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert curve.get_label() == "AUROC 0.750, FPR95 0.500"
    assert curve.get_markevery() == [3]


@pytest.mark.parametrize("decimals", [8, 1])
def test_legend_of_roc_has_the_numbers_of_the_metrics(decimals):
    random = np.random.RandomState(1)
    known, strangers = np.round(random.randn(1000), decimals), np.round(random.randn(500) + 1, decimals)
    found = metrics.detection(known, strangers)
    numbers = [value for key, value in found.items() if key in ("auroc", "fpr95")]
    ax = tfprune.plots.draw_roc(known, {"golden": strangers})
    assert line(ax, "golden").get_label() == "golden: AUROC {:.3f}, FPR95 {:.3f}".format(*numbers)
    (marked,) = line(ax, "golden").get_markevery()
    assert line(ax, "golden").get_xdata()[marked] == pytest.approx(numbers[1])
    assert line(ax, "golden").get_ydata()[marked] >= 0.95


def test_fpr95_is_read_at_every_threshold_also_on_a_straight_line():
    # TPR 37/40, 38/40, 39/40, 1 at FPR 0, 1/3, 2/3, 1: the middle two lie on the line between the others.
    ax = tfprune.plots.draw_roc([5, 4, 3], [9] * 37 + [5, 4, 3])
    assert line(ax, "AUROC").get_label().endswith("FPR95 0.333")


def test_each_model_may_have_known_scores_of_its_own():
    ax = tfprune.plots.draw_roc({"dense": [0, 1], "pruned": [5, 6]}, {"pruned": [3, 4], "dense": [3, 4]})
    assert line(ax, "dense").get_label() == "dense: AUROC 1.000, FPR95 0.000"
    assert line(ax, "pruned").get_label() == "pruned: AUROC 0.000, FPR95 1.000"


def test_histograms_share_their_bins_and_show_shares():
    ax = tfprune.plots.draw_score_histograms([0, 1, 1, 2], {"far": [3, 4]}, num_bins=4)
    known, far = ax.patches
    assert known.get_data().values.tolist() == [25, 50, 25, 0]
    assert far.get_data().values.tolist() == [0, 0, 0, 100]
    assert known.get_data().edges.tolist() == far.get_data().edges.tolist() == [0, 1, 2, 3, 4]
    assert labels(ax) == ["in-distribution (4)", "far (2)"]


def test_histograms_differ_by_hatch_and_line_and_leave_room_for_the_legend():
    ax = tfprune.plots.draw_score_histograms(KNOWN, {str(index): KNOWN + index / 4 for index in range(5)})
    assert not ax.patches[0].get_hatch(), "known data is filled, not hatched"
    assert len({patch.get_hatch() for patch in ax.patches}) == 6
    assert len({str(patch.get_linestyle()) for patch in ax.patches[1:]}) == 5
    ax.figure.canvas.draw()
    lowest = ax.transData.inverted().transform(ax.get_legend().get_window_extent().corners())[:, 1].min()
    assert lowest > max(patch.get_data().values.max() for patch in ax.patches)


def test_equal_scores_are_drawn():
    ax = tfprune.plots.draw_score_histograms([1.0, 1.0], [1.0])
    assert [patch.get_data().values.sum() for patch in ax.patches] == [100, 100]


@pytest.mark.parametrize("draw", [tfprune.plots.draw_roc, tfprune.plots.draw_score_histograms])
@pytest.mark.parametrize(
    ("known", "strangers", "message"),
    [
        ([], [1.0], "id_scores must be a flat list of at least one number"),
        ([1.0], {}, "ood_scores must hold at least one set of scores. Received: an empty dict"),
        ([1.0], {"far": [np.inf]}, r"ood_scores\['far'\] must be finite. Received: inf at position 0"),
        ([1.0, np.nan], [1.0], "id_scores must be finite. Received: nan at position 1"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(draw, known, strangers, message):
    with pytest.raises(ValueError, match=message):
        draw(known, strangers)


def test_scores_of_other_names_and_no_bins_are_refused():
    with pytest.raises(ValueError, match=r"must have the same names.*Received: \['a'\] and \['b'\]"):
        tfprune.plots.draw_roc({"a": [1.0]}, {"b": [2.0]})
    with pytest.raises(ValueError, match=r"num_bins must be at least 1\. Received: num_bins=0"):
        tfprune.plots.draw_score_histograms([1.0], [2.0], num_bins=0)


# Confidences -------------------------------------------------------------------------------------------------------


def panels(ax, num_models):
    """Rows of (image, panel of each model)."""
    return [ax.child_axes[start : start + num_models + 1] for start in range(0, len(ax.child_axes), num_models + 1)]


def widths(panel):
    return [bar.get_width() for bar in panel.patches]


def test_each_image_has_its_bars_for_each_model():
    pruned = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])
    ax = tfprune.plots.draw_confidences(IMAGES, {"dense": GIVEN, "pruned": pruned}, [0, 1], ["cat", "dog", "frog"])
    rows = panels(ax, 2)
    assert [[widths(panel) for panel in row[1:]] for row in rows] == [
        [[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]],
        [[0.1, 0.3, 0.6], [0.0, 1.0, 0.0]],
    ]
    np.testing.assert_array_equal(rows[1][0].images[0].get_array(), IMAGES[1])
    assert [row[0].get_title() for row in rows] == ["cat", "dog"]
    assert [[panel.get_title() for panel in row[1:]] for row in rows] == [
        ["cat: 70 %", "frog: 50 %, wrong"],
        ["frog: 60 %, wrong", "dog: 100 %"],
    ]
    assert [text.get_text() for text in ax.texts] == ["dense", "pruned"]
    assert [text.get_text() for text in rows[0][1].get_yticklabels()] == ["cat", "dog", "frog"]


def test_true_class_is_hatched_and_its_name_bold():
    ax = tfprune.plots.draw_confidences(IMAGES, GIVEN, [2, 1])
    for (_, panel), true_class in zip(panels(ax, 1), (2, 1), strict=True):
        hatched = [bool(bar.get_hatch()) for bar in panel.patches]
        bold = [text.get_fontweight() == "bold" for text in panel.get_yticklabels()]
        assert hatched == bold == [index == true_class for index in range(3)]


def test_name_of_a_stranger_is_shown_and_no_answer_called_wrong():
    ax = tfprune.plots.draw_confidences(IMAGES, GIVEN, ["maple", "dog"], ["cat", "dog", "frog"])
    (stranger, first), (_, second) = panels(ax, 1)
    assert stranger.get_title() == "maple"
    assert first.get_title() == "cat: 70 %"
    assert not any(bar.get_hatch() for bar in first.patches)
    assert second.get_title() == "frog: 60 %, wrong", "this one is a class"


def test_column_of_labels_is_read_as_labels():
    ax = tfprune.plots.draw_confidences(IMAGES, GIVEN, np.array([[0], [1]], "uint8"))
    assert [picture.get_title() for picture, _ in panels(ax, 1)] == ["0", "1"]


def test_without_labels_nothing_is_said_of_right_or_wrong():
    ax = tfprune.plots.draw_confidences(IMAGES, GIVEN)
    assert [panel.get_title() for _, panel in panels(ax, 1)] == ["0: 70 %", "2: 60 %"]


def test_of_a_hundred_classes_ten_are_shown_among_them_the_true_one_and_each_models_first():
    given = np.full((2, 1, 100), 1e-3)
    given[0, 0, 60], given[1, 0, 70] = 0.901, 0.901
    ax = tfprune.plots.draw_confidences(IMAGES[:1], {"dense": given[0], "pruned": given[1]}, [90])
    ((_, dense, pruned),) = panels(ax, 2)
    names = [text.get_text() for text in dense.get_yticklabels()]
    assert len(names) == 10
    assert {"60", "70", "90"} <= set(names)
    assert names == sorted(names, key=int)
    assert widths(dense)[names.index("60")] == widths(pruned)[names.index("70")] == 0.901


@pytest.mark.parametrize("size", [1, 3])
def test_nothing_on_the_page_overlaps(size):
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    random = np.random.RandomState(0)
    given = {f"pruned 0.{index}": random.dirichlet(np.ones(10), 4) for index in range(size)}
    ax = tfprune.plots.draw_confidences(random.rand(4, 32, 32, 3), given, [1, 2, 3, 4], names, title="CIFAR-10")
    ax.figure.canvas.draw()
    boxes = [part.get_tightbbox() for part in ax.child_axes]
    texts = [text.get_window_extent() for text in (*ax.texts, ax.title)]
    for one, other in itertools.combinations([*boxes, *texts], 2):
        assert one.x1 - other.x0 < 3 or other.x1 - one.x0 < 3 or one.y1 - other.y0 < 3 or other.y1 - one.y0 < 3


@pytest.mark.parametrize("images", [IMAGES[..., :1], IMAGES[..., 0], (255 * IMAGES).astype("uint8")])
def test_grey_and_integer_images_are_drawn(images):
    ax = tfprune.plots.draw_confidences(images, GIVEN)
    (drawn,) = panels(ax, 1)[0][0].images
    expected = images[0, ..., 0] if images.shape[-1] == 1 else images[0]
    np.testing.assert_allclose(drawn.get_array(), expected / (255 if images.dtype == np.uint8 else 1))
    assert drawn.get_clim() == (0, 1) or images.shape[-1] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2 * IMAGES - 1, GIVEN), r"floats in \[0, 1\].*become such by \(images \+ 1\) / 2"),
        ((IMAGES[..., :2], GIVEN), r"images must be .*Received: shape \(2, 8, 8, 2\)"),
        ((IMAGES[:0], GIVEN), "at least one"),
        ((IMAGES, GIVEN[:1]), r"must be \(images, classes\) = \(2, classes\). Received: shape \(1, 3\)"),
        ((IMAGES, {"dense": 5 * GIVEN - 1}), "probabilities of 'dense' must be at least 0 .*softmax first"),
        ((IMAGES, np.full((2, 3), np.nan)), "at least 0 and sum to 1"),
        ((IMAGES, {}), "at least one model"),
        (
            (IMAGES, {"a": GIVEN, "b": np.full((2, 2), 0.5)}),
            "same classes. Received numbers of classes: {'a': 3, 'b': 2",
        ),
        ((IMAGES, GIVEN, [0]), r"one per image, \(2,\). Received: shape \(1,\)"),
        ((IMAGES, GIVEN, [0, 3]), r"integers from 0 to 2, or names. Received: int\d+ labels \[0, 3\]"),
        ((IMAGES, GIVEN, [0.0, 1.0]), "Received: float64 labels"),
        ((IMAGES, GIVEN, [0, 1], ["cat"]), "must name all 3 classes. Received: 1 names"),
    ],
)
def test_confidences_that_cannot_be_drawn_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tfprune.plots.draw_confidences(*arguments)


# Shift -------------------------------------------------------------------------------------------------------------


def test_shift_draws_the_mean_over_corruptions():
    ax = tfprune.plots.draw_shift(SHIFT)
    np.testing.assert_allclose(line(ax, "dense").get_xydata(), [[s, 0.1 + 0.1 * s] for s in range(6)])
    np.testing.assert_allclose(line(ax, "pruned").get_xydata(), [[s, 0.1 + 0.2 * s] for s in range(6)])
    assert labels(ax) == ["dense", "pruned", "middle half of the corruptions"]
    assert ax.get_ylabel() == "ECE, mean over 3 corruptions"
    assert ax.get_xticks().tolist() == [0, 1, 2, 3, 4, 5]


def test_band_is_between_the_quartiles():
    ax = tfprune.plots.draw_shift([row for row in SHIFT if row["model"] == "dense"])
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    # at severity 5: 0.35, 0.6 and 0.85, whose quartiles are 0.475 and 0.725
    assert corners[corners[:, 0] == 5][:, 1].min() == pytest.approx(0.475)
    assert corners[corners[:, 0] == 5][:, 1].max() == pytest.approx(0.725)


def test_lines_are_one_for_each_corruption_and_none_is_none():
    rows = [row for row in SHIFT if row["model"] == "dense"]
    ax = tfprune.plots.draw_shift(rows, spread="lines")
    thin = [drawn.get_ydata()[-1] for drawn in ax.lines if drawn.get_linewidth() < 1 and len(drawn.get_xdata())]
    assert sorted(thin) == pytest.approx([0.35, 0.6, 0.85])
    assert not ax.collections
    ax = tfprune.plots.draw_shift(rows, spread=None)
    assert len(ax.lines) == 1
    assert not ax.collections


@pytest.mark.parametrize("name", ["none", None, "fog"])
def test_unharmed_data_is_measured_once_and_begins_every_curve(name):
    rows = [{"corruption": name, "severity": 0, "accuracy": 0.9}]
    rows += [{"corruption": c, "severity": 3, "accuracy": a} for c, a in (("fog", 0.5), ("snow", 0.7))]
    ax = tfprune.plots.draw_shift(rows, "accuracy", spread="lines")
    assert line(ax, "mean").get_xydata().tolist() == [[0, 0.9], [3, 0.6]]
    thin = [drawn.get_ydata().tolist() for drawn in ax.lines if drawn.get_linewidth() < 1 and len(drawn.get_xdata())]
    assert sorted(thin) == [[0.9, 0.5], [0.9, 0.7]]


def test_seeds_are_averaged_within_a_corruption_first():
    # fog has three seeds and snow one: the mean over corruptions is (0.2 + 0.6) / 2, not (3 * 0.2 + 0.6) / 4.
    rows = [{"corruption": "fog", "severity": 1, "seed": s, "ece": value} for s, value in enumerate((0.1, 0.2, 0.3))]
    rows += [{"corruption": "snow", "severity": 1, "seed": 0, "ece": 0.6}]
    assert line(tfprune.plots.draw_shift(rows), "mean").get_ydata() == pytest.approx([0.4])


@pytest.mark.parametrize("spread", ["band", "lines", None])
@pytest.mark.parametrize(
    "values",
    [
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
        [0.9, 0.4, 0.4, 0.6, 0.5, 0.6],
        [0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
        [0.5, 0.7, 0.6, 0.4, 0.5, 0.6],
    ],
)
def test_legend_of_shift_hides_no_curve(values, spread):
    rows = [
        {"model": str(model), "corruption": name, "severity": severity, "ece": values[severity] + offset}
        for model in range(5)
        for name, offset in (("fog", -0.02), ("snow", 0.0), ("blur", 0.02))
        for severity in range(6)
    ]
    ax = tfprune.plots.draw_shift(rows, spread=spread)
    ax.figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    curves = [*(drawn.get_xydata() for drawn in ax.lines), *(band.get_paths()[0].vertices for band in ax.collections)]
    points = ax.transData.transform(np.concatenate(curves))
    assert not np.any(np.all((points > box.min) & (points < box.max), axis=1))


def test_data_frame_and_list_give_one_picture():
    pandas = pytest.importorskip("pandas")
    one, other = tfprune.plots.draw_shift(pandas.DataFrame(SHIFT)), tfprune.plots.draw_shift(SHIFT)
    assert [a.get_xydata().tolist() for a in one.lines] == [a.get_xydata().tolist() for a in other.lines]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "at least one row. Received: none"),
        (SHIFT, {"metric": "nll"}, r"'severity' and 'nll'. Received: no nll among \['corruption', 'ece'"),
        ([{"corruption": "fog", "ece": 0.1}], {}, "Received: no severity"),
        (
            [*SHIFT, {**SHIFT[-1], "ece": None}],
            {},
            "must be complete, with finite numbers. Received: {'model': 'pruned'",
        ),
        ([*SHIFT, {**SHIFT[-1], "ece": float("inf")}], {}, "'ece': inf"),
        ([*SHIFT, {**SHIFT[-1], "corruption": None}], {}, "Received: {.*'severity': 5"),
        (SHIFT[:-1], {}, "Received for model 'pruned': no 'blur' at severity 5"),
        (SHIFT, {"spread": "box"}, 'spread must be "band", "lines" or None. Received: spread=\'box\''),
    ],
)
def test_shift_that_cannot_be_drawn_is_refused(rows, options, message):
    with pytest.raises(ValueError, match=message):
        tfprune.plots.draw_shift(rows, **options)


# Harm --------------------------------------------------------------------------------------------------------------


def class_names(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_classes_stand_in_the_order_of_their_harm_with_intervals():
    ax = tfprune.plots.draw_harm(HARM)
    assert class_names(ax) == ["dog", "frog", "cat"]
    np.testing.assert_allclose(line(ax, "recall").get_xydata(), [[-30, 0], [-10, 1], [10, 2]])
    drawn = [segment.tolist() for segment in ax.collections[0].get_segments()]
    np.testing.assert_allclose(drawn, [[[-40, 0], [-20, 0]], [[-20, 1], [5, 1]], [[0, 2], [20, 2]]])
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first row is on top"
    assert "percentage points" in ax.get_xlabel()


def test_significant_classes_are_filled_and_others_hollow():
    ax = tfprune.plots.draw_harm(HARM)
    hollow, filled = line(ax, "recall"), line(ax, "filled")
    assert filled.get_ydata().tolist() == [0, 1], "0.05 counts, as in the comparison's own verdict"
    assert colors.to_hex(hollow.get_markerfacecolor()) == "#ffffff"
    assert lightness(filled.get_markerfacecolor()) < 60
    assert labels(ax) == ["recall", "filled: p ≤ 0.05 after Holm's correction"]
    ax = tfprune.plots.draw_harm({**HARM, "recall_p": [0.2, 0.1, 0.11]}, level=0.9)
    assert line(ax, "filled").get_ydata().tolist() == [0], "although 1 - 0.9 is a little less than 0.1"


def test_change_of_confidence_has_its_own_marker_and_significance():
    ax = tfprune.plots.draw_harm({**HARM, "confidence_change": [0.01, 0.02, 0.03], "confidence_p": [0.5, 0.5, 0.01]})
    confidence = line(ax, "mean confidence")
    assert confidence.get_xdata().tolist() == pytest.approx([2, 3, 1])
    assert confidence.get_marker() != line(ax, "recall").get_marker()
    assert ax.lines[-1].get_xdata().tolist() == pytest.approx([3])


def test_interval_from_counts_is_that_of_paired_shares():
    table = {"class": [7], "recall_change": [-10 / 98], "recall_p": [0.02]}
    ax = tfprune.plots.draw_harm({**table, "num_samples": [98], "lost": [11], "gained": [1]})
    # (2 - 12) / 100 -+ 1.959964 sqrt((0.14 - 0.01) / 100)
    (interval,) = ax.collections[0].get_segments()
    np.testing.assert_allclose(interval[:, 0], [-17.06674, -2.93326], atol=1e-4)
    assert not tfprune.plots.draw_harm(table).collections, "no interval without counts"


def test_classes_without_samples_are_left_out():
    table = {"class": [0, 1], "recall_change": [np.nan, 0.1], "recall_p": [np.nan, 1.0], "num_samples": [0, 10]}
    assert class_names(tfprune.plots.draw_harm({**table, "lost": [0, 0], "gained": [0, 1]})) == ["1"]


def test_table_of_a_comparison_is_drawn():
    class Given:
        """Answers with the column of `x` that it was made for."""

        def __init__(self, column):
            self.column = column

        def predict(self, x, **options):
            return np.eye(3)[np.asarray(x)[:, self.column].astype(int)] * 0.7 + 0.1

    true = np.repeat([0, 1], 20)
    pruned = np.where(np.arange(40) < 15, 1, true)  # 15 of 20 of class 0 are lost; no sample has class 2
    found = compare(Given(0), Given(1), (np.transpose([true, pruned]), true), from_logits=False)
    ax = tfprune.plots.draw_harm(found.per_class)
    assert class_names(ax) == ["0", "1"]
    assert line(ax, "recall").get_xdata().tolist() == [-75, 0]
    assert line(ax, "filled").get_ydata().tolist() == [0]
    assert len(ax.collections[0].get_segments()) == 2


def test_of_many_classes_the_most_harmed_are_drawn():
    table = {"class": range(100), "recall_change": np.linspace(0.2, -0.2, 100), "recall_p": np.ones(100)}
    ax = tfprune.plots.draw_harm(table, most=3)
    assert class_names(ax) == ["99", "98", "97"]
    assert ax.get_title() == "the 3 most harmed of 100 classes"


def test_legend_stands_below_the_last_class():
    random = np.random.RandomState(0)
    change = random.uniform(-0.1, 0.1, 10)
    for size in (2, 10):
        table = {"class": range(size), "recall_change": change[:size], "recall_p": np.ones(size)}
        table |= {"recall_low": np.full(size, -0.3), "recall_high": np.full(size, 0.3)}
        table |= {"confidence_change": change[:size], "confidence_p": np.ones(size)}
        ax = tfprune.plots.draw_harm(table)
        ax.figure.canvas.draw()
        corners = ax.transData.inverted().transform(ax.get_legend().get_window_extent().corners())
        assert corners[:, 1].min() > size - 0.6


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"recall_p": [0.1, 0.1]}, {}, "equally long. Received: lengths class 3, recall_change 3, recall_p 2"),
        ({"recall_change": [0.1, np.nan, 0.2]}, {}, r"recall_change must be in \[-1, 1\]. Received: nan at position 1"),
        ({"recall_change": [10, -30, -10]}, {}, r"recall_change must be in \[-1, 1\]. Received: 10"),
        ({"recall_p": [0.1, 0.1, 1.1]}, {}, r"recall_p must be in \[0, 1\]. Received: 1.1"),
        ({"recall_low": [0.3, 0, 0]}, {}, "the former never above the latter"),
        ({"confidence_change": [0, 0, 0]}, {}, "needs confidence_p"),
        ({"class": []}, {}, "equally long"),
        ({}, {"level": 5}, r"level must be in \(0, 1\). Received: level=5"),
        ({}, {"most": 0}, "most must be at least 1. Received: most=0"),
    ],
)
def test_harm_that_cannot_be_drawn_is_refused(changed, options, message):
    with pytest.raises(ValueError, match=message):
        tfprune.plots.draw_harm({**HARM, **changed}, **options)


def test_table_without_p_values_is_refused():
    with pytest.raises(ValueError, match=r"per_class table of tfprune.compare.*no 'recall_p' among"):
        tfprune.plots.draw_harm({"class": [0], "recall_change": [0.1]})
