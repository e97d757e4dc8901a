"""One weighted resample of identities, its TPR at FPR found while impostors come from the top."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.thresholds import sample_scores
from ekd_lite.evaluate.tiles import count_pairs, genuine_scores, impostor_tiles
from ekd_lite.ops import false_accepts_at

CHUNK = 1 << 22  # impostor pairs held at a time, about


@dataclass(frozen=True)
class Impostors:
    """The next scores from the top, descending, and the two identities of each pair."""

    scores: np.ndarray
    first: np.ndarray
    second: np.ndarray


def impostors_from_the_top(unit: Tensor, identity: Tensor, share: float) -> Iterator[Impostors]:
    """All impostor pairs in chunks, the highest scores first.

    A chunk holds about `share` of the pairs, or `CHUNK`, whichever is less. Where chunks are cut is
    guessed from a sample of scores; that every pair comes once, in order, is not.

    Args:
        unit: rows sorted by identity, (N, D).
        identity: 0..I-1, (N,) int64.
        share: of the pairs that are likely to be asked for.
    """
    num = max(count_pairs(identity)[1], 1)
    share = min(share + 1000 / num, CHUNK / num)
    if share < 1:
        sample = sample_scores(unit, identity)
        cuts = [sample[int(k * share * len(sample))] for k in range(1, int(1 / share) + 1)
                if int(k * share * len(sample)) < len(sample)]  # fmt: skip
    else:
        cuts = []
    labels = identity.numpy().astype(np.int32)
    above = np.inf
    for cut in (*cuts, -np.inf):
        if cut >= above:
            continue  # equal scores: all of them came with the chunk before
        parts = []
        for r, c, scores, mask in impostor_tiles(unit, identity):
            wanted = (scores >= cut) & (scores < above)
            flat = np.flatnonzero(wanted if mask is None else wanted & mask)
            i, j = np.divmod(flat, scores.shape[1])
            parts.append((scores.ravel()[flat], labels[r + i], labels[c + j]))
        values, first, second = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(-values, kind="stable")
        yield Impostors(values[order].astype(np.float64), first[order], second[order])
        above = cut


@dataclass(frozen=True)
class Genuine:
    """Genuine scores, descending, negated for `searchsorted`, and the identity of each pair."""

    negated: np.ndarray
    owner: np.ndarray

    @staticmethod
    def of(unit: Tensor, labels: Tensor, sizes: Tensor) -> Genuine:
        """The genuine pairs of unit rows sorted by label."""
        scores = torch.cat([*genuine_scores(unit, labels), torch.zeros(0, dtype=torch.float64)])
        owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes * (sizes - 1) // 2).numpy()
        order = np.argsort(-scores.numpy(), kind="stable")
        return Genuine(-scores.numpy()[order], owner[order])


@dataclass
class Draw:
    """A resample, in which identity i counts w[i] times.

    Attributes:
        weights: w, (I,) uint16.
        levels: false-positive rates, L of them.
        sizes: images of each identity, (I,).
        genuine: the genuine pairs.
        tpr: found so far, (L,) float64; NaN where the draw cannot show a level.
    """

    weights: np.ndarray
    levels: list[float]
    sizes: np.ndarray
    genuine: Genuine
    tpr: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        images = self.weights * self.sizes.astype(np.int64)
        num_impostor = int((images.sum() ** 2 - (images**2).sum()) // 2)
        self.tpr = np.full(len(self.levels), np.nan)
        self.passed = 0  # impostor pairs of the chunks that came before, by weight
        self.allowed = {m: false_accepts_at(x, num_impostor) for m, x in enumerate(self.levels)}
        has_genuine = bool(self.weights[self.genuine.owner].any())
        self.allowed = {m: k for m, k in self.allowed.items() if k > 0 and has_genuine}

    def advance(self, chunk: Impostors) -> bool:
        """Take the next impostors into account; True when every level is decided."""
        ends = np.cumsum(self.weights[chunk.first] * self.weights[chunk.second], dtype=np.int64)
        ends += self.passed
        for m, allowed in list(self.allowed.items()):
            # The first impostor that must not pass: one more than allowed would pass with it.
            position = int(np.searchsorted(ends, allowed, side="right"))
            if position < len(ends):
                self._decide(m, float(chunk.scores[position]))
        self.passed = int(ends[-1]) if len(ends) else self.passed
        return not self.allowed

    def finish(self) -> None:
        """No impostor is left that must not pass: everybody is accepted."""
        for m in list(self.allowed):
            self._decide(m, -np.inf)

    def _decide(self, m: int, threshold: float) -> None:
        """TPR of level m: the genuine pairs, by weight, above the threshold."""
        del self.allowed[m]
        accepted = int(np.searchsorted(self.genuine.negated, -threshold, side="left"))
        weight = self.weights[self.genuine.owner]
        self.tpr[m] = int(weight[:accepted].sum()) / int(weight.sum())
