"""Checks of the indices that the face sets are asked for."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor


def one_index(index: int, length: int) -> int:
    """Checks one index; negative ones count from the end, as in a list.

    Raises:
        IndexError: it is not an integer or not in -length..length-1.
    """
    try:
        position = operator.index(index)
    except TypeError:
        raise IndexError(f"an index must be an integer, got {index!r}") from None
    if not -length <= position < length:
        raise IndexError(f"index {position} is out of range for a set of {length} images")
    return position % length


def index_tensor(indices: Tensor | Sequence[int], length: int) -> Tensor:
    """Checks a batch of indices and returns it as int64 `(B,)` on the CPU.

    Raises:
        IndexError: they are not integers, not one-dimensional, or not in 0..length-1.
    """
    index = torch.as_tensor(indices).cpu()
    if index.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise IndexError(f"indices must be integers, got a tensor of {index.dtype}")
    if index.ndim != 1:
        raise IndexError(f"indices must have shape (B,), got {tuple(index.shape)}")
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= length:
        wrong = low if low < 0 else high
        raise IndexError(f"index {wrong} is out of range for a set of {length} images")
    return index.long()
