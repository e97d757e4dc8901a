"""Check of chapter 8: the distances of RKD."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.distill.rkd import RKDLoss


def _rkd(student: Tensor, teacher: Tensor) -> Tensor:
    loss: Tensor = RKDLoss(distance_weight=1.0, angle_weight=0.0)(student, teacher)
    return loss


def _distances(points: Tensor) -> Tensor:
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def _mean_off_the_diagonal(distances: Tensor) -> Tensor:
    return distances.sum() / (distances > 0).sum()


def _relative(distances: Tensor) -> Tensor:
    return distances / _mean_off_the_diagonal(distances)


def _distances_not_normalised(student: Tensor, teacher: Tensor) -> Tensor:
    """The distances were not divided by their mean.

    The two nets have scales of their own; RKD compares shapes, so each net's distances are divided
    by that net's mean distance.
    """
    return F.smooth_l1_loss(_distances(student), _distances(teacher.detach()))


def _one_mean_for_both(student: Tensor, teacher: Tensor) -> Tensor:
    """Both nets' distances were divided by the teacher's mean.

    Each net is measured by its own mean distance, or the student has to copy the teacher's scale.
    """
    theirs = _distances(teacher.detach())
    mean = _mean_off_the_diagonal(theirs)
    return F.smooth_l1_loss(_distances(student) / mean, theirs / mean)


def _mean_with_the_diagonal(student: Tensor, teacher: Tensor) -> Tensor:
    """The N zeros of the diagonal were counted in the mean distance.

    They are no distances between two images. The mean runs over the N (N - 1) distances that are
    not 0.
    """
    mine, theirs = _distances(student), _distances(teacher.detach())
    return F.smooth_l1_loss(mine / mine.mean(), theirs / theirs.mean())


def _squares_instead_of_huber(student: Tensor, teacher: Tensor) -> Tensor:
    """The differences were squared.

    RKD uses the Huber distance (smooth L1): half the square up to 1, |x| - 1/2 beyond.
    """
    return F.mse_loss(_relative(_distances(student)), _relative(_distances(teacher.detach())))


def _absolute_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """These are absolute differences.

    RKD uses the Huber distance (smooth L1): half the square up to 1, |x| - 1/2 beyond.
    """
    return F.l1_loss(_relative(_distances(student)), _relative(_distances(teacher.detach())))


def _squared_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """The distances are squared distances.

    RKD compares |f_i - f_j| itself: take the root.
    """
    mine, theirs = _distances(student).square(), _distances(teacher.detach()).square()
    return F.smooth_l1_loss(_relative(mine), _relative(theirs))


def _embeddings_normalised_first(student: Tensor, teacher: Tensor) -> Tensor:
    """The embeddings were normalised first.

    The distances of RKD are those of the raw embeddings.
    """
    return _rkd(F.normalize(student), F.normalize(teacher))


def _mean_over_different_pairs_only(student: Tensor, teacher: Tensor) -> Tensor:
    """The loss was averaged over pairs of different images.

    Here the mean runs over all N^2 entries, the diagonal's zeros included; the difference is a
    factor N / (N - 1). (The mean *distance* does leave them out.)
    """
    return _rkd(student, teacher) * len(student) / (len(student) - 1)


def _mean_distance_without_gradient(student: Tensor, teacher: Tensor) -> Tensor:
    """The value is right, but the student's mean distance is hidden from the gradient.

    It depends on the student like everything else: no .detach(), .item() or float() on it.
    Otherwise the loss could be lowered by growing or shrinking all embeddings together.
    """
    mine = _distances(student)
    relative = mine / _mean_off_the_diagonal(mine).detach()
    return F.smooth_l1_loss(relative, _relative(_distances(teacher.detach())))


def _rkd_cases() -> list[Case]:
    far = normal(73, 6, 4)
    far[0] += 12  # so that some difference exceeds 1, where Huber is no square
    # Sides 5, 4, 3 and sqrt(2), 1, 1.
    triangles = [
        real([[3.0, 0.0], [0.0, 4.0], [3.0, 4.0]]),
        real([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
    ]
    return [
        Case("by hand", tuple(triangles)),
        Case("5 images, widths 3 and 4", (normal(71, 5, 3), 5 * normal(72, 5, 4))),
        Case("one image far away", (far, normal(74, 6, 4))),
    ]


RKD = Exercise(
    "rkd",
    _rkd,
    _rkd_cases,
    (
        _distances_not_normalised,
        _one_mean_for_both,
        _mean_with_the_diagonal,
        _squares_instead_of_huber,
        _absolute_difference,
        _squared_distances,
        _embeddings_normalised_first,
        _mean_over_different_pairs_only,
        _mean_distance_without_gradient,
    ),
    gradient=("student",),
    detached=("teacher",),
)


def check_rkd(f: Function) -> Verdict:
    """Check a function for RKD's loss on distances.

    Args:
        f: f(student (N, D), teacher (N, D')) -> 0-dim, mean_ij huber(d^s_ij / mean d^s - d^t_ij /
            mean d^t) over all N^2 entries, with the distances of the raw embeddings, the mean
            distance over pairs of different images, and weight 1; no gradient to the teacher.
    """
    return judge(RKD, f)
