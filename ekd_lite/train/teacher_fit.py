"""Whether a teacher fits a run: its people, its width, its size."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ekd_lite.data import FaceSet
from ekd_lite.data.faceset import at_size, identity_names, people_keys
from ekd_lite.data.splits import Selection
from ekd_lite.distill import DISTILLERS, Distiller, parse_method
from ekd_lite.models import build_backbone
from ekd_lite.ops import one_line
from ekd_lite.train.checks import check_net
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.origin import Origin, differences, faces_origin
from ekd_lite.train.teacher import Teacher, as_teacher


def load_teacher(
    config: TrainConfig,
    faces: FaceSet,
    *,
    device: torch.device,
    given: Any = None,
    methods: Mapping[str, Distiller] = DISTILLERS,
    origin: Origin | None = None,
    student: nn.Module | None = None,
) -> Teacher | None:
    """The teacher that the method needs, with prototypes in the order of the set's people.

    Args:
        config: names the method, and the file if no teacher is given.
        faces: the training images.
        device: where to put it.
        given: whatever `as_teacher` takes.
        methods: what the names of methods stand for.
        origin: `faces_origin(faces)`, if it is known already.
        student: the net that it teaches, if it is made already.

    Raises:
        FileNotFoundError, ValueError: no teacher, two, or one that does not fit student and faces.
    """
    check_has_teacher(config, given)
    if config.method == "none":
        return None
    teacher = as_teacher(str(config.teacher) if given is None else given).to(device)
    teacher.eval()  # its user may have trained it in the meantime
    problems, problem = [], ""
    used = {name: methods[name] for name in parse_method(config.method)}
    prototypes = teacher.prototypes
    by_person = [name for name, method in used.items() if asks_for_people(method)]
    if by_person and teacher.head is not None:
        rows, problem = match_people(teacher, faces, origin or faces_origin(faces))
        if rows is not None:
            teacher = choose_people(teacher, rows)
    elif by_person and teacher.prototypes is not None:
        prototypes, problem = match_given(teacher, faces)
    if problem:
        problems.append(f"{problem}, and {by_person[0]!r} compares images with its people")
    teacher, whole = rows_of_part(teacher, faces)
    if teacher.made_for:
        mine = origin if origin and whole is faces else faces_origin(whole)
        problems += rows_of_others(teacher.name, teacher.made_for, whole, mine)
    if teacher.width is None:
        probe(teacher, faces.image_size)
    assert teacher.width is not None
    same_width = [name for name, method in used.items() if method.needs_same_width]
    if same_width and teacher.width != config.embedding_dim:
        problems.append(
            f"its embeddings are {teacher.width} numbers wide, the student's "
            f"{config.embedding_dim}, and {same_width[0]!r} needs one width: set embedding_dim to "
            f"{teacher.width}"
        )
    if prototypes is not None:
        if prototypes.shape[1] != teacher.width:
            problems.append(
                f"its prototypes are {prototypes.shape[1]} numbers wide, its embeddings "
                f"{teacher.width}"
            )
        else:
            teacher = teacher.with_head(prototypes.to(device), scale=config.scale)
    if problems:
        raise ValueError(f"{teacher.name} cannot be the teacher: " + "; ".join(problems))
    _warn_of_size(teacher, config, student)
    return teacher


def check_has_teacher(config: TrainConfig, teacher: Any = None) -> None:
    """Raise a ValueError unless there is one teacher if the method needs one."""
    if config.method == "none":
        if teacher is not None:
            warnings.warn("the teacher is not used: the method is 'none'", stacklevel=3)
        return
    if teacher is None and config.teacher is None:
        raise ValueError(
            f"method {config.method!r} needs a teacher (its model.safetensors): name its file in "
            "the configuration, or give fit a teacher"
        )
    if teacher is not None and config.teacher is not None:
        raise ValueError(
            f"there are two teachers: {config.teacher} in the configuration, and the one given"
        )


def asks_for_people(method: Distiller) -> bool:
    """Whether a method looks at the teacher's prototypes by label."""
    return method.by_person or method.needs == "logits"


def needs_means(
    teacher: Teacher, config: TrainConfig, methods: Mapping[str, Distiller] = DISTILLERS
) -> bool:
    """Whether the method asks for prototypes that the teacher does not have."""
    used = [methods[name] for name in parse_method(config.method)]
    asked = any(asks_for_people(method) or method.needs_prototypes for method in used)
    return asked and teacher.head is None


def class_means(rows: Tensor, labels: Tensor, num_identities: int) -> Tensor:
    """The unit means of the unit rows of each identity, (C, D')."""
    sums = torch.zeros(num_identities, rows.shape[1])
    return normalize(sums.index_add_(0, labels, normalize(rows, dim=1)), dim=1)


def probe(teacher: Teacher, image_size: int) -> int:
    """Put two black images through a teacher and learn its width D'; a ValueError if they fail."""
    try:
        teacher.width = check_net(
            teacher, image_size=image_size, width=teacher.width, name=f"the teacher {teacher.name}"
        )
    except ValueError:
        raise
    except Exception as error:  # whatever others' nets raise over images that they do not know
        size = teacher.input_size or image_size
        raise ValueError(
            f"{teacher.name} cannot embed images (N, 3, {size}, {size}): {one_line(error)}; "
            "Teacher's input_size says at which size it takes them"
        ) from error
    return teacher.width


def _warn_of_size(teacher: Teacher, config: TrainConfig, student: nn.Module | None) -> None:
    """Say it if a teacher is no larger than its student."""
    if student is None:
        with torch.device("meta"):
            student = build_backbone(
                config.backbone, embedding_dim=config.embedding_dim, image_size=config.image_size
            )
    size = sum(p.numel() for p in student.parameters())
    if 0 < teacher.num_parameters <= size:
        warnings.warn(
            f"{teacher.name} has {teacher.num_parameters:,} parameters, no more than the student's "
            f"{size:,}: probably a student's file",
            stacklevel=2,
        )


def match_people(teacher: Teacher, faces: FaceSet, origin: Origin) -> tuple[Tensor | None, str]:
    """Which of the teacher's prototypes belong to the people of a set.

    People are compared by name (`Model.people`, `identity_names`). Where one side gives no names,
    the set must be the teacher's own, image by image; what a file of an earlier version was trained
    on cannot be told, and it is believed, with a warning, if it knows as many people.

    Returns:
        A row for every person of the set, (C,), if the names say which; else None. And what is
        wrong, "" if nothing is.
    """
    names, known = identity_names(faces), teacher.people
    assert teacher.head is not None
    count, wanted = len(teacher.head.prototypes), faces.num_identities
    if names is not None and known is not None:
        return _by_name(names, known)
    if count != wanted:
        return None, f"it knows {count} identities, the set has {wanted}"
    whose = "the set does" if known is not None else "it does"
    if not teacher.trained_on and known is None:
        warnings.warn(
            f"the teacher's file does not say who its {count} people are: they are taken to be "
            "those of the set, in the same order",
            stacklevel=2,
        )
        return None, ""
    if all(origin[key] == teacher.trained_on.get(key) for key in ("faces", "labels")):
        return None, ""
    return None, (
        f"{whose} not name its people, and the set is not the one it was trained on: they may be "
        "others (a set names its people by `identities`, a list of names by label)"
    )


def _by_name(names: list[str], known: Tensor) -> tuple[Tensor | None, str]:
    """Which of the known people have these names, (C,), or whom they do not include."""
    place = {key: row for row, key in enumerate(known.tolist())}
    rows = [place.get(key, -1) for key in people_keys(names).tolist()]
    strangers = [name for name, row in zip(names, rows, strict=True) if row < 0]
    if strangers:
        return None, (
            f"of the set's {len(names)} people it does not know {len(strangers)}, among them "
            f"{', '.join(map(repr, strangers[:3]))}"
        )
    return torch.tensor(rows), ""


def match_given(teacher: Teacher, faces: FaceSet) -> tuple[Tensor | None, str]:
    """The prototypes that came with a teacher, in the order of the set's people; what is wrong."""
    given, names = teacher.prototypes, identity_names(faces)
    assert given is not None
    if teacher.people is None:
        wanted = faces.num_identities
        wrong = f"it knows {len(given)} identities, the set has {wanted}"
        return given, "" if len(given) == wanted else wrong
    if names is None:
        return given, "its prototypes have names, the set's people have none (`identities`)"
    rows, problem = _by_name(names, teacher.people)
    return given if rows is None else given[rows], problem


def rows_of_part(teacher: Teacher, faces: FaceSet) -> tuple[Teacher, FaceSet]:
    """The teacher with the rows of a part of a set, if it has those of the whole; and their set.

    `ekd-lite train` takes 60 % of a folder's people, and `ekd-lite embed` embeds all of them.
    """
    if not isinstance(faces, Selection) or not teacher.rows:
        return teacher, faces
    if len(teacher.rows[0]) != len(faces.whole) or len(faces.whole) == len(faces):
        return teacher, faces
    other = copy.copy(teacher)
    other.rows = [view[faces.rows] for view in teacher.rows]
    return other, faces.whole


def rows_of_others(
    name: str, made_for: Mapping[str, Any], faces: FaceSet, origin: Origin
) -> list[str]:
    """What shows that a table of rows was made for another set, so far as its file tells.

    Rows may be of the same images at another size, for a teacher that takes larger ones: then the
    set is read at that size where it can be, and else they are believed, with a warning.

    Args:
        name: of the file.
        made_for: what it tells, as in `Teacher`.
        faces: the set.
        origin: `faces_origin(faces)`.
    """
    made, labels = made_for.get("origin", {}), made_for.get("labels")
    told = {key: made[key] for key in ("faces", "labels", "people") if key in made}
    mine = {key: origin[key] for key in told}
    made_at = re.match(r"\d+ images of (\d+) pixels", str(told.get("faces", "")))
    if made_at and told["faces"] != mine["faces"]:
        size = int(made_at[1])
        same = [faces, None if size % 16 else at_size(faces, size)]
        known = [s for s in same if s is not None and s.image_size == size]
        if told["faces"] in [faces_origin(s, whole=True)["faces"] for s in known]:
            mine["faces"] = told["faces"]
        elif not known and all(told.get(key) == mine.get(key) for key in ("labels", "people")):
            warnings.warn(
                f"{name} holds embeddings of images of {size} pixels, and the set's of "
                f"{faces.image_size} cannot be compared with them: they are taken to be the same",
                stacklevel=3,
            )
            return []
    found = differences(mine, told)
    if found:
        return [f"it holds the embeddings of other images ({'; '.join(found)})"]
    if labels is not None and len(labels) == len(faces) and not _same_groups(labels, faces.labels):
        return ["its labels group the images into other people than the set's"]
    return []


def _same_groups(one: Tensor, other: Tensor) -> bool:
    pairs = torch.stack([one.flatten().to(other.dtype), other], dim=1)
    counts = [len(torch.unique(x, dim=0)) for x in (pairs, pairs[:, :1], pairs[:, 1:])]
    return counts[0] == counts[1] == counts[2]


def choose_people(teacher: Teacher, rows: Tensor) -> Teacher:
    """The teacher with the prototypes of some of its people only, in the order given."""
    assert teacher.head is not None
    if torch.equal(rows, torch.arange(len(teacher.head.prototypes))):
        return teacher
    people = None if teacher.people is None else teacher.people[rows]
    chosen = teacher.head.prototypes[rows]
    return teacher.with_head(chosen, scale=teacher.head.scale, people=people)
