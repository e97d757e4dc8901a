"""TPR at FPR over all N(N-1)/2 pairs of N embeddings, in memory that does not grow with the pairs.

Rows are first sorted by label, so that genuine pairs lie in blocks on the diagonal; the upper
triangle of the cosine matrix is then walked in tiles. The k-th largest impostor score is found in
two walks: the first makes a histogram of 2^20 bins over [-1, 1], the second collects the distinct
scores that fall into the bin where the k-th one lies. Both count exactly, so the result is the one
that sorting every score would give.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ekd_lite.evaluate.roc import as_levels, warn_if_undefined
from ekd_lite.ops import false_accepts_at, unit_rows

NUM_BINS = 1 << 20
TILE = 1024


def check_embeddings(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Check embeddings (N, D) and labels (N,); return unit rows and int64 labels on the CPU."""
    if embeddings.ndim != 2 or labels.ndim != 1 or len(embeddings) != len(labels):
        raise ValueError(
            "expected embeddings (N, D) and labels (N,), "
            f"got {tuple(embeddings.shape)} and {tuple(labels.shape)}"
        )
    bad = (~embeddings.isfinite().all(dim=1)).nonzero().flatten()
    if len(bad):
        raise ValueError(f"{len(bad)} embeddings hold NaN or infinity, the first in row {bad[0]}")
    return unit_rows(embeddings.detach().cpu()), labels.detach().cpu().long()


def count_pairs(labels: Tensor) -> tuple[int, int]:
    """The numbers of genuine and impostor pairs among all pairs of `labels` (N,)."""
    sizes = torch.unique(labels, return_counts=True)[1]
    num_genuine = int((sizes * (sizes - 1) // 2).sum())
    return num_genuine, len(labels) * (len(labels) - 1) // 2 - num_genuine


def impostor_tiles(
    unit: Tensor, labels: Tensor, *, progress: str | None = None
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray | None]]:
    """Walk the impostor pairs of unit rows sorted by label.

    Yields:
        (first row, first column, cosines of a tile, mask of its impostor pairs or None if all are).
    """
    starts = range(0, len(unit), TILE)
    tiles = [(r, c) for r in starts for c in starts if c >= r]
    for r, c in tqdm(tiles, desc=progress, unit="tile", disable=None if progress else True):
        rows, columns = labels[r : r + TILE], labels[c : c + TILE]
        scores = (unit[r : r + TILE] @ unit[c : c + TILE].T).numpy()
        mask = None
        if r == c:  # different labels, each pair once
            mask = torch.ones(scores.shape, dtype=torch.bool).triu(1) & (rows[:, None] != columns)
        elif rows[-1] == columns[0]:
            mask = rows[:, None] != columns
        yield r, c, scores, None if mask is None else mask.numpy()


def _bins(scores: np.ndarray) -> np.ndarray:
    """The histogram bin of each cosine; a monotone map, so order statistics survive it."""
    bins: np.ndarray = np.clip((scores + 1) * (NUM_BINS // 2), 0, NUM_BINS - 1).astype(np.int64)
    return bins


def impostor_thresholds(
    unit: Tensor, labels: Tensor, counts: list[int], *, progress: bool = False
) -> Tensor:
    """The (k+1)-th largest impostor cosine for every k in `counts`, exact; rows sorted by label."""
    floor = _safe_floor(unit, labels, max(counts))
    while True:
        histogram = np.zeros(NUM_BINS, dtype=np.int64)
        for _, _, scores, mask in impostor_tiles(
            unit, labels, progress="counting" if progress else None
        ):
            keep = scores >= floor if mask is None else mask & (scores >= floor)
            histogram += np.bincount(_bins(scores[keep]), minlength=NUM_BINS)
        above = histogram[::-1].cumsum()  # above[b]: scores in the b+1 highest bins
        if above[-1] > max(counts):
            break
        floor = -2.0  # the sample misled us: count everything
    targets = {k: NUM_BINS - 1 - int(np.searchsorted(above, k, side="right")) for k in counts}
    wanted = np.zeros(NUM_BINS, dtype=bool)
    wanted[list(targets.values())] = True
    low = min(targets.values()) * 2.0 / NUM_BINS - 1 - 1e-6
    found: dict[float, int] = {}
    for _, _, scores, mask in impostor_tiles(
        unit, labels, progress="locating" if progress else None
    ):
        near = scores[scores >= low if mask is None else mask & (scores >= low)]
        values, repeats = np.unique(near[wanted[_bins(near)]], return_counts=True)
        for value, repeat in zip(values.tolist(), repeats.tolist(), strict=True):
            found[value] = found.get(value, 0) + repeat
    values = np.array(sorted(found, reverse=True), dtype=np.float64)
    repeats = np.array([found[value] for value in values], dtype=np.int64)
    in_bin = _bins(values.astype(unit.numpy().dtype))
    thresholds = []
    for k in counts:
        rank_in_bin = k - int(histogram[targets[k] + 1 :].sum())
        own = in_bin == targets[k]
        position = int(np.searchsorted(repeats[own].cumsum(), rank_in_bin, side="right"))
        thresholds.append(values[own][position])
    return torch.tensor(thresholds, dtype=torch.float64)


def _safe_floor(unit: Tensor, labels: Tensor, count: int) -> float:
    """A score that surely (checked later) more than `count` impostor pairs reach.

    Nine tenths and more of the scores lie below every threshold asked for; comparing them with one
    number is much cheaper than filing them in a histogram.
    """
    if len(unit) <= 4 * TILE:
        return -2.0
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(unit), generator=generator)[:TILE].sort().values
    _, _, scores, mask = next(impostor_tiles(unit[rows], labels[rows]))
    sample = scores[mask]
    share = count / count_pairs(labels)[1]
    return float(np.quantile(sample, max(0.0, 1 - 2 * share - 1e-3)))


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
    unit, labels = check_embeddings(embeddings, labels)
    order = labels.argsort(stable=True)
    unit, labels = unit[order].contiguous(), labels[order]
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


def genuine_scores(unit: Tensor, labels: Tensor) -> Iterator[Tensor]:
    """The genuine cosines, identity by identity, of unit rows sorted by label."""
    sizes = torch.unique_consecutive(labels, return_counts=True)[1].tolist()
    for rows in torch.split(unit, sizes):
        for first in range(0, len(rows) - 1, TILE):  # a huge identity goes in strips
            strip = rows[first : first + TILE] @ rows[first:].T
            is_upper = torch.ones(strip.shape, dtype=torch.bool).triu(1)
            yield strip[is_upper].double()
