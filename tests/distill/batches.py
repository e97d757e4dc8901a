"""Batches for the tests of the distillation losses."""

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from ekd_lite.distill import Setting


def golden_batch(rows, dim):
    """The batch of METHODS 1.3: S = sin(0.37 (i+1)(j+1)), T = cos(0.23 (i+2)(j+1)), y = i // 4."""
    i = torch.arange(rows, dtype=torch.float64)[:, None]
    j = torch.arange(dim, dtype=torch.float64)
    student = torch.sin(0.37 * (i + 1) * (j + 1))
    return student, torch.cos(0.23 * (i + 2) * (j + 1)), torch.arange(rows) // 4


def random_batch(rows, dim, seed=0, identities=4):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, rows, dim, generator=generator, dtype=torch.float64)
    return student, teacher, torch.arange(rows) % identities


def near_duplicates(apart, offset):
    """A float32 batch with two images nearly the same in each net, far from the origin or not."""
    student, teacher, _ = random_batch(24, 32, seed=4)
    student[1] = student[0] + apart * student[5]
    teacher[3] = teacher[2] + apart * teacher[6]
    return (student + offset).float(), (teacher + offset).float()


@st.composite
def batches(draw, min_rows=0, max_rows=6, max_dim=4, min_dim=2):
    """Student and teacher (N, D) in float64 without ties, and labels from few identities."""
    rows = draw(st.integers(min_rows, max_rows))
    dim = draw(st.integers(min_dim, max_dim))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.03, 1.0, 30.0]))
    student, teacher = (torch.from_numpy(scale * rng.normal(size=(rows, dim))) for _ in range(2))
    labels = draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    return student, teacher, torch.tensor(labels, dtype=torch.int64)


def gallery(dim, rows=60, identities=4, seed=9):
    """Rows and labels of a set, float32."""
    return random_batch(rows, dim, seed=seed, identities=identities)[1].float(), torch.arange(
        rows
    ) % identities


def make_setting(dim, teacher_dim=None, prototypes=None, **options):
    """All that any method asks for."""
    teacher_dim = teacher_dim or dim
    if prototypes is None:
        prototypes = torch.cos(torch.arange(4.0)[:, None] * torch.arange(1.0, teacher_dim + 1))
    known: dict[str, Any] = {"num_identities": len(prototypes), "teacher_threshold": 0.3}
    known |= {"gallery": gallery(teacher_dim), **options}
    return Setting(dim, teacher_dim, prototypes, **known)
