"""A demo under a teacher that is there already: its rows are made once, and the students have them.

The teacher looks at the images at its own size, the students at theirs.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from ekd_lite.data import FaceSet, Splits, load_splits
from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.evaluate import count_pairs
from ekd_lite.experiments.folders import Run
from ekd_lite.experiments.tables import FPRS, level
from ekd_lite.files import write_atomically
from ekd_lite.models import Profile, profile_backbone
from ekd_lite.models.onnx_net import OnnxNet
from ekd_lite.ops import false_accepts_at
from ekd_lite.train import Teacher, TrainConfig, cache_teacher
from ekd_lite.train.batches import build_sampler
from ekd_lite.train.pixels import side_to_read
from ekd_lite.train.teacher_fit import probe
from ekd_lite.train.teacher_view import suspect_input

PART = 256  # images that are embedded between two files: what a kill can cost
ROWS = "train.safetensors"


def say_what_can_be_measured(labels: Tensor) -> None:
    """Print which levels the test people cannot show; all that is known before any work.

    Raises:
        ValueError: they can show none of them.
    """
    genuine, impostor = count_pairs(labels)
    missing = [fpr for fpr in FPRS if not false_accepts_at(fpr, impostor)]
    if not genuine or len(missing) == len(FPRS):
        why = (
            "no two of their images show one person"
            if not genuine
            else f"they have {impostor:,} impostor pairs, and FPR {level(max(FPRS))} takes "
            f"{round(1 / max(FPRS)):,}"
        )
        raise ValueError(
            f"nothing can be measured on the {len(labels):,} test images: {why}; give a folder "
            "with more people, and several images of each"
        )
    if missing:
        print(
            f"  not measurable with {impostor:,} impostor pairs of test people: TPR at FPR "
            + ", ".join(level(fpr) for fpr in missing)
        )


def check_batches(plan: Mapping[str, TrainConfig], labels: Tensor) -> None:
    """Raise a ValueError if the training people are too few for the batches of a run.

    Args:
        plan: the runs.
        labels: of the training images.
    """
    for run in plan.values():
        try:
            build_sampler(run, labels)
        except ValueError as error:
            raise ValueError(_too_few_for(run, labels)) from error


def _too_few_for(run: TrainConfig, labels: Tensor) -> str:
    """What a folder must hold for the batches of a run, which a demo's user cannot choose."""
    each, sizes = run.images_per_identity, labels.bincount()
    needed = run.general + run.identities * each
    there = int(sizes.clamp(max=each)[sizes > 1].sum())
    # 60 % of a folder's people train.
    people = [next(n for n in itertools.count() if int(0.6 * n) * k >= needed) for k in (each, 2)]
    return (
        f"the folder is too small for a demo: its batches take {needed} images of training people, "
        f"60 % of all, and {there} count ({each} a person at most, of people with two or more). "
        f"The least is {people[0]} people with {each} images each, or {people[1]} with 2; "
        "`ekd-lite train --faces DIR` has options for smaller batches"
    )


def check_teacher(teacher: Teacher, image_size: int) -> int:
    """Side of the images that a teacher will see; a ValueError if it cannot embed them.

    Args:
        teacher: any with a net.
        image_size: of the students' images.
    """
    if teacher.net is None:
        raise ValueError(
            f"{teacher.name} is a table of rows: the demo measures the teacher on people whom it "
            "has not seen, so give it a net"
        )
    size = side_to_read(teacher.input_size or image_size)
    probe(teacher, size)
    return size


def check_widths(plan: Mapping[str, TrainConfig], teacher: Teacher) -> None:
    """Raise a ValueError if a method needs rows as wide as the students', and they are not."""
    for run in plan.values():
        names = [n for n in parse_method(run.method) if DISTILLERS[n].needs_same_width]
        if names and teacher.width != run.embedding_dim:
            raise ValueError(
                f"method {names[0]!r} needs one width, and {teacher.name} makes {teacher.width} "
                f"numbers, the students of a demo {run.embedding_dim}: leave it out of --methods; "
                f"`ekd-lite train --embedding-dim {teacher.width}` can train with it"
            )


def make_rows(teacher: Teacher, faces: Path | None, size: int, out: Path, flip: bool) -> Splits:
    """Embed the training people (mirrored too, if students see them so) and the test people.

    Args:
        teacher: a net.
        faces: folder of faces, or None for the procedural ones.
        size: side of the images that it sees, pixels.
        out: folder for train.safetensors and test.safetensors; parts that are there are not made
            again, if they are of these images and this teacher.
        flip: whether students see mirrored images.
    """
    splits = load_splits(faces, image_size=size)
    if not (out / ROWS).exists():  # else it has been said, of this teacher and these options
        suspect_input(teacher, splits.train)
    for name, images, both in (("train", splits.train, flip), ("test", splits.test, False)):
        views = _embed(teacher, images, out / "parts", name, both)
        rows = dict(zip(("embeddings", "mirrored"), views, strict=False))
        write_atomically(out / f"{name}.safetensors", save(rows))
    return splits


def _embed(teacher: Teacher, faces: FaceSet, folder: Path, name: str, flip: bool) -> list[Tensor]:
    """Embeddings of a set, one table a view, part by part."""
    starts = range(0, len(faces), PART)
    parts = [
        cache_teacher(
            teacher,
            _Part(faces, range(start, min(start + PART, len(faces)))),
            flip=flip,
            path=folder / f"{name}-{start}.safetensors",
            progress=False,
        )
        for start in tqdm(starts, desc=f"teacher, {name} people", unit="part", disable=None)
    ]
    return [torch.cat(views) for views in zip(*parts, strict=True)]


class _Part:
    """Some images of a set, in order."""

    def __init__(self, faces: FaceSet, rows: range) -> None:
        self.faces, self.rows = faces, torch.arange(rows.start, rows.stop)
        self.labels, self.image_size = faces.labels[self.rows], faces.image_size

    @property
    def num_identities(self) -> int:
        return self.faces.num_identities

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        return self.faces.batch(self.rows[torch.as_tensor(indices)])


def as_run(teacher: Teacher, size: int, out: Path) -> Run:
    """The teacher's row of a table: what it costs; nothing of its training is known."""
    profile = _profile(teacher, size)
    info = {"backbone": Path(teacher.name).name, "train_seconds": 0.0}
    return Run("teacher", out, None, info, [], profile)


def _profile(teacher: Teacher, size: int, repeats: int = 10) -> Profile:
    if not isinstance(teacher.net, OnnxNet):
        return profile_backbone(teacher, image_size=size, repeats=repeats)
    # A graph says neither its parameters nor its operations; its session cannot be copied.
    single = teacher.seen_as(**teacher.pixels.levels)
    single.net = OnnxNet(teacher.name, output=teacher.net._output, threads=1)
    image = torch.zeros(1, 3, size, size)
    seconds = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        single(image)
        seconds.append(time.perf_counter() - start)
    return Profile(0, 0, 1000 * sorted(seconds[2:])[repeats // 2])


def under(plan: Mapping[str, TrainConfig], rows: Path) -> dict[str, TrainConfig]:
    """The runs of a plan without the teacher's, taught by a table of rows."""
    return {
        name: dataclasses.replace(
            run, teacher=None if run.method == "none" else str(rows), teacher_cache=None
        )
        for name, run in plan.items()
        if name != "teacher"
    }
