"""Check of chapter 10: the soft rank."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.distill import ekd_pairs


def _soft_rank(similarity: Tensor, thresholds: Tensor, temperature: float) -> Tensor:
    return ekd_pairs.soft_rank(similarity, thresholds, temperature=temperature)


def _temperature_multiplied(similarity: Tensor, thresholds: Tensor, temperature: float) -> Tensor:
    """The difference was multiplied by the temperature.

    Dividing by a small temperature makes the step steep; multiplying makes every sigmoid one half.
    """
    return _soft_rank(similarity, thresholds, 1 / temperature)


def _temperature_left_out(similarity: Tensor, thresholds: Tensor, temperature: float) -> Tensor:
    """The temperature was left out.

    It sets how near a threshold a pair must be to count as undecided: sigmoid((a - A) / tau).
    """
    return _soft_rank(similarity, thresholds, 1.0)


def _sign_of_the_difference(similarity: Tensor, thresholds: Tensor, temperature: float) -> Tensor:
    """The sign of the difference is flipped.

    The rank counts thresholds that the similarity passes, so it rises with the similarity: a - A,
    not A - a.
    """
    return _soft_rank(-similarity, -thresholds, temperature)


def _hard_count(similarity: Tensor, thresholds: Tensor, temperature: float) -> Tensor:
    """This is the hard count of thresholds.

    It is right for the evaluation, but its gradient is 0 everywhere: replace the step by a sigmoid.
    """
    return (similarity[:, None] > thresholds).double().sum(1)


def _mean_for_sum(similarity: Tensor, thresholds: Tensor, temperature: float) -> Tensor:
    """The sigmoids were averaged.

    A rank counts thresholds: sum them, for a value between 0 and L.
    """
    return _soft_rank(similarity, thresholds, temperature) / len(thresholds)


def _not_summed(similarity: Tensor, thresholds: Tensor, temperature: float) -> Tensor:
    """The sum over thresholds is missing.

    This is (P, L), one sigmoid for each threshold; a pair has one rank.
    """
    return torch.sigmoid((similarity[:, None] - thresholds) / temperature)


def _no_sigmoid(similarity: Tensor, thresholds: Tensor, temperature: float) -> Tensor:
    """The sigmoid is missing.

    Without it a pair far above one threshold makes up for missing all the others.
    """
    return ((similarity[:, None] - thresholds) / temperature).sum(1)


def _rank_cases() -> list[Case]:
    return [
        Case("by hand", (real([0.5, 0.3]), real([0.3, 0.5]), 0.1)),
        Case("6 thresholds", (0.3 * normal(131, 10), real([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), 0.05)),
        Case("3 thresholds", (0.3 * normal(132, 20), real([-0.1, 0.15, 0.2]), 0.2)),
    ]


SOFT_RANK = Exercise(
    "soft_rank",
    _soft_rank,
    _rank_cases,
    (
        _temperature_multiplied,
        _temperature_left_out,
        _sign_of_the_difference,
        _hard_count,
        _mean_for_sum,
        _not_summed,
        _no_sigmoid,
    ),
    gradient=("similarity",),
)


def check_soft_rank(f: Function) -> Verdict:
    """Check a function for EKD's soft rank.

    Args:
        f: f(similarity (P,), thresholds (L,), temperature) -> (P,), for each similarity the sum of
            sigmoid((similarity - threshold) / temperature) over all thresholds.
    """
    return judge(SOFT_RANK, f)
