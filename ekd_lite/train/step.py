"""One step of training: what the book prints."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.train.optim import learning_rate_at, margin_at
from ekd_lite.train.state import TrainState


@dataclass
class Batch:
    """N images with what is known of them.

    Attributes:
        images: in [-1, 1], (N, 3, H, H).
        labels: identities, (N,) int64.
        teacher_embeddings: the teacher's, (N, D'); None without a teacher.
    """

    images: Tensor
    labels: Tensor
    teacher_embeddings: Tensor | None = None


def train_step(state: TrainState, batch: Batch) -> dict[str, Tensor]:
    """Loss, gradient, update.

    Args:
        state: changed in place; `state.step` grows by one.
        batch: on the device of the nets.

    Returns:
        The parts of the loss before their weights, 0-dim and detached, and "loss", their sum.

    Raises:
        FloatingPointError: the loss is not finite; raised before anything is changed.
    """
    config, weights = state.config, parse_method(state.config.method)
    state.head.margin = margin_at(state.step, config)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate_at(state.step, config)

    embeddings = state.backbone(batch.images)
    losses, total = {}, embeddings.new_zeros(())
    if not any(DISTILLERS[name].replaces_identity_loss for name in weights):
        seen = slice(config.general if config.identity_loss_on == "general" else None)
        logits = state.head(embeddings[seen], batch.labels[seen])
        losses["identity"] = total = F.cross_entropy(logits, batch.labels[seen])
    for name, weight in weights.items():
        student, teacher = embeddings, batch.teacher_embeddings
        assert state.teacher is not None and teacher is not None  # fit has seen to it
        if DISTILLERS[name].needs == "logits":
            student = state.head.cosine_logits(embeddings)
            teacher = state.teacher.head.cosine_logits(teacher)
        losses[name] = state.distillers[name](student, teacher, batch.labels)
        total = total + weight * losses[name]

    if not total.isfinite():
        parts = {name: float(loss.detach()) for name, loss in losses.items()}
        raise FloatingPointError(f"the loss of step {state.step} is not finite: {parts}")
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    state.optimizer.step()
    state.step += 1
    return {name: loss.detach() for name, loss in {**losses, "loss": total}.items()}
