"""What others' nets and tables give: one of several outputs, rows of numbers."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ekd_lite.data.faceset import people_keys


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


def checked_prototypes(prototypes: Any) -> tuple[Tensor | None, Tensor | None]:
    """A table of prototypes, and whose they are if they come by name."""
    if not isinstance(prototypes, Mapping):
        return None if prototypes is None else checked_table(prototypes, "prototypes"), None
    try:
        rows = torch.stack([torch.as_tensor(row) for row in prototypes.values()])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"prototypes by name must be rows of one width: {error}") from error
    names = [unicodedata.normalize("NFC", str(name)) for name in prototypes]
    return checked_table(rows, "prototypes"), people_keys(names)


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
