"""Which results may be compared draw by draw, and who taught the runs of a method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ekd_lite.evaluate.bootstrap import BootstrapResult
from ekd_lite.ops import are_numbers


def check_paired(results: Sequence[BootstrapResult]) -> None:
    """Raise a ValueError unless results have the same levels, draws and weights of pairs.

    What was put together by hand says nothing of its people, and a single model, which covers no
    runs, may stand beside the mean of several: it is the same in every draw of runs.
    """
    checked_results(results)
    if len({(result.fprs, result.samples.shape) for result in results}) > 1:
        raise ValueError("the results differ in levels or number of draws: not paired")
    if len(counted := {result.by for result in results}) > 1:
        raise ValueError(
            f"one result counts by {', the other by '.join(sorted(counted))}: not paired"
        )
    if len({result.drawn for result in results} - {""}) > 1:
        raise ValueError("the results are of other labels or another seed: not paired")
    if len(runs := {result.runs: None for result in results if result.runs}) > 1:
        first, second, *_ = runs
        raise ValueError(
            f"one result is the mean of {first}, another of {second}: not paired. Methods are "
            "compared over the same teachers and seeds, in one order, and the same draws of them"
        )


def checked_results(results: Any) -> list[BootstrapResult]:
    """The results as a list; a ValueError for anything else."""
    listed = list(results) if isinstance(results, Iterable) else [results]
    kinds = {type(result).__name__ for result in listed if not isinstance(result, BootstrapResult)}
    if kinds or not isinstance(results, Iterable):
        given = " and ".join(sorted(kinds)) or "one result"
        raise ValueError(
            f"expected results of bootstrap_tpr_at_fpr or over_runs in a list, got {given}"
        )
    return listed


def teacher_names(option: str, teachers: Any) -> list[Any]:
    """Who taught each run, as a list of names or numbers that can be told apart.

    Args:
        option: what the caller calls it.
        teachers: a list, a tuple, a range, an array or a tensor.

    Raises:
        ValueError: anything else, such as one number or a list of lists.
    """
    wanted = f"{option} must be a list with the name or number of a teacher for each run"
    if isinstance(teachers, str | bytes) or not isinstance(teachers, Iterable):
        raise ValueError(f"{wanted}, got {teachers!r}")
    # A tensor's items are tensors, no two of which are one name.
    names = teachers.tolist() if isinstance(teachers, Tensor | np.ndarray) else list(teachers)
    names = names if isinstance(names, list) else [names]
    names = [name.item() if isinstance(name, np.generic) else name for name in names]
    for name in names:
        if not isinstance(name, str) and not are_numbers(name):
            raise ValueError(f"{wanted}, got {name!r} in it")
    return names
