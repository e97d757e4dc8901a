"""Check of chapter 14: QUD."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.coursework.mistakes import cosines, instead, products, summed
from ekd_lite.distill.teacher_queue import TeacherQueueLoss
from ekd_lite.ops import unit_rows


def _qud(student: Tensor, teacher: Tensor, queue: Tensor, temperature: float) -> Any:
    rows, width = queue.shape
    loss = TeacherQueueLoss(width, temperature=temperature, size=rows).to(queue.dtype)
    loss.queue = queue.detach()
    return loss.eval()(student, teacher)


def _choose(own: Tensor, others: Tensor, right: int = 0) -> Tensor:
    """The cross-entropy of the choice between the own logit (N,) and those of others (N, n)."""
    choice = torch.cat([own[:, None], others], dim=1)
    return F.cross_entropy(choice, torch.full((len(own),), right % choice.shape[1]))


def _inner(student: Tensor, teacher: Tensor, queue: Tensor, temperature: float) -> Tensor:
    teacher, queue = teacher.detach(), queue.detach()
    own = (student * teacher).sum(1)
    return _choose(own / temperature, products(student, queue) / temperature)


def _own_missing(student: Tensor, teacher: Tensor, queue: Tensor, temperature: float) -> Tensor:
    own = cosines(student, teacher.detach()).diagonal() / temperature
    others = cosines(student, queue.detach()) / temperature
    return (others.logsumexp(1) - own).mean()


def _batch_first(student: Tensor, teacher: Tensor, queue: Tensor, temperature: float) -> Tensor:
    filled = torch.cat([unit_rows(teacher.detach()), queue.detach()])[: len(queue)]
    return _qud(student, teacher, filled, temperature)  # type: ignore[no-any-return]


def _batch_only(student: Tensor, teacher: Tensor, queue: Tensor, temperature: float) -> Tensor:
    choice = cosines(student, teacher.detach()) / temperature
    return F.cross_entropy(choice, torch.arange(len(choice)))


def _last_right(student: Tensor, teacher: Tensor, queue: Tensor, temperature: float) -> Tensor:
    own = cosines(student, teacher.detach()).diagonal() / temperature
    return _choose(own, cosines(student, queue.detach()) / temperature, right=-1)


MISTAKES = {
    "vectors not normalised": Mistake(
        "The embeddings were not normalised, so the products are no cosines. Divide the rows of "
        "student and teacher by their lengths.",
        _inner,
    ),
    "own teacher row not among the choices": Mistake(
        "The denominator runs over the queue alone. The choice is between the image's own teacher "
        "embedding and the queue: 1 + n logits, and the loss is never negative.",
        _own_missing,
    ),
    "batch put into the queue first": Mistake(
        "The batch was put into the queue before the loss. Then every image finds its own teacher "
        "embedding among the wrong choices too. First the loss, then the queue.",
        _batch_first,
    ),
    "batch in place of the queue": Mistake(
        "The wrong choices are the other images of the batch. They are the rows of the queue.",
        _batch_only,
    ),
    "last choice taken for the right one": Mistake(
        "The right choice is where the image's own teacher embedding stands: column 0 if it comes "
        "before the queue.",
        _last_right,
    ),
    "temperature left out": Mistake(
        "The temperature is missing: the cosines are divided by tau before the softmax.",
        instead(_qud, temperature=lambda a: 1.0),
    ),
    "temperature multiplied": Mistake(
        "The cosines were multiplied by the temperature. They are divided by it: cosines lie in "
        "-1..1, and their softmax would be almost uniform.",
        instead(_qud, temperature=lambda a: 1 / a.temperature),
    ),
    "sum over the batch": summed(_qud),
}


def _cases() -> list[Case]:
    by_hand = real([[3.0, 4.0]]), real([[2.0, 0.0]]), real([[0.0, 1.0]]), 0.5
    cases = [Case("by hand", by_hand)]
    for rows, size, seed, temperature in ((4, 6, 151, 0.2), (5, 9, 154, 0.1)):
        queue = F.normalize(normal(seed + 2, size, 6))
        arguments = (normal(seed, rows, 6), 2 * normal(seed + 1, rows, 6), queue, temperature)
        cases.append(Case(f"{rows} images, {size} in the queue", arguments))
    return cases


QUD = Exercise("qud", _qud, _cases, MISTAKES, gradient=("student",), detached=("teacher", "queue"))


def check_qud(f: Function) -> Feedback:
    """Check a function for the loss of QUD.

    Args:
        f: f(student (N, D), teacher (N, D), queue (n, D), temperature) -> 0-dim, the mean over the
            images of -log softmax(a_i)_0, a_i = s_i . (t_i, q_1, ..., q_n) / temperature, with unit
            rows s and t of student and teacher, and a queue of unit rows; no gradient to the
            teacher or its queue.
    """
    return judge(QUD, f)
