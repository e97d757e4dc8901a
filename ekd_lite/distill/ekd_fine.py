r"""EKD at fine false-positive rates, for small batches and short runs: forms of ours.

EKD (`ekd_lite.distill.ekd`) takes its thresholds from one batch at a time. 96 images have 4,500
impostor pairs, which show an FPR of 1e-3 at best, and most of the loss goes to coarse levels that
nobody is judged by. Here the impostor cosines of all batches are counted in a histogram, which
knows levels of 1e-4 and 1e-5 after some hundred steps. What is asked is what EKD asks, to be on
the same side of every threshold,

    R(a) = sum_m sigmoid((a - A_m) / tau)                              (as EKD, section 3.2)
    L = w_pos * mean_{genuine} (R^S - R^T)^2  +  w_neg * mean_{hard impostors} (R^S - R^T)^2,

with these differences:

* The levels begin at 1e-3, and a level takes part as soon as both histograms show it. The teacher
  is frozen, so its counts add up without end; the student's are multiplied by `decay` in every
  step.
* Hard impostors are all pairs that the teacher *or* the student accepts at `hard_fpr`, 1e-2, by its
  own threshold. What both reject with room to spare needs no mending.
* `thresholds="own"` ranks each net by its own thresholds, as EKD does. Nothing then fixes the scale
  of the student's similarities: alone and with a large weight its embeddings collapse into few
  dimensions. FitNet beside it fixes them (book, chapter 12).
  `thresholds="teacher"` ranks both nets by the teacher's.
* With `memory` M the batch is also compared with the last M images, whose embeddings in both nets
  are remembered (after the cross-batch memory of Wang et al., CVPR 2020); the gradient goes to the
  image in the batch. A remembered embedding of the student is that of up to M / N steps ago.

`targets` says what a pair's rank shall be, by its cosine a in the student and b in the teacher:

    "ranks"      gap = R^S(a) - R^T(b)         the teacher's rank, as above
    "decisions"  gap = R^S(a) - L [b >= t]     all L levels if the teacher accepts the pair, or none
    "labels"     gap = R^S(a) - L [y_i = y_j]  all or none, by the labels: a control without teacher
    "cosines"    gap = a - b                   the paper's Eq. 7, on the same pairs

With decisions a pair is genuine if the teacher accepts it at the one threshold t; labels are not
looked at. Calibrate t (`Teacher.threshold_at`) on people whom the teacher was not trained on: on
its own it is too low. With decisions and labels the student alone says which impostors are hard.
The slope of a rank falls as exp(-|a - A| / tau) away from the thresholds: a wrong pair, far on the
other side in the student, pulls little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ekd_lite.distill.ekd_pairs import (
    BINS,
    count_cosines,
    histogram_thresholds,
    pair_gradient,
    true_places,
    weigh_gaps,
)
from ekd_lite.distill.inputs import (
    check_pair_labels,
    check_rates,
    check_student_teacher,
    check_weights,
    full_precision,
    show_nan,
)
from ekd_lite.distill.known_gradient import with_gradient
from ekd_lite.distill.masked_pairs import (
    histogram_levels,
    masked_gradient,
    ranks_of_all,
    remember_usable,
    weigh_masked,
)
from ekd_lite.ops import are_numbers, is_free_to_fetch, unit_rows

TARGETS = ("ranks", "decisions", "labels", "cosines")


class FineEKDLoss(nn.Module):
    """Rank the pairs of this batch, and of the last ones, as the teacher does, or decides.

    In evaluation mode histograms and memory stay as they are.

    Args:
        student_dim: width D of the student's embeddings.
        teacher_dim: width D' of the teacher's.
        targets: what a pair's rank shall be: "ranks", "decisions", "labels" or "cosines".
        threshold: t of "decisions", a cosine of the teacher.
        fprs: false-positive rates of the L thresholds.
        hard_fpr: impostor pairs that a net accepts at this rate take part.
        thresholds: whose thresholds rank the student, its "own" or the "teacher"'s.
        memory: M, how many earlier images are remembered.
        temperature: tau, in units of the cosine.
        decay: what the student's counts are multiplied by in every step.
        positive_weight: w_pos, of genuine pairs.
        negative_weight: w_neg, of impostor pairs.

    Attributes:
        student_counts: histogram of the student's impostor cosines from -1 to 1, a buffer.
        teacher_counts: the teacher's, a buffer.
        student_memory: the student's last embeddings, unit rows, (M, D), a buffer.
        teacher_memory: the teacher's of the same images, unit rows, (M, D'), a buffer.
        memory_labels: their identities, (M,), -1 where the place is still empty, a buffer.
        seen: how many images have been put in, 0-dim, a buffer.
        stats: of the last batch, 0-dim: "positive_loss" and "negative_loss" before their weights,
            "critical_share" of the compared pairs, whose ranks differ by more than a half.
    """

    student_counts: Tensor
    teacher_counts: Tensor
    student_memory: Tensor
    teacher_memory: Tensor
    memory_labels: Tensor
    seen: Tensor

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        *,
        targets: Literal["ranks", "decisions", "labels", "cosines"] = "ranks",
        threshold: float | None = None,
        fprs: Sequence[float] = (1e-3, 1e-4, 1e-5, 1e-6),
        hard_fpr: float = 1e-2,
        thresholds: Literal["own", "teacher"] = "own",
        memory: int = 0,
        temperature: float = 0.1,
        decay: float = 0.98,
        positive_weight: float = 0.02,
        negative_weight: float = 0.01,
    ) -> None:
        super().__init__()
        if thresholds not in ("own", "teacher"):
            raise ValueError(f'thresholds must be "own" or "teacher", got {thresholds!r}')
        if targets not in TARGETS:
            raise ValueError(f"targets must be one of {', '.join(TARGETS)}, got {targets!r}")
        decides = targets == "decisions"
        is_cosine = threshold is not None and are_numbers(threshold) and -1 <= threshold <= 1
        if (threshold is not None, is_cosine) != (decides, decides):
            raise ValueError(
                'targets="decisions", and they alone, need threshold, the cosine from which the '
                f"teacher accepts a pair (Teacher.threshold_at); got {threshold!r} for {targets!r}"
            )
        if decides and thresholds == "teacher":
            raise ValueError('above t are no impostors: decisions need thresholds="own"')
        fprs = check_rates(fprs)
        (hard_fpr,) = check_rates(hard_fpr)
        check_weights(positive_weight, negative_weight)
        is_possible = are_numbers(memory, student_dim, teacher_dim, whole=True)
        is_possible = is_possible and min(memory, student_dim - 1, teacher_dim - 1) >= 0
        is_possible = is_possible and are_numbers(temperature, decay)
        if not is_possible or not (temperature > 0 and 0 <= decay <= 1):
            raise ValueError(
                "expected temperature > 0, 0 <= decay <= 1, memory >= 0 and widths >= 1, "
                f"got {temperature}, {decay}, {memory}, {student_dim} and {teacher_dim}"
            )
        self.targets, self.threshold = targets, threshold
        self.fprs = fprs
        self.hard_fpr = hard_fpr
        self.thresholds_of = thresholds
        self.temperature = temperature
        self.decay = decay
        self.positive_weight = positive_weight
        self.negative_weight = negative_weight
        self.stats: dict[str, Tensor] = {}
        self.register_buffer("student_counts", torch.zeros(BINS, dtype=torch.float64))
        self.register_buffer("teacher_counts", torch.zeros(BINS, dtype=torch.float64))
        self.register_buffer("student_memory", torch.zeros(memory, student_dim))
        self.register_buffer("teacher_memory", torch.zeros(memory, teacher_dim))
        self.register_buffer("memory_labels", torch.full((memory,), -1))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare the ranks of all pairs with an image of the batch with what they shall be.

        Args:
            student_embeddings: (N, D), not normalised.
            teacher_embeddings: (N, D'); gets no gradient.
            labels: identities, (N,); ignored with "decisions".

        Returns:
            The weighted loss, 0-dim; zero while no pair or no threshold is known.

        Raises:
            ValueError: wrong shapes or widths, or no labels.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=False)
        if self.targets == "decisions":  # zeros: these places of the memory are taken
            labels = self.memory_labels.new_zeros(len(student_embeddings))
        else:
            labels = check_pair_labels(labels, len(student_embeddings))
        self._check_widths(student_embeddings, teacher_embeddings)
        with full_precision(student_embeddings):
            student = unit_rows(student_embeddings)
            teacher = unit_rows(teacher_embeddings.detach())
            with torch.no_grad():
                others = _join(student, self.student_memory)
                cosines = student @ others.T, teacher @ _join(teacher, self.teacher_memory).T
                masks = self._choose(student, teacher, labels, *cosines)
                nets = [net.flatten() for net in cosines]
                weights = self.positive_weight, self.negative_weight
                if is_free_to_fetch(student):
                    genuine, hard = (true_places(mask.flatten()) for mask in masks)
                    places = torch.cat([genuine, hard])
                    is_genuine = torch.arange(len(places)) < len(genuine)
                    gap, slope = self._gaps([net[places] for net in nets], is_genuine)
                    loss, slope, self.stats = weigh_gaps(gap, slope, len(genuine), weights)
                    grad = pair_gradient(student, others, slope, places)
                else:
                    is_genuine, is_hard = (mask.flatten() for mask in masks)
                    gap, slope = self._gaps(nets, is_genuine)
                    loss, slope, self.stats = weigh_masked(gap, slope, is_genuine, is_hard, weights)
                    grad = masked_gradient(student, others, slope.view(cosines[0].shape))
            loss = with_gradient(loss, student, grad)
        return show_nan(loss, student_embeddings, teacher_embeddings)

    def _choose(
        self, student: Tensor, teacher: Tensor, labels: Tensor, a: Tensor, b: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Which pairs are genuine, and which hard impostors, by the cosines a and b: (N, N + M).

        In training the batch goes into histograms and memory first.
        """
        all_labels = torch.cat([labels, self.memory_labels])
        is_known = (all_labels >= 0).expand_as(b)
        if self.threshold is not None:
            is_genuine = is_known & (b >= self.threshold)
        else:
            is_genuine = labels[:, None] == all_labels
        is_impostor = is_known & ~is_genuine
        is_impostor.fill_diagonal_(False)  # a dead face and itself have cosine 0
        is_genuine.fill_diagonal_(False)  # a face and itself
        if self.training:
            is_usable = student.isfinite().all(dim=1) & teacher.isfinite().all(dim=1)
            self._count(a, b, is_impostor, is_usable)
            if len(self.memory_labels) and len(labels):
                memory = self.student_memory, self.teacher_memory, self.memory_labels
                remember_usable(memory, (student, teacher, labels), self.seen, is_usable)
        return is_genuine, is_impostor & self._is_accepted(a, b)

    def _gaps(self, pairs: list[Tensor], is_genuine: Tensor) -> tuple[Tensor, Tensor]:
        """Gaps of pairs, by their cosines in both nets, and their slopes: (P,) each."""
        both = torch.stack([pairs[0], pairs[1].to(pairs[0].dtype)])
        if self.targets == "cosines":
            return both[0] - both[1], torch.ones_like(both[0])
        own, of_teacher = self._levels(self.fprs)
        levels = torch.stack([own, of_teacher if self.targets == "ranks" else own])
        rank, wanted, slope = ranks_of_all(both, levels, temperature=self.temperature)
        if self.targets != "ranks":  # all levels that are known, or none
            wanted = torch.where(is_genuine, own.isfinite().sum().to(rank), 0.0)
        return rank - wanted, slope

    @torch.no_grad()
    def thresholds(self, fprs: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Thresholds of student and teacher at those rates that both have seen enough pairs for."""
        student, teacher = self._levels(fprs)
        return student[student.isfinite()], teacher[student.isfinite()]

    def _levels(self, fprs: Sequence[float]) -> Tensor:
        """The same, (2, L); where numbers are dear to fetch infinite for rates too fine."""
        of_student = self.student_counts if self.thresholds_of == "own" else self.teacher_counts
        counts = torch.stack([of_student, self.teacher_counts])
        look_up = histogram_thresholds if is_free_to_fetch(counts) else histogram_levels
        return look_up(counts, fprs).to(self.teacher_memory.dtype)

    def _check_widths(self, student: Tensor, teacher: Tensor) -> None:
        made_for = self.student_memory.shape[1], self.teacher_memory.shape[1]
        if (student.shape[1], teacher.shape[1]) != made_for:
            raise ValueError(
                f"this loss was made for widths {made_for}, and the widths must agree; got student "
                f"{tuple(student.shape)} and teacher {tuple(teacher.shape)}"
            )

    def _is_accepted(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Pairs (N, N + M) that either net accepts at `hard_fpr`; with all or none, the student."""
        of_student, of_teacher = self._levels([self.hard_fpr])
        if not len(of_student):
            return torch.zeros_like(student, dtype=torch.bool)
        is_accepted: Tensor = ~(student <= of_student)  # not ">": a NaN takes part, and shows
        if self.targets in ("ranks", "cosines"):
            is_accepted |= ~(teacher <= of_teacher)
        return is_accepted

    def _count(
        self, student: Tensor, teacher: Tensor, is_impostor: Tensor, is_usable: Tensor
    ) -> None:
        """Add impostor cosines, (N, N + M), of the batch's finite rows to the histograms."""
        is_left_out = ~is_impostor | ~is_usable[:, None]
        is_left_out[:, : len(student)] |= ~is_usable
        self.student_counts *= self.decay
        for counts, cosines in ((self.student_counts, student), (self.teacher_counts, teacher)):
            count_cosines(counts, cosines, is_left_out)


def _join(batch: Tensor, memory: Tensor) -> Tensor:
    return torch.cat([batch, memory.to(batch.dtype)])
