"""The page and tables of a demo, and what every experiment writes."""

from __future__ import annotations

import datetime
import io
import platform
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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


@dataclass(frozen=True)
class Method:
    """A row of a report.

    Attributes:
        runs: one for each seed.
        results: of their test embeddings.
    """

    runs: Sequence[Run]
    results: Sequence[BootstrapResult]


def write_report(
    out: Path,
    name: str,
    methods: Mapping[str, Method],
    labels: Tensor,
    draw: Callable[[], Mapping[str, Figure]],
) -> Path:
    """Write NAME.csv, differences.csv, NAME.md and figures; print the page.

    Args:
        out: folder to write into.
        name: of the files.
        methods: what `measure_plan` returned.
        labels: of the test images.
        draw: makes the figures, by file name.

    Returns:
        Path of NAME.csv.
    """
    results = {method: row.results for method, row in methods.items()}
    pairs = comparisons(methods)
    tables = {f"{name}.csv": _rows(methods)}
    if pairs:
        tables["differences.csv"] = [_difference(*pair, results) for pair in pairs]
    write_results(out, tables, f"{name}.md", _page(methods, pairs, labels), draw)
    return out / f"{name}.csv"


def measure_plan(
    out: Path,
    plan: Mapping[str, TrainConfig],
    settings: Mapping[str, str],
    labels: Tensor,
    *,
    resamples: int,
    teacher: Run | None = None,
) -> dict[str, Method]:
    """Read the runs of a plan and measure the test embeddings that they left.

    Args:
        out: folder of the runs.
        plan: the runs by name, with the teacher.
        settings: method, as the tables call it, -> what `TrainConfig.method` says.
        labels: of the test images.
        resamples: draws of the bootstrap.
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
        method: Method([runs[name] for name in row], [results[name] for name in row])
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
    return [
        {
            "method": name,
            "seed": run.about("seed"),
            **percents("tpr", FPRS, (found.estimate, found.low, found.high)),
            "parameters": run.profile.parameters or None,
            "macs": run.profile.macs or None,
            "latency_ms": round(run.profile.latency_ms, 3),
            "train_seconds": run.about("train_seconds"),
        }
        for name, method in methods.items()
        for run, found in zip(method.runs, method.results, strict=True)
    ]


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
    rows = [([name, str(len(seeds))], seeds) for name, seeds in results.items()]
    lines = tpr_lines(["method", "seeds"], rows, labels)
    if pairs:
        lines += ["", *difference_lines(["first", "minus", "which is"], pairs, results)]
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


def comparisons(methods: Collection[str]) -> list[tuple[str, str, str]]:
    """(first, second, what second is): the differences that a report shows.

    Every method against the student alone; every combination against each of its parts.

    Args:
        methods: as the tables call them.
    """
    students = [name for name in methods if name not in ("teacher", ALONE)]
    pairs = [(name, ALONE, ALONE) for name in students if ALONE in methods]
    joined = [name for name in students if "+" in name]
    return pairs + [
        (n, part, "part of it") for n in joined for part in n.split("+") if part in students
    ]
