"""Check of chapter 7: KD."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import instead, summed, times
from ekd_lite.distill.kd import KDLoss


def _kd(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Any:
    return KDLoss(temperature=temperature)(student_logits, teacher_logits)


def _divergence(student: Tensor, teacher: Tensor, temperature: float, dim: int = 1) -> Tensor:
    """T^2 / N times the sum of KL(softmax(teacher) || softmax(student)) over all rows."""
    log_student, log_teacher = student.log_softmax(dim), teacher.detach().log_softmax(dim)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum()
    return divergence * temperature**2 / len(student)


def _cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    belief = (teacher.detach() / temperature).softmax(1)
    return F.cross_entropy(student / temperature, belief) * temperature**2


def _no_logarithm(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    mine, theirs = ((x / temperature).softmax(1) for x in (student, teacher.detach()))
    return F.kl_div(mine, theirs, reduction="batchmean") * temperature**2


MISTAKES = {
    "squared temperature missing": Mistake(
        "The factor T^2 is missing. Softening by T makes the gradient some T^2 times smaller; the "
        "factor makes up for it, so that the weight of the loss keeps its meaning when T changes.",
        times(_kd, lambda a: a.temperature**-2),
    ),
    "temperature not squared": Mistake(
        "The factor is T; it should be T^2. One T comes from the softened softmax's own slope, one "
        "from the difference of the softened probabilities, which shrinks too.",
        times(_kd, lambda a: 1 / a.temperature),
    ),
    "divergence the other way round": Mistake(
        "The divergence is the wrong way round: KL(student || teacher). The teacher's "
        "probabilities weight the terms: sum p_t (log p_t - log p_s). In F.kl_div(input, target) "
        "the input is the student's log-probabilities.",
        lambda student, teacher, temperature: _kd(teacher, student, temperature),
    ),
    "temperature multiplied": Mistake(
        "The logits were multiplied by the temperature. Dividing softens; multiplying makes the "
        "probabilities nearly one-hot, and what the teacher knows of the other identities is lost.",
        times(instead(_kd, temperature=lambda a: 1 / a.temperature), lambda a: a.temperature**4),
    ),
    "mean over all entries": Mistake(
        "The mean was taken over all N C entries. A divergence is a sum over identities; only the "
        'images are averaged. That is F.kl_div(..., reduction="batchmean"), not "mean", which '
        "divides by C as well.",
        times(_kd, lambda a: 1 / a.student_logits.shape[1]),
    ),
    "sum over the batch": summed(_kd),
    "no logarithm of the student": Mistake(
        "The student's probabilities went in where log-probabilities belong. F.kl_div takes "
        "log-probabilities as its first argument: log_softmax, not softmax.",
        _no_logarithm,
    ),
    "cross entropy for divergence": Mistake(
        "This is the cross-entropy with the teacher's probabilities. It has the same gradient, but "
        "does not become 0 where student and teacher agree: subtract the teacher's own entropy, "
        "and the loss can be read as a distance.",
        _cross_entropy,
    ),
    "only the teacher softened": Mistake(
        "Only the teacher was softened. Both sides are divided by T; otherwise equal logits would "
        "not agree.",
        lambda student, teacher, t: _divergence(student, teacher / t, t),
    ),
    "softmax over the batch": Mistake(
        "The softmax runs over the images of the batch. It distributes each image over the "
        "identities: dim=1.",
        lambda student, teacher, t: _divergence(student / t, teacher / t, t, dim=0),
    ),
}


def _cases() -> list[Case]:
    return [
        Case("by hand", (real([[2.0, 0.0]]), real([[0.0, 2.0]]), 2.0)),
        Case("3 images, 4 identities", (3 * normal(41, 3, 4), 3 * normal(42, 3, 4), 4.0)),
        Case("6 images, 5 identities", (6 * normal(43, 6, 5), 6 * normal(44, 6, 5), 1.5)),
    ]


KD = Exercise(
    "kd", _kd, _cases, MISTAKES, gradient=("student_logits",), detached=("teacher_logits",)
)


def check_kd(f: Function) -> Feedback:
    """Check a function for the loss of KD.

    Args:
        f: f(student_logits (N, C), teacher_logits (N, C), temperature) -> 0-dim,
            T^2 mean_i KL(softmax(z^t_i / T) || softmax(z^s_i / T)); no gradient to the teacher.
    """
    return judge(KD, f)
