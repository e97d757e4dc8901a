"""1:N: who is it? Ranks, open-set rates, and MegaFace.

A *probe* is compared with every entry of a *gallery*. Closed set: the probe's person is enrolled,
and the rank of the right entry is asked for. Open set: some probes are strangers, and an alarm for
a stranger is a false positive identification,

    FPIR(t) = share of strangers (probes not enrolled) whose best score is >= t,
    TPIR(t) = share of enrolled probes whose own entry scores >= t.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ekd_lite.evaluate.roc import as_levels, tpr_from_split
from ekd_lite.ops import unit_rows

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
    probes: Tensor,
    probe_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    ranks: Sequence[int] = (1, 5, 10),
    fpirs: Iterable[float] | Tensor = (),
) -> IdentificationResult:
    """Search every probe in the gallery.

    An entry that scores the same as the right one counts as ranked before it: a net that gives one
    embedding for every face has rank-1 rate 0, not 1.

    Args:
        probes: (Q, D), not necessarily normalised; for IJB the vectors of `pool_templates`.
        probe_labels: identities, (Q,) int64.
        gallery: (G, D), one entry a person.
        gallery_labels: identities, (G,) int64, all different.
        ranks: R ranks from 1.
        fpirs: L levels in (0, 1] of false positive identifications among strangers.

    Raises:
        ValueError: wrong shapes, NaN, a person enrolled twice, no enrolled probe, a bad rank.
    """
    levels = as_levels(fpirs) if len(fpirs := list(fpirs)) else []
    if not ranks or min(ranks) < 1:
        raise ValueError(f"ranks count from 1, got {tuple(ranks)}")
    probes, probe_labels = check_rows("probes", probes, probe_labels)
    gallery, gallery_labels = check_rows("gallery", gallery, gallery_labels)
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
    own, best, rank = _search(probes, gallery, entry[place])
    rates = [(rank[is_enrolled] <= r).double().mean() for r in ranks]
    strangers = best[~is_enrolled]
    return IdentificationResult(
        ranks=tuple(ranks),
        rank_rates=torch.stack(rates),
        fpirs=tuple(levels),
        tpir=tpr_from_split(own[is_enrolled], strangers, levels) if levels else torch.zeros(0),
        num_enrolled=int(is_enrolled.sum()),
        num_strangers=len(strangers),
    )


def _search(probes: Tensor, gallery: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Score of entry `own`, best score, and rank of entry `own` from 1, of each probe (Q,)."""
    found = []
    for start in range(0, len(probes), BLOCK):
        scores = probes[start : start + BLOCK] @ gallery.T
        mine = scores.gather(1, own[start : start + BLOCK, None])
        # Equal scores rank before: the right entry counts itself, which makes ranks start at 1.
        found.append((mine[:, 0], scores.amax(dim=1), (scores >= mine).sum(dim=1)))
    own_scores, best, rank = (torch.cat(part) for part in zip(*found, strict=True))
    return own_scores, best, rank


def check_rows(name: str, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows (N, D) and labels (N,) of one side."""
    if rows.ndim != 2 or labels.shape != (len(rows),) or not len(rows):
        raise ValueError(
            f"expected {name} (N, D) and their labels (N,), got {tuple(rows.shape)} and "
            f"{tuple(labels.shape)}"
        )
    bad = (~rows.isfinite().all(dim=1)).nonzero().flatten()
    if len(bad):
        raise ValueError(f"{name}: row {int(bad[0])} holds NaN or infinity ({len(bad)} such)")
    return unit_rows(rows.detach().cpu()), labels.detach().cpu().long()
