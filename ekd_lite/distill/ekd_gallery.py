r"""EKD against the teacher's gallery: a form of ours, for short runs and small batches.

EKD (`ekd_lite.distill.ekd`) compares the pairs *within* a batch of the student with the same pairs
of the teacher, and gives each net its own thresholds. In a batch of 96 images there are 4,500
impostor pairs, hardly one of them hard, and the student's thresholds move with the student: its
similarities may be stretched as it likes. Here the student's embeddings are *probes* and the
teacher's are the *gallery*: this batch's and the last M,

    a_ij = cos(s_i, t_j)  (student),     b_ij = cos(t_i, t_j)  (teacher),     j in the gallery.

The teacher is frozen, so an old t_j is as good as a new one, and a gallery of 4,096 gives 400,000
pairs a step. What is asked is what EKD asks, to be on the same side of every threshold,

    R(a) = sum_m sigmoid((a - A_m) / tau)                              (as EKD, section 3.2)
    L = w_pos * mean_{genuine} (R(a) - R(b))^2  +  w_neg * mean_{hard impostors} (R(a) - R(b))^2,

with three differences:

* One set of thresholds for both, the teacher's, at the FPR levels of its impostor pairs. They are
  counted in a histogram over all batches: no running average, no bias, and a level of 1e-6 is known
  after some ten steps.
* Hard impostors are all pairs that the teacher *or* the student accepts at `hard_fpr`, 1e-2; the
  levels begin below that, at 1e-3. What both reject with room to spare needs no mending.
* Student and teacher must have one width, and end in one space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ekd_lite.distill.ekd_pairs import soft_rank
from ekd_lite.distill.inputs import check_pair_labels, check_student_teacher, full_precision
from ekd_lite.ops import unit_rows

BINS = 4000  # of the histogram of cosines: 0.0005 each, a two-hundredth of the temperature


class GalleryEKDLoss(nn.Module):
    """Rank the student's probes in the teacher's gallery as the teacher's own.

    In evaluation mode gallery and thresholds stay as they are.

    Args:
        embedding_dim: width D of both nets' embeddings.
        gallery_size: M, how many earlier embeddings of the teacher are kept.
        fprs: false-positive rates of the L thresholds.
        hard_fpr: impostor pairs that either net accepts at this rate take part.
        temperature: tau, in units of the cosine.
        positive_weight: w_pos, of genuine pairs.
        negative_weight: w_neg, of impostor pairs.

    Attributes:
        gallery: the teacher's last embeddings, unit rows, (M, D), a buffer.
        gallery_labels: their identities, (M,), -1 where the place is still empty, a buffer.
        seen: how many embeddings have been put in, 0-dim, a buffer.
        counts: histogram of the teacher's impostor cosines from -1 to 1, a buffer.
        stats: of the last batch, 0-dim: "positive_loss" and "negative_loss" before their weights,
            "critical_share" of the compared pairs, whose ranks differ by more than a half.
    """

    gallery: Tensor
    gallery_labels: Tensor
    seen: Tensor
    counts: Tensor

    def __init__(
        self,
        embedding_dim: int,
        *,
        gallery_size: int = 4096,
        fprs: Sequence[float] = (1e-3, 1e-4, 1e-5, 1e-6),
        hard_fpr: float = 1e-2,
        temperature: float = 0.1,
        positive_weight: float = 0.02,
        negative_weight: float = 0.01,
    ) -> None:
        super().__init__()
        if not fprs or not all(0 < fpr < 1 for fpr in (*fprs, hard_fpr)):
            raise ValueError(f"rates must lie between 0 and 1, got {tuple(fprs)} and {hard_fpr}")
        if temperature <= 0 or gallery_size < 0 or embedding_dim < 1:
            raise ValueError(
                "expected temperature > 0, gallery_size >= 0 and embedding_dim >= 1, "
                f"got {temperature}, {gallery_size} and {embedding_dim}"
            )
        self.fprs = tuple(fprs)
        self.hard_fpr = hard_fpr
        self.temperature = temperature
        self.positive_weight = positive_weight
        self.negative_weight = negative_weight
        self.stats: dict[str, Tensor] = {}
        self.register_buffer("gallery", torch.zeros(gallery_size, embedding_dim))
        self.register_buffer("gallery_labels", torch.full((gallery_size,), -1))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(BINS, dtype=torch.int64))

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare the ranks of all pairs of a probe and a member of the gallery.

        Args:
            student_embeddings: (N, D), not normalised.
            teacher_embeddings: (N, D); gets no gradient.
            labels: identities, (N,).

        Returns:
            The weighted loss, 0-dim; zero while no pair or no threshold is known.

        Raises:
            ValueError: wrong shapes, or no labels.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=True)
        labels = check_pair_labels(labels, len(student_embeddings))
        with full_precision(student_embeddings):
            student = unit_rows(student_embeddings)
            teacher = unit_rows(teacher_embeddings.detach())
            gallery = torch.cat([teacher, self.gallery.to(teacher.dtype)])
            gallery_labels = torch.cat([labels, self.gallery_labels])
            teacher_cosines = teacher @ gallery.T
            is_genuine = labels[:, None] == gallery_labels
            is_impostor = ~is_genuine & (gallery_labels >= 0)
            is_genuine.fill_diagonal_(False)  # a face and itself
            if self.training:
                self._remember(teacher, labels, teacher_cosines[is_impostor])
            thresholds = self.thresholds(self.fprs)
            cosines = student @ gallery.T
            is_hard = is_impostor & self._is_accepted(cosines.detach(), teacher_cosines)
            genuine, hard = is_genuine.nonzero(as_tuple=True), is_hard.nonzero(as_tuple=True)
            gap = torch.cat(
                [
                    soft_rank(cosines[pairs], thresholds, temperature=self.temperature)
                    - soft_rank(teacher_cosines[pairs], thresholds, temperature=self.temperature)
                    for pairs in (genuine, hard)
                ]
            )
            num_genuine, num_hard = len(genuine[0]), len(hard[0])
            positive_loss = gap[:num_genuine].square().sum() / max(num_genuine, 1)
            negative_loss = gap[num_genuine:].square().sum() / max(num_hard, 1)
        self.stats = {
            "positive_loss": positive_loss.detach(),
            "negative_loss": negative_loss.detach(),
            "critical_share": (gap.detach().abs() > 0.5).float().sum() / max(len(gap), 1),
        }
        return self.positive_weight * positive_loss + self.negative_weight * negative_loss

    @torch.no_grad()
    def thresholds(self, fprs: Sequence[float]) -> Tensor:
        """The teacher's thresholds at the rates that enough pairs were seen for, (<= L,).

        A threshold is the upper edge of the histogram's bin in which the rate is reached, so that
        the share of impostor pairs above it is at most the rate. A rate below one pair in all that
        were seen is left out.
        """
        above = self.counts.flip(0).cumsum(0)
        wanted = above[-1].double() * torch.tensor(fprs, dtype=torch.float64, device=above.device)
        wanted = wanted[wanted >= 1]
        first = torch.searchsorted(above.double(), wanted, right=True)
        return (1 - first.double() * (2 / BINS)).to(self.gallery.dtype)

    @torch.no_grad()
    def _is_accepted(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Pairs (N, N + M) that either net accepts at `hard_fpr`, by the teacher's threshold."""
        threshold = self.thresholds([self.hard_fpr])
        if not len(threshold):
            return torch.zeros_like(student, dtype=torch.bool)
        # Not ">": a NaN takes part, so that the loss shows it.
        return ~(student <= threshold) | ~(teacher <= threshold)

    @torch.no_grad()
    def _remember(self, teacher: Tensor, labels: Tensor, impostors: Tensor) -> None:
        """Count the teacher's impostor cosines, and put its embeddings into the gallery."""
        impostors = impostors[impostors.isfinite()]
        places = ((impostors + 1) * (BINS / 2)).long().clamp_(0, BINS - 1)
        self.counts += torch.bincount(places, minlength=BINS)
        size = len(self.gallery)
        if not size:
            return
        usable = teacher.isfinite().all(dim=1)
        teacher, labels = teacher[usable][-size:], labels[usable][-size:]
        rows = (self.seen + torch.arange(len(teacher), device=self.seen.device)) % size
        self.gallery[rows] = teacher.to(self.gallery.dtype)
        self.gallery_labels[rows] = labels
        self.seen += len(teacher)
