r"""AdaDistill: margin softmax on moving centres of the teacher (Boutros, Struc, Damer, ECCV 2024).

Every identity of the *student's* training set has a centre w_y, a running mean of the teacher's
unit embeddings t_i of its images. How far an image moves it depends on how well the student does:

    kappa_i = cos(s_i, t_i),   lambda_i = max(cos(w_{y_i}, t_i), eps)                (old centres)
    alpha_i = clamp(kappa_i lambda_i, eps, 1),   eps = 1e-6
    w_{y_i} <- alpha_i w_{y_i} + (1 - alpha_i) t_i                                   (no gradient)

A student far from its teacher is pulled to the teacher's embedding of this very image, one near to
it to the mean over the identity's images. Then the cross-entropy of scale * cos(s_i, w_k) with an
ArcFace or CosFace margin on the true class. It replaces the identity loss. It needs neither the
teacher's classifier nor the teacher's people, but labels and one width for both nets.

A centre is not made unit again after an update, only for the logits.

Differs from the authors' code (fdbtrs/AdaDistill 0842186):

* Several images of one identity in a batch: the authors' indexed assignment keeps one of them, and
  which one is undefined. Here `several="mean"` takes the mean of their updates, "in_order" makes
  them one after the other. With one image an identity all three are the same.
* Several processes: the authors' processes each move centres of their own, which then drift apart.
  Here every process moves them by the images of all, so that they stay equal; the cross-entropy is
  over this process's rows.
* Centres start at zero (cosine 0 until an identity is met) or at `start`; the authors' are random.
* The slope of arccos is finite at cosine 1, where the authors' gradient is NaN.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    check_flags,
    check_pair_labels,
    check_student_teacher,
    full_precision,
    show_nan,
    zero_loss,
)
from ekd_lite.heads import add_angle
from ekd_lite.heads.margin import check_labels
from ekd_lite.ops import are_numbers, check_tensors, unit_rows
from ekd_lite.parallel import gather_batch

EPS = 1e-6


class AdaDistillLoss(nn.Module):
    """Cross-entropy of margin logits on centres that follow the teacher. No update in eval mode.

    The centres move in place, for a table of them is large: call backward before the next batch.

    Args:
        num_identities: C, of the student's training set.
        width: D, of both nets' embeddings.
        scale: factor s of the logits.
        margin: m, radians for "arc", a cosine for "cos".
        kind: "arc", cos(theta + m), or "cos", cos(theta) - m.
        typical: alpha is kappa times lambda; if False, kappa alone.
        several: what several images of one identity in a batch do: the "mean" of their updates, or
            one after the other "in_order".
        start: centres to begin with, (C, D), such as the teacher's prototypes; zeros if left out.

    Attributes:
        centres: (C, D), a buffer.
        rows_by_label: names of buffers of which a batch changes the rows of its labels only, and
            on every process alike (`ekd_lite.train.undo`).
        stats: of the last batch, 0-dim: "alpha", the mean over its images.
    """

    rows_by_label: ClassVar[tuple[str, ...]] = ("centres",)
    centres: Tensor

    def __init__(
        self,
        num_identities: int,
        width: int,
        *,
        scale: float = 64.0,
        margin: float = 0.45,
        kind: Literal["arc", "cos"] = "arc",
        typical: bool = True,
        several: Literal["mean", "in_order"] = "mean",
        start: Tensor | None = None,
    ) -> None:
        super().__init__()
        most = math.pi if kind == "arc" else 1.0
        is_possible = are_numbers(num_identities, width, whole=True) and are_numbers(scale, margin)
        if (
            not is_possible
            or min(num_identities, width) < 1
            or not (scale > 0 and 0 <= margin <= most)
        ):
            raise ValueError(
                "expected num_identities >= 1, width >= 1, scale > 0 and a margin in "
                f"0..{most:.4g} ({'radians' if kind == 'arc' else 'units of the cosine'}), "
                f"got {num_identities}, {width}, {scale} and {margin}"
            )
        if kind not in ("arc", "cos") or several not in ("mean", "in_order"):
            raise ValueError(
                f'expected kind "arc" or "cos" and several "mean" or "in_order", got {kind!r} and '
                f"{several!r}"
            )
        check_flags(typical=typical)
        if start is None:
            start = torch.zeros(num_identities, width)
        check_tensors(start=start)
        if start.shape != (num_identities, width) or not start.isfinite().all():
            raise ValueError(
                f"expected finite start ({num_identities}, {width}), got {tuple(start.shape)}"
            )
        self.scale = scale
        self.margin = margin
        self.kind = kind
        self.typical = typical
        self.several = several
        self.stats: dict[str, Tensor] = {}
        self.register_buffer("centres", start.detach().clone())

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Move the centres of the batch's identities, and classify the student by all centres.

        Args:
            student_embeddings: (N, D), not normalised.
            teacher_embeddings: (N, D), of the same images; gets no gradient.
            labels: identities, (N,) int64 in 0..C-1.

        Returns:
            The loss, 0-dim; zero for an empty batch, which moves nothing.

        Raises:
            ValueError: wrong shapes, no labels, or a label out of range.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=True)
        labels = check_pair_labels(labels, len(student_embeddings))
        num_identities, width = self.centres.shape
        if student_embeddings.shape[1] != width:
            raise ValueError(
                f"the centres have width {width}, got student {tuple(student_embeddings.shape)}"
            )
        check_labels(labels, len(student_embeddings), num_identities)
        labels = labels.long()
        if len(student_embeddings) == 0:
            return zero_loss(student_embeddings, teacher_embeddings)
        with full_precision(student_embeddings):
            student = unit_rows(student_embeddings)
            teacher = unit_rows(teacher_embeddings.detach())
            if self.training:
                self._move(student.detach(), teacher, labels)
            centres = self.centres.to(student.dtype)
            length = centres.norm(dim=1)
            # Not unit_rows: the products are divided in place of the table, N C numbers for C D.
            cosine = student @ centres.T * torch.where(length > EPS, 1 / length, 0)
            own = labels[:, None]
            target = cosine.gather(1, own)
            target = add_angle(target, self.margin) if self.kind == "arc" else target - self.margin
            loss = F.cross_entropy(self.scale * cosine.scatter(1, own, target), labels)
            return show_nan(loss, student_embeddings, teacher_embeddings)

    @torch.no_grad()
    def _move(self, student: Tensor, teacher: Tensor, labels: Tensor) -> None:
        """Move the centres by the images of all processes."""
        s, t, y = (gather_batch(x) for x in (student, teacher, labels))
        kappa = torch.linalg.vecdot(s, t)
        is_same = y[:, None] == y
        place = is_same.tril(-1).sum(1)  # how many images of the same identity come before
        old = self.centres[y].to(s.dtype)
        if self.several == "mean":
            update, alpha = self._updated(old, t, kappa)
            weight = is_same.to(s.dtype)
            new = weight @ update / weight.sum(1, keepdim=True)
        else:
            new, alpha = old, torch.zeros_like(kappa)
            for turn in range(int(place.max()) + 1):
                now = place == turn
                update, current = self._updated(new, t, kappa)
                alpha = torch.where(now, current, alpha)
                # All rows of an identity see what its image of this turn made of the centre.
                source = (is_same & now).to(torch.int8).argmax(1)
                has = (is_same & now).any(1)
                new = torch.where(has[:, None], update[source], new)
        self.stats = {"alpha": alpha.mean()}
        # One row speaks for its identity, so that equal centres are equal to the last bit.
        new = new[is_same.to(torch.int8).argmax(1)]
        # A NaN shows in the loss, but must not outlive its batch in the centres.
        keep = torch.where(new.isfinite().all(1, keepdim=True), new, self.centres[y].to(new.dtype))
        self.centres.index_copy_(0, y, keep.to(self.centres.dtype))

    def _updated(self, old: Tensor, teacher: Tensor, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """The centre alpha w + (1 - alpha) t of every row, and alpha."""
        alpha = kappa
        if self.typical:
            # Not unit_rows: a centre of length zero has cosine 0, and so has it here.
            alpha = kappa * F.cosine_similarity(old, teacher, dim=1).clamp(min=EPS)
        alpha = alpha.clamp(EPS, 1)
        return alpha[:, None] * old + (1 - alpha[:, None]) * teacher, alpha
