"""Tensors, numpy arrays and lists as tensors, and checks of the indices asked for."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Indices: TypeAlias = Tensor | np.ndarray | Sequence[int]


def tensor_of(value: Any, name: str) -> Tensor:
    """A tensor, array or list as a tensor; a tensor is returned as it is.

    Raises:
        ValueError: it is none of these, or does not hold numbers.
    """
    if isinstance(value, Tensor):
        return value
    try:
        array = np.asarray(value)
        if array.dtype.kind in "OUSV":
            raise TypeError(f"its values are of {array.dtype}")
        # Of its own, since torch may write to it, and in the byte order of this machine.
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be a tensor, an array or a list of numbers, got "
            f"{type(value).__name__}: {error}"
        ) from None


def int64_tensor(value: Any, name: str, length: int | None = None) -> Tensor:
    """Whole numbers (N,) as an int64 tensor.

    Raises:
        ValueError: other numbers, another shape or another length.
    """
    tensor = tensor_of(value, name)
    kind, shape = tensor.dtype, tuple(tensor.shape)
    whole = not (kind.is_floating_point or kind.is_complex or kind == torch.bool) or shape == (0,)
    if not whole or tensor.ndim != 1 or (length is not None and length != len(tensor)):
        expected = "(N,)" if length is None else f"({length},)"
        raise ValueError(f"{name} must be int64 of shape {expected}, got {kind} {shape}")
    return tensor.long()


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


def index_tensor(indices: Indices, length: int) -> Tensor:
    """Checks a batch of indices and returns it as int64 `(B,)` on the CPU.

    Raises:
        IndexError: they are not integers, not one-dimensional, or not in 0..length-1.
    """
    try:
        index = tensor_of(indices, "indices").cpu()
    except ValueError as error:
        raise IndexError(str(error)) from None
    if index.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise IndexError(f"indices must be integers, got a tensor of {index.dtype}")
    if index.ndim != 1:
        raise IndexError(f"indices must have shape (B,), got {tuple(index.shape)}")
    index = index.long()
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= length:
        wrong = low if low < 0 else high
        raise IndexError(f"index {wrong} is out of range for a set of {length} images")
    return index
