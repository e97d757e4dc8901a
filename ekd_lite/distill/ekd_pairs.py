"""Parts of EKD: which pairs take part, their cosines with a sparse gradient, their soft ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def hardest_pairs(cosines: Tensor, last: Tensor, count: int) -> Tensor:
    """The `count` pairs of largest cosine, (N, N) -> index pairs (count, 2).

    Args:
        cosines: of the pairs that may be chosen; below -1 elsewhere.
        last: the `count`-th largest of them, 0-dim.
        count: how many.
    """
    flat = cosines.flatten()
    # Not "> last": a NaN counts as hardest, as in a sort, so that the loss shows it.
    harder = (~(flat <= last)).nonzero().flatten()
    # Pairs that tie with the last place fill up what the strictly harder ones leave.
    tied = (flat == last).nonzero().flatten()
    chosen = torch.cat([harder, tied])[:count]
    return torch.stack([chosen // len(cosines), chosen % len(cosines)], dim=1)


def soft_rank(similarity: Tensor, thresholds: Tensor, *, temperature: float) -> Tensor:
    """How many thresholds (L,) each similarity (P,) passes, softly: (P,) in 0..L.

    Written as 1 / (1 + exp(-z)) because `torch.sigmoid` computes its slope as y (1 - y), which is
    exactly 0 in float32 from z = 17 on, where the authors' form keeps a tail.
    """
    z = (similarity[:, None] - thresholds) / temperature
    return (1 / (1 + torch.exp(-z.clamp(-50, 50)))).sum(dim=1)


class PairCosine(torch.autograd.Function):
    """Cosines of some pairs of rows, known already, with a gradient that fills no N x N matrix.

    Some 2000 of N^2 / 2 pairs take part, so dL/dx = (C + C^T) x with a sparse C: at N = 2048 a
    tenth of the work that automatic differentiation makes of it.
    """

    @staticmethod
    def forward(ctx: Any, unit: Tensor, cosines: Tensor, pairs: Tensor) -> Tensor:
        """Unit rows (N, D), the cosines (P,) of index pairs (P, 2) -> the cosines (P,)."""
        ctx.save_for_backward(unit, pairs)
        return cosines.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Gradient of the rows; the cosines were computed without one."""
        unit, pairs = ctx.saved_tensors
        i, j = pairs.T
        size = (len(unit), len(unit))
        if len(unit) ** 2 < 64 * len(pairs):  # a small batch: most entries take part anyway
            weights = unit.new_zeros(size)
            weights[i, j] = grad
            weights[j, i] = grad
            return weights @ unit, None, None
        index = torch.cat([pairs.T, pairs.T.flip(0)], dim=1)
        both = torch.cat([grad, grad])
        weights = torch.sparse_coo_tensor(index, both, size, check_invariants=False)
        return torch.sparse.mm(weights, unit), None, None
