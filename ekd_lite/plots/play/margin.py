"""Margins by hand: scale, margin and number of people, and the angle that they demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ekd_lite.plots.play.base import Widget, check_between

HEADS = ("NormFace", "CosFace", "ArcFace")
PEOPLE = (10, 100, 200, 1000, 10_000, 85_742, 1_000_000)


@dataclass(frozen=True)
class MarginByHand(Widget):
    """Turn an image towards its prototype under a head, a scale, a margin and so many people.

    All other prototypes stand at right angles to the image, as most do in many dimensions. Shown
    are the logit, the probability of the right person, the loss and the pull dL/dtheta: the numbers
    of the heads in `ekd_lite.heads` with cross-entropy. The demanded angle is the largest at which
    the right person has a probability of one half.

    Args:
        head: "NormFace", "CosFace" or "ArcFace" at the start.
        scale: s at the start, a whole number from 1 to 96.
        margin: m, from 0 to 0.8 (of ArcFace in radians, of CosFace a cosine).
        people: C, one of `PEOPLE`.
        angle: theta at the start, in degrees from 0 to 180.

    Raises:
        ValueError: a start that is out of range.
    """

    name: ClassVar[str] = "margin"
    title: ClassVar[str] = "An image and its prototype under a margin, with sliders"

    head: str = "ArcFace"
    scale: int = 64
    margin: float = 0.5
    people: int = 85_742
    angle: float = 65.0

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise ValueError(f"head must be one of {HEADS}, got {self.head!r}")
        if self.people not in PEOPLE:
            raise ValueError(f"people must be one of {PEOPLE}, got {self.people}")
        check_between("scale", self.scale, 1, 96)
        check_between("margin", self.margin, 0, 0.8)
        check_between("angle", self.angle, 0, 180)

    def _numbers(self) -> Mapping[str, Any]:
        return {
            "heads": HEADS,
            "people": PEOPLE,
            "start": [
                self.head,
                self.scale,
                self.margin,
                PEOPLE.index(self.people),
                self.angle,
            ],
        }

    def _sentence(self) -> str:
        return (
            f"{self.head} with scale {self.scale}, margin {self.margin:g} and {self.people:,} "
            f"people, for an image {self.angle:g} degrees from its prototype. With scripts on, all "
            "of these can be moved here; probability, loss, pull and the demanded angle follow."
        )
