"""Check of chapter 10: the thresholds that a batch shows."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import cosines, products
from ekd_lite.ops import false_accepts_at


def _from_the_top(scores: Tensor, fprs: tuple[float, ...], later: int = 0) -> Tensor:
    ordered = scores.sort(descending=True).values
    return torch.stack([ordered[false_accepts_at(fpr, len(scores)) + later] for fpr in fprs])


def thresholds_of(
    pick: Function = _from_the_top,
    which: Function = torch.logical_not,
    similarity: Function = cosines,
) -> Function:
    """Thresholds picked from the pairs i < j that `which` takes, by whether they are genuine."""

    def thresholds(embeddings: Tensor, labels: Tensor, fprs: tuple[float, ...]) -> Tensor:
        i, j = torch.triu_indices(len(labels), len(labels), offset=1)
        scores = similarity(embeddings)[i, j]
        picked: Tensor = pick(scores[which(labels[i] == labels[j])], fprs)
        return picked

    return thresholds


def _of_the_whole_matrix(embeddings: Tensor, labels: Tensor, fprs: tuple[float, ...]) -> Tensor:
    def pick(scores: Tensor, fprs: tuple[float, ...]) -> Tensor:
        ranks = [false_accepts_at(fpr, len(labels) ** 2) for fpr in fprs]
        return scores.sort(descending=True).values[torch.tensor(ranks).clamp(max=len(scores) - 1)]

    picked: Tensor = thresholds_of(pick)(embeddings, labels, fprs)
    return picked


thresholds_of_batch = thresholds_of()

MISTAKES = {
    "thresholds from genuine scores": Mistake(
        "The thresholds were taken from the genuine pairs. An FPR is a share of impostor pairs: "
        "those with different labels.",
        thresholds_of(which=lambda is_genuine: is_genuine),
    ),
    "thresholds from all pairs": Mistake(
        "The thresholds were taken from all pairs. Genuine pairs lie at the top and push the "
        "thresholds up; only pairs with different labels count.",
        thresholds_of(which=torch.ones_like),
    ),
    "diagonal counted": Mistake(
        "Pairs of an image with itself and genuine pairs are in the pile. The whole matrix of "
        "cosines was sorted. Take the upper triangle without the diagonal, and of it the pairs "
        "with different labels.",
        lambda embeddings, labels, fprs: _from_the_top(cosines(embeddings).flatten(), fprs),
    ),
    "one place too high": Mistake(
        "The threshold lies one place too high. With k = floor(n fpr) and strictly greater scores "
        "accepted, the threshold is the entry of index k, counted from 0: exactly k impostors lie "
        "above it.",
        thresholds_of(lambda scores, fprs: _from_the_top(scores, fprs, later=-1)),
    ),
    "lowest instead of highest": Mistake(
        "The scores were sorted from the lowest up. False accepts are the impostors with the "
        "highest cosines: sort from the largest down.",
        thresholds_of(lambda scores, fprs: -_from_the_top(-scores, fprs)),
    ),
    "embeddings not normalised": Mistake(
        "The embeddings were not normalised. Scores are cosines: divide by the lengths first.",
        thresholds_of(similarity=products),
    ),
    "interpolated quantiles": Mistake(
        "The thresholds are interpolated quantiles. Count instead: the entry of index "
        "k = floor(n fpr) from the top is a score that occurs.",
        thresholds_of(lambda scores, fprs: scores.quantile(1 - real(fprs))),
    ),
    "number of pairs of the whole matrix": Mistake(
        "K was computed from the number of all N^2 entries. n is the number of impostor pairs, "
        "each unordered pair once.",
        _of_the_whole_matrix,
    ),
}


def _cases() -> list[Case]:
    angles = real([0.0, 35.0, 80.0, 100.0, 170.0]).deg2rad()
    circle = torch.stack([angles.cos(), angles.sin()], 1) * real([1.0, 2.0, 1.0, 3.0, 1.0])[:, None]
    cases = [Case("by hand", (circle, torch.tensor([0, 0, 1, 1, 2]), (0.5, 0.25)))]
    for seed, people in ((121, 6), (122, 9)):
        labels = torch.arange(people).repeat_interleave(3)
        embeddings = normal(seed, people, 5)[labels] + 0.8 * normal(seed + 5, len(labels), 5)
        cases.append(Case(f"{people} people", (embeddings, labels, (0.3, 0.1, 0.03))))
    return cases


IMPOSTOR_THRESHOLDS = Exercise("impostor_thresholds", thresholds_of_batch, _cases, MISTAKES)


def check_impostor_thresholds(f: Function) -> Feedback:
    """Check a function for the thresholds of a batch at given FPRs.

    Args:
        f: f(embeddings (N, D), labels (N,), fprs) -> (L,). Of the n impostor pairs' cosines, each
            unordered pair once, sorted from the largest down: the entries of index floor(n fpr),
            counted from 0, for each of the L rates.
    """
    return judge(IMPOSTOR_THRESHOLDS, f)
