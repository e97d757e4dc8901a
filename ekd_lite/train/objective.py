"""What is minimised: images in, losses out. One module, so that one wrapper shares it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ekd_lite.distill import DISTILLERS, Distiller, parse_method
from ekd_lite.heads import NormFace, PartialFC
from ekd_lite.heads.margin_softmax import closed_form_loss, has_closed_form
from ekd_lite.ops import unit_rows
from ekd_lite.parallel import gather_batch
from ekd_lite.train.config import TrainConfig

MANY_IDENTITIES = 1 << 14
HALF = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Objective(nn.Module):
    """Identity loss and distillation losses of a batch.

    The backbone runs in the precision of the configuration, everything after it in float32. Losses
    that relate images to one another see the gathered batch of all processes.

    Args:
        config: of the run.
        backbone: the net in training.
        head: its margin head.
        distillers: name -> loss module.
        teacher_head: the teacher's, for methods that compare logits.
        methods: what the names stand for.
    """

    def __init__(
        self,
        config: TrainConfig,
        backbone: nn.Module,
        head: NormFace | PartialFC,
        distillers: nn.ModuleDict,
        teacher_head: NormFace | None,
        *,
        methods: Mapping[str, Distiller] = DISTILLERS,
    ) -> None:
        super().__init__()
        self.config = config
        self.weights = parse_method(config.method)
        self.methods = methods
        self.backbone = backbone
        self.distillers = distillers
        # In tuples, which torch does not register: DistributedDataParallel must neither average the
        # shards of a PartialFC over the processes nor look at the frozen teacher.
        self._head = (head,)
        self.needs_logits = any(self.methods[name].needs == "logits" for name in self.weights)
        self._teacher_logits = (
            frozen_logits(teacher_head) if self.needs_logits and teacher_head is not None else None
        )
        if isinstance(head, NormFace):
            self.head = head
        self.has_identity_loss = config.identity_weight > 0 and not any(
            self.methods[name].replaces_identity_loss for name in self.weights
        )
        if not self.has_identity_loss and not self.needs_logits:
            head.requires_grad_(False)  # no loss uses it

    def forward(
        self, images: Tensor, labels: Tensor, teacher_embeddings: Tensor | None
    ) -> dict[str, Tensor]:
        """The losses before their weights, 0-dim, and "loss", their weighted sum."""
        config, dtype = self.config, HALF[self.config.precision]
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            embeddings = self.backbone(images)
        embeddings = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
        (head,) = self._head
        cosines = None
        if self.needs_logits:  # the margin head's too, so that they are computed once
            assert isinstance(head, NormFace)
            cosines = head.cosines(embeddings)
        losses, total = {}, embeddings.new_zeros(())
        if self.has_identity_loss:
            seen = slice(config.general if config.identity_loss_on == "general" else None)
            known = None if cosines is None else cosines[seen]
            losses["identity"] = identity_loss(head, embeddings[seen], labels[seen], known)
            total = config.identity_weight * losses["identity"]
        if any(self.methods[name].compares_images for name in self.weights):
            assert teacher_embeddings is not None  # fit has seen to it
            gathered = tuple(map(gather_batch, (embeddings, teacher_embeddings, labels)))
        for name, weight in self.weights.items():
            assert teacher_embeddings is not None
            if self.methods[name].needs == "logits":
                assert isinstance(head, NormFace) and cosines is not None
                assert self._teacher_logits is not None
                teacher = self._teacher_logits(teacher_embeddings)
                losses[name] = self.distillers[name](head.scale * cosines, teacher, labels)
            elif self.methods[name].compares_images:
                losses[name] = self.distillers[name](*gathered)
            else:
                losses[name] = self.distillers[name](embeddings, teacher_embeddings, labels)
            total = total + weight * losses[name]
        return {**losses, "loss": total}


def identity_loss(
    head: NormFace | PartialFC, embeddings: Tensor, labels: Tensor, cosines: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the margin logits, the mean over the images, 0-dim.

    In closed form where nobody needs the logits and there are many identities: half the time and a
    third of the memory. With few it gains little, and recorded runs keep their last bits.
    """
    if isinstance(head, PartialFC):
        loss: Tensor = head(embeddings, labels)
        return loss
    is_large = len(head.prototypes) >= MANY_IDENTITIES
    if cosines is None and is_large and has_closed_form(type(head)):
        return closed_form_loss(head, embeddings, labels)
    return F.cross_entropy(head(embeddings, labels, cosines=cosines), labels)


def frozen_logits(head: NormFace) -> Callable[[Tensor], Tensor]:
    """`head.cosine_logits` for prototypes that will not change: they are normalised once."""
    prototypes = head.scale * unit_rows(head.prototypes.detach())

    def logits(embeddings: Tensor) -> Tensor:
        return unit_rows(embeddings) @ prototypes.T

    return logits
