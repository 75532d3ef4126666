"""How good is a model, how far may its confidence be trusted, does it notice strangers, and what does it cost?

`evaluate` answers for classifiers, `evaluate_regression` for models that predict Gaussians, each with one flat row of
plain numbers; `evaluate_shift` gives a row for every damage done to the images.
"""

from tfprune.evaluation.classification import evaluate
from tfprune.evaluation.regression import evaluate_regression
from tfprune.evaluation.shift import evaluate_shift

__all__ = ["evaluate", "evaluate_regression", "evaluate_shift"]
