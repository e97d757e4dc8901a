"""Check of chapter 8: DarkRank, the hard form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.distill.darkrank import DarkRankLoss, log_likelihood


def _darkrank(student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int) -> Tensor:
    loss: Tensor = DarkRankLoss(alpha=alpha, beta=beta, length=length)(student, teacher)
    return loss


def _nearest(embeddings: Tensor, length: int, *, farthest: bool = False) -> Tensor:
    """Indices of each row's neighbours, itself left out, (N, length)."""
    unit = F.normalize(embeddings.detach())
    cosine = (unit @ unit.T).fill_diagonal_(torch.inf if farthest else -torch.inf)
    return cosine.topk(length, largest=not farthest).indices


def _scores(student: Tensor, order: Tensor, alpha: float, beta: float) -> Tensor:
    unit = F.normalize(student)
    distance: Tensor = (unit[:, None] - unit[order]).norm(dim=2)
    return -alpha * distance**beta


def _order_of_the_student(
    student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int
) -> Tensor:
    """The neighbours were taken in the student's own order.

    The teacher's order is the target: rank by the teacher, score by the student.
    """
    return _darkrank(student, student, alpha, beta, length)


def _farthest_first(
    student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int
) -> Tensor:
    """The farthest images were ranked first.

    The order begins with the nearest, that is with the largest cosine.
    """
    order = _nearest(teacher, length, farthest=True)
    return -log_likelihood(_scores(student, order, alpha, beta)).mean()


def _query_in_its_own_list(
    student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int
) -> Tensor:
    """The image itself stands first in its own list.

    Its distance to itself is always 0; leave it out before ranking.
    """
    unit = F.normalize(teacher.detach())
    order = (unit @ unit.T).topk(length).indices
    # A squared norm: at distance 0 the norm itself has no slope.
    mine = F.normalize(student)
    squared = (mine[:, None] - mine[order]).square().sum(2)
    return -log_likelihood(-alpha * squared ** (beta / 2)).mean()


def _sign_of_the_distance(
    student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int
) -> Tensor:
    """The sign of the distance is flipped.

    The nearer an image, the larger its score: -alpha |f_i - f_j|^beta.
    """
    scores = _scores(student, _nearest(teacher, length), -alpha, beta)
    return -log_likelihood(scores).mean()


def _power_left_out(
    student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int
) -> Tensor:
    """The power beta was left out.

    The score is -alpha times the distance to the power beta.
    """
    return -log_likelihood(_scores(student, _nearest(teacher, length), alpha, 1.0)).mean()


def _all_in_every_denominator(
    student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int
) -> Tensor:
    """Every denominator sums over the whole list.

    After the first place is given, the second is drawn among those that remain: the sum runs over
    q >= r.
    """
    scores = _scores(student, _nearest(teacher, length), alpha, beta)
    return -scores.log_softmax(1).sum(1).mean()


def _first_place_only(
    student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int
) -> Tensor:
    """Only the nearest image's place is scored.

    The likelihood of an order is the product over all its places.
    """
    scores = _scores(student, _nearest(teacher, length), alpha, beta)
    return -scores.log_softmax(1)[:, 0].mean()


def _embeddings_not_normalised(
    student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int
) -> Tensor:
    """The student's embeddings were not normalised.

    The distances are those of unit vectors.
    """
    order = _nearest(teacher, length)
    distance = (student[:, None] - student[order]).norm(dim=2)
    return -log_likelihood(-alpha * distance**beta).mean()


def _sum_over_the_batch(
    student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int
) -> Tensor:
    """The images were summed up.

    Take the mean over the N queries.
    """
    return _darkrank(student, teacher, alpha, beta, length) * len(student)


def _likelihood_without_the_minus(
    student: Tensor, teacher: Tensor, alpha: float, beta: float, length: int
) -> Tensor:
    """The minus in front of the logarithm is missing.

    A loss falls as things improve; this one would make the teacher's order unlikely.
    """
    return -_darkrank(student, teacher, alpha, beta, length)


def _darkrank_cases() -> list[Case]:
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
    "darkrank",
    _darkrank,
    _darkrank_cases,
    (
        _order_of_the_student,
        _farthest_first,
        _query_in_its_own_list,
        _sign_of_the_distance,
        _power_left_out,
        _all_in_every_denominator,
        _first_place_only,
        _embeddings_not_normalised,
        _sum_over_the_batch,
        _likelihood_without_the_minus,
    ),
    gradient=("student",),
    detached=("teacher",),
)


def check_darkrank(f: Function) -> Verdict:
    """Check a function for DarkRank's hard form (ListMLE).

    Args:
        f: f(student (N, D), teacher (N, D'), alpha, beta, length) -> 0-dim. For each image the
            `length` nearest others in the teacher, by cosine, are an order; the loss is the mean of
            -log P(order), P the product over r of exp(score_r) / sum over q >= r of exp(score_q),
            score = -alpha |f^s_i - f^s_j|^beta on unit vectors; no gradient to the teacher.
    """
    return judge(DARKRANK, f)
