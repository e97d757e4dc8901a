"""The heads whose margin is a fixed function of the angle; see `ekd_lite.heads` for the list."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ekd_lite.ops import are_numbers, check_tensors, is_free_to_fetch, unit_rows


class NormFace(nn.Module):
    """Cosine softmax without margin, and the base of the heads that have one.

    Args:
        embedding_dim: width D.
        num_identities: C, labels run from 0 to C - 1.
        scale: factor s. Cosines end at 1, so without it the softmax could never become sure.
        margin: m; may be changed between steps, e.g. ramped up at the start of training.

    Attributes:
        margins: the smallest and the largest margin, and their unit.

    Raises:
        ValueError: a size below 1, a scale that is not positive, or a margin out of `margins`.
    """

    margins: ClassVar[tuple[float, float, str]] = (0.0, math.inf, "not used")

    def __init__(
        self,
        embedding_dim: int,
        num_identities: int,
        *,
        scale: float = 64.0,
        margin: float = 0.0,
    ) -> None:
        super().__init__()
        whole = are_numbers(embedding_dim, num_identities, whole=True)
        if (
            not (whole and are_numbers(scale))
            or min(embedding_dim, num_identities) < 1
            or scale <= 0
        ):
            raise ValueError(
                "expected embedding_dim >= 1, num_identities >= 1 and scale > 0, "
                f"got {embedding_dim}, {num_identities} and {scale}"
            )
        self.check_margin(margin)
        self.scale = scale
        self.margin = margin
        self.prototypes = nn.Parameter(torch.empty(num_identities, embedding_dim))
        nn.init.normal_(self.prototypes, std=0.01)

    @classmethod
    def check_margin(cls, margin: float) -> None:
        """Raise a ValueError unless the margin lies in `margins`: one in degrees does not."""
        low, high, unit = cls.margins
        if not are_numbers(margin) or not low <= margin <= high:
            is_angle = unit == "radians" and are_numbers(margin) and margin > high
            hint = f" ({margin:g} degrees are {math.radians(margin):.3g})" if is_angle else ""
            raise ValueError(
                f"{cls.__name__}'s margin must lie in {low:g}..{high:.4g} ({unit}), "
                f"got {margin}{hint}"
            )

    def target(self, cosine: Tensor) -> Tensor:
        """What the true identity's cosine becomes, elementwise."""
        check_tensors(cosine=cosine)
        return cosine

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Cosine of every embedding with every prototype, (N, D) -> (N, C)."""
        check_head_input(embeddings, self.prototypes)
        with torch.autocast(embeddings.device.type, enabled=False):
            return unit_rows(embeddings) @ unit_rows(self.prototypes).T

    def cosine_logits(self, embeddings: Tensor) -> Tensor:
        """Logits s * cos(theta), no margin, (N, D) -> (N, C): what KD softens."""
        return self.scale * self.cosines(embeddings)

    def forward(
        self, embeddings: Tensor, labels: Tensor, *, cosines: Tensor | None = None
    ) -> Tensor:
        """Logits with the margin on the true identity.

        Args:
            embeddings: (N, D), not necessarily normalised.
            labels: (N,) int64 in 0..C-1.
            cosines: `self.cosines(embeddings)`, (N, C), if it is known already.

        Returns:
            Logits (N, C), to be given to `torch.nn.functional.cross_entropy` with the same labels.

        Raises:
            ValueError: wrong shapes, labels that are no integers, or (on the CPU, where looking is
                free) a label out of range.
        """
        cosines, index = self.checked_cosines(embeddings, labels, cosines)
        margined = self.target(cosines.gather(1, index))
        return self.scale * cosines.scatter(1, index, margined)

    def checked_cosines(
        self, embeddings: Tensor, labels: Tensor, cosines: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Cosines (N, C), and where the true identities' stand in them: (N, 1) of int64."""
        is_known = cosines is not None
        cosines = self.cosines(embeddings) if cosines is None else cosines
        check_tensors(embeddings=embeddings, cosines=cosines)
        wanted = (len(embeddings), self.prototypes.shape[0])
        if is_known and (tuple(cosines.shape) != wanted or not cosines.is_floating_point()):
            raise ValueError(
                f"expected cosines {wanted} in floating point, as head.cosines(embeddings) gives "
                f"them, got {tuple(cosines.shape)} of {cosines.dtype}"
            )
        check_labels(labels, len(embeddings), self.prototypes.shape[0])
        return cosines, labels[:, None].long()

    def extra_repr(self) -> str:
        """Show the options when printed."""
        num_identities, embedding_dim = self.prototypes.shape
        return f"{embedding_dim}, {num_identities}, scale={self.scale}, margin={self.margin}"


class SphereFace(NormFace):
    r"""cos(m theta), continued so that it falls from theta = 0 to pi.

    On k pi / m <= theta <= (k + 1) pi / m the target is psi = (-1)^k cos(m theta) - 2k. Alone it is
    too steep to train, so the paper mixes it with the plain cosine, (lambda cos(theta) + psi) /
    (1 + lambda), and lowers lambda from 1000 to 5 in training. Here lambda stays at its last value
    unless the caller changes it, and the scale s stands for the length of x as in all later heads.

    Args:
        embedding_dim: width D.
        num_identities: number C.
        scale: factor s.
        margin: m >= 1, a factor; the paper's is 4. While ramped up from 0 it counts as 1.
        blend: lambda.
    """

    margins = (1.0, 20.0, "a factor")

    def __init__(
        self,
        embedding_dim: int,
        num_identities: int,
        *,
        scale: float = 64.0,
        margin: float = 4.0,
        blend: float = 5.0,
    ) -> None:
        super().__init__(embedding_dim, num_identities, scale=scale, margin=margin)
        if not are_numbers(blend) or blend < 0:
            raise ValueError(f"expected blend >= 0, got {blend}")
        self.blend = blend

    def target(self, cosine: Tensor) -> Tensor:
        """(lambda cos(theta) + psi(theta)) / (1 + lambda)."""
        check_tensors(cosine=cosine)
        angle = max(self.margin, 1.0) * torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
        k = (angle.detach() / math.pi).floor()
        psi = (1 - 2 * (k % 2)) * torch.cos(angle) - 2 * k
        return (self.blend * cosine + psi) / (1 + self.blend)


class CosFace(NormFace):
    """cos(theta) - m on the true identity; m in units of the cosine."""

    margins = (0.0, 1.0, "units of the cosine")

    def __init__(
        self,
        embedding_dim: int,
        num_identities: int,
        *,
        scale: float = 64.0,
        margin: float = 0.35,
    ) -> None:
        super().__init__(embedding_dim, num_identities, scale=scale, margin=margin)

    def target(self, cosine: Tensor) -> Tensor:
        """cos(theta) - m."""
        check_tensors(cosine=cosine)
        return cosine - self.margin


class ArcFace(NormFace):
    """cos(theta + m) on the true identity; m in radians.

    Where theta + m would pass pi, cos(theta) - m sin(m) goes on falling, as in the authors' code.
    Unlike insightface's code, which computes the margin without gradient, the gradient is the exact
    one; and the cosine is kept 1e-6 away from +-1, where the slope of arccos is infinite and
    training would meet a NaN as soon as an embedding is parallel to its prototype.
    """

    margins = (0.0, math.pi, "radians")

    def __init__(
        self,
        embedding_dim: int,
        num_identities: int,
        *,
        scale: float = 64.0,
        margin: float = 0.5,
    ) -> None:
        super().__init__(embedding_dim, num_identities, scale=scale, margin=margin)

    def target(self, cosine: Tensor) -> Tensor:
        """cos(theta + m)."""
        return add_angle(cosine, self.margin)


def rotated_cosine(cosine: Tensor, margin: float | Tensor) -> Tensor:
    """cos(arccos(cosine) + margin) by the addition theorem; the margin may be one a row."""
    cosine = cosine.clamp(-1 + 1e-6, 1 - 1e-6)
    sine = (1 - cosine * cosine).sqrt()
    margin = torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device)
    return cosine * torch.cos(margin) - sine * torch.sin(margin)


def add_angle(cosine: Tensor, margin: float | Tensor) -> Tensor:
    """`rotated_cosine`, but falling on as cos(theta) - m sin(m) where theta + m would pass pi.

    Args:
        cosine: cos(theta), a tensor of any shape.
        margin: m in radians, a number or a tensor that broadcasts to that shape.
    """
    check_tensors(cosine=cosine)
    is_angle = isinstance(margin, Tensor) or (are_numbers(margin) and 0 <= margin <= math.pi)
    if not cosine.is_floating_point() or not is_angle:
        raise ValueError(
            "expected cosines in floating point and a margin from 0 to 3.142, in radians, got "
            f"{cosine.dtype} and {margin!r}"
        )
    margin = torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device)
    beyond = cosine - margin * torch.sin(margin)
    return torch.where(cosine > -torch.cos(margin), rotated_cosine(cosine, margin), beyond)


def check_head_input(embeddings: Tensor, prototypes: Tensor) -> None:
    """Raise a ValueError unless embeddings are (N, D), real, and no finer than the prototypes."""
    check_tensors(embeddings=embeddings)
    if embeddings.ndim != 2 or embeddings.shape[1] != prototypes.shape[1]:
        raise ValueError(
            f"expected embeddings (N, {prototypes.shape[1]}), got {tuple(embeddings.shape)}"
        )
    if not embeddings.is_floating_point():
        raise ValueError(f"expected embeddings in floating point, got {embeddings.dtype}")
    if embeddings.dtype == torch.float64 and prototypes.dtype != torch.float64:
        raise ValueError(
            f"the embeddings are float64 and the head's prototypes {prototypes.dtype}: hand over "
            "embeddings.float(), or call head.double()"
        )


def check_labels(labels: Tensor, num_rows: int, num_identities: int) -> None:
    """Raise a ValueError that names the first bad label; values are only looked at on the CPU."""
    check_tensors(labels=labels)
    is_whole = not labels.is_floating_point() and not labels.is_complex()
    if labels.shape != (num_rows,) or not is_whole or labels.dtype == torch.bool:
        raise ValueError(
            f"expected labels ({num_rows},) of int64, got {tuple(labels.shape)} of {labels.dtype}"
        )
    if is_free_to_fetch(labels) and num_rows:
        labels = labels.long()  # unsigned types compare with nothing
        bad = ((labels < 0) | (labels >= num_identities)).nonzero().flatten()
        if len(bad):
            raise ValueError(
                f"label {int(labels[bad[0]])} at position {int(bad[0])} is not in "
                f"0..{num_identities - 1} (the head has {num_identities} identities)"
            )
