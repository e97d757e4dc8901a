"""Check of chapter 10: the soft rank."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import instead, times
from ekd_lite.distill import ekd_pairs

OVERFLOW = (
    "Here the similarities lie a hundred temperatures and more from the thresholds. An exp "
    "overflows there: the value of 1 / (1 + exp(-z)) is still right, but its slope is "
    "infinity / infinity. Use (1 + tanh(z / 2)) / 2 or torch.sigmoid, or keep z within -50 .. 50."
)


def _soft_rank(similarity: Tensor, thresholds: Tensor, temperature: float) -> Tensor:
    return ekd_pairs.soft_rank(similarity, thresholds, temperature=temperature)


def _steps(step: Function) -> Function:
    """What a step function of (similarity - threshold) / temperature gives, (P, L)."""
    return lambda similarity, thresholds, temperature: step(
        (similarity[:, None] - thresholds) / temperature
    )


MISTAKES = {
    "temperature multiplied": Mistake(
        "The difference was multiplied by the temperature. Dividing by a small temperature makes "
        "the step steep; multiplying makes every sigmoid one half.",
        instead(_soft_rank, temperature=lambda a: 1 / a.temperature),
    ),
    "temperature left out": Mistake(
        "The temperature was left out. It sets how near a threshold a pair must be to count as "
        "undecided: sigmoid((a - A) / tau).",
        instead(_soft_rank, temperature=lambda a: 1.0),
    ),
    "sign of the difference": Mistake(
        "The sign of the difference is flipped. The rank counts thresholds that the similarity "
        "passes, so it rises with the similarity: a - A, not A - a.",
        instead(_soft_rank, similarity=lambda a: -a.similarity, thresholds=lambda a: -a.thresholds),
    ),
    "hard count": Mistake(
        "This is the hard count of thresholds. It is right for the evaluation, but its gradient is "
        "0 everywhere: replace the step by a sigmoid.",
        _steps(lambda z: (z > 0).double().sum(1)),
    ),
    "mean for sum": Mistake(
        "The sigmoids were averaged. A rank counts thresholds: sum them, for a value between 0 and "
        "L.",
        times(_soft_rank, lambda a: 1 / len(a.thresholds)),
    ),
    "not summed": Mistake(
        "The sum over thresholds is missing. This is (P, L), one sigmoid for each threshold; a "
        "pair has one rank.",
        _steps(torch.sigmoid),
    ),
    "no sigmoid": Mistake(
        "The sigmoid is missing. Without it a pair far above one threshold makes up for missing "
        "all the others.",
        _steps(lambda z: z.sum(1)),
    ),
}


def _cases() -> list[Case]:
    far = torch.tensor([-0.9, 0.0, 0.95]), torch.tensor([-0.5, 0.95]), 0.001
    return [
        Case("by hand", (real([0.5, 0.3]), real([0.3, 0.5]), 0.1)),
        Case("6 thresholds", (0.3 * normal(131, 10), real([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), 0.05)),
        Case("3 thresholds", (0.3 * normal(132, 20), real([-0.1, 0.15, 0.2]), 0.2)),
        Case("far from the thresholds, float32", far, OVERFLOW),
    ]


SOFT_RANK = Exercise("soft_rank", _soft_rank, _cases, MISTAKES, gradient=("similarity",))


def check_soft_rank(f: Function) -> Feedback:
    """Check a function for EKD's soft rank.

    Args:
        f: f(similarity (P,), thresholds (L,), temperature) -> (P,), for each similarity the sum of
            sigmoid((similarity - threshold) / temperature) over all thresholds; finite, gradient
            included, however far the two lie apart.
    """
    return judge(SOFT_RANK, f)
