"""The counting behind `verification_accuracy`: squared distances filed on a grid of thresholds."""

from __future__ import annotations

import numpy as np
import torch

from ekd_lite.evaluate.inputs import Array, as_rows
from ekd_lite.evaluate.scores import STEPS

ACCURACY_GRID = np.arange(0, 4, 0.01)
TAR_GRID = np.arange(0, 4, 0.001)
CHUNK = 256  # rows whose float64 differences stay in the cache


def check_rows(embeddings: Array, mirrored: Array | None, num_pairs: int) -> tuple[np.ndarray, ...]:
    """One side's embeddings, and its mirrored ones if any, checked."""
    both = [embeddings] if mirrored is None else [embeddings, mirrored]
    given = [as_rows("embeddings", rows).cpu() for rows in both]
    for rows in given:
        if len(rows) != num_pairs or rows.shape != given[0].shape:
            raise ValueError(
                f"expected embeddings ({num_pairs}, D), one row a pair, on both sides and "
                f"mirrored; got {tuple(rows.shape)}"
            )
    # In one order of memory: sums over a row must not depend on where it lies.
    return tuple(
        np.ascontiguousarray((x.float() if x.dtype == torch.bfloat16 else x).numpy()) for x in given
    )


def squared_distances(
    left: tuple[np.ndarray, ...], right: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances of unit rows in float64, in the order of operations of sklearn, and scores.

    Returns:
        Distances d (P,), and cosines 1 - d / 2 in steps of `scores.STEPS` (P,) int64, which swallow
        the rounding of d and so keep ties; 0 where a side is zero and has no direction.
    """
    if left[0].shape != right[0].shape:
        raise ValueError(f"the two sides differ: {left[0].shape} and {right[0].shape}")
    out, has_directions = np.empty(len(left[0])), np.ones(len(left[0]), dtype=bool)
    for start in range(0, len(out), CHUNK):
        part = slice(start, start + CHUNK)
        units = []
        for side in (left, right):
            rows = side[0][part].astype(np.float64, copy=False)
            if len(side) == 2:
                rows = rows + side[1][part]
            norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
            if not (np.isfinite(norms) & (norms > 1e-150)).all():
                rows, norms = _within_range(rows, start)
            has_directions[part] &= norms > 0
            units.append(rows / np.where(norms == 0, 1.0, norms)[:, None])
        difference = np.subtract(units[0], units[1], out=units[0])
        out[part] = np.square(difference, out=difference).sum(axis=1)
    cosines = np.where(has_directions, 1 - out / 2, 0.0)
    return out, np.rint(STEPS * cosines).astype(np.int64)


def _within_range(rows: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows scaled so that their squares are numbers, and their lengths; 0 for a row of zeros."""
    if not np.isfinite(rows).all():
        bad = start + int(np.isfinite(rows).all(axis=1).argmin())
        raise ValueError(f"an embedding of pair {bad} is NaN or infinite")
    # By powers of two, which leave an ordinary row its bits.
    rows = np.ldexp(rows, -np.frexp(np.abs(rows).max(axis=1))[1][:, None])
    return rows, np.sqrt(np.einsum("ij,ij->i", rows, rows))


def _accepted(
    distances: np.ndarray, flags: np.ndarray, fold: np.ndarray, grid: np.ndarray
) -> np.ndarray:
    """How many (impostor, genuine) pairs of each fold each threshold accepts, (2, F, T)."""
    # A pair is accepted by the thresholds above its distance: those from this index on.
    first = np.searchsorted(grid, distances, side="right")
    num_folds, width = int(fold.max()) + 1, len(grid) + 1
    bins = (flags * num_folds + fold) * width + first
    filed = np.bincount(bins, minlength=2 * num_folds * width)
    counts: np.ndarray = filed.reshape(2, num_folds, width).cumsum(axis=2)[:, :, :-1]
    return counts


def accuracies_of_folds(
    distances: np.ndarray, flags: np.ndarray, fold: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of each fold, and the squared distance chosen for it on the others, (F,) each."""
    false, true = _accepted(distances, flags, fold, ACCURACY_GRID)
    right = true + (counts[0][:, None] - false)  # right answers, (F, T)
    best = (right.sum(axis=0) - right).argmax(axis=1)  # the first of equals
    accuracies: np.ndarray = right[np.arange(len(best)), best] / counts.sum(axis=0)
    return accuracies, ACCURACY_GRID[best]


def tar_at_far(
    distances: np.ndarray, flags: np.ndarray, fold: np.ndarray, counts: np.ndarray, target: float
) -> tuple[np.ndarray, np.ndarray]:
    """Accept rates of genuine and impostor pairs of each fold at the others' threshold, (F,)."""
    false, _ = _accepted(distances, flags, fold, TAR_GRID)
    far = (false.sum(axis=0) - false) / (counts[0].sum() - counts[0])[:, None]
    tar_met, far_met = np.empty(len(far)), np.empty(len(far))
    for k, rates in enumerate(far):
        # Where the target is never reached nothing is accepted: threshold zero.
        threshold = np.interp(target, rates, TAR_GRID) if rates.max() >= target else 0.0
        accepted = distances[fold == k] < threshold
        own = flags[fold == k]
        tar_met[k] = (accepted & own).sum() / counts[1, k]
        far_met[k] = (accepted & ~own).sum() / counts[0, k]
    return tar_met, far_met
