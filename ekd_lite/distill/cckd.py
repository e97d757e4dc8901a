r"""CCKD: Correlation Congruence (Peng et al., ICCV 2019).

    L = mean_ij ( K(f^s_i, f^s_j) - K(f^t_i, f^t_j) )^2,
    K(x, y) = e^{-2 gamma} * sum_{p=0}^{P} (2 gamma)^p / p! * cos(x, y)^p,

the Taylor polynomial of the Gaussian kernel exp(-gamma |x - y|^2) on the unit sphere. TFace at
171ec14 sums p = 0..P-1 (`range(self.p)`, since its commit b3dad95), which for P = 2 leaves 0.129214
times SP; here the sum goes to P, as in its first commit and in AberHu/Knowledge-Distillation-Zoo.
What RepDistiller calls CC is another formula. The paper's instance congruence and samplers are left
out, as in the EKD setting, whose weight is not published.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ekd_lite.distill.gram_gap import gram_gap
from ekd_lite.distill.inputs import check_student_teacher, full_precision, zero_loss
from ekd_lite.ops import are_numbers, unit_rows


class CCKDLoss(nn.Module):
    """Mean squared difference of the two nets' kernel matrices, diagonal included.

    Args:
        gamma: width of the kernel.
        order: P, the highest power.
    """

    def __init__(self, *, gamma: float = 0.4, order: int = 2) -> None:
        super().__init__()
        if (
            not are_numbers(gamma, order)
            or gamma <= 0
            or not isinstance(order, int)
            or not 1 <= order <= 100
        ):
            raise ValueError(
                f"expected gamma > 0 and a whole order, 1..100, got {gamma} and {order}"
            )
        powers = range(1, order + 1)
        taylor = [math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) for p in powers]
        self.coefficients = [0.0, *taylor]

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare all pairs.

        Args:
            student_embeddings: (N, D).
            teacher_embeddings: (N, D'), any width; gets no gradient.
            labels: ignored.

        Returns:
            The loss, 0-dim; zero for an empty batch.

        Raises:
            ValueError: wrong shapes.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=False)
        if len(student_embeddings) == 0:
            return zero_loss(student_embeddings, teacher_embeddings)
        with full_precision(student_embeddings):
            student, teacher = unit_rows(student_embeddings), unit_rows(teacher_embeddings.detach())
            return gram_gap(student, teacher, self.kernel, self.slope)

    def kernel(self, cosine: Tensor) -> Tensor:
        """K less its constant term, which both nets have, elementwise."""
        return polynomial(cosine, self.coefficients)

    def slope(self, cosine: Tensor) -> Tensor:
        """K', elementwise."""
        return polynomial(cosine, [p * c for p, c in enumerate(self.coefficients)][1:])


def polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """c_0 + c_1 x + c_2 x^2 + ..., elementwise, by Horner's rule."""
    if len(coefficients) == 1:
        return torch.full_like(x, coefficients[0])
    total = x * coefficients[-1]
    for power, coefficient in enumerate(coefficients[-2::-1]):
        total = total.mul_(x) if power else total
        total = total.add_(coefficient) if coefficient else total
    return total
