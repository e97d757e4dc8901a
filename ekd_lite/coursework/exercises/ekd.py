"""Check of chapter 10: the loss of EKD with given thresholds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.exercises.impostor_thresholds import thresholds_of
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import Rule, cosines, instead, products, times

POSITIVE_WEIGHT, NEGATIVE_WEIGHT = 0.02, 0.01
EMPTY_SIDE = (
    "Here the batch has no {kind} pair, and the mean over none is NaN. That side counts 0, and the "
    "other one as always: divide the sum by max(1, number of pairs)."
)


def mean_or_zero(values: Tensor) -> Tensor:
    """The mean, and 0 of nothing."""
    return values.sum() / max(1, len(values))


def _squares(pairs: SimpleNamespace) -> Tensor:
    gap: Tensor = pairs.student_steps.sum(1) - pairs.teacher_steps.sum(1)
    return gap.square()


def _loss(
    *,
    places: Function = lambda all_pairs: all_pairs.triu(1),
    similarity: Function = cosines,
    gap: Function = _squares,
    hardness: Function = lambda pairs: pairs.student,
    mean: Function = mean_or_zero,
    weights: tuple[float, float] = (POSITIVE_WEIGHT, NEGATIVE_WEIGHT),
) -> Function:
    """The loss in the plainest form, from every pair of the batch, with one part exchanged.

    Args:
        places: of a matrix (N, N) of ones, those of the pairs.
        similarity: of all rows of one net.
        gap: of the cosines and sigmoids of both nets, what each pair costs.
        hardness: by what the impostor pairs are chosen.
        mean: over the pairs of a side.
        weights: of the genuine and of the impostor side.
    """

    def ekd(
        student: Tensor, teacher: Tensor, labels: Tensor,
        student_thresholds: Tensor, teacher_thresholds: Tensor, temperature: float, topk: int,
    ) -> Tensor:  # fmt: skip
        i, j = places(torch.ones(len(labels), len(labels))).nonzero(as_tuple=True)

        def steps(cosine: Tensor, thresholds: Tensor) -> Tensor:
            return torch.sigmoid((cosine[:, None] - thresholds) / temperature)

        mine, theirs = similarity(student)[i, j], similarity(teacher.detach())[i, j]
        pairs = SimpleNamespace(
            student=mine,
            teacher=theirs,
            student_steps=steps(mine, student_thresholds),
            teacher_steps=steps(theirs, teacher_thresholds),
        )
        is_impostor = labels[i] != labels[j]
        cost = gap(pairs)
        by = hardness(pairs).detach()[is_impostor]
        hardest = by.topk(min(topk, len(by))).indices
        sides = mean(cost[~is_impostor]), mean(cost[is_impostor][hardest])
        total: Tensor = weights[0] * sides[0] + weights[1] * sides[1]
        return total

    return ekd


_ekd = _loss()


def _with_thresholds(thresholds: Function) -> Function:
    """The loss with thresholds of this batch instead of those that are given."""

    def of(net: str) -> Rule:
        def rule(a: SimpleNamespace) -> Any:
            levels = tuple(0.1**m for m in range(1, len(a.student_thresholds) + 1))
            return thresholds(vars(a)[net].detach(), a.labels, levels)

        return rule

    return instead(_ekd, student_thresholds=of("student"), teacher_thresholds=of("teacher"))


MISTAKES = {
    "weights exchanged": Mistake(
        "The two weights are exchanged. The paper's code weighs genuine pairs with 0.02 and "
        "impostor pairs with 0.01.",
        _loss(weights=(NEGATIVE_WEIGHT, POSITIVE_WEIGHT)),
    ),
    "temperature multiplied": Mistake(
        "The difference from the threshold was multiplied by the temperature. Divide by it: a "
        "small temperature makes the sigmoid steep, nearly the step it stands for.",
        instead(_ekd, temperature=lambda a: 1 / a.temperature),
    ),
    "thresholds from genuine scores": Mistake(
        "The thresholds were taken from the genuine pairs of the batch. They stand for "
        "false-positive rates, so they come from impostor pairs; and here they are given, as "
        "running averages over many batches: use those.",
        _with_thresholds(thresholds_of(which=lambda is_genuine: is_genuine)),
    ),
    "thresholds of the batch": Mistake(
        "The thresholds were computed from this batch. Here they are given, as running averages "
        "over many batches, which scatter less: use those.",
        _with_thresholds(thresholds_of()),
    ),
    "one set of thresholds": Mistake(
        "Both nets were ranked by the teacher's thresholds. Each net has thresholds of its own: "
        "equal ranks mean equal error rates, not equal cosines.",
        instead(_ekd, student_thresholds=lambda a: a.teacher_thresholds),
    ),
    "thresholds exchanged": Mistake(
        "The two sets of thresholds are exchanged. The student's cosines meet the student's "
        "thresholds, the teacher's the teacher's.",
        instead(
            _ekd,
            student_thresholds=lambda a: a.teacher_thresholds,
            teacher_thresholds=lambda a: a.student_thresholds,
        ),
    ),
    "sign of the difference": Mistake(
        "The sign of the distance to the threshold is flipped in one of the two nets. A rank rises "
        "with the cosine: sigmoid((cosine - threshold) / temperature) in both.",
        _loss(gap=lambda p: (p.student_steps.sum(1) - (1 - p.teacher_steps).sum(1)).square()),
    ),
    "diagonal pairs counted": Mistake(
        "Pairs of an image with itself were counted as genuine. Their cosine is 1 in both nets, so "
        "they only dilute the mean: take i < j.",
        _loss(places=torch.triu),
    ),
    "diagonal in the matrix": Mistake(
        "The whole matrix was used: every pair twice, and each image with itself as genuine. Take "
        "each unordered pair once, i < j. Twice, only half as many different impostor pairs fit "
        "into the topk, and the diagonal dilutes the genuine mean.",
        _loss(places=lambda all_pairs: all_pairs),
    ),
    "every pair twice": Mistake(
        "Every pair was counted twice, as (i, j) and as (j, i). The means do not notice, but only "
        "half as many different impostor pairs fit into the topk: take i < j.",
        _loss(places=lambda all_pairs: all_pairs.fill_diagonal_(0)),
    ),
    "hardest by the teacher": Mistake(
        "The hardest impostor pairs were chosen by the teacher's cosines. The student's errors are "
        "to be mended: take the pairs with the largest student cosine.",
        _loss(hardness=lambda p: p.teacher),
    ),
    "easiest impostors": Mistake(
        "The easiest impostor pairs were chosen, those with the smallest cosine. False accepts are "
        "the impostor pairs with the largest: sort from the top.",
        _loss(hardness=lambda p: -p.student),
    ),
    "all impostors": Mistake(
        "All impostor pairs take part. Only the topk with the largest student cosine do: the "
        "others lie below every threshold in both nets and dilute the mean.",
        instead(_ekd, topk=lambda a: len(a.labels) ** 2),
    ),
    "sums for means": Mistake(
        "Sums were taken where means belong. There are many more impostor pairs than genuine ones; "
        "each side is averaged over its own pairs.",
        _loss(mean=torch.sum),
    ),
    "absolute difference": Mistake(
        "The rank differences are absolute values. EKD squares them.",
        _loss(gap=lambda p: _squares(p).sqrt()),
    ),
    "ranks averaged over thresholds": Mistake(
        "The rank is the mean of the sigmoids. It is their sum, the number of thresholds passed; "
        "otherwise the loss is L^2 times smaller.",
        times(_ekd, lambda a: len(a.student_thresholds) ** -2),
    ),
    "every threshold by itself": Mistake(
        "The squares were taken for every threshold by itself and then summed. First sum the "
        "sigmoids to one rank for each pair and net; then square the difference of ranks.",
        _loss(gap=lambda p: (p.student_steps - p.teacher_steps).square().sum(1)),
    ),
    "embeddings not normalised": Mistake(
        "The embeddings were not normalised. The thresholds are cosines, so the similarities must "
        "be.",
        _loss(similarity=products),
    ),
    "cosines compared instead of ranks": Mistake(
        "The cosines themselves were compared. That asks the student to copy them. EKD asks only "
        "for equal ranks among the thresholds, and leaves pairs alone that both nets rank alike.",
        _loss(gap=lambda p: (p.student - p.teacher).square()),
    ),
    "hard ranks": Mistake(
        "The ranks are hard counts. They are what the evaluation sees, but a step has no slope to "
        "learn from: use a sigmoid of (cosine - threshold) / temperature.",
        instead(_ekd, temperature=lambda a: 1e-9),
    ),
}


def _cases() -> list[Case]:
    angles = [real([0.0, 40.0, 60.0]).deg2rad(), real([0.0, 20.0, 80.0]).deg2rad()]
    small = [torch.stack([x.cos(), x.sin()], 1) for x in angles]
    thresholds = real([0.6]), real([0.4])
    cases = [Case("by hand", (*small, torch.tensor([0, 0, 1]), *thresholds, 0.1, 1))]
    fixed = real([0.15, 0.4, 0.6]), real([0.1, 0.3, 0.55])
    for seed, people, topk, tau in ((141, 4, 10, 0.1), (145, 5, 1000, 0.05)):
        labels = torch.arange(people).repeat_interleave(3)
        centres = normal(seed, people, 6)
        student = 2 * (centres[labels] + 0.9 * normal(seed + 1, len(labels), 6))
        teacher = 0.7 * (centres[labels] + 0.6 * normal(seed + 2, len(labels), 6))
        arguments = (student, teacher, labels, *fixed, tau, topk)
        cases.append(Case(f"{people} people, topk {topk}", arguments))
    for kind, labels in (("genuine", torch.arange(3)), ("impostor", torch.zeros(3).long())):
        few = (*small, labels, *thresholds, 0.1, 2)
        cases.append(Case(f"no {kind} pair", few, EMPTY_SIDE.format(kind=kind)))
    return cases


EKD = Exercise("ekd", _ekd, _cases, MISTAKES, gradient=("student",), detached=("teacher",))


def check_ekd(f: Function) -> Feedback:
    """Check a function for the loss of EKD with given thresholds.

    Args:
        f: f(student (N, D), teacher (N, D'), labels (N,), student_thresholds (L,),
            teacher_thresholds (L,), temperature, topk) -> 0-dim. Every unordered pair has a soft
            rank in each net, the sum of sigmoid((cosine - threshold) / temperature) over that net's
            thresholds. The loss is 0.02 times the mean of (R^S - R^T)^2 over genuine pairs plus
            0.01 times its mean over the `topk` impostor pairs (all, if fewer) with the largest
            student cosine. A side without pairs counts 0. No gradient to the teacher.
    """
    return judge(EKD, f)
