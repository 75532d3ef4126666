"""Studies: strategy x ratio x seed, run to the end, kept in one results file and told in one report.

Names load on first use: how far a study is can be told without NumPy and TensorFlow.
"""

import importlib

# public name -> module that defines it
_CONTENTS = {
    "STUDIES": "tfprune.study.grid",
    "Evaluation": "tfprune.study.trial",
    "Recipe": "tfprune.study.trial",
    "ResultsError": "tfprune.study.results",
    "Strategy": "tfprune.pruning.strategies",
    "Study": "tfprune.study.grid",
    "Trial": "tfprune.study.trial",
    "get": "tfprune.study.grid",
    "log_to_tensorboard": "tfprune.study.tensorboard",
    "quick": "tfprune.study.grid",
    "read_rows": "tfprune.study.results",
    "read_study": "tfprune.study.settings",
    "run_study": "tfprune.study.runner",
    "run_trial": "tfprune.study.work",
    "write_report": "tfprune.study.report",
    "write_tables": "tfprune.study.report",
}

__all__ = list(_CONTENTS)


def __getattr__(name):
    if name in _CONTENTS:
        return getattr(importlib.import_module(_CONTENTS[name]), name)
    raise AttributeError(f"module 'tfprune.study' has no attribute {name!r}. It has: {', '.join(__all__)}.")


def __dir__():
    return list(__all__)
