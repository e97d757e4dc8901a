"""TPR at FPR over all N(N-1)/2 pairs of N embeddings, in memory that does not grow with the pairs.

Rows are first sorted by label, so that genuine pairs lie in blocks on the diagonal; the upper
triangle of the cosine matrix is then walked in tiles (`thresholds.py` finds the k-th largest
impostor score on the way, exactly: the result is the one that sorting every score would give).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.inputs import Array, Levels, as_levels, check_by
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
    by: Literal["pair", "person"] = "pair",
    progress: bool = False,
) -> Tensor:
    """TPR at FPR over all N(N-1)/2 pairs of embeddings, exact, in O(N D) memory plus one tile.

    The score of a pair is the cosine of its embeddings, in steps of 2^-30 (`scores.py`); it depends
    on the two embeddings alone, so that equal pairs tie and the order of the images, threads and
    scale change nothing. "Conservative" convention of `tpr_at_fpr`: the largest TPR whose FPR does
    not exceed the level.

    A person with n images has n (n - 1) / 2 genuine pairs: in a set where two celebrities have
    hundreds, the TPR is theirs. By person it is the mean over people of the share of their pairs
    that pass,

        TPR = 1/|P| sum_{p in P} accepted_p / pairs_p,

    P all people with two images or more. The threshold is the same: impostor pairs are counted one
    by one.

    Args:
        embeddings: (N, D), not necessarily normalised; a tensor or a numpy array of any real type.
        labels: identities, (N,), whole numbers.
        fprs: false-positive rates in (0, 1], L of them.
        by: whether every genuine "pair" weighs the same, or every "person".
        progress: show a bar on a terminal (100,000 embeddings are 5e9 pairs).

    Returns:
        TPR in [0, 1], shape (L,), float64; NaN with an `UndefinedMetricWarning` where the number of
        impostor pairs cannot show the level.

    Raises:
        ValueError: wrong shapes, complex numbers, labels that are not whole, NaN in an embedding
            (names the row), a level outside (0, 1].

    Example:
        >>> rows = torch.tensor([[1.0, 0], [1, 0], [1, 0.1], [0, 1], [1, -1]])
        >>> [all_pairs_tpr_at_fpr(rows, [0, 0, 0, 1, 1], 0.2, by=by).item() for by in
        ...  ("pair", "person")]
        [0.75, 0.5]
    """
    check_by(by)
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
    sizes = torch.unique_consecutive(labels, return_counts=True)[1].numpy()
    pairs = sizes * (sizes - 1) // 2
    accepted = np.zeros((len(shown), len(sizes)), dtype=np.int64)
    ends, first = pairs.cumsum(), 0
    for scores in genuine_scores(rows, labels):
        owner = np.searchsorted(ends, np.arange(first, first + len(scores)), side="right")
        first += len(scores)
        for m, threshold in enumerate(thresholds.tolist()):
            np.add.at(accepted[m], owner[scores > threshold], 1)
    if by == "pair":
        tpr[shown] = torch.from_numpy(accepted.sum(axis=1)).double() / num_genuine
    else:
        several = pairs > 0
        tpr[shown] = torch.from_numpy((accepted[:, several] / pairs[several]).mean(axis=1))
    return tpr
