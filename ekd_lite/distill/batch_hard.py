r"""A batch-hard triplet loss on the teacher's decisions: metric learning without labels.

    L = mean over anchors i of max(0, m + max_{rejected j} a_ij - min_{accepted j} a_ij),

with a_ij the student's cosine of two images of the batch. The teacher accepts a pair from one
calibrated threshold on (`Teacher.threshold_at`), and rejects the rest. An anchor takes part if the
batch holds a pair of both kinds for it. A rival of `ekd_decisions`: it takes the same answers from
the teacher, and asks for an order around each image where EKD asks for the side of thresholds.

After Hermans, Beyer and Leibe, arXiv 1703.07737, 2017, who take the labels' word and Euclidean
distances; the teacher's word and cosines are ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    check_student_teacher,
    full_precision,
    show_nan,
    zero_loss,
)
from ekd_lite.ops import are_numbers, unit_rows


class BatchHardDecisionLoss(nn.Module):
    """Of every image, the hardest accepted partner nearer than the hardest rejected one.

    Args:
        threshold: the cosine from which the teacher accepts a pair, -1..1.
        margin: m, in units of the cosine.

    Example:
        >>> loss = BatchHardDecisionLoss(threshold=0.6)
        >>> loss(torch.eye(3), torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
        tensor(0.2000)
    """

    def __init__(self, *, threshold: float, margin: float = 0.2) -> None:
        super().__init__()
        if not are_numbers(threshold) or not -1 <= threshold <= 1:
            raise ValueError(f"threshold must be a cosine between -1 and 1, got {threshold!r}")
        if not are_numbers(margin) or not 0 <= margin <= 2:
            raise ValueError(f"expected a margin from 0 to 2, of cosines, got {margin!r}")
        self.threshold, self.margin = threshold, margin

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Mine with the student among the pairs that the teacher told apart.

        Args:
            student_embeddings: (N, D), not normalised.
            teacher_embeddings: (N, D'), any width; gets no gradient.
            labels: ignored.

        Returns:
            The loss, 0-dim; zero for a batch in which no image has pairs of both kinds.

        Raises:
            ValueError: wrong shapes or types.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=False)
        if not len(student_embeddings):
            return zero_loss(student_embeddings, teacher_embeddings)
        with full_precision(student_embeddings):
            student, teacher = unit_rows(student_embeddings), unit_rows(teacher_embeddings.detach())
            cosines = student @ student.T
            is_accepted = teacher @ teacher.T >= self.threshold
            is_rejected = ~is_accepted
            for mask in (is_accepted, is_rejected):
                mask.fill_diagonal_(False)  # a face and itself; a dead face has cosine 0 there
            hardest = cosines.masked_fill(~is_accepted, math.inf).amin(1)
            nearest = cosines.masked_fill(~is_rejected, -math.inf).amax(1)
            is_anchor = is_accepted.any(1) & is_rejected.any(1)
            missing = (self.margin + nearest - hardest).relu()
            loss = torch.where(is_anchor, missing, 0.0).sum() / is_anchor.sum().clamp(min=1)
            return show_nan(loss, student_embeddings, teacher_embeddings)
