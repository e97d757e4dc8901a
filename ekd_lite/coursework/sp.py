"""Check of chapter 8: SP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.distill.sp import SPLoss


def _sp(student: Tensor, teacher: Tensor) -> Tensor:
    loss: Tensor = SPLoss()(student, teacher)
    return loss


def _cosines(embeddings: Tensor) -> Tensor:
    unit = F.normalize(embeddings)
    return unit @ unit.T


def _embeddings_not_normalised(student: Tensor, teacher: Tensor) -> Tensor:
    """The embeddings were not normalised.

    G holds cosines here, so that long embeddings do not count more.
    """
    teacher = teacher.detach()
    return F.mse_loss(student @ student.T, teacher @ teacher.T)


def _rows_of_the_matrix_normalised(student: Tensor, teacher: Tensor) -> Tensor:
    """The rows of the similarity matrix were normalised, as in the original paper.

    The form asked for here normalises the embeddings and compares cosines.
    """
    teacher = teacher.detach()
    return F.mse_loss(F.normalize(student @ student.T), F.normalize(teacher @ teacher.T))


def _normalised_by_the_sum(student: Tensor, teacher: Tensor) -> Tensor:
    """Rows were divided by the sum of absolute values (L1).

    Cosines need the root of the sum of squares. Mind the positional argument: F.normalize(x, 1) is
    p = 1, not dim = 1.
    """
    mine, theirs = F.normalize(student, p=1), F.normalize(teacher.detach(), p=1)
    return F.mse_loss(mine @ mine.T, theirs @ theirs.T)


def _sum_over_all_pairs(student: Tensor, teacher: Tensor) -> Tensor:
    """The squares were summed: the factor 1 / N^2 is missing.

    Without it the loss grows with the square of the batch.
    """
    return (_cosines(student) - _cosines(teacher.detach())).square().sum()


def _root_taken(student: Tensor, teacher: Tensor) -> Tensor:
    """This is the Frobenius norm itself, over N^2.

    The loss has its square: no root.
    """
    gap = _cosines(student) - _cosines(teacher.detach())
    length: Tensor = gap.norm()
    return length / len(student) ** 2


def _divided_by_the_batch_once(student: Tensor, teacher: Tensor) -> Tensor:
    """The sum was divided by N.

    There are N^2 entries: divide by N^2, or take the mean.
    """
    return (_cosines(student) - _cosines(teacher.detach())).square().sum() / len(student)


def _diagonal_left_out(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean was taken over pairs of different images only.

    Here it runs over all N^2 entries, the diagonal's zeros included; the difference is a factor
    N / (N - 1).
    """
    gap = _cosines(student) - _cosines(teacher.detach())
    off = ~torch.eye(len(student), dtype=torch.bool)
    return gap[off].square().mean()


def _columns_compared(student: Tensor, teacher: Tensor) -> Tensor:
    """Columns were compared instead of images: the matrix is D x D.

    SP relates images of the batch to one another: f f^T, (N, N), not f^T f. Only then may the two
    widths differ.
    """
    mine, theirs = F.normalize(student, dim=0), F.normalize(teacher.detach(), dim=0)
    return F.mse_loss(mine.T @ mine, theirs.T @ theirs)


def _sp_cases() -> list[Case]:
    return [
        Case("by hand", (real([[1.0, 0.0], [0.0, 2.0]]), real([[3.0, 4.0], [1.0, 0.0]]))),
        Case("5 images, width 4", (normal(81, 5, 4), 3 * normal(82, 5, 4))),
        Case("6 images, width 3", (2 * normal(83, 6, 3), normal(84, 6, 3))),
    ]


SP = Exercise(
    "sp",
    _sp,
    _sp_cases,
    (
        _embeddings_not_normalised,
        _rows_of_the_matrix_normalised,
        _normalised_by_the_sum,
        _sum_over_all_pairs,
        _root_taken,
        _divided_by_the_batch_once,
        _diagonal_left_out,
        _columns_compared,
    ),
    gradient=("student",),
    detached=("teacher",),
)


def check_sp(f: Function) -> Verdict:
    """Check a function for SP on embeddings.

    Args:
        f: f(student (N, D), teacher (N, D)) -> 0-dim, |G^s - G^t|_F^2 / N^2 with G the cosines of
            all pairs of the batch; no gradient to the teacher.
    """
    return judge(SP, f)
