"""What metrics take: tensors, numpy arrays or lists, checked before any work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ekd_lite.ops import are_numbers
from ekd_lite.ops import check_finite as check_finite  # of rows, beside the others

Array: TypeAlias = Tensor | np.ndarray | Sequence[Any]
Levels: TypeAlias = float | Iterable[float] | Array  # one or several
"""A tensor on any device, a numpy array, or nested lists of numbers."""

_NARROW = {getattr(torch, name) for name in dir(torch) if name.startswith("float8_")}
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
CHUNK = 1024  # rows looked at, and held in float64, at a time


def as_tensor(name: str, values: Array) -> Tensor:
    """Real numbers of any kind as a tensor without gradient; a numpy array keeps its memory.

    Raises:
        ValueError: no numbers, ragged lists, masked entries, complex numbers, or a tensor that is
            sparse, quantized or of 8-bit floats.
    """
    if not isinstance(values, Tensor):
        if np.ma.is_masked(values):
            raise ValueError(f"{name} holds masked entries: leave those rows out")
        try:
            array = np.asarray(values)
            if array.dtype == object:  # a list of tensors, or ragged lists
                array = np.asarray([np.asarray(row) for row in values])
        except (TypeError, ValueError, RuntimeError):
            array = np.asarray(None)
        kind = array.dtype.kind
        if kind not in "biufc":
            raise ValueError(f"{name} must be a Tensor, a numpy array or a list of numbers")
        if kind == "u":
            array = array.astype(np.int64)
        elif array.dtype == np.longdouble or not array.dtype.isnative:
            array = array.astype(np.float64 if kind == "f" else np.dtype(array.dtype.name))
        if not array.flags.writeable or any(stride < 0 for stride in array.strides):
            array = array.copy()  # torch knows neither
        values = torch.from_numpy(array)
    if values.is_complex():
        raise ValueError(f"{name} must be real numbers, got {values.dtype}")
    is_plain = values.layout == torch.strided and not values.is_meta
    if not is_plain or values.is_quantized or values.dtype in _NARROW:
        form = values.dtype if is_plain else "meta" if values.is_meta else values.layout
        raise ValueError(f"{name} must be a dense Tensor of ordinary numbers, got {form}")
    if values.dtype in _UNSIGNED:  # which torch can neither compare nor sort
        values = values.long()
    return values.detach()


def as_rows(name: str, rows: Array) -> Tensor:
    """Embeddings (N, D) with D >= 1; their numbers are looked at later, in chunks."""
    rows = as_tensor(name, rows)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"expected {name} (N, D), got {tuple(rows.shape)}")
    return rows


def as_labels(name: str, labels: Array, count: int) -> Tensor:
    """Whole numbers (count,) as int64 on the CPU; floats are taken if they are whole.

    Raises:
        ValueError: another shape, or a number that is not whole (nothing is cut).
    """
    labels = as_tensor(name, labels).cpu()
    if labels.shape != (count,):
        raise ValueError(f"expected {name} ({count},), one a row, got {tuple(labels.shape)}")
    whole = labels.long()
    if labels.is_floating_point():
        bad = (~((labels == labels.round()) & (labels.abs() < 2**53))).nonzero().flatten()
        if len(bad):
            raise ValueError(
                f"{name} must be whole numbers, got {float(labels[bad[0]])} at {int(bad[0])}"
            )
    return whole


def as_flags(name: str, flags: Array) -> Tensor:
    """Booleans, whether they came as booleans or as 0 and 1."""
    flags = as_tensor(name, flags)
    if flags.dtype == torch.bool:
        return flags
    if not ((flags == 0) | (flags == 1)).all():
        raise ValueError(f"{name} must be boolean (or 0 and 1): True for the same identity")
    return flags.bool()


def as_levels(fprs: Levels) -> list[float]:
    """Check false-positive rates and return them as plain floats; one number is one level.

    A float32 tensor holds 1e-5 as 9.99999975e-06; it is read back as the decimal it stands for.
    """
    if isinstance(fprs, Iterable) and not isinstance(fprs, Tensor | np.ndarray | str):
        fprs = list(fprs)
    values = as_tensor("fprs", fprs).flatten()  # type: ignore[arg-type]
    if values.dtype == torch.float64:
        levels = values.tolist()
    else:
        levels = [float(f"{value:.7g}") for value in values.tolist()]
    if not levels or not all(0 < level <= 1 for level in levels):
        raise ValueError(f"fprs must be one or more rates in (0, 1], got {levels}")
    return levels


def as_level(name: str, rate: Levels) -> float:
    """Check one false-positive rate, and return it as a plain float."""
    levels = as_levels(rate)
    if len(levels) != 1:
        raise ValueError(f"{name} must be one rate in (0, 1], got {levels}")
    return levels[0]


def check_by(by: str) -> None:
    """Raise a ValueError unless genuine pairs are counted by "pair" or by "person"."""
    if by not in ("pair", "person"):
        raise ValueError(f'by must be "pair" or "person", got {by!r}')


def check_resampling(num_resamples: int, confidence: float, seed: int, *, least: int = 1) -> None:
    """Raise a ValueError unless a bootstrap can be made with these options."""
    if not are_numbers(num_resamples, whole=True) or num_resamples < least:
        raise ValueError(f"expected a whole num_resamples >= {least}, got {num_resamples!r}")
    check_confidence(confidence)
    check_seed(seed)


def check_confidence(confidence: float) -> None:
    """Raise a ValueError unless it is the share of an interval."""
    if not are_numbers(confidence) or not 0 < confidence < 1:
        raise ValueError(f"expected 0 < confidence < 1, got {confidence!r}")


def check_seed(seed: int) -> None:
    """Raise a ValueError unless draws can be replayed from it."""
    if not are_numbers(seed, whole=True) or seed < 0:
        raise ValueError(f"expected a whole seed >= 0, got {seed!r}")


def check_false_accepts(min_false_accepts: float) -> None:
    """Raise a ValueError unless it is a number of pairs."""
    if not are_numbers(min_false_accepts) or min_false_accepts < 0:
        raise ValueError(f"expected min_false_accepts >= 0, got {min_false_accepts!r}")
