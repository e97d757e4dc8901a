"""AdaDistill and QUD beside FitNet and the student alone, for chapter 14, as CSV.

    python studies/after_trials.py data/results/after_trials.csv

The students are those of data/results/study.csv (same faces, batches, net and measure) trained for
1,000 steps instead of 2,500, their teacher is the one that ships with the package. FitNet has the
weight that the study chose among two on validation identities; AdaDistill (two margins) and QUD
(two temperatures) are chosen here in the same way, stage `choose`, seed 0. The test identities are
looked at once, stage `final`, by other seeds; `mean` and `minus` (the mean minus that of the
student alone, or of FitNet) have 95 % intervals from 1,000 draws of them. Each row is written as
soon as it is known; a second call goes on where the first was stopped.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import load_splits
from ekd_lite.distill import DISTILLERS, Distiller, Setting
from ekd_lite.evaluate import (
    BootstrapResult,
    UndefinedMetricWarning,
    all_pairs_tpr_at_fpr,
    bootstrap_tpr_at_fpr,
    embed,
    paired_difference,
)
from ekd_lite.experiments import over_seeds
from ekd_lite.heads.margin import add_angle
from ekd_lite.ops import unit_rows
from ekd_lite.train import TrainConfig, cache_teacher, fit, load_model

LEVELS = (1e-2, 1e-3, 1e-4, 1e-5)
STEPS, SEEDS = 1000, (1, 2)
TPR = [f"tpr@{level:.0e}".replace("e-0", "e-") for level in LEVELS]
COLUMNS = ["stage", "method", "setting", "seed", "on", *TPR]
COLUMNS += [f"{name}_{end}" for name in TPR for end in ("low", "high")]
CHOICES = {"adadistill": ("0.2", "0.4"), "qud": ("0.1", "0.2")}  # margin; temperature
GIVEN = {"none": "", "fitnet": "32"}


class AdaDistill(nn.Module):
    """ArcFace on running means of the teacher's embeddings (Boutros et al., ECCV 2024).

    Several images of one person in a batch: the mean of their updates.
    """

    centres: Tensor

    def __init__(self, people: int, width: int, *, scale: float, margin: float) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(people, width))
        self.scale, self.margin = scale, margin

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The mean cross entropy of (N, D) embeddings."""
        s, t = unit_rows(student), unit_rows(teacher)
        with torch.no_grad():
            old = self.centres[labels]
            typical = F.cosine_similarity(old, t, dim=1).clamp(min=0)
            alpha = ((s * t).sum(1) * typical).clamp(0, 1)[:, None]
            total = torch.zeros_like(self.centres)
            total.index_add_(0, labels, alpha * old + (1 - alpha) * t)
            count = torch.bincount(labels, minlength=len(total))[:, None]
            self.centres = torch.where(count > 0, total / count.clamp(min=1), self.centres)
        cosine = s @ F.normalize(self.centres, dim=1).T
        own = labels[:, None]
        target = add_angle(cosine.gather(1, own), self.margin)
        return F.cross_entropy(self.scale * cosine.scatter(1, own, target), labels)


class QUD(nn.Module):
    """InfoNCE against a queue of the teacher's last embeddings (Kolf et al., BMVC 2024)."""

    queue: Tensor

    def __init__(self, width: int, *, temperature: float, size: int = 1024) -> None:
        super().__init__()
        self.register_buffer("queue", F.normalize(torch.randn(size, width), dim=1))
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """The mean loss of (N, D) embeddings; labels are not looked at."""
        s, t = unit_rows(student), unit_rows(teacher)
        choice = torch.cat([(s * t).sum(1, keepdim=True), s @ self.queue.T], dim=1)
        self.queue = torch.cat([t, self.queue])[: len(self.queue)]
        none = torch.zeros(len(s), dtype=torch.long, device=s.device)
        return F.cross_entropy(choice / self.temperature, none)


def builder(method: str, setting: str) -> Callable[[Setting], nn.Module]:
    """What makes the loss of a setting."""
    value = float(setting)
    if method == "qud":
        return lambda known: QUD(known.student_dim, temperature=value)
    return lambda known: AdaDistill(
        *known.teacher_prototypes.shape, scale=known.scale, margin=value
    )


# The library lacks the two losses: a run takes each in place of the method it is most like.
STANDS_FOR = {"adadistill": "margin", "qud": "fitnet"}


def methods_of(method: str, setting: str) -> dict[str, Distiller]:
    """What the names of methods stand for in a run of this setting."""
    if method not in CHOICES:
        return DISTILLERS
    name = STANDS_FOR[method]
    mine = dataclasses.replace(DISTILLERS[name], build=builder(method, setting))
    return {**DISTILLERS, name: mine}


def configure(method: str, setting: str, seed: int) -> TrainConfig:
    """The run of a setting."""
    common: dict[str, Any] = {"steps": STEPS, "checkpoint_every": STEPS}
    common |= {"seed": seed, "device": "cpu"}
    if method == "none":
        return TrainConfig(**common)
    common |= {"teacher": str(DEMO_TEACHER)}
    if method in CHOICES:
        weight = float(method == "adadistill")  # it replaces the identity loss
        return TrainConfig(method=STANDS_FOR[method] + ":1", identity_weight=weight, **common)
    return TrainConfig(method=f"{method}:{setting}", **common)


class Table:
    """The rows, on disk as soon as they are there."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, []
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                self.rows = list(csv.DictReader(file))

    def find(self, stage: str, method: str, setting: str, seed: object) -> dict[str, str] | None:
        """The row of a run, if it is there."""
        key = (stage, method, setting, str(seed))
        names = ("stage", "method", "setting", "seed")
        return next((r for r in self.rows if tuple(r[n] for n in names) == key), None)

    def add(self, key: tuple[object, ...], numbers: dict[str, float]) -> None:
        """Append a row; percent with two digits."""
        row = dict.fromkeys(COLUMNS, "") | dict(zip(COLUMNS, map(str, key), strict=False))
        self.rows.append(row | {name: f"{100 * x:.2f}" for name, x in numbers.items()})
        with self.path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def with_ends(estimate: Tensor, low: Tensor, high: Tensor) -> dict[str, float]:
    """The columns of an estimate with its interval."""
    numbers = dict(zip(TPR, estimate.tolist(), strict=True))
    for end, values in (("low", low), ("high", high)):
        numbers |= {f"{n}_{end}": x for n, x in zip(TPR, values.tolist(), strict=True)}
    return numbers


def main(path: Path) -> None:
    """Choose, train, measure."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    warnings.simplefilter("ignore", UndefinedMetricWarning)
    splits = load_splits(workers=1, progress=False)
    told = cache_teacher(load_model(DEMO_TEACHER), splits.train, flip=False, progress=False)
    table = Table(path)
    nets = path.with_suffix(".nets")
    nets.mkdir(exist_ok=True)

    def student(method: str, setting: str, seed: int) -> nn.Module:
        kept = nets / f"{method}-{setting}-{seed}.safetensors".replace(" ", "-")
        if not kept.exists():
            config = configure(method, setting, seed)
            rows = None if method == "none" else told
            with tempfile.TemporaryDirectory() as folder:
                made = fit(
                    config,
                    splits.train,
                    Path(folder),
                    teacher_embeddings=rows,
                    methods=methods_of(method, setting),
                    progress=False,
                )
                kept.write_bytes(made.read_bytes())
        return load_model(kept).backbone

    chosen = dict(GIVEN)
    validation, test = splits.validation, splits.test
    for method, settings in CHOICES.items():
        scores = []
        for setting in settings:
            key = ("choose", method, setting, 0)
            if table.find(*key) is None:
                net = student(method, setting, 0)
                tpr = all_pairs_tpr_at_fpr(embed(net, validation), validation.labels, LEVELS)
                table.add((*key, "validation"), dict(zip(TPR, tpr.tolist(), strict=True)))
            row = table.find(*key)
            assert row is not None  # it has just been added
            scores.append(float(row["tpr@1e-3"]) + float(row["tpr@1e-4"]))  # as the study
        chosen[method] = settings[scores.index(max(scores))]
    found: dict[str, list[BootstrapResult]] = {method: [] for method in chosen}
    for seed in SEEDS:
        for method, setting in chosen.items():
            rows = embed(student(method, setting, seed), test)
            result = bootstrap_tpr_at_fpr(rows, test.labels, LEVELS, num_resamples=1000)
            found[method].append(result)
            if table.find("final", method, setting, seed) is None:
                ends = with_ends(result.estimate, result.low, result.high)
                table.add(("final", method, setting, seed, "test"), ends)
    table.rows = [row for row in table.rows if row["stage"] in ("choose", "final")]
    mean = {method: over_seeds(results) for method, results in found.items()}
    for method, result in mean.items():
        ends = with_ends(result.estimate, result.low, result.high)
        table.add(("mean", method, chosen[method], "", "test"), ends)
    for other in ("none", "fitnet"):
        for method, result in mean.items():
            if method != other:
                ends = with_ends(*paired_difference(result, mean[other]))
                table.add((f"minus {other}", method, chosen[method], "", "test"), ends)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
