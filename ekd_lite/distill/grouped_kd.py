r"""GKD and DKD: KD's divergence by groups of classes (Zhao et al., AAAI 2023; CVPR 2022).

For each image the classes fall into a group G, its target and the n - 1 others that the *student*
finds most likely, and the rest R. With p the teacher's and q the student's softmax at temperature T
the divergence of KD is exactly

    KL(p || q) = binary + p_G * primary + p_R * secondary,

    binary     the divergence of the two masses (p_G, p_R),
    primary    that of the softmax inside G,      secondary    that inside R,

and the loss weighs the three anew, without the masses:

    L = T^2 * mean_i (b_binary * binary + b_primary * primary + b_secondary * secondary).

GKD: n = 0.117 C (the authors' 10,000 of 85,742), weights 1, 8, 0. DKD ("decoupled"): n = 1, so that
primary is zero; weights 1 for the target and 8 for the others: a sure teacher then no longer
silences what it knows of the wrong classes.

Differs from the authors' code (WisonZ/GKD 0c295cc, megvii-research/mdistiller a08d46f): logits are
s * cos(theta) without margin, as in `KDLoss`; theirs of GKD carry CosFace's. Masses are computed as
log-sums, so that a group of all classes is KD and not NaN, and a sure student gives no infinity. No
warm-up of the weight, no adaptive group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ekd_lite.distill.inputs import (
    at_least_float,
    check_pair_labels,
    check_student_teacher,
    full_precision,
    zero_loss,
)
from ekd_lite.heads.margin import check_labels
from ekd_lite.ops import are_numbers


class GroupedKDLoss(nn.Module):
    """KD with a weight of its own for each part of the divergence.

    Args:
        group: n, a whole number, or a share of the C classes as a float in (0, 1).
        binary: weight of the divergence between the masses of group and rest.
        primary: weight of the divergence inside the group.
        secondary: weight of the divergence inside the rest.
        temperature: T.
    """

    def __init__(
        self,
        *,
        group: float,
        binary: float = 1.0,
        primary: float = 8.0,
        secondary: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__()
        is_whole = isinstance(group, int) and group >= 1
        if not are_numbers(group) or not (is_whole or 0 < group < 1):
            raise ValueError(f"group must be a whole number >= 1 or a share in (0, 1), got {group}")
        if (
            not are_numbers(binary, primary, secondary, temperature)
            or min(binary, primary, secondary) < 0
            or temperature <= 0
        ):
            raise ValueError(
                "expected weights >= 0 and temperature > 0, "
                f"got {binary}, {primary}, {secondary} and {temperature}"
            )
        self.group = group
        self.binary = binary
        self.primary = primary
        self.secondary = secondary
        self.temperature = temperature

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """Compare logits of the same C identities.

        Args:
            student_logits: s * cos(theta), no margin, (N, C).
            teacher_logits: the same of the teacher, (N, C); gets no gradient.
            labels: identities, (N,) int64 in 0..C-1: each group holds the target.

        Returns:
            The loss, 0-dim; zero for an empty batch.

        Raises:
            ValueError: the shapes differ, no labels, or a label out of range.
        """
        check_student_teacher(student_logits, teacher_logits, same_width=True)
        labels = check_pair_labels(labels, len(student_logits))
        check_labels(labels, *student_logits.shape)
        if student_logits.numel() == 0:
            return zero_loss(student_logits, teacher_logits)
        with full_precision(student_logits):
            q = (at_least_float(student_logits) / self.temperature).log_softmax(1)
            p = (at_least_float(teacher_logits.detach()) / self.temperature).log_softmax(1)
            is_in = self.groups(student_logits, labels)
            loss = self.primary * _inside(p, q, is_in)
            # Without a rest binary and secondary are zero.
            if self._size(student_logits.shape[1]) < student_logits.shape[1]:
                rest = ~is_in
                loss = loss + self.secondary * _inside(p, q, rest)
                of_p, of_q = (
                    torch.stack([_log_mass(x, is_in), _log_mass(x, rest)], dim=1) for x in (p, q)
                )
                both = torch.ones_like(of_p, dtype=torch.bool)
                loss = loss + self.binary * _inside(of_p, of_q, both)
        return loss.mean() * self.temperature**2

    @torch.no_grad()
    def groups(self, student_logits: Tensor, labels: Tensor) -> Tensor:
        """The target and the n - 1 other classes with the largest logits, (N, C) booleans."""
        first = student_logits.detach().scatter(1, labels.long()[:, None], float("inf"))
        chosen = first.topk(self._size(student_logits.shape[1]), dim=1).indices
        return torch.zeros_like(first, dtype=torch.bool).scatter(1, chosen, True)

    def _size(self, num_classes: int) -> int:
        """How many classes a group holds: n, and never more than there are."""
        n = self.group if isinstance(self.group, int) else round(self.group * num_classes)
        return min(max(int(n), 1), num_classes)


def _log_mass(log_probability: Tensor, mask: Tensor) -> Tensor:
    """Logarithm of the probability inside the mask, (N,)."""
    return log_probability.masked_fill(~mask, -torch.inf).logsumexp(dim=1)


def _inside(p: Tensor, q: Tensor, mask: Tensor) -> Tensor:
    """Divergence of two distributions (N, C), given as logs, inside the mask alone: (N,)."""
    p = p - _log_mass(p, mask)[:, None]
    q = q - _log_mass(q, mask)[:, None]
    # Both factors are masked: outside the mask the first could be infinite, and inf * 0 is NaN.
    share = p.masked_fill(~mask, -torch.inf).exp()
    return (share * (p - q).masked_fill(~mask, 0)).sum(dim=1)
