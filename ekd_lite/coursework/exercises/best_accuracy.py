"""Check of chapter 2: the best accuracy."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.evaluate.roc import roc


def _best_accuracy(scores: Tensor, is_genuine: Tensor) -> float:
    fpr, tpr, _ = roc(scores, is_genuine)
    num_genuine = int(is_genuine.sum())
    right = tpr * num_genuine + (1 - fpr) * (len(scores) - num_genuine)
    return (right.max() / len(scores)).item()


def _share(flags: Tensor) -> float:
    return flags.double().mean().item()


def _best_threshold(scores: Tensor, is_genuine: Tensor) -> float:
    tries: list[float] = [*scores.tolist(), float("inf")]
    return max(tries, key=lambda t: _share((scores >= t) == is_genuine))


def _balanced(scores: Tensor, is_genuine: Tensor) -> float:
    fpr, tpr, _ = roc(scores, is_genuine)
    return ((tpr + 1 - fpr) / 2).max().item()


MISTAKES = {
    "threshold fixed at one half": Mistake(
        "The threshold was fixed at 0.5. A cosine is no probability: where the two piles meet "
        "depends on the model. Try every score as threshold and keep the best.",
        lambda scores, flags: _share((scores >= 0.5) == flags),
    ),
    "threshold fixed at zero": Mistake(
        "The threshold was fixed at 0. Where the two piles meet depends on the model. Try every "
        "score as threshold, keep the best.",
        lambda scores, flags: _share((scores >= 0) == flags),
    ),
    "best threshold for accuracy": Mistake(
        "This is the best threshold. Return the share of pairs that it decides rightly.",
        _best_threshold,
    ),
    "equal weight for both kinds": Mistake(
        "Both kinds of pairs were given one half of the weight. (TPR + 1 - FPR) / 2 is the "
        "accuracy only where there are as many genuine pairs as impostors. Count right decisions "
        "and divide by all pairs.",
        _balanced,
    ),
    "score equal to the threshold refused": Mistake(
        "A score equal to the threshold was refused, with thresholds taken from the scores. A pair "
        "is accepted iff score >= threshold. With > instead, the threshold that accepts every pair "
        "is never tried.",
        lambda scores, flags: max(_share((scores > t) == flags) for t in scores),
    ),
    "refusing every pair left out": Mistake(
        "The threshold above all scores was left out. Each score as threshold always accepts at "
        "least one pair. Refusing every pair is a threshold too (infinity), and the best one where "
        "impostors have the highest scores.",
        lambda scores, flags: max(_share((scores >= t) == flags) for t in scores),
    ),
}


def _cases() -> list[Case]:
    scores = real([0.9, 0.8, 0.7, 0.4, 0.2])
    piles = torch.cat([normal(6, 30) + 1.5, normal(7, 60) - 0.8])
    return [
        Case("by hand", (scores, torch.tensor([True, False, True, True, False]))),
        Case("impostors on top", (scores[:3], torch.tensor([False, False, True]))),
        Case("a genuine pair at the bottom", (scores[:3], torch.tensor([False, True, True]))),
        Case("30 genuine, 60 impostor", (piles, torch.arange(90) < 30)),
    ]


BEST_ACCURACY = Exercise("best_accuracy", _best_accuracy, _cases, MISTAKES)


def check_best_accuracy(f: Function) -> Feedback:
    """Check a function for the best accuracy of any threshold.

    Args:
        f: f(scores (P,), is_genuine (P,) bool) -> float, the largest share of pairs decided rightly
            by accepting iff score >= threshold, over all thresholds.
    """
    return judge(BEST_ACCURACY, f)
