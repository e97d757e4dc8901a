"""The methods by name, with what the training loop must know of each; `NOTES` has the prose."""

from __future__ import annotations

from ekd_lite.distill.adadistill import AdaDistillLoss
from ekd_lite.distill.batch_hard import BatchHardDecisionLoss
from ekd_lite.distill.cckd import CCKDLoss
from ekd_lite.distill.contrastive import ContrastiveDecisionLoss
from ekd_lite.distill.darkrank import DarkRankLoss
from ekd_lite.distill.ddl import DDLLoss
from ekd_lite.distill.distiller import Distiller, Setting
from ekd_lite.distill.ekd import EKDLoss
from ekd_lite.distill.ekd_fine import FineEKDLoss
from ekd_lite.distill.ekd_gallery import GalleryEKDLoss
from ekd_lite.distill.fitnet import FitNetLoss
from ekd_lite.distill.grouped_kd import GroupedKDLoss
from ekd_lite.distill.kd import KDLoss
from ekd_lite.distill.margin import MarginDistillationLoss
from ekd_lite.distill.pwr import PWRLoss
from ekd_lite.distill.rkd import RKDLoss
from ekd_lite.distill.shrinkteanet import ShrinkTeaNetLoss
from ekd_lite.distill.sp import SPLoss
from ekd_lite.distill.teacher_head import TeacherHeadLoss
from ekd_lite.distill.teacher_queue import TeacherQueueLoss
from ekd_lite.distill.triplet import TripletDistillationLoss
from ekd_lite.ops import nearest_name


def _build_gallery(setting: Setting) -> GalleryEKDLoss:
    if setting.gallery is None:
        raise ValueError("'ekd_gallery' needs the teacher's rows of the training set and labels")
    return GalleryEKDLoss(*setting.gallery)


def _threshold(setting: Setting) -> float:
    if setting.teacher_threshold is None:
        raise ValueError("this method needs the cosine from which the teacher accepts a pair")
    return setting.teacher_threshold


DISTILLERS: dict[str, Distiller] = {
    "kd": Distiller(
        lambda setting: KDLoss(),
        needs="logits",
        weight=8.0,
        compares_images=False,
        by_person=True,
    ),
    "fitnet": Distiller(
        lambda setting: FitNetLoss(
            student_dim=setting.student_dim, teacher_dim=setting.teacher_dim
        ),
        needs="embeddings",
        weight=16.0,
        compares_images=False,
    ),
    "shrinkteanet": Distiller(
        lambda setting: ShrinkTeaNetLoss(),
        needs="embeddings",
        weight=80.0,
        needs_same_width=True,
        compares_images=False,
    ),
    "darkrank": Distiller(
        lambda setting: DarkRankLoss(),
        needs="embeddings",
        weight=0.5,
    ),
    "sp": Distiller(
        lambda setting: SPLoss(),
        needs="embeddings",
        weight=300.0,
    ),
    "cckd": Distiller(
        lambda setting: CCKDLoss(),
        needs="embeddings",
        weight=2000.0,
    ),
    "rkd": Distiller(
        lambda setting: RKDLoss(),
        needs="embeddings",
        weight=2.0,
    ),
    "triplet": Distiller(
        lambda setting: TripletDistillationLoss(),
        needs="embeddings",
        weight=8.0,
        needs_labels=True,
    ),
    "margin": Distiller(
        lambda setting: MarginDistillationLoss(setting.teacher_prototypes, scale=setting.scale),
        needs="embeddings",
        weight=1.0,
        needs_labels=True,
        needs_same_width=True,
        replaces_identity_loss=True,
        by_person=True,
    ),
    "pwr": Distiller(
        lambda setting: PWRLoss(max_pairs=512),
        needs="embeddings",
        weight=1.0,
    ),
    "ddl": Distiller(
        lambda setting: DDLLoss(),
        needs="embeddings",
        weight=1.0,
        needs_labels=True,
    ),
    "ekd": Distiller(
        # A threshold pulls pairs within some 5 temperatures. The paper's 0.01 suits 590,000 steps
        # of 512 images; 1,500 steps of 96 need a longer reach (data/results/ekd_forms.csv).
        lambda setting: EKDLoss(temperature=0.1),
        needs="embeddings",
        weight=64.0,
        needs_labels=True,
    ),
    "ekd_paper": Distiller(
        lambda setting: EKDLoss(),
        needs="embeddings",
        weight=8.0,
        needs_labels=True,
    ),
    "ekd_fine": Distiller(
        lambda setting: FineEKDLoss(setting.student_dim, setting.teacher_dim),
        needs="embeddings",
        weight=32.0,
        needs_labels=True,
    ),
    "ekd_memory": Distiller(
        lambda setting: FineEKDLoss(
            setting.student_dim, setting.teacher_dim, thresholds="teacher", memory=4096
        ),
        needs="embeddings",
        weight=128.0,
        needs_labels=True,
    ),
    "adadistill": Distiller(
        lambda setting: AdaDistillLoss(
            setting.num_identities,
            setting.teacher_dim,
            scale=setting.scale,
            margin=setting.margin,
        ),
        needs="embeddings",
        weight=1.0,
        needs_labels=True,
        needs_same_width=True,
        compares_images=False,
        replaces_identity_loss=True,
        takes_margin=True,
    ),
    "arcdistill": Distiller(
        lambda setting: MarginDistillationLoss(
            setting.teacher_prototypes,
            scale=setting.scale,
            min_margin=setting.margin,
            max_margin=setting.margin,
        ),
        needs="embeddings",
        weight=1.0,
        needs_labels=True,
        needs_same_width=True,
        compares_images=False,
        replaces_identity_loss=True,
        by_person=True,
        takes_margin=True,
    ),
    "dkd": Distiller(
        lambda setting: GroupedKDLoss(group=1, secondary=8.0),
        needs="logits",
        weight=2.0,
        needs_labels=True,
        compares_images=False,
        by_person=True,
    ),
    "gkd": Distiller(
        lambda setting: GroupedKDLoss(group=0.117),
        needs="logits",
        weight=0.25,
        needs_labels=True,
        compares_images=False,
        by_person=True,
    ),
    "lskd": Distiller(
        lambda setting: KDLoss(temperature=2.0, standardize=True),
        needs="logits",
        weight=81.0,
        compares_images=False,
        by_person=True,
    ),
    "qud": Distiller(
        lambda setting: TeacherQueueLoss(setting.teacher_dim),
        needs="embeddings",
        weight=16.0,
        needs_same_width=True,
        compares_images=False,
    ),
    "seed": Distiller(
        lambda setting: TeacherQueueLoss(
            setting.teacher_dim, temperature=0.2, teacher_temperature=0.07
        ),
        needs="embeddings",
        weight=32.0,
        needs_same_width=True,
        compares_images=False,
    ),
    "thkd": Distiller(
        lambda setting: TeacherHeadLoss(setting.teacher_prototypes, scale=setting.scale),
        needs="embeddings",
        weight=4.0,
        needs_same_width=True,
        compares_images=False,
        needs_prototypes=True,
    ),
    "ekd_decisions": Distiller(
        lambda setting: FineEKDLoss(
            setting.student_dim,
            setting.teacher_dim,
            targets="decisions",
            threshold=setting.teacher_threshold,
        ),
        needs="embeddings",
        weight=128.0,
        needs_threshold=True,
    ),
    "ekd_labels": Distiller(
        lambda setting: FineEKDLoss(setting.student_dim, setting.teacher_dim, targets="labels"),
        needs="embeddings",
        weight=128.0,
        needs_labels=True,
    ),
    "ekd_gallery": Distiller(
        _build_gallery,
        needs="embeddings",
        weight=128.0,
        needs_labels=True,
        needs_same_width=True,
        needs_gallery=True,
    ),
    "ekd_l2": Distiller(
        lambda setting: FineEKDLoss(setting.student_dim, setting.teacher_dim, targets="cosines"),
        needs="embeddings",
        weight=2048.0,
        needs_labels=True,
    ),
    "contrastive_decisions": Distiller(
        lambda setting: ContrastiveDecisionLoss(
            setting.student_dim, setting.teacher_dim, threshold=_threshold(setting)
        ),
        needs="embeddings",
        weight=2048.0,
        needs_threshold=True,
    ),
    "triplet_decisions": Distiller(
        lambda setting: BatchHardDecisionLoss(threshold=_threshold(setting)),
        needs="embeddings",
        weight=8.0,
        needs_threshold=True,
    ),
}


def parse_method(method: str) -> dict[str, float]:
    """Read a method such as "ekd", "ekd+fitnet" or "ekd:2+fitnet:0.5" into {name: weight}.

    "none" is the student alone. Without ":weight" the default of `DISTILLERS` is used.

    Raises:
        ValueError: an unknown name (the nearest is suggested), a name twice, or a bad weight.
    """
    weights: dict[str, float] = {}
    if not isinstance(method, str):
        raise ValueError(f"a method is text such as 'ekd' or 'ekd+kd:2', got {method!r}")
    if method == "none":
        return weights
    for part in method.split("+"):
        name, _, weight = part.strip().partition(":")
        if name == "none":
            raise ValueError(f"'none' stands alone, not in {method!r}")
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
