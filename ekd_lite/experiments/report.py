"""The pages and tables of demo, study and comparison, written in one way."""

from __future__ import annotations

import datetime
import io
import platform
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

import ekd_lite
from ekd_lite.evaluate import (
    BootstrapResult,
    UndefinedMetricWarning,
    bootstrap_tpr_at_fpr,
    paired_difference,
)
from ekd_lite.experiments.folders import Run, read_runs
from ekd_lite.experiments.plan import ALONE
from ekd_lite.experiments.runner import load_embeddings
from ekd_lite.experiments.tables import (
    FPRS,
    difference_lines,
    known,
    level,
    markdown_table,
    mean_and_spread,
    over_seeds,
    percents,
    tpr_lines,
    write_table,
)
from ekd_lite.files import write_atomically
from ekd_lite.train import TrainConfig

if TYPE_CHECKING:  # the command starts without matplotlib
    from matplotlib.figure import Figure

Results = Mapping[str, Sequence[BootstrapResult]]
STUDY_ONLY = ("setting", "weights", "validation")  # columns of tables with validation scores


@dataclass(frozen=True)
class Method:
    """A row of a report.

    Attributes:
        setting: the method with its weights; empty for the teacher and the student alone.
        runs: one for each seed.
        results: of their test embeddings.
        scores: of their validation embeddings, where something was chosen by them.
    """

    setting: str
    runs: Sequence[Run]
    results: Sequence[BootstrapResult]
    scores: Sequence[float]


def write_report(
    out: Path,
    name: str,
    methods: Mapping[str, Method],
    labels: Tensor,
    draw: Callable[[], Mapping[str, Figure]],
    *,
    notes: Sequence[str] = (),
) -> Path:
    """Write NAME.csv, differences.csv, NAME.md and figures; print the page.

    Args:
        out: folder to write into.
        name: of the files.
        methods: what `measure_plan` returned.
        labels: of the test images.
        draw: makes the figures, by file name.
        notes: paragraphs at the end of the page.

    Returns:
        Path of NAME.csv.
    """
    results = {method: row.results for method, row in methods.items()}
    pairs = comparisons({method: row.scores for method, row in methods.items()})
    tables = {f"{name}.csv": _rows(methods)}
    if pairs:
        tables["differences.csv"] = [_difference(*pair, results) for pair in pairs]
    lines = [*_page(methods, pairs, labels), *(line for note in notes for line in ("", note))]
    write_results(out, tables, f"{name}.md", lines, draw)
    return out / f"{name}.csv"


def measure_plan(
    out: Path,
    plan: Mapping[str, TrainConfig],
    settings: Mapping[str, str],
    labels: Tensor,
    *,
    resamples: int,
    scores: Mapping[str, Sequence[float]] | None = None,
    teacher: Run | None = None,
) -> dict[str, Method]:
    """Read the runs of a plan and measure the test embeddings that they left.

    Args:
        out: folder of the runs.
        plan: the runs by name, with the teacher.
        settings: method, as the tables call it, -> what `TrainConfig.method` says.
        labels: of the test images.
        resamples: draws of the bootstrap.
        scores: method -> validation score of every seed.
        teacher: the teacher's, if it is not a run of the plan.
    """
    runs = dict(zip(plan, read_runs([out / name for name in plan], repeats=30), strict=True))
    runs |= {} if teacher is None else {"teacher": teacher}
    results = {
        name: measure(load_embeddings(run.path), labels, FPRS, resamples)
        for name, run in tqdm(runs.items(), desc="intervals", disable=None)
    }
    names = {"teacher": ["teacher"]} | {
        method: [name for name, run in plan.items() if name != "teacher" and run.method == setting]
        for method, setting in settings.items()
    }
    return {
        method: Method(
            "" if method in ("teacher", ALONE) else settings[method],
            [runs[name] for name in row],
            [results[name] for name in row],
            (scores or {}).get(method, ()),
        )
        for method, row in names.items()
    }


def measure(
    embeddings: Tensor, labels: Tensor, fprs: Sequence[float], resamples: int
) -> BootstrapResult:
    """TPR over all pairs with intervals; all calls with the same labels share the resamples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # the table says it
        return bootstrap_tpr_at_fpr(embeddings, labels, fprs, num_resamples=resamples)


def _rows(methods: Mapping[str, Method]) -> list[dict[str, object]]:
    """A row for each run."""
    rows: list[dict[str, object]] = []
    for name, method in methods.items():
        for k, (run, found) in enumerate(zip(method.runs, method.results, strict=True)):
            rows.append(
                {
                    "method": name,
                    "setting": method.setting,
                    "seed": run.about("seed"),
                    **percents("tpr", FPRS, (found.estimate, found.low, found.high)),
                    "parameters": run.profile.parameters or None,
                    "macs": run.profile.macs or None,
                    "latency_ms": round(run.profile.latency_ms, 3),
                    "train_seconds": run.about("train_seconds"),
                    "validation": round(method.scores[k], 3) if method.scores else None,
                }
            )
    return [_of_interest(row, methods) for row in rows]


def _of_interest(row: dict[str, Any], methods: Mapping[str, Method]) -> dict[str, Any]:
    """The columns that say something: without validation nothing was chosen."""
    if any(method.scores for method in methods.values()):
        return row
    return {name: value for name, value in row.items() if name not in STUDY_ONLY}


def _difference(first: str, second: str, role: str, results: Results) -> dict[str, object]:
    """A row of differences.csv: of the means over seeds, and how it varies from seed to seed."""
    found = paired_difference(over_seeds(results[first]), over_seeds(results[second]))
    by_seed = torch.stack(
        [a.estimate - b.estimate for a, b in zip(results[first], results[second], strict=True)]
    )
    spread = by_seed.std(0) if len(by_seed) > 1 else torch.full_like(by_seed[0], torch.nan)
    return {
        "first": first,
        "second": second,
        "second_is": role,
        **percents("difference", FPRS, found),
        **{
            f"seed_std@{level(fpr)}": round(100 * value, 2)
            for fpr, value in zip(FPRS, spread.tolist(), strict=True)
        },
    }


def _page(
    methods: Mapping[str, Method], pairs: Sequence[tuple[str, str, str]], labels: Tensor
) -> list[str]:
    """What the nets reach, what beats what, what they cost, and where it was measured."""
    results = {name: method.results for name, method in methods.items()}
    columns = [
        _of_interest(
            {
                "method": name,
                "weights": method.setting,
                "seeds": str(len(method.runs)),
                "validation": mean_and_spread(method.scores) if method.scores else "",
            },
            methods,
        )
        for name, method in methods.items()
    ]
    rows = [([*row.values()], seeds) for row, seeds in zip(columns, results.values(), strict=True)]
    lines = tpr_lines([*columns[0]], rows, labels)
    if "validation" in columns[0]:
        lines[-1] += " Validation is the score by which weights and the best are chosen."
    if pairs:
        lines += ["", *difference_lines(["first", "minus", "which is"], pairs, results)]
    if "validation" in columns[0]:
        lines[-1] += " Best is named by validation, not by these numbers."
    runs = [run for method in methods.values() for run in method.runs]
    profiles = {str(run.about("backbone")): run.profile for run in runs}
    return [
        *lines,
        "",
        *markdown_table(
            ["net", "parameters", "multiply-adds", "ms an image, one CPU thread"],
            [
                [net, known(p.parameters), known(p.macs), f"{p.latency_ms:.2f}"]
                for net, p in profiles.items()
            ],
        ),
        "",
        f"ekd_lite {ekd_lite.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()}, {datetime.date.today()}; training: "
        f"{sum(float(run.about('train_seconds')) for run in runs):.0f} seconds on one core in all.",
    ]


def write_results(
    out: Path,
    tables: Mapping[str, Sequence[Mapping[str, object]]],
    page: str,
    lines: Sequence[str],
    draw: Callable[[], Mapping[str, Figure]],
) -> None:
    """Write CSV files, a page of Markdown and figures; print the page and what was written.

    Args:
        out: folder to write into.
        tables: file name -> rows.
        page: file name of the page.
        lines: of the page.
        draw: makes the figures, by file name, when everything else is written.
    """
    for name, rows in tables.items():
        write_table(out / name, rows)
    text = "\n".join(lines) + "\n"
    write_atomically(out / page, text.encode())
    figures = draw()
    for name, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150)
        write_atomically(out / name, buffer.getvalue())
    print(f"\n{text}\nwritten to {out}/: {' '.join([*tables, page, *figures])}")


def comparisons(scores: Mapping[str, Sequence[float]]) -> list[tuple[str, str, str]]:
    """(first, second, what second is): the differences that a report shows.

    Every method against the student alone; every combination against each of its parts. With scores
    also every method against the best single one without EKD; every combination with EKD against
    the best without it, and the best with EKD against every one without it.

    Args:
        scores: method, as the tables call it, -> validation score of every seed, or nothing; best
            is what has the largest mean.
    """
    students = [name for name in scores if name not in ("teacher", ALONE)]
    mean = {name: sum(row) / len(row) for name, row in scores.items() if row}
    pairs = [(name, ALONE, ALONE) for name in students if ALONE in scores]
    plain = [name for name in students if "+" in name and not _has_ekd(name)]
    joined = [name for name in students if "+" in name and _has_ekd(name)]
    singles = [name for name in students if "+" not in name and not _has_ekd(name)]
    if mean and singles:
        best = max(singles, key=mean.__getitem__)
        pairs += [(n, best, "best single without EKD") for n in students if n != best]
    if mean and plain and joined:
        best, top = (max(names, key=mean.__getitem__) for names in (plain, joined))
        pairs += [(name, best, "best combination without EKD") for name in joined]
        pairs += [(top, name, "combination without EKD") for name in plain if name != best]
    known = {pair[:2] for pair in pairs}
    parts = [(n, part) for n in plain + joined for part in n.split("+") if part in students]
    return pairs + [(*pair, "part of it") for pair in parts if pair not in known]


def _has_ekd(method: str) -> bool:
    """Whether EKD in some form is among the parts of a method."""
    return any(part.startswith("ekd") for part in method.split("+"))
