"""The k-th largest impostor score among billions, exact, in one walk over the tiles.

The walk is made with products in float32, twice as fast as the exact ones of `scores.py` and never
further from them than a known error e. A sample of scores brackets each wanted rank; the walk
counts the rough scores above every bracket and keeps those inside it, with their pairs. Rounding
moves no order statistic by more than e, so if t is the rough score at the wanted rank, the exact
one lies within e of t: pairs more than 2 e above t are above it for certain, pairs more than 2 e
below are below it. The pairs in between, a few in a hundred thousand, are scored exactly, and the
score at the wanted rank among them is the one that sorting all exact scores would give.

Where that fails (the sample misled us, or the pairs in between are too many, as they are for a net
that gives all faces nearly one embedding), two walks with exact products find the score for
certain in bounded memory: scores are whole numbers, and are counted by their upper and then, where
it matters, by their lower bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.scores import STEPS, Rows, pair_scores, rough_error, rough_scores
from ekd_lite.evaluate.tiles import count_pairs, impostor_scores, impostor_tiles
from ekd_lite.ops import largest

DIRECT = 1 << 20  # so few scores are simply sorted
MAX_KEPT = 1 << 23  # rough scores a bracket holds, each with its pair
WORTH_A_WALK = 1 / 25  # the share of the pairs above which scoring them singly costs more
LOWER_BITS = 15
SAMPLE_ROWS, SAMPLE_COLUMNS = 256, 1024  # of one draw
SIGMAS = 6.0  # how far off the sample may be
LOWEST = -1.5  # below every rough score


def impostor_thresholds(
    rows: Rows, labels: Tensor, counts: list[int], *, progress: bool = False
) -> Tensor:
    """The (k+1)-th largest impostor score for every k in `counts`, exact; rows sorted by label.

    Returns:
        Scores in steps of `scores.STEPS`, int64.
    """
    num = count_pairs(labels)[1]
    if num <= DIRECT:
        parts = [
            (scores if mask is None else scores[mask]).ravel()
            for _, _, scores, mask in impostor_scores(rows, labels)
        ]
        top = largest(torch.from_numpy(np.concatenate(parts)), max(counts) + 1)
        return top[torch.tensor(counts)].long()
    found: dict[int, int | None] = dict.fromkeys(counts)
    error = rough_error(rows.fixed.shape[1])
    if error < 0.01:
        brackets = _brackets(rows, labels, sorted(counts, reverse=True), num, error)
        _sweep(rows, labels, brackets, progress="pairs" if progress else None)
        found.update({bracket.rank: bracket.settle(rows) for bracket in brackets})
    missed = [k for k, score in found.items() if score is None]
    if missed:
        found.update(zip(missed, _by_counting(rows, labels, missed, progress), strict=True))
    return torch.tensor([found[k] for k in counts], dtype=torch.int64)


class Tile(NamedTuple):
    """Where a tile of the scores begins, and how many columns it has."""

    row: int
    column: int
    width: int


class Bracket:
    """Rough scores in [low, high] with their pairs, and how many lie above."""

    def __init__(self, rank: int, num: int, low: float, high: float, error: float) -> None:
        self.rank, self.num, self.error = rank, num, error  # `rank` of `num` pairs come before
        # Every pair within two errors of the score that is looked for has to be inside.
        self.low = np.float32(max(low - 3 * error, LOWEST))
        self.high = np.float32(high + 3 * error)
        self.above, self.kept, self.is_full = 0, 0, False
        # Two growing buffers: thousands of small arrays kept between large ones that come and go
        # would leave a heap full of holes, gigabytes of it for 100,000 embeddings.
        self.scores, self.pairs = np.empty(1 << 12, np.float32), np.empty((1 << 12, 2), np.int32)

    def add(self, scores: np.ndarray, places: np.ndarray, tile: Tile, seen: int) -> None:
        """File scores at places of a tile; `seen` pairs have been met, the tile's included."""
        self.above += int(np.count_nonzero(scores > self.high))
        if self.is_full:
            return
        inside = np.flatnonzero((scores >= self.low) & (scores <= self.high))
        total = self.kept + len(inside)
        while total > len(self.scores):
            self.scores = np.concatenate([self.scores, np.empty_like(self.scores)])
            self.pairs = np.concatenate([self.pairs, np.empty_like(self.pairs)])
        self.scores[self.kept : total] = scores[inside]
        i, j = np.divmod(places[inside], tile.width)
        self.pairs[self.kept : total, 0] = tile.row + i
        self.pairs[self.kept : total, 1] = tile.column + j
        self.kept = total
        if self.kept > MAX_KEPT:
            self.narrow(seen)

    def narrow(self, seen: int) -> None:
        """Keep the half around the wanted rank, judged by the pairs seen, a far larger sample."""
        scores = self.scores[: self.kept]
        wanted = round(self.rank * (seen / self.num)) - self.above
        first, last = (wanted + sign * self.kept // 4 for sign in (-1, 1))
        if first > 0:
            self.high = np.float32(self._at(first) + 3 * self.error)
        if last < self.kept - 1:
            self.low = np.float32(self._at(max(last, 0)) - 3 * self.error)
        inside = (scores >= self.low) & (scores <= self.high)
        self.above += int(np.count_nonzero(scores > self.high))
        self.kept = int(np.count_nonzero(inside))
        self.scores[: self.kept] = scores[inside]
        self.pairs[: self.kept] = self.pairs[: len(inside)][inside]
        if self.kept > MAX_KEPT * 3 // 4:  # too many equal or nearly equal ones
            self.is_full, self.kept = True, 0
            self.scores, self.pairs = self.scores[:0].copy(), self.pairs[:0].copy()

    def _at(self, position: int) -> float:
        """The kept rough score at a position from the top."""
        place = self.kept - 1 - min(position, self.kept - 1)
        return float(np.partition(self.scores[: self.kept], place)[place])

    def settle(self, rows: Rows) -> int | None:
        """The exact score with `rank` scores before it; None if it may be outside."""
        position = self.rank - self.above
        if self.is_full or not 0 <= position < self.kept:
            return None
        rough = self._at(position)
        low, high = np.float32(rough - 2 * self.error), np.float32(rough + 2 * self.error)
        scores = self.scores[: self.kept]
        near = np.flatnonzero((scores >= low) & (scores <= high))
        if low < self.low or high > self.high or len(near) > self.num * WORTH_A_WALK:
            return None
        i, j = torch.from_numpy(self.pairs[near].T.astype(np.int64))
        exact = np.sort(pair_scores(rows, rows, i, j))[::-1]
        return int(exact[position - np.count_nonzero(scores > high)])


def _brackets(
    rows: Rows, labels: Tensor, ranks: list[int], num: int, error: float
) -> list[Bracket]:
    """Where the scores with these numbers of the impostor pairs above them should lie."""
    sample = sample_scores(rows, labels)
    # Scores of one row rise and fall together: the rows count, not only the scores.
    shares = np.array(ranks) / num
    off = SIGMAS * (
        shares / (_num_draws(labels) * SAMPLE_ROWS) ** 0.5 + (shares / len(sample)) ** 0.5
    )
    # Places from the lowest score up.
    low, high = (len(sample) - 1 - ((shares + x) * len(sample)).astype(int) for x in (off, -off))
    low, high = low - 1, high + 2
    ordered = np.partition(sample, [*low.clip(0), *high.clip(max=len(sample) - 1)])
    return [
        Bracket(
            *(rank, num),
            float(ordered[a]) if a >= 0 else LOWEST,
            float(ordered[b]) if b < len(sample) else 1.0,
            error,
        )
        for rank, a, b in zip(ranks, low.tolist(), high.tolist(), strict=True)
    ]


def _sweep(rows: Rows, labels: Tensor, brackets: list[Bracket], progress: str | None) -> None:
    """Show all impostor pairs to the brackets, which are ordered from the lowest up."""
    unit, buffer, seen = rows.unit(), torch.empty(0), 0
    for up, across, mask in impostor_tiles(labels, shuffled=True, progress=progress):
        a, b = unit[up], unit[across]
        if len(a) * len(b) > len(buffer):
            buffer = torch.empty(len(a) * len(b))
        tile = rough_scores(a, b, out=buffer[: len(a) * len(b)].view(len(a), len(b))).numpy()
        if mask is not None:
            tile[~mask] = LOWEST - 1
        seen += tile.size if mask is None else int(np.count_nonzero(mask))
        scores, places = tile.ravel(), None
        for k, bracket in enumerate(brackets):  # each looks only at what passed the last
            passed = np.flatnonzero(scores >= min(other.low for other in brackets[k:]))
            scores = scores[passed]
            places = passed if places is None else places[passed]
            bracket.add(scores, places, Tile(up.start, across.start, len(b)), seen)
        if all(bracket.is_full for bracket in brackets):
            return  # another way has to be taken


def sample_scores(rows: Rows, labels: Tensor) -> np.ndarray:
    """Rough impostor scores of random rows with random rows, in no order."""
    generator = torch.Generator().manual_seed(0)
    parts = [np.zeros(1, dtype=np.float32)]  # never empty, though all draws meet one identity
    for _ in range(_num_draws(labels)):
        i = torch.randint(len(rows), (SAMPLE_ROWS,), generator=generator)
        j = torch.randint(len(rows), (SAMPLE_COLUMNS,), generator=generator)
        scores = rough_scores(rows[i].unit(), rows[j].unit())
        is_impostor = labels[i][:, None] != labels[j]
        parts.append(np.compress(is_impostor.numpy().ravel(), scores.numpy().ravel()))
    return np.concatenate(parts)


def _num_draws(labels: Tensor) -> int:
    return min(max(count_pairs(labels)[1] // 10_000_000, 2), 64)


def _by_counting(rows: Rows, labels: Tensor, counts: list[int], progress: bool) -> list[int]:
    """As `impostor_thresholds`, by two exact walks: slower, in bounded memory for any scores."""
    num_upper, num_lower = (2 * STEPS >> LOWER_BITS) + 1, 1 << LOWER_BITS
    by_upper = np.zeros(num_upper, dtype=np.int64)
    for _, _, scores, mask in impostor_scores(
        rows, labels, progress="counting" if progress else None
    ):
        kept = scores.ravel() if mask is None else scores[mask]
        by_upper += np.bincount((kept >> LOWER_BITS) + num_upper // 2, minlength=num_upper)
    # above[b]: scores in the b+1 highest bins
    above = by_upper[::-1].cumsum()
    bins = [num_upper - 1 - int(np.searchsorted(above, k, side="right")) for k in counts]
    by_lower = {b: np.zeros(num_lower, dtype=np.int64) for b in bins}
    for _, _, scores, mask in impostor_scores(
        rows, labels, progress="locating" if progress else None
    ):
        kept = scores.ravel() if mask is None else scores[mask]
        upper = (kept >> LOWER_BITS) + num_upper // 2
        for b, histogram in by_lower.items():
            lower = kept[upper == b] & (num_lower - 1)
            histogram += np.bincount(lower, minlength=num_lower)
    thresholds = []
    for k, b in zip(counts, bins, strict=True):
        ends = by_lower[b][::-1].cumsum()
        lower = num_lower - 1 - int(np.searchsorted(ends, k - by_upper[b + 1 :].sum(), "right"))
        thresholds.append(((b - num_upper // 2) << LOWER_BITS) + lower)
    return thresholds
