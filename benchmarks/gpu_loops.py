"""The steps that `gpu` times: ours and a bare loop's; a net and a batch for the loop of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_peers import Task
from ekd_lite.heads import ArcFace
from ekd_lite.models import build_backbone
from ekd_lite.train import Batch, Model, TrainConfig, build_state, train_step
from ekd_lite.train.objective import HALF

SIZES = {False: (112, 512, 10_000), True: (32, 32, 50)}  # pixels, numbers, people; dry: the others


def random_batch(device: torch.device, count: int, dry: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels, and rows of a teacher."""
    size, width, people = SIZES[dry]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, size, size, generator=generator)
    images = images.to(device, memory_format=torch.channels_last)
    labels = (torch.arange(count) // 4 % people).to(device)
    return images, labels, torch.randn(count, width, generator=generator).to(device)


def peer_task(
    net: str, method: str, precision: str, device: torch.device, count: int, dry: bool
) -> Task:
    """A net of ours, and a batch, for another's loop."""
    size, width, people = SIZES[dry]
    name = "tiny_student" if dry else net
    backbone = build_backbone(name, embedding_dim=width, image_size=size).train()
    backbone = backbone.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Task(backbone, method, precision, *random_batch(device, count, dry), people)


def training_loops(
    net: str, method: str, precision: str, device: torch.device, count: int, dry: bool
) -> dict[str, Callable[[], object]]:
    """A step of ours, and one of a bare loop."""
    images, labels, rows = random_batch(device, count, dry)
    size, width, people = SIZES[dry]
    if dry:
        net = "tiny_student"
    teacher = None
    if method != "none":  # its rows are at hand: the net is never asked
        backbone = build_backbone("tiny_teacher", embedding_dim=width, image_size=32)
        teacher = Model(backbone, ArcFace(width, people), {"embedding_dim": width})
    options: dict[str, Any] = {
        "backbone": net, "image_size": size, "embedding_dim": width, "scale": 64.0,
        "precision": precision, "device": str(device), "steps": 100_000, "method": method,
        "teacher": None if teacher is None else "in memory",
    }  # fmt: skip
    ours, bare = (build_state(TrainConfig(**options), people, teacher, device) for _ in range(2))
    for state in (ours, bare):
        state.objective.train()
    batch = Batch(images, labels, None if teacher is None else rows)

    def plain_step() -> None:
        dtype = HALF[precision]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            embeddings = bare.backbone(images)
        embeddings = embeddings.float()
        logits = bare.head(embeddings, labels)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        for name, distiller in bare.distillers.items():
            loss = loss + bare.objective.weights[name] * distiller(embeddings, rows, labels)  # type: ignore[index]
        bare.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        bare.optimizer.step()

    return {"ours": lambda: train_step(ours, batch), "bare": plain_step}
