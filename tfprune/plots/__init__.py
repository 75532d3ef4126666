"""What does a network look like, and how far may its confidences be trusted, as pictures?

    draw_network, draw_structure                     the network, before and after pruning
    draw_reliability, draw_regression_reliability    do confidences and intervals hold what they promise?
    draw_risk_coverage                               how many errors are left where the model is most confident?
    draw_roc, draw_score_histograms                  are strangers told from known data?
    draw_confidences                                 which classes does each model think of, image by image?
    draw_shift                                       what becomes of a metric as images are damaged?
    draw_harm                                        which classes does pruning harm?
    draw_sensitivity                                 which groups of layers can be pruned, and how far?

Each draws on the axes it is given, or on new ones, and returns them; none opens a window. Models are told apart by
colour, marker, line and hatch, so that they stay apart in grey print and for the colour-blind.
"""

from tfprune.plots.confidences import draw_confidences
from tfprune.plots.detection import draw_roc, draw_score_histograms
from tfprune.plots.harm import draw_harm
from tfprune.plots.network import draw_network
from tfprune.plots.regression_reliability import draw_regression_reliability
from tfprune.plots.reliability import draw_reliability
from tfprune.plots.risk_coverage import draw_risk_coverage
from tfprune.plots.sensitivity import draw_sensitivity
from tfprune.plots.shift import draw_shift
from tfprune.plots.structure import draw_structure

__all__ = [
    "draw_confidences",
    "draw_harm",
    "draw_network",
    "draw_regression_reliability",
    "draw_reliability",
    "draw_risk_coverage",
    "draw_roc",
    "draw_score_histograms",
    "draw_sensitivity",
    "draw_shift",
    "draw_structure",
]
