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

The rows stay where they are, in memory or mapped from a file; up to 4 GiB of them are copied to a
GPU that trains. A step reads the rows of the batch's people and those it draws. The draw depends on
`seed` and on how many steps were made, so that all processes draw alike and a resumed run goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ekd_lite.distill.ekd_pairs import (
    BINS,
    count_cosines,
    histogram_thresholds,
    weigh_gaps,
)
from ekd_lite.distill.gallery_rows import GalleryRows
from ekd_lite.distill.inputs import (
    check_pair_labels,
    check_rates,
    check_student_teacher,
    check_weights,
    full_precision,
    show_nan,
)
from ekd_lite.distill.known_gradient import with_gradient
from ekd_lite.distill.masked_pairs import histogram_levels, ranks_of_all, weigh_masked
from ekd_lite.ops import (
    are_numbers,
    check_table,
    check_tensors,
    generator_for,
    is_free_to_fetch,
    unit_rows,
)


class GalleryEKDLoss(nn.Module):
    """Rank images among the teacher's rows as the teacher does. Nothing is counted in eval mode.

    Args:
        rows: the teacher's embeddings of the training set, (G, D), not normalised; kept as they
            are, on the CPU or mapped from a file, and not part of a checkpoint. All are looked at
            once: NaN in one would come to light in the step that draws it.
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
        if not len(rows):
            raise ValueError("expected rows (G, D) of a floating-point type, got none")
        check_table("G", rows.detach())
        labels = check_pair_labels(labels, len(rows)).cpu()
        fprs = check_rates(fprs)
        (hard_fpr,) = check_rates(hard_fpr)
        check_weights(positive_weight, negative_weight)
        if any(fine >= coarse for coarse, fine in itertools.pairwise(fprs)):
            raise ValueError(f"rates must go from coarse to fine, got {fprs}")
        if (
            not are_numbers(temperature, decay)
            or not are_numbers(extrapolated, impostors, genuine, seed, whole=True)
            or not (temperature > 0 and 0 <= decay <= 1)
            or min(extrapolated, impostors, genuine - 1, seed) < 0
        ):
            raise ValueError(
                "expected temperature > 0, 0 <= decay <= 1, extrapolated >= 0, impostors >= 0 and "
                "genuine >= 1, seed >= 0, "
                f"got {temperature}, {decay}, {extrapolated}, {impostors}, {genuine}, {seed}"
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
        self._gallery = GalleryRows(rows.detach(), labels)
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
        if student_embeddings.shape[1] != self._gallery.rows.shape[1]:
            raise ValueError(
                f"the gallery has width {self._gallery.rows.shape[1]}, and the widths must agree; "
                f"got student {tuple(student_embeddings.shape)}"
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
        is_free = is_free_to_fetch(student)
        draw = generator_for(self.seed, 3, int(self.steps))  # `steps` is on the CPU
        # K rows for all, and M for each: cosines (N, K) and (N, M) in both nets.
        count = min(self.impostors, len(self._gallery.rows))
        drawn = torch.from_numpy(draw.choice(len(self._gallery.rows), count, replace=False))
        others = self._gallery.read(drawn, student)
        names = self._gallery.labels[drawn].to(labels.device, non_blocking=True)
        is_impostor = labels[:, None] != names
        own_places, is_genuine = self._own(labels, float(draw.random()))
        own = self._gallery.read(own_places, student)
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
        weights = self.positive_weight, self.negative_weight
        if is_free:
            pairs = [torch.cat([n[is_genuine], f[is_hard]]) for n, f in zip(near, far, strict=True)]
            num_genuine = int(is_genuine.sum())
            gap, slope = self._gaps(torch.stack(pairs))
            loss, slope, self.stats = weigh_gaps(gap, slope, num_genuine, weights)
            of_near = torch.zeros_like(near[0]).masked_scatter_(is_genuine, slope[:num_genuine])
            of_far = torch.zeros_like(far[0]).masked_scatter_(is_hard, slope[num_genuine:])
        else:
            joined = [torch.cat(both, dim=1).flatten() for both in zip(near, far, strict=True)]
            masks = [
                torch.cat([is_genuine, torch.zeros_like(is_hard)], dim=1).flatten(),
                torch.cat([torch.zeros_like(is_genuine), is_hard], dim=1).flatten(),
            ]
            gap, slope = self._gaps(torch.stack(joined))
            loss, slope, self.stats = weigh_masked(gap, slope, masks[0], masks[1], weights)
            slope, own_columns = slope.view(len(labels), -1), near[0].shape[1]
            of_near, of_far = slope[:, :own_columns], slope[:, own_columns:]
        return loss, of_far @ others + torch.einsum("nm,nmd->nd", of_near, own)

    def _gaps(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Gaps of pairs, (2, P), and their slopes, (P,) each."""
        levels = self._levels(self.fprs, extrapolated=self.extrapolated).to(pairs.dtype)
        rank, wanted, slope = ranks_of_all(pairs, levels, temperature=self.temperature)
        return rank - wanted, slope

    @torch.no_grad()
    def thresholds(self, fprs: Sequence[float], *, extrapolated: int = 0) -> Tensor:
        """Thresholds of student and teacher at the rates that both have seen enough pairs for.

        Args:
            fprs: rates, from coarse to fine.
            extrapolated: further levels, in steps as large as the last one between known levels.

        Returns:
            (2, L) float64; nothing is extrapolated from fewer than two levels.
        """
        found = self._levels(fprs, extrapolated=extrapolated)
        return found[:, found[0].isfinite()]

    def _levels(self, fprs: Sequence[float], *, extrapolated: int = 0) -> Tensor:
        """The same; where numbers are dear to fetch, all levels, infinite where not known."""
        counts = torch.stack([self.student_counts, self.teacher_counts])
        steps = torch.arange(1, extrapolated + 1, device=counts.device)
        if is_free_to_fetch(counts):
            found = histogram_thresholds(counts, fprs)
            if found.shape[1] < 2:
                return found
            last, step = found[:, -1:], found[:, -2:].diff(dim=1)
        else:
            found = histogram_levels(counts, fprs)
            if len(fprs) < 2:
                return found
            known = found[0].isfinite().sum().expand(2, 1)  # the first ones, from coarse to fine
            last = found.gather(1, (known - 1).clamp(min=0))
            step = last - found.gather(1, (known - 2).clamp(min=0))
            last = torch.where(known < 2, torch.inf, last)
            step = torch.where(known < 2, 0.0, step)
        return torch.cat([found, last + steps * step], dim=1)

    def _is_accepted(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Pairs (N, K) that either net accepts at `hard_fpr`."""
        found = self._levels([self.hard_fpr])
        if not found.shape[1]:
            return torch.zeros_like(student, dtype=torch.bool)
        # Not ">": a NaN takes part, so that the loss shows it.
        return ~(student <= found[0]) | ~(teacher <= found[1])

    def _own(self, labels: Tensor, shift: float) -> tuple[Tensor, Tensor]:
        """`GalleryRows.of_people`, at most `genuine` of each."""
        return self._gallery.of_people(labels, shift, most=self.genuine)

    def _apply(self, fn: Any, recurse: bool = True) -> GalleryEKDLoss:
        """Move buffers but `steps`, which the host reads in every step."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.steps = self.steps.cpu()
        return self
