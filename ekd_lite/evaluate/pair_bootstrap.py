r"""Interval of TPR at FPR on a list of pairs, such as LFW's 6,000.

The pairs are drawn again with replacement, or the people if the list names them: pair (a, b) then
counts w_a w_b times, where w_a is how often person a was drawn (a genuine pair w_a times). In each
resample the threshold is chosen anew, the lowest that accepts no more than the level's share of
impostor pairs. Pairs of a list share people, so that intervals over pairs alone are too narrow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.inputs import (
    Array,
    Levels,
    as_flags,
    as_labels,
    as_levels,
    as_tensor,
    check_resampling,
)

AT_ONCE = 50  # resamples held at a time


def bootstrap_pair_list(
    scores: Array,
    is_genuine: Array,
    fprs: Levels,
    *,
    people: tuple[Array, Array] | None = None,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Percentile interval of the TPR at each level.

    Args:
        scores: one a pair, larger means more alike, (P,).
        is_genuine: True where both images show one person, (P,).
        fprs: levels, (L,).
        people: identities of the first and of the second images, (P,) each, to draw people instead
            of pairs.
        num_resamples: R.
        confidence: of the interval.
        seed: of the draws.

    Returns:
        Low and high ends, (L,) float64; NaN where more than a hundredth of the resamples have no
        genuine pair or too few impostor pairs to show the level.

    Raises:
        ValueError: wrong shapes, scores that are not finite, or levels outside (0, 1].

    Example:
        >>> low, high = bootstrap_pair_list([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], [0.5])
        >>> low.tolist(), high.tolist()
        ([1.0], [1.0])
    """
    levels = as_levels(fprs)
    score = as_tensor("scores", scores).cpu().double().numpy()
    flags = as_flags("is_genuine", is_genuine).cpu().numpy()
    if score.ndim != 1 or score.shape != flags.shape or not len(score):
        shapes = f"{score.shape} and {flags.shape}"
        raise ValueError(f"expected scores and is_genuine (P,) of one pair or more, got {shapes}")
    if not np.isfinite(score).all():
        raise ValueError("scores must be finite")
    check_resampling(num_resamples, confidence, seed)
    order = np.argsort(-score, kind="stable")
    # A threshold lies below all pairs of one score: only the last of equals is a place to cut.
    is_cut = np.append(np.diff(score[order]) != 0, True)
    draw = _draws(order, flags, people, np.random.default_rng(seed))
    tprs = []
    for start in range(0, num_resamples, AT_ONCE):
        weights = draw(min(AT_ONCE, num_resamples - start))
        tprs.append(_tpr(weights, flags[order], is_cut, levels))
    found = np.concatenate(tprs)  # (R, L)
    ends = np.full((2, len(levels)), np.nan)
    shown = np.isnan(found).mean(0) <= 0.01
    tail = (1 - confidence) / 2
    ends[:, shown] = np.nanquantile(found[:, shown], [tail, 1 - tail], axis=0)
    return torch.from_numpy(ends[0]), torch.from_numpy(ends[1])


def _draws(
    order: np.ndarray,
    flags: np.ndarray,
    people: tuple[Array, Array] | None,
    rng: np.random.Generator,
) -> Callable[[int], np.ndarray]:
    """A function: number of resamples -> how often each pair counts, (R, P) in the given order."""
    if people is None:
        uniform = np.full(len(order), 1 / len(order))
        return lambda count: rng.multinomial(len(order), uniform, size=count)
    if not isinstance(people, tuple | list) or len(people) != 2:
        raise ValueError("people must be two lists, of the first and of the second images")
    sides = [as_labels("people", side, len(order)).numpy()[order] for side in people]
    if not np.array_equal(sides[0] == sides[1], flags[order]):
        raise ValueError("people must be equal within genuine pairs and differ within the others")
    names, numbered = np.unique(np.stack(sides), return_inverse=True)
    left, right = numbered.reshape(2, -1)
    uniform = np.full(len(names), 1 / len(names))

    def draw(count: int) -> np.ndarray:
        times = rng.multinomial(len(names), uniform, size=count)
        return np.where(flags[order], times[:, left], times[:, left] * times[:, right])

    return draw


def _tpr(
    weights: np.ndarray, is_genuine: np.ndarray, is_cut: np.ndarray, levels: list[float]
) -> np.ndarray:
    """TPR of each resample at each level, (R, L); pairs sorted from the highest score down."""
    accepted = np.cumsum(np.where(is_genuine, weights, 0), axis=1)
    false = np.cumsum(np.where(is_genuine, 0, weights), axis=1)
    genuine, impostor = accepted[:, -1:], false[:, -1:]
    tprs = np.empty((len(weights), len(levels)))
    for place, level in enumerate(levels):
        allowed = np.floor(impostor * level * (1 + 1e-12) + 1e-9)
        # The last cut with few enough false accepts; before the first pair nothing is accepted.
        passed = np.where(is_cut & (false <= allowed), accepted, 0).max(axis=1, keepdims=True)
        ratio = np.divide(
            passed, genuine, out=np.full(passed.shape, np.nan), where=(genuine > 0) & (allowed > 0)
        )
        tprs[:, place] = ratio[:, 0]
    return tprs
