"""Check of chapter 4: ArcFace."""

from __future__ import annotations

import math

import torch

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import head_mistakes, instead, logits, own_lowered
from ekd_lite.heads.margin import add_angle

PARALLEL = (
    "Here embeddings are parallel to their prototypes. Rounding makes a cosine of 1.0000001, "
    "whose arccos is NaN, and at 1 the slope of arccos and of sqrt(1 - cos^2) is infinite: "
    "clamp the cosine to -1 + 1e-6 .. 1 - 1e-6 first."
)

_arcface = logits(own_lowered(add_angle))


def _by_angle(changed: Function) -> Function:
    """The head that puts cos(changed(theta, margin)) at the true identity."""
    return logits(
        own_lowered(lambda c, m: torch.cos(changed(torch.acos(c.clamp(-1 + 1e-6, 1 - 1e-6)), m)))
    )


MISTAKES = {
    "margin in degrees": Mistake(
        "The margin was taken for degrees. A margin of 0.5 is in radians, some 28.6 degrees; "
        "0.5 degrees would hardly be a margin. torch computes in radians throughout, so no "
        "conversion is needed.",
        instead(_arcface, margin=lambda a: math.radians(a.margin)),
    ),
    "margin turned into degrees": Mistake(
        "The margin was turned into degrees, but torch.cos takes radians. 0.5 became 28.6 radians, "
        "which is several full turns. Add the margin as it comes.",
        _by_angle(lambda theta, m: theta + math.degrees(m)),
    ),
    **head_mistakes(_arcface, add_angle),
    "margin on the cosine": Mistake(
        "This is CosFace, cos(theta) - m. ArcFace adds its margin to the angle: cos(theta + m).",
        logits(own_lowered(torch.sub)),
    ),
    "angle made smaller": Mistake(
        "The margin makes the angle smaller: this is cos(theta - m). The true identity must look "
        "worse than it is, so its angle grows. With the addition theorem mind the sign: "
        "cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m).",
        _by_angle(lambda theta, m: theta - m),
    ),
    "margin as a factor": Mistake(
        "The margin multiplies the angle, as SphereFace's does. ArcFace's is added: "
        "cos(theta + m).",
        _by_angle(lambda theta, m: theta * m),
    ),
    "second term missing": Mistake(
        "The second term of the addition theorem is missing. cos(theta + m) = cos(theta) cos(m) - "
        "sin(theta) sin(m); cos(theta) cos(m) alone shrinks every cosine instead of turning it.",
        logits(own_lowered(lambda c, m: c * math.cos(m))),
    ),
    "margin only where it is near": Mistake(
        'Images more than a right angle from their prototype got no margin ("easy margin"). They '
        "are the hardest ones. Add the margin wherever theta + m stays below pi.",
        logits(own_lowered(lambda c, m: torch.where(c > 0, add_angle(c, m), c))),
    ),
    "margin without gradient": Mistake(
        "The value is right, but the margin is hidden from the gradient. Computed under no_grad() "
        "or detached, cos(theta + m) gets the slope of cos(theta). Its own is sin(theta + m) / "
        "sin(theta) times that: let the gradient flow through the margin too.",
        logits(own_lowered(lambda c, m: c + (add_angle(c, m) - c).detach())),
    ),
}


def margin_cases() -> list[Case]:
    """Angles with theta + m below pi, where all forms of ArcFace agree; then a parallel pair."""
    embeddings, prototypes = normal(35, 5, 8), normal(36, 4, 8)
    labels = torch.tensor([0, 2, 1, 3, 2])
    # The first two images lie more than a right angle from their prototypes.
    embeddings[:2] = -0.6 * prototypes[labels[:2]] + embeddings[:2]
    near = prototypes[labels] + 0.3 * embeddings
    parallel = (3 * prototypes[labels]).float(), prototypes.float(), labels, 64.0, 0.5
    return [
        Case("by hand", (real([[3.0, 4.0]]), torch.eye(2).double(), torch.tensor([0]), 10.0, 0.5)),
        Case("5 images, far", (embeddings, prototypes, labels, 64.0, 0.5)),
        Case("5 images, near", (2 * near, 0.4 * prototypes, labels, 30.0, 0.35)),
        Case("parallel, float32", parallel, PARALLEL, is_compared=False),
    ]


ARCFACE = Exercise(
    "arcface", _arcface, margin_cases, MISTAKES, gradient=("embeddings", "prototypes")
)


def check_arcface(f: Function) -> Feedback:
    """Check a function for ArcFace's logits.

    Args:
        f: f(embeddings (N, D), prototypes (C, D), labels (N,), scale, margin) -> (N, C), scale
            times cos(theta + margin) for the true identity, times cos(theta) for all others; margin
            in radians. Tried where theta + margin < pi, for beyond it implementations differ;
            finite, gradient included, where an embedding is parallel to its prototype.
    """
    return judge(ARCFACE, f)
