"""The figures of demo, study and comparison. Imported where one is drawn: matplotlib is heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ekd_lite.data import FaceSet
from ekd_lite.evaluate import BootstrapResult, all_pairs_tpr_at_fpr, count_pairs
from ekd_lite.experiments.folders import Run
from ekd_lite.experiments.plan import ALONE
from ekd_lite.experiments.study_gains import is_ekd
from ekd_lite.experiments.study_report import best_first, shown_name
from ekd_lite.experiments.tables import level
from ekd_lite.ops import false_accepts_at, largest, unit_rows
from ekd_lite.plots import (
    MethodScores,
    plot_faces,
    plot_methods,
    plot_roc,
    plot_scores,
    plot_training,
)

Curve = tuple[Tensor, Tensor]  # (fpr, tpr)
MAX_DRAWN = 3000  # images whose pairs go into a histogram


def roc_curve(embeddings: Tensor, labels: Tensor) -> Curve:
    """400 points of the ROC curve of all pairs, at the same rates for the same labels."""
    num_impostor = count_pairs(labels)[1]
    # From ten false accepts on; to the left of them the curve hangs on single pairs.
    start = min(0.0, math.ceil(1 - math.log10(max(num_impostor, 1))))
    fprs = torch.logspace(start, 0, 400, dtype=torch.float64)
    return fprs, all_pairs_tpr_at_fpr(embeddings, labels, fprs)


def demo_figures(embeddings: Mapping[str, Tensor], faces: FaceSet, seed: int) -> dict[str, Figure]:
    """ROC curves, histograms of scores, and some of the faces, by file name.

    Args:
        embeddings: method -> those of the test images by one of its nets.
        faces: the test faces.
        seed: of these nets.
    """
    curves = {name: roc_curve(rows, faces.labels) for name, rows in embeddings.items()}
    roc = Figure(figsize=(7, 5), layout="constrained")
    axes = plot_roc(curves, roc.add_subplot())
    axes.set_title(f"All pairs of {len(faces):,} images of unseen identities, seed {seed}")
    ekd = next((name for name in embeddings if name.startswith("ekd")), ALONE)
    wanted = {n: embeddings[n] for n in (ALONE, ekd, "teacher") if n in embeddings}
    return {
        "roc.png": roc,
        "scores.png": _scores_figure(wanted or embeddings, faces.labels),
        "faces.png": _faces_figure(faces),
    }


def _scores_figure(embeddings: Mapping[str, Tensor], labels: Tensor) -> Figure:
    """Histograms of genuine and impostor scores, a panel for each net."""
    figure = Figure(figsize=(7, 2.6 * len(embeddings)), layout="constrained")
    panels = figure.subplots(len(embeddings), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (method, rows) in zip(panels, embeddings.items(), strict=True):
        genuine, impostor = _scores(rows[:MAX_DRAWN], labels[:MAX_DRAWN])
        allowed = false_accepts_at(1e-3, len(impostor))
        threshold = float(largest(impostor, allowed + 1)[-1])
        plot_scores(genuine, impostor, {"FPR 1e-3": threshold}, panel)
        panel.set_title(method)
        panel.get_legend().remove()
        panel.label_outer()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def _scores(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    i, j = torch.triu_indices(len(rows), len(rows), 1)
    unit = unit_rows(rows)
    scores, same = (unit @ unit.T)[i, j], labels[i] == labels[j]
    return scores[same], scores[~same]


def _faces_figure(faces: FaceSet, *, rows: int = 6, columns: int = 10) -> Figure:
    """Some images of the identities that have most."""
    sizes = torch.bincount(faces.labels)
    people = sizes.argsort(descending=True, stable=True)[:rows]
    columns = min(columns, int(sizes[people[-1]]))
    sheet = torch.stack(
        [faces.batch((faces.labels == p).nonzero().flatten()[:columns]) for p in people]
    )
    figure = Figure(figsize=(9, 9 * len(people) / columns + 0.3), layout="constrained")
    plot_faces(sheet, figure.add_subplot())
    return figure


def study_figure(
    regimes: Mapping[
        str, tuple[Mapping[str, Sequence[BootstrapResult]], Mapping[str, BootstrapResult]]
    ],
    fpr: float,
) -> Figure:
    """A panel a regime: every method by its mean TPR at one level, best first; forms of EKD bold.

    Args:
        regimes: name -> (row -> results of all seeds, row -> their mean with its interval).
        fpr: the level.
    """
    regimes = {name: found for name, found in regimes.items() if found[1]}
    sizes = [len(means) for _, means in regimes.values()]
    figure = Figure(figsize=(7, 0.8 * len(sizes) + 0.26 * sum(sizes)), layout="constrained")
    panels = figure.subplots(
        len(sizes), 1, sharex=True, squeeze=False, height_ratios=[2 + size for size in sizes]
    )[:, 0]
    for panel, (name, (runs, means)) in zip(panels, regimes.items(), strict=True):
        place = next(iter(means.values())).fprs.index(fpr)
        rows = {
            shown_name(row): MethodScores(
                tuple(100 * float(found.estimate[place]) for found in runs[row]),
                100 * float(means[row].low[place]),
                100 * float(means[row].high[place]),
            )
            for row in best_first(means, place)
        }
        plot_methods(
            [rows],
            panel,
            reference=ALONE if ALONE in rows else None,
            xlabel=f"TPR at FPR {level(fpr)}, percent",
        )
        for label in panel.get_yticklabels():
            label.set_fontweight("bold" if is_ekd(label.get_text()) else "normal")
        panel.set_title(f"regime: {name}", loc="left")
        panel.label_outer()
    figure.suptitle("Diamonds: means on their 95 % intervals over seeds and people;\n"
                    "circles: single seeds; bold: forms of EKD")  # fmt: skip
    return figure


def compare_figures(
    groups: Mapping[str, Sequence[Run]], rocs: Mapping[str, Sequence[Curve]], curve: str
) -> dict[str, Figure]:
    """Left the logs, right the ROC curves; a side without anything to show is left out.

    Args:
        groups: runs that differ in nothing but the seed, by name.
        rocs: of the finished runs of every group.
        curve: which number of the logs to draw.
    """
    logs = {name: [points for run in runs if (points := _points(run, curve))[0]]
            for name, runs in groups.items()}  # fmt: skip
    logs = {name: points for name, points in logs.items() if points}
    means = {
        name: (seeds[0][0], torch.stack([tpr for _, tpr in seeds]).mean(0))
        for name, seeds in rocs.items()
    }
    sides = [side for side in (logs, means) if side]
    if not sides:
        return {}
    figure = Figure(figsize=(6.5 * len(sides), 5), layout="constrained")
    panels = list(figure.subplots(1, len(sides), squeeze=False)[0])
    if logs:
        ylabel = "identity loss" if curve == "identity" else curve
        plot_training(logs, panels[0], ylabel=ylabel, order=list(groups))
        panels[0].set_title("Training" + ("; bands span the seeds" if _has_seeds(logs) else ""))
    if means:
        plot_roc(means, panels[-1], order=list(groups))
        panels[-1].set_title("Test, means over seeds" if _has_seeds(groups) else "Test")
    return {"compare.png": figure}


def _has_seeds(groups: Mapping[str, Sequence[object]]) -> bool:
    return any(len(members) > 1 for members in groups.values())


def _points(run: Run, curve: str) -> tuple[list[int], list[float]]:
    points = [(r["step"], r[curve]) for r in run.log if r.get(curve) is not None]
    return [step for step, _ in points], [value for _, value in points]
