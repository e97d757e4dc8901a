"""Check of chapter 7: KD."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, normal, real
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.verdict import Verdict
from ekd_lite.distill.kd import KDLoss


def _kd(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    loss: Tensor = KDLoss(temperature=temperature)(student_logits, teacher_logits)
    return loss


def _divergence(student: Tensor, teacher: Tensor, dim: int = 1) -> Tensor:
    """Sum of KL(softmax(teacher) || softmax(student)) over all rows."""
    log_student, log_teacher = student.log_softmax(dim), teacher.log_softmax(dim)
    return (log_teacher.exp() * (log_teacher - log_student)).sum()


def _squared_temperature_missing(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """The factor T^2 is missing.

    Softening by T makes the gradient some T^2 times smaller; the factor makes up for it, so that
    the weight of the loss keeps its meaning when T changes.
    """
    return _kd(student_logits, teacher_logits, temperature) / temperature**2


def _temperature_not_squared(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """The factor is T; it should be T^2.

    One T comes from the softened softmax's own slope, one from the difference of the softened
    probabilities, which shrinks too.
    """
    return _kd(student_logits, teacher_logits, temperature) / temperature


def _divergence_the_other_way_round(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """The divergence is the wrong way round: KL(student || teacher).

    The teacher's probabilities weight the terms: sum p_t (log p_t - log p_s). In
    F.kl_div(input, target) the input is the student's log-probabilities.
    """
    return _kd(teacher_logits, student_logits, temperature)


def _temperature_multiplied(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """The logits were multiplied by the temperature.

    Dividing softens; multiplying makes the probabilities nearly one-hot, and what the teacher knows
    of the other identities is lost.
    """
    student, teacher = student_logits * temperature, teacher_logits * temperature
    return _divergence(student, teacher.detach()) * temperature**2 / len(student)


def _mean_over_all_entries(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """The mean was taken over all N C entries.

    A divergence is a sum over identities; only the images are averaged. That is
    F.kl_div(..., reduction="batchmean"), not "mean", which divides by C as well.
    """
    return _kd(student_logits, teacher_logits, temperature) / student_logits.shape[1]


def _sum_over_the_batch(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """The images were summed up.

    Their mean does not grow with the batch: divide by N.
    """
    return _kd(student_logits, teacher_logits, temperature) * len(student_logits)


def _no_logarithm_of_the_student(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """The student's probabilities went in where log-probabilities belong.

    F.kl_div takes log-probabilities as its first argument: log_softmax, not softmax.
    """
    student = (student_logits / temperature).softmax(1)
    teacher = (teacher_logits.detach() / temperature).softmax(1)
    return F.kl_div(student, teacher, reduction="batchmean") * temperature**2


def _cross_entropy_for_divergence(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """This is the cross-entropy with the teacher's probabilities.

    It has the same gradient, but does not become 0 where student and teacher agree: subtract the
    teacher's own entropy, and the loss can be read as a distance.
    """
    student = (student_logits / temperature).log_softmax(1)
    teacher = (teacher_logits.detach() / temperature).softmax(1)
    return -(teacher * student).sum(1).mean() * temperature**2


def _only_the_teacher_softened(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """Only the teacher was softened.

    Both sides are divided by T; otherwise equal logits would not agree.
    """
    teacher = teacher_logits.detach() / temperature
    return _divergence(student_logits, teacher) * temperature**2 / len(teacher)


def _softmax_over_the_batch(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """The softmax runs over the images of the batch.

    It distributes each image over the identities: dim=1.
    """
    student, teacher = student_logits / temperature, teacher_logits.detach() / temperature
    return _divergence(student, teacher, 0) * temperature**2 / len(student)


def _kd_cases() -> list[Case]:
    return [
        Case("by hand", (real([[2.0, 0.0]]), real([[0.0, 2.0]]), 2.0)),
        Case("3 images, 4 identities", (3 * normal(41, 3, 4), 3 * normal(42, 3, 4), 4.0)),
        Case("6 images, 5 identities", (6 * normal(43, 6, 5), 6 * normal(44, 6, 5), 1.5)),
    ]


KD = Exercise(
    "kd",
    _kd,
    _kd_cases,
    (
        _squared_temperature_missing,
        _temperature_not_squared,
        _divergence_the_other_way_round,
        _temperature_multiplied,
        _mean_over_all_entries,
        _sum_over_the_batch,
        _no_logarithm_of_the_student,
        _cross_entropy_for_divergence,
        _only_the_teacher_softened,
        _softmax_over_the_batch,
    ),
    gradient=("student_logits",),
    detached=("teacher_logits",),
)


def check_kd(f: Function) -> Verdict:
    """Check a function for the loss of KD.

    Args:
        f: f(student_logits (N, C), teacher_logits (N, C), temperature) -> 0-dim,
            T^2 mean_i KL(softmax(z^t_i / T) || softmax(z^s_i / T)); no gradient to the teacher.
    """
    return judge(KD, f)
