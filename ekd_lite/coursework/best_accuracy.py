"""Check of chapter 2: the best accuracy."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.evaluate.roc import roc


def _best_accuracy(scores: Tensor, is_genuine: Tensor) -> float:
    fpr, tpr, _ = roc(scores, is_genuine)
    num_genuine = int(is_genuine.sum())
    right = tpr * num_genuine + (1 - fpr) * (len(scores) - num_genuine)
    return (right.max() / len(scores)).item()


def _share(flags: Tensor) -> float:
    return flags.double().mean().item()


def _threshold_fixed_at_one_half(scores: Tensor, is_genuine: Tensor) -> float:
    """The threshold was fixed at 0.5.

    A cosine is no probability: where the two piles meet depends on the model. Try every score as
    threshold and keep the best.
    """
    return _share((scores >= 0.5) == is_genuine)


def _threshold_fixed_at_zero(scores: Tensor, is_genuine: Tensor) -> float:
    """The threshold was fixed at 0.

    Where the two piles meet depends on the model. Try every score as threshold, keep the best.
    """
    return _share((scores >= 0) == is_genuine)


def _best_threshold_for_accuracy(scores: Tensor, is_genuine: Tensor) -> float:
    """This is the best threshold.

    Return the share of pairs that it decides rightly.
    """
    tries = torch.cat([scores, scores.new_tensor([torch.inf])])
    accuracy = torch.stack([((scores >= t) == is_genuine).double().mean() for t in tries])
    return float(tries[accuracy.argmax()])


def _equal_weight_for_both_kinds(scores: Tensor, is_genuine: Tensor) -> float:
    """Both kinds of pairs were given one half of the weight.

    (TPR + 1 - FPR) / 2 is the accuracy only where there are as many genuine pairs as impostors.
    Count right decisions and divide by all pairs.
    """
    fpr, tpr, _ = roc(scores, is_genuine)
    return ((tpr + 1 - fpr) / 2).max().item()


def _score_equal_to_the_threshold_refused(scores: Tensor, is_genuine: Tensor) -> float:
    """A score equal to the threshold was refused, with thresholds taken from the scores.

    A pair is accepted iff score >= threshold. With > instead, the threshold that accepts every pair
    is never tried.
    """
    return max(_share((scores > t) == is_genuine) for t in scores)


def _refusing_every_pair_left_out(scores: Tensor, is_genuine: Tensor) -> float:
    """The threshold above all scores was left out.

    Each score as threshold always accepts at least one pair. Refusing every pair is a threshold too
    (infinity), and the best one where impostors have the highest scores.
    """
    return max(_share((scores >= t) == is_genuine) for t in scores)


def _accuracy_cases() -> list[Case]:
    scores = real([0.9, 0.8, 0.7, 0.4, 0.2])
    return [
        Case("by hand", (scores, torch.tensor([True, False, True, True, False]))),
        Case("impostors on top", (scores[:3], torch.tensor([False, False, True]))),
        Case("a genuine pair at the bottom", (scores[:3], torch.tensor([False, True, True]))),
        Case(
            "30 genuine, 60 impostor",
            (torch.cat([normal(6, 30) + 1.5, normal(7, 60) - 0.8]), torch.arange(90) < 30),
        ),
    ]


BEST_ACCURACY = Exercise(
    "best_accuracy",
    _best_accuracy,
    _accuracy_cases,
    (
        _threshold_fixed_at_one_half,
        _threshold_fixed_at_zero,
        _best_threshold_for_accuracy,
        _equal_weight_for_both_kinds,
        _score_equal_to_the_threshold_refused,
        _refusing_every_pair_left_out,
    ),
)


def check_best_accuracy(f: Function) -> Verdict:
    """Check a function for the best accuracy of any threshold.

    Args:
        f: f(scores (P,), is_genuine (P,) bool) -> float, the largest share of pairs decided rightly
            by accepting iff score >= threshold, over all thresholds.
    """
    return judge(BEST_ACCURACY, f)
