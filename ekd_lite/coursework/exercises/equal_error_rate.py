"""Check of chapter 2: the equal error rate."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.evaluate.roc import roc


def _closest(result: Function) -> Function:
    """A result (fpr, fnr, threshold) -> number at the point where the two rates are closest."""

    def rate(scores: Tensor, is_genuine: Tensor) -> float:
        fpr, tpr, thresholds = roc(scores, is_genuine)
        best = int((fpr - (1 - tpr)).abs().argmin())
        return float(result(fpr[best], 1 - tpr[best], thresholds[best]))

    return rate


_equal_error_rate = _closest(lambda fpr, fnr, threshold: (fpr + fnr) / 2)


def _smallest_mean(scores: Tensor, is_genuine: Tensor) -> float:
    fpr, tpr, _ = roc(scores, is_genuine)
    return float(((fpr + 1 - tpr) / 2).min())


def _of_accuracy(scores: Tensor, is_genuine: Tensor) -> float:
    return min(float(((scores >= t) != is_genuine).double().mean()) for t in scores)


def _ungrouped(scores: Tensor, is_genuine: Tensor) -> float:
    flags = is_genuine[scores.argsort(descending=True, stable=True)].double()
    fnr = 1 - flags.cumsum(0) / flags.sum()
    fpr = (1 - flags).cumsum(0) / (1 - flags).sum()
    best = int((fpr - fnr).abs().argmin())
    return (fpr + fnr)[best].item() / 2


MISTAKES = {
    "threshold for rate": Mistake(
        "This is the threshold at that point. Return the rate: the mean of FPR and 1 - TPR there.",
        _closest(lambda fpr, fnr, threshold: threshold),
    ),
    "right decisions for wrong ones": Mistake(
        "This is one minus the equal error rate, the share of right decisions. Return that of "
        "wrong ones.",
        lambda *given: 1 - _equal_error_rate(*given),
    ),
    "percent for a share": Mistake(
        "The value is in percent. Return a share between 0 and 1.",
        lambda *given: 100 * _equal_error_rate(*given),
    ),
    "FPR alone": Mistake(
        "This is the FPR at that point. The curve is a staircase, on which FPR and 1 - TPR are "
        "seldom equal: return their mean.",
        _closest(lambda fpr, fnr, threshold: fpr),
    ),
    "miss rate alone": Mistake(
        "This is 1 - TPR at that point. The curve is a staircase, on which FPR and 1 - TPR are "
        "seldom equal: return their mean.",
        _closest(lambda fpr, fnr, threshold: fnr),
    ),
    "sum for mean": Mistake(
        "FPR and 1 - TPR were added. Return their mean.",
        _closest(lambda fpr, fnr, threshold: fpr + fnr),
    ),
    "smallest mean of the two": Mistake(
        "This is the smallest mean of FPR and 1 - TPR on the whole curve. Find the point where "
        "the two are *closest*, and take the mean there.",
        _smallest_mean,
    ),
    "smallest share of wrong decisions": Mistake(
        "This is the smallest share of wrong decisions, 1 minus the best accuracy. It depends on "
        "how many pairs of each kind there are; the equal error rate does not.",
        _of_accuracy,
    ),
    "equal scores one by one": Mistake(
        "Pairs with the same score were accepted one after the other. No threshold does that: "
        "equal scores pass together or not at all.",
        _ungrouped,
    ),
}


def _cases() -> list[Case]:
    scores = real([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    flags = torch.tensor([True, False, True, True, False, False, False])
    ties = real([0.9, 0.8, 0.5, 0.5, 0.5, 0.5, 0.3, 0.2, 0.1])
    tied = torch.tensor([True, True, False, True, False, False, False, False, False])
    cases = [Case("by hand", (scores, flags)), Case("equal scores", (ties, tied))]
    for seed, genuine, impostor in ((171, 30, 71), (173, 80, 400)):
        piles = torch.cat([normal(seed, genuine) + 1.5, 0.6 * normal(seed + 1, impostor)])
        count = len(piles)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        arguments = piles[order], order < genuine
        cases.append(Case(f"{genuine} genuine, {impostor} impostor", arguments))
    return cases


EQUAL_ERROR_RATE = Exercise("equal_error_rate", _equal_error_rate, _cases, MISTAKES)


def check_equal_error_rate(f: Function) -> Feedback:
    """Check a function for the equal error rate.

    Args:
        f: f(scores (P,), is_genuine (P,) bool) -> float, the mean of FPR and 1 - TPR at the
            threshold where the two are closest; a pair is accepted iff score >= threshold.
    """
    return judge(EQUAL_ERROR_RATE, f)
