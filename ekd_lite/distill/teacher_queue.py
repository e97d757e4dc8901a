r"""QUD and SEED: find the teacher's embedding among a queue of others.

QUD (Kolf, Damer, Boutros, BMVC 2024); SEED (Fang et al., ICLR 2021). The last n unit embeddings of
the teacher wait in a queue q_1 .. q_n. An image chooses between its own teacher embedding t_i and
the queue:

    a_i = s_i . (t_i, q_1, ..., q_n) / tau

    QUD    L = mean_i  -log softmax(a_i)_0                     its own teacher embedding is right
    SEED   b_i = t_i . (t_i, q_1, ..., q_n) / tau_t
           L = mean_i  KL( softmax(b_i) || softmax(a_i) )      as the teacher would choose

No labels, no classifier. QUD is SEED with tau_t -> 0. QUD is not at rest where the student equals
the teacher; SEED with equal temperatures is. The queue holds other images of the same identity too,
n / C of them on average, which QUD pushes away and SEED does not.

Differs from the authors' code (jankolf/QUD fa19b18, jacobswan1/SEED f236cac): n need not be a
multiple of the batch; SEED's cross-entropy is given as a divergence, the teacher's entropy less,
with the same gradient; the random rows that the queue starts with are the same on every process;
rows that are not finite do not enter it. Ancestor of both is CRD (Tian et al., ICLR 2020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ekd_lite.distill.inputs import check_student_teacher, full_precision, zero_loss
from ekd_lite.distill.masked_pairs import remember_usable
from ekd_lite.ops import are_numbers, generator_for, unit_rows
from ekd_lite.parallel import gather_batch


class TeacherQueueLoss(nn.Module):
    """Choose the teacher's embedding among those of the last images. Eval mode adds none.

    Args:
        width: D, of both nets' embeddings.
        temperature: tau.
        teacher_temperature: tau_t; None for QUD, whose choice is the image itself.
        size: n, rows of the queue.

    Attributes:
        queue: unit rows (n, D), a buffer; random at first.
        position: the row that the next image overwrites, 0-dim, a buffer.
    """

    queue: Tensor
    position: Tensor

    def __init__(
        self,
        width: int,
        *,
        temperature: float = 0.1,
        teacher_temperature: float | None = None,
        size: int = 1024,
    ) -> None:
        super().__init__()
        if not are_numbers(width, size, whole=True) or min(width, size) < 1:
            raise ValueError(f"expected whole width >= 1 and size >= 1, got {width} and {size}")
        if (
            not are_numbers(temperature, 1 if teacher_temperature is None else teacher_temperature)
            or min(temperature, temperature if teacher_temperature is None else teacher_temperature)
            <= 0
        ):
            raise ValueError(
                f"temperatures must be positive, got {temperature} and {teacher_temperature}"
            )
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        # Of a generator of its own: all processes and every start agree.
        start = torch.from_numpy(generator_for(0, 0, 0).standard_normal((size, width))).float()
        self.register_buffer("queue", unit_rows(start))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare the choices, then put the batch of all processes into the queue.

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
        if student_embeddings.shape[1] != self.queue.shape[1]:
            raise ValueError(
                f"the queue has width {self.queue.shape[1]}, "
                f"got student {tuple(student_embeddings.shape)}"
            )
        if len(student_embeddings) == 0:
            return zero_loss(student_embeddings, teacher_embeddings)
        with full_precision(student_embeddings):
            student = unit_rows(student_embeddings)
            teacher = unit_rows(teacher_embeddings.detach())
            choice = self._choices(student, teacher) / self.temperature
            if self.teacher_temperature is None:
                loss = F.cross_entropy(choice, choice.new_zeros(len(choice), dtype=torch.int64))
            else:
                wanted = self._choices(teacher, teacher) / self.teacher_temperature
                loss = F.kl_div(
                    choice.log_softmax(1),
                    wanted.log_softmax(1),
                    log_target=True,
                    reduction="batchmean",
                )
        if self.training:
            self._enqueue(teacher)
        return loss

    def _choices(self, net: Tensor, teacher: Tensor) -> Tensor:
        """Cosines with the own teacher embedding and with the queue, (N, 1 + n)."""
        own = torch.linalg.vecdot(net, teacher)[:, None]
        # A copy: the queue changes before the backward pass.
        return torch.cat([own, net @ self.queue.to(net.dtype, copy=True).T], dim=1)

    @torch.no_grad()
    def _enqueue(self, teacher: Tensor) -> None:
        """Overwrite the oldest rows with those of all processes."""
        rows = gather_batch(teacher)
        remember_usable([self.queue], [rows], self.position, rows.isfinite().all(dim=1))
        self.position %= len(self.queue)
