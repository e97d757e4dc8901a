"""Every choice a training run makes, checked before anything starts."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ekd_lite.distill import parse_method
from ekd_lite.heads import HEADS
from ekd_lite.models import BACKBONES
from ekd_lite.ops import check_image_size, nearest_name


@dataclass(frozen=True)
class TrainConfig:
    """One run: a backbone under a margin head, alone or under a teacher.

    The defaults train the tiny student of the default experiment.
    """

    backbone: str = "tiny_student"
    """Name of the net, one of ekd_lite.models.BACKBONES."""
    embedding_dim: int = 128
    """Width D of the embedding."""
    image_size: int = 32
    """Side of the square images, pixels, a multiple of 16."""
    head: str = "arcface"
    """Name of the margin head, one of ekd_lite.heads.HEADS."""
    scale: float = 28.0
    """Scale s of the cosine logits; 64 is usual for many thousand identities."""
    margin: float = 0.4
    """Margin m: radians for ArcFace, cosine for CosFace."""
    method: str = "none"
    """Distillation: none, one of ekd_lite.distill.DISTILLERS, or several, as in ekd:2+fitnet."""
    teacher: str | None = None
    """File of the teacher (model.safetensors of its run); needed by every method but none."""
    steps: int = 1500
    """Optimizer steps."""
    general: int = 48
    """Random images a batch."""
    identities: int = 12
    """Identities in the balanced part of a batch."""
    images_per_identity: int = 4
    """Images of each of them."""
    identity_loss_on: Literal["all", "general"] = "all"
    """Images the margin softmax sees; the EKD authors give it only the general part."""
    flip: bool = False
    """Mirror half of the images. Not for procedural faces: a mole on the left cheek is identity."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with momentum 0.9."""
    learning_rate: float = 3e-3
    """Peak rate; rises over the warm-up, then falls to zero as a cosine."""
    weight_decay: float = 0.05
    """Not applied to batch-norm parameters, biases and other vectors."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises."""
    margin_ramp: float = 0.3
    """Share of the steps over which the margin rises from 0: at full size from the start, a small
    net may never begin to learn."""
    seed: int = 0
    """Of weights, batches and flips."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto: cuda where there is one."""
    workers: int = 0
    """Processes that read images ahead; 0 reads in the training process."""
    cache_teacher: bool = True
    """Embed the set once with the teacher instead of in every step."""
    log_every: int = 25
    """Steps between two lines of the log."""
    checkpoint_every: int = 250
    """Steps between two checkpoints."""

    def __post_init__(self) -> None:
        """Collect every problem and raise them as one ValueError."""
        problems = []
        for value, known, what in (
            (self.backbone, BACKBONES, "backbone"),
            (self.head, HEADS, "head"),
        ):
            if value not in known:
                problems.append(f"unknown {what} {value!r}{nearest_name(value, known)}")
        for check in (lambda: parse_method(self.method), lambda: check_image_size(self.image_size)):
            try:
                check()
            except ValueError as error:
                problems.append(str(error))
        if self.method != "none" and self.teacher is None:
            problems.append(f"method {self.method!r} needs a teacher (its model.safetensors)")
        problems += [
            f"{name} must be positive, got {getattr(self, name)}"
            for name in (
                *("embedding_dim", "scale", "steps", "learning_rate"),
                *("log_every", "checkpoint_every"),
            )
            if not 0 < getattr(self, name) < math.inf
        ]
        problems += [
            f"{name} must lie in [0, 1), got {getattr(self, name)}"
            for name in ("warmup", "margin_ramp")
            if not 0 <= getattr(self, name) < 1
        ]
        problems += [
            f"{name} must not be negative, got {getattr(self, name)}"
            for name in ("margin", "weight_decay", "seed", "workers")
            if not 0 <= getattr(self, name) < math.inf
        ]
        if problems:
            raise ValueError("bad training configuration:\n  " + "\n  ".join(problems))

    def to_json(self) -> str:
        """The configuration as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read `to_json` text back, with all checks."""
        values: dict[str, Any] = json.loads(text)
        return cls(**values)

    def differences(self, other: TrainConfig) -> list[str]:
        """One line for every field in which another configuration differs."""
        return [
            f"{name}: {mine!r} here, {getattr(other, name)!r} there"
            for name, mine in dataclasses.asdict(self).items()
            if mine != getattr(other, name)
        ]


def read_config(path: Path) -> TrainConfig:
    """Read a configuration file; a ValueError names the file and what is wrong with it."""
    try:
        return TrainConfig.from_json(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no training configuration: {error}") from error
