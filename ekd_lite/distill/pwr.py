r"""PWR: Pairwise Ranking distillation (Nikitin et al., CEUR 2744/30, 2020).

The closest ancestor of EKD: it, too, transfers the *order* of pairs and not their values. Let d_u
be the distance of unit vectors in pair u of the batch. Over all (u, v) with d^t_u > d^t_v, that is
whenever the teacher finds pair u less alike than pair v,

    L = mean over (u, v) of phi( (d^t_u - d^t_v) - (d^s_u - d^s_v) ),

    "exponential"   phi(x) = max(0, exp(beta x) - 1)
    "hinge"         phi(x) = max(0, x)
    "ranknet"       log(1 + exp(-beta (d^s_u - d^s_v))), which has no margin

as in mnikitin/KD-PWR (c4a95b1) with margin "teacher_diff"; there the weight is 100 beside 0.7 cross
entropy and 0.3 KD. N images have N^2 / 2 pairs and thus N^4 / 8 comparisons. Above `max_pairs`
pairs only that many, evenly spaced, are compared: the batch is random already, so that every pair
has its turn.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    check_student_teacher,
    full_precision,
    show_nan,
)
from ekd_lite.ops import are_numbers, unit_rows


class PWRLoss(nn.Module):
    """Penalty on pairs of pairs that the student does not rank as far apart as the teacher.

    Args:
        variant: "exponential", "hinge" or "ranknet", see above.
        beta: steepness.
        max_pairs: how many pairs of images are compared with one another at most.
    """

    def __init__(
        self,
        *,
        variant: Literal["exponential", "hinge", "ranknet"] = "exponential",
        beta: float = 1.0,
        max_pairs: int = 2048,
    ) -> None:
        super().__init__()
        if variant not in ("exponential", "hinge", "ranknet"):
            raise ValueError(
                f'variant must be "exponential", "hinge" or "ranknet", got {variant!r}'
            )
        is_possible = are_numbers(beta) and are_numbers(max_pairs, whole=True)
        if not is_possible or beta <= 0 or max_pairs < 2:
            raise ValueError(
                f"expected beta > 0 and a whole max_pairs >= 2, got {beta} and {max_pairs}"
            )
        self.variant = variant
        self.beta = beta
        self.max_pairs = max_pairs

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare pairs of pairs.

        Args:
            student_embeddings: (N, D).
            teacher_embeddings: (N, D'), any width; gets no gradient.
            labels: ignored.

        Returns:
            The loss, 0-dim; zero where the teacher ranks nothing: fewer than 3 images, or all its
            distances equal.

        Raises:
            ValueError: wrong shapes.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=False)
        rows = len(student_embeddings)
        i, j = torch.triu_indices(rows, rows, 1, device=student_embeddings.device)
        if len(i) > self.max_pairs:
            kept = torch.arange(self.max_pairs, device=i.device) * len(i) // self.max_pairs
            i, j = i[kept], j[kept]
        with full_precision(student_embeddings):
            student = pair_distances(unit_rows(student_embeddings), i, j)
            teacher = pair_distances(unit_rows(teacher_embeddings.detach()), i, j)
            student_gap = student[:, None] - student
            teacher_gap = teacher[:, None] - teacher
            ranked = teacher_gap > 0
            if self.variant == "ranknet":
                penalty = F.softplus(-self.beta * student_gap)
            else:
                penalty = (teacher_gap - student_gap).relu()
                if self.variant == "exponential":
                    penalty = torch.expm1(self.beta * penalty)
            # Where nothing is ranked the sum is 0, and so is every slope.
            loss = torch.where(ranked, penalty, 0.0).sum() / ranked.sum().clamp(min=1)
        return show_nan(loss, student_embeddings, teacher_embeddings)


def pair_distances(unit: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Distances of rows i and j, (N, D), (P,), (P,) -> (P,); zero with zero slope at duplicates."""
    squared = (unit.index_select(0, i) - unit.index_select(0, j)).square().sum(1)
    is_apart = squared > 1e-12
    return torch.where(is_apart, torch.where(is_apart, squared, 1.0).sqrt(), 0.0)
