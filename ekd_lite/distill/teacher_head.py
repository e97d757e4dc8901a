r"""TH-KD: KD through the teacher's classifier for both nets (Ben-Baruch et al., arXiv 2201.06945).

With the teacher's unit prototypes W, frozen and the same for both nets,

    L = T^2 * mean_i KL( softmax(s t_i . W / T) || softmax(s s_i . W / T) ),

where t_i and s_i are unit embeddings. `KDLoss` compares two nets that each have prototypes of their
own; here the student's embeddings must go to the teacher's places. No labels, no classifier of the
student, and any images will do, those of other people too. At s = 28 .. 64 and T = 1 the teacher's
softmax is nearly one-hot on its own people: T = 4 is far better in our trials.

Differs from the authors' code (Alibaba-MIIL/HeadSharingKD 8e2738b, CIFAR): cosines in place of a
linear head with bias; without their sum of squared distances, which grows with the batch.
"""

from __future__ import annotations

from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    check_finite_prototypes,
    check_student_teacher,
    full_precision,
    zero_loss,
)
from ekd_lite.distill.kd import KDLoss
from ekd_lite.ops import are_numbers, check_tensors, unit_rows


class TeacherHeadLoss(nn.Module):
    """Compare both nets' class probabilities by the teacher's prototypes.

    Args:
        prototypes: the teacher's classifier, (C, D); copied, frozen, and not in the state_dict,
            for the teacher's own file holds it.
        scale: s of the logits.
        temperature: T.
    """

    prototypes: Tensor

    def __init__(self, prototypes: Tensor, *, scale: float, temperature: float = 4.0) -> None:
        super().__init__()
        check_tensors(prototypes=prototypes)
        if prototypes.ndim != 2 or len(prototypes) == 0:
            raise ValueError(f"expected prototypes (C, D), got {tuple(prototypes.shape)}")
        check_finite_prototypes(prototypes)
        if not are_numbers(scale) or scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale = scale
        self.kd = KDLoss(temperature=temperature)
        self.register_buffer("prototypes", unit_rows(prototypes.detach()), persistent=False)

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare embeddings of one width.

        Args:
            student_embeddings: (N, D), not normalised.
            teacher_embeddings: (N, D), of the same images; gets no gradient.
            labels: ignored.

        Returns:
            The loss, 0-dim; zero for an empty batch.

        Raises:
            ValueError: wrong shapes.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=True)
        if student_embeddings.shape[1] != self.prototypes.shape[1]:
            raise ValueError(
                f"the teacher's prototypes have width {self.prototypes.shape[1]}, "
                f"got student {tuple(student_embeddings.shape)}"
            )
        if len(student_embeddings) == 0:
            return zero_loss(student_embeddings, teacher_embeddings)
        with full_precision(student_embeddings):
            # The rows are scaled and not the prototypes, a table that may be large.
            student = self.scale * unit_rows(student_embeddings)
            teacher = self.scale * unit_rows(teacher_embeddings.detach())
            prototypes = self.prototypes.to(student.dtype).T
            loss: Tensor = self.kd(student @ prototypes, teacher @ prototypes)
        return loss
