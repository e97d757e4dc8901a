"""Check of chapter 10: the loss of EKD with given thresholds."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.ekd_reference import ekd, raw_pairs, unit_pairs, weighted
from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real, replaced
from ekd_lite.coursework.impostor_thresholds import impostor_thresholds
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict


def _weights_exchanged(*given: Any) -> Tensor:
    """The two weights are exchanged.

    The paper's code weighs genuine pairs with 0.02 and impostor pairs with 0.01.
    """
    pairs = unit_pairs(*given)
    squares = pairs.squares()
    return weighted(squares[pairs.hardest()].mean(), squares[pairs.is_genuine].mean())


def _temperature_multiplied(*given: Any) -> Tensor:
    """The difference from the threshold was multiplied by the temperature.

    Divide by it: a small temperature makes the sigmoid steep, nearly the step it stands for.
    """
    return ekd(*replaced(given, {5: 1 / given[5]}))


def _thresholds_from_genuine_scores(*given: Any) -> Tensor:
    """The thresholds were taken from the genuine pairs of the batch.

    They stand for false-positive rates, so they come from impostor pairs; and here they are given,
    as running averages over many batches: use those.
    """
    student, teacher, labels, thresholds, _, temperature, topk = given
    same = labels[:, None] == labels
    i, j = same.triu(1).nonzero().T

    def of(embeddings: Tensor) -> Tensor:
        unit = F.normalize(embeddings.detach())
        ordered = (unit[i] * unit[j]).sum(1).sort(descending=True).values
        ranks = [int(0.1**m * len(ordered) + 1e-9) for m in range(1, len(thresholds) + 1)]
        return ordered[ranks]

    return ekd(student, teacher, labels, of(student), of(teacher), temperature, topk)


def _thresholds_of_the_batch(*given: Any) -> Tensor:
    """The thresholds were computed from this batch.

    Here they are given, as running averages over many batches, which scatter less: use those.
    """
    student, teacher, labels, thresholds, _, temperature, topk = given
    levels = tuple(0.1**m for m in range(1, len(thresholds) + 1))
    mine, theirs = (impostor_thresholds(x.detach(), labels, levels) for x in (student, teacher))
    return ekd(student, teacher, labels, mine, theirs, temperature, topk)


def _one_set_of_thresholds(*given: Any) -> Tensor:
    """Both nets were ranked by the teacher's thresholds.

    Each net has thresholds of its own: equal ranks mean equal error rates, not equal cosines.
    """
    return ekd(*replaced(given, {3: given[4]}))


def _thresholds_exchanged(*given: Any) -> Tensor:
    """The two sets of thresholds are exchanged.

    The student's cosines meet the student's thresholds, the teacher's the teacher's.
    """
    return ekd(*replaced(given, {3: given[4], 4: given[3]}))


def _sign_of_the_difference(*given: Any) -> Tensor:
    """The sign of the distance to the threshold is flipped in one of the two nets.

    A rank rises with the cosine: sigmoid((cosine - threshold) / temperature) in both.
    """
    pairs = unit_pairs(*given)
    pairs.teacher_rank = len(given[4]) - pairs.teacher_rank
    return pairs.loss()


def _diagonal_pairs_counted(*given: Any) -> Tensor:
    """Pairs of an image with itself were counted as genuine.

    Their cosine is 1 in both nets, so they only dilute the mean: take i < j.
    """
    return unit_pairs(*given, offset=0).loss()


def _diagonal_in_the_matrix(*given: Any) -> Tensor:
    """The whole matrix was used: every pair twice, and each image with itself as genuine.

    Take each unordered pair once, i < j. Twice, only half as many different impostor pairs fit into
    the topk, and the diagonal dilutes the genuine mean.
    """
    pairs, with_diagonal = unit_pairs(*given), unit_pairs(*given, offset=0)
    squares, more = pairs.squares(), with_diagonal.squares()
    twice = squares[pairs.is_genuine].sum() + more[with_diagonal.is_genuine].sum()
    count = pairs.is_genuine.sum() + with_diagonal.is_genuine.sum()
    return weighted(twice / count, squares[pairs.hardest_of_pairs_twice()].mean())


def _every_pair_twice(*given: Any) -> Tensor:
    """Every pair was counted twice, as (i, j) and as (j, i).

    The means do not notice, but only half as many different impostor pairs fit into the topk: take
    i < j.
    """
    pairs = unit_pairs(*given)
    squares = pairs.squares()
    hardest = pairs.hardest_of_pairs_twice()
    return weighted(squares[pairs.is_genuine].mean(), squares[hardest].mean())


def _hardest_by_the_teacher(*given: Any) -> Tensor:
    """The hardest impostor pairs were chosen by the teacher's cosines.

    The student's errors are to be mended: take the pairs with the largest student cosine.
    """
    pairs = unit_pairs(*given)
    squares = pairs.squares()
    hardest = pairs.hardest(pairs.teacher)
    return weighted(squares[pairs.is_genuine].mean(), squares[hardest].mean())


def _easiest_impostors(*given: Any) -> Tensor:
    """The easiest impostor pairs were chosen, those with the smallest cosine.

    False accepts are the impostor pairs with the largest: sort from the top.
    """
    pairs = unit_pairs(*given)
    squares = pairs.squares()
    easiest = pairs.hardest(-pairs.student)
    return weighted(squares[pairs.is_genuine].mean(), squares[easiest].mean())


def _all_impostors(*given: Any) -> Tensor:
    """All impostor pairs take part.

    Only the topk with the largest student cosine do: the others lie below every threshold in both
    nets and dilute the mean.
    """
    pairs = unit_pairs(*given)
    squares = pairs.squares()
    return weighted(squares[pairs.is_genuine].mean(), squares[~pairs.is_genuine].mean())


def _sums_for_means(*given: Any) -> Tensor:
    """Sums were taken where means belong.

    There are many more impostor pairs than genuine ones; each side is averaged over its own pairs.
    """
    pairs = unit_pairs(*given)
    squares = pairs.squares()
    return weighted(squares[pairs.is_genuine].sum(), squares[pairs.hardest()].sum())


def _absolute_difference(*given: Any) -> Tensor:
    """The rank differences are absolute values.

    EKD squares them.
    """
    pairs = unit_pairs(*given)
    gap = pairs.squares().sqrt()
    return weighted(gap[pairs.is_genuine].mean(), gap[pairs.hardest()].mean())


def _ranks_averaged_over_thresholds(*given: Any) -> Tensor:
    """The rank is the mean of the sigmoids.

    It is their sum, the number of thresholds passed; otherwise the loss is L^2 times smaller.
    """
    return ekd(*given) / len(given[3]) ** 2


def _every_threshold_by_itself(*given: Any) -> Tensor:
    """The squares were taken for every threshold by itself and then summed.

    First sum the sigmoids to one rank for each pair and net; then square the difference of ranks.
    """
    pairs = unit_pairs(*given)
    steps = [
        torch.sigmoid((cosine[:, None] - at) / given[5])
        for cosine, at in zip((pairs.student, pairs.teacher), given[3:5], strict=True)
    ]
    squares = (steps[0] - steps[1]).square().sum(1)
    return weighted(squares[pairs.is_genuine].mean(), squares[pairs.hardest()].mean())


def _embeddings_not_normalised(*given: Any) -> Tensor:
    """The embeddings were not normalised.

    The thresholds are cosines, so the similarities must be.
    """
    return raw_pairs(*given).loss()


def _cosines_compared_instead_of_ranks(*given: Any) -> Tensor:
    """The cosines themselves were compared.

    That asks the student to copy them. EKD asks only for equal ranks among the thresholds, and
    leaves pairs alone that both nets rank alike.
    """
    pairs = unit_pairs(*given)
    squares = (pairs.student - pairs.teacher).square()
    return weighted(squares[pairs.is_genuine].mean(), squares[pairs.hardest()].mean())


def _hard_ranks(*given: Any) -> Tensor:
    """The ranks are hard counts.

    They are what the evaluation sees, but a step has no slope to learn from: use a sigmoid of
    (cosine - threshold) / temperature.
    """
    return ekd(*replaced(given, {5: 1e-9}))


def _ekd_cases() -> list[Case]:
    angles = [real([0.0, 40.0, 60.0]).deg2rad(), real([0.0, 20.0, 80.0]).deg2rad()]
    small = [torch.stack([x.cos(), x.sin()], 1) for x in angles]
    thresholds = real([0.6]), real([0.4])
    cases = [Case("by hand", (*small, torch.tensor([0, 0, 1]), *thresholds, 0.1, 1))]
    fixed = real([0.15, 0.4, 0.6]), real([0.1, 0.3, 0.55])
    for seed, people, topk in ((141, 4, 10), (145, 5, 1000)):
        labels = torch.arange(people).repeat_interleave(3)
        centres = normal(seed, people, 6)
        student = 2 * (centres[labels] + 0.9 * normal(seed + 1, len(labels), 6))
        teacher = 0.7 * (centres[labels] + 0.6 * normal(seed + 2, len(labels), 6))
        cases.append(
            Case(f"{people} people, topk {topk}", (student, teacher, labels, *fixed, 0.1, topk))
        )
    return cases


EKD = Exercise(
    "ekd",
    ekd,
    _ekd_cases,
    (
        _weights_exchanged,
        _temperature_multiplied,
        _thresholds_from_genuine_scores,
        _thresholds_of_the_batch,
        _one_set_of_thresholds,
        _thresholds_exchanged,
        _sign_of_the_difference,
        _diagonal_pairs_counted,
        _diagonal_in_the_matrix,
        _every_pair_twice,
        _hardest_by_the_teacher,
        _easiest_impostors,
        _all_impostors,
        _sums_for_means,
        _absolute_difference,
        _ranks_averaged_over_thresholds,
        _every_threshold_by_itself,
        _embeddings_not_normalised,
        _cosines_compared_instead_of_ranks,
        _hard_ranks,
    ),
    gradient=("student",),
    detached=("teacher",),
)


def check_ekd(f: Function) -> Verdict:
    """Check a function for the loss of EKD with given thresholds.

    Args:
        f: f(student (N, D), teacher (N, D'), labels (N,), student_thresholds (L,),
            teacher_thresholds (L,), temperature, topk) -> 0-dim. Every unordered pair has a soft
            rank in each net, the sum of sigmoid((cosine - threshold) / temperature) over that net's
            thresholds. The loss is 0.02 times the mean of (R^S - R^T)^2 over genuine pairs plus
            0.01 times its mean over the `topk` impostor pairs (all, if fewer) with the largest
            student cosine; no gradient to the teacher.
    """
    return judge(EKD, f)
