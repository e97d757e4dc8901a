r"""DarkRank: rank the neighbours of every image as the teacher does (Chen et al., AAAI 2018).

For query i let pi be the order of its k nearest others in the teacher, and
score(j) = -alpha * |f_i - f_j|^beta on unit vectors. The probability of an order is

    P(pi) = prod_{r=1}^{k} exp(score(pi_r)) / sum_{q=r}^{k} exp(score(pi_q)).

    "hard"  L = mean_i -log P^s(pi)                            ListMLE
    "soft"  L = mean_i KL(P^t || P^s) over all k! orders       ListNet

The hard form with alpha = beta = k = 3 is TFace's `darkrank.py` (lenscloth/RKD has k = 4); its
minimum is not zero, for it is a likelihood. The authors' code (TuSimple/DarkRank, MXNet) trains the
soft form with k = 4 and score -(3.5 |.|^2)^2, that is alpha = 12.25, beta = 4, weight 16, on the
first half of a batch of pairs; it leaves out the teacher's entropy, which has no gradient. TFace
skips the first of the sorted row as being the query itself; here the query is left out by name,
which differs where an image stands twice in a batch. The EKD paper's weight is not published.
"""

from __future__ import annotations

from itertools import permutations
from typing import Literal

import torch
from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    check_student_teacher,
    full_precision,
    show_nan,
    zero_loss,
)
from ekd_lite.ops import are_numbers, unit_rows


class DarkRankLoss(nn.Module):
    """Likelihood of the teacher's order of neighbours under the student.

    Args:
        alpha: factor of the distance.
        beta: power of the distance, >= 2 so that the slope at distance 0 is finite.
        length: k; a batch of N images has at most N - 1 neighbours.
        variant: "hard" or "soft", see above; soft costs k! and is limited to k = 6.
    """

    def __init__(
        self,
        *,
        alpha: float = 3.0,
        beta: float = 3.0,
        length: int = 3,
        variant: Literal["hard", "soft"] = "hard",
    ) -> None:
        super().__init__()
        is_possible = are_numbers(alpha, beta) and are_numbers(length, whole=True)
        if not is_possible or not (alpha > 0 and beta >= 2 and length >= 2):
            raise ValueError(
                "expected alpha > 0, beta >= 2 and a whole length >= 2, "
                f"got {alpha}, {beta} and {length}"
            )
        if variant not in ("hard", "soft") or (variant == "soft" and length > 6):
            raise ValueError(
                f'variant must be "hard", or "soft" with length <= 6, got {variant!r} and {length}'
            )
        self.alpha = alpha
        self.beta = beta
        self.length = length
        self.variant = variant

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare the order of every image's nearest neighbours.

        Args:
            student_embeddings: (N, D).
            teacher_embeddings: (N, D'), any width; gets no gradient.
            labels: ignored.

        Returns:
            The loss, 0-dim; zero for fewer than 2 images.

        Raises:
            ValueError: wrong shapes.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=False)
        length = min(self.length, len(student_embeddings) - 1)
        if length < 1:
            return zero_loss(student_embeddings, teacher_embeddings)
        with full_precision(student_embeddings):
            student, teacher = unit_rows(student_embeddings), unit_rows(teacher_embeddings.detach())
            # On the unit sphere the nearest are those of the largest cosine.
            cosine = (teacher @ teacher.T).fill_diagonal_(-2.0)
            nearest = cosine.topk(length, dim=1).indices
            scores = self.scores(student, nearest)
            if self.variant == "hard":
                loss = -log_likelihood(scores).mean()
                return show_nan(loss, student_embeddings, teacher_embeddings)
            orders = torch.tensor(list(permutations(range(length))), device=scores.device)
            log_student = log_likelihood(scores[:, orders])
            log_teacher = log_likelihood(self.scores(teacher, nearest)[:, orders])
            loss = (log_teacher.exp() * (log_teacher - log_student)).sum(1).mean()
            return show_nan(loss, student_embeddings, teacher_embeddings)

    def scores(self, unit: Tensor, nearest: Tensor) -> Tensor:
        """-alpha distance^beta of rows (N, D) from their neighbours (N, k): (N, k).

        From differences and not from 2 - 2 cos, which loses the distance of near duplicates.
        """
        others = unit.index_select(0, nearest.flatten()).view(*nearest.shape, -1)
        squared = (unit[:, None] - others).square().sum(2)
        return -self.alpha * squared ** (self.beta / 2)


def log_likelihood(scores: Tensor) -> Tensor:
    """The log P of orders, from scores in that order, (..., k) -> (...)."""
    remaining = scores.flip(-1).logcumsumexp(-1).flip(-1)
    return (scores - remaining).sum(-1)
