"""The marking schemes of the four assignments: which name is worth how many points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ekd_lite import coursework
from ekd_lite.coursework.feedback import Feedback


@dataclass(frozen=True)
class Task:
    """One line of a marking scheme.

    Attributes:
        title: what is asked for.
        points: at most.
        answer: name of the function in the notebook; "" for text, which a person marks.
        check: gives the share of the points.
    """

    title: str
    points: int
    answer: str = ""
    check: Callable[[Any], Feedback] | None = None


SCHEMES: dict[str, tuple[Task, ...]] = {
    "measuring": (
        Task("TPR at FPR", 4, "tpr_at_fpr", coursework.check_tpr_at_fpr),
        Task("Best accuracy", 3, "best_accuracy", coursework.check_best_accuracy),
        Task("One resample of the people", 5, "resample", coursework.check_bootstrap),
        Task("Interval of a difference", 4, "paired_interval", coursework.check_paired_interval),
        Task("Which model is better? (text)", 4),
    ),
    "heads": (
        Task("Cosine logits", 3, "cosine_logits", coursework.check_cosine_logits),
        Task("CosFace", 4, "cosface", coursework.check_cosface),
        Task("ArcFace with a stable gradient", 5, "arcface", coursework.check_arcface),
        Task("Learning rate", 2, "learning_rate", coursework.check_learning_rate),
        Task("What the curves say (text)", 6),
    ),
    "distillation": (
        Task("KD", 3, "kd", coursework.check_kd),
        Task("RKD, distances", 4, "rkd", coursework.check_rkd),
        Task("Thresholds of a batch", 3, "thresholds", coursework.check_impostor_thresholds),
        Task("EKD", 6, "ekd", coursework.check_ekd),
        Task("Does distillation help here? (text)", 4),
    ),
    "decisions": (
        Task("EKD by decisions", 6, "decisions", coursework.check_decisions),
        Task("EKD in a gallery", 4, "gallery", coursework.check_gallery),
        Task("DKD", 3, "dkd", coursework.check_dkd),
        Task("Centres of AdaDistill", 3, "adadistill", coursework.check_adadistill),
        Task("What do decisions add? (text)", 4),
    ),
}
