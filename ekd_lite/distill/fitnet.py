r"""FitNet: match the teacher's features (Romero et al., ICLR 2015), here the embeddings.

    L = mean over all N * D elements of (f^s - f^t)^2,

on raw embeddings as in TFace's `fitnet.py`, or on unit vectors (`normalize=True`), where it equals
2/D * mean_i (1 - cos(f^s_i, f^t_i)). The original trains intermediate maps in a first stage; face
recognition uses the last layer in one stage. The paper's loss weight is not published.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ekd_lite.distill.inputs import check_student_teacher, zero_loss
from ekd_lite.ops import unit_rows


class FitNetLoss(nn.Module):
    """Mean squared difference of the embeddings.

    Args:
        normalize: compare directions only.
    """

    def __init__(self, *, normalize: bool = False) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare embeddings of one width.

        Args:
            student_embeddings: (N, D).
            teacher_embeddings: (N, D); gets no gradient.
            labels: ignored.

        Returns:
            The loss, 0-dim; zero for an empty batch.

        Raises:
            ValueError: the shapes differ.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=True)
        if len(student_embeddings) == 0:
            return zero_loss(student_embeddings)
        student, teacher = student_embeddings, teacher_embeddings.detach()
        with torch.autocast(student.device.type, enabled=False):
            if self.normalize:
                student, teacher = unit_rows(student), unit_rows(teacher)
            elif student.dtype != torch.float64:
                student, teacher = student.float(), teacher.float()
            return (student - teacher).square().mean()
