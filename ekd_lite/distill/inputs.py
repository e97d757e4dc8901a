"""What every distillation loss does first: check its input, and leave half precision."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from ekd_lite.ops import are_numbers, check_tensors, is_free_to_fetch


def check_student_teacher(student: Tensor, teacher: Tensor, *, same_width: bool) -> None:
    """Raise a ValueError unless both are real tensors (N, D), one row an image (of one width)."""
    check_tensors(student=student, teacher=teacher)
    if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher):
        shapes = _shapes(student, teacher)
        raise ValueError(f"expected student (N, D) and teacher (N, D'), one row an image; {shapes}")
    if not (student.is_floating_point() and teacher.is_floating_point()):
        kinds = f"{student.dtype} and {teacher.dtype}"
        raise ValueError(f"expected student and teacher of a floating-point type, got {kinds}")
    if same_width and student.shape[1] != teacher.shape[1]:
        shapes = _shapes(student, teacher)
        raise ValueError(f"this loss compares columns, so the widths must agree; {shapes}")


def _shapes(student: Tensor, teacher: Tensor) -> str:
    return f"got student {tuple(student.shape)} and teacher {tuple(teacher.shape)}"


def check_pair_labels(labels: Tensor | None, num_rows: int) -> Tensor:
    """Raise a ValueError unless labels (N,) came along: a loss on pairs cannot do without."""
    if labels is None:
        raise ValueError("this loss needs labels (N,): it treats genuine and impostor pairs apart")
    check_tensors(labels=labels)
    if labels.shape != (num_rows,):
        raise ValueError(f"expected labels ({num_rows},), got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"expected labels of a type of whole numbers, got {labels.dtype}")
    return labels.long()


def check_rates(fprs: float | Iterable[float]) -> tuple[float, ...]:
    """False-positive rates as plain floats, one of them as a list of one; a ValueError for others.

    Raises:
        ValueError: no rate, or one that does not lie between 0 and 1.
    """
    try:
        given = np.atleast_1d(np.asarray(fprs))  # any form, one or many
    except (TypeError, ValueError):
        given = np.array([None])
    rates = tuple(given.astype(float).tolist()) if given.dtype.kind in "iuf" else ()
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise ValueError(f"fprs must be one or more rates between 0 and 1, got {fprs!r}")
    return rates


def check_weights(*weights: float) -> None:
    """Raise a ValueError unless the weights of a loss's parts are finite and not negative."""
    if not are_numbers(*weights) or min(weights) < 0:
        raise ValueError(f"expected weights >= 0, got {' and '.join(map(str, weights))}")


def check_flags(**flags: bool) -> None:
    """Raise a ValueError that names the first option that is neither True nor False."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ValueError(f"{name} must be True or False, got {flag!r}")


def check_finite_prototypes(prototypes: Tensor) -> None:
    """Raise a ValueError that names the first prototype with NaN or infinity in it."""
    bad = (~prototypes.isfinite().all(dim=1)).nonzero().flatten()
    if len(bad):
        raise ValueError(f"prototype {int(bad[0])} holds NaN or infinity ({len(bad)} such)")


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast: half-precision cosines and squares are too coarse to compare."""
    return torch.autocast(x.device.type, enabled=False)


def at_least_float(x: Tensor) -> Tensor:
    """Float64 stays, everything else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()


def zero_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Zero that still carries a graph, for a batch in which there is nothing to distil.

    NaN if an embedding is not finite.
    """
    return show_nan((at_least_float(student) * 0).sum(), student, teacher)


def show_nan(loss: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    """The loss, and NaN instead if an embedding of either net has no finite length.

    A comparison with NaN is false, so that a loss which sorts or selects would leave such a row out
    without a word: one with NaN in it, and one so long that `unit_rows` makes NaN of it. No value
    is fetched from a GPU.
    """
    with torch.no_grad():
        sides = [at_least_float(x.detach()) for x in (student, teacher)]
        if is_free_to_fetch(loss) and all(
            math.isfinite(torch.dot(x.flatten(), x.flatten()).item()) for x in sides
        ):
            return loss  # what follows would add 0; a sum over all rows may still overflow
        nothing = sum(((x * x).sum(dim=-1) * 0).sum(dtype=loss.dtype) for x in sides)
    return loss + nothing
