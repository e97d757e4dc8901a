"""Check of chapter 14: how AdaDistill moves its centres."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.coursework.exercise import Case, Exercise, Function, Mistake, normal, real
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.judge import judge
from ekd_lite.distill.adadistill import AdaDistillLoss
from ekd_lite.ops import unit_rows


def _adadistill(student: Tensor, teacher: Tensor, centres: Tensor, labels: Tensor) -> Any:
    loss = AdaDistillLoss(*centres.shape, start=centres).to(centres.dtype)
    loss(student, teacher, labels)
    return loss.centres


def _weight(own: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """Alpha of every image; its old centre, and unit rows of both nets."""
    return ((s * t).sum(1) * F.cosine_similarity(own, t, dim=1).clamp(min=0)).clamp(0, 1)


def _mean(new: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """The mean of the new rows of each person; nobody else's centre moves."""
    total = torch.zeros_like(centres).index_add(0, labels, new)
    count = labels.bincount(minlength=len(centres))[:, None]
    return torch.where(count > 0, total / count.clamp(min=1), centres)


def _moved(
    weight: Function = _weight, joined: Function = _mean, unit: Function = unit_rows
) -> Function:
    """The update with one part changed."""

    def update(student: Tensor, teacher: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
        s, t, own = unit(student), unit(teacher), centres[labels]
        alpha = weight(own, s, t)[:, None]
        return joined(alpha * own + (1 - alpha) * t, centres, labels)  # type: ignore[no-any-return]

    return update


def _in_order(student: Tensor, teacher: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    for i, y in enumerate(labels.tolist()):
        one = slice(i, i + 1)
        centres = _moved()(student[one], teacher[one], centres, torch.tensor([y]))
    return centres


def _last(new: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    moved = centres.clone()
    for row, y in zip(new, labels.tolist(), strict=True):
        moved[y] = row
    return moved


MISTAKES = {
    "weights exchanged": Mistake(
        "The weights of centre and image were exchanged. alpha is large where the student already "
        "does well, and then the centre stays: alpha w + (1 - alpha) t.",
        _moved(weight=lambda own, s, t: 1 - _weight(own, s, t)),
    ),
    "plain weight": Mistake(
        "alpha is the cosine of student and teacher alone. The paper's best form multiplies it by "
        "how typical the image is: the cosine of the teacher's embedding with the old centre.",
        _moved(weight=lambda own, s, t: (s * t).sum(1).clamp(0, 1)),
    ),
    "only how typical the image is": Mistake(
        "alpha is the cosine of teacher and centre alone. It is multiplied by the cosine of "
        "student and teacher: how well the student does decides how far the centre may go.",
        _moved(weight=lambda own, s, t: F.cosine_similarity(own, t, dim=1).clamp(0, 1)),
    ),
    "typical by the student": Mistake(
        "The student's embedding was compared with the centre. Centres are the teacher's: lambda "
        "is the cosine of the *teacher's* embedding with the old centre.",
        _moved(weight=lambda own, s, t: _weight(own, t, s)),
    ),
    "negative weights kept": Mistake(
        "Where a cosine is negative alpha must be 0, and the centre becomes this image's "
        "embedding. A negative alpha pushes the centre beyond it; a product of two negative "
        "cosines is no reason to stay.",
        _moved(weight=lambda own, s, t: (s * t).sum(1) * F.cosine_similarity(own, t, dim=1)),
    ),
    "vectors not normalised": Mistake(
        "The teacher's embeddings entered the centres with their lengths. Centres are means of "
        "unit rows.",
        lambda student, teacher, centres, labels: _moved(
            weight=lambda own, s, t: _weight(own, unit_rows(s), unit_rows(t)),
            unit=lambda x: x,
        )(student, teacher, centres, labels),
    ),
    "centres made unit again": Mistake(
        "The moved centres were normalised. They stay as they come, shorter than 1, and only the "
        "logits divide by their lengths.",
        lambda *given: unit_rows(_adadistill(*given)),
    ),
    "last image wins": Mistake(
        "Of several images of a person only the last one counts: centres[labels] = ... keeps one "
        "of them, and which is not even defined. Take the mean of their updates.",
        _moved(joined=_last),
    ),
    "one image after the other": Mistake(
        "The images were taken one after the other, so that the second of a person met the centre "
        "that the first had moved. Every alpha is of the old centre; then the mean of the updates.",
        _in_order,
    ),
    "sum of the updates": Mistake(
        "The updates of a person's images were summed. Take their mean.",
        _moved(
            joined=lambda new, centres, labels: _mean(
                new * labels.bincount()[labels][:, None], centres, labels
            )
        ),
    ),
}


def _cases() -> list[Case]:
    by_hand = real([[3.0, 4.0]]), real([[5.0, 0.0]]), real([[0.5, 0.5], [0.0, 1.0]])
    cases = [Case("by hand", (*by_hand, torch.tensor([0])))]
    for rows, people, seed in ((5, 4, 161), (9, 4, 166)):
        centres = 0.7 * unit_rows(normal(seed, people, 6))
        labels = torch.arange(rows) % (people - 1)  # nobody has the last label
        teacher = 2 * centres[labels] + 0.5 * normal(seed + 1, rows, 6)
        student = teacher + normal(seed + 2, rows, 6)
        student[1], teacher[2] = -student[1], -teacher[2]
        name = f"{rows} images of {people} people"
        cases.append(Case(name, (student, 3 * teacher, centres, labels)))
    return cases


ADADISTILL = Exercise("adadistill", _adadistill, _cases, MISTAKES)


def check_adadistill(f: Function) -> Feedback:
    """Check a function for the centres of AdaDistill after a batch.

    Args:
        f: f(student (N, D), teacher (N, D), centres (C, D), labels (N,)) -> (C, D): the centre of a
            person becomes the mean, over its images i in the batch, of alpha_i w + (1 - alpha_i)
            t_i, with its old centre w, unit rows s and t of student and teacher, and alpha_i =
            cos(s_i, t_i) cos(w, t_i), either cosine 0 where it is negative. Other centres stay.
    """
    return judge(ADADISTILL, f)
