"""The k-th largest impostor score among billions, exact, in one walk over the tiles.

A sample of scores brackets each wanted one. One sweep then counts the scores above every bracket
and keeps those inside it, equal ones once with their number, so that ties cost nothing. If the
wanted rank falls inside, the score at that rank is exact however the sample was drawn. If not (the
sample misled us, or a bracket held too many different scores), two more walks find it for certain:
one for a histogram of 2^20 bins over [-1, 1], one for the scores in the bins that matter.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.tiles import count_pairs, impostor_tiles
from ekd_lite.ops import largest

NUM_BINS = 1 << 20
DIRECT = 1 << 20  # so few scores are simply sorted
LOOSE = 1 << 21  # scores a bracket holds before equal ones are merged
MAX_DISTINCT = 1 << 23  # different scores a bracket may hold
SAMPLE_ROWS, SAMPLE_COLUMNS = 256, 1024  # of one draw
SIGMAS = 6.0  # how far off the sample may be


class Bracket:
    """Scores in [low, high] with their numbers, and how many lie above."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high, self.above = low, high, 0
        self.values, self.repeats = np.zeros(0), np.zeros(0, dtype=np.int64)
        # One buffer: thousands of small arrays kept between large ones that come and go would
        # leave a heap full of holes, gigabytes of it for 100,000 embeddings.
        self.loose, self.num_loose = np.zeros(0), 0

    def add(self, scores: np.ndarray) -> None:
        """File scores, all of them >= low."""
        is_above = scores > self.high
        self.above += int(np.count_nonzero(is_above))
        if len(self.values) > MAX_DISTINCT:
            return
        kept = np.compress(~is_above, scores)
        if self.num_loose + len(kept) > len(self.loose):
            self.merge()
            if len(kept) > len(self.loose):
                self.loose = np.empty(max(LOOSE, len(kept)), dtype=scores.dtype)
        self.loose[self.num_loose : self.num_loose + len(kept)] = kept
        self.num_loose += len(kept)

    def merge(self) -> None:
        """Put equal scores together."""
        values, repeats = np.unique(self.loose[: self.num_loose], return_counts=True)
        self.num_loose = 0
        repeats = np.concatenate([self.repeats, repeats])
        self.values, where = np.unique(np.concatenate([self.values, values]), return_inverse=True)
        self.repeats = np.bincount(where.reshape(-1), repeats).astype(np.int64)

    def at(self, rank: int) -> float | None:
        """The score with `rank` scores before it, from the top; None if it is not in here."""
        if self.num_loose:
            self.merge()
        ends = self.repeats[::-1].cumsum() + self.above
        is_inside = len(ends) and self.above <= rank < ends[-1]
        if not is_inside or len(self.values) > MAX_DISTINCT:
            return None
        return float(self.values[::-1][np.searchsorted(ends, rank, side="right")])


def impostor_thresholds(
    unit: Tensor, labels: Tensor, counts: list[int], *, progress: bool = False
) -> Tensor:
    """The (k+1)-th largest impostor cosine for every k in `counts`, exact; rows sorted by label."""
    num = count_pairs(labels)[1]
    if num <= DIRECT:
        parts = [
            (scores if mask is None else scores[mask]).ravel()
            for _, _, scores, mask in impostor_tiles(unit, labels)
        ]
        top = largest(torch.from_numpy(np.concatenate(parts)), max(counts) + 1)
        return top[torch.tensor(counts)].double()
    ranks = sorted(set(counts), reverse=True)
    brackets = _brackets(unit, labels, [k / num for k in ranks])
    for _, _, tile, mask in impostor_tiles(unit, labels, progress="pairs" if progress else None):
        scores = tile.ravel() if mask is None else tile[mask]
        for bracket in brackets:  # from the lowest up: each looks only at what passed the last
            # compress: four times as fast as indexing with booleans
            scores = np.compress(scores >= bracket.low, scores)
            bracket.add(scores)
    found = {k: bracket.at(k) for k, bracket in zip(ranks, brackets, strict=True)}
    missed = [k for k, value in found.items() if value is None]
    if missed:
        certain = histogram_thresholds(unit, labels, missed, progress=progress)
        found.update(zip(missed, certain.tolist(), strict=True))
    return torch.tensor([found[k] for k in counts], dtype=torch.float64)


def sample_scores(unit: Tensor, labels: Tensor) -> np.ndarray:
    """Impostor scores of random rows with random rows, from the highest down."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(_num_draws(labels)):
        rows = torch.randint(len(unit), (SAMPLE_ROWS,), generator=generator)
        columns = torch.randint(len(unit), (SAMPLE_COLUMNS,), generator=generator)
        scores = unit[rows] @ unit[columns].T
        parts.append(scores[labels[rows][:, None] != labels[columns]].numpy())
    return np.sort(np.concatenate(parts))[::-1]


def _num_draws(labels: Tensor) -> int:
    return min(max(count_pairs(labels)[1] // 10_000_000, 2), 64)


def _brackets(unit: Tensor, labels: Tensor, shares: list[float]) -> list[Bracket]:
    """Where the scores with these shares of the impostor pairs above them should lie."""
    sample = sample_scores(unit, labels)
    num_rows = _num_draws(labels) * SAMPLE_ROWS
    brackets, floor = [], -np.inf
    for share in shares:
        # Scores of one row rise and fall together: the rows count, not only the scores.
        off = SIGMAS * (share / num_rows**0.5 + (share / len(sample)) ** 0.5)
        last, first = int((share + off) * len(sample)) + 1, int((share - off) * len(sample)) - 1
        low = float(sample[last]) if last < len(sample) else -np.inf
        floor = max(floor, low)
        brackets.append(Bracket(floor, float(sample[first]) if first >= 0 else np.inf))
    return brackets


def _bins(scores: np.ndarray) -> np.ndarray:
    """The histogram bin of each cosine; a monotone map, so order statistics survive it."""
    bins: np.ndarray = np.clip((scores + 1) * (NUM_BINS // 2), 0, NUM_BINS - 1).astype(np.int64)
    return bins


def histogram_thresholds(
    unit: Tensor, labels: Tensor, counts: list[int], *, progress: bool = False
) -> Tensor:
    """As `impostor_thresholds`, without a sample: slower, in bounded memory whatever the scores."""
    histogram = np.zeros(NUM_BINS, dtype=np.int64)
    for _, _, scores, mask in impostor_tiles(
        unit, labels, progress="counting" if progress else None
    ):
        kept = scores.ravel() if mask is None else scores[mask]
        histogram += np.bincount(_bins(kept), minlength=NUM_BINS)
    above = histogram[::-1].cumsum()  # above[b]: scores in the b+1 highest bins
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
