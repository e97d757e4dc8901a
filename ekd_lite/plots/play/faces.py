"""Two faces: which net accepts which pairs, and the few pairs on which two nets differ."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ekd_lite.data import FaceSet
from ekd_lite.ops import false_accepts_at, largest, unit_rows
from ekd_lite.plots.play.base import Widget, check_lengths, jpeg, rounded

PEOPLE, PHOTOS = 4, 3
MOST = 4000  # pictures whose pairs are all compared at once


@dataclass(frozen=True)
class TwoFaces(Widget):
    """Choose two faces and an FPR; see which net accepts the pair, and which pairs are critical.

    `two_faces` makes one from a set of faces and the nets' embeddings.

    Attributes:
        pictures: JPEG bytes of the N pictures shown.
        people: who is on each, (N,), from 0.
        cosines: net -> cosines of the pairs i < j, row by row; the teacher first.
        thresholds: net -> its threshold at each level; a pair passes strictly above it.
        tprs: net -> its TPR at each level over the whole set.
        fprs: the levels.
        total: how many genuine pairs the whole set has.
    """

    name: ClassVar[str] = "faces"
    title: ClassVar[str] = "Two faces before three nets"

    pictures: Sequence[bytes] = field(repr=False)
    people: Sequence[int]
    cosines: Mapping[str, Sequence[float]] = field(repr=False)
    thresholds: Mapping[str, Sequence[float]]
    tprs: Mapping[str, Sequence[float]]
    fprs: Sequence[float]
    total: int

    def __post_init__(self) -> None:
        check_lengths(pictures=self.pictures, people=self.people)
        if len(self.cosines) < 2 or not self.cosines.keys() == self.thresholds.keys() == {
            *self.tprs
        }:
            raise ValueError("expected a teacher and at least one student, in all three tables")
        pairs = range(len(self.pictures) * (len(self.pictures) - 1) // 2)
        for net in self.cosines:
            check_lengths(pairs=pairs, cosines=self.cosines[net])
            check_lengths(fprs=self.fprs, thresholds=self.thresholds[net], tprs=self.tprs[net])

    def _numbers(self) -> Mapping[str, Any]:
        return {
            "pictures": [base64.b64encode(picture).decode() for picture in self.pictures],
            "people": list(self.people),
            "nets": list(self.cosines),
            "cosines": [rounded(values, 7) for values in self.cosines.values()],
            "thresholds": [rounded(values, 7) for values in self.thresholds.values()],
            "tprs": [rounded(values, 7) for values in self.tprs.values()],
            "fprs": [f"{fpr:.0e}".replace("e-0", "e-") for fpr in self.fprs],
            "total": self.total,
        }

    def _sentence(self) -> str:
        level = len(self.fprs) // 2
        rates = ", ".join(f"{net} {self.tprs[net][level]:.2f}" for net in self.cosines)
        return (
            f"Shares of the {self.total:,} genuine pairs that are accepted at FPR "
            f"{self.fprs[level]:g}: {rates}. With scripts on, two faces and the FPR can be chosen "
            "here, and the pairs on which the nets differ light up."
        )


def two_faces(
    faces: FaceSet,
    embeddings: Mapping[str, Tensor],
    *,
    fprs: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4),
) -> TwoFaces:
    """Make a `TwoFaces` of 12 pictures on which the teacher and the first student differ.

    Thresholds and TPRs come from all pairs of the whole set, by the rule of
    `ekd_lite.evaluate.tpr_at_fpr`; shown are four people, chosen for the pairs between and within
    them that only one of the two nets accepts at the middle level.

    Args:
        faces: at most 4,000 pictures.
        embeddings: net -> its embeddings of all of them, (N, D); the teacher first.
        fprs: levels that the impostor pairs of the set can show.

    Returns:
        The widget, some 32 kB of HTML for pictures of 32 pixels.

    Raises:
        ValueError: fewer than two nets, embeddings that do not fit the faces, too many pictures,
            fewer than four people with three pictures, or a level that the set cannot show.
    """
    labels, nets = faces.labels.cpu(), list(embeddings)
    count = len(labels)
    if len(nets) < 2 or any(len(rows) != count for rows in embeddings.values()) or count > MOST:
        shapes = {net: tuple(rows.shape) for net, rows in embeddings.items()}
        raise ValueError(
            f"expected two nets or more, each with a row for each of at most {MOST} pictures; "
            f"got {shapes} for {count}"
        )
    first, second = torch.triu_indices(count, count, offset=1)
    same = labels[first] == labels[second]
    ranks = [false_accepts_at(fpr, int((~same).sum())) for fpr in fprs]
    if not ranks or min(ranks) < 1:
        raise ValueError(f"{int((~same).sum())} impostor pairs cannot show all of {list(fprs)}")
    cosines, thresholds, tprs = {}, {}, {}
    for net, rows in embeddings.items():
        unit = unit_rows(rows.detach().double().cpu())
        whole = unit @ unit.T
        scores = whole[first, second]
        thresholds[net] = largest(scores[~same], max(ranks) + 1)[ranks]
        tprs[net] = (scores[same][:, None] > thresholds[net]).double().mean(0)
        cosines[net] = whole
    level = len(fprs) // 2
    teacher, student = ((cosines[net] - thresholds[net][level]) for net in nets[:2])
    shown = _choose((teacher > 0) != (student > 0), (teacher - student).abs(), labels)
    i, j = torch.triu_indices(len(shown), len(shown), offset=1)
    return TwoFaces(
        pictures=[jpeg(picture) for picture in faces.batch(shown)],
        people=[place // PHOTOS for place in range(len(shown))],
        cosines={net: whole[shown][:, shown][i, j].tolist() for net, whole in cosines.items()},
        thresholds={net: values.tolist() for net, values in thresholds.items()},
        tprs={net: values.tolist() for net, values in tprs.items()},
        fprs=tuple(fprs),
        total=int(same.sum()),
    )


def _choose(critical: Tensor, apart: Tensor, labels: Tensor) -> list[int]:
    """Three pictures of each of four people, by the size of their disagreements; all (N, N)."""
    counts = labels.bincount()
    weight = torch.where(critical, apart, 0.01 * apart).fill_diagonal_(0)
    different = weight * (labels[:, None] != labels)
    chosen: list[int] = []
    for place in different.triu().flatten().topk(min(5000, len(labels) ** 2)).indices.tolist():
        pair = divmod(place, len(labels))
        taken = labels[chosen].tolist()
        if any(int(labels[at]) in taken or counts[labels[at]] < PHOTOS for at in pair):
            continue
        if labels[pair[0]] == labels[pair[1]]:
            break  # nothing is left but zeros
        for at in pair:  # the picture itself, and the two that disagree most with it
            own = torch.where(labels == labels[at], weight[at], -1.0)
            own[at] = 1e3
            chosen += own.topk(PHOTOS).indices.sort().values.tolist()
        if len(chosen) == PEOPLE * PHOTOS:
            return chosen
    raise ValueError(f"expected {PEOPLE} people with {PHOTOS} pictures each, at least")
