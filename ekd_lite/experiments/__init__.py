"""Whole comparisons: a plan of runs, the processes that train them, tables, pages and figures.

matplotlib is imported when a figure is drawn, not before.
"""

from ekd_lite.experiments.compare import compare_runs
from ekd_lite.experiments.cost import Machine, PlannedRun
from ekd_lite.experiments.demo import METHODS, DemoConfig, describe_demo, run_demo
from ekd_lite.experiments.dry_run import describe_study
from ekd_lite.experiments.folders import Run, group_runs, read_runs
from ekd_lite.experiments.study import run_study
from ekd_lite.experiments.study_plan import StudyPlan, load_study
from ekd_lite.experiments.tables import (
    FPRS,
    level,
    markdown_table,
    mean_and_spread,
    over_seeds,
    percents,
    write_table,
)

__all__ = [
    "FPRS",
    "METHODS",
    "DemoConfig",
    "Machine",
    "PlannedRun",
    "Run",
    "StudyPlan",
    "compare_runs",
    "describe_demo",
    "describe_study",
    "group_runs",
    "level",
    "load_study",
    "markdown_table",
    "mean_and_spread",
    "over_seeds",
    "percents",
    "read_runs",
    "run_demo",
    "run_study",
    "write_table",
]
