"""Check of chapter 7: FitNet on embeddings."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import compared, times
from ekd_lite.distill.fitnet import FitNetLoss


def _fitnet(student: Tensor, teacher: Tensor) -> Any:
    return FitNetLoss()(student, teacher)


MISTAKES = {
    "sum over everything": Mistake(
        "The squares were summed over the whole batch. Take the mean over all N D elements, or the "
        "loss grows with the batch.",
        times(_fitnet, lambda a: a.student.numel()),
    ),
    "mean over images only": Mistake(
        "The squares were summed over the width and averaged over images only. Here the mean runs "
        "over all N D elements, as in F.mse_loss; the difference is a factor D.",
        times(_fitnet, lambda a: a.student.shape[1]),
    ),
    "directions only": Mistake(
        "The embeddings were normalised first. That compares directions and is a loss of its own "
        "(FitNetLoss(normalize=True)); FitNet compares the embeddings as they are.",
        compared(F.normalize),
    ),
    "absolute difference": Mistake(
        "These are absolute differences (L1). FitNet squares them.",
        compared(lambda x: x, F.l1_loss),
    ),
    "root taken": Mistake(
        "A square root was taken at the end. The mean squared difference is the loss; the root's "
        "slope would be infinite where both agree.",
        lambda student, teacher: _fitnet(student, teacher).sqrt(),
    ),
    "mean distance": Mistake(
        "This is the mean distance of the embeddings, with a root for each image. FitNet takes "
        "squares, without root, and their mean over all N D elements.",
        lambda student, teacher: (student - teacher.detach()).norm(dim=1).mean(),
    ),
    "factor one half": Mistake(
        "The value is half of the right one. The factor 1/2 of some textbooks is not part of this "
        "definition: it belongs to the weight.",
        times(_fitnet, lambda a: 0.5),
    ),
}


def _cases() -> list[Case]:
    return [
        Case("by hand", (real([[1.0, 2.0]]), real([[1.0, 0.0]]))),
        Case("4 images, width 3", (normal(51, 4, 3), normal(52, 4, 3))),
        Case("6 images, width 8", (3 * normal(53, 6, 8), normal(54, 6, 8))),
    ]


FITNET = Exercise("fitnet", _fitnet, _cases, MISTAKES, gradient=("student",), detached=("teacher",))


def check_fitnet(f: Function) -> Feedback:
    """Check a function for the loss of FitNet on embeddings.

    Args:
        f: f(student (N, D), teacher (N, D)) -> 0-dim, the mean squared difference over all N D
            elements of the raw embeddings; no gradient to the teacher.
    """
    return judge(FITNET, f)
