"""Check of chapter 7: ShrinkTeaNet's angular loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import summed
from ekd_lite.distill.shrinkteanet import ShrinkTeaNetLoss
from ekd_lite.ops import unit_rows


def _shrinkteanet(student: Tensor, teacher: Tensor) -> Any:
    return ShrinkTeaNetLoss()(student, teacher)


def _of_cosine(loss: Function, scaled: Function = unit_rows) -> Function:
    """The loss as a function of each image's cosine (or of another inner product)."""
    return lambda student, teacher: loss((scaled(student) * scaled(teacher.detach())).sum(1))


MISTAKES = {
    "not squared": Mistake(
        "The square is missing: this is the mean of 1 - cos. The paper's loss is (1 - cos)^2, "
        "which pulls hardest where the directions differ most.",
        _of_cosine(lambda c: (1 - c).mean()),
    ),
    "squared chord": Mistake(
        "This is the squared distance of unit vectors, 2 (1 - cos). It is the form of VarGFaceNet; "
        "the paper's is (1 - cos)^2.",
        _of_cosine(lambda c: 2 * (1 - c).mean()),
    ),
    "vectors not normalised": Mistake(
        "The inner products are no cosines: the embeddings were not normalised. Divide both by "
        "their lengths; the loss compares directions only.",
        _of_cosine(lambda c: (1 - c).square().mean(), lambda x: x),
    ),
    "square of the mean": Mistake(
        "The mean was taken before the square. Square each image's 1 - cos first, or images that "
        "agree cover for those that do not.",
        _of_cosine(lambda c: (1 - c.mean()).square()),
    ),
    "squared angle": Mistake(
        "This is the squared angle. The loss uses the cosine itself, (1 - cos)^2; an arccos has an "
        "infinite slope at 1.",
        _of_cosine(lambda c: torch.acos(c.clamp(-1 + 1e-6, 1 - 1e-6)).square().mean()),
    ),
    "square of the cosine": Mistake(
        "This is the mean of 1 - cos^2. It is 0 for opposite directions too. Subtract first, then "
        "square: (1 - cos)^2.",
        _of_cosine(lambda c: (1 - c.square()).mean()),
    ),
    "sum over the batch": summed(_shrinkteanet),
}


def _cases() -> list[Case]:
    return [
        Case("by hand", (real([[3.0, 4.0]]), real([[2.0, 0.0]]))),
        Case("two images", (real([[3.0, 4.0], [0.0, 1.0]]), real([[2.0, 0.0], [0.0, -2.0]]))),
        Case("4 images, width 3", (normal(61, 4, 3), normal(62, 4, 3))),
        Case("6 images, width 8", (3 * normal(63, 6, 8), normal(64, 6, 8))),
    ]


SHRINKTEANET = Exercise(
    "shrinkteanet", _shrinkteanet, _cases, MISTAKES, gradient=("student",), detached=("teacher",)
)


def check_shrinkteanet(f: Function) -> Feedback:
    """Check a function for ShrinkTeaNet's angular loss.

    Args:
        f: f(student (N, D), teacher (N, D)) -> 0-dim, mean_i (1 - cos(f^s_i, f^t_i))^2; no gradient
            to the teacher.
    """
    return judge(SHRINKTEANET, f)
