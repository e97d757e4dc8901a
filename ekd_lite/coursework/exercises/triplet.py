"""Check of chapter 9: TripletDistillation on given triplets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import between, teacher_margin_mistakes, times

NO_GAP = (
    "Here the teacher is wrong on every triplet, so the largest delta is 0 and delta / max delta "
    "is 0 / 0. Take m = M_min then, as for any delta of 0: keep the divisor above 0."
)


def _cosines(embeddings: Tensor, triplets: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of anchor with positive and with negative, (T,) each."""
    a, p, n = F.normalize(embeddings)[triplets].unbind(1)
    return (a * p).sum(1), (a * n).sum(1)


def _gap(embeddings: Tensor, triplets: Tensor) -> Tensor:
    """Angle(a, n) - angle(a, p), (T,)."""
    positive, negative = (c.clamp(-1 + 1e-6, 1 - 1e-6) for c in _cosines(embeddings, triplets))
    return torch.acos(negative) - torch.acos(positive)


def _cosine_gap(embeddings: Tensor, triplets: Tensor) -> Tensor:
    positive, negative = _cosines(embeddings, triplets)
    return positive - negative


def _loss(
    *, margins: Function = between, gap: Function = _gap, mean: Function = lambda x: x.relu().mean()
) -> Function:
    """The loss with other margins, distances, or another mean of what is missing."""

    def loss(
        student: Tensor, teacher: Tensor, triplets: Tensor, min_margin: float, max_margin: float
    ) -> Tensor:
        wanted = margins(min_margin, max_margin, gap(teacher.detach(), triplets))
        value: Tensor = mean(wanted - gap(student, triplets))
        return value

    return loss


_triplet = _loss()

MISTAKES = {
    "positive and negative exchanged": Mistake(
        "The student's positive and negative are exchanged. The anchor must come nearer to p than "
        "to n: max(0, d(a, p) - d(a, n) + m).",
        lambda s, t, triplets, low, high: (
            (between(low, high, _gap(t.detach(), triplets)) + _gap(s, triplets)).relu().mean()
        ),
    ),
    **teacher_margin_mistakes(_triplet, "triplet", "delta"),
    "negative gaps kept": Mistake(
        "Negative gaps of the teacher were kept. Where the teacher itself is wrong, delta is 0 and "
        "the margin M_min: delta = max(0, ...).",
        _loss(margins=lambda low, high, gap: low + (high - low) * gap / gap.max()),
    ),
    "gap not divided by its maximum": Mistake(
        "The teacher's gaps were not divided by the largest of the batch. Only the ratio "
        "delta / max delta lies in 0..1 and keeps the margin between M_min and M_max.",
        _loss(margins=lambda low, high, gap: low + (high - low) * gap.relu()),
    ),
    "cosines for angles": Mistake(
        "The distances are 1 - cos. This loss measures angles: arccos of the cosine, kept a little "
        "away from 1.",
        _loss(gap=_cosine_gap),
    ),
    "nothing cut at zero": Mistake(
        "Satisfied triplets were not cut at zero. A triplet that keeps its margin costs nothing: "
        "max(0, ...). Otherwise easy triplets pay for hard ones.",
        _loss(mean=torch.mean),
    ),
    "sum over the triplets": Mistake(
        "The triplets were summed up. Take the mean over all of them.",
        times(_triplet, lambda a: len(a.triplets)),
    ),
    "mean over the violated only": Mistake(
        "The mean was taken over the violated triplets only. Here it runs over all triplets, so "
        "that the loss falls as they become fewer.",
        _loss(mean=lambda x: x.relu().sum() / (x > 0).sum()),
    ),
}


def _cases() -> list[Case]:
    angles = [real([0.0, 20.0, 40.0, 95.0]).deg2rad(), real([0.0, 30.0, 120.0, 60.0]).deg2rad()]
    student, teacher = (torch.stack([x.cos(), x.sin()], 1) for x in angles)
    generator = torch.Generator().manual_seed(101)
    many = torch.stack([torch.randperm(9, generator=generator)[:3] for _ in range(20)])
    wrong = torch.tensor([[0, 2, 1], [0, 3, 1]])
    return [
        Case("by hand", (student, teacher, torch.tensor([[0, 1, 2], [0, 1, 3]]), 0.2, 0.5)),
        Case("20 triplets", (normal(102, 9, 6), 2 * normal(103, 9, 4), many, 0.2, 0.5)),
        Case("20 triplets, wide", (3 * normal(104, 9, 5), normal(105, 9, 5), many, 0.1, 1.0)),
        Case("no gap in the teacher", (student, teacher, wrong, 0.2, 0.5), NO_GAP),
    ]


TRIPLET = Exercise(
    "triplet", _triplet, _cases, MISTAKES, gradient=("student",), detached=("teacher",)
)


def check_triplet(f: Function) -> Feedback:
    """Check a function for TripletDistillation on given triplets.

    Args:
        f: f(student (N, D), teacher (N, D'), triplets (T, 3), min_margin, max_margin) -> 0-dim.
            A row of `triplets` is (a, p, n); d is the angle between two embeddings. The loss is the
            mean of max(0, d^s(a, p) - d^s(a, n) + m), m = M_min + (M_max - M_min) delta / max delta
            and delta = max(0, d^t(a, n) - d^t(a, p)); m = M_min where all delta are 0; no gradient
            to the teacher.
    """
    return judge(TRIPLET, f)
