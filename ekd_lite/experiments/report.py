"""Tables and figures of a comparison: every run against unseen identities, with intervals."""

from __future__ import annotations

import datetime
import math
import platform
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

import ekd_lite
from ekd_lite.data import FaceSet, Splits
from ekd_lite.evaluate import (
    BootstrapResult,
    all_pairs_tpr_at_fpr,
    bootstrap_tpr_at_fpr,
    count_pairs,
    paired_difference,
)
from ekd_lite.experiments.tables import (
    level,
    markdown_table,
    mean_and_spread,
    over_seeds,
    percents,
    save_figure,
    verdicts,
    write_table,
)
from ekd_lite.files import write_atomically
from ekd_lite.models import Profile, profile_backbone
from ekd_lite.ops import false_accepts_at, largest, unit_rows
from ekd_lite.plots import plot_faces, plot_roc, plot_scores
from ekd_lite.train import TrainConfig, load_model

MAX_DRAWN = 3000  # images whose pairs go into a histogram


def write_report(
    out: Path,
    plan: Mapping[str, TrainConfig],
    embeddings: Mapping[str, Tensor],
    splits: Splits,
    fprs: tuple[float, ...],
    resamples: int,
) -> Path:
    """Write table.csv, table.md, roc.png, scores.png and faces.png, and print the table.

    Args:
        out: folder with one sub-folder a run.
        plan: configuration of every run by name; "teacher" is the teacher.
        embeddings: of the test images, by run, (N, D).
        splits: the faces.
        fprs: false-positive rates to report.
        resamples: draws of the bootstrap.

    Returns:
        Path of table.csv.
    """
    labels = splits.test.labels
    results = {
        name: bootstrap_tpr_at_fpr(embeddings[name], labels, fprs, num_resamples=resamples)
        for name in tqdm(plan, desc="intervals", disable=None)
    }
    profiles = profile_runs(out, plan)
    rows = [
        {"method": label(name, run), **run_row(out / name, run, profiles[run.backbone], result)}
        for (name, run), result in zip(plan.items(), results.values(), strict=True)
    ]
    write_table(out / "table.csv", rows)
    text = _markdown(plan, results, rows, profiles, splits)
    write_atomically(out / "table.md", text.encode())
    _figures(out, plan, embeddings, splits)
    print(f"\n{text}\nwritten to {out}/: table.csv table.md roc.png scores.png faces.png")
    return out / "table.csv"


def profile_runs(out: Path, plan: Mapping[str, TrainConfig]) -> dict[str, Profile]:
    """What each backbone costs, by its name."""
    profiles: dict[str, Profile] = {}
    for name, run in plan.items():
        if run.backbone not in profiles:
            backbone = load_model(out / name).backbone
            profiles[run.backbone] = profile_backbone(backbone, image_size=run.image_size)
    return profiles


def run_row(
    folder: Path, run: TrainConfig, profile: Profile, result: BootstrapResult
) -> dict[str, object]:
    """What a table says of a run, but for the name of its method."""
    return {
        "seed": run.seed,
        **percents("tpr", result.fprs, (result.estimate, result.low, result.high)),
        "parameters": profile.parameters,
        "macs": profile.macs,
        "latency_ms": round(profile.latency_ms, 3),
        "train_seconds": load_model(folder).info["train_seconds"],
    }


def label(name: str, run: TrainConfig) -> str:
    """The name of a run's method in tables and figures."""
    if name == "teacher":
        return "teacher"
    return "student alone" if run.method == "none" else run.method


def _markdown(
    plan: Mapping[str, TrainConfig],
    results: Mapping[str, BootstrapResult],
    rows: list[dict[str, object]],
    profiles: Mapping[str, Profile],
    splits: Splits,
) -> str:
    groups: dict[str, list[str]] = {}
    for name, run in plan.items():
        groups.setdefault(label(name, run), []).append(name)
    means = {method: over_seeds([results[n] for n in names]) for method, names in groups.items()}
    fprs = next(iter(results.values())).fprs
    heads = [f"TPR at {level(fpr)}" for fpr in fprs]
    cells = []
    for method, names in groups.items():
        by_level = zip(*(results[n].estimate.tolist() for n in names), strict=True)
        spreads = [mean_and_spread([100 * tpr for tpr in tprs]) for tprs in by_level]
        cells.append([method, str(len(names)), *spreads])
    lines = markdown_table(["method", "seeds", *heads], cells)
    num_genuine, num_impostor = count_pairs(splits.test.labels)
    lines += [
        "",
        f"TPR in percent over all pairs of {len(splits.test):,} test images of "
        f"{splits.test.num_identities:,} identities that no net was trained on: {num_genuine:,} "
        f"genuine and {num_impostor:,} impostor pairs. ± is the standard deviation over seeds.",
        "",
        "What beats what: difference of the means over seeds, with the 95 % interval of a paired "
        "bootstrap over test identities (it does not cover the choice of seeds).",
        "",
    ]
    cells = [
        [first, second, *verdicts(*paired_difference(means[first], means[second]))]
        for first, second in _comparisons(list(groups))
    ]
    lines += [
        *markdown_table(["first", "minus", *heads], cells),
        "",
        "**Bold**: the interval excludes zero. Plain: this test cannot tell the two apart.",
        "",
        *markdown_table(
            ["net", "parameters", "multiply-adds", "ms an image, one CPU thread"],
            [
                [name, f"{p.parameters:,}", f"{p.macs:,}", f"{p.latency_ms:.2f}"]
                for name, p in profiles.items()
            ],
        ),
        "",
        f"ekd_lite {ekd_lite.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()}, {datetime.date.today()}; training: "
        f"{sum(float(str(row['train_seconds'])) for row in rows):.0f} seconds on one core in all.",
    ]
    return "\n".join(lines) + "\n"


def _comparisons(methods: list[str]) -> list[tuple[str, str]]:
    """Every student against the student alone, every combination against its parts."""
    students = [m for m in methods if m not in ("teacher", "student alone")]
    pairs = [(m, "student alone") for m in students if "student alone" in methods]
    for method in students:
        parts = method.split("+")
        pairs += [(method, part) for part in students if part != method and part in parts]
    return pairs


def _figures(
    out: Path, plan: Mapping[str, TrainConfig], embeddings: Mapping[str, Tensor], splits: Splits
) -> None:
    first = min(run.seed for name, run in plan.items() if name != "teacher")
    shown = {
        label(name, run): embeddings[name]
        for name, run in plan.items()
        if name == "teacher" or run.seed == first
    }
    labels = splits.test.labels
    _, num_impostor = count_pairs(labels)
    grid = torch.logspace(-math.floor(math.log10(num_impostor)) + 1, 0, 400, dtype=torch.float64)
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    plot_roc({m: (grid, all_pairs_tpr_at_fpr(e, labels, grid)) for m, e in shown.items()}, axes)
    axes.set_title(f"All pairs of {len(labels):,} images of unseen identities, seed {first}")
    save_figure(figure, out / "roc.png")

    drawn = {m: shown[m] for m in ("student alone", "ekd", "teacher") if m in shown} or shown
    figure = Figure(figsize=(7, 2.6 * len(drawn)), layout="constrained")
    panels = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (method, rows) in zip(panels, drawn.items(), strict=True):
        genuine, impostor = _scores(rows[:MAX_DRAWN], labels[:MAX_DRAWN])
        allowed = false_accepts_at(1e-3, len(impostor))
        threshold = float(largest(impostor, allowed + 1)[-1])
        plot_scores(genuine, impostor, {"FPR 1e-3": threshold}, panel)
        panel.set_title(method)
        panel.get_legend().remove()
        panel.label_outer()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    save_figure(figure, out / "scores.png")

    sheet = _sheet(splits.test)
    height = 9 * len(sheet) / sheet.shape[1]
    figure = Figure(figsize=(9, height + 0.3), layout="constrained")
    plot_faces(sheet, figure.add_subplot())
    save_figure(figure, out / "faces.png")


def _scores(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    i, j = torch.triu_indices(len(rows), len(rows), 1)
    unit = unit_rows(rows)
    scores, same = (unit @ unit.T)[i, j], labels[i] == labels[j]
    return scores[same], scores[~same]


def _sheet(faces: FaceSet, *, rows: int = 6, columns: int = 10) -> Tensor:
    """Some images of the identities that have most, (R, C, 3, H, W)."""
    sizes = torch.bincount(faces.labels)
    people = sizes.argsort(descending=True, stable=True)[:rows]
    columns = min(columns, int(sizes[people[-1]]))
    sheet = [faces.batch((faces.labels == p).nonzero().flatten()[:columns]) for p in people]
    return torch.stack(sheet)
