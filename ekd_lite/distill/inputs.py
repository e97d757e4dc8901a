"""What every distillation loss does first: check its input, and leave half precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def check_student_teacher(student: Tensor, teacher: Tensor, *, same_width: bool) -> None:
    """Raise a ValueError unless both are 2-D with one row an image (and of one width)."""
    shapes = f"got student {tuple(student.shape)} and teacher {tuple(teacher.shape)}"
    if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher):
        raise ValueError(f"expected student (N, D) and teacher (N, D'), one row an image; {shapes}")
    if same_width and student.shape[1] != teacher.shape[1]:
        raise ValueError(f"this loss compares columns, so the widths must agree; {shapes}")


def check_pair_labels(labels: Tensor | None, num_rows: int) -> Tensor:
    """Raise a ValueError unless labels (N,) came along: a loss on pairs cannot do without."""
    if labels is None:
        raise ValueError("this loss needs labels (N,): it treats genuine and impostor pairs apart")
    if labels.shape != (num_rows,):
        raise ValueError(f"expected labels ({num_rows},), got {tuple(labels.shape)}")
    return labels


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast: half-precision cosines and squares are too coarse to compare."""
    return torch.autocast(x.device.type, enabled=False)


def at_least_float(x: Tensor) -> Tensor:
    """Float64 stays, everything else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()


def zero_loss(student: Tensor) -> Tensor:
    """Zero that still carries a graph, for a batch in which there is nothing to distil."""
    return (at_least_float(student) * 0).sum()
