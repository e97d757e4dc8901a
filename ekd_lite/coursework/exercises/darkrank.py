"""Check of chapter 8: DarkRank, the hard form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import cosines, instead, summed, times
from ekd_lite.distill.darkrank import DarkRankLoss, log_likelihood
from ekd_lite.ops import unit_rows


def _darkrank(student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int) -> Any:
    return DarkRankLoss(alpha=alpha, beta=beta, length=length)(student, teacher)


def _nearest(teacher: Tensor, length: int) -> Tensor:
    """Indices of each row's neighbours, itself left out, (N, length)."""
    return cosines(teacher.detach()).fill_diagonal_(-torch.inf).topk(length).indices


def _farthest(teacher: Tensor, length: int) -> Tensor:
    return cosines(teacher.detach()).topk(length, largest=False).indices


def _with_itself(teacher: Tensor, length: int) -> Tensor:
    return cosines(teacher.detach()).topk(length).indices


def _listed(
    order: Function = _nearest,
    likelihood: Function = log_likelihood,
    scaled: Function = unit_rows,
) -> Function:
    """The loss with another order, likelihood of the scores, or scaling of the student."""

    def loss(student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int) -> Any:
        mine = scaled(student)
        # A squared norm: at distance 0 the norm itself has no slope.
        squared = (mine[:, None] - mine[order(teacher, length)]).square().sum(2)
        return -likelihood(-alpha * squared ** (beta / 2)).mean()

    return loss


MISTAKES = {
    "order of the student": Mistake(
        "The neighbours were taken in the student's own order. The teacher's order is the target: "
        "rank by the teacher, score by the student.",
        instead(_darkrank, teacher=lambda a: a.student),
    ),
    "farthest first": Mistake(
        "The farthest images were ranked first. The order begins with the nearest, that is with "
        "the largest cosine.",
        _listed(_farthest),
    ),
    "query in its own list": Mistake(
        "The image itself stands first in its own list. Its distance to itself is always 0; leave "
        "it out before ranking.",
        _listed(_with_itself),
    ),
    "sign of the distance": Mistake(
        "The sign of the distance is flipped. The nearer an image, the larger its score: "
        "-alpha |f_i - f_j|^beta.",
        _listed(likelihood=lambda scores: log_likelihood(-scores)),
    ),
    "power left out": Mistake(
        "The power beta was left out. The score is -alpha times the distance to the power beta.",
        instead(_listed(), beta=lambda a: 1.0),
    ),
    "all in every denominator": Mistake(
        "Every denominator sums over the whole list. After the first place is given, the second is "
        "drawn among those that remain: the sum runs over q >= r.",
        _listed(likelihood=lambda scores: scores.log_softmax(1).sum(1)),
    ),
    "first place only": Mistake(
        "Only the nearest image's place is scored. The likelihood of an order is the product over "
        "all its places.",
        _listed(likelihood=lambda scores: scores.log_softmax(1)[:, 0]),
    ),
    "embeddings not normalised": Mistake(
        "The student's embeddings were not normalised. The distances are those of unit vectors.",
        _listed(scaled=lambda x: x),
    ),
    "sum over the batch": summed(_darkrank),
    "likelihood without the minus": Mistake(
        "The minus in front of the logarithm is missing. A loss falls as things improve; this one "
        "would make the teacher's order unlikely.",
        times(_darkrank, lambda a: -1),
    ),
}


def _cases() -> list[Case]:
    by_hand = (
        real([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]),
        real([[1.0, 0.0], [2.0, 1.0], [0.0, 1.0]]),
    )
    return [
        Case("by hand", (*by_hand, 1.0, 2.0, 2)),
        Case("6 images, 3 places", (normal(91, 6, 4), 2 * normal(92, 6, 4), 3.0, 3.0, 3)),
        Case("8 images, 4 places", (3 * normal(93, 8, 5), normal(94, 8, 3), 2.0, 2.0, 4)),
    ]


DARKRANK = Exercise(
    "darkrank", _darkrank, _cases, MISTAKES, gradient=("student",), detached=("teacher",)
)


def check_darkrank(f: Function) -> Feedback:
    """Check a function for DarkRank's hard form (ListMLE).

    Args:
        f: f(student (N, D), teacher (N, D'), alpha, beta, length) -> 0-dim. For each image the
            `length` nearest others in the teacher, by cosine, are an order; the loss is the mean of
            -log P(order), P the product over r of exp(score_r) / sum over q >= r of exp(score_q),
            score = -alpha |f^s_i - f^s_j|^beta on unit vectors; no gradient to the teacher.
    """
    return judge(DARKRANK, f)
