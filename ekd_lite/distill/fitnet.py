r"""FitNet: match the teacher's features (Romero et al., ICLR 2015), here the embeddings.

    L = mean over all N * D elements of (f^s - f^t)^2,

on raw embeddings as in TFace's `fitnet.py`, or on unit vectors (`normalize=True`), where it equals
2/D * mean_i (1 - cos(f^s_i, f^t_i)). The original trains intermediate maps in a first stage; face
recognition uses the last layer in one stage. Where the student's embedding has another width D_s, a
linear map D_s -> D_t learned with it comes first (the paper's regressor; lenscloth/RKD's 1x1
convolution); it is not part of the student. The paper's loss weight is not published.
"""

from __future__ import annotations

from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    at_least_float,
    check_flags,
    check_student_teacher,
    full_precision,
    zero_loss,
)
from ekd_lite.ops import are_numbers, unit_rows


class FitNetLoss(nn.Module):
    """Mean squared difference of the embeddings.

    Args:
        normalize: compare directions only.
        student_dim: D_s; given with another `teacher_dim`, a learned map makes up for it.
        teacher_dim: D_t.

    Attributes:
        projection: the map, with parameters for the optimizer; None where the widths agree.
    """

    def __init__(
        self,
        *,
        normalize: bool = False,
        student_dim: int | None = None,
        teacher_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_flags(normalize=normalize)
        if (student_dim is None) != (teacher_dim is None):
            raise ValueError("give both student_dim and teacher_dim, or neither")
        widths = [width for width in (student_dim, teacher_dim) if width is not None]
        if not are_numbers(*widths, whole=True) or min(widths, default=1) < 1:
            raise ValueError(f"expected whole widths >= 1, got {student_dim} and {teacher_dim}")
        self.normalize = normalize
        self.projection: nn.Linear | None = None
        if student_dim is not None and teacher_dim is not None and student_dim != teacher_dim:
            self.projection = nn.Linear(student_dim, teacher_dim, bias=False)
            # Directions and, on average, lengths survive at the start.
            nn.init.orthogonal_(self.projection.weight)

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare embeddings.

        Args:
            student_embeddings: (N, D), or (N, D_s) with a projection.
            teacher_embeddings: (N, D); gets no gradient.
            labels: ignored.

        Returns:
            The loss, 0-dim; zero for an empty batch.

        Raises:
            ValueError: the shapes do not fit.
        """
        check_student_teacher(
            student_embeddings, teacher_embeddings, same_width=self.projection is None
        )
        with full_precision(student_embeddings):
            student = at_least_float(student_embeddings)
            teacher = at_least_float(teacher_embeddings.detach())
            if self.projection is not None:
                wanted = (self.projection.in_features, self.projection.out_features)
                if (student.shape[1], teacher.shape[1]) != wanted:
                    raise ValueError(
                        f"this projection maps width {wanted[0]} to {wanted[1]}, "
                        f"got student {tuple(student.shape)} and teacher {tuple(teacher.shape)}"
                    )
                student = self.projection(student)
            if student.numel() == 0:
                return zero_loss(student, teacher)
            if self.normalize:
                student, teacher = unit_rows(student), unit_rows(teacher)
            return (student - teacher).square().mean()
