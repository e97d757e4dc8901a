"""One table and one figure of several runs, on people that none of them was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ekd_lite.data import FaceSet
from ekd_lite.evaluate import BootstrapResult, embed, paired_difference
from ekd_lite.experiments.folders import Run, group_runs, load_run
from ekd_lite.experiments.report import measure, write_results
from ekd_lite.experiments.tables import (
    difference_lines,
    markdown_table,
    mean_and_spread,
    percents,
    tpr_lines,
)
from ekd_lite.files import make_folder
from ekd_lite.ops import nearest_name

Found = TypeVar("Found")


def compare_runs(
    runs: Sequence[Run],
    faces_at: Callable[[int], FaceSet],
    out: Path,
    *,
    fprs: Sequence[float],
    resamples: int = 1000,
    curve: str | None = None,
    device: torch.device | str = "cpu",
    student: Callable[[], nn.Module] | None = None,
) -> Path:
    """Write compare.csv (a row a run), compare.md (a row a method), compare.png; print the table.

    Args:
        runs: finished ones are measured, unfinished ones listed. Differences are to the first.
        faces_at: side of the images in pixels -> the test faces; the same people and pictures in
            the same order at every size.
        out: folder to write into.
        fprs: false-positive rates.
        resamples: draws of the bootstrap.
        curve: which number of the logs to draw over the steps; if None "identity", the part of the
            loss that all methods share, where every run has it, else "loss".
        device: where to embed.
        student: what makes the net of runs that trained one of the user's own.

    Returns:
        Path of compare.csv.

    Raises:
        ValueError: no log has the curve, or a file is where the folder should be.
    """
    from ekd_lite.experiments import figures

    curve = _choose_curve(runs, curve)
    make_folder(out)
    groups = group_runs(runs)
    finished = [run for run in runs if run.info is not None]
    labels = faces_at(finished[0].about("image_size")).labels if finished else torch.zeros(0)
    results, rocs = {}, {}
    for run in tqdm(finished, desc="measuring", disable=None):
        net = load_run(run.path, student, device=device).backbone
        rows = embed(net, faces_at(run.about("image_size")))
        results[run.name] = measure(rows, labels, fprs, resamples)
        rocs[run.name] = figures.roc_curve(rows, labels)
    write_results(
        out,
        {"compare.csv": _rows(groups, results, fprs)},
        "compare.md",
        _page(groups, _by_group(groups, results), labels),
        lambda: figures.compare_figures(groups, _by_group(groups, rocs), curve),
    )
    return out / "compare.csv"


def _by_group(
    groups: Mapping[str, Sequence[Run]], found: Mapping[str, Found]
) -> dict[str, list[Found]]:
    """What was found of the finished runs of every group that has some."""
    rows = {name: [found[r.name] for r in runs if r.name in found] for name, runs in groups.items()}
    return {name: row for name, row in rows.items() if row}


def _choose_curve(runs: Sequence[Run], curve: str | None) -> str:
    known = dict.fromkeys(name for run in runs for r in run.log for name in r if name != "step")
    if curve is None:
        logs = [run.log for run in runs if run.log]
        return "identity" if all("identity" in log[-1] for log in logs) else "loss"
    if curve not in known:
        raise ValueError(f"no log has a curve {curve!r}{nearest_name(curve, known)}")
    return curve


def _rows(
    groups: Mapping[str, Sequence[Run]],
    results: Mapping[str, BootstrapResult],
    fprs: Sequence[float],
) -> list[dict[str, object]]:
    """A row for each run; empty cells where nothing is known."""
    nothing = (torch.zeros(len(fprs)),) * 3
    names = [*percents("tpr", fprs, nothing), *percents("difference", fprs, nothing)]
    order = [run.name for runs in groups.values() for run in runs]
    first = next((results[name] for name in order if name in results), None)
    rows = []
    for group, runs in groups.items():
        for run in runs:
            numbers: dict[str, Any] = dict.fromkeys(names)
            found = results.get(run.name)
            if found is not None and first is not None:
                numbers |= percents("tpr", fprs, (found.estimate, found.low, found.high))
                numbers |= percents("difference", fprs, paired_difference(found, first))
            row = {
                "name": run.name,
                "group": group,
                **{name: run.about(name) for name in ("method", "backbone", "seed")},
                "parameters": run.profile.parameters,
                "macs": run.profile.macs,
                "steps": run.steps,
                "train_seconds": run.about("train_seconds"),
                "final_loss": run.final_loss,
                **numbers,
                "note": run.note,
            }
            rows.append(row)
    return rows


def _page(
    groups: Mapping[str, Sequence[Run]],
    results: Mapping[str, Sequence[BootstrapResult]],
    labels: Tensor,
) -> list[str]:
    """What the runs cost, their TPR and the differences to the first, a row a group of seeds."""
    heads = ["run", "method", "backbone", "seeds", "parameters", "multiply-adds", "steps"]
    lines = [
        *markdown_table(
            [*heads, "seconds", "final loss"], [_cost(*group) for group in groups.items()]
        ),
        "",
        "The final loss is of the last batch in the log, summed as the method sums it: it compares "
        "runs of one method only.",
    ]
    if results:
        rows = [([name, str(len(seeds))], seeds) for name, seeds in results.items()]
        lines += ["", *tpr_lines(["run", "seeds"], rows, labels)]
    if len(results) > 1:
        first, *others = results
        pairs = [[name, first] for name in others]
        lines += ["", *difference_lines(["run", "minus"], pairs, results)]
    notes = [f"- {run.name}: {run.note}" for runs in groups.values() for run in runs if run.note]
    if notes:
        lines += ["", "Left out of the test:", "", *notes]
    return lines


def _cost(name: str, runs: Sequence[Run]) -> list[str]:
    """A group's cells of the first table."""
    first = runs[0]
    return [
        name,
        str(first.about("method")),
        str(first.about("backbone")),
        " ".join(str(run.about("seed")) for run in runs),
        f"{first.profile.parameters:,}",
        f"{first.profile.macs:,}",
        " ".join(dict.fromkeys(str(run.steps) for run in runs)),
        _mean([run.about("train_seconds") for run in runs], decimals=0),
        _mean([run.final_loss for run in runs if not run.note], decimals=3),
    ]


def _mean(values: Sequence[float | None], *, decimals: int) -> str:
    known = [value for value in values if value is not None]
    return mean_and_spread(known, decimals=decimals) if known else "unknown"
