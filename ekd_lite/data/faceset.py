"""What training and evaluation ask of a set of faces; every set of this package offers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor


class FaceSet(Protocol):
    """N images of identities 0 .. num_identities - 1.

    Attributes:
        labels: identity of every image, (N,) int64.
        image_size: side of the square images, pixels.
    """

    labels: Tensor
    image_size: int

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


class CacheableFaceSet(FaceSet, Protocol):
    """A face set that can say what its pixels depend on."""

    def parameters(self) -> dict[str, Any]:
        """Everything the pixels depend on, as plain values: the key of a cache."""
        ...
