"""EKD's loss in the plainest form: every pair of the batch, thresholds given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

POSITIVE_WEIGHT, NEGATIVE_WEIGHT = 0.02, 0.01


@dataclass
class Pairs:
    """All unordered pairs of a batch: cosines in both nets, soft ranks, which are genuine."""

    student: Tensor
    teacher: Tensor
    student_rank: Tensor
    teacher_rank: Tensor
    is_genuine: Tensor
    topk: int

    def hardest(self, by: Tensor | None = None) -> Tensor:
        """Indices of the impostor pairs that are largest in `by`, the student's cosine."""
        by = self.student if by is None else by
        by = by.detach().masked_fill(self.is_genuine, -torch.inf)
        return by.topk(min(self.topk, int((~self.is_genuine).sum()))).indices

    def hardest_of_pairs_twice(self) -> Tensor:
        """The same where every pair stands in the list twice."""
        return self.hardest().repeat_interleave(2)[: self.topk]

    def squares(self) -> Tensor:
        """(R^S - R^T)^2."""
        return (self.student_rank - self.teacher_rank).square()

    def loss(self) -> Tensor:
        """The loss."""
        squares = self.squares()
        return weighted(squares[self.is_genuine].mean(), squares[self.hardest()].mean())


def weighted(genuine: Tensor, impostor: Tensor) -> Tensor:
    """Both sides with the weights of the authors' code."""
    return POSITIVE_WEIGHT * genuine + NEGATIVE_WEIGHT * impostor


def raw_pairs(
    student: Tensor, teacher: Tensor, labels: Tensor,
    student_thresholds: Tensor, teacher_thresholds: Tensor,
    temperature: float, topk: int, *, offset: int = 1,
) -> Pairs:  # fmt: skip
    """The pairs, with inner products of the embeddings as they are."""
    i, j = torch.triu_indices(len(labels), len(labels), offset=offset)

    def ranked(embeddings: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
        cosine = (embeddings[i] * embeddings[j]).sum(1)
        return cosine, torch.sigmoid((cosine[:, None] - thresholds) / temperature).sum(1)

    mine, my_rank = ranked(student, student_thresholds)
    theirs, their_rank = ranked(teacher.detach(), teacher_thresholds)
    return Pairs(mine, theirs, my_rank, their_rank, labels[i] == labels[j], topk)


def unit_pairs(
    student: Tensor, teacher: Tensor, labels: Tensor,
    student_thresholds: Tensor, teacher_thresholds: Tensor,
    temperature: float, topk: int, *, offset: int = 1,
) -> Pairs:  # fmt: skip
    """The pairs, with cosines."""
    return raw_pairs(
        F.normalize(student), F.normalize(teacher), labels,
        student_thresholds, teacher_thresholds, temperature, topk, offset=offset,
    )  # fmt: skip


def ekd(
    student: Tensor, teacher: Tensor, labels: Tensor,
    student_thresholds: Tensor, teacher_thresholds: Tensor, temperature: float, topk: int,
) -> Tensor:  # fmt: skip
    """The loss of EKD."""
    return unit_pairs(
        student, teacher, labels, student_thresholds, teacher_thresholds, temperature, topk
    ).loss()
