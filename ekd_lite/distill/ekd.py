r"""EKD: Evaluation-oriented Knowledge Distillation (Huang, Wu, Xu, Ding, CVPR 2022).

Student and teacher each get, from the impostor pairs of the batch, the thresholds at which their
own false-positive rate is 1e-1 ... 1e-6. A pair then has a *soft rank* in each net: how many
thresholds its similarity passes,

    R(a) = sum_m sigmoid((a - A_m) / tau)                                            (section 3.2)

and the loss asks that both nets give a pair the same rank, hence put it on the same side of every
threshold:

    L = w_pos * mean_{genuine} (R^S - R^T)^2  +  w_neg * mean_{hardest impostors} (R^S - R^T)^2.

Only the student's similarities carry gradient, and only within some 0.05 of a threshold; pairs
that both nets rank alike cost nothing.

`mode="official"` is the authors' code number for number (Tencent/TFace 171ec14,
`recognition/tasks/ekd/distillation/ekd.py`). `mode="corrected"` is the same loss with these mended:

* Thresholds start at their first value and are averaged without bias. The authors' start at 0 with
  weight 0.01 for new values: after 100 steps they stand at 63 % of the true threshold.
* A level that the batch cannot show (fewer than 1/FPR impostor pairs) is left out until a batch
  can. In the authors' code every such level becomes the hardest impostor of the batch, which then
  counts up to five times: with 64 images, 3 of the 6 thresholds coincide.
* A batch without genuine or without impostor pairs gives zero for that side, not NaN or an
  IndexError.

In both modes the thresholds are buffers, so that a checkpoint keeps them (the authors' resumed
runs start from 0 again). On the gathered batch of W processes the gradient is that of the whole
batch (`ekd_lite.parallel`); the authors' is W times it, so that their 0.02 acts like 0.16 on
8 GPUs.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ekd_lite.distill.ekd_pairs import (
    NO_PAIR,
    compare_ranks,
    genuine_pairs,
    hardest_pairs,
    pair_gradient,
    true_places,
    upper_cosines,
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
    false_accepts_on_device,
    masked_gradient,
    ranks_of_all,
    weigh_masked,
)
from ekd_lite.ops import are_numbers, false_accepts_at, is_free_to_fetch, largest, unit_rows


class EKDLoss(nn.Module):
    """Rank pairs as the teacher does. In evaluation mode the thresholds stay as they are.

    Args:
        fprs: false-positive rates of the L thresholds.
        temperature: tau, in units of the cosine.
        momentum: weight of the newest batch in the running thresholds.
        topk: K, how many impostor pairs take part: those the student finds most alike.
        positive_weight: w_pos, of genuine pairs.
        negative_weight: w_neg, of impostor pairs.
        mode: "corrected" or "official", see above.

    Attributes:
        student_thresholds: running thresholds of the student, (L,), a buffer.
        teacher_thresholds: the teacher's, (L,), a buffer.
        num_updates: how many batches each level has seen, (L,), a buffer.
        stats: of the last batch, 0-dim: "positive_loss" and "negative_loss" before their weights,
            "critical_share" of the compared pairs, whose ranks differ by more than a half.
    """

    student_thresholds: Tensor
    teacher_thresholds: Tensor
    num_updates: Tensor

    def __init__(
        self,
        *,
        fprs: float | Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
        temperature: float = 0.01,
        momentum: float = 0.01,
        topk: int = 2000,
        positive_weight: float = 0.02,
        negative_weight: float = 0.01,
        mode: Literal["corrected", "official"] = "corrected",
    ) -> None:
        super().__init__()
        if mode not in ("corrected", "official"):
            raise ValueError(f'mode must be "corrected" or "official", got {mode!r}')
        fprs = check_rates(fprs)
        is_whole = isinstance(topk, int) and topk >= 1
        is_possible = is_whole and are_numbers(topk, temperature, momentum)
        if not is_possible or not (temperature > 0 and 0 < momentum <= 1):
            raise ValueError(
                "expected temperature > 0, 0 < momentum <= 1 and a whole topk >= 1, "
                f"got {temperature}, {momentum} and {topk}"
            )
        check_weights(positive_weight, negative_weight)
        self.fprs = fprs
        self.temperature = temperature
        self.momentum = momentum
        self.topk = topk
        self.positive_weight = positive_weight
        self.negative_weight = negative_weight
        self.mode = mode
        self.stats: dict[str, Tensor] = {}
        self._is_new = True  # no step was made in this process
        self.register_buffer("student_thresholds", torch.zeros(len(fprs)))
        self.register_buffer("teacher_thresholds", torch.zeros(len(fprs)))
        self.register_buffer("num_updates", torch.zeros(len(fprs), dtype=torch.int64))

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Compare the two nets' ranks over all pairs of the batch.

        Args:
            student_embeddings: (N, D), not normalised.
            teacher_embeddings: (N, D'), any width; gets no gradient.
            labels: identities, (N,).

        Returns:
            The weighted loss, 0-dim. A batch without any pair gives zero.

        Raises:
            ValueError: wrong shapes or no labels; in official mode also (on the CPU, where looking
                is free) a batch without genuine or without impostor pairs, where the authors' code
                gives NaN or an IndexError.
        """
        check_student_teacher(student_embeddings, teacher_embeddings, same_width=False)
        labels = check_pair_labels(labels, len(student_embeddings))
        with full_precision(student_embeddings):
            student = unit_rows(student_embeddings)
            with torch.no_grad():
                cosines = upper_cosines(student), upper_cosines(unit_rows(teacher_embeddings))
                if is_free_to_fetch(student):
                    loss, slope, places = self._compare(*cosines, labels)
                    grad = pair_gradient(student, student, slope, places)
                else:
                    loss, slope = self._compare_masked(*cosines, labels)
                    grad = masked_gradient(student, student, slope)
            loss = with_gradient(loss, student, grad)
        return show_nan(loss, student_embeddings, teacher_embeddings)

    def _compare(
        self, student: Tensor, teacher: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, dL/dcosine (P,) and the places (P,) of the pairs, from cosines (N, N)."""
        genuine = genuine_pairs(labels)
        num_impostor = len(labels) * (len(labels) - 1) // 2 - len(genuine)
        if self.mode == "official" and not (len(genuine) and num_impostor):
            counts = f"{len(genuine)} genuine and {num_impostor} impostor pairs"
            raise ValueError(f"{counts}: the official loss needs both, mode='corrected' not")
        nets = student.flatten(), teacher.flatten()
        of_genuine = [cosines.index_select(0, genuine) for cosines in nets]
        for cosines in nets:
            cosines.index_fill_(0, genuine, NO_PAIR)  # from here on impostors only
        impostor = self._update(*nets, num_impostor)
        of_impostor = [cosines.index_select(0, impostor) for cosines in nets]
        parts = [
            own.to(student.dtype)
            for both in zip(of_genuine, of_impostor, strict=True)
            for own in both
        ]
        thresholds = torch.stack([self.student_thresholds, self.teacher_thresholds])
        loss, slope, self.stats = compare_ranks(
            torch.cat(parts).view(2, -1),
            len(genuine),
            thresholds.index_select(1, true_places(self.num_updates > 0)),
            temperature=self.temperature,
            weights=(self.positive_weight, self.negative_weight),
        )
        return loss, slope, torch.cat([genuine, impostor])

    def _compare_masked(
        self, student: Tensor, teacher: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss and dL/dcosine (N, N) from cosines (N, N); nothing is asked of the device."""
        pairs = len(labels) * (len(labels) - 1) // 2
        if not pairs:
            names = "positive_loss", "negative_loss", "critical_share"
            self.stats = {name: student.new_zeros(()) for name in names}
            return student.new_zeros(()), torch.zeros_like(student)
        is_upper = torch.ones_like(student, dtype=torch.bool).triu_(1)
        is_genuine = ((labels[:, None] == labels) & is_upper).flatten()
        nets = torch.stack([student, teacher.to(student.dtype)]).flatten(1)
        impostors = nets.masked_fill(is_genuine, NO_PAIR)
        count = min(self.topk, pairs)
        depth = max(count, *(min(pairs, false_accepts_at(f, pairs) + 1) for f in self.fprs))
        top, place = impostors[0].topk(depth)
        if self.training:
            if self._is_new:  # the first step may ask
                self._warn(_places_of_levels(self.fprs, pairs)[0], level=6)
            at = false_accepts_on_device(pairs - is_genuine.sum(), self.fprs)
            other = impostors[1].topk(depth).values
            # A NaN stands first; -2 does if there is no impostor.
            is_usable = (top[0] + other[0]).isfinite() & (top[0] > NO_PAIR / 2)
            self._average(torch.stack([top[at], other[at]]), is_usable & (at > self._lowest))
        is_hard = torch.zeros_like(is_genuine)
        is_hard.scatter_(0, place[:count], ~(top[:count] < NO_PAIR / 2))
        thresholds = torch.stack([self.student_thresholds, self.teacher_thresholds])
        thresholds = torch.where(self.num_updates > 0, thresholds, torch.inf)
        rank, wanted, slope = ranks_of_all(nets, thresholds, temperature=self.temperature)
        weights = self.positive_weight, self.negative_weight
        loss, slope, self.stats = weigh_masked(rank - wanted, slope, is_genuine, is_hard, weights)
        return loss, slope.view(student.shape)

    def _update(self, student: Tensor, teacher: Tensor, num_impostor: int) -> Tensor:
        """Average in the batch's thresholds; return the places of the hardest impostors (K,)."""
        count = min(self.topk, num_impostor)
        if count == 0:
            return torch.zeros(0, dtype=torch.int64, device=student.device)
        # Only the highest tenth need be in order: there lie the thresholds and the hardest pairs.
        ranks, at = _places_of_levels(self.fprs, num_impostor)
        depth, is_every = max(ranks) + 1, count == num_impostor
        top = largest(student, depth if is_every else max(depth, count))
        if self.training:
            if self._is_new:
                self._warn(ranks, level=7)
            other = largest(teacher, depth)
            # A NaN embedding must not outlive its batch in the running thresholds. It stands first.
            if math.isfinite(top[0].item() + other[0].item()):
                batch = [top.index_select(0, at), other.index_select(0, at).to(top.dtype)]
                self._average(torch.stack(batch), at > self._lowest)
        return hardest_pairs(student, 0.75 * NO_PAIR if is_every else top[count - 1], count)

    def _warn(self, ranks: Sequence[int], *, level: int) -> None:
        """Tell of levels that the first batch cannot show, at the line that called the loss."""
        self._is_new = False
        too_fine = [fpr for fpr, rank in zip(self.fprs, ranks, strict=True) if rank == 0]
        if self.mode == "corrected" and too_fine and not self.num_updates.any():
            warnings.warn(
                f"the first batch has too few impostor pairs for the FPR levels {too_fine}; "
                "EKD leaves a level out until a batch can show it",
                stacklevel=level,  # past Module.__call__
            )

    @property
    def _lowest(self) -> int:
        """A level takes part where its place among the impostors is above this."""
        return 0 if self.mode == "corrected" else -1

    def _average(self, batch: Tensor, use: Tensor) -> None:
        """One step of the running averages.

        Args:
            batch: thresholds of both nets in the batch, (2, L).
            use: which levels to average in, (L,).
        """
        student, teacher, num_updates = (
            self.student_thresholds, self.teacher_thresholds, self.num_updates
        )  # fmt: skip
        running = torch.stack([student, teacher])
        num_updates.add_(use)
        newest: Tensor | float = self.momentum
        if self.mode == "corrected":
            # mu / (1 - (1 - mu)^n): 1 for the first batch, then the unbiased running average.
            count = num_updates.clamp(min=1).to(running.dtype)
            newest = self.momentum / (1 - (1 - self.momentum) ** count)
        running = torch.where(use, running.lerp(batch.to(running.dtype), newest), running)
        student.copy_(running[0])
        teacher.copy_(running[1])


@functools.lru_cache(maxsize=64)
def _places_of_levels(fprs: tuple[float, ...], num_impostor: int) -> tuple[list[int], Tensor]:
    """Where the thresholds stand among sorted impostors, (L,), as numbers and on the CPU."""
    ranks = [false_accepts_at(fpr, num_impostor) for fpr in fprs]
    with torch.inference_mode(False):
        return ranks, torch.tensor(ranks)
