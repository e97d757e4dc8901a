"""The teacher's embeddings of the training set, made once for many runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ekd_lite.data import FaceSet
from ekd_lite.data.ahead import reads_ahead
from ekd_lite.data.pair_lists import Subset
from ekd_lite.evaluate.embedding import embed, embed_views
from ekd_lite.files import write_atomically
from ekd_lite.models.onnx_net import OnnxNet
from ekd_lite.ops import generator_for, unit_rows
from ekd_lite.parallel import gather_batch, rank, world_size
from ekd_lite.train.checks import check_repeats, check_rows
from ekd_lite.train.distributed import agree
from ekd_lite.train.model_file import Model
from ekd_lite.train.origin import Origin, differences, faces_origin, tensors_digest
from ekd_lite.train.pixels import seen_by
from ekd_lite.train.teacher import VIEWS, Teacher, as_teacher
from ekd_lite.train.teacher_fit import probe

ROUNDING = 0.05  # of a row's length: a cosine of 0.999; other hardware and TF32 differ by less
CACHE_FORMAT = "ekd_lite.teacher_cache.2"


def cache_teacher(
    teacher: Teacher | Model,
    faces: FaceSet,
    *,
    flip: bool,
    path: Path | None = None,
    progress: bool = True,
) -> list[Tensor]:
    """The teacher's embeddings of every image, and of every mirrored image if runs will flip.

    Valid as long as training changes images in no other way. With several processes each embeds its
    share of the images. A teacher of larger images than the set's is shown them at its own size,
    if the set can give them so (`seen_by`).

    Args:
        teacher: the net.
        faces: the training images.
        flip: make the mirrored view too.
        path: a file to keep them in; if it is there and was made for this teacher and these faces,
            it is read instead.
        progress: show a bar on a terminal.

    Returns:
        One or two tensors (N, D').

    Raises:
        ValueError: the set gives another image every time; the net gives no embeddings; or the file
            belongs to another teacher, other faces, labels or people.
    """
    teacher = as_teacher(teacher)
    if teacher.rows is not None:
        return check_rows(teacher.rows, count=len(faces), width=teacher.rows[0].shape[1], flip=flip)
    seen = seen_by(teacher, faces)
    sample = check_repeats(seen)
    width = teacher.width or probe(teacher, faces.image_size)
    views = VIEWS if flip else VIEWS[:1]
    origin: Origin = {}
    if path is not None:
        origin = faces_origin(faces, whole=True) | teacher.origin(head=False)
        origin |= view_origin(teacher, seen, faces)
        if not agree(int(not path.exists())):  # every process sees it
            rows = check_rows(_read(path, origin, views), count=len(faces), width=width, flip=flip)
            _check_same(rows[0][sample], embed(teacher, Subset(seen, sample)), path)
            return rows
    probe(teacher, faces.image_size)
    label = "teacher" if progress and rank() == 0 else None
    share = _Share(seen)
    tables = embed_views(teacher, share, views=(False, True)[: len(views)], progress=label)
    made = [_gather_rows(rows, len(faces)) for rows in tables]
    if path is not None and rank() == 0:
        metadata = {"format": CACHE_FORMAT, "origin": json.dumps(origin)}
        write_atomically(path, save(dict(zip(views, made, strict=True)), metadata))
    return check_rows(made, count=len(faces), width=width, flip=flip)


def view_origin(teacher: Teacher, seen: FaceSet, faces: FaceSet) -> Origin:
    """What `Teacher.origin` leaves out.

    At which size the teacher saw the images, where it is not the student's; and of a net that has
    no tensors to be known by, such as another program's session, what it answers.
    """
    origin = {} if seen is faces else {"teacher's images": f"read at {seen.image_size} pixels"}
    net = teacher.net
    if net is not None and not isinstance(net, OnnxNet) and not net.state_dict():
        origin["teacher's answers"] = _answers(teacher, faces.image_size)
    return origin


def _answers(teacher: Teacher, image_size: int) -> str:
    """A digest of the embeddings of fixed images; sums of them with one digit behind the point.

    Of 32 numbers about one, rounding that differs by 1e-6 moves one in a thousand digests.
    """
    draw = generator_for(0, 0, 0)
    tiles = torch.from_numpy(draw.uniform(-1, 1, (8, 3, 4, 4))).float()
    images = torch.nn.functional.interpolate(tiles, (image_size, image_size))
    with torch.no_grad():
        rows = unit_rows(teacher(images).cpu()).double()
    sums = rows @ torch.from_numpy(draw.standard_normal((rows.shape[1], 4)))
    return tensors_digest([("answers", (10 * sums).round().nan_to_num().to(torch.int64))])


def _check_same(cached: Tensor, rows: Tensor, path: Path) -> None:
    """Raise a ValueError unless cached rows are what the teacher gives, up to rounding."""
    apart = (cached - rows).norm(dim=1) / cached.norm(dim=1)
    if not bool((apart <= ROUNDING).all()):
        raise ValueError(
            f"{path} was made for another teacher: its weights are the same, and of {len(rows)} "
            f"images that were embedded again a row differs by {float(apart.max()):.0%} of its "
            "length: name another teacher_cache, or delete it"
        )


def _read(path: Path, origin: Origin, views: Sequence[str]) -> list[Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            made_for: Any = json.loads(metadata.get("origin", "{}"))
            is_ours = metadata.get("format") == CACHE_FORMAT and isinstance(made_for, dict)
            found = differences(origin, made_for) if is_ours else ["it is of another version"]
            if not found and set(views) <= set(file.keys()):
                return [file.get_tensor(view) for view in views]
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no cache of a teacher, or a damaged one: {error}") from error
    raise ValueError(
        f"{path} was made for another teacher, other faces, or without mirrored images "
        f"({'; '.join(found) or 'these are missing'}): name another teacher_cache, or delete it"
    )


class _Share:
    """Every W-th image of a set, padded with the last so that all processes have as many."""

    def __init__(self, faces: FaceSet) -> None:
        count = -(-len(faces) // world_size())
        index = torch.arange(rank(), count * world_size(), world_size())
        self.index = index.clamp(max=len(faces) - 1)
        self.faces = faces
        self.labels = faces.labels[self.index]
        self.image_size = faces.image_size

    @property
    def num_identities(self) -> int:
        return self.faces.num_identities

    @property
    def reads_ahead(self) -> bool:
        return reads_ahead(self.faces)

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        return self.faces.batch(self.index[torch.as_tensor(indices)])


def _gather_rows(rows: Tensor, count: int) -> Tensor:
    """The shares of all processes, put back into the order of the set."""
    if world_size() == 1:
        return rows
    joined = gather_batch(rows).view(world_size(), len(rows), -1)
    made = rows.new_empty(count, rows.shape[1])
    for first, part in enumerate(joined):  # into one table: it may be tens of gigabytes
        places = made[first :: world_size()]
        places.copy_(part[: len(places)])
    return made
