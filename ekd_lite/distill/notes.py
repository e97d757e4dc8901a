"""What a reader wants to know of each method: its paper, its cost, where we differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TRIAL = (
    "of a short trial on validation identities: 500 steps, one seed "
    "(data/results/successor_weights.csv)"
)
CHOSEN = "chosen on validation identities (data/results/weights.csv)"


@dataclass(frozen=True)
class MethodNote:
    """The prose about a method; the book's table of methods is made of it.

    Attributes:
        paper: authors, venue, year.
        transfers: what the student takes over.
        cost: operations for a batch of N (embeddings of width D, C identities).
        weight_source: where the default weight comes from.
        differs: where we differ from the paper's or the authors' code.
    """

    paper: str
    transfers: Literal["outputs", "features", "relations", "margins", "evaluation"]
    cost: str
    weight_source: str
    differs: str


NOTES: dict[str, MethodNote] = {
    "kd": MethodNote(
        paper="Hinton et al., NIPS workshop 2014",
        transfers="outputs",
        cost="N C",
        weight_source=f"{CHOSEN}; FaceX-Zoo uses 1, the EKD paper's is unpublished",
        differs="logits s cos(theta) without margin, as TFace's head returns them for this use",
    ),
    "fitnet": MethodNote(
        paper="Romero et al., ICLR 2015",
        transfers="features",
        cost="N D",
        weight_source=f"{CHOSEN}; the EKD paper's is unpublished",
        differs="last layer in one stage, not intermediate maps in two; a learned linear map where "
        "widths differ",
    ),
    "shrinkteanet": MethodNote(
        paper="Duong et al., arXiv 1905.10620, 2019",
        transfers="features",
        cost="N D",
        weight_source=f"{CHOSEN}; MarginDistillation's code "
        "uses 1 (variant cosine), VarGFaceNet 7 (variant chord); the EKD paper's is unpublished",
        differs="embeddings only, without the teacher's last layers on the student's features",
    ),
    "darkrank": MethodNote(
        paper="Chen et al., AAAI 2018",
        transfers="relations",
        cost="N^2 D",
        weight_source=f"{CHOSEN}; the authors' soft form has 16, the EKD paper's is unpublished",
        differs="the query is left out of its own list by name, not by its place in the sorted row",
    ),
    "sp": MethodNote(
        paper="Tung, Mori, ICCV 2019",
        transfers="relations",
        cost="N^2 D",
        weight_source=f"{CHOSEN}; RepDistiller has 3000 for "
        "the row-normalised form on CIFAR, the EKD paper's is unpublished",
        differs="cosines of embeddings, rows not normalised, as TFace; the original is an option",
    ),
    "cckd": MethodNote(
        paper="Peng et al., ICCV 2019",
        transfers="relations",
        cost="N^2 D",
        weight_source=f"{CHOSEN}; the EKD paper's is unpublished",
        differs="the Taylor sum runs to P; TFace's stops at P - 1. No instance congruence",
    ),
    "rkd": MethodNote(
        paper="Park et al., CVPR 2019",
        transfers="relations",
        cost="N^3 + N^2 D",
        weight_source=f"{CHOSEN}, times the 25 and 50 of "
        "TFace and RepDistiller inside the loss; the EKD paper's are unpublished",
        differs="identical embeddings have no angle and do not count in the mean distance",
    ),
    "triplet": MethodNote(
        paper="Feng et al., ICIP 2020",
        transfers="margins",
        cost="N^2 (D + log N)",
        weight_source=f"{CHOSEN}; the only public code fine-tunes with this loss alone",
        differs="nearest semi-hard impostor of the batch, not a random one of a bag of 7200; "
        "beside the identity loss, not after it",
    ),
    "margin": MethodNote(
        paper="Svitov, Alyamkin, arXiv 2003.02586, 2020",
        transfers="margins",
        cost="N C D",
        weight_source="the authors': it is the only loss",
        differs="the ratio that sets the margin is kept in 0..1; finite slope at theta = 0",
    ),
    "pwr": MethodNote(
        paper="Nikitin et al., CEUR 2744/30, 2020",
        transfers="relations",
        cost="N^4, at most 512^2 comparisons",
        weight_source="ours; the authors have 100 beside 0.7 cross entropy and 0.3 KD",
        differs="above 512 pairs (the class: 2048), 512 evenly spaced ones are compared",
    ),
    "ddl": MethodNote(
        paper="Huang et al., ECCV 2020",
        transfers="relations",
        cost="N^2 (D + 1000)",
        weight_source="the authors', with their 0.1, 0.02 and 0.5 inside the loss; not tried out",
        differs="between two nets on the same images, in the paper between easy and hard images of "
        "one net; pairs by label, and the nearest stranger among all rows",
    ),
    "ekd": MethodNote(
        paper="Huang et al., CVPR 2022",
        transfers="evaluation",
        cost="N^2 D",
        weight_source="chosen on validation identities (data/results/ekd_forms.csv), times the "
        "0.02 and 0.01 inside the loss; the authors' 1 acts like 8 on their 8 GPUs",
        differs="temperature 0.1 for short runs, the class has the paper's 0.01; unbiased running "
        "thresholds, levels the batch cannot show left out, defined for one-sided batches; "
        "mode='official' is the authors' code",
    ),
    "ekd_paper": MethodNote(
        paper="Huang et al., CVPR 2022",
        transfers="evaluation",
        cost="N^2 D",
        weight_source="the authors' 1 times their 8 GPUs, by which their gradients grow",
        differs="as ekd, with the paper's temperature 0.01: for hundreds of thousands of steps "
        "with batches of some hundred images",
    ),
    "ekd_fine": MethodNote(
        paper="ours, after Huang et al., CVPR 2022",
        transfers="evaluation",
        cost="N^2 D",
        weight_source="chosen on validation identities beside FitNet "
        "(data/results/study_weights.csv), times the 0.02 and 0.01 inside the loss",
        differs="levels of 1e-3 and finer, counted over all batches; impostors hard for either "
        "net; best beside FitNet, for a large weight alone collapses the embeddings",
    ),
    "ekd_memory": MethodNote(
        paper="ours, after Huang et al., CVPR 2022",
        transfers="evaluation",
        cost="N (N + M) D, M = 4096",
        weight_source="chosen on validation identities (data/results/study_weights.csv), times the "
        "0.02 and 0.01 inside the loss",
        differs="as ekd_fine, with the teacher's thresholds for both nets and pairs with the last "
        "4096 images",
    ),
    "adadistill": MethodNote(
        paper="Boutros et al., ECCV 2024",
        transfers="margins",
        cost="N C D, and a table C D",
        weight_source="the authors': it is the only loss",
        differs="centres start at zero and are the same on all processes (the authors' drift "
        "apart); several images of a person: the mean of their updates; finite slope at theta = 0; "
        "full margin from the first step, no ramp",
    ),
    "arcdistill": MethodNote(
        paper="ProxylessKD, arXiv 2011.00265, 2020, as in Boutros et al., ECCV 2024",
        transfers="margins",
        cost="N C D",
        weight_source="the authors': it is the only loss",
        differs="margin with one margin for all images; finite slope at theta = 0; full margin "
        "from the first step, no ramp",
    ),
    "dkd": MethodNote(
        paper="Zhao et al., CVPR 2022",
        transfers="outputs",
        cost="N C",
        weight_source=f"{TRIAL}; the authors' is 1",
        differs="logits as in kd; no warm-up of the weight",
    ),
    "gkd": MethodNote(
        paper="Zhao et al., AAAI 2023",
        transfers="outputs",
        cost="N C",
        weight_source=f"{TRIAL}; the authors' is 1, after a warm-up",
        differs="a group of 0.117 C, the authors' 10,000 of 85,742; logits without margin, theirs "
        "have CosFace's; no warm-up, no adaptive group",
    ),
    "lskd": MethodNote(
        paper="Sun et al., CVPR 2024",
        transfers="outputs",
        cost="N C",
        weight_source=f"{TRIAL}; the authors' is 9, for 100 classes",
        differs="logits as in kd, which then do not depend on the scale; T = 2 as the authors'",
    ),
    "qud": MethodNote(
        paper="Kolf et al., BMVC 2024",
        transfers="features",
        cost="N n D, n = 1024",
        weight_source=f"{TRIAL}; the authors' is the only loss",
        differs="beside the identity loss (identity_weight 0 is the paper's use); any batch size; "
        "the queue starts alike on all processes",
    ),
    "seed": MethodNote(
        paper="Fang et al., ICLR 2021",
        transfers="relations",
        cost="N n D, n = 1024",
        weight_source=f"{TRIAL}; the authors' is the only loss",
        differs="a divergence, the entropy of the teacher less; temperatures 0.2 and 0.07: the "
        "authors' 1e-4 for the teacher is qud; queue of 1024, theirs has 65,536",
    ),
    "thkd": MethodNote(
        paper="Ben-Baruch et al., arXiv 2201.06945, 2022",
        transfers="outputs",
        cost="N C D, C of the teacher",
        weight_source=TRIAL,
        differs="cosines in place of a linear head; without the sum of squared distances",
    ),
    "ekd_decisions": MethodNote(
        paper="ours, after Huang et al., CVPR 2022",
        transfers="evaluation",
        cost="N^2 D",
        weight_source="trials on validation identities, times the 0.02 and 0.01 inside the loss",
        differs="as ekd_fine, but the target is all levels or none, by the teacher's yes or no at "
        "one calibrated threshold; needs no label",
    ),
    "ekd_labels": MethodNote(
        paper="ours, a control",
        transfers="evaluation",
        cost="N^2 D",
        weight_source="as ekd_decisions",
        differs="as ekd_decisions, with labels instead of decisions: nothing comes from the "
        "teacher",
    ),
    "ekd_gallery": MethodNote(
        paper="ours, after Huang et al., CVPR 2022",
        transfers="evaluation",
        cost="N (K + M) D, K = 1000 drawn rows, M rows of a person",
        weight_source="trials on validation identities, times the 0.02 and 0.01 inside the loss",
        differs="images are ranked among the teacher's rows of the whole set; four more levels, "
        "extrapolated",
    ),
    "ekd_l2": MethodNote(
        paper="Huang et al., CVPR 2022, Eq. 7",
        transfers="relations",
        cost="N^2 D",
        weight_source="ours, so that it pulls about as ekd_fine does; not chosen by trials",
        differs="squared gaps of cosines on the pairs of ekd_fine; the paper's choice of pairs for "
        "it is unpublished",
    ),
    "contrastive_decisions": MethodNote(
        paper="after Hadsell, Chopra, LeCun, CVPR 2006",
        transfers="evaluation",
        cost="N^2 D",
        weight_source="ours, so that it pulls about as ekd_decisions does; the study searches it",
        differs="a linear hinge at the student's threshold for 1e-4 on the pairs and decisions of "
        "ekd_decisions; a rival and a control",
    ),
    "triplet_decisions": MethodNote(
        paper="after Hermans, Beyer, Leibe, arXiv 1703.07737, 2017",
        transfers="evaluation",
        cost="N^2 D",
        weight_source="as triplet; the study searches it",
        differs="the teacher's decisions in place of labels, cosines, a margin of 0.2; a rival",
    ),
}
