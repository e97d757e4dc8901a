"""EKD by hand: one pair, two nets, their thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ekd_lite.plots.play.base import Widget, check_between, check_lengths, rounded

TEMPERATURES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)


@dataclass(frozen=True)
class EkdByHand(Widget):
    """Move one pair's cosines over both nets' thresholds, and the temperature; see what EKD does.

    Shown are how many thresholds the pair passes in each net, both soft ranks, their squared
    difference (the pair's share of the loss, without weights) and the force -dL/da on the
    student's cosine a: the numbers of `ekd_lite.distill.soft_rank` and `EKDLoss`.

    Args:
        student_thresholds: of the L levels, in the order of `fprs`.
        teacher_thresholds: the teacher's.
        fprs: the levels.
        student: the student's cosine at the start.
        teacher: the teacher's.
        temperature: tau at the start, one of `TEMPERATURES`.

    Raises:
        ValueError: thresholds and levels of different number, or a start that is out of range.
    """

    name: ClassVar[str] = "ekd"
    title: ClassVar[str] = "One pair under EKD, with sliders"

    student_thresholds: Sequence[float]
    teacher_thresholds: Sequence[float]
    fprs: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    student: float = 0.3
    teacher: float = 0.7
    temperature: float = 0.01

    def __post_init__(self) -> None:
        check_lengths(
            student_thresholds=self.student_thresholds,
            teacher_thresholds=self.teacher_thresholds,
            fprs=self.fprs,
        )
        check_between("student", self.student, -0.2, 1)
        check_between("teacher", self.teacher, -0.2, 1)
        if self.temperature not in TEMPERATURES:
            raise ValueError(f"temperature must be one of {TEMPERATURES}, got {self.temperature}")

    def _numbers(self) -> Mapping[str, Any]:
        return {
            "student": rounded(self.student_thresholds),
            "teacher": rounded(self.teacher_thresholds),
            "fprs": [f"{fpr:g}" for fpr in self.fprs],
            "temperatures": TEMPERATURES,
            "start": [self.student, self.teacher, TEMPERATURES.index(self.temperature)],
        }

    def _sentence(self) -> str:
        count, other = (
            sum(score > threshold for threshold in rounded(thresholds))
            for score, thresholds in (
                (self.teacher, self.teacher_thresholds),
                (self.student, self.student_thresholds),
            )
        )
        return (
            f"A pair with cosine {self.teacher:.2f} in the teacher passes {count} of its "
            f"{len(self.fprs)} thresholds; with {self.student:.2f} in the student it passes "
            f"{other} of the student's. With scripts on, both cosines and the temperature can be "
            "moved here, and ranks, loss and force follow."
        )
