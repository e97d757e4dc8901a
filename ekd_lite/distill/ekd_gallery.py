r"""Gallery EKD, a form of ours: rank the student's images among the teacher's rows of the set.

A batch of 96 images has some 70 genuine pairs, and 90 % of EKD's gradient lies on 10 of its images;
between two images of the student, with thresholds of its own, nothing holds the embeddings where
they are. Here an image i of the batch is compared with rows t_j of the *gallery*, the teacher's
embeddings of the training set:

    a_ij = s_i . t_j  in the student,      b_ij = t_i . t_j  in the teacher        (unit rows),

j over all images of i's person, i among them, as genuine pairs, and over random rows of others as
impostors. Each net has its own thresholds A_1 > ... of false-positive rates, from a running
histogram of its impostor cosines (the student's counts are multiplied by `decay` in every step, the
teacher's add up), and beyond the finest level A_n further ones, extrapolated:

    A_{n+k} = A_n + k (A_n - A_{n-1}),   k = 1 .. E.

On its own people a teacher tells nearly all pairs apart at 1e-5, so that without these almost all
genuine pairs have one rank. With R(x) = sum_m sigmoid((x - A_m) / tau), as in EKD,

    L = w_pos mean_{genuine} (R^S(a) - R^T(b))^2 + w_neg mean_{hard impostors} (R^S(a) - R^T(b))^2,

hard being what either net accepts at `hard_fpr`. The gradient goes to the student alone. No large
batch is needed, but one width for both nets, and labels.

The rows stay where they are, in memory or mapped from a file; a step reads the rows of the batch's
people and those it draws. The draw depends on `seed` and on how many steps were made, so that all
processes draw alike and a resumed run goes on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ekd_lite.distill.ekd_pairs import (
    BINS,
    count_cosines,
    histogram_thresholds,
    rank_pairs,
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
from ekd_lite.ops import check_tensors, generator_for, unit_rows


class GalleryEKDLoss(nn.Module):
    """Rank images among the teacher's rows as the teacher does. Nothing is counted in eval mode.

    Args:
        rows: the teacher's embeddings of the training set, (G, D), not normalised; kept as they
            are, on the CPU or mapped from a file, and not part of a checkpoint.
        labels: their identities, (G,), whole numbers.
        fprs: false-positive rates of the measured levels, from coarse to fine.
        extrapolated: E, levels beyond the finest.
        hard_fpr: impostor pairs that either net accepts at this rate take part.
        impostors: random rows that a step draws for all its images.
        genuine: at most so many rows of a person, spread over all of them.
        temperature: tau, in units of the cosine; 0.03 suits shorter runs.
        decay: what the student's counts are multiplied by in every step.
        positive_weight: w_pos, of genuine pairs.
        negative_weight: w_neg, of impostor pairs.
        seed: of the draws.

    Attributes:
        student_counts: histogram of the student's impostor cosines from -1 to 1, a buffer.
        teacher_counts: the teacher's, a buffer.
        steps: how many batches were counted, 0-dim, a buffer.
        stats: of the last batch, as in `FineEKDLoss`.

    Example:
        >>> rows, labels = torch.randn(40, 8), torch.arange(40) // 4
        >>> loss = GalleryEKDLoss(rows, labels, fprs=(0.1, 0.01))
        >>> loss(torch.randn(6, 8), rows[:6], labels[:6]).shape
        torch.Size([])
    """

    student_counts: Tensor
    teacher_counts: Tensor
    steps: Tensor

    def __init__(
        self,
        rows: Tensor,
        labels: Tensor,
        *,
        fprs: Sequence[float] = (1e-3, 1e-4, 1e-5),
        extrapolated: int = 4,
        hard_fpr: float = 1e-2,
        impostors: int = 1000,
        genuine: int = 64,
        temperature: float = 0.1,
        decay: float = 0.98,
        positive_weight: float = 0.02,
        negative_weight: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_tensors(rows=rows)
        if rows.ndim != 2 or not len(rows) or not rows.is_floating_point():
            raise ValueError(
                f"expected rows (G, D) of a floating-point type, got {tuple(rows.shape)} of "
                f"{rows.dtype}"
            )
        labels = check_pair_labels(labels, len(rows)).cpu()
        fprs = check_rates(fprs)
        (hard_fpr,) = check_rates(hard_fpr)
        check_weights(positive_weight, negative_weight)
        if any(fine >= coarse for coarse, fine in itertools.pairwise(fprs)):
            raise ValueError(f"rates must go from coarse to fine, got {fprs}")
        if (
            not 0 < temperature < math.inf
            or not 0 <= decay <= 1
            or min(extrapolated, impostors, genuine - 1) < 0
        ):
            raise ValueError(
                "expected temperature > 0, 0 <= decay <= 1, extrapolated >= 0, impostors >= 0 and "
                f"genuine >= 1, got {temperature}, {decay}, {extrapolated}, {impostors}, {genuine}"
            )
        self.fprs = fprs
        self.extrapolated = extrapolated
        self.hard_fpr = hard_fpr
        self.impostors = impostors
        self.genuine = genuine
        self.temperature = temperature
        self.decay = decay
        self.positive_weight = positive_weight
        self.negative_weight = negative_weight
        self.seed = seed
        self.stats: dict[str, Tensor] = {}
        # No buffers: millions of rows belong neither into a checkpoint nor onto a GPU.
        self._rows, self._labels = rows.detach(), labels
        self._sorted, self._order = labels.sort(stable=True)
        self.register_buffer("student_counts", torch.zeros(BINS, dtype=torch.float64))
        self.register_buffer("teacher_counts", torch.zeros(BINS, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare the ranks of the batch's images among the rows of the gallery.

        Args:
            student_embeddings: (N, D), not normalised.
            teacher_embeddings: (N, D), of the same images; gets no gradient.
            labels: identities, (N,), as in the gallery; who is not in it has no genuine pair.

        Returns:
            The weighted loss, 0-dim; zero while no pair or no threshold is known.

        Raises:
            ValueError: wrong shapes or widths, or no labels.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=True)
        labels = check_pair_labels(labels, len(student_embeddings))
        if student_embeddings.shape[1] != self._rows.shape[1]:
            raise ValueError(
                f"the gallery has width {self._rows.shape[1]}, and the widths must agree; got "
                f"student {tuple(student_embeddings.shape)}"
            )
        with full_precision(student_embeddings):
            student = unit_rows(student_embeddings)
            with torch.no_grad():
                teacher = unit_rows(teacher_embeddings)
                loss, grad = self._compare(student, teacher.to(student.dtype), labels)
            loss = with_gradient(loss, student, grad)
        return show_nan(loss, student_embeddings, teacher_embeddings)

    def _compare(self, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and its gradient, (N, D); in training the batch is counted first."""
        draw = generator_for(self.seed, 3, int(self.steps))
        # K rows for all, and M for each: cosines (N, K) and (N, M) in both nets.
        count = min(self.impostors, len(self._rows))
        drawn = torch.from_numpy(draw.choice(len(self._rows), count, replace=False))
        others = self._read(drawn, student)
        is_impostor = labels[:, None] != self._labels[drawn].to(labels.device)
        own_places, is_genuine = self._own(labels.cpu(), float(draw.random()))
        own, is_genuine = self._read(own_places, student), is_genuine.to(student.device)
        nets = student, teacher
        far = [net @ others.T for net in nets]
        near = [torch.einsum("nd,nmd->nm", net, own) for net in nets]
        if self.training:
            is_usable = student.isfinite().all(dim=1) & teacher.isfinite().all(dim=1)
            self.student_counts *= self.decay
            for counts, cosines in zip(
                (self.student_counts, self.teacher_counts), far, strict=True
            ):
                count_cosines(counts, cosines, ~(is_impostor & is_usable[:, None]))
            self.steps += 1
        is_hard = is_impostor & self._is_accepted(*far)
        pairs = [torch.cat([n[is_genuine], f[is_hard]]) for n, f in zip(near, far, strict=True)]
        num_genuine = int(is_genuine.sum())
        rank, wanted, slope = rank_pairs(
            torch.stack(pairs),
            self.thresholds(self.fprs, extrapolated=self.extrapolated).to(student.dtype),
            temperature=self.temperature,
        )
        weights = self.positive_weight, self.negative_weight
        loss, slope, self.stats = weigh_gaps(rank - wanted, slope, num_genuine, weights)
        of_near = torch.zeros_like(near[0]).masked_scatter_(is_genuine, slope[:num_genuine])
        of_far = torch.zeros_like(far[0]).masked_scatter_(is_hard, slope[num_genuine:])
        return loss, of_far @ others + torch.einsum("nm,nmd->nd", of_near, own)

    @torch.no_grad()
    def thresholds(self, fprs: Sequence[float], *, extrapolated: int = 0) -> Tensor:
        """Thresholds of student and teacher at the rates that both have seen enough pairs for.

        Args:
            fprs: rates, from coarse to fine.
            extrapolated: further levels, in steps as large as the last one between known levels.

        Returns:
            (2, L) float64; nothing is extrapolated from fewer than two levels.
        """
        counts = torch.stack([self.student_counts, self.teacher_counts])
        found = histogram_thresholds(counts, fprs)
        if found.shape[1] < 2:
            return found
        steps = torch.arange(1, extrapolated + 1, device=found.device)
        return torch.cat([found, found[:, -1:] + steps * found[:, -2:].diff(dim=1)], dim=1)

    def _is_accepted(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Pairs (N, K) that either net accepts at `hard_fpr`."""
        found = self.thresholds([self.hard_fpr])
        if not found.shape[1]:
            return torch.zeros_like(student, dtype=torch.bool)
        # Not ">": a NaN takes part, so that the loss shows it.
        return ~(student <= found[0]) | ~(teacher <= found[1])

    def _own(self, labels: Tensor, shift: float) -> tuple[Tensor, Tensor]:
        """Places in the gallery of the images of each image's person, and which of them are any.

        Of a person with more than `genuine` images every (count / genuine)-th is taken.

        Returns:
            Two tensors (N, M).
        """
        first = torch.searchsorted(self._sorted, labels)
        count = torch.searchsorted(self._sorted, labels, right=True) - first
        most = min(self.genuine, int(count.max())) if len(count) else 0
        stride = (count.double() / max(most, 1)).clamp(min=1)[:, None]
        place = ((torch.arange(most) + shift) * stride).floor().long()
        is_any = place < count[:, None]
        place = (first[:, None] + place).clamp(max=len(self._order) - 1)
        return self._order[place], is_any

    def _read(self, places: Tensor, like: Tensor) -> Tensor:
        """Unit rows of the gallery, (..., D), where and as the student's are."""
        rows = self._rows[places.flatten().to(self._rows.device)]
        rows = unit_rows(rows.to(like.device, like.dtype))
        return rows.view(*places.shape, rows.shape[1])
