"""TPR at FPR over all N(N-1)/2 pairs of N embeddings, in memory that does not grow with the pairs.

Rows are first sorted by label, so that genuine pairs lie in blocks on the diagonal; the upper
triangle of the cosine matrix is then walked in tiles (`thresholds.py` finds the k-th largest
impostor score on the way, exactly: the result is the one that sorting every score would give).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ekd_lite.evaluate.roc import as_levels, warn_if_undefined
from ekd_lite.evaluate.thresholds import impostor_thresholds
from ekd_lite.evaluate.tiles import count_pairs, genuine_scores, sorted_units
from ekd_lite.ops import false_accepts_at

__all__ = ["all_pairs_tpr_at_fpr", "count_pairs"]


def all_pairs_tpr_at_fpr(
    embeddings: Tensor,
    labels: Tensor,
    fprs: Iterable[float] | Tensor,
    *,
    progress: bool = False,
) -> Tensor:
    """TPR at FPR over all N(N-1)/2 pairs of embeddings, exact, in O(N D) memory plus one tile.

    The score of a pair is the cosine of its embeddings. "Conservative" convention of `tpr_at_fpr`:
    the largest TPR whose FPR does not exceed the level.

    Args:
        embeddings: (N, D), not necessarily normalised; computed in float32, or float64 if so given.
        labels: identities, (N,) int64.
        fprs: false-positive rates in (0, 1], L of them.
        progress: show a bar on a terminal (100,000 embeddings are 5e9 pairs).

    Returns:
        TPR in [0, 1], shape (L,), float64; NaN with an `UndefinedMetricWarning` where the number of
        impostor pairs cannot show the level.

    Raises:
        ValueError: wrong shapes, NaN in an embedding (names the row), a level outside (0, 1].
    """
    levels = as_levels(fprs)
    unit, labels, _ = sorted_units(embeddings, labels)
    num_genuine, num_impostor = count_pairs(labels)
    warn_if_undefined(levels, num_genuine, num_impostor)
    counts = [false_accepts_at(fpr, num_impostor) for fpr in levels]
    shown = [m for m, k in enumerate(counts) if 0 < k < num_impostor and num_genuine]
    tpr = torch.full((len(levels),), float("nan"), dtype=torch.float64)
    if num_genuine and num_impostor:
        tpr[[m for m, k in enumerate(counts) if k == num_impostor]] = 1.0
    if not shown:
        return tpr
    thresholds = impostor_thresholds(unit, labels, [counts[m] for m in shown], progress=progress)
    accepted = torch.zeros(len(shown), dtype=torch.int64)
    for scores in genuine_scores(unit, labels):
        accepted += (scores[:, None] > thresholds).sum(dim=0)
    tpr[shown] = accepted.double() / num_genuine
    return tpr
