"""The teacher of a run, and its embeddings of the training set, made once for many runs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ekd_lite.data import FaceSet
from ekd_lite.data.faceset import identity_names, people_keys
from ekd_lite.distill import DISTILLERS, Distiller, parse_method
from ekd_lite.evaluate import embed
from ekd_lite.files import write_atomically
from ekd_lite.models import build_backbone
from ekd_lite.parallel import gather_batch, rank, world_size
from ekd_lite.train.checks import check_net, check_repeats, check_rows
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.distributed import agree
from ekd_lite.train.model_file import Model, load_model
from ekd_lite.train.origin import Origin, differences, faces_origin, tensors_digest

VIEWS = ("embeddings", "mirrored")
CACHE_FORMAT = "ekd_lite.teacher_cache.2"


def load_teacher(
    config: TrainConfig,
    faces: FaceSet,
    *,
    device: torch.device,
    methods: Mapping[str, Distiller] = DISTILLERS,
    origin: Origin | None = None,
) -> Model | None:
    """Load the teacher that the method needs, with prototypes in the order of the set's people.

    Args:
        config: names file and method.
        faces: the training images.
        device: where to put it.
        methods: what the names of methods stand for.
        origin: `faces_origin(faces)`, if it is known already.

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
    used = {name: methods[name] for name in parse_method(config.method)}
    by_person = [n for n, method in used.items() if method.by_person or method.needs == "logits"]
    if by_person:
        rows, problem = match_people(teacher, faces, origin or faces_origin(faces))
        if rows is not None:
            teacher = choose_people(teacher, rows)
        elif problem:
            problems.append(f"{problem}, and {by_person[0]!r} compares images with its people")
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


def match_people(teacher: Model, faces: FaceSet, origin: Origin) -> tuple[Tensor | None, str]:
    """Which of the teacher's prototypes belong to the people of a set.

    People are compared by name (`Model.people`, `identity_names`). Where one side gives no names,
    the set must be the teacher's own, image by image; what a file of an earlier version was trained
    on cannot be told, and it is believed, with a warning, if it knows as many people.

    Returns:
        A row for every person of the set, (C,), if the names say which; else None. And what is
        wrong, "" if nothing is.
    """
    names, known = identity_names(faces), teacher.people
    count, wanted = teacher.info["num_identities"], faces.num_identities
    if names is not None and known is not None:
        place = {key: row for row, key in enumerate(known.tolist())}
        rows = [place.get(key, -1) for key in people_keys(names).tolist()]
        strangers = [name for name, row in zip(names, rows, strict=True) if row < 0]
        if strangers:
            return None, (
                f"of the set's {wanted} people it does not know {len(strangers)}, among them "
                f"{', '.join(map(repr, strangers[:3]))}"
            )
        return torch.tensor(rows), ""
    if count != wanted:
        return None, f"it knows {count} identities, the set has {wanted}"
    whose = "the set does" if known is not None else "it does"
    if not teacher.origin and known is None:
        warnings.warn(
            f"the teacher's file does not say who its {count} people are: they are taken to be "
            "those of the set, in the same order",
            stacklevel=2,
        )
        return None, ""
    if all(origin[key] == teacher.origin.get(key) for key in ("faces", "labels")):
        return None, ""
    return None, (
        f"{whose} not name its people, and the set is not the one it was trained on: they may be "
        "others (a set names its people by `identities`, a list of names by label)"
    )


def choose_people(teacher: Model, rows: Tensor) -> Model:
    """The teacher with the prototypes of some of its people only, in the order given."""
    if torch.equal(rows, torch.arange(len(teacher.head.prototypes))):
        return teacher
    teacher.head.prototypes = nn.Parameter(
        teacher.head.prototypes.detach()[rows], requires_grad=False
    )
    people = None if teacher.people is None else teacher.people[rows]
    info = teacher.info | {"num_identities": len(rows)}
    return Model(teacher.backbone, teacher.head, info, people, teacher.origin)


def teacher_origin(teacher: Model, *, head: bool = True) -> Origin:
    """The origin of what a teacher says: its backbone's weights, and the head's if wanted."""
    net = {"backbone": teacher.backbone, **({"head": teacher.head} if head else {})}
    weights = (
        (f"{part}.{name}", tensor)
        for part, module in net.items()
        for name, tensor in module.state_dict().items()
    )
    return {"teacher": f"{teacher.info.get('backbone', 'a net')} ({tensors_digest(weights)})"}


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
        ValueError: the set gives another image every time; the net gives no embeddings; or the file
            belongs to another teacher, other faces, labels or people.
    """
    check_repeats(faces)
    width = teacher.info["embedding_dim"]
    views = VIEWS if flip else VIEWS[:1]
    origin: Origin = {}
    if path is not None:
        origin = faces_origin(faces, whole=True) | teacher_origin(teacher, head=False)
        if not agree(int(not path.exists())):  # every process sees it
            rows = _read(path, origin, views)
            return check_rows(rows, count=len(faces), width=width, flip=flip)
    check_net(teacher.backbone, image_size=faces.image_size, width=width, name="the teacher")
    label = "teacher" if progress and rank() == 0 else None
    share = _Share(faces)
    made = [
        _gather_rows(embed(teacher.backbone, share, mirrored=i == 1, progress=label), len(faces))
        for i in range(len(views))
    ]
    if path is not None and rank() == 0:
        metadata = {"format": CACHE_FORMAT, "origin": json.dumps(origin)}
        write_atomically(path, save(dict(zip(views, made, strict=True)), metadata))
    return made


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
