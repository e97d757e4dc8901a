"""Soft labels: what a teacher and a student believe about a picture, and a temperature."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ekd_lite.data import FaceSet
from ekd_lite.plots.play.base import Widget, check_lengths, jpeg

TEMPERATURES = (0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8, 12, 16, 32)
STEPS = 1000  # logits are told in thousandths, so that those of 1,000 people are short
LARGEST = 32.0


@dataclass(frozen=True)
class SoftLabels(Widget):
    """Move the temperature; see whom teacher and student take a picture for, and KD's loss.

    `soft_labels` makes one from a set of faces and the nets' logits. The numbers are those of
    `ekd_lite.distill.KDLoss` on logits in thousandths.

    Attributes:
        pictures: JPEG bytes of the pictures shown.
        portraits: person -> JPEG bytes, of everybody named in `likely`.
        people: who is on each picture.
        likely: for each picture, the person on it and those whom the teacher thinks likeliest.
        teacher: logits of each picture, (C,) each.
        student: the student's.
        temperature: T at the start, one of `TEMPERATURES`.
    """

    name: ClassVar[str] = "soft"
    title: ClassVar[str] = "Beliefs about a picture, with a temperature"

    pictures: Sequence[bytes] = field(repr=False)
    portraits: Mapping[int, bytes] = field(repr=False)
    people: Sequence[int]
    likely: Sequence[Sequence[int]]
    teacher: Sequence[Tensor] = field(repr=False)
    student: Sequence[Tensor] = field(repr=False)
    temperature: float = 4

    def __post_init__(self) -> None:
        lists = {"people": self.people, "likely": self.likely}
        logits = {"teacher": self.teacher, "student": self.student}
        check_lengths(pictures=self.pictures, **lists, **logits)
        if self.temperature not in TEMPERATURES:
            raise ValueError(f"temperature must be one of {TEMPERATURES}, got {self.temperature}")
        for row in (*self.teacher, *self.student):
            if row.ndim != 1 or not bool((row.abs() <= LARGEST).all()):
                raise ValueError(f"logits must be (C,) and at most {LARGEST:g} in size")

    def _numbers(self) -> Mapping[str, Any]:
        return {
            "pictures": [base64.b64encode(one).decode() for one in self.pictures],
            "portraits": {k: base64.b64encode(one).decode() for k, one in self.portraits.items()},
            "people": list(self.people),
            "likely": [list(few) for few in self.likely],
            "teacher": [_short(row) for row in self.teacher],
            "student": [_short(row) for row in self.student],
            "temperatures": TEMPERATURES,
            "start": TEMPERATURES.index(self.temperature),
        }

    def _sentence(self) -> str:
        q, p = (
            float((rows[0].double() / self.temperature).softmax(0)[self.people[0]])
            for rows in (self.teacher, self.student)
        )
        return (
            f"At temperature {self.temperature:g} the teacher gives the person on the first "
            f"picture the probability {q:.2g}, the student {p:.2g}. With scripts on, the "
            "temperature can be moved here, and the beliefs of both nets and the loss of KD follow."
        )


def soft_labels(
    faces: FaceSet,
    places: Sequence[int],
    teacher: Tensor,
    student: Tensor,
    *,
    temperature: float = 4,
    rivals: int = 6,
) -> SoftLabels:
    """Make a `SoftLabels` of a few pictures of training people.

    Args:
        faces: the training set; its labels are the classes of the logits.
        places: of one to three pictures in it.
        teacher: logits of these pictures, (len(places), C), without margin.
        student: the student's.
        temperature: T at the start.
        rivals: how many other people to show with each, the teacher's likeliest.

    Returns:
        The widget, some 35 kB of HTML for two pictures of 32 pixels and 1,000 people.

    Raises:
        ValueError: another number of pictures, logits of another shape, or fewer people than shown.
    """
    shape = (len(places), faces.num_identities)
    if not 1 <= len(places) <= 3 or teacher.shape != shape or student.shape != shape:
        got = f"{tuple(teacher.shape)} and {tuple(student.shape)}"
        raise ValueError(f"expected 1 to 3 places and logits {shape} of them, got {got}")
    if not 1 <= rivals < faces.num_identities:
        raise ValueError(f"rivals must be in 1..{faces.num_identities - 1}, got {rivals}")
    labels = faces.labels.cpu()
    people = labels[list(places)].tolist()
    teacher, student = teacher.detach().double().cpu(), student.detach().double().cpu()
    others = teacher.scatter(1, torch.tensor(people)[:, None], -torch.inf)
    likely = [
        [own, *row.topk(rivals).indices.tolist()] for own, row in zip(people, others, strict=True)
    ]
    shown = sorted({person for few in likely for person in few})
    first = [int((labels == person).nonzero()[0]) for person in shown]
    return SoftLabels(
        pictures=[jpeg(one) for one in faces.batch(places)],
        portraits={k: jpeg(one) for k, one in zip(shown, faces.batch(first), strict=True)},
        people=people,
        likely=likely,
        teacher=list(teacher),
        student=list(student),
        temperature=temperature,
    )


def _short(logits: Tensor) -> str:
    """Logits in thousandths as little-endian 16-bit numbers in base 64."""
    steps = (logits * STEPS).round().to(torch.int16).cpu().numpy().astype("<i2")
    return base64.b64encode(steps.tobytes()).decode()
