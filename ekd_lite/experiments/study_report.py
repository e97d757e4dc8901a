"""The tables, the page and the figures of a study: what methods reach, and what EKD gains.

Intervals are over seeds and people (`ekd_lite.evaluate.over_runs`); the teacher is one, so they are
about students of this teacher. Every form of EKD that takes its targets from the teacher is
compared

- with the best of its rivals, the best chosen anew in every draw: a form alone with every single
  method, a combination with all; p-values of a regime are adjusted by Holm's method;
- with FitNet alone; with the labels' form in its place (the control without a teacher's rank or
  decision); and with Eq. 7's squared gap on the same pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ekd_lite.evaluate import (
    BootstrapResult,
    best_of,
    bootstrap_tpr_at_fpr,
    count_pairs,
    difference_p_value,
    holm,
    over_runs,
    paired_difference,
)
from ekd_lite.experiments.plan import ALONE
from ekd_lite.experiments.report import write_results
from ekd_lite.experiments.study_plan import Run, StudyPlan, method_of
from ekd_lite.experiments.study_search import Lines
from ekd_lite.experiments.tables import (
    difference_cells,
    level,
    markdown_table,
    mean_and_spread,
    percents,
)
from ekd_lite.files import write_atomically

if TYPE_CHECKING:  # the command starts without matplotlib
    from matplotlib.figure import Figure

EMBEDDINGS = "rows.safetensors"  # a student's, of validation and test people
BEST = "the best rival"
CONTROLS = ("ekd_labels", "ekd_l2")
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
    means = {key: over_runs(results) for key, results in runs.items()}
    gains = [line for regime in plan.regimes for line in gains_of(regime, rows_of(regime, means))]
    tables = {"study.csv": [_row(*key, found) for key, found in means.items()]}
    if gains:
        tables["gains.csv"] = [line for line, _ in gains]

    def draw() -> dict[str, Figure]:
        from ekd_lite.experiments.figures import study_figure

        shown = {r: (rows_of(r, runs), rows_of(r, means)) for r in plan.regimes}
        return {f"study_{level(fpr)}.png": study_figure(shown, fpr) for fpr in plan.choose_at}

    page = _page(plan, labels, runs, means, gains)
    write_results(out, tables, "study.md", page, draw)
    return out / "study.csv"


def by_row(
    plan: StudyPlan, out: Path, lines: Lines, labels: Tensor, resamples: int
) -> dict[tuple[str, str, str], list[BootstrapResult]]:
    """(regime, row, setting) -> the results of its final students, by seed; of two or more."""
    found: dict[tuple[str, str, str], list[BootstrapResult]] = {}
    final = [line for line in lines if line["stage"] == "final"]
    for line in sorted(final, key=lambda line: int(line["seed"])):
        key = line["regime"], line["row"], line["setting"]
        run = Run(*key, "final", int(line["seed"]))
        results = found.setdefault(key, [])
        results.append(draws_of(out / run.name, labels, plan.choose_at, resamples))
    return {key: results for key, results in found.items() if len(results) > 1}


def draws_of(
    folder: Path, labels: Tensor, levels: Sequence[float], resamples: int
) -> BootstrapResult:
    """The draws of a student's test people, made once and kept beside its embeddings."""
    path = folder / "draws.safetensors"
    if not path.exists() or len(load_file(path)["samples"]) != resamples:
        rows = load_file(folder / EMBEDDINGS)["test"]
        found = bootstrap_tpr_at_fpr(rows, labels, levels, num_resamples=resamples)
        draws = {"estimate": found.estimate, "samples": found.samples}
        write_atomically(path, save(draws))
    draws = load_file(path)
    nothing = torch.full((len(levels),), torch.nan)
    return BootstrapResult(tuple(levels), draws["estimate"], nothing, nothing, draws["samples"])


def rows_of(regime: str, results: Mapping[tuple[str, str, str], Found]) -> dict[str, Found]:
    """What was found of one regime, by row."""
    return {row: found for (where, row, _), found in results.items() if where == regime}


def is_ekd(row: str) -> bool:
    """Whether a row has a form of EKD that takes ranks or decisions from the teacher."""
    return row.startswith("ekd") and not row.startswith(CONTROLS)


def opponents(row: str, of: Mapping[str, Found]) -> dict[str, list[Found]]:
    """Whom a form of EKD is compared with, by name, of the rows of one regime."""
    partner = row.split("+")[1:]
    single = {name for name in of if "+" not in name}
    rivals = [name for name in of if not name.startswith("ekd") and (partner or name in single)]
    pairs = {BEST: rivals, "fitnet alone": [n for n in of if method_of(n) == "fitnet"]}
    for control in CONTROLS:
        twins = [n for n in of if n.startswith(control) and n.split("+")[1:] == partner]
        pairs[control if not partner else f"{control} beside FitNet"] = twins
    found = {name: [of[row] for row in rows] for name, rows in pairs.items()}
    return {name: results for name, results in found.items() if results}


Interval = tuple[Tensor, Tensor, Tensor]


def gains_of(
    regime: str, of: Mapping[str, BootstrapResult]
) -> list[tuple[dict[str, Any], Interval]]:
    """The lines of gains.csv for one regime, with their differences."""
    gains: list[tuple[dict[str, Any], Interval]] = []
    claims: list[tuple[dict[str, Any], Tensor]] = []
    for row in filter(is_ekd, of):
        names = [level(fpr) for fpr in of[row].fprs]
        for name, others in opponents(row, of).items():
            best = best_of(others)
            gain = paired_difference(of[row], best)
            line: dict[str, Any] = {"regime": regime, "row": row, "minus": name}
            line |= {"of": len(others), **_columns("gain", of[row].fprs, gain)}
            line |= {f"p@{n}": "" for n in names}
            if name == BEST:
                claims.append((line, difference_p_value(of[row], best)))
            gains.append((line, gain))
    if claims:
        adjusted = holm(torch.stack([p for _, p in claims]).flatten()).view(len(claims), -1)
        for (line, _), values in zip(claims, adjusted.tolist(), strict=True):
            line |= {f"p@{n}": f"{p:.4f}" for n, p in zip(names, values, strict=True)}
    return gains


def _columns(name: str, fprs: Sequence[float], interval: Interval) -> dict[str, str]:
    """Columns of a number and of the ends of its interval, with two decimals each."""
    return {column: f"{value:.2f}" for column, value in percents(name, fprs, interval).items()}


def _row(regime: str, row: str, setting: str, found: BootstrapResult) -> dict[str, str]:
    """A line of study.csv."""
    interval = found.estimate, found.low, found.high
    return {"regime": regime, "row": row, "setting": setting} | _columns(
        "tpr", found.fprs, interval
    )


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
    gains: Sequence[tuple[dict[str, Any], Interval]],
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
        "people. **Bold**: the interval of a difference excludes zero; gains.csv has the p-values, "
        "adjusted by Holm's method.",
    ]


def _cells(seeds: Sequence[BootstrapResult], mean: BootstrapResult) -> list[str]:
    """A cell for each level, in percent."""
    tprs = (100 * torch.stack([found.estimate for found in seeds], 1)).tolist()
    ends = (100 * torch.stack([mean.low, mean.high], 1)).tolist()
    return [
        f"{mean_and_spread(t)} [{low:.1f}, {high:.1f}]"
        for t, (low, high) in zip(tprs, ends, strict=True)
    ]
