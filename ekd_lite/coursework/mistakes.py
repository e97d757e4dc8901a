"""Wrong answers made from right ones: what the mistakes of several exercises share.

A mistake is a function on the interface of the exercise. Most are the right answer with one thing
changed: an argument (`instead`), a factor (`times`), what is compared (`compared`), or which
entries of the logits carry the margin (`logits`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Function, Mistake
from ekd_lite.ops import unit_rows

Rule = Callable[[SimpleNamespace], Any]  # of all arguments, by name


def named(function: Function, given: tuple[Any, ...]) -> SimpleNamespace:
    """Arguments of a function by their names."""
    return SimpleNamespace(**dict(zip(inspect.signature(function).parameters, given, strict=True)))


def instead(function: Function, **rules: Rule) -> Function:
    """The function with some arguments replaced.

    >>> instead(arcface, margin=lambda a: math.radians(a.margin))  # the margin taken for degrees
    """

    @functools.wraps(function)
    def changed(*given: Any) -> Any:
        a = named(function, given)
        return function(**vars(a) | {name: rule(a) for name, rule in rules.items()})

    return changed


def times(function: Function, factor: Rule) -> Function:
    """The function's value times a factor."""
    return lambda *given: function(*given) * factor(named(function, given))


def compared(of: Function, distance: Function = F.mse_loss) -> Function:
    """A loss that compares one thing of both nets, the teacher's without a gradient."""
    return lambda student, teacher: distance(of(student), of(teacher.detach()))


def products(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Inner products of all rows with all rows of `y`, or of `x` itself."""
    return x @ (x if y is None else y).T


def cosines(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Cosines of all rows with all rows of `y`, or of `x` itself."""
    return products(unit_rows(x), None if y is None else unit_rows(y))


def logits(rule: Function, similarity: Function = cosines) -> Function:
    """A margin head: rule(cosines (N, C), is_own (N, C), scale, margin) -> logits (N, C)."""

    def head(
        embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float, margin: float
    ) -> Any:
        is_own = F.one_hot(labels, len(prototypes)).bool()
        return rule(similarity(embeddings, prototypes), is_own, scale, margin)

    return head


def own_lowered(lowered: Function, which: Function = lambda own: own) -> Function:
    """The rule of a head that lowers the true identity's cosine, or other entries of the mask."""
    return lambda c, own, s, m: s * torch.where(which(own), lowered(c, m), c)


def head_mistakes(head: Function, lowered: Function) -> dict[str, Mistake]:
    """Mistakes of every margin head, whose `lowered(cosine, margin)` is what it puts there."""
    return {
        "margin on every class": Mistake(
            "The margin was put on every class. A number taken from all logits of a row changes no "
            "softmax; the task gets harder only if the true identity alone pays. Change one entry "
            "of each row, that of the label.",
            logits(own_lowered(lowered, torch.ones_like)),
        ),
        "margin on the wrong classes": Mistake(
            "The margin was put on every class but the true one. That makes the task easier. The "
            "true identity's logit is the one to lower.",
            logits(own_lowered(lowered, torch.logical_not)),
        ),
        "margin on all labels of the batch": Mistake(
            "The margin was put on the columns of all labels of the batch, in every row. "
            "cosines[:, labels] takes whole columns. One entry a row is "
            "cosines[torch.arange(N), labels], or cosines.gather(1, labels[:, None]).",
            logits(own_lowered(lowered, lambda own: own.any(0).expand_as(own))),
        ),
        "scale left out": Mistake(
            "The scale is missing. At the very end, multiply every class by it: the true identity "
            "after its margin, and s cos(theta_j) for the others.",
            instead(head, scale=lambda a: 1.0),
        ),
        "vectors not normalised": Mistake(
            "The vectors were not normalised, so the products are no cosines. Divide every "
            "embedding and every prototype by its length before the inner product.",
            logits(own_lowered(lowered), products),
        ),
        "loss instead of logits": Mistake(
            "This is the cross-entropy already. Return the logits (N, C); the loss is taken "
            "outside.",
            lambda *given: F.cross_entropy(head(*given), given[2]),
        ),
    }


def between(low: float, high: float, share: Tensor) -> Tensor:
    """The teacher's margins: `low` at a share of 0 and below, `high` at the largest share."""
    share = share.clamp(min=0)
    return low + (high - low) * share / share.max().clamp(min=1e-12)


def teacher_margin_mistakes(loss: Function, each: str, x: str) -> dict[str, Mistake]:
    """Mistakes of a loss whose margins the teacher sets between two bounds, by the symbol `x`."""
    return {
        "always the smallest margin": Mistake(
            f"Every {each} has the smallest margin. The teacher raises it: "
            f"m = M_min + (M_max - M_min) {x} / max {x}.",
            instead(loss, max_margin=lambda a: a.min_margin),
        ),
        "always the largest margin": Mistake(
            f"Every {each} has the largest margin. It depends on the teacher, which asks less "
            f"where {x} is small: m = M_min + (M_max - M_min) {x} / max {x}.",
            instead(loss, min_margin=lambda a: a.max_margin),
        ),
        "margin from the student": Mistake(
            f"The margins were taken from the student. The teacher sets them, through its {x}; the "
            "student would ask of itself what it already has.",
            instead(loss, teacher=lambda a: a.student),
        ),
    }


def summed(loss: Function) -> Mistake:
    """The sum over all images where their mean belongs."""
    return Mistake(
        "The images were summed up. Take their mean, which does not grow with the batch.",
        lambda *given: loss(*given) * len(given[0]),
    )


def summed_over_pairs(loss: Function) -> Mistake:
    """The sum over all pairs of rows where their mean belongs."""
    return Mistake(
        "The squares were summed: the factor 1 / N^2 is missing. Take the mean over all N^2 "
        "entries, or the loss grows with the square of the batch.",
        lambda *given: loss(*given) * len(given[0]) ** 2,
    )
