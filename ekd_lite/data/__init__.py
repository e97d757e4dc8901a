"""Images and labels: procedural faces, folders, packed caches, batches with genuine pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ekd_lite.data.folder import ImageFolder
from ekd_lite.data.sampler import IdentityBalancedSampler


class FaceSet(Protocol):
    """What training and evaluation ask of a set of faces; every set of this package offers it."""

    labels: Tensor
    """Identity of every image, (N,) int64 in 0..num_identities - 1."""
    image_size: int
    """Side of the square images, pixels."""

    @property
    def num_identities(self) -> int:
        """Number of identities."""
        ...

    def __len__(self) -> int:
        """Number N of images."""
        ...

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The images of some indices in [-1, 1], (B, 3, image_size, image_size) float32."""
        ...


__all__ = ["FaceSet", "IdentityBalancedSampler", "ImageFolder"]
