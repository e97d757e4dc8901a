"""Check of chapter 9: MarginDistillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.distill.margin import MarginDistillationLoss
from ekd_lite.heads.margin import add_angle
from ekd_lite.ops import unit_rows


def _margin(
    student: Tensor, teacher: Tensor, prototypes: Tensor, labels: Tensor,
    scale: float, min_margin: float, max_margin: float,
) -> Tensor:  # fmt: skip
    loss = MarginDistillationLoss(
        prototypes, scale=scale, min_margin=min_margin, max_margin=max_margin
    )
    value: Tensor = loss(student, teacher, labels)
    return value


def _typical(embeddings: Tensor, prototypes: Tensor, labels: Tensor) -> Tensor:
    """Cosine of each embedding with its own prototype, (N,)."""
    return (unit_rows(embeddings.detach()) * unit_rows(prototypes)[labels]).sum(1)


def _with_margins(
    student: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margins: Tensor
) -> Tensor:
    """ArcFace's loss on given prototypes, with a margin for each image."""
    cosines = unit_rows(student) @ unit_rows(prototypes).T
    own = labels[:, None]
    target = add_angle(cosines.gather(1, own), margins[:, None])
    return F.cross_entropy(scale * cosines.scatter(1, own, target), labels)


def _always_the_smallest_margin(
    student: Tensor, teacher: Tensor, prototypes: Tensor, labels: Tensor,
    scale: float, min_margin: float, max_margin: float,
) -> Tensor:  # fmt: skip
    """Every image has the smallest margin.

    The teacher's cosine raises it: m = M_min + (M_max - M_min) c / max c.
    """
    margins = torch.full((len(labels),), min_margin, dtype=student.dtype)
    return _with_margins(student, prototypes, labels, scale, margins)


def _always_the_largest_margin(
    student: Tensor, teacher: Tensor, prototypes: Tensor, labels: Tensor,
    scale: float, min_margin: float, max_margin: float,
) -> Tensor:  # fmt: skip
    """Every image has the largest margin.

    That is ArcFace on the teacher's prototypes; an image that the teacher finds untypical gets a
    smaller margin: m = M_min + (M_max - M_min) c / max c.
    """
    margins = torch.full((len(labels),), max_margin, dtype=student.dtype)
    return _with_margins(student, prototypes, labels, scale, margins)


def _margin_from_the_student(
    student: Tensor, teacher: Tensor, prototypes: Tensor, labels: Tensor,
    scale: float, min_margin: float, max_margin: float,
) -> Tensor:  # fmt: skip
    """The margins were taken from the student's cosines.

    The teacher says how typical an image is: c_i = cos(f^t_i, W_y).
    """
    share = _typical(student, prototypes, labels).clamp(min=0)
    margins = min_margin + (max_margin - min_margin) * share / share.max()
    return _with_margins(student, prototypes, labels, scale, margins)


def _cosine_not_divided_by_its_maximum(
    student: Tensor, teacher: Tensor, prototypes: Tensor, labels: Tensor,
    scale: float, min_margin: float, max_margin: float,
) -> Tensor:  # fmt: skip
    """The cosines were not divided by the largest of the batch.

    The most typical image of the batch gets M_max: c / max c.
    """
    share = _typical(teacher, prototypes, labels).clamp(min=0)
    margins = min_margin + (max_margin - min_margin) * share
    return _with_margins(student, prototypes, labels, scale, margins)


def _typical_images_get_less(
    student: Tensor, teacher: Tensor, prototypes: Tensor, labels: Tensor,
    scale: float, min_margin: float, max_margin: float,
) -> Tensor:  # fmt: skip
    """Typical images got the smaller margins.

    It is the other way round: an image near its prototype in the teacher must come near it in the
    student too, and gets the larger margin.
    """
    share = _typical(teacher, prototypes, labels).clamp(min=0)
    margins = max_margin - (max_margin - min_margin) * share / share.max()
    return _with_margins(student, prototypes, labels, scale, margins)


def _no_margin_at_all(
    student: Tensor, teacher: Tensor, prototypes: Tensor, labels: Tensor,
    scale: float, min_margin: float, max_margin: float,
) -> Tensor:  # fmt: skip
    """There is no margin: this is the plain softmax on the teacher's prototypes.

    The true identity's logit is s cos(theta + m).
    """
    return _with_margins(student, prototypes, labels, scale, torch.zeros(len(labels)).double())


def _margin_taken_from_the_cosine(
    student: Tensor, teacher: Tensor, prototypes: Tensor, labels: Tensor,
    scale: float, min_margin: float, max_margin: float,
) -> Tensor:  # fmt: skip
    """The margin was taken from the cosine, as in CosFace.

    Here it is added to the angle: cos(theta + m).
    """
    share = _typical(teacher, prototypes, labels).clamp(min=0)
    margins = min_margin + (max_margin - min_margin) * share / share.max()
    cosines = unit_rows(student) @ unit_rows(prototypes).T
    own = F.one_hot(labels, len(prototypes))
    return F.cross_entropy(scale * (cosines - own * margins[:, None]), labels)


def _margin_cases() -> list[Case]:
    by_hand = real([[3.0, 4.0], [1.0, 2.0]]), real([[1.0, 0.0], [1.0, 1.0]])
    prototypes = normal(111, 4, 6)
    cases = [
        Case("by hand", (*by_hand, torch.eye(2).double(), torch.tensor([0, 1]), 4.0, 0.2, 0.5))
    ]
    for seed, scale, low, high in ((112, 8.0, 0.2, 0.5), (115, 16.0, 0.1, 0.4)):
        labels = torch.randint(4, (6,), generator=torch.Generator().manual_seed(seed))
        student = prototypes[labels] + 0.4 * normal(seed + 1, 6, 6)
        teacher = prototypes[labels] + 0.6 * normal(seed + 2, 6, 6)
        arguments = (student, 2 * teacher, 0.5 * prototypes, labels, scale, low, high)
        cases.append(Case(f"6 images, scale {scale:.0f}", arguments))
    return cases


MARGIN = Exercise(
    "margin",
    _margin,
    _margin_cases,
    (
        _always_the_smallest_margin,
        _always_the_largest_margin,
        _margin_from_the_student,
        _cosine_not_divided_by_its_maximum,
        _typical_images_get_less,
        _no_margin_at_all,
        _margin_taken_from_the_cosine,
    ),
    gradient=("student",),
    detached=("teacher", "prototypes"),
)


def check_margin(f: Function) -> Verdict:
    """Check a function for MarginDistillation.

    Args:
        f: f(student (N, D), teacher (N, D), prototypes (C, D), labels (N,), scale, min_margin,
            max_margin) -> 0-dim, the cross-entropy of ArcFace logits on the teacher's prototypes
            with the margin m_i = M_min + (M_max - M_min) c_i / max c, c_i = cos(f^t_i, W_y); no
            gradient to the teacher or its prototypes.
    """
    return judge(MARGIN, f)
