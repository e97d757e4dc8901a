"""Everything that must survive a crash, in one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ekd_lite.distill import DISTILLERS, Setting, parse_method
from ekd_lite.heads import HEADS, NormFace
from ekd_lite.models import build_backbone
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.model_file import Model
from ekd_lite.train.optim import build_optimizer


@dataclass
class TrainState:
    """A run between two steps.

    The position in the data needs no field: batches, flips, learning rate and margin are functions
    of `step`, so restoring the step restores them all.

    Attributes:
        config: the run's configuration.
        backbone: the net in training.
        head: its margin head.
        distillers: name -> loss module; EKD keeps its running thresholds in it.
        optimizer: of all three.
        teacher: frozen, or None.
        step: steps done.
        seconds: time spent in them, over all restarts.
    """

    config: TrainConfig
    backbone: nn.Module
    head: NormFace
    distillers: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    teacher: Model | None
    step: int = 0
    seconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors, numbers and text: readable with `weights_only=True`."""
        state = {
            "config": self.config.to_json(),
            "step": self.step,
            "seconds": self.seconds,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        for name in ("backbone", "head", "distillers", "optimizer"):
            state[name] = getattr(self, name).state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state.

        Raises:
            ValueError: the state belongs to another configuration; every difference is named.
        """
        differences = self.config.differences(TrainConfig.from_json(state["config"]))
        if differences:
            raise ValueError(
                "the checkpoint belongs to another configuration:\n  "
                + "\n  ".join(differences)
                + "\ngo on with that configuration, or train into another folder"
            )
        for name in ("backbone", "head", "distillers", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]
        self.seconds = state["seconds"]
        torch.set_rng_state(state["rng"].cpu())
        if torch.cuda.is_available() and len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([rng.cpu() for rng in state["cuda_rng"]])


def build_state(
    config: TrainConfig, num_identities: int, teacher: Model | None, device: torch.device
) -> TrainState:
    """Fresh nets and optimizer; the seed decides every initial weight."""
    torch.manual_seed(config.seed)
    backbone = build_backbone(
        config.backbone, embedding_dim=config.embedding_dim, image_size=config.image_size
    )
    # Channels last is 1.3 to 1.7 times faster for these convolutions on a CPU.
    backbone = backbone.to(device)
    backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    head = HEADS[config.head](
        config.embedding_dim, num_identities, scale=config.scale, margin=config.margin
    ).to(device)
    distillers = nn.ModuleDict()
    if teacher is not None:
        setting = Setting(
            student_dim=config.embedding_dim,
            teacher_dim=teacher.info["embedding_dim"],
            teacher_prototypes=teacher.head.prototypes.detach(),
            scale=config.scale,
        )
        for name in parse_method(config.method):
            distillers[name] = DISTILLERS[name].build(setting)
    distillers.to(device)
    optimizer = build_optimizer([backbone, head, distillers], config)
    return TrainState(config, backbone, head, distillers, optimizer, teacher)
