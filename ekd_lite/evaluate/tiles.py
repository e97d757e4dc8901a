"""The pairs of N embeddings, sorted by identity and walked tile by tile."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ekd_lite.ops import unit_rows

TILE = 1024


def sorted_units(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows on the CPU, sorted by label.

    Chunk by chunk, so that besides the result hardly anything is held.

    Args:
        embeddings: (N, D), not necessarily normalised.
        labels: identities, (N,).

    Returns:
        Unit rows (N, D), int64 labels (N,), and the original row of each (N,).

    Raises:
        ValueError: wrong shapes, or NaN in an embedding (names the row).
    """
    if embeddings.ndim != 2 or labels.ndim != 1 or len(embeddings) != len(labels):
        raise ValueError(
            "expected embeddings (N, D) and labels (N,), "
            f"got {tuple(embeddings.shape)} and {tuple(labels.shape)}"
        )
    labels = labels.detach().cpu().long()
    order = labels.argsort(stable=True)
    dtype = torch.float64 if embeddings.dtype == torch.float64 else torch.float32
    unit = torch.empty(embeddings.shape, dtype=dtype)
    bad: list[int] = []
    for rows in torch.split(torch.arange(len(order)), TILE):
        own = embeddings.detach()[order[rows].to(embeddings.device)].cpu()
        bad += order[rows][~own.isfinite().all(dim=1)].tolist()
        unit[rows] = unit_rows(own)
    if bad:
        raise ValueError(f"{len(bad)} embeddings hold NaN or infinity, the first in row {min(bad)}")
    return unit, labels[order], order


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


def genuine_scores(unit: Tensor, labels: Tensor) -> Iterator[Tensor]:
    """The genuine cosines, identity by identity, of unit rows sorted by label."""
    sizes = torch.unique_consecutive(labels, return_counts=True)[1].tolist()
    for rows in torch.split(unit, sizes):
        for first in range(0, len(rows) - 1, TILE):  # a huge identity goes in strips
            strip = rows[first : first + TILE] @ rows[first:].T
            is_upper = torch.ones(strip.shape, dtype=torch.bool).triu(1)
            yield strip[is_upper].double()
