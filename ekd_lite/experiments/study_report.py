"""The tables, the page and the figures of a study: what methods reach, and what EKD gains.

Intervals are over seeds and people (`ekd_lite.evaluate.over_runs`); the teacher is one, so they are
about students of this teacher. Every row is a mean over the same seeds, those of the plan: a row
that lacks one of them is in no table, and the page names it. What forms of EKD are compared with
stands in `ekd_lite.experiments.study_gains`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from ekd_lite.evaluate import (
    BootstrapResult,
    bootstrap_tpr_at_fpr,
    count_pairs,
    over_runs,
)
from ekd_lite.evaluate.bootstrap import digest_of
from ekd_lite.experiments.plan import ALONE
from ekd_lite.experiments.report import write_results
from ekd_lite.experiments.study_gains import Gain, columns, gains_of, labelled_twins
from ekd_lite.experiments.study_plan import Run, StudyPlan, method_of
from ekd_lite.experiments.study_search import Lines
from ekd_lite.experiments.tables import (
    difference_cells,
    level,
    markdown_table,
    mean_and_spread,
)
from ekd_lite.files import write_atomically

if TYPE_CHECKING:  # the command starts without matplotlib
    from matplotlib.figure import Figure

EMBEDDINGS = "rows.safetensors"  # a student's, of validation and test people
DRAWS = "draws.safetensors"  # what was drawn of its test people
RUN_DRAWS, MAX_DRAWS = 1000, 1 << 20  # of the runs, for each of people; and in all
Found = TypeVar("Found")


def write_study(plan: StudyPlan, out: Path, lines: Lines, resamples: int) -> Path:
    """Write study.csv, gains.csv, study.md and a figure a level; print the page.

    Args:
        plan: the study.
        out: its folder.
        lines: of runs.csv.
        resamples: draws behind every interval.

    Returns:
        Path of study.csv.
    """
    labels = plan.sets["test"].faces(plan.student.image_size).labels
    runs = by_row(plan, out, lines, labels, resamples)
    repeats = run_draws(resamples)
    means = {key: over_runs(results, repeats=repeats) for key, results in runs.items()}
    by_regime = {regime: rows_of(regime, means) for regime in plan.regimes}
    gains = gains_of(by_regime, labelled_twins(plan))
    tables = {"study.csv": [_row(*key, found) for key, found in means.items()]}
    if gains:
        tables["gains.csv"] = [line for line, _ in gains]

    def draw() -> dict[str, Figure]:
        from ekd_lite.experiments.figures import study_figure

        shown = {r: (rows_of(r, runs), rows_of(r, means)) for r in plan.regimes}
        return {f"study_{level(fpr)}.png": study_figure(shown, fpr) for fpr in plan.choose_at}

    page = _page(plan, labels, runs, means, gains)
    page += half_done(plan, lines)
    write_results(out, tables, "study.md", page, draw)
    return out / "study.csv"


def run_draws(resamples: int) -> int:
    """How many draws of the runs are combined with each of so many draws of people.

    In the decisive study the p-values of eight seeds of `over_runs` then lie within 0.004 (p@) and
    0.006 (p_all@) of one another, those near 0.05 within 0.002; with a single draw they moved from
    0.05 to 0.10.
    """
    return max(1, min(RUN_DRAWS, MAX_DRAWS // resamples))


def by_row(
    plan: StudyPlan, out: Path, lines: Lines, labels: Tensor, resamples: int
) -> dict[tuple[str, str, str], list[BootstrapResult]]:
    """(regime, row, setting) -> the results of its final students, in the order of the seeds.

    Of the plan's seeds, and of rows that have them all; in the order of the plan's regimes.
    """
    found = {
        key: [
            draws_of(out / Run(*key, "final", seed).name, labels, plan.choose_at, resamples)
            for seed in sorted(plan.final_seeds)
        ]
        for key, seeds in tested(lines).items()
        if seeds >= set(plan.final_seeds)
    }
    order = list(plan.regimes)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0][0])))


def tested(lines: Lines) -> dict[tuple[str, str, str], set[int]]:
    """(regime, row, setting) -> the seeds of its final students."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for line in lines:
        if line["stage"] == "final":
            key = line["regime"], line["row"], line["setting"]
            found.setdefault(key, set()).add(int(line["seed"]))
    return found


def half_done(plan: StudyPlan, lines: Lines) -> list[str]:
    """Lines of the page on rows that lack a seed of the plan."""
    wanted = set(plan.final_seeds)
    rows = [
        f"{row} ({regime}, {len(seeds & wanted)} of {len(wanted)} seeds)"
        for (regime, row, _), seeds in tested(lines).items()
        if not seeds >= wanted
    ]
    return ["", f"Left out until all their students are there: {', '.join(rows)}."] if rows else []


def draws_of(
    folder: Path, labels: Tensor, levels: Sequence[float], resamples: int
) -> BootstrapResult:
    """The draws of a student's test people, made once and kept beside its embeddings.

    Draws of other people or of another number are made anew; those of a file that does not say of
    whom they are, as older ones and restored ones do not, are taken for those of the folder.
    """
    path, drawn = folder / DRAWS, digest_of(labels, 0)
    if not path.exists() or not _is_of(path, drawn, resamples):
        rows = load_file(folder / EMBEDDINGS)["test"]
        found = bootstrap_tpr_at_fpr(rows, labels, levels, num_resamples=resamples)
        draws = {"estimate": found.estimate, "samples": found.samples}
        write_atomically(path, save(draws, {"drawn": found.drawn}))
    draws = load_file(path)
    nothing = torch.full((len(levels),), torch.nan)
    return BootstrapResult(
        tuple(levels), draws["estimate"], nothing, nothing, draws["samples"], drawn=drawn
    )


def _is_of(path: Path, drawn: str, resamples: int) -> bool:
    """Whether a file holds so many draws of these people."""
    with safe_open(path, "pt") as file:
        says = (file.metadata() or {}).get("drawn", drawn)
        return bool(says == drawn and file.get_slice("samples").get_shape()[0] == resamples)


def rows_of(regime: str, results: Mapping[tuple[str, str, str], Found]) -> dict[str, Found]:
    """What was found of one regime, by row."""
    return {row: found for (where, row, _), found in results.items() if where == regime}


def _row(regime: str, row: str, setting: str, found: BootstrapResult) -> dict[str, str]:
    """A line of study.csv."""
    interval = found.estimate, found.low, found.high
    return {"regime": regime, "row": row, "setting": setting} | columns("tpr", found.fprs, interval)


def shown_name(row: str) -> str:
    """What page and figure call a row."""
    return ALONE if row == "none" else method_of(row)


def best_first(means: Mapping[str, BootstrapResult], place: int = 0) -> list[str]:
    """The rows of a regime by their mean TPR at one of the levels."""
    return sorted(means, key=lambda row: -float(means[row].estimate[place].nan_to_num()))


def _page(
    plan: StudyPlan,
    labels: Tensor,
    runs: Mapping[tuple[str, str, str], list[BootstrapResult]],
    means: Mapping[tuple[str, str, str], BootstrapResult],
    gains: Sequence[Gain],
) -> list[str]:
    """What methods reach in every regime, best first, and what EKD gains."""
    heads = [f"TPR at {level(fpr)}" for fpr in plan.choose_at]
    genuine, impostor = count_pairs(labels)
    lines = [plan.about]
    for regime in plan.regimes:
        of, seeds = rows_of(regime, means), rows_of(regime, runs)
        if not of:
            continue
        setting = {row: setting for where, row, setting in means if where == regime}
        rows = [
            [shown_name(row), setting[row], str(len(seeds[row])), *_cells(seeds[row], of[row])]
            for row in best_first(of)
        ]
        lines += ["", f"## {regime}", "", *markdown_table(["method", "weights", "seeds", *heads],
                                                           rows)]  # fmt: skip
        rows = [
            [shown_name(line["row"]), line["minus"], *difference_cells(*gain)]
            for line, gain in gains
            if line["regime"] == regime
        ]
        if rows:
            lines += ["", *markdown_table(["form of EKD", "minus", *heads], rows)]
    return [
        *lines,
        "",
        f"TPR in percent over all pairs of {len(labels):,} test images of "
        f"{plan.sets['test'].people:,} people: {genuine:,} genuine and {impostor:,} impostor "
        "pairs. Mean over seeds ± standard deviation, in brackets the 95 % interval over seeds and "
        "people. **Bold**: the interval of a difference excludes zero. gains.csv has p-values of "
        "the differences from the best rival, adjusted by Holm's method twice: in the columns p@ "
        "over all forms and levels of one regime, where the chance of any false claim about that "
        "regime is 5 %; in p_all@ over all forms, levels and regimes of the table, where this is "
        "the chance of any false claim at all.",
    ]


def _cells(seeds: Sequence[BootstrapResult], mean: BootstrapResult) -> list[str]:
    """A cell for each level, in percent."""
    tprs = (100 * torch.stack([found.estimate for found in seeds], 1)).tolist()
    ends = (100 * torch.stack([mean.low, mean.high], 1)).tolist()
    return [
        f"{mean_and_spread(t)} [{low:.1f}, {high:.1f}]"
        for t, (low, high) in zip(tprs, ends, strict=True)
    ]
