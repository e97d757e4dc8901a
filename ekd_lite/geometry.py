"""The unit sphere, on which every cosine head, loss and metric of this library works."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_rows(x: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Scale every row to length one, in float32 or better, with a finite gradient everywhere.

    A row shorter than `eps` has no direction: it becomes the zero vector and receives zero
    gradient, so that one dead embedding neither makes a NaN nor a gradient of size 1/eps. (With
    `torch.nn.functional.normalize` the gradient at a zero row is 5.5e12.) Half-precision input is
    computed in float32: bfloat16 cosines times a scale of 64 are wrong by 0.2.

    Args:
        x: rows to normalise, shape (N, D).
        eps: length under which a row counts as zero.

    Returns:
        Unit rows, shape (N, D), float64 if `x` is float64 and float32 otherwise.
    """
    x = x if x.dtype == torch.float64 else x.float()
    squared = (x * x).sum(dim=-1, keepdim=True)
    is_long = squared > eps * eps
    # The inner where keeps 1/sqrt(0) out of the graph; the outer one alone would give 0 * inf.
    length = torch.where(is_long, squared, 1.0).sqrt()
    return torch.where(is_long, x / length, 0.0)
