"""Check of chapter 7: FitNet on embeddings."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.distill.fitnet import FitNetLoss


def _fitnet(student: Tensor, teacher: Tensor) -> Tensor:
    loss: Tensor = FitNetLoss()(student, teacher)
    return loss


def _sum_over_everything(student: Tensor, teacher: Tensor) -> Tensor:
    """The squares were summed over the whole batch.

    Take the mean over all N D elements, or the loss grows with the batch.
    """
    return (student - teacher.detach()).square().sum()


def _mean_over_images_only(student: Tensor, teacher: Tensor) -> Tensor:
    """The squares were summed over the width and averaged over images only.

    Here the mean runs over all N D elements, as in F.mse_loss; the difference is a factor D.
    """
    return (student - teacher.detach()).square().sum(1).mean()


def _directions_only(student: Tensor, teacher: Tensor) -> Tensor:
    """The embeddings were normalised first.

    That compares directions and is a loss of its own (FitNetLoss(normalize=True)); FitNet compares
    the embeddings as they are.
    """
    return F.mse_loss(F.normalize(student), F.normalize(teacher.detach()))


def _absolute_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """These are absolute differences (L1).

    FitNet squares them.
    """
    return F.l1_loss(student, teacher.detach())


def _root_taken(student: Tensor, teacher: Tensor) -> Tensor:
    """A square root was taken at the end.

    The mean squared difference is the loss; the root's slope would be infinite where both agree.
    """
    return F.mse_loss(student, teacher.detach()).sqrt()


def _mean_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """This is the mean distance of the embeddings, with a root for each image.

    FitNet takes squares, without root, and their mean over all N D elements.
    """
    distance: Tensor = (student - teacher.detach()).norm(dim=1)
    return distance.mean()


def _factor_one_half(student: Tensor, teacher: Tensor) -> Tensor:
    """The value is half of the right one.

    The factor 1/2 of some textbooks is not part of this definition: it belongs to the weight.
    """
    return 0.5 * F.mse_loss(student, teacher.detach())


def _fitnet_cases() -> list[Case]:
    return [
        Case("by hand", (real([[1.0, 2.0]]), real([[1.0, 0.0]]))),
        Case("4 images, width 3", (normal(51, 4, 3), normal(52, 4, 3))),
        Case("6 images, width 8", (3 * normal(53, 6, 8), normal(54, 6, 8))),
    ]


FITNET = Exercise(
    "fitnet",
    _fitnet,
    _fitnet_cases,
    (
        _sum_over_everything,
        _mean_over_images_only,
        _directions_only,
        _absolute_difference,
        _root_taken,
        _mean_distance,
        _factor_one_half,
    ),
    gradient=("student",),
    detached=("teacher",),
)


def check_fitnet(f: Function) -> Verdict:
    """Check a function for the loss of FitNet on embeddings.

    Args:
        f: f(student (N, D), teacher (N, D)) -> 0-dim, the mean squared difference over all N D
            elements of the raw embeddings; no gradient to the teacher.
    """
    return judge(FITNET, f)
