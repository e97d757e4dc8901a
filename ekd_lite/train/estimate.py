"""What a run will take, before it starts: memory by counting, time by doing a few small steps."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.heads import ArcFace
from ekd_lite.models import build_backbone
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.model_file import Model
from ekd_lite.train.state import build_state
from ekd_lite.train.step import Batch, train_step

PROBE_IDENTITIES = 10_000
PROBE_GALLERY = 24_000  # rows


@dataclass(frozen=True)
class Estimate:
    """Cost of a run, for one process.

    Attributes:
        parameters: of the student's backbone.
        prototype_parameters: of the head, the share of this process.
        state_bytes: weights, gradients and the optimizer's moments.
        activation_bytes: what the backward pass of a batch keeps, logits included.
        step_seconds: measured on this machine with a small batch and scaled to a whole one.
    """

    parameters: int
    prototype_parameters: int
    state_bytes: int
    activation_bytes: int
    step_seconds: float


def estimate(
    config: TrainConfig,
    *,
    num_identities: int,
    processes: int = 1,
    device: torch.device,
    teacher: Model | None = None,
    student: nn.Module | Callable[[], nn.Module] | None = None,
    repeats: int = 3,
    probe: int = 16,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """Estimate memory and time of one process of a run.

    Some steps are made with random images, a batch of at most `probe` of them and at most 10,000
    identities; time and activations are scaled to the batch of the configuration, and the logits,
    which grow with the identities, are added by count. Reading images and exchanging gradients are
    left out: on GPUs that share a fast link and with workers enough they overlap.

    Args:
        config: the run.
        num_identities: C.
        processes: W; with `partial_fc` each keeps C / W prototypes.
        device: where to measure.
        teacher: the teacher, if it is there; else one of 512 dimensions takes its place: random
            rows if its embeddings are cached, or an untrained net that is asked in every step, an
            IResNet-50 for large images and the demo's for small ones.
        student: a net of your own, as for `fit`.
        repeats: steps that are timed, after one to warm up.
        probe: images of a timed step. A whole batch tells the time of losses on pairs too, which
            grows faster than the batch.
        clock: what times them; `time.process_time` on a CPU that others use too.
    """
    batch = config.general + config.identities * config.images_per_identity
    probe = min(batch, probe)
    here = min(num_identities, PROBE_IDENTITIES)
    small = dataclasses.replace(
        config,
        partial_fc=0.0,
        general=probe,
        identities=0,
        compile=False,
        accumulate=1,
    )
    needs_teacher = config.method != "none"
    if needs_teacher and teacher is None:
        teacher = _stand_in(config, here)
    if teacher is not None:
        teacher = Model(
            teacher.backbone.to(device).requires_grad_(False),
            ArcFace(teacher.info["embedding_dim"], here, scale=config.scale).to(device),
            teacher.info,
        )
    gallery = None
    if any(DISTILLERS[name].needs_gallery for name in parse_method(config.method)):
        assert teacher is not None  # of a size at which a step costs what it will
        people = torch.arange(PROBE_GALLERY) // 24
        gallery = torch.randn(PROBE_GALLERY, teacher.info["embedding_dim"]), people
    state = build_state(
        small,
        here,
        teacher if needs_teacher else None,
        device,
        threshold=0.5 if config.teacher_threshold is None else None,
        gallery=gallery,
        student=student,
    )
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    seconds = []
    for step in range(repeats + 1):
        images = torch.randn(probe, 3, config.image_size, config.image_size, device=device)
        labels = torch.arange(probe, device=device) // 2 % here
        rows = None
        if needs_teacher and teacher is not None and config.cache_teacher:
            rows = _rows_of(labels, teacher.info["embedding_dim"])
        start = _now(device, clock)
        if needs_teacher and teacher is not None and rows is None:
            with torch.no_grad():
                rows = teacher.backbone(images)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # so small a batch cannot show EKD's levels
            if step == 0:
                with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                    state.objective(images, labels, rows)
            train_step(state, Batch(images, labels, rows))
        seconds.append(_now(device, clock) - start)
    parameters = sum(p.numel() for p in state.backbone.parameters())
    width = state.config.embedding_dim
    shard = -(-num_identities // processes) if config.partial_fc else num_identities
    moments = 1 if config.optimizer == "sgd" else 2
    everyone = processes if config.partial_fc else 1  # rows whose logits are on this process
    logits = 4 * batch * everyone * round(shard * (config.partial_fc or 1.0))
    # Weights that each process keeps of the activations of the probe do not grow with the batch.
    growing = max(0, kept - 4 * (parameters + here * width)) / probe
    return Estimate(
        parameters=parameters,
        prototype_parameters=shard * width,
        state_bytes=4 * (parameters + shard * width) * (2 + moments),
        activation_bytes=round(growing * batch) + 3 * logits,
        step_seconds=sorted(seconds[1:])[repeats // 2] * batch / probe * config.accumulate,
    )


def duration(hours: float) -> str:
    """Hours or minutes, in words."""
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _rows_of(labels: Tensor, dim: int) -> Tensor:
    """Rows of a cache, (N, dim): two images of one person have a cosine of some 0.7."""
    people = torch.randn(int(labels.max()) + 1, dim, device=labels.device)[labels]
    return people + 0.7 * torch.randn_like(people)


def _stand_in(config: TrainConfig, num_identities: int) -> Model:
    """An untrained teacher of the usual size; without a net if only its cached rows are asked."""
    same_width = any(DISTILLERS[name].needs_same_width for name in parse_method(config.method))
    dim = config.embedding_dim if same_width else 512
    backbone: nn.Module = nn.Identity()
    if not config.cache_teacher:
        name = "iresnet50" if config.image_size >= 112 else "tiny_teacher"
        backbone = build_backbone(name, embedding_dim=dim, image_size=config.image_size).eval()
    info: dict[str, Any] = {"embedding_dim": dim}
    return Model(backbone, ArcFace(dim, num_identities, scale=config.scale), info)


def _now(device: torch.device, clock: Callable[[], float]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()
