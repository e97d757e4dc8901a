r"""Differences of methods: intervals over people, teachers and seeds, and several claims at once.

A method is trained several times, x_u its TPR with run u, and tested on one set of people. Three
things could have come out otherwise: who is tested, which seeds were drawn, which teacher taught.
A *draw* r of all three is

    x(r) = mean_u x_u(people r) + sqrt((U-1) / chi_r) sum_u z_ru (x_u - mean x) / sqrt(U (U-1)),

where people r is a resample of people, the same for all runs (pair (i, j) counts w_i w_j times, the
threshold is found anew; `bootstrap_tpr_at_fpr` has made it), z_ru are standard normal and chi_r has
a chi-squared distribution with U - 1 degrees of freedom. The units u are runs, or with several
teachers the means over each teacher's runs, in which the seeds are contained.

The second term has the variance s^2 / U of a mean of U runs, and the tails of Student's t with
U - 1 degrees of freedom. To draw runs with replacement instead, as one draws people, has neither:
with U = 3 its variance is a third too small and it knows ten different draws. Of 1,000 simulated
studies where runs matter more than people, the 95 % intervals made here held a true difference of
two methods in 95 %; with draws with replacement in 84 % (three seeds), 90 % (five seeds) and 86 %
(three teachers of five seeds). tests/evaluate/test_difference_simulations.py counts them.
What runs and people do together is counted once too often, in the first and in the second term, so
that intervals are a little too wide sooner than too narrow.

z and chi do not depend on the data: methods whose runs are in one order (the same teacher and seed)
get the same draws, so that differences are paired in all three, and the best of several rivals may
be taken inside each draw (`best_of`). What was drawn stands in `BootstrapResult.runs`, and results
of other runs, teachers, seeds of the draws or numbers of them are refused.

A draw of people can be combined with several of the runs (`repeats`): one of each leaves a p-value
to the luck of z and chi.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.bootstrap import BootstrapResult
from ekd_lite.evaluate.inputs import Array, as_tensor, check_confidence, check_seed
from ekd_lite.evaluate.pairing import check_paired, checked_results, teacher_names
from ekd_lite.ops import are_numbers, generator_for

MAX_DRAWS = 1 << 24  # of one level; torch's quantile takes no more


def paired_difference(
    first: BootstrapResult | Sequence[BootstrapResult],
    second: BootstrapResult | Sequence[BootstrapResult],
    *,
    runs: Array | None = None,
    confidence: float = 0.95,
    repeats: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """How much higher the first model's TPR is, with an interval from the same resamples.

    Args:
        first: result of one model; with `runs`, of all runs of one method.
        second: result of another, made with the same labels, levels, seed and number of resamples;
            with `runs`, of the other method's runs, in the same order of teachers and seeds.
        runs: who taught each run, such as [0, 0, 0, 1, 1, 1]: the interval then covers seeds and
            teachers beside people (`over_runs`). Left out, it covers what the results cover.
        confidence: share of resamples inside the interval.
        repeats: with `runs`, as in `over_runs`.

    Returns:
        difference, low, high, each (L,). An interval that excludes 0 says that one model is
        better on identities such as these.

    Raises:
        ValueError: results that are not paired, or other numbers of runs.
    """
    if runs is not None:
        names = teacher_names("runs", runs)
        first, second = (_listed(results, len(names)) for results in (first, second))
        options: dict[str, Any] = {"teachers": names, "repeats": repeats}
        first, second = (over_runs(results, **options) for results in (first, second))
    if not isinstance(first, BootstrapResult) or not isinstance(second, BootstrapResult):
        raise ValueError("several results a side are runs: say who taught each, runs=[0, 0, ...]")
    check_paired([first, second])
    low, high = _ends(first.samples - second.samples, confidence)
    return first.estimate - second.estimate, low, high


def over_runs(
    results: Sequence[BootstrapResult],
    *,
    teachers: Array | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    repeats: int = 1,
) -> BootstrapResult:
    """The mean TPR of a method over its runs, with draws of teachers, seeds and people.

    Args:
        results: one a run, of the same people, levels and resamples.
        teachers: who taught each run, a name or number; left out, all had one teacher, and the
            interval is about that one.
        confidence: share of draws inside the interval.
        seed: of the draws of runs; methods that are compared need the same one.
        repeats: n, how many independent draws of the runs are combined with each of the R draws of
            people. With one, a p-value near 0.05 of 1,000 draws moves by 0.02 and more from seed to
            seed; its spread falls as 1 / sqrt(n). Methods that are compared need the same number.

    Returns:
        A `BootstrapResult` with samples (n R, L), to be compared by `paired_difference` with that
        of another method whose runs were given in the same order.

    Raises:
        ValueError: fewer than two runs; teachers that are no list of names, one a run; results that
            are not of the same people and resamples.

    Example:
        >>> rows, labels = torch.randn(60, 8), torch.arange(60) // 4
        >>> runs = [bootstrap_tpr_at_fpr(rows + torch.randn(60, 8), labels, [0.1],
        ...                              num_resamples=50) for _ in range(3)]
        >>> over_runs(runs).samples.shape
        torch.Size([50, 1])
    """
    results = checked_results(results)
    check_seed(seed)
    if len(results) < 2:
        raise ValueError(
            f"{len(results)} run(s) say nothing about how runs differ: give two or more, or "
            "compare the results themselves, whose intervals cover people alone"
        )
    check_paired(results)
    if covered := next((result.runs for result in results if result.runs), ""):
        raise ValueError(f"a result is a mean over runs already: of {covered}")
    names = [0] * len(results)
    if teachers is not None:
        names = teacher_names("teachers", teachers)
    if len(names) != len(results):
        raise ValueError(f"expected a teacher for each of {len(results)} runs, got {len(names)}")
    _check_repeats(repeats, len(results[0].samples))
    estimates = torch.stack([result.estimate for result in results])
    samples = torch.stack([result.samples for result in results])
    taught = dict.fromkeys(names)
    if len(taught) > 1:  # every teacher weighs the same, however many seeds it has
        by_teacher = [[u for u, name in enumerate(names) if name == who] for who in taught]
        estimates = torch.stack([estimates[rows].mean(0) for rows in by_teacher])
        samples = torch.stack([samples[rows].mean(0) for rows in by_teacher])
    estimate = estimates.mean(0)
    count, num_draws = len(estimates), repeats * samples.shape[1]
    generator = generator_for(seed, 7, count)
    z = generator.standard_normal((num_draws, count))
    wide = np.sqrt((count - 1) / generator.chisquare(count - 1, (num_draws, 1)))
    weights = torch.from_numpy(z * wide / np.sqrt(count * (count - 1)))
    draws = samples.mean(0).repeat(repeats, 1) + weights @ (estimates - estimate)
    by_whom = "one teacher" if teachers is None else f"the teachers {', '.join(map(str, names))}"
    runs = f"{len(results)} runs of {by_whom} (seed={seed}, repeats={repeats})"
    return _result(results, estimate, draws, confidence, runs)


def best_of(rivals: Sequence[BootstrapResult], *, confidence: float = 0.95) -> BootstrapResult:
    """The best of several methods, chosen anew in every draw and at every level.

    Whoever compares with the one that came out best compares with a lucky one as well; in a draw
    another may be the best. The mean of a maximum is above the maximum of the means: a method that
    beats `best_of` its rivals beats each of them.

    Args:
        rivals: what `over_runs` or `bootstrap_tpr_at_fpr` returned for each, with the same draws.
        confidence: share of draws inside the interval.

    Raises:
        ValueError: no rival, or results that do not share their draws.
    """
    rivals = checked_results(rivals)
    if not rivals:
        raise ValueError("there is no rival")
    check_paired(rivals)
    estimate = torch.stack([rival.estimate for rival in rivals]).amax(0)
    samples = torch.stack([rival.samples for rival in rivals]).amax(0)
    return _result(rivals, estimate, samples, confidence)


def difference_p_value(first: BootstrapResult, second: BootstrapResult) -> Tensor:
    """Two-sided p-value of "there is no difference", from the same draws as its interval.

    Returns:
        2 (1 + the lesser of the numbers of draws on each side of zero) / (R + 1), at most 1: (L,),
        of R draws. None is below 2 / (R + 1): where many claims are made, take several thousand.
        `repeats` of the runs count as draws, but bring no other people.
    """
    check_paired([first, second])
    difference = first.samples - second.samples
    least = torch.minimum((difference <= 0).sum(0), (difference >= 0).sum(0))
    p = (2 * (1 + least.double()) / (len(difference) + 1)).clamp(max=1)
    return torch.where(difference.isnan().any(0), torch.nan, p)


def holm(p_values: Array) -> Tensor:
    """Holm's adjusted p-values of m claims: those at most alpha are all true but with chance alpha.

    In order of size p_(1) <= ... <= p_(m), the adjusted p_(k) is the largest of (m - i + 1) p_(i)
    over i <= k, at most 1 (Holm, Scandinavian Journal of Statistics 6, 1979). Claims may depend on
    one another in any way.

    Args:
        p_values: (m,).

    Raises:
        ValueError: no list of numbers in [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    p = as_tensor("p_values", p_values).cpu().double()
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"expected p_values (m,) in [0, 1], got {p.tolist()}")
    order = p.argsort(stable=True)
    steps = p[order] * torch.arange(len(p), 0, -1)
    adjusted = torch.empty_like(p)
    adjusted[order] = steps.cummax(0).values.clamp(max=1)
    return adjusted


def _listed(results: Any, count: int) -> list[BootstrapResult]:
    listed = checked_results([results] if isinstance(results, BootstrapResult) else results)
    if len(listed) != count:
        raise ValueError(f"expected a result for each of {count} runs, got {len(listed)}")
    return listed


def _check_repeats(repeats: int, num_draws: int) -> None:
    """Raise a ValueError unless so many draws can be made and sorted."""
    if not are_numbers(repeats, whole=True) or repeats < 1:
        raise ValueError(f"expected a whole repeats >= 1, got {repeats!r}")
    if repeats * num_draws > MAX_DRAWS:
        raise ValueError(
            f"{repeats:,} repeats of {num_draws:,} draws of people are more than {MAX_DRAWS:,}: "
            "take fewer"
        )


def _result(
    of: Sequence[BootstrapResult],
    estimate: Tensor,
    samples: Tensor,
    confidence: float,
    runs: str = "",
) -> BootstrapResult:
    """The result of paired ones, with their people and, if not given, their runs."""
    low, high = _ends(samples, confidence)
    drawn, covered = (
        next((text for text in texts if text), "")
        for texts in ([result.drawn for result in of], [result.runs for result in of])
    )
    like = of[0]
    return BootstrapResult(like.fprs, estimate, low, high, samples, like.by, drawn, runs or covered)


def _ends(samples: Tensor, confidence: float) -> Tensor:
    """Lower and upper ends, (2, L), level by level: torch sorts no more numbers at once."""
    check_confidence(confidence)
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=samples.dtype)
    return torch.stack([column.quantile(tails) for column in samples.T], dim=1)
