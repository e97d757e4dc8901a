"""Check of chapter 7: ShrinkTeaNet's angular loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.distill.shrinkteanet import ShrinkTeaNetLoss


def _shrinkteanet(student: Tensor, teacher: Tensor) -> Tensor:
    loss: Tensor = ShrinkTeaNetLoss()(student, teacher)
    return loss


def _cosine(student: Tensor, teacher: Tensor) -> Tensor:
    return (F.normalize(student) * F.normalize(teacher.detach())).sum(1)


def _not_squared(student: Tensor, teacher: Tensor) -> Tensor:
    """The square is missing: this is the mean of 1 - cos.

    The paper's loss is (1 - cos)^2, which pulls hardest where the directions differ most.
    """
    return (1 - _cosine(student, teacher)).mean()


def _squared_chord(student: Tensor, teacher: Tensor) -> Tensor:
    """This is the squared distance of unit vectors, 2 (1 - cos).

    It is the form of VarGFaceNet; the paper's is (1 - cos)^2.
    """
    return 2 * (1 - _cosine(student, teacher)).mean()


def _vectors_not_normalised(student: Tensor, teacher: Tensor) -> Tensor:
    """The inner products are no cosines: the embeddings were not normalised.

    Divide both by their lengths; the loss compares directions only.
    """
    return (1 - (student * teacher.detach()).sum(1)).square().mean()


def _square_of_the_mean(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean was taken before the square.

    Square each image's 1 - cos first, or images that agree cover for those that do not.
    """
    return (1 - _cosine(student, teacher).mean()).square()


def _squared_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """This is the squared angle.

    The loss uses the cosine itself, (1 - cos)^2; an arccos has an infinite slope at 1.
    """
    return torch.acos(_cosine(student, teacher).clamp(-1 + 1e-6, 1 - 1e-6)).square().mean()


def _square_of_the_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """This is the mean of 1 - cos^2.

    It is 0 for opposite directions too. Subtract first, then square: (1 - cos)^2.
    """
    return (1 - _cosine(student, teacher).square()).mean()


def _sum_over_the_batch(student: Tensor, teacher: Tensor) -> Tensor:
    """The images were summed up.

    Take their mean.
    """
    return (1 - _cosine(student, teacher)).square().sum()


def _shrinkteanet_cases() -> list[Case]:
    return [
        Case("by hand", (real([[3.0, 4.0]]), real([[2.0, 0.0]]))),
        Case("two images", (real([[3.0, 4.0], [0.0, 1.0]]), real([[2.0, 0.0], [0.0, -2.0]]))),
        Case("4 images, width 3", (normal(61, 4, 3), normal(62, 4, 3))),
        Case("6 images, width 8", (3 * normal(63, 6, 8), normal(64, 6, 8))),
    ]


SHRINKTEANET = Exercise(
    "shrinkteanet",
    _shrinkteanet,
    _shrinkteanet_cases,
    (
        _not_squared,
        _squared_chord,
        _vectors_not_normalised,
        _square_of_the_mean,
        _squared_angle,
        _square_of_the_cosine,
        _sum_over_the_batch,
    ),
    gradient=("student",),
    detached=("teacher",),
)


def check_shrinkteanet(f: Function) -> Verdict:
    """Check a function for ShrinkTeaNet's angular loss.

    Args:
        f: f(student (N, D), teacher (N, D)) -> 0-dim, mean_i (1 - cos(f^s_i, f^t_i))^2; no gradient
            to the teacher.
    """
    return judge(SHRINKTEANET, f)
