"""TPR at FPR over all N(N-1)/2 pairs of N embeddings, in memory that does not grow with the pairs.

Rows are first sorted by label, so that genuine pairs lie in blocks on the diagonal; the upper
triangle of the cosine matrix is then walked in tiles (`thresholds.py` finds the k-th largest
impostor score on the way, exactly: the result is the one that sorting every score would give).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.evaluate.inputs import Array, Levels, as_levels
from ekd_lite.evaluate.roc import warn_if_undefined
from ekd_lite.evaluate.thresholds import impostor_thresholds
from ekd_lite.evaluate.tiles import count_pairs, genuine_scores, sorted_rows
from ekd_lite.ops import false_accepts_at

__all__ = ["all_pairs_tpr_at_fpr", "count_pairs"]


def all_pairs_tpr_at_fpr(
    embeddings: Array,
    labels: Array,
    fprs: Levels,
    *,
    progress: bool = False,
) -> Tensor:
    """TPR at FPR over all N(N-1)/2 pairs of embeddings, exact, in O(N D) memory plus one tile.

    The score of a pair is the cosine of its embeddings, in steps of 2^-30 (`scores.py`); it depends
    on the two embeddings alone, so that equal pairs tie and the order of the images, threads and
    scale change nothing. "Conservative" convention of `tpr_at_fpr`: the largest TPR whose FPR does
    not exceed the level.

    Args:
        embeddings: (N, D), not necessarily normalised; a tensor or a numpy array of any real type.
        labels: identities, (N,), whole numbers.
        fprs: false-positive rates in (0, 1], L of them.
        progress: show a bar on a terminal (100,000 embeddings are 5e9 pairs).

    Returns:
        TPR in [0, 1], shape (L,), float64; NaN with an `UndefinedMetricWarning` where the number of
        impostor pairs cannot show the level.

    Raises:
        ValueError: wrong shapes, complex numbers, labels that are not whole, NaN in an embedding
            (names the row), a level outside (0, 1].
    """
    levels = as_levels(fprs)
    rows, labels, _ = sorted_rows(embeddings, labels)
    num_genuine, num_impostor = count_pairs(labels)
    warn_if_undefined(levels, num_genuine, num_impostor)
    counts = [false_accepts_at(fpr, num_impostor) for fpr in levels]
    shown = [m for m, k in enumerate(counts) if 0 < k < num_impostor and num_genuine]
    tpr = torch.full((len(levels),), float("nan"), dtype=torch.float64)
    if num_genuine and num_impostor:
        tpr[[m for m, k in enumerate(counts) if k == num_impostor]] = 1.0
    if not shown:
        return tpr
    thresholds = impostor_thresholds(rows, labels, [counts[m] for m in shown], progress=progress)
    accepted = [0] * len(shown)
    for scores in genuine_scores(rows, labels):
        for m, threshold in enumerate(thresholds.tolist()):
            accepted[m] += int((scores > threshold).sum())
    tpr[shown] = torch.tensor(accepted, dtype=torch.float64) / num_genuine
    return tpr
