"""What others' nets take and give: pixels on a scale of their own, one of several outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def plain_numbers(value: Any) -> Any:
    """A number or a tuple of numbers, of a tensor, an array or a list."""
    values = value.tolist() if isinstance(value, Tensor | np.ndarray) else value
    return tuple(values) if isinstance(values, list) else values


def affine(pixel_range: Any, mean: Any, std: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift (3, 1, 1) that take pixels from [-1, 1] to what the net wants."""
    try:
        low, high = (float(x) for x in pixel_range)
        parts = [torch.as_tensor(x, dtype=torch.float64).expand(3) for x in (mean, std)]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            "expected pixel_range as two numbers, mean and std as one number or three, got "
            f"{pixel_range!r}, {mean!r}, {std!r}"
        ) from error
    (average, spread), finite = parts, torch.tensor([low, high]).isfinite().all()
    if not (low < high and finite and average.isfinite().all() and (spread > 0).all()):
        raise ValueError(
            "pixel_range must rise, and std be positive, got "
            f"{pixel_range!r}, mean {mean!r}, std {std!r}"
        )
    scale = (high - low) / 2 / spread
    shift = ((high + low) / 2 - average) / spread
    return scale.float().view(3, 1, 1), shift.float().view(3, 1, 1)


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


def shape_differences(
    mine: Mapping[str, Any], theirs: Mapping[str, Any], here: str, there: str
) -> list[str]:
    """The first tensors that are missing, left over or misshapen, and how many there are.

    Args:
        mine: tensors, or their shapes, by name.
        theirs: the others.
        here: what a message calls the place of the first, such as "in the net".
        there: and that of the others.
    """

    def shape(tensors: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
        value = tensors.get(name)
        return None if value is None else tuple(getattr(value, "shape", value))

    pairs = {name: (shape(mine, name), shape(theirs, name)) for name in {**mine, **theirs}}
    lines = [
        f"{name} is {'nothing' if a is None else a} {here}, {'nothing' if b is None else b} {there}"
        for name, (a, b) in pairs.items()
        if a != b
    ]
    if len(lines) > 2:
        lines[0] = f"{len(lines)} tensors differ, such as {lines[0]}"
    return lines[:2]


def make_net(student: nn.Module | Callable[[], Any]) -> nn.Module:
    """The module itself, or what a function makes; a ValueError if that is none."""
    net: Any = student
    if not isinstance(student, nn.Module):
        if not callable(student):
            raise ValueError(
                "expected as student an nn.Module, or a function without arguments that makes one, "
                f"got {type(student).__name__}"
            )
        net = student()
    if not isinstance(net, nn.Module):
        raise ValueError(f"the student's function gives {type(net).__name__}, not an nn.Module")
    return net
