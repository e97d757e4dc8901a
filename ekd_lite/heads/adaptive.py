"""Margin heads that watch the training: CurricularFace its progress, AdaFace the image quality."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ekd_lite.heads.margin import ArcFace, NormFace, rotated_cosine
from ekd_lite.ops import are_numbers, check_tensors
from ekd_lite.parallel import gather_batch


class CurricularFace(ArcFace):
    r"""ArcFace that turns to the hard impostors late in training (Huang et al., CVPR 2020).

    An impostor j is hard if cos(theta_j) > cos(theta_y + m). Its logit becomes

        s * cos(theta_j) (t + cos(theta_j)),

    where t, the running mean of cos(theta_y), measures how far training is: below 1 - cos it makes
    hard impostors cheaper, later dearer. In evaluation mode t rests. The authors' code weighs the
    newest batch by 0.01, TFace's by 0.1.

    Args:
        embedding_dim: width D.
        num_identities: number C.
        scale: factor s.
        margin: m, radians.
        momentum: weight of the newest batch in t.
    """

    progress: Tensor

    def __init__(
        self,
        embedding_dim: int,
        num_identities: int,
        *,
        scale: float = 64.0,
        margin: float = 0.5,
        momentum: float = 0.01,
    ) -> None:
        super().__init__(embedding_dim, num_identities, scale=scale, margin=margin)
        check_momentum(momentum)
        self.momentum = momentum
        self.register_buffer("progress", torch.zeros(()))

    def forward(
        self, embeddings: Tensor, labels: Tensor, *, cosines: Tensor | None = None
    ) -> Tensor:
        """Embeddings (N, D), labels (N,) -> logits (N, C), see `NormFace.forward`."""
        cosines, index = self.checked_cosines(embeddings, labels, cosines)
        own = cosines.gather(1, index)
        if self.training and len(own):
            with torch.no_grad():
                mean = gather_batch(own.detach()).mean()  # of all processes
                self.progress.lerp_(mean.to(self.progress.dtype), self.momentum)
        is_hard = cosines > rotated_cosine(own, self.margin)
        others = torch.where(is_hard, cosines * (self.progress + cosines), cosines)
        return self.scale * others.scatter(1, index, self.target(own))


class AdaFace(NormFace):
    r"""A margin that depends on the length of the embedding, a proxy of image quality.

    With z the length of the embedding, mu and sigma its running mean and standard deviation (Kim,
    Jain, Liu, CVPR 2022),

        q = clip(h (z - mu) / sigma, -1, 1),
        T(theta) = cos(theta - m q) - m (q + 1),

    so that a good image (q = 1) gets a margin that stresses hard samples, and an unrecognisable
    one (q = -1) is ArcFace's, which stresses the easy ones; q = 0 is CosFace. theta - m q is kept
    in 0..pi. q carries no gradient. In evaluation mode mu and sigma rest.

    The authors start at mu = 20, sigma = 100 with weight 0.01 for the newest batch; here the first
    1 / momentum batches are averaged evenly, which needs no guess of how long embeddings are.

    Args:
        embedding_dim: width D.
        num_identities: number C.
        scale: factor s.
        margin: the m above.
        concentration: h, how much of the lengths' spread lies within -1..1.
        momentum: weight of the newest batch in mu and sigma.
    """

    margins = (0.0, 1.0, "radians, and units of the cosine")

    length_mean: Tensor
    length_std: Tensor
    num_updates: Tensor

    def __init__(
        self,
        embedding_dim: int,
        num_identities: int,
        *,
        scale: float = 64.0,
        margin: float = 0.4,
        concentration: float = 0.333,
        momentum: float = 0.01,
    ) -> None:
        super().__init__(embedding_dim, num_identities, scale=scale, margin=margin)
        if not are_numbers(concentration) or concentration <= 0:
            raise ValueError(f"expected concentration > 0, got {concentration}")
        self.concentration = concentration
        check_momentum(momentum)
        self.momentum = momentum
        self.register_buffer("length_mean", torch.zeros(()))
        self.register_buffer("length_std", torch.zeros(()))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def quality(self, embeddings: Tensor) -> Tensor:
        """The q of every embedding, (N, D) -> (N, 1); updates mu and sigma in training."""
        check_tensors(embeddings=embeddings)
        # 0.001 and 100 as in the authors' code: one runaway length must not move the statistics.
        length = embeddings.to(self.prototypes.dtype).norm(dim=1, keepdim=True).clamp(1e-3, 100)
        if self.training and len(length):
            self.num_updates += 1
            newest = (1 / self.num_updates).clamp(min=self.momentum).to(length.dtype)
            joined = gather_batch(length)  # of all processes
            std = joined.std() if len(joined) > 1 else torch.zeros_like(self.length_std)
            self.length_mean.lerp_(joined.mean(), newest)
            self.length_std.lerp_(std, newest)
        relative: Tensor = (length - self.length_mean) / (self.length_std + 1e-3)
        return (self.concentration * relative).clamp(-1, 1)

    def forward(
        self, embeddings: Tensor, labels: Tensor, *, cosines: Tensor | None = None
    ) -> Tensor:
        """Embeddings (N, D), labels (N,) -> logits (N, C), see `NormFace.forward`."""
        cosines, index = self.checked_cosines(embeddings, labels, cosines)
        own = cosines.gather(1, index)
        quality = self.quality(embeddings)
        theta = torch.acos(own.clamp(-1 + 1e-6, 1 - 1e-6))
        turned = torch.cos((theta - self.margin * quality).clamp(0, math.pi))
        margined = turned - self.margin * (quality + 1)
        return self.scale * cosines.scatter(1, index, margined)


def check_momentum(momentum: float) -> None:
    """Raise a ValueError unless it is the weight of a batch in a running mean."""
    if not are_numbers(momentum) or not 0 < momentum <= 1:
        raise ValueError(f"expected 0 < momentum <= 1, got {momentum}")
