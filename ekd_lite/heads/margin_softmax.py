r"""Margin softmax over (a share of) the identities in three matrix products and one N x C buffer.

With unit embeddings e_i, prototypes w_j of length |w_j| and cosines c_ij = e_i . w_j / |w_j|, the
loss is the mean over rows of

    L_i = log sum_j exp(l_ij) - l_iy,        l_ij = s c_ij, but l_iy = s T(c_iy).

Its gradient has a closed form. With p the softmax and G_ij = (p_ij - [j = y_i]) s / R, the true
entry times T'(c_iy),

    dL/de_i = sum_j G_ij w_j / |w_j|,
    dL/dw_j = (a_j - (a_j . w_j) w_j / |w_j|^2),    a_j = sum_i G_ij e_i / |w_j|.

So nothing but p need be kept: cosines, logits, softmax and G take one another's place in one
buffer, and the prototypes are never copied to be normalised: the columns of the product are scaled.
Plain autograd keeps four N x C matrices and two copies of the prototypes.

The columns may be those of one process: the sums over j then run over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ekd_lite.heads.margin import NormFace, check_head_input, check_labels
from ekd_lite.ops import fresh, product, unit_rows
from ekd_lite.parallel import max_over_ranks, sum_over_ranks

BLOCK = 128  # prototypes at a time
EPS = 1e-6  # as in unit_rows: a shorter prototype has no direction


def margin_softmax(
    unit: Tensor,
    prototypes: Tensor,
    *,
    row: Tensor,
    column: Tensor,
    target: Callable[[Tensor], Tensor],
    scale: float,
    is_here: Tensor | None = None,
    is_split: bool = True,
) -> Tensor:
    """Cross-entropy with a margin, the mean over rows.

    Args:
        unit: unit embeddings (R, D); the same on all processes.
        prototypes: of this process, (C, D), not normalised.
        row: rows whose true identity is among them, (M,); each row belongs to one process.
        column: the place of that identity, (M,).
        target: T, elementwise and differentiable.
        scale: factor s.
        is_here: which of the M count, (M,), where they were not picked out; None for all.
        is_split: the prototypes of other processes belong to the softmax; False where each process
            has all of them, and rows of its own.

    Returns:
        The loss, 0-dim, the same on all processes. The gradient of `unit` is this process's part;
        the sum over the processes is the whole.
    """
    loss: Tensor = _MarginSoftmax.apply(
        unit, prototypes, row, column, target, scale, is_here, is_split
    )  # type: ignore[no-untyped-call]
    return loss


class _MarginSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        unit: Tensor,
        prototypes: Tensor,
        row: Tensor,
        column: Tensor,
        target: Callable[[Tensor], Tensor],
        scale: float,
        is_here: Tensor | None,
        is_split: bool,
    ) -> Tensor:
        length = torch.linalg.vector_norm(prototypes, dim=1)
        inverse = torch.where(length <= EPS, 0.0, 1 / length)
        # Every pass over the buffer counts: the cosines get their length and the scale in one.
        buffer = product(unit, prototypes.T).mul_(scale * inverse)
        plain = buffer[row, column]
        own, slope = _target_and_slope(target, plain / scale)
        buffer[row, column] = (
            scale * own if is_here is None else torch.where(is_here, scale * own, plain)
        )
        peak = buffer.max(dim=1).values
        peak = max_over_ranks(peak) if is_split else peak
        buffer -= peak[:, None]
        true = torch.zeros_like(peak)
        own = buffer[row, column]
        true[row] = own if is_here is None else torch.where(is_here, own, 0.0)
        total = buffer.exp_().sum(dim=1)
        if is_split:
            total, true = sum_over_ranks(torch.stack([total, true])).unbind()
        ctx.scale = scale
        ctx.save_for_backward(unit, prototypes, inverse, buffer, total, row, column, slope, is_here)
        return (total.log() - true).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        unit, prototypes, inverse, buffer, total, row, column, slope, is_here = ctx.saved_tensors
        factor = grad * (ctx.scale / len(buffer))
        true = (buffer[row, column] / total[row] - 1) * slope
        room = fresh(*buffer.shape, dtype=buffer.dtype) if buffer.device.type == "cpu" else None
        buffer = torch.mul(buffer, (factor / total)[:, None], out=room)
        buffer.mul_(inverse)  # p s / R, by |w_j|
        own = true * inverse[column] * factor
        if is_here is not None:
            own = torch.where(is_here, own, buffer[row, column])
        buffer[row, column] = own
        grad_unit = buffer @ prototypes if ctx.needs_input_grad[0] else None
        grad_prototypes = None
        if ctx.needs_input_grad[1]:
            grad_prototypes = product(buffer.T, unit)
            # Some rows at a time stay in a cache, and all products of numbers need no room.
            step = BLOCK if grad_prototypes.device.type == "cpu" else len(prototypes)
            parts = (torch.split(x, step) for x in (grad_prototypes, prototypes, inverse))
            for rows, own, by in zip(*parts, strict=True):
                along = torch.linalg.vecdot(rows, own) * by.square()
                rows.addcmul_(own, along[:, None], value=-1)
        return grad_unit, grad_prototypes, None, None, None, None, None, None


def closed_form_loss(head: NormFace, embeddings: Tensor, labels: Tensor) -> Tensor:
    """`cross_entropy(head(embeddings, labels), labels)` by `margin_softmax`, of this process alone.

    Args:
        head: whose margin depends on the angle alone (`has_closed_form`).
        embeddings: (N, D), not normalised.
        labels: (N,).
    """
    check_head_input(embeddings, head.prototypes)
    check_labels(labels, len(embeddings), len(head.prototypes))
    with torch.autocast(embeddings.device.type, enabled=False):
        return margin_softmax(
            unit_rows(embeddings),
            head.prototypes,
            row=torch.arange(len(labels), device=labels.device),
            column=labels.long(),
            target=head.target,
            scale=head.scale,
            is_split=False,
        )


def has_closed_form(head: type[NormFace]) -> bool:
    """Whether a head changes nothing but the true identity's cosine, by a function of it alone."""
    names = "forward", "cosines", "checked_cosines"
    return all(getattr(head, name) is getattr(NormFace, name) for name in names)


def _target_and_slope(target: Callable[[Tensor], Tensor], cosine: Tensor) -> tuple[Tensor, Tensor]:
    """T(c) and T'(c)."""
    with torch.enable_grad():
        cosine = cosine.detach().requires_grad_(True)
        value = target(cosine)
        (slope,) = torch.autograd.grad(value.sum(), cosine)
    return value.detach(), slope
