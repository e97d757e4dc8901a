"""Check of chapter 2: the interval of a difference of two models."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import instead


def _quantiles(samples: Tensor, confidence: float) -> Tensor:
    return samples.quantile(real([(1 - confidence) / 2, (1 + confidence) / 2]))


def _paired_interval(first: Tensor, second: Tensor, confidence: float) -> Tensor:
    return _quantiles(first - second, confidence)


def _own_intervals(first: Tensor, second: Tensor, confidence: float) -> Tensor:
    one, other = _quantiles(first, confidence), _quantiles(second, confidence)
    return torch.stack([one[0] - other[1], one[1] - other[0]])


def _around_the_mean(half: Function) -> Function:
    """The mean difference, plus and minus half(differences)."""
    ends = real([-1.0, 1.0])
    return lambda first, second, confidence: (first - second).mean() + ends * half(first - second)


MISTAKES = {
    "order reversed": Mistake(
        "The first model was subtracted from the second. A positive difference should mean that "
        "the first is better: first - second.",
        lambda first, second, confidence: _paired_interval(second, first, confidence),
    ),
    "ends exchanged": Mistake(
        "The two ends are in the wrong order: the lower one comes first, (low, high).",
        lambda *given: _paired_interval(*given).flip(0),
    ),
    "two intervals subtracted": Mistake(
        "The ends of the two models' own intervals were subtracted. Both models meet the same "
        "people in each resample, so hard draws pull both down together. Take the difference in "
        "each resample first; its interval is much narrower.",
        _own_intervals,
    ),
    "like ends subtracted": Mistake(
        "The lower ends were subtracted from each other, and the upper ends. That is the interval "
        "of no quantity. Take the difference in each resample, then its quantiles.",
        lambda first, second, confidence: (
            _quantiles(first, confidence) - _quantiles(second, confidence)
        ),
    ),
    "standard error of the mean": Mistake(
        "The standard deviation was divided by the root of the number of resamples. That is the "
        "error of the resamples' mean, which shrinks as the computer draws more of them. The "
        "scatter of the resamples themselves is what says how far the measurement can be off.",
        _around_the_mean(lambda gap: 1.96 * gap.std() / len(gap) ** 0.5),
    ),
    "two standard deviations": Mistake(
        "The interval is the mean plus and minus 1.96 standard deviations. That is 95 % of a "
        "normal distribution, whatever `confidence` says. Rates near 1 are skewed: take the "
        "quantiles of the resamples.",
        _around_the_mean(lambda gap: 1.96 * gap.std()),
    ),
    "whole tail on both sides": Mistake(
        "Each tail got the whole of 1 - confidence. Both tails together are to hold that much: "
        "(1 - confidence) / 2 on either side.",
        instead(_paired_interval, confidence=lambda a: 2 * a.confidence - 1),
    ),
    "resamples sorted first": Mistake(
        "The resamples were sorted before subtracting. Number k of one model belongs to number k "
        "of the other, for they saw the same people. Sorting breaks the pairs.",
        instead(
            _paired_interval,
            first=lambda a: a.first.sort().values,
            second=lambda a: a.second.sort().values,
        ),
    ),
}


def _cases() -> list[Case]:
    # At the ends several resamples tie, so that all rules for quantiles give the same.
    first = real([0.9, 0.7, 0.8, 0.6, 0.95, 0.85, 0.8, 0.7])
    second = real([0.8, 0.6, 0.7, 0.4, 0.65, 0.45, 0.4, 0.3])
    cases = [Case("by hand", (first, second, 0.5))]
    for seed, confidence in ((151, 0.95), (152, 0.8)):
        shared = 0.05 * normal(seed, 200)
        first = 0.8 + shared + 0.02 * normal(seed + 5, 200).square()
        second = 0.78 + shared + 0.01 * normal(seed + 9, 200)
        rates = [(50 * tpr).round() / 50 for tpr in (first, second)]  # of 50 genuine pairs
        cases.append(Case(f"200 resamples at {confidence}", (*rates, confidence)))
    return cases


PAIRED_INTERVAL = Exercise("paired_interval", _paired_interval, _cases, MISTAKES)


def check_paired_interval(f: Function) -> Feedback:
    """Check a function for the interval of a difference.

    Args:
        f: f(first (R,), second (R,), confidence) -> (low, high), the quantiles that cut off
            (1 - confidence) / 2 on either side of the R differences first - second; entry k of both
            comes from the same resample of people. Any of the usual rules for quantiles will do.
    """
    return judge(PAIRED_INTERVAL, f)
