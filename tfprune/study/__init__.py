"""Studies: strategy x ratio x seed, run to the end, kept in one results file and told in one report."""

from tfprune.pruning.strategies import Strategy
from tfprune.study.grid import STUDIES, Study, get, quick
from tfprune.study.report import write_report, write_tables
from tfprune.study.results import ResultsError, read_rows
from tfprune.study.runner import run_study
from tfprune.study.settings import read_study
from tfprune.study.tensorboard import log_to_tensorboard
from tfprune.study.trial import Evaluation, Recipe, Trial
from tfprune.study.work import run_trial

__all__ = [
    "STUDIES",
    "Evaluation",
    "Recipe",
    "ResultsError",
    "Strategy",
    "Study",
    "Trial",
    "get",
    "log_to_tensorboard",
    "quick",
    "read_rows",
    "read_study",
    "run_study",
    "run_trial",
    "write_report",
    "write_tables",
]
