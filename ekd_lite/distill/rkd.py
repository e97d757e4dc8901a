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
import torch.nn.functional as F
from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    at_least_float,
    check_student_teacher,
    full_precision,
    zero_loss,
)
from ekd_lite.distill.rkd_angle import AngleGap


class RKDLoss(nn.Module):
    """Match relative distances and angles.

    Args:
        distance_weight: w_D.
        angle_weight: w_A; 0 spares the N^3 angles.
        block: how many angles to hold in memory at a time; 2^18 suits a CPU's cache.
    """

    def __init__(
        self, *, distance_weight: float = 25.0, angle_weight: float = 50.0, block: int = 2**18
    ) -> None:
        super().__init__()
        if distance_weight < 0 or angle_weight < 0 or block < 1:
            raise ValueError(
                "expected weights >= 0 and block >= 1, "
                f"got {distance_weight}, {angle_weight} and {block}"
            )
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
        loss = zero_loss(student_embeddings)
        if len(student_embeddings) < 2:
            return loss
        with full_precision(student_embeddings):
            student = at_least_float(student_embeddings)
            teacher = at_least_float(teacher_embeddings.detach()).to(student.dtype)
            if self.distance_weight:
                gap = F.smooth_l1_loss(relative_distances(student), relative_distances(teacher))
                loss = loss + self.distance_weight * gap
            if self.angle_weight:
                gap = AngleGap.apply(student, teacher, self.block)  # type: ignore[no-untyped-call]
                loss = loss + self.angle_weight * gap
            return loss


def relative_distances(points: Tensor) -> Tensor:
    """Distances of all rows, over the mean of those that are not 0: (N, D) -> (N, N)."""
    # Not through the Gram matrix, which loses the distance of near duplicates.
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    total, count = distances.sum(), (distances > 0).sum()
    return distances * torch.where(count > 0, count / torch.where(count > 0, total, 1.0), 0.0)
