"""Check of chapter 2: the interval of a difference of two models."""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict


def _quantiles(samples: Tensor, confidence: float) -> Tensor:
    tails = real([(1 - confidence) / 2, (1 + confidence) / 2])
    return samples.quantile(tails)


def _paired_interval(first: Tensor, second: Tensor, confidence: float) -> Tensor:
    return _quantiles(first - second, confidence)


def _order_reversed(first: Tensor, second: Tensor, confidence: float) -> Tensor:
    """The first model was subtracted from the second.

    A positive difference should mean that the first is better: first - second.
    """
    return _quantiles(second - first, confidence)


def _two_intervals_subtracted(first: Tensor, second: Tensor, confidence: float) -> Tensor:
    """The ends of the two models' own intervals were subtracted.

    Both models meet the same people in each resample, so hard draws pull both down together. Take
    the difference in each resample first; its interval is much narrower.
    """
    one, other = _quantiles(first, confidence), _quantiles(second, confidence)
    return torch.stack([one[0] - other[1], one[1] - other[0]])


def _like_ends_subtracted(first: Tensor, second: Tensor, confidence: float) -> Tensor:
    """The lower ends were subtracted from each other, and the upper ends.

    That is the interval of no quantity. Take the difference in each resample, then its quantiles.
    """
    return _quantiles(first, confidence) - _quantiles(second, confidence)


def _standard_error_of_the_mean(first: Tensor, second: Tensor, confidence: float) -> Tensor:
    """The standard deviation was divided by the root of the number of resamples.

    That is the error of the resamples' mean, which shrinks as the computer draws more of them. The
    scatter of the resamples themselves is what says how far the measurement can be off.
    """
    gap = first - second
    half = 1.96 * gap.std() / len(gap) ** 0.5
    return torch.stack([gap.mean() - half, gap.mean() + half])


def _two_standard_deviations(first: Tensor, second: Tensor, confidence: float) -> Tensor:
    """The interval is the mean plus and minus 1.96 standard deviations.

    That is 95 % of a normal distribution, whatever `confidence` says. Rates near 1 are skewed: take
    the quantiles of the resamples.
    """
    gap = first - second
    half = 1.96 * gap.std()
    return torch.stack([gap.mean() - half, gap.mean() + half])


def _whole_tail_on_both_sides(first: Tensor, second: Tensor, confidence: float) -> Tensor:
    """Each tail got the whole of 1 - confidence.

    Both tails together are to hold that much: (1 - confidence) / 2 on either side.
    """
    return (first - second).quantile(real([1 - confidence, confidence]))


def _resamples_sorted_first(first: Tensor, second: Tensor, confidence: float) -> Tensor:
    """The resamples were sorted before subtracting.

    Number k of one model belongs to number k of the other, for they saw the same people. Sorting
    breaks the pairs.
    """
    return _quantiles(first.sort().values - second.sort().values, confidence)


def _interval_cases() -> list[Case]:
    by_hand = real([0.9, 0.7, 0.8, 0.6, 0.95]), real([0.6, 0.65, 0.7, 0.55, 0.7])
    cases = [Case("by hand", (*by_hand, 0.5))]
    for seed, confidence in ((151, 0.95), (152, 0.8)):
        shared = 0.05 * normal(seed, 200)
        first = 0.8 + shared + 0.02 * normal(seed + 5, 200).square()
        second = 0.78 + shared + 0.01 * normal(seed + 9, 200)
        cases.append(Case(f"200 resamples at {confidence}", (first, second, confidence)))
    return cases


PAIRED_INTERVAL = Exercise(
    "paired_interval",
    _paired_interval,
    _interval_cases,
    (
        _order_reversed,
        _two_intervals_subtracted,
        _like_ends_subtracted,
        _standard_error_of_the_mean,
        _two_standard_deviations,
        _whole_tail_on_both_sides,
        _resamples_sorted_first,
    ),
)


def check_paired_interval(f: Function) -> Verdict:
    """Check a function for the interval of a difference.

    Args:
        f: f(first (R,), second (R,), confidence) -> (low, high), the quantiles that cut off
            (1 - confidence) / 2 on either side of the R differences first - second; entry k of both
            comes from the same resample of people. Quantiles are interpolated, as torch does.
    """
    return judge(PAIRED_INTERVAL, f)
