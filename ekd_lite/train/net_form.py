"""What others' nets and tables give: one of several outputs, rows of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def chosen(found: Any, output: int | str) -> Any:
    """One of a net's outputs."""
    names: list[Any] = [0]
    if isinstance(found, Mapping):
        names = list(found)
        if output in names:
            return found[output]
        found = list(found.values())
    elif isinstance(found, str | Tensor):
        if output == 0:
            return found
    elif isinstance(output, str) and hasattr(found, output):
        return getattr(found, output)
    if isinstance(found, Sequence):
        if isinstance(output, int) and -len(found) <= output < len(found):
            return found[output]
        names = names if len(names) == len(found) else list(range(len(found)))
    raise ValueError(
        f"the net gives {type(found).__name__} with {', '.join(map(repr, names))}: there is no "
        f"output {output!r}"
    )


def checked_table(rows: Any, what: str) -> Tensor:
    """A table of numbers as it came, in floating point and two dimensions."""
    try:
        table = torch.as_tensor(rows).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what} are no table of numbers: {error}") from error
    if table.ndim != 2 or not table.is_floating_point() or 0 in table.shape:
        raise ValueError(
            f"expected {what} as (N, D) of a floating-point type, got {tuple(table.shape)} of "
            f"{table.dtype}"
        )
    if not table.isfinite().all():
        row = int((~table.isfinite().all(dim=1)).nonzero()[0])
        raise ValueError(f"{what} hold NaN or infinite numbers, first in row {row}")
    return table.cpu()
