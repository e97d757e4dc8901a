"""Check of chapter 11: EKD by the teacher's decisions, with given levels."""

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
    places: Function = lambda all_pairs: all_pairs.triu(1),
    similarity: Function = cosines,
    accepted: Function = lambda p: p.teacher >= p.threshold,
    target: Function = lambda p: p.num_levels * p.accepted,
    is_hard: Function = lambda p: p.student > p.hard,
    cost: Function = torch.square,
    mean: Function = mean_or_zero,
    weights: tuple[float, float] = (POSITIVE_WEIGHT, NEGATIVE_WEIGHT),
) -> Function:
    """The loss from every pair of the batch, with one part exchanged."""

    def decisions(
        student: Tensor, teacher: Tensor, levels: Tensor,
        hard: float, threshold: float, temperature: float,
    ) -> Tensor:  # fmt: skip
        i, j = places(torch.ones(len(student), len(student))).nonzero(as_tuple=True)
        mine, theirs = similarity(student)[i, j], similarity(teacher.detach())[i, j]
        p = SimpleNamespace(
            student=mine.detach(),
            teacher=theirs,
            num_levels=len(levels),
            hard=hard,
            threshold=threshold,
            temperature=temperature,
        )
        p.accepted = accepted(p)
        rank = torch.sigmoid((mine[:, None] - levels) / temperature).sum(1)
        gap = cost(rank - target(p))
        sides = mean(gap[p.accepted]), mean(gap[~p.accepted & is_hard(p)])
        total: Tensor = weights[0] * sides[0] + weights[1] * sides[1]
        return total

    return decisions


_decisions = _loss()

MISTAKES = {
    "one for all levels": Mistake(
        "An accepted pair shall pass *all* levels, so its rank is to be their number L. Here it "
        "was to be 1, which a pair reaches that passes the coarsest level alone.",
        _loss(target=lambda p: 1 * p.accepted),
    ),
    "teacher's rank for its decision": Mistake(
        "The target is soft: how far the teacher's cosine lies from its threshold. A decision is "
        "yes or no. An accepted pair has the target L, however close it was, any other one 0.",
        _loss(
            target=lambda p: p.num_levels * torch.sigmoid((p.teacher - p.threshold) / p.temperature)
        ),
    ),
    "student decides": Mistake(
        "The student's cosine was compared with the teacher's threshold. The teacher decides: its "
        "own cosine, at its own threshold.",
        _loss(accepted=lambda p: p.student >= p.threshold),
    ),
    "all rejected pairs": Mistake(
        "All pairs that the teacher rejects take part. Only those do that the student finds hard, "
        "above `hard`: the others are below every level anyhow and dilute the mean.",
        instead(_decisions, hard=lambda a: -2.0),
    ),
    "hard by the teacher": Mistake(
        "The hard pairs were chosen by the teacher's cosines. The student's false accepts are to "
        "be mended: take rejected pairs whose cosine in the *student* is above `hard`.",
        _loss(is_hard=lambda p: p.teacher > p.hard),
    ),
    "weights exchanged": Mistake(
        "The two weights are exchanged. Accepted pairs weigh 0.02, rejected ones 0.01.",
        _loss(weights=(NEGATIVE_WEIGHT, POSITIVE_WEIGHT)),
    ),
    "diagonal pairs counted": Mistake(
        "Pairs of an image with itself were counted as accepted. Their cosine is 1 in both nets, "
        "so they only dilute the mean: take i < j.",
        _loss(places=torch.triu),
    ),
    "temperature multiplied": Mistake(
        "The difference from a level was multiplied by the temperature. Divide by it.",
        instead(_decisions, temperature=lambda a: 1 / a.temperature),
    ),
    "absolute difference": Mistake(
        "The rank differences are absolute values. They are to be squared.",
        _loss(cost=torch.abs),
    ),
    "sums for means": Mistake(
        "Sums were taken where means belong: each side is averaged over its own pairs.",
        _loss(mean=torch.sum),
    ),
    "embeddings not normalised": Mistake(
        "The embeddings were not normalised. Levels and threshold are cosines, so the "
        "similarities must be.",
        _loss(similarity=products),
    ),
}


def _cases() -> list[Case]:
    angles = [real([0.0, 40.0, 60.0]).deg2rad(), real([0.0, 20.0, 80.0]).deg2rad()]
    small = [torch.stack([x.cos(), x.sin()], 1) for x in angles]
    cases = [Case("by hand", (*small, real([0.6, 0.8]), 0.4, 0.9, 0.1))]
    for seed, people, hard, threshold, tau in ((171, 4, 0.2, 0.6, 0.1), (175, 5, 0.3, 0.5, 0.05)):
        labels = torch.arange(people).repeat_interleave(3)
        centres = normal(seed, people, 6)
        student = 2 * (centres[labels] + 0.9 * normal(seed + 1, len(labels), 6))
        teacher = 0.7 * (centres[labels] + 0.6 * normal(seed + 2, len(labels), 6))
        arguments = (student, teacher, real([0.4, 0.55, 0.7]), hard, threshold, tau)
        cases.append(Case(f"{people} people", arguments))
    for kind, hard, threshold in (("accepted", 0.2, 0.999), ("hard rejected", 0.99, 0.6)):
        few = (*small, real([0.6]), hard, threshold, 0.1)
        cases.append(Case(f"no {kind} pair", few, EMPTY_SIDE.format(kind=kind)))
    return cases


DECISIONS = Exercise(
    "decisions", _decisions, _cases, MISTAKES, gradient=("student",), detached=("teacher",)
)


def check_decisions(f: Function) -> Feedback:
    """Check a function for the loss of EKD by the teacher's decisions; no label enters it.

    Args:
        f: f(student (N, D), teacher (N, D'), levels (L,), hard, threshold, temperature) -> 0-dim.
            The teacher accepts a pair i < j if its cosine there is at least `threshold`. The gap
            of a pair is its soft rank in the student, the sum of sigmoid((cosine - level) /
            temperature) over the `levels`, minus L if the teacher accepts it, minus 0 if not. The
            loss is 0.02 times the mean of gap^2 over accepted pairs plus 0.01 times its mean over
            rejected pairs whose cosine in the student is above `hard`. A side without pairs counts
            0. No gradient to the teacher.
    """
    return judge(DECISIONS, f)
