r"""RKD: Relational Knowledge Distillation (Park et al., CVPR 2019).

    L = w_D * mean_ij   huber( d^s_ij / mean d^s  -  d^t_ij / mean d^t )        distances
      + w_A * mean_ijk  huber( cos^s angle(j, i, k)  -  cos^t angle(j, i, k) )  angles at corner i

over all N^2 pairs and N^3 triples of raw embeddings, with huber = smooth L1. Weights 25 and 50 as
in TFace, RepDistiller and FaceX-Zoo; the authors' own setting for metric learning is 1 and 2, no
task loss, and the teacher's embeddings normalised. The EKD paper's weights are not published.

Equal numbers to TFace's `rkd.py`, except for identical embeddings: there their distance counts as
1e-6 in the mean and their angle gets a gradient of the order of 1e12; here both are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    at_least_float,
    check_student_teacher,
    check_weights,
    full_precision,
    show_nan,
    zero_loss,
)
from ekd_lite.distill.known_gradient import with_gradient
from ekd_lite.distill.rkd_angle import Cloud, angle_gap, huber, make_cloud
from ekd_lite.ops import are_numbers, is_free_to_fetch

CPU_BLOCK, GPU_BLOCK = 2**18, 2**26


class RKDLoss(nn.Module):
    """Match relative distances and angles.

    Args:
        distance_weight: w_D.
        angle_weight: w_A; 0 spares the N^3 angles.
        block: how many angles to hold in memory at a time; left out, 2^18 on a CPU, for its cache,
            and 2^26 elsewhere, where each block costs launches: three tensors of 256 MB.
    """

    def __init__(
        self,
        *,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        block: int | None = None,
    ) -> None:
        super().__init__()
        check_weights(distance_weight, angle_weight)
        if block is not None and (not are_numbers(block, whole=True) or block < 1):
            raise ValueError(f"expected a whole block >= 1, got {block}")
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight
        self.block = block

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare the shapes of the two point clouds.

        Args:
            student_embeddings: (N, D).
            teacher_embeddings: (N, D'), any width; gets no gradient.
            labels: ignored.

        Returns:
            The loss, 0-dim; zero for fewer than 2 images. If all student embeddings coincide, the
            student's relative distances and angles are 0.

        Raises:
            ValueError: wrong shapes.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=False)
        if len(student_embeddings) < 2:
            return zero_loss(student_embeddings, teacher_embeddings)
        with full_precision(student_embeddings):
            loss = self.gap(at_least_float(student_embeddings), teacher_embeddings)
        return show_nan(loss, student_embeddings, teacher_embeddings)

    def gap(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Both terms, with the student's gradient; most of it by way of its Gram matrix G."""
        with torch.no_grad():
            own, other = make_cloud(student), make_cloud(teacher)
            loss = own.gram.new_zeros(())
            grad_gram, grad = torch.zeros_like(own.gram), torch.zeros_like(own.points)
            if self.distance_weight:
                value, slopes = distance_gap(own, other)
                loss += self.distance_weight * value
                grad_gram += self.distance_weight * slopes
            if self.angle_weight:
                block = self.block or (CPU_BLOCK if is_free_to_fetch(student) else GPU_BLOCK)
                value, slopes, direct = angle_gap(own, other, dtype=student.dtype, block=block)
                loss += self.angle_weight * value
                grad_gram += self.angle_weight * slopes
                grad += self.angle_weight * direct
            grad += (grad_gram + grad_gram.T) @ own.points
        return with_gradient(loss.to(student.dtype), student, grad.to(student.dtype))


def distance_gap(student: Cloud, teacher: Cloud) -> tuple[Tensor, Tensor]:
    """Mean Huber distance of relative distances, 0-dim; its gradient to the student's G, (N, N)."""
    scale = one_over_mean(student.distances)
    relative = scale * student.distances
    slope, value = huber(relative, one_over_mean(teacher.distances) * teacher.distances)
    # A distance acts by itself, and through the mean on all of them: sum r is their number.
    through_mean = (slope * relative).sum() / relative.sum().clamp(min=1)
    # dL/dd over d. As d^2 = G_ii + G_jj - 2 G_ij, half of it acts on both lengths.
    by_length = (slope - through_mean) * (scale * student.inverse)
    grad_gram = torch.diag(by_length.sum(1)) - by_length
    return value / len(relative) ** 2, grad_gram / len(relative) ** 2


def one_over_mean(distances: Tensor) -> Tensor:
    """1 / mean of the distances that are not 0, 0-dim; 0 where all are."""
    total = distances.sum()
    return torch.where(total > 0, distances.count_nonzero() / total, 0.0)
