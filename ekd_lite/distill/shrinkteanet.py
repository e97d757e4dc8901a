r"""ShrinkTeaNet: match directions, not lengths (Duong et al., arXiv 1905.10620, 2019).

With c_i = cos(f^s_i, f^t_i), one of

    "squared"   L = mean_i (1 - c_i)^2           the paper's angular distillation loss
    "cosine"    L = mean_i (1 - c_i)             MarginDistillation's code, weight 1; TFace
    "chord"     L = mean_i |f^s_i - f^t_i|^2     of unit vectors, = 2 (1 - c); VarGFaceNet, weight 7

The full method also sends the student's intermediate features through the teacher's last layers;
as in the EKD setting only the embeddings are compared here. No official code exists, and which
variant and weight the EKD paper used is not published: its row has the MegaFace number of the
"angular distillation" model of MarginDistillation's README, the "cosine" form.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ekd_lite.distill.inputs import check_student_teacher, full_precision, zero_loss
from ekd_lite.ops import unit_rows


class ShrinkTeaNetLoss(nn.Module):
    """Angular distillation of embeddings.

    Args:
        variant: "squared", "cosine" or "chord", see above.
    """

    def __init__(self, *, variant: Literal["squared", "cosine", "chord"] = "squared") -> None:
        super().__init__()
        if variant not in ("squared", "cosine", "chord"):
            raise ValueError(f'variant must be "squared", "cosine" or "chord", got {variant!r}')
        self.variant = variant

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare the directions of embeddings of one width.

        Args:
            student_embeddings: (N, D).
            teacher_embeddings: (N, D); gets no gradient.
            labels: ignored.

        Returns:
            The loss, 0-dim; zero for an empty batch. A zero row counts as perpendicular to all.

        Raises:
            ValueError: the shapes differ.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=True)
        if len(student_embeddings) == 0:
            return zero_loss(student_embeddings, teacher_embeddings)
        with full_precision(student_embeddings):
            cosine = (unit_rows(student_embeddings) * unit_rows(teacher_embeddings.detach())).sum(1)
            gap = 1 - cosine
            if self.variant == "squared":
                gap = gap.square()
            return gap.mean() * (2 if self.variant == "chord" else 1)
