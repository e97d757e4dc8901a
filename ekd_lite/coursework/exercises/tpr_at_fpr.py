"""Check of chapter 2: the TPR at an FPR."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import instead
from ekd_lite.evaluate.roc import tpr_at_fpr
from ekd_lite.ops import false_accepts_at

NONE_REFUSED = (
    "Here every impostor may pass, so every genuine pair is accepted: there is no impostor that "
    "must be refused, and the TPR is 1."
)


def _tpr_at_fpr(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    return tpr_at_fpr(scores, is_genuine, [fpr]).item()


def _share(flags: Tensor) -> float:
    return flags.double().mean().item()


def _cut(pile: Tensor, fpr: float, later: int = 0) -> Tensor:
    """The first score of a pile that is refused."""
    return pile.sort(descending=True).values[false_accepts_at(fpr, len(pile)) + later]


def _of(result: Function) -> Function:
    """A function of the genuine scores, the impostor scores and the FPR."""
    return lambda scores, flags, fpr: result(scores[flags], scores[~flags], fpr)


MISTAKES = {
    "threshold from genuine scores": Mistake(
        "The threshold was taken from the genuine scores. An FPR is a share of the impostor pairs: "
        "sort the impostor scores, count down floor(n fpr) of them, and only then look at the "
        "genuine ones.",
        _of(lambda genuine, impostor, fpr: _share(genuine > _cut(genuine, fpr))),
    ),
    "threshold from all scores": Mistake(
        "The threshold was taken from all scores together. The FPR is a share of the impostor "
        "pairs alone; with genuine scores in the pile the threshold comes out too high and the TPR "
        "too low.",
        lambda scores, flags, fpr: _share(scores[flags] > _cut(scores, fpr)),
    ),
    "threshold accepts one impostor more": Mistake(
        "One impostor too many passes: the threshold lies at the (k+1)-th largest impostor score. "
        "With k = floor(n fpr), accepting scores >= that one lets k + 1 impostors through (more, "
        "if there are ties). Accept genuine scores strictly above it.",
        _of(lambda genuine, impostor, fpr: _share(genuine >= _cut(impostor, fpr))),
    ),
    "threshold above the kth impostor": Mistake(
        "One impostor too few passes: only genuine scores above the k-th impostor were accepted. "
        "The k-th largest impostor may pass too, k = floor(n fpr). Counting from 0, the first that "
        "must not pass has index k, not k - 1: that one is the bound.",
        _of(lambda genuine, impostor, fpr: _share(genuine > _cut(impostor, fpr, later=-1))),
    ),
    "scores read as distances": Mistake(
        "The scores were read as distances. Here a larger score means more alike, so a pair is "
        "accepted at or above the threshold; small values are accepted only where the number is a "
        "distance.",
        instead(_tpr_at_fpr, scores=lambda a: -a.scores),
    ),
    "miss rate": Mistake(
        "This is 1 - TPR, the share of genuine pairs that are refused (FNMR). The TPR is the share "
        "that is accepted.",
        lambda *given: 1 - _tpr_at_fpr(*given),
    ),
    "percent for a share": Mistake(
        "The value is in percent. The TPR is a share between 0 and 1; multiply by 100 only where "
        "it is printed.",
        lambda *given: 100 * _tpr_at_fpr(*given),
    ),
    "threshold instead of rate": Mistake(
        "This is the threshold, the largest impostor score that is refused. It is the right place "
        "to cut; return the share of genuine scores above it.",
        _of(lambda genuine, impostor, fpr: _cut(impostor, fpr)),
    ),
    "interpolated threshold": Mistake(
        "The threshold is an interpolated quantile of the impostor scores. A quantile between two "
        "scores, as torch.quantile and np.quantile give it, stands for no share of pairs that "
        "exists, and accepts impostors beyond the level. Count: k = floor(n fpr) may pass.",
        _of(lambda genuine, impostor, fpr: _share(genuine >= impostor.quantile(1 - fpr))),
    ),
    "number of false accepts rounded": Mistake(
        "The number of impostors that may pass was rounded to the nearest whole number. An FPR not "
        "above the level allows floor(n fpr) of them; rounding up exceeds the level.",
        _of(
            lambda genuine, impostor, fpr: _share(
                genuine > impostor.sort(descending=True).values[round(fpr * len(impostor))]
            )
        ),
    ),
    "precision for recall": Mistake(
        "This is the precision, the share of accepted pairs that are genuine. The TPR divides by "
        "the number of genuine pairs, not by that of accepted pairs; unlike the precision it does "
        "not depend on how many pairs of each kind the test holds.",
        lambda scores, flags, fpr: _share(flags[scores > _cut(scores[~flags], fpr)]),
    ),
}


def _cases() -> list[Case]:
    by_hand = real([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    flags = torch.tensor([True, False, True, True, False, False, False])
    ties = real([0.9, 0.9, 0.7, 0.7, 0.7, 0.5, 0.3, 0.3, 0.1])
    tied = torch.tensor([True, False, True, False, True, True, False, True, False])
    # 2.8 of 7 impostors: floor and rounding differ.
    uneven = torch.cat([normal(1, 40) + 0.5, normal(2, 7)])
    many = torch.cat([normal(3, 80) + 1.5, normal(4, 400)])
    order = torch.randperm(480, generator=torch.Generator().manual_seed(5))
    return [
        Case("by hand", (by_hand, flags, 0.25)),
        Case("equal scores", (ties, tied, 0.5)),
        Case("7 impostors at 0.4", (uneven, torch.arange(47) < 40, 0.4)),
        Case("400 impostors at 0.125", (many[order], order < 80, 0.125)),
        Case("400 impostors at 0.01", (many[order], order < 80, 0.01)),
        Case("every impostor may pass", (by_hand, flags, 1.0), NONE_REFUSED),
    ]


TPR_AT_FPR = Exercise("tpr_at_fpr", _tpr_at_fpr, _cases, MISTAKES)


def check_tpr_at_fpr(f: Function) -> Feedback:
    """Check a function for the TPR at an FPR.

    Args:
        f: f(scores (P,), is_genuine (P,) bool, fpr) -> float, the largest TPR of any threshold
            whose FPR does not exceed `fpr`; a pair is accepted iff score >= threshold.
    """
    return judge(TPR_AT_FPR, f)
