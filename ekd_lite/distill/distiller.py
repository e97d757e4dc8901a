"""What a method is to the training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn


@dataclass(frozen=True)
class Setting:
    """What a method may want to know of the two nets before training starts.

    Attributes:
        student_dim: width of the student's embedding.
        teacher_dim: width of the teacher's.
        teacher_prototypes: the teacher's classifier, (C, teacher_dim); (0, teacher_dim) if it has
            none, which no method `by_person` meets.
        scale: s of the student's margin head, for a method that classifies by itself.
    """

    student_dim: int
    teacher_dim: int
    teacher_prototypes: Tensor
    scale: float = 64.0


@dataclass(frozen=True)
class Distiller:
    """A method as `ekd-lite train --method NAME` uses it.

    Attributes:
        build: makes the loss module for a setting.
        needs: what student and teacher hand to it: "embeddings" (N, D) or "logits" (N, C).
        weight: default weight beside the identity loss.
        needs_labels: the loss cannot do without labels.
        needs_same_width: student and teacher embeddings must have one width.
        compares_images: the loss relates images of the batch to one another, so that with several
            processes it must see the gathered batch (`ekd_lite.parallel`).
        replaces_identity_loss: the loss classifies by itself; the margin head is left out.
        by_person: the loss looks up the teacher's prototypes by label, so that the teacher must
            know the people of the training set. Losses on logits do in any case.
    """

    build: Callable[[Setting], nn.Module]
    needs: Literal["embeddings", "logits"]
    weight: float
    needs_labels: bool = False
    needs_same_width: bool = False
    compares_images: bool = True
    replaces_identity_loss: bool = False
    by_person: bool = False
