r"""TripletDistillation: a triplet loss whose margin the teacher sets (Feng et al., ICIP 2020).

    L = mean over triplets (a, p, n) of max(0, d^s(a, p) - d^s(a, n) + m),
    m = M_min + (M_max - M_min) * delta / max_batch delta,
    delta = max(0, d^t(a, n) - d^t(a, p)),

with d the angle between two embeddings ("cosine") or the squared distance of unit vectors ("l2").
The larger the teacher's gap, the larger the one asked of the student. The only public code is that
of MarginDistillation (MXNet), which fine-tunes an ArcFace student at learning rate 0.001, without a
softmax beside it, on bags of 7200 images: a random semi-hard impostor for every genuine pair. Here
every ordered genuine pair (a, p) of the batch takes part, with the *nearest* impostor that the
student finds farther from a than p, or its farthest impostor where none is (FaceNet's semi-hard
rule without its random choice). Where all delta are 0, which divides by zero there, m = M_min; and
cosines are kept 1e-6 away from +-1, where the slope of arccos is infinite.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    check_pair_labels,
    check_student_teacher,
    full_precision,
    show_nan,
    zero_loss,
)
from ekd_lite.ops import are_numbers, check_tensors, is_free_to_fetch, unit_rows


class TripletDistillationLoss(nn.Module):
    """Triplet loss with the teacher's margin on semi-hard triplets of the batch.

    Args:
        distance: "cosine" (the angle; the form whose numbers the EKD paper reports) or "l2".
        min_margin: M_min, radians for "cosine".
        max_margin: M_max.
    """

    def __init__(
        self,
        *,
        distance: Literal["cosine", "l2"] = "cosine",
        min_margin: float = 0.2,
        max_margin: float = 0.5,
    ) -> None:
        super().__init__()
        if distance not in ("cosine", "l2"):
            raise ValueError(f'distance must be "cosine" or "l2", got {distance!r}')
        if not are_numbers(min_margin, max_margin) or not 0 <= min_margin <= max_margin:
            raise ValueError(
                f"expected 0 <= min_margin <= max_margin, got {min_margin} and {max_margin}"
            )
        if distance == "cosine" and max_margin > math.pi:
            raise ValueError(f"the margins are angles in radians, 0..3.142, got {max_margin}")
        self.distance = distance
        self.min_margin = min_margin
        self.max_margin = max_margin

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Mine triplets with the student, read their margins off the teacher.

        Args:
            student_embeddings: (N, D).
            teacher_embeddings: (N, D'), any width; gets no gradient.
            labels: identities, (N,).

        Returns:
            The loss, 0-dim; zero for a batch without a genuine or without an impostor pair.

        Raises:
            ValueError: wrong shapes or no labels.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=False)
        labels = check_pair_labels(labels, len(student_embeddings))
        with full_precision(student_embeddings):
            student, teacher = unit_rows(student_embeddings), unit_rows(teacher_embeddings.detach())
            student_cosine, teacher_cosine = student @ student.T, teacher @ teacher.T
            if not is_free_to_fetch(labels):
                loss = self._over_all_pairs(student_cosine, teacher_cosine, labels)
                return show_nan(loss, student_embeddings, teacher_embeddings)
            a, p, n = semi_hard_triplets(student_cosine.detach(), labels)
            if len(a) == 0:
                return zero_loss(student_embeddings, teacher_embeddings)
            gap = self.gap(teacher_cosine[a, p], teacher_cosine[a, n]).clamp(min=0)
            widest = torch.where(gap.max() > 0, gap.max(), 1.0)
            margin = self.min_margin + (self.max_margin - self.min_margin) * gap / widest
            gap = self.gap(student_cosine[a, p], student_cosine[a, n])
            return show_nan((margin - gap).relu().mean(), student_embeddings, teacher_embeddings)

    def _over_all_pairs(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The loss from cosines (N, N): every pair with its impostor, no size asked for."""
        impostor, is_any = _impostor_of_pairs(student.detach(), labels)
        gap = self.gap(teacher, teacher.gather(1, impostor)).clamp(min=0)
        gap = torch.where(is_any, gap, 0.0)
        widest = gap.max() if len(labels) else gap.new_ones(())
        widest = torch.where(widest > 0, widest, 1.0)
        margin = self.min_margin + (self.max_margin - self.min_margin) * gap / widest
        missing = (margin - self.gap(student, student.gather(1, impostor))).relu()
        return torch.where(is_any, missing, 0.0).sum() / is_any.sum().clamp(min=1)

    def gap(self, genuine: Tensor, impostor: Tensor) -> Tensor:
        """d(a, n) - d(a, p) from the two cosines, elementwise."""
        if self.distance == "l2":
            return 2 * (genuine - impostor)
        near_one = 1 - 1e-6
        genuine, impostor = genuine.clamp(-near_one, near_one), impostor.clamp(-near_one, near_one)
        return torch.acos(impostor) - torch.acos(genuine)


@torch.no_grad()
def _impostor_of_pairs(cosine: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """`semi_hard_triplets` for every place (a, p) of the matrix, and where there is a triplet."""
    is_impostor = labels[:, None] != labels
    num_impostors = is_impostor.sum(1, keepdim=True)
    distance, order = torch.where(is_impostor, -cosine, torch.inf).sort(dim=1)
    index = torch.searchsorted(distance, -cosine, right=True)
    impostor = order.gather(1, torch.minimum(index, num_impostors - 1).clamp(min=0))
    is_any = (~is_impostor & (num_impostors > 0)).fill_diagonal_(False)
    return impostor, is_any


@torch.no_grad()
def semi_hard_triplets(cosine: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For every ordered genuine pair (a, p) one impostor n: three index vectors.

    One sort of every row, (N, N), then one search per genuine pair: N^2 log N and no N^3 tensor.
    """
    check_tensors(cosine=cosine, labels=labels)
    if labels.ndim != 1 or cosine.shape != (len(labels), len(labels)):
        shapes = f"{tuple(cosine.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"expected cosine (N, N) and labels (N,), got {shapes}")
    is_genuine = labels[:, None] == labels
    num_impostors = (~is_genuine).sum(1)
    a, p = is_genuine.fill_diagonal_(False).nonzero().unbind(1)
    keep = num_impostors[a] > 0
    a, p = a[keep], p[keep]
    # Impostors in rising order of distance = -cosine; the others behind them.
    is_impostor = labels[:, None] != labels
    distance, order = torch.where(is_impostor, -cosine, torch.inf).sort(dim=1)
    index = torch.searchsorted(distance, -cosine, right=True)  # impostors no farther than p
    index = torch.minimum(index[a, p], num_impostors[a] - 1)
    return a, p, order[a, index]
