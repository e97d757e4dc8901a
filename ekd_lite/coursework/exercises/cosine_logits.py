"""Check of chapter 4: logits without margin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import cosines, instead, products
from ekd_lite.ops import unit_rows


def _cosine_logits(embeddings: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    return scale * cosines(embeddings, prototypes)


MISTAKES = {
    "nothing normalised": Mistake(
        "These are inner products, not cosines. Divide every embedding and every prototype by its "
        "length first; otherwise a long vector wins whatever its direction.",
        lambda e, p, scale: scale * products(e, p),
    ),
    "prototypes not normalised": Mistake(
        "The prototypes were not normalised. An identity with a long prototype would get larger "
        "logits in every direction.",
        lambda e, p, scale: scale * products(unit_rows(e), p),
    ),
    "embeddings not normalised": Mistake(
        "The embeddings were not normalised. The length of an embedding would act as a scale of "
        "its own, beside `scale`.",
        lambda e, p, scale: scale * products(e, unit_rows(p)),
    ),
    "normalised along the batch": Mistake(
        "Columns were normalised instead of rows. One row is one vector, so the length is taken "
        "along the last dimension: dim=1, not dim=0.",
        lambda e, p, scale: scale * products(F.normalize(e, dim=0), F.normalize(p, dim=0)),
    ),
    "scale missing": Mistake(
        "The scale is missing. These are cosines, at most 1, with which a softmax over many "
        "identities never becomes sure.",
        instead(_cosine_logits, scale=lambda a: 1.0),
    ),
    "divided by the scale": Mistake(
        "The cosines were divided by the scale. The scale s multiplies; it is one over a "
        "temperature.",
        instead(_cosine_logits, scale=lambda a: 1 / a.scale),
    ),
    "angles for cosines": Mistake(
        "These are scaled angles, which are smaller for the more alike. A logit must be larger: "
        "leave out the arccos.",
        lambda e, p, scale: scale * torch.acos(cosines(e, p).clamp(-1, 1)),
    ),
    "divided by squared lengths": Mistake(
        "The inner products were divided by squared lengths. The length is the square root of the "
        "sum of squares.",
        lambda e, p, scale: (
            scale * products(e, p) / (e.square().sum(1)[:, None] * p.square().sum(1))
        ),
    ),
}


def _cases() -> list[Case]:
    return [
        Case("by hand", (real([[3.0, 4.0]]), real([[2.0, 0.0], [0.0, 5.0]]), 10.0)),
        Case("4 images, 5 identities", (2 * normal(31, 4, 8), 0.3 * normal(32, 5, 8), 64.0)),
        Case("6 images, 3 identities", (normal(33, 6, 3), normal(34, 3, 3), 30.0)),
    ]


COSINE_LOGITS = Exercise(
    "cosine_logits", _cosine_logits, _cases, MISTAKES, gradient=("embeddings", "prototypes")
)


def check_cosine_logits(f: Function) -> Feedback:
    """Check a function for logits without margin.

    Args:
        f: f(embeddings (N, D), prototypes (C, D), scale) -> (N, C), scale times the cosine of every
            embedding with every prototype.
    """
    return judge(COSINE_LOGITS, f)
