"""The methods by name, with what a user and the training loop must know of each."""

from __future__ import annotations

from ekd_lite.distill.cckd import CCKDLoss
from ekd_lite.distill.darkrank import DarkRankLoss
from ekd_lite.distill.distiller import Distiller
from ekd_lite.distill.ekd import EKDLoss
from ekd_lite.distill.ekd_fine import FineEKDLoss
from ekd_lite.distill.fitnet import FitNetLoss
from ekd_lite.distill.kd import KDLoss
from ekd_lite.distill.margin import MarginDistillationLoss
from ekd_lite.distill.pwr import PWRLoss
from ekd_lite.distill.rkd import RKDLoss
from ekd_lite.distill.shrinkteanet import ShrinkTeaNetLoss
from ekd_lite.distill.sp import SPLoss
from ekd_lite.distill.triplet import TripletDistillationLoss
from ekd_lite.ops import nearest_name

CHOSEN = "chosen on validation identities (data/results/weights.csv)"

DISTILLERS: dict[str, Distiller] = {
    "kd": Distiller(
        lambda setting: KDLoss(),
        needs="logits",
        weight=8.0,
        weight_source=f"{CHOSEN}; FaceX-Zoo uses 1, the EKD paper's is unpublished",
        paper="Hinton et al., NIPS workshop 2014",
        transfers="outputs",
        cost="N C",
        differs="logits s cos(theta) without margin, as TFace's head returns them for this use",
        compares_images=False,
    ),
    "fitnet": Distiller(
        lambda setting: FitNetLoss(
            student_dim=setting.student_dim, teacher_dim=setting.teacher_dim
        ),
        needs="embeddings",
        weight=16.0,
        weight_source=f"{CHOSEN}; the EKD paper's is unpublished",
        paper="Romero et al., ICLR 2015",
        transfers="features",
        cost="N D",
        differs="last layer in one stage, not intermediate maps in two; a learned linear map where "
        "widths differ",
        compares_images=False,
    ),
    "shrinkteanet": Distiller(
        lambda setting: ShrinkTeaNetLoss(),
        needs="embeddings",
        weight=80.0,
        weight_source=f"{CHOSEN}; MarginDistillation's code "
        "uses 1 (variant cosine), VarGFaceNet 7 (variant chord); the EKD paper's is unpublished",
        paper="Duong et al., arXiv 1905.10620, 2019",
        transfers="features",
        cost="N D",
        differs="embeddings only, without the teacher's last layers on the student's features",
        needs_same_width=True,
        compares_images=False,
    ),
    "darkrank": Distiller(
        lambda setting: DarkRankLoss(),
        needs="embeddings",
        weight=0.5,
        weight_source=f"{CHOSEN}; the authors' soft form has 16, the EKD paper's is unpublished",
        paper="Chen et al., AAAI 2018",
        transfers="relations",
        cost="N^2 D",
        differs="the query is left out of its own list by name, not by its place in the sorted row",
    ),
    "sp": Distiller(
        lambda setting: SPLoss(),
        needs="embeddings",
        weight=300.0,
        weight_source=f"{CHOSEN}; RepDistiller has 3000 for "
        "the row-normalised form on CIFAR, the EKD paper's is unpublished",
        paper="Tung, Mori, ICCV 2019",
        transfers="relations",
        cost="N^2 D",
        differs="cosines of embeddings, rows not normalised, as TFace; the original is an option",
    ),
    "cckd": Distiller(
        lambda setting: CCKDLoss(),
        needs="embeddings",
        weight=2000.0,
        weight_source=f"{CHOSEN}; the EKD paper's is unpublished",
        paper="Peng et al., ICCV 2019",
        transfers="relations",
        cost="N^2 D",
        differs="the Taylor sum runs to P; TFace's stops at P - 1. No instance congruence",
    ),
    "rkd": Distiller(
        lambda setting: RKDLoss(),
        needs="embeddings",
        weight=2.0,
        weight_source=f"{CHOSEN}, times the 25 and 50 of "
        "TFace and RepDistiller inside the loss; the EKD paper's are unpublished",
        paper="Park et al., CVPR 2019",
        transfers="relations",
        cost="N^3 + N^2 D",
        differs="identical embeddings have no angle and do not count in the mean distance",
    ),
    "triplet": Distiller(
        lambda setting: TripletDistillationLoss(),
        needs="embeddings",
        weight=8.0,
        weight_source=f"{CHOSEN}; the only public code fine-tunes with this loss alone",
        paper="Feng et al., ICIP 2020",
        transfers="margins",
        cost="N^2 (D + log N)",
        differs="nearest semi-hard impostor of the batch, not a random one of a bag of 7200; "
        "beside the identity loss, not after it",
        needs_labels=True,
    ),
    "margin": Distiller(
        lambda setting: MarginDistillationLoss(setting.teacher_prototypes, scale=setting.scale),
        needs="embeddings",
        weight=1.0,
        weight_source="the authors': it is the only loss",
        paper="Svitov, Alyamkin, arXiv 2003.02586, 2020",
        transfers="margins",
        cost="N C D",
        differs="the ratio that sets the margin is kept in 0..1; finite slope at theta = 0",
        needs_labels=True,
        needs_same_width=True,
        replaces_identity_loss=True,
    ),
    "pwr": Distiller(
        lambda setting: PWRLoss(max_pairs=512),
        needs="embeddings",
        weight=1.0,
        weight_source="ours; the authors have 100 beside 0.7 cross entropy and 0.3 KD",
        paper="Nikitin et al., CEUR 2744/30, 2020",
        transfers="relations",
        cost="N^4, at most 512^2 comparisons",
        differs="above 512 pairs (the class: 2048), 512 evenly spaced ones are compared",
    ),
    "ekd": Distiller(
        # A threshold pulls pairs within some 5 temperatures. The paper's 0.01 suits 590,000 steps
        # of 512 images; 1,500 steps of 96 need a longer reach (data/results/ekd_forms.csv).
        lambda setting: EKDLoss(temperature=0.1),
        needs="embeddings",
        weight=64.0,
        weight_source="chosen on validation identities (data/results/ekd_forms.csv), times the "
        "0.02 and 0.01 inside the loss; the authors' 1 acts like 8 on their 8 GPUs",
        paper="Huang et al., CVPR 2022",
        transfers="evaluation",
        cost="N^2 D",
        differs="temperature 0.1 for short runs, the class has the paper's 0.01; unbiased running "
        "thresholds, levels the batch cannot show left out, defined for one-sided batches; "
        "mode='official' is the authors' code",
        needs_labels=True,
    ),
    "ekd_paper": Distiller(
        lambda setting: EKDLoss(),
        needs="embeddings",
        weight=8.0,
        weight_source="the authors' 1 times their 8 GPUs, by which their gradients grow",
        paper="Huang et al., CVPR 2022",
        transfers="evaluation",
        cost="N^2 D",
        differs="as ekd, with the paper's temperature 0.01: for hundreds of thousands of steps "
        "with batches of some hundred images",
        needs_labels=True,
    ),
    "ekd_fine": Distiller(
        lambda setting: FineEKDLoss(setting.student_dim, setting.teacher_dim),
        needs="embeddings",
        weight=32.0,
        weight_source="chosen on validation identities beside FitNet "
        "(data/results/study_weights.csv), times the 0.02 and 0.01 inside the loss",
        paper="ours, after Huang et al., CVPR 2022",
        transfers="evaluation",
        cost="N^2 D",
        differs="levels of 1e-3 and finer, counted over all batches; impostors hard for either "
        "net; best beside FitNet, for a large weight alone collapses the embeddings",
        needs_labels=True,
    ),
    "ekd_memory": Distiller(
        lambda setting: FineEKDLoss(
            setting.student_dim, setting.teacher_dim, thresholds="teacher", memory=4096
        ),
        needs="embeddings",
        weight=128.0,
        weight_source="chosen on validation identities (data/results/study_weights.csv), times the "
        "0.02 and 0.01 inside the loss",
        paper="ours, after Huang et al., CVPR 2022",
        transfers="evaluation",
        cost="N (N + M) D, M = 4096",
        differs="as ekd_fine, with the teacher's thresholds for both nets and pairs with the last "
        "4096 images",
        needs_labels=True,
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
