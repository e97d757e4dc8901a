"""Whether a teacher fits a run: its people, its width, its size, and the images as it sees them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ekd_lite.data import FaceSet
from ekd_lite.data.faceset import identity_names, people_keys
from ekd_lite.distill import DISTILLERS, Distiller, parse_method
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, count_pairs, embed
from ekd_lite.models import build_backbone
from ekd_lite.ops import one_line
from ekd_lite.train.checks import check_net, check_varies
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.origin import Origin, faces_origin
from ekd_lite.train.teacher import Teacher, as_teacher

LOOKED_AT = 128  # images on which other colour orders and ranges are tried
FPR = 1e-2
RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))


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
    problems = []
    used = {name: methods[name] for name in parse_method(config.method)}
    by_person = [name for name, method in used.items() if asks_for_people(method)]
    if by_person and teacher.head is not None:
        rows, problem = match_people(teacher, faces, origin or faces_origin(faces))
        if rows is not None:
            teacher = choose_people(teacher, rows)
        elif problem:
            problems.append(f"{problem}, and {by_person[0]!r} compares images with its people")
    elif by_person and teacher.prototypes is not None:
        known, wanted = len(teacher.prototypes), faces.num_identities
        if known != wanted:
            problems.append(
                f"it knows {known} identities, the set has {wanted}, and {by_person[0]!r} compares "
                "images with its people"
            )
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
    if teacher.prototypes is not None:
        if teacher.prototypes.shape[1] != teacher.width:
            problems.append(
                f"its prototypes are {teacher.prototypes.shape[1]} numbers wide, its embeddings "
                f"{teacher.width}"
            )
        else:
            teacher = teacher.with_head(teacher.prototypes.to(device), scale=config.scale)
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
            teacher, image_size=image_size, width=teacher.width, name="the teacher"
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


def suspect_input(teacher: Teacher, faces: FaceSet) -> None:
    """Warn if a net gets enlarged images, or would do far better on pixels of another form.

    Nothing in a file says in which order a net wants colours, and on which scale pixels; with the
    wrong ones it still gives embeddings, only worse ones. Far better: the share of genuine pairs
    that are missed at FPR 1e-2 falls by half, and by five points at least. Our own files say what
    they take. A good net is nearly as good with red and blue exchanged: that it may not notice.

    Raises:
        ValueError: it gives NaN, or one embedding for all images.
    """
    if teacher.input_size is not None and teacher.input_size > faces.image_size:
        warnings.warn(
            f"{teacher.name} takes {teacher.input_size} pixels, and images of {faces.image_size} "
            "are enlarged for it, which shows it nothing new. Where larger ones are at hand, give "
            "their embeddings: Teacher.from_rows(embed(teacher, larger))",
            stacklevel=2,
        )
    if not teacher.foreign:
        return
    sample = _Sample(faces)
    given = embed(teacher, sample)

    def tpr(rows: Tensor) -> float:
        return float(all_pairs_tpr_at_fpr(rows, sample.labels, [FPR])[0])

    genuine, impostor = count_pairs(sample.labels)
    if genuine < 20 or impostor < 1 / FPR:
        check_varies(given)
        return  # nothing can be measured

    def try_out(**options: Any) -> float:
        try:
            return tpr(embed(teacher.seen_as(**options), sample))
        except ValueError:  # NaN: not so, then
            return 0.0

    now = best = tpr(given)
    found: dict[str, Any] = {}
    for pixels in RANGES:
        other = teacher.seen_as(pixel_range=pixels)
        if torch.equal(other.scale, teacher.scale) and torch.equal(other.shift, teacher.shift):
            continue
        if _far_better(rate := try_out(pixel_range=pixels), now) and rate > best:
            best, found = rate, {"pixel_range": pixels}
    colour: Literal["rgb", "bgr"] = "rgb" if teacher.colour == "bgr" else "bgr"
    as_found = found or teacher.pixels
    if _far_better(rate := try_out(colour=colour, **as_found), best):
        best, found = rate, found | {"colour": colour}
    if found:
        better = ", ".join(f"{name}={value!r}" for name, value in found.items())
        warnings.warn(
            f"{teacher.name} seems to see wrong pixels: on {len(sample)} training images its TPR "
            f"at FPR {FPR:.0e} is {now:.1%} as given, and {best:.1%} with {better}",
            stacklevel=2,
        )
    check_varies(given)


def _far_better(rate: float, than: float) -> bool:
    return rate - than >= 0.05 and 1 - rate <= (1 - than) / 2


class _Sample:
    """Up to four images each of some people that have several, from all over a set."""

    def __init__(self, faces: FaceSet) -> None:
        self.faces, self.image_size = faces, faces.image_size
        order = faces.labels.argsort(stable=True)
        counts = faces.labels.bincount(minlength=faces.num_identities)
        starts = counts.cumsum(0) - counts
        several = (counts > 1).nonzero().flatten()
        if not len(several):
            several = counts.nonzero().flatten()
        takes = int(counts[several].clamp(max=4).float().mean().round())
        step = max(1, len(several) * takes // LOOKED_AT)
        rows = [order[starts[p] : starts[p] + min(int(counts[p]), 4)] for p in several[::step]]
        self.index = torch.cat(rows)[:LOOKED_AT]
        self.labels = faces.labels[self.index]

    @property
    def num_identities(self) -> int:
        return self.faces.num_identities

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, indices: Any) -> Tensor:
        return self.faces.batch(self.index[torch.as_tensor(indices)])


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


def choose_people(teacher: Teacher, rows: Tensor) -> Teacher:
    """The teacher with the prototypes of some of its people only, in the order given."""
    assert teacher.head is not None
    if torch.equal(rows, torch.arange(len(teacher.head.prototypes))):
        return teacher
    people = None if teacher.people is None else teacher.people[rows]
    chosen = teacher.head.prototypes[rows]
    return teacher.with_head(chosen, scale=teacher.head.scale, people=people)
