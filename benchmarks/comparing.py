"""What it takes to compare a GPU with the CPU: how far off, with which products, on what inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ekd_lite import ops
from ekd_lite.heads import ArcFace
from ekd_lite.models import build_backbone
from ekd_lite.train import Batch, Model, TrainConfig, TrainState, build_state

CPU = torch.device("cpu")


def deviation(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference, in units of the largest number of its tensor; inf for NaN."""
    assert len(found) == len(wanted)
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        a, b = a.detach().to(CPU, torch.float64), b.detach().to(CPU, torch.float64)
        if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
            return float("inf")
        if a.numel():
            scale = b.abs().max().clamp(min=1e-9)
            worst = max(worst, float((a - b).abs().max() / scale))
    return worst


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Without TF32, whose products have eleven significant bits."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Losses and heads do on the CPU what they do where numbers are dear to fetch."""
    before = ops.FREE_TO_FETCH
    ops.FREE_TO_FETCH = frozenset()
    try:
        yield
    finally:
        ops.FREE_TO_FETCH = before


def alike(count: int, width: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher (N, D), float64, whose four images a person are alike, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) // 4
    centres = torch.randn(2, len(labels), width, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, count, width, generator=generator, dtype=torch.float64)
    student, teacher = centres[:, labels] + 0.7 * noise
    return student, teacher, labels


def small_state(
    method: str, device: torch.device, *, share: float = 0.0, **options: Any
) -> tuple[TrainState, Callable[[int], Batch]]:
    """A run of the tiny student on noise, and its batches by number."""
    count, width, people = 24, 16, 12
    _, rows, labels = alike(4 * people, width, seed=9)
    torch.manual_seed(0)
    teacher = None
    if method != "none":
        net = build_backbone("tiny_teacher", embedding_dim=width, image_size=32)
        teacher = Model(net, ArcFace(width, people), {"embedding_dim": width})
    config = TrainConfig(
        method=method, teacher=None if teacher is None else "in memory", image_size=32,
        embedding_dim=width, partial_fc=share, device=str(device), steps=200, margin_ramp=0.0,
        warmup=0.0, learning_rate=1e-3, **options,
    )  # fmt: skip
    state = build_state(
        config, people, teacher, device, threshold=0.5, gallery=(rows.float(), labels)
    )
    state.objective.train()

    def batch(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        who = torch.arange(count) // 2 % people
        images = 0.3 * torch.randn(count, 3, 32, 32, generator=generator)
        images += torch.linspace(-1, 1, people)[who][:, None, None, None]
        images = images.to(device, memory_format=torch.channels_last)
        return Batch(images, who.to(device), rows[4 * who + number % 4].float().to(device))

    return state, batch
