"""Check of chapter 9: MarginDistillation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import between, cosines, instead, teacher_margin_mistakes
from ekd_lite.distill.margin import MarginDistillationLoss
from ekd_lite.heads.margin import add_angle

FAR_SIDE = (
    "Here the teacher has {who} on the far side of the prototype, c < 0. Keep the ratio c / max c "
    "between 0 and 1, so that the margin stays between M_min and M_max: cut c at 0, and keep the "
    "divisor above 0."
)


def _margin(
    student: Tensor, teacher: Tensor, prototypes: Tensor, labels: Tensor,
    scale: float, min_margin: float, max_margin: float,
) -> Any:  # fmt: skip
    loss = MarginDistillationLoss(
        prototypes, scale=scale, min_margin=min_margin, max_margin=max_margin
    )
    return loss(student, teacher, labels)


def _with_margins(margins: Function, lowered: Function = add_angle) -> Function:
    """The loss with other margins of the teacher's cosines, or another way to apply them."""

    def loss(
        student: Tensor, teacher: Tensor, prototypes: Tensor, labels: Tensor,
        scale: float, min_margin: float, max_margin: float,
    ) -> Tensor:  # fmt: skip
        own = labels[:, None]
        typical = cosines(teacher.detach(), prototypes.detach()).gather(1, own)
        cosine = cosines(student, prototypes.detach())
        target = lowered(cosine.gather(1, own), margins(min_margin, max_margin, typical))
        return F.cross_entropy(scale * cosine.scatter(1, own, target), labels)

    return loss


MISTAKES = {
    **teacher_margin_mistakes(_margin, "image", "c"),
    "cosine not divided by its maximum": Mistake(
        "The cosines were not divided by the largest of the batch. The most typical image of the "
        "batch gets M_max: c / max c.",
        _with_margins(lambda low, high, c: low + (high - low) * c.clamp(min=0)),
    ),
    "typical images get less": Mistake(
        "Typical images got the smaller margins. It is the other way round: an image near its "
        "prototype in the teacher must come near it in the student too, so its margin is larger.",
        _with_margins(lambda low, high, c: between(high, low, c)),
    ),
    "no margin at all": Mistake(
        "There is no margin: this is the plain softmax on the teacher's prototypes. The true "
        "identity's logit is s cos(theta + m).",
        instead(_margin, min_margin=lambda a: 0.0, max_margin=lambda a: 0.0),
    ),
    "margin taken from the cosine": Mistake(
        "The margin was taken from the cosine, as in CosFace. Here it is added to the angle: "
        "cos(theta + m).",
        _with_margins(between, torch.sub),
    ),
}


def _cases() -> list[Case]:
    by_hand = real([[3.0, 4.0], [1.0, 2.0]]), real([[1.0, 0.0], [1.0, 1.0]])
    prototypes = normal(111, 4, 6)
    cases = [
        Case("by hand", (*by_hand, torch.eye(2).double(), torch.tensor([0, 1]), 4.0, 0.2, 0.5))
    ]
    for seed, scale, low, high in ((112, 8.0, 0.2, 0.5), (115, 16.0, 0.1, 0.4)):
        labels = torch.randint(4, (6,), generator=torch.Generator().manual_seed(seed))
        student = prototypes[labels] + 0.4 * normal(seed + 1, 6, 6)
        teacher = prototypes[labels] + 0.6 * normal(seed + 2, 6, 6)
        arguments = (student, 2 * teacher, 0.5 * prototypes, labels, scale, low, high)
        cases.append(Case(f"6 images, scale {scale:.0f}", arguments))
    student, teacher, *others = cases[1].arguments
    one = torch.cat([-teacher[:1], teacher[1:]])
    for who, far in (("one image", one), ("every image", -teacher)):
        arguments = (student, far, *others)
        cases.append(Case(f"{who} on the far side", arguments, FAR_SIDE.format(who=who)))
    return cases


MARGIN = Exercise(
    "margin",
    _margin,
    _cases,
    MISTAKES,
    gradient=("student",),
    detached=("teacher", "prototypes"),
)


def check_margin(f: Function) -> Feedback:
    """Check a function for MarginDistillation.

    Args:
        f: f(student (N, D), teacher (N, D), prototypes (C, D), labels (N,), scale, min_margin,
            max_margin) -> 0-dim, the cross-entropy of ArcFace logits on the teacher's prototypes
            with the margin m_i = M_min + (M_max - M_min) c_i / max c, c_i = cos(f^t_i, W_y), and
            the ratio c_i / max c kept between 0 and 1; no gradient to the teacher or its
            prototypes.
    """
    return judge(MARGIN, f)
