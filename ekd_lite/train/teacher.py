"""The teacher of a run, and its embeddings of the training set, made once for many runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ekd_lite.data import FaceSet
from ekd_lite.distill import DISTILLERS, Distiller, parse_method
from ekd_lite.evaluate import embed
from ekd_lite.files import write_atomically
from ekd_lite.models import build_backbone
from ekd_lite.parallel import gather_batch, rank, world_size
from ekd_lite.train.checks import check_repeats
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.model_file import Model, load_model

VIEWS = ("embeddings", "mirrored")
CACHE_FORMAT = "ekd_lite.teacher_cache.1"


def load_teacher(
    config: TrainConfig,
    faces: FaceSet,
    *,
    device: torch.device,
    methods: Mapping[str, Distiller] = DISTILLERS,
) -> Model | None:
    """Load the teacher that the method needs.

    Raises:
        FileNotFoundError, ValueError: no such file, or a net that does not fit student and faces.
    """
    if config.method == "none":
        return None
    teacher = load_model(str(config.teacher), device=device)
    teacher.backbone.requires_grad_(False)
    teacher.head.requires_grad_(False)
    problems = []
    if teacher.info["image_size"] != config.image_size:
        problems.append(f"it takes {teacher.info['image_size']} pixels, not {config.image_size}")
    needs = {methods[name].needs for name in parse_method(config.method)}
    if "logits" in needs and teacher.info["num_identities"] != faces.num_identities:
        problems.append(
            f"it knows {teacher.info['num_identities']} identities, the set has "
            f"{faces.num_identities}, and {config.method!r} compares their logits one by one"
        )
    with torch.device("meta"):
        student = build_backbone(
            config.backbone, embedding_dim=config.embedding_dim, image_size=config.image_size
        )
    size = sum(p.numel() for p in student.parameters())
    if teacher.num_parameters <= size:
        problems.append(
            f"it has {teacher.num_parameters:,} parameters, no more than the student's {size:,}: "
            "probably a student's file"
        )
    if problems:
        raise ValueError(f"{config.teacher} cannot be the teacher: " + "; ".join(problems))
    return teacher


def cache_teacher(
    teacher: Model,
    faces: FaceSet,
    *,
    flip: bool,
    path: Path | None = None,
    progress: bool = True,
) -> list[Tensor]:
    """The teacher's embeddings of every image, and of every mirrored image if runs will flip.

    Valid as long as training changes images in no other way. With several processes each embeds its
    share of the images.

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
        ValueError: the set gives another image every time; or the file belongs to another teacher
            or other faces.
    """
    check_repeats(faces)
    views = VIEWS if flip else VIEWS[:1]
    key = _key(teacher, faces) if path is not None else ""
    if path is not None and path.exists():
        return _read(path, key, views)
    label = "teacher" if progress and rank() == 0 else None
    share = _Share(faces)
    made = [
        _gather_rows(embed(teacher.backbone, share, mirrored=i == 1, progress=label), len(faces))
        for i in range(len(views))
    ]
    if path is not None and rank() == 0:
        metadata = {"format": CACHE_FORMAT, "key": key}
        write_atomically(path, save(dict(zip(views, made, strict=True)), metadata))
    return made


def _read(path: Path, key: str, views: Sequence[str]) -> list[Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            is_ours = metadata.get("format") == CACHE_FORMAT and metadata.get("key") == key
            if is_ours and set(views) <= set(file.keys()):
                return [file.get_tensor(view) for view in views]
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no cache of a teacher, or a damaged one: {error}") from error
    raise ValueError(
        f"{path} was made for another teacher, other faces, or without mirrored images: name "
        "another teacher_cache, or delete it"
    )


def _key(teacher: Model, faces: FaceSet) -> str:
    """A digest of what the embeddings depend on; of the images, some hundred are looked at."""
    digest = hashlib.sha256(json.dumps(teacher.info, sort_keys=True).encode())
    for name, tensor in teacher.backbone.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    digest.update(faces.labels.numpy().tobytes())
    sample = torch.linspace(0, len(faces) - 1, min(256, len(faces))).long()
    digest.update(faces.batch(sample).numpy().tobytes())
    return digest.hexdigest()


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

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        return self.faces.batch(self.index[torch.as_tensor(indices)])


def _gather_rows(rows: Tensor, count: int) -> Tensor:
    """The shares of all processes, put back into the order of the set."""
    if world_size() == 1:
        return rows
    joined = gather_batch(rows).view(world_size(), len(rows), -1)
    return joined.transpose(0, 1).reshape(-1, rows.shape[1])[:count].clone()
