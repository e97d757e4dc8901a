r"""The mean squared difference of two nets' kernel matrices, and its gradient, in row blocks.

SP and CCKD are both of the form

    L = 1/N^2 sum_ij g_ij^2,      g_ij = k(s_i . s_j) - k(t_i . t_j),

for a function k of the cosine. Both matrices are symmetric, hence the gradient is one product,

    dL/ds_i = 4/N^2 sum_j g_ij k'(s_i . s_j) s_j,

where automatic differentiation makes two; and the pairs right of a diagonal block stand for their
mirror images below it, which saves up to half of the cosines. The rows are taken some at a time,
so that the pairs of a block stay in the processor's cache; no N x N matrix is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ekd_lite.distill.known_gradient import with_gradient

CPU_ROWS, GPU_ROWS = 256, 4096  # a block has a dozen operations, and on a GPU each is a launch

Function = Callable[[Tensor], Tensor]


def gram_gap(
    student: Tensor, teacher: Tensor, kernel: Function, slope: Function | None = None
) -> Tensor:
    """L of unit rows (N, D) and (N, D'), N >= 1, with the gradient of the student's: 0-dim.

    Args:
        student: s, float32 or float64, which is also the precision of the result.
        teacher: t, gets no gradient.
        kernel: k, elementwise; may return its argument but must not overwrite it.
        slope: k', elementwise; None where it is 1.
    """
    with torch.no_grad():
        teacher = teacher.to(student.dtype)
        height = CPU_ROWS if student.device.type == "cpu" else GPU_ROWS
        compare = _one_block if len(student) <= height else _blocks
        total, grad = compare(student, teacher, kernel, slope, height)
        value = (total / len(student) ** 2).to(student.dtype)
    return with_gradient(value, student, grad)


def _one_block(
    student: Tensor, teacher: Tensor, kernel: Function, slope: Function | None, height: int
) -> tuple[Tensor, Tensor]:
    """N^2 L, in float64, and the gradient; a small batch, for which every operation counts."""
    cosine = student @ student.T
    gap = kernel(cosine) - kernel(teacher @ teacher.T)
    total = gap.square().sum().double()
    if slope is not None:
        gap *= slope(cosine)
    return total, torch.addmm(student, gap, student, beta=0, alpha=4 / len(student) ** 2)


def _blocks(
    student: Tensor, teacher: Tensor, kernel: Function, slope: Function | None, height: int
) -> tuple[Tensor, Tensor]:
    """The same, some rows at a time."""
    rows = len(student)
    total = student.new_zeros((), dtype=torch.float64)
    grad = torch.zeros_like(student)
    for start in range(0, rows, height):
        stop = min(start + height, rows)
        own, right = student[start:stop], student[start:]
        cosine = own @ right.T
        gap = kernel(cosine) - kernel(teacher[start:stop] @ teacher[start:].T)
        total += gap[:, :height].square().sum()
        if stop < rows:  # pairs that stand for their mirror images too
            total += 2 * gap[:, height:].square().sum()
        if slope is not None:
            gap *= slope(cosine)
        grad[start:stop].addmm_(gap, right, alpha=4 / rows**2)
        if stop < rows:
            grad[stop:].addmm_(gap[:, height:].T, own, alpha=4 / rows**2)
    return total, grad
