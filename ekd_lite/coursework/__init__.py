"""Checks that take your own function and answer with what is wrong, by the kind of mistake.

    >>> from ekd_lite.coursework import check_cosface
    >>> check_cosface(lambda embeddings, prototypes, labels, scale, margin: None)
    cosface: not written yet

Every check calls the function on a few small inputs, compares it with the library's answer, and
where it differs looks for a known mistake that gives the same numbers. It returns a `Verdict`,
which shows itself as text, is true if all is right, and has a `score` for partial credit. It never
raises, whatever the function does.
"""

from __future__ import annotations

from ekd_lite.coursework.arcface import ARCFACE, check_arcface
from ekd_lite.coursework.best_accuracy import BEST_ACCURACY, check_best_accuracy
from ekd_lite.coursework.bootstrap import BOOTSTRAP, check_bootstrap
from ekd_lite.coursework.cckd import CCKD, check_cckd
from ekd_lite.coursework.conv_macs import CONV_MACS, check_conv_macs
from ekd_lite.coursework.cosface import COSFACE, check_cosface
from ekd_lite.coursework.cosine_logits import COSINE_LOGITS, check_cosine_logits
from ekd_lite.coursework.darkrank import DARKRANK, check_darkrank
from ekd_lite.coursework.ekd import EKD, check_ekd
from ekd_lite.coursework.exercise import Exercise
from ekd_lite.coursework.fitnet import FITNET, check_fitnet
from ekd_lite.coursework.impostor_thresholds import IMPOSTOR_THRESHOLDS, check_impostor_thresholds
from ekd_lite.coursework.kd import KD, check_kd
from ekd_lite.coursework.learning_rate import LEARNING_RATE, check_learning_rate
from ekd_lite.coursework.margin import MARGIN, check_margin
from ekd_lite.coursework.paired_interval import PAIRED_INTERVAL, check_paired_interval
from ekd_lite.coursework.rkd import RKD, check_rkd
from ekd_lite.coursework.shrinkteanet import SHRINKTEANET, check_shrinkteanet
from ekd_lite.coursework.similarity_transform import (
    SIMILARITY_TRANSFORM,
    check_similarity_transform,
)
from ekd_lite.coursework.soft_rank import SOFT_RANK, check_soft_rank
from ekd_lite.coursework.sp import SP, check_sp
from ekd_lite.coursework.tpr_at_fpr import TPR_AT_FPR, check_tpr_at_fpr
from ekd_lite.coursework.triplet import TRIPLET, check_triplet
from ekd_lite.coursework.verdict import Verdict

EXERCISES: tuple[Exercise, ...] = (
    TPR_AT_FPR,
    BEST_ACCURACY,
    BOOTSTRAP,
    PAIRED_INTERVAL,
    SIMILARITY_TRANSFORM,
    COSINE_LOGITS,
    COSFACE,
    ARCFACE,
    CONV_MACS,
    LEARNING_RATE,
    KD,
    FITNET,
    SHRINKTEANET,
    RKD,
    SP,
    CCKD,
    DARKRANK,
    TRIPLET,
    MARGIN,
    IMPOSTOR_THRESHOLDS,
    SOFT_RANK,
    EKD,
)

__all__ = [
    "EXERCISES",
    "Verdict",
    "check_arcface",
    "check_best_accuracy",
    "check_bootstrap",
    "check_cckd",
    "check_conv_macs",
    "check_cosface",
    "check_cosine_logits",
    "check_darkrank",
    "check_ekd",
    "check_fitnet",
    "check_impostor_thresholds",
    "check_kd",
    "check_learning_rate",
    "check_margin",
    "check_paired_interval",
    "check_rkd",
    "check_shrinkteanet",
    "check_similarity_transform",
    "check_soft_rank",
    "check_sp",
    "check_tpr_at_fpr",
    "check_triplet",
]
