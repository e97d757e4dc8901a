"""Check of chapter 10: the thresholds that a batch shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.ops import false_accepts_at


def _pairs(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of all unordered pairs, and which are genuine."""
    unit = F.normalize(embeddings)
    i, j = torch.triu_indices(len(labels), len(labels), offset=1)
    return (unit[i] * unit[j]).sum(1), labels[i] == labels[j]


def _from_the_top(scores: Tensor, fprs: tuple[float, ...], later: int = 0) -> Tensor:
    ordered = scores.sort(descending=True).values
    return torch.stack([ordered[false_accepts_at(fpr, len(scores)) + later] for fpr in fprs])


def impostor_thresholds(embeddings: Tensor, labels: Tensor, fprs: tuple[float, ...]) -> Tensor:
    """The entries of index floor(n fpr) of the impostor cosines, from the largest down."""
    cosines, is_genuine = _pairs(embeddings, labels)
    return _from_the_top(cosines[~is_genuine], fprs)


def _thresholds_from_genuine_scores(
    embeddings: Tensor, labels: Tensor, fprs: tuple[float, ...]
) -> Tensor:
    """The thresholds were taken from the genuine pairs.

    An FPR is a share of impostor pairs: those with different labels.
    """
    cosines, is_genuine = _pairs(embeddings, labels)
    return _from_the_top(cosines[is_genuine], fprs)


def _thresholds_from_all_pairs(
    embeddings: Tensor, labels: Tensor, fprs: tuple[float, ...]
) -> Tensor:
    """The thresholds were taken from all pairs.

    Genuine pairs lie at the top and push the thresholds up; only pairs with different labels count.
    """
    return _from_the_top(_pairs(embeddings, labels)[0], fprs)


def _diagonal_counted(embeddings: Tensor, labels: Tensor, fprs: tuple[float, ...]) -> Tensor:
    """Pairs of an image with itself and genuine pairs are in the pile.

    The whole matrix of cosines was sorted. Take the upper triangle without the diagonal, and of it
    the pairs with different labels.
    """
    unit = F.normalize(embeddings)
    return _from_the_top((unit @ unit.T).flatten(), fprs)


def _one_place_too_high(embeddings: Tensor, labels: Tensor, fprs: tuple[float, ...]) -> Tensor:
    """The threshold lies one place too high.

    With k = floor(n fpr) and strictly greater scores accepted, the threshold is the entry of index
    k, counted from 0: exactly k impostors lie above it.
    """
    cosines, is_genuine = _pairs(embeddings, labels)
    return _from_the_top(cosines[~is_genuine], fprs, -1)


def _lowest_instead_of_highest(
    embeddings: Tensor, labels: Tensor, fprs: tuple[float, ...]
) -> Tensor:
    """The thresholds were counted from the lowest scores.

    False accepts are the impostors with the highest scores: sort from the largest down.
    """
    cosines, is_genuine = _pairs(embeddings, labels)
    return -_from_the_top(-cosines[~is_genuine], fprs)


def _embeddings_not_normalised(
    embeddings: Tensor, labels: Tensor, fprs: tuple[float, ...]
) -> Tensor:
    """The embeddings were not normalised.

    Scores are cosines: divide by the lengths first.
    """
    i, j = torch.triu_indices(len(labels), len(labels), offset=1)
    scores = (embeddings[i] * embeddings[j]).sum(1)
    return _from_the_top(scores[labels[i] != labels[j]], fprs)


def _interpolated_quantiles(embeddings: Tensor, labels: Tensor, fprs: tuple[float, ...]) -> Tensor:
    """The thresholds are interpolated quantiles.

    Count instead: the entry of index k = floor(n fpr) from the top is a score that occurs.
    """
    cosines, is_genuine = _pairs(embeddings, labels)
    return cosines[~is_genuine].quantile(1 - real(fprs))


def _number_of_pairs_of_the_whole_matrix(
    embeddings: Tensor, labels: Tensor, fprs: tuple[float, ...]
) -> Tensor:
    """K was computed from the number of all N^2 entries.

    n is the number of impostor pairs, each unordered pair once.
    """
    cosines, is_genuine = _pairs(embeddings, labels)
    impostor = cosines[~is_genuine].sort(descending=True).values
    ranks = [min(int(fpr * len(labels) ** 2), len(impostor) - 1) for fpr in fprs]
    return impostor[ranks]


def _threshold_cases() -> list[Case]:
    angles = real([0.0, 35.0, 80.0, 100.0, 170.0]).deg2rad()
    circle = torch.stack([angles.cos(), angles.sin()], 1) * real(
        [[1.0], [2.0], [1.0], [3.0], [1.0]]
    )
    labels = torch.tensor([0, 0, 1, 1, 2])
    cases = [Case("by hand", (circle, labels, (0.5, 0.25)))]
    for seed, people in ((121, 6), (122, 9)):
        labels = torch.arange(people).repeat_interleave(3)
        embeddings = normal(seed, people, 5)[labels] + 0.8 * normal(seed + 5, len(labels), 5)
        cases.append(Case(f"{people} people", (embeddings, labels, (0.3, 0.1, 0.03))))
    return cases


IMPOSTOR_THRESHOLDS = Exercise(
    "impostor_thresholds",
    impostor_thresholds,
    _threshold_cases,
    (
        _thresholds_from_genuine_scores,
        _thresholds_from_all_pairs,
        _diagonal_counted,
        _one_place_too_high,
        _lowest_instead_of_highest,
        _embeddings_not_normalised,
        _interpolated_quantiles,
        _number_of_pairs_of_the_whole_matrix,
    ),
)


def check_impostor_thresholds(f: Function) -> Verdict:
    """Check a function for the thresholds of a batch at given FPRs.

    Args:
        f: f(embeddings (N, D), labels (N,), fprs) -> (L,). Of the n impostor pairs' cosines, each
            unordered pair once, sorted from the largest down: the entries of index floor(n fpr),
            counted from 0, for each of the L rates.
    """
    return judge(IMPOSTOR_THRESHOLDS, f)
