"""One weighted resample of identities, its TPR at FPR found while impostors come from the top."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.scores import NOBODY, STEPS, Rows
from ekd_lite.evaluate.thresholds import sample_scores
from ekd_lite.evaluate.tiles import count_pairs, genuine_scores, impostor_scores
from ekd_lite.ops import false_accepts_at

CHUNK = 1 << 22  # impostor pairs held at a time, about


@dataclass(frozen=True)
class Impostors:
    """The next scores from the top, descending, and the two identities of each pair."""

    scores: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def take(self, which: np.ndarray) -> Impostors:
        """Some of the pairs, by number or by flag."""
        return Impostors(self.scores[which], self.first[which], self.second[which])

    @staticmethod
    def of(parts: list[Impostors]) -> Impostors:
        """Several parts in one."""
        return Impostors(
            *(np.concatenate([getattr(part, name) for part in parts])
              for name in ("scores", "first", "second"))
        )  # fmt: skip


def impostors_from_the_top(rows: Rows, identity: Tensor, share: float) -> Iterator[Impostors]:
    """All impostor pairs in chunks, the highest scores first.

    A chunk holds about `share` of the pairs, or `CHUNK`, whichever is less. Where chunks are cut is
    guessed from a sample of scores; that every pair comes once, in order, is not. Pairs of one
    score, if there are more than a chunk takes, come in several.

    Args:
        rows: sorted by identity, N of them.
        identity: 0..I-1, (N,) int64.
        share: of the pairs that are likely to be asked for.
    """
    num = max(count_pairs(identity)[1], 1)
    share = min(share + 1000 / num, CHUNK / num)
    cuts = []
    if share < 1:
        sample = np.sort(np.rint(sample_scores(rows, identity) * float(STEPS)))[::-1]
        places = (int(k * share * len(sample)) for k in range(1, int(1 / share) + 1))
        cuts = [int(sample[place]) for place in places if place < len(sample)]
    above = STEPS + 1
    for guess in (*cuts, -STEPS):
        while above > guess:
            cut, chunk = _collect(rows, identity, guess, above)
            if chunk is not None:
                yield chunk
            else:
                cut = above - 1
                yield from _equal(rows, identity, cut)
            above = cut


def _collect(rows: Rows, identity: Tensor, cut: int, above: int) -> tuple[int, Impostors | None]:
    """The pairs with cut <= score < above, after the cut was raised until they are few enough.

    Returns:
        The cut, and the pairs in order; None if those of score above - 1 alone are too many.
    """
    labels = identity.numpy().astype(np.int32)
    parts: list[Impostors] = []
    held = 0
    for r, c, scores, mask in impostor_scores(rows, identity):
        wanted = (scores >= cut) & (scores < above)
        flat = np.flatnonzero(wanted if mask is None else wanted & mask)
        i, j = np.divmod(flat, scores.shape[1])
        parts.append(Impostors(scores.ravel()[flat], labels[r + i], labels[c + j]))
        held += len(flat)
        if held > 2 * CHUNK:
            whole = Impostors.of(parts)
            cut = int(np.partition(whole.scores, held - CHUNK)[held - CHUNK])
            if np.count_nonzero(whole.scores >= cut) > 3 * CHUNK // 2:
                cut += 1  # without the equal ones
            if cut >= above:
                return cut, None
            parts = [whole.take(whole.scores >= cut)]
            held = len(parts[0].scores)
    whole = Impostors.of(parts)
    return cut, whole.take(np.argsort(-whole.scores, kind="stable"))


def _equal(rows: Rows, identity: Tensor, score: int) -> Iterator[Impostors]:
    """All pairs of one score, tile by tile."""
    labels = identity.numpy().astype(np.int32)
    for r, c, scores, mask in impostor_scores(rows, identity):
        flat = np.flatnonzero(scores == score if mask is None else mask & (scores == score))
        i, j = np.divmod(flat, scores.shape[1])
        if len(flat):
            yield Impostors(scores.ravel()[flat], labels[r + i], labels[c + j])


@dataclass(frozen=True)
class Genuine:
    """Genuine scores, descending, negated for `searchsorted`, and the identity of each pair."""

    negated: np.ndarray
    owner: np.ndarray
    pairs: np.ndarray  # of each identity, (I,)
    by: Literal["pair", "person"] = "pair"

    @staticmethod
    def of(
        rows: Rows, labels: Tensor, sizes: Tensor, by: Literal["pair", "person"] = "pair"
    ) -> Genuine:
        """The genuine pairs of rows sorted by label."""
        negated = -np.concatenate([*genuine_scores(rows, labels), np.zeros(0, dtype=np.int32)])
        pairs = sizes * (sizes - 1) // 2
        owner = torch.repeat_interleave(torch.arange(len(sizes)), pairs).numpy()
        order = np.argsort(negated, kind="stable")
        return Genuine(negated[order], owner[order], pairs.numpy(), by)

    def tpr(self, accepted: int, weights: np.ndarray) -> float:
        """TPR if the first so many pairs pass and identity i counts weights[i] times."""
        if self.by == "pair":
            weight = weights[self.owner]
            return int(weight[:accepted].sum()) / int(weight.sum())
        passed = np.bincount(self.owner[:accepted], minlength=len(self.pairs))
        several = self.pairs > 0
        share = passed[several] / self.pairs[several]
        return float((share * weights[several]).sum() / int(weights[several].sum()))


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
                self._decide(m, int(chunk.scores[position]))
        self.passed = int(ends[-1]) if len(ends) else self.passed
        return not self.allowed

    def finish(self) -> None:
        """No impostor is left that must not pass: everybody is accepted."""
        for m in list(self.allowed):
            self._decide(m, NOBODY)

    def _decide(self, m: int, threshold: int) -> None:
        """TPR of level m: the genuine pairs, by weight, above the threshold."""
        del self.allowed[m]
        accepted = int(np.searchsorted(self.genuine.negated, -threshold, side="left"))
        self.tpr[m] = self.genuine.tpr(accepted, self.weights)
