r"""KD: match the teacher's softened class probabilities (Hinton et al., NIPS workshop 2014).

    L = T^2 * mean_i KL( softmax(z^t_i / T) || softmax(z^s_i / T) ),

summed over identities. In face recognition z = s * cos(theta) *without* margin (`cosine_logits` of
a head): the margin belongs to the label, not to what the teacher believes. FaceX-Zoo and GKD feed
logits with margin; TFace's head returns them without for this use, and so do we.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    at_least_float,
    check_student_teacher,
    full_precision,
    zero_loss,
)


class KDLoss(nn.Module):
    """Kullback-Leibler divergence of softened class probabilities, times T squared.

    Args:
        temperature: T. The gradient of the softened softmax falls as 1/T^2, which the factor
            undoes.
    """

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """Compare logits of the same C identities.

        Args:
            student_logits: s * cos(theta), no margin, (N, C).
            teacher_logits: the same of the teacher, (N, C); gets no gradient.
            labels: ignored.

        Returns:
            The loss, 0-dim; zero for an empty batch.

        Raises:
            ValueError: the shapes differ: both classifiers must know the same identities.
        """
        check_student_teacher(student_logits, teacher_logits, same_width=True)
        if student_logits.numel() == 0:
            return zero_loss(student_logits, teacher_logits)
        with full_precision(student_logits):
            student = at_least_float(student_logits) / self.temperature
            teacher = at_least_float(teacher_logits.detach()) / self.temperature
            divergence = F.kl_div(
                student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="sum"
            )
        return divergence * self.temperature**2 / len(student)
