"""The pairs of N embeddings, sorted by identity and walked tile by tile."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ekd_lite.evaluate.inputs import Array, as_labels, as_rows, as_tensor
from ekd_lite.evaluate.scores import Rows, block_scores, fixed_rows

TILE = 1024
WINDOW = 64  # rows of small identities whose genuine pairs are taken from one product


def sorted_rows(embeddings: Array, labels: Array) -> tuple[Rows, Tensor, Tensor]:
    """Embeddings in fixed point on the CPU, sorted by label.

    Chunk by chunk, so that besides the result hardly anything is held.

    Args:
        embeddings: (N, D), not necessarily normalised.
        labels: identities, (N,).

    Returns:
        N rows, int64 labels (N,), and the original row of each (N,).

    Raises:
        ValueError: wrong shapes or kinds, labels that are not whole, NaN or infinity in an
            embedding (names the row).
    """
    rows, labels = as_rows("embeddings", embeddings), as_tensor("labels", labels)
    if labels.shape != (len(rows),):
        raise ValueError(
            "expected embeddings (N, D) and labels (N,), "
            f"got {tuple(rows.shape)} and {tuple(labels.shape)}"
        )
    labels = as_labels("labels", labels, len(rows))
    order = labels.argsort(stable=True)
    return fixed_rows("embeddings", rows, order), labels[order], order


def count_pairs(labels: Array) -> tuple[int, int]:
    """The numbers of genuine and impostor pairs among all pairs of `labels` (N,)."""
    labels = as_tensor("labels", labels)
    labels = as_labels("labels", labels, labels.numel())
    sizes = torch.unique(labels, return_counts=True)[1]
    num_genuine = int((sizes * (sizes - 1) // 2).sum())
    return num_genuine, len(labels) * (len(labels) - 1) // 2 - num_genuine


def impostor_tiles(
    labels: Tensor, *, shuffled: bool = False, progress: str | None = None
) -> Iterator[tuple[slice, slice, np.ndarray | None]]:
    """Walk the upper triangle of all pairs of rows sorted by label.

    Args:
        labels: (N,), sorted.
        shuffled: in random order (always the same), so that what was met is a sample of the rest.
        progress: label of a bar, shown on a terminal.

    Yields:
        (rows, columns, mask of the tile's impostor pairs or None if all are).
    """
    starts = range(0, len(labels), TILE)
    tiles = [(r, c) for r in starts for c in starts if c >= r]
    if shuffled:
        tiles = [tiles[k] for k in np.random.default_rng(0).permutation(len(tiles))]
    for r, c in tqdm(tiles, desc=progress, unit="tile", disable=None if progress else True):
        up, across = slice(r, r + TILE), slice(c, c + TILE)
        mask = None
        if r == c:  # different labels, each pair once
            mask = (labels[up, None] != labels[across]).triu(1).numpy()
        elif labels[r + TILE - 1] == labels[c]:
            mask = (labels[up, None] != labels[across]).numpy()
        yield up, across, mask


def impostor_scores(
    rows: Rows, labels: Tensor, *, progress: str | None = None
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray | None]]:
    """The tiles of `impostor_tiles` as (first row, first column, scores, mask)."""
    for up, across, mask in impostor_tiles(labels, progress=progress):
        yield up.start, across.start, block_scores(rows[up], rows[across]), mask


def genuine_scores(rows: Rows, labels: Tensor) -> Iterator[np.ndarray]:
    """The genuine scores, identity by identity, of rows sorted by label; int32."""
    for start, end in _windows(labels):
        for first in range(start, end, TILE):  # a huge identity goes in strips
            strip = slice(first, min(first + TILE, end))
            is_genuine = (labels[strip, None] == labels[first:end]).triu(1)
            if is_genuine.any():
                yield block_scores(rows[strip], rows[first:end])[is_genuine.numpy()]


def _windows(labels: Tensor) -> Iterator[tuple[int, int]]:
    """Cuts of sorted labels into whole identities, of `WINDOW` rows or of one identity each."""
    start = end = 0
    for size in torch.unique_consecutive(labels, return_counts=True)[1].tolist():
        if end > start and end + size - start > WINDOW:
            yield start, end
            start = end
        end += size
    if end > start:
        yield start, end
