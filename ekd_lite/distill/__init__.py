"""Distillation losses: loss(student, teacher[, labels]) -> 0-dim tensor; one paper, one file."""

from ekd_lite.distill.adadistill import AdaDistillLoss
from ekd_lite.distill.batch_hard import BatchHardDecisionLoss
from ekd_lite.distill.cckd import CCKDLoss
from ekd_lite.distill.contrastive import ContrastiveDecisionLoss
from ekd_lite.distill.darkrank import DarkRankLoss
from ekd_lite.distill.ddl import DDLLoss, distribution_gap
from ekd_lite.distill.distiller import Distiller, Setting
from ekd_lite.distill.ekd import EKDLoss
from ekd_lite.distill.ekd_fine import FineEKDLoss
from ekd_lite.distill.ekd_gallery import GalleryEKDLoss
from ekd_lite.distill.ekd_pairs import soft_rank
from ekd_lite.distill.fitnet import FitNetLoss
from ekd_lite.distill.grouped_kd import GroupedKDLoss
from ekd_lite.distill.kd import KDLoss
from ekd_lite.distill.margin import MarginDistillationLoss
from ekd_lite.distill.methods import DISTILLERS, parse_method
from ekd_lite.distill.notes import NOTES, MethodNote
from ekd_lite.distill.pwr import PWRLoss
from ekd_lite.distill.rkd import RKDLoss
from ekd_lite.distill.shrinkteanet import ShrinkTeaNetLoss
from ekd_lite.distill.sp import SPLoss
from ekd_lite.distill.teacher_head import TeacherHeadLoss
from ekd_lite.distill.teacher_queue import TeacherQueueLoss
from ekd_lite.distill.triplet import TripletDistillationLoss, semi_hard_triplets

__all__ = [
    "DISTILLERS",
    "NOTES",
    "AdaDistillLoss",
    "BatchHardDecisionLoss",
    "CCKDLoss",
    "ContrastiveDecisionLoss",
    "DDLLoss",
    "DarkRankLoss",
    "Distiller",
    "EKDLoss",
    "FineEKDLoss",
    "FitNetLoss",
    "GalleryEKDLoss",
    "GroupedKDLoss",
    "KDLoss",
    "MarginDistillationLoss",
    "MethodNote",
    "PWRLoss",
    "RKDLoss",
    "SPLoss",
    "Setting",
    "ShrinkTeaNetLoss",
    "TeacherHeadLoss",
    "TeacherQueueLoss",
    "TripletDistillationLoss",
    "distribution_gap",
    "parse_method",
    "semi_hard_triplets",
    "soft_rank",
]
