"""tfprune: structured pruning for Keras 3 that tells you what it did to your model's uncertainty.

This file is the table of contents. Names load on first use, so that `import tfprune` stays instant and
TensorFlow starts only when it is needed.
"""

import importlib

from tfprune import registration

__version__ = "0.1.0"

# public name -> module that defines it
_CONTENTS = {
    "inspect": "tfprune.structure.audit",
    "wrap": "tfprune.pruning.surgery",
    "shrink": "tfprune.pruning.surgery",
    "reestimate_batchnorm": "tfprune.pruning.batchnorm",
    "fold_batch_norm": "tfprune.pruning.folding",
    "ticket_report": "tfprune.pruning.certificate",
    "compute_masks": "tfprune.pruning.masks",
    "get_masks": "tfprune.pruning.masks",
    "set_masks": "tfprune.pruning.masks",
    "find_ticket": "tfprune.tickets",
    "Ticket": "tfprune.pruning.ticket",
    "evaluate": "tfprune.evaluation",
    "evaluate_regression": "tfprune.evaluation",
    "evaluate_shift": "tfprune.evaluation",
    "compare": "tfprune.comparison",
    "compare_seeds": "tfprune.comparison",
    "prune_potential": "tfprune.potential",
    "export": "tfprune.deployment",
    "load_exported": "tfprune.deployment",
    "to_tf_keras": "tfprune.deployment",
    "prune_to": "tfprune.budgets",
    "budget_report": "tfprune.budgets",
    "choose_round_to": "tfprune.budgets",
    "sensitivity": "tfprune.budgets",
    "ratios_within": "tfprune.budgets",
}
_MODULES = (
    "budgets",
    "callbacks",
    "corruptions",
    "datasets",
    "deployment",
    "layers",
    "layouts",
    "losses",
    "metrics",
    "models",
    "plots",
    "pruning",
    "structure",
    "study",
    "uncertainty",
)

__all__ = ["__version__", *_CONTENTS, *_MODULES]


def __getattr__(name):
    if name in _CONTENTS:
        return getattr(importlib.import_module(_CONTENTS[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"tfprune.{name}")
    raise AttributeError(f"module 'tfprune' has no attribute {name!r}. It has: {', '.join(__all__)}.")


def __dir__():
    return list(__all__)


registration.register()
