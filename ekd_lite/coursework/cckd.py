"""Check of chapter 8: CCKD."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.distill.cckd import CCKDLoss


def _cckd(student: Tensor, teacher: Tensor, gamma: float, order: int) -> Tensor:
    loss: Tensor = CCKDLoss(gamma=gamma, order=order)(student, teacher)
    return loss


def _cosines(embeddings: Tensor) -> Tensor:
    unit = F.normalize(embeddings)
    return unit @ unit.T


def _polynomial(cosines: Tensor, gamma: float, powers: range) -> Tensor:
    """The kernel's Taylor sum over some powers."""
    total = 0 * cosines
    for p in powers:
        total = total + (2 * gamma) ** p / math.factorial(p) * cosines**p
    return math.exp(-2 * gamma) * total


def _last_power_missing(student: Tensor, teacher: Tensor, gamma: float, order: int) -> Tensor:
    """The last power is missing.

    The sum runs from 0 to P, and range(P) stops at P - 1: range(P + 1). (The published code of
    TFace has this mistake.)
    """
    powers = range(order)
    return F.mse_loss(
        _polynomial(_cosines(student), gamma, powers),
        _polynomial(_cosines(teacher.detach()), gamma, powers),
    )


def _factorial_missing(student: Tensor, teacher: Tensor, gamma: float, order: int) -> Tensor:
    """The factorial is missing.

    The Taylor series of exp has p! under each power.
    """
    mine, theirs = _cosines(student), _cosines(teacher.detach())
    gap = sum((2 * gamma) ** p * (mine**p - theirs**p) for p in range(order + 1)) + 0 * mine
    return (math.exp(-2 * gamma) * gap).square().mean()


def _leading_factor_missing(student: Tensor, teacher: Tensor, gamma: float, order: int) -> Tensor:
    """The factor e^(-2 gamma) is missing.

    On the unit sphere |x - y|^2 = 2 - 2 cos, so exp(-gamma |x - y|^2) = e^(-2 gamma) e^(2 gamma
    cos): the constant part stands in front of the sum.
    """
    return _cckd(student, teacher, gamma, order) * math.exp(4 * gamma)


def _embeddings_not_normalised(
    student: Tensor, teacher: Tensor, gamma: float, order: int
) -> Tensor:
    """The embeddings were not normalised.

    The kernel is a function of the cosine.
    """
    teacher, powers = teacher.detach(), range(order + 1)
    return F.mse_loss(
        _polynomial(student @ student.T, gamma, powers),
        _polynomial(teacher @ teacher.T, gamma, powers),
    )


def _cosines_without_kernel(student: Tensor, teacher: Tensor, gamma: float, order: int) -> Tensor:
    """These are plain cosines: this is SP.

    CCKD sends them through the kernel first, whose square term weighs near pairs more.
    """
    return F.mse_loss(_cosines(student), _cosines(teacher.detach()))


def _exact_kernel(student: Tensor, teacher: Tensor, gamma: float, order: int) -> Tensor:
    """This is the exact Gaussian kernel.

    CCKD takes its Taylor polynomial up to the power P.
    """
    mine, theirs = _cosines(student), _cosines(teacher.detach())
    return F.mse_loss((2 * gamma * (mine - 1)).exp(), (2 * gamma * (theirs - 1)).exp())


def _gamma_not_doubled(student: Tensor, teacher: Tensor, gamma: float, order: int) -> Tensor:
    """The powers are those of gamma; they should be those of 2 gamma.

    |x - y|^2 = 2 - 2 cos brings the factor 2.
    """
    mine, theirs = _cosines(student), _cosines(teacher.detach())
    powers, factor = range(order + 1), math.exp(-2 * gamma) / math.exp(-gamma)
    return F.mse_loss(
        factor * _polynomial(mine, gamma / 2, powers),
        factor * _polynomial(theirs, gamma / 2, powers),
    )


def _sum_over_all_pairs(student: Tensor, teacher: Tensor, gamma: float, order: int) -> Tensor:
    """The squares were summed.

    Take the mean over all N^2 entries.
    """
    return _cckd(student, teacher, gamma, order) * len(student) ** 2


def _cckd_cases() -> list[Case]:
    by_hand = real([[1.0, 0.0], [0.0, 2.0]]), real([[3.0, 4.0], [1.0, 0.0]])
    return [
        Case("by hand", (*by_hand, 0.5, 2)),
        Case("5 images, order 2", (normal(85, 5, 3), 3 * normal(86, 5, 4), 0.4, 2)),
        Case("6 images, order 3", (2 * normal(87, 6, 3), normal(88, 6, 3), 0.7, 3)),
    ]


CCKD = Exercise(
    "cckd",
    _cckd,
    _cckd_cases,
    (
        _last_power_missing,
        _factorial_missing,
        _leading_factor_missing,
        _embeddings_not_normalised,
        _cosines_without_kernel,
        _exact_kernel,
        _gamma_not_doubled,
        _sum_over_all_pairs,
    ),
    gradient=("student",),
    detached=("teacher",),
)


def check_cckd(f: Function) -> Verdict:
    """Check a function for the correlation congruence of CCKD.

    Args:
        f: f(student (N, D), teacher (N, D'), gamma, order) -> 0-dim, mean_ij (K^s_ij - K^t_ij)^2
            with K = e^(-2 gamma) sum over p = 0 ... order of (2 gamma)^p / p! cos^p; no gradient to
            the teacher.
    """
    return judge(CCKD, f)
