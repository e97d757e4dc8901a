r"""KD: match the teacher's softened class probabilities (Hinton et al., NIPS workshop 2014).

    L = T^2 * mean_i KL( softmax(z^t_i / T) || softmax(z^s_i / T) ),

summed over identities. In face recognition z = s * cos(theta) *without* margin (`cosine_logits` of
a head): the margin belongs to the label, not to what the teacher believes. FaceX-Zoo and GKD feed
logits with margin; TFace's head returns them without for this use, and so do we.

With `standardize` the logits of either net are first brought to mean 0 and standard deviation 1
over the classes of an image, z <- (z - mean) / (std + 1e-7) with the unbiased std (LSKD: Sun et
al., CVPR 2024; sunshangquan/logit-standardization-KD f6e5aa5). The value then depends neither on
the scale s nor on how sure a net is, only on the order and the proportions of its logits. The
authors take T = 2 and weight 9 for 100 classes. Over 10^5 classes standardised logits are almost
uniform, so the weight must be chosen anew.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    at_least_float,
    check_flags,
    check_student_teacher,
    full_precision,
    zero_loss,
)
from ekd_lite.ops import are_numbers


class KDLoss(nn.Module):
    """Kullback-Leibler divergence of softened class probabilities, times T squared.

    Args:
        temperature: T. The gradient of the softened softmax falls as 1/T^2, which the factor
            undoes.
        standardize: bring the logits of each image to mean 0 and standard deviation 1 first.
    """

    def __init__(self, *, temperature: float = 4.0, standardize: bool = False) -> None:
        super().__init__()
        check_flags(standardize=standardize)
        if not are_numbers(temperature) or temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature
        self.standardize = standardize

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
            student, teacher = (
                at_least_float(student_logits),
                at_least_float(teacher_logits.detach()),
            )
            if self.standardize:
                student, teacher = _standard(student), _standard(teacher)
            student, teacher = student / self.temperature, teacher / self.temperature
            divergence = F.kl_div(
                student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="sum"
            )
        return divergence * self.temperature**2 / len(student)


def _standard(logits: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 in every row; equal logits become zero, with no gradient."""
    if logits.shape[1] < 2:
        return torch.zeros_like(logits)
    std = logits.std(1, keepdim=True)
    is_flat = std <= 1e-6  # false for NaN
    # The inner where keeps the slope 1e7 of the authors' 1 / (0 + 1e-7) out of the graph.
    scaled = (logits - logits.mean(1, keepdim=True)) / (torch.where(is_flat, 1.0, std) + 1e-7)
    return torch.where(is_flat, 0.0, scaled)
