r"""SP: Similarity-Preserving distillation (Tung, Mori, ICCV 2019), here on embeddings.

    L = || G^s - G^t ||_F^2 / N^2,

where G holds the cosines of all pairs of the batch, as in TFace's `similarity_perserving.py`. The
original (`row_normalize=True`) takes inner products of raw features, here the embeddings, and
scales every row of G to length one; its weight on CIFAR is 3000 (RepDistiller, "verified by
original author"). In the EKD setting the weight is not published.
"""

from __future__ import annotations

from torch import Tensor, nn

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
            return zero_loss(student_embeddings)
        with full_precision(student_embeddings):
            student = self.similarities(student_embeddings)
            teacher = self.similarities(teacher_embeddings.detach())
            return (student - teacher).square().mean()

    def similarities(self, embeddings: Tensor) -> Tensor:
        """G, (N, D) -> (N, N)."""
        if not self.row_normalize:
            embeddings = unit_rows(embeddings)
            return embeddings @ embeddings.T
        embeddings = at_least_float(embeddings)
        return unit_rows(embeddings @ embeddings.T)
