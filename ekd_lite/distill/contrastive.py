r"""A contrastive hinge on the teacher's decisions: the pull of metric learning on EKD's pairs.

    L = w_pos * mean_{accepted} max(0, A - a)  +  w_neg * mean_{hard rejected} max(0, a - A),

with a the student's cosine of a pair and A the student's own threshold at one false-positive rate.
It is a rival of `ekd_decisions` and its control: pairs, decisions, histograms and A are those of
`FineEKDLoss(targets="decisions")`, so that all that differs is how a pair is pulled. The hinge
pulls every pair on the wrong side of A with the same force, and is done with it on the other.

After Hadsell, Chopra and LeCun, CVPR 2006, who draw genuine pairs together without end and push the
others up to a fixed margin, by squared distances. Here one threshold parts both kinds, and
the hinge is linear, as in the margin loss of Wu et al., ICCV 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ekd_lite.distill.ekd_fine import FineEKDLoss
from ekd_lite.ops import are_numbers


class ContrastiveDecisionLoss(FineEKDLoss):
    """Pull what the teacher accepts above the student's threshold, push the rest below it.

    Args:
        student_dim: width D of the student's embeddings.
        teacher_dim: width D' of the teacher's.
        threshold: the cosine from which the teacher accepts a pair.
        fpr: false-positive rate of A.
        hard_fpr: rejected pairs that the student accepts at this rate take part.
        memory: how many earlier images are remembered, as in `FineEKDLoss`.
        decay: what the student's counts are multiplied by in every step.
        positive_weight: w_pos, of accepted pairs.
        negative_weight: w_neg, of rejected ones.

    Attributes:
        stats: of the last batch, 0-dim: "positive_loss" and "negative_loss" before their weights,
            "critical_share" of the pairs, those that miss A by more than a quarter.

    Example:
        >>> loss = ContrastiveDecisionLoss(8, 8, threshold=0.6)
        >>> embeddings = torch.randn(96, 8)
        >>> loss(embeddings, embeddings).ndim
        0
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        *,
        threshold: float,
        fpr: float = 1e-4,
        hard_fpr: float = 1e-2,
        memory: int = 0,
        decay: float = 0.98,
        positive_weight: float = 0.02,
        negative_weight: float = 0.01,
    ) -> None:
        if not are_numbers(fpr):
            raise ValueError(f"fpr must be one rate between 0 and 1, got {fpr!r}")
        super().__init__(
            student_dim,
            teacher_dim,
            targets="decisions",
            threshold=threshold,
            fprs=(fpr,),
            hard_fpr=hard_fpr,
            memory=memory,
            decay=decay,
            positive_weight=positive_weight,
            negative_weight=negative_weight,
        )

    def _gaps(self, pairs: list[Tensor], is_genuine: Tensor) -> tuple[Tensor, Tensor]:
        """Roots of the hinges, because gaps are squared, and their slopes: (P,) each."""
        a = pairs[0]
        threshold = self._levels(self.fprs)[0]
        if not len(threshold):  # not known yet
            return torch.zeros_like(a), torch.zeros_like(a)
        side = torch.where(is_genuine, -1.0, 1.0).to(a.dtype)
        missing = (side * (a - threshold.to(a.dtype))).clamp(min=0)
        gap = torch.where(threshold.isinf(), 0.0, missing).sqrt()
        # d(gap^2) = side, wherever there is a gap.
        return gap, torch.where(gap == 0, 0.0, side / (2 * gap))
