"""Distillation losses: loss(student, teacher[, labels]) -> 0-dim tensor; one paper, one file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ekd_lite.distill.ekd import EKDLoss
from ekd_lite.distill.fitnet import FitNetLoss
from ekd_lite.distill.kd import KDLoss
from ekd_lite.ops import nearest_name


@dataclass(frozen=True)
class Setting:
    """What a method may want to know of the two nets before training starts.

    Attributes:
        student_dim: width of the student's embedding.
        teacher_dim: width of the teacher's.
        teacher_prototypes: the teacher's classifier, (C, teacher_dim).
    """

    student_dim: int
    teacher_dim: int
    teacher_prototypes: Tensor


@dataclass(frozen=True)
class Distiller:
    """A method as `ekd-lite train --method NAME` uses it.

    Attributes:
        build: makes the loss module for a setting.
        needs: what student and teacher hand to it: "embeddings" (N, D) or "logits" (N, C).
        weight: default weight beside the identity loss.
        weight_source: where the weight comes from.
        paper: authors, venue, year.
        replaces_identity_loss: the method brings its own softmax; the head's is left out.
    """

    build: Callable[[Setting], nn.Module]
    needs: Literal["embeddings", "logits"]
    weight: float
    weight_source: str
    paper: str
    replaces_identity_loss: bool = False


DISTILLERS: dict[str, Distiller] = {
    "kd": Distiller(
        lambda setting: KDLoss(),
        needs="logits",
        weight=1.0,
        weight_source="FaceX-Zoo uses 1; the EKD paper's is unpublished",
        paper="Hinton et al., NIPS workshop 2014",
    ),
    "fitnet": Distiller(
        lambda setting: FitNetLoss(),
        needs="embeddings",
        weight=1.0,
        weight_source="ours; the EKD paper's is unpublished",
        paper="Romero et al., ICLR 2015",
    ),
    "ekd": Distiller(
        lambda setting: EKDLoss(),
        needs="embeddings",
        weight=1.0,
        weight_source="TFace: its weights 0.02 and 0.01 are inside the loss",
        paper="Huang et al., CVPR 2022",
    ),
}


def parse_method(method: str) -> dict[str, float]:
    """Read a method such as "ekd", "ekd+fitnet" or "ekd:2+fitnet:0.5" into {name: weight}.

    "none" is the student alone. Without ":weight" the default of `DISTILLERS` is used.

    Raises:
        ValueError: an unknown name (the nearest is suggested), a name twice, or a bad weight.
    """
    weights: dict[str, float] = {}
    if method == "none":
        return weights
    for part in method.split("+"):
        name, _, weight = part.strip().partition(":")
        if name not in DISTILLERS:
            hint = nearest_name(name, [*DISTILLERS, "none"])
            raise ValueError(f"unknown method {name!r} in {method!r}{hint}")
        if name in weights:
            raise ValueError(f"{name!r} stands twice in {method!r}")
        try:
            weights[name] = float(weight) if weight else DISTILLERS[name].weight
        except ValueError:
            weights[name] = -1.0
        if not 0 <= weights[name] < float("inf"):
            raise ValueError(f"the weight of {name!r} in {method!r} must be a number >= 0")
    return weights


__all__ = ["DISTILLERS", "Distiller", "EKDLoss", "FitNetLoss", "KDLoss", "Setting", "parse_method"]
