"""Check of chapter 4: logits without margin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.ops import unit_rows


def _cosines(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    return unit_rows(embeddings) @ unit_rows(prototypes).T


def _cosine_logits(embeddings: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    return scale * _cosines(embeddings, prototypes)


def _nothing_normalised(embeddings: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """These are inner products, not cosines.

    Divide every embedding and every prototype by its length first; otherwise a long vector wins
    whatever its direction.
    """
    return scale * embeddings @ prototypes.T


def _prototypes_not_normalised(embeddings: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """The prototypes were not normalised.

    An identity with a long prototype would get larger logits in every direction.
    """
    return scale * unit_rows(embeddings) @ prototypes.T


def _embeddings_not_normalised(embeddings: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """The embeddings were not normalised.

    The length of an embedding would act as a scale of its own, beside `scale`.
    """
    return scale * embeddings @ unit_rows(prototypes).T


def _normalised_along_the_batch(embeddings: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """Columns were normalised instead of rows.

    One row is one vector, so the length is taken along the last dimension: dim=1, not dim=0.
    """
    return scale * F.normalize(embeddings, dim=0) @ F.normalize(prototypes, dim=0).T


def _scale_missing(embeddings: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """The scale is missing.

    These are cosines, at most 1, with which a softmax over many identities never becomes sure.
    """
    return _cosines(embeddings, prototypes)


def _divided_by_the_scale(embeddings: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """The cosines were divided by the scale.

    The scale s multiplies; it is one over a temperature.
    """
    return _cosines(embeddings, prototypes) / scale


def _angles_for_cosines(embeddings: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """These are scaled angles, which are smaller for the more alike.

    A logit must be larger: leave out the arccos.
    """
    return scale * torch.acos(_cosines(embeddings, prototypes).clamp(-1, 1))


def _divided_by_squared_lengths(embeddings: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """The inner products were divided by squared lengths.

    The length is the square root of the sum of squares.
    """
    lengths = embeddings.square().sum(1)[:, None] * prototypes.square().sum(1)
    return scale * (embeddings @ prototypes.T) / lengths


def _logit_cases() -> list[Case]:
    return [
        Case("by hand", (real([[3.0, 4.0]]), real([[2.0, 0.0], [0.0, 5.0]]), 10.0)),
        Case("4 images, 5 identities", (2 * normal(31, 4, 8), 0.3 * normal(32, 5, 8), 64.0)),
        Case("6 images, 3 identities", (normal(33, 6, 3), normal(34, 3, 3), 30.0)),
    ]


COSINE_LOGITS = Exercise(
    "cosine_logits",
    _cosine_logits,
    _logit_cases,
    (
        _nothing_normalised,
        _prototypes_not_normalised,
        _embeddings_not_normalised,
        _normalised_along_the_batch,
        _scale_missing,
        _divided_by_the_scale,
        _angles_for_cosines,
        _divided_by_squared_lengths,
    ),
    gradient=("embeddings", "prototypes"),
)


def check_cosine_logits(f: Function) -> Verdict:
    """Check a function for logits without margin.

    Args:
        f: f(embeddings (N, D), prototypes (C, D), scale) -> (N, C), scale times the cosine of every
            embedding with every prototype.
    """
    return judge(COSINE_LOGITS, f)
