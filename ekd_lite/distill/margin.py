r"""MarginDistillation: ArcFace on the teacher's prototypes (Svitov, Alyamkin, arXiv 2003.02586).

The student is trained by the softmax of ArcFace alone, but against the *frozen prototypes of the
teacher* W^t, and with a margin of its own for every image:

    m_i = M_min + (M_max - M_min) * c_i / max_batch c,      c_i = cos(f^t_i, W^t_{y_i}).

An image that the teacher finds typical of its identity must come close to the prototype. It
replaces the identity loss instead of standing beside it. The student's embedding must have the
teacher's width.

Differs from the authors' code (david-svitov/margindistillation, MXNet) in three guards: the ratio
c_i / max c is kept in 0..1 (a negative cosine would make the margin negative without limit, a
negative maximum turn its sign), the slope of arccos is kept finite as in `ArcFace`, and so is the
target's order beyond theta = pi - m.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    check_finite_prototypes,
    check_pair_labels,
    check_student_teacher,
    full_precision,
    show_nan,
    zero_loss,
)
from ekd_lite.heads.margin import add_angle, check_labels
from ekd_lite.ops import are_numbers, check_tensors, unit_rows


class MarginDistillationLoss(nn.Module):
    """Cross-entropy of margin logits on the teacher's prototypes.

    Args:
        prototypes: the teacher's classifier, (C, D); copied, frozen, and not in the state_dict,
            for the teacher's own file holds it.
        scale: factor s.
        min_margin: M_min, radians.
        max_margin: M_max.
    """

    prototypes: Tensor

    def __init__(
        self,
        prototypes: Tensor,
        *,
        scale: float = 64.0,
        min_margin: float = 0.2,
        max_margin: float = 0.5,
    ) -> None:
        super().__init__()
        check_tensors(prototypes=prototypes)
        if prototypes.ndim != 2 or len(prototypes) == 0:
            raise ValueError(f"expected prototypes (C, D), got {tuple(prototypes.shape)}")
        check_finite_prototypes(prototypes)
        if not are_numbers(scale, min_margin, max_margin) or not (
            scale > 0 and 0 <= min_margin <= max_margin <= math.pi
        ):
            raise ValueError(
                "expected scale > 0 and 0 <= min_margin <= max_margin <= pi (radians), "
                f"got {scale}, {min_margin} and {max_margin}"
            )
        self.scale = scale
        self.min_margin = min_margin
        self.max_margin = max_margin
        self.register_buffer("prototypes", unit_rows(prototypes.detach()), persistent=False)

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Classify the student's embeddings by the teacher's prototypes.

        Args:
            student_embeddings: (N, D).
            teacher_embeddings: (N, D), of the same images; gets no gradient.
            labels: identities, (N,) int64 in 0..C-1.

        Returns:
            The loss, 0-dim; zero for an empty batch.

        Raises:
            ValueError: wrong shapes, no labels, or a label out of range.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=True)
        labels = check_pair_labels(labels, len(student_embeddings))
        num_identities, width = self.prototypes.shape
        if student_embeddings.shape[1] != width:
            raise ValueError(
                f"the teacher's prototypes have width {width}, "
                f"got student {tuple(student_embeddings.shape)}"
            )
        check_labels(labels, len(student_embeddings), num_identities)
        labels = labels.long()
        if len(student_embeddings) == 0:
            return zero_loss(student_embeddings, teacher_embeddings)
        with full_precision(student_embeddings):
            student = unit_rows(student_embeddings)
            cosine = student @ self.prototypes.to(student.dtype).T
            own = labels[:, None]
            margin = self.margins(teacher_embeddings.detach(), labels)[:, None].to(student.dtype)
            target = add_angle(cosine.gather(1, own), margin)
            loss = F.cross_entropy(self.scale * cosine.scatter(1, own, target), labels)
            return show_nan(loss, student_embeddings, teacher_embeddings)

    def margins(self, teacher_embeddings: Tensor, labels: Tensor) -> Tensor:
        """The margin of every image, (N, D), (N,) -> (N,)."""
        check_tensors(teacher_embeddings=teacher_embeddings, labels=labels)
        teacher = unit_rows(teacher_embeddings)
        typical = (teacher * self.prototypes[labels]).sum(1).clamp(min=0)
        share = typical / torch.where(typical.max() > 0, typical.max(), 1.0)
        return self.min_margin + (self.max_margin - self.min_margin) * share
