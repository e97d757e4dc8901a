"""Check of chapter 4: CosFace."""

from __future__ import annotations

import torch

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake
from ekd_lite.coursework.exercises.arcface import margin_cases
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import head_mistakes, instead, logits, own_lowered
from ekd_lite.heads.margin import rotated_cosine

_cosface = logits(own_lowered(torch.sub))

MISTAKES = {
    **head_mistakes(_cosface, torch.sub),
    "margin added": Mistake(
        "The margin was added. That is a gift to the true identity. It must look worse than it is: "
        "cos(theta) - m.",
        instead(_cosface, margin=lambda a: -a.margin),
    ),
    "margin after the scale": Mistake(
        "The margin was subtracted after scaling: s cos(theta) - m. m is in units of the cosine, "
        "so it is scaled too: s (cos(theta) - m). Without that, 0.35 of 64 is no margin at all.",
        instead(_cosface, margin=lambda a: a.margin / a.scale),
    ),
    "margin on the angle": Mistake(
        "This is ArcFace, cos(theta + m). CosFace lowers the cosine itself: cos(theta) - m.",
        logits(own_lowered(rotated_cosine)),
    ),
    "scale on the true class only": Mistake(
        "Only the true identity's logit was scaled. All logits of a softmax have one scale.",
        logits(lambda c, own, s, m: torch.where(own, s * (c - m), c)),
    ),
}


def _cases() -> list[Case]:
    # The subtraction has no trouble at cos = 1.
    return [case for case in margin_cases() if not case.hint]


COSFACE = Exercise("cosface", _cosface, _cases, MISTAKES, gradient=("embeddings", "prototypes"))


def check_cosface(f: Function) -> Feedback:
    """Check a function for CosFace's logits.

    Args:
        f: f(embeddings (N, D), prototypes (C, D), labels (N,), scale, margin) -> (N, C), scale
            times cos(theta) - margin for the true identity, times cos(theta) for all others.
    """
    return judge(COSFACE, f)
