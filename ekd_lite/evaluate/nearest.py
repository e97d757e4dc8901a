"""TPR at the point of the ROC that is nearest to a level, without drawing the curve.

The curve has a point for every distinct score, and points on a straight line between their
neighbours are left out (`roc`). Which point is nearest to a level is decided by the scores around
the level's own impostor: a window of them is looked at, and a wider one where it holds no point on
one side. Only as many impostors are sorted as the largest level asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

WINDOW = 512  # impostors to either side


def nearest_tpr(genuine: Tensor, impostor: Tensor, levels: Sequence[float]) -> Tensor:
    """TPR at the nearest point to each level, the larger of two equally near.

    Args:
        genuine: scores (G,), G >= 1.
        impostor: scores (n,), n >= 1, of the same type.
        levels: false-positive rates, L of them.

    Returns:
        (L,) float64.
    """
    scores = np.sort(genuine.detach().cpu().numpy())
    side = _Impostors(impostor.detach().cpu().numpy())
    side.sort_down_to(round(side.count * max(levels)) + 2 * WINDOW)
    return torch.tensor([_nearest(scores, side, level) for level in levels], dtype=torch.float64)


class _Impostors:
    """The largest impostor scores, sorted so far down as was asked for.

    Attributes:
        count: n, of all.
        top: the largest ones, rising.
    """

    def __init__(self, scores: np.ndarray) -> None:
        self.count = len(scores)
        self.top = scores[:0]
        self._scores = scores

    def sort_down_to(self, depth: int) -> None:
        """Let `top` hold so many."""
        depth = min(depth, self.count)
        if depth < self.count:
            place = self.count - depth
            self.top = np.sort(np.partition(self._scores, place)[place:])
        else:
            self.top = np.sort(self._scores)


def _nearest(genuine: np.ndarray, side: _Impostors, level: float) -> float:
    """TPR of the point nearest to a level."""
    width, rank = WINDOW, round(side.count * level)
    while True:
        first, last = rank - width, rank + width  # from the largest score down
        is_start, is_end = first <= 0, last >= side.count
        if last >= len(side.top) < side.count:
            side.sort_down_to(2 * last)
            continue
        high = np.inf if is_start else side.top[-1 - first]
        low = -np.inf if is_end else side.top[-1 - last]
        if low == side.top[0] and len(side.top) < side.count:  # further ones may be equal to it
            side.sort_down_to(4 * len(side.top))
            continue
        inside = [
            scores[np.searchsorted(scores, low) : np.searchsorted(scores, high, "right")]
            for scores in (side.top, genuine)
        ]
        values = np.unique(np.concatenate(inside))[::-1]
        # How many scores are >= each of these.
        fp, tp = (len(own) - np.searchsorted(own, values) for own in (side.top, genuine))
        is_kept = np.ones(len(values), dtype=bool)
        is_kept[1:-1] = (np.diff(fp, 2) != 0) | (np.diff(tp, 2) != 0)
        is_kept[:1] &= is_start  # an end of the window is no end of the curve
        is_kept[-1:] &= is_end
        fpr, tpr = fp[is_kept] / side.count, tp[is_kept] / len(genuine)
        if is_start:
            fpr, tpr = np.append(0.0, fpr), np.append(0.0, tpr)
        gap = np.abs(fpr - level)
        least = gap.min(initial=np.inf)
        is_left = is_start or bool((fpr <= level).any())
        is_right = is_end or bool(((fpr > level) & (gap > least)).any())
        if len(gap) and is_left and is_right:
            return float(tpr[np.flatnonzero(gap == least)[-1]])
        width *= 8
