"""One table and one figure of several runs, on people that none of them was trained on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from ekd_lite.data import FaceSet
from ekd_lite.evaluate import (
    BootstrapResult,
    UndefinedMetricWarning,
    all_pairs_tpr_at_fpr,
    bootstrap_tpr_at_fpr,
    count_pairs,
    embed,
    paired_difference,
)
from ekd_lite.experiments.compare_text import markdown
from ekd_lite.experiments.folders import Run, group_runs
from ekd_lite.experiments.tables import percents, save_figure, write_table
from ekd_lite.files import write_atomically
from ekd_lite.ops import nearest_name
from ekd_lite.plots import plot_roc, plot_training
from ekd_lite.train import load_model


@dataclass(frozen=True)
class Measured:
    """What the test says of a run.

    Attributes:
        result: TPR at the levels, with intervals; all runs share the resamples.
        roc: (fpr, tpr), of equal fpr for all runs.
    """

    result: BootstrapResult
    roc: tuple[Tensor, Tensor]


def compare_runs(
    runs: Sequence[Run],
    faces_at: Callable[[int], FaceSet],
    out: Path,
    *,
    fprs: Sequence[float],
    resamples: int = 1000,
    curve: str | None = None,
    device: torch.device | str = "cpu",
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

    Returns:
        Path of compare.csv.

    Raises:
        ValueError: no log has the curve.
    """
    curve = _choose_curve(runs, curve)
    groups = group_runs(runs)
    finished = [run for run in runs if run.info is not None]
    measured = {}
    labels = faces_at(finished[0].about("image_size")).labels if finished else torch.zeros(0)
    for run in tqdm(finished, desc="measuring", disable=None):
        net = load_model(run.path, device=device).backbone
        rows = embed(net, faces_at(run.about("image_size")))
        measured[run.name] = _measure(rows, labels, fprs, resamples)
    write_table(out / "compare.csv", _rows(groups, measured, fprs))
    results = {name: found.result for name, found in measured.items()}
    text = markdown(groups, results, fprs, labels)
    write_atomically(out / "compare.md", text.encode())
    _figure(groups, measured, curve, out / "compare.png")
    print(f"\n{text}\nwritten to {out}/: compare.csv compare.md compare.png")
    return out / "compare.csv"


def _choose_curve(runs: Sequence[Run], curve: str | None) -> str:
    known = dict.fromkeys(name for run in runs for r in run.log for name in r if name != "step")
    if curve is None:
        logs = [run.log for run in runs if run.log]
        return "identity" if all("identity" in log[-1] for log in logs) else "loss"
    if curve not in known:
        raise ValueError(f"no log has a curve {curve!r}{nearest_name(curve, known)}")
    return curve


def _measure(rows: Tensor, labels: Tensor, fprs: Sequence[float], resamples: int) -> Measured:
    num_impostor = count_pairs(labels)[1]
    # From ten false accepts on; to the left of them the curve hangs on single pairs.
    start = min(0.0, math.ceil(1 - math.log10(max(num_impostor, 1))))
    grid = torch.logspace(start, 0, 400, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # the table says it
        result = bootstrap_tpr_at_fpr(rows, labels, fprs, num_resamples=resamples)
        return Measured(result, (grid, all_pairs_tpr_at_fpr(rows, labels, grid)))


def _rows(
    groups: Mapping[str, list[Run]], measured: Mapping[str, Measured], fprs: Sequence[float]
) -> list[dict[str, object]]:
    """A row for each run; empty cells where nothing is known."""
    nothing = (torch.zeros(len(fprs)),) * 3
    names = [*percents("tpr", fprs, nothing), *percents("difference", fprs, nothing)]
    order = [run.name for runs in groups.values() for run in runs]
    first = next((measured[name] for name in order if name in measured), None)
    rows = []
    for group, runs in groups.items():
        for run in runs:
            numbers: dict[str, Any] = dict.fromkeys(names)
            found = measured.get(run.name)
            if found is not None and first is not None:
                difference = paired_difference(found.result, first.result)
                numbers |= percents(
                    "tpr", fprs, (found.result.estimate, found.result.low, found.result.high)
                )
                numbers |= percents("difference", fprs, difference)
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


def _figure(
    groups: Mapping[str, list[Run]], measured: Mapping[str, Measured], curve: str, path: Path
) -> None:
    """Left the logs, right the ROC curves; a side without anything to show is left out."""
    logs, rocs = {}, {}
    for name, runs in groups.items():
        logs[name] = [points for run in runs if len((points := _points(run, curve))[0])]
        tprs = [measured[run.name].roc[1] for run in runs if run.name in measured]
        if tprs:
            grid = next(iter(measured.values())).roc[0]
            rocs[name] = (grid, torch.stack(tprs).mean(0))
    logs = {name: points for name, points in logs.items() if points}
    sides = [side for side in (logs, rocs) if side]
    if not sides:
        return
    figure = Figure(figsize=(6.5 * len(sides), 5), layout="constrained")
    panels = list(figure.subplots(1, len(sides), squeeze=False)[0])
    if logs:
        ylabel = "identity loss" if curve == "identity" else curve
        plot_training(logs, panels[0], ylabel=ylabel, order=list(groups))
        panels[0].set_title("Training" + ("; bands span the seeds" if _has_seeds(logs) else ""))
    if rocs:
        plot_roc(rocs, panels[-1], order=list(groups))
        panels[-1].set_title("Test, means over seeds" if _has_seeds(groups) else "Test")
    save_figure(figure, path)


def _has_seeds(groups: Mapping[str, Sequence[object]]) -> bool:
    return any(len(members) > 1 for members in groups.values())


def _points(run: Run, curve: str) -> tuple[list[int], list[float]]:
    points = [(r["step"], r[curve]) for r in run.log if r.get(curve) is not None]
    return [step for step, _ in points], [value for _, value in points]
