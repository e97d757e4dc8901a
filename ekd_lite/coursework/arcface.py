"""Check of chapter 4: ArcFace."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Exercise, Function
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.margin_cases import margin_cases
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.heads.margin import add_angle
from ekd_lite.ops import unit_rows


def _cosines(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    return unit_rows(embeddings) @ unit_rows(prototypes).T


def _with_target(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, target: Tensor
) -> Tensor:
    """Scaled cosines, with those of the true identities taken from `target`, (N, C)."""
    is_own = F.one_hot(labels, len(prototypes)).bool()
    return scale * torch.where(is_own, target, _cosines(embeddings, prototypes))


def _arcface(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    target = add_angle(_cosines(embeddings, prototypes), margin)
    return _with_target(embeddings, prototypes, labels, scale, target)


def _angles(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    return torch.acos(_cosines(embeddings, prototypes).clamp(-1 + 1e-6, 1 - 1e-6))


def _margin_in_degrees(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The margin was taken for degrees.

    A margin of 0.5 is in radians, some 28.6 degrees; 0.5 degrees would hardly be a margin. torch
    computes in radians throughout, so no conversion is needed.
    """
    return _arcface(embeddings, prototypes, labels, scale, math.radians(margin))


def _margin_turned_into_degrees(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The margin was turned into degrees, but torch.cos takes radians.

    0.5 became 28.6 radians, which is several full turns. Add the margin as it comes.
    """
    target = torch.cos(_angles(embeddings, prototypes) + math.degrees(margin))
    return _with_target(embeddings, prototypes, labels, scale, target)


def _margin_on_every_class(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The margin was put on every class.

    It makes the task harder only if the true identity alone has to pay it: change one entry of each
    row, that of the label.
    """
    return scale * add_angle(_cosines(embeddings, prototypes), margin)


def _margin_on_the_wrong_classes(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The margin was put on every class but the true one.

    That makes the task easier. The true identity's logit is the one to lower.
    """
    cosines = _cosines(embeddings, prototypes)
    is_own = F.one_hot(labels, len(prototypes)).bool()
    return scale * torch.where(is_own, cosines, add_angle(cosines, margin))


def _margin_on_all_labels_of_the_batch(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The margin was put on the columns of all labels of the batch, in every row.

    cosines[:, labels] takes whole columns. One entry a row is cosines[torch.arange(N), labels], or
    cosines.gather(1, labels[:, None]).
    """
    cosines = _cosines(embeddings, prototypes)
    is_any = torch.zeros(len(prototypes), dtype=torch.bool)
    is_any[labels] = True
    return scale * torch.where(is_any, add_angle(cosines, margin), cosines)


def _margin_on_the_cosine(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """This is CosFace, cos(theta) - m.

    ArcFace adds its margin to the angle: cos(theta + m).
    """
    target = _cosines(embeddings, prototypes) - margin
    return _with_target(embeddings, prototypes, labels, scale, target)


def _angle_made_smaller(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The margin makes the angle smaller: this is cos(theta - m).

    The true identity must look worse than it is, so its angle grows. With the addition theorem mind
    the sign: cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m).
    """
    target = torch.cos(_angles(embeddings, prototypes) - margin)
    return _with_target(embeddings, prototypes, labels, scale, target)


def _margin_as_a_factor(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The margin multiplies the angle, as SphereFace's does.

    ArcFace's is added: cos(theta + m).
    """
    target = torch.cos(_angles(embeddings, prototypes) * margin)
    return _with_target(embeddings, prototypes, labels, scale, target)


def _second_term_missing(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The second term of the addition theorem is missing.

    cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m), and cos(theta) cos(m) alone shrinks
    every cosine instead of turning it.
    """
    target = _cosines(embeddings, prototypes) * math.cos(margin)
    return _with_target(embeddings, prototypes, labels, scale, target)


def _margin_only_where_it_is_near(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """Images more than a right angle from their prototype got no margin ("easy margin").

    They are the hardest ones. Add the margin wherever theta + m stays below pi.
    """
    cosines = _cosines(embeddings, prototypes)
    target = torch.where(cosines > 0, add_angle(cosines, margin), cosines)
    return _with_target(embeddings, prototypes, labels, scale, target)


def _scale_left_out(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The scale is missing.

    Multiply by it at the very end, every class: s cos(theta + m) and s cos(theta_j).
    """
    return _arcface(embeddings, prototypes, labels, 1.0, margin)


def _vectors_not_normalised(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The vectors were not normalised, so that the products are no cosines.

    Divide every embedding and every prototype by its length before the inner product.
    """
    products = embeddings @ prototypes.T
    is_own = F.one_hot(labels, len(prototypes)).bool()
    turned = add_angle(products, margin)
    return scale * torch.where(is_own, turned, products)


def _loss_instead_of_logits(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """This is the cross-entropy already.

    Return the logits (N, C); the loss is taken outside.
    """
    return F.cross_entropy(_arcface(embeddings, prototypes, labels, scale, margin), labels)


def _margin_without_gradient(
    embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """The value is right, but the margin is hidden from the gradient.

    Computed under no_grad() or detached, cos(theta + m) gets the slope of cos(theta). Its own is
    sin(theta + m) / sin(theta) times that: let the gradient flow through the margin too.
    """
    cosines = _cosines(embeddings, prototypes)
    hidden = (add_angle(cosines, margin) - cosines).detach()
    return _with_target(embeddings, prototypes, labels, scale, cosines + hidden)


ARCFACE = Exercise(
    "arcface",
    _arcface,
    margin_cases,
    (
        _margin_in_degrees,
        _margin_turned_into_degrees,
        _margin_on_every_class,
        _margin_on_the_wrong_classes,
        _margin_on_all_labels_of_the_batch,
        _margin_on_the_cosine,
        _angle_made_smaller,
        _margin_as_a_factor,
        _second_term_missing,
        _margin_only_where_it_is_near,
        _scale_left_out,
        _vectors_not_normalised,
        _loss_instead_of_logits,
        _margin_without_gradient,
    ),
    gradient=("embeddings", "prototypes"),
)


def check_arcface(f: Function) -> Verdict:
    """Check a function for ArcFace's logits.

    Args:
        f: f(embeddings (N, D), prototypes (C, D), labels (N,), scale, margin) -> (N, C), scale
            times cos(theta + margin) for the true identity, times cos(theta) for all others; margin
            in radians. Tried where theta + margin < pi, for beyond it implementations differ;
            finite, gradient included, where an embedding is parallel to its prototype.
    """
    return judge(ARCFACE, f)
