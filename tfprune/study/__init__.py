"""Studies: strategy x ratio x seed, run to the end, kept in one results file and told in one report."""

from tfprune.study.report import write_report
from tfprune.study.results import ResultsError, read_rows
from tfprune.study.runner import STUDIES, Study, get, quick, run_study
from tfprune.study.trial import Recipe, Trial, run_trial

__all__ = [
    "STUDIES",
    "Recipe",
    "ResultsError",
    "Study",
    "Trial",
    "get",
    "quick",
    "read_rows",
    "run_study",
    "run_trial",
    "write_report",
]
