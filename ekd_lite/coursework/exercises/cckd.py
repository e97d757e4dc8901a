"""Check of chapter 8: CCKD."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import (
    compared,
    cosines,
    instead,
    products,
    summed_over_pairs,
    times,
)
from ekd_lite.distill.cckd import CCKDLoss


def _cckd(student: Tensor, teacher: Tensor, gamma: float, order: int) -> Any:
    return CCKDLoss(gamma=gamma, order=order)(student, teacher)


def _with_kernel(kernel: Function) -> Function:
    """The loss with another kernel, a function of the embeddings, gamma and the order."""
    return lambda s, t, gamma, order: compared(lambda x: kernel(x, gamma, order))(s, t)


def _series(cosine: Tensor, gamma: float, order: int, factorial: Function = math.factorial) -> Any:
    """The kernel's Taylor sum; `factorial` is what stands under each power."""
    powers = (((2 * gamma) ** p / factorial(p) * cosine**p) for p in range(order + 1))
    return math.exp(-2 * gamma) * sum(powers, 0 * cosine)


MISTAKES = {
    "last power missing": Mistake(
        "The last power is missing. The sum runs from 0 to P, and range(P) stops at P - 1: "
        "range(P + 1). (The published code of TFace has this mistake.)",
        instead(_cckd, order=lambda a: a.order - 1),
    ),
    "factorial missing": Mistake(
        "The factorial is missing. The Taylor series of exp has p! under each power.",
        _with_kernel(lambda x, gamma, order: _series(cosines(x), gamma, order, lambda p: 1)),
    ),
    "leading factor missing": Mistake(
        "The factor e^(-2 gamma) is missing. On the unit sphere |x - y|^2 = 2 - 2 cos, so "
        "exp(-gamma |x - y|^2) = e^(-2 gamma) e^(2 gamma cos): the constant part stands in front "
        "of the sum.",
        times(_cckd, lambda a: math.exp(4 * a.gamma)),
    ),
    "embeddings not normalised": Mistake(
        "The embeddings were not normalised. The kernel is a function of the cosine.",
        _with_kernel(lambda x, gamma, order: _series(products(x), gamma, order)),
    ),
    "cosines without kernel": Mistake(
        "These are plain cosines: this is SP. CCKD sends them through the kernel first, whose "
        "square term weighs near pairs more.",
        _with_kernel(lambda x, gamma, order: cosines(x)),
    ),
    "exact kernel": Mistake(
        "This is the exact Gaussian kernel. CCKD takes its Taylor polynomial up to the power P.",
        _with_kernel(lambda x, gamma, order: (2 * gamma * (cosines(x) - 1)).exp()),
    ),
    "gamma not doubled": Mistake(
        "The powers are those of gamma; they should be those of 2 gamma. |x - y|^2 = 2 - 2 cos "
        "brings the factor 2.",
        times(instead(_cckd, gamma=lambda a: a.gamma / 2), lambda a: math.exp(-2 * a.gamma)),
    ),
    "sum over all pairs": summed_over_pairs(_cckd),
}


def _cases() -> list[Case]:
    by_hand = real([[1.0, 0.0], [0.0, 2.0]]), real([[3.0, 4.0], [1.0, 0.0]])
    return [
        Case("by hand", (*by_hand, 0.5, 2)),
        Case("5 images, order 2", (normal(85, 5, 3), 3 * normal(86, 5, 4), 0.4, 2)),
        Case("6 images, order 3", (2 * normal(87, 6, 3), normal(88, 6, 3), 0.7, 3)),
    ]


CCKD = Exercise("cckd", _cckd, _cases, MISTAKES, gradient=("student",), detached=("teacher",))


def check_cckd(f: Function) -> Feedback:
    """Check a function for the correlation congruence of CCKD.

    Args:
        f: f(student (N, D), teacher (N, D'), gamma, order) -> 0-dim, mean_ij (K^s_ij - K^t_ij)^2
            with K = e^(-2 gamma) sum over p = 0 ... order of (2 gamma)^p / p! cos^p; no gradient to
            the teacher.
    """
    return judge(CCKD, f)
