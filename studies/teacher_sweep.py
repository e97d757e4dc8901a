"""Learning rate and optimizer of the teacher of chapter 6, on validation identities.

    python studies/teacher_sweep.py data/results/teacher_sweep.csv

The runs are those of the chapter (600 identities x 16 images, 600 steps). `val` columns are TPR in
percent over all pairs of the validation identities, on which the choice is made; `test` columns
are of the test identities, and are not looked at for it. `loss` is the mean of the last 50 steps.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path
from typing import Literal

import torch

from ekd_lite.data import PackedFaces, SyntheticFaces
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.train import TrainConfig, fit, load_model

LEVELS = (1e-2, 1e-3, 1e-4)
RATES: dict[Literal["adamw", "sgd"], tuple[float, ...]] = {
    "adamw": (1e-3, 3e-3, 1e-2, 3e-2),
    "sgd": (0.03, 0.1),
}
DECAY = {"adamw": 0.05, "sgd": 5e-4}  # SGD's is multiplied by a rate some ten times as large
SEEDS = (0, 1, 2)


def photograph(identities: int, images: int, first: int) -> PackedFaces:
    """Render faces once and keep them as bytes."""
    faces = SyntheticFaces(identities, images, first_identity=first)
    pixels = ((faces.render(range(len(faces))) + 1) * 127.5).round().to(torch.uint8)
    return PackedFaces(pixels, faces.labels)


def main(path: Path) -> None:
    """Train and measure every run; a row is written as soon as its run is done."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    train = photograph(600, 16, 0)
    sides = {"val": photograph(150, 10, 3000), "test": photograph(250, 10, 6000)}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        head = [f"{side}@{level:.0e}".replace("e-0", "e-") for side in sides for level in LEVELS]
        table.writerow(["optimizer", "learning_rate", "seed", "loss", *head])
        for optimizer, rates in RATES.items():
            for rate in rates:
                for seed in SEEDS:
                    config = TrainConfig(
                        backbone="tiny_teacher",
                        steps=600,
                        optimizer=optimizer,
                        learning_rate=rate,
                        weight_decay=DECAY[optimizer],
                        seed=seed,
                        device="cpu",
                        checkpoint_every=600,
                    )
                    losses: list[float] = []
                    with tempfile.TemporaryDirectory() as folder:
                        model = fit(
                            config,
                            train,
                            Path(folder),
                            progress=False,
                            on_step=lambda _, m, kept=losses: kept.append(m["loss"]),
                        )
                        net = load_model(model).backbone
                    row = [
                        f"{100 * tpr:.2f}"
                        for faces in sides.values()
                        for tpr in all_pairs_tpr_at_fpr(embed(net, faces), faces.labels, LEVELS)
                    ]
                    loss = f"{sum(losses[-50:]) / 50:.3f}"
                    table.writerow([optimizer, rate, seed, loss, *row])
                    file.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
