r"""SP: Similarity-Preserving distillation (Tung, Mori, ICCV 2019), here on embeddings.

    L = || G^s - G^t ||_F^2 / N^2,

where G holds the cosines of all pairs of the batch, as in TFace's `similarity_perserving.py`. The
original (`row_normalize=True`) takes inner products of raw features, here the embeddings, and
scales every row of G to length one; its weight on CIFAR is 3000 (RepDistiller, "verified by
original author"). In the EKD setting the weight is not published.
"""

from __future__ import annotations

from torch import Tensor, nn

from ekd_lite.distill.gram_gap import gram_gap
from ekd_lite.distill.inputs import (
    at_least_float,
    check_student_teacher,
    full_precision,
    zero_loss,
)
from ekd_lite.ops import unit_rows


class SPLoss(nn.Module):
    """Mean squared difference of the two nets' similarity matrices, diagonal included.

    Args:
        row_normalize: the original's form, see above.
    """

    def __init__(self, *, row_normalize: bool = False) -> None:
        super().__init__()
        self.row_normalize = row_normalize

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
        teacher_embeddings = teacher_embeddings.detach()
        with full_precision(student_embeddings):
            if self.row_normalize:
                student = row_normalized_gram(student_embeddings)
                teacher = row_normalized_gram(teacher_embeddings)
                return (student - teacher).square().mean()
            student, teacher = unit_rows(student_embeddings), unit_rows(teacher_embeddings)
            return gram_gap(student, teacher, lambda cosine: cosine)


def row_normalized_gram(embeddings: Tensor) -> Tensor:
    """Inner products of all pairs, every row scaled to length one: (N, D) -> (N, N)."""
    embeddings = at_least_float(embeddings)
    return unit_rows(embeddings @ embeddings.T)
