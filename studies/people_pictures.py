"""More people or more pictures of each: the square of chapter 6, on validation identities.

    python studies/people_pictures.py data/results/people_pictures.csv

Teachers of 160 steps of 32 pictures on 60 or 240 identities with 4 or 16 images each,
three seeds. `val` columns are TPR in percent over all pairs of the 150 validation identities.
`loss` is the mean of the last 20 steps.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import torch

from ekd_lite.data import PackedFaces, SyntheticFaces
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.train import TrainConfig, fit, load_model

LEVELS = (1e-2, 1e-3, 1e-4)
CORNERS = ((60, 4), (60, 16), (240, 4), (240, 16))
SEEDS = (0, 1, 2)


def photograph(identities: int, images: int, first: int) -> PackedFaces:
    """Render faces once and keep them as bytes."""
    faces = SyntheticFaces(identities, images, first_identity=first)
    pixels = ((faces.render(range(len(faces))) + 1) * 127.5).round().to(torch.uint8)
    return PackedFaces(pixels, faces.labels)


def measure(faces: PackedFaces, validation: PackedFaces, seed: int) -> list[str]:
    """Train one teacher; its loss at the end and its TPR at the three levels."""
    config = TrainConfig(
        backbone="tiny_teacher",
        steps=160,
        general=16,
        identities=4,
        learning_rate=3e-3,
        margin_ramp=0.0,
        seed=seed,
        device="cpu",
        checkpoint_every=160,
    )
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        model = fit(
            config,
            faces,
            Path(folder),
            progress=False,
            on_step=lambda _, metrics: losses.append(metrics["loss"]),
        )
        net = load_model(model).backbone
    levels = all_pairs_tpr_at_fpr(embed(net, validation), validation.labels, LEVELS)
    return [f"{sum(losses[-20:]) / 20:.3f}", *(f"{100 * tpr:.2f}" for tpr in levels)]


def main(path: Path) -> None:
    """Train and measure every corner; a row is written as soon as its run is done."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    validation = photograph(150, 10, 3000)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        levels = [f"val@{level:.0e}".replace("e-0", "e-") for level in LEVELS]
        table.writerow(["people", "pictures", "seed", "loss", *levels])
        for people, pictures in CORNERS:
            faces = photograph(people, pictures, 0)
            for seed in SEEDS:
                table.writerow([people, pictures, seed, *measure(faces, validation, seed)])
                file.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
