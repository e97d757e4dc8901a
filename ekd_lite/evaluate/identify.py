"""1:N: who is it? Ranks, open-set rates, and MegaFace.

A *probe* is compared with every entry of a *gallery*. Closed set: the probe's person is enrolled,
and the rank of the right entry is asked for. Open set: some probes are strangers, and an alarm for
a stranger is a false positive identification,

    FPIR(t) = share of strangers (probes not enrolled) whose best score is >= t,
    TPIR(t) = share of enrolled probes whose own entry scores >= t.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ekd_lite.evaluate.inputs import Array, Levels, as_labels, as_levels, as_rows, as_tensor
from ekd_lite.evaluate.roc import tpr_from_split
from ekd_lite.evaluate.scores import (
    MAX_CELLS,
    NOBODY,
    STEPS,
    Rows,
    fixed_rows,
    pair_scores,
    rough_error,
    rough_scores,
)

BLOCK = 1024  # probes, and distractors, compared at a time


@dataclass(frozen=True)
class IdentificationResult:
    """What a search of Q probes in a gallery says.

    Attributes:
        ranks: as asked for.
        rank_rates: share of enrolled probes whose own entry is among the `rank` best, (R,).
        fpirs: levels, as asked for.
        tpir: TPIR at FPIR, the largest with FPIR <= level, (L,); NaN without strangers.
        num_enrolled: probes whose person is in the gallery.
        num_strangers: probes whose person is not.
    """

    ranks: tuple[int, ...]
    rank_rates: Tensor
    fpirs: tuple[float, ...]
    tpir: Tensor
    num_enrolled: int
    num_strangers: int


def identification_rate(
    probes: Array,
    probe_labels: Array,
    gallery: Array,
    gallery_labels: Array,
    *,
    ranks: Array = (1, 5, 10),
    fpirs: Levels = (),
) -> IdentificationResult:
    """Search every probe in the gallery.

    Scores are those of `all_pairs_tpr_at_fpr`. An entry that scores the same as the right one
    counts as ranked before it: a net that gives one embedding for every face has rank-1 rate 0,
    not 1.

    Args:
        probes: (Q, D), not necessarily normalised; for IJB the vectors of `pool_templates`.
        probe_labels: identities, (Q,), whole numbers.
        gallery: (G, D), one entry a person.
        gallery_labels: identities, (G,), all different.
        ranks: R ranks from 1.
        fpirs: L levels in (0, 1] of false positive identifications among strangers.

    Raises:
        ValueError: wrong shapes, NaN, a person enrolled twice, no enrolled probe, a bad rank.
    """
    is_empty = isinstance(fpirs, Sized) and not len(fpirs)
    levels = [] if is_empty else as_levels(fpirs)
    asked = as_tensor("ranks", ranks).flatten()  # one rank is a list of one
    ranks = tuple(as_labels("ranks", asked, len(asked)).tolist())
    if not ranks or min(ranks) < 1:
        raise ValueError(f"ranks count from 1, got {ranks}")
    probes, probe_labels = check_rows("probes", probes, probe_labels)
    gallery, gallery_labels = check_rows("gallery", gallery, gallery_labels)
    check_widths("probes", probes, "gallery", gallery)
    by_label, entry = gallery_labels.sort()
    twice = by_label[1:][by_label[1:] == by_label[:-1]]
    if len(twice):
        raise ValueError(
            f"identity {int(twice[0])} is enrolled more than once; pool the images of a person "
            "into one entry, for example with pool_templates"
        )
    place = torch.searchsorted(by_label, probe_labels).clamp_(max=len(entry) - 1)
    is_enrolled = by_label[place] == probe_labels
    if not is_enrolled.any():
        raise ValueError("no probe shows a person of the gallery: there is nothing to rank")
    sides = fixed_rows("probes", probes), fixed_rows("gallery", gallery)
    own, rank = _rank(sides[0][is_enrolled], sides[1], entry[place][is_enrolled])
    rates = [(rank <= r).double().mean() for r in ranks]
    strangers = _best(sides[0][~is_enrolled], sides[1]) if levels else own[:0]
    return IdentificationResult(
        ranks=ranks,
        rank_rates=torch.stack(rates),
        fpirs=tuple(levels),
        tpir=tpr_from_split(own, strangers, levels) if levels else torch.zeros(0),
        num_enrolled=int(is_enrolled.sum()),
        num_strangers=int((~is_enrolled).sum()),
    )


def _rank(probes: Rows, gallery: Rows, own: Tensor) -> tuple[Tensor, Tensor]:
    """Score of entry `own`, and its rank from 1, of each probe (Q,)."""
    scores, ranks = pair_scores(probes, gallery, torch.arange(len(probes)), own), []
    for part, rough, error in _rough_blocks(probes, gallery):
        mine = scores[part]
        rough_mine = (mine[:, None] / STEPS).astype(np.float32)
        low, high = rough_mine - error, rough_mine + error
        above = np.count_nonzero(rough > high, axis=1)
        near = np.count_nonzero(rough >= low, axis=1) - above
        # An equal score ranks before. The right entry itself is near; only others are looked at.
        equal = np.ones(len(mine), dtype=np.int64)
        rows = np.flatnonzero(near > 1)
        if len(rows):
            some = rough[rows]
            i, j = np.nonzero((some >= low[rows]) & (some <= high[rows]))
            exact = _exact(probes[part], gallery, rows[i], j)
            equal[rows] = np.bincount(i[exact >= mine[rows][i]], minlength=len(rows))
        ranks.append(above + equal)
    return torch.from_numpy(scores), torch.from_numpy(np.concatenate(ranks))


def _best(probes: Rows, gallery: Rows) -> Tensor:
    """The highest score of each probe (Q,)."""
    best = np.full(len(probes), NOBODY)
    for part, rough, error in _rough_blocks(probes, gallery):
        i, j = np.nonzero(rough >= rough.max(axis=1, keepdims=True) - 2 * error)
        np.maximum.at(best[part], i, _exact(probes[part], gallery, i, j))
    return torch.from_numpy(best)


def _rough_blocks(probes: Rows, gallery: Rows) -> Iterator[tuple[slice, np.ndarray, np.float32]]:
    """Cosines (n, G) in float32 of some probes at a time, and how far they may be off.

    The next ones take their place.
    """
    error = np.float32(min(rough_error(gallery.fixed.shape[1]), 4.0))
    unit = gallery.unit()
    step = max(1, min(BLOCK, MAX_CELLS // len(gallery)))
    room = torch.empty(min(step, len(probes)), len(gallery))  # one for all: fresh pages are dear
    for start in range(0, len(probes), step):
        part = slice(start, start + step)
        first = probes[part].unit()
        yield part, rough_scores(first, unit, out=room[: len(first)]).numpy(), error


def _exact(probes: Rows, gallery: Rows, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return pair_scores(probes, gallery, torch.from_numpy(i), torch.from_numpy(j))


def check_rows(name: str, rows: Array, labels: Array) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) and labels (N,) of one side, their shapes checked."""
    rows, labels = as_rows(name, rows), as_tensor("labels", labels)
    if labels.shape != (len(rows),) or not len(rows):
        raise ValueError(
            f"expected {name} (N, D) and their labels (N,), got {tuple(rows.shape)} and "
            f"{tuple(labels.shape)}"
        )
    return rows, as_labels("labels", labels, len(rows))


def check_widths(first: str, rows: Tensor, second: str, others: Tensor) -> None:
    """Raise a ValueError unless both sides are as wide."""
    if rows.shape[1] != others.shape[1]:
        raise ValueError(f"{first} have width {rows.shape[1]}, {second} {others.shape[1]}")
