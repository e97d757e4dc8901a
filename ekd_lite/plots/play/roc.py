"""The ROC by hand: a dozen marked scores and a threshold that moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ekd_lite.plots.play.base import Widget, check_between, rounded

GENUINE = (0.91, 0.84, 0.78, 0.66, 0.55, 0.38)
IMPOSTOR = (0.61, 0.42, 0.30, 0.21, 0.12, 0.04, -0.05, -0.13)


@dataclass(frozen=True)
class RocByHand(Widget):
    """Move a threshold past a few marked scores and watch the ROC being climbed.

    A pair is accepted if its score is at least the threshold. The numbers are those of
    `ekd_lite.evaluate.roc`.

    Args:
        genuine: a few scores of genuine pairs, in [-1, 1]; two decimals are read.
        impostor: of impostor pairs.
        threshold: at the start.

    Raises:
        ValueError: a side without scores, more than 40 of them, or a score that is no cosine.
    """

    name: ClassVar[str] = "roc"
    title: ClassVar[str] = "A threshold over a few scores, with a slider"

    genuine: Sequence[float] = GENUINE
    impostor: Sequence[float] = IMPOSTOR
    threshold: float = 0.5

    def __post_init__(self) -> None:
        for side, scores in (("genuine", self.genuine), ("impostor", self.impostor)):
            if not 1 <= len(scores) <= 40 or not all(-1 <= score <= 1 for score in scores):
                raise ValueError(f"{side} must be 1 to 40 scores in -1..1, got {scores}")
        check_between("threshold", self.threshold, -1, 1)

    def _numbers(self) -> Mapping[str, Any]:
        return {
            "genuine": rounded(self.genuine, 2),
            "impostor": rounded(self.impostor, 2),
            "threshold": self.threshold,
        }

    def _sentence(self) -> str:
        hits, alarms = (
            sum(score >= self.threshold for score in rounded(side, 2))
            for side in (self.genuine, self.impostor)
        )
        return (
            f"A threshold of {self.threshold:.2f} accepts {hits} of {len(self.genuine)} genuine "
            f"and {alarms} of {len(self.impostor)} impostor pairs: one point of the ROC. With "
            "scripts on, the threshold can be moved here, and the point climbs the curve."
        )
