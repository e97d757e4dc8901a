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

from torch import Tensor, nn

from ekd_lite.distill.inputs import check_student_teacher, full_precision, zero_loss
from ekd_lite.ops import unit_rows


class CCKDLoss(nn.Module):
    """Mean squared difference of the two nets' kernel matrices, diagonal included.

    Args:
        gamma: width of the kernel.
        order: P, the highest power.
    """

    def __init__(self, *, gamma: float = 0.4, order: int = 2) -> None:
        super().__init__()
        if gamma <= 0 or order < 1:
            raise ValueError(f"expected gamma > 0 and order >= 1, got {gamma} and {order}")
        self.gamma = gamma
        self.order = order

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
            return zero_loss(student_embeddings)
        with full_precision(student_embeddings):
            student = self.kernel(student_embeddings)
            teacher = self.kernel(teacher_embeddings.detach())
            # The constant factor of K is left out of both matrices and put back here.
            return math.exp(-4 * self.gamma) * (student - teacher).square().mean()

    def kernel(self, embeddings: Tensor) -> Tensor:
        """e^{2 gamma} K - 1 for all pairs, (N, D) -> (N, N), by Horner's rule."""
        unit = unit_rows(embeddings)
        x = (2 * self.gamma) * (unit @ unit.T)
        total: Tensor | float = 1.0
        for p in range(self.order, 1, -1):
            total = 1 + x * total / p
        return x * total
