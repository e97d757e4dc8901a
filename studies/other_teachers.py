"""Does the study's answer hold for other teachers? data/results/decisive_teachers*.csv.

    python studies/other_teachers.py train runs/teachers 1        students of the teacher of seed 1
    python studies/other_teachers.py train runs/teachers 2 none   of seed 2, in one regime
    python studies/other_teachers.py tables runs/teachers runs/study

The study's one teacher is that of seed 0, made by the recipe demo-teacher and kept in half
precision. Here the same recipe trains two more, on the same people; each calibrates its own
threshold, embeds its own rows and teaches the study's leading rows anew, five students of the
study's final seeds, with the weights that were chosen under the first teacher. Intervals of the
lines "all" draw teachers, seeds and people, with two degrees of freedom for three teachers.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.evaluate import BootstrapResult, bootstrap_tpr_at_fpr, embed, over_runs
from ekd_lite.experiments import StudyPlan, load_study
from ekd_lite.experiments.study import run_study
from ekd_lite.experiments.study_gains import gains_of, labelled_twins
from ekd_lite.experiments.study_plan import Run
from ekd_lite.experiments.study_report import DRAWS, draws_of, run_draws
from ekd_lite.experiments.tables import percents, write_table
from ekd_lite.train import load_model
from ekd_lite.train.recipes import load_recipe

FIRST, OTHERS = 0, (1, 2)
# The study's choices: regime -> rows with the weights of decisive.csv.
ROWS = {
    "none": (
        "fitnet:8",
        "ekd_decisions:128+fitnet:32",
        "contrastive_decisions:1024+fitnet:32",
    ),
    "new": (
        "fitnet:16",
        "ekd_decisions:64+fitnet:32",
        "dkd:0.25",
        "ekd_labels:64+fitnet:32",
    ),
}
TABLE, GAINS = Path("data/results/decisive_teachers.csv"), "decisive_teachers_gains.csv"


def plan_of(seed: int) -> StudyPlan:
    """The study's leading rows under the teacher of a seed, with no weight left to choose."""
    study = load_study("study")
    teacher = dataclasses.replace(load_recipe("demo-teacher").config, seed=seed, device="cpu")
    regimes = {
        name: dataclasses.replace(regime, rows=ROWS.get(name, ()))
        for name, regime in study.regimes.items()
    }
    return dataclasses.replace(study, teacher=teacher, regimes=regimes, grid=(1.0,), processes=1)


def tables(work: Path, first: Path) -> None:
    """Write what every row reaches and what EKD gains, by teacher and over all of them.

    Rows that are not finished under every teacher are left out.
    """
    plan = plan_of(FIRST)
    test = plan.sets["test"].faces(plan.student.image_size)
    folders = {FIRST: first} | {seed: work / str(seed) for seed in OTHERS}
    found: dict[tuple[str, str], list[list[BootstrapResult]]] = {}
    for regime, row in ((regime, row) for regime, rows in ROWS.items() for row in rows):
        names = [Run(regime, row, row, "final", seed).name for seed in plan.final_seeds]
        students = [[folder / name for name in names] for folder in folders.values()]
        if not all((path / DRAWS).exists() for paths in students for path in paths):
            print(f"{regime}: {row} is not finished under every teacher, and left out")
            continue
        found[regime, row] = [
            [draws_of(path, test.labels, plan.choose_at, plan.resamples) for path in paths]
            for paths in students
        ]
    repeats = run_draws(plan.resamples)
    lines, gains = [], []
    for place, (seed, folder) in enumerate(folders.items()):
        net = load_model(DEMO_TEACHER if seed == FIRST else folder / "teacher").backbone
        alone = bootstrap_tpr_at_fpr(
            embed(net, test), test.labels, plan.choose_at, num_resamples=plan.resamples
        )
        lines.append(line("", "the teacher itself", str(seed), alone))
        means = {key: over_runs(of[place], repeats=repeats) for key, of in found.items()}
        lines += [line(*key, str(seed), mean) for key, mean in means.items()]
        gains += differences(str(seed), means)
    teachers = [seed for seed in folders for _ in plan.final_seeds]
    means = {
        key: over_runs(
            [draws for draws_of_one in of for draws in draws_of_one],
            teachers=teachers,
            repeats=repeats,
        )
        for key, of in found.items()
    }
    lines += [line(*key, "all", mean) for key, mean in means.items()]
    write_table(TABLE, lines)
    write_table(TABLE.with_name(GAINS), gains + differences("all", means))


def line(regime: str, row: str, teacher: str, found: BootstrapResult) -> dict[str, Any]:
    """A line of decisive_teachers.csv."""
    interval = found.estimate, found.low, found.high
    columns = percents("tpr", found.fprs, interval)
    return {"regime": regime, "row": row, "teacher": teacher} | columns


def differences(
    teacher: str, means: dict[tuple[str, str], BootstrapResult]
) -> list[dict[str, Any]]:
    """Lines of decisive_teachers_gains.csv: EKD by decisions minus the others.

    The p-values of a teacher, and those of "all", are families of their own.
    """
    by_regime = {
        regime: {row: mean for (where, row), mean in means.items() if where == regime}
        for regime in ROWS
    }
    return [
        {"teacher": teacher, **gain}
        for gain, _ in gains_of(by_regime, labelled_twins(plan_of(FIRST)))
    ]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["train", work, seed, *regimes]:
            run_study(plan_of(int(seed)).only(regimes=regimes), Path(work) / seed)
        case ["tables", work, first]:
            tables(Path(work), Path(first))
        case _:
            raise SystemExit(__doc__)
