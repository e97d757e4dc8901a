"""Check of chapter 8: the distances of RKD."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import compared, times
from ekd_lite.distill.rkd import RKDLoss


def _rkd(student: Tensor, teacher: Tensor) -> Any:
    return RKDLoss(distance_weight=1.0, angle_weight=0.0)(student, teacher)


def _distances(points: Tensor) -> Tensor:
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def _mean(distances: Tensor) -> Tensor:
    """The mean off the diagonal."""
    return distances.sum() / (distances > 0).sum()


def _relative(points: Tensor) -> Tensor:
    distances = _distances(points)
    return distances / _mean(distances)


def _one_mean(student: Tensor, teacher: Tensor) -> Tensor:
    mean = _mean(_distances(teacher.detach()))
    return compared(lambda x: _distances(x) / mean, F.smooth_l1_loss)(student, teacher)  # type: ignore[no-any-return]


HUBER = "RKD uses the Huber distance (smooth L1): half the square up to 1, |x| - 1/2 beyond."
MISTAKES = {
    "distances not normalised": Mistake(
        "The distances were not divided by their mean. The two nets have scales of their own; RKD "
        "compares shapes, so each net's distances are divided by that net's mean distance.",
        compared(_distances, F.smooth_l1_loss),
    ),
    "one mean for both": Mistake(
        "Both nets' distances were divided by the teacher's mean. Each net is measured by its own "
        "mean distance, or the student has to copy the teacher's scale.",
        _one_mean,
    ),
    "mean with the diagonal": Mistake(
        "The N zeros of the diagonal were counted in the mean distance. They are no distances "
        "between two images. The mean runs over the N (N - 1) distances that are not 0.",
        compared(lambda x: _distances(x) / _distances(x).mean(), F.smooth_l1_loss),
    ),
    "squares instead of huber": Mistake(
        f"The differences were squared. {HUBER}", compared(_relative, F.mse_loss)
    ),
    "absolute difference": Mistake(
        f"These are absolute differences. {HUBER}", compared(_relative, F.l1_loss)
    ),
    "squared distances": Mistake(
        "The distances are squared distances. RKD compares |f_i - f_j| itself: take the root.",
        compared(lambda x: _distances(x) ** 2 / _mean(_distances(x) ** 2), F.smooth_l1_loss),
    ),
    "embeddings normalised first": Mistake(
        "The embeddings were normalised first. The distances of RKD are those of the raw "
        "embeddings.",
        compared(F.normalize, _rkd),
    ),
    "mean over different pairs only": Mistake(
        "The loss was averaged over pairs of different images. Here the mean runs over all N^2 "
        "entries, the diagonal's zeros included; the difference is a factor N / (N - 1). (The mean "
        "*distance* does leave them out.)",
        times(_rkd, lambda a: len(a.student) / (len(a.student) - 1)),
    ),
    "mean distance without gradient": Mistake(
        "The value is right, but the student's mean distance is hidden from the gradient. It "
        "depends on the student like everything else: no .detach(), .item() or float() on it. "
        "Otherwise the loss could be lowered by growing or shrinking all embeddings together.",
        compared(lambda x: _distances(x) / _mean(_distances(x)).detach(), F.smooth_l1_loss),
    ),
}


def _cases() -> list[Case]:
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


RKD = Exercise("rkd", _rkd, _cases, MISTAKES, gradient=("student",), detached=("teacher",))


def check_rkd(f: Function) -> Feedback:
    """Check a function for RKD's loss on distances.

    Args:
        f: f(student (N, D), teacher (N, D')) -> 0-dim, mean_ij huber(d^s_ij / mean d^s - d^t_ij /
            mean d^t) over all N^2 entries, with the distances of the raw embeddings, the mean
            distance over pairs of different images, and weight 1; no gradient to the teacher.
    """
    return judge(RKD, f)
