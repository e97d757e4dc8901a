"""Checks that take your own function and answer with what is wrong, by the kind of mistake.

    >>> from ekd_lite.coursework import check_cosface
    >>> check_cosface(lambda embeddings, prototypes, labels, scale, margin: None)
    cosface: not written yet

Every check calls the function on a few small inputs, compares it with the library's answer, and
where it differs looks for a known mistake that gives the same numbers. It returns `Feedback`,
which shows itself as text, is true if all is right, and has a `score` for partial credit. It never
raises, whatever the function does. Where what was measured or chosen is handed in, `check_values`
compares it with what is right; `fair` decorates checks of one's own. `two_models` and `small_faces`
are what the assignments measure.
"""

from __future__ import annotations

from ekd_lite.coursework.exercise import Exercise
from ekd_lite.coursework.exercises.adadistill import ADADISTILL, check_adadistill
from ekd_lite.coursework.exercises.arcface import ARCFACE, check_arcface
from ekd_lite.coursework.exercises.best_accuracy import BEST_ACCURACY, check_best_accuracy
from ekd_lite.coursework.exercises.bootstrap import BOOTSTRAP, check_bootstrap
from ekd_lite.coursework.exercises.cckd import CCKD, check_cckd
from ekd_lite.coursework.exercises.conv_macs import CONV_MACS, check_conv_macs
from ekd_lite.coursework.exercises.cosface import COSFACE, check_cosface
from ekd_lite.coursework.exercises.cosine_logits import COSINE_LOGITS, check_cosine_logits
from ekd_lite.coursework.exercises.darkrank import DARKRANK, check_darkrank
from ekd_lite.coursework.exercises.decisions import DECISIONS, check_decisions
from ekd_lite.coursework.exercises.dkd import DKD, check_dkd
from ekd_lite.coursework.exercises.ekd import EKD, check_ekd
from ekd_lite.coursework.exercises.equal_error_rate import (
    EQUAL_ERROR_RATE,
    check_equal_error_rate,
)
from ekd_lite.coursework.exercises.fitnet import FITNET, check_fitnet
from ekd_lite.coursework.exercises.gallery import GALLERY, check_gallery
from ekd_lite.coursework.exercises.general_batch import check_general_batch
from ekd_lite.coursework.exercises.impostor_thresholds import (
    IMPOSTOR_THRESHOLDS,
    check_impostor_thresholds,
)
from ekd_lite.coursework.exercises.kd import KD, check_kd
from ekd_lite.coursework.exercises.learning_rate import LEARNING_RATE, check_learning_rate
from ekd_lite.coursework.exercises.margin import MARGIN, check_margin
from ekd_lite.coursework.exercises.pack import PACK, check_pack
from ekd_lite.coursework.exercises.paired_interval import PAIRED_INTERVAL, check_paired_interval
from ekd_lite.coursework.exercises.qud import QUD, check_qud
from ekd_lite.coursework.exercises.rkd import RKD, check_rkd
from ekd_lite.coursework.exercises.shrinkteanet import SHRINKTEANET, check_shrinkteanet
from ekd_lite.coursework.exercises.similarity_transform import (
    SIMILARITY_TRANSFORM,
    check_similarity_transform,
)
from ekd_lite.coursework.exercises.soft_rank import SOFT_RANK, check_soft_rank
from ekd_lite.coursework.exercises.sp import SP, check_sp
from ekd_lite.coursework.exercises.tpr_at_fpr import TPR_AT_FPR, check_tpr_at_fpr
from ekd_lite.coursework.exercises.triplet import TRIPLET, check_triplet
from ekd_lite.coursework.fair import fair
from ekd_lite.coursework.feedback import Feedback
from ekd_lite.coursework.material import SmallFaces, TwoModels, small_faces, two_models
from ekd_lite.coursework.values import check_values

EXERCISES: tuple[Exercise, ...] = (
    TPR_AT_FPR,
    BEST_ACCURACY,
    EQUAL_ERROR_RATE,
    BOOTSTRAP,
    PAIRED_INTERVAL,
    SIMILARITY_TRANSFORM,
    PACK,
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
    DECISIONS,
    GALLERY,
    ADADISTILL,
    DKD,
    QUD,
)

__all__ = [
    "EXERCISES",
    "Feedback",
    "SmallFaces",
    "TwoModels",
    "check_adadistill",
    "check_arcface",
    "check_best_accuracy",
    "check_bootstrap",
    "check_cckd",
    "check_conv_macs",
    "check_cosface",
    "check_cosine_logits",
    "check_darkrank",
    "check_decisions",
    "check_dkd",
    "check_ekd",
    "check_equal_error_rate",
    "check_fitnet",
    "check_gallery",
    "check_general_batch",
    "check_impostor_thresholds",
    "check_kd",
    "check_learning_rate",
    "check_margin",
    "check_pack",
    "check_paired_interval",
    "check_qud",
    "check_rkd",
    "check_shrinkteanet",
    "check_similarity_transform",
    "check_soft_rank",
    "check_sp",
    "check_tpr_at_fpr",
    "check_triplet",
    "check_values",
    "fair",
    "small_faces",
    "two_models",
]
