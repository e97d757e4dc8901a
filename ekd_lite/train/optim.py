"""Optimizer, and learning rate and margin as plain functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from ekd_lite.train.config import TrainConfig
from ekd_lite.train.rowwise import RowwiseAdamW, RowwiseSGD


def build_optimizer(modules: Iterable[nn.Module], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over all parameters; vectors (batch norm, biases, PReLU) are not decayed.

    Of a parameter with a sparse gradient the rows in it alone are touched.

    Told apart by their shape, not by name: TFace looks for "bn" in the name and finds none of the
    36,992 batch-norm parameters of its IR_50.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # One launch for all parameters; on a CPU torch's loop, whose last bits recorded runs have.
    fused = True if parameters and all(p.device.type == "cuda" for p in parameters) else None
    if config.optimizer == "sgd":
        return RowwiseSGD(groups, lr=config.learning_rate, momentum=0.9, fused=fused)
    return RowwiseAdamW(groups, lr=config.learning_rate, fused=fused)


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Linear warm-up to the peak, then a cosine down to zero or a tenth at each milestone."""
    warmup = round(config.warmup * config.steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "step":
        passed = sum(step >= round(share * config.steps) for share in config.milestones)
        return config.learning_rate * 0.1**passed
    progress = (step - warmup) / max(1, config.steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def margin_at(step: int, config: TrainConfig) -> float:
    """Linear ramp of the margin from 0 to its full size."""
    ramp = config.margin_ramp * config.steps
    return config.margin * min(1.0, step / ramp) if ramp else config.margin
