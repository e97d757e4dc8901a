"""Check of chapter 9: TripletDistillation on given triplets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict


def _cosines(embeddings: Tensor, triplets: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of anchor with positive and with negative, (T,) each."""
    a, p, n = F.normalize(embeddings)[triplets].unbind(1)
    return (a * p).sum(1), (a * n).sum(1)


def _gap(embeddings: Tensor, triplets: Tensor) -> Tensor:
    """Angle(a, n) - angle(a, p), (T,)."""
    positive, negative = (c.clamp(-1 + 1e-6, 1 - 1e-6) for c in _cosines(embeddings, triplets))
    return torch.acos(negative) - torch.acos(positive)


def _margins(gap: Tensor, min_margin: float, max_margin: float) -> Tensor:
    return min_margin + (max_margin - min_margin) * gap / gap.max()


def _triplet(
    student: Tensor, teacher: Tensor, triplets: Tensor, min_margin: float, max_margin: float
) -> Tensor:
    margins = _margins(_gap(teacher.detach(), triplets).relu(), min_margin, max_margin)
    return (margins - _gap(student, triplets)).relu().mean()


def _positive_and_negative_exchanged(
    student: Tensor, teacher: Tensor, triplets: Tensor, min_margin: float, max_margin: float
) -> Tensor:
    """The student's positive and negative are exchanged.

    The anchor must come nearer to p than to n: max(0, d(a, p) - d(a, n) + m).
    """
    margins = _margins(_gap(teacher.detach(), triplets).relu(), min_margin, max_margin)
    return (margins + _gap(student, triplets)).relu().mean()


def _always_the_smallest_margin(
    student: Tensor, teacher: Tensor, triplets: Tensor, min_margin: float, max_margin: float
) -> Tensor:
    """Every triplet has the smallest margin.

    That is the plain triplet loss. The teacher's gap raises the margin: m = M_min + (M_max - M_min)
    delta / max delta.
    """
    return (min_margin - _gap(student, triplets)).relu().mean()


def _always_the_largest_margin(
    student: Tensor, teacher: Tensor, triplets: Tensor, min_margin: float, max_margin: float
) -> Tensor:
    """Every triplet has the largest margin.

    The margin depends on the teacher's gap: m = M_min + (M_max - M_min) delta / max delta.
    """
    return (max_margin - _gap(student, triplets)).relu().mean()


def _margin_from_the_student(
    student: Tensor, teacher: Tensor, triplets: Tensor, min_margin: float, max_margin: float
) -> Tensor:
    """The margins were taken from the student's gaps.

    The teacher sets them; the student would ask of itself what it already has.
    """
    margins = _margins(_gap(student.detach(), triplets).relu(), min_margin, max_margin)
    return (margins - _gap(student, triplets)).relu().mean()


def _negative_gaps_kept(
    student: Tensor, teacher: Tensor, triplets: Tensor, min_margin: float, max_margin: float
) -> Tensor:
    """Negative gaps of the teacher were kept.

    Where the teacher itself is wrong, delta is 0 and the margin M_min: delta = max(0, ...).
    """
    margins = _margins(_gap(teacher.detach(), triplets), min_margin, max_margin)
    return (margins - _gap(student, triplets)).relu().mean()


def _gap_not_divided_by_its_maximum(
    student: Tensor, teacher: Tensor, triplets: Tensor, min_margin: float, max_margin: float
) -> Tensor:
    """The teacher's gaps were not divided by the largest of the batch.

    Only the ratio delta / max delta lies in 0..1 and keeps the margin between M_min and M_max.
    """
    gap = _gap(teacher.detach(), triplets).relu()
    margins = min_margin + (max_margin - min_margin) * gap
    return (margins - _gap(student, triplets)).relu().mean()


def _cosines_for_angles(
    student: Tensor, teacher: Tensor, triplets: Tensor, min_margin: float, max_margin: float
) -> Tensor:
    """The distances are 1 - cos.

    This loss measures angles: arccos of the cosine, kept a little away from 1.
    """
    mine, theirs = _cosines(student, triplets), _cosines(teacher.detach(), triplets)
    margins = _margins((theirs[0] - theirs[1]).relu(), min_margin, max_margin)
    return (margins - (mine[0] - mine[1])).relu().mean()


def _nothing_cut_at_zero(
    student: Tensor, teacher: Tensor, triplets: Tensor, min_margin: float, max_margin: float
) -> Tensor:
    """Satisfied triplets were not cut at zero.

    A triplet that keeps its margin costs nothing: max(0, ...). Otherwise easy triplets pay for hard
    ones.
    """
    margins = _margins(_gap(teacher.detach(), triplets).relu(), min_margin, max_margin)
    return (margins - _gap(student, triplets)).mean()


def _sum_over_the_triplets(
    student: Tensor, teacher: Tensor, triplets: Tensor, min_margin: float, max_margin: float
) -> Tensor:
    """The triplets were summed up.

    Take the mean over all of them.
    """
    return _triplet(student, teacher, triplets, min_margin, max_margin) * len(triplets)


def _mean_over_the_violated_only(
    student: Tensor, teacher: Tensor, triplets: Tensor, min_margin: float, max_margin: float
) -> Tensor:
    """The mean was taken over the violated triplets only.

    Here it runs over all triplets, so that the loss falls as they become fewer.
    """
    margins = _margins(_gap(teacher.detach(), triplets).relu(), min_margin, max_margin)
    excess = (margins - _gap(student, triplets)).relu()
    return excess.sum() / (excess > 0).sum()


def _triplet_cases() -> list[Case]:
    angles = [real([0.0, 20.0, 40.0, 95.0]).deg2rad(), real([0.0, 30.0, 120.0, 60.0]).deg2rad()]
    student, teacher = (torch.stack([x.cos(), x.sin()], 1) for x in angles)
    generator = torch.Generator().manual_seed(101)
    many = torch.stack([torch.randperm(9, generator=generator)[:3] for _ in range(20)])
    return [
        Case("by hand", (student, teacher, torch.tensor([[0, 1, 2], [0, 1, 3]]), 0.2, 0.5)),
        Case("20 triplets", (normal(102, 9, 6), 2 * normal(103, 9, 4), many, 0.2, 0.5)),
        Case("20 triplets, wide", (3 * normal(104, 9, 5), normal(105, 9, 5), many, 0.1, 1.0)),
    ]


TRIPLET = Exercise(
    "triplet",
    _triplet,
    _triplet_cases,
    (
        _positive_and_negative_exchanged,
        _always_the_smallest_margin,
        _always_the_largest_margin,
        _margin_from_the_student,
        _negative_gaps_kept,
        _gap_not_divided_by_its_maximum,
        _cosines_for_angles,
        _nothing_cut_at_zero,
        _sum_over_the_triplets,
        _mean_over_the_violated_only,
    ),
    gradient=("student",),
    detached=("teacher",),
)


def check_triplet(f: Function) -> Verdict:
    """Check a function for TripletDistillation on given triplets.

    Args:
        f: f(student (N, D), teacher (N, D'), triplets (T, 3), min_margin, max_margin) -> 0-dim.
            A row of `triplets` is (a, p, n); d is the angle between two embeddings. The loss is the
            mean of max(0, d^s(a, p) - d^s(a, n) + m), m = M_min + (M_max - M_min) delta / max delta
            and delta = max(0, d^t(a, n) - d^t(a, p)); no gradient to the teacher.
    """
    return judge(TRIPLET, f)
