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
            none, which no method meets that needs them.
        scale: s of the student's margin head, for a method that classifies by itself.
        num_identities: people of the *student's* training set; 0 if no method asks for it.
        margin: m of the student's margin head, in radians for a method that `takes_margin`.
        teacher_threshold: the cosine from which the teacher accepts a pair; None if no method
            `needs_threshold`.
        gallery: the teacher's rows of the training set, (G, teacher_dim), and their labels, (G,);
            None if no method `needs_gallery`.
    """

    student_dim: int
    teacher_dim: int
    teacher_prototypes: Tensor
    scale: float = 64.0
    num_identities: int = 0
    margin: float = 0.4
    teacher_threshold: float | None = None
    gallery: tuple[Tensor, Tensor] | None = None


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
            processes it must see the gathered batch (`ekd_lite.parallel`). A loss that gathers by
            itself what it keeps of the batch, and else is a mean over the images, is none.
        replaces_identity_loss: the loss classifies by itself; the margin head is left out.
        by_person: the loss looks up the teacher's prototypes by label, so that the teacher must
            know the people of the training set. Losses on logits do in any case.
        needs_prototypes: the loss compares images with the teacher's prototypes, but looks none up
            by label: they may be those of other people.
        takes_margin: the loss adds the margin of the student's head to an angle, which must be one.
        needs_threshold: the loss goes by the teacher's decisions (`Setting.teacher_threshold`).
        needs_gallery: the loss looks at the teacher's rows of the whole set (`Setting.gallery`).
    """

    build: Callable[[Setting], nn.Module]
    needs: Literal["embeddings", "logits"]
    weight: float
    needs_labels: bool = False
    needs_same_width: bool = False
    compares_images: bool = True
    replaces_identity_loss: bool = False
    by_person: bool = False
    needs_prototypes: bool = False
    takes_margin: bool = False
    needs_threshold: bool = False
    needs_gallery: bool = False
