"""Check of chapter 11: EKD among the teacher's rows of a gallery, with given levels."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.exercises.ekd import (
    EMPTY_SIDE,
    NEGATIVE_WEIGHT,
    POSITIVE_WEIGHT,
    mean_or_zero,
)
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import cosines, instead, products


def _loss(
    *,
    similarity: Function = cosines,
    is_hard: Function = lambda p: p.student_hard | p.teacher_hard,
    gap: Function = lambda p: (p.student.sum(-1) - p.teacher.sum(-1)).square(),
    mean: Function = mean_or_zero,
    weights: tuple[float, float] = (POSITIVE_WEIGHT, NEGATIVE_WEIGHT),
) -> Function:
    """The loss from all images and all rows, with one part exchanged."""

    def gallery(
        student: Tensor, teacher: Tensor, labels: Tensor, rows: Tensor, row_labels: Tensor,
        student_levels: Tensor, teacher_levels: Tensor, temperature: float,
    ) -> Tensor:  # fmt: skip
        fixed = rows.detach()
        mine, theirs = similarity(student, fixed), similarity(teacher.detach(), fixed)

        def steps(cosine: Tensor, levels: Tensor) -> Tensor:
            return torch.sigmoid((cosine[..., None] - levels) / temperature)

        p = SimpleNamespace(
            student=steps(mine, student_levels),
            teacher=steps(theirs, teacher_levels),
            student_hard=mine.detach() > student_levels.min(),
            teacher_hard=theirs > teacher_levels.min(),
        )
        is_genuine = labels[:, None] == row_labels
        cost = gap(p)
        sides = mean(cost[is_genuine]), mean(cost[~is_genuine & is_hard(p)])
        total: Tensor = weights[0] * sides[0] + weights[1] * sides[1]
        return total

    return gallery


_gallery = _loss()

MISTAKES = {
    "pairs of the batch": Mistake(
        "The batch was compared with its own teacher rows. Each image is to be compared with the "
        "rows of the *gallery*, whose people are `row_labels`.",
        instead(_gallery, rows=lambda a: a.teacher, row_labels=lambda a: a.labels),
    ),
    "one set of levels": Mistake(
        "Both nets were ranked by the teacher's levels. Each net has levels of its own.",
        instead(_gallery, student_levels=lambda a: a.teacher_levels),
    ),
    "hard for the student alone": Mistake(
        "Impostor pairs were chosen by the student alone. Those take part that *either* net finds "
        "above its coarsest level: the teacher's look-alikes are knowledge, too.",
        _loss(is_hard=lambda p: p.student_hard),
    ),
    "hard for both nets": Mistake(
        "Impostor pairs had to be hard for both nets. One is enough, and a pair that only one net "
        "takes for hard is just the disagreement that the loss is about.",
        _loss(is_hard=lambda p: p.student_hard & p.teacher_hard),
    ),
    "all impostors": Mistake(
        "All impostor pairs take part. Only those do that are above the coarsest level of a net; "
        "the others have rank 0 in both and dilute the mean.",
        _loss(is_hard=lambda p: p.student_hard | True),
    ),
    "weights exchanged": Mistake(
        "The two weights are exchanged. Genuine pairs weigh 0.02, impostor pairs 0.01.",
        _loss(weights=(NEGATIVE_WEIGHT, POSITIVE_WEIGHT)),
    ),
    "every level by itself": Mistake(
        "The squares were taken for every level by itself. First sum the sigmoids to one rank for "
        "each pair and net; then square the difference of ranks.",
        _loss(gap=lambda p: (p.student - p.teacher).square().sum(-1)),
    ),
    "absolute difference": Mistake(
        "The rank differences are absolute values. EKD squares them.",
        _loss(gap=lambda p: (p.student.sum(-1) - p.teacher.sum(-1)).abs()),
    ),
    "sums for means": Mistake(
        "Sums were taken where means belong: each side is averaged over its own pairs.",
        _loss(mean=torch.sum),
    ),
    "vectors not normalised": Mistake(
        "The vectors were not normalised. Levels are cosines, so images and rows are divided by "
        "their lengths before the product.",
        _loss(similarity=products),
    ),
}


def _cases() -> list[Case]:
    angles = [real([0.0, 50.0]).deg2rad(), real([5.0, 40.0]).deg2rad()]
    small = [torch.stack([x.cos(), x.sin()], 1) for x in angles]
    rows = real([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    levels = real([0.5, 0.9]), real([0.4, 0.8])
    labels, row_labels = torch.tensor([0, 1]), torch.tensor([0, 1, 1])
    cases = [Case("by hand", (*small, labels, rows, row_labels, *levels, 0.1))]
    for seed, people, tau in ((181, 4, 0.1), (186, 5, 0.05)):
        row_labels = torch.arange(people).repeat_interleave(5)
        centres = normal(seed, people, 6)
        rows = 3 * (centres[row_labels] + 0.5 * normal(seed + 1, len(row_labels), 6))
        labels = torch.arange(2 * people) % people
        teacher = 0.7 * (centres[labels] + 0.5 * normal(seed + 2, len(labels), 6))
        student = 2 * (centres[labels] + 0.9 * normal(seed + 3, len(labels), 6))
        nets = real([0.3, 0.5, 0.65]), real([0.35, 0.5, 0.7])
        cases.append(
            Case(f"{people} people", (student, teacher, labels, rows, row_labels, *nets, tau))
        )
    for kind, labels in (("genuine", torch.tensor([7, 8])), ("impostor", torch.tensor([1, 1]))):
        row_labels = torch.tensor([1, 1, 1])
        few = (*small, labels, real([[1.0, 0.2]] * 3), row_labels, *levels, 0.1)
        cases.append(Case(f"no {kind} pair", few, EMPTY_SIDE.format(kind=kind)))
    return cases


GALLERY = Exercise(
    "gallery", _gallery, _cases, MISTAKES, gradient=("student",), detached=("teacher", "rows")
)


def check_gallery(f: Function) -> Feedback:
    """Check a function for the loss of EKD among the rows of a gallery.

    Args:
        f: f(student (N, D), teacher (N, D), labels (N,), rows (M, D), row_labels (M,),
            student_levels (L,), teacher_levels (L,), temperature) -> 0-dim. Image i and row j have
            the cosine of the student's embedding of i with row j in the student, and that of the
            teacher's embedding in the teacher; each has a soft rank, the sum of sigmoid((cosine -
            level) / temperature) over the levels of its net. The loss is 0.02 times the mean of
            (R^S - R^T)^2 over genuine pairs, plus 0.01 times its mean over the impostor pairs that
            are above the coarsest level of at least one net. A side without pairs counts 0. No
            gradient to teacher or rows.
    """
    return judge(GALLERY, f)
