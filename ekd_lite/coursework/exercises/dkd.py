"""Check of chapter 14: DKD."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import instead, summed, times
from ekd_lite.distill.grouped_kd import GroupedKDLoss

SURE = (
    "Here the student is sure of itself, so that the probabilities of all others underflow. The "
    "logarithm of a probability is log_softmax, and that of the others' sum is a logsumexp of "
    "their log-probabilities: neither can become log 0."
)


def _dkd(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor,
    target_weight: float, others_weight: float, temperature: float,
) -> Any:  # fmt: skip
    loss = GroupedKDLoss(
        group=1, binary=target_weight, secondary=others_weight, temperature=temperature
    )
    return loss(student_logits, teacher_logits, labels)


def _with(others: Function) -> Function:
    """The loss with another form of the part for the others: (log q, log p, is target) -> (N,)."""

    def loss(
        student: Tensor, teacher: Tensor, labels: Tensor, target: float, other: float, t: float
    ) -> Tensor:
        own = F.one_hot(labels, student.shape[1]).bool()
        q, p = ((x / t).log_softmax(1) for x in (student, teacher.detach()))
        rest: Tensor = other * t**2 * others(q, p, own).mean()
        return rest + _dkd(student, teacher, labels, target, 0.0, t)  # type: ignore[no-any-return]

    return loss


def _gap(q: Tensor, p: Tensor) -> Tensor:
    return p.exp() * (p - q)


def _inside(q: Tensor, p: Tensor, own: Tensor) -> Tensor:
    """The divergence among the others, made a distribution of their own."""
    q, p = (x.masked_fill(own, -1e9).log_softmax(1) for x in (q, p))
    return _gap(q, p).sum(1)


def _plain(q: Tensor, p: Tensor, own: Tensor) -> Tensor:
    others = (p.exp() * ~own).sum(1)
    return others * _inside(q, p, own)


def _zeroed(
    student: Tensor, teacher: Tensor, labels: Tensor, target: float, other: float, t: float
) -> Tensor:
    own = F.one_hot(labels, student.shape[1]).bool()
    q, p = ((x * ~own / t).log_softmax(1) for x in (student, teacher.detach()))
    rest: Tensor = other * t**2 * _gap(q, p).sum(1).mean()
    return rest + _dkd(student, teacher, labels, target, 0.0, t)  # type: ignore[no-any-return]


MISTAKES = {
    "squared temperature missing": Mistake(
        "The factor T^2 is missing. Softening by T makes the gradient some T^2 times smaller; the "
        "factor makes up for it.",
        times(_dkd, lambda a: a.temperature**-2),
    ),
    "mass of the others left in": Mistake(
        "The part for the others is still multiplied by the teacher's mass p_R = 1 - p_y. That is "
        "KD, where a sure teacher silences what it knows of the others. DKD takes the mass away.",
        _with(_plain),
    ),
    "others not made a distribution": Mistake(
        "The probabilities of the others do not add up to 1. Divide them by their sum, in either "
        "net, before the divergence: a softmax over the others alone.",
        _with(lambda q, p, own: (_gap(q, p) * ~own).sum(1)),
    ),
    "target still among the others": Mistake(
        "The target is still among the others: their softmax runs over all identities. Put -inf "
        "in its place before the softmax.",
        _with(lambda q, p, own: _gap(q, p).sum(1)),
    ),
    "target's logit made zero": Mistake(
        "The target's logit was made 0, which is a logit like any other: exp(0) = 1. What a "
        "softmax shall leave out has the logit -inf.",
        _zeroed,
    ),
    "weights exchanged": Mistake(
        "The weights were exchanged. The first belongs to the target's part, which compares (p_y, "
        "1 - p_y), the second to the part among the others.",
        instead(
            _dkd,
            target_weight=lambda a: a.others_weight,
            others_weight=lambda a: a.target_weight,
        ),
    ),
    "target's part missing": Mistake(
        "The target's part is missing: the divergence between the masses (p_y, 1 - p_y).",
        instead(_dkd, target_weight=lambda a: 0.0),
    ),
    "divergence the other way round": Mistake(
        "The divergences are the wrong way round: KL(student || teacher). The teacher's "
        "probabilities weight the terms: sum p_t (log p_t - log p_s).",
        lambda student, teacher, *others: _dkd(teacher, student, *others),
    ),
    "sum over the batch": summed(_dkd),
}


def _cases() -> list[Case]:
    by_hand = real([[1.0, 0.0, 0.0]]), real([[0.0, 1.0, 2.0]]), torch.tensor([0])
    cases = [Case("by hand", (*by_hand, 1.0, 2.0, 2.0))]
    for rows, people, seed, scale, others in ((3, 4, 141, 3.0, 8.0), (6, 5, 144, 6.0, 3.0)):
        labels = torch.randint(people, (rows,), generator=torch.Generator().manual_seed(seed))
        nets = scale * normal(seed + 1, rows, people), scale * normal(seed + 2, rows, people)
        # The first and its weight are 1 in the paper; a weight by heart must not pass.
        target, temperature = (1.0, 4.0) if rows == 3 else (0.5, 1.5)
        arguments = (*nets, labels, target, others, temperature)
        cases.append(Case(f"{rows} images, {people} identities", arguments))
    sure = real([[900.0, 0.0, -30.0], [0.0, 1.0, 2.0]])
    arguments = (
        sure,
        real([[3.0, 0.0, 1.0], [1.0, 2.0, 0.0]]),
        torch.tensor([0, 1]),
        1.0,
        8.0,
        1.0,
    )
    return [*cases, Case("a sure student", arguments, SURE)]


DKD = Exercise(
    "dkd", _dkd, _cases, MISTAKES, gradient=("student_logits",), detached=("teacher_logits",)
)


def check_dkd(f: Function) -> Feedback:
    """Check a function for the loss of DKD.

    Args:
        f: f(student_logits (N, C), teacher_logits (N, C), labels (N,), target_weight,
            others_weight, temperature) -> 0-dim, T^2 times the mean over the images of
            target_weight KL((p_y, 1 - p_y) || (q_y, 1 - q_y)) + others_weight KL(p' || q'), where
            p and q are the softmax at T of teacher and student, p' and q' that over the others
            alone; no gradient to the teacher.
    """
    return judge(DKD, f)
