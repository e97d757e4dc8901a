"""Do the teacher's margins matter? TPR on validation identities for chapter 9, as CSV.

    python studies/margin_forms.py data/results/margin_forms.csv

The students are those of data/results/weights.csv (the default experiment, 1500 steps), their
teacher is the one that ships with the package. Beside the two losses as they are there are their
controls: one margin for all, near the mean of the teacher's; the teacher's margins given to the
wrong images; and, for MarginDistillation, margins that fill M_min..M_max evenly in the teacher's
order. Seeds are the outer loop, so a table that was stopped has whole seeds.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import load_splits
from ekd_lite.distill import DISTILLERS, MarginDistillationLoss, TripletDistillationLoss
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.train import TrainConfig, cache_teacher, fit, load_model

LEVELS = (1e-2, 1e-3, 1e-4)
SEEDS = (0,)  # every further one takes five minutes on a core
LOW, HIGH = 0.2, 0.5
FORMS = {
    "none": ("0.4", "0.48"),
    "margin": ("teacher", "shuffled", "0.48", "0.35", "0.2", "evenly", "evenly, shuffled"),
    "triplet": ("teacher", "shuffled", "0.41"),
}


class OtherMargins(MarginDistillationLoss):
    """MarginDistillation whose margins are spread evenly, or given to the wrong images."""

    form = "shuffled"

    def margins(self, teacher_embeddings: Tensor, labels: Tensor) -> Tensor:
        """The margin of every image, (N,)."""
        margin = super().margins(teacher_embeddings, labels)
        if self.form.startswith("evenly"):
            place = margin.argsort().argsort() / (len(margin) - 1)
            margin = LOW + (HIGH - LOW) * place
        return margin[torch.randperm(len(margin))] if "shuffled" in self.form else margin


class ShuffledTriplets(TripletDistillationLoss):
    """TripletDistillation whose margins are given to the wrong triplets."""

    def gap(self, genuine: Tensor, impostor: Tensor) -> Tensor:
        """d(a, n) - d(a, p); the teacher's, which have no gradient, in another order."""
        gap = super().gap(genuine, impostor)
        return gap if gap.requires_grad else gap[torch.randperm(len(gap))]


def build(method: str, form: str, prototypes: Tensor, scale: float) -> torch.nn.Module:
    """The loss of a form."""
    fixed = form[0].isdigit()
    low, high = (float(form), float(form)) if fixed else (LOW, HIGH)
    if method == "triplet":
        triplets = ShuffledTriplets if form == "shuffled" else TripletDistillationLoss
        return triplets(min_margin=low, max_margin=high)
    margins = MarginDistillationLoss if fixed or form == "teacher" else OtherMargins
    loss = margins(prototypes, scale=scale, min_margin=low, max_margin=high)
    if isinstance(loss, OtherMargins):
        loss.form = form
    return loss


def main(path: Path) -> None:
    """Train and measure every form with every seed; a row is written as soon as it is known."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    splits = load_splits(workers=1, progress=False)
    rows = cache_teacher(load_model(DEMO_TEACHER), splits.train, flip=False, progress=False)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["method", "margins", "seed", "tpr@1e-2", "tpr@1e-3", "tpr@1e-4"])
        for seed in SEEDS:
            for method, forms in FORMS.items():
                for form in forms:
                    config = TrainConfig(
                        method=method,
                        margin=float(form) if method == "none" else 0.4,
                        teacher=None if method == "none" else str(DEMO_TEACHER),
                        seed=seed,
                        device="cpu",
                        checkpoint_every=1500,
                    )
                    methods = dict(DISTILLERS)
                    if method != "none":
                        methods[method] = dataclasses.replace(
                            DISTILLERS[method],
                            build=lambda setting, method=method, form=form: build(
                                method, form, setting.teacher_prototypes, setting.scale
                            ),
                        )
                    with tempfile.TemporaryDirectory() as folder:
                        model = fit(
                            config,
                            splits.train,
                            Path(folder),
                            teacher_embeddings=None if method == "none" else rows,
                            methods=methods,
                            progress=False,
                        )
                        net = load_model(model).backbone
                    faces = splits.validation
                    tpr = all_pairs_tpr_at_fpr(embed(net, faces), faces.labels, LEVELS)
                    table.writerow([method, form, seed, *(f"{100 * x:.2f}" for x in tpr)])
                    file.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
