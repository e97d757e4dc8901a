"""Check of chapter 2: the TPR at an FPR."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.evaluate.roc import tpr_at_fpr
from ekd_lite.ops import false_accepts_at


def _tpr_at_fpr(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    return tpr_at_fpr(scores, is_genuine, [fpr]).item()


def _threshold_from_genuine_scores(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    """The threshold was taken from the genuine scores.

    An FPR is a share of the impostor pairs: sort the impostor scores, count down floor(n fpr) of
    them, and only then look at the genuine ones.
    """
    genuine = scores[is_genuine].sort(descending=True).values
    return _share(genuine > genuine[false_accepts_at(fpr, len(genuine))])


def _threshold_from_all_scores(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    """The threshold was taken from all scores together.

    The FPR is a share of the impostor pairs alone; with genuine scores in the pile the threshold
    comes out too high and the TPR too low.
    """
    pile = scores.sort(descending=True).values
    return _share(scores[is_genuine] > pile[false_accepts_at(fpr, len(pile))])


def _threshold_accepts_one_impostor_more(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    """One impostor too many passes: the threshold lies at the (k+1)-th largest impostor score.

    With k = floor(n fpr), accepting scores >= that one lets k + 1 impostors through (more, if there
    are ties). Accept genuine scores strictly above it.
    """
    impostor = scores[~is_genuine].sort(descending=True).values
    return _share(scores[is_genuine] >= impostor[false_accepts_at(fpr, len(impostor))])


def _threshold_above_the_kth_impostor(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    """One impostor too few passes: only genuine scores above the k-th impostor were accepted.

    The k-th largest impostor may pass too, k = floor(n fpr). Counting from 0, the first that must
    not pass has index k, not k - 1: that one is the bound.
    """
    impostor = scores[~is_genuine].sort(descending=True).values
    return _share(scores[is_genuine] > impostor[false_accepts_at(fpr, len(impostor)) - 1])


def _scores_read_as_distances(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    """The scores were read as distances.

    Here a larger score means more alike, so a pair is accepted at or above the threshold; small
    values are accepted only where the number is a distance.
    """
    return _tpr_at_fpr(-scores, is_genuine, fpr)


def _miss_rate(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    """This is 1 - TPR, the share of genuine pairs that are refused (FNMR).

    The TPR is the share that is accepted.
    """
    return 1 - _tpr_at_fpr(scores, is_genuine, fpr)


def _percent_for_a_share(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    """The value is in percent.

    The TPR is a share between 0 and 1; multiply by 100 only where it is printed.
    """
    return 100 * _tpr_at_fpr(scores, is_genuine, fpr)


def _threshold_instead_of_rate(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    """This is the threshold, the largest impostor score that is refused.

    It is the right place to cut; return the share of genuine scores above it.
    """
    impostor = scores[~is_genuine].sort(descending=True).values
    return float(impostor[false_accepts_at(fpr, len(impostor))])


def _interpolated_threshold(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    """The threshold is an interpolated quantile of the impostor scores.

    A quantile between two scores, as torch.quantile and np.quantile give it, stands for no share of
    pairs that exists, and accepts impostors beyond the level. Count: k = floor(n fpr) may pass.
    """
    return _share(scores[is_genuine] >= scores[~is_genuine].quantile(1 - fpr))


def _number_of_false_accepts_rounded(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    """The number of impostors that may pass was rounded to the nearest whole number.

    An FPR not above the level allows floor(n fpr) of them; rounding up exceeds the level.
    """
    impostor = scores[~is_genuine].sort(descending=True).values
    return _share(scores[is_genuine] > impostor[round(fpr * len(impostor))])


def _precision_for_recall(scores: Tensor, is_genuine: Tensor, fpr: float) -> float:
    """This is the precision, the share of accepted pairs that are genuine.

    The TPR divides by the number of genuine pairs, not by that of accepted pairs; unlike the
    precision it does not depend on how many pairs of each kind the test holds.
    """
    impostor = scores[~is_genuine].sort(descending=True).values
    accepted = scores > impostor[false_accepts_at(fpr, len(impostor))]
    return _share(is_genuine[accepted])


def _share(flags: Tensor) -> float:
    return flags.double().mean().item()


def _score_cases() -> list[Case]:
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
    ]


TPR_AT_FPR = Exercise(
    "tpr_at_fpr",
    _tpr_at_fpr,
    _score_cases,
    (
        _threshold_from_genuine_scores,
        _threshold_from_all_scores,
        _threshold_accepts_one_impostor_more,
        _threshold_above_the_kth_impostor,
        _scores_read_as_distances,
        _miss_rate,
        _percent_for_a_share,
        _threshold_instead_of_rate,
        _interpolated_threshold,
        _number_of_false_accepts_rounded,
        _precision_for_recall,
    ),
)


def check_tpr_at_fpr(f: Function) -> Verdict:
    """Check a function for the TPR at an FPR.

    Args:
        f: f(scores (P,), is_genuine (P,) bool, fpr) -> float, the largest TPR of any threshold
            whose FPR does not exceed `fpr`; a pair is accepted iff score >= threshold.
    """
    return judge(TPR_AT_FPR, f)
