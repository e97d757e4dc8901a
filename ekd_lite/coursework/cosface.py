"""Check of chapter 4: CosFace."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.margin_cases import margin_cases
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.heads.margin import rotated_cosine
from ekd_lite.ops import unit_rows


def _parts(embeddings: Tensor, prototypes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines (N, C), and 1 where the true identity stands."""
    cosines = unit_rows(embeddings) @ unit_rows(prototypes).T
    return cosines, F.one_hot(labels, len(prototypes)).to(cosines.dtype)


def _cosface(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    cosines, own = _parts(embeddings, prototypes, labels)
    return scale * (cosines - margin * own)


def _margin_on_every_class(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The margin was taken from every class.

    A number subtracted from all logits of a row changes no softmax: only the true identity pays.
    """
    cosines, _ = _parts(embeddings, prototypes, labels)
    return scale * (cosines - margin)


def _margin_added(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The margin was added.

    That is a gift to the true identity. It must look worse than it is: cos(theta) - m.
    """
    return _cosface(embeddings, prototypes, labels, scale, -margin)


def _margin_after_the_scale(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The margin was subtracted after scaling: s cos(theta) - m.

    m is in units of the cosine, so it is scaled with it: s (cos(theta) - m). Without that, 0.35 of
    64 is no margin at all.
    """
    cosines, own = _parts(embeddings, prototypes, labels)
    return scale * cosines - margin * own


def _margin_on_the_angle(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """This is ArcFace, cos(theta + m).

    CosFace takes its margin from the cosine: cos(theta) - m.
    """
    cosines, own = _parts(embeddings, prototypes, labels)
    return scale * torch.where(own.bool(), rotated_cosine(cosines, margin), cosines)


def _margin_on_the_wrong_classes(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The margin was taken from every class but the true one.

    That makes the task easier: lower the true identity's logit instead.
    """
    cosines, own = _parts(embeddings, prototypes, labels)
    return scale * (cosines - margin * (1 - own))


def _margin_on_all_labels_of_the_batch(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The margin was taken from the columns of all labels of the batch, in every row.

    cosines[:, labels] takes whole columns. One entry a row is cosines[torch.arange(N), labels].
    """
    cosines, own = _parts(embeddings, prototypes, labels)
    return scale * (cosines - margin * own.amax(0))


def _scale_left_out(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The scale is missing.

    Multiply at the end: s (cos(theta) - m) for the true identity, s cos(theta_j) for the others.
    """
    return _cosface(embeddings, prototypes, labels, 1.0, margin)


def _scale_on_the_true_class_only(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """Only the true identity's logit was scaled.

    All logits of a softmax have one scale.
    """
    cosines, own = _parts(embeddings, prototypes, labels)
    return torch.where(own.bool(), scale * (cosines - margin), cosines)


def _vectors_not_normalised(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The vectors were not normalised, so that the products are no cosines.

    Divide every embedding and every prototype by its length before the inner product.
    """
    _, own = _parts(embeddings, prototypes, labels)
    return scale * (embeddings @ prototypes.T - margin * own)


def _loss_instead_of_logits(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """This is the cross-entropy already.

    Return the logits (N, C); the loss is taken outside.
    """
    return F.cross_entropy(_cosface(embeddings, prototypes, labels, scale, margin), labels)


def _cosface_cases() -> list[Case]:
    # The subtraction has no trouble at cos = 1.
    return [case for case in margin_cases() if not case.unless_finite]


COSFACE = Exercise(
    "cosface",
    _cosface,
    _cosface_cases,
    (
        _margin_on_every_class,
        _margin_added,
        _margin_after_the_scale,
        _margin_on_the_angle,
        _margin_on_the_wrong_classes,
        _margin_on_all_labels_of_the_batch,
        _scale_left_out,
        _scale_on_the_true_class_only,
        _vectors_not_normalised,
        _loss_instead_of_logits,
    ),
    gradient=("embeddings", "prototypes"),
)


def check_cosface(f: Function) -> Verdict:
    """Check a function for CosFace's logits.

    Args:
        f: f(embeddings (N, D), prototypes (C, D), labels (N,), scale, margin) -> (N, C), scale
            times cos(theta) - margin for the true identity, times cos(theta) for all others.
    """
    return judge(COSFACE, f)
