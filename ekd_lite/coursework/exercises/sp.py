"""Check of chapter 8: SP."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import compared, products, summed_over_pairs, times
from ekd_lite.distill.sp import SPLoss


def _sp(student: Tensor, teacher: Tensor) -> Any:
    return SPLoss()(student, teacher)


MISTAKES = {
    "embeddings not normalised": Mistake(
        "The embeddings were not normalised. G holds cosines here, so that long embeddings do not "
        "count more.",
        compared(products),
    ),
    "rows of the matrix normalised": Mistake(
        "The rows of the similarity matrix were normalised, as in the original paper. The form "
        "asked for here normalises the embeddings and compares cosines.",
        compared(lambda x: F.normalize(products(x))),
    ),
    "normalised by the sum": Mistake(
        "Rows were divided by the sum of absolute values (L1). Cosines need the root of the sum of "
        "squares. Mind the positional argument: F.normalize(x, 1) is p = 1, not dim = 1.",
        compared(lambda x: products(F.normalize(x, p=1))),
    ),
    "sum over all pairs": summed_over_pairs(_sp),
    "root taken": Mistake(
        "This is the Frobenius norm itself, over N^2. The loss has its square: no root.",
        lambda student, teacher: _sp(student, teacher).sqrt() / len(student),
    ),
    "divided by the batch once": Mistake(
        "The sum was divided by N. There are N^2 entries: divide by N^2, or take the mean.",
        times(_sp, lambda a: len(a.student)),
    ),
    "diagonal left out": Mistake(
        "The mean was taken over pairs of different images only. Here it runs over all N^2 "
        "entries, the diagonal's zeros included; the difference is a factor N / (N - 1).",
        times(_sp, lambda a: len(a.student) / (len(a.student) - 1)),
    ),
    "columns compared": Mistake(
        "Columns were compared instead of images: the matrix is D x D. SP relates images of the "
        "batch to one another: f f^T, (N, N), not f^T f. Only then may the two widths differ.",
        compared(lambda x: products(F.normalize(x, dim=0).T)),
    ),
}


def _cases() -> list[Case]:
    return [
        Case("by hand", (real([[1.0, 0.0], [0.0, 2.0]]), real([[3.0, 4.0], [1.0, 0.0]]))),
        Case("5 images, width 4", (normal(81, 5, 4), 3 * normal(82, 5, 4))),
        Case("6 images, width 3", (2 * normal(83, 6, 3), normal(84, 6, 3))),
    ]


SP = Exercise("sp", _sp, _cases, MISTAKES, gradient=("student",), detached=("teacher",))


def check_sp(f: Function) -> Feedback:
    """Check a function for SP on embeddings.

    Args:
        f: f(student (N, D), teacher (N, D)) -> 0-dim, |G^s - G^t|_F^2 / N^2 with G the cosines of
            all pairs of the batch; no gradient to the teacher.
    """
    return judge(SP, f)
